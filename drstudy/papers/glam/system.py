"""What notebook 14 leaves for the comparison of all systems: a decision from its labels, the proposed map, and costs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from drstudy.core.names import LESIONS, MILD
from drstudy.evaluation import common, multilabel
from drstudy.explain.measures.grid import ANY
from drstudy.papers.glam import maps as glam_maps
from drstudy.papers.glam.measuring import Bench, label_scores
from drstudy.papers.glam.params import REFERABLE, Glam
from drstudy.training import timing

RULE = "max"
"""How lesions make one decision: the greatest probability (**a choice of this study**)."""


def referable_codes(p: Glam) -> list[str]:
    """Labels that speak for referable DR: the label itself, or the signs of the disease beyond microaneurysms."""
    return [code for code in p.codes if code == REFERABLE or (code in LESIONS and code not in MILD)]


def predictions(bench: Bench, eyes: pd.DataFrame, name: str) -> pd.DataFrame:
    """The common form: the greatest probability of the labels beyond microaneurysms; no grade.

    Args:
        bench: Networks and photographs.
        eyes: Rows with ``image_id, patient_id, split, grade, row``.
        name: The map whose highest evidence makes the scores of labels.
    """
    said = label_scores(bench, eyes)
    own = said[said["map"] == name]
    used = [f"p_{code}" for code in referable_codes(bench.p)]
    score = multilabel.combine(own[used].to_numpy(float), RULE)
    return common.frame(own, score, score)


def maps(bench: Bench, eyes: pd.DataFrame, name: str) -> dict[str, np.ndarray]:
    """One map of each region, (N, g, g) float16; where the label is the grade, one map of all lesions."""
    reader, regions = bench.reader(eyes, only=[name]), list(bench.p.regions)
    found = np.stack([reader(image_id)[name].astype(np.float16) for image_id in eyes["image_id"]])
    named = {region: found[:, k] for k, region in enumerate(regions)}
    return {ANY: named[ANY]} if REFERABLE in bench.p.codes else named


def costs(bench: Bench, eyes: pd.DataFrame, name: str) -> dict[str, float | None]:
    """Parameters of the backbone and of the heads behind the map, seconds to train them, seconds per eye with its map.

    Seconds to train are None where the networks are those of another result.
    """
    trained, heads = bench.trained, glam_maps.made_by(bench.trained)[name]
    counted = [trained.net.net.backbone, *(trained.net.net.heads[head] for head in heads)]
    epochs = trained.history.groupby("training")["epoch"].max()
    groups = ["saliency", *(head for head in heads if head in epochs.index)]
    spent = [epochs[group] * trained.seconds.get(f"{group}_per_epoch", np.nan) for group in groups]
    seconds = trained.seconds.get("features", np.nan) + sum(spent)

    def infer(rows: np.ndarray) -> None:
        some = eyes[eyes["row"].isin(rows)]
        reader = bench.reader(some, only=[name])
        for image_id in some["image_id"]:
            reader(image_id)

    return {
        "parameters_system": sum(q.numel() for part in counted for q in part.parameters()),
        "seconds_to_train": None if np.isnan(seconds) else float(seconds),
        "seconds_per_eye": timing.seconds_per_eye(infer, eyes["row"].to_numpy()),
    }
