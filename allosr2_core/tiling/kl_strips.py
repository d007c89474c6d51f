"""Encode and decode of KL autoencoders (LDM, FLUX.1) in strips of rows, with the result of one pass over the whole.

Plain tiles change colours: a GroupNorm in a tile sees the tile's statistics, the attention in the middle sees the tile.
Here every norm has the statistics of the whole picture. A residual block is three passes over strips of rows:

    1. mean and variance of the input                                        (norm1)
    2. hidden = conv1(silu(norm1(input))); its mean and variance             (norm2)
    3. output = conv2(silu(norm2(hidden))) + shortcut(input)

What is kept between passes is chosen by a budget of bytes, block by block. Plenty: `hidden` is stored in pass 2 and
overwritten by the output row by row in pass 3. Scarce: `hidden` is computed again in pass 3 and the output overwrites
the input. Where the input is an upsampled picture (the widest tensor of a decoder) it need not exist at all: its rows
are made when they are asked for. The attention and everything else at the smallest scale sees the whole.

Strips take the rows they need from their neighbours, so convolutions are exact; the rest differs by rounding. The
networks are any with the structure and names of LDM's encoder and decoder: the core's own and a host's.

Shape letters: 1 item, C channels, H x W, R rows of a strip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import AlloSR2Error
from .exact import Tick
from .kl_rows import Conv, Convolved, Doubled, Halved, Mapped, Overwritten, Rows, Stored, Window

STRIP_SHARE = 0.03
"""Part of the budget that the widest tensor of a strip may take; a handful are alive at a time."""
SMALLEST_STRIP = 8
"""Rows. A strip needs two rows of each neighbour, so that fewer would mostly repeat work."""


class Moments:
    """Mean and variance of every group of channels, gathered strip by strip (Chan et al. 1979), in float64."""

    def __init__(self, groups: int) -> None:
        self.groups, self.count = groups, 0
        self.mean_G = self.squares_G = torch.zeros(groups, dtype=torch.float64)

    def add(self, x_1CRW: Tensor) -> None:
        """Take in a strip."""
        grouped = x_1CRW.float().reshape(self.groups, -1)
        var_G, mean_G = (value.double().cpu() for value in torch.var_mean(grouped, dim=1, correction=0))
        count, new = self.count + grouped.shape[1], grouped.shape[1]
        gap_G = mean_G - self.mean_G
        self.squares_G = self.squares_G + var_G * new + gap_G.square() * (self.count * new / count)
        self.mean_G = self.mean_G + gap_G * (new / count)
        self.count = count

    def activation(self, norm: Any) -> Callable[[Tensor], Tensor]:
        """silu(norm(x)) with these statistics, for strips [1, C, R, W]."""
        scale_G = (self.squares_G / self.count + norm.eps).rsqrt()
        size = norm.num_channels // self.groups
        scale_C = norm.weight.detach().double().cpu() * scale_G.repeat_interleave(size)
        shift_C = norm.bias.detach().double().cpu() - self.mean_G.repeat_interleave(size) * scale_C

        def activate(x: Tensor) -> Tensor:
            scale, shift = (v.to(x.device, torch.float32)[None, :, None, None] for v in (scale_C, shift_C))
            return functional.silu(torch.addcmul(shift, x.float(), scale), inplace=True).to(x.dtype)

        return activate


@dataclass(frozen=True)
class Streams:
    """How a network is run: what may be kept, and what is called after every strip."""

    budget: float
    """Bytes that feature maps may take at a time."""
    size: int
    """Bytes of a value."""
    tick: Tick | None

    def bytes_of(self, source: Rows, channels: int) -> int:
        """What a map of the source's area and so many channels takes."""
        return channels * source.height * source.width * self.size

    def strips(self, source: Rows, channels: int) -> Iterator[tuple[int, int]]:
        """First row and the one after the last of each strip of a map that is computed through so many channels."""
        rows = int(STRIP_SHARE * self.budget / (source.width * max(channels, source.channels) * self.size))
        step = max(SMALLEST_STRIP, rows)
        for first in range(0, source.height, step):
            yield first, min(first + step, source.height)
            if self.tick is not None:
                self.tick()

    def moments(self, source: Rows, norm: Any, through: int = 0) -> Moments:
        """The statistics a norm needs; `through` as in `store`, where it is more than the source's own channels."""
        found = Moments(norm.num_groups)
        for first, last in self.strips(source, through):
            found.add(source.rows(first, last))
        return found

    def store(self, source: Rows, through: int) -> Stored:
        """The whole map, in memory; `through`: values that a value's place in a row is made from, e.g. channels."""
        whole: Tensor | None = None
        for first, last in self.strips(source, through):
            part = source.rows(first, last)
            if whole is None:
                whole = part.new_empty((1, source.channels, source.height, source.width))
            whole[:, :, first:last] = part
        if whole is None:
            raise AlloSR2Error("expected a feature map with rows; it has none")
        return Stored(whole)


def stream_block(block: Any, source: Rows, streams: Streams) -> Stored:
    """A residual block, strip by strip. A stored source is used up: the result may have taken its memory."""
    channels, shortcut = block.conv1.out_channels, getattr(block, "nin_shortcut", None)
    act1 = streams.moments(source, block.norm1).activation(block.norm1)
    one = streams.bytes_of(source, channels)
    beside = not isinstance(source, Stored) and shortcut is not None  # else pass 3 would make the source's rows again
    if source.stored + one * (2 if beside else 1) <= streams.budget:
        return _through_stored_hidden(block, source, act1, shortcut, beside, streams)
    return _through_hidden_again(block, source, act1, shortcut, streams)


def _through_stored_hidden(
    block: Any, source: Rows, act1: Conv, shortcut: Conv | None, beside: bool, streams: Streams
) -> Stored:
    channels, moments = block.conv1.out_channels, Moments(block.norm2.num_groups)
    hidden: Tensor | None = None
    aside: Tensor | None = None
    for first, last in streams.strips(source, channels):
        low, high = max(first - 1, 0), min(last + 1, source.height)
        window = Window(source, source.rows(low, high), low)
        part = Convolved(Mapped(window, act1), block.conv1, channels).rows(first, last)
        moments.add(part)
        if hidden is None:
            hidden = part.new_empty((1, channels, source.height, source.width))
            aside = torch.empty_like(hidden) if beside else None
        hidden[:, :, first:last] = part
        if aside is not None and shortcut is not None:
            aside[:, :, first:last] = shortcut(window.rows(first, last))
    if hidden is None:
        raise AlloSR2Error("expected a feature map with rows; it has none")
    act2, old = moments.activation(block.norm2), Overwritten(Stored(hidden), reach=1)
    for first, last in streams.strips(source, channels):
        part = Convolved(Mapped(old.window(first, last), act2), block.conv2, channels).rows(first, last)
        if aside is not None:
            part += aside[:, :, first:last]
        else:
            rows = source.rows(first, last)
            part += rows if shortcut is None else shortcut(rows)
        hidden[:, :, first:last] = part
    return Stored(hidden)


def _through_hidden_again(block: Any, source: Rows, act1: Conv, shortcut: Conv | None, streams: Streams) -> Stored:
    channels = block.conv1.out_channels
    hidden = Convolved(Mapped(source, act1), block.conv1, channels)
    act2 = streams.moments(hidden, block.norm2, source.channels).activation(block.norm2)
    old = Overwritten(source, reach=2)
    result = source.x if isinstance(source, Stored) and source.channels == channels else None
    for first, last in streams.strips(source, channels):
        window = old.window(first, last)
        hidden = Convolved(Mapped(window, act1), block.conv1, channels)
        part = Convolved(Mapped(hidden, act2), block.conv2, channels).rows(first, last)
        rows = window.rows(first, last)
        part += rows if shortcut is None else shortcut(rows)
        if result is None:
            result = part.new_empty((1, channels, source.height, source.width))
        result[:, :, first:last] = part
    if result is None:
        raise AlloSR2Error("expected a feature map with rows; it has none")
    return Stored(result)


# --- whole networks -----------------------------------------------------------------------------------------------


def streamed_decode(decoder: Any, raw_1Chw: Tensor, budget: float, tick: Tick | None = None) -> Tensor:
    """decoder(raw) of one item, [1, 3, H, W] in the type of raw, equal to one pass but for rounding.

    Args:
        decoder: with LDM's structure and names: conv_in, mid, up, norm_out, conv_out.
        raw_1Chw: raw latent, on the decoder's device and in its type.
        budget: bytes that feature maps may take at a time; less than one map takes means slower, not wrong.
        tick: called after every strip.

    Raises:
        AlloSR2Error: another structure, or more than one item.
    """
    _check(decoder, raw_1Chw, "up")
    streams = Streams(budget, raw_1Chw.element_size(), tick)
    source: Rows = Stored(_middle(decoder.mid, decoder.conv_in(raw_1Chw)))
    levels = list(reversed(decoder.up))
    for level, next_level in zip(levels, [*levels[1:], None], strict=True):
        for block in level.block:
            source = stream_block(block, source, streams)
        if next_level is not None:
            source = _doubled(source, level.upsample.conv, next_level.block[0].conv1.out_channels, streams)
    act = streams.moments(source, decoder.norm_out).activation(decoder.norm_out)
    pixels = Convolved(Mapped(source, act), decoder.conv_out, decoder.conv_out.out_channels)
    return streams.store(pixels, source.channels).x


def streamed_encode(encoder: Any, x_1CHW: Tensor, budget: float, tick: Tick | None = None) -> Tensor:
    """encoder(x) of one item, the moments [1, 2 z, h, w], equal to one pass but for rounding; see `streamed_decode`."""
    _check(encoder, x_1CHW, "down")
    streams = Streams(budget, x_1CHW.element_size(), tick)
    source: Rows = Convolved(Stored(x_1CHW), encoder.conv_in, encoder.conv_in.out_channels)
    for level in encoder.down:
        for block in level.block:
            source = stream_block(block, source, streams)
        if getattr(level, "downsample", None) is not None:
            source = streams.store(Halved(source, level.downsample.conv, source.channels), 4 * source.channels)
    whole = _middle(encoder.mid, streams.store(source, source.channels).x)
    act = streams.moments(Stored(whole), encoder.norm_out).activation(encoder.norm_out)
    return encoder.conv_out(act(whole))


def _middle(mid: Any, x: Tensor) -> Tensor:
    return mid.block_2(mid.attn_1(mid.block_1(x)))


def _doubled(source: Rows, conv: Any, hidden_channels: int, streams: Streams) -> Rows:
    """The upsampled map: stored when it fits beside its source and beside the next block's hidden map."""
    doubled = Doubled(source, conv)
    beside = max(source.stored, streams.bytes_of(doubled, hidden_channels))
    if streams.bytes_of(doubled, doubled.channels) + beside <= streams.budget:
        return streams.store(doubled, doubled.channels)
    return doubled


def can_stream(network: Any, levels: str) -> bool:
    """Whether an encoder (levels "down") or decoder (levels "up") has the structure and names of LDM's."""
    names = ("conv_in", "mid", levels, "norm_out", "conv_out")
    return all(hasattr(network, name) for name in names) and not any(
        len(getattr(level, "attn", ())) for level in getattr(network, levels)
    )


def _check(network: Any, x: Tensor, levels: str) -> None:
    if not can_stream(network, levels):
        raise AlloSR2Error(
            f"expected a network with conv_in, mid, {levels}, norm_out, conv_out and attention in the middle only; "
            f"got {type(network).__name__}"
        )
    if x.ndim != 4 or x.shape[0] != 1:
        raise AlloSR2Error(f"expected one item [1, C, H, W]; got {tuple(x.shape)}")
