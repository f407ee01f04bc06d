"""Recipes from a plain probe to everything that this study adds, and the similarities that each of them learns from.

Each recipe changes one thing of the one before, so that the ablation shows what each brings. The recipe ``study`` is none of them: it is
the one that validation chooses among them, in each training by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from drstudy.core.devices import Compute
from drstudy.models import nets
from drstudy.models.nets import GradingNet
from drstudy.papers.external import descriptors, learner
from drstudy.papers.external.cohorts import Cohort

STUDY = "study"
"""Name of the recipe that validation chooses."""

PROBE = "probe"


@dataclass(frozen=True)
class Recipe:
    """What a head learns from.

    Attributes:
        networks: Names of the frozen networks; the similarities are averaged.
        looks: Of :data:`drstudy.papers.external.descriptors.LOOKS`.
        depths: Of :data:`drstudy.papers.external.descriptors.DEPTHS`.
        mirrored: Whether descriptors are averaged over the photograph and its mirror image, in training and test.
        fellow: Whether the descriptors of the patient's other eye are seen too.
        head: Of :data:`drstudy.papers.external.learner.REGRESSION` and ``ORDINAL``.
    """

    networks: tuple[str, ...]
    looks: tuple[str, ...] = (descriptors.PLAIN,)
    depths: tuple[str, ...] = (descriptors.LAST,)
    mirrored: bool = False
    fellow: bool = False
    head: str = learner.REGRESSION


def ladder(networks: Sequence[str], mirrored: bool) -> dict[str, Recipe]:
    """The recipes by name, each with one change to the one before.

    Args:
        networks: Names of the networks; the first is that of the probe, and the others join it in one step.
        mirrored: Whether there is a step with mirror images, which doubles the time.
    """
    steps = {PROBE: Recipe((networks[0],))}
    steps["+ finer maps"] = replace(steps[PROBE], depths=descriptors.DEPTHS)
    steps["+ local contrast"] = replace(steps["+ finer maps"], looks=descriptors.LOOKS)
    if mirrored:
        steps["+ mirror images"] = replace(list(steps.values())[-1], mirrored=True)
    steps["+ fellow eye"] = replace(list(steps.values())[-1], fellow=True)
    if len(networks) > 1:
        steps["+ more networks"] = replace(list(steps.values())[-1], networks=tuple(networks))
    steps["+ ordinal head"] = replace(list(steps.values())[-1], head=learner.ORDINAL)
    return steps


def networks(names: Sequence[str], weights: str, seed: int, compute: Compute) -> dict[str, GradingNet]:
    """Frozen networks by name, on the device.

    Raises:
        drstudy.models.weights.WeightsError: If the weights cannot be loaded.
    """
    found = {}
    for name in names:
        net = nets.build(name, "single", weights, seed)
        net.freeze("eval")
        found[name] = net.to(compute.device, memory_format=torch.channels_last).eval()
    return found


def weights_used(found: Mapping[str, GradingNet]) -> str:
    """What the networks started from, such as ``bundled``; several kinds are joined by `` and ``."""
    return " and ".join(sorted({net.weights_used for net in found.values()}))


def described(recipes: Mapping[str, Recipe]) -> pd.DataFrame:
    """What each recipe learns from, one row per recipe."""
    rows = {
        name: {
            "networks": ", ".join(one.networks),
            "photographs": ", ".join(one.looks),
            "maps": ", ".join(one.depths),
            "mirror images": one.mirrored,
            "fellow eye": one.fellow,
            "head": one.head,
        }
        for name, one in recipes.items()
    }
    return pd.DataFrame(rows).T.rename_axis("recipe")


def kernels(
    recipes: Mapping[str, Recipe],
    networks: Mapping[str, GradingNet],
    sets: Sequence[Cohort],
    size: int,
    compute: Compute,
) -> dict[str, np.ndarray]:
    """The (N, N) similarities of each recipe over the images of all sets, in their order.

    Args:
        recipes: Recipes by name.
        networks: Frozen networks by name.
        sets: The sets.
        size: Side of the input, pixels.
        compute: Device and precision.
    """
    parts: dict[tuple, np.ndarray] = {}
    own = np.concatenate([(one.name + "-" + one.table["patient_id"].astype(str)).to_numpy() for one in sets])
    other = fellows(own)

    def part(network: str, look: str, depth: str, mirrored: bool) -> np.ndarray:
        key = (network, look, depth, mirrored)
        if key not in parts:
            for mirror in (False, True) if mirrored else (False,):
                found = [
                    descriptors.describe(networks[network], one, size, look, mirror, compute) for one in sets
                ]
                for name in descriptors.DEPTHS:
                    values = np.concatenate([each[name] for each in found])
                    place = (network, look, name, mirrored)
                    parts[place] = (parts[place] + values) / 2 if place in parts else values
            for name in descriptors.DEPTHS:
                place = (network, look, name, mirrored)
                parts[place] = learner.kernel(list(np.moveaxis(parts[place], 1, 0)))
        return parts[key]

    found = {}
    for name, recipe in recipes.items():
        each = [
            part(network, look, depth, recipe.mirrored)
            for network in recipe.networks
            for look in recipe.looks
            for depth in recipe.depths
        ]
        gram = np.mean(each, axis=0)
        found[name] = (gram + (other @ gram @ other.T)) / 2 if recipe.fellow else gram
    return found


def fellows(patients: np.ndarray) -> np.ndarray:
    """For each image the mean of the patient's other images, as a matrix of weights (N, N), rows summing to 1; an image without
    another one stands for it itself.

    Args:
        patients: Patient of each image, (N,), distinct between sets.
    """
    codes = pd.factorize(patients)[0]
    same = (codes[:, None] == codes[None]).astype(float)
    np.fill_diagonal(same, 0)
    alone = np.flatnonzero(same.sum(axis=1) == 0)
    same[alone, alone] = 1
    return same / same.sum(axis=1, keepdims=True)
