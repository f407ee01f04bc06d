"""What the fine-tuned tail is fed: the frozen trunk's output, cached for K views of each image, or made each time.

Fine-tuning with a frozen trunk runs the same trunk on the same view again and again. The feature store runs it
once a view; training then costs only the tail. It is exact where the trunk is a function of the image alone, which is
why it is refused for ``frozen_bn: track`` (there the trunk's statistics move while training).
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from drstudy.core import paths, records
from drstudy.core.devices import Compute
from drstudy.core.params import Training
from drstudy.data.dataset import Dataset
from drstudy.models.folding import folded
from drstudy.models.nets import GradingNet
from drstudy.models.weights import digest_of
from drstudy.training import transforms

VERSION = 3
"""Part of the store's key: raise it when the same view would be stored differently."""
CUDA_TRUNK_BATCH = 256


class Features:
    """The trunk's output for training draws and for the images as they are.

    Attributes:
        train: Rows of the training split; draws are positions in it.
        clean: Rows of validation and test, in this order; never augmented.
        seconds: Time that the trunk took, decoding and augmentation left out.
        share: Which part of each batch :meth:`draws` gives: (rank, processes) of a training in several processes.
    """

    share: tuple[int, int] = (0, 1)

    def __init__(self, net: GradingNet, data: Dataset, p: Training, compute: Compute) -> None:
        self.net, self.data, self.p, self.compute = net, data, p, compute
        self.train = data.part("train")
        self.clean = pd.concat([data.part("validation"), data.part("test")], ignore_index=True)
        self.seconds = 0.0
        self._check_size()

    def _check_size(self) -> None:
        multiple = self.net.stride_multiple
        if self.p.input_size % multiple:
            raise ValueError(
                f"INPUT_SIZE is {self.p.input_size}; {self.net.backbone} needs a multiple of {multiple}."
            )

    def draws(self, positions: Tensor, views: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch: the trunk's output (B, ...) for views of training images, and their grades (B,)."""
        raise NotImplementedError

    def unaugmented(self, positions: np.ndarray) -> Iterator[Tensor]:
        """The trunk's output (B, ...) for images of :attr:`clean`, in order, none padded and none dropped."""
        raise NotImplementedError

    @property
    def trunk_batch(self) -> int:
        """Images a pass of the trunk."""
        return CUDA_TRUNK_BATCH if self.compute.is_cuda else self.net.trunk_batch

    def close(self, keep: bool) -> None:
        """Give back what is held; ``keep`` leaves files for the next run."""

    def _batches(self, count: int) -> list[np.ndarray]:
        """Which draws make a batch, or this process's share of it; none is left out.

        A last batch of a single image, which batch norm cannot take, or of fewer images than processes joins the one before.
        """
        rank, processes = self.share
        starts = list(range(0, count, self.p.batch_size))
        if len(starts) > 1 and count - starts[-1] < max(2, processes):
            starts.pop()
        return [np.arange(a + rank, b, processes) for a, b in zip(starts, [*starts[1:], count])]


class _Views(TorchDataset):
    """(row, view) pairs as uint8 tensors (3, S, S): the view, or with ``raw`` the stored image it will be made of."""

    def __init__(self, data: Dataset, pairs: list[tuple[int, int]], p: Training, raw: bool) -> None:
        self.images, self.pairs, self.p, self.raw = data.images, pairs, p, raw

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, item: int) -> Tensor:
        row, view = self.pairs[item]
        image = transforms.channels_first(self.images[row])
        return image if self.raw else transforms.view(image, self.p.input_size, self.p.seed, row, view)


class Live(Features):
    """Runs the trunk each time: end-to-end training, for fresh views and for ``frozen_bn: track``.

    Attributes:
        on_device: Whether views are made by the device that computes (CUDA) or by loader processes beside it. Both draw the same
            views; their pixels may differ by rounding.
    """

    def __init__(self, net: GradingNet, data: Dataset, p: Training, compute: Compute) -> None:
        super().__init__(net, data, p, compute)
        self.on_device = compute.is_cuda

    def images(self, pairs: list[tuple[int, int]], batches: list[tuple[int, int]]) -> Iterator[Tensor]:
        """Normalised batches (B, 3, H, W) on the device."""
        loader = DataLoader(
            _Views(self.data, pairs, self.p, self.on_device),
            batch_sampler=[list(range(a, b)) for a, b in batches],
            num_workers=min(8, os.cpu_count() or 1) if self.compute.is_cuda else 0,
            pin_memory=self.compute.is_cuda,
            generator=torch.Generator(),  # else it takes a number from the global one, and dropout would differ from a store's
        )
        size, seed = self.p.input_size, self.p.seed
        for (a, b), batch in zip(batches, loader):
            batch = self.compute.put(batch)
            if self.on_device:
                views = (transforms.view(image, size, seed, *pair) for image, pair in zip(batch, pairs[a:b]))
                batch = self.compute.put(torch.stack(list(views)))
            yield transforms.normalise(batch, self.net.mean, self.net.std)

    @functools.cached_property
    def _net(self) -> GradingNet:
        """With a trunk that stands still, a copy that is faster."""
        if self.net.frozen_bn == "track":
            return self.net
        net = folded(self.net, self.p.input_size, self.compute.dtype)
        if self.p.compile:
            net.trunk = torch.compile(net.trunk, options={"freezing": True})
        return net

    def trunk(self, images: Tensor) -> Tensor:
        """The trunk's output; in training mode of a ``track`` network its statistics move, its weights never."""
        began = time.perf_counter()
        with torch.no_grad(), self.compute.autocast():
            output = self._net.trunk(images).to(self.compute.dtype)
        self.seconds += time.perf_counter() - began
        return output

    def draws(self, positions: Tensor, views: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        rows, grades = (
            self.train["row"].to_numpy(),
            torch.from_numpy(self.train["grade"].to_numpy(dtype=np.int64)),
        )
        batches = [(positions[some], views[some]) for some in self._batches(len(positions))]
        pairs = [
            (int(rows[i]), int(view)) for batch in batches for i, view in zip(*map(Tensor.tolist, batch))
        ]
        ends = np.cumsum([len(some) for some, _ in batches]).tolist()
        bounds = list(zip([0, *ends[:-1]], ends))
        for (some, _), images in zip(batches, self.images(pairs, bounds)):
            yield self.trunk(images), grades[some].to(self.compute.device)

    def unaugmented(self, positions: np.ndarray) -> Iterator[Tensor]:
        rows = self.clean["row"].to_numpy()[positions]
        step = self.trunk_batch
        bounds = [(a, min(a + step, len(rows))) for a in range(0, len(rows), step)]
        for images in self.images([(int(row), -1) for row in rows], bounds):
            yield self.trunk(images)


class Stored(Features):
    """Reads the trunk's output from a memory-mapped store, which it writes where it is missing.

    Attributes:
        folder: ``data/features/<key>``; the key is a digest of the images, the frozen weights, the views and the precision.
    """

    def __init__(self, net: GradingNet, data: Dataset, p: Training, compute: Compute) -> None:
        super().__init__(net, data, p, compute)
        live = Live(net, data, p, compute)
        self.folder = paths.data() / "features" / self._key()
        with paths.locked(self.folder.with_name(f".{self.folder.name}.lock")):
            if not (self.folder / "store.json").is_file():
                self._write(live)
        self.seconds = json.loads((self.folder / "store.json").read_text())["seconds"]
        self._train = np.load(self.folder / "train.npy", mmap_mode="r")
        self._clean = np.load(self.folder / "clean.npy", mmap_mode="r")

    def _key(self) -> str:
        trainable = {name for name, tensor in self.net.named_parameters() if tensor.requires_grad}
        frozen = {name: tensor for name, tensor in self.net.state_dict().items() if name not in trainable}
        digest = hashlib.sha256(digest_of(frozen).encode())
        digest.update(pd.concat([self.train, self.clean])[["image_id", "row"]].to_csv().encode())
        p = self.p
        described = (
            p.notebook,
            self.data.key,
            p.backbone,
            p.input_size,
            p.views,
            p.seed,
            p.compile,
            self.compute.precision,
            transforms.VERSION,
            VERSION,
        )
        digest.update(repr(described).encode())
        return f"{p.backbone}-{digest.hexdigest()[:16]}"

    def _write(self, live: Live) -> None:
        """Announce the size, check the disk, run the trunk once a view, and put the store in its place when it is whole."""
        pairs = [(int(row), view) for row in self.train["row"] for view in range(self.p.views)]
        clean = [(int(row), -1) for row in self.clean["row"]]
        self.net.eval()
        probe = live.trunk(next(live.images(pairs[:1], [(0, 1)])))
        per_view = probe[0].numel() * probe.element_size()
        need, base = per_view * (len(pairs) + len(clean)), self.folder.parent
        base.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(base).free
        print(
            f"feature store: {len(pairs) + len(clean)} views of {per_view / 1024:.0f} KiB, {need / 2**20:.0f} MiB on disk",
            flush=True,
        )
        if need > 0.95 * free:
            raise OSError(
                f"The feature store needs {need / 2**30:.1f} GiB, but {paths.show(base)} has {free / 2**30:.1f} GiB free. "
                "Make room, lower VIEWS, point DRSTUDY_DATA elsewhere, or set FEATURE_STORE to False."
            )
        temporary = base / f".{self.folder.name}"
        shutil.rmtree(temporary, ignore_errors=True)  # what a killed run left
        temporary.mkdir()
        try:
            for name, todo in (("train", pairs), ("clean", clean)):
                self._fill(temporary / f"{name}.npy", live, todo, probe, name)
            records.write_json(
                {"views": self.p.views, "bytes": need, "seconds": live.seconds}, temporary / "store.json"
            )
            temporary.rename(self.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _fill(self, path: Path, live: Live, pairs: list[tuple[int, int]], probe: Tensor, name: str) -> None:
        _, channels, height, width = probe.shape
        shape = (len(pairs), height, width, channels)  # channels last, as the tail wants them
        dtype = (
            np.float32 if probe.dtype == torch.float32 else np.uint16
        )  # NumPy has no bfloat16: its bits are stored
        store = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        step = self.trunk_batch
        bounds = [(a, min(a + step, len(pairs))) for a in range(0, len(pairs), step)]
        began = time.perf_counter()
        told = began
        for (a, b), images in zip(bounds, live.images(pairs, bounds)):
            output = live.trunk(images).permute(0, 2, 3, 1).contiguous().cpu()
            store[a:b] = (output if dtype == np.float32 else output.view(torch.uint16)).numpy()
            if time.perf_counter() - told > 10:
                told = time.perf_counter()
                print(
                    f"feature store: {name} {b}/{len(pairs)} views, {b / (told - began):.0f} a second",
                    flush=True,
                )
        store.flush()

    def _tensor(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        tensor = tensor if tensor.dtype == torch.float32 else tensor.view(self.compute.dtype)
        return self.compute.put(tensor.permute(0, 3, 1, 2))

    def draws(self, positions: Tensor, views: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        grades = torch.from_numpy(self.train["grade"].to_numpy(dtype=np.int64))
        places = (positions * self.p.views + views).numpy()
        for some in self._batches(len(places)):
            yield self._tensor(self._train[places[some]]), grades[positions[some]].to(self.compute.device)

    def unaugmented(self, positions: np.ndarray) -> Iterator[Tensor]:
        step = 4 * self.trunk_batch
        for a in range(0, len(positions), step):
            yield self._tensor(self._clean[positions[a : a + step]])

    def close(self, keep: bool) -> None:
        del self._train, self._clean
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def open_features(net: GradingNet, data: Dataset, p: Training, compute: Compute) -> Features:
    """The features of a recipe: stored where the recipe says so, else made each time.

    Args:
        net: Frozen as the recipe says; its trunk must not change afterwards.
        data: Images and split.
        p: The recipe.
        compute: Device and precision.

    Raises:
        ValueError: If the store would not be exact, or the input size does not fit the backbone.
        OSError: If the disk is too small for the store.
    """
    if p.feature_store and net.frozen_bn == "track":
        raise ValueError(
            "The feature store would not be exact with FROZEN_BN 'track': the frozen layers' statistics move while training."
        )
    return (Stored if p.feature_store else Live)(net, data, p, compute)
