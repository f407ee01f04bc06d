"""Training of a score instead of classes (Wang & Yang 2017; ``docs/sources.md``, E4): mean squared error, Nesterov momentum, growing photographs.

The loop is :func:`drstudy.training.loop.fit`, given :class:`Regression` as its task. The paper's networks start from random weights at the
smallest size and go from each size to the next with their weights; a pretrained backbone with one output is fine-tuned at each size by
itself, through the feature store.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from drstudy.core.devices import Compute
from drstudy.core.names import N_GRADES, SPLITS
from drstudy.data.dataset import Dataset
from drstudy.models.nets import GradingNet
from drstudy.papers.ram import model
from drstudy.papers.ram.layers import CROPS
from drstudy.papers.ram.params import Ram, RamRecipe
from drstudy.training import features, grading, loop, networks, prediction, sampling, transforms

PAPER_SHIFT = 40
"""Translation either way, pixels: in the paper's code at every size for net-5, so 36 % of the side of a 112 px crop (net-4 has 10, 20 and
40 at 128, 256 and 512 px there; this study gives both networks one augmentation)."""

ZOOM = 1.15
COLOUR_IMAGES = 200


FINAL_WEIGHTS = (1.0, 2.0, 2.0, 2.0, 2.0)
"""Weights at which the annealed sampler of RAM ends, and the share that is left of the balanced ones after each epoch (``docs/sources.md``, E4)."""
BALANCE_RATIO = 0.975


def annealed_weights(counts: np.ndarray, epoch: int, ratio: float = BALANCE_RATIO) -> np.ndarray:
    """RAM's weights: balanced in the first epoch, then nearer to :data:`FINAL_WEIGHTS` with each (``docs/sources.md``, E4).

    Weight r^(t-1) of N / count and the rest of the final weights. Both parts are on the scale that the paper's code has, where the
    balanced weights are the larger ones by far, so that rare grades are drawn often for many epochs.

    Args:
        counts: (5,) number of training images per grade.
        epoch: t, from 1.
        ratio: r.

    Returns:
        (5,) float64; 0 for a grade without images.
    """
    counts = np.asarray(counts, dtype=float)
    balanced = np.divide(counts.sum(), counts, out=np.zeros(N_GRADES), where=counts > 0)
    left = ratio ** (epoch - 1)
    return np.where(counts > 0, left * balanced + (1 - left) * np.array(FINAL_WEIGHTS), 0.0)


class Regression(grading.OneNetwork):
    """The grade as a number, under mean squared error."""

    outputs = 1
    measures: ClassVar[Mapping[str, int]] = {"loss": -1, "qwk": 1}
    titles: ClassVar[Mapping[str, str]] = {"qwk": "QWK"}

    def optimiser(self, net: GradingNet, p: RamRecipe) -> torch.optim.Optimizer:
        """Nesterov; L2 is on weights only, and 2 w times its factor is what SGD calls weight decay. For a backbone, Adam."""
        if p.optimiser == "adam":
            return super().optimiser(net, p)
        weights = [q for name, q in net.named_parameters() if name.endswith("weight") and q.ndim > 1]
        rest = [q for q in net.parameters() if all(q is not weight for weight in weights)]
        groups = [{"params": weights, "weight_decay": 2 * p.weight_decay}, {"params": rest}]
        return torch.optim.SGD(groups, lr=p.learning_rate, momentum=p.momentum, nesterov=True)

    def start_epoch(self, epoch: int) -> None:
        if self.p.optimiser == "nesterov":
            fallen = sum(epoch > drop * self.p.epochs for drop in self.p.drops)
            for group in self.optimisers["net"].param_groups:
                group["lr"] = self.p.learning_rate / 10**fallen

    def draw(self, epoch: int, generator: torch.Generator) -> Tensor:
        if self.p.sampler != "annealed":
            return super().draw(epoch, generator)
        grades = self.feed.train["grade"].to_numpy(dtype=np.int64)
        weights = annealed_weights(np.bincount(grades, minlength=N_GRADES), epoch, self.p.balance_ratio)
        return sampling.draw_by_weight(weights, grades, generator)

    def loss(self, outputs: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        return nn.functional.mse_loss(outputs[:, 0], targets["grade"].float())

    def measure(self, outputs: np.ndarray, targets: Mapping[str, np.ndarray]) -> dict[str, float]:
        scores, grades = outputs[:, 0].astype(float), targets["grade"]
        predicted = np.floor(np.clip(scores, 0, 4) + 0.5).astype(int)
        return {"loss": float(np.mean((scores - grades) ** 2)), "qwk": grading.qwk(grades, predicted)}


def view(image: np.ndarray, crop: int, shift: float, seed: int, row: int, number: int) -> np.ndarray:
    """A training view as the paper makes it (``docs/sources.md``, E4): one nearest-neighbour warp, then the central crop.

    Any rotation, independent zooms of either axis in 1/1.15 to 1.15 (log-uniform), a flip of every second, a translation of up to ``shift``
    pixels either way; black where there is no photograph. The same seed, row and number always give the same bytes.

    Args:
        image: (S, S, 3) uint8.
        crop: Side of the result.
        shift: Pixels of ``image``.
        seed, row, number: Non-negative.

    Returns:
        (crop, crop, 3) uint8.
    """
    random = _random(seed, row, number)
    angle = random.uniform(0, 2 * np.pi)
    zoom = np.exp(random.uniform(-np.log(ZOOM), np.log(ZOOM), 2))
    mirror = np.array([random.choice([-1.0, 1.0]), 1.0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag(mirror / zoom)  # from the crop to the photograph, about their centres
    centre = np.full(2, (image.shape[0] - 1) / 2) + random.uniform(-shift, shift, 2)
    offset = centre - matrix @ np.full(2, (crop - 1) / 2)
    return cv2.warpAffine(
        image, np.column_stack([matrix, offset]), (crop, crop), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    )


def shift(p: RamRecipe) -> float:
    """Greatest translation of a recipe, pixels: ``paper`` 40 at every size, ``fixed`` 40 at 512 and in proportion below."""
    return PAPER_SHIFT if p.augmentation == "paper" else PAPER_SHIFT * p.input_size / 512


def _random(seed: int, row: int, number: int) -> np.random.Generator:
    digest = hashlib.sha256(f"ram/{seed}/{row}/{number}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


class Views(features.Live):
    """Feeds a network of the paper: its augmentation and colour noise for training, the central crop for the rest."""

    def __init__(self, net: model.RamNet, data: Dataset, p: RamRecipe, compute: Compute) -> None:
        super().__init__(net, data, p, compute)
        self.colours = self._principal_colours()

    def _principal_colours(self) -> np.ndarray:
        """Principal axes of the standardised training pixels, each as long as its standard deviation: (3, 3) columns."""
        rows = np.sort(self.train["row"].to_numpy()[:COLOUR_IMAGES])
        pixels = self.data.images[rows][:, ::4, ::4].reshape(-1, 3) / 255
        variance, axes = np.linalg.eigh(np.cov((pixels - self.net.mean) / self.net.std, rowvar=False))
        return axes * np.sqrt(variance.clip(min=0))

    def images(self, pairs: list[tuple[int, int]], batches: list[tuple[int, int]]) -> Iterator[Tensor]:
        """Normalised batches (B, 3, crop, crop) on the device."""
        workers = min(8, os.cpu_count() or 1) if self.compute.is_cuda else 1
        with ThreadPoolExecutor(workers) as pool:  # warping leaves Python's lock
            for a, b in batches:
                stored = np.stack(list(pool.map(lambda pair: self._crop(*pair), pairs[a:b])))
                batch = transforms.normalise(transforms.channels_first(stored), self.net.mean, self.net.std)
                noise = np.stack([self._noise(row, number) for row, number in pairs[a:b]])
                yield self.compute.put(batch + torch.from_numpy(noise).float()[:, :, None, None])

    def trunk(self, images: Tensor) -> Tensor:
        """The crop; there is no frozen part that could be made faster."""
        return self.net.trunk(images).to(self.compute.dtype)

    def _crop(self, row: int, number: int) -> np.ndarray:
        size, crop = self.p.input_size, CROPS[self.p.input_size]
        image = transforms.resize(transforms.channels_first(self.data.images[row]), size)
        image = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        if number >= 0:
            return view(image, crop, shift(self.p), self.p.seed, row, number)
        cut = (size - crop) // 2
        return image[cut : size - cut, cut : size - cut]

    def _noise(self, row: int, number: int) -> np.ndarray:
        if number < 0:
            return np.zeros(3)
        lengths = _random(self.p.seed + 1, row, number).normal(0, self.p.colour_noise, 3)
        return self.colours @ lengths


@dataclass(frozen=True)
class Trained:
    """A network at one size, and what its training left.

    Attributes:
        network: Its name; of a backbone that of the registry.
        size: Of the photographs, pixels.
        net: In evaluation mode, with the best epoch's weights.
        fit: Of the loop.
        scores: One row per eye of every split but training: ``network, size, image_id, patient_id, split, grade, score``.
    """

    network: str
    size: int
    net: GradingNet
    fit: loop.Fit
    scores: pd.DataFrame


def train(
    p: Ram, data: Dataset, compute: Compute, folder: Path | None = None, keep: bool = False
) -> list[Trained]:
    """Train all that a notebook's parameters ask for; a killed run goes on from the last finished epoch.

    Args:
        p: What, and how.
        data: Images and split.
        compute: Device and precision.
        folder: Where checkpoints go; ``None`` keeps none.
        keep: See :func:`drstudy.training.loop.fit`.
    """
    found = []
    for network in p.networks:
        before = None
        for size, epochs in zip(p.sizes, p.net_epochs):
            if not epochs:
                continue
            recipe = p.net_recipe(network, size)
            net = model.build(network, size, p.biases == "untied", p.batch_norm, p.seed)
            if before is not None:
                model.transfer(before, net)
            net.to(compute.device, memory_format=torch.channels_last)
            found.append(_fit(net, Views(net, data, recipe, compute), recipe, compute, folder, keep))
            before = net
    for size in p.sizes if p.backbone else ():
        recipe = p.backbone_recipe(size)
        net = networks.build(recipe, data, compute, Regression.outputs)
        store = features.open_features(net, data, recipe, compute)
        found.append(_fit(net, store, recipe, compute, folder, keep))
        store.close(keep=False)
    return found


def _fit(
    net: GradingNet,
    seen: features.Features,
    p: RamRecipe,
    compute: Compute,
    folder: Path | None,
    keep: bool,
) -> Trained:
    print(f"{p.backbone} at {p.input_size} px", flush=True)
    own = folder / "checkpoints" / f"{p.backbone}-{p.input_size}" if folder else None
    fit = loop.fit(Regression(net, seen, p, compute), own, keep=keep)
    net.input_size = p.input_size
    parts = []
    for split in SPLITS[1:]:
        rows = seen.clean[seen.clean["split"] == split]
        scores = prediction.from_features(net, seen, split, compute)[:, 0].astype(float)
        parts.append(rows[["image_id", "patient_id", "split", "grade"]].assign(score=scores))
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "network", p.backbone)
    table.insert(1, "size", p.input_size)
    return Trained(p.backbone, p.input_size, net, fit, table)


def time_side_by_side(
    networks: Sequence[str], size: int, images: int, rounds: int, compute: Compute, batch_norm: bool
) -> pd.DataFrame:
    """Seconds of training steps, the networks taking turns, so that other load on the machine affects all equally.

    Args:
        networks: Names in :mod:`drstudy.papers.ram.layers`.
        size: Of the photographs, pixels.
        images: In a step.
        rounds: Turns of each; a first one is not counted.
        compute: Device and precision.
        batch_norm: As trained.

    Returns:
        One row per network and round: ``network``, ``round``, ``seconds_per_1000_images``.
    """
    nets = {
        name: model.build(name, size, batch_norm=batch_norm).to(
            compute.device, memory_format=torch.channels_last
        )
        for name in networks
    }
    optimisers = {
        name: torch.optim.SGD(net.parameters(), 1e-6, momentum=0.9, nesterov=True)
        for name, net in nets.items()
    }
    batch = compute.put(
        torch.randn(images, 3, CROPS[size], CROPS[size], generator=torch.Generator().manual_seed(0))
    )
    rows = []
    for number in range(-1, rounds):
        for name, net in nets.items():
            if compute.is_cuda:
                torch.cuda.synchronize(compute.device)
            began = time.perf_counter()
            optimisers[name].zero_grad(set_to_none=True)
            with compute.autocast():
                outputs = net(batch)
            outputs.float().square().mean().backward()
            optimisers[name].step()
            if compute.is_cuda:
                torch.cuda.synchronize(compute.device)
            spent = 1000 * (time.perf_counter() - began) / images
            rows.append({"network": name, "round": number, "seconds_per_1000_images": spent})
    table = pd.DataFrame(rows)
    return table[table["round"] >= 0].reset_index(drop=True)


def history(trained: Sequence[Trained]) -> pd.DataFrame:
    """One row per epoch of each network: ``network, size, epoch, loss`` (mean of its steps), ``val_loss, val_qwk``."""
    parts = []
    for one in trained:
        by_epoch = one.fit.history.groupby("epoch", as_index=False)
        rows = by_epoch.agg(loss=("loss", "mean"), val_loss=("val_loss", "last"), val_qwk=("val_qwk", "last"))
        parts.append(rows.assign(network=one.network, size=one.size))
    table = pd.concat(parts, ignore_index=True)
    return table[["network", "size", "epoch", "loss", "val_loss", "val_qwk"]]


def seconds(trained: Sequence[Trained]) -> dict[str, float]:
    """``seconds_per_epoch_<network>_<size>``: medians of training as it ran, validation included, one network after the other."""
    return {f"seconds_per_epoch_{one.network}_{one.size}": one.fit.seconds_per_epoch for one in trained}


def save(trained: Sequence[Trained], folder: Path) -> None:
    """Write each network to ``<network>-<size>.safetensors``, from which :func:`drstudy.training.prediction.load` makes it again."""
    for one in trained:
        prediction.save(one.net, folder / f"{one.network}-{one.size}.safetensors", one.size)
