"""The main paper's claim as a test: where severe disease is predicted normal, does the heat move to vessels?

It shows one eye (docs/sources.md, A6, its figure 5). Here every severe eye of the set is used, and always in pairs:

- **same eye**: the map for the predicted class minus the map for the observed class, where a severe eye (grade
  3 or 4) was predicted normal (0). The eye, its lesions and its vessels are equal, so only the evidence differs.
- **same eye, predicted too low**: the same for all severe eyes that were predicted 0 to 2: more eyes, a weaker claim.
- **normal against truth**: the map for class 0 minus the map for the true class, over all severe eyes, whatever
  their predicted grade: where is the evidence for "normal"?
- **matched eyes**: the map of an eye predicted normal minus that of a severe eye predicted severe, its nearest by grade,
  then by lesion area; each share less the region's share of the area.

If the paper is right, the share on lesions falls and that on vessels rises. Heat that leaves the lesions may also
go to what is neither lesion, vessel, disc nor fovea: ``elsewhere``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.evaluation import statistics
from drstudy.explain.methods import cam
from drstudy.show import intervals

if TYPE_CHECKING:
    from drstudy.core.devices import Compute
    from drstudy.models.nets import GradingNet

SEVERE = 3
"""Grades from here on are severe, the paper's own line."""

CALL, TRUTH, NORMAL = "call", "truth", "normal"

COMPARISONS = {
    "same eye, predicted normal": "map for the predicted grade minus map for the observed grade",
    "same eye, predicted too low": "map for the predicted grade minus map for the observed grade",
    "normal against truth": "map for grade 0 minus map for the observed grade",
    "matched eyes": "map of an eye predicted normal minus map of a similar eye predicted severe",
}

REGIONS = ("lesion", "vessel", "elsewhere")

COLUMNS = [
    "comparison",
    "region",
    "asked",
    "eyes",
    "patients",
    "value",
    "other",
    "difference",
    "difference_lo",
]
COLUMNS += ["difference_hi", "effect", "effect_lo", "effect_hi"]


def severe(predictions: pd.DataFrame) -> pd.DataFrame:
    """Severe eyes, with the predicted class of each.

    Args:
        predictions: ``image_id``, ``patient_id``, ``grade`` (may be missing), ``p0`` to ``p4``.

    Returns:
        The rows with a grade of 3 or 4, index reset, with ``called`` (int).
    """
    called = predictions[[f"p{k}" for k in range(5)]].to_numpy(float).argmax(1)
    grave = (predictions["grade"] >= SEVERE).fillna(False).to_numpy(bool)
    return predictions.assign(called=called)[grave].reset_index(drop=True)


def maps(
    net: GradingNet,
    images: np.ndarray,
    rows: np.ndarray,
    eyes: pd.DataFrame,
    compute: Compute,
    layer: str,
    batch_size: int = 32,
) -> dict[str, np.ndarray]:
    """Grad-CAM of severe eyes for three classes each; the trunk runs once.

    Args:
        net: A grading network with ``input_size``, on the device of ``compute``.
        images: (M, S, S, 3) uint8 RGB.
        rows: (N,) which of them.
        eyes: Result of :func:`severe`, in the order of ``rows``.
        compute: Device and precision of the trunk.
        layer: One of ``net.cam_layers``.
        batch_size: Images at a time.

    Returns:
        ``call``, ``truth`` and ``normal`` to (N, h, w) float32, at least 0.
    """
    import torch

    from drstudy.training import prediction

    classes = {
        CALL: eyes["called"].to_numpy(np.int64, copy=True),
        TRUTH: eyes["grade"].to_numpy(np.int64, copy=True),
        NORMAL: np.zeros(len(eyes), np.int64),
    }
    found: dict[str, list[np.ndarray]] = {name: [] for name in classes}
    for batch, h in prediction.in_batches(net.trunk, net, images, rows, net.input_size, compute, batch_size):
        for name, target in classes.items():
            made = cam.grad_cam(net, h, torch.as_tensor(target[batch], device=h.device), [layer])
            found[name].append(made[layer].maps.cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def test(table: pd.DataFrame, eyes: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """All comparisons, with interval and effect size.

    Args:
        table: First table of :func:`drstudy.explain.measures.localisation.measure` on :func:`maps`.
        eyes: Result of :func:`severe`.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        One row per comparison of :data:`COMPARISONS` and region: eyes ``asked``, ``eyes`` and ``patients`` with heat in
        both maps (nothing may speak for a class) and the region annotated,
        ``value`` and ``other`` (mean shares of the two; of matched eyes less the area's), their ``difference``
        and its ``effect`` (Cohen's d of paired values), each with ``_lo`` and ``_hi``. Comparisons without an
        eye, and regions that are not annotated, have no numbers.
    """
    parts = table[(table["kind"] == "part") & table["region"].isin(REGIONS)]
    share = parts.pivot(index="image_id", columns=["layer", "region"], values="heat")
    area = parts[parts["layer"] == TRUTH].pivot(index="image_id", columns="region", values="area")
    low = eyes[eyes["called"] < SEVERE]["image_id"].tolist()
    missed = eyes[eyes["called"] == 0]["image_id"].tolist()
    like = _matches(eyes, area)
    above = {layer: share[layer] - area for layer in share.columns.get_level_values("layer").unique()}
    sides = {
        "same eye, predicted normal": (share[CALL].loc[missed], share[TRUTH].loc[missed]),
        "same eye, predicted too low": (share[CALL].loc[low], share[TRUTH].loc[low]),
        "normal against truth": (share[NORMAL], share[TRUTH]),
        "matched eyes": (above[CALL].loc[list(like)], above[CALL].loc[list(like.values())]),
    }
    patients, found = dict(zip(eyes["image_id"], eyes["patient_id"])), []
    for name, (first, second) in sides.items():
        one, other = (side.reindex(columns=REGIONS).to_numpy(float) for side in (first, second))
        patient = first.index.map(patients).to_numpy(str)
        numbers = (
            statistics.paired(one, other, patient, resamples, seed)
            if len(one)
            else {"eyes": 0, "patients": 0}
        )
        found.append(pd.DataFrame({"comparison": name, "region": REGIONS, "asked": len(one)} | numbers))
    return pd.concat(found, ignore_index=True).reindex(columns=COLUMNS)


def _matches(eyes: pd.DataFrame, area: pd.DataFrame) -> Mapping[str, str]:
    """Eye predicted normal to the eye predicted severe of another patient that is nearest by grade, then by the
    logarithm of the lesions' area; an eye may serve more than once."""
    if "lesion" not in area:
        return {}
    eyes = eyes.assign(size=np.log10(eyes["image_id"].map(area["lesion"]).to_numpy(float) + 1e-6))
    others, found = eyes[eyes["called"] >= SEVERE], {}
    for row in eyes[eyes["called"] == 0].itertuples():
        free = others[others["patient_id"] != row.patient_id]
        if len(free):
            far = pd.DataFrame(
                {"grade": (free["grade"] - row.grade).abs(), "size": (free["size"] - row.size).abs()}
            )
            found[row.image_id] = free.loc[
                far.sort_values(["grade", "size"], kind="stable").index[0], "image_id"
            ]
    return found


def readable(found: pd.DataFrame) -> pd.DataFrame:
    """The test for readers: percentage points with intervals, effect sizes, and which way it went."""
    rows = []
    for row in found.to_dict("records"):
        shown = {"comparison": row["comparison"], "region": row["region"]}
        shown["eyes"] = f"{row['eyes']} of {row['asked']}"
        for name, column, scale in (("change, points", "difference", 100), ("effect size", "effect", 1)):
            shown[name] = intervals.difference(*intervals.of(row, column, scale))
        rows.append(shown | {"verdict": _verdict(row)})
    return pd.DataFrame(rows)


def _verdict(row: Mapping[str, float]) -> str:
    """Which way the share went, beyond chance, and whether the paper says so."""
    if not row["eyes"]:
        return "no heat in one of the maps, or not annotated" if row["asked"] else "no such eye"
    if np.isnan(row["difference_lo"]):
        return "too few patients"
    way = "rises" if row["difference_lo"] > 0 else "falls" if row["difference_hi"] < 0 else ""
    if not way:
        return "no change beyond chance"
    claimed = {"lesion": "falls", "vessel": "rises"}.get(row["region"])
    return (
        way if claimed is None else f"{way}, {'as the paper says' if way == claimed else 'against the paper'}"
    )
