"""Training of the main paper's networks (Nian & Jin 2025): the task of notebook 03 as another process makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drstudy.core import devices, paths, records
from drstudy.data import dataset
from drstudy.papers.transfer.params import FineTuning
from drstudy.training import features, networks
from drstudy.training.grading import Grading

if TYPE_CHECKING:
    from accelerate import Accelerator


def task(given: dict[str, Any], team: Accelerator) -> Grading:
    """The task of notebook 03 in one of several processes (:mod:`drstudy.training.launch`).

    Args:
        given: UPPER_CASE parameters of the notebook.
        team: The processes; its first one writes the feature store.
    """
    p = FineTuning.check(given)
    device = "cpu" if team.device.type == "cpu" else str(team.device)
    compute = devices.setup(device, p.precision, p.threads, p.seed)
    data = dataset.load(records.load(paths.resolve(p.audit)))
    net = networks.build(p, data, compute)
    recipe = networks.recipe_for(net, p)
    store = features.open_features(net, data, recipe, compute)
    with team.main_process_first():
        store.prepare()
    return Grading(net, store, recipe, compute)
