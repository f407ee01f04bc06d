"""Steps of the GAN of notebook 15 at 64 px: against a plain PyTorch loop of the same networks, and against the losses of torchgan.

One step is a step of the critic with its gradient penalty and one of the generator, with the sizes of profile ``demo``. Ours is the study's
loop with its task: photographs, random numbers, losses, checks, moving average of the generator, and the log of each step. Validation and
checkpoints, once per epoch, are left out on all sides.

`the plain loop` is written here, without any of the study's code but the two networks: a DataLoader, two Adams, the losses and the moving
average, with the networks in the memory layout of the study (the usual one is not faster for it). It gets the same photographs in the same
order and draws the same noise, so losses must agree: ``same result`` needs the losses of the first three steps to differ by at most 1e-2 of
their greatest size. The first differ in the last digits only; afterwards rounding grows about tenfold per step, since Adam without
momentum (beta 0, as the paper has it) moves each weight by its whole rate, however small its gradient is.

`torchgan` is the training operation of each of its Wasserstein losses on the same networks. It differs by its nature: it makes new pictures
for each of three losses, takes two steps of the critic's Adam where the others take one, draws one share for all photographs of a
mixture, and has no moving average. So its losses are not compared.

Networks have random weights at the start and photographs are random: times do not depend on what they show.
"""

from __future__ import annotations

import contextlib
import copy
import io
import time

import numpy as np
from device_speed import photographs
from side_by_side import alternate, options, report, set_threads

SIZE, WIDTH, LATENT, BATCH = 64, 16, 64, 16
CLOSE = 1e-2


def main() -> None:
    given = options(
        __doc__.splitlines()[0],
        steps=(10, 4, "steps of the generator in one measurement"),
        checked=(3, 3, "steps whose losses are compared"),
        images=(160, 64, "photographs"),
        repeats=(5, 5, "measurements"),
    )
    set_threads(given.threads)
    from drstudy.core import devices
    from drstudy.papers.gan import params

    compute = devices.setup("cpu", "fp32", given.threads, 0)
    p = params.Gan(
        size=SIZE,
        width=WIDTH,
        latent=LATENT,
        sides="both",
        loss="cwgan_gp",
        critic_steps=1,
        augmentation=(),
        batch_size=BATCH,
        steps=given.steps,
    )
    recipe = p.recipe(params.SCRATCH)
    data = photographs(given.images)
    found = {}
    for name, steps in (("checked", given.checked), ("timed", given.steps)):
        own = recipe.model_copy(update={"steps": steps})
        ours, plain = Ours(own, data, compute), Plain(own, data, compute)
        found[name] = {"ours": ours, "the plain loop": plain, "torchgan": lambda plain=plain: None}
    losses = {name: np.array(found["checked"][name]()) for name in ("ours", "the plain loop")}
    gap = np.abs(losses["ours"] - losses["the plain loop"]) / np.abs(losses["the plain loop"]).max(0)
    found["timed"]["torchgan"] = Torchgan(recipe, data, compute)
    seconds, _ = alternate(found["timed"], given.repeats, time.process_time)
    each = {name: 1000 * value / given.steps for name, value in seconds.items()}
    for other in ("the plain loop", "torchgan"):
        compared = other == "the plain loop"
        more = {"greatest_relative_difference_of_losses": float(gap.max()), "after_steps": given.checked}
        report(
            f"gan {SIZE} px against {other}",
            each["ours"],
            each[other],
            "ms of the processor for each step of critic and generator",
            bool(gap.max() < CLOSE) if compared else None,
            **(more if compared else {}),
            photographs_each_step=BATCH,
            threads=given.threads,
        )


class Ours:
    """The study's own task in the study's own loop; each call is an epoch, and returns the losses of its steps, (steps, 2)."""

    def __init__(self, recipe, data, compute) -> None:
        from drstudy.papers.gan import runs

        self.task, self.epoch = runs.build(recipe, data, compute), 0
        self.task.finished = (
            0,
            {},
        )  # nothing was measured before the first epoch, and nothing is in this benchmark

    def __call__(self) -> list[list[float]]:
        from drstudy.training import loop

        self.epoch += 1
        self.task.start_epoch(self.epoch)
        with contextlib.redirect_stdout(io.StringIO()):
            rows = loop.train_epoch(self.task, self.epoch)
        return [[row["loss_critic"], row["loss_generator"]] for row in rows]


class Plain:
    """What one writes in an afternoon; each call is an epoch, and returns the losses of its steps, (steps, 2)."""

    def __init__(self, recipe, data, compute) -> None:
        import torch

        from drstudy.papers.gan import runs

        task = runs.build(
            recipe, data, compute
        )  # for the networks as they start, and for the order of the photographs
        self.recipe, self.task, self.epoch = recipe, task, 0
        self.generator, self.critic = task.generator, task.critic
        self.average = copy.deepcopy(self.generator)
        self.steps_done = 0
        self.random = torch.Generator().manual_seed(recipe.seed)
        rates = {"lr": recipe.learning_rate, "betas": recipe.betas}
        self.of_generator = torch.optim.Adam(self.generator.parameters(), **rates)
        self.of_critic = torch.optim.Adam(self.critic.parameters(), **rates)
        self.pictures = task.feed.small
        self.grades = torch.tensor(task.feed.train["grade"].to_numpy(dtype=np.int64))

    def loader(self):
        """Batches of photographs and grades in the order in which ours draws them."""
        import torch
        from torch.utils.data import DataLoader, Dataset

        from drstudy.training import loop

        generator = torch.Generator().manual_seed(loop.seed_of(self.recipe.seed, self.epoch))
        places = self.task.draw(self.epoch, generator)
        mirrored = torch.randint(2, (len(places),), generator=generator)
        pictures, grades = self.pictures, self.grades

        class Eyes(Dataset):
            def __len__(self) -> int:
                return len(places)

            def __getitem__(self, item: int):
                picture = pictures[places[item]].float() / 127.5 - 1
                return picture.flip(2) if mirrored[item] else picture, grades[places[item]]

        return DataLoader(Eyes(), self.recipe.batch_size)

    def __call__(self) -> list[list[float]]:
        import torch
        from torch.nn import functional as F

        self.epoch += 1
        generator, critic, random, found = self.generator, self.critic, self.random, []
        for real, grades in self.loader():
            real = real.contiguous(memory_format=torch.channels_last)
            kinds = F.one_hot(grades, 5).float()
            # the critic
            with torch.no_grad():
                fake = generator(torch.randn(len(real), LATENT, generator=random), kinds)
            torch.rand(
                2, len(real), 7, generator=random
            )  # ours draws these for its augmentation, which is off
            self.of_critic.zero_grad()
            loss = critic(fake, kinds).mean() - critic(real, kinds).mean()
            share = torch.rand(len(real), generator=random)[:, None, None, None]
            mixed = (share * real + (1 - share) * fake).requires_grad_(True)
            [gradient] = torch.autograd.grad(critic(mixed, kinds).sum(), mixed, create_graph=True)
            loss = loss + self.recipe.penalty * ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()
            loss.backward()
            self.of_critic.step()
            # the generator
            for q in critic.parameters():
                q.requires_grad_(False)
            self.of_generator.zero_grad()
            fake = generator(torch.randn(len(real), LATENT, generator=random), kinds)
            torch.rand(len(real), 7, generator=random)
            of_generator = -critic(fake, kinds).mean()
            of_generator.backward()
            self.of_generator.step()
            for q in critic.parameters():
                q.requires_grad_(True)
            self.follow()
            found.append([loss.item(), of_generator.item()])
        return found

    def follow(self) -> None:
        """The moving average of the generator."""
        import torch

        self.steps_done += 1
        past = min(self.recipe.average, (1 + self.steps_done) / (10 + self.steps_done))
        with torch.no_grad():
            for mean, new in zip(self.average.parameters(), self.generator.parameters()):
                mean.mul_(past).add_(new, alpha=1 - past)
            for mean, new in zip(self.average.buffers(), self.generator.buffers()):
                mean.copy_(new)


class Torchgan:
    """torchgan's training operations; each call is an epoch."""

    def __init__(self, recipe, data, compute) -> None:
        import torch
        from torchgan import losses, models

        plain = Plain(recipe, data, compute)
        self.plain = plain

        class Making(models.Generator):
            def __init__(self) -> None:
                super().__init__(LATENT, "required")
                self.inner = plain.generator

            def forward(self, noise, kinds):
                return self.inner(noise, kinds)

        class Judging(models.Discriminator):
            def __init__(self) -> None:
                super().__init__(3, "required")
                self.inner = plain.critic

            def forward(self, images, kinds):
                return self.inner(images, kinds)

        self.generator, self.critic = Making(), Judging()
        self.losses = losses.WassersteinGeneratorLoss(), losses.WassersteinDiscriminatorLoss()
        self.penalty = losses.WassersteinGradientPenalty(lambd=recipe.penalty)
        self.device = torch.device("cpu")

    def __call__(self) -> None:
        import torch
        from torch.nn import functional as F

        self.plain.epoch += 1
        of_generator, of_critic = self.losses
        for real, grades in self.plain.loader():
            real = real.contiguous(memory_format=torch.channels_last)
            kinds = F.one_hot(grades, 5).float()
            pair = self.generator, self.critic
            of_critic.train_ops(*pair, self.plain.of_critic, real, self.device, kinds)
            self.penalty.train_ops(*pair, self.plain.of_critic, real, self.device, kinds)
            of_generator.train_ops(*pair, self.plain.of_generator, self.device, len(real), kinds)


if __name__ == "__main__":
    main()
