"""Lesions as labels: their way through training, the losses by hand, and what a permutation would break."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch

from drstudy.core.devices import Compute
from drstudy.core.params import ParameterError
from drstudy.data import labels
from drstudy.models import nets, weights
from drstudy.papers.lesions import params, training
from drstudy.training import multilabel, prediction

CPU = Compute("cpu", "fp32")
CODES = ("MA", "HE", "EX")


# --- training --------------------------------------------------------------------------------------


def task_of(codes="ABC", kind="bce", gamma=2.0):
    """A task without a feed; of its network only the number of outputs counts."""
    p = params.LesionRecipe(codes=tuple(codes), loss=kind, gamma=gamma, backbone="resnet18", weights="none")
    net = nets.build("resnet18", outputs=len(codes))
    return training.MultiLabel(net, None, p, CPU, np.ones(len(codes)))


def targets(values, codes="ABC", tensor=True):
    """Labels (N, L) by name, as a batch or a split has them."""
    columns = {multilabel.target(code): np.float32(values[:, j]) for j, code in enumerate(codes)}
    return {name: torch.tensor(v) if tensor else v for name, v in columns.items()}


def log_p(x: float) -> float:
    return -math.log1p(math.exp(-x))


def test_losses_by_hand():
    """One positive with logit 0.7 and weight 3, one negative with logit -0.2, one label unknown."""
    outputs, weights = torch.tensor([[0.7, -0.2, 5.0]]), torch.tensor([3.0, 2.0, 1.0])
    truth = torch.tensor([[1.0, 0.0, torch.nan]])

    def found(kind: str, gamma: float = 2.0) -> float:
        return training.loss(outputs, truth, weights, kind, gamma).item()

    positive, negative = -log_p(0.7), -log_p(0.2)
    p, q = math.exp(-positive), 1 - math.exp(-negative)  # of the positive, and of the negative
    assert found("bce") == pytest.approx((3 * positive + negative) / 2, rel=1e-6)
    assert found("focal") == pytest.approx((3 * (1 - p) ** 2 * positive + q**2 * negative) / 2, rel=1e-6)
    assert found("focal", 0.0) == pytest.approx(found("bce"), rel=1e-6)
    shifted = q - 0.05
    assert found("asymmetric") == pytest.approx((positive - shifted**4 * math.log(1 - shifted)) / 2, rel=1e-6)
    with pytest.raises(ValueError, match="'bce', 'focal' or 'asymmetric'"):
        found("mse")


@pytest.mark.parametrize("kind", ["bce", "focal", "asymmetric"])
def test_unknown_labels_teach_nothing(kind):
    outputs = torch.tensor([[3.0, -40.0, 0.4], [-2.0, 40.0, 0.1]], requires_grad=True)
    task = task_of(kind=kind)
    task.loss(outputs, targets(np.array([[1, np.nan, 0], [0, np.nan, np.nan]]))).backward()
    assert (outputs.grad[:, 1] == 0).all()
    assert outputs.grad[1, 2] == 0
    assert outputs.grad[0, 2] > 0
    assert task.loss(outputs, targets(np.full((2, 3), np.nan))).item() == 0


def test_validation_is_loss_and_mean_auc_over_what_is_known():
    logits = np.array([[2.0, 0, 1], [1, 0, 2], [0, 0, 3], [-1, 5, 4]], dtype=np.float32)
    truth = np.array([[1, 1, 0], [0, 0, 0], [1, 1, 1], [0, np.nan, 1]])
    task = task_of()
    found = task.measure(logits, targets(truth, tensor=False))
    assert found["auc"] == pytest.approx((0.75 + 0.5 + 1.0) / 3)  # 3 of 4 pairs; all equal; all in order
    known = ~np.isnan(truth)
    each = np.log1p(np.exp(-np.where(truth == 1, 1, -1) * logits.astype(float)))
    assert found["loss"] == pytest.approx(each[known].mean(), rel=1e-6)
    assert task.measure(logits, targets(np.full((4, 3), np.nan), tensor=False))["auc"] == 0.5


@pytest.fixture(scope="module")
def recipe():
    return params.Lesions(
        codes=("MA", "HE"),
        backbone="resnet18_stride1",
        weights="none",
        network="",
        input_size=32,
        epochs=12,
        learning_rate=3e-3,
        batch_size=16,
        threads=1,
    )


def bright_and_red(data, swapped: bool = False) -> pd.DataFrame:
    """Labels that the coloured eyes show: HE for grades 3 and 4, MA for an odd grade."""
    grade = data.table["grade"].to_numpy(int)
    found = {"MA": grade % 2, "HE": (grade >= 3).astype(int)}
    found = {"MA": found["HE"], "HE": found["MA"]} if swapped else found
    return pd.DataFrame({"image_id": data.table["image_id"]} | found).astype({"MA": "Int64", "HE": "Int64"})


def test_it_learns_and_a_permutation_of_labels_is_seen(coloured_eyes, recipe):
    """Each output finds its own label. Had it learnt the other's, without a fault, its AUC here would be 5/6 at most: of the six pairs of
    a grade with the label and one without, at least one (4 and 1) would stand the wrong way round.
    """
    from drstudy.evaluation import metrics

    data = coloured_eyes(train=60, validation=20, test=25)
    own = bright_and_red(data)
    (one,) = training.train(recipe, data, own, CPU)
    said = training.probabilities(one, data, data.part("test"), recipe.codes, CPU)
    truth = own.set_index("image_id").loc[said["image_id"]]
    area = {
        (code, of): metrics.auc(truth[of].to_numpy(bool), said[f"p_{code}"].to_numpy())
        for code in recipe.codes
        for of in recipe.codes
    }
    assert min(area["MA", "MA"], area["HE", "HE"]) > 0.9, area
    assert max(area["MA", "HE"], area["HE", "MA"]) <= 5 / 6 + 1e-9, area
    assert list(one.history["epoch"]) == list(range(1, 13))


def test_the_network_from_random_weights_learns_all_its_layers(coloured_eyes, recipe, tmp_path):
    """And is the same after it was written and read."""
    data = coloured_eyes(train=16, validation=8, test=6)
    p = recipe.model_copy(
        update={"network": "resnet18_stride1", "net_size": 32, "net_epochs": 1, "epochs": 1}
    )
    frozen, whole = training.train(p, data, bright_and_red(data), CPU)
    assert whole.net.count()["parameters_trainable"] == whole.net.count()["parameters_total"]
    assert frozen.net.count()["parameters_trainable"] < frozen.net.count()["parameters_total"]
    start = nets.build("resnet18_stride1", seed=p.seed, outputs=2)
    assert not torch.equal(start.net.conv1.weight, whole.net.net.conv1.weight)
    assert torch.equal(start.net.conv1.weight, frozen.net.net.conv1.weight)
    training.save([dataclasses.replace(whole, network="whole")], tmp_path)
    again = prediction.load(tmp_path / "whole.safetensors")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            again(x), whole.net.eval()(x)
        )  # the same layers, cut into trunk and tail elsewhere


def test_photographs_without_any_label_are_left_out(coloured_eyes):
    data = coloured_eyes(train=10, validation=5, test=5)
    known = bright_and_red(data)
    known.loc[known["image_id"] == "000", ["MA", "HE"]] = pd.NA
    known.loc[known["image_id"] == "001", "MA"] = pd.NA
    labelled = multilabel.with_labels(data, known, ("MA", "HE"))
    kept = labelled.table
    assert labelled.targets == ("grade", "lesion_MA", "lesion_HE")
    assert kept.set_index("image_id").loc["001", ["lesion_MA", "lesion_HE"]].isna().tolist() == [True, False]
    grades = data.table.set_index("image_id").loc[kept["image_id"], "grade"]
    assert kept["grade"].tolist() == grades.tolist(), "a grade stays a grade"
    assert "000" not in set(kept["image_id"])
    assert set(data.table["image_id"]) - set(kept["image_id"]) == {"000"}
    known.loc[known["image_id"].isin(data.part("validation")["image_id"]), ["MA", "HE"]] = pd.NA
    with pytest.raises(labels.LabelError, match="No validation photograph has a known label of MA, HE"):
        multilabel.with_labels(data, known, ("MA", "HE"))


# --- the network -----------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [18, 50])
def test_last_stage_at_stride_1_doubles_the_map_and_keeps_the_parameters(depth):
    plain, fine = (nets.build(f"resnet{depth}{end}", seed=3) for end in ("", weights.FINE))
    state = plain.state_dict()
    fine.load_state_dict(state)  # weights of the plain network load unchanged
    assert {k: v.shape for k, v in fine.state_dict().items()} == {k: v.shape for k, v in state.items()}
    assert fine.count()["parameters_total"] == plain.count()["parameters_total"]
    x = torch.rand(1, 3, 64, 64)
    sizes = {}
    for net in (plain, fine):
        with torch.no_grad(), net.eval().record("layer4") as seen:
            net(x)
        sizes[net.backbone] = seen["layer4"].shape[-2:]
        torch.testing.assert_close(net.net(x), net(x))  # trunk and tail are the network itself
    assert sizes == {f"resnet{depth}": (2, 2), f"resnet{depth}_stride1": (4, 4)}


def test_both_cuts_of_the_fine_network_are_one_network():
    net = nets.build("resnet18_stride1", outputs=5).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        before = net(x)
        net.learn_all()
        assert torch.equal(net.trunk(x), x)
        # 1x1 convolutions that learn are matrix products: at most 2.5e-7 of outputs up to 0.6, over six seeds and three kinds of processor
        torch.testing.assert_close(net.eval()(x), before, rtol=0, atol=2e-6)
    assert all(q.requires_grad for q in net.parameters())
    net.train()
    assert all(module.training for module in net.net.modules() if isinstance(module, torch.nn.BatchNorm2d))


def test_a_lesion_is_a_label_once():
    with pytest.raises(ParameterError, match="a lesion stands twice"):
        params.Lesions.check({"CODES": ["MA", "HE", "MA"]})


@pytest.mark.parametrize(
    ("name", "theirs"), [("CODES", ["HE", "MA"]), ("MODEL", "results/other"), ("SPECIFICITY", 0.8)]
)
def test_networks_and_thresholds_of_another_setting_are_refused(tmp_path, recipe, name, theirs):
    """Outputs have no names, and thresholds no network: those of another setting would be read wrongly."""

    class Source:
        params, folder = recipe.upper() | {name: theirs}, tmp_path

    with pytest.raises(labels.LabelError, match=f"made with {name} .*Set {name} to theirs"):
        training.load(Source(), recipe, CPU)


def test_two_networks_of_one_name_are_refused():
    with pytest.raises(ParameterError, match="BACKBONE and NETWORK are both 'resnet18_stride1'"):
        params.Lesions.check({"BACKBONE": "resnet18_stride1"})
