"""Views of images: the same seed, row and view give the same bytes; normalisation and size by hand."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest
import torch
from photographs import photograph

from drstudy.models.weights import IMAGENET_MEAN, IMAGENET_STD, LITE_MEAN, LITE_STD
from drstudy.training import transforms


@pytest.fixture(scope="module")
def eye():
    return transforms.channels_first(photograph(1, size=64))


def test_a_view_follows_from_seed_row_and_number_alone(eye):
    torch.manual_seed(1)
    first = transforms.augment(eye, 0, 5, 2)
    torch.manual_seed(2)
    for other in (1, 3, 4):
        transforms.augment(eye, 0, 5, other)
    assert torch.equal(first, transforms.augment(eye, 0, 5, 2))
    assert first.dtype == torch.uint8
    assert first.shape == eye.shape


def test_another_seed_row_or_view_looks_different(eye):
    first = transforms.augment(eye, 1, 12, 3)
    for numbers in ((2, 12, 3), (1, 13, 3), (1, 12, 4), (11, 2, 3), (1, 1, 23)):
        assert not torch.equal(first, transforms.augment(eye, *numbers)), numbers


def test_a_view_leaves_the_global_generators_where_they_were(eye):
    torch.manual_seed(3)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    transforms.augment(eye, 0, 0, 0)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()  # noqa: NPY002


def test_views_do_what_the_paper_names(eye):
    """Over many views: any angle, some grey, moderate colour, small translation."""
    views = [transforms.augment(eye, 0, 0, view) for view in range(200)]
    grey = np.mean([bool((view[0] == view[1]).all() and (view[1] == view[2]).all()) for view in views])
    # 4 standard errors around 10 %
    assert abs(grey - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 200)
    brightness = np.array([view.float().mean() for view in views]) / eye.float().mean().item()
    assert 0.6 < brightness.min() < 0.95
    assert 1.05 < brightness.max() < 1.4
    mark = torch.zeros(3, 101, 101, dtype=torch.uint8)
    mark[:, 50, 80:83] = mark[:, 49, 80:83] = 255  # right of the centre
    angles, radii = [], []
    for view in range(200):
        seen = transforms.augment(mark, 0, 1, view).float().mean(0)
        y, x = (
            np.average(np.indices(seen.shape).reshape(2, -1), axis=1, weights=seen.numpy().ravel() + 1e-9)
            - 50
        )
        angles.append(np.degrees(np.arctan2(y, x)))
        radii.append(np.hypot(x, y))
    # uniform angles fall in every sixth of the circle: one is missed with probability 6 (5/6)^200 < 1e-14
    assert set(np.floor((np.array(angles) + 180) / 60).clip(0, 5)) == set(range(6))
    # 31 px from the centre, moved by at most 5 % of 101 px each way, half a pixel for sampling
    assert np.abs(np.array(radii) - 31).max() < 0.05 * 101 * np.sqrt(2) + 0.5
    assert np.abs(np.array(radii) - 31).max() > 2, "it is moved at all"


def test_shown_augmentations_act_always(eye):
    torch.manual_seed(0)
    for name in transforms.AUGMENTATIONS:
        assert not torch.equal(transforms.always(name)(eye), eye), name
    for name in ("horizontal flip", "vertical flip", "random grey"):
        assert transforms.AUGMENTATIONS[name].p < 1, "the original is not changed by showing it"
    assert torch.equal(transforms.always("horizontal flip")(eye), eye.flip(-1))
    assert torch.equal(transforms.always("vertical flip")(eye), eye.flip(-2))


def test_normalise_by_hand():
    image = torch.tensor([0, 127, 255], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    found = transforms.normalise(image, IMAGENET_MEAN, IMAGENET_STD)
    expected = [(0 - 0.485) / 0.229, (127 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert found.dtype == torch.float32
    assert found[0, :, 0, 0].tolist() == pytest.approx(expected, abs=1e-6)  # float32 of numbers near 2
    lite = transforms.normalise(image, LITE_MEAN, LITE_STD)
    assert lite[0, :, 1, 1].tolist() == pytest.approx([-127 / 128, 0, 1], abs=1e-6)


def test_resize_by_an_independent_library(eye):
    assert torch.equal(transforms.resize(eye, 64), eye)
    half = transforms.resize(eye, 32)
    assert half.shape == (3, 32, 32)
    assert half.dtype == torch.uint8
    reference = cv2.resize(eye.permute(1, 2, 0).numpy(), (32, 32), interpolation=cv2.INTER_AREA)
    # a triangle filter against a box filter: they agree on average, not on each pixel of an edge
    difference = half.permute(1, 2, 0).numpy().astype(float) - reference
    assert abs(difference.mean()) < 0.5
    assert np.abs(difference).mean() < 3


def test_resize_averages_what_it_skips():
    """Bright columns just where a quarter of the size looks; without anti-aliasing all would be bright."""
    columns = np.isin(np.arange(128) % 4, (1, 2)) * np.uint8(254)
    stripes = torch.from_numpy(np.tile(columns, (128, 1))).expand(3, -1, -1)
    small = transforms.resize(stripes, 32)[:, 2:-2, 2:-2]
    assert (small.float() - 127).abs().max() <= 2


def test_to_input_keeps_order_of_images_and_channels():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[0, ..., 0] = 255
    images[1, :, 4:, 2] = 255
    found = transforms.to_input(images, 8, (0.0,) * 3, (1.0,) * 3)
    assert found.shape == (2, 3, 8, 8)
    assert found[0].mean((1, 2)).tolist() == [1, 0, 0]
    assert found[1, 2].mean(0).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_to_input_has_the_bytes_of_normalise():
    """The table of levels is no approximation; 256 levels in each channel, of an array that may not be written."""
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    images = np.concatenate([levels, levels[:, ::-1], levels.transpose(0, 2, 1, 3)], axis=3)
    images.flags.writeable = False
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = transforms.to_input(images, 16, mean, std)
    assert torch.equal(found, transforms.normalise(transforms.channels_first(images.copy()), mean, std))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(transforms.to_input(images, 16, list(mean), list(std)), found)
    assert not torch.equal(transforms.to_input(images, 16, (0.5,) * 3, std), found)


# --- masks that move with the photograph ---------------------------------------------------------------


def corner(size: int = 64) -> np.ndarray:
    """(size, size) bool without any symmetry, so that each turn and each flip shows."""
    mask = np.zeros((size, size), bool)
    mask[10:30, 12:20] = mask[22:30, 12:44] = True
    mask[44:50, 40:46] = True
    return mask


@pytest.mark.parametrize("number", range(8))
def test_masks_move_as_the_photograph_does(number):
    """A mask that equals a photograph of black and white. Colours change its levels, never its places; bilinear against nearest sampling
    may differ in the pixels of a border only."""
    mask = corner()
    picture = torch.from_numpy(np.repeat(mask[None], 3, 0).astype(np.uint8) * 255)
    masks = torch.from_numpy(np.stack([mask, ~mask]).astype(np.uint8))
    seen = transforms.view(picture, 64, 4, 9, number).float().mean(0)
    moved = transforms.view_masks(masks, 64, 4, 9, number)
    assert moved.shape == (2, 64, 64)
    assert moved.dtype == torch.uint8
    assert set(moved.unique().tolist()) <= {0, 1}
    white = seen > seen.max() / 2
    differing = white != moved[0].bool()
    inner = cv2.erode(moved[0].numpy(), np.ones((3, 3))) > 0
    outer = cv2.dilate(moved[0].numpy(), np.ones((3, 3))) > 0
    assert not (differing.numpy() & (inner | ~outer)).any()
    assert differing.float().mean() < 0.02
    assert moved[0].sum() > 250, "it did not leave the picture"
    assert not torch.equal(moved[0], masks[0])
    assert not (moved[0] & moved[1]).any(), "masks of one view move together"


def test_masks_move_exactly_like_a_channel_without_colour_changes(monkeypatch):
    """With nearest sampling for the photograph too, and no change of colours, mask and channel are equal in every pixel."""
    v2 = transforms.v2
    geometric = v2.Compose(
        [
            v2.RandomAffine(180, translate=(0.05, 0.05), interpolation=v2.InterpolationMode.NEAREST),
            transforms.AUGMENTATIONS["horizontal flip"],
            transforms.AUGMENTATIONS["vertical flip"],
        ]
    )
    monkeypatch.setattr(transforms, "_COMBINED", geometric)
    mask = torch.from_numpy(corner().astype(np.uint8))
    for number in range(20):
        seen = transforms.view(mask.expand(3, -1, -1).contiguous(), 64, 1, 2, number)
        moved = transforms.view_masks(mask[None], 64, 1, 2, number)
        assert torch.equal(seen[0], moved[0]), number


def test_masks_of_another_size_and_of_no_view():
    masks = torch.from_numpy(np.repeat(np.repeat(corner(), 2, 0), 2, 1).astype(np.uint8))[None]
    assert torch.equal(transforms.view_masks(masks, 64, 0, 0, -1)[0].bool(), torch.from_numpy(corner()))
    small = transforms.view_masks(masks, 64, 0, 3, 1)
    assert torch.equal(
        small, transforms.view_masks(torch.from_numpy(corner()[None].astype(np.uint8)), 64, 0, 3, 1)
    )
    empty = transforms.view_masks(torch.zeros((0, 64, 64), dtype=torch.uint8), 64, 0, 3, 1)
    assert empty.shape == (0, 64, 64)


def test_views_of_photographs_are_those_of_before():
    """Networks and stores that exist were made with these bytes, from before masks could be moved along. They are the same with AVX2."""
    image = transforms.channels_first(photograph(1, size=64))
    found = hashlib.sha256()
    for row, number in ((5, 0), (5, 1), (6, 0), (12, 3)):
        found.update(transforms.view(image, 64, 7, row, number).numpy().tobytes())
    assert found.hexdigest() == "a3f5e35b69529cc544e5cb56cf9669673bdf9772eef5e21afd41933c5036eb22"
