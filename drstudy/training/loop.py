"""The loop: hand a task its batches, measure it after each epoch, keep the best epoch, resume after a kill.

It knows no task, no paper and no metric; :mod:`drstudy.training.task` has the contract. Everything random in an epoch follows from the
seed and the epoch's number, so a run that was killed and resumed ends with the bytes of an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from drstudy.core import records
from drstudy.models import norms
from drstudy.models.weights import digest_of
from drstudy.training import identity, kept, launch
from drstudy.training.checkpoints import Checkpointer
from drstudy.training.task import Task

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Fit:
    """The outcome of a training, beside the networks.

    Attributes:
        history: One row per step: ``epoch, step`` and the losses. The last row of an epoch also has ``val_<metric>`` for each metric.
        best_epoch: Number of the epoch whose weights the networks have now, from 1.
        seconds_per_epoch: Median time of an epoch, validation included.
        seconds_trunk: Time of the frozen trunk.
        seconds_prepare: Time to write the feature store, decoding and augmentation included.
        resumed_at: Number of epochs that were finished before this call, by a killed run or by processes that were started.
        found: Whether the training was taken from the trained-model store. All times are then those of the run that trained.
    """

    history: pd.DataFrame
    best_epoch: int
    seconds_per_epoch: float
    seconds_trunk: float = 0.0
    seconds_prepare: float = 0.0
    resumed_at: int = 0
    found: bool = False


def fit(
    task: Task, folder: Path | None = None, *, keep: bool = False, team: Accelerator | None = None
) -> Fit:
    """Train a task, and leave its networks with the best epoch's weights, in evaluation mode.

    Args:
        task: The task with its starting weights; changed in place.
        folder: Folder of checkpoints and TensorBoard logs, from which a killed run is resumed; ``None`` writes none.
        keep: Whether to look in the trained-model store first, and to keep the finished training there.
        team: The processes that train this task together, given in each of them. If it is ``None`` and ``p.processes`` is above 1, this
            function starts the processes and reads their checkpoints.

    Raises:
        FloatingPointError: If a loss is no longer finite, with the epoch and step.
        RuntimeError: If processes that were started failed, with the end of what they said.
        ValueError: If several processes are requested and cannot be started (see :func:`drstudy.training.launch.check`).
    """
    started = team is None and getattr(task.p, "processes", 1) > 1
    if started:
        launch.check(task.p, folder)
    made = (
        identity.of(task, keep) if folder or keep else None
    )  # it reads every parameter, so only where files go by it
    keeper = _Keeper(task, made.resume_key if made else "", folder, team is None or team.is_main_process)
    if keep and team is None:
        before = kept.find(made)
        records.TRAININGS[made.key] = {"code": made.code, "found": before is not None}
        if before is not None:
            return keeper.take(*before)
    if started:
        launch.start(task.p)
    first = keeper.resume()
    if started and first < task.p.epochs:
        raise RuntimeError(
            f"The {task.p.processes} processes left no checkpoint of the last epoch of this training: they built another task, or stopped."
        )
    if first < task.p.epochs:
        task.feed.prepare()
    _share(task, team, first)
    _epochs(task, keeper, first, folder)
    task.put(keeper.best)
    for module in task.modules.values():
        module.eval()
    done = Fit(
        keeper.history(),
        keeper.best_epoch,
        float(np.median(keeper.seconds)),
        task.feed.seconds,
        task.feed.seconds_prepare,
        first,
    )
    if keep and team is None:
        kept.keep(made, keeper.facts(done), keeper.best)
    return done


def _epochs(task: Task, keeper: _Keeper, first: int, folder: Path | None) -> None:
    p = task.p
    writer = _tensorboard(folder if keeper.leads else None, first, len(keeper.rows))
    for epoch in range(first + 1, p.epochs + 1):
        began = time.perf_counter()
        torch.manual_seed(seed_of(p.seed, epoch) + task.feed.share[0])
        task.start_epoch(epoch)
        losses = train_epoch(task, epoch)
        measured = task.validate()
        _check_measured(task, measured, epoch)
        keeper.epoch_done(epoch, losses, measured, time.perf_counter() - began)
        _log(writer, keeper, losses, measured)
        if keeper.leads and (epoch % max(1, p.epochs // 20) == 0 or epoch == p.epochs):
            print(_line(task, epoch, losses, measured, keeper.seconds[-1]), flush=True)
    if writer:
        writer.close()


def train_epoch(task: Task, epoch: int) -> list[dict[str, float]]:
    """Train one epoch; return the losses of each step, by name.

    Raises:
        FloatingPointError: If a loss is not finite, with the epoch and step.
    """
    p, feed = task.p, task.feed
    generator = torch.Generator().manual_seed(seed_of(p.seed, epoch))
    positions = task.draw(epoch, generator)
    if p.views:
        views = torch.randint(p.views, (len(positions),), generator=generator)
    else:
        views = torch.arange(len(positions)) + (epoch - 1) * len(positions)
    task.train_mode()
    losses = []
    for batch in feed.draws(positions, views):
        losses.append(task.step(batch))
        for name, value in losses[-1].items():
            if not np.isfinite(value):
                raise FloatingPointError(
                    f"The {name} is {value} at step {len(losses)} of epoch {epoch}. Lower LEARNING_RATE, or use PRECISION 'fp32'."
                )
    return losses


def seed_of(seed: int, epoch: int) -> int:
    """The seed of one epoch."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:7], "little")


def _check_measured(task: Task, measured: dict[str, float], epoch: int) -> None:
    """Refuse a validation loss that is not finite, and any metric that is not finite and chooses the epoch."""
    for name in task.measures:
        if (name.startswith("loss") or name == task.p.select_by) and not np.isfinite(measured[name]):
            raise FloatingPointError(
                f"The validation {task.titles.get(name, name)} is {measured[name]} after epoch {epoch}. Lower LEARNING_RATE, or use "
                "PRECISION 'fp32'."
            )


def _share(task: Task, team: Accelerator | None, first: int) -> None:
    """Prepare a task for several processes: its part of each batch, and norms of the whole batch.

    Raises:
        RuntimeError: If the processes start with different weights.
    """
    if team is None or team.num_processes == 1 or first >= task.p.epochs:
        return
    task.feed.share = team.process_index, team.num_processes
    for module in task.modules.values():
        norms.synchronise(module, task.compute.is_cuda)
    digests: list[Any] = [None] * team.num_processes
    torch.distributed.all_gather_object(digests, digest_of(task.learned()))
    if len(set(digests)) > 1:
        raise RuntimeError(
            "The processes start with different weights; they must build the task from the same seed and files."
        )


class _Keeper:
    """History and best weights so far, and their checkpoints. ``best`` is written before ``last``, so that a kill between them loses nothing."""

    def __init__(self, task: Task, key: str, folder: Path | None, leads: bool) -> None:
        self.task, self.leads = task, leads
        self.files = Checkpointer(task, folder / "checkpoints" if folder else None, key, leads)
        self.rows: list[dict[str, Any]] = []
        self.seconds: list[float] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch, self.best_score = 0, (-np.inf,)

    def history(self) -> pd.DataFrame:
        measured = [f"val_{name}" for name in self.task.measures]
        names = dict.fromkeys(name for row in self.rows for name in row)
        losses = [name for name in names if name not in ("epoch", "step", *measured)]
        return pd.DataFrame(self.rows, columns=["epoch", "step", *losses, *measured])

    def epoch_done(
        self, epoch: int, losses: list[dict[str, float]], measured: dict[str, float], seconds: float
    ) -> None:
        empty = {f"val_{name}": np.nan for name in self.task.measures}
        for values in losses:
            self.rows.append({"epoch": epoch, "step": len(self.rows) + 1, **values, **empty})
        self.rows[-1].update({f"val_{name}": measured[name] for name in self.task.measures})
        self.seconds.append(seconds)
        score, learned = self.task.score(measured, epoch), self.task.learned()
        if score > self.best_score:
            self.best, self.best_epoch, self.best_score = learned, epoch, score
            self.files.save("best", learned, self._about(epoch))
        self.files.save("last", learned, self._about(epoch), moments=True)

    def _about(self, epoch: int) -> dict[str, Any]:
        best = {"best_epoch": self.best_epoch, "best_score": self.best_score}
        return {"epoch": epoch, **best, "history": self.rows, "seconds": self.seconds}

    def resume(self) -> int:
        """Restore a killed run of the same training; return the number of epochs that it had finished."""
        last = self.files.read("last")
        best = self.files.read("best") if last else None
        if last is None or best is None:
            return 0
        about, tensors = last
        try:
            self.files.restore(about, tensors)
            self.rows, self.seconds = about["history"], about["seconds"]
            self.best = self.files.learned(best[1])
            self.best_epoch, self.best_score = about["best_epoch"], tuple(about["best_score"])
        except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
            raise self.files.forget(error) from error
        print(f"resumed after epoch {about['epoch']} of {self.task.p.epochs}", flush=True)
        return about["epoch"]

    def facts(self, done: Fit) -> dict[str, Any]:
        """JSON-ready facts for the trained-model store; :meth:`take` reads them."""
        plain = dataclasses.asdict(dataclasses.replace(done, history=None))
        return {**plain, "rows": self.rows}

    def take(self, facts: dict[str, Any], learned: dict[str, Tensor]) -> Fit:
        """Put a training from the store into the task, as if it had just ended."""
        self.rows = facts.pop("rows")
        self.task.put(learned)
        for module in self.task.modules.values():
            module.eval()
        print(
            f"trained before, with the same recipe, data, weights and code: {self.task.p.epochs} epochs, epoch {facts['best_epoch']} kept",
            flush=True,
        )
        return Fit(**{**facts, "history": self.history(), "resumed_at": 0, "found": True})


def _line(
    task: Task, epoch: int, losses: list[dict[str, float]], measured: dict[str, float], seconds: float
) -> str:
    """What is printed after an epoch."""
    names = dict.fromkeys(name for values in losses for name in values)
    means = {name: np.mean([values[name] for values in losses if name in values]) for name in names}
    parts = [f"{name} {mean:.3f}" for name, mean in means.items()]
    parts += [f"validation {task.titles.get(name, name)} {measured[name]:.3f}" for name in task.measures]
    return f"epoch {epoch}/{task.p.epochs}: {', '.join(parts)}, {seconds:.1f} s"


def _tensorboard(folder: Path | None, first: int, step: int):
    if folder is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder / "tensorboard", purge_step=step + 1 if first else None)


def _log(writer, keeper: _Keeper, losses: list[dict[str, float]], measured: dict[str, float]) -> None:
    if writer is None:
        return
    for row, values in zip(keeper.rows[-len(losses) :], losses):
        for name, value in values.items():
            writer.add_scalar(f"{name}/train", value, row["step"])
    for name, value in measured.items():
        writer.add_scalar(f"{name}/validation", value, len(keeper.rows))
    writer.flush()
