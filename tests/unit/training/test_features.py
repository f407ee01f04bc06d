"""The frozen trunk's output, stored or made each time: the same numbers, in the order asked for."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fabricated import sealed
from photographs import eyepacs
from resident import listed, resident_kib

from drstudy.core import paths, records
from drstudy.core.devices import Compute
from drstudy.data import dataset, images, sources, splits
from drstudy.models import nets
from drstudy.papers.transfer import params
from drstudy.training import features, networks, transforms

CPU = Compute("cpu", "fp32")
FLOAT32 = 1e-5
"""Relative: a convolution sums about a thousand products, in an order that depends on the batch's size; eps
is 1.2e-7. Another view of the same eye differs by more than 0.1."""


def recipe(**changes):
    given = {"backbone": "efficientnet_lite0", "input_size": 64, "batch_size": 6, "views": 2, "seed": 3}
    return params.FineTuning(**(given | changes))


@pytest.fixture(scope="module")
def data(coloured_eyes):
    return coloured_eyes(train=13, validation=7, test=6)


def opened(data, compute=CPU, net=None, **changes):
    p = recipe(**changes)
    return features.open_features(net or networks.build(p, data, compute), data, p, compute)


def drawn(source, positions, views):
    batches = list(source.draws(torch.as_tensor(positions), torch.as_tensor(views)))
    return torch.cat([b.inputs for b in batches]), torch.cat([b.targets["grade"] for b in batches])


def expected_view(data, net, part, position, view):
    """The trunk on one image, step by step."""
    image = transforms.channels_first(data.images[int(part["row"][position])])
    if view >= 0:
        image = transforms.augment(image, 3, int(part["row"][position]), view)
    net.eval()
    with torch.no_grad():
        return net.trunk(transforms.normalise(image[None], net.mean, net.std))[0]


def close(found, expected):
    assert (found - expected).abs().max() < FLOAT32 * expected.abs().max()


@pytest.mark.parametrize("feature_store", [True, False], ids=["stored", "live"])
def test_draws_are_the_trunk_on_the_views_asked_for(data, feature_store):
    source = opened(data, feature_store=feature_store)
    positions, views = [12, 0, 5, 5, 0, 7, 12], [1, 0, 1, 0, 0, 1, 0]
    h, grades = drawn(source, positions, views)
    assert grades.tolist() == [int(source.train["grade"][i]) for i in positions]
    for i, (position, view) in enumerate(zip(positions, views)):
        close(h[i], expected_view(data, source.net, source.train, position, view))
    others = expected_view(data, source.net, source.train, 12, 0)
    assert (h[0] - others).abs().max() > 0.1 * others.abs().max(), "the comparison tells views apart"


@pytest.mark.parametrize("feature_store", [True, False], ids=["stored", "live"])
def test_clean_images_come_in_order_whole_and_not_augmented(data, feature_store, monkeypatch):
    monkeypatch.setattr(nets.GradingNet, "trunk_batch", 3)
    source = opened(data, feature_store=feature_store)
    assert source.clean["split"].tolist() == ["validation"] * 7 + ["test"] * 6
    positions = np.array([2, 3, 4, 5, 6, 12, 0, 8, 7, 1])
    for count in (10, 7, 1):  # also with a last image that is alone in its batch
        h = torch.cat(list(source.unaugmented(positions[:count])))
        assert len(h) == count
        for i, position in enumerate(positions[:count]):
            close(h[i], expected_view(data, source.net, source.clean, position, -1))


@pytest.mark.parametrize("backbone", ["densenet121", "resnet18"])
def test_stored_equals_live(data, backbone):
    sources = [
        opened(data, backbone=backbone, weights="none", feature_store=stored) for stored in (True, False)
    ]
    positions, views = torch.arange(13).repeat(2), torch.arange(26) // 13
    (stored, grades), (live, same) = (drawn(source, positions, views) for source in sources)
    assert torch.equal(grades, same)
    close(stored, live)
    stored, live = (torch.cat(list(source.unaugmented(np.arange(13)))) for source in sources)
    close(stored, live)


@listed
def test_no_more_than_a_batch_of_the_store_stays_in_memory(data, own_folders, monkeypatch):
    left, real = [], features.release

    def watched(array):
        real(array)
        if isinstance(array, np.memmap):
            left.append(resident_kib(Path(array.filename)))

    monkeypatch.setattr(features, "release", watched)
    source = opened(data)
    source.prepare()
    assert len(left) >= 2  # while both parts were written
    drawn(source, [12, 0, 5], [1, 0, 1])
    list(source.unaugmented(np.arange(13)))
    assert len(left) >= 4
    assert not any(left)
    for part in features.PARTS:
        assert resident_kib(source.folder / f"{part}.npy") == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_store_keeps_every_bit(data, precision):
    """In the batches in which the store was written, so that not even the order of sums differs."""
    half = Compute("cpu", precision)
    sources = [
        opened(data, half, batch_size=nets.GradingNet.trunk_batch, feature_store=stored)
        for stored in (True, False)
    ]
    positions, views = torch.arange(13).repeat_interleave(2), torch.arange(2).repeat(13)
    (stored, _), (live, _) = (drawn(source, positions, views) for source in sources)
    assert stored.dtype == live.dtype == half.dtype
    assert torch.equal(stored, live)


def test_draws_take_nothing_from_the_global_generator(data):
    """Else dropout would differ between a stored and a live run."""
    for stored in (True, False):
        source = opened(data, feature_store=stored)
        torch.manual_seed(5)
        before = torch.get_rng_state()
        drawn(source, [0, 1, 2], [0, 0, 1])
        assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("feature_store", [True, False], ids=["stored", "live"])
@pytest.mark.parametrize(
    ("count", "sizes"), [(12, [6, 6]), (13, [6, 7]), (14, [6, 6, 2]), (5, [5]), (1, [1]), (7, [7])]
)
def test_a_last_single_image_joins_the_batch_before(data, feature_store, count, sizes):
    source = opened(data, feature_store=feature_store)
    positions = torch.arange(count) % 13
    batches = list(source.draws(positions, torch.zeros(count, dtype=torch.int64)))
    assert [len(batch) for batch in batches] == sizes
    for name in ("rows", "views"):
        assert [len(getattr(batch, name)) for batch in batches] == sizes
    assert [len(batch.targets["grade"]) for batch in batches] == sizes


def test_tracked_statistics_move_on_draws_and_not_on_clean_images(data):
    source = opened(data, backbone="densenet121", weights="none", frozen_bn="track", feature_store=False)
    norm = source.net.net.features.norm0
    source.net.eval()
    before = norm.running_mean.clone()
    list(source.unaugmented(np.arange(4)))
    assert torch.equal(norm.running_mean, before)
    source.net.train()
    drawn(source, [0, 1], [0, 0])
    assert not torch.equal(norm.running_mean, before)


def test_a_store_is_refused_where_it_would_not_be_exact(data):
    p = recipe()
    net = networks.build(p, data, CPU)
    net.freeze("track")
    with pytest.raises(ValueError, match="would not be exact with FROZEN_BN 'track'"):
        features.open_features(net, data, p, CPU)


def test_an_input_size_that_lite0_cannot_take_is_refused(data):
    for stored in (True, False):
        with pytest.raises(ValueError, match="INPUT_SIZE is 80; efficientnet_lite0 needs a multiple of 32"):
            opened(data, input_size=80, feature_store=stored)


# --- the files of a store --------------------------------------------------------------------------


def parts(folder):
    """Parts of stores that look whole."""
    return sorted(path.stem for path in (folder / "data/features").glob("*/*.json"))


def test_a_store_is_made_once_and_said_how_large(data, own_folders, monkeypatch, capsys):
    first = opened(data)
    assert parts(own_folders) == [], "nothing is computed before it is needed"
    first.prepare()
    told = capsys.readouterr().out
    for name, count in (("train", 26), ("clean", 13)):
        about = json.loads((first.folder / f"{name}.json").read_text())
        size = (first.folder / f"{name}.npy").stat().st_size
        assert about["bytes"] == size - 128, "the array without its header"
        assert about["seconds_prepare"] > about["seconds"] > 0
        assert f"feature store: {name}, {count} views of" in told
    assert first.seconds_prepare > first.seconds > 0
    monkeypatch.setattr(features.Live, "trunk", lambda *_: pytest.fail("the trunk ran again"))
    again = opened(
        data, head="mlp", learning_rate=0.1, sampler="none", epochs=9, batch_size=3, feature_store=True
    )
    again.prepare()
    assert again.folder == first.folder
    assert again.seconds == first.seconds
    assert capsys.readouterr().out == ""


def test_unaugmented_images_need_no_views(data, own_folders):
    """What a network that is found trained asks for."""
    source = opened(data)
    next(source.unaugmented(np.arange(3)))
    assert parts(own_folders) == ["clean"]


def test_what_changes_the_numbers_changes_the_store(data, coloured_eyes, own_folders):
    def key(data=data, compute=CPU, change=None, **changes):
        p = recipe(**changes)
        net = networks.build(p, data, compute)
        if change:
            change(net)
        stored = object.__new__(features.Stored)
        features.Features.__init__(stored, net, data, p, compute)
        return stored._key()

    def frozen_weight(net):
        net.net._conv_stem.weight.data[0, 0, 0, 0] += 1e-6

    def frozen_statistic(net):
        net.net._bn0.running_mean[0] += 1e-6

    def learning_weight(net):
        net.net._fc.weight.data += 1

    keys = [
        key(),
        key(views=3),
        key(seed=4),
        key(input_size=32),
        key(compute=Compute("cpu", "bf16")),
        key(change=frozen_weight),
        key(change=frozen_statistic),
        key(data=dataclasses.replace(data, key="other")),
        key(data=coloured_eyes(train=14, validation=6, test=6)),
    ]
    assert len(set(keys)) == len(keys)
    assert key(change=learning_weight) == keys[0]
    assert not (own_folders / "data/features").exists(), "a key costs no store"


def test_too_small_a_disk_is_told_before_anything_is_written(data, own_folders, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(features.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 4000))
    with pytest.raises(
        OSError, match=r"needs .* GiB, but data/features has 0\.0 GiB.*lower VIEWS.*FEATURE_STORE"
    ):
        opened(data).prepare()
    assert parts(own_folders) == []


def test_a_killed_run_leaves_no_store_that_looks_whole(data, own_folders, monkeypatch):
    real, calls = features.Live.trunk, []

    def killed(self, images):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, images)

    monkeypatch.setattr(nets.GradingNet, "trunk_batch", 8)
    source = opened(data)
    with monkeypatch.context() as patch:
        patch.setattr(features.Live, "trunk", killed)
        patch.setattr(Path, "unlink", lambda *_args, **_kwargs: None)  # as a kill that no handler sees
        with pytest.raises(KeyboardInterrupt):
            source.prepare()
    assert parts(own_folders) == []
    assert len(list(source.folder.glob(".train-*.npy"))) == 1
    source = opened(data, net=source.net)
    source.prepare()
    assert parts(own_folders) == ["clean", "train"]
    assert list(source.folder.glob(".train-*")) == [], "the next run cleans up"
    close(drawn(source, [12], [1])[0][0], expected_view(data, source.net, source.train, 12, 1))


@pytest.mark.parametrize("part", ["train", "clean"])
@pytest.mark.parametrize("damage", ["cut", "shorter", "pickle", "facts cut", "facts a list", "deleted"])
def test_a_damaged_store_is_made_again(data, own_folders, capsys, part, damage):
    first = opened(data, feature_store=True)
    first.prepare()
    whole = {name: np.array(first._part(name)) for name in ("train", "clean")}
    values, facts = first.folder / f"{part}.npy", first.folder / f"{part}.json"
    first.close(keep=True)
    if damage == "cut":
        values.write_bytes(values.read_bytes()[:200])
    elif damage == "shorter":
        np.save(values, np.load(values)[:-1])
    elif damage == "pickle":
        np.save(values, np.array([{}], dtype=object), allow_pickle=True)
    elif damage == "facts cut":
        facts.write_text(facts.read_text()[:9])
    elif damage == "facts a list":
        facts.write_text("[]")
    else:
        values.unlink()
    again = opened(data, feature_store=True)
    again.prepare()
    assert "is damaged" in capsys.readouterr().out
    assert all(np.array_equal(again._part(name), values) for name, values in whole.items())
    again.close(keep=False)


def test_temporary_files_of_a_killed_process_are_removed(data, own_folders):
    folder = paths.data() / "features" / "another-key"
    folder.mkdir(parents=True)
    process = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    dead, own = int(process.stdout), os.getpid()
    with paths.atomic(folder / "train.npy") as temporary:
        left = folder / temporary.name.replace(f"-{own}-", f"-{dead}-")
        left.touch()
        opened(data, feature_store=True)
        assert not left.exists()
        assert temporary.exists(), "this process lives"


def test_closing_removes_the_store_unless_it_is_kept(data, own_folders):
    source = opened(data)
    source.prepare()
    source.close(keep=True)
    assert parts(own_folders) == ["clean", "train"]
    opened(data).close(keep=False)
    assert parts(own_folders) == []
    opened(data, feature_store=False).close(keep=False)


# --- the data set they are made of -----------------------------------------------------------------


@pytest.fixture
def audited(own_folders):
    """What notebook 01 leaves, of four small photographs."""
    eyepacs(own_folders / "set", 2)
    manifest = sources.load("eyepacs", own_folders / "set").manifest
    store = images.build(manifest, 32, workers=1)
    run = records.start(params.DataAudit())
    split = manifest[["image_id", "patient_id", "grade"]].assign(split=["train", "train", "test", "test"])
    split.iloc[::-1].to_csv(run.path("split.csv"), index=False)
    pd.DataFrame(columns=["image_id_a", "image_id_b", "kind"]).to_csv(run.path("duplicates.csv"), index=False)
    run.path("images.json").write_text(json.dumps({"store": paths.show(store.folder)}))
    run.finish()
    return sealed(records.load(run.folder)), store, split


def test_a_data_set_joins_split_and_store(audited):
    record, store, split = audited
    data = dataset.load(record)
    assert data.key == store.folder.name
    assert data.table["image_id"].tolist() == split["image_id"].tolist()[::-1]
    for image_id, row in zip(data.table["image_id"], data.table["row"]):
        assert store.index.set_index("row").loc[row, "image_id"] == image_id
    assert data.images.shape == (4, 32, 32, 3)
    assert len(data.part("train")) == 2
    assert data.part("test").index.tolist() == [0, 1]
    assert len(data.part("all")) == 4
    assert data.table["patient_id"].map(type).eq(str).all()


@pytest.mark.parametrize("kind", ["exact", "near"])
def test_a_duplicate_on_two_sides_stops_the_run_before_training(audited, kind):
    record, _, split = audited
    train, test = split["image_id"].iloc[[0, 3]]
    pair = pd.DataFrame([{"image_id_a": train, "image_id_b": test, "kind": kind}])
    pair.to_csv(record.folder / "duplicates.csv", index=False)
    with pytest.raises(
        splits.LeakError, match=rf"1 duplicate pair\(s\) stand on two sides.*'{train}' and '{test}'"
    ):
        dataset.load(record)
    same_side = pair.assign(image_id_b=split["image_id"].iloc[1])
    same_side.to_csv(record.folder / "duplicates.csv", index=False)
    assert len(dataset.load(record).table) == 4


def test_a_patient_on_two_sides_stops_the_run_before_training(audited):
    record, _, split = audited
    split.assign(split=["train", "test", "test", "test"]).to_csv(record.folder / "split.csv", index=False)
    with pytest.raises(splits.LeakError, match=r"1 patient\(s\) have images on two sides"):
        dataset.load(record)


def test_a_split_that_is_unknown_or_empty_is_told(data):
    with pytest.raises(ValueError, match="no split 'val'; there are train, validation, test and all"):
        data.part("val")
    lone = dataclasses.replace(data, table=data.table[data.table["split"] == "train"])
    with pytest.raises(ValueError, match=r"No image is in the split 'test'.*FRACTIONS"):
        lone.part("test")


def test_a_store_that_is_gone_or_another_is_told(audited):
    record, store, split = audited
    more = pd.concat([split, split.iloc[:1].assign(image_id="77_left")])
    more.to_csv(record.folder / "split.csv", index=False)
    with pytest.raises(records.RecordError, match=r"1 images of the split are not in the store .*77_left"):
        dataset.load(record)
    shutil.rmtree(store.folder)
    with pytest.raises(records.RecordError, match=r"image store data/images/\w+ is gone.*notebook 01"):
        dataset.load(record)


def test_views_made_on_the_device_are_those_of_the_loader(data):
    """The path that CUDA takes, on the CPU: the same views, and none is lost at the end of a batch."""
    net = networks.build(recipe(feature_store=False), data, CPU)
    beside = features.Live(net, data, recipe(feature_store=False), CPU)
    there = features.Live(net, data, recipe(feature_store=False), CPU)
    there.on_device = True
    assert not beside.on_device, "a CPU leaves views to the loader"
    pairs, batches = [(3, 0), (3, 1), (9, -1), (11, 1), (0, 0)], [(0, 2), (2, 4), (4, 5)]
    for ours, theirs in zip(there.images(pairs, batches), beside.images(pairs, batches), strict=True):
        assert torch.equal(ours, theirs)


def test_compile_concerns_the_frozen_trunk_only(data, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: (asked.append(options), function)[1])
    plain, compiled = (opened(data, feature_store=False, compile=flag) for flag in (False, True))
    views = [0, 1, 2], [0, 0, 1]
    (h, _), (same, _) = drawn(plain, *views), drawn(compiled, *views)
    assert torch.equal(h, same)
    assert asked == [{"options": {"freezing": True}}]
