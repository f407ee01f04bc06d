"""Systems, eyes and maps that can be looked at, read from finished results. Nothing is trained or computed for all eyes."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from drstudy.core import paths, records
from drstudy.core.names import FIELD, LESIONS, NAMES, PROBABILITIES
from drstudy.core.records import Record, Run
from drstudy.data import dataset, manifest
from drstudy.data.dataset import Dataset
from drstudy.evaluation import common
from drstudy.explain import one
from drstudy.explain.measures import common_maps, localisation, scores
from drstudy.explain.measures.common_maps import CommonMaps
from drstudy.explain.measures.grid import ANY
from drstudy.explain.measures.localisation import Masks
from drstudy.explain.methods import cam
from drstudy.papers.base import AUDIT, System
from drstudy.show import style

LAYERED = "maps.npz"
"""File of a result that may have maps at several layers (:func:`drstudy.explain.methods.cam.save_maps`)."""

DIGITS = 6
"""Digits behind the point by which eyes are ordered: the rest is rounding."""

KEPT = 64
"""Eyes whose masks are kept in memory."""


@dataclass(frozen=True)
class Maps:
    """Maps of one kind by one system.

    Attributes:
        name: As menus show it.
        region: What it should find: :data:`drstudy.explain.measures.grid.ANY`, or the code of a lesion.
        values: (N, h, w) float, at least 0.
        place: image_id to its place in ``values``.
        cut: Gives the value that was fixed on validation eyes, NaN if there is none; the first call fits it.
        found: Gives how well each test eye's map finds its lesion, by image_id (:func:`found_lesions`); the first call measures all eyes.
    """

    name: str
    region: str
    values: np.ndarray
    place: Mapping[str, int]
    cut: Callable[[], float]
    found: Callable[[], pd.Series]

    def of(self, image_id: str) -> np.ndarray | None:
        """The map of an eye, (h, w) float32; None if there is none."""
        place = self.place.get(image_id)
        return None if place is None else np.asarray(self.values[place], np.float32)

    @functools.cached_property
    def highest(self) -> float:
        """Value that is drawn as the hottest colour: 19 of 20 eyes have no higher one."""
        return float(np.quantile(self.values.max((1, 2)).astype(float), 0.95)) if len(self.values) else 0.0


@dataclass(frozen=True)
class Seen:
    """A system with its predictions for the test eyes.

    Attributes:
        label: Its name, unique.
        answers: Test rows in the common form (:mod:`drstudy.evaluation.common`) by image_id, with ``p0`` to ``p4`` if it has them.
        maps: Its maps by name; may be empty.
    """

    label: str
    answers: pd.DataFrame
    maps: Mapping[str, Maps] = field(default_factory=dict)


@dataclass(frozen=True)
class Collection:
    """All that can be looked at of a profile.

    Attributes:
        profile: Its name.
        data: Photographs, with their split.
        masks_of: Reader of the masks of an eye; recent ones are kept.
        masked: Whether the data set has masks of lesions at all.
        systems: Systems with predictions of test eyes.
    """

    profile: str
    data: Dataset
    masks_of: Callable[[str], Masks]
    masked: bool
    systems: tuple[Seen, ...]

    @functools.cached_property
    def eyes(self) -> pd.DataFrame:
        """Test eyes by image_id: ``patient_id``, ``grade`` and ``row``."""
        return self.data.part("test").set_index("image_id")[["patient_id", "grade", "row"]]

    @functools.cached_property
    def lesions(self) -> pd.DataFrame:
        """Test eyes by image_id and codes of lesions: pixels of each lesion, NaN where it is not annotated."""
        codes = list(LESIONS)
        if not self.masked:
            return pd.DataFrame(np.nan, index=self.eyes.index, columns=codes)
        rows = [[_pixels(self.masks_of(name).get(code)) for code in codes] for name in self.eyes.index]
        return pd.DataFrame(rows, index=self.eyes.index, columns=codes)

    def image(self, image_id: str) -> np.ndarray:
        """The photograph of a test eye, (S, S, 3) uint8."""
        return np.ascontiguousarray(self.data.images[int(self.eyes.loc[image_id, "row"])])

    def table(self) -> pd.DataFrame:
        """One row per map of each system: ``system``, its ``test eyes``, ``map``, and its ``cells``; a system without maps has one row."""
        rows = [
            (seen.label, len(seen.answers), name, " x ".join(map(str, maps.values.shape[1:])) if maps else "")
            for seen in self.systems
            for name, maps in (seen.maps or {"none": None}).items()
        ]
        return pd.DataFrame(rows, columns=["system", "test eyes", "map", "cells"])


def _pixels(mask: np.ndarray | None) -> float:
    return np.nan if mask is None else float(np.sum(mask, dtype=np.float64))


# --- reading ----------------------------------------------------------------------------------------------


def read(systems: Sequence[System], results: Iterable[str], audit: str, run: Run | None = None) -> Collection:
    """Read the systems of some results.

    Args:
        systems: Declarations of all papers.
        results: Result folders ``results/<profile>/<notebook>[/<variant>]``; those of no system are passed over.
        audit: Result folder with the photographs.
        run: Notes each record as an input of this run.

    Raises:
        drstudy.core.records.RecordError: If a result is missing or damaged, or no system is left that knows test eyes of the audit.
    """
    audited = records.upstream(audit, run)
    named = {record.name: record for record in (records.upstream(folder, run) for folder in results)}
    data = dataset.load(audited)
    masks_of = functools.lru_cache(maxsize=KEPT)(localisation.masks_of(audited))
    patients = dict(zip(data.table["image_id"], data.table["patient_id"]))
    found: list[Seen] = []
    for system in systems:
        for variant in _variants(system, named):
            if seen := _seen(system, variant, named, audited, masks_of, patients):
                found.append(seen)
    eyes = set(data.part("test")["image_id"])
    found = [seen for seen in found if eyes & set(seen.answers.index)]
    if not found:
        raise records.RecordError(
            f"No system has predictions of the test eyes of {audit}. Run `drstudy reproduce --profile {audited.data['profile']}`, or name other "
            "results in RESULTS."
        )
    columns = manifest.read(audited.path("manifest.csv")).columns
    masked = any(f"mask_{code}" in columns for code in LESIONS)
    return Collection(audited.data["profile"], data, masks_of, masked, tuple(found))


def profiles(systems: Sequence[System]) -> list[str]:
    """Names of the profiles that have a finished audit and a finished result of a system."""
    wanted = {system.notebook for system in systems}
    found = []
    for folder in sorted(paths.results().glob("*/")):
        done = {file.relative_to(folder).parts[0] for file in folder.glob("*/run.json")}
        done |= {file.relative_to(folder).parts[0] for file in folder.glob("*/*/run.json")}
        if (folder / AUDIT / "run.json").is_file() and done & wanted:
            found.append(folder.name)
    return found


def of_profile(systems: Sequence[System], profile: str) -> Collection:
    """:func:`read` of all finished results of a profile."""
    wanted = {notebook for system in systems for notebook in (system.notebook, system.maps_notebook)}
    done = [record for record in records.find(profile) if record.data["notebook"] in wanted]
    folders = [f"results/{profile}/{record.name}" for record in done]
    return read(systems, folders, f"results/{profile}/{AUDIT}")


def _variants(system: System, named: Mapping[str, Record]) -> list[str]:
    """Variants of the results of a system, whether they are its predictions or its maps."""
    notebooks = (system.notebook, system.maps_notebook)
    found = [record.data["variant"] for record in named.values() if record.data["notebook"] in notebooks]
    return [variant for variant in dict.fromkeys(found) if system.is_variant(variant)]


def _seen(
    system: System,
    variant: str,
    named: Mapping[str, Record],
    audit: Record,
    masks_of: Callable[[str], Masks],
    patients: Mapping[str, str],
) -> Seen | None:
    """A system with its test predictions and its maps; None if it has no predictions in this profile."""
    record = _record(system.notebook, variant, named)
    if record is None or system.predictions not in record.data["outputs"]:
        return None
    if _split(system.audit_of(record)) != _split_of(audit):
        return None
    label = system.name
    if "{network}" in label:
        seed = re.search(r"-seed(\d+)$", variant)
        label = label.replace("{network}", style.record_label(record))
        label += f", seed {seed[1]}" if seed and seed[1] != "0" else ""
    mapped = named.get("/".join(filter(None, (system.maps_notebook, variant))))
    maps = {} if mapped is None else _maps(mapped, masks_of, patients, audit.params["IMAGE_SIZE"])
    return Seen(label, _answers(record, system.predictions), maps)


def _record(notebook: str, variant: str, named: Mapping[str, Record]) -> Record | None:
    """A result that was named, or that a named one was made from, in the same profile."""
    name = "/".join(filter(None, (notebook, variant)))
    if name in named:
        return named[name]
    profile = next(iter(named.values())).data["profile"]
    place = paths.results() / profile / name
    return records.load(place) if (place / "run.json").is_file() else None


def _split(audit: str) -> str:
    """Digest of the split of a result folder of notebook 01; empty if there is none."""
    place = paths.resolve(audit) / "split.csv"
    return paths.sha256(place) if audit and Path(place).is_file() else ""


def _split_of(audit: Record) -> str:
    return paths.sha256(audit.path("split.csv"))


def _answers(record: Record, name: str) -> pd.DataFrame:
    """Test rows of a system by image_id."""
    found = common.read(record, name)
    own = paths.read_csv(record.path(name), text=("image_id",))
    if set(PROBABILITIES) <= set(own):
        found = found.merge(own[["image_id", *PROBABILITIES]], on="image_id")
    return found[found["split"] == "test"].set_index("image_id")


def _maps(
    mapped: Record, masks_of: Callable[[str], Masks], patients: Mapping[str, str], size: int
) -> dict[str, Maps]:
    """All maps of a result: those in the common form, then those at several layers."""
    found: dict[str, Maps] = {}

    def add(
        name: str, region: str, values: np.ndarray, image_ids: np.ndarray, tests: np.ndarray, cut
    ) -> None:
        place = {one: number for number, one in enumerate(image_ids.tolist())}
        measured = functools.partial(
            found_lesions, values, place, image_ids[tests].tolist(), region, masks_of
        )
        found[name] = Maps(name, region, values, place, cut, functools.cache(measured))

    if common_maps.FILE in mapped.data["outputs"]:
        stored = common_maps.load(mapped.path(common_maps.FILE))
        for number, region in enumerate(stored.regions.tolist()):
            name = "any lesion" if region == ANY else NAMES[region]
            cut = functools.cache(functools.partial(fixed_cut, stored, masks_of, patients, region, size))
            add(name, region, stored.maps[:, number], stored.image_ids, stored.splits == "test", cut)
    if LAYERED in mapped.data["outputs"] and (layered := _layered(mapped)):
        every = np.ones(len(layered.image_ids), bool)
        for layer in layered.layers:
            values = layered.maps(layer)
            add(f"predicted grade, {layer}", ANY, values, layered.image_ids, every, lambda: float("nan"))
    return found


def _layered(mapped: Record) -> cam.Explained | None:
    """Maps at several layers; None if the file of this name is of another kind."""
    path = mapped.path(LAYERED)
    with np.load(path, allow_pickle=False) as file:
        if "layers" not in file.files:
            return None
    return cam.load_maps(path)


def fixed_cut(
    stored: CommonMaps,
    masks_of: Callable[[str], Masks],
    patients: Mapping[str, str],
    region: str,
    size: int,
) -> float:
    """The value at which maps are cut, fixed on validation eyes; NaN if there is none.

    Args:
        stored: Maps of validation and test eyes.
        masks_of, patients: As of :func:`drstudy.explain.one.fit_cut`.
        region: Which of the maps.
        size: Side of the masks, pixels.
    """
    least = max(one.GRID, *stored.maps.shape[2:])
    side = next((cells for cells in range(least, size + 1) if size % cells == 0), None)
    if side is None:
        return float("nan")
    known = {name: patients[name] for name in stored.of("validation") if name in patients}
    return one.fit_cut(stored, masks_of, known, region, side)[0]


def found_lesions(
    values: np.ndarray,
    place: Mapping[str, int],
    names: Sequence[str],
    region: str,
    masks_of: Callable[[str], Masks],
) -> pd.Series:
    """How well maps find the lesions of some eyes: average precision over that of a uniform map.

    A uniform map has 1, a map that avoids the lesion less, and a map without heat 0. The quotient, and not the average precision, is what eyes with large and with
    small lesions can be ordered by.

    Args:
        values: (N, h, w) maps, at least 0.
        place: image_id to its place in ``values``.
        names: The eyes.
        region: What the maps should find.
        masks_of: Reader of the masks of an eye.

    Returns:
        One float per eye, by image_id, rounded to :data:`DIGITS` so that equal maps are equal; NaN if the eye has no such lesion, or the lesion is not annotated.
    """
    found = {}
    for name in names:
        masks = masks_of(name)
        mask, fov = lesion_mask(masks, region), np.asarray(masks[FIELD], bool)
        if mask is None:
            found[name] = np.nan
            continue
        heat = cam.upsample(np.asarray(values[place[name]], np.float32)[None], len(fov))[:, fov]
        precision = scores.Ranked(heat).ranking(mask[fov])["aupr"][0] if heat.any() else 0.0
        found[name] = round(float(precision / mask[fov].mean(dtype=np.float64)), DIGITS)
    return pd.Series(found, dtype=float)


def lesion_mask(masks: Masks, region: str) -> np.ndarray | None:
    """What a map of an eye should find.

    Args:
        masks: Masks of the eye.
        region: Which lesion.

    Returns:
        (S, S) float, the share of each pixel that the lesion covers; None if the eye has no such lesion, or the lesion is not annotated.
    """
    codes = LESIONS if region == ANY else (region,)
    named = localisation.regions({code: masks.get(code) for code in codes})[region]
    return None if named is None or not named[np.asarray(masks[FIELD], bool)].any() else named
