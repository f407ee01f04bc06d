"""Inputs of the fine-tuned tail: the frozen trunk's output, cached for K views of each image, or computed each time.

Fine-tuning with a frozen trunk runs the same trunk on the same views again and again. The feature store runs it
once per view; training then costs only the tail. The store is exact if the trunk is a function of the image alone. It is
refused for ``frozen_bn: track``, where statistics of the trunk change during training.
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

from drstudy.core import code, paths, records
from drstudy.core.devices import Compute
from drstudy.data.dataset import Dataset
from drstudy.data.images import release
from drstudy.models.folding import folded
from drstudy.models.nets import GradingNet
from drstudy.models.weights import digest_of
from drstudy.training import transforms
from drstudy.training.batch import Batch
from drstudy.training.recipe import Training

CUDA_TRUNK_BATCH = 256
MADE_BY = ("drstudy.models.", "drstudy.training.features", "drstudy.training.transforms")
"""Beginnings of the modules whose code makes what is stored; another code makes another store."""
PARTS = ("train", "clean")
"""Parts of a store: augmented views for training, and validation and test images without augmentation."""


class Features:
    """The trunk's output for training draws and for images without augmentation.

    Attributes:
        train: Rows of the training split. Draws are positions in this table.
        clean: Rows of validation and test, in this order. They are never augmented.
        seconds: Time of the trunk so far, without decoding and augmentation.
        seconds_prepare: Time to write files so far, decoding and augmentation included.
        share: Rank and number of the processes that train together, which decide the part of each batch that :meth:`draws` gives.
    """

    share: tuple[int, int] = (0, 1)

    def __init__(self, net: GradingNet, data: Dataset, p: Training, compute: Compute) -> None:
        self.net, self.data, self.p, self.compute = net, data, p, compute
        self.train = data.part("train")
        self.clean = pd.concat([data.part("validation"), data.part("test")], ignore_index=True)
        self.seconds, self.seconds_prepare = 0.0, 0.0
        self._check_size()

    def _check_size(self) -> None:
        multiple = self.net.stride_multiple
        if self.p.input_size % multiple:
            raise ValueError(
                f"INPUT_SIZE is {self.p.input_size}; {self.net.backbone} needs a multiple of {multiple}."
            )

    def draws(self, positions: Tensor, views: Tensor) -> Iterator[Batch]:
        """Batches of one epoch, from positions in :attr:`train` and numbers of views, (N,) int64 each."""
        raise NotImplementedError

    def unaugmented(self, positions: np.ndarray) -> Iterator[Tensor]:
        """The trunk's output (B, ...) for images of :attr:`clean`, in order, none padded and none dropped."""
        raise NotImplementedError

    @property
    def trunk_batch(self) -> int:
        """Number of images in one pass of the trunk."""
        return CUDA_TRUNK_BATCH if self.compute.is_cuda else self.net.trunk_batch

    def prepare(self) -> None:
        """Write the files of a store now, instead of when they are first needed."""

    def close(self, keep: bool) -> None:
        """Release memory and, unless ``keep`` is true, delete the files of a store."""

    def targets(self, split: str) -> dict[str, np.ndarray]:
        """Labels (N,) of ``train``, ``validation`` or ``test`` by name, in the order of the images, with the dtypes of
        :class:`drstudy.training.batch.Batch`."""
        rows = self.train if split == "train" else self.clean[self.clean["split"] == split]
        return {name: _as_array(rows[name]) for name in self.data.targets}

    def pixels(self, batch: Batch, size: int) -> Tensor:
        """The views of a batch as photographs, for losses on patches.

        Args:
            batch: Batch from :meth:`draws`.
            size: Side of the photographs, pixels. Rotation, flips and colours are those of the batch at any size.

        Returns:
            (B, 3, size, size) float32, normalised, on the device.
        """
        pairs = zip(batch.rows.tolist(), batch.views.tolist())
        views = [
            transforms.view(transforms.channels_first(self.data.images[row]), size, self.p.seed, row, view)
            for row, view in pairs
        ]
        return self.compute.put(transforms.normalise(torch.stack(views), self.net.mean, self.net.std))

    @functools.cached_property
    def _train_targets(self) -> dict[str, Tensor]:
        return {name: torch.tensor(values) for name, values in self.targets("train").items()}

    @functools.cached_property
    def _train_rows(self) -> Tensor:
        return torch.tensor(self.train["row"].to_numpy(dtype=np.int64))

    def _batch(self, inputs: Tensor, positions: Tensor, views: Tensor) -> Batch:
        """A batch of these inputs with their targets; ``positions`` and ``views`` are (B,) on the CPU."""
        device = self.compute.device
        targets = {name: values[positions].to(device) for name, values in self._train_targets.items()}
        return Batch(inputs, targets, self._train_rows[positions], views)

    def _batches(self, count: int) -> list[np.ndarray]:
        """Indices of the draws of each batch, or of this process's share of it. No draw is left out.

        The last batch joins the one before if it has a single image, which batch norm cannot take, or fewer images than processes.
        """
        rank, processes = self.share
        starts = list(range(0, count, self.p.batch_size))
        if len(starts) > 1 and count - starts[-1] < max(2, processes):
            starts.pop()
        return [np.arange(a + rank, b, processes) for a, b in zip(starts, [*starts[1:], count])]


class Subset(Features):
    """Features of some training rows only, each as often as it is given.

    Args:
        base: Features of all rows, whose recipe makes the views.
        rows: (M,) positions in ``base.train``.
    """

    def __init__(self, base: Features, rows: np.ndarray) -> None:
        self.base, self.rows = base, torch.tensor(rows)
        self.net, self.data, self.p, self.compute = base.net, base.data, base.p, base.compute
        self.clean = base.clean
        self.train = base.train.iloc[rows].reset_index(drop=True)

    @property
    def share(self) -> tuple[int, int]:
        return self.base.share

    @share.setter
    def share(self, share: tuple[int, int]) -> None:
        self.base.share = share

    @property
    def seconds(self) -> float:
        return self.base.seconds

    @property
    def seconds_prepare(self) -> float:
        return self.base.seconds_prepare

    def prepare(self) -> None:
        self.base.prepare()

    def draws(self, positions: Tensor, views: Tensor) -> Iterator[Batch]:
        return self.base.draws(self.rows[positions], views)

    def unaugmented(self, positions: np.ndarray) -> Iterator[Tensor]:
        return self.base.unaugmented(positions)


def _as_array(column: pd.Series) -> np.ndarray:
    """int64 if the column has whole numbers and none is missing, else float32 with NaN for missing labels.

    A copy: a view of a table cannot be written to, of which torch warns.
    """
    if pd.api.types.is_integer_dtype(column) and column.notna().all():
        return column.to_numpy(dtype=np.int64, copy=True)
    return column.to_numpy(dtype=np.float32, na_value=np.nan, copy=True)


class _Views(TorchDataset):
    """(row, view) pairs as uint8 tensors (3, S, S): the view, or with ``raw`` the stored image from which it is made."""

    def __init__(self, data: Dataset, pairs: list[tuple[int, int]], p: Training, raw: bool) -> None:
        self.images, self.pairs, self.p, self.raw = data.images, pairs, p, raw

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, item: int) -> Tensor:
        row, view = self.pairs[item]
        image = transforms.channels_first(self.images[row])
        return image if self.raw else transforms.view(image, self.p.input_size, self.p.seed, row, view)


class Live(Features):
    """Features that run the trunk each time, for fresh views and for ``frozen_bn: track``.

    Attributes:
        on_device: Whether views are made on the device that computes (CUDA), or on the CPU. Both draw the same views; their pixels
            may differ by rounding.
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
            release(self.data.images)
            yield transforms.normalise(batch, self.net.mean, self.net.std)

    @functools.cached_property
    def _net(self) -> GradingNet:
        """The network that runs the trunk: a faster copy with folded norms, unless the trunk's statistics change."""
        if self.net.frozen_bn == "track":
            return self.net
        net = folded(self.net, self.p.input_size, self.compute.dtype)
        if self.p.compile:
            net.trunk = torch.compile(net.trunk, options={"freezing": True})
        return net

    def trunk(self, images: Tensor) -> Tensor:
        """The trunk's output. With ``frozen_bn: track`` its statistics change in training mode; its weights never change."""
        began = time.perf_counter()
        with torch.no_grad(), self.compute.autocast():
            output = self._net.trunk(images).to(self.compute.dtype)
        self.seconds += time.perf_counter() - began
        return output

    def draws(self, positions: Tensor, views: Tensor) -> Iterator[Batch]:
        rows = self.train["row"].to_numpy()
        batches = [(positions[some], views[some]) for some in self._batches(len(positions))]
        pairs = [
            (int(rows[i]), int(view)) for batch in batches for i, view in zip(*map(Tensor.tolist, batch))
        ]
        ends = np.cumsum([len(some) for some, _ in batches]).tolist()
        bounds = list(zip([0, *ends[:-1]], ends))
        for batch, images in zip(batches, self.images(pairs, bounds)):
            yield self._batch(self.trunk(images), *batch)

    def unaugmented(self, positions: np.ndarray) -> Iterator[Tensor]:
        rows = self.clean["row"].to_numpy()[positions]
        step = self.trunk_batch
        bounds = [(a, min(a + step, len(rows))) for a in range(0, len(rows), step)]
        for images in self.images([(int(row), -1) for row in rows], bounds):
            yield self.trunk(images)


class Stored(Features):
    """Features from a memory-mapped store, which is written if it is missing.

    The two parts, views for training and images without augmentation, are written when they are first needed, each atomically. A
    network from the trained-model store needs the second part only.

    Attributes:
        folder: ``data/features/<key>``; the key is a digest of the notebook's name, the images, the frozen weights, the views, the
            precision and the versions of the code. Notebooks have stores of their own, since each deletes its store at its end.
    """

    def __init__(self, net: GradingNet, data: Dataset, p: Training, compute: Compute) -> None:
        super().__init__(net, data, p, compute)
        self._live: Live | None = None
        self.folder = paths.data() / "features" / self._key()
        for folder in self.folder.parent.glob("*/"):
            paths.sweep(folder)
        self._parts: dict[str, np.ndarray] = {}

    def prepare(self) -> None:
        for name in PARTS:
            self._part(name)

    def _part(self, name: str) -> np.ndarray:
        """One of :data:`PARTS`, written if it is missing."""
        if name not in self._parts:
            self.folder.mkdir(parents=True, exist_ok=True)
            with paths.locked(self.folder.with_name(f".{self.folder.name}.lock")):
                if self._opened(name) is None:
                    self._write(name)
                about, part = self._opened(name)
            self.seconds += about["seconds"]
            self.seconds_prepare += about["seconds_prepare"]
            self._parts[name] = part
            if len(self._parts) == len(PARTS):
                self._live = None  # the copy of the trunk that wrote them is not needed any more
        return self._parts[name]

    def _opened(self, name: str) -> tuple[dict[str, float], np.ndarray] | None:
        """Facts and values of a part as it lies on disk; ``None`` if it is missing or, which is printed, damaged."""
        file = self.folder / f"{name}.json"
        if not file.is_file():
            return None
        try:
            about = json.loads(file.read_text(encoding="utf-8"))
            part = np.load(self.folder / f"{name}.npy", mmap_mode="r")
            views = self.p.views if name == "train" else 1
            count = views * len(self.train if name == "train" else self.clean)
            if len(part) != count or part.nbytes != about["bytes"]:
                raise ValueError(f"it has {len(part)} of {count} views")
            return {key: float(about[key]) for key in ("seconds", "seconds_prepare")}, part
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            print(
                f"feature store: {paths.show(self.folder)}, {name}, is damaged ({error}); it is made again",
                flush=True,
            )
            return None

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
            self.compute.device.split(":")[0],
            self.compute.precision,
            torch.__version__,
            code.digests(name for name in code.closure({__name__}) if name.startswith(MADE_BY)),
        )
        digest.update(repr(described).encode())
        return f"{p.backbone}-{digest.hexdigest()[:16]}"

    def _write(self, name: str) -> None:
        """Print the size, check the free space, run the trunk once per view, and move the finished part to its place."""
        began = time.perf_counter()
        if name == "train":
            pairs = [(int(row), view) for row in self.train["row"] for view in range(self.p.views)]
        else:
            pairs = [(int(row), -1) for row in self.clean["row"]]
        live = self._live = self._live or Live(self.net, self.data, self.p, self.compute)
        before = live.seconds
        was_training = self.net.training
        self.net.eval()
        probe = live.trunk(next(live.images(pairs[:1], [(0, 1)])))
        per_view = probe[0].numel() * probe.element_size()
        need, base = per_view * len(pairs), self.folder.parent
        free = shutil.disk_usage(base).free
        print(
            f"feature store: {name}, {len(pairs)} views of {per_view / 1024:.0f} KiB, {need / 2**20:.0f} MiB on disk",
            flush=True,
        )
        if need > 0.95 * free:
            raise OSError(
                f"The feature store needs {need / 2**30:.1f} GiB, but {paths.show(base)} has {free / 2**30:.1f} GiB free. "
                "Make room, lower VIEWS, point DRSTUDY_DATA elsewhere, or set FEATURE_STORE to False."
            )
        for stale in self.folder.glob(f".{name}-*"):
            stale.unlink(missing_ok=True)  # what a killed run left
        with paths.atomic(self.folder / f"{name}.npy") as temporary:
            self._fill(temporary, live, pairs, probe, name)
        self.net.train(was_training)
        spent = {"seconds": live.seconds - before, "seconds_prepare": time.perf_counter() - began}
        records.write_json({"views": self.p.views, "bytes": need, **spent}, self.folder / f"{name}.json")

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
            release(store)
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

    def draws(self, positions: Tensor, views: Tensor) -> Iterator[Batch]:
        stored = self._part("train")
        places = (positions * self.p.views + views).numpy()
        for some in self._batches(len(places)):
            inputs = self._tensor(stored[places[some]])
            release(stored)
            yield self._batch(inputs, positions[some], views[some])

    def unaugmented(self, positions: np.ndarray) -> Iterator[Tensor]:
        stored, step = self._part("clean"), 4 * self.trunk_batch
        for a in range(0, len(positions), step):
            inputs = self._tensor(stored[positions[a : a + step]])
            release(stored)
            yield inputs

    def close(self, keep: bool) -> None:
        self._parts.clear()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def open_features(net: GradingNet, data: Dataset, p: Training, compute: Compute) -> Features:
    """The features of a recipe: stored if ``feature_store`` is true, else computed each time.

    Args:
        net: Network with its layers frozen; its trunk must not change afterwards.
        data: Images, split and targets.
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
