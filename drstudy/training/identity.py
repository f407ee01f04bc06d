"""What makes a training the same training: its recipe, data, starting weights, and the code that trains."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from drstudy.core import code, devices
from drstudy.models.compat import torchvision
from drstudy.models.weights import digest_of
from drstudy.training.features import Features
from drstudy.training.task import Task

FLOORS = ("drstudy.training.", "drstudy.models.", "drstudy.data.", "drstudy.core.devices.")
"""Beginnings of the modules that decide what a training gives, among those that its task imports."""

HANDLE = ("launch", "process", "kept", "checkpoints", "tensors", "identity", "recipe")
"""Modules of ``training/`` that start, keep and name trainings and do not change what is learnt; a recipe counts by its values."""

SHOW = ("params", "paper", "tables", "figures")
"""Modules of a paper's folder that are no part of a training: parameters reach it through its recipe, which counts by its values."""


class IdentityError(ValueError):
    """A training cannot be named, so it cannot be kept."""


@dataclass(frozen=True)
class Identity:
    """Everything that decides what one training learns.

    Attributes:
        task: Module and name of the task's class.
        recipe: Fields of the recipe that decide what is learnt.
        feed: Classes of the feed, and the fields of the recipe by which it makes its views.
        compute: Kind of device and precision.
        data: SHA-256 of the image store's key, the rows of all splits and their targets.
        start: SHA-256 of the parameters of all networks as they start, and of the teachers.
        code: Path of each file that trains, to the digest of its code.
        extra: Result of :meth:`drstudy.training.task.Task.extra`.
        rounding: What decides last digits: processor or GPU, threads, processes, versions of libraries, and the statistics of norms as they
            start. A killed run may go on under another rounding; a kept one is found under the same only.
    """

    task: str
    recipe: dict[str, Any]
    feed: dict[str, Any]
    compute: str
    data: str
    start: str
    code: dict[str, str]
    extra: dict[str, Any]
    rounding: dict[str, Any]

    @property
    def resume_key(self) -> str:
        """SHA-256 by which checkpoints are taken: all but :attr:`rounding`."""
        return _digest({name: value for name, value in vars(self).items() if name != "rounding"})

    @property
    def key(self) -> str:
        """SHA-256 by which a finished training is kept and found: all of it."""
        return _digest(vars(self))


def of(task: Task, keep: bool = True) -> Identity:
    """The identity of a training that has not begun: the networks are as they start.

    Args:
        task: As it starts.
        keep: Whether it is to be kept, so that all its code must be in files.

    Raises:
        IdentityError: If the code of the task is in no file, as that of a class in a notebook's cell.
    """
    feed, targets = task.feed, list(task.feed.data.targets)
    rows = feed.train[["image_id", *targets]].to_csv() + feed.clean[["image_id", "split", *targets]].to_csv()
    used = getattr(next(iter(task.modules.values())), "weights_used", "")
    start, statistics = hashlib.sha256(), hashlib.sha256()
    for name, network in task.modules.items():
        start.update(f"{name} {digest_of(dict(network.named_parameters()))}\n".encode())
        statistics.update(f"{name} {digest_of(dict(network.named_buffers()))}\n".encode())
    for name, teacher in task.teachers.items():
        start.update(f"teacher {name} {digest_of(teacher.state_dict())}\n".encode())
    return Identity(
        task=_name(type(task)),
        recipe={**task.p.trained_by(), "weights_used": used},
        feed=_feed(feed),
        compute=f"{task.compute.device.split(':')[0]} {task.compute.precision}",
        data=hashlib.sha256((feed.data.key + rows).encode()).hexdigest(),
        start=start.hexdigest(),
        code=_code(task, keep),
        extra=task.extra(),
        rounding=_rounding(task) | {"statistics": statistics.hexdigest()},
    )


def _rounding(task: Task) -> dict[str, Any]:
    device = task.compute.device
    chip = torch.cuda.get_device_name(device) if task.compute.is_cuda else devices.processor()
    return {
        "chip": chip,
        "threads": torch.get_num_threads(),
        "processes": getattr(task.p, "processes", 1),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


def _feed(feed: Features) -> dict[str, Any]:
    """A feed, and the one that it draws from where it is a part of another."""
    own = {"classes": [_name(kind) for kind in type(feed).__mro__[:-1]], "recipe": feed.p.trained_by()}
    return own | ({"base": _feed(feed.base)} if hasattr(feed, "base") else {})


def _code(task: Task, keep: bool) -> dict[str, str]:
    """Digests of the files that train.

    These are the loop, the classes of the task and of its feed, and what they import of the floors ``training``, ``models`` and
    ``data`` and of their own paper's folder.
    """
    kinds = {kind for one in (task, task.feed) for kind in type(one).__mro__ if kind is not object}
    names = {kind.__module__ for kind in kinds}
    papers = tuple(name.rpartition(".")[0] + "." for name in names if name.startswith("drstudy.papers."))
    within = {
        name
        for name in code.closure({*names, "drstudy.training.loop"})
        if f"{name}.".startswith((*FLOORS, *papers)) and not _handles(name)
    }
    return code.digests(within) | _outside(kinds, keep)


def _handles(name: str) -> bool:
    floor, last = name.split(".")[1], name.rpartition(".")[2]
    return (floor == "training" and last in HANDLE) or (floor == "papers" and last in SHOW)


def _outside(kinds: set[type], keep: bool) -> dict[str, str]:
    """Digests of the files of classes that are not of this package, such as a reader's own task."""
    found = {}
    for kind in kinds:
        if code.file_of(kind.__module__) is None:
            file = inspect.getsourcefile(kind) if kind.__module__ != "__main__" else None
            if file is None or not Path(file).is_file():
                if not keep:
                    continue
                raise IdentityError(
                    f"The code of {_name(kind)} is in no file, so a change of it could not be seen. Move the class to a module to keep its "
                    "trainings, or train with keep=False."
                )
            found[Path(file).name] = code.digest(Path(file))
    return found


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _digest(parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
