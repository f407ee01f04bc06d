"""Weights: which are loaded, from where, and what is said where they cannot be had."""

from __future__ import annotations

import time

import pytest
import torch
from networks import LITES, batch, moved, stir

from drstudy.models import compat, nets, weights  # noqa: F401  (compat before torchvision)
from drstudy.models.weights import WeightsError
from drstudy.training import transforms

from torchvision import models as zoo  # isort: skip


@pytest.fixture(scope="module")
def published():
    """A 1000-class DenseNet121 and its state dict with the dotted names of the published file."""
    torch.manual_seed(5)
    source = stir(zoo.get_model("densenet121", weights=None)).eval()
    dotted = {}
    for name, tensor in source.state_dict().items():
        if "denselayer" in name:
            for part in ("norm", "relu", "conv"):
                for number in "12":
                    name = name.replace(f".{part}{number}.", f".{part}.{number}.")
        if not name.endswith("num_batches_tracked"):  # younger than the published files
            dotted[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in dotted
    return source, dotted


@pytest.mark.parametrize("kind", ["pth", "safetensors", "checkpoint.pth"])
def test_a_file_with_the_published_names_gives_the_published_network(tmp_path, published, kind):
    source, dotted = published
    path = tmp_path / f"densenet121.{kind}"
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous() for name, tensor in dotted.items()}, path)
    else:
        torch.save({"state_dict": dotted} if kind.startswith("checkpoint") else dotted, path)
    net = nets.build("densenet121", weights=str(path)).eval()
    assert net.weights_used == path.name
    x = batch()
    with torch.no_grad():
        assert torch.equal(net.net.features(x), source.features(x))
    assert net.net.classifier.out_features == 5


def test_a_relative_path_of_weights_is_the_projects_not_the_working_folders(
    own_folders, published, monkeypatch
):
    path = own_folders / "data/weights.pth"
    path.parent.mkdir()
    torch.save(published[1], path)
    monkeypatch.chdir("/")
    assert nets.build("densenet121", weights="data/weights.pth").weights_used == "weights.pth"


def changed(change):
    """The published tensors of a network with one of them changed in place."""
    state = zoo.get_model("densenet121", weights=None).state_dict()
    change(state["features.norm5.weight"])
    return state


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: zoo.get_model("resnet18", weights=None).state_dict(), "do not fit densenet121.*missing"),
        (lambda: zoo.get_model("densenet121", weights=None, num_classes=5).state_dict(), "do not fit"),
        (lambda: {}, "holds no named tensors"),
        (lambda: torch.zeros(3), "holds no named tensors"),
        (lambda: [1, 2], "holds no named tensors"),
        (lambda: {1: torch.zeros(1)}, "holds no named tensors"),
        (b"not a network", "could not be read"),
        (lambda: changed(lambda t: t.fill_(torch.nan)), "not finite"),
        (lambda: changed(lambda t: t.reshape(-1)[0].fill_(torch.inf)), "not finite"),
        (lambda: {"a": torch.zeros(3, dtype=torch.int64)}, "whole numbers"),
        (lambda: {"a": [1.0]}, "a is a list"),
        (None, "neither a file nor one of imagenet, imagenet-if-reachable, bundled, none"),
    ],
    ids=[
        "other backbone",
        "5 classes",
        "empty",
        "tensor",
        "list",
        "numbers",
        "text",
        "NaN",
        "infinite",
        "integers",
        "no tensor",
        "missing",
    ],
)
@pytest.mark.parametrize("suffix", [".pth"])
def test_a_wrong_file_says_what_is_wrong(tmp_path, content, message, suffix):
    path = tmp_path / f"w{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content(), path)
    with pytest.raises(WeightsError, match=message):
        nets.build("densenet121", weights=str(path))


@pytest.fixture(scope="module", params=LITES)
def published_lite(request):
    """With its 1000-class layer, and every tensor of the package loaded."""
    name = request.param
    net = nets.assemble(name, "single", 0)
    state, used = weights.find(name, "bundled")
    assert used == "bundled"
    assert state.keys() == net.net.state_dict().keys()
    weights.load_into(net.net, state, name, "bundled")
    return net.eval()


@torch.no_grad()
def probabilities(net, photograph, mean=None, std=None):
    """Of the 1000 classes of ImageNet, for the middle of a photograph (H, W, 3)."""
    side = min(photograph.shape[:2])
    left = (photograph.shape[1] - side) // 2
    square = photograph[None, :side, left : left + side]
    return net(transforms.to_input(square, 224, mean or net.mean, std or net.std)).softmax(1)[0]


def test_bundled_weights_name_what_photographs_show(published_lite):
    """Photographs that come with scikit-learn and scikit-image, and their classes in ImageNet."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    photographs = {698: load_sample_image("china.jpg"), 285: data.chelsea(), 967: data.coffee()}
    for number, photograph in photographs.items():  # palace, Egyptian cat, espresso
        assert probabilities(published_lite, photograph).argmax() == number


def test_bundled_weights_and_their_normalisation_see_a_daisy(published_lite):
    """Class 985, and less surely so under any other normalisation in use. (Lite2 takes this flower for a honeycomb.)"""
    from sklearn.datasets import load_sample_image

    if published_lite.backbone == "efficientnet_lite2":
        pytest.skip("no daisy to this network, at any size and under any normalisation")
    flower = load_sample_image("flower.jpg")
    right = probabilities(published_lite, flower)
    assert right.argmax() == 985
    others = {
        "ImageNet": (weights.IMAGENET_MEAN, weights.IMAGENET_STD),
        "0 to 1": ((0.0,) * 3, (1.0,) * 3),
        "0 to 255": ((0.0,) * 3, (1 / 255,) * 3),
    }
    for name, (mean, std) in others.items():
        assert right[985] > 1.5 * probabilities(published_lite, flower, mean, std)[985], name


@pytest.mark.parametrize(("name", "published"), zip(LITES, (4_652_008, 5_416_680, 6_092_072)))
def test_lite_has_the_published_number_of_parameters(name, published):
    """With the 1000-class layer: 4.7, 5.4 and 6.1 million, as the authors of EfficientNet-Lite state."""
    assert nets.assemble(name, "single", 0).count()["parameters_total"] == published


def test_bundled_stands_for_imagenet_with_lite_and_for_nothing_else():
    for name in LITES:
        for asked in ("imagenet", "imagenet-if-reachable", "bundled"):
            assert nets.build(name, weights=asked).weights_used == "bundled"
    with pytest.raises(
        WeightsError, match="No weights are bundled for resnet18, only for efficientnet_lite0, "
    ):
        nets.build("resnet18", weights="bundled")


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    return tmp_path


def test_offline_the_optional_weights_fall_back_aloud_and_soon(no_cache, offline, capsys):
    began = time.perf_counter()
    net = nets.build("resnet18", weights="imagenet-if-reachable", seed=1)
    assert time.perf_counter() - began < 3
    assert net.weights_used == "none"
    assert offline, "the net was tried"
    out = capsys.readouterr().out
    assert "resnet18: ImageNet weights are not reachable" in out
    assert moved(dict(net.state_dict()), dict(nets.build("resnet18", seed=1).state_dict())) == set()


def test_offline_the_required_weights_are_an_error_that_names_file_and_folder(no_cache, offline):
    with pytest.raises(WeightsError, match=r"resnet18-.*\.pth") as caught:
        nets.build("resnet18", weights="imagenet")
    assert str(no_cache) in str(caught.value)
    assert "imagenet-if-reachable" in str(caught.value)


@pytest.mark.parametrize("error", [OSError("HTTP Error 403: Forbidden"), RuntimeError("invalid hash value")])
def test_a_download_that_fails_half_way_is_treated_as_unreachable(no_cache, monkeypatch, capsys, error):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(weights, "reachable", lambda url: True)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(WeightsError, match=str(error)):
        nets.build("resnet18", weights="imagenet")
    assert nets.build("resnet18", weights="imagenet-if-reachable").weights_used == "none"
    assert str(error) in capsys.readouterr().out


def test_cached_weights_need_no_network(no_cache, offline):
    entry = zoo.get_model_weights("resnet18")["IMAGENET1K_V1"]
    torch.manual_seed(6)
    source = stir(zoo.get_model("resnet18", weights=None)).eval()
    path = no_cache / "checkpoints" / entry.url.rsplit("/", 1)[1]
    path.parent.mkdir()
    torch.save(source.state_dict(), path)
    net = nets.build("resnet18", weights="imagenet").eval()
    assert net.weights_used == "imagenet"
    assert offline == []
    with torch.no_grad():
        assert torch.equal(
            net.trunk(batch()), source.layer3(source.layer2(source.layer1(stem(source, batch()))))
        )


def stem(net, x):
    return net.maxpool(net.relu(net.bn1(net.conv1(x))))


def test_reachable_tries_once_and_believes_a_connection(offline, monkeypatch):
    import socket

    assert not weights.reachable("https://example.org/a")
    assert len(offline) == 1
    with socket.socket() as server:
        asked = []

        class Open:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                return None

        def connect(address, timeout=None):
            asked.append((address, timeout))
            return Open()

        monkeypatch.setattr(socket, "create_connection", connect)
        assert weights.reachable("https://example.org/a")
        assert weights.reachable("http://example.org:81/a")
        assert server
    assert asked == [(("example.org", 443), 3.0), (("example.org", 81), 3.0)]
