"""Scores by number of views, paired with fresh views: which number is enough, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from drstudy.evaluation import metrics, statistics
from drstudy.papers.views.training import FRESH, label
from drstudy.show import intervals

METRICS = {
    "qwk": "QWK",
    "auc_ge2": "AUC, grade ≥ 2",
    "nll": "NLL, nats",
    "balanced_accuracy": "balanced accuracy",
}
"""What is compared, with headings."""

LOWER_IS_BETTER = ("nll",)

DIGITS = 3
"""After the point: differences of the AUC are small."""


def compare(
    predictions: Mapping[int, Sequence[pd.DataFrame]],
    resamples: int,
    seed: int,
    names: Sequence[str] = tuple(METRICS),
) -> pd.DataFrame:
    """Every number of views: mean scores of its networks, and how far these are from fresh views, with intervals.

    A metric is taken of each network and then averaged over the seeds, in every resample alike, so the intervals are those of
    :func:`drstudy.evaluation.statistics.bootstrap` and :func:`drstudy.evaluation.statistics.paired_difference` where there is one seed. They vary the
    patients, not the training.

    Args:
        predictions: Predictions of :class:`drstudy.papers.views.training.Trained`, with :data:`FRESH` among its keys.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws; the same resamples for all.
        names: Names of the metrics.

    Returns:
        Long: ``views, what`` (``score`` or ``difference`` to fresh), ``metric, value, lo, hi, n_valid``, and ``least, greatest``
        over the seeds.

    Raises:
        drstudy.evaluation.metrics.PredictionError: If two tables are not of the same images.
    """
    reference = predictions[FRESH][0]
    values, draws = {}, {}
    for views, frames in predictions.items():
        for frame in frames:
            statistics.check_same_images(frame, reference)
        values[views] = pd.DataFrame([metrics.evaluate(frame) for frame in frames])
        draws[views] = statistics.resampled_mean(frames, resamples, seed)
    rows = []
    for views in predictions:
        kinds = {"score": (values[views], draws[views])}
        if views != FRESH:
            kinds["difference"] = (values[views] - values[FRESH], draws[views] - draws[FRESH])
        for what, (value, drawn) in kinds.items():
            for name in names:
                found = statistics.percentiles(value[name].mean(), drawn[name].to_numpy(dtype=float))
                ends = {"least": value[name].min(), "greatest": value[name].max()}
                rows.append({"views": views, "what": what, "metric": name, **found, **ends})
    return pd.DataFrame(rows)


def worse(table: pd.DataFrame) -> pd.DataFrame:
    """The differences of :func:`compare` that are worse than fresh views by the whole interval and by every seed.

    The interval varies the patients, and the seeds vary the training. A loss that other patients or another training would reverse is
    no finding.
    """
    lower = table["metric"].isin(LOWER_IS_BETTER)
    nearest = np.where(lower, table[["lo", "least"]].min(axis=1), -table[["hi", "greatest"]].max(axis=1))
    return table[(table["what"] == "difference") & (nearest > 0) & table["lo"].notna()]


def enough(table: pd.DataFrame) -> int:
    """The smallest number of views from which on no metric is worse than with fresh views; else :data:`FRESH`.

    An interval that includes 0 does not prove equality; :func:`describe` gives the largest loss that it does not rule out.
    """
    numbers = sorted(set(table["views"]) - {FRESH})
    failing = worse(table)["views"].max() if len(worse(table)) else FRESH
    return min((views for views in numbers if views > failing), default=FRESH)


def describe(table: pd.DataFrame, predictions: Mapping[int, Sequence[pd.DataFrame]]) -> str:
    """What follows for the default, in sentences made of the numbers."""
    fresh = predictions[FRESH]
    of = (
        f"{len(fresh[0])} validation images of {fresh[0]['patient_id'].nunique()} patients, {len(fresh)} "
        f"{'network' if len(fresh) == 1 else 'networks'} for each number of views"
    )
    lines = [f"{of}; differences are minus fresh views, with 95 % intervals over patients."]
    for views, rows in worse(table).groupby("views"):
        lines.append(f"VIEWS {views} is worse: " + "; ".join(map(_difference, rows.itertuples())) + ".")
    chosen = enough(table)
    if chosen == FRESH:
        return "\n".join([*lines, "No number of views compared here is enough: use fresh views, VIEWS 0."])
    rows = table[(table["views"] == chosen) & (table["what"] == "difference")]
    lines.append(
        f"From VIEWS {chosen} on, no metric is worse than with fresh views: "
        + "; ".join(map(_difference, rows.itertuples()))
        + "."
    )
    qwk = rows.set_index("metric").loc["qwk"]
    spread = table[(table["views"] == FRESH) & (table["metric"] == "qwk") & (table["what"] == "score")].iloc[
        0
    ]
    lines.append(f"Its interval does not rule out a loss of up to {max(0.0, -qwk['lo']):.3f} QWK.")
    if len(fresh) > 1:
        moved = spread["greatest"] - spread["least"]
        lines.append(f"With fresh views, the QWK of different seeds differs by up to {moved:.3f}.")
    return "\n".join(lines)


def _difference(row) -> str:
    sign = "+" if round(row.value, DIGITS) > 0 else ""
    return f"{METRICS.get(row.metric, row.metric)} {sign}{intervals.text(row.value, row.lo, row.hi, DIGITS)}"


def display(table: pd.DataFrame, what: str) -> pd.DataFrame:
    """:func:`compare` for readers: one row per number of views, texts with intervals; ``what`` is ``score`` or ``difference``."""
    rows = table[table["what"] == what]
    texts = rows.assign(text=intervals.column(rows, DIGITS))
    wide = texts.pivot(index="views", columns="metric", values="text").loc[rows["views"].unique()]
    found = wide[[name for name in METRICS if name in wide]].rename(columns=METRICS)
    return found.set_axis([label(views) for views in wide.index], axis=0).rename_axis(
        index="views", columns=None
    )


def costs(seconds: pd.DataFrame, epochs: int) -> pd.DataFrame:
    """What each number of views costs, seconds, medians over the seeds.

    Args:
        seconds: Seconds of :class:`drstudy.papers.views.training.Trained`.
        epochs: Number of epochs of a training.

    Returns:
        Indexed by views: ``trunk, prepare, epoch, training`` (preparation and all epochs) and ``times faster`` (fresh views' training over
        this).
    """
    found = seconds.groupby("views", sort=False)[["trunk", "prepare", "epoch"]].median()
    found["training"] = found["prepare"] + epochs * found["epoch"]
    found["times faster"] = found.loc[FRESH, "training"] / found["training"]
    return found
