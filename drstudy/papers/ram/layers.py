"""The networks of Wang & Yang 2017 (RAM) as plain lists of layers: what is built from them, and what is counted.

Net-5 and net-4 are named for their kernels, not their depth (``docs/sources.md``, E2). Every convolution has a bias and a leaky ReLU; an input of
128, 256 or 512 pixels is cropped to 112, 224 or 448 and passes three, four or five blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Conv:
    """A convolution: kernel width, channels out, stride, padding on each side; ``None`` keeps the size of
    odd kernels."""

    kernel: int
    channels: int
    stride: int = 1
    pad: int | None = None

    @property
    def padding(self) -> int:
        return self.kernel // 2 if self.pad is None else self.pad

    def side(self, side: int) -> int:
        """Side of the output for one of the input."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1


@dataclass(frozen=True)
class Pool:
    """Pooling without padding, rounded down, or up where ``up``."""

    kernel: int = 3
    stride: int = 2
    up: bool = False

    padding = 0

    def side(self, side: int) -> int:
        """Side of the output for one of the input."""
        over = self.stride - 1 if self.up else 0
        return (side - self.kernel + over) // self.stride + 1


Layer = Conv | Pool

CROPS = {128: 112, 256: 224, 512: 448}
"""Side of the stored photograph to that of the crop which a network sees (``docs/sources.md``, E2)."""

DENSE, MAXOUT = 1024, 2
"""Width of the baseline's two dense layers, and how many units each maxout merges (``docs/sources.md``, E2)."""


def net5(strided_pad: int) -> tuple[Layer, ...]:
    """The 5x5 network for 512 px; ``strided_pad`` is that of its two strided layers: 2 in the baseline, 1 in RAM."""
    first = (Conv(5, 32, 2, strided_pad), Conv(3, 32), Pool())
    second = (Conv(5, 64, 2, strided_pad), Conv(3, 64), Conv(3, 64), Pool())
    return (*first, *second, *3 * (Conv(3, 128),), Pool(), *3 * (Conv(3, 256),), Pool(), *2 * (Conv(3, 512),))


NET4: tuple[Layer, ...] = (
    *(Conv(4, 32, 2, 1), Conv(4, 32, 1, 2), Pool()),
    *(Conv(4, 64, 2, 1), Conv(4, 64, 1, 2), Conv(4, 64, 1, 1), Pool()),
    *(Conv(4, 128, 1, 2), Conv(4, 128, 1, 1), Conv(4, 128, 1, 2), Pool()),
    *(Conv(4, 256, 1, 2), Conv(4, 256, 1, 1), Conv(4, 256, 1, 2), Pool()),
    Conv(4, 512, 1, 1),
)
"""The 4x4 network for 512 px."""

VISUAL5: dict[int, tuple[Layer, ...]] = {
    128: (
        *(Conv(5, 32), Conv(3, 32), Pool(up=True)),
        *(Conv(5, 64), Conv(3, 64), Conv(3, 64), Pool(stride=1)),
        *3 * (Conv(3, 128),),
    ),
    256: (
        *(Conv(5, 16, 2), Conv(3, 16), Pool(up=True)),
        *(Conv(5, 32), Conv(3, 32), Conv(3, 32)),
        *3 * (Conv(3, 64),),
        *3 * (Conv(3, 128),),
    ),
}
"""The networks that the paper's maps were drawn from, which keep resolution: maps of 54 x 54 and 56 x 56 (``docs/sources.md``, E6.1). **Padding and
rounding are a guess**: the only "same" padding and rounding up of the pooling that give those sizes."""

NETWORKS = ("ram_net5", "baseline_net5", "ram_net4", "baseline_net4", "ram_visual5")
"""Names that notebook 11 takes: head, then layers."""


def layers_of(network: str, size: int) -> tuple[tuple[Layer, ...], Pool | None]:
    """Layers of a network for photographs of a size, and the pooling before a baseline's dense head.

    Args:
        network: One of :data:`NETWORKS`.
        size: 128, 256 or 512 px; a smaller input leaves out the last blocks.

    Raises:
        ValueError: If there is no such network, or not at this size.
    """
    if network not in NETWORKS or size not in CROPS:
        raise ValueError(
            f"There is no network {network!r} for {size} px; there are {', '.join(NETWORKS)} for 128, 256 and 512 px."
        )
    head, kind = network.split("_")
    if kind == "visual5":
        if size not in VISUAL5:
            raise ValueError(f"The paper drew no maps at {size} px: {network} is for 128 and 256 px.")
        return VISUAL5[size], None
    whole = NET4 if kind == "net4" else net5(1 if head == "ram" else 2)
    block = list(accumulate((isinstance(layer, Pool) for layer in whole), initial=0))[:-1]
    last = {128: 2, 256: 3, 512: 4}[size]
    kept = tuple(layer for layer, at in zip(whole, block) if at <= last)
    kept = kept[:-1] if isinstance(kept[-1], Pool) else kept
    return kept, None if head == "ram" else Pool(3, 2 if kind == "net4" else 3)


def sides(layers: Sequence[Layer], side: int) -> list[int]:
    """Side after each layer."""
    return list(accumulate(layers, lambda at, layer: layer.side(at), initial=side))[1:]


def grid(layers: Sequence[Layer]) -> tuple[float, int]:
    """Where the cells of the last map lie: centre of the first one, and step to the next, in input pixels.

    Centres are of receptive fields; a pixel's centre is at its index.
    """
    start, step = 0.0, 1
    for layer in layers:
        start += step * ((layer.kernel - 1) / 2 - layer.padding)
        step *= layer.stride
    return start, step
