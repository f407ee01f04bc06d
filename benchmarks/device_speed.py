"""Speed of this computer's device, in the precision that ``auto`` chooses and in fp32. Run this first on a new GPU.

All kinds of work use random photographs, so that nothing is read from disk: features of augmented views with the frozen trunk of a network; an epoch of
its tail on stored features; an epoch as the main paper trains (no store, batch norms that change, batches of 256); Grad-CAM; and once, steps of the conditional
GAN. ``ours`` is ``auto``, and ``other`` is fp32 on the same device, in seconds per 1,000 photographs. ``same_result`` states whether both agree: features
(largest difference below a tenth of the largest value), maps (median rank correlation above 0.98), or, for a training, whether its losses are finite.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from side_by_side import alternate, options, report

SIZE, STORED = 224, 256
NEAR, ALIKE = 0.1, 0.98


def main() -> None:
    given = options(
        __doc__.splitlines()[0],
        threads=0,
        images=(2048, 16, "photographs"),
        repeats=(5, 1, "times that each is measured"),
        steps=(40, 1, "steps of the GAN's generator"),
        side=(256, 32, "side of the GAN's pictures, pixels"),
    )
    if given.threads:
        os.environ["OMP_NUM_THREADS"] = str(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["DRSTUDY_DATA"] = scratch
        from drstudy.core import devices

        data = photographs(given.images)
        computes = {name: devices.setup("auto", name, given.threads, 0) for name in ("auto", "fp32")}
        print(f"on {computes['auto']}, against fp32", flush=True)
        for backbone in ("efficientnet_lite0", "densenet121"):
            one_network(backbone, data, computes, given)
        gans(data, computes, given)


def photographs(count: int):
    """Random photographs of five grades: four fifths for training, the rest for validation and test."""
    from drstudy.data.dataset import Dataset

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, STORED, STORED, 3), np.uint8)
    split = np.where(
        np.arange(count) % 10 < 8, "train", np.where(np.arange(count) % 10 < 9, "validation", "test")
    )
    table = {
        "image_id": [f"{n:05d}" for n in range(count)],
        "patient_id": [f"p{n:05d}" for n in range(count)],
    }
    rows = pd.DataFrame(table | {"grade": np.arange(count) % 5, "row": np.arange(count), "split": split})
    return Dataset(images, rows.astype({"grade": "Int64"}), "random")


def one_network(backbone: str, data, computes, given) -> None:
    import torch

    from drstudy.explain.methods import cam
    from drstudy.papers.transfer import params
    from drstudy.training import features, grading, loop, networks

    common = {"backbone": backbone, "input_size": SIZE, "select_by": "last", "epochs": 1}
    common["weights"] = "bundled" if backbone == "efficientnet_lite0" else "none"
    fixed = params.FineTuning(**common, views=1, batch_size=min(64, given.images // 4))
    paper = params.FineTuning(
        **common,
        views=0,
        batch_size=min(256, given.images // 4),
        frozen_bn="track",
        feature_store=False,
        sampler="none",
    )
    kept: dict[str, dict[str, object]] = {"trunk": {}, "tail": {}, "paper": {}, "maps": {}}
    count = len(data.part("train"))

    def quiet(work):
        def run():
            with contextlib.redirect_stdout(io.StringIO()):
                return work()

        return run

    for name, compute in computes.items():
        net = networks.build(fixed, data, compute)
        live = features.Live(net, data, fixed, compute)
        stored = features.open_features(net, data, fixed, compute)
        with contextlib.redirect_stdout(io.StringIO()):
            stored.prepare()
        moving = networks.build(paper, data, compute)
        task = grading.Grading(net, stored, fixed, compute)
        theirs = grading.Grading(moving, features.open_features(moving, data, paper, compute), paper, compute)
        every = torch.arange(count), torch.zeros(count, dtype=torch.long)
        names = [str(n) for n in range(count)]
        grades = np.arange(count) % 5

        def trunk(live=live, every=every):
            return torch.cat(
                [batch.inputs.float().mean((2, 3)).cpu() for batch in live.draws(*every)]
            ).numpy()

        def maps(net=net, compute=compute, names=names, grades=grades):
            rows = data.part("train")["row"].to_numpy()
            found = cam.explain_images(net, data.images, names, SIZE, compute, rows, grades)
            return found.raw[found.layers[-1]]

        kept["trunk"][name], kept["maps"][name] = quiet(trunk), quiet(maps)
        kept["tail"][name] = quiet(lambda task=task: losses(loop.train_epoch(task, 1)))
        kept["paper"][name] = quiet(lambda theirs=theirs: losses(loop.train_epoch(theirs, 1)))
    titles = {
        "trunk": "features of augmented views",
        "tail": "an epoch of the tail, from the store",
        "paper": "an epoch as the paper trains",
        "maps": "Grad-CAM",
    }
    for kind, sides in kept.items():
        seconds, found = alternate(sides, given.repeats)
        told(f"{backbone}, {titles[kind]}", seconds, found, count, computes)


def gans(data, computes, given) -> None:
    """Steps of the conditional GAN as profile ``paper`` has it, with one step of the critic for each of the generator."""
    from drstudy.papers.gan import params, runs
    from drstudy.training import loop

    batch = min(64, given.images // 4)
    p = params.Gan(
        size=given.side,
        width=32,
        latent=128,
        sides="both",
        batch_size=batch,
        steps=given.steps,
        loss="cwgan_gp",
        critic_steps=1,
    )
    sides = {}
    for name, compute in computes.items():
        task = runs.build(p.recipe(params.SCRATCH, ""), data, compute)
        task.start_epoch(1)
        sides[name] = lambda task=task: losses(loop.train_epoch(task, 1))
    seconds, found = alternate(sides, given.repeats)
    told(f"GAN, {given.side} px, {batch} photographs a step", seconds, found, given.steps * batch, computes)


def losses(rows) -> np.ndarray:
    return np.array([value for row in rows for key, value in row.items() if key.startswith("loss")], float)


def told(name: str, seconds, found, count: int, computes) -> None:
    auto, full = found["auto"], found["fp32"]
    finite = np.isfinite(auto[~np.isnan(auto)]).all() and np.isfinite(full[~np.isnan(full)]).all()
    agree = {}
    if auto.ndim == 2:
        agree["largest_difference"] = float(np.abs(auto - full).max() / np.abs(full).max())
        finite = finite and agree["largest_difference"] < NEAR
    if auto.ndim == 3:
        ranks = [spearmanr(one.ravel(), other.ravel()).statistic for one, other in zip(auto, full)]
        agree["rank_correlation"] = float(np.median(ranks))
        finite = finite and agree["rank_correlation"] > ALIKE
    ours, other = (1000 * seconds[key] / count for key in ("auto", "fp32"))
    report(
        f"device_speed, {name}",
        ours,
        other,
        "s per 1,000 photographs",
        bool(finite),
        device=str(computes["auto"]),
        **agree,
    )


if __name__ == "__main__":
    main()
