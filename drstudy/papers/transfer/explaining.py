"""A fine-tuned network of notebook 03, opened for ``drstudy explain``: five probabilities, and the class activation map of the predicted grade."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from drstudy.core import paths, records
from drstudy.evaluation import calibration, metrics
from drstudy.explain import one
from drstudy.explain.measures import common_maps
from drstudy.papers.transfer.params import HeatmapAnalysis
from drstudy.show import style
from drstudy.training import prediction

if TYPE_CHECKING:
    from drstudy.core.devices import Compute
    from drstudy.core.records import Record

WEIGHTS = "model.safetensors"
"""File of a result with the network."""

AGREEMENT = ("qwk", "qwk_lo", "qwk_hi", "auc_ge2")
"""Metrics of a result that tell how well its network grades."""


def open_network(record: Record, file: str, compute: Compute) -> one.Explainer:
    """The network of a finished fine-tuning.

    Args:
        record: A result of notebook 03.
        file: Its file of weights; there is one.
        compute: Device and precision.

    Returns:
        The network with the temperature of its validation predictions, and with the cut of its map if notebook 05 has run for it.

    Raises:
        drstudy.core.records.RecordError: If a file is missing or damaged.
    """
    path = record.path(file or WEIGHTS)
    net = prediction.load(path).to(compute.device)
    temperature, note = _temperature(record)
    cut, highest, cut_note = _cut(record)
    return one.Explainer(
        file=path,
        label=style.record_label(record),
        input_size=net.input_size,
        answer=lambda image: one.explain(net, image, compute, temperature, cut),
        note=note,
        map_unit="score of the grade per position",
        map_cut=cut,
        map_cut_note=cut_note,
        highest=highest,
        temperature=temperature,
        agreement={name: record.metrics.get(name) for name in AGREEMENT},
    )


def _temperature(record: Record) -> tuple[float | None, str]:
    """The temperature of the result's validation predictions, and how it was found."""
    try:
        validation = metrics.read_predictions(record.path("predictions.csv"), "validation")
        found = calibration.fit_temperature(validation)
    except (metrics.PredictionError, calibration.CalibrationError) as error:
        return None, f"not calibrated: {error}"
    note = f"temperature {found:.3g}, fitted on {len(validation)} validation eyes of this study"
    if found >= calibration.LARGEST_TEMPERATURE:
        note += "; this is the largest that is tried: equal probabilities would serve validation better than the network's"
    return found, note


def _cut(record: Record) -> tuple[float | None, float | None, str]:
    """The cut of the map, the value of the hottest colour, and how they were found: from the maps of this very network."""
    notebook = HeatmapAnalysis.notebook
    place = Path(record.folder.parents[1], notebook, record.data["variant"])
    if not (place / "run.json").is_file():
        return None, None, f"no outlines: {notebook} has not run for this network"
    mapped = records.load(place)
    made_from = mapped.data["inputs"].get(paths.show(record.folder / "run.json"))
    if made_from != paths.sha256(record.folder / "run.json"):
        why = f"the maps in {paths.show(place)} are of an earlier network; run it again"
        return None, None, f"no outlines: {why}"
    if common_maps.FILE not in mapped.data["outputs"]:
        return None, None, f"no outlines: {paths.show(place)} has no {common_maps.FILE}"
    return one.map_scale(mapped)
