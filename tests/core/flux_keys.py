"""State dicts in BFL names -> the names diffusers uses, for the parity tests."""

import torch
from torch import Tensor

from allosr2_core.transformer import FluxParams

EMBEDDERS = {"time_in": "timestep_embedder", "vector_in": "text_embedder", "guidance_in": "guidance_embedder"}
DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
SINGLE = {
    "linear2": "proj_out",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
    "modulation.lin": "norm.linear",
}
PROJECTIONS = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
}
ENDS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}


def transformer_to_diffusers(state: dict[str, Tensor], params: FluxParams) -> dict[str, Tensor]:
    """A `Flux` state dict under the names of diffusers' FluxTransformer2DModel."""
    out = {}
    for key, tensor in state.items():
        module, kind = key.rsplit(".", 1)
        kind = "weight" if kind == "scale" else kind
        head, _, rest = module.partition(".")
        if head in ("double_blocks", "single_blocks"):
            number, _, part = rest.partition(".")
            prefix = f"{'transformer_blocks' if head == 'double_blocks' else 'single_transformer_blocks'}.{number}."
            if part in PROJECTIONS:
                names = PROJECTIONS[part]
                widths = [params.hidden_size] * 3 + [tensor.shape[0] - 3 * params.hidden_size] * (len(names) - 3)
                for name, piece in zip(names, tensor.split(widths), strict=True):
                    out[f"{prefix}{name}.{kind}"] = piece
            else:
                out[f"{prefix}{(DOUBLE | SINGLE)[part]}.{kind}"] = tensor
        elif head in EMBEDDERS:
            layer = {"in_layer": "linear_1", "out_layer": "linear_2"}[rest]
            out[f"time_text_embed.{EMBEDDERS[head]}.{layer}.{kind}"] = tensor
        else:
            if module == "final_layer.adaLN_modulation.1":  # BFL keeps shift then scale, diffusers scale then shift
                tensor = torch.cat(tensor.chunk(2)[::-1])
            out[f"{ENDS[module]}.{kind}"] = tensor
    return out


def autoencoder_to_diffusers(state: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """An `Autoencoder` state dict under the names of diffusers' AutoencoderKL (which numbers up blocks backwards)."""
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
