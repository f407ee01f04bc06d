"""Outlines as COCO documents, in pixels of the study's images and of the photographs that they were cut out of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from drstudy.data.images import Crop
from drstudy.explain.measures.outlines import Outline, fill, polygon

if TYPE_CHECKING:
    from drstudy.data.images import ImageStore


def document(
    found: Mapping[str, Sequence[Outline]], labels: Sequence[str], store: ImageStore
) -> dict[str, Any]:
    """Outlines as a COCO document, in pixels of the study's images.

    An annotation is one outline: ``segmentation`` is one :func:`drstudy.explain.measures.outlines.polygon`, ``area`` its pixels, ``bbox`` x, y, width,
    height, ``score`` the probability of the lesion. An image carries beside COCO's own fields the study's
    ``image_id``, the ``source`` file and the ``crop`` that was cut out of it, by which :func:`to_source` finds back.

    Args:
        found: image_id to its outlines; an eye without any has its place among the images.
        labels: Categories 1 to L, in this order.
        store: Where the eyes are.
    """
    made: dict[str, Any] = {
        "info": {
            "description": "Outlines of lesions cut out of class activation maps. Coordinates are of pixel edges: "
            "the centre of the first pixel is (0.5, 0.5)."
        },
        "images": [],
        "annotations": [],
        "categories": [
            {"id": number, "name": label, "supercategory": "lesion"} for number, label in enumerate(labels, 1)
        ],
    }
    for number, (image_id, outlines) in enumerate(found.items(), 1):
        crop = store.crop(image_id)
        made["images"].append(
            {
                "id": number,
                "file_name": f"images/{image_id}.png",
                "width": store.image_size,
                "height": store.image_size,
                "image_id": image_id,
                "source": str(store.index["path"].iloc[store.row(image_id)]),
                "crop": {name: getattr(crop, name) for name in ("x0", "y0", "side", "width", "height")},
            }
        )
        for outline in outlines:
            points = polygon(outline.rings)
            made["annotations"].append(
                {
                    "id": len(made["annotations"]) + 1,
                    "image_id": number,
                    "category_id": list(labels).index(outline.label) + 1,
                    "segmentation": [points.ravel().tolist()],
                    "bbox": _box(points),
                    "area": outline.area,
                    "iscrowd": 0,
                    "score": outline.score,
                }
            )
    return made


def _box(points: np.ndarray) -> list[float]:
    low, high = points.min(0), points.max(0)
    return [*low.tolist(), *(high - low).tolist()]


def on_photograph(points: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """Points of a study image as points of the photograph that it was cut out of.

    Exact where the photograph was decoded at full size; where the decoder shrank it by r, the store cut at whole
    shrunk pixels, which is up to r / 2 pixels of the photograph beside the noted corner.

    Args:
        points: (V, 2) x, y in pixel edges of the study image.
        crop: Result of :meth:`drstudy.data.images.ImageStore.crop`.
        size: Side of the study image.

    Returns:
        (V, 2) x, y in pixel edges of the upright photograph (turned as its EXIF tag says), not beyond its edges.
    """
    return np.clip(points * (crop.side / size) + (crop.x0, crop.y0), 0, (crop.width, crop.height))


def to_source(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same document in pixels of the upright photographs, to 0.01 pixel.

    Args:
        document: Result of :func:`document`, also after reading it from a file.
    """
    images, crops = [], {}
    for image in document["images"]:
        crop = Crop(**image["crop"])
        crops[image["id"]] = crop, image["width"]
        there = {"file_name": image["source"], "width": crop.width, "height": crop.height}
        images.append({name: value for name, value in image.items() if name != "crop"} | there)
    annotations = []
    for annotation in document["annotations"]:
        crop, size = crops[annotation["image_id"]]
        points = np.reshape(annotation["segmentation"][0], (-1, 2))
        points = on_photograph(points, crop, size).round(2)
        annotations.append(
            annotation
            | {
                "segmentation": [points.ravel().tolist()],
                "bbox": [round(number, 2) for number in _box(points)],
                "area": round(annotation["area"] * (crop.side / size) ** 2, 1),
            }
        )
    return {**document, "images": images, "annotations": annotations}


def masks_in(document: Mapping[str, Any]) -> dict[tuple[str, str], np.ndarray]:
    """What a COCO document outlines: (image_id, label) to (height, width) bool; without an outline there is no entry."""
    images = {image["id"]: image for image in document["images"]}
    names = {category["id"]: category["name"] for category in document["categories"]}
    polygons: dict[tuple[int, str], list[np.ndarray]] = {}
    for one in document["annotations"]:
        key = one["image_id"], names[one["category_id"]]
        polygons.setdefault(key, []).extend(np.reshape(flat, (-1, 2)) for flat in one["segmentation"])
    return {
        (images[number]["image_id"], label): fill(found, images[number]["height"], images[number]["width"])
        for (number, label), found in polygons.items()
    }
