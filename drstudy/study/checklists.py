"""Drafts of reporting checklists and a model card, filled from the records of a profile.

``templates/*.yaml`` beside this file holds the items, in our own short words, and for each the sentences that may answer it. A
sentence names facts in braces; :func:`facts` looks these up in ``run.json``, parameters and tables of finished runs. A
sentence with an unknown fact is left out, and an item without any sentence left is **not reported**: nothing is guessed,
and a person has to complete the draft.
"""

from __future__ import annotations

import contextlib
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from drstudy.core import paths, records
from drstudy.core.params import ParameterError
from drstudy.evaluation import metrics
from drstudy.papers.transfer.params import PAPER, deviations
from drstudy.show import intervals, style, tables
from drstudy.study import claims, pipeline

SHEETS = ("claim_2024", "tripod_ai", "model_card")
"""Files under ``drstudy/templates``."""

NOT_REPORTED = "not reported"
FROM_RECORDS, BY_PROJECT = "records", "stated by the project"


class Item(BaseModel):
    """One item.

    Attributes:
        item: Its number in the checklist, or its heading.
        asks: What it asks for.
        records: Sentences with facts in braces, at least one each.
        stated: Sentences that hold for the project whatever was run, and that no record could hold.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    item: str
    asks: str
    records: tuple[str, ...] = ()
    stated: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _records_name_facts(self) -> Item:
        unknown = sorted({name for text in self.records for name in _names(text)} - FACTS.keys())
        if unknown:
            raise ValueError(
                f"item {self.item}: unknown facts {', '.join(unknown)}; there are {', '.join(FACTS)}"
            )
        if any(not _names(text) for text in self.records) or any(_names(text) for text in self.stated):
            raise ValueError(
                f"item {self.item}: sentences of `records` name a fact in braces, those of `stated` none"
            )
        return self


class Sheet(BaseModel):
    """A checklist: its title, the publication it follows, its items."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    title: str
    source: str
    items: tuple[Item, ...] = Field(min_length=1)


def read(name: str) -> Sheet:
    """One of :data:`SHEETS`.

    Raises:
        drstudy.core.params.ParameterError: If the file is not valid, or names a fact that there is not.
    """
    file = Path(__file__).parent / "templates" / f"{name}.yaml"
    try:
        return Sheet(name=name, **yaml.safe_load(file.read_text(encoding="utf-8")))
    except (ValidationError, TypeError) as error:
        raise ParameterError(f"{paths.show(file)}: {error}") from error


def facts(profile: str, found: Sequence[records.Record]) -> dict[str, str]:
    """What finished results say, by the names of :data:`FACTS`; what they do not say is not there.

    Args:
        profile: Its name.
        found: All finished records of it, as :func:`drstudy.core.records.find` gives them.
    """
    results, said = _Results(profile, found), {}
    for name, look_up in FACTS.items():
        with contextlib.suppress(KeyError, records.RecordError):  # a record without it does not say it
            said[name] = look_up(results)
    return {name: str(value) for name, value in said.items() if value not in (None, "")}


def fill(sheet: Sheet, known: dict[str, str]) -> pd.DataFrame:
    """Columns ``item``, ``asks``, ``answer`` (or :data:`NOT_REPORTED`) and ``from``."""
    rows = []
    for item in sheet.items:
        sentences = [text.format(**known) for text in item.records if _names(text) <= known.keys()]
        origin = " and ".join([*[FROM_RECORDS][: len(sentences)], *[BY_PROJECT][: len(item.stated)]])
        answer = " ".join([*item.stated, *sentences])
        rows.append(
            {"item": item.item, "asks": item.asks, "answer": answer or NOT_REPORTED, "from": origin or "–"}
        )
    return pd.DataFrame(rows)


def markdown(sheet: Sheet, filled: pd.DataFrame, header: str) -> str:
    """A filled sheet for a text editor."""
    rows = [
        [str(cell).replace("|", "\\|") for cell in row]
        for row in [list(filled), ["---"] * 4, *filled.to_numpy().tolist()]
    ]
    table = "".join("| " + " | ".join(row) + " |\n" for row in rows)
    return f"# {sheet.title}\n\n{header}\n\nFollows: {sheet.source}. Items in our own words.\n\n{table}"


def header(profile: str, filled: pd.DataFrame) -> str:
    """What stands above every draft."""
    open_items = int((filled["answer"] == NOT_REPORTED).sum())
    return (
        f"Machine-filled draft, from the records of profile {profile}; nobody has checked it. "
        f"{open_items} of {len(filled)} items are {NOT_REPORTED}."
    )


def _names(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


class _Results:
    """Finished records of a profile, by notebook, with what several facts need."""

    def __init__(self, profile: str, found: Sequence[records.Record]) -> None:
        self.profile = profile
        self.all = list(found)
        networks = [r for r in self.of(pipeline.TRAINING) if not pipeline.is_ablation(r)]
        self.networks = networks
        self.audit = next(iter(self.of(pipeline.AUDIT)), None)

    def of(self, notebook: str) -> list[records.Record]:
        return [record for record in self.all if record.data["notebook"] == notebook]

    def table(self, notebook: str, name: str) -> pd.DataFrame | None:
        """A table of the one run of a notebook; None where it is missing or empty."""
        for record in self.of(notebook):
            file = record.folder / "tables" / f"{name}.csv"
            if file.is_file() and len(frame := pd.read_csv(file)):
                return frame
        return None

    def split(self) -> pd.DataFrame | None:
        if self.audit is None:
            return None
        return pd.read_csv(
            self.audit.path("split.csv"), dtype={"image_id": str, "patient_id": str, "grade": "Int64"}
        )


def _audited(metric: str) -> Callable[[_Results], Any]:
    """A metric of notebook 01."""
    return lambda r: r.audit.metrics.get(metric) if r.audit else None


def _parameter(name: str) -> Callable[[_Results], Any]:
    """A parameter of notebook 01."""
    return lambda r: r.audit.params.get(name) if r.audit else None


def _shared(name: str) -> Callable[[_Results], str]:
    """A parameter of the networks, as it was when they were trained: one value, or all that occur."""
    return lambda r: ", ".join(dict.fromkeys(str(record.recipe[name]) for record in r.networks))


def _synthetic(r: _Results) -> str | None:
    return "every image is synthetic" if r.audit and r.audit.params["SOURCE"] == "phantom" else None


def _if_phantom(look_up: Callable[[_Results], Any]) -> Callable[[_Results], Any]:
    return lambda r: look_up(r) if _synthetic(r) else None


def _by_split(count: Callable[[pd.DataFrame], Any]) -> Callable[[_Results], str | None]:
    """Something counted in training, validation and test."""

    def look_up(r: _Results) -> str | None:
        split = r.split()
        if split is None:
            return None
        return "; ".join(
            str(count(split[split["split"] == name])) for name in ("train", "validation", "test")
        )

    return look_up


def _torn(r: _Results) -> int | None:
    split = r.split()
    return None if split is None else int((split.groupby("patient_id")["split"].nunique() > 1).sum())


def _recipe(r: _Results) -> str:
    found = []
    for record in r.networks:
        p = record.recipe
        found.append(
            f"{p['EPOCHS']} epochs, Adam with learning rate {p['LEARNING_RATE']:g} and betas {tuple(p['BETAS'])}, batches of "
            f"{p['BATCH_SIZE']}, weight decay {p['WEIGHT_DECAY']:g}, label smoothing {p['LABEL_SMOOTHING']:g}, sampler "
            f"{p['SAMPLER']}, frozen batch norm {p['FROZEN_BN']}, input {p['INPUT_SIZE']} pixels"
        )
    return "; or ".join(dict.fromkeys(found))


def _deviations(r: _Results) -> str:
    """Settings that are not the paper's in some network, with every value that occurs."""
    found: dict[str, list[str]] = {}
    for record in r.networks:
        for name, (here, _) in deviations(record.recipe).items():
            found.setdefault(name, []).append(str(here))
    return "; ".join(
        f"{name} {' or '.join(dict.fromkeys(values))} (paper {PAPER[name]})" for name, values in found.items()
    )


def _selection(r: _Results) -> str:
    rules = dict.fromkeys(record.recipe["SELECT_BY"] for record in r.networks)
    texts = {"last": "the last epoch is kept", "qwk": "the epoch of best QWK on validation is kept"}
    texts["loss"] = "the epoch of least loss on validation is kept"
    return "; ".join(texts[rule] for rule in rules)


def _each(text: Callable[[records.Record], str]) -> Callable[[_Results], str]:
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
        f"{int((severe & (predicted == 0)).sum())} of {int(severe.sum())} eyes of grade 3 or 4 called 0, "
        f"{int((healthy & (predicted >= 2)).sum())} of {int(healthy.sum())} of grade 0 called 2 or more"
    )


def _test_size(r: _Results) -> str | None:
    split = r.split()
    if split is None:
        return None
    test = split[split["split"] == "test"]
    return f"{len(test)} images of {test['patient_id'].nunique()} patients"


def _rows(
    r: _Results, notebook: str, name: str, text: Callable[[pd.Series], str], **where: Any
) -> str | None:
    """A sentence part for each row of a table that has these values."""
    frame = r.table(notebook, name)
    if frame is None:
        return None
    for column, wanted in where.items():
        frame = frame[frame[column] == wanted]
    return "; ".join(text(row) for _, row in frame.iterrows())


def _interval(row: pd.Series) -> str:
    return intervals.text(row["value"], row["lo"], row["hi"])


def _heat(r: _Results) -> str:
    found = []
    for record in r.of(pipeline.HEATMAPS):
        summary = pd.read_csv(record.path("tables/heat_summary.csv"))
        rows = summary[(summary["kind"] == "part") & (summary["region"] == "lesion") & (summary["eyes"] > 0)]
        model = records.load(record.params["MODEL"])
        for row in rows.to_dict("records"):
            times = intervals.text(*(row[f"enrichment{end}"] for end in ("", "_lo", "_hi")))
            found.append(f"{style.record_label(model)}, {row['layer']}: {times} times chance on lesions")
    return "; ".join(found)


def _external(r: _Results) -> str | None:
    """Test images of another profile's network, if any; heatmaps are the only such use."""
    models = {record.params["MODEL"] for record in r.of(pipeline.HEATMAPS)}
    others = sorted(model for model in models if not model.startswith(f"results/{r.profile}/"))
    if others:
        return f"Heatmaps of {', '.join(others)} on {r.audit.params['SOURCE']}, which it was not trained on; grades are not tested there"
    return None


def _leak(r: _Results) -> str | None:
    where = {"way": "row", "rows": "own", "what": "difference", "metric": "qwk"}
    return _rows(
        r, pipeline.OVERSAMPLING, "leaks", lambda row: f"QWK {_interval(row)} higher than honest", **where
    )


def _oddities(r: _Results) -> str | None:
    frame = r.table(pipeline.COMPARISON, "oddities")
    if frame is None or "qwk" not in set(frame["metric"]):
        return None
    return _rows(
        r,
        pipeline.COMPARISON,
        "oddities",
        lambda row: f"{row['title']}, {row['paper']} to {row['changed']}: QWK {_interval(row)}",
        metric="qwk",
    )


def _claims(r: _Results) -> str:
    counts = claims.ledger(r.all)["verdict"].value_counts()
    return ", ".join(f"{number} {verdict}" for verdict, number in counts.items())


def _tests(r: _Results) -> str | None:
    for record in r.of(pipeline.RELIABILITY):
        return (
            f"{record.metrics['below_5_percent']} of {record.metrics['comparisons']} differences below 0.05"
        )
    return None


def _commits(r: _Results) -> str:
    return ", ".join(
        dict.fromkeys(
            (git["commit"] or "of no repository")[:10] + (" with uncommitted changes" if git["dirty"] else "")
            for git in (record.data["git"] for record in r.all)
        )
    )


def _software(r: _Results) -> str:
    found: dict[str, set[str]] = {}
    for record in r.all:
        for name, version in record.data["packages"].items():
            found.setdefault(name, set()).add(version)
    return ", ".join(f"{name} {' and '.join(sorted(versions))}" for name, versions in found.items())


def _limits(r: _Results) -> str:
    """Limits that follow from the records, each said only where it holds."""
    found = []
    if _synthetic(r):
        found.append("synthetic images: no number says anything about patients")
    if untrained := [style.record_label(x) for x in r.networks if x.metrics["weights_used"] == "none"]:
        found.append(f"random starting weights: {', '.join(dict.fromkeys(untrained))}")
    if r.networks and len({x.params["SEED"] for x in r.networks}) == 1:
        found.append("one training seed a network, so intervals are about the choice of patients only")
    if r.networks and not _external(r):
        found.append("no external data")
    return "; ".join(found)


def _cost(r: _Results) -> str:
    if not r.networks:
        return ""
    devices = ", ".join(dict.fromkeys(x.data["device"] for x in r.networks))
    minutes = sum(x.data["seconds"] for x in r.networks) / 60
    memory = max(x.data["peak_rss_mb"] for x in r.networks)
    return (
        f"{devices}; {minutes:.0f} minutes for {len(r.networks)} networks, at most {memory:.0f} MiB of memory"
    )


def _citation(name: str) -> Callable[[_Results], Any]:
    """A field of CITATION.cff."""

    def look_up(_: _Results) -> Any:
        file = paths.root() / "CITATION.cff"
        return yaml.safe_load(file.read_text(encoding="utf-8")).get(name) if file.is_file() else None

    return look_up


def _authors(r: _Results) -> str:
    return ", ".join(author.get("name", "") for author in _citation("authors")(r) or [])


def _grades(part: pd.DataFrame) -> str:
    return ", ".join(str(int((part["grade"] == grade).sum())) for grade in metrics.GRADES)


def _cut(r: _Results) -> int | None:
    return next((record.params["CUT"] for record in r.of(pipeline.RELIABILITY)), None)


def _events(r: _Results) -> str | None:
    cut = _cut(r)
    return None if cut is None else _by_split(lambda part: int((part["grade"] >= cut).sum()))(r)


FACTS: dict[str, Callable[[_Results], Any]] = {
    "profile": lambda r: r.profile,
    "project": _citation("title"),
    "version": _citation("version"),
    "licence": _citation("license"),
    "authors": _authors,
    "commit": _commits,
    "software": _software,
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
        r, pipeline.RELIABILITY, "temperatures", lambda row: f"{row['label']} {row['temperature']:.2f}"
    ),
    "calibration": lambda r: _rows(
        r,
        pipeline.RELIABILITY,
        "calibration",
        lambda row: f"{row['label']}: ECE {_interval(row)}",
        state="scaled",
        metric="ece",
    ),
    "operating": lambda r: _rows(
        r,
        pipeline.RELIABILITY,
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
    "claims": _claims,
    "limits": _limits,
}
"""Every fact that a sentence may name, and how it is looked up; None or an empty text is unknown."""
