"""ComfyUI's page in a browser, used as a person uses it: mouse, keyboard, files dropped on the canvas."""

from __future__ import annotations

import base64
import json
import mimetypes
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfy_server import PACK_NAME, ComfyServer
from playwright.sync_api import ConsoleMessage, Locator, Page

JSON = dict[str, Any]

QUIET: JSON = {
    "Comfy.TutorialCompleted": True,  # no tour, no workflow of the host's own at the start
    "Comfy.Workflow.Persist": False,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.NodeSearchBoxImpl.FollowCursor": False,
    "LiteGraph.Node.TooltipDelay": 100,  # ms
}
"""Settings of a user who has been here before."""
READY = "() => window.app?.extensionManager?.setting && window.app.canvas && window.app.graph"
HOSTS_OWN = re.compile(
    r"/api/userdata|/user\.css"  # files that no user has yet
    r"|/templates/index|core workflow templates"  # another package of ComfyUI's
    r"|Content Security Policy|net::ERR_FAILED"  # other hosts; none can be reached from here
    r"|/docs/\w+/(en|zh|ja)\.md"  # tried before the page without a language
    r"|/api/jobs|Jobs API"  # of newer servers
    r"|primevue/autocomplete"  # the search box, when it is closed while somebody types
    r"|onChange .*/assets/index-|^Failed to fetch$|accessed before initialization"  # a page that is left while it loads
)
"""Errors that the page makes without the pack."""
NO_VEIL = ".p-blockui-mask { display: none }"
"""The page leaves its veil over everything when a file was read before the veil had faded in."""
ADD_STYLE = (
    "css => { document.head.append(document.createElement('style')); document.head.lastChild.textContent = css }"
)
SHORT = 30000.0
"""ms; how long the page may take to show what a click asks for."""


class Canvas:
    """One page on one server.

    vue: nodes are drawn with Vue ("Nodes 2.0"), not on the canvas. shots: the folder for screenshots; None takes none.
    """

    def __init__(self, page: Page, server: ComfyServer, *, vue: bool, shots: Path | None = None) -> None:
        self.page, self.server, self.vue, self.shots = page, server, vue, shots
        self._errors: list[str] = []
        page.add_init_script("localStorage.setItem('vueNodesBannerDismissed', 'true')")
        page.set_default_timeout(SHORT)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self._errors.append(str(error)))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._errors.append(f"{message.text} ({message.location.get('url', '').removeprefix(self.server.url)})")

    # --- the page -----------------------------------------------------------------------------------------------------

    def open(self, query: str = "", **settings: Any) -> None:  # noqa: ANN401 - values of settings
        """Load the page. `settings` are the host's, with "_" for "."; those not named are a quiet user's."""
        chosen = (
            QUIET
            | {"Comfy.VueNodes.Enabled": self.vue}
            | {name.replace("_", "."): value for name, value in settings.items()}
        )
        status, body = self.server.request("POST", "/api/settings", chosen)
        if status != 200:
            raise AssertionError(f"settings: {status} {body!r}")
        self.page.goto(self.server.url + query, wait_until="domcontentloaded", timeout=4 * SHORT)
        self.page.wait_for_function(READY, timeout=4 * SHORT)
        self.page.locator("#graph-canvas").wait_for()
        # not `add_style_tag`, which fails with whatever the page's own policy blocks at that moment
        self.page.evaluate(ADD_STYLE, NO_VEIL)

    def errors(self) -> list[str]:
        """What the page's console called an error since the last call, without what ComfyUI says on every start."""
        found, self._errors = self._errors, []
        return [line for line in found if not HOSTS_OWN.search(line)]

    def text(self) -> str:
        """All the words that the page shows outside the canvas."""
        return self.page.locator("body").inner_text()

    def shot(self, name: str, *, fit: bool = False) -> None:
        """A picture of the page, where one is wanted. fit: with the whole workflow in the window."""
        if self.shots is not None:
            if fit:
                self.fit()
            self.page.wait_for_timeout(300)  # ms; transitions end
            self.page.screenshot(path=self.shots / f"{name}.png")

    def escape(self) -> None:
        """Close what lies over the canvas."""
        for _ in range(2):
            self.page.keyboard.press("Escape")

    def js(self, code: str, argument: Any = None) -> Any:  # noqa: ANN401 - JSON
        return self.page.evaluate(code, argument)

    # --- workflows ----------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """An empty canvas."""
        self.escape()
        self.js("() => window.app.graph.clear()")

    def open_template(self, name: str) -> None:
        """Choose one of the pack's templates in the template browser and wait for its nodes."""
        self.clear()
        self.browse_templates()
        self.page.get_by_test_id(f"template-workflow-{name}").click()
        self.page.wait_for_function("() => window.app.graph.nodes.length > 0")

    def browse_templates(self) -> None:
        """Open the template browser at the pack's own."""
        self.js("() => void window.app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        self.page.get_by_role("dialog").get_by_text(PACK_NAME, exact=True).first.click()

    def drop(self, path: Path, x: int = 700, y: int = 850) -> None:
        """Drop a file on the canvas, at (x, y) px of the window, and wait for its nodes."""
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        self.js(
            """async ([name, kind, data, x, y]) => {
                const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0))
                const transfer = new DataTransfer()
                transfer.items.add(new File([bytes], name, {type: kind}))
                const where = document.elementFromPoint(x, y)
                for (const type of ['dragenter', 'dragover', 'drop'])
                    where.dispatchEvent(new DragEvent(type, {
                        dataTransfer: transfer, bubbles: true, cancelable: true, clientX: x, clientY: y}))
            }""",
            [path.name, kind, base64.b64encode(path.read_bytes()).decode(), x, y],
        )

    def drop_workflow(self, workflow: JSON, folder: Path, name: str = "workflow") -> None:
        """Drop a workflow of the page's own format and wait until it is there."""
        self.clear()
        path = folder / f"{name}.json"
        path.write_text(json.dumps(workflow))
        self.drop(path)
        self.wait_for_nodes(len(workflow["nodes"]))

    def wait_for_nodes(self, count: int) -> None:
        self.page.wait_for_function("count => window.app.graph.nodes.length === count", arg=count)

    def graph(self) -> JSON:
        """The workflow on the canvas as the page would save it."""
        return self.js("() => JSON.parse(JSON.stringify(window.app.graph.serialize()))")

    def prompt(self) -> JSON:
        """The workflow on the canvas as Run sends it: node id -> class_type, inputs."""
        return self.js("async () => JSON.parse(JSON.stringify((await window.app.graphToPrompt()).output))")

    def node_id(self, kind: str) -> int:
        """The id of the only node of this type."""
        (found,) = [node["id"] for node in self.graph()["nodes"] if node["type"] == kind]
        return found

    def set_widget(self, kind: str, name: str, value: Any) -> None:  # noqa: ANN401 - a widget's value
        """Give a widget of the only node of this type a value, as a change by hand does."""
        self.js(
            """([id, name, value]) => {
                const widget = window.app.graph.getNodeById(id).widgets.find(w => w.name === name)
                widget.value = value
                widget.callback?.(value)
            }""",
            [self.node_id(kind), name, value],
        )

    # --- places on the canvas -----------------------------------------------------------------------------------------

    def place(self, kind: str, widget: str = "") -> tuple[float, float]:
        """px of the window: the middle of a node's title, or of one of its widgets."""
        x, y = self.js(
            """([id, name]) => {
                const {graph, canvas} = window.app
                const node = graph.getNodeById(id)
                const widget = node.widgets?.find(w => w.name === name)
                const at = widget
                    ? [node.pos[0] + node.size[0] / 3, node.pos[1] + widget.last_y + 10]
                    : [node.pos[0] + node.size[0] / 2, node.pos[1] - 12]
                const box = canvas.canvas.getBoundingClientRect()
                return [0, 1].map(i => (at[i] + canvas.ds.offset[i]) * canvas.ds.scale + [box.left, box.top][i])
            }""",
            [self.node_id(kind), widget],
        )
        return x, y

    def look_at(self, kind: str) -> None:
        """Bring a node into the middle of the window."""
        self.js(
            """id => {
                const {graph, canvas} = window.app
                canvas.ds.scale = 1
                canvas.centerOnNode(graph.getNodeById(id))
                canvas.draw(true, true)
            }""",
            self.node_id(kind),
        )
        self.page.wait_for_timeout(100)  # ms; widgets learn where they are when they are drawn

    def fit(self) -> None:
        """The whole workflow in the window."""
        self.js("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.page.wait_for_timeout(500)  # ms; the view moves there

    def add(self, kind: str) -> None:
        """A node of this type in the middle of the window, alone on the canvas."""
        self.clear()
        self.js("kind => window.app.graph.add(window.LiteGraph.createNode(kind))", kind)
        self.look_at(kind)

    def hover(self, kind: str, widget: str, text: str) -> None:
        """Point at a widget and wait until its tooltip says `text`."""
        self.page.mouse.move(5, 5)
        if self.vue:
            label = re.compile(rf"^\s*{re.escape(self._label(kind, widget))}\s*$")
            self.vue_node(kind).get_by_test_id("widget-layout-field-label").filter(has_text=label).hover()
        else:
            self.page.mouse.move(*self.place(kind, widget), steps=3)
        self.page.locator(".node-tooltip, .p-tooltip-text", has_text=text).first.wait_for()

    def _label(self, kind: str, widget: str) -> str:
        """What a widget is called on the node."""
        code = """([id, name]) => {
            const widget = window.app.graph.getNodeById(id).widgets.find(w => w.name === name)
            return widget.label ?? name
        }"""
        return self.js(code, [self.node_id(kind), widget])

    def vue_node(self, kind: str) -> Locator:
        """The only node of this type, where Vue draws it."""
        return self.page.locator(f"[data-node-id='{self.node_id(kind)}']")

    def help_of(self, kind: str) -> str:
        """What the help panel says, opened with the button above a selected node."""
        if self.vue:
            self.vue_node(kind).get_by_test_id("node-title").click()
        else:
            self.page.mouse.click(*self.place(kind))
        self.page.get_by_test_id("info-button").click()
        panel = self.page.locator(".node-help-content")
        panel.locator("li, p").first.wait_for()
        return panel.inner_text()

    # --- the search box -----------------------------------------------------------------------------------------------

    @contextmanager
    def search_box(self) -> Iterator[None]:
        """As a double click on empty canvas opens it, which a slow page may take for two clicks."""
        self.clear()
        self.js("() => void window.app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
        self.page.locator("input:focus").wait_for()
        yield
        self.escape()

    def search(self, words: str, wanted: Callable[[list[str]], bool]) -> list[str]:
        """What the open search box offers for these words: the text of each result, best first.

        The box waits for a pause in the typing and shows the results of before until then: the answer is the first one
        that is as `wanted`, or what it shows in the end.
        """
        self.page.locator("input:focus").fill(words)
        last = time.monotonic() + SHORT / 1000
        while True:
            self.page.wait_for_timeout(400)  # ms
            results = self.page.locator(".option-container").all_inner_texts()
            if wanted(results) or time.monotonic() > last:
                return results

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Press Run."""
        self.page.get_by_role("button", name="Run", exact=True).first.click()

    def wait_for_picture(self, kind: str) -> None:
        """Until the only node of this type shows a picture that has been loaded."""
        self.page.wait_for_function(
            "id => window.app.graph.getNodeById(id).imgs?.some(image => image.naturalWidth > 0)",
            arg=self.node_id(kind),
            timeout=4 * SHORT,
        )

    def shows_picture(self, kind: str) -> bool:
        """Whether the only node of this type shows a picture."""
        return self.js("id => !!window.app.graph.getNodeById(id).imgs?.length", self.node_id(kind))

    def wait_for_words(self, words: str) -> None:
        """Until the page shows these words outside the canvas, where it must behind its button "View details"."""
        details, found = self.page.get_by_test_id("error-overlay-see-errors"), self.page.get_by_text(words)
        details.or_(found).first.wait_for()
        if details.is_visible():
            details.click()
        found.first.wait_for()

    def cancel(self) -> float:
        """Press Cancel; seconds until the server has nothing to do."""
        self.page.get_by_role("button", name="Cancel current run").first.click()
        start = time.monotonic()
        self.wait_until_idle()
        return time.monotonic() - start

    def wait_until_busy(self, timeout: float = 20.0) -> None:
        self._wait_for_queue(running=True, timeout=timeout)

    def wait_until_idle(self, timeout: float = 60.0) -> None:
        self._wait_for_queue(running=False, timeout=timeout)

    def _wait_for_queue(self, *, running: bool, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            queue = self.server.get("/queue")
            if bool(queue["queue_running"] or queue["queue_pending"]) == running:
                return
            self.page.wait_for_timeout(20)  # ms
        raise AssertionError(f"the queue is not {'running' if running else 'empty'} after {timeout:.0f} s")
