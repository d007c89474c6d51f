"""The trainer: makes checkpoints the nodes and the command line can load. Run `python -m train --help`."""
