"""The quick size of the server's suite: two clients, mixed sizes, prompts that nobody sends."""

from .server import run


def test_no_prompt_fails_and_the_server_lives() -> None:
    counted = run(full=False)
    assert counted.tried > 30 and (counted.failed, counted.lost) == (0, 0), "\n".join(counted.said)
