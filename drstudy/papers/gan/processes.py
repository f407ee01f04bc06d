"""One GAN trained by several processes (:mod:`drstudy.training.launch`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drstudy.core import devices, paths, records
from drstudy.data.dataset import load
from drstudy.papers.gan import feed, runs
from drstudy.papers.gan.recipe import GanRecipe
from drstudy.papers.gan.training import GanTask

if TYPE_CHECKING:
    from accelerate import Accelerator


def task(given: dict[str, Any], team: Accelerator) -> GanTask:
    """The task of a recipe in one of several processes.

    Args:
        given: UPPER_CASE fields of the recipe.
        team: The processes.
    """
    p = GanRecipe.check(given)
    device = "cpu" if team.device.type == "cpu" else str(team.device)
    compute = devices.setup(device, p.precision, p.threads, p.seed)
    audit = records.load(paths.resolve(p.audit))
    return runs.build(p, feed.with_sides(load(audit), audit), compute)
