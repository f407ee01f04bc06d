"""What makes a training the same training: its recipe, data, starting weights, and the code that trains."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch

from drstudy.core import code
from drstudy.models.weights import digest_of
from drstudy.training.task import Task

TRAINS = ("drstudy.training.", "drstudy.models.", "drstudy.data.", "drstudy.core.devices")
"""Prefixes of the modules that decide what is learnt, among those that a task imports."""

DESCRIBES = ("params", "paper", "tables", "figures", "recipe")
"""Last names of modules that are never part of the identity: their values reach a training through its recipe, which is part of it."""


@dataclass(frozen=True)
class Identity:
    """Everything that decides what one training learns.

    Attributes:
        task: Class of the task, with its module.
        recipe: Fields of the recipe that decide what is learnt, and ``weights_used`` of the first network.
        feed: Classes of the feed, and the recipe by which it makes its views.
        compute: Kind of device, precision, and version of torch.
        data: SHA-256 of the image store's key, the rows of all splits and their targets.
        start: SHA-256 of all networks before training, teachers included.
        code: Digest of each file whose code trains, by its path.
        extra: Result of :meth:`drstudy.training.task.Task.extra`.
    """

    task: str
    recipe: dict[str, Any]
    feed: dict[str, Any]
    compute: str
    data: str
    start: str
    code: dict[str, str]
    extra: dict[str, Any]

    @property
    def key(self) -> str:
        """SHA-256 of all fields."""
        return hashlib.sha256(json.dumps(vars(self), sort_keys=True).encode()).hexdigest()


def of(task: Task) -> Identity:
    """The identity of a training. It must be taken before the first step, while the networks have their starting weights."""
    kind = type(task)
    networks = {**task.modules, **{f"teacher {name}": net for name, net in task.teachers.items()}}
    start = hashlib.sha256()
    for name, network in networks.items():
        start.update(f"{name} {digest_of(network.state_dict())}\n".encode())
    feed, targets = task.feed, list(task.feed.data.targets)
    rows = feed.train[["image_id", *targets]].to_csv() + feed.clean[["image_id", "split", *targets]].to_csv()
    used = getattr(next(iter(task.modules.values())), "weights_used", "")
    return Identity(
        task=f"{kind.__module__}.{kind.__qualname__}",
        recipe={**task.p.trained_by(), "weights_used": used},
        feed={
            "classes": [one.__qualname__ for one in type(feed).__mro__[:-1]],
            "recipe": feed.p.trained_by(),
        },
        compute=f"{task.compute.device.split(':')[0]} {task.compute.precision}, torch {torch.__version__}",
        data=hashlib.sha256((feed.data.key + rows).encode()).hexdigest(),
        start=start.hexdigest(),
        code=code.digests(modules_that_train(task)),
        extra=task.extra(),
    )


def modules_that_train(task: Task) -> set[str]:
    """Names of the modules whose code decides what a task learns.

    These are the loop, the classes of the task and of its feed, and what they import of the floors ``training``, ``models`` and
    ``data`` and of their own paper's folder.
    """
    own = {kind.__module__ for one in (task, task.feed) for kind in type(one).__mro__}
    papers = {name.rpartition(".")[0] + "." for name in own if name.startswith("drstudy.papers.")}
    begins = (*TRAINS, *papers)
    found = code.closure({*own, "drstudy.training.loop"})
    return {
        name
        for name in found
        if (f"{name}." if name == "drstudy.core.devices" else name).startswith(begins)
        and name.rpartition(".")[2] not in DESCRIBES
    }
