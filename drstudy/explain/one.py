"""One photograph explained by a trained network: probabilities, the map of the evidence, and the regions of that map.

Nothing is fitted on the photograph. The temperature and the cut of the map come from validation eyes of the study, and are absent,
with the reason, where the study has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.core.names import N_GRADES
from drstudy.data.measures import fov_mask
from drstudy.evaluation import calibration, metrics
from drstudy.explain.measures import fine, outlines
from drstudy.explain.measures.grid import ANY, Grid
from drstudy.explain.methods import cam
from drstudy.training import prediction

if TYPE_CHECKING:
    from drstudy.core.devices import Compute
    from drstudy.explain.measures.common_maps import CommonMaps
    from drstudy.explain.measures.localisation import Masks
    from drstudy.models.nets import GradingNet

GRID = 32
"""Cells per side of the grid on which the cut of the maps is fitted, as in the comparison of all systems."""

REFERABLE = 2
"""Referable DR is this grade or more."""


@dataclass(frozen=True)
class Explained:
    """Predictions and map of a network for one photograph.

    Attributes:
        probabilities: (5,) float64 of grades 0 to 4, as the network gives them.
        calibrated: (5,) float64 at the temperature that was fitted on validation eyes; None if there is none.
        predicted: Grade with the greatest probability; calibration does not change it.
        layer: Layer of the map.
        raw: (h, w) float32, signed and unscaled: score of the predicted grade per position. At the layer before mean pooling, with a
            linear head, its mean plus the bias is the score.
        heat: (S, S) float32, what is above 0 in ``raw``, at the side of the photograph.
        outlines: Regions of ``heat`` at the cut; empty unless ``status`` is ``outlined``.
        status: Of :data:`drstudy.explain.measures.outlines.STATUS`; empty if no cut is known.
    """

    probabilities: np.ndarray
    calibrated: np.ndarray | None
    predicted: int
    layer: str
    raw: np.ndarray
    heat: np.ndarray
    outlines: tuple[outlines.Outline, ...]
    status: str

    @property
    def best(self) -> np.ndarray:
        """The calibrated probabilities if there are any, else the network's own; (5,)."""
        return self.probabilities if self.calibrated is None else self.calibrated

    @property
    def referable(self) -> float:
        """Probability of grade 2 or more, 0 to 1."""
        return float(np.clip(self.best[REFERABLE:].sum(), 0, 1))


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
        temperature: Result of :func:`fit_temperature`.
        cut: Result of :func:`fit_cut`: the value of the map from which on a pixel belongs to a region. A map of grade 0 is evidence
            against disease, and is not outlined.

    Raises:
        ValueError: If the network has another number of outputs.
    """
    if net.outputs != N_GRADES:
        raise ValueError(
            f"The network has {net.outputs} outputs; only networks of {N_GRADES} grades are explained."
        )
    layer = list(net.cam_layers)[-1]
    found = cam.explain_images(net, image[None], ["photograph"], net.input_size, compute, layers=[layer])
    probabilities = prediction.softmax(found.logits)[0]
    predicted, raw = int(found.target[0]), found.raw[layer][0]
    positive = found.maps(layer)
    traced, status = ((), "") if cut is None else _outline(positive, image, predicted, probabilities, cut)
    return Explained(
        probabilities,
        None if temperature is None else _at(probabilities, temperature),
        predicted,
        layer,
        raw,
        cam.upsample(positive, len(image))[0],
        traced,
        status,
    )


def _outline(
    positive: np.ndarray, image: np.ndarray, predicted: int, probabilities: np.ndarray, cut: float
) -> tuple[tuple[outlines.Outline, ...], str]:
    """Regions of a map (1, h, w) of the predicted grade, which count as predicted if this is above 0."""
    probability = float(np.clip(1 - probabilities[0], 0, 1))
    least = 0.0 if predicted > 0 else 1.1
    found = outlines.regions(positive, [probability], [least], fov_mask(image), [cut], by_value=True)
    return tuple(outlines.trace(found, [ANY], [probability])), found.status[0]


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
