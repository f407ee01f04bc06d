"""How far each layer of the study depends on the processor: the same computation under every kind that can be emulated here.

    python tests/layers.py                 a table in Markdown: which layers are equal to the bit, and to how many digits the others
    python tests/layers.py LAYER ...       the same for the named layers

A *layer* is computed from inputs that are the same everywhere: whole numbers, or what a generator draws in double precision. So a
difference is that of the layer and not of what comes before it.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import processors

if TYPE_CHECKING:
    import torch

    from drstudy.models.nets import GradingNet

Found = dict[str, np.ndarray]

LAYERS: dict[str, Callable[[], Found]] = {}
"""Name of a layer to what computes it: named arrays."""

EQUAL = "equal to the bit"

EXACT = [
    "phantom_plan",
    "phantom_masks",
    "image_store",
    "image_hashes",
    "split",
    "sampling_draws",
    "metrics_of_predictions",
    "bootstrap_draws",
    "bootstrap_intervals",
    "calibration_tables",
    "temperature",
    "heat_shares",
    "lesion_detection",
    "heat_intervals",
]
"""Layers that must be equal to the bit under every kind; a test holds them to it."""


def layer(function: Callable[[], Found]) -> Callable[[], Found]:
    """Register a layer under its function's name, with its docstring as description."""
    LAYERS[function.__name__] = function
    return function


def bits(frame: pd.DataFrame) -> np.ndarray:
    """A table as bytes, every digit of its numbers kept."""
    return np.frombuffer(frame.to_csv(index=False).encode(), np.uint8)


@functools.cache
def eyes() -> list:
    """Phantom eyes of every difficulty that the tests render, small ones."""
    from drstudy.data.phantom import PhantomConfig, render

    shapes = ((0, 256), (1, 384))
    configs = [PhantomConfig(n_patients=4, size=size, seed=seed) for seed, size in shapes]
    return [render(config, eye) for config in configs for eye in range(8)]


@functools.cache
def photographs() -> np.ndarray:
    """Square pictures (6, 160, 160, 3) uint8 of discs with spots, from whole numbers alone."""
    random = np.random.default_rng(5)
    y, x = np.mgrid[:160, :160]
    field = ((x - 80) ** 2 + (y - 80) ** 2 < 75**2)[..., None]
    rough = random.integers(60, 200, (6, 20, 20, 3)).repeat(8, 1).repeat(8, 2)
    fine = random.integers(0, 40, (6, 160, 160, 3))
    return ((rough + fine) * field).astype(np.uint8)


@functools.cache
def predictions() -> pd.DataFrame:
    """Predictions of 300 eyes of 150 patients, shares of whole numbers."""
    random = np.random.default_rng(3)
    grade = random.integers(0, 5, 300)
    counts = random.integers(1, 40, (300, 5)) + 25 * (np.arange(5) == grade[:, None])
    share = counts / counts.sum(1, keepdims=True)
    names = pd.DataFrame(
        {"image_id": [f"{i:03d}" for i in range(300)], "patient_id": [f"p{i // 2:03d}" for i in range(300)]}
    )
    return names.assign(split="test", grade=grade, **{f"p{k}": share[:, k] for k in range(5)})


# --- data ------------------------------------------------------------------------------------------


@layer
def phantom_plan() -> Found:
    """Phantom: grades, labels and cameras of the plan"""
    from drstudy.data.phantom import PhantomConfig, plan

    return {"plan": bits(plan(PhantomConfig(n_patients=200, label_noise=0.1)))}


@layer
def phantom_masks() -> Found:
    """Phantom: masks of lesions and anatomy (the share of pixels that differ)"""
    return {f"{n} {code}": mask for n, eye in enumerate(eyes()) for code, mask in eye.masks.items()}


@layer
def phantom_lesions() -> Found:
    """Phantom: place, size and strength of the lesions"""
    return {str(n): eye.lesions.select_dtypes("number").to_numpy(float) for n, eye in enumerate(eyes())}


@layer
def phantom_photographs() -> Found:
    """Phantom: pixels of the photographs (levels of 0 to 255)"""
    return {str(n): eye.image for n, eye in enumerate(eyes())}


@layer
def image_store() -> Found:
    """Image store: decoded, cropped and shrunk pixels"""
    return {"pixels": stored()[0]}


@layer
def image_measures() -> Found:
    """Image store: measures of quality"""
    return {"measures": stored()[1]}


@layer
def image_hashes() -> Found:
    """Image store: field of view, perceptual hashes, notes"""
    return {"table": stored()[2]}


@functools.cache
def stored() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, real-valued measures and all other columns of a small store made of the same files."""
    import cv2

    from drstudy.data import images

    cv2.setNumThreads(1)
    found, records = [], []
    for picture in photographs():
        large = picture.repeat(3, 0).repeat(3, 1)
        for suffix in (".png", ".jpg"):
            done, content = cv2.imencode(suffix, large)
            assert done
            image, record = images.prepare(content.tobytes(), suffix, 128, 120.0)
            found.append(image)
            records.append(record)
    frame = pd.DataFrame(records)
    real = frame.select_dtypes("float")
    return np.stack(found), real.to_numpy(), bits(frame.drop(columns=[*real.columns]))


@layer
def split() -> Found:
    """Split by patient, in strata of grades"""
    from drstudy.data import splits

    frame = predictions()[["image_id", "patient_id", "grade"]].astype({"grade": "Int64"})
    return {"split": bits(splits.make(frame, (0.6, 0.15, 0.25), seed=1))}


@layer
def sampling_draws() -> Found:
    """Oversampling: the images that an epoch draws, for every sampler"""
    import torch

    from drstudy.training import sampling

    grades = predictions()["grade"].to_numpy()
    return {
        name: sampling.draw(name, grades, torch.Generator().manual_seed(4)).numpy()
        for name in sampling.SAMPLERS
    }


@layer
def augmentation() -> Found:
    """Augmented views (levels of 0 to 255)"""
    import torch

    from drstudy.training import transforms

    torch.set_num_threads(1)
    return {
        f"{n} {view}": transforms.view(transforms.channels_first(picture), 96, 0, n, view).numpy()
        for n, picture in enumerate(photographs())
        for view in range(4)
    }


# --- numbers from given predictions and maps --------------------------------------------------------


@layer
def metrics_of_predictions() -> Found:
    """Metrics of given predictions"""
    from drstudy.evaluation import metrics

    return {name: np.array([value]) for name, value in metrics.evaluate(predictions()).items()}


@layer
def bootstrap_draws() -> Found:
    """Bootstrap: which patients each resample draws"""
    from drstudy.evaluation import statistics

    return {"counts": statistics.resample_counts(predictions()["patient_id"], 500, 0)}


@layer
def bootstrap_intervals() -> Found:
    """Bootstrap: intervals of the metrics of given predictions"""
    from drstudy.evaluation import statistics

    numbers = {}
    for method in ("percentile", "bca"):
        found = statistics.bootstrap(predictions(), 500, 0, method)
        numbers |= {
            f"{method} {row['metric']}": np.array([row["lo"], row["hi"]]) for _, row in found.iterrows()
        }
    return numbers


@layer
def calibration_tables() -> Found:
    """Calibration, operating points and decision curves of given predictions"""
    from drstudy.evaluation import calibration

    half = predictions().iloc[:150], predictions().iloc[150:]
    tables = {
        "summary": calibration.summary(half[1], 200, 0),
        "points": calibration.operating_points(*half, (0.8, 0.9), 200, 0),
        "curve": calibration.decision_curve(half[1], (0.1, 0.3, 0.5), 200, 0),
    }
    return {name: table.select_dtypes("number").to_numpy(float) for name, table in tables.items()}


@layer
def temperature() -> Found:
    """Temperature fitted to given predictions"""
    from drstudy.evaluation import calibration

    return {"temperature": np.array([calibration.fit_temperature(predictions())])}


@functools.cache
def _heat() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    from drstudy.explain.measures import localisation

    random = np.random.default_rng(9)
    y, x = np.mgrid[:96, :96]
    several = []
    for eye in range(12):
        heat = random.integers(0, 100, (2, 12, 12)).repeat(8, 1).repeat(8, 2).astype(np.float32) / 7

        def disc(r: int) -> np.ndarray:
            a, b = random.integers(25, 70, 2)
            return ((x - a) ** 2 + (y - b) ** 2 < r**2).astype(np.float32)

        masks = {
            "FOV": (x - 48) ** 2 + (y - 48) ** 2 < 46**2,
            "DISC": disc(8),
            "VESSEL": disc(12),
            "FOVEA": disc(5),
        }
        masks |= {"MA": disc(2), "HE": disc(6), "EX": disc(4) * 0.37, "SE": np.zeros((96, 96), np.float32)}
        whole, single = localisation.measure_eye(heat, masks)
        several.append((whole.assign(image_id=f"{eye:02d}", layer="a"), single))
    whole, single = (pd.concat(tables, ignore_index=True) for tables in zip(*several))
    whole = whole[whole["map"] == 0]
    summary = localisation.summarise(whole, {f"{e:02d}": f"p{e:02d}" for e in range(12)}, 200, 0)
    return whole, single, summary


@layer
def heat_shares() -> Found:
    """Heat on masks, for given maps"""
    numbers = _heat()[0].select_dtypes("number")
    return {name: numbers[name].to_numpy(float) for name in numbers}


@layer
def lesion_detection() -> Found:
    """Lesions found by given maps"""
    numbers = _heat()[1].select_dtypes("number")
    return {name: numbers[name].to_numpy(float) for name in numbers}


@layer
def heat_intervals() -> Found:
    """Means of the heat over eyes with intervals, for given maps"""
    numbers = _heat()[2].select_dtypes("number")
    return {name: numbers[name].to_numpy(float) for name in numbers}


# --- networks ----------------------------------------------------------------------------------------


@layer
def network_outputs() -> Found:
    """Probabilities of the pretrained EfficientNet-Lite0, for given pictures"""
    import torch

    net, x = _network()
    with torch.no_grad():
        return {"p": net(x).softmax(1).numpy()}


@layer
def heat_maps() -> Found:
    """Grad-CAM maps of the pretrained EfficientNet-Lite0, for given pictures"""
    import torch

    from drstudy.explain.methods import cam

    net, x = _network()
    with torch.no_grad():
        h = net.trunk(x)
    return {name: maps.raw.numpy() for name, maps in cam.grad_cam(net, h, None).items()}


def _network() -> tuple[GradingNet, torch.Tensor]:
    import torch

    from drstudy.core import devices
    from drstudy.models import nets
    from drstudy.training import transforms

    torch.set_num_threads(1)
    devices.deterministic(0)
    net = nets.build("efficientnet_lite0", weights="bundled").eval()
    x = torch.stack([transforms.channels_first(picture) for picture in photographs()])
    return net, transforms.normalise(x, net.mean, net.std)


# --- comparison --------------------------------------------------------------------------------------


def compute(names: list[str], kind: str) -> dict[str, Found]:
    """The layers, computed by a process of its own under a kind of processor."""
    with tempfile.TemporaryDirectory(prefix="drstudy-layers-") as folder:
        file = Path(folder) / "found.npz"
        command = [sys.executable, str(Path(__file__).resolve()), "--to", str(file), *names]
        environment = processors.environment(kind) | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{kind}: {done.stderr[-3000:]}")
        found: dict[str, Found] = {name: {} for name in names}
        with np.load(file) as arrays:
            for key in arrays.files:
                name, part = key.split("|", 1)
                found[name][part] = arrays[key]
        return found


def same(a: Found, b: Found) -> bool:
    """Whether two results are equal to the bit."""
    return a.keys() == b.keys() and all(
        a[key].dtype == b[key].dtype and a[key].shape == b[key].shape and a[key].tobytes() == b[key].tobytes()
        for key in a
    )


def agreement(a: Found, b: Found) -> str:
    """In words: equal to the bit, or by how much two results differ."""
    if same(a, b):
        return EQUAL
    if a.keys() != b.keys() or any(a[key].shape != b[key].shape for key in a):
        return "another number of entries"
    differing = sum(int((x != y)[~(nan(x) & nan(y))].sum()) for x, y in ((a[k], b[k]) for k in a))
    total = sum(x.size for x in a.values())
    if all(x.dtype.kind in "biu" for x in a.values()):
        largest = max(int(np.abs(x.astype(int) - b[key].astype(int)).max(initial=0)) for key, x in a.items())
        return f"{differing} of {total} entries differ, by at most {largest}"
    relative = [
        np.nanmax(np.abs(x - b[key]), initial=0) / max(np.nanmax(np.abs(x), initial=0), 1e-300)
        for key, x in a.items()
    ]
    return f"{-np.log10(max(max(relative), 1e-17)):.1f} digits"


def nan(values: np.ndarray) -> np.ndarray:
    """Where there is no number."""
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)


def table(names: list[str]) -> str:
    """The comparison of every kind with the processor as it is, in Markdown."""
    kinds = processors.available()
    native = compute(names, "native")
    others = {kind: compute(names, kind) for kind in kinds}
    lines = ["| layer | " + " | ".join(kinds) + " |", "|---" * (1 + len(kinds)) + "|"]
    for name in names:
        words = [agreement(native[name], others[kind][name]) for kind in kinds]
        lines.append(f"| {LAYERS[name].__doc__} | {' | '.join(words)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("layers", nargs="*", help=f"default: all; there are {', '.join(LAYERS)}")
    parser.add_argument("--to", type=Path, help="compute here and write the arrays to this file (.npz)")
    chosen = parser.parse_args()
    names = chosen.layers or list(LAYERS)
    if chosen.to:
        arrays = {f"{name}|{part}": found for name in names for part, found in LAYERS[name]().items()}
        np.savez(chosen.to, **arrays)
    else:
        print(table(names))


if __name__ == "__main__":
    main()
