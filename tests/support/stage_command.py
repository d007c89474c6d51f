"""`python -m tests.support.stage_command STAGE ...`: as `python -m train`, but the first stage needs no download."""

import sys
from pathlib import Path

from tests.support.tiny_training import run_autoencoder
from train.__main__ import main

if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    stage, flag, path, *options = sys.argv[1:]
    if stage == "autoencoder" and flag == "--config":
        raise SystemExit(run_autoencoder(Path(path), *options))
    raise SystemExit(main(sys.argv[1:]))
