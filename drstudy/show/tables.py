"""Tables of compared networks: long and exact for files, rounded for readers.

Long tables of this module have the columns ``run, label, backbone, seed, metric, value, lo, hi, n_valid, resamples``, one row
per run and metric.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from drstudy.core.names import GRADE_NAMES
from drstudy.core.records import Record, RecordError
from drstudy.evaluation import metrics, statistics, tests
from drstudy.show import intervals, style

SUMMARY = {
    "qwk": "QWK",
    "accuracy": "accuracy, 5 grades",
    "balanced_accuracy": "balanced accuracy",
    "macro_auc": "macro AUC",
    "mae": "mean error (grades)",
    "nll": "NLL (nats)",
}
RECALLS = {f"recall_grade{g}": f"recall of {g} ({GRADE_NAMES[g]})" for g in metrics.GRADES}

COSTS = {
    "parameters_total": "parameters",
    "parameters_trainable": "of these trained",
    "seconds_trunk": "seconds for trunk features",
    "seconds_per_epoch": "seconds per epoch",
    "best_epoch": "epoch kept",
}

EFFORT = ("EPOCHS", "VIEWS", "INPUT_SIZE")
"""Settings of the recipe that ran, by which costs are to be read."""


@dataclass(frozen=True)
class ComparedRun:
    """A fine-tuned network, or a baseline, as the comparison sees it.

    Attributes:
        name: Prefix of its metrics, such as ``densenet121_seed0``.
        label: For readers, with the weights really used: ``DenseNet121 (ImageNet)``; and the seed, where
            several runs would have the same name.
        backbone: Name of the backbone; empty for a baseline.
        predictions: Its test rows.
        record: What notebook 03 left; ``None`` for a baseline.
    """

    name: str
    label: str
    backbone: str
    predictions: pd.DataFrame
    record: Record | None = None

    @property
    def seed(self) -> int | None:
        """Seed of the fine-tuning; ``None`` for a baseline."""
        return self.record.params["SEED"] if self.record else None


def read_runs(records: Sequence[Record]) -> list[ComparedRun]:
    """Test predictions of finished fine-tunings, labelled; all on the same images.

    Raises:
        drstudy.core.records.RecordError: If two runs would share a name, or a record lacks what notebook 03
        writes. drstudy.evaluation.metrics.PredictionError: If predictions are broken, or runs were tested on different
        images.
    """
    for record in records:
        missing = ", ".join(name for name in ("weights_used", *COSTS) if name not in record.metrics)
        if missing:
            raise RecordError(f"The record of {record.name} has no {missing}. Run notebook 03 again for it.")
    names = [_name(record) for record in records]
    repeated = ", ".join(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise RecordError(f"RUNS name {repeated} more than once; give each run its own VARIANT.")
    runs = [
        ComparedRun(
            name=name,
            label=label,
            backbone=record.params["BACKBONE"],
            predictions=metrics.read_predictions(record.path("predictions.csv")),
            record=record,
        )
        for name, label, record in zip(names, _labels(records), records)
    ]
    for other in runs[1:]:
        try:
            statistics.check_same_images(runs[0].predictions, other.predictions)
        except metrics.PredictionError as error:
            raise metrics.PredictionError(f"{runs[0].name} and {other.name}: {error}") from None
    return runs


def always_grade_0(run: ComparedRun) -> ComparedRun:
    """The baseline that predicts every test image healthy, with certainty: accurate where disease is rare."""
    predictions = run.predictions.assign(**{name: float(name == "p0") for name in metrics.PROBABILITIES})
    return ComparedRun("always_grade_0", "always grade 0", "", predictions)


def scores(runs: Sequence[ComparedRun], resamples: int, seed: int) -> pd.DataFrame:
    """Every metric of every run with its interval, on shared resamples; long."""
    return pd.concat(
        [_long(run, statistics.bootstrap(run.predictions, resamples, seed), resamples) for run in runs],
        ignore_index=True,
    )


def differences(
    runs: Sequence[ComparedRun], resamples: int, seed: int, to: str = "densenet121"
) -> pd.DataFrame:
    """Every metric of every run minus that of the paper's main network, paired by image and by resample;
    long.

    Each run is compared with the first run of backbone ``to`` that has its seed, else with the first one of
    that backbone; the column ``reference`` says which. Without such a run the table has no rows.
    """
    found = []
    for run in runs:
        reference = _reference(run, runs, to)
        if reference is not run:
            table = statistics.paired_difference(run.predictions, reference.predictions, resamples, seed)
            found.append(_long(run, table, resamples).assign(reference=reference.label))
    columns = ["run", "label", "backbone", "seed", "reference", "metric", "value", "lo", "hi", "n_valid"]
    empty = pd.DataFrame(columns=[*columns, "resamples"])
    return pd.concat(found, ignore_index=True)[list(empty)] if found else empty


def both_intervals(runs: Sequence[ComparedRun], resamples: int, seed: int) -> pd.DataFrame:
    """Every metric of every run with its percentile interval (``lo``, ``hi``) and its BCa one (``bca_lo``,
    ``bca_hi``), of the same resamples; long."""
    table = scores(runs, resamples, seed)
    bca = [statistics.bootstrap(run.predictions, resamples, seed, "bca") for run in runs]
    bca = pd.concat(bca, ignore_index=True)
    return table.assign(bca_lo=bca["lo"], bca_hi=bca["hi"])


def paired_tests(
    runs: Sequence[ComparedRun], resamples: int, seed: int, cut: int = 2, to: str = "densenet121"
) -> pd.DataFrame:
    """Every run against that of the paper's main network at one cut, tested; see
    :func:`drstudy.evaluation.tests.paired_tests`.

    Returns:
        Columns ``run, label, reference, metric, value, lo, hi, n_valid, p_images, p_patients`` and
        ``p_patients_holm``, which allows for the number of runs compared on that metric. No rows without a run of
        backbone ``to``.
    """
    found = [
        tests.paired_tests(run.predictions, reference.predictions, resamples, seed, cut).assign(
            run=run.name, label=run.label, reference=reference.label
        )
        for run in runs
        if (reference := _reference(run, runs, to)) is not run
    ]
    columns = [
        "run",
        "label",
        "reference",
        "metric",
        "value",
        "lo",
        "hi",
        "n_valid",
        "p_images",
        "p_patients",
    ]
    table = pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)
    return table.assign(p_patients_holm=table.groupby("metric")["p_patients"].transform(tests.holm))


def _reference(run: ComparedRun, runs: Sequence[ComparedRun], to: str) -> ComparedRun:
    """The first run of backbone ``to`` that has this run's seed, else the first of that backbone, else itself."""
    references = [other for other in runs if other.backbone == to]
    same_seed = [other for other in references if other.seed == run.seed]
    return next(iter(same_seed + references), run)


def variance_parts(table: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """Two sources of variation of a number, side by side, for networks that were trained more than once.

    Args:
        table: Result of :func:`scores`.
        columns: Metrics and their headings.

    Returns:
        :func:`seed_spread`, its ``std`` (over seeds, the patients being the same) as ``over seeds``, and
        ``over patients``: the mean over seeds of the interval's width over 2 x 1.96, a standard deviation if the
        draws are normal. No rows if nothing was trained more than once.
    """
    spread = seed_spread(table, columns).rename(columns={"std": "over seeds"})
    rows = table[table["metric"].isin(columns)].replace({"metric": columns})
    label = rows["label"].str.replace(r", seed \d+$", "", regex=True)
    width = (rows["hi"] - rows["lo"]).groupby([label, rows["metric"]]).mean() / (2 * 1.96)
    return spread.join(width.rename("over patients"), on=["label", "metric"])


def display(table: pd.DataFrame, columns: dict[str, str], digits: int = 2) -> pd.DataFrame:
    """A long table for readers: one row per run, one column per metric, ``value [lo, hi]``.

    Args:
        table: Result of :func:`scores` or :func:`differences`.
        columns: Metric names and their headings, such as :data:`SUMMARY`.
        digits: After the point.
    """
    rows = table[table["metric"].isin(columns)]
    found = wide(rows.assign(text=texts(rows, digits)), "label", "metric")
    return found.reindex(columns=list(columns)).rename(columns=columns).rename_axis(index=None)


def costs(runs: Sequence[ComparedRun]) -> pd.DataFrame:
    """What each network took: parameters, :data:`EFFORT` of the recipe that ran, seconds, epoch kept, peak memory of its whole
    notebook, device."""
    rows = {
        run.label: {heading: run.record.metrics[name] for name, heading in COSTS.items()}
        | {name.lower().replace("_", " "): run.record.recipe[name] for name in EFFORT}
        | {"peak memory, MiB": run.record.data["peak_rss_mb"], "device": run.record.data["device"]}
        for run in runs
        if run.record
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def seed_spread(table: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """Mean and standard deviation over the seeds of what was trained more than once; no rows if nothing was.

    The bootstrap varies the patients and the seeds vary the fine-tuning, so its intervals do not show this
    spread.
    """
    rows = table[table["metric"].isin(columns) & table["seed"].notna()]
    rows = rows.assign(label=rows["label"].str.replace(r", seed \d+$", "", regex=True))
    groups = rows.groupby(["label", "metric"], sort=False)["value"]
    spread = groups.agg(["count", "mean", "std"]).reset_index().rename(columns={"count": "seeds"})
    return spread[spread["seeds"] > 1].replace({"metric": columns}).reset_index(drop=True)


def flat(table: pd.DataFrame) -> dict[str, float]:
    """A long table as metrics of a record: ``<run>_<metric>``, ``..._lo``, ``..._hi``.

    A table without the column ``run``, as of :func:`drstudy.evaluation.statistics.bootstrap`, gives names without that
    prefix.
    """
    prefixes = table["run"] + "_" if "run" in table else [""] * len(table)
    return {
        f"{prefix}{row.metric}{end}": value
        for prefix, row in zip(prefixes, table.itertuples())
        for end, value in (("", row.value), ("_lo", row.lo), ("_hi", row.hi))
    }


def _name(record: Record) -> str:
    variant = record.data["variant"] or f"{record.params['BACKBONE']}-seed{record.params['SEED']}"
    return variant.replace("-", "_")


def _labels(records: Sequence[Record]) -> list[str]:
    """Distinct labels: backbone and weights; the seed where these repeat; the variant where that repeats
    too."""
    labels = [style.record_label(record) for record in records]
    for more in ("seed {SEED}", "{VARIANT}"):
        times = Counter(labels)
        labels = [
            f"{label}, {more.format(**record.params)}" if times[label] > 1 else label
            for label, record in zip(labels, records)
        ]
    return labels


def _long(run: ComparedRun, table: pd.DataFrame, resamples: int) -> pd.DataFrame:
    about = {"run": run.name, "label": run.label, "backbone": run.backbone, "seed": run.seed}
    about = pd.DataFrame(about, index=table.index).astype({"seed": "Int64"})
    return pd.concat([about, table], axis=1).assign(resamples=resamples)


def texts(table: pd.DataFrame, digits: int, scale: float = 1) -> list[str]:
    """Numbers with intervals of a long table, with a dagger where some resample was undefined."""
    return [
        intervals.text(
            scale * row.value, scale * row.lo, scale * row.hi, digits, complete=row.n_valid == row.resamples
        )
        for row in table.itertuples()
    ]


def wide(rows: pd.DataFrame, index: str | list[str], columns: str) -> pd.DataFrame:
    """The column ``text`` of a long table side by side, in the order of its rows."""
    order = rows[index].drop_duplicates()
    wide = rows.pivot(index=index, columns=columns, values="text").rename_axis(columns=None)
    return wide.loc[list(order) if isinstance(index, str) else list(order.itertuples(index=False, name=None))]
