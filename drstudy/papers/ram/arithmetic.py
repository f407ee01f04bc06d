"""Parameters of RAM's networks, counted from their printed layers (Wang & Yang 2017; docs/sources.md, E).

Each convolution has a bias of its own at every position, so the count depends on the size of the input.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from drstudy.papers.ram.layers import DENSE, MAXOUT, NET4, Conv, Pool, net5

SIDE = 448
"""Input of the networks that RAM counts, pixels (docs/sources.md, E2)."""

NETWORKS: dict[str, tuple[tuple[Conv | Pool, ...], Pool | None, float]] = {
    "baseline net-5": (net5(2), Pool(3, 3), 12.4),
    "RAM net-5": (net5(1), None, 9.7),
    "baseline net-4": (NET4, Pool(3, 2), 12.5),
    "RAM net-4": (NET4, None, 9.8),
}
"""Layers, the pooling before the baseline's dense head (RAM: the mean), and the millions of parameters that
are printed (docs/sources.md, E1, E2). Net-5 and net-4 are named for their kernels."""


def count_parameters(layers: Sequence[Conv | Pool], side: int, before_dense: Pool | None) -> dict[str, int]:
    """Count a network of untied biases from its layers.

    Args:
        layers: In order; the input has three channels.
        side: Side of the square input, pixels.
        before_dense: Pooling before the dense head; ``None`` is RAM's mean and one linear unit.

    Returns:
        ``convolutions`` (layers), ``last_map`` (its side), ``weights``, ``untied_biases`` (one per channel and
        position), ``tied_biases`` (one per channel, for comparison), ``head``, ``total`` (with the untied).
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


def parameters() -> pd.DataFrame:
    """The four counts of RAM: one row per network, with ``printed`` (millions) and ``agrees`` (to the printed
    digit)."""
    rows = {
        name: count_parameters(layers, SIDE, pool) | {"printed": printed}
        for name, (layers, pool, printed) in NETWORKS.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("network")
    return table.assign(agrees=(table["total"] / 1e6).round(1) == table["printed"])
