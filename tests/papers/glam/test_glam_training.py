"""All networks of notebook 14: labels, what is refused, masks of views, the whole training, and what is kept of it."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from squares import CODES, CPU, SIDE, SIZE, built, eyes, params

from drstudy.core import records
from drstudy.data.labels import LabelError
from drstudy.papers.glam import maps, training
from drstudy.papers.glam.params import LESIONS, REFERABLE, Glam
from drstudy.training import features, loop, multilabel

# --- labels -------------------------------------------------------------------------------------------------


def record_at(folder, **values) -> records.Record:
    """A record as far as reading its files and parameters needs one."""
    return records.Record(folder, {"params": json.loads(json.dumps(values)), "outputs": {}, "metrics": {}})


def test_labels_from_the_grade(tmp_path, monkeypatch):
    pd.DataFrame({"image_id": ["01", "02", "03", "04"], "grade": [1, 2, None, 4]}).astype(
        {"grade": "Int64"}
    ).to_csv(tmp_path / "split.csv", index=False)
    monkeypatch.setattr(records.Record, "path", lambda self, name: self.folder / name)
    p = params(codes=(REFERABLE,), labels="grade", mask_epochs=0)
    found = training.read_labels(p, record_at(tmp_path))
    assert found["image_id"].tolist() == ["01", "02", "03", "04"]
    assert found[REFERABLE].tolist() == [0, 1, pd.NA, 1]
    assert found[REFERABLE].dtype == "Int64"


def test_labels_and_codes_go_together():
    for wrong in (
        {"labels": "grade"},
        {"codes": (REFERABLE,)},
        {"codes": (REFERABLE, "MA"), "labels": "grade"},
    ):
        with pytest.raises(ValidationError, match=r"go together|must be the only label"):
            params(**wrong)
    assert params(codes=(REFERABLE,), labels="grade").regions == (*LESIONS, "lesion")
    assert params().regions == (*CODES, "lesion")


def unlabelled():
    data, _ = eyes()
    return dataclasses.replace(
        data, table=data.table[["image_id", "patient_id", "grade", "split", "row"]], targets=("grade",)
    )


def test_photographs_without_any_label_are_left_out():
    data = unlabelled()
    labels = pd.DataFrame({"image_id": data.table["image_id"], "MA": pd.array([1, 0] * 14, dtype="Int64")})
    labels["HE"] = labels["MA"].mask(labels.index >= 2)
    labels.loc[[0, 5], "MA"] = pd.NA
    found = multilabel.with_labels(data, labels, ("MA", "HE"))
    assert len(found.table) == 27, "of photograph 5 nothing is known; of 0 the second label is"
    assert "05" not in found.table["image_id"].tolist()
    assert found.targets == ("grade", "lesion_MA", "lesion_HE")
    assert np.isnan(found.table["lesion_MA"][0])
    assert found.table["lesion_HE"].notna().sum() == 2


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_without_labels_is_refused(split):
    data = unlabelled()
    labels = pd.DataFrame({"image_id": data.table["image_id"], "MA": pd.array([1, 0] * 14, dtype="Int64")})
    labels.loc[(data.table["split"] == split).to_numpy(), "MA"] = pd.NA
    with pytest.raises(LabelError, match=f"No {split} photograph has a known label of MA"):
        multilabel.with_labels(data, labels, ("MA",))


# --- masks of views -------------------------------------------------------------------------------------------


def test_masks_of_views_with_a_lesion_that_nobody_outlined():
    data, masks = eyes()
    recipe = params(views=2).recipe("masks")
    feed = features.open_features(copy.deepcopy(built()), data, recipe, CPU)
    found = training.masks_by_view(feed, recipe, masks.__getitem__)
    assert set(found) == {(row, view) for row in data.part("train")["row"] for view in (0, 1)}
    for image_id, row in data.part("train")[["image_id", "row"]].itertuples(index=False):
        for view in (0, 1):
            one = found[row, view]
            assert one.shape == (3, SIDE, SIDE)
            assert one.dtype == np.float16
            nobody = masks[image_id]["NV"] is None
            assert np.isnan(one[2]).all() == nobody == np.isnan(one).any()
            for k, code in enumerate(CODES[:2]):
                assert (one[k] > 0).any() == masks[image_id][code].any()
                assert set(np.unique(one[k])) <= {0, 1}
    with_one = {name: one | {code: None for code in CODES[1:]} for name, one in masks.items()}
    some = training.masks_by_view(feed, recipe, with_one.__getitem__)
    for key, one in some.items():
        np.testing.assert_array_equal(one[0], found[key][0])
        assert np.isnan(one[1:]).all()


def test_an_eye_of_which_nothing_is_outlined_has_no_masks():
    data, masks = eyes()
    recipe = params(views=1).recipe("masks")
    feed = features.open_features(copy.deepcopy(built()), data, recipe, CPU)
    nothing = {name: dict.fromkeys(CODES) for name in masks}
    found = training.masks_by_view(feed, recipe, nothing.__getitem__)
    assert all(np.isnan(one).all() for one in found.values())


def test_a_pixel_counts_from_half_of_it_on():
    data, _ = eyes()
    recipe = params(views=1).recipe("masks")
    feed = features.open_features(copy.deepcopy(built()), data, recipe, CPU)
    share = np.full((SIZE, SIZE), 0.49, np.float32)
    half = np.full((SIZE, SIZE), 0.5, np.float32)
    found = training.masks_by_view(feed, recipe, lambda name: {"MA": share, "HE": half, "NV": None})
    one = next(iter(found.values()))
    assert (one[0] == 0).all()
    assert (one[1] == 1).mean() > 0.5, "all but what a turn leaves empty"


def test_masks_of_a_grade_are_refused():
    data, masks = eyes()
    recipe = params(codes=(REFERABLE,), labels="grade").recipe("masks")
    feed = features.open_features(copy.deepcopy(built()), data, recipe, CPU)
    with pytest.raises(ValueError, match="MASK_EPOCHS must be 0 with LABELS 'grade'"):
        training.masks_by_view(feed, recipe, masks.__getitem__)


# --- the whole training ------------------------------------------------------------------------------------------


SHORT = {"epochs": 1, "local_epochs": 1, "refined_epochs": 1, "mask_epochs": 1, "views": 1}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Everything for one epoch, the system as released too, with its files."""
    folder = tmp_path_factory.mktemp("14_glam")
    p, (data, masks) = params(**SHORT, released_size=64, released_width=0.1), eyes()
    trained = training.train(p, data, masks.__getitem__, CPU, folder / "run")
    training.save(trained, p, folder)
    (folder / "tables").mkdir()
    trained.history.to_csv(folder / "tables/history.csv", index=False)
    return p, trained, folder


def test_all_groups_are_trained_one_after_the_other(whole):
    _, trained, folder = whole
    groups = list(training.GROUPS)
    released = [
        f"{form} {stage}" for form in ("released", "corrected") for stage in ("global", "local", "joint")
    ]
    assert list(dict.fromkeys(trained.history["training"])) == groups + released
    assert trained.history["loss"].notna().all()
    assert trained.rules.implied == ((1,), (), ())
    assert list(trained.released) == ["released sep", "released joint", "corrected sep", "corrected joint"]
    assert set(maps.RELEASED) == set(trained.released)
    assert set(trained.seconds) == {"features", *(f"{name}_per_epoch" for name in groups + released)}
    assert not any(q.requires_grad for q in trained.net.parameters())
    assert not trained.net.training
    assert trained.net.input_size == SIZE
    assert {file.name for file in (folder / "run/checkpoints").iterdir()} == {
        *groups,
        "released",
        "corrected",
    }
    heads = trained.net.net.heads
    count = training.parameters(trained)
    assert list(count) == ["backbone", *heads, *trained.released]
    assert count["coarse"] == 320 * 8 + 8 + 8 * 3 + 3


def test_networks_are_found_again(whole, monkeypatch):
    p, trained, folder = whole
    monkeypatch.setattr(records.Record, "path", lambda self, name: self.folder / name)
    again = training.load(record_at(folder, **p.upper()), p, CPU)
    assert again.rules == trained.rules
    assert set(again.released) == set(trained.released)
    pairs = [
        (again.net, trained.net),
        *((again.released[name], net) for name, net in trained.released.items()),
    ]
    for theirs, ours in pairs:
        state = theirs.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())
    assert again.history["training"].tolist() == trained.history["training"].tolist()
    table = eyes()[0].part("test")
    first, second = (
        maps.Reader(one, p, eyes()[0], CPU, table)(table["image_id"][0]) for one in (trained, again)
    )
    assert set(first) == set(second)
    assert all(name in first for name in maps.RELEASED)
    for name, one in first.items():
        np.testing.assert_array_equal(second[name], one, err_msg=name)


@pytest.mark.parametrize(
    "changes",
    [{"codes": ("MA", "HE", "EX")}, {"input_size": 128}, {"grid": 8}],
    ids=["codes", "size", "grid"],
)
def test_networks_of_other_labels_or_sizes_are_refused(whole, changes):
    p, _, folder = whole
    (name,) = changes
    with pytest.raises(LabelError, match=f"were made with {name.upper()} .* Set {name.upper()} to theirs"):
        training.load(record_at(folder, **p.upper()), Glam(**p.model_dump() | changes), CPU)


def test_groups_with_no_epochs_are_left_out():
    p, (data, masks) = params(**SHORT | {"local_epochs": 0, "mask_epochs": 0}), eyes()
    trained = training.train(p, data, masks.__getitem__, CPU)
    assert list(dict.fromkeys(trained.history["training"])) == ["saliency", "refined"]
    assert trained.released == {}
    assert maps.SUPERVISED not in maps.made_by(trained)
    assert maps.FUNDUS in maps.made_by(trained)


def test_photographs_that_are_too_small_are_refused():
    data, masks = eyes()
    with pytest.raises(
        ValueError, match="INPUT_SIZE is 128, but the photographs of AUDIT have 64 pixels a side"
    ):
        training.train(params(input_size=128), data, masks.__getitem__, CPU)


def test_the_later_groups_do_not_depend_on_the_rivals():
    """Another share or sparsity of the rivals trains the rivals anew, and the heads that learn beside them, but not the recipe of the rest."""
    base, other = params(), params(sparsity=0.5)
    assert base.recipe("saliency") != other.recipe("saliency")
    for group in ("local", "refined", "masks"):
        assert base.recipe(group) == other.recipe(group)
    assert base.recipe("refined") == params(patches=2, local_share=0.5).recipe("refined")
    assert base.recipe("local") != params(patches=2).recipe("local")


def test_a_finished_training_is_found_in_the_store(own_folders, monkeypatch):
    p, (data, masks) = params(**SHORT), eyes()
    first = training.train(p, data, masks.__getitem__, CPU, keep=True)
    monkeypatch.setattr(loop, "train_epoch", lambda *_: pytest.fail("it trained again"))
    again = training.train(p, data, masks.__getitem__, CPU, keep=True)
    state = again.net.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first.net.state_dict().items())
