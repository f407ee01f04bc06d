"""Which systems have finished results, and which are missing and why. Nothing is trained or computed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from drstudy.core import paths, records
from drstudy.core.records import Record, Run
from drstudy.evaluation import common
from drstudy.explain.measures import common_maps
from drstudy.papers.base import System
from drstudy.papers.beside.params import SideBySide
from drstudy.show import style

PREDICTIONS, MAPS, SYSTEM = "predictions", "maps", "system"
"""What may be missing."""

RANDOM = "none"
"""``weights_used`` of a network that started from random weights."""


SAME_EYES = frozenset(
    {
        *("PROFILE", "VARIANT", "IMAGE_SIZE", "PHANTOM_SIZE", "SPLIT_FROM", "SPLIT_BY", "FRACTIONS"),
        *("WORKERS", "MAX_MEGAPIXELS", "NEAR_DUPLICATE_BITS", "MOST_LOST"),
    }
)
"""Parameters of the data audit that may differ between two audits of the same eyes."""


@dataclass(frozen=True)
class Compared:
    """A system with a finished result.

    Attributes:
        system: Its declaration.
        label: Its name as printed, unique.
        record: The result with its predictions.
        predictions: Rows of validation and test in the common form (:mod:`drstudy.evaluation.common`).
        maps: The result with its maps; None if there are none.
        same_eyes: Whether its test eyes, their patients and their grades are those of the reference network.
    """

    system: System
    label: str
    record: Record
    predictions: pd.DataFrame
    maps: Record | None
    same_eyes: bool = True

    def part(self, split: str) -> pd.DataFrame:
        """Rows of one split, by image_id."""
        rows = self.predictions[self.predictions["split"] == split]
        return rows.sort_values("image_id").reset_index(drop=True)


@dataclass(frozen=True)
class Gathered:
    """All that notebook 20 reads.

    Attributes:
        systems: Systems with predictions, in the order of the declarations.
        missing: One row for each thing that is missing: ``id`` and ``system``, ``what`` (system, predictions or maps) and ``why``.
        results: Every finished result that was looked at.
        reference: Place of the reference network in ``systems``.
    """

    systems: tuple[Compared, ...]
    missing: pd.DataFrame
    results: tuple[Record, ...]
    reference: int

    def references(self) -> list[Compared]:
        """The reference network; then the network of the same notebook on which its paper makes its claim, if that one was pretrained."""
        first = self.systems[self.reference]
        own = [one for one in self.systems if one.system.notebook == first.record.data["notebook"]]
        return [first, *(one for one in own if one.system.claimed and one is not first and one.same_eyes)]


def folders(p: SideBySide) -> list[str]:
    """Result folders that are looked at: those that the parameters name, or all finished ones of the profile."""
    if p.results:
        return list(p.results)
    return [f"results/{p.profile}/{record.name}" for record in records.find(p.profile)]


def read(systems: Sequence[System], p: SideBySide, run: Run | None = None) -> Gathered:
    """Read the result of every system that has one.

    A result that never ran is missing, and named. A result that is damaged is an error, since it may have been compared before.

    Args:
        systems: Declarations of all papers, in the order of tables.
        p: Parameters.
        run: Notes each record as an input of this run.

    Raises:
        drstudy.core.records.RecordError: If the reference network has no finished result, or a result is damaged.
        drstudy.evaluation.metrics.PredictionError: If predictions are not in the common form.
    """
    records.upstream(p.reference, run)
    named = list(dict.fromkeys([*folders(p), p.reference]))
    finished = {folder: _finished(folder, run) for folder in named}
    by_name = {_name(folder): record for folder, record in finished.items() if record is not None}
    found, missing = [], []
    for system in systems:
        own = _first_seeds([name for name in map(_name, named) if _is_of(system, name)])
        if not own:
            why = f"no result of {system.notebook} in this profile"
            missing.append((system.id, plain(system), SYSTEM, why))
        for name in own:
            one, lacking = _one(system, name, by_name)
            found += [one] if one else []
            missing += lacking
    place = next((k for k, one in enumerate(found) if one.record.folder == paths.resolve(p.reference)), None)
    if place is None:
        raise records.RecordError(
            f"No paper declares a system of {p.reference}, with which all are compared. Set REFERENCE to a result of a declared system that "
            "started from pretrained weights."
        )
    whole = tuple(_with_eyes(one, found[place]) for one in found)
    table = pd.DataFrame(missing, columns=["id", "system", "what", "why"])
    return Gathered(whole, table, tuple(by_name.values()), place)


def _finished(folder: str, run: Run | None) -> Record | None:
    """The record of a result folder; None if it never ran."""
    if not (paths.resolve(folder) / "run.json").is_file():
        return None
    record = records.load(folder)
    if run is not None:
        run.input(record.folder / "run.json")
    return record


def _name(folder: str) -> tuple[str, str]:
    """Notebook and variant of a result folder."""
    _, _, notebook, *variant = folder.split("/")
    return notebook, "/".join(variant)


def _is_of(system: System, name: tuple[str, str]) -> bool:
    return name[0] == system.notebook and system.is_variant(name[1])


def _first_seeds(names: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of several seeds of a network the first; the others say how training varies, which another notebook shows."""
    kept: dict[tuple[str, str], tuple[int, tuple[str, str]]] = {}
    for notebook, variant in names:
        stem, _, seed = variant.rpartition("-seed")
        number = int(seed) if seed.isdecimal() else 0
        key = (notebook, stem or variant)
        if key not in kept or number < kept[key][0]:
            kept[key] = (number, (notebook, variant))
    return [name for _, name in kept.values()]


def plain(system: System, variant: str = "") -> str:
    """The name of a system whose record is not there."""
    return system.name.replace("{network}", variant) if variant else system.name.replace(": {network}", "")


def _one(
    system: System, name: tuple[str, str], by_name: dict[tuple[str, str], Record]
) -> tuple[Compared | None, list[tuple[str, str, str, str]]]:
    """A system of one result, and what is missing of it."""
    record = by_name.get(name)
    if record is None:
        return None, [
            (system.id, plain(system, name[1]), SYSTEM, f"{'/'.join(filter(None, name))} has not run")
        ]
    label = system.name
    if "{network}" in label:
        label = label.replace("{network}", style.record_label(record))
    if name[1] and record.metrics.get("weights_used") == RANDOM:
        return None, [(system.id, label, SYSTEM, "the network started from random weights")]
    if system.predictions not in record.data["outputs"]:
        return None, [(system.id, label, PREDICTIONS, f"{record.name} has no {system.predictions}")]
    mapped = by_name.get((system.maps_notebook, name[1]))
    lacking = []
    if mapped is None or common_maps.FILE not in mapped.data["outputs"]:
        wanted = "/".join(filter(None, (system.maps_notebook, name[1])))
        why = f"{wanted} has not run" if mapped is None else f"{wanted} has no {common_maps.FILE}"
        lacking, mapped = [(system.id, label, MAPS, why)], None
    return Compared(system, label, record, common.read(record, system.predictions), mapped), lacking


def _with_eyes(one: Compared, reference: Compared) -> Compared:
    """The same, with ``same_eyes`` by comparison with the test rows of the reference network, and of the photographs.

    Rows alone do not tell: phantoms of other eyes have the same identifiers, and may have the same grades.
    """
    columns = {"image_id": str, "patient_id": str, "grade": float}
    own, other = (each.part("test")[list(columns)].astype(columns) for each in (one, reference))
    same = len(own) == len(other) and own.equals(other) and _same_photographs(one, reference)
    return Compared(one.system, one.label, one.record, one.predictions, one.maps, bool(same))


def _same_photographs(one: Compared, other: Compared) -> bool:
    """Whether two results were tested on photographs of the same eyes, at any size: by the parameters of their audits."""
    audits = [each.system.audit_of(each.record) for each in (one, other)]
    if audits[0] == audits[1]:
        return True
    made = [
        {name: value for name, value in records.load(audit).params.items() if name not in SAME_EYES}
        for audit in audits
    ]
    return made[0] == made[1]


def shown(gathered: Gathered) -> pd.DataFrame:
    """One row per system: its result, parameters and test eyes, and whether it has maps."""
    rows = []
    for one in gathered.systems:
        test = one.part("test")
        parameters = one.record.metrics.get("parameters_system")
        rows.append(
            {
                "system": one.label,
                "result": one.record.name,
                "parameters, millions": np.nan if parameters is None else round(parameters / 1e6, 2),
                "test eyes": len(test),
                "patients": test["patient_id"].nunique(),
                "same eyes as the reference": "yes" if one.same_eyes else "no",
                "maps": "yes" if one.maps else "no",
            }
        )
    return pd.DataFrame(rows)
