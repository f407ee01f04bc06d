"""How many augmented views of an image are enough: K fixed ones against a fresh one at every draw.

The feature store makes K views of each training image once, and an epoch draws among them; the paper augments afresh
each time. Here networks are trained both ways, with everything else the same: weights, head, draws of the sampler, order of
the batches. What differs is only which view of a drawn image the network sees. All is measured on the validation split, as
a default is chosen by it; the test images are not read.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.evaluation import metrics, statistics
from drstudy.show import figures, tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from drstudy.core.devices import Compute
    from drstudy.data.dataset import Dataset
    from drstudy.papers.views.params import ViewsStudy

FRESH = 0
"""As ``VIEWS`` writes it: a new view at every draw."""

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


@dataclass(frozen=True)
class Trained:
    """What :func:`train` gives.

    Attributes:
        predictions: Number of views to predictions on validation after the last epoch, a table a seed.
        seconds: One row a seed and number of views: ``seed, views, trunk, prepare, epoch``. ``trunk`` is the time inside the
            frozen trunk and ``prepare`` that of the whole store, in a run of notebook 03 (training, validation and test images,
            each pass taken as long as the mean one here); of fresh views, ``trunk`` is of all epochs and ``prepare`` 0. ``epoch`` is the
            median of an epoch, validation included.
    """

    predictions: dict[int, list[pd.DataFrame]]
    seconds: pd.DataFrame


def label(views: int) -> str:
    """For figures and tables: ``4``, or ``fresh``."""
    return "fresh" if views == FRESH else str(views)


def train(p: ViewsStudy, data: Dataset, compute: Compute, keep: bool = False) -> Trained:
    """Train ``p.repeats`` networks with each number of views, seeds one apart, the same ones for each.

    One store of the largest number is made a seed; smaller numbers are its first views, which is what a store of their own would
    hold.

    Args:
        p: The recipe, of :func:`drstudy.training.networks.recipe_for`, and what is compared.
        data: All splits; the test images are counted, for the costs, and not read.
        compute: Device and precision.
        keep: See :func:`drstudy.training.loop.fit`.
    """
    from drstudy.papers.transfer import leaks
    from drstudy.training import features, grading, loop, networks, prediction

    sizes = {split: len(data.part(split)) for split in ("train", "validation", "test")}
    data = leaks.without_test(data)
    predictions: dict[int, list[pd.DataFrame]] = {views: [] for views in p.views_compared}
    rows = []
    for seed in range(p.seed, p.seed + p.repeats):
        most = p.model_copy(update={"seed": seed, "views": max(p.views_compared)})
        store = features.open_features(networks.build(most, data, compute), data, most, compute)
        made = len(store.train) * most.views + len(store.clean)
        for views in p.views_compared:
            recipe = most.model_copy(update={"views": views, "feature_store": views != FRESH})
            net = networks.build(recipe, data, compute)
            source = features.open_features(net, data, recipe, compute) if views == FRESH else store
            with contextlib.redirect_stdout(io.StringIO()):  # its lines are about epochs; here networks count
                fitted = loop.fit(grading.Grading(net, source, recipe, compute), keep=keep)
            trunk, prepare = fitted.seconds_trunk, fitted.seconds_prepare
            if views != FRESH:
                share = (sizes["train"] * views + sizes["validation"] + sizes["test"]) / made
                trunk, prepare = share * trunk, share * prepare
            found = prediction.table(net, source, "validation", compute)
            predictions[views].append(found)
            rows.append(
                {
                    "seed": seed,
                    "views": views,
                    "trunk": trunk,
                    "prepare": prepare,
                    "epoch": fitted.seconds_per_epoch,
                }
            )
            score = grading.qwk(found["grade"].to_numpy(int), metrics.arrays(found)[2])
            print(f"seed {seed}, views {label(views)}: validation QWK {score:.3f}", flush=True)
        store.close(keep=False)
    return Trained(predictions, pd.DataFrame(rows))


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
        predictions: Of :class:`Trained`, with :data:`FRESH` among its keys.
        resamples, seed: Of the patient bootstrap, the same resamples for all.
        names: Of the metrics.

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
        draws[views] = sum(statistics.resampled(frame, resamples, seed) for frame in frames) / len(frames)
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
    """The differences of :func:`compare` told apart from fresh views, as worse: by the whole interval, and by every seed.

    The interval varies the patients, the seeds vary the training; what other patients or another training would turn round is
    no finding.
    """
    lower = table["metric"].isin(LOWER_IS_BETTER)
    nearest = np.where(lower, table[["lo", "least"]].min(axis=1), -table[["hi", "greatest"]].max(axis=1))
    return table[(table["what"] == "difference") & (nearest > 0) & table["lo"].notna()]


def enough(table: pd.DataFrame) -> int:
    """The smallest number of views from which on no metric is told apart, as worse, from fresh views; else :data:`FRESH`.

    An interval that holds 0 is no proof of equality: see what it leaves open in :func:`describe`.
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
    lines = [f"{of}; differences are to fresh views, 95 % intervals over patients."]
    for views, rows in worse(table).groupby("views"):
        lines.append(f"VIEWS {views} is worse: " + "; ".join(map(_difference, rows.itertuples())) + ".")
    chosen = enough(table)
    if chosen == FRESH:
        return "\n".join([*lines, "No number of views compared here is enough: draw fresh ones, VIEWS 0."])
    rows = table[(table["views"] == chosen) & (table["what"] == "difference")]
    lines.append(
        f"The smallest number from which on nothing is told apart as worse is VIEWS {chosen}: "
        + "; ".join(map(_difference, rows.itertuples()))
        + "."
    )
    qwk = rows.set_index("metric").loc["qwk"]
    spread = table[(table["views"] == FRESH) & (table["metric"] == "qwk") & (table["what"] == "score")].iloc[
        0
    ]
    lines.append(
        f"It may still cost up to {max(0.0, -qwk['lo']):.3f} QWK: that is what its interval leaves open."
    )
    if len(fresh) > 1:
        moved = spread["greatest"] - spread["least"]
        lines.append(f"Fresh views alone differ by up to {moved:.3f} QWK from seed to seed.")
    return "\n".join(lines)


def _difference(row) -> str:
    sign = "+" if round(row.value, DIGITS) > 0 else ""
    return f"{METRICS.get(row.metric, row.metric)} {sign}{tables.interval(row.value, row.lo, row.hi, DIGITS)}"


def display(table: pd.DataFrame, what: str) -> pd.DataFrame:
    """:func:`compare` for readers: a row a number of views, texts with intervals; ``what`` is ``score`` or ``difference``."""
    rows = table[table["what"] == what]
    texts = rows.assign(
        text=[tables.interval(*row, DIGITS) for row in rows[["value", "lo", "hi"]].to_numpy(float)]
    )
    wide = texts.pivot(index="views", columns="metric", values="text").loc[rows["views"].unique()]
    found = wide[[name for name in METRICS if name in wide]].rename(columns=METRICS)
    return found.set_axis([label(views) for views in wide.index], axis=0).rename_axis(
        index="views", columns=None
    )


def costs(seconds: pd.DataFrame, epochs: int) -> pd.DataFrame:
    """What each number of views costs, seconds, medians over the seeds.

    Args:
        seconds: Of :class:`Trained`.
        epochs: Of a training.

    Returns:
        Indexed by views: ``trunk, prepare, epoch, training`` (preparation and all epochs) and ``times faster`` (fresh views' training over
        this).
    """
    found = seconds.groupby("views", sort=False)[["trunk", "prepare", "epoch"]].median()
    found["training"] = found["prepare"] + epochs * found["epoch"]
    found["times faster"] = found.loc[FRESH, "training"] / found["training"]
    return found


def figure(table: pd.DataFrame, colour: str) -> Figure:
    """Metrics by number of views (above) and their paired differences to fresh views (below), with 95 % intervals.

    Args:
        table: Of :func:`compare`.
        colour: Of the backbone.
    """
    names = [name for name in METRICS if name in set(table["metric"])]
    order = list(table["views"].unique())
    figure, axes = figures.new_figure(2, len(names), 2.7 * len(names), 5.0, sharex=True)
    for column, name in zip(axes.T, names):
        for ax, what in zip(column, ("score", "difference")):
            rows = table[(table["metric"] == name) & (table["what"] == what)]
            x = [order.index(views) for views in rows["views"]]
            ax.vlines(x, rows["lo"], rows["hi"], color=colour, linewidth=2)
            ax.plot(x, rows["value"], "o", color=colour)
            for end in ("least", "greatest"):
                ax.plot(x, rows[end], "_", color="black", markersize=9)
            ax.grid(axis="y", alpha=0.3)
        column[0].set_title(
            METRICS[name] + (" (lower is better)" if name in LOWER_IS_BETTER else ""), fontsize=10
        )
        column[1].axhline(0, color=figures.NEUTRAL, linestyle=":")
        column[1].set(xlabel="views of an image", xticks=range(len(order)), xticklabels=map(label, order))
    axes[0, 0].set_ylabel("score")
    axes[1, 0].set_ylabel("minus fresh views")
    figure.supxlabel("● mean over seeds, 95 % interval over patients   – least and greatest seed", fontsize=9)
    return figure
