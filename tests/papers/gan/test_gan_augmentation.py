"""Differentiable augmentation: the same for real and generated photographs, exact where it moves, with gradients."""

from __future__ import annotations

import pytest
import torch

from drstudy.papers.gan import augmentation
from drstudy.papers.gan.augmentation import Draw
from drstudy.papers.gan.recipe import POLICIES


def draw(count, **given):
    """Numbers of which nothing changes a photograph, but for those that are given: brightness, saturation, ..."""
    names = ("brightness", "saturation", "contrast", "down", "right", "row", "column")
    middle = {
        "brightness": 0.5,
        "saturation": 0.5,
        "contrast": 0.5,
        "down": 0.5,
        "right": 0.5,
        "row": 0.0,
        "column": 0.0,
    }
    return Draw(torch.tensor([[{**middle, **given}[name] for name in names]] * count))


def test_the_same_draw_changes_real_and_generated_photographs_alike():
    images = torch.rand(6, 3, 16, 16) * 2 - 1
    numbers = Draw.new(6, torch.Generator().manual_seed(1))
    as_real = augmentation.apply(images, numbers, POLICIES)
    as_generated = augmentation.apply(images.clone().requires_grad_(), numbers, POLICIES)
    assert torch.equal(as_real, as_generated.detach())
    assert not torch.equal(as_real, images)


def test_the_draws_of_processes_together_are_those_of_one():
    whole = Draw.new(5, torch.Generator().manual_seed(2))
    parts = [Draw.new(5, torch.Generator().manual_seed(2)).part(rank, 2) for rank in (0, 1)]
    assert torch.equal(whole.numbers[0::2], parts[0].numbers)
    assert torch.equal(whole.numbers[1::2], parts[1].numbers)


@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_agree_with_finite_differences(policy):
    images = (torch.rand(2, 3, 8, 8, dtype=torch.float64) * 2 - 1).requires_grad_()
    numbers = Draw(torch.rand(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))
    assert torch.autograd.gradcheck(lambda x: augmentation.apply(x, numbers, (policy,)), images)


def test_translation_moves_by_whole_pixels_and_fills_with_grey():
    images = torch.arange(16.0 * 16).view(1, 1, 16, 16).repeat(2, 3, 1, 1)
    down, left = draw(2, down=0.99, right=0.0), draw(2, down=0.5, right=0.0)  # at most an eighth of 16
    found = augmentation.apply(images, left, ("translation",))
    assert torch.equal(found[..., :14], images[..., 2:])
    assert found[..., 14:].eq(0).all()
    found = augmentation.apply(images, down, ("translation",))
    assert torch.equal(found[..., 2:, :14], images[..., :14, 2:])
    assert torch.equal(augmentation.apply(images, draw(2), ("translation",)), images)


def test_colour_by_hand():
    images = torch.tensor([0.5, 0.2, -0.1]).view(1, 3, 1, 1).repeat(1, 1, 4, 4)
    brighter = augmentation.apply(images, draw(1, brightness=1.0), ("colour",))
    assert torch.allclose(brighter, images + 0.5)
    grey = augmentation.apply(images, draw(1, saturation=0.0), ("colour",))
    assert torch.allclose(grey, torch.full_like(images, 0.2), atol=1e-6)
    flat = augmentation.apply(images, draw(1, contrast=0.0), ("colour",))
    assert torch.allclose(flat, 0.2 + (images - 0.2) / 2, atol=1e-6)


def test_cutout_takes_a_square_of_half_the_side():
    images = torch.ones(1, 3, 16, 16)
    found = augmentation.apply(images, draw(1, row=0.5, column=0.5), ("cutout",))
    assert found.eq(0).sum() == 3 * 8 * 8
    assert found[0, 0, 4:12, 4:12].eq(0).all()
    corner = augmentation.apply(images, draw(1), ("cutout",))
    assert corner.eq(0).sum() == 3 * 4 * 4, "a quarter of the square lies inside"


def test_unknown_augmentations_and_wrong_draws_are_refused():
    images = torch.zeros(2, 3, 8, 8)
    with pytest.raises(ValueError, match="There is no augmentation 'rotation'"):
        augmentation.apply(images, draw(2), ("rotation",))
    with pytest.raises(ValueError, match="for 3 photographs; 2 are given"):
        augmentation.apply(images, draw(3), ("colour",))
