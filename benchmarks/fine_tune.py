"""Fine-tuning with the feature store, compared with running the whole network in each epoch: plain PyTorch, fastai, fastdrs.

The sides run one epoch each, in turn, on the same JPEG files. In addition to its epochs, ours needs the image store and the trunk on K views; both are counted in
full. The total for 100 epochs is extrapolated from the median epoch, and the result states this.

- `the paper's way` is a DataLoader that decodes and augments, and the whole network in float32, of which the last block and the head are trained. The statistics
  of its frozen batch norms drift, as in the paper.
- `the same recipe` keeps these statistics fixed, as the feature store requires, and so trains the same parameters as ours.
- fastai and fastdrs run with their own defaults. fastai freezes the body except its batch norms. fastdrs trains the whole network; it has no EfficientNet-Lite0.

Validation is left out on all sides. The other sides compute in float32. Ours does so too, and where the processor has units for bf16 it trains once more in bf16, which
`PRECISION` "auto" chooses there; precision.py measures what bf16 alone gains. DenseNet121, which is slower, gets half of the training images. `same result` states
whether the interval of the difference in kappa includes 0.

`limit` is the time of 100 epochs if only the trunk's pass, and the convolutions and matrix products of the tail cost time, forward and backward, on inputs that lie in
memory: no normalisation, no activation, no optimiser. `share of limit` is the limit divided by the time of ours.
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
from side_by_side import alternate, options, report, set_threads

TOTAL = 100
SIZE = 224


def main() -> None:
    given = options(
        __doc__.splitlines()[0],
        images=(128, 24, "training images"),
        test=(64, 48, "test images, for the difference in kappa"),
        pixels=(384, 384, "side of the JPEG files"),
        epochs=(5, 5, "epochs measured"),
        batch=(64, 24, "images a step"),
        views=(4, 4, "views in the feature store"),
        densenet=(1, 0, "1 measures DenseNet121 too"),
        bf16=(1, 1, "1 trains ours in bf16 too, where the processor has units for it"),
    )
    set_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["DRSTUDY_DATA"] = scratch
        from drstudy.data import phantom

        eyes = -(-(given.images + given.test) // 2)
        config = phantom.PhantomConfig(n_patients=eyes, size=given.pixels, seed=11)
        manifest = phantom_files(config, Path(scratch), given.images, given.test)
        for backbone in ["efficientnet_lite0", "densenet121"][: 1 + given.densenet]:
            some = manifest if backbone == "efficientnet_lite0" else without_half(manifest)
            compare(backbone, some, Path(scratch), given)


def phantom_files(config, scratch: Path, images: int, test: int) -> pd.DataFrame:
    """The manifest of phantom photographs that are written to JPEG files: the given number for training, the rest for the test."""
    from drstudy.core import paths
    from drstudy.data import phantom, sources

    with contextlib.redirect_stderr(io.StringIO()):
        folder = phantom.write(config, scratch / "phantom")
        manifest = sources.load("phantom", folder).manifest.iloc[: images + test]
    split = ["train"] * images + ["test"] * (len(manifest) - images)
    return manifest.assign(split=split, path=[str(paths.resolve(path)) for path in manifest["path"]])


def without_half(manifest: pd.DataFrame) -> pd.DataFrame:
    """The manifest without the second half of its training images."""
    train = manifest.index[manifest["split"] == "train"]
    return manifest.drop(train[len(train) // 2 :])


def kappa_difference(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """Quadratic weighted kappa of one table of predictions minus that of another, with its interval over patients."""
    from drstudy.evaluation import statistics

    found = statistics.paired_difference(one, other, 1000, 0).set_index("metric").loc["qwk"]
    names = {"value": "qwk_difference", "lo": "qwk_difference_lo", "hi": "qwk_difference_hi"}
    return {name: float(found[column]) for column, name in names.items()}


class Ours:
    """Our side in one precision: what is paid once, and an epoch.

    Attributes:
        once: Seconds of the trunk on all views.
        net, cached, compute: The network, its features, and the device.
    """

    def __init__(self, data, recipe, compute) -> None:
        from drstudy.training import features, grading, networks

        self.compute, self.net = compute, networks.build(recipe, data, compute)
        self.start = {name: tensor.clone() for name, tensor in self.net.state_dict().items()}
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            self.cached = features.open_features(self.net, data, recipe, compute)
            self.cached.prepare()
        self.once = time.perf_counter() - began
        self.task = grading.Grading(self.net, self.cached, recipe, compute)
        self.numbers = iter(range(1, 10**6))

    def epoch(self) -> None:
        from drstudy.training import loop

        loop.train_epoch(self.task, next(self.numbers))


def compare(backbone: str, manifest: pd.DataFrame, scratch: Path, given) -> None:

    from drstudy.core import devices
    from drstudy.data import images
    from drstudy.data.dataset import Dataset
    from drstudy.models import nets as backbones
    from drstudy.papers.transfer import params
    from drstudy.training import grading, prediction, sampling

    recipe = params.FineTuning(
        backbone=backbone,
        weights="bundled" if backbone == "efficientnet_lite0" else "none",
        sampler="inverse",
        batch_size=given.batch,
        views=given.views,
        input_size=SIZE,
        learning_rate=3e-4,
        select_by="last",
    )
    # --- ours: what is paid once; the test images are for the kappa afterwards, and no side is charged for them
    files, held_out = (manifest[manifest["split"] == split] for split in ("train", "test"))
    began = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        store = images.build(files, 256, given.threads, folder=scratch / f"images_{backbone}")
    prepared = time.perf_counter() - began
    rows = with_rows(files, store)
    unseen = [
        rows.tail(1).assign(split=split) for split in ("validation", "test")
    ]  # must be there; never looked at
    data = Dataset(store.images, pd.concat([rows, *unseen]), store.folder.name)
    precisions = ["fp32"]
    if given.bf16 and devices.setup("cpu", "auto", given.threads, 0).precision == "bf16":
        precisions.append("bf16")
    computes = {precision: devices.setup("cpu", precision, given.threads, 0) for precision in precisions}
    ours = {precision: Ours(data, recipe, compute) for precision, compute in computes.items()}

    # --- the others
    grades = files["grade"].to_numpy(dtype=int)
    weights = sampling.grade_weights("inverse", np.bincount(grades, minlength=5))[grades]
    nets = {}
    for name, frozen_bn in (("the paper's way", "track"), ("the same recipe", "eval")):
        nets[name] = backbones.build(backbone, "single", recipe.weights, 0)
        nets[name].load_state_dict(ours["fp32"].start)
        nets[name].freeze(frozen_bn)
    others = {name: plain(other, files, weights, recipe) for name, other in nets.items()}
    others["fastai"] = fastai(backbones.build(backbone, "single", recipe.weights, 0).net, files, recipe)
    if backbone == "densenet121":
        others["fastdrs"] = fastdrs(backbone, files, recipe)
    sides = {precision: one.epoch for precision, one in ours.items()} | others
    sides |= {
        f"limit {precision}": products(one.net, one.cached, one.compute) for precision, one in ours.items()
    }
    epoch, _ = alternate(sides, given.epochs, warm=False)  # the median leaves a slow first epoch out

    with contextlib.redirect_stderr(io.StringIO()):
        store = images.build(held_out, 256, given.threads, folder=scratch / "images_test")
    test = with_rows(held_out, store)
    tables, kappas = {}, {}
    for name, one in ({precision: side.net for precision, side in ours.items()} | nets).items():
        pixels = store.images[test["row"].to_numpy()]
        probabilities = prediction.predict(one.eval(), pixels, devices.Compute("cpu", "fp32"), SIZE)
        tables[name] = prediction.frame(test, probabilities)
        kappas[name] = grading.qwk(test["grade"].to_numpy(int), probabilities.argmax(1))
    for precision, side in ours.items():
        total = TOTAL * epoch[precision] + prepared + side.once
        limit = TOTAL * epoch[f"limit {precision}"] + side.cached.seconds
        for other in others:
            values = {}
            if other in nets:
                difference = kappa_difference(tables[precision], tables[other])
                values = {"qwk_ours": kappas[precision], "qwk_other": kappas[other], **difference}
            report(
                f"fine_tune {backbone}{', bf16,' if precision == 'bf16' else ''} against {other}",
                total,
                TOTAL * epoch[other],
                f"s for {TOTAL} epochs, extrapolated from the median of {given.epochs}",
                values["qwk_difference_lo"] <= 0 <= values["qwk_difference_hi"] if values else None,
                **values,
                after_epochs=given.epochs,
                images=len(files),
                image_store=prepared,
                trunk_once=side.once,
                epoch_ours=epoch[precision],
                epoch_other=epoch[other],
                limit=limit,
                share_of_limit=limit / total,
                precision_ours=precision,
            )
        side.cached.close(keep=False)


def products(net, cached, compute):
    """An epoch's convolutions and matrix products of the tail, forward and backward, and nothing else."""
    import copy

    import torch

    count = len(cached.train)
    batches = list(cached.draws(torch.arange(count), torch.zeros(count, dtype=torch.int64)))
    own, calls = copy.deepcopy(net).train(), []
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    hooks = [
        module.register_forward_hook(
            lambda module, given, output: calls.append((module, given[0].detach(), output))
        )
        for module in own.modules()
        if isinstance(module, kinds)
    ]
    with compute.autocast():
        for batch in batches:
            own.tail(batch.inputs)
    for hook in hooks:
        hook.remove()
    steps = [
        (module, given.requires_grad_(), torch.ones_like(output), tuple(module.parameters()))
        for module, given, output in calls
    ]

    def epoch() -> None:
        for module, given, towards, parameters in steps:
            with compute.autocast():
                output = module(given)
            torch.autograd.grad(output, (given, *parameters), towards)

    return epoch


def with_rows(files: pd.DataFrame, store) -> pd.DataFrame:
    """The images of a store, as :class:`drstudy.data.dataset.Dataset` wants them."""
    return files[["image_id", "patient_id", "grade", "split"]].merge(store.index[["image_id", "row"]])


def plain(net, files: pd.DataFrame, weights: np.ndarray, recipe):
    """The paper's way: each epoch decodes and augments each image drawn, and runs the whole network, in float32."""
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

    from drstudy.models.compat import torchvision
    from drstudy.training import transforms

    v2 = torchvision.transforms.v2

    class Files(Dataset):
        change = v2.Compose(
            [
                v2.Resize((SIZE, SIZE)),
                *transforms.AUGMENTATIONS.values(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(list(net.mean), list(net.std)),
            ]
        )

        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, item: int):
            with Image.open(files["path"].iloc[item]) as image:
                return self.change(image.convert("RGB")), int(files["grade"].iloc[item])

    sampler = WeightedRandomSampler(
        torch.from_numpy(weights), len(files), generator=torch.Generator().manual_seed(0)
    )
    loader = DataLoader(Files(), recipe.batch_size, sampler=sampler)
    optimiser = torch.optim.Adam([q for q in net.parameters() if q.requires_grad], lr=recipe.learning_rate)
    loss = torch.nn.CrossEntropyLoss()

    def epoch() -> None:
        net.train()
        for images, grades in loader:
            optimiser.zero_grad()
            loss(net(images), grades).backward()
            optimiser.step()

    return epoch


def fastai(network, files: pd.DataFrame, recipe):
    """fastai's Learner with its own split into frozen body and head, its own augmentations and one-cycle schedule."""
    from fastai.vision.all import (
        CategoryBlock,
        ColReader,
        CrossEntropyLossFlat,
        DataBlock,
        ImageBlock,
        Learner,
        Normalize,
        Resize,
        aug_transforms,
        imagenet_stats,
        params,
    )

    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_x=ColReader("path"),
        get_y=ColReader("grade"),
        splitter=lambda frame: (list(range(len(frame))), []),
        item_tfms=Resize(SIZE),
        batch_tfms=[*aug_transforms(flip_vert=True, max_rotate=180.0), Normalize.from_stats(*imagenet_stats)],
    )
    loaders = block.dataloaders(
        files[["path", "grade"]].astype({"grade": int}), bs=recipe.batch_size, num_workers=0
    )

    def groups(model):
        last = list(model.children())[-1]
        head = {id(q) for q in last.parameters()}
        return [[q for q in params(model) if id(q) not in head], list(last.parameters())]

    learner = Learner(loaders, network, loss_func=CrossEntropyLossFlat(), splitter=groups)
    learner.freeze()

    def epoch() -> None:
        with learner.no_bar(), learner.no_logging(), contextlib.redirect_stdout(io.StringIO()):
            learner.fit(1, recipe.learning_rate)

    return epoch


def fastdrs(backbone: str, files: pd.DataFrame, recipe):
    """fastdrs' data set, transforms and training epoch; it trains all layers."""
    import torch
    from fastdrs.data import EyepacsDataset
    from fastdrs.models import build_model
    from fastdrs.preprocessing import get_transforms
    from fastdrs.training import train_epoch
    from PIL import Image
    from torch.utils.data import DataLoader

    class Records:
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, item: int) -> dict:
            return {"image": Image.open(files["path"].iloc[item]), "label": int(files["grade"].iloc[item])}

    loader = DataLoader(EyepacsDataset(Records(), get_transforms(SIZE)), recipe.batch_size, shuffle=True)
    model = build_model(backbone, pretrained=False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=1e-4)
    loss = torch.nn.CrossEntropyLoss()

    def epoch() -> None:
        train_epoch(model, loader, loss, optimiser, torch.device("cpu"))

    return epoch


if __name__ == "__main__":
    main()
