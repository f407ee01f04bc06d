"""All GANs of notebook 15: the unconditional one, and the conditional ones with and without its weights; how they are kept."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from drstudy.core import paths, records
from drstudy.core.devices import Compute
from drstudy.core.names import GRADES, N_GRADES
from drstudy.data.dataset import Dataset
from drstudy.papers.gan import feed, networks, training, watching
from drstudy.papers.gan.networks import Generator, Shape
from drstudy.papers.gan.params import PRETRAINING, TRANSFER, Gan
from drstudy.papers.gan.recipe import GanRecipe
from drstudy.papers.gan.training import GanTask
from drstudy.papers.gan.watching import Health
from drstudy.training import loop, tensors

START = "pretrained.safetensors"
"""File of the unconditional networks in the result folder."""

GENERATOR = "generator.safetensors"
"""File of the conditional generator in the result folder."""

PICTURES = "pictures.npz"
"""File of the generated pictures in the result folder: ``images`` (N, S, S, 3) uint8 RGB and ``grades`` (N,) int64."""


@dataclass(frozen=True)
class Trained:
    """One GAN after its training.

    Attributes:
        recipe: Its recipe.
        generator: The moving average, in evaluation mode.
        health: What became of the training.
        history: One row per step of the critic; see :class:`drstudy.training.loop.Fit`.
        album: (moments, 5, pictures, S, S, 3) uint8 RGB, pictures of the same noise over the training.
        parameters: Number of parameters of the generator and of the critic.
        seconds: Median time of an epoch; NaN after a divergence.
    """

    recipe: GanRecipe
    generator: Generator
    health: Health
    history: pd.DataFrame
    album: np.ndarray
    parameters: tuple[int, int]
    seconds: float


def train_all(
    p: Gan, data: Dataset, compute: Compute, folder: Path | None = None, keep: bool = False
) -> dict[str, Trained]:
    """Train the GANs of the notebook, one after the other.

    Args:
        p: Parameters.
        data: Photographs and split, of :func:`drstudy.papers.gan.feed.with_sides`; only training photographs are learnt, and validation photographs watched.
        compute: Device and precision.
        folder: Result folder, for checkpoints and the file of the unconditional networks; ``None`` needs ``p.pretrained``.
        keep: See :func:`drstudy.training.loop.fit`.

    Returns:
        By the names of :meth:`drstudy.papers.gan.params.Gan.trainings`.

    Raises:
        RuntimeError: If a GAN diverged before its first epoch had ended.
        ValueError: If photographs are too small, or the pretrained networks are of another form.
    """
    found: dict[str, Trained] = {}
    start = str(records.load(p.pretrained).path(START)) if p.pretrained else str(folder / START)
    for name in p.trainings():
        recipe = p.recipe(name, start)
        print(
            f"GAN, {name}: {recipe.loss}, {recipe.epochs * recipe.steps} steps of the generator", flush=True
        )
        task = build(recipe, data, compute)
        found[name] = train(task, folder, keep)
        if name == PRETRAINING:
            training.keep_start(task, start)
    return found


def build(recipe: GanRecipe, data: Dataset, compute: Compute) -> GanTask:
    """The task of a recipe as it starts."""
    return GanTask(feed.Photographs(data, recipe, compute), recipe, compute)


def train(task: GanTask, folder: Path | None = None, keep: bool = False) -> Trained:
    """Train one GAN. A divergence in one process ends the training, and is named: the networks are then those of the last finished epoch.

    If the training had gone on after a kill, the history of the epochs before the kill is missing after a divergence, but for what was measured after the last
    of them.

    Args:
        task: As it starts; changed in place.
        folder: Result folder of the notebook, or ``None``.
        keep: See :func:`drstudy.training.loop.fit`.

    Raises:
        RuntimeError: If it diverged before the first epoch had ended, or, with several processes, at any time: a process that stops cannot hand over its
            networks, so the message has the end of what it said.
    """
    recipe = task.p
    together = recipe.processes > 1
    own = None if folder is None else recipe.folder if together else folder / "checkpoints" / recipe.variant
    try:
        fit = loop.fit(task, own, keep=keep)
        history, seconds = fit.history, fit.seconds_per_epoch
        health = watching.judge(history)
    except FloatingPointError as error:
        if task.finished is None:
            raise RuntimeError(f"The GAN diverged before its first epoch had ended: {error}") from error
        epoch, learned = task.finished
        task.put(learned)
        history, seconds = pd.DataFrame(task.log), float("nan")
        health = Health(
            "diverged", f"after epoch {epoch} of {recipe.epochs}, whose networks are kept: {error}"
        )
    for module in task.modules.values():
        module.eval()
    if together:
        shutil.rmtree(own)
    counts = tuple(sum(q.numel() for q in net.parameters()) for net in (task.generator, task.critic))
    album = task.album.pages.cpu().numpy()
    return Trained(recipe, task.average, health, history, album, counts, seconds)


# --- pictures ------------------------------------------------------------------------------------------


def generate(
    generator: Generator, grades: np.ndarray, seed: int, mirrored: bool = False, batch_size: int = 64
) -> np.ndarray:
    """Pictures of given grades.

    Args:
        generator: Conditional generator; it is set to evaluation mode.
        grades: (N,) whole numbers 0 to 4.
        seed: Seed of the noise.
        mirrored: Whether about half of the pictures, by the seed, are mirrored: of a generator that has learnt left eyes only.
        batch_size: Pictures in one pass.

    Returns:
        (N, S, S, 3) uint8 RGB.

    Raises:
        ValueError: If a grade is no whole number from 0 to 4.
    """
    given = np.asarray(grades)
    if given.ndim != 1 or (len(given) and not np.isin(given, GRADES).all()):
        raise ValueError(
            f"Grades are whole numbers from 0 to 4, one per picture; given: {given.tolist()[:10]}."
        )
    noise = training.noise_of(generator, len(given), seed)
    weights = networks.one_hot(torch.from_numpy(given.astype(np.int64)))
    pictures = as_images(training.from_noise(generator, noise, weights, batch_size))
    if mirrored:
        turned = np.random.default_rng([seed, 1]).random(len(pictures)) < 0.5
        pictures[turned] = pictures[turned, :, ::-1]
    return pictures


def between_grades(
    generator: Generator, eyes: int, seed: int, steps: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of the same noise while the grade goes from 0 to 4, in equal parts between neighbouring grades.

    Args:
        generator: Conditional generator; it is set to evaluation mode.
        eyes: Number of noise vectors.
        seed: Seed of the noise.
        steps: Parts from one grade to the next.

    Returns:
        (eyes, moments, S, S, 3) uint8 RGB, and the grade at each moment, (moments,) float64, from 0 to 4.
    """
    grades = np.linspace(GRADES[0], GRADES[-1], steps * (N_GRADES - 1) + 1)
    low = np.minimum(np.floor(grades).astype(int), N_GRADES - 2)
    share = torch.from_numpy(grades - low).float()[:, None]
    ends = [networks.one_hot(torch.from_numpy(one)) for one in (low, low + 1)]
    weights = ((1 - share) * ends[0] + share * ends[1]).repeat(eyes, 1)
    noise = training.noise_of(generator, eyes, seed).repeat_interleave(len(grades), 0)
    found = as_images(training.from_noise(generator, noise, weights))
    return found.reshape(eyes, len(grades), *found.shape[1:]), grades


def as_images(pictures: Tensor) -> np.ndarray:
    """(N, 3, S, S) between -1 and 1 to (N, S, S, 3) uint8."""
    return feed.unscaled(pictures).permute(0, 2, 3, 1).contiguous().numpy()


def save(generator: Generator, path: Path) -> None:
    """Write a generator, from which :func:`load` makes it again."""
    tensors.write(path, generator.state_dict(), generator.shape.facts())


def save_pictures(images: np.ndarray, grades: np.ndarray, path: Path) -> None:
    """Write generated pictures (N, S, S, 3) uint8 and the grades (N,) that were asked for, atomically."""
    with paths.atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, images=images, grades=np.asarray(grades, dtype=np.int64))


def load(path: Path) -> Generator:
    """A generator in evaluation mode on the CPU.

    Raises:
        ValueError: If the file is not of a generator.
    """
    about = tensors.read_facts(path)
    try:
        generator = Generator(Shape(**(about or {})))
        generator.load_state_dict(tensors.read_tensors(path))
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"{paths.show(path)} is not a generator that this notebook wrote ({error}). Run the notebook again."
        ) from error
    return generator.requires_grad_(False).eval()


def chosen(trained: dict[str, Trained]) -> str:
    """Name of the GAN whose pictures are used: the one with transfer. The choice was made before any training, and not by results."""
    return TRANSFER if TRANSFER in trained else next(name for name in trained if name != PRETRAINING)
