"""A frozen base spread over the processes of a run (FSDP2), for cards that cannot hold it alone.

Only what is frozen is spread: each block's weights are gathered when the block runs and dropped after it. The trained
branches are small beside it and whole in every process, so optimiser, average, clipping and files are those of
any run, and DistributedDataParallel adds up their gradients as it does without.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def shard_frozen(blocks: Sequence[nn.Module], device: torch.device) -> None:
    """Move blocks to `device`, one at a time, and keep this process's share of their frozen weights.

    Needs an initialised process group. Blocks must be run by calling them, and by all processes alike.
    """
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for block in blocks:
        block.to(device)
        fully_shard(block, mesh=mesh, ignored_params={p for p in block.parameters() if p.requires_grad})


def leave_frozen_to_themselves(module: nn.Module) -> None:
    """Tell DistributedDataParallel not to look at frozen parameters: spread ones are not its to broadcast."""
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, frozen)  # noqa: SLF001
