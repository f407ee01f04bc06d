"""Checkpoints: any set of networks, optimisers, schedulers and random states in one file that is complete or absent.

Nothing is pickled: tensors go to safetensors, everything else to JSON in its metadata.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drstudy.core import paths
from drstudy.training import tensors as files
from drstudy.training.task import Task


class Checkpointer:
    """Writes and reads the state of a task at the end of an epoch.

    Args:
        task: The task whose networks, optimisers, schedulers, scaler and generators are saved and restored.
        folder: Folder of the files; ``None`` keeps nothing.
        key: Name of the training (:attr:`drstudy.training.identity.Identity.resume_key`). A file with another key is never taken.
        writes: Whether this process writes. One of several processes does.
    """

    def __init__(self, task: Task, folder: Path | None, key: str, writes: bool = True) -> None:
        self.task, self.folder, self.key, self.writes = task, folder, key, writes

    def save(
        self, name: str, learned: Mapping[str, Tensor], about: Mapping[str, Any], moments: bool = False
    ) -> None:
        """Write ``<name>.safetensors`` atomically.

        Args:
            name: Name of the file, without its suffix.
            learned: Tensors from :meth:`drstudy.training.task.Task.learned`.
            about: JSON-ready facts, returned by :meth:`read`.
            moments: Whether to save optimisers, schedulers, scaler and random states too, without which training cannot go on.
        """
        if self.folder is None or not self.writes:
            return
        tensors = {f"module/{key}": tensor for key, tensor in learned.items()}
        facts: dict[str, Any] = {"key": self.key, **about}
        if moments:
            more, facts["machinery"] = self._machinery()
            tensors |= more
        files.write(self.folder / f"{name}.safetensors", tensors, facts)

    def read(self, name: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Facts and tensors of a file of this training. ``None`` if there is no file, or if it is of another training, which is printed."""
        path = self.folder / f"{name}.safetensors" if self.folder else None
        if path is None or not path.is_file():
            return None
        try:
            about, tensors = files.read_facts(path), files.read_tensors(path)
        except (files.BrokenFileError, OSError) as error:
            print(f"{paths.show(path)} cannot be read ({error}); training starts afresh.")
            return None
        if about is None or about.get("key") != self.key:
            print(f"{paths.show(path)} belongs to another recipe or other data; training starts afresh.")
            return None
        return about, tensors

    @staticmethod
    def learned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a file that :meth:`drstudy.training.task.Task.put` takes."""
        return {key.removeprefix("module/"): t for key, t in tensors.items() if key.startswith("module/")}

    def forget(self, error: Exception) -> RuntimeError:
        """Remove files that cannot be taken up although they are of this training; returns the error to raise, since the task is half restored."""
        for name in ("last", "best"):
            if self.folder:
                (self.folder / f"{name}.safetensors").unlink(missing_ok=True)
        return RuntimeError(
            f"The checkpoints in {paths.show(self.folder or Path())} are damaged ({type(error).__name__}: {error}) and were removed. Run it again: training "
            "starts afresh."
        )

    def restore(self, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Restore the task from a file that was saved with ``moments``."""
        task, machinery = self.task, about["machinery"]
        task.put(self.learned(tensors))
        for name, optimiser in task.optimisers.items():
            self._restore_optimiser(name, optimiser, _unpacked(machinery["optimisers"][name]), tensors)
        for name, scheduler in task.schedulers.items():
            scheduler.load_state_dict(_unpacked(machinery["schedulers"][name]))
        for name, generator in task.generators.items():
            generator.set_state(tensors[f"random/{name}"])
        if machinery["scaler"]:
            task.scaler.load_state_dict(machinery["scaler"])

    def _machinery(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON-ready facts of optimisers, schedulers, generators and the scaler."""
        task, tensors, facts = self.task, {}, {}
        for name, optimiser in task.optimisers.items():
            state = optimiser.state_dict()
            plain: dict[int, dict[str, Any]] = {}
            for index, entry in state["state"].items():
                for field, value in entry.items():
                    if isinstance(value, Tensor):
                        tensors[f"optimiser/{name}/{index}/{field}"] = value.detach().cpu()
                    elif value is not None:
                        plain.setdefault(index, {})[field] = value
            groups = [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]]
            facts[name] = _packed({"plain": plain, "groups": groups})
        for name, generator in task.generators.items():
            tensors[f"random/{name}"] = generator.get_state()
        schedulers = {name: _packed(scheduler.state_dict()) for name, scheduler in task.schedulers.items()}
        return tensors, {"optimisers": facts, "schedulers": schedulers, "scaler": task.scaler.state_dict()}

    @staticmethod
    def _restore_optimiser(
        name: str, optimiser: torch.optim.Optimizer, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> None:
        state: dict[int, dict[str, Any]] = facts["plain"]
        learning = [q for group in optimiser.param_groups for q in group["params"]]
        prefix = f"optimiser/{name}/"
        for key, value in tensors.items():
            if key.startswith(prefix):
                index, field = key.removeprefix(prefix).split("/")
                like = learning[int(index)]
                # laid out in memory as its parameter: fused steps go through both side by side, whatever their strides say
                placed = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
                state.setdefault(int(index), {})[field] = placed
        members = [group["params"] for group in optimiser.state_dict()["param_groups"]]
        groups = [{**group, "params": own} for group, own in zip(facts["groups"], members)]
        optimiser.load_state_dict({"state": state, "param_groups": groups})


def _packed(value: Any) -> Any:
    """State as JSON can hold it: mappings as pairs, since their keys may be numbers (milestones of a learning rate), with their kind.

    Raises:
        TypeError: If JSON cannot hold a part of it.
    """
    if isinstance(value, Mapping):
        kind = "counter" if isinstance(value, Counter) else "mapping"
        return {kind: [[_packed(key), _packed(item)] for key, item in value.items()]}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_packed(item) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"The state of an optimiser or scheduler holds a {type(value).__name__}, which a checkpoint cannot keep."
    )


def _unpacked(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    [(kind, items)] = value.items()
    if kind in ("counter", "mapping"):
        made = {_unpacked(key): _unpacked(item) for key, item in items}
        return Counter(made) if kind == "counter" else made
    return (tuple if kind == "tuple" else list)(map(_unpacked, items))
