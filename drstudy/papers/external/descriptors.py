"""What a frozen network says of a photograph: mean, maximum and deviation of its maps at several depths, computed once and stored.

The last maps say what kind of picture it is. Those of stride 8 and 16 are finer, which small lesions need. A photograph
is seen plain or with its local contrast raised, and as it is or mirrored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from drstudy.core import code, paths
from drstudy.core.devices import Compute
from drstudy.models import folding, stages
from drstudy.models.nets import GradingNet
from drstudy.models.weights import digest_of
from drstudy.papers.external import cohorts
from drstudy.papers.external.cohorts import Cohort
from drstudy.training import prediction

PLAIN, CONTRAST = "plain", "contrast"
LOOKS = (PLAIN, CONTRAST)

LAST, MIDDLE, FINE = "last", "stride 16", "stride 8"
DEPTHS = (LAST, MIDDLE, FINE)
"""Maps that are described: the last before pooling, and the ends of the stages of stride 16 and 8."""

STATISTICS = ("mean", "maximum", "deviation")

MADE_BY = (
    "drstudy.models.",
    "drstudy.training.transforms",
    "drstudy.papers.external.descriptors",
    "drstudy.papers.external.cohorts",
)
"""Beginnings of the modules whose code makes what is stored."""


def local_contrast(image: np.ndarray) -> np.ndarray:
    """The photograph minus its own blur, four times as strong, about grey; the rim of the field is grey.

    It takes away the illumination and most of the camera's colour. Source: Graham 2015 (docs/sources.md, H3); the width of the blur is a
    thirtieth of the side, and the rim begins at 93 % of the radius (ours).

    Args:
        image: (S, S, 3) uint8 RGB, a crop of the field of view.

    Returns:
        (S, S, 3) uint8.
    """
    size = image.shape[0]
    blurred = cv2.GaussianBlur(image, (0, 0), size / 30)
    raised = cv2.addWeighted(image, 4, blurred, -4, 128)
    across = np.linspace(-1, 1, size)
    inside = np.hypot(across[:, None], across[None]) <= 0.93
    return np.where(inside[..., None], raised, 128).astype(np.uint8)


def describe(
    net: GradingNet, cohort: Cohort, size: int, look: str, mirrored: bool, compute: Compute
) -> dict[str, np.ndarray]:
    """Statistics of the maps of every photograph of a set, stored in ``data/features`` and read from there the next time.

    Args:
        net: EfficientNet-Lite, ResNet or DenseNet; see :func:`drstudy.models.stages.stages`.
        cohort: The photographs, N.
        size: Side of the input, pixels.
        look: Of :data:`LOOKS`.
        mirrored: Whether the photographs are mirrored left to right.
        compute: Device and precision.

    Returns:
        Each of :data:`DEPTHS` to (N, 3, C) float32, in the order of :data:`STATISTICS`.
    """
    file = (
        paths.data()
        / "features"
        / f"described-{net.backbone}-{_key(net, cohort, size, look, mirrored, compute)}.npz"
    )
    if not file.is_file():
        found = _computed(net, cohort, size, look, mirrored, compute)
        file.parent.mkdir(parents=True, exist_ok=True)
        with paths.atomic(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **{depth.replace(" ", "_"): values for depth, values in found.items()})
    return _read(file)


def _read(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as stored:
        return {depth: stored[depth.replace(" ", "_")] for depth in DEPTHS}


def _key(net: GradingNet, cohort: Cohort, size: int, look: str, mirrored: bool, compute: Compute) -> str:
    digest = hashlib.sha256(digest_of(net.state_dict()).encode())
    digest.update(cohort.table[["image_id", "row"]].to_csv().encode())
    made = code.digests(name for name in code.closure({__name__}) if name.startswith(MADE_BY))
    device = (compute.device.split(":")[0], compute.precision, torch.__version__)
    digest.update(repr((cohort.key, cohort.camera, size, look, mirrored, device, made)).encode())
    return digest.hexdigest()[:16]


def _computed(
    net: GradingNet, cohort: Cohort, size: int, look: str, mirrored: bool, compute: Compute
) -> dict[str, np.ndarray]:
    net.eval()
    names = stages.stages(net)
    folded = folding.folded(net, size, compute.dtype)
    kept: dict[str, torch.Tensor] = {}

    def keep(depth: str):
        return lambda _module, _given, output: kept.__setitem__(depth, output)

    hooks = [
        folded.net.get_submodule(names[stride]).register_forward_hook(keep(depth))
        for stride, depth in ((8, FINE), (16, MIDDLE))
    ]
    last = list(net.cam_layers)[-1]

    def statistics(photographs: torch.Tensor) -> dict[str, torch.Tensor]:
        with folded.record(last) as box:
            folded(photographs)
        return {depth: _pooled(maps) for depth, maps in ({LAST: box[last]} | kept).items()}

    parts: dict[str, list[np.ndarray]] = {depth: [] for depth in DEPTHS}
    images = _Changed(cohort, look, mirrored)
    for _, found in prediction.in_batches(
        statistics, folded, images, np.arange(len(cohort.table)), size, compute
    ):
        for depth, values in found.items():
            parts[depth].append(values.float().cpu().numpy())
    for hook in hooks:
        hook.remove()
    return {depth: np.concatenate(values) for depth, values in parts.items()}


def _pooled(maps: torch.Tensor) -> torch.Tensor:
    """(N, C, h, w) to (N, 3, C): mean, maximum and standard deviation over all places."""
    flat = maps.float().flatten(2)
    return torch.stack([flat.mean(2), flat.amax(2), flat.std(2)], dim=1)


class _Changed:
    """Photographs of a set as an array that is indexed by lists of rows and changes each photograph when it is read."""

    def __init__(self, cohort: Cohort, look: str, mirrored: bool) -> None:
        self.cohort, self.look, self.mirrored = cohort, look, mirrored
        self.rows = cohort.table["row"].to_numpy()

    def __getitem__(self, some: Sequence[int]) -> np.ndarray:
        images = np.stack([self.cohort.images[row] for row in self.rows[some]])
        if self.cohort.camera:
            images = cohorts.camera(images)
        if self.look == CONTRAST:
            images = np.stack([local_contrast(image) for image in images])
        return images[:, :, ::-1] if self.mirrored else images
