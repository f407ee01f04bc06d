"""What notebook 05 asks of several kinds of maps beside their place: who else points there, does it matter to the
network, does it come from what was learnt, can it be finer. Each answer is a short table.

The work is done by :mod:`~drstudy.explain.methods.methods`, :mod:`~drstudy.explain.methods.finer`,
:mod:`~drstudy.explain.checks.faithfulness` and :mod:`~drstudy.explain.checks.sanity`; here their results get intervals over patients,
and names that say what they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from torch import Tensor

from drstudy.evaluation import statistics
from drstudy.explain.checks import faithfulness, sanity
from drstudy.explain.measures import comparison, lesion_maps
from drstudy.explain.methods import finer, methods

if TYPE_CHECKING:
    from drstudy.core.devices import Compute
    from drstudy.core.records import Record
    from drstudy.models.nets import GradingNet

REFERENCE = "grad_cam"

RANDOM = "random"

OF_LESIONS = "finer: lesion maps"
"""Name of the maps of :func:`of_lesions`, among the finer ones."""

SANITY_METHODS = (REFERENCE, "guided_backprop")
"""The map that the study shows, and the one that is known to survive randomised weights (Adebayo et al. 2018)."""

FAITHFULNESS = {
    "insertion_blur": ("insertion (from a blurred eye)", 1),
    "deletion_blur": ("deletion (to a blurred eye)", -1),
    "insertion_mean": ("insertion (from a grey eye)", 1),
    "deletion_mean": ("deletion (to a grey eye)", -1),
    "road": ("ROAD", 1),
}
"""Column of :func:`drstudy.explain.checks.faithfulness.measure`: its name, and 1 where more is better."""

STEPS = 5
"""Of the insertion and deletion curves; twice as many cost twice the time."""

BATCH = 8
"""Eyes at a time where gradients go through the whole network."""


def choose(measured: pd.DataFrame, eyes: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """Eyes with an annotated lesion and a map that is not empty, at most so many, drawn evenly over the grades.

    Args:
        measured: Result of :func:`drstudy.explain.measures.comparison.prepare`.
        eyes: Rows of a split, with ``image_id`` and ``grade``.
        most, seed: Arguments of :func:`drstudy.explain.methods.cam.choose_images`; ``most`` is at least 1.
    """
    from drstudy.explain.methods import cam

    lesion = (
        (measured["kind"] == "mask") & (measured["region"] == "lesion") & (measured["status"] == "measured")
    )
    return cam.choose_images(eyes[eyes["image_id"].isin(measured.loc[lesion, "image_id"])], most, seed)


def several(
    net: GradingNet, x: Tensor, compute: Compute, costly: bool, steps: int = 8
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Maps of the same eyes by several methods, for the predicted class.

    Args:
        net: On the device of ``compute``.
        x: (N, 3, S, S) normalised.
        compute: Precision of the trunk.
        costly: Also the pixel-level methods, and the finer ways that the network allows.
        steps: Number of steps of integrated gradients.

    Returns:
        Name to signed raw maps, (N, h, w): the CAM family, then the pixel-level methods, then ``finer: <way>``;
        and the explained classes, (N,).
    """
    names = (*methods.FAST, *(methods.PIXEL_METHODS if costly else ()))
    with compute.autocast():
        found = methods.explain_many(net, x, names, steps=steps, batch_size=BATCH)
        raw = dict(found.raw)
        for way in finer.WAYS if costly else ():
            if way == "coarse" or (way == "stride 1" and not _can_stride(net)):
                continue
            raw[f"finer: {way}"] = finer.finer(net, x, way, REFERENCE, found.target, batch_size=BATCH)
    return raw, found.target


def of_lesions(record: Record, image_ids: Sequence[str]) -> dict[str, np.ndarray]:
    """The maps of single lesions that another notebook left, as one map of an eye: the greatest probability of any lesion.

    Args:
        record: Result with a file of :mod:`drstudy.explain.measures.lesion_maps`.
        image_ids: N eyes.

    Returns:
        ``finer: lesion maps`` to (N, g, g) float32, 0..1.

    Raises:
        KeyError: If the file has no maps of an eye.
    """
    maps = lesion_maps.load(record.path(lesion_maps.FILE))
    return {OF_LESIONS: np.stack([maps.of(image_id).max(0) for image_id in image_ids])}


def _can_stride(net: GradingNet) -> bool:
    try:
        finer.stride_one(net)
    except ValueError:
        return False
    return True


def faithful(
    net: GradingNet,
    x: Tensor,
    raw: Mapping[str, np.ndarray],
    target: np.ndarray,
    patients: Sequence[str],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Insertion, deletion and ROAD of several maps, each beside a random map of the same eyes.

    Args:
        net, x, target: As in :func:`drstudy.explain.checks.faithfulness.measure`.
        raw: Name to maps.
        patients: One per eye.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        One row per measure and map: ``measure``, ``map``, ``better`` (``more`` or ``less``) and what
        :func:`drstudy.evaluation.statistics.paired` gives against the random map.
    """
    side = raw[REFERENCE].shape[-1]
    maps = dict(raw) | {RANDOM: faithfulness.random_maps(len(x), side, seed)}
    table = faithfulness.measure(net, x, maps, target, steps=STEPS, seed=seed)
    patient, rows = np.asarray(patients, dtype=str), []
    for column, (name, sign) in FAITHFULNESS.items():
        wide = table.pivot(index="image", columns="map", values=column)
        for map_ in raw:
            found = statistics.paired(
                wide[[map_]].to_numpy(), wide[[RANDOM]].to_numpy(), patient, resamples, seed
            )
            about = {"measure": name, "map": map_, "better": "more" if sign > 0 else "less"}
            rows.append(about | {key: value[0] for key, value in found.items()})
    return pd.DataFrame(rows)


def sane(
    net: GradingNet,
    x: Tensor,
    raw: Mapping[str, np.ndarray],
    target: np.ndarray,
    patients: Sequence[str],
    others: Mapping[str, GradingNet],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """How alike a map stays when the weights become random, the labels were shuffled, the eye is turned.

    Args:
        net, x, target: As in :func:`drstudy.explain.checks.sanity.cascade`.
        raw: Maps of ``net`` by name; those of :data:`SANITY_METHODS` are asked.
        patients: One per eye.
        others: Name (``shuffled labels``, ``seed 1``) to networks of the same backbone, of which the Grad-CAM of the
            same class is compared.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        One row per method, check and stage, with what :func:`drstudy.explain.checks.sanity.verdict` gives; ``step`` counts the
        stages of the cascade.
    """
    rows = []

    def add(method: str, check: str, table: pd.DataFrame, by: Sequence[str]) -> None:
        found = sanity.verdict(table, patients, resamples, seed, by)
        if by:
            found = found.rename(columns={by[0]: "stage"})
        rows.append(found.assign(method=method, check=check, step=np.arange(1, len(found) + 1)))

    for method in [name for name in SANITY_METHODS if name in raw]:
        add(method, "random weights", sanity.cascade(net, x, method, target, seed=seed), ("stage",))
        add(method, "turned eye", sanity.equivariance(net, x, method, target), ("transform",))
    for name, other in others.items():
        maps = methods.explain(other, x, REFERENCE, target)
        add(REFERENCE, name, sanity.agreement(raw[REFERENCE], maps), ())
    whole = pd.concat(rows, ignore_index=True)
    first = ["method", "check", "stage", "step"]
    return whole.reindex(columns=[*first, *(name for name in whole if name not in first)])


def beside_grad_cam(
    measured: pd.DataFrame,
    grids: Mapping[str, tuple[int, int]],
    patients: Mapping[str, str],
    resamples: int,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Several maps against random ones on their own grids, and against Grad-CAM.

    Args:
        measured: Result of :func:`drstudy.explain.measures.comparison.prepare`.
        grids: Name of a map to its (h, w).
        patients, resamples, seed: As in :func:`drstudy.explain.measures.comparison.differences`.

    Returns:
        Two tables of :func:`drstudy.explain.measures.comparison.differences`.
    """
    blind = [pair for pair in comparison.pairs(grids) if pair[1].startswith(f"{RANDOM} ")]
    known = [(name, REFERENCE) for name in grids if name != REFERENCE]
    found = [comparison.differences(measured, wanted, patients, resamples, seed) for wanted in (blind, known)]
    return found[0], found[1]
