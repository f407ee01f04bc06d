"""Scores against the number of training photographs: a power law, and an honest band where it is extrapolated.

The law is ``score(n) = limit - gap * n ** -rate`` (docs/sources.md, H2). It is fitted to each resample of the measured scores by itself, so
the band has the uncertainty of the law's three numbers, which are poorly determined by a few sizes. It does not have the uncertainty
about the law: no measurement up to n shows that a score goes on in the same way at ten times n.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from drstudy.evaluation import statistics

RATES = np.geomspace(0.05, 2.0, 80)
"""Rates among which the best is taken. Below the least, a law over a tenfold range of sizes is a straight line in log n."""

FEWEST_SIZES = 4
"""Smallest number of sizes that a law of three numbers is fitted to."""


def fit(sizes: np.ndarray, scores: np.ndarray, highest: float = 1.0) -> np.ndarray:
    """The power law with the least squared error.

    For each rate the best limit and gap are found in closed form, with the gap at least 0 and the limit at most ``highest``.

    Args:
        sizes: (k,) numbers of training photographs, distinct and above 0.
        scores: (..., k), any number of curves.
        highest: The largest value that the score can have.

    Returns:
        (..., 3): limit, gap and rate. A curve that does not rise has the gap 0 and its mean as limit. A curve with NaN has NaN.

    Raises:
        ValueError: If there are fewer than :data:`FEWEST_SIZES` sizes.
    """
    sizes, scores = np.asarray(sizes, dtype=float), np.asarray(scores, dtype=float)
    if len(np.unique(sizes)) < FEWEST_SIZES:
        raise ValueError(
            f"A power law needs at least {FEWEST_SIZES} distinct sizes; there are {len(np.unique(sizes))}."
        )
    curves = scores.reshape(-1, len(sizes))
    best, found = np.full(len(curves), np.inf), np.full((len(curves), 3), np.nan)
    for rate in RATES:
        x = (sizes / sizes.min()) ** -rate
        centred, mean = x - x.mean(), curves.mean(axis=1)
        gap = np.clip(-(curves * centred).sum(axis=1) / (centred**2).sum(), 0, None)
        limit = mean + gap * x.mean()
        bound = np.clip(((highest - curves) * x).sum(axis=1) / (x**2).sum(), 0, None)
        over = limit > highest
        gap, limit = np.where(over, bound, gap), np.where(over, highest, limit)
        error = ((limit[:, None] - gap[:, None] * x - curves) ** 2).sum(axis=1)
        better = error < best * (1 - 1e-9)
        best = np.where(better, error, best)
        law = np.column_stack([limit, gap * sizes.min() ** rate, np.full(len(curves), rate)])
        found = np.where(better[:, None], law, found)
    return found.reshape(*scores.shape[:-1], 3)


def predict(law: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Scores (..., k) of laws (..., 3) from :func:`fit` at k sizes."""
    law, sizes = np.asarray(law)[..., None], np.asarray(sizes, dtype=float)
    return law[..., 0, :] - law[..., 1, :] * sizes ** -law[..., 2, :]


def band(sizes: np.ndarray, draws: np.ndarray, at: np.ndarray, highest: float = 1.0) -> pd.DataFrame:
    """The fitted law at further sizes, with the 95 % band of its fits to the resamples.

    Args:
        sizes: (k,) sizes at which the scores were measured.
        draws: (1 + B, k) scores: of the data, then of each resample of patients and of training photographs.
        at: (m,) sizes to predict.
        highest: The largest value that the score can have.

    Returns:
        One row per size: ``size, value, lo, hi, n_valid, extrapolated`` (whether it is larger than all measured sizes).
    """
    values = predict(fit(sizes, draws, highest), at)
    return pd.DataFrame(
        [
            {"size": size, **statistics.from_weights(column), "extrapolated": bool(size > np.max(sizes))}
            for size, column in zip(at, values.T)
        ]
    )
