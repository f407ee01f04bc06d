"""Grad-CAM against hand formulas and against the grad-cam package."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from untrained import network

from drstudy.core import devices
from drstudy.explain.methods import cam
from drstudy.models import compat, nets  # noqa: F401  (before grad-cam, which imports torchvision)
from drstudy.training import transforms

from pytorch_grad_cam import GradCAM  # isort: skip
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # isort: skip

TARGET = torch.tensor([0, 3, 4])
FLOAT32 = 1e-5
"""Relative to a map's largest value: sums of a thousand float32 products in another order; eps is 1.2e-7."""


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """These networks are so small that threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def densenet():
    return network("densenet121")


@pytest.fixture(scope="module")
def photographs():
    torch.manual_seed(3)
    return torch.rand(3, 3, 96, 96)


def explain(net, x, target=TARGET, layers=None):
    with torch.no_grad():
        h = net.trunk(x)
    return cam.grad_cam(net, h, target, layers)


def reference(model, layer, x, target):
    """The package's maps: signed and unscaled as the layer has them, and its final ones, scaled to 0..1."""
    raw = []

    class Recorded(GradCAM):
        def get_cam_image(self, *args, **kwargs):
            raw.append(super().get_cam_image(*args, **kwargs))
            return raw[-1]

    for parameter in model.parameters():
        parameter.requires_grad_(True)  # it finds no gradient behind frozen layers
    explainer = Recorded(model, [layer])
    final = explainer(x, [ClassifierOutputTarget(int(t)) for t in target])
    explainer.activations_and_grads.release()
    return raw[0], final


def as_modules(net):
    """A DenseNet whose last ReLU is a module that the package can hook."""
    features = net.net.features
    return nn.Sequential(features, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.net.classifier)


def close(found, expected, tolerance=FLOAT32):
    expected = np.asarray(expected)
    assert np.abs(np.asarray(found) - expected).max() <= tolerance * np.abs(expected).max()
    assert np.abs(expected).max() > 0


@pytest.mark.parametrize(
    ("backbone", "layer", "path"),
    [
        ("densenet121", "denselayer16", "features.denseblock4.denselayer16"),
        ("densenet121", "denseblock4", "features.denseblock4"),
        ("densenet121", "norm5_relu", None),
        ("resnet18", "layer4", "layer4"),
        ("vgg11", "block5_relu", "features.19"),
        ("mobilenet_v3_small", "last_stage", "features.12"),
    ],
)
@pytest.mark.filterwarnings("ignore:non-finite")
def test_equals_the_grad_cam_package(backbone, layer, path, photographs):
    net = network(backbone)
    found = explain(net, photographs, layers=[layer])[layer]
    model = net.net if path else as_modules(net)
    raw, final = reference(model.eval(), model.get_submodule(path or "1"), photographs, TARGET)
    assert found.raw.shape == raw.shape
    for ours, theirs in zip(found.raw, raw):
        close(ours, theirs)
    shown = cam.display(cam.upsample(cam.display(found.maps.numpy()), 96))
    scaled = found.maps.amax((1, 2)).numpy() - found.maps.amin((1, 2)).numpy()
    for ours, theirs, span in zip(shown, final, scaled):
        # the package adds 1e-7 to the span that it divides by, twice
        assert np.abs(ours - theirs).max() <= FLOAT32 + 2e-7 / max(span, 1e-9) or span == 0


def test_the_paper_s_layer_holds_32_of_1024_channels(densenet, photographs):
    found = explain(densenet, photographs)
    assert {layer: maps.weights.shape[1] for layer, maps in found.items()} == {
        "denselayer16": 32,
        "denseblock4": 1024,
        "norm5_relu": 1024,
    }
    assert found["denseblock4"].maps.shape == (3, 3, 3)
    assert found["denseblock4"].maps.dtype == torch.float32


@pytest.mark.parametrize(
    ("backbone", "layer", "head"),
    [
        ("densenet121", "norm5_relu", "single"),
        ("densenet121", "norm5_relu", "paper"),
        ("efficientnet_lite0", "conv_head", "single"),
        ("resnet18", "layer4", "single"),
    ],
)
def test_with_a_linear_head_it_is_cam(backbone, layer, head, photographs):
    """docs/sources.md, A6: at the layer before pooling Grad-CAM is CAM/(h w), and mean(CAM) + bias is the score."""
    net = network(backbone, head)
    with torch.no_grad(), net.record(layer) as box:
        logits = net(photographs)
    features = box[layer]
    linear = net.net.get_submodule(net.head_path)
    weight, bias = torch.eye(5), linear(torch.zeros(features.shape[1])).detach()
    for layer_ in reversed(list(linear) if head == "paper" else [linear]):
        weight = weight @ layer_.weight.detach()  # nothing stands between the paper's layers: one affine map
    activation_map = torch.einsum("nc,nchw->nhw", weight[TARGET], features)
    found = explain(net, photographs, layers=[layer])[layer]
    positions = features.shape[2] * features.shape[3]
    close(found.raw, activation_map / positions)
    close(found.maps, activation_map.clamp(min=0) / positions)
    close(activation_map.mean((1, 2)) + bias[TARGET], logits.gather(1, TARGET[:, None])[:, 0])


def test_an_eye_s_map_does_not_depend_on_its_batch(densenet, photographs):
    together = explain(densenet, photographs)
    for i in range(3):
        alone = explain(densenet, photographs[i : i + 1], TARGET[i : i + 1])
        for layer in densenet.cam_layers:
            close(alone[layer].raw[0], together[layer].raw[i])


def test_several_layers_of_one_pass_equal_one_by_one(densenet, photographs):
    together = explain(densenet, photographs)
    for layer in densenet.cam_layers:
        alone = explain(densenet, photographs, layers=[layer])[layer]
        close(together[layer].raw, alone.raw)  # the last layer's closed form against its gradient
        close(together[layer].weights, alone.weights)
        assert torch.equal(together[layer].target, alone.target)


def test_the_closed_form_takes_no_gradient(densenet, photographs, monkeypatch):
    monkeypatch.setattr(torch.autograd, "grad", lambda *_: pytest.fail("a gradient was taken"))
    last = list(densenet.cam_layers)[-1]
    assert explain(densenet, photographs, layers=[last])[last].raw.any()


def test_leaves_the_network_as_it_was(photographs):
    net = network("densenet121", "mlp").train()
    net.net.features.norm5.eval()
    some = next(p for p in net.parameters() if p.requires_grad)
    some.grad = torch.full_like(some, 7.0)
    modes = [module.training for module in net.modules()]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    required = [p.requires_grad for p in net.parameters()]
    with torch.no_grad():
        first = explain(net, photographs)
        again = explain(net, photographs)
    assert all(torch.equal(first[k].raw, again[k].raw) for k in first), (
        "dropout or batch statistics were active"
    )
    assert [module.training for module in net.modules()] == modes
    assert [p.requires_grad for p in net.parameters()] == required
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(some.grad, torch.full_like(some, 7.0))
    assert all(p.grad is None for p in net.parameters() if p is not some)
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in net.modules())
    assert not any(m.raw.requires_grad or m.logits.requires_grad for m in first.values())


def test_restores_the_mode_after_an_error(densenet, photographs):
    densenet.train()
    modes = [module.training for module in densenet.modules()]
    with pytest.raises(ValueError, match="classes are 0 to 4"):
        explain(densenet, photographs, torch.tensor([0, 1, 5]))
    assert [module.training for module in densenet.modules()] == modes
    densenet.eval()


def test_is_float32_inside_autocast_and_for_a_half_precision_trunk(densenet, photographs):
    with torch.no_grad():
        h = densenet.trunk(photographs).bfloat16()
    expected = cam.grad_cam(densenet, h.float(), TARGET)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cam.grad_cam(densenet, h, TARGET)
    for layer, maps in found.items():
        assert maps.raw.dtype == maps.logits.dtype == torch.float32
        assert torch.equal(maps.raw, expected[layer].raw)


def test_works_on_features_from_inference_mode(densenet, photographs):
    with torch.inference_mode():
        h = densenet.trunk(photographs)
    assert torch.equal(
        cam.grad_cam(densenet, h, TARGET)["norm5_relu"].raw, explain(densenet, photographs)["norm5_relu"].raw
    )


def test_none_explains_the_predicted_class(densenet, photographs):
    found = explain(densenet, photographs, None)["norm5_relu"]
    assert torch.equal(found.target, found.logits.argmax(1))
    assert torch.equal(found.raw, explain(densenet, photographs, found.target)["norm5_relu"].raw)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor([0, 1]), "one integer class for each of the 3 images"),
        (torch.tensor([0, 1, 2, 3]), "one integer class for each of the 3 images"),
        (torch.tensor([0.0, 1.0, 2.0]), "float32"),
        (torch.tensor([True, False, True]), "bool"),
        (torch.tensor([0, 1, -1]), "from -1 to 1"),
        (torch.tensor([0, 1, 5]), "classes are 0 to 4"),
    ],
)
def test_refuses_wrong_targets(densenet, photographs, target, message):
    with pytest.raises(ValueError, match=message):
        explain(densenet, photographs, target)


def test_refuses_an_unknown_layer(densenet, photographs):
    with pytest.raises(KeyError, match="densenet121 has no layer 'layer4' for maps; it has denselayer16"):
        explain(densenet, photographs, layers=["layer4"])


def test_display_scales_each_map_by_itself():
    maps = np.array([[[1.0, 3.0], [2.0, 5.0]], [[4.0, 4.0], [4.0, 4.0]]])
    np.testing.assert_array_equal(cam.display(maps), [[[0, 0.5], [0.25, 1]], [[0, 0], [0, 0]]])


def test_upsample_keeps_pixel_centres():
    ramp = np.array([[[0.0, 1.0], [0.0, 1.0]]])
    np.testing.assert_allclose(cam.upsample(ramp, 4)[0, 0], [0, 0.25, 0.75, 1], rtol=1e-6)  # float32
    spot = np.zeros((1, 7, 7))
    spot[0, 2, 5] = 1
    big = cam.upsample(spot, 70)[0]
    y, x = np.indices(big.shape)
    centre = (y * big).sum() / big.sum(), (x * big).sum() / big.sum()
    np.testing.assert_allclose(centre, (24.5, 54.5), rtol=1e-5)  # the middle of cell (2, 5), float32


def test_many_images_equal_one_batch():
    net = network("resnet18")
    stored = np.random.default_rng(0).integers(0, 256, (7, 80, 80, 3), dtype=np.uint8)
    rows = np.array([6, 0, 3, 4, 2])
    compute = devices.Compute("cpu", "fp32")
    found = cam.explain_images(net, stored, list("vwxyz"), 64, compute, rows, batch_size=2)
    x = transforms.to_input(stored[rows], 64, net.mean, net.std)
    expected = explain(net, x, None)["layer4"]
    assert found.layers == ["layer4"]
    assert list(found.image_ids) == list("vwxyz")
    assert found.raw["layer4"].dtype == np.float32
    np.testing.assert_array_equal(found.target, expected.target)
    close(found.raw["layer4"], expected.raw)
    close(found.logits, expected.logits)
    aimed = cam.explain_images(
        net, stored, list("vwxyz"), 64, compute, rows, np.array([0, 1, 2, 3, 4]), batch_size=2
    )
    close(aimed.raw["layer4"], explain(net, x, torch.arange(5))["layer4"].raw)
    with pytest.raises(
        ValueError, match="7 images are to be explained, but there are 2 image_ids and no targets"
    ):
        cam.explain_images(net, stored, ["a", "b"], 64, compute)


def test_the_true_grade_as_target_needs_grades():
    graded = pd.DataFrame({"grade": pd.array([0, 4], dtype="Int64")})
    assert cam.targets(graded, "predicted") is None
    assert cam.targets(graded, "grade").tolist() == [0, 4]
    with pytest.raises(ValueError, match="1 of 3 eyes have none"):
        cam.targets(pd.DataFrame({"grade": pd.array([0, 4, pd.NA], dtype="Int64")}), "grade")


def split_frame():
    grades = [0] * 10 + [1] * 2 + [2] * 5 + [4]
    names = [f"eye{i:02d}" for i in range(18)]
    return pd.DataFrame({"image_id": names, "grade": pd.array(grades, dtype="Int64")})


def test_images_are_drawn_evenly_over_the_grades():
    chosen = cam.choose_images(split_frame(), 9, seed=0)
    assert chosen["grade"].value_counts().to_dict() == {0: 3, 2: 3, 1: 2, 4: 1}
    assert chosen["image_id"].is_monotonic_increasing
    pd.testing.assert_frame_equal(chosen, cam.choose_images(split_frame(), 9, seed=0))
    assert list(chosen["image_id"]) != list(cam.choose_images(split_frame(), 9, seed=1)["image_id"])


def test_all_images_and_ungraded_sources():
    assert (
        len(cam.choose_images(split_frame(), 0, seed=0))
        == len(cam.choose_images(split_frame(), 99, seed=0))
        == 18
    )
    ungraded = split_frame().assign(grade=pd.array([None] * 18, dtype="Int64"))
    assert len(cam.choose_images(ungraded, 5, seed=0)) == 5


def explained():
    raw = np.arange(-4, 4, dtype=np.float32).reshape(2, 2, 2)
    return cam.Explained(
        {"a": raw, "b": 2 * raw}, np.eye(2, 5, dtype=np.float32), np.array([0, 1]), np.array(["x", "y"])
    )


def test_maps_survive_saving(tmp_path):
    cam.save_maps(explained(), tmp_path / "maps.npz")
    found = cam.load_maps(tmp_path / "maps.npz")
    assert found.layers == ["a", "b"]
    assert list(found.image_ids) == ["x", "y"]
    assert list(found.target) == [0, 1]
    np.testing.assert_array_equal(found.raw["b"], explained().raw["b"])
    np.testing.assert_array_equal(found.maps("a"), [[[0, 0], [0, 0]], [[0, 1], [2, 3]]])
    first = (tmp_path / "maps.npz").read_bytes()
    cam.save_maps(explained(), tmp_path / "maps.npz")
    assert (tmp_path / "maps.npz").read_bytes() == first


def folds_in(monkeypatch) -> list[str]:
    """Names of the networks that are folded from now on."""
    found, real = [], cam.folding.folded

    def counted(net, *args):
        found.append(net.backbone)
        return real(net, *args)

    monkeypatch.setattr(cam.folding, "folded", counted)
    return found


def test_many_maps_of_a_closed_form_come_from_a_folded_trunk_and_are_the_same(monkeypatch):
    net = network("efficientnet_lite0")
    stored = np.random.default_rng(0).integers(0, 256, (cam.FOLD_FROM, 64, 64, 3), dtype=np.uint8)
    ids, compute = [str(n) for n in range(len(stored))], devices.Compute("cpu", "fp32")
    folded = folds_in(monkeypatch)
    found = cam.explain_images(net, stored, ids, 64, compute)
    assert folded == ["efficientnet_lite0"]
    few = cam.explain_images(net, stored[:-1], ids[:-1], 64, compute)
    assert len(folded) == 1  # folding would take longer than it saves
    np.testing.assert_array_equal(found.target[:-1], few.target)
    close(found.raw["conv_head"][:-1], few.raw["conv_head"])
    close(found.logits[:-1], few.logits)


def test_maps_from_gradients_come_from_the_very_trunk_in_float32(densenet, monkeypatch):
    folded = folds_in(monkeypatch)
    stored = np.zeros((cam.FOLD_FROM, 32, 32, 3), np.uint8)
    ids, compute = [str(n) for n in range(len(stored))], devices.Compute("cpu", "fp32")
    cam.explain_images(densenet, stored, ids, 32, compute, layers=["denseblock4"])
    lite = network("efficientnet_lite0", "mlp")
    cam.explain_images(lite, stored, ids, 32, compute)
    assert folded == []
