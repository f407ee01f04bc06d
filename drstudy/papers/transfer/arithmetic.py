"""What the papers' printed numbers imply, computed from nothing but those numbers.

The main paper is Nian & Jin 2025 (*spec* A); RAM is Wang & Yang 2017 (*spec* E), whose networks are counted
here
from their layers: convolutions with a bias of its own at every position, so that the count depends on the
input's size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from drstudy.papers.ram import layers as ram_layers
from drstudy.papers.ram.layers import DENSE, MAXOUT, Conv, Pool

TRAIN_SHARE, BATCH_SIZE = 0.8, 256
"""Of the main paper (*spec* A1, A4)."""


def most_accurate(mean_recall: float, shares: Sequence[float]) -> float:
    """The greatest accuracy that a classifier of that mean recall can have: it is right where most images
    are.

    Args:
        mean_recall: Mean over the grades, 0 to 1.
        shares: Of the images by grade, summing to 1.
    """
    left, found = mean_recall * len(shares), 0.0
    for share in sorted(shares, reverse=True):
        recall = min(1.0, left)
        found, left = found + share * recall, left - recall
    return found


def macro_reading(table2: pd.DataFrame, counts: Sequence[int], half_unit: float = 0.005) -> pd.DataFrame:
    """Can the printed sensitivity be a mean over the five grades, each against the rest (*spec* A5)?

    Args:
        table2: ``backbone, sensitivity, accuracy`` as printed, shares.
        counts: Images by grade.
        half_unit: Rounding of print, taken in favour of the reading.

    Returns:
        A row a network: ``most_accurate``, the greatest accuracy over five grades at that mean recall;
        ``if_plain``, what it must be if the printed accuracy is it; ``if_one_vs_rest``, what it must be if
        the printed one is the mean of five one-against-rest accuracies A, which is (5 A - 3) / 2;
        ``possible``.
    """
    shares = np.asarray(counts) / sum(counts)
    most = [most_accurate(value + half_unit, shares) for value in table2["sensitivity"]]
    plain = (table2["accuracy"] - half_unit).to_numpy()
    rest = (5 * plain - 3) / 2
    found = {"backbone": table2["backbone"], "most_accurate": most, "if_plain": plain, "if_one_vs_rest": rest}
    return pd.DataFrame(found).assign(possible=np.minimum(plain, rest) <= most)


def batches_an_epoch(images: int) -> int:
    """Batches of an epoch over the paper's training share, the last one perhaps not full."""
    return math.ceil(round(TRAIN_SHARE * images) / BATCH_SIZE)


RAM_SIDE = 448
"""Input of the networks that RAM counts, pixels (*spec* E2)."""

RAM_NETWORKS: dict[str, tuple[tuple[Conv | Pool, ...], Pool | None, float]] = {
    "baseline net-5": (ram_layers.net5(2), Pool(3, 3), 12.4),
    "RAM net-5": (ram_layers.net5(1), None, 9.7),
    "baseline net-4": (ram_layers.NET4, Pool(3, 2), 12.5),
    "RAM net-4": (ram_layers.NET4, None, 9.8),
}
"""Layers, the pooling before the baseline's dense head (RAM: the mean), and the millions of parameters that
are printed (*spec* E1, E2). Net-5 and net-4 are named for their kernels."""


def count_parameters(layers: Sequence[Conv | Pool], side: int, before_dense: Pool | None) -> dict[str, int]:
    """Count a network of untied biases from its layers.

    Args:
        layers: In order; the input has three channels.
        side: Of the square input, pixels.
        before_dense: Pooling before the dense head; ``None`` is RAM's mean and one linear unit.

    Returns:
        ``convolutions`` (layers), ``last_map`` (its side), ``weights``, ``untied_biases`` (one a channel and
        position), ``tied_biases`` (one a channel, for comparison), ``head``, ``total`` (with the untied).
    """
    channels, found = 3, dict.fromkeys(("convolutions", "weights", "untied_biases", "tied_biases"), 0)
    for layer in layers:
        side = layer.side(side)
        if isinstance(layer, Conv):
            found["convolutions"] += 1
            found["weights"] += layer.kernel**2 * channels * layer.channels
            found["untied_biases"] += layer.channels * side**2
            found["tied_biases"] += layer.channels
            channels = layer.channels
    head = channels + 1
    if before_dense:
        wide, merged = channels * before_dense.side(side) ** 2, DENSE // MAXOUT
        head = (wide + 1) * DENSE + (merged + 1) * DENSE + merged + 1
    total = found["weights"] + found["untied_biases"] + head
    return {"last_map": side, **found, "head": head, "total": total}


def ram_parameters() -> pd.DataFrame:
    """The four counts of RAM: a row a network, with ``printed`` (millions) and ``agrees`` (to the printed
    digit)."""
    rows = {
        name: count_parameters(layers, RAM_SIDE, pool) | {"printed": printed}
        for name, (layers, pool, printed) in RAM_NETWORKS.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("network")
    return table.assign(agrees=(table["total"] / 1e6).round(1) == table["printed"])
