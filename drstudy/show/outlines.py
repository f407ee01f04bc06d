"""Outlines of lesions drawn on photographs, and written with their masks and documents."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from drstudy.core import paths
from drstudy.explain.measures import coco
from drstudy.explain.measures.outlines import Outline
from drstudy.show import style

if TYPE_CHECKING:
    from drstudy.data.images import ImageStore

OVERLAY_SIDE = 672
"""Smallest side of a written overlay, pixels: the photograph is enlarged by a whole number to reach it."""


def overlay(image: np.ndarray, outlines: Sequence[Outline], side: int = OVERLAY_SIDE) -> np.ndarray:
    """The photograph with its outlines, each named with its code and probability.

    Args:
        image: (S, S, 3) uint8 RGB.
        outlines: Outlines of the eye.
        side: Smallest side of the result.

    Returns:
        (kS, kS, 3) uint8 RGB, k the smallest whole number with kS >= ``side``.
    """
    factor = -(-side // len(image))
    drawn = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    for outline in outlines:
        lines = [np.rint(16 * (ring * factor - 0.5)).astype(np.int32) for ring in outline.rings]
        colour = rgb(outline.label)
        for thick, tone in ((5, (0, 0, 0)), (2, colour)):
            cv2.polylines(drawn, lines, True, tone, thick, cv2.LINE_AA, shift=4)
    for outline in outlines:
        x, y = outline.rings[0][outline.rings[0][:, 1].argmin()] * factor
        text, scale = f"{outline.label} {outline.score:.2f}", len(drawn) / 1200
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 2)
        at = int(np.clip(x - width / 2, 2, len(drawn) - width - 2)), int(max(y - 6, height + 2))
        for thick, tone in ((5, (0, 0, 0)), (1, rgb(outline.label))):
            cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, tone, thick, cv2.LINE_AA)
    return drawn


def rgb(label: str) -> tuple[int, ...]:
    """Colour of a lesion's outline as three whole numbers, 0 to 255."""
    return tuple(bytes.fromhex(style.LESIONS[label].colour.removeprefix("#")))


def export(
    folder: str | os.PathLike[str],
    found: Mapping[str, Sequence[Outline]],
    labels: Sequence[str],
    store: ImageStore,
) -> dict[str, Any]:
    """Write the outlines of several eyes, each file whole or not at all; masks of an earlier run are removed.

    ``outlines.json`` (COCO, on ``images/<image_id>.png``), ``outlines_source.json`` (the same on the photographs as
    they came), ``images/<image_id>.png``, ``overlays/<image_id>.png``, and ``masks/<image_id>_<CODE>.png`` (one bit a
    pixel, for lesions that are outlined), named as the phantom names its masks.

    Args:
        folder: May exist.
        found: image_id to the outlines of :func:`drstudy.explain.measures.outlines.trace`.
        labels: Codes, in the order of the categories.
        store: Where the eyes are.

    Returns:
        The document of :func:`drstudy.explain.measures.coco.document`.
    """
    folder, document = Path(folder), coco.document(found, labels, store)
    for image_id in found:
        for stale in (folder / f"masks/{image_id}_{label}.png" for label in labels):
            stale.unlink(missing_ok=True)
        image = np.ascontiguousarray(store.images[store.row(image_id)])
        _png(folder / f"images/{image_id}.png", image)
        _png(folder / f"overlays/{image_id}.png", overlay(image, found[image_id]))
    for (image_id, label), mask in coco.masks_in(document).items():
        _png(folder / f"masks/{image_id}_{label}.png", mask)
    for name, content in (("outlines.json", document), ("outlines_source.json", coco.to_source(document))):
        with paths.atomic(folder / name) as temporary:
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8", newline="\n")
    return document


def _png(path: Path, array: np.ndarray) -> None:
    """Write an RGB picture, or a mask with one bit a pixel."""
    from PIL import Image

    with paths.atomic(path) as temporary:
        Image.fromarray(array).save(temporary)
