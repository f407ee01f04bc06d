"""What the finished results of the main study say, for reporting checklists and the model card.

Each fact has a name, which a sentence of a checklist may write in braces. A fact that the records do not hold is None or an empty
text, or its look-up raises ``KeyError`` or ``RecordError``; the sentence is then left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from drstudy.core import records
from drstudy.data import splits
from drstudy.evaluation import metrics
from drstudy.papers.base import AUDIT, NOT_REPORTED, TRAINING, is_ablation
from drstudy.papers.transfer import params
from drstudy.papers.transfer.params import PAPER, deviations
from drstudy.show import intervals, style, tables

COMPARISON = params.BackboneComparison.notebook
OVERSAMPLING = params.Oversampling.notebook
HEATMAPS = params.HeatmapAnalysis.notebook
RELIABILITY = params.Reliability.notebook


class Results:
    """Finished records of a profile, by notebook, with what several facts need.

    Attributes:
        profile: Name of the profile.
        all: All its finished records.
        networks: Records of its fine-tuned networks, without those of an ablation.
        audit: Record of its photographs and their split; None where that is not finished.
    """

    def __init__(self, profile: str, found: Sequence[records.Record]) -> None:
        self.profile = profile
        self.all = list(found)
        networks = [r for r in self.of(TRAINING) if not is_ablation(r)]
        self.networks = networks
        self.audit = next(iter(self.of(AUDIT)), None)

    def of(self, notebook: str) -> list[records.Record]:
        """All records of a notebook."""
        return [record for record in self.all if record.data["notebook"] == notebook]

    def table(self, notebook: str, name: str) -> pd.DataFrame | None:
        """A table of the one run of a notebook; None where it is missing or empty."""
        for record in self.of(notebook):
            file = record.folder / "tables" / f"{name}.csv"
            if file.is_file() and len(frame := pd.read_csv(file)):
                return frame
        return None

    def split(self) -> pd.DataFrame | None:
        """The split of the photographs; None without an audit."""
        if self.audit is None:
            return None
        return splits.read(self.audit.path("split.csv"))


def _audited(metric: str) -> Callable[[Results], Any]:
    """A metric of notebook 01."""
    return lambda r: r.audit.metrics.get(metric) if r.audit else None


def _parameter(name: str) -> Callable[[Results], Any]:
    """A parameter of notebook 01."""
    return lambda r: r.audit.params.get(name) if r.audit else None


def _shared(name: str) -> Callable[[Results], str]:
    """A parameter of the networks, as it was when they were trained: one value, or all that occur."""
    return lambda r: ", ".join(dict.fromkeys(str(record.recipe[name]) for record in r.networks))


def _synthetic(r: Results) -> str | None:
    return "every image is synthetic" if r.audit and r.audit.params["SOURCE"] == "phantom" else None


def _if_phantom(look_up: Callable[[Results], Any]) -> Callable[[Results], Any]:
    return lambda r: look_up(r) if _synthetic(r) else None


def _by_split(count: Callable[[pd.DataFrame], Any]) -> Callable[[Results], str | None]:
    """Something counted in training, validation and test."""

    def look_up(r: Results) -> str | None:
        split = r.split()
        if split is None:
            return None
        return "; ".join(
            str(count(split[split["split"] == name])) for name in ("train", "validation", "test")
        )

    return look_up


def _torn(r: Results) -> int | None:
    split = r.split()
    if split is None:
        return None
    graded = split[split["split"] != splits.UNGRADED]
    return int((graded.groupby("patient_id")["split"].nunique() > 1).sum())


def _recipe(r: Results) -> str:
    found = []
    for record in r.networks:
        p = record.recipe
        found.append(
            f"{p['EPOCHS']} epochs, Adam with learning rate {p['LEARNING_RATE']:g} and betas {tuple(p['BETAS'])}, batches of "
            f"{p['BATCH_SIZE']}, weight decay {p['WEIGHT_DECAY']:g}, label smoothing {p['LABEL_SMOOTHING']:g}, sampler "
            f"{p['SAMPLER']}, frozen batch norm {p['FROZEN_BN']}, input {p['INPUT_SIZE']} pixels"
        )
    return "; or ".join(dict.fromkeys(found))


def _deviations(r: Results) -> str:
    """Settings that are not the paper's in some network, with every value that occurs."""
    found: dict[str, list[str]] = {}
    for record in r.networks:
        for name, (here, _) in deviations(record.recipe).items():
            found.setdefault(name, []).append(str(here))
    return "; ".join(
        f"{name} {' or '.join(dict.fromkeys(values))} (paper {PAPER[name]})" for name, values in found.items()
    )


def _selection(r: Results) -> str:
    rules = dict.fromkeys(record.recipe["SELECT_BY"] for record in r.networks)
    texts = {"last": "the last epoch is kept", "qwk": "the epoch of best QWK on validation is kept"}
    texts["loss"] = "the epoch of least loss on validation is kept"
    return "; ".join(texts[rule] for rule in rules)


def _each(text: Callable[[records.Record], str]) -> Callable[[Results], str]:
    """A sentence part for each network, seed and all."""
    return lambda r: "; ".join(
        f"{style.record_label(x)} seed {x.params['SEED']}: {text(x)}" for x in r.networks
    )


def _metric(record: records.Record, name: str) -> str:
    found = [record.metrics.get(f"{name}{end}") for end in ("", "_lo", "_hi")]
    return (
        NOT_REPORTED
        if found[0] is None
        else intervals.text(*(float("nan") if x is None else x for x in found))
    )


_TITLES = {name: title.replace(",", " over") for name, title in tables.SUMMARY.items()}
"""Without commas, which part metrics in a sentence."""


def _performance(record: records.Record) -> str:
    return ", ".join(f"{_TITLES[name]} {_metric(record, name)}" for name in tables.SUMMARY)


def _diagnostic(record: records.Record) -> str:
    names = ("sensitivity_ge2", "specificity_ge2", "auc_ge2")
    return ", ".join(
        f"{name.replace('_ge2', '')} at grade 2 or more {_metric(record, name)}" for name in names
    )


def _failures(record: records.Record) -> str:
    test = metrics.read_predictions(record.path("predictions.csv"))
    grade, _, predicted = metrics.arrays(test)
    severe, healthy = grade >= 3, grade == 0
    return (
        f"{int((severe & (predicted == 0)).sum())} of {int(severe.sum())} eyes of grade 3 or 4 predicted 0, "
        f"{int((healthy & (predicted >= 2)).sum())} of {int(healthy.sum())} of grade 0 predicted 2 or more"
    )


def _test_size(r: Results) -> str | None:
    split = r.split()
    if split is None:
        return None
    test = split[split["split"] == "test"]
    return f"{len(test)} images of {test['patient_id'].nunique()} patients"


def _rows(r: Results, notebook: str, name: str, text: Callable[[pd.Series], str], **where: Any) -> str | None:
    """A sentence part for each row of a table that has these values."""
    frame = r.table(notebook, name)
    if frame is None:
        return None
    for column, wanted in where.items():
        frame = frame[frame[column] == wanted]
    return "; ".join(text(row) for _, row in frame.iterrows())


def _interval(row: pd.Series) -> str:
    return intervals.text(row["value"], row["lo"], row["hi"])


def _heat(r: Results) -> str:
    found = []
    for record in r.of(HEATMAPS):
        summary = pd.read_csv(record.path("tables/heat_summary.csv"))
        rows = summary[(summary["kind"] == "part") & (summary["region"] == "lesion") & (summary["eyes"] > 0)]
        model = records.load(record.params["MODEL"])
        for row in rows.to_dict("records"):
            times = intervals.text(*intervals.of(row, "enrichment"))
            found.append(f"{style.record_label(model)}, {row['layer']}: {times} times chance on lesions")
    return "; ".join(found)


def _external(r: Results) -> str | None:
    """Test images of another profile's network, if any; heatmaps are the only such use."""
    models = {record.params["MODEL"] for record in r.of(HEATMAPS)}
    others = sorted(model for model in models if not model.startswith(f"results/{r.profile}/"))
    if others:
        return f"Heatmaps of {', '.join(others)} on {r.audit.params['SOURCE']}, which it was not trained on; grades are not tested there"
    return None


def _leak(r: Results) -> str | None:
    where = {"way": "row", "rows": "own", "what": "difference", "metric": "qwk"}
    return _rows(
        r, OVERSAMPLING, "leaks", lambda row: f"QWK {_interval(row)} higher than without a leak", **where
    )


def _oddities(r: Results) -> str | None:
    frame = r.table(COMPARISON, "oddities")
    if frame is None or "qwk" not in set(frame["metric"]):
        return None
    return _rows(
        r,
        COMPARISON,
        "oddities",
        lambda row: f"{row['title']}, {row['paper']} to {row['changed']}: QWK {_interval(row)}",
        metric="qwk",
    )


def _tests(r: Results) -> str | None:
    for record in r.of(RELIABILITY):
        return (
            f"{record.metrics['below_5_percent']} of {record.metrics['comparisons']} differences below 0.05"
        )
    return None


def _limits(r: Results) -> str:
    """Limits that follow from the records; each is stated only where it applies."""
    found = []
    if _synthetic(r):
        found.append("synthetic images: no number says anything about patients")
    if untrained := [style.record_label(x) for x in r.networks if x.metrics["weights_used"] == "none"]:
        found.append(f"random starting weights: {', '.join(dict.fromkeys(untrained))}")
    if r.networks and len({x.params["SEED"] for x in r.networks}) == 1:
        found.append("one training seed per network, so intervals are about the choice of patients only")
    if r.networks and not _external(r):
        found.append("no external data")
    return "; ".join(found)


def _cost(r: Results) -> str:
    if not r.networks:
        return ""
    devices = ", ".join(dict.fromkeys(x.data["device"] for x in r.networks))
    minutes = sum(x.data["seconds"] for x in r.networks) / 60
    memory = max(x.data["peak_rss_mb"] for x in r.networks)
    return (
        f"{devices}; {minutes:.0f} minutes for {len(r.networks)} networks, at most {memory:.0f} MiB of memory"
    )


def _grades(part: pd.DataFrame) -> str:
    return ", ".join(str(int((part["grade"] == grade).sum())) for grade in metrics.GRADES)


def _cut(r: Results) -> int | None:
    return next((record.params["CUT"] for record in r.of(RELIABILITY)), None)


def _events(r: Results) -> str | None:
    cut = _cut(r)
    return None if cut is None else _by_split(lambda part: int((part["grade"] >= cut).sum()))(r)


_LOOK_UPS: dict[str, Callable[[Results], Any]] = {
    # data
    "source": _parameter("SOURCE"),
    "phantom": _synthetic,
    "collection": lambda r: None if r.audit is None or _synthetic(r) else r.audit.params["SOURCE"],
    "phantom_settings": _if_phantom(
        lambda r: ", ".join(
            f"{n.lower()} {r.audit.params[n]}" for n in ("PHANTOM_SIZE", "DISTRIBUTION", "DIFFICULTY", "SEED")
        )
    ),
    "label_noise": _if_phantom(_parameter("LABEL_NOISE")),
    "image_size": _parameter("IMAGE_SIZE"),
    "split_by": _parameter("SPLIT_BY"),
    "split_seed": _parameter("SEED"),
    "fractions": lambda r: (
        " / ".join(f"{share:.0%}" for share in r.audit.params["FRACTIONS"]) if r.audit else None
    ),
    **{
        name: _audited(name)
        for name in (
            *("n_images", "n_patients", "n_quarantined", "n_noted", "n_flagged"),
            "n_duplicates_across_splits",
        )
    },
    "n_ungraded": lambda r: r.audit.metrics["n_images"] - r.audit.metrics["n_graded"] if r.audit else None,
    "n_duplicates": lambda r: (
        sum(r.audit.metrics[f"n_{k}_duplicates"] for k in ("exact", "near")) if r.audit else None
    ),
    "prevalence": lambda r: (
        ", ".join(f"{r.audit.metrics[f'prevalence_ge{k}']:.1%} of grade {k} or more" for k in metrics.CUTS)
        if r.audit and r.audit.metrics["prevalence_ge1"] is not None
        else None
    ),
    "patients_torn": _torn,
    "images_by_split": _by_split(len),
    "patients_by_split": _by_split(lambda part: part["patient_id"].nunique()),
    "grades_by_split": _by_split(_grades),
    "events_by_split": _events,
    "test_size": _test_size,
    # networks
    "networks": lambda r: ", ".join(dict.fromkeys(style.record_label(record) for record in r.networks)),
    "n_networks": lambda r: len(r.networks) or None,
    "seeds": lambda r: ", ".join(str(s) for s in sorted({x.params["SEED"] for x in r.networks})),
    "weights": _each(lambda x: x.metrics["weights_used"]),
    "trainable": _each(
        lambda x: (
            f"{x.metrics['parameters_trainable']:,} of {x.metrics['parameters_total']:,} parameters trained"
        )
    ),
    "head": _shared("HEAD"),
    "sampler": _shared("SAMPLER"),
    "input_size": _shared("INPUT_SIZE"),
    "views": lambda r: ", ".join(
        dict.fromkeys(str(x.recipe["VIEWS"] or "a fresh one each time") for x in r.networks)
    ),
    "recipe": _recipe,
    "deviations": _deviations,
    "selection": _selection,
    "cost": _cost,
    # results
    "resamples": _shared("RESAMPLES"),
    "metrics": lambda r: (
        ", ".join(_TITLES.values()) + "; sensitivity, specificity and AUC at every cut"
        if r.networks
        else None
    ),
    "performance": _each(_performance),
    "diagnostic": _each(_diagnostic),
    "failures": _each(_failures),
    "cut": _cut,
    "tests": _tests,
    "temperatures": lambda r: _rows(
        r, RELIABILITY, "temperatures", lambda row: f"{row['label']} {row['temperature']:.2f}"
    ),
    "calibration": lambda r: _rows(
        r,
        RELIABILITY,
        "calibration",
        lambda row: f"{row['label']}: ECE {_interval(row)}",
        state="scaled",
        metric="ece",
    ),
    "operating": lambda r: _rows(
        r,
        RELIABILITY,
        "operating_points",
        lambda row: (
            f"{row['label']} at {row['threshold']:.2f} (specificity {row['wanted']:g} wanted): sensitivity {_interval(row)}"
        ),
        metric="sensitivity",
    ),
    "heat": _heat,
    "leak_row": _leak,
    "oddities": _oddities,
    "external": _external,
    "limits": _limits,
}


def _of_records(look_up: Callable[[Results], Any]) -> Callable[[str, Sequence[records.Record]], Any]:
    return lambda profile, found: look_up(Results(profile, found))


FACTS = {name: _of_records(look_up) for name, look_up in _LOOK_UPS.items()}
"""Every fact that a sentence may name, as a function of a profile's name and its finished records; None or an empty text is unknown."""
