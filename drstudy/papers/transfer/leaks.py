"""What a leak changes: scores of networks from leaking folds beside those from folds without a leak, in tables and sentences.

The folds and the networks are those of :mod:`drstudy.papers.transfer.training`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from drstudy.evaluation import statistics
from drstudy.papers.transfer.training import HONEST, WAYS, CrossFit
from drstudy.show import intervals


def exposure(dealt: pd.DataFrame, duplicates: pd.DataFrame | None = None) -> dict[str, int]:
    """How far the folds leak, in rows, each counted under the first that holds.

    Args:
        dealt: Result of :func:`drstudy.papers.transfer.training.deal`.
        duplicates: Pairs ``image_id_a, image_id_b``.

    Returns:
        ``rows``; of these ``copy`` (the same image is in training), ``duplicate`` (a duplicate of it), ``fellow``
        (another image of the patient).
    """
    counts = {"rows": len(dealt), "copy": 0, "duplicate": 0, "fellow": 0}
    pairs = (
        np.empty((0, 2), str) if duplicates is None else duplicates[["image_id_a", "image_id_b"]].to_numpy()
    )
    for fold, held in dealt.groupby("fold"):
        trained = dealt[dealt["fold"] != fold]
        known = set(trained["image_id"])
        near = [b for a, b in (*pairs, *pairs[:, ::-1]) if a in known]
        copied = held["image_id"].isin(trained["image_id"])
        duplicated = held["image_id"].isin(near) & ~copied
        fellow = held["patient_id"].isin(trained["patient_id"]) & ~copied & ~duplicated
        for name, found in (("copy", copied), ("duplicate", duplicated), ("fellow", fellow)):
            counts[name] += int(found.sum())
    return counts


def compare(fits: Sequence[CrossFit], resamples: int, seed: int) -> pd.DataFrame:
    """Scores of every way of making folds beside those of the way without a leak on the same rows, paired by row and by resample.

    Args:
        fits: The honest one among them.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        Long: ``way``; ``rows``, ``own`` (what such a study would print) or ``new patients``; ``what``, ``score``,
        ``honest`` (the honest networks on the same rows) or ``difference``, for the honest way only the first;
        ``metric, value, lo, hi, n_valid``.
    """
    honest = next(fit for fit in fits if fit.way == HONEST)
    by_image = honest.own.set_index(honest.dealt["image"])
    found = []
    for fit in fits:
        same = by_image.loc[fit.dealt["image"]].assign(image_id=fit.own["image_id"].to_numpy())
        same = same.reset_index(drop=True)
        for rows, theirs, ours in (("own", fit.own, same), ("new patients", fit.new, honest.new)):
            tables = {"score": statistics.bootstrap(theirs, resamples, seed)}
            if fit is not honest:
                tables["honest"] = statistics.bootstrap(ours, resamples, seed)
                tables["difference"] = statistics.paired_difference(theirs, ours, resamples, seed)
            found += [table.assign(way=fit.way, rows=rows, what=what) for what, table in tables.items()]
    columns = ["way", "rows", "what", "metric", "value", "lo", "hi", "n_valid"]
    return pd.concat(found, ignore_index=True)[columns]


def display(table: pd.DataFrame) -> pd.DataFrame:
    """The effect of leaks, for readers.

    Args:
        table: Result of :func:`compare`.

    Returns:
        One row per way of dealing and kind of rows: the QWK, that of the honest networks on the same rows, and the differences
        in three metrics. The honest way has no differences.
    """
    texts = table.assign(text=intervals.column(table))
    wide = texts.pivot(index=["rows", "way"], columns=["what", "metric"], values="text")
    shown = {
        "QWK": ("score", "qwk"),
        "QWK without a leak, same rows": ("honest", "qwk"),
        "difference in QWK": ("difference", "qwk"),
        "difference in balanced accuracy": ("difference", "balanced_accuracy"),
        "difference in macro AUC": ("difference", "macro_auc"),
    }
    found = pd.DataFrame({heading: wide[column] for heading, column in shown.items()})
    found = found.fillna("–")
    order = list(
        table[["rows", "way"]]
        .drop_duplicates()
        .sort_values("rows", kind="stable", key=lambda r: r != "own")
        .itertuples(index=False, name=None)
    )
    return found.loc[order].rename_axis(index={"way": "folds by"}).reset_index()


def describe(table: pd.DataFrame, metric: str = "qwk") -> list[str]:
    """One sentence for each way of making folds except the one without a leak: its score on its own rows minus the score without a leak on
    the same rows, and the same difference on new patients. The first sentence, on training again, shows the effect of chance alone.

    Args:
        table: Result of :func:`compare`.
        metric: One of its metrics.
    """
    differences = table[(table["what"] == "difference") & (table["metric"] == metric)].set_index(
        ["way", "rows"]
    )
    lines = []
    for way in WAYS[1:]:
        told = []
        for rows in ("own", "new patients"):
            value, lo, hi = differences.loc[(way, rows), ["value", "lo", "hi"]]
            says = "higher" if lo > 0 else "lower" if hi < 0 else "the interval includes 0"
            told.append(f"{intervals.text(*map(float, (value, lo, hi)), signs='value')} ({says})")
        lines.append(f"folds by {way}: {metric} on its own rows {told[0]}; on new patients {told[1]}")
    return lines
