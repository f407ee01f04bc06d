"""A trained network of a finished result, with all that is needed to explain a photograph from outside the study."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drstudy.core import devices, paths, records
from drstudy.papers import registry
from drstudy.papers.base import TRAINING

if TYPE_CHECKING:
    import pandas as pd

    from drstudy.core.devices import Compute
    from drstudy.core.records import Record
    from drstudy.models.nets import GradingNet

WEIGHTS = "model.safetensors"
"""File of a result with the network."""

MEASURES = ("brightness", "contrast", "dark_share", "white_share", "sharpness")
"""Measures of quality in which a photograph is compared with those that the network learnt."""


class ModelError(ValueError):
    """The folder that was given has no network that can be explained."""


@dataclass(frozen=True)
class Network:
    """A trained network and what was fixed on validation eyes.

    Attributes:
        record: Its result.
        net: The network, in evaluation mode, on the device of ``compute``.
        compute: Device and precision.
        sha256: Of its file.
        label: As printed.
        image_size: Side of the crops that it learnt, pixels.
        max_megapixels: Largest file that its audit accepted.
        source: ``SOURCE`` of its photographs.
        temperature: Fitted on validation eyes; None if there are none.
        temperature_note: How it was fitted, or why there is none.
        cut: Value of the map from which on a pixel belongs to a region, fitted on validation eyes; None if there is none.
        cut_note: How it was fitted, or why there is none.
        highest: Value that is drawn as the hottest colour; None if no map of validation eyes is known.
        seen: Measures of the photographs that it learnt, one row each.
    """

    record: Record
    net: GradingNet
    compute: Compute
    sha256: str
    label: str
    image_size: int
    max_megapixels: float
    source: str
    temperature: float | None
    temperature_note: str
    cut: float | None
    cut_note: str
    highest: float | None
    seen: pd.DataFrame

    @property
    def synthetic(self) -> bool:
        """Whether it learnt synthetic photographs only."""
        return self.source == "phantom"


def existing() -> list[str]:
    """Result folders of finished trainings, of all profiles, as ``--model`` takes them."""
    found = sorted(paths.results().glob(f"*/{TRAINING}/*/{WEIGHTS}"))
    return [paths.show(file.parent) for file in found if (file.parent / "run.json").is_file()]


def how() -> str:
    """A sentence with the networks that exist, or how to make one."""
    if found := existing():
        return "Give --model one of: " + ", ".join(found) + "."
    return "There is no trained network yet. `drstudy reproduce --profile demo --until 03` trains some on synthetic eyes."


def load(folder: str | os.PathLike[str], device: str = "auto", threads: int = 0) -> Network:
    """Open the network of a finished training.

    Args:
        folder: Result folder ``results/<profile>/<notebook>/<variant>`` of a fine-tuning, or its file of weights.
        device, threads: As of :func:`drstudy.core.devices.setup`.

    Raises:
        ModelError: If there is no such folder, or another kind of stage made it; with the networks that exist.
        drstudy.core.records.RecordError: If the result, or the audit of its photographs, is unfinished or damaged.
    """
    from drstudy.show import style
    from drstudy.training import prediction

    record = _record(folder)
    audit = records.load(record.params["AUDIT"])
    compute = devices.setup(device, "fp32", threads)
    net = prediction.load(record).to(compute.device)
    temperature, temperature_note = _temperature(record)
    cut, highest, cut_note = _cut(record)
    return Network(
        record=record,
        net=net,
        compute=compute,
        sha256=paths.sha256(record.path(WEIGHTS)),
        label=style.record_label(record),
        image_size=audit.params["IMAGE_SIZE"],
        max_megapixels=audit.params["MAX_MEGAPIXELS"],
        source=audit.params["SOURCE"],
        temperature=temperature,
        temperature_note=temperature_note,
        cut=cut,
        cut_note=cut_note,
        highest=highest,
        seen=_seen(audit),
    )


def _record(folder: str | os.PathLike[str]) -> Record:
    """The finished record of a training."""
    place = paths.resolve(folder)
    if place.name == WEIGHTS:
        place = place.parent
    if not place.is_dir():
        raise ModelError(f"--model {os.fspath(folder)}: there is no such folder. {how()}")
    if not (place / "run.json").is_file():
        what = "is not a finished result: it has no run.json"
        raise ModelError(f"--model {os.fspath(folder)}: this {what}. {how()}")
    record = records.load(place)
    if record.data["notebook"] != TRAINING:
        raise ModelError(
            f"--model {os.fspath(folder)}: this is a result of {record.data['notebook']}. Only networks of five grades, made by {TRAINING}, "
            f"can be explained. {how()}"
        )
    return record


def _seen(audit: Record) -> pd.DataFrame:
    """Measures of the training photographs."""
    table = paths.read_csv(audit.path("audit.csv"), text=("image_id",))
    split = paths.read_csv(audit.path("split.csv"), text=("image_id", "patient_id", "split"))
    learnt = split.loc[split["split"] == "train", "image_id"]
    return table.loc[table["image_id"].isin(learnt), list(MEASURES)].reset_index(drop=True)


def _temperature(record: Record) -> tuple[float | None, str]:
    """The temperature of the result's validation predictions, and how it was found."""
    from drstudy.evaluation import calibration, metrics

    try:
        validation = metrics.read_predictions(record.path("predictions.csv"), "validation")
        found = calibration.fit_temperature(validation)
    except (metrics.PredictionError, calibration.CalibrationError) as error:
        return None, f"not calibrated: {error}"
    note = f"temperature {found:.3g}, fitted on {len(validation)} validation eyes of this study"
    if found >= calibration.LARGEST_TEMPERATURE:
        note += "; this is the largest temperature that is tried: equal probabilities would fit the validation eyes better than the network's"
    return found, note


def _mapped(record: Record) -> tuple[Record | None, str]:
    """The result with maps of the validation eyes by this very network, or why there is none."""
    from drstudy.explain.measures import common_maps

    notebooks = dict.fromkeys(
        system.mapped_by for system in registry.systems() if system.notebook == TRAINING and system.mapped_by
    )
    for notebook in notebooks:
        place = Path(record.folder.parents[1], notebook, record.data["variant"])
        if not (place / "run.json").is_file():
            continue
        mapped = records.load(place)
        made_from = mapped.data["inputs"].get(paths.show(record.folder / "run.json"))
        if made_from != paths.sha256(record.folder / "run.json"):
            return None, f"the maps in {paths.show(place)} are of an earlier network; run it again"
        if common_maps.FILE not in mapped.data["outputs"]:
            return None, f"{paths.show(place)} has no {common_maps.FILE}"
        return mapped, ""
    return None, f"{' or '.join(notebooks)} has not run for this network"


def _cut(record: Record) -> tuple[float | None, float | None, str]:
    """The cut of the map and the value of the hottest colour, from maps of validation eyes; and how they were found."""
    import numpy as np

    from drstudy.data import dataset
    from drstudy.explain import one
    from drstudy.explain.measures import common_maps, localisation

    mapped, why = _mapped(record)
    if mapped is None:
        return None, None, f"no outlines: {why}"
    maps = common_maps.load(mapped.path(common_maps.FILE))
    tops = maps.maps[maps.splits == "validation"].max((1, 2, 3))
    highest = float(np.quantile(tops, 0.95)) if len(tops) else 0.0
    highest = highest if highest > 0 else None
    try:
        audit = records.load(mapped.params["AUDIT"])
        table = dataset.load(audit).table
        patients: Mapping[str, Any] = dict(zip(table["image_id"], table["patient_id"]))
        cut, eyes = one.fit_cut(maps, localisation.masks_of(audit), patients)
    except records.RecordError as error:
        return None, highest, f"no outlines: the masks of the validation eyes cannot be read ({error})"
    if math.isnan(cut):
        return None, highest, "no outlines: no validation eye has a lesion mask to fit a cut on"
    note = f"cut {cut:.3g} (score per position), fitted on {eyes} validation eyes with lesion masks"
    return cut, highest, note
