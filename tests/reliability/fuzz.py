"""The readers of configurations, headers, PEFT folders, layer patterns and JSON, fuzzed by coverage.

    pip install atheris          # not among the dependencies
    python -m tests.reliability.fuzz FOLDER -max_total_time=600 -timeout=10 -rss_limit_mb=2048 -max_len=6000

FOLDER keeps what reached new code; the arguments behind it are libFuzzer's. An input's first byte says which reader
gets the rest. `test_fuzz_seeds.py` runs what ten minutes have found, which lies in fuzz_seeds.json, without atheris.
"""

from __future__ import annotations

import base64
import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

SEEDS = Path(__file__).with_name("fuzz_seeds.json")
READERS = 5


def seeds() -> list[bytes]:
    """The inputs that are kept."""
    return [base64.b64decode(text) for text in json.loads(SEEDS.read_text(encoding="ascii"))]


def keep(folder: Path) -> None:
    """Write the inputs of a folder to SEEDS."""
    found = sorted({path.read_bytes() for path in folder.iterdir()}, key=lambda data: (data[:1], len(data), data))
    text = json.dumps([base64.b64encode(data).decode() for data in found], indent=0)
    SEEDS.write_text(text + "\n", encoding="ascii")


def target(folder: Path) -> Callable[[bytes], None]:
    """What is fuzzed: raises where a reader does not end in a value or in one line of AlloSR2Error."""
    from allosr2_core.adapters.layer_patterns import LayerPattern
    from allosr2_core.bases.peft_folder import CONFIG_FILE
    from allosr2_core.bases.peft_import import read_peft_transformer
    from allosr2_core.checkpoint.format import CONFIG_KEY, load_checkpoint
    from allosr2_core.errors import AlloSR2Error
    from allosr2_core.foreign_json import parse_json
    from tests.support.peft_folders import FLUX, PROJ, Q, pair, write

    from .checkpoints import good, joined, split

    header, tensors = split(good())
    adapter, path = folder / "adapter", folder / "a.safetensors"
    adapter.mkdir()
    write(adapter, pair(Q) | pair(PROJ))

    def run(data: bytes) -> None:
        reader, rest = data[0] % READERS if data else 0, data[1:]
        text = rest.decode("utf-8", "replace")
        try:
            if reader == 0:
                metadata = header["__metadata__"] | {CONFIG_KEY: text}
                path.write_bytes(joined(header | {"__metadata__": metadata}, tensors))
                load_checkpoint(path)
            elif reader == 1:
                path.write_bytes(len(rest).to_bytes(8, "little") + rest + tensors)
                load_checkpoint(path)
            elif reader == 2:
                (adapter / CONFIG_FILE).write_bytes(rest)
                read_peft_transformer(adapter, FLUX)
            elif reader == 3:
                pattern, _, name = text.partition("\0")
                LayerPattern(pattern).fits_end(name)
            else:
                parse_json(text, "fuzzed")
        except AlloSR2Error as error:
            assert "\n" not in str(error) and 10 < len(str(error)) <= 1500, str(error)

    return run


def main() -> None:
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(include=["allosr2_core"]):
        for name in ("checkpoint.format", "bases.peft_import", "adapters.layer_patterns", "foreign_json"):
            importlib.import_module(f"allosr2_core.{name}")
    corpus = Path(sys.argv[1])
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(data)
    with tempfile.TemporaryDirectory() as folder:
        atheris.Setup([sys.argv[0], *sys.argv[2:], str(corpus)], target(Path(folder)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
