"""Does the network need what a map marks? Insertion, deletion and ROAD, one number for each eye.

What these measures say: whether the pixels that a map ranks first move the explained class's probability more than others do.
They are about the map and the network, never about the disease. What they cannot say: an image with pixels taken out is none the
network was trained on, so part of every drop is surprise; a network that looks everywhere is faithful to no compact map; and a
single number has a meaning only beside that of a random map on the same eyes, for which the same runs of the network serve
(:func:`random_maps`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from drstudy.explain.methods import cam, methods  # before grad-cam, which imports torchvision

from pytorch_grad_cam.metrics.road import NoisyLinearImputer  # isort: skip

if TYPE_CHECKING:
    import pandas as pd

    from drstudy.models.nets import GradingNet

ROAD_NOISE = 0.01
"""Standard deviation of the noise on imputed pixels, in units of the normalised input (Rong et al. 2022)."""

IMPUTE_FACTOR = 2
"""Side, pixels, of the blocks on whose means holes are filled; see :func:`impute`."""


@dataclass(frozen=True)
class Curves:
    """Probability of the explained class while pixels are taken out or put in, most important first.

    Attributes:
        shares: (T + 1,) from 0 to 1, of the pixels.
        insertion: (N, T + 1), from the baseline (share 0) to the eye (share 1).
        deletion: (N, T + 1), from the eye (share 0) to the baseline (share 1).
    """

    shares: np.ndarray
    insertion: np.ndarray
    deletion: np.ndarray

    def auc(self) -> tuple[np.ndarray, np.ndarray]:
        """Areas under insertion and deletion, (N,) each, by trapezoids: mean probabilities, 0..1."""
        return np.trapezoid(self.insertion, self.shares, axis=1), np.trapezoid(
            self.deletion, self.shares, axis=1
        )


def measure(
    net: GradingNet,
    x: Tensor,
    maps: Mapping[str, np.ndarray],
    target: np.ndarray | Tensor | None = None,
    *,
    baselines: Sequence[str] = ("blur", "mean"),
    steps: int = 8,
    road_shares: Sequence[float] = (0.1, 0.3, 0.5),
    seed: int = 0,
    batch_size: int = 32,
) -> pd.DataFrame:
    """Insertion, deletion and ROAD of several maps of the same eyes.

    Args:
        net: Not changed; a copy runs, in evaluation mode and in the precision of the caller's autocast.
        x: (N, 3, H, W) float, normalised.
        maps: Name to (N, h, w), as :func:`drstudy.explain.methods.methods.explain` gives them; brought to H by W. Only their
            order counts. Equal values are ordered at random.
        target: (N,) classes; ``None`` is the predicted ones. Must be the class that the maps explain.
        baselines: What takes the place of pixels in :func:`curves`; empty skips insertion and deletion.
        steps: Points of a curve beside its start.
        road_shares: Shares of pixels for :func:`road`; empty skips it.
        seed: Seed of the order among equal values, and of ROAD's noise.
        batch_size: Images at a time.

    Returns:
        One row per eye and map: ``image`` (0 to N - 1), ``map``, ``insertion_<baseline>`` (higher is better),
        ``deletion_<baseline>`` (lower is better), ``road`` (higher is better).

    Raises:
        ValueError: If a map is not (N, h, w) or not finite; if there is not one target for each image.
    """
    import pandas as pd

    net = _ready(net)
    target = _target(net, x, target, batch_size)
    order = {name: ranks(raw, x, seed) for name, raw in maps.items()}
    rows: dict[str, dict] = {name: {"image": np.arange(len(x)), "map": name} for name in maps}
    for baseline in baselines:
        ends = _ends(net, x, target, baseline, batch_size)
        for name, rank in order.items():
            found = _curves(net, x, rank, target, ends, steps, batch_size)
            rows[name][f"insertion_{baseline}"], rows[name][f"deletion_{baseline}"] = found.auc()
    if road_shares:
        for name, rank in order.items():
            rows[name]["road"] = _road(net, x, rank, target, road_shares, seed, batch_size)
    return pd.concat([pd.DataFrame(row) for row in rows.values()], ignore_index=True)


def curves(
    net: GradingNet,
    x: Tensor,
    raw: np.ndarray,
    target: np.ndarray | Tensor | None = None,
    baseline: str = "blur",
    steps: int = 8,
    *,
    seed: int = 0,
    batch_size: int = 32,
) -> Curves:
    """Insertion and deletion (Petsiuk et al. 2018, RISE) of one map per eye; arguments as :func:`measure`.

    At share q of the pixels, insertion shows the q most important ones of the eye on the baseline, deletion the eye with
    these replaced by the baseline.
    """
    net = _ready(net)
    target = _target(net, x, target, batch_size)
    ends = _ends(net, x, target, baseline, batch_size)
    return _curves(net, x, ranks(raw, x, seed), target, ends, steps, batch_size)


def road(
    net: GradingNet,
    x: Tensor,
    raw: np.ndarray,
    target: np.ndarray | Tensor | None = None,
    shares: Sequence[float] = (0.1, 0.3, 0.5),
    *,
    seed: int = 0,
    batch_size: int = 32,
) -> np.ndarray:
    """Remove and debias (Rong et al. 2022): least important pixels removed against most important ones.

    Removed pixels become the noisy weighted mean of their neighbours (:func:`impute`), so that the shape of the hole tells
    the network little. The result combines both orders as the ``grad-cam`` package does:
    (p without the least important share - p without the most important share) / 2, averaged over the shares.

    Returns:
        (N,) in -0.5..0.5; 0 is what an uninformative map has on average.
    """
    net = _ready(net)
    target = _target(net, x, target, batch_size)
    return _road(net, x, ranks(raw, x, seed), target, shares, seed, batch_size)


def random_maps(count: int, side: int = 7, seed: int = 0) -> np.ndarray:
    """(count, side, side) float32, uniform in 0..1: random maps, as coarse as those of the last layer."""
    return np.random.default_rng(seed).random((count, side, side), dtype=np.float32)


def ranks(raw: np.ndarray, x: Tensor, seed: int = 0) -> np.ndarray:
    """Place of each pixel in the order of importance: (N, H, W) int32, 0 is the most important; ties at random."""
    raw = np.asarray(raw)
    if raw.ndim != 3 or len(raw) != len(x):
        raise ValueError(f"Maps are of shape {raw.shape}; they must be ({len(x)}, h, w), one for each image.")
    if not np.isfinite(raw).all():
        raise ValueError("Maps hold values that are not finite; their order is undefined.")
    height, width = x.shape[-2:]
    if height != width:
        raise ValueError(f"Images are {height} by {width}; they must be square.")
    flat = cam.upsample(raw, height).reshape(len(x), -1)
    shuffled = np.random.default_rng(seed).permutation(flat.shape[1])
    order = shuffled[np.argsort(-flat[:, shuffled], axis=1, kind="stable")]
    rank = np.empty(flat.shape, np.int32)
    np.put_along_axis(rank, order, np.arange(flat.shape[1], dtype=np.int32)[None], axis=1)
    return rank.reshape(len(x), height, width)


def impute(x: Tensor, missing: Tensor, factor: int = IMPUTE_FACTOR) -> Tensor:
    """Fill holes so that each missing pixel is the weighted mean of its eight neighbours (the linear part of ROAD).

    The equations are those of the ``grad-cam`` package (Rong et al. 2022), solved directly, without its noise. They are solved on
    ``factor`` by ``factor`` means and brought back bilinearly, in the holes only: what fills a hole is smooth, and the
    direct solution at full size costs five times as much.

    Args:
        x: (N, 3, H, W) float32.
        missing: (N, 1, H, W) bool; at least one pixel of each image is there.
        factor: 1 is the package's own solution.

    Returns:
        ``x`` with the holes filled.
    """
    with torch.autocast(x.device.type, enabled=False):
        present = 1 - missing.to(x.dtype)
        share = F.avg_pool2d(present, factor, ceil_mode=True)
        small = F.avg_pool2d(x * present, factor, ceil_mode=True) / share.clamp(min=1e-6)
        solve = NoisyLinearImputer(noise=0)
        filled = torch.stack(
            [
                solve(image, there[0]) if (there == 0).any() else image
                for image, there in zip(small.cpu(), (share > 0).float().cpu())
            ]
        ).to(x)
        filled = F.interpolate(filled, size=x.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(missing, filled, x)


def _ends(
    net: GradingNet, x: Tensor, target: Tensor, baseline: str, batch_size: int
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """The baselines (N, 3, H, W), and the probabilities (N,) of them and of the eyes: the same for every map."""
    nothing = methods.baseline_of(x, baseline, net)
    parts = _parts(len(x), batch_size)
    empty, full = (
        np.concatenate([_probability(net, images[part], target[part]) for part in parts])
        for images in (nothing, x)
    )
    return nothing, empty, full


def _curves(
    net: GradingNet,
    x: Tensor,
    rank: np.ndarray,
    target: Tensor,
    ends: tuple[Tensor, np.ndarray, np.ndarray],
    steps: int,
    batch_size: int,
) -> Curves:
    shares = np.linspace(0, 1, steps + 1)
    pixels = rank[0].size
    nothing, empty, full = ends
    insertion, deletion = [], []
    for part in _parts(len(x), batch_size):
        eye, blank = x[part], nothing[part]
        place = torch.from_numpy(rank[part])[:, None].to(eye.device)
        first = [place < round(share * pixels) for share in shares[1:-1]]
        ins = [_probability(net, torch.where(chosen, eye, blank), target[part]) for chosen in first]
        out = [_probability(net, torch.where(chosen, blank, eye), target[part]) for chosen in first]
        insertion.append(np.stack([empty[part], *ins, full[part]], 1))
        deletion.append(np.stack([full[part], *out, empty[part]], 1))
    return Curves(shares, np.concatenate(insertion), np.concatenate(deletion))


def _road(
    net: GradingNet,
    x: Tensor,
    rank: np.ndarray,
    target: Tensor,
    shares: Sequence[float],
    seed: int,
    batch_size: int,
) -> np.ndarray:
    if not all(0 < share < 1 for share in shares):
        raise ValueError(f"ROAD shares are {tuple(shares)}; each must be between 0 and 1.")
    generator = torch.Generator().manual_seed(seed)
    pixels = rank[0].size
    found = []
    for part in _parts(len(x), batch_size):
        eye, place = x[part].float(), torch.from_numpy(rank[part])[:, None].to(x.device)
        noise = ROAD_NOISE * torch.randn(eye.shape, generator=generator).to(eye)
        differences = []
        for share in shares:
            count = round(share * pixels)
            left = [
                _probability(net, impute(eye, hole) + noise * hole, target[part])
                for hole in (place >= pixels - count, place < count)
            ]
            differences.append((left[0] - left[1]) / 2)
        found.append(np.mean(differences, 0))
    return np.concatenate(found)


def _target(net: GradingNet, x: Tensor, target: np.ndarray | Tensor | None, batch_size: int) -> Tensor:
    logits = torch.cat([_logits(net, x[part]) for part in _parts(len(x), batch_size)])
    return logits.argmax(1) if target is None else cam.checked_target(torch.as_tensor(target), logits)


def _ready(net: GradingNet) -> GradingNet:
    """An evaluation copy in the precision of the caller's autocast, which would cast frozen weights anew at each call."""
    device = next(net.parameters()).device.type
    if torch.is_autocast_enabled(device):
        return copy.deepcopy(net).to(torch.get_autocast_dtype(device)).eval()
    return copy.deepcopy(net).eval()


@torch.no_grad()
def _logits(net: GradingNet, x: Tensor) -> Tensor:
    weight = next(net.parameters())
    with torch.autocast(weight.device.type, enabled=False):
        x = x.to(weight.device, weight.dtype).contiguous(memory_format=torch.channels_last)
        return net(x).float()


def _probability(net: GradingNet, x: Tensor, target: Tensor) -> np.ndarray:
    """(N,) probability of the target."""
    found = _logits(net, x).softmax(1)
    return found.gather(1, target[:, None])[:, 0].double().cpu().numpy()


def _parts(count: int, batch_size: int) -> list[slice]:
    return [slice(begin, min(begin + batch_size, count)) for begin in range(0, count, batch_size)]
