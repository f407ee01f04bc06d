"""Ablation of the paper's unusual choices: one table; each row changes one setting and keeps all others.

Three kinds of evidence go into it, and the table says which:

- runs of notebook 03 with the paper's recipe and with one setting changed (``ablation`` of a profile): the same test
  images, differences paired by patient;
- notebook 02, for the split: what a study prints that splits by image, and what the same study prints on the same
  images if it splits by patient;
- notebook 05, for the layer of the maps, which changes no grade: the share of heat on lesions, by layer, on the same eyes.

A choice for which a profile has no runs keeps its row, with a note.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from drstudy.core import paths
from drstudy.core.records import Record, RecordError, load
from drstudy.data import splits
from drstudy.evaluation import metrics, statistics
from drstudy.explain.measures import baselines
from drstudy.papers.transfer import params
from drstudy.show import intervals, style

SHOWN = {"qwk": "QWK", "macro_auc": "macro AUC"}
"""Metrics of grades that :func:`display` shows; :func:`compare` has all."""

HEAT = "heat on lesions, times chance"

EXPECTED = {
    "head": "head",
    "frozen_bn": "frozen batch norm",
    "betas": "betas of Adam",
    "sampler": "sampler",
    "layer": "layer of the maps",
    "split": "split",
}
"""Oddities that have a row in any case: name (of the setting of notebook 03, in lower case) and title."""

FURTHER = {"weights": "pretraining", "seed": "nothing but the seed"}
"""Titles of other changes."""

WITHIN_SEEDS = "no larger than with another seed"

NEITHER = ("VARIANT", "WITHOUT_PRETRAINING", "FEATURE_STORE", "KEEP_FEATURES", "RESAMPLES", "THREADS")
"""Parameters that change no prediction."""

COLUMNS = [
    *("oddity", "title", "paper", "changed", "network", "metric"),
    *("paper_value", "changed_value", "value", "lo", "hi", "n_valid", "note"),
]


def compare(
    ablations: Sequence[Record], maps: Sequence[Record], split: Record | None, resamples: int, seed: int
) -> pd.DataFrame:
    """Every oddity that a profile has runs for, and a row that says so for every other of :data:`EXPECTED`.

    Args:
        ablations: Records of notebook 03: the paper's recipe first, then with one setting changed each; or none.
        maps: Records of notebook 05.
        split: The record of notebook 02.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        Long, one row per oddity and metric: ``paper`` and ``changed`` are the two settings, ``paper_value`` and
        ``changed_value`` what they give, ``value`` the second minus the first with ``lo`` and ``hi``. Without runs
        these are missing and ``note`` says why. It also names differences no larger than another seed makes.

    Raises:
        RecordError: If a run differs from the first in several settings, or in none.
    """
    found = [_ablation(ablations[0], other, resamples, seed) for other in ablations[1:]]
    found = [_beside_chance(pd.concat(found, ignore_index=True))] if found else []
    found += [layers for record in maps if len(layers := _layers(record, resamples, seed))]
    found += [_split(split)] if split else []
    here = {name for table in found for name in table["oddity"]}
    absent = [
        {"oddity": name, "title": title, "note": "not run in this profile"}
        for name, title in EXPECTED.items()
        if name not in here
    ]
    found += [pd.DataFrame(absent)] if absent else []
    table = pd.concat([frame.dropna(axis=1, how="all") for frame in found], ignore_index=True)
    order = {name: place for place, name in enumerate((*EXPECTED, *FURTHER))}
    table = table.reindex(columns=COLUMNS).sort_values(
        "oddity", key=lambda names: names.map(order), kind="stable"
    )
    return table.reset_index(drop=True)


def display(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`compare` for readers: the metrics of :data:`SHOWN`, texts with 95 % intervals."""
    rows = table[table["metric"].isin([*SHOWN, HEAT]) | table["metric"].isna()]
    signed = [
        "–" if np.isnan(value) else ("+" if value > 0 else "") + intervals.text(value, lo, hi)
        for value, lo, hi in rows[["value", "lo", "hi"]].to_numpy(float)
    ]
    text = {
        "oddity": rows["title"],
        "the paper's": rows["paper"].fillna("–"),
        "changed to": rows["changed"].fillna("–"),
        "network": rows["network"].fillna("–"),
        "measured": rows["metric"].replace(SHOWN).fillna("–"),
        "with the paper's": rows["paper_value"].map("{:.2f}".format, na_action="ignore").fillna("–"),
        "changed": rows["changed_value"].map("{:.2f}".format, na_action="ignore").fillna("–"),
        "difference": signed,
        "note": rows["note"].fillna(""),
    }
    return pd.DataFrame(text).reset_index(drop=True)


def describe(ablations: Sequence[Record]) -> str:
    """A sentence on what the changed runs were changed from, with every setting in which that is not the paper's."""
    if not ablations:
        return "This profile trains no network with the paper's recipe and one setting changed."
    base = ablations[0]
    recipe = base.recipe
    found = params.deviations(recipe).items()
    away = ", ".join(f"{name} {here} (paper {paper})" for name, (here, paper) in found)
    return f"The paper's recipe with {style.BACKBONE_NAMES.get(recipe['BACKBONE'], recipe['BACKBONE'])}, but for {away or 'nothing'}."


def changed(base: Record, other: Record) -> dict[str, tuple[Any, Any]]:
    """Settings in which two runs of notebook 03 differ: ``{name: (base, other)}``; of the recipes that really ran."""
    first, second = ({k: v for k, v in r.recipe.items() if k not in NEITHER} for r in (base, other))
    return {name: (first[name], second[name]) for name in first if first[name] != second[name]}


def _ablation(base: Record, other: Record, resamples: int, seed: int) -> pd.DataFrame:
    """All metrics of one changed run beside the base."""
    differing = changed(base, other)
    if len(differing) != 1:
        raise RecordError(
            f"{other.name} differs from {base.name} in {', '.join(differing) or 'nothing'}: one setting at a time is "
            "compared. Correct `ablation` in the profile."
        )
    (name, (paper, value)) = next(iter(differing.items()))
    first, second = (metrics.read_predictions(record.path("predictions.csv")) for record in (base, other))
    table = statistics.paired_difference(second, first, resamples, seed)
    oddity = name.lower()
    return table.assign(
        oddity=oddity,
        title=(EXPECTED | FURTHER).get(oddity, oddity),
        paper=str(paper),
        changed=str(value),
        network=style.record_label(base),
        paper_value=table["metric"].map(metrics.evaluate(first)),
        changed_value=table["metric"].map(metrics.evaluate(second)),
    )


def _beside_chance(table: pd.DataFrame) -> pd.DataFrame:
    """Note the differences that are no larger than what another seed alone makes of the same metric, where that was run.

    The intervals vary the patients and know nothing of this.
    """
    seed = table[table["oddity"] == "seed"].set_index("metric")["value"].abs()
    small = (table["value"].abs() <= table["metric"].map(seed)) & (table["oddity"] != "seed")
    return table.assign(note=np.where(small, WITHIN_SEEDS, None))


def _split(record: Record) -> pd.DataFrame:
    """All metrics that a study prints when it splits by image, and by patient, on the same images."""
    rows = pd.read_csv(record.path("tables/leaks.csv"))
    rows = rows[(rows["way"] == "image") & (rows["rows"] == "own")]
    wide = rows.pivot(index="metric", columns="what", values="value")
    table = rows[rows["what"] == "difference"].reset_index(drop=True)
    return table.assign(
        oddity="split",
        title=EXPECTED["split"],
        paper="by image",
        changed="by patient",
        network=style.record_label(record),
        paper_value=table["metric"].map(wide["score"]),
        changed_value=table["metric"].map(wide["honest"]),
        value=-table["value"],
        lo=-table["hi"],
        hi=-table["lo"],
        note="notebook 02, its recipe, in folds: what is printed, not what is true",
    )[COLUMNS]


def _layers(record: Record, resamples: int, seed: int) -> pd.DataFrame:
    """How much of the heat lies on lesions at each other layer than the first; no rows if there is one layer."""
    eyes = paths.read_csv(record.path("tables/heat_by_eye.csv"), text=("image_id", "kind", "region", "layer"))
    eyes = eyes[(eyes["kind"] == "part") & (eyes["region"] == "lesion")]
    eyes = eyes[~eyes["layer"].map(baselines.is_label)]
    layers = list(dict.fromkeys(eyes["layer"]))
    split = splits.read(load(record.params["AUDIT"]).path("split.csv"))
    patients = split.set_index("image_id")["patient_id"]
    heat = eyes.pivot(index="image_id", columns="layer", values="heat")
    area = eyes.drop_duplicates("image_id").set_index("image_id")["area"].reindex(heat.index)
    model = load(record.params["MODEL"])
    found = []
    for layer in layers[1:]:
        used = heat[[layers[0], layer]].dropna()
        sums = np.column_stack([used.to_numpy(), area[used.index].to_numpy()])
        draws = statistics.resampled_sums(sums, patients[used.index], resamples, seed)
        times = [
            total[:, :2] / np.where(total[:, 2:] > 0, total[:, 2:], np.nan)
            for total in (sums.sum(0, keepdims=True), draws)
        ]
        before, after = times[0][0]
        found.append(
            {
                "oddity": "layer",
                "title": EXPECTED["layer"],
                "paper": layers[0],
                "changed": layer,
                "network": style.record_label(model),
                "metric": HEAT,
                "paper_value": before,
                "changed_value": after,
                "note": f"notebook 05: {len(used)} of {len(heat)} eyes have heat at both layers; grades do not change",
                **statistics.percentiles(after - before, times[1][:, 1] - times[1][:, 0]),
            }
        )
    return pd.DataFrame(found, columns=COLUMNS)
