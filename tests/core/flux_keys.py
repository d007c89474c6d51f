"""State dicts in BFL names -> the names diffusers uses, for the parity tests."""

import torch
from torch import Tensor

from allosr2_core.bases.diffusers_names import BLOCKS, SHIFT_SCALE, transformer_parts
from allosr2_core.networks.flux import FluxParams

NORMS = {
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}


def transformer_to_diffusers(state: dict[str, Tensor], params: FluxParams) -> dict[str, Tensor]:
    """A `Flux` state dict under the names of diffusers' FluxTransformer2DModel."""
    out = {}
    for key, tensor in state.items():
        module, kind = key.rsplit(".", 1)
        if kind == "scale":
            blocks, number, norm = module.split(".", 2)
            out[f"{BLOCKS[blocks][0]}.{number}.{NORMS[norm]}.weight"] = tensor
            continue
        if module == SHIFT_SCALE:  # BFL keeps shift then scale, diffusers scale then shift
            tensor = torch.cat(tensor.chunk(2)[::-1])
        names = transformer_parts(module)
        widths = [params.hidden_size] * (len(names) - 1)
        for name, piece in zip(names, tensor.split([*widths, tensor.shape[0] - sum(widths)]), strict=True):
            out[f"{name}.{kind}"] = piece
    return out


def autoencoder_to_diffusers(state: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """A `KLAutoencoder` state dict under the names of diffusers' AutoencoderKL (which numbers up blocks backwards)."""
    attention = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
    out = {}
    for key, tensor in state.items():
        side, *path, kind = key.split(".")
        if path[0] in ("down", "up"):
            block = path[1] if path[0] == "down" else str(levels - 1 - int(path[1]))
            if path[2] == "block":
                layer = {"nin_shortcut": "conv_shortcut"}.get(path[4], path[4])
                name = f"{path[0]}_blocks.{block}.resnets.{path[3]}.{layer}"
            else:
                name = f"{path[0]}_blocks.{block}.{path[2]}rs.0.conv"  # downsamplers.0 / upsamplers.0
        elif path[0] == "mid" and path[1] == "attn_1":
            name = f"mid_block.attentions.0.{attention[path[2]]}"
            tensor = tensor.flatten(1) if tensor.ndim == 4 else tensor  # 1x1 conv -> linear
        elif path[0] == "mid":
            name = f"mid_block.resnets.{int(path[1].removeprefix('block_')) - 1}.{path[2]}"
        else:
            name = {"norm_out": "conv_norm_out"}.get(path[0], path[0])
        out[f"{side}.{name}.{kind}"] = tensor
    return out
