"""Grad-CAM of each lesion of a multi-label network, measured on lesion masks beside blind maps and beside maps of a grade.

A map explains the *logit* of one lesion (the sigmoid's slope would fade where the network is sure; docs/sources.md, B3), for lesions that the
network predicts and for those that it does not. Compared with the maps of a network that learnt five grades: the map of each lesion
on its own masks, and all lesions' maps together on the masks of all lesions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from drstudy.core import paths
from drstudy.evaluation import statistics
from drstudy.explain.measures import baselines, comparison, lesion_maps, localisation, outlines, scores
from drstudy.explain.methods import cam
from drstudy.training import prediction

if TYPE_CHECKING:
    from drstudy.core.devices import Compute
    from drstudy.data.dataset import Dataset
    from drstudy.explain.measures.lesion_maps import LesionMaps
    from drstudy.models.nets import GradingNet

TOGETHER = "all lesions"
"""Name of the maps of all lesions together."""

GRADE = "five grades, predicted"
"""The map of the grade that the other network predicts: what its user would see."""

DISEASE = "five grades, disease"
"""The map of its most probable grade above 0: evidence for disease also where it predicts none, which is a stronger comparison."""

CUTS = ("fixed", "otsu", "validation")
"""How a map is cut for its outline: at half of its maximum, where Otsu parts it, at the share that was best on validation eyes."""

COARSE, FINE = "Grad-CAM", "lesion maps"
"""Maps that are outlined: this notebook's, of a few cells per side, and those of a file (``LESION_MAPS``)."""

BY_VALUE = "value"
"""How maps of a file are cut: at the probability that the file names for each lesion, which was fixed on other eyes."""

OUTLINED = [
    "map",
    "cut",
    "label",
    "present",
    "outlined",
    "absent",
    "false_alarms",
    "area",
    "dice",
    "dice_lo",
    "dice_hi",
]

QUESTIONS = {"chance": tuple(baselines.NAMES), "five grades": (GRADE, DISEASE)}


@dataclass(frozen=True)
class LabelMaps:
    """Maps of many eyes, one per lesion, at the layer before pooling.

    Attributes:
        raw: (N, L, h, w) float32, signed, unscaled: in units of the lesion's logit.
        logits: (N, L) float32.
        image_ids: (N,) str.
    """

    raw: np.ndarray
    logits: np.ndarray
    image_ids: np.ndarray

    @property
    def maps(self) -> np.ndarray:
        """(N, L, h, w), at least 0: the evidence for each lesion."""
        return np.maximum(self.raw, 0)

    @property
    def probabilities(self) -> np.ndarray:
        """(N, L) float64."""
        return 1 / (1 + np.exp(-self.logits.astype(float)))

    def named(self, codes: Sequence[str]) -> dict[str, np.ndarray]:
        """Code to (N, h, w), and :data:`TOGETHER`."""
        return dict(zip(codes, self.maps.swapaxes(0, 1))) | {TOGETHER: self.together()}

    def together(self) -> np.ndarray:
        """(N, h, w): the sum of the evidence for all lesions, each weighted by its probability (**a choice**)."""
        return np.einsum("nl,nlhw->nhw", self.probabilities, self.maps).astype(np.float32)


def explain(
    net: GradingNet, data: Dataset, eyes: pd.DataFrame, compute: Compute, batch_size: int = 16
) -> LabelMaps:
    """Grad-CAM of every lesion in every eye; the frozen trunk runs once per eye.

    Args:
        net: With one output per lesion, and ``input_size``.
        data: Photographs.
        eyes: ``image_id``, ``row``.
        compute: Device, and the precision of the trunk; the maps are float32.
        batch_size: Eyes at a time.
    """
    layer, rows = list(net.cam_layers)[-1], eyes["row"].to_numpy()
    maps, logits = [], []
    for _, h in prediction.in_batches(net.trunk, net, data.images, rows, net.input_size, compute, batch_size):
        found = [
            cam.grad_cam(net, h, torch.full((len(h),), label, device=h.device), [layer])[layer]
            for label in range(net.outputs)
        ]
        maps.append(torch.stack([one.raw for one in found], 1).cpu().numpy())
        logits.append(found[0].logits.cpu().numpy())
    return LabelMaps(np.concatenate(maps), np.concatenate(logits), eyes["image_id"].to_numpy(str))


def of_grades(net: GradingNet, data: Dataset, eyes: pd.DataFrame, compute: Compute) -> dict[str, np.ndarray]:
    """Maps of a network of five grades: :data:`GRADE` and :data:`DISEASE` to (N, h, w), at least 0."""
    rows = eyes["row"].to_numpy()
    predicted, disease, _ = cam.of_grades(net, data.images, eyes["image_id"], rows, compute)
    return {GRADE: predicted, DISEASE: disease}


def measure(
    maps: Mapping[str, np.ndarray],
    data: Dataset,
    eyes: pd.DataFrame,
    masks_of: Callable[[str], localisation.Masks],
    seed: int,
) -> pd.DataFrame:
    """Every map of every eye against the masks of every lesion, beside the four blind maps, in one pass.

    Args:
        maps: Name to (N, h, w), at least 0; blind maps are on the grid of the first.
        data: Photographs, at the size of the masks.
        eyes: ``image_id``, ``patient_id``, ``row``.
        masks_of: Result of :func:`drstudy.explain.measures.localisation.masks_of`.
        seed: Seed of the random maps.

    Returns:
        Rows of :func:`drstudy.explain.measures.comparison.prepare`.
    """
    grid = next(iter(maps.values())).shape[1:]
    beside = baselines.beside(data.images, eyes["row"].to_numpy(), [grid], seed)
    table, _ = localisation.measure(maps, eyes["image_id"], masks_of, beside=beside)
    return comparison.prepare(table, dict(zip(eyes["image_id"], eyes["patient_id"])))


def differences(
    table: pd.DataFrame,
    codes: Sequence[str],
    question: str,
    patients: Mapping[str, str],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """The map of each lesion on its own masks, and all together on all lesions, less other maps of the same eyes.

    Args:
        table: Result of :func:`measure`; lesions' maps are named by their codes.
        codes: Lesions.
        question: ``chance`` (the four blind maps) or ``five grades``.
        patients: image_id to patient_id.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        Rows of :func:`drstudy.explain.measures.comparison.differences` with the headline scores; without interval below five patients.
    """
    asked = QUESTIONS[question]
    others = [name for name in dict.fromkeys(table["layer"]) if name in asked or name.split(" ")[0] in asked]
    own = dict(zip([*codes, TOGETHER], [*codes, "lesion"]))
    found = comparison.differences(
        table,
        [(name, other) for name in own for other in others],
        patients,
        resamples,
        seed,
        metrics=comparison.HEADLINES,
    )
    return found[found["region"] == found["layer"].map(own)].reset_index(drop=True)


def outline(
    maps: LabelMaps,
    codes: Sequence[str],
    thresholds: np.ndarray,
    fractions: np.ndarray,
    masks_of: Callable[[str], localisation.Masks],
) -> tuple[dict[str, dict[str, list[outlines.Outline]]], pd.DataFrame]:
    """Outlines of every eye by each of :data:`CUTS`, and how they agree with the masks.

    Args:
        maps: Maps of the eyes.
        codes: L lesions.
        thresholds: (L,); a lesion that is not predicted has no outline.
        fractions: (L,) of :func:`drstudy.explain.measures.outlines.fit_fractions`.
        masks_of: Result of :func:`drstudy.explain.measures.localisation.masks_of`.

    Returns:
        Cut to image_id to outlines; and rows of :func:`drstudy.explain.measures.outlines.agreement` with ``map, cut, image_id,
        probability``.
    """
    traced: dict[str, dict[str, list[outlines.Outline]]] = {cut: {} for cut in CUTS}
    found, by_cut = [], dict(zip(CUTS, (scores.FIXED, "otsu", fractions)))
    for eye, (image_id, said) in enumerate(zip(maps.image_ids, maps.probabilities)):
        masks = masks_of(image_id)
        for cut, how in by_cut.items():
            regions = outlines.regions(maps.maps[eye], said, thresholds, masks["FOV"], how)
            traced[cut][image_id] = outlines.trace(regions, codes, said)
            about = {"map": COARSE, "cut": cut, "image_id": image_id, "probability": said}
            found.append(outlines.agreement(regions, codes, masks).assign(**about))
    return traced, pd.concat(found, ignore_index=True)


def outline_finer(
    finer: LesionMaps,
    maps: LabelMaps,
    codes: Sequence[str],
    thresholds: np.ndarray,
    masks_of: Callable[[str], localisation.Masks],
) -> tuple[dict[str, dict[str, list[outlines.Outline]]], pd.DataFrame]:
    """As :func:`outline`, for maps of a file at their own cuts (:data:`BY_VALUE`).

    Which lesions an eye has is still what the network of ``maps`` predicts, so that both differ only in where a lesion is drawn. Small
    outlines are kept: most microaneurysms are smaller than what is dropped from coarse maps.

    Args:
        finer: Maps of the same eyes; more eyes and more lesions do no harm.
        maps, codes, thresholds, masks_of: As of :func:`outline`.

    Raises:
        ValueError: If the file lacks a lesion or all of the eyes.
    """
    known = finer.codes.tolist()
    if missing := [code for code in codes if code not in known]:
        raise ValueError(
            f"LESION_MAPS has no maps of {', '.join(missing)}, only of {', '.join(known)}. Take these out of CODES, or set LESION_MAPS to "
            "another result or to ''."
        )
    there = np.isin(maps.image_ids, finer.image_ids)
    if not there.any():
        raise ValueError(
            f"LESION_MAPS has maps of {len(finer.image_ids)} eyes, and none of these {len(there)}, such as {maps.image_ids[0]}. Set it to a "
            "result on the same photographs and SUBSET, or to ''."
        )
    traced, found = {}, []
    for image_id, said in zip(maps.image_ids[there].tolist(), maps.probabilities[there]):
        traced[image_id], agreed = lesion_maps.outline(
            finer, image_id, codes, said, thresholds, masks_of(image_id)
        )
        about = {"map": FINE, "cut": BY_VALUE, "image_id": image_id, "probability": said}
        found.append(agreed.assign(**about))
    return {BY_VALUE: traced}, pd.concat(found, ignore_index=True)


def outlined(
    agreements: pd.DataFrame, patients: Mapping[str, str], resamples: int, seed: int
) -> pd.DataFrame:
    """Outlines counted: one row per map, cut and lesion.

    Args:
        agreements: Results of :func:`outline` and :func:`outline_finer`.
        patients: image_id to patient_id.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        ``map, cut, label, present`` and ``outlined`` (of these eyes), ``absent`` and ``false_alarms`` (of these), ``area`` (mean share of the
        field of view of an outlined lesion's outlines), ``dice`` with ``_lo``, ``_hi``: the mean over eyes with the lesion, 0 where it has no
        outline; no interval below five patients.
    """
    rows = []
    known = agreements.dropna(subset="present")
    for (name, cut, label), part in known.groupby(["map", "cut", "label"], sort=False):
        there, drawn = part["present"].astype(bool), part["status"] == outlines.OUTLINED
        row = {
            "map": name,
            "cut": cut,
            "label": label,
            "present": there.sum(),
            "outlined": (there & drawn).sum(),
        }
        row |= {
            "absent": (~there).sum(),
            "false_alarms": (~there & drawn).sum(),
            "area": part.loc[drawn, "area"].mean(),
        }
        dice, owners = part.loc[there, "dice"].astype(float), part.loc[there, "image_id"].map(patients)
        found = statistics.mean_interval(dice, owners.to_numpy(str), resamples, seed)
        rows.append(row | {"dice": found["value"], "dice_lo": found["lo"], "dice_hi": found["hi"]})
    return pd.DataFrame(rows, columns=OUTLINED)


def save(maps: LabelMaps, codes: Sequence[str], path: Path) -> None:
    """Write ``raw``, ``logits``, ``image_ids``, ``codes`` to an NPZ file, atomically."""
    with paths.atomic(path) as temporary:
        np.savez_compressed(
            temporary,
            raw=maps.raw,
            logits=maps.logits,
            image_ids=maps.image_ids,
            codes=np.asarray(codes, dtype=str),
        )
