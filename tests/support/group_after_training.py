"""`python -m train`, and then what is left of the processes' group."""

import sys

import torch.distributed as dist
from accelerate import PartialState

from train.__main__ import main

status = main(sys.argv[1:])
sys.stdout.write(f"trained by {PartialState().num_processes}; still in a group: {dist.is_initialized()}\n")
sys.exit(status)
