"""Names of layers in diffusers' FLUX.1 networks (FluxTransformer2DModel, AutoencoderKL) for the layers of ours.

Ours have the names of Black Forest Labs' files. diffusers keeps q, k, v (in single blocks the way into the MLP too) as
layers of their own, ours are rows of one layer.
"""

# Our layer -> diffusers' layers that make up its rows, from the top.
DOUBLE = {
    "img_mod.lin": ("norm1.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn.proj": ("attn.to_out.0",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mod.lin": ("norm1_context.linear",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.proj": ("attn.to_add_out",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
}
BLOCKS = {"double_blocks": ("transformer_blocks", DOUBLE), "single_blocks": ("single_transformer_blocks", SINGLE)}
EMBEDDERS = {"time_in": "timestep_embedder", "vector_in": "text_embedder", "guidance_in": "guidance_embedder"}
EMBEDDER_LAYERS = {"in_layer": "linear_1", "out_layer": "linear_2"}
SHIFT_SCALE = "final_layer.adaLN_modulation.1"  # ours gives shift then scale, diffusers' scale then shift
ENDS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "final_layer.linear": "proj_out",
    SHIFT_SCALE: "norm_out.linear",
}
# Parts of names in the encoder (latent diffusion's) -> diffusers'; replaced in this order.
ENCODER = {
    "block_1.": "resnets.0.",
    "block_2.": "resnets.1.",
    "block.": "resnets.",
    "nin_shortcut": "conv_shortcut",
    "downsample.": "downsamplers.0.",
    "attn_1.proj_out": "attentions.0.to_out.0",
    "attn_1.": "attentions.0.to_",
    "down.": "down_blocks.",
    "mid.": "mid_block.",
}


def transformer_parts(layer: str) -> tuple[str, ...]:
    """What makes up the rows of a linear layer of `Flux` in FluxTransformer2DModel, from the top."""
    stem, _, rest = layer.partition(".")
    if stem in BLOCKS:
        blocks, parts = BLOCKS[stem]
        number, _, part = rest.partition(".")
        return tuple(f"{blocks}.{number}.{name}" for name in parts[part])
    if stem in EMBEDDERS:
        return (f"time_text_embed.{EMBEDDERS[stem]}.{EMBEDDER_LAYERS[rest]}",)
    return (ENDS[layer],)


def encoder_layer(layer: str) -> str:
    """The layer of AutoencoderKL's encoder that is this layer of our encoder."""
    for ours, theirs in ENCODER.items():
        layer = layer.replace(ours, theirs)
    return layer
