"""The loop: fine-tune the tail, choose the epoch on validation, resume after a kill.

Everything random in an epoch follows from the seed and the epoch's number, so a run that was killed and resumed ends
with the numbers of an uninterrupted one.

One network can be trained by several processes, one a GPU (or on a CPU, to test it): each step's batch is divided among
them, norms and gradients are of the whole batch, and validation images are dealt out, none twice and none left out. ``PROCESSES: n``
in notebook 03 does it; without a notebook::

    accelerate launch --multi_gpu --num_processes 2 -m drstudy.training.loop params/paper/03_fine_tuning.yaml -p BACKBONE=densenet121

leaves checkpoints, from which notebook 03 of the same parameters goes on to the predictions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.metrics import cohen_kappa_score
from torch import Tensor, nn

from drstudy.core import devices, params, paths, records
from drstudy.core.devices import Compute
from drstudy.core.names import N_GRADES
from drstudy.core.params import FineTuning, Training
from drstudy.data import dataset
from drstudy.data.dataset import Dataset
from drstudy.models import nets, norms
from drstudy.models.nets import GradingNet
from drstudy.models.weights import digest_of
from drstudy.training import prediction, sampling, transforms
from drstudy.training.features import Features, open_features

if TYPE_CHECKING:
    from accelerate import Accelerator

CALIBRATION_IMAGES = 128


@dataclass(frozen=True)
class Fit:
    """What training gives beside the network.

    Attributes:
        history: One row a step: ``epoch, step, loss``; a row that ends an epoch also has ``val_loss, val_qwk``.
        best_epoch: The epoch whose weights the network has now (from 1).
        seconds_per_epoch: Median over all epochs, validation included.
        resumed_at: Epochs that a killed run had finished already.
    """

    history: pd.DataFrame
    best_epoch: int
    seconds_per_epoch: float
    resumed_at: int


class Task:
    """What is learnt, and how: here the main paper's, five classes under cross-entropy with Adam. Others override."""

    outputs = N_GRADES
    measure = "QWK"  # what the second number of `validation` is

    def optimiser(self, net: GradingNet, p: Training) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            [q for q in net.parameters() if q.requires_grad],
            lr=p.learning_rate,
            betas=p.betas,
            eps=1e-8,
            weight_decay=p.weight_decay,
            fused=True,
        )

    def start_epoch(self, optimiser: torch.optim.Optimizer, p: Training, epoch: int) -> None:
        """Set what changes from epoch to epoch, such as the learning rate; epochs count from 1."""

    def draw(self, grades: np.ndarray, p: Training, epoch: int, generator: torch.Generator) -> Tensor:
        """One epoch of positions in ``grades``."""
        return sampling.draw(p.sampler, grades, generator)

    def loss(self, outputs: Tensor, grades: Tensor, p: Training) -> Tensor:
        """Of one batch: float32 outputs (B, ``outputs``), grades (B,) int64."""
        return nn.functional.cross_entropy(outputs, grades, label_smoothing=p.label_smoothing)

    def validation(self, outputs: np.ndarray, grades: np.ndarray) -> tuple[float, float]:
        """Loss of a whole split, and the number that :attr:`measure` names: quadratic weighted kappa."""
        loss = nn.functional.cross_entropy(torch.from_numpy(outputs).double(), torch.from_numpy(grades))
        return loss.item(), qwk(grades, outputs.argmax(1))


CLASSIFICATION = Task()


def build(p: Training, data: Dataset, compute: Compute, outputs: int = N_GRADES) -> GradingNet:
    """The network of a recipe: weights, head, frozen layers; norms calibrated on training images where nothing was pretrained."""
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
    """The recipe by which a network is really trained: the shorter one of ``p.without_pretraining``, if there is one and the network
    started from random weights, else ``p`` itself. Features and training take this one.

    Args:
        net: Made by :func:`build` of ``p``; its ``weights_used`` decides.
        p: The recipe that was asked for.
    """
    return p.shortened() if net.weights_used == "none" and p.without_pretraining else p


def described(net: GradingNet, p: Training) -> dict[str, str | int]:
    """The metrics by which a record says what was trained: ``weights_used``; ``recipe``, :data:`drstudy.core.params.SHORT` or
    :data:`drstudy.core.params.FULL`; and the ``epochs``, ``views`` and ``input_size`` (pixels) of that recipe.

    Args:
        net, p: As :func:`recipe_for` takes them.
    """
    recipe = recipe_for(net, p)
    name = params.FULL if recipe is p else params.SHORT
    return {
        "weights_used": net.weights_used,
        "recipe": name,
        "epochs": recipe.epochs,
        "views": recipe.views,
        "input_size": recipe.input_size,
    }


def fit(
    net: GradingNet,
    features: Features,
    p: Training,
    compute: Compute,
    folder: Path | None = None,
    task: Task = CLASSIFICATION,
    team: Accelerator | None = None,
) -> Fit:
    """Fine-tune the tail, by default with Adam under cross-entropy, and leave the network with the best epoch's weights.

    Args:
        net: Made by :func:`build`; changed in place.
        features: Of the same recipe.
        p: The recipe, of :func:`recipe_for`.
        compute: Device and precision.
        folder: Where checkpoints and TensorBoard logs go, and from where a killed run is resumed; ``None`` keeps nothing.
        task: What is learnt, and how.
        team: Of the processes that train this network together, in each of them; without it, and with ``p.processes`` above 1,
            they are started, and their checkpoints read.

    Raises:
        FloatingPointError: If a loss is no longer finite, with the epoch and step.
        RuntimeError: If processes that were started failed, with the end of what they said.
    """
    if team is None and isinstance(p, FineTuning) and p.processes > 1:
        _launch(p, folder, task)
    optimiser = task.optimiser(net, p)
    scaler = torch.amp.GradScaler(compute.device.split(":")[0], enabled=compute.precision == "fp16")
    leads = team is None or team.is_main_process
    keeper = _Keeper(net, optimiser, scaler, p, features, folder, leads)
    first = keeper.resume()
    writer = _tensorboard(folder if leads else None, first, keeper.steps)
    tail = net.tail
    if team and team.num_processes > 1 and first < p.epochs:
        features.share = team.process_index, team.num_processes
        norms.synchronise(net, compute.is_cuda)
        tail = nn.parallel.DistributedDataParallel(_Tail(net), broadcast_buffers=False)
    for epoch in range(first + 1, p.epochs + 1):
        began = time.perf_counter()
        torch.manual_seed(_seed(p.seed, epoch) + features.share[0])
        task.start_epoch(optimiser, p, epoch)
        losses = _train_epoch(net, features, optimiser, scaler, task, p, compute, epoch, tail)
        val_loss, val_qwk = validate(net, features, compute, task)
        if not np.isfinite(val_loss):
            raise FloatingPointError(
                f"The validation loss is {val_loss} after epoch {epoch}. Lower LEARNING_RATE, or use PRECISION 'fp32'."
            )
        keeper.epoch_done(epoch, losses, val_loss, val_qwk, time.perf_counter() - began)
        _log(writer, keeper, losses, val_loss, val_qwk, task.measure)
        if leads and (epoch % max(1, p.epochs // 20) == 0 or epoch == p.epochs):
            print(
                f"epoch {epoch}/{p.epochs}: loss {np.mean(losses):.3f}, validation loss {val_loss:.3f}, "
                f"validation {task.measure} {val_qwk:.3f}, {keeper.seconds[-1]:.1f} s",
                flush=True,
            )
    if writer:
        writer.close()
    keeper.restore_best()
    return Fit(keeper.history(), keeper.best_epoch, float(np.median(keeper.seconds)), first)


class _Tail(nn.Module):
    """What learns, as a module whose ``forward`` data-parallel training can wrap."""

    def __init__(self, net: GradingNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, h: Tensor) -> Tensor:
        return self.net.tail(h)


def _train_epoch(
    net, features, optimiser, scaler, task: Task, p: Training, compute: Compute, epoch: int, tail=None
) -> list[float]:
    """One epoch of draws; returns each step's loss."""
    tail = tail or net.tail
    generator = torch.Generator().manual_seed(_seed(p.seed, epoch))
    grades = features.train["grade"].to_numpy(dtype=np.int64)
    positions = task.draw(grades, p, epoch, generator)
    if p.views:
        views = torch.randint(p.views, (len(positions),), generator=generator)
    else:
        views = torch.arange(len(positions)) + (epoch - 1) * len(positions)
    net.train()
    losses = []
    for h, target in features.draws(positions, views):
        optimiser.zero_grad(set_to_none=True)
        with compute.autocast():
            outputs = tail(h)
        loss = task.loss(outputs.float(), target, p)
        share, whole = _of_all(loss, len(target), features.share[1])
        scaler.scale(share).backward()
        scaler.step(optimiser)
        scaler.update()
        losses.append(whole)
        if not np.isfinite(losses[-1]):
            raise FloatingPointError(
                f"The loss is {losses[-1]} at step {len(losses)} of epoch {epoch}. Lower LEARNING_RATE, or use PRECISION 'fp32'."
            )
    return losses


def _of_all(loss: Tensor, images: int, processes: int) -> tuple[Tensor, float]:
    """From the mean loss of this process's images: what it differentiates, so that the mean of all gradients is that of the mean loss of
    the whole batch; and that mean."""
    if processes == 1:
        return loss, loss.item()
    sums = torch.stack([loss.detach() * images, loss.new_tensor(images)])
    torch.distributed.all_reduce(sums)
    return loss * (images * processes / sums[1]), (sums[0] / sums[1]).item()


def validate(
    net: GradingNet, features: Features, compute: Compute, task: Task = CLASSIFICATION
) -> tuple[float, float]:
    """What the task measures on the validation split; see :meth:`Task.validation`."""
    rank, processes = features.share
    outputs = prediction.from_features(net, features, "validation", compute, (rank, processes))
    if processes > 1:
        parts: list = [None] * processes
        torch.distributed.all_gather_object(parts, outputs)
        outputs = np.empty((sum(map(len, parts)), outputs.shape[1]), outputs.dtype)
        for other, part in enumerate(parts):
            outputs[other::processes] = part
    grades = features.clean.loc[features.clean["split"] == "validation", "grade"].to_numpy(dtype=np.int64)
    return task.validation(outputs, grades)


def qwk(grades: np.ndarray, predicted: np.ndarray) -> float:
    """Quadratic weighted kappa; 0 where it is undefined because only one grade occurs (agreement by chance alone)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = cohen_kappa_score(grades, predicted, weights="quadratic", labels=range(5))
    return float(value) if np.isfinite(value) else 0.0


def _seed(seed: int, epoch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:7], "little")


class _Keeper:
    """History, the best weights, and checkpoints that are written atomically, the best before the last."""

    def __init__(
        self,
        net,
        optimiser,
        scaler,
        p: Training,
        features: Features,
        folder: Path | None,
        writes: bool = True,
    ) -> None:
        self.net, self.optimiser, self.scaler, self.p, self.writes = net, optimiser, scaler, p, writes
        self.folder = folder / "checkpoints" if folder else None
        start = digest_of(dict(net.named_parameters())) if folder else ""
        described = json.dumps(
            [
                p.model_dump(mode="json", exclude={"threads", "processes", "without_pretraining"}),
                net.weights_used,
                start,
                features.data.key,
            ]
        )
        rows = (
            features.train[["image_id", "grade"]].to_csv()
            + features.clean[["image_id", "split", "grade"]].to_csv()
        )
        self.key = hashlib.sha256((described + rows).encode()).hexdigest()
        self.rows: list[dict] = []
        self.seconds: list[float] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch, self.best_score = 0, (-np.inf, -np.inf)

    @property
    def steps(self) -> int:
        return len(self.rows)

    def history(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=["epoch", "step", "loss", "val_loss", "val_qwk"])

    def state(self) -> dict[str, Tensor]:
        """What training changes: trainable parameters, and buffers (statistics)."""
        learned = {name: q for name, q in self.net.named_parameters() if q.requires_grad}
        return {name: q.detach().cpu().clone() for name, q in (*learned.items(), *self.net.named_buffers())}

    def epoch_done(
        self, epoch: int, losses: list[float], val_loss: float, val_qwk: float, seconds: float
    ) -> None:
        for loss in losses:
            self.rows.append(
                {"epoch": epoch, "step": self.steps + 1, "loss": loss, "val_loss": np.nan, "val_qwk": np.nan}
            )
        self.rows[-1].update(val_loss=val_loss, val_qwk=val_qwk)
        self.seconds.append(seconds)
        score = {"qwk": (val_qwk, -val_loss), "loss": (-val_loss, val_qwk), "last": (epoch, 0.0)}[
            self.p.select_by
        ]
        state = self.state()
        if score > self.best_score:
            self.best, self.best_epoch, self.best_score = state, epoch, score
            self._save("best", state, epoch)
        moments = {
            f"adam/{i}/{name}": value.detach().cpu()
            for i, entry in self.optimiser.state_dict()["state"].items()
            for name, value in entry.items()
        }
        self._save("last", {**{f"net/{name}": q for name, q in state.items()}, **moments}, epoch)

    def _save(self, name: str, tensors: dict[str, Tensor], epoch: int) -> None:
        if self.folder is None or not self.writes:
            return
        about = {
            "key": self.key,
            "epoch": epoch,
            "best_epoch": self.best_epoch,
            "best_score": self.best_score,
            "scaler": self.scaler.state_dict(),
            "history": self.rows,
            "seconds": self.seconds,
        }
        with paths.atomic(self.folder / f"{name}.safetensors") as temporary:
            save_file(
                {k: v.contiguous() for k, v in tensors.items()},
                temporary,
                metadata={"drstudy": json.dumps(about)},
            )

    def _read(self, name: str) -> tuple[dict, dict[str, Tensor]] | None:
        path = self.folder / f"{name}.safetensors" if self.folder else None
        if path is None or not path.is_file():
            return None
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["drstudy"])
        if about["key"] != self.key:
            print(f"{paths.show(path)} belongs to another recipe or other data; training starts afresh.")
            return None
        return about, load_file(path)

    def resume(self) -> int:
        """Take up a killed run of the same recipe and data; returns the number of epochs that it had finished."""
        last = self._read("last")
        if last is None:
            return 0
        about, tensors = last
        best = self._read("best")
        if best is None:
            return 0
        self._put({name[4:]: q for name, q in tensors.items() if name.startswith("net/")})
        state: dict[int, dict[str, Tensor]] = {}
        learning = [q for group in self.optimiser.param_groups for q in group["params"]]
        for name, value in tensors.items():
            if name.startswith("adam/"):
                _, index, field = name.split("/")
                like = learning[int(index)]
                # laid out in memory as its parameter: fused steps go through both side by side, whatever their strides say
                placed = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
                state.setdefault(int(index), {})[field] = placed
        self.optimiser.load_state_dict(
            {"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]}
        )
        if about["scaler"]:
            self.scaler.load_state_dict(about["scaler"])
        self.rows = about["history"]
        self.seconds = about["seconds"]
        self.best, self.best_epoch, self.best_score = best[1], about["best_epoch"], tuple(about["best_score"])
        print(f"resumed after epoch {about['epoch']} of {self.p.epochs}", flush=True)
        return about["epoch"]

    def restore_best(self) -> None:
        self._put(self.best)
        self.net.eval()

    def _put(self, state: dict[str, Tensor]) -> None:
        unexpected = self.net.load_state_dict(state, strict=False).unexpected_keys
        if unexpected:
            raise RuntimeError(
                f"The checkpoint has unknown tensors: {unexpected[:3]}. Delete the folder checkpoints and run again."
            )


def _tensorboard(folder: Path | None, first: int, step: int):
    if folder is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder / "tensorboard", purge_step=step + 1 if first else None)


def _log(writer, keeper: _Keeper, losses: list[float], val_loss: float, val_qwk: float, measure: str) -> None:
    if writer is None:
        return
    for row in keeper.rows[-len(losses) :]:
        writer.add_scalar("loss/train", row["loss"], row["step"])
    writer.add_scalar("loss/validation", val_loss, keeper.steps)
    writer.add_scalar(f"{measure.lower().replace(' ', '_')}/validation", val_qwk, keeper.steps)
    writer.flush()


def _launch(p: FineTuning, folder: Path | None, task: Task) -> None:
    """Train in ``p.processes`` processes; what they leave are finished checkpoints."""
    if folder is None or folder != p.folder or task is not CLASSIFICATION:
        raise ValueError(
            "PROCESSES above 1 is for notebook 03: processes meet in the checkpoints of its result folder."
        )
    command = [sys.executable, "-m", "accelerate.commands.launch", f"--num_processes={p.processes}"]
    # its --cpu starts one process; with --multi_gpu each takes a GPU where there is one, else the CPU
    command += ["--multi_gpu", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "recipe.yaml"
        file.write_text(yaml.safe_dump(p.upper()))
        command += ["-m", "drstudy.training.loop", str(file)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=paths.root()
        )
        said = []
        for line in process.stdout:
            said = [*said[-100:], line]
            if line.startswith(("epoch", "feature store", "resumed")):
                print(line, end="", flush=True)
        if process.wait():
            raise RuntimeError(f"Training in {p.processes} processes failed:\n{''.join(said)}")


def main(arguments: list[str] | None = None) -> None:
    """One of the processes that ``accelerate launch -m drstudy.training.loop`` starts."""
    from accelerate import Accelerator

    parser = argparse.ArgumentParser(
        prog="accelerate launch -m drstudy.training.loop", description=main.__doc__
    )
    parser.add_argument(
        "files", nargs="+", type=Path, help="parameter files of notebook 03, later ones winning"
    )
    parser.add_argument(
        "-p", action="append", default=[], metavar="NAME=VALUE", help="a parameter (YAML value)"
    )
    given = parser.parse_args(arguments)
    pairs = [text.partition("=")[::2] for text in given.p]
    p = params.from_files(
        FineTuning.notebook, given.files, {name: yaml.safe_load(value) for name, value in pairs}
    )
    team = Accelerator(cpu=p.device == "cpu" or not torch.cuda.is_available())
    device = "cpu" if team.device.type == "cpu" else str(team.device)
    compute = devices.setup(device, p.precision, p.threads, p.seed)
    audit = records.load(paths.resolve(p.audit))
    data = dataset.load(audit)
    net = build(p, data, compute)
    p = recipe_for(net, p)
    with team.main_process_first():
        store = open_features(net, data, p, compute)
    fit(net, store, p, compute, p.folder, team=team)
    team.end_training()


if __name__ == "__main__":
    main()
