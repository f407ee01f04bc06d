"""One photograph explained by a trained network: its answer, the map of the evidence, and the regions of that map.

Nothing is fitted on the photograph. What turns outputs into an answer, and the cut of the map, come from validation eyes of the study, and
are absent, with the reason, where the study has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from drstudy.core import records
from drstudy.core.names import N_GRADES
from drstudy.data import dataset
from drstudy.data.measures import fov_mask
from drstudy.evaluation import calibration, metrics
from drstudy.explain.measures import common_maps, fine, localisation, outlines
from drstudy.explain.measures.grid import ANY, Grid
from drstudy.explain.methods import cam
from drstudy.training import prediction

if TYPE_CHECKING:
    from drstudy.core.devices import Compute
    from drstudy.core.records import Record
    from drstudy.explain.measures.common_maps import CommonMaps
    from drstudy.explain.measures.localisation import Masks
    from drstudy.models.nets import GradingNet

GRID = 32
"""Cells per side of the grid on which the cut of the maps is fitted, as in the comparison of all systems."""

REFERABLE = 2
"""Referable DR is this grade or more."""


HOTTEST = 0.95
"""Share of the validation eyes whose maps stay below the hottest colour."""


class UnexplainableError(ValueError):
    """A network has no map of its prediction."""


@dataclass(frozen=True, kw_only=True)
class Explained:
    """Prediction and map of a network for one photograph: probabilities of the grades, or one score on the scale of the grades.

    Attributes:
        predicted: Grade with the greatest probability (calibration does not change it), or the grade that the score implies.
        layer: Layer of the map.
        raw: (h, w) float32, signed and unscaled: score of the predicted grade per position, or of the regressed grade. At the layer before
            mean pooling, with a linear head, its sum or its mean plus the bias is the score.
        heat: (S, S) float32, what is above 0 in ``raw``, over the photograph.
        outlines: Regions of ``heat`` at the cut; empty unless ``status`` is ``outlined``.
        status: Of :data:`drstudy.explain.measures.outlines.STATUS`; empty if no cut is known.
        probabilities: (5,) float64 of grades 0 to 4, as the network gives them; None if it regresses the grade.
        calibrated: (5,) float64 at the temperature that was fitted on validation eyes; None if there is none.
        score: The regressed grade, any number; None if the network gives probabilities.
    """

    predicted: int
    layer: str
    raw: np.ndarray
    heat: np.ndarray
    outlines: tuple[outlines.Outline, ...]
    status: str
    probabilities: np.ndarray | None = None
    calibrated: np.ndarray | None = None
    score: float | None = None

    @property
    def best(self) -> np.ndarray | None:
        """The calibrated probabilities if there are any, else the network's own; (5,) or None."""
        return self.probabilities if self.calibrated is None else self.calibrated

    @property
    def referable(self) -> float | None:
        """Probability of grade 2 or more, 0 to 1; None if the network gives no probabilities."""
        return None if self.best is None else float(np.clip(self.best[REFERABLE:].sum(), 0, 1))

    @property
    def comparable(self) -> bool:
        """Whether the map means the same in all photographs: a score's always does, a grade's unless it is of grade 0."""
        return self.score is not None or self.predicted > 0


@dataclass(frozen=True, kw_only=True)
class Explainer:
    """A trained network that explains photographs, with what was fixed on validation eyes.

    Attributes:
        file: Its file of weights.
        label: As printed.
        input_size: Side of its input, pixels.
        answer: Function of a photograph (S, S, 3) uint8 RGB, the crop of its field of view.
        note: How outputs become an answer: the temperature, or the cuts between grades, and on how many eyes it was fitted; or why it was not.
        temperature: Fitted on validation eyes; None if there are none, or the network gives no probabilities.
        cuts: (4,) cuts between the grades of a regressed score; empty if the network gives probabilities.
        map_unit: Unit of ``raw`` of the answers.
        map_cut: Value of the map from which on a pixel belongs to a region, fitted on validation eyes; None if there is none.
        map_cut_note: How it was fitted, or why there is none.
        highest: Value that is drawn as the hottest colour; None if no map of validation eyes is known.
        agreement: ``qwk``, ``qwk_lo``, ``qwk_hi``, ``auc_ge2`` on test eyes, as far as they are known.
    """

    file: Path
    label: str
    input_size: int
    answer: Callable[[np.ndarray], Explained]
    note: str
    map_unit: str
    map_cut: float | None
    map_cut_note: str
    highest: float | None
    temperature: float | None = None
    cuts: tuple[float, ...] = ()
    agreement: Mapping[str, Any] = field(default_factory=dict)


def explain(
    net: GradingNet,
    image: np.ndarray,
    compute: Compute,
    temperature: float | None = None,
    cut: float | None = None,
) -> Explained:
    """Probabilities, map and outlines of one photograph.

    The map is that of :func:`drstudy.explain.methods.cam.grad_cam` for the predicted grade at the last layer, which for a linear head
    after mean pooling is the exact class activation map (docs/sources.md, A6).

    Args:
        net: A network of five grades with ``input_size``, on the device of ``compute``.
        image: (S, S, 3) uint8 RGB, the crop of the field of view (:func:`drstudy.data.photograph.read`).
        compute: Device and precision.
        temperature: Result of :func:`drstudy.evaluation.calibration.fit_temperature`.
        cut: Result of :func:`fit_cut`: the value of the map from which on a pixel belongs to a region. A map of grade 0 is evidence
            against disease, and is not outlined.

    Raises:
        UnexplainableError: If the network has another number of outputs.
    """
    if net.outputs != N_GRADES:
        raise UnexplainableError(
            f"The network has {net.outputs} outputs; only networks of {N_GRADES} grades are explained."
        )
    layer = list(net.cam_layers)[-1]
    found = cam.explain_images(net, image[None], ["photograph"], net.input_size, compute, layers=[layer])
    probabilities = prediction.softmax(found.logits)[0]
    predicted, raw = int(found.target[0]), found.raw[layer][0]
    positive = found.maps(layer)
    traced, status = ((), "") if cut is None else outlined(positive, image, predicted > 0, cut)
    return Explained(
        predicted=predicted,
        layer=layer,
        raw=raw,
        heat=cam.upsample(positive, len(image))[0],
        outlines=traced,
        status=status,
        probabilities=probabilities,
        calibrated=None if temperature is None else _at(probabilities, temperature),
    )


def outlined(
    positive: np.ndarray, image: np.ndarray, disease: bool, cut: float
) -> tuple[tuple[outlines.Outline, ...], str]:
    """Regions of one map.

    Args:
        positive: (1, h, w), at least 0, over the whole photograph.
        image: (S, S, 3) uint8 RGB.
        disease: Whether the predicted grade is above 0; without disease nothing is outlined.
        cut: Value of the map from which on a pixel belongs to a region.

    Returns:
        Outlines, which have no score of their own (NaN), and one of :data:`drstudy.explain.measures.outlines.STATUS`.
    """
    found = outlines.regions(positive, [float(disease)], [0.5], fov_mask(image), [cut], by_value=True)
    return tuple(outlines.trace(found, [ANY], [math.nan])), found.status[0]


def _at(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """(5,) probabilities at another temperature."""
    row = pd.DataFrame([probabilities], columns=metrics.PROBABILITIES)
    return calibration.scaled(row, temperature)[metrics.PROBABILITIES].to_numpy(float)[0]


def fit_cut(
    maps: CommonMaps,
    masks_of: Callable[[str], Masks],
    patients: Mapping[str, str],
    region: str = ANY,
    side: int = GRID,
) -> tuple[float, int]:
    """The value at which a network's maps find the lesions of validation eyes best, by mean Dice.

    Args:
        maps: Its maps, in the units of :attr:`Explained.raw`.
        masks_of: Result of :func:`drstudy.explain.measures.localisation.masks_of`.
        patients: image_id to patient_id of the validation eyes that have masks.
        region: Which of its maps: :data:`drstudy.explain.measures.grid.ANY`, or the code of a lesion.
        side: Cells per side of the grid; the side of the masks is a multiple of it, and no map is finer.

    Returns:
        The cut, and the number of eyes with such a lesion that it was fitted on; NaN and 0 if no such eye has one.

    Raises:
        ValueError: If the grid does not fit the masks or the maps.
    """
    eyes = [name for name in maps.of("validation") if name in patients]
    if not eyes:
        return float("nan"), 0
    grid = Grid(masks_of, (region,), side)
    fitted = fine.fit_cuts(eyes, lambda name: {region: maps.fitting(name, (region,))}, grid, patients)
    row = fitted.table.iloc[0]
    return float(row["cut"]), int(row["eyes"])


def map_scale(mapped: Record) -> tuple[float | None, float | None, str]:
    """The cut of a network's map and the value of its hottest colour, from the maps of validation eyes in a result.

    Args:
        mapped: A finished result with :data:`drstudy.explain.measures.common_maps.FILE`; its parameter ``AUDIT`` names the photographs.

    Returns:
        The cut (None if no validation eye has a lesion mask), the value below which the maps of :data:`HOTTEST` of the validation eyes stay
        (None if all of these maps are 0), and a sentence on how the cut was found, or why there is none.
    """
    maps = common_maps.load(mapped.path(common_maps.FILE))
    tops = maps.maps[maps.splits == "validation"].max((1, 2, 3))
    highest = float(np.quantile(tops, HOTTEST)) if len(tops) else 0.0
    highest = highest if highest > 0 else None
    try:
        audit = records.load(mapped.params["AUDIT"])
        table = dataset.load(audit).table
        patients = dict(zip(table["image_id"], table["patient_id"]))
        cut, eyes = fit_cut(maps, localisation.masks_of(audit), patients)
    except records.RecordError as error:
        return None, highest, f"no outlines: the masks of the validation eyes cannot be read ({error})"
    if math.isnan(cut):
        return None, highest, "no outlines: no validation eye has a lesion mask to fit a cut on"
    return (
        cut,
        highest,
        f"cut {cut:.3g} (score per position), fitted on {eyes} validation eyes with lesion masks",
    )


def outside_range(
    measured: Mapping[str, float], seen: pd.DataFrame, columns: Sequence[str], share: float = 0.01
) -> list[str]:
    """Measures of a photograph that lie outside those of the photographs that a network learnt.

    Args:
        measured: Measure to value.
        seen: One row per photograph, with the same measures.
        columns: Those that are compared.
        share: Share of the photographs on each side that counts as outside.

    Returns:
        A clause per measure, such as ``brightness 211 is above 99 % of them (58 to 180)``.
    """
    found = []
    for name in columns:
        low, high = np.nanquantile(seen[name].to_numpy(float), [share, 1 - share])
        if not low <= measured[name] <= high:
            side = "below" if measured[name] < low else "above"
            found.append(
                f"{name.replace('_', ' ')} {measured[name]:.3g} is {side} {1 - share:.0%} of them ({low:.3g} to {high:.3g})"
            )
    return found
