"""Generator and critic: residual, for photographs of 32 to 256 pixels, unconditional or conditional on the grade.

The parts are those of published GANs (``docs/sources.md``, G5): residual blocks, a norm whose gain and bias depend on the class in the
generator, and a projection of the class on the critic's features. Widths and depths are choices of this study.

Grades come as *weights* (N, 5), float: a one in the column of the grade, or a mixture of two grades, by which a picture can be
drawn between grades.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from drstudy.core.names import N_GRADES

SMALLEST = 4
"""Side of the coarsest map, in both networks."""

WIDEST = 8
"""The coarsest maps have at most this many times the channels of the finest."""

MOST = 0.98
"""The ground is clipped to this, since black and white would take infinite inputs of the hyperbolic tangent."""

QUIET = 0.1
"""Factor of the generator's last layer at the start, so that its first pictures are close to the ground."""

FOLD = 2
"""Squares of so many pixels a side are channels of one cell of the finest maps (pixel shuffle), which halves the cost of both networks."""


@dataclass(frozen=True)
class Shape:
    """What both networks look like.

    Attributes:
        size: Side of the photographs, pixels; a power of 2, at least 16.
        width: Channels of the finest maps.
        latent: Length of the noise vector.
        grades: Number of grades on which the networks are conditional; 0 makes unconditional ones.
    """

    size: int
    width: int
    latent: int
    grades: int = N_GRADES

    def __post_init__(self) -> None:
        if self.size < 2 * FOLD * SMALLEST or self.size & (self.size - 1):
            raise ValueError(
                f"Photographs of {self.size} pixels cannot be made: the side must be a power of 2, at least 16."
            )

    @property
    def channels(self) -> list[int]:
        """Channels of the maps of 4, 8, ... ``size`` / 2 cells: doubled with each halving of the side, up to :data:`WIDEST` times."""
        halvings = int(math.log2(self.size // FOLD // SMALLEST))
        return [self.width * min(2**step, WIDEST) for step in range(halvings, -1, -1)]

    def facts(self) -> dict[str, int]:
        """JSON-ready arguments, from which the same shape can be made."""
        return asdict(self)


def one_hot(grades: Tensor, count: int = N_GRADES) -> Tensor:
    """Grades (N,) int64 to weights (N, ``count``) float32."""
    return F.one_hot(grades, count).float()


class ConditionalNorm(nn.Module):
    """Batch norm, whose gain and bias a grade moves: ``norm(x) * (1 + gain[grade]) + bias[grade]``.

    All movements start at 0. A conditional network that takes over the weights of an unconditional one therefore starts as the same
    function. With ``grades`` 0 it is a plain batch norm.

    Source: de Vries et al. 2017 and Miyato & Koyama 2018 (``docs/sources.md``, G5), written as a departure from the common norm.
    """

    def __init__(self, channels: int, grades: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.moves = nn.Linear(grades, 2 * channels, bias=False) if grades else None
        if self.moves is not None:
            nn.init.zeros_(self.moves.weight)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Maps (N, C, h, w) and weights of the grades (N, G) to maps of the same shape."""
        x = self.norm(x)
        if self.moves is None:
            return x
        gain, bias = self.moves(weights)[:, :, None, None].chunk(2, 1)
        return x * (1 + gain) + bias


class Up(nn.Module):
    """Residual block that doubles the side: norm, ReLU, enlarge, convolve; norm, ReLU, convolve; beside a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, grades: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([ConditionalNorm(inputs, grades), ConditionalNorm(outputs, grades)])
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """(N, C, h, w) to (N, outputs, 2h, 2w)."""
        h = F.interpolate(F.relu(self.norms[0](x, weights)), scale_factor=2.0, mode="nearest")
        h = self.second(F.relu(self.norms[1](self.first(h), weights)))
        return h + F.interpolate(self.skip(x), scale_factor=2.0, mode="nearest")


class Generator(nn.Module):
    """Noise and a grade to a photograph.

    The network draws what differs from a *ground*, the mean of the training photographs, and so needs not learn where the field of view
    is. That is a choice of this study, for short trainings; nothing keeps a picture inside of the field of view.

    Attributes:
        shape: What it looks like.
        ground: (1, 3, S, S), the hyperbolic area tangent of the mean photograph; 0 (mid-grey) before :meth:`start_from`.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        channels = shape.channels
        self.seed = nn.Linear(shape.latent, channels[0] * SMALLEST**2)
        pairs = itertools.pairwise(channels)
        self.blocks = nn.ModuleList([Up(inputs, outputs, shape.grades) for inputs, outputs in pairs])
        self.norm = ConditionalNorm(channels[-1], shape.grades)
        self.last = nn.Conv2d(channels[-1], 3 * FOLD**2, 3, padding=1)
        self.register_buffer("ground", torch.zeros(1, 3, shape.size, shape.size))
        _initialise(self)
        with torch.no_grad():
            self.last.weight.mul_(QUIET)

    def forward(self, noise: Tensor, weights: Tensor) -> Tensor:
        """Noise (N, latent) and weights of the grades (N, G) to RGB (N, 3, S, S), between -1 and 1.

        An unconditional generator does not look at the weights.
        """
        x = (
            self.seed(noise)
            .unflatten(1, (-1, SMALLEST, SMALLEST))
            .contiguous(memory_format=torch.channels_last)
        )
        for block in self.blocks:
            x = block(x, weights)
        x = F.pixel_shuffle(self.last(F.relu(self.norm(x, weights))), FOLD)
        return torch.tanh(x + self.ground)

    def start_from(self, mean: Tensor) -> None:
        """Set the ground: the mean photograph (3, S, S), between -1 and 1."""
        self.ground.copy_(mean.clamp(-MOST, MOST).atanh())


class Down(nn.Module):
    """Residual block that halves the side by means; ``raw`` takes a photograph, to which no ReLU is applied first."""

    def __init__(self, inputs: int, outputs: int, raw: bool = False) -> None:
        super().__init__()
        self.raw = raw
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to (N, outputs, h / 2, w / 2)."""
        h = self.first(x if self.raw else F.relu(x))
        h = F.avg_pool2d(self.second(F.relu(h)), 2)
        return h + self.skip(F.avg_pool2d(x, 2))


class Critic(nn.Module):
    """A photograph and a grade to one score, higher for real photographs of that grade. It has no batch norm.

    The score is linear in the features, plus, if conditional, their product with a learnt vector of the grade (the projection of
    Miyato & Koyama 2018, equation 3; ``docs/sources.md``, G5).

    Args:
        shape: What it looks like.
        spectral: Whether every layer is divided by its largest singular value (Miyato et al. 2018), as the hinge loss wants it.
    """

    def __init__(self, shape: Shape, spectral: bool) -> None:
        super().__init__()
        self.shape, self.spectral = shape, spectral
        channels = [3 * FOLD**2, *reversed(shape.channels[:-1])]
        pairs = itertools.pairwise(channels)
        self.blocks = nn.ModuleList([Down(*pair, raw=place == 0) for place, pair in enumerate(pairs)])
        self.linear = nn.Linear(channels[-1], 1)
        self.projected = nn.Linear(shape.grades, channels[-1], bias=False) if shape.grades else None
        _initialise(self)
        if spectral:
            for layer in list(self.modules()):
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    spectral_norm(layer)

    def features(self, images: Tensor) -> Tensor:
        """RGB (N, 3, S, S), between -1 and 1, to features (N, C), summed over all places."""
        x = F.pixel_unshuffle(images, FOLD)
        for block in self.blocks:
            x = block(x)
        return F.relu(x).sum((2, 3))

    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        """RGB (N, 3, S, S), between -1 and 1, and weights of the grades (N, G) to scores (N,)."""
        features = self.features(images)
        score = self.linear(features)[:, 0]
        return score if self.projected is None else score + (features * self.projected(weights)).sum(1)

    def freeze(self, blocks: int) -> None:
        """Let the first blocks learn no more (Mo et al. 2020, FreezeD; ``docs/sources.md``, G5).

        Raises:
            ValueError: If there are fewer blocks.
        """
        if blocks > len(self.blocks):
            raise ValueError(
                f"FROZEN_BLOCKS is {blocks}, but the critic for {self.shape.size} pixels has {len(self.blocks)} blocks."
            )
        for block in self.blocks[:blocks]:
            block.requires_grad_(False)


def _initialise(net: nn.Module) -> None:
    """Glorot's uniform weights, scaled for ReLU inside of blocks; biases 0. What moves a norm stays at 0."""
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and not name.endswith("moves"):
            inside = name.endswith(("first", "second"))
            nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(2) if inside else 1.0)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def build(shape: Shape, spectral: bool, seed: int) -> tuple[Generator, Critic]:
    """Generator and critic with random weights that follow from the seed; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Generator(shape), Critic(shape, spectral)


def take_over(net: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """Let a network start from the weights of another, as far as both have them; returns the names of what stays as it is.

    The ground of a generator is not taken over: it belongs to the photographs.

    Raises:
        ValueError: If a tensor has another shape, or the network lacks one of the weights: they are not of the same form.
    """
    own = net.state_dict()
    weights = {name: tensor for name, tensor in weights.items() if name != "ground"}
    wrong = [name for name, tensor in weights.items() if name not in own or own[name].shape != tensor.shape]
    if wrong:
        raise ValueError(
            f"The pretrained network does not fit: {wrong[0]} is not in the new one, or has another shape. Set SIZE, WIDTH and LATENT as in "
            "the pretraining."
        )
    return list(net.load_state_dict(weights, strict=False).missing_keys)
