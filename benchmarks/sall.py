"""Eight settings with five seeds of notebook 13 (SALL-style): students on stored features, against a DataLoader and the whole network each step.

Both sides take the sizes, students, losses and number of steps of profile ``demo``, with all labels. Ours is the way of the notebook: the frozen
network runs once on each view, then all teachers and students learn from its pooled features. Measured are the features, once, and all trainings of one seed
(with their validation and predictions); times five for five seeds, since seeds do the same work.

The other runs the same frozen network in each step, on photographs that a DataLoader fetches from the image store (nothing is decoded) and
augments. It is measured for a few steps of the setting `full` and extrapolated to as many steps as all trainings of ours have, teachers included.
Its validation is left out, which favours it. An extrapolation says nothing about a published code of the paper: there is none of the whole system.

``same result``: the setting `hard` is trained both ways from the same weights with the same photographs, augmentation and order in each batch. The
probabilities of the test photographs may differ by float32 noise (at most 1e-4): the networks' batch norms are folded on one side only.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from fine_tune import phantom_files
from side_by_side import alternate, options, report, set_threads

SETTINGS = ("single", "hard", "soft", "feature", "adversarial", "rival", "full", "weighted")
SEEDS = 5
NOISE = 1e-4


def main() -> None:
    given = options(
        __doc__.splitlines()[0],
        patients=(120, 30, "patients, two photographs each; three fifths for training"),
        size=(224, 96, "side of the photographs and of the input, pixels"),
        epochs=(12, 2, "epochs of each training"),
        steps=(20, 5, "steps in each epoch"),
        few=(4, 2, "steps of the whole network that are measured, extrapolated"),
        checked=(10, 4, "steps after which both ways are compared"),
        repeats=(5, 5, "measurements"),
    )
    set_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stderr(io.StringIO()):
        os.environ["DRSTUDY_DATA"] = scratch
        compare(given, Path(scratch))


def photographs(given, scratch: Path):
    """Phantom eyes with both diseases, and their labels as of :func:`drstudy.papers.sall.labels.truth`."""
    from drstudy.data import images, phantom
    from drstudy.data.dataset import Dataset

    config = phantom.PhantomConfig(
        n_patients=given.patients, size=given.size, seed=1, amd=(0.4, 0.3, 0.1, 0.2)
    )
    manifest = phantom_files(config, scratch, 2 * given.patients, 0)
    store = images.build(manifest, given.size, given.threads, folder=scratch / "images")
    number = manifest["patient_id"].factorize()[0] % 5
    parts = np.array(["train", "train", "train", "validation", "test"])[number]
    columns = ["image_id", "patient_id", "grade", "amd_grade", "split"]
    rows = manifest.assign(split=parts)[columns].merge(store.index[["image_id", "row"]])
    truth = rows[["image_id", "patient_id", "split"]].assign(
        dr=rows["grade"].astype(float), amd=rows["amd_grade"].astype(float)
    )
    return Dataset(store.images, rows.drop(columns="amd_grade"), store.folder.name), truth


def compare(given, scratch: Path) -> None:
    from drstudy.core import devices
    from drstudy.papers.sall import feed as feeds
    from drstudy.papers.sall import labels, params, runs
    from drstudy.papers.sall.teachers import soften
    from drstudy.papers.sall.training import Sall
    from drstudy.training import loop, networks

    compute = devices.setup("cpu", "fp32", given.threads, 0)
    data, truth = photographs(given, scratch)
    p = params.Sall(
        settings=SETTINGS,
        seeds=1,
        fractions=(1.0,),
        input_size=given.size,
        views=2,
        width=128,
        epochs=given.epochs,
        steps=given.steps,
        batch_size=32,
        learning_rate=1e-3,
        folds=3,
    )
    origin = labels.assign(truth, p.seed)
    shown = labels.shown(truth, origin)
    recipe = p.recipe("single", 0)
    net = networks.build(recipe, data, compute)
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        feed, base = feeds.open_pooled(net, data, recipe, compute)
    stored = time.process_time() - began

    def ours():
        with contextlib.redirect_stdout(io.StringIO()):
            return runs.train_all(feed, truth, origin, p)

    teachers = ours().teachers[0]
    trainings = SEEDS * (sum(map(len, teachers.learned.values())) + len(SETTINGS) - 1)
    soft = soften(feed.train["image_id"], teachers.logits, p.temperature)
    few = p.recipe("full", 0, steps=given.few)
    task = Sall(feed.labelled(shown.merge(soft, on="image_id", how="left"), few), few, teachers.networks)
    task.feed = Whole(task.feed)
    numbers = iter(range(1, 10**6))

    def whole_network() -> None:
        epoch = next(numbers)
        task.start_epoch(1)
        loop.train_epoch(task, epoch)

    seconds, _ = alternate({"ours": ours, "whole network": whole_network}, given.repeats, time.process_time)
    steps = trainings * given.epochs * given.steps
    gap, moved = difference(feed, shown, p, given.checked)
    report(
        f"sall {len(SETTINGS)} settings, {SEEDS} seeds, against the whole network",
        stored + SEEDS * seconds["ours"],
        seconds["whole network"] / given.few * steps,
        f"s of the processor; ours {SEEDS} times one seed, the other extrapolated from {given.few} steps",
        gap < NOISE < moved,
        greatest_difference_of_probabilities=gap,
        greatest_change_by_training=moved,
        features_once=stored,
        one_seed=seconds["ours"],
        step_of_the_whole_network=seconds["whole network"] / given.few,
        trainings=trainings,
        steps=steps,
        training_photographs=len(feed.train),
        threads=given.threads,
    )
    base.close(keep=False)


def difference(feed, shown: pd.DataFrame, p, steps: int) -> tuple[float, float]:
    """Train the setting `hard` both ways: greatest difference of the probabilities of validation and test, and how far training moved these."""
    from drstudy.papers.sall.training import Sall
    from drstudy.training import loop

    recipe = p.recipe("hard", 0, steps=steps, epochs=1, select_by="last")
    found = []
    for kind in (lambda feed: feed, Whole):
        task = Sall(feed.labelled(shown, recipe), recipe)
        task.feed = kind(task.feed)
        start = probabilities(task)
        with contextlib.redirect_stdout(io.StringIO()):
            loop.fit(task)
        found.append(probabilities(task))
    return float(np.abs(found[0] - found[1]).max()), float(np.abs(found[0] - start).max())


def probabilities(task) -> np.ndarray:
    """Of all classes of both diseases, validation and test, (M, classes)."""
    import torch

    task.student.eval()
    with torch.no_grad():
        every = torch.cat(list(task.feed.unaugmented(np.arange(len(task.feed.clean)))))
        return torch.cat([logits.softmax(1) for logits in task.student(every).values()], 1).numpy()


def Whole(feed):
    """The same feed, whose pooled features come from a DataLoader and the whole network each time they are asked for."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    from drstudy.papers.sall.feed import Pooled
    from drstudy.training import transforms

    class Photographs(Dataset):
        def __init__(self, pairs: list[tuple[int, int]]) -> None:
            self.pairs = pairs

        def __len__(self) -> int:
            return len(self.pairs)

        def __getitem__(self, item: int):
            row, view = self.pairs[item]
            image = torch.from_numpy(feed.data.images[row].copy()).permute(2, 0, 1)
            return transforms.view(image, feed.base_recipe.input_size, feed.base_recipe.seed, row, view)

    class OfTheWhole(Pooled):
        def __init__(self) -> None:
            self.__dict__.update(feed.__dict__)

        def run(self, pairs: list[tuple[int, int]]):
            mean, std = (torch.tensor(values)[:, None, None] for values in (self.net.mean, self.net.std))
            layer = list(self.net.cam_layers)[-1]
            self.net.eval()
            for images in DataLoader(Photographs(pairs), self.p.batch_size):
                x = (images.float() / 255 - mean) / std
                with torch.no_grad(), self.net.record(layer) as kept:
                    self.net(x.contiguous(memory_format=torch.channels_last))
                yield (kept[layer].mean((2, 3)) - self.mean) / self.spread

        def draws(self, positions, views):
            rows = self.train["row"].to_numpy()[positions]
            batches = self._batches(len(positions))
            assert {len(some) for some in batches} == {self.p.batch_size}
            pairs = list(zip(rows.tolist(), views.tolist()))
            for some, inputs in zip(batches, self.run(pairs)):
                yield self._batch(inputs, positions[some], views[some])

        def unaugmented(self, positions):
            rows = self.clean["row"].to_numpy()[positions]
            yield torch.cat(list(self.run([(int(row), -1) for row in rows])))

    return OfTheWhole()


if __name__ == "__main__":
    main()
