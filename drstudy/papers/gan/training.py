"""Training of one GAN: critic and generator take turns, and a moving average of the generator makes the pictures.

The loop (:mod:`drstudy.training.loop`) hands over batches of photographs. An epoch has a fixed number of steps of the generator, each
after ``critic_steps`` steps of the critic. Noise and augmentation are drawn for the whole batch by a generator of their own, which is saved
with the checkpoints; a killed run therefore ends with the bytes of an undisturbed one.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from drstudy.core import paths
from drstudy.core.devices import Compute
from drstudy.core.names import N_GRADES
from drstudy.papers.gan import augmentation, losses, networks, watching
from drstudy.papers.gan.augmentation import Draw
from drstudy.papers.gan.feed import Photographs, unscaled
from drstudy.papers.gan.networks import Critic, Generator
from drstudy.papers.gan.recipe import GanRecipe
from drstudy.training import sampling, tensors
from drstudy.training.batch import Batch
from drstudy.training.task import Task

MOMENTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
"""Shares of a training after which pictures are kept, of the same noise each time."""

MEASURED = 128
"""At most so many validation photographs, and as many generated ones, are compared after each epoch."""

WARMING = 10
"""The moving average forgets its start: its weight of the past is at most (1 + t) / (:data:`WARMING` + t) at step t."""


class Album(nn.Module):
    """Pictures of the same noise at several moments of a training. It learns nothing; as a buffer it is kept with the networks.

    Args:
        moments: Number of moments.
        pictures: Number of pictures for each grade.
        size: Side of the pictures, pixels.

    Attributes:
        pages: (moments, 5, pictures, S, S, 3) uint8 RGB; 0 where the training has not come yet.
    """

    def __init__(self, moments: int, pictures: int, size: int) -> None:
        super().__init__()
        empty = torch.zeros((moments, N_GRADES, pictures, size, size, 3), dtype=torch.uint8)
        self.register_buffer("pages", empty)


class GanTask(Task):
    """Generator and critic, each with an Adam of its own.

    Args:
        feed: Photographs.
        p: The recipe.
        compute: Device and precision.

    Attributes:
        generator, critic: They learn.
        average: Moving average of the generator, with its statistics: the generator that is used afterwards.
        album: Pictures over the training.
        finished: Number of the last epoch that this process finished, and the result of :meth:`learned` then; ``None`` before.
        log: One row per step of this process: ``epoch`` and the losses. It is the history of a training that diverged. If that training went on after a
            kill, the steps of the earlier epochs are missing, but for one row with what was measured after the last of them.
    """

    measures: ClassVar[Mapping[str, int]] = {"energy": -1, "diversity": 1}

    def __init__(self, feed: Photographs, p: GanRecipe, compute: Compute) -> None:
        self.generator, self.critic = networks.build(p.shape, p.spectral, p.seed)
        if p.start:
            start(self.generator, self.critic, p.start)
        self.generator.start_from(feed.mean)
        self.critic.freeze(p.frozen_blocks)
        for net in (self.generator, self.critic):
            net.to(compute.device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.album = Album(len(moments(p.epochs)), p.kept_pictures, p.input_size)
        self.random = torch.Generator().manual_seed(p.seed)
        self.taken, self.finished = 0, None
        self.log: list[dict[str, float]] = []
        learning = [q for q in self.critic.parameters() if q.requires_grad]
        optimisers = {
            "generator": torch.optim.Adam(
                self.generator.parameters(), lr=p.learning_rate, betas=p.betas, fused=True
            ),
            "critic": torch.optim.Adam(learning, lr=p.critic_rate, betas=p.betas, fused=True),
        }
        modules = {"generator": self.generator, "critic": self.critic}
        modules |= {"average": self.average, "album": self.album}
        super().__init__(
            feed, p, compute, modules, optimisers, generators={"random": self.random}, whole=("average",)
        )

    # --- the contract ----------------------------------------------------------------------------------

    def start_epoch(self, epoch: int) -> None:
        """Count from here. After a kill, the last finished epoch is measured again (its noise follows from a seed, so nothing random moves on): a
        divergence can then go back to it."""
        self.taken = (epoch - 1) * self.p.steps * self.p.critic_steps
        if epoch > 1 and self.finished is None:
            self.epoch = epoch - 1
            self.log.append({"epoch": self.epoch, "step": self.taken})
            self.validate()
        self.epoch = epoch

    def draw(self, epoch: int, generator: torch.Generator) -> Tensor:
        """Photographs for all steps of the critic in an epoch, drawn by the sampler as often as it takes."""
        wanted = self.p.steps * self.p.critic_steps * self.p.batch_size
        return sampling.repeated(functools.partial(super().draw, epoch, generator), wanted)

    def step(self, batch: Batch) -> dict[str, float]:
        """One step of the critic, and after each ``critic_steps`` of them one of the generator.

        Raises:
            drstudy.papers.gan.watching.Diverged: If the critic's scores explode.
        """
        self.taken += 1
        weights = networks.one_hot(batch.targets["grade"])
        found = self._critic_step(batch.inputs, weights)
        if self.taken % self.p.critic_steps == 0:
            found["loss_generator"] = self._generator_step(weights)
            self._follow()
        self.log.append({"epoch": self.epoch, "step": self.taken, **found})
        return found

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Energy distance of generated to validation photographs, and the diversity of the former over that of the latter, both on
        pictures of 16 x 16 pixels. As many are generated of each grade as there are photographs.

        Raises:
            drstudy.papers.gan.watching.Diverged: If the energy distance is not finite.
            ValueError: If there are fewer than two validation photographs.
        """
        held, grades = self._held_out
        made = watching.coarse(pictures_of(self.average, grades, self.p.seed))
        groups = grades if self.p.grades else None
        measured = {
            "energy": watching.energy(made, held),
            "diversity": watching.diversity(made, groups) / watching.diversity(held, groups),
        }
        watching.check_energy(measured["energy"])
        if self.epoch in (kept := moments(self.p.epochs)):
            fixed = torch.arange(N_GRADES).repeat_interleave(self.p.kept_pictures)
            page = unscaled(pictures_of(self.average, fixed, self.p.seed)).permute(0, 2, 3, 1)
            self.album.pages[kept.index(self.epoch)] = page.unflatten(0, (N_GRADES, -1)).cpu()
        self.finished = self.epoch, self.learned()
        self.log[-1] |= {f"val_{name}": value for name, value in measured.items()}
        return measured

    # --- steps -------------------------------------------------------------------------------------------

    def _critic_step(self, real: Tensor, weights: Tensor) -> dict[str, float]:
        p, count = self.p, len(real)
        with torch.no_grad(), self.compute.autocast():
            fake = self.generator(self._noise(count), weights).float()
        pictures = torch.cat([self._augmented(real), self._augmented(fake)])
        with self.compute.autocast():
            scores = self.critic(pictures, torch.cat([weights, weights])).float()
        loss = losses.critic(scores[:count], scores[count:], p.loss)
        found = {"critic_real": scores[:count].mean(), "critic_fake": scores[count:].mean()}
        if p.loss == "cwgan_gp":
            shares = self._drawn(lambda whole: torch.rand(whole, generator=self.random))
            halves = pictures[:count], pictures[count:]
            penalty = losses.gradient_penalty(lambda x: self.critic(x, weights), *halves, shares)
            loss, found = loss + p.penalty * penalty, {**found, "penalty": penalty}
        means = self._means(found, count)
        watching.check({"real": means["critic_real"], "generated": means["critic_fake"]})
        return {"loss_critic": self.update("critic", loss, count), **means}

    def _generator_step(self, weights: Tensor) -> float:
        count = len(weights)
        with _still(self.critic):
            with self.compute.autocast():
                fake = self.generator(self._noise(count), weights).float()
            pictures = self._augmented(fake)
            with self.compute.autocast():
                scores = self.critic(pictures, weights).float()
            return self.update("generator", losses.generator(scores), count)

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the generator, its statistics as well."""
        steps = self.taken // self.p.critic_steps
        past = min(self.p.average, (1 + steps) / (WARMING + steps))
        ours, theirs = self.average.state_dict(), self.generator.state_dict()
        for name, tensor in ours.items():
            if tensor.is_floating_point():
                tensor.lerp_(theirs[name], 1 - past)
            else:
                tensor.copy_(theirs[name])

    # --- what is random ------------------------------------------------------------------------------------

    def _drawn(self, draw) -> Tensor:
        """Every process draws for the whole batch and takes its part, so that two are as one."""
        rank, processes = self.feed.share
        return draw(self.p.batch_size)[rank::processes].to(self.compute.device)

    def _noise(self, count: int) -> Tensor:
        noise = self._drawn(lambda whole: torch.randn(whole, self.p.latent, generator=self.random))
        return noise[:count]

    def _augmented(self, pictures: Tensor) -> Tensor:
        draw = Draw.new(self.p.batch_size, self.random).part(*self.feed.share)
        return augmentation.apply(pictures, draw.to(self.compute.device), self.p.augmentation)

    def _means(self, values: Mapping[str, Tensor], count: int) -> dict[str, float]:
        """Means over the whole batch, of means over this process's part of ``count`` photographs."""
        stacked = torch.stack([value.detach() for value in values.values()])
        if self.feed.share[1] > 1:
            sums = torch.cat([stacked * count, stacked.new_tensor([count])])
            torch.distributed.all_reduce(sums)
            stacked = sums[:-1] / sums[-1]
        return dict(zip(values, stacked.tolist()))

    @functools.cached_property
    def _held_out(self) -> tuple[Tensor, Tensor]:
        """Coarse validation photographs (N, D) and their grades (N,)."""
        positions = np.flatnonzero(self.feed.clean["split"].to_numpy() == "validation")
        if len(positions) < 2:
            raise ValueError(
                f"The validation split has {len(positions)} photographs. A GAN is watched by distances between them, for which at least two are needed. "
                "Give the split a larger share."
            )
        some = positions[np.unique(np.linspace(0, len(positions) - 1, MEASURED).round().astype(int))]
        pictures = torch.cat([part.cpu() for part in self.feed.unaugmented(some)])
        grades = self.feed.clean["grade"].to_numpy(dtype=np.int64)[some]
        return watching.coarse(pictures), torch.from_numpy(grades)


def moments(epochs: int) -> list[int]:
    """Epochs after which pictures are kept, rising, the last among them."""
    return sorted({max(1, math.ceil(share * epochs)) for share in MOMENTS})


@contextlib.contextmanager
def _still(critic: Critic) -> Iterator[None]:
    """Inside, no weight of the critic has a gradient: the generator learns through it, and it is not learning."""
    learning = [q for q in critic.parameters() if q.requires_grad]
    for q in learning:
        q.requires_grad_(False)
    try:
        yield
    finally:
        for q in learning:
            q.requires_grad_(True)


@torch.no_grad()
def from_noise(generator: Generator, noise: Tensor, weights: Tensor, batch_size: int = 64) -> Tensor:
    """Pictures (N, 3, S, S) float32 on the CPU, between -1 and 1.

    Args:
        generator: It is set to evaluation mode.
        noise: (N, latent) float32.
        weights: (N, 5) float32 weights of the grades.
        batch_size: Pictures in one pass.
    """
    generator.eval()
    device, side = next(generator.parameters()).device, generator.shape.size
    pairs = zip(noise.split(batch_size), weights.split(batch_size))
    parts = [generator(some.to(device), of.to(device)).float().cpu() for some, of in pairs]
    return torch.cat(parts) if len(noise) else torch.empty((0, 3, side, side))


def noise_of(generator: Generator, count: int, seed: int) -> Tensor:
    """Noise (count, latent) that follows from the seed; the first rows are the same for any count."""
    numbers = np.random.default_rng(seed).standard_normal((count, generator.shape.latent), dtype=np.float32)
    return torch.from_numpy(numbers)


def pictures_of(generator: Generator, grades: Tensor, seed: int) -> Tensor:
    """:func:`from_noise` for grades (N,) int64 and noise that follows from a seed."""
    return from_noise(generator, noise_of(generator, len(grades), seed), networks.one_hot(grades))


# --- transfer --------------------------------------------------------------------------------------------


def start(generator: Generator, critic: Critic, file: str) -> None:
    """Let both networks start from a file that :func:`keep_start` wrote.

    Raises:
        ValueError: If the networks are of another form.
    """
    found = tensors.read_tensors(paths.resolve(file))
    for name, net in (("generator", generator), ("critic", critic)):
        own = {key.partition("/")[2]: t for key, t in found.items() if key.startswith(f"{name}/")}
        networks.take_over(net, own)


def keep_start(task: GanTask, file: str) -> None:
    """Write the moving average of the generator and the critic, from which other GANs start."""
    state = {f"generator/{name}": tensor for name, tensor in task.average.state_dict().items()}
    state |= {f"critic/{name}": tensor for name, tensor in task.critic.state_dict().items()}
    tensors.write(paths.resolve(file), {name: t.cpu() for name, t in state.items()}, task.p.shape.facts())
