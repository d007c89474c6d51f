"""`python -m allosr2_core`: the command line, see cli/main.py."""

import signal
import sys


def run() -> int:
    """The exit code. While torch is loaded, which takes seconds, Ctrl-C ends the process as it ends any program."""
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where a parent had it ignored
    if handled:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .cli.main import main

    if handled:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
