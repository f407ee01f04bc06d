"""Inference and trained networks on disk: every image once, in order, and the same numbers again."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from drstudy.core import records
from drstudy.core.devices import Compute
from drstudy.evaluation import metrics
from drstudy.models import nets
from drstudy.papers.transfer import params
from drstudy.training import features, grading, loop, networks, prediction, tensors, transforms

CPU = Compute("cpu", "fp32")
P = [f"p{grade}" for grade in range(5)]
FLOAT32 = 1e-5
"""Of a probability: sums of float32 in another order move a logit by about 1e-6 of its size."""


def recipe(**changes):
    given = {"backbone": "efficientnet_lite0", "input_size": 64, "batch_size": 6, "views": 1, "epochs": 2}
    return params.FineTuning(**(given | changes))


@pytest.fixture(scope="module")
def data(coloured_eyes):
    return coloured_eyes(train=13, validation=5, test=9)


@pytest.fixture(scope="module", params=["efficientnet_lite0", "densenet121"])
def trained(request, data):
    """A trained network, which is no longer the one it started as, and its features."""
    weights = "bundled" if request.param == "efficientnet_lite0" else "none"
    p = recipe(backbone=request.param, weights=weights, head="mlp")
    net = networks.build(p, data, CPU)
    source = features.open_features(net, data, p, CPU)
    loop.fit(grading.Grading(net, source, p, CPU))
    return net, source


def of(data, split):
    return np.asarray(data.images[data.part(split)["row"]])


def one_by_one(net, images, size=64):
    """Each image alone, by the package's own forward."""
    net.eval()
    with torch.no_grad():
        logits = [net.net(transforms.to_input(image[None], size, net.mean, net.std)) for image in images]
    return torch.cat(logits).double().softmax(1).numpy()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_predictions_from_features_are_those_from_images(trained, data, split):
    net, source = trained
    frame = prediction.table(net, source, split, CPU)
    assert list(frame.columns) == ["image_id", "patient_id", "split", "grade", *P]
    part = data.part(split)
    for column in ("image_id", "patient_id", "split", "grade"):
        assert frame[column].tolist() == part[column].tolist()
    images = of(data, split)
    expected = one_by_one(net, images)
    assert np.abs(frame[P].to_numpy() - expected).max() < FLOAT32
    assert np.abs(prediction.predict(net, images, CPU, 64) - expected).max() < FLOAT32
    assert (
        np.abs(expected[:, None] - expected[None]).max(-1)[np.triu_indices(len(part), 1)].min() > 10 * FLOAT32
    ), "each image has its own numbers, so that an exchanged one is seen"


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_no_image_is_dropped_or_padded(trained, data, monkeypatch, count):
    monkeypatch.setattr(nets.GradingNet, "trunk_batch", 4)
    net, _ = trained
    images = of(data, "all")[:count]
    found = prediction.predict(net, images, CPU, 64)
    assert found.shape == (count, 5)
    assert np.abs(found - one_by_one(net, images)).max() < FLOAT32


def test_probabilities_are_double_and_sum_to_one(trained, data):
    net, source = trained
    for p in (
        prediction.predict(net, of(data, "test"), CPU, 64),
        prediction.table(net, source, "test", CPU)[P].to_numpy(),
    ):
        assert p.dtype == np.float64
        assert np.abs(p.sum(1) - 1).max() < 1e-15 * 5  # five roundings of double precision
        assert ((p > 0) & (p < 1)).all()


def test_softmax_of_large_logits_by_hand():
    found = prediction.softmax(np.array([[1000, 0, 0, 0, -1000], [0, np.log(2), np.log(3), 0, np.log(3)]]))
    assert found[0].tolist() == [1, 0, 0, 0, 0]
    assert found[1] == pytest.approx([0.1, 0.2, 0.3, 0.1, 0.3], abs=1e-15)


def test_prediction_is_in_evaluation_mode_whatever_came_before(trained, data):
    net, source = trained
    images = of(data, "test")
    before = prediction.predict(net, images, CPU, 64), prediction.from_features(net, source, "test", CPU)
    net.train()
    assert np.array_equal(prediction.predict(net, images, CPU, 64), before[0])
    net.train()
    assert np.array_equal(prediction.from_features(net, source, "test", CPU), before[1])


def test_bf16_predicts_nearly_the_same(trained, data):
    net, _ = trained
    images = of(data, "test")
    full = prediction.predict(net, images, CPU, 64)
    half = prediction.predict(net, images, Compute("cpu", "bf16"), 64)
    # eight bits of mantissa, 0.4 % a layer; a wrong scale or dtype is far off
    assert 0 < np.abs(full - half).max() < 0.1


def test_images_of_another_size_are_resized_as_in_training(coloured_eyes):
    data = coloured_eyes(train=5, validation=5, test=5, size=96)
    p = recipe()
    net = networks.build(p, data, CPU)
    source = features.open_features(net, data, p, CPU)
    from_features = prediction.softmax(prediction.from_features(net, source, "test", CPU))
    assert np.abs(prediction.predict(net, of(data, "test"), CPU, 64) - from_features).max() < FLOAT32


def test_features_are_kept_for_validation_and_test_only(trained):
    net, source = trained
    with pytest.raises(ValueError, match="not for 'train'"):
        prediction.from_features(net, source, "train", CPU)


# --- files -----------------------------------------------------------------------------------------


def test_written_predictions_are_read_as_the_same_numbers(trained, tmp_path):
    net, source = trained
    frame = prediction.table(net, source, "test", CPU)
    prediction.write(frame, tmp_path / "predictions.csv")
    read = pd.read_csv(
        tmp_path / "predictions.csv",
        dtype={"image_id": str, "patient_id": str, "grade": "Int64"},
        float_precision="round_trip",
    )
    pd.testing.assert_frame_equal(read, frame, check_exact=True, check_dtype=False)
    assert (
        metrics.read_predictions(tmp_path / "predictions.csv")[P].to_numpy().tolist()
        == frame[P].to_numpy().tolist()
    )


def test_a_saved_network_is_the_same_network(trained, data, tmp_path):
    net, _ = trained
    path = tmp_path / "model.safetensors"
    prediction.save(net, path, 64)
    loaded = prediction.load(path)
    assert not any(module.training for module in loaded.modules())
    first, second = net.state_dict(), loaded.state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    images = of(data, "test")
    # the same tensors in another memory layout: only the order of sums may differ
    found = prediction.predict(loaded, images, CPU, loaded.input_size)
    assert np.abs(found - prediction.predict(net, images, CPU, 64)).max() < FLOAT32
    assert loaded.count() == net.count()
    for name in ("backbone", "head", "weights_used", "frozen_bn", "mean", "std"):
        assert getattr(loaded, name) == getattr(net, name), name


def test_the_file_says_what_it_is(trained, tmp_path):
    net, _ = trained
    path = tmp_path / "model.safetensors"
    prediction.save(net, path, 64)
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["drstudy"])
    assert about == {
        "backbone": net.backbone,
        "head": "mlp",
        "weights_used": net.weights_used,
        "frozen_bn": "eval",
        "input_size": 64,
        "mean": list(net.mean),
        "std": list(net.std),
    }


def test_a_network_is_loaded_from_its_record(own_folders, trained):
    run = records.start(params.FineTuning())
    prediction.save(trained[0], run.path("model.safetensors"), 64)
    run.finish()
    assert prediction.load(records.load(run.folder)).backbone == trained[0].backbone
    (run.folder / "model.safetensors").unlink()
    with pytest.raises(records.RecordError, match=r"model\.safetensors is missing"):
        prediction.load(records.load(run.folder))


def test_loading_does_not_draw_random_numbers(trained, tmp_path):
    prediction.save(trained[0], tmp_path / "m.safetensors", 64)
    state = torch.get_rng_state()
    prediction.load(tmp_path / "m.safetensors")
    assert torch.equal(state, torch.get_rng_state())


def test_files_that_are_no_networks_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        prediction.load(tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="does not say which backbone it is"):
        prediction.load(tmp_path / "plain.safetensors")
    prediction.save(nets.build("efficientnet_lite0"), tmp_path / "torn.safetensors", 64)
    whole = (tmp_path / "torn.safetensors").read_bytes()
    (tmp_path / "torn.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        prediction.load(tmp_path / "torn.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda about, state: about.pop("backbone"), "KeyError: 'backbone'"),
        (lambda about, state: about.update(backbone="densenet121"), "not the network that it says"),
        (lambda about, state: about.update(backbone="nonsense"), "nonsense"),
        (lambda about, state: about.update(head="seven"), "not the network that it says"),
        (lambda about, state: about.pop("frozen_bn"), "frozen_bn"),
        (lambda about, state: state.pop("net._fc.weight"), "net._fc.weight"),
        (lambda about, state: state.update({"net._fc.bias": torch.zeros(7)}), "net._fc.bias"),
        (lambda about, state: state.update({"net._fc.bias": torch.full((5,), torch.nan)}), "not finite"),
    ],
)
def test_a_network_that_is_not_what_it_says_is_refused_by_name(tmp_path, change, said):
    file = tmp_path / "m.safetensors"
    prediction.save(nets.build("efficientnet_lite0"), file, 64)
    about, state = tensors.read_facts(file), tensors.read_tensors(file)
    change(about, state)
    tensors.write(file, state, about)
    with pytest.raises(ValueError, match=rf"m\.safetensors.*{said}"):
        prediction.load(file)
    save_file(state, file, metadata={tensors.FACTS: "no JSON"})
    with pytest.raises(ValueError, match=r"m\.safetensors is not a whole"):
        prediction.load(file)
    save_file(state, file, metadata={tensors.FACTS: "[1]"})
    with pytest.raises(ValueError, match=r"m\.safetensors has no facts"):
        prediction.load(file)
