"""The network of a recipe: weights, head, frozen layers, and batch norms calibrated if it starts from random weights."""

from __future__ import annotations

import numpy as np
import torch

from drstudy.core.devices import Compute
from drstudy.core.names import N_GRADES
from drstudy.data.dataset import Dataset
from drstudy.models import nets, norms
from drstudy.models.nets import GradingNet
from drstudy.training import transforms
from drstudy.training.recipe import FULL, SHORT, Training

CALIBRATION_IMAGES = 128


def build(p: Training, data: Dataset, compute: Compute, outputs: int = N_GRADES) -> GradingNet:
    """The network of a recipe, on the device: weights, head, frozen layers.

    If it starts from random weights, its batch norms are calibrated on training images.

    Args:
        p: The recipe.
        data: Photographs and split.
        compute: Device and precision.
        outputs: Number of outputs.
    """
    net = nets.build(p.backbone, p.head, p.weights, p.seed, outputs)
    net.freeze(p.frozen_bn)
    net.to(compute.device, memory_format=torch.channels_last)
    if net.weights_used == "none":
        size = recipe_for(net, p).input_size
        rows = np.sort(data.part("train")["row"].to_numpy()[:CALIBRATION_IMAGES])

        def batches():
            for part in np.array_split(rows, max(1, len(rows) // net.trunk_batch)):
                yield compute.put(transforms.to_input(data.images[part], size, net.mean, net.std))

        with compute.autocast():
            norms.calibrate(net, batches)
    return net


def recipe_for(net: GradingNet, p: Training) -> Training:
    """The recipe by which a network is trained: the shorter one of ``p.without_pretraining`` if there is one and the network started
    from random weights, else ``p`` itself. Features and training take this recipe.

    Args:
        net: Network from :func:`build` of ``p``; its ``weights_used`` decides.
        p: The recipe of the parameters.
    """
    return p.shortened() if net.weights_used == "none" and p.without_pretraining else p


def described(net: GradingNet, p: Training) -> dict[str, str | int]:
    """Metrics that say in a record what was trained: ``weights_used``; ``recipe``, :data:`drstudy.training.recipe.SHORT` or
    :data:`drstudy.training.recipe.FULL`; and the ``epochs``, ``views`` and ``input_size`` (pixels) of that recipe.

    Args:
        net: Network from :func:`build`.
        p: The recipe of the parameters.
    """
    recipe = recipe_for(net, p)
    name = FULL if recipe is p else SHORT
    return {
        "weights_used": net.weights_used,
        "recipe": name,
        "epochs": recipe.epochs,
        "views": recipe.views,
        "input_size": recipe.input_size,
    }
