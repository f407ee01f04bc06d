"""Each fault of the released code (sources D5): what it does, and what the corrected setting does instead."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from drstudy.papers.glam import patches, released
from drstudy.papers.glam.recipe import FIXED, RELEASED, GlamRecipe
from drstudy.papers.glam.released import Settings


def system(**settings):
    given = {"crop": 32, "patches": 2, **settings}
    return released.build(2, Settings(**given), width=0.25, blocks=(1, 1, 1, 1)).eval()


def photographs(count=2, size=64):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(5))


# --- flat maps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_flat_maps_divide_by_nothing(level):
    flat = torch.full((2, 2, 5, 5), level)
    assert patches.propose(flat, 2, 2).tolist() == [[[0, 0], [0, 0]]] * 2, "the first window"
    marked = patches.propose(flat, 2, 2, flat="none")
    assert marked.tolist() == [[[-1, -1], [-1, -1]]] * 2
    assert not patches.proposed(marked).any()


def test_one_flat_class_does_not_hide_the_other():
    saliency = torch.full((1, 2, 4, 4), 0.5)
    saliency[0, 1, 2, 1] = 0.6
    assert patches.propose(saliency, 1, 1, flat="none").tolist() == [[[2, 1]]]


def test_more_patches_than_there_is_saliency():
    saliency = torch.zeros(1, 1, 4, 4)
    saliency[0, 0, 1, 1] = 1
    assert patches.propose(saliency, 2, 1).tolist() == [[[1, 1], [0, 0]]]
    assert patches.propose(saliency, 2, 1, flat="none").tolist() == [[[1, 1], [-1, -1]]]


def test_an_image_without_a_patch_has_no_local_score_and_an_untouched_global_map():
    net = system(flat="none", least=1.0, fusion="fixed").net
    with torch.no_grad():
        found = net(net.prepare(photographs()))
    assert not found.fine.proposed.any()
    assert found.fine.score.isnan().all()
    assert not found.covered.any()
    assert torch.equal(found.whole, net.enlarged(found.coarse, (64, 64)))


# --- a patch is always proposed --------------------------------------------------------------------------


def test_min_max_proposes_also_for_a_normal_image():
    """Saliency a thousand times lower gives the same patches, unless a least contrast is asked for."""
    saliency = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    normal = 0.001 * saliency
    found = patches.propose(saliency, 2, 3)
    assert patches.proposed(found).all()
    assert torch.equal(patches.propose(normal, 2, 3), found)
    assert not patches.proposed(patches.propose(normal, 2, 3, flat="none", least=0.01)).any()
    assert torch.equal(patches.propose(saliency, 2, 3, flat="none", least=0.01), found)


# --- patches over the border -------------------------------------------------------------------------------


def test_patches_over_the_border_are_misplaced():
    """At the right and bottom the released code pastes the wrong part; at the left and top both agree."""
    image = torch.arange(100.0).view(1, 1, 10, 10)
    for corner in ([8, 3], [2, 7], [8, 8]):
        corners = torch.tensor([[corner]])
        cut = patches.crop(image, corners, 4)
        right, covered = patches.paste(cut, corners, 4, (10, 10))
        assert torch.equal(right, torch.where(covered, image, 0.0)), "the pixels come back to where they were"
        wrong, same_place = patches.paste(cut, corners, 4, (10, 10), misplace=True)
        assert torch.equal(covered, same_place)
        assert not torch.equal(right, wrong)
    corners = torch.tensor([[[8, 7]]])
    maps = torch.arange(16.0).view(1, 1, 1, 4, 4)
    assert patches.paste(maps, corners, 4, (10, 10))[0][0, 0, 8:, 7:].tolist() == [[0, 1, 2], [4, 5, 6]]
    wrong, _ = patches.paste(maps, corners, 4, (10, 10), misplace=True)
    assert wrong[0, 0, 8:, 7:].tolist() == [[9, 10, 11], [13, 14, 15]], "the bottom right of the patch"
    corners = torch.tensor([[[-1, -2]]])
    right, wrong = (patches.paste(maps, corners, 4, (10, 10), misplace=m)[0] for m in (False, True))
    assert torch.equal(right, wrong)
    assert right[0, 0, :3, :2].tolist() == [[6, 7], [10, 11], [14, 15]]


def test_a_patch_inside_the_image_is_never_misplaced():
    maps = torch.rand(1, 2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    corners = torch.tensor([[[0, 0], [6, 6]]])
    right, wrong = (patches.paste(maps, corners, 4, (10, 10), misplace=m)[0] for m in (False, True))
    assert torch.equal(right, wrong)


# --- overlap -------------------------------------------------------------------------------------------------


def test_overlap_the_last_patch_wins_or_both_are_averaged():
    maps = torch.stack([torch.full((1, 4, 4), 0.2), torch.full((1, 4, 4), 0.8)])[None]
    corners = torch.tensor([[[0, 0], [0, 2]]])
    last, covered = patches.paste(maps, corners, 4, (4, 8))
    assert last[0, 0, 0].tolist() == pytest.approx([0.2, 0.2, 0.8, 0.8, 0.8, 0.8, 0, 0])
    mean, same = patches.paste(maps, corners, 4, (4, 8), "mean")
    assert mean[0, 0, 0].tolist() == pytest.approx([0.2, 0.2, 0.5, 0.5, 0.8, 0.8, 0, 0])
    assert torch.equal(covered, same)
    assert covered.sum() == 24


# --- blocky maps ---------------------------------------------------------------------------------------------


def test_nearest_upsampling_leaves_blocks():
    """A map of 4 x 4 positions has 16 values at most; a bilinear one has more."""
    for upsampling, blocky in (("nearest", True), ("bilinear", False)):
        net = system(upsampling=upsampling).net
        with torch.no_grad():
            large = net.enlarged(net.coarse(net.prepare(photographs())), (64, 64))
        assert (large[0, 0].unique().numel() <= 16) is blocky


# --- heads of stages 3 and 4 ------------------------------------------------------------------------------------


def seen_by_heads(closing):
    net = released.GlobalNet(3, 2, 0.25, closing=closing).eval()
    seen, stages = {}, {}
    for name in released.SCALES:
        net.heads[name].register_forward_pre_hook(lambda _, x, name=name: seen.update({name: x[0]}))
        net.stages[name].register_forward_hook(lambda _, __, x, name=name: stages.update({name: x}))
    with torch.no_grad():
        net(photographs())
    return net, seen, stages


def test_heads_of_stages_3_and_4_read_raw_sums():
    _, seen, stages = seen_by_heads("last")
    for name in ("stage3", "stage4"):
        assert torch.equal(seen[name], stages[name]), "what the residual block gave"
        assert (seen[name] < 0).any()
    assert (seen["stage5"] >= 0).all(), "after norm and ReLU"


def test_closing_norms_may_be_at_every_head():
    net, seen, stages = seen_by_heads("all")
    assert set(net.closing) == set(released.SCALES)
    for name in released.SCALES:
        assert torch.equal(seen[name], torch.relu(net.closing[name](stages[name])))


# --- the rest ---------------------------------------------------------------------------------------------------


def test_parameters_of_every_submodule_can_be_called():
    net = system()
    for name, module in net.named_modules():
        assert all(isinstance(q, nn.Parameter) for q in module.parameters()), name
    whole = sum(q.numel() for q in net.parameters())
    assert whole == sum(sum(q.numel() for q in part.parameters()) for part in net.net.children())


def test_grey_weights_sum_to_more_than_one():
    assert sum(released.GREY["released"]) == pytest.approx(1.03)
    assert sum(released.GREY["fixed"]) == pytest.approx(1.0)
    blue = torch.zeros(1, 3, 4, 4)
    blue[:, 2, 0] = 1
    blue[:, 0, 1] = 1
    found = {}
    for grey in released.GREY:
        glam = released.build(1, Settings(crop=2, grey=grey), 1, 0.1, (1, 1, 1, 1)).net
        found[grey] = glam.prepare(blue)[0, 0, :, 0]
    ratio = {name: ((x[0] - x[2]) / (x[1] - x[2])).item() for name, x in found.items()}
    assert ratio == pytest.approx({"released": 0.144 / 0.299, "fixed": 0.114 / 0.299}, rel=1e-5)


def test_every_oddity_has_a_released_and_a_fixed_value():
    assert RELEASED.keys() == FIXED.keys()
    assert all(RELEASED[name] != FIXED[name] for name in RELEASED)
    default = GlamRecipe(labels=("x",))
    assert {name: getattr(default, name) for name in RELEASED} == RELEASED
    fixed = GlamRecipe(labels=("x",), **FIXED)
    assert {name: getattr(fixed, name) for name in FIXED} == FIXED
