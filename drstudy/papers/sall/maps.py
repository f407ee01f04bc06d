"""Grad-CAM of a student at the frozen network's last layer, and how it lies on the lesions of either disease.

A student is a hidden layer and a linear head on pooled features, so its gradient at the layer before pooling is the same at every position:
the map is exact without a backward pass through the network (``docs/sources.md``, A6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from drstudy.data.dataset import Dataset
from drstudy.explain.measures import baselines, comparison, localisation
from drstudy.papers.sall.feed import Pooled, last_layer
from drstudy.papers.sall.model import Student
from drstudy.papers.sall.params import DISEASES
from drstudy.training import features

REGIONS = {"dr": "lesion", "amd": "DRUSEN"}
"""Masks on which the maps of a disease are measured: all signs of DR together, and drusen. Haemorrhages and exudates under the retina, which
are signs of AMD, lie in the masks of the signs of DR, so the maps of DR are measured only on eyes that have DR. An eye with both diseases
still mixes the two."""

METRICS = ("heat", "hit", "aupr")
"""Measures of :mod:`drstudy.explain.measures.comparison` that are shown: energy inside, pointing game, average precision."""

CENTRE = "centre"
"""The blind map beside which all maps stand: a prior on the middle of the photograph."""


@torch.no_grad()
def evidence(student: Student, disease: str, layer: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """Grad-CAM of the most probable class above 0: evidence for disease, also where none is predicted.

    Args:
        student: In evaluation mode.
        disease: Head that is explained.
        layer: (B, C, h, w) float32, the layer before pooling.
        mean, spread: (C,) by which pooled features are standardised.

    Returns:
        (B, h, w) float32, at least 0.
    """
    pooled = (layer.mean((2, 3)) - mean) / spread
    hidden = student.shared(pooled)
    head = student.heads[disease]
    target = 1 + head(hidden.relu())[:, 1:].argmax(1)
    through = head.weight[target] * (hidden > 0)
    weights = through @ (student.shared.weight / spread) / layer[0, 0].numel()
    return torch.einsum("bc,bchw->bhw", weights, layer).clamp(min=0)


def explain(
    feed: Pooled, base: features.Features, students: Mapping[tuple[str, int], Mapping[str, Student]]
) -> dict[tuple[str, int, str], np.ndarray]:
    """Maps of the test photographs, in the order of the split.

    Args:
        feed, base: Results of :func:`drstudy.papers.sall.feed.open_pooled`.
        students: (setting, seed) to the network of each disease.

    Returns:
        (setting, seed, disease) to (N, h, w) float32, at least 0.
    """
    found: dict[tuple[str, int, str], list[np.ndarray]] = {}
    for h in base.unaugmented(feed.place("test")):
        layer = last_layer(feed.net, h).cpu()
        for (setting, seed), networks in students.items():
            for disease, network in networks.items():
                heat = evidence(network, disease, layer, feed.mean, feed.spread)
                found.setdefault((setting, seed, disease), []).append(heat.numpy())
    return {key: np.concatenate(parts) for key, parts in found.items()}


def measure(
    maps: Mapping[tuple[str, int, str], np.ndarray],
    data: Dataset,
    eyes: pd.DataFrame,
    truth: pd.DataFrame,
    masks_of: Callable[[str], localisation.Masks],
    seed: int,
) -> pd.DataFrame:
    """Every map of every eye on the masks of its own disease, scores averaged over the seeds; for DR, only eyes whose true grade is above 0.

    Args:
        maps: Result of :func:`explain`.
        data: Photographs, at the size of the masks.
        eyes: Test photographs in the order of the maps: ``image_id, patient_id, row``.
        truth: Result of :func:`drstudy.papers.sall.labels.truth`.
        masks_of: Result of :func:`drstudy.explain.measures.localisation.masks_of`.
        seed: Seed of the blind maps.

    Returns:
        ``image_id, disease, layer`` (a setting, or a blind map), ``kind``, ``region`` and the scores, one row per eye with the mask. The
        average precision of drusen is NaN: :func:`drstudy.explain.measures.localisation.measure_eye` ranks pixels for lesions of DR only.
    """
    patients = dict(zip(eyes["image_id"], eyes["patient_id"]))
    with_dr = set(truth.loc[truth["dr"] > 0, "image_id"])
    named = {"|".join(map(str, key)): values for key, values in maps.items()}
    grid = next(iter(named.values())).shape[1:]
    beside = baselines.beside(data.images, eyes["row"].to_numpy(), [grid], seed)
    table, _ = localisation.measure(named, eyes["image_id"], masks_of, beside=beside)
    table = comparison.prepare(table, patients)
    found = []
    for disease, region in REGIONS.items():
        own = table["layer"].str.endswith(f"|{disease}") | ~table["layer"].str.contains("|", regex=False)
        part = table[own & (table["kind"] == "mask") & (table["region"] == region)]
        if disease == "dr":
            part = part[part["image_id"].isin(with_dr)]
        found.append(
            part.assign(disease=disease, layer=part["layer"].str.split("|").str[0].str.split(" ").str[0])
        )
    every = pd.concat(found, ignore_index=True)
    keys = ["disease", "layer", "kind", "region", "image_id"]
    return every.groupby(keys, sort=False)[list(METRICS)].mean().reset_index()


def compared(
    table: pd.DataFrame, settings: list[str], patients: Mapping[str, str], resamples: int, seed: int
) -> pd.DataFrame:
    """Maps of each setting less those of single task, and all of them less the centre prior, on the same eyes.

    Args:
        table: Result of :func:`measure`.
        settings: Settings, ``single`` among them.
        patients: image_id to patient_id.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        Rows of :func:`drstudy.explain.measures.comparison.differences` with ``disease``; no rows where no eye has the mask.
    """
    wanted = [(name, "single") for name in settings if name != "single"] + [
        (name, CENTRE) for name in settings
    ]
    found = []
    for disease in DISEASES:
        part = table[table["disease"] == disease]
        if part[list(METRICS)].notna().any(axis=None):
            rows = comparison.differences(part, wanted, patients, resamples, seed, metrics=METRICS)
            found.append(rows.assign(disease=disease))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()
