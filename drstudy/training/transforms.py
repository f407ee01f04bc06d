"""The paper's augmentations, and the way from stored bytes to a network's input.

The paper names random rotation, flips, translation, random grey and random colour change, with no ranges (``docs/sources.md``, A1);
the ranges here are ours: any angle, since a fundus is round; 5 % translation; grey in one image of ten; mild changes of brightness,
contrast and saturation.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import Tensor

from drstudy.models.compat import torchvision

v2 = torchvision.transforms.v2

AUGMENTATIONS: dict[str, v2.Transform] = {
    "rotation": v2.RandomRotation(180, interpolation=v2.InterpolationMode.BILINEAR),
    "horizontal flip": v2.RandomHorizontalFlip(0.5),
    "vertical flip": v2.RandomVerticalFlip(0.5),
    "translation": v2.RandomAffine(0, translate=(0.05, 0.05), interpolation=v2.InterpolationMode.BILINEAR),
    "random grey": v2.RandomGrayscale(0.1),
    "colour change": v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
}
"""Augmentations by the paper's names, in the order of its text. In use, rotation and translation are one resampling."""

_COMBINED = v2.Compose(
    [
        v2.RandomAffine(180, translate=(0.05, 0.05), interpolation=v2.InterpolationMode.BILINEAR),
        *(
            AUGMENTATIONS[name]
            for name in ("horizontal flip", "vertical flip", "random grey", "colour change")
        ),
    ]
)


def always(name: str) -> v2.Transform:
    """One of :data:`AUGMENTATIONS` with probability 1, to show what it does."""
    change = copy.copy(AUGMENTATIONS[name])
    if hasattr(change, "p"):
        change.p = 1.0
    return change


def resize(images: Tensor, size: int) -> Tensor:
    """(..., 3, H, W) uint8 to (..., 3, size, size) uint8, anti-aliased; unchanged if the size already fits."""
    if images.shape[-2:] == (size, size):
        return images
    return v2.functional.resize(
        images, [size, size], interpolation=v2.InterpolationMode.BILINEAR, antialias=True
    )


def channels_first(images: np.ndarray) -> Tensor:
    """(N, S, S, 3) or (S, S, 3) uint8 array to a tensor with the channels before height and width."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, -3)))


def augment(image: Tensor, seed: int, row: int, view: int) -> Tensor:
    """View ``view`` of image ``row``: the same three numbers always give the same bytes, in any order and process.

    Args:
        image: (3, H, W) uint8.
        seed: Seed of the recipe.
        row: Row of the image in the image store.
        view: Number of the view, 0 or more.

    Returns:
        (3, H, W) uint8.
    """
    with _drawn(seed, row, view):
        return _COMBINED(image)


@contextlib.contextmanager
def _drawn(seed: int, row: int, view: int) -> Iterator[None]:
    """Random numbers that follow from these three inside; the global generator goes on afterwards as if nothing had been."""
    digest = hashlib.sha256(f"{seed}/{row}/{view}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        yield


def view(image: Tensor, size: int, seed: int, row: int, number: int) -> Tensor:
    """View ``number`` of image ``row`` at the network's size, on the device of the image.

    Args:
        image: (3, H, W) uint8.
        size: Side of the view, pixels.
        seed: Seed of the recipe.
        row: Row of the image in the image store.
        number: Number of the view; a negative one is the image without augmentation.

    Returns:
        (3, size, size) uint8.
    """
    image = resize(image, size)
    return image if number < 0 else augment(image, seed, row, number)


def view_masks(masks: Tensor, size: int, seed: int, row: int, number: int) -> Tensor:
    """Masks moved as :func:`view` moves the photograph of the same numbers: turned, flipped and shifted, no colours changed.

    Args:
        masks: (L, H, W) uint8, 0 or 1.
        size, seed, row, number: As of :func:`view`.

    Returns:
        (L, size, size) uint8, 0 or 1, sampled at the nearest pixel.
    """
    if masks.shape[-2:] != (size, size):
        masks = v2.functional.resize(masks, [size, size], interpolation=v2.InterpolationMode.NEAREST)
    if number < 0:
        return masks
    picture = torch.zeros((3, size, size), dtype=torch.uint8)
    with _drawn(seed, row, number):
        return _COMBINED(picture, torchvision.tv_tensors.Mask(masks))[1].as_subclass(Tensor)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(N, 3, H, W) uint8 to float32, ``(x / 255 - mean) / std``."""
    return v2.functional.normalize(
        v2.functional.to_dtype(images, torch.float32, scale=True), list(mean), list(std)
    )


def to_input(images: np.ndarray, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Stored images as a network takes them, not augmented.

    Args:
        images: (N, S, S, 3) uint8 RGB.
        size: Side of the input, pixels.
        mean, std: Channel means and standard deviations that belong to the network's weights.

    Returns:
        (N, 3, size, size) float32: the bytes of :func:`normalise`. If nothing is resized, in channels-last memory, as the images are.
    """
    if images.shape[1:] != (size, size, 3):
        return normalise(resize(channels_first(images), size), mean, std)
    table, found = _levels(tuple(mean), tuple(std)), np.empty(images.shape, np.float32)
    for image, place in zip(images, found):
        cv2.LUT(np.ascontiguousarray(image), table, dst=place)
    return torch.from_numpy(found).permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=8)
def _levels(mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """What :func:`normalise` makes of each of the 256 levels of each channel, (1, 256, 3) float32."""
    levels = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    return np.ascontiguousarray(normalise(levels, mean, std)[0, :, 0].numpy().T)[None]
