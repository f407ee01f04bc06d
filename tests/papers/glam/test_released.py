"""The released networks: parameter counts, shapes, the global map and its score, and files of networks."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from drstudy.models.compat import torchvision
from drstudy.papers.glam import patches, released
from drstudy.papers.glam.released import Settings
from drstudy.training import prediction

resnet34 = torchvision.models.resnet34


def small(settings=None, **options):
    """A narrow system in evaluation mode: 64 x 64 pixels have a grid of 4 x 4."""
    settings = settings or Settings(crop=32, patches=2)
    return released.build(
        2, settings, **{"width": 0.25, "blocks": (1, 1, 1, 1), "channels": 3, **options}
    ).eval()


def photographs(count=3, size=64, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_parameter_counts_are_the_printed_ones():
    """2.80 M and 21.29 M (sources D2). The exact numbers follow from the layers."""
    found = released.parameters()
    widths, global_ = (16, 32, 64, 128, 256), 49 * 16
    for before, own in zip((16, *widths), widths):
        global_ += 2 * before + 9 * before * own + 2 * own + 9 * own * own + before * own  # with a shortcut
        global_ += 2 * (2 * own + 9 * own * own)
    global_ += 2 * 256 + 2 * (64 + 128 + 256)  # the closing norm, the heads
    assert found["parameters_global"] == global_ == 2_800_432
    with torch.device("meta"):
        reference = resnet34()
    known = sum(q.numel() for name, q in reference.named_parameters() if not name.startswith("fc"))
    assert found["parameters_local"] == known + 2 * 512 == 21_285_696
    assert [f"{count / 1e6:.2f}" for count in found.values()] == ["2.80", "21.29"]


def test_shapes_at_the_released_size():
    with torch.device("meta"):
        maps = released.GlobalNet()(torch.empty(1, 1, 2944, 1920))
        local = released.LocalNet()(torch.empty(2, 1, 512, 512))
    assert maps.shape == (1, 3, 2, 184, 120)
    assert maps[0, 0, 0].numel() == 22_080
    assert local.shape == (2, 2, 128, 128)


def test_stages_have_a_sixteenth_a_thirty_second_and_a_sixty_fourth_of_the_side():
    with torch.device("meta"):
        net = released.GlobalNet()
        x, sides = net.pool(net.conv(torch.empty(1, 1, 2944, 1920))), {}
        for name, stage in net.stages.items():
            x = stage(x)
            sides[name] = tuple(x.shape[1:])
    assert [sides[name] for name in released.SCALES] == [(64, 184, 120), (128, 92, 60), (256, 46, 30)]


def test_the_local_network_takes_the_weights_of_resnet34():
    with torch.device("meta"):
        theirs, ours = resnet34().state_dict(), released.LocalNet().state_dict()
    wanted = {name: value.shape for name, value in theirs.items() if not name.startswith("fc.")}
    assert {name: value.shape for name, value in ours.items() if name != "head.weight"} == wanted


def test_with_strides_it_would_be_resnet34():
    """Same weights, same layers: with torchvision's strides put in, activations before the head are equal to the bit."""
    torch.manual_seed(0)
    theirs, ours = resnet34().eval(), released.LocalNet().eval()
    ours.load_state_dict(theirs.state_dict(), strict=False)
    for name in ("layer2", "layer3", "layer4"):
        first = getattr(ours, name)[0]
        first.conv1.stride = first.downsample[0].stride = (2, 2)
    seen = []
    theirs.avgpool.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ours.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        theirs(photographs(1))
        ours(photographs(1))
    assert torch.equal(*seen)


def test_grey_patches_are_repeated():
    net = small().net.local_net
    grey = photographs()[:, :1]
    with torch.no_grad():
        assert torch.equal(net(grey), net(grey.repeat(1, 3, 1, 1)))


def test_the_global_map_and_the_scores_by_hand():
    net = small(Settings(crop=32, share=0.1)).net
    x = net.prepare(photographs())
    with torch.no_grad():
        found = net.coarse(x)
        maps = net.global_net(x)
    s3, s4, s5 = maps.unbind(1)
    torch.testing.assert_close(found.saliency, 0.2 * s3 + 0.6 * s4 + 0.2 * s5)
    tops = torch.stack(
        [one.flatten(2).sort(descending=True).values[..., :2].mean(2) for one in (s3, s4, s5)], 1
    )
    torch.testing.assert_close(found.scales, tops)  # 2 of 16 positions at 10 %
    torch.testing.assert_close(found.score, tops.mean(1))
    plain = ((s3 + s4 + s5) / 3).flatten(2).sort(descending=True).values[..., :2].mean(2)
    torch.testing.assert_close(found.averaged, plain)
    assert not torch.allclose(found.averaged, found.score), "two different predictions"


def test_the_local_score_pools_all_patches_together():
    net = small(Settings(crop=32, patches=3, local_share=0.3)).net
    with torch.no_grad():
        found = net(net.prepare(photographs()))
    assert found.fine.maps.shape == (3, 3, 2, 8, 8)
    joint = found.fine.maps.transpose(1, 2).flatten(2).sort(descending=True).values
    torch.testing.assert_close(found.fine.score, joint[..., : round(0.3 * 192)].mean(2))
    single = found.fine.maps.flatten(3).sort(descending=True).values[..., :19].mean(3).mean(1)
    assert not torch.allclose(found.fine.score, single), "not patch by patch"


def test_the_parts_fit_together():
    net = small(Settings(crop=32, patches=2, overlap="mean", misplace=False, fusion="fixed")).net
    x = net.prepare(photographs())
    with torch.no_grad():
        found = net(x)
        cut = patches.crop(x, found.fine.corners, 32)
        maps = net.local_net(cut.flatten(0, 1)).unflatten(0, (3, 2))
    assert torch.equal(maps, found.fine.maps)
    assert found.whole.shape == found.local.shape == (3, 2, 64, 64)
    large = net.enlarged(found.coarse, (64, 64))
    outside = ~found.covered.expand_as(large)
    assert torch.equal(found.whole[outside], large[outside])
    inside = ~outside
    assert torch.equal(found.whole[inside], ((found.local + large) / 2)[inside])
    assert inside.any()
    assert outside.any()


def test_no_gradient_goes_through_the_choice_of_patches():
    net = small().net
    net.fine(
        net.prepare(photographs()), net.coarse(net.prepare(photographs())).saliency
    ).score.sum().backward()
    assert all(q.grad is None for q in net.global_net.parameters())
    assert all(q.grad is not None for q in net.local_net.parameters())


def test_preparation_standardises_each_image():
    net = small(channels=1).net
    x = photographs() * torch.tensor([1.0, 100.0, 0.01])[:, None, None, None] + 7
    found = net.prepare(x)
    assert found.shape == (3, 1, 64, 64)
    torch.testing.assert_close(
        found.mean((1, 2, 3)), torch.zeros(3), atol=2e-3, rtol=0
    )  # 7 + 0.01 x in float32
    torch.testing.assert_close(found.std((1, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    uniform = net.prepare(torch.full((1, 3, 8, 8), 0.3))
    assert uniform.abs().max() < 1e-2, "rounding of 3e-8 is not blown up to contrast"


def test_logits_are_the_predictions():
    net = small()
    with torch.no_grad():
        logits, score = net(photographs()), net.net.coarse(net.net.prepare(photographs())).score
    torch.testing.assert_close(logits.sigmoid(), score)


def test_a_system_is_written_and_read(tmp_path):
    settings = Settings(crop=16, upsampling="bilinear", overlap="mean", misplace=False, patches=3)
    net = small(settings, channels=1, closing="all", seed=4)
    prediction.save(net, tmp_path / "glam.safetensors", 64)
    again = prediction.load(tmp_path / "glam.safetensors", released.rebuild)
    assert again.input_size == 64
    assert dataclasses.asdict(again.net.settings) == dataclasses.asdict(settings)
    with torch.no_grad():
        ours, theirs = (one.net(one.net.prepare(photographs())) for one in (net, again))
    assert torch.equal(ours.whole, theirs.whole)
    assert torch.equal(ours.fine.corners, theirs.fine.corners)


def test_the_seed_decides_the_weights():
    one, same, other = small(seed=1), small(seed=1), small(seed=2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters()))
    assert not torch.equal(one.net.global_net.conv.weight, other.net.global_net.conv.weight)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match=r"must be 1 \(grey\) or 3"):
        small(channels=2)
    with pytest.raises(ValueError, match="must be 'last' or 'all'"):
        small(closing="none")
    net = small(Settings(crop=128)).net
    with pytest.raises(ValueError, match="A window of 8 x 8 cells does not fit a map of 4 x 4"):
        net(net.prepare(photographs()))
