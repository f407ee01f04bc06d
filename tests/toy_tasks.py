"""Four toy tasks, one of each kind that the training contract must carry; the tests train, kill and resume them, also in two processes.

They are small and learn little. What matters is that each needs something that the others do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drstudy.core import devices
from drstudy.core.params import Positive
from drstudy.data.dataset import Dataset
from drstudy.training import features, networks, prediction
from drstudy.training.batch import Batch
from drstudy.training.grading import Grading
from drstudy.training.recipe import Training
from drstudy.training.task import Task

SIZE = 64


class Recipe(Training):
    """Of all toys."""

    notebook: ClassVar[str] = "toys"
    made_by: ClassVar[str] = "toy_tasks:make"
    SHOWS: ClassVar[frozenset[str]] = frozenset({"processes"})
    kind: str = "grades"
    select_by: str = "last"
    processes: Positive = 1


def recipe(kind: str, **changes) -> Recipe:
    given = {
        "kind": kind,
        "variant": kind,
        "backbone": "resnet18",
        "weights": "none",
        "input_size": SIZE,
        "batch_size": 7,
    }
    given |= {
        "views": 2,
        "epochs": 3,
        "seed": 5,
        "learning_rate": 1e-4,
        "device": "cpu",
        "threads": 1,
        "sampler": "none",
    }
    return Recipe(**given | changes)


def eyes(train: int = 20, validation: int = 9, test: int = 4, seed: int = 0) -> Dataset:
    """Coloured squares with three soft targets, of which one eye in three does not know the second; made alike in every process."""
    rng = np.random.default_rng(seed)
    count = train + validation + test
    grade = np.arange(count) % 5
    images = np.clip(
        40 * grade[:, None, None, None] + rng.normal(30, 12, (count, SIZE, SIZE, 3)), 0, 255
    ).astype(np.uint8)
    table = pd.DataFrame(
        {
            "image_id": [f"{i:02d}" for i in range(count)],
            "patient_id": [f"p{i // 2:02d}" for i in range(count)],
            "grade": pd.array(grade, dtype="Int64"),
            "split": np.repeat(["train", "validation", "test"], [train, validation, test]),
            "row": np.arange(count),
        }
    )
    soft = pd.DataFrame({"image_id": table["image_id"], "dr": grade / 4, "amd": rng.random(count).round(2)})
    soft.loc[soft.index % 3 == 1, "amd"] = np.nan
    return Dataset(images, table, f"toys-{seed}").with_targets(soft)


class Heads(Task):
    """Several heads with soft float targets, some unknown, and a frozen teacher whose answers are targets too."""

    measures: ClassVar[Mapping[str, int]] = {"loss": -1, "closeness": 1}

    def __init__(self, feed, p, compute) -> None:
        self.net = feed.net
        width = 512
        with torch.random.fork_rng():
            torch.manual_seed(p.seed)
            self.dr, self.amd, teacher = nn.Linear(width, 1), nn.Linear(width, 1), nn.Linear(width, 1)
        modules = {"encoder": self.net, "dr": self.dr, "amd": self.amd}
        learning = [q for module in modules.values() for q in module.parameters() if q.requires_grad]
        adam = torch.optim.Adam(learning, lr=p.learning_rate)
        super().__init__(feed, p, compute, modules, {"all": adam}, teachers={"dr": teacher})

    def encoded(self, inputs: Tensor) -> Tensor:
        with self.net.record("layer4") as kept:
            self.net.tail(inputs)
        return kept["layer4"].mean((2, 3))

    def parts(self, inputs: Tensor, targets: Mapping[str, Tensor]) -> tuple[Tensor, float]:
        encoded = self.encoded(inputs)
        with torch.no_grad():
            taught = self.teachers["dr"](encoded)[:, 0].sigmoid()
        dr, amd = self.dr(encoded)[:, 0], self.amd(encoded)[:, 0]
        known = ~targets["amd"].isnan()
        each = F.binary_cross_entropy_with_logits(dr, targets["dr"], reduction="none")
        each = each + 0.1 * F.binary_cross_entropy_with_logits(dr, taught, reduction="none")
        other = F.binary_cross_entropy_with_logits(amd, targets["amd"].nan_to_num(), reduction="none") * known
        terms = len(each) + known.sum()
        return (each.sum() + other.sum()) / terms, float(terms)

    def step(self, batch: Batch) -> dict[str, float]:
        loss, terms = self.parts(batch.inputs, batch.targets)
        return {"loss": self.update("all", loss, terms)}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        self.net.eval()
        targets = {name: torch.tensor(values) for name, values in self.feed.targets("validation").items()}
        positions = np.flatnonzero(self.feed.clean["split"].to_numpy() == "validation")
        loss, _ = self.parts(torch.cat(list(self.feed.unaugmented(positions))), targets)
        return {"loss": loss.item(), "closeness": -loss.item() / 2}


class Alternating(Task):
    """Two optimisers that take turns: a generator with a moving average, and a critic with an optimiser and noise of its own."""

    measures: ClassVar[Mapping[str, int]] = {"distance": -1}

    def __init__(self, feed, p, compute) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(p.seed)
            self.generator, self.critic = nn.Linear(8, 12), nn.Linear(12, 1)
            self.average = nn.Linear(8, 12)
        self.average.load_state_dict(self.generator.state_dict())
        self.average.requires_grad_(False)
        self.noise = torch.Generator().manual_seed(p.seed)
        optimisers = {
            "generator": torch.optim.Adam(self.generator.parameters(), lr=1e-2, betas=(0.0, 0.99)),
            "critic": torch.optim.SGD(self.critic.parameters(), lr=1e-2, momentum=0.9),
        }
        falling = torch.optim.lr_scheduler.ExponentialLR(optimisers["critic"], 0.7)
        super().__init__(
            feed,
            p,
            compute,
            {"generator": self.generator, "critic": self.critic, "average": self.average},
            optimisers,
            schedulers={"critic": falling},
            generators={"noise": self.noise},
            whole=("average",),
        )

    def start_epoch(self, epoch: int) -> None:
        if epoch > 1:
            self.schedulers["critic"].step()

    def real(self, batch: Batch) -> Tensor:
        return F.adaptive_avg_pool2d(self.feed.pixels(batch, 16), 2).flatten(1)

    def made(self, count: int, net: nn.Module) -> Tensor:
        """Every process draws the noise of the whole batch and takes its part, so that two are as one."""
        rank, processes = self.feed.share
        drawn = torch.randn(2 * self.p.batch_size, 8, generator=self.noise)
        return net(drawn[rank::processes][:count])

    def step(self, batch: Batch) -> dict[str, float]:
        real = self.real(batch)
        fake = self.made(len(batch), self.generator).detach()
        critic = (self.critic(fake) - self.critic(real)).mean() + self.critic(real).square().mean()
        losses = {"loss_critic": self.update("critic", critic, len(batch))}
        generator = -self.critic(self.made(len(batch), self.generator)).mean()
        losses["loss_generator"] = self.update("generator", generator, len(batch))
        with torch.no_grad():
            for ours, theirs in zip(self.average.parameters(), self.generator.parameters()):
                ours.lerp_(theirs, 0.1)
        return losses

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        fixed = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
        return {"distance": self.average(fixed).mean(0).square().sum().item()}


class Patches(Task):
    """A loss on two intermediate maps, and one on patches cut from the very views at a higher resolution where the map is hottest."""

    measures: ClassVar[Mapping[str, int]] = {"loss": -1, "qwk": 1}

    def __init__(self, feed, p, compute) -> None:
        self.net = feed.net
        with torch.random.fork_rng():
            torch.manual_seed(p.seed)
            self.side = nn.Conv2d(256, 5, 1)
            self.local = nn.Sequential(
                nn.Conv2d(3, 4, 5, 2),
                nn.BatchNorm2d(4),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(4, 5),
            )
        modules = {"global": self.net, "side": self.side, "local": self.local}
        learning = [q for module in modules.values() for q in module.parameters() if q.requires_grad]
        super().__init__(feed, p, compute, modules, {"all": torch.optim.Adam(learning, lr=p.learning_rate)})

    def step(self, batch: Batch) -> dict[str, float]:
        grade = batch.targets["grade"]
        with self.net.record("layer4") as kept:
            whole = self.net.tail(batch.inputs)
        side = self.side(batch.inputs)
        evidence = kept["layer4"].mean(1)
        hottest = evidence.flatten(1).argmax(1)
        photographs = self.feed.pixels(batch, 2 * SIZE)
        cell = photographs.shape[-1] // evidence.shape[-1]
        patches = []
        for photograph, at in zip(photographs, hottest.tolist()):
            y, x = cell * (at // evidence.shape[-1]), cell * (at % evidence.shape[-1])
            patches.append(photograph[:, y : y + cell, x : x + cell])
        local = self.local(torch.stack(patches))
        maps = F.cross_entropy(side.mean((2, 3)), grade) + 0.01 * side.abs().mean()
        loss = F.cross_entropy(whole, grade) + maps + F.cross_entropy(local, grade)
        return {"loss": self.update("all", loss, len(batch))}

    def validate(self) -> dict[str, float]:
        outputs = prediction.from_features(self.net, self.feed, "validation", self.compute)
        return Grading.measure(self, outputs, self.feed.targets("validation"))


KINDS: dict[str, type[Task]] = {
    "grades": Grading,
    "heads": Heads,
    "alternating": Alternating,
    "patches": Patches,
}


def stop_in(feed: features.Features, epoch: int, step: int) -> None:
    """Let a training on this feed stop as Ctrl-C would, in an epoch (from 1) before a step (from 0)."""
    draws, calls = feed.draws, []

    def stopping(positions, views):
        calls.append(None)
        for i, batch in enumerate(draws(positions, views)):
            if (len(calls), i) == (epoch, step):
                raise KeyboardInterrupt
            yield batch

    feed.draws = stopping


def build(p: Recipe) -> Task:
    """The task of a recipe, from its seed alone."""
    data, compute = eyes(), devices.setup("cpu", "fp32", 1, p.seed)
    net = networks.build(p, data, compute)
    feed = features.open_features(net, data, p, compute)
    kind = KINDS[p.kind]
    return kind(net, feed, p, compute) if kind is Grading else kind(feed, p, compute)


def make(given: dict, team) -> Task:
    """As :mod:`drstudy.training.launch` asks for it."""
    task = build(Recipe.check(given))
    with team.main_process_first():
        task.feed.prepare()
    return task
