"""From a coarse map to patches and back: pooling, proposals, crops and the pasted map, against hand values."""

from __future__ import annotations

import pytest
import torch

from drstudy.papers.glam import patches


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# --- pooling -----------------------------------------------------------------------------------------


def test_three_per_cent_of_the_released_map_are_662_positions():
    """A map of 1 at n positions and 0 elsewhere has the score min(n, count) / count (sources D2: 662 of 22,080)."""
    for ones, score in ((662, 1.0), (661, 661 / 662), (331, 0.5)):
        flat = torch.zeros(184 * 120)
        flat[torch.randperm(len(flat), generator=torch.Generator().manual_seed(1))[:ones]] = 1
        found = patches.top_mean(flat.view(1, 1, 184, 120), 0.03)
        assert found.item() == pytest.approx(score, abs=1e-6), "sums of float32 ones"


def test_top_mean_by_hand():
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[8.0, 5.0], [6.0, 7.0]]]])
    assert patches.top_mean(maps, 0.5).tolist() == [[3.5, 7.5]]
    assert patches.top_mean(maps, 1.0).tolist() == [[2.5, 6.5]]
    assert patches.top_mean(maps, 0.01).tolist() == [[4.0, 8.0]], "at least one position"
    low = maps.half()
    assert patches.top_mean(low, 0.5).dtype == torch.float32


def test_only_valid_positions_count():
    maps = noise(3, 2, 5, 6)
    valid = noise(3, 1, 5, 6, seed=1) > 0.4
    valid[1] = False
    valid[1, 0, 2, 3] = True
    found = patches.top_mean(maps, 0.3, valid)
    for image in range(3):
        for label in range(2):
            inside = maps[image, label][valid[image, 0]].sort(descending=True).values
            count = max(1, round(0.3 * len(inside)))
            assert found[image, label].item() == pytest.approx(inside[:count].mean().item(), rel=1e-6)
    assert torch.equal(found, patches.top_mean(maps, 0.3, valid.expand(-1, 2, -1, -1)))
    everywhere = torch.ones(3, 1, 5, 6, dtype=torch.bool)
    torch.testing.assert_close(patches.top_mean(maps, 0.3, everywhere), patches.top_mean(maps, 0.3))


def test_no_valid_position_is_no_score_and_harms_no_gradient():
    maps = noise(2, 1, 3, 3).requires_grad_()
    valid = torch.ones(2, 1, 3, 3, dtype=torch.bool)
    valid[0] = False
    score = patches.top_mean(maps, 0.2, valid)
    assert score[0].isnan().all()
    assert score[1].isfinite().all()
    score[1].sum().backward()
    assert maps.grad.isfinite().all()
    assert maps.grad[0].abs().sum() == 0
    assert (maps.grad[1] > 0).sum() == 2, "2 of 9 positions at 20 %"


def test_a_nan_in_a_map_is_not_hidden():
    maps = noise(1, 1, 3, 3)
    maps[0, 0, 1, 1] = torch.nan
    assert patches.top_mean(maps, 0.3).isnan().all()
    assert patches.top_mean(maps, 0.3, torch.ones(1, 1, 3, 3, dtype=torch.bool)).isnan().all()


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match="must be above 0 and at most 1"):
        patches.top_mean(noise(1, 1, 2, 2), share)


def test_a_mask_of_another_shape_is_refused():
    for shape in ((1, 1, 2, 3), (2, 1, 2, 2), (1, 3, 2, 2)):
        with pytest.raises(ValueError, match="Give one mask per image"):
            patches.top_mean(noise(1, 2, 2, 2), 0.5, torch.ones(shape, dtype=torch.bool))


# --- proposals ---------------------------------------------------------------------------------------


def slow_propose(saliency, count, height, width):
    """One image at a time, window by window."""
    found = []
    for image in saliency.double():
        left = sum((one - one.min()) / (one.max() - one.min()) for one in image)
        corners = []
        for _ in range(count):
            best = None
            for y in range(left.shape[0] - height + 1):
                for x in range(left.shape[1] - width + 1):
                    mean = left[y : y + height, x : x + width].mean().item()
                    if best is None or mean > best[0]:
                        best = (mean, y, x)
            _, y, x = best
            left[y : y + height, x : x + width] = 0
            corners.append([y, x])
        found.append(corners)
    return found


@pytest.mark.parametrize("window", [(2, 2), (3, 2), (1, 4), (5, 7)])
def test_proposals_are_those_of_a_plain_search(window):
    saliency = noise(4, 2, 5, 7) * torch.tensor([1.0, 0.01])[:, None, None]
    found = patches.propose(saliency, 3, window)
    assert found.dtype == torch.int64
    assert found.tolist()[0] == slow_propose(saliency, 3, *window)[0]
    if window != (5, 7):  # of a whole map, only the first proposal is one; then all is zero
        assert found.tolist() == slow_propose(saliency, 3, *window)


def test_each_class_counts_alike_however_low_its_map():
    saliency = torch.zeros(1, 2, 4, 4)
    saliency[0, 0, 0, 0] = 0.9
    saliency[0, 1, 3, 3] = 0.001
    assert patches.propose(saliency, 2, 1).tolist() == [[[0, 0], [3, 3]]]


@pytest.mark.parametrize("window", [0, 5, (2, 5)])
def test_a_window_that_does_not_fit_is_refused(window):
    with pytest.raises(ValueError, match="does not fit a map of 4 x 4"):
        patches.propose(noise(1, 1, 4, 4), 1, window)


def test_wrong_words_are_refused():
    with pytest.raises(ValueError, match="must be 'first' or 'none'"):
        patches.propose(noise(1, 1, 4, 4), 1, 2, flat="skip")
    with pytest.raises(ValueError, match="number of patches is 0"):
        patches.propose(noise(1, 1, 4, 4), 0, 2)
    with pytest.raises(ValueError, match="must be 'minimum' or 'edge'"):
        patches.crop(noise(1, 1, 4, 4), torch.zeros(1, 1, 2, dtype=torch.int64), 2, "zero")
    with pytest.raises(ValueError, match="must be 'overwrite' or 'mean'"):
        patches.paste(noise(1, 1, 1, 2, 2), torch.zeros(1, 1, 2, dtype=torch.int64), 2, (4, 4), "max")
    with pytest.raises(ValueError, match="must be 'released' or 'fixed'"):
        patches.fuse(noise(1, 1, 2, 2), noise(1, 1, 2, 2), noise(1, 1, 2, 2) > 0, "paper")
    with pytest.raises(ValueError, match="must be 'nearest' or 'bilinear'"):
        patches.enlarge(noise(1, 1, 2, 2), (4, 4), "bicubic")


def test_512_pixels_are_32_cells_of_the_released_grid():
    grid, image = (184, 120), (2944, 1920)
    assert patches.window_of(512, grid, image) == (32, 32)
    corners = torch.tensor([[[152, 88], [1, 2], [-1, -1]]])
    pixels = patches.to_pixels(corners, grid, image, 512).tolist()
    assert pixels == [[[2432, 1408], [16, 32], [-512, -512]]]
    assert image == (2432 + 512, 1408 + 512), "the last window ends with the image"


# --- crops and the pasted map --------------------------------------------------------------------------


def test_crops_by_hand():
    x = torch.arange(1.0, 13).view(1, 1, 3, 4)
    corners = torch.tensor([[[1, 1], [2, 3], [-1, -1], [-2, 0]]])
    found = patches.crop(x, corners, 2)
    assert found[0, :, 0].tolist() == [
        [[6, 7], [10, 11]],
        [[12, 1], [1, 1]],
        [[1, 1], [1, 1]],
        [[1, 1], [1, 1]],
    ]
    edge = patches.crop(x, corners[:, :2], 2, "edge")
    assert edge[0, :, 0].tolist() == [[[6, 7], [10, 11]], [[12, 12], [12, 12]]]


def test_crops_keep_channels_images_and_dtype_apart():
    x = noise(2, 3, 9, 8).half()
    corners = torch.tensor([[[0, 0], [4, 3]], [[5, 1], [2, 2]]])
    found = patches.crop(x, corners, 4)
    assert found.dtype == torch.float16
    for image in range(2):
        for patch, (y, right) in enumerate(corners[image].tolist()):
            assert torch.equal(found[image, patch], x[image, :, y : y + 4, right : right + 4])
    beyond = patches.crop(x, torch.tensor([[[20, 20]], [[20, 20]]]), 1)[:, 0, :, 0, 0]
    assert torch.equal(beyond, x.amin((2, 3))), "the minimum of each channel of each image"


def test_a_pasted_map_is_where_its_patch_was_cut():
    x = noise(2, 1, 12, 16)
    corners = torch.tensor([[[0, 0], [8, 12]], [[4, 8], [4, 0]]])
    cut = patches.crop(x, corners, 4)
    canvas, covered = patches.paste(cut, corners, 4, (12, 16))
    assert covered.sum((1, 2, 3)).tolist() == [32, 32]
    assert torch.equal(canvas, torch.where(covered, x, 0.0))


def test_small_patch_maps_are_enlarged_and_have_gradients():
    maps = noise(1, 1, 2, 2, 2).requires_grad_()
    corners = torch.tensor([[[1, 2]]])
    canvas, _ = patches.paste(maps, corners, 4, (6, 8))
    assert torch.equal(canvas[0, :, 1:5, 2:6], maps[0, 0].repeat_interleave(2, 1).repeat_interleave(2, 2))
    canvas.sum().backward()
    assert (maps.grad == 4).all(), "each value covers 4 pixels"
    smooth, _ = patches.paste(maps.detach(), corners, 4, (6, 8), upsampling="bilinear")
    assert smooth[0, 0, 1, 2] == maps[0, 0, 0, 0, 0]
    assert smooth[0].unique().numel() > canvas[0].unique().numel(), "no steps between its values"


def test_a_patch_that_was_not_proposed_leaves_no_trace():
    corners = torch.tensor([[[-4, -4], [2, 2]]])
    for misplace in (False, True):
        canvas, covered = patches.paste(torch.ones(1, 2, 1, 4, 4), corners, 4, (8, 8), misplace=misplace)
        assert covered.sum() == 16
        assert canvas.sum() == 16


def test_fusion_by_hand():
    global_, local = torch.full((1, 1, 1, 2), 0.6), torch.tensor([[[[0.2, 0.0]]]])
    covered = torch.tensor([[[[True, False]]]])
    released = patches.fuse(global_, local, covered, "released")
    assert released.flatten().tolist() == pytest.approx([0.4, 0.3]), "half of the global map outside"
    fixed = patches.fuse(global_, local, covered, "fixed")
    assert fixed.flatten().tolist() == pytest.approx([0.4, 0.6])
