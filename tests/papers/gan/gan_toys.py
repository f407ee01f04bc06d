"""A small recipe of a GAN and its task on coloured squares, for the tests, also in processes that they start."""

from __future__ import annotations

from typing import ClassVar

import torch
import toy_tasks

from drstudy.core import devices
from drstudy.papers.gan import runs
from drstudy.papers.gan.recipe import GanRecipe
from drstudy.papers.gan.training import GanTask


class ToyRecipe(GanRecipe):
    made_by: ClassVar[str] = "gan_toys:make"


def recipe(**changes) -> ToyRecipe:
    given = {
        "variant": "toy",
        "input_size": 16,
        "width": 2,
        "latent": 4,
        "batch_size": 4,
        "epochs": 3,
        "steps": 2,
    }
    given |= {"seed": 5, "device": "cpu", "threads": 1, "kept_pictures": 2, "critic_steps": 2}
    return ToyRecipe(**given | changes)


def build(p: GanRecipe) -> GanTask:
    """The task; of the variant ``sgd`` with plain gradient descent.

    Adam's first step has the sign of the gradient and no size, so the rounding of a gradient near 0 would become a whole step.
    """
    task = runs.build(p, toy_tasks.eyes(), devices.setup("cpu", p.precision, 1, p.seed))
    if p.variant == "sgd":
        for name, adam in task.optimisers.items():
            task.optimisers[name] = torch.optim.SGD(adam.param_groups[0]["params"], lr=0.004)
    return task


def make(given, team) -> GanTask:
    """As :mod:`drstudy.training.launch` asks for it."""
    return build(ToyRecipe.check(given))
