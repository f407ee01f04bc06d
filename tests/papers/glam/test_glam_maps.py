"""Maps of the heads: each is what its name says, the reader gives the same in any order and keeps one batch only."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from squares import CODES, CPU, SIDE, SIZE, built, eyes, params

from drstudy.explain.measures import baselines
from drstudy.papers.glam import evidence, fundus_training, maps, training
from drstudy.training import prediction

IMPLIED = ((1,), (), ())
RULES = evidence.Rules(IMPLIED, ((1.0, 0.25, 0.5), (0.0, 0.25, 0.5), (0.0, 0.5, 0.0)))
OWN = (*maps.SCALES.values(), maps.MEAN, maps.GLOBAL, maps.LOCAL, maps.REFINED, maps.FUNDUS)
OWN += (maps.COARSE, maps.BAG, maps.SUPERVISED)


def drawn(net):
    """Heads that differ from cell to cell: the evidence of a fresh head is nearly even."""
    torch.manual_seed(7)
    for head in net.net.heads.values():
        torch.nn.init.normal_(head.evidence.weight, 0, 1.5)
    return net.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def trained():
    return training.Trained(drawn(copy.deepcopy(built())), RULES, {}, pd.DataFrame())


@pytest.fixture(scope="module")
def data():
    return eyes()[0]


def reader(trained, data, p=None, **more):
    return maps.Reader(trained, p or params(), data, CPU, data.part("train"), **more)


@torch.no_grad()
def packed(trained, data, rows):
    net = trained.net
    ((_, h),) = prediction.in_batches(net.trunk, net, data.images, rows, SIZE, CPU, 64)
    return h


@torch.no_grad()
def test_each_map_is_made_of_its_heads(trained, data):
    h = packed(trained, data, np.arange(5))
    found = maps.of_heads(trained, params(), h)
    assert tuple(found) == OWN
    features, lit = trained.net.unpack(h)
    raw = {name: head(features) for name, head in trained.net.net.heads.items()}
    grown = {name: evidence.to_side(z, SIDE) for name, z in raw.items()}
    mean = (grown["fine"] + grown["middle"] + grown["all"]) / 3
    weighted = [
        grown[name] * torch.tensor(weight)[None, :, None, None]
        for name, weight in zip(("fine", "middle", "all"), RULES.weights)
    ]
    whole = torch.stack(weighted).sum(0)
    expected = {maps.SCALES[name]: evidence.exclusive(grown[name], IMPLIED) for name in maps.SCALES}
    expected |= {
        maps.MEAN: evidence.exclusive(mean, IMPLIED),
        maps.GLOBAL: evidence.exclusive(whole, IMPLIED),
    }
    expected |= {maps.REFINED: evidence.exclusive(grown["refined"], IMPLIED)}
    expected |= {maps.FUNDUS: evidence.exclusive((whole + grown["refined"]) / 2, IMPLIED)}
    expected |= {maps.COARSE: grown["coarse"], maps.BAG: grown["bag"], maps.SUPERVISED: grown["masks"]}
    for name, z in expected.items():
        assert found[name].shape == (5, len(CODES), SIDE, SIDE), name
        here = lit.expand_as(z)
        torch.testing.assert_close(found[name][here], z[here], msg=name)
        assert (found[name][~here] == maps.OUTSIDE).all(), name
    within = fundus_training.proposed(found[maps.GLOBAL].masked_fill(~lit, -30), lit, 4, 0.25)
    local = torch.where(within, (expected[maps.GLOBAL] + raw["local"]) / 2, expected[maps.GLOBAL])
    here = lit.expand_as(local)
    torch.testing.assert_close(found[maps.LOCAL][here], local[here])
    assert 0 < within.float().mean() < 1


@torch.no_grad()
def test_heads_that_are_not_asked_for_do_not_run(trained, data, monkeypatch):
    h = packed(trained, data, np.arange(3))
    whole = maps.of_heads(trained, params(), h)
    heads = trained.net.net.heads
    for name in ("local", "coarse", "bag", "masks"):
        monkeypatch.setattr(heads[name], "forward", lambda features: pytest.fail("it ran"))
    some = maps.of_heads(trained, params(), h, (maps.FUNDUS, maps.GLOBAL))
    assert list(some) == [maps.GLOBAL, maps.FUNDUS]
    assert all(torch.equal(z, whole[name]) for name, z in some.items())


def test_maps_of_groups_that_were_left_out_are_missing(trained, data):
    small = copy.deepcopy(trained)
    for name in ("local", "refined", "masks"):
        del small.net.net.heads[name]
    assert set(OWN) - set(maps.made_by(small)) == {maps.LOCAL, maps.REFINED, maps.FUNDUS, maps.SUPERVISED}
    with pytest.raises(ValueError, match=r"no map 'refined \+ global'; they give strides 4, 8, "):
        reader(small, data, only=(maps.FUNDUS,))


def test_the_reader_gives_what_a_direct_computation_gives_in_any_order(trained, data):
    table = data.part("train")
    with torch.no_grad():
        direct = maps.of_heads(trained, params(), packed(trained, data, table["row"].to_numpy()))
    read = reader(trained, data)
    order = [0, 1, 15, 4, 3, 0, 8, 7, *range(16)]
    for number in order:
        found = read(table["image_id"][number])
        assert tuple(found) == OWN
        for name, one in found.items():
            z = direct[name][number].sigmoid().numpy()
            assert one.dtype == np.float32
            assert one.shape == (len(CODES) + 1, SIDE, SIDE)
            # norms are folded: measured, natively and as AVX2, at most 1.4e-5; another eye's maps differ by more than 0.1
            np.testing.assert_allclose(one[:-1], z, rtol=0, atol=5e-5, err_msg=name)
            np.testing.assert_array_equal(one[-1], one[:-1].max(0), err_msg="all lesions together")
    other = direct[maps.FUNDUS][1].sigmoid().numpy()
    assert np.abs(read("00")[maps.FUNDUS][:-1] - other).max() > 0.1


def test_the_neighbours_of_an_eye_do_not_change_its_maps(trained, data):
    """Not even outside the field of view, where the value is the same everywhere."""
    p = params(grid=SIDE // 2)
    table = data.part("train")
    alone = maps.Reader(trained, p, data, CPU, table.iloc[[2]])("02")
    among = reader(trained, data, p)("02")
    for name, one in alone.items():
        np.testing.assert_allclose(among[name], one, rtol=0, atol=1e-6, err_msg=name)


def test_only_one_batch_is_in_memory(trained, data, monkeypatch):
    read, seen = reader(trained, data, only=(maps.FUNDUS,)), []
    compute = read._compute

    def counting(rows):
        assert len(rows) <= maps.BATCH
        seen.append(rows.tolist())
        return compute(rows)

    monkeypatch.setattr(read, "_compute", counting)
    table = data.part("train")
    for name in table["image_id"]:
        assert list(read(name)) == [maps.FUNDUS]
    assert [row for rows in seen for row in rows] == table["row"].tolist(), (
        "each photograph once, in the order of the table"
    )
    (kept,) = read._maps.values()
    assert len(kept) == maps.BATCH


def test_maps_of_others_and_blind_ones_stand_beside(trained, data):
    beside = {maps.RAM: np.arange(16.0)[:, None, None] * np.ones((1, 3, 3))}
    asked = []

    def blind(number, image_id, masks):
        asked.append((number, image_id, masks))
        return {
            "random #0": np.zeros((2, 2)),
            "random #1": np.ones((2, 2)),
            "centre (blind)": np.ones((2, 2)),
        }

    read = reader(
        trained, data, only=(maps.BAG,), beside=beside, blind=blind, masks_of={"05": "its masks"}.get
    )
    found = read("05")
    assert list(found) == [maps.BAG, maps.RAM, "random", "centre"]
    assert (found[maps.RAM] == 5).all()
    assert (found["random"] == 0).all(), "one of the draws"
    assert asked == [(5, "05", "its masks")]


def test_fine_maps_are_averaged_on_the_grid_and_coarse_ones_stay():
    z = torch.arange(16.0).view(1, 1, 4, 4)
    assert evidence.reduced(z, 2)[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert evidence.reduced(z, 4) is z
    assert evidence.reduced(z, 8) is z


def test_kinds_of_maps():
    blind = sorted(baselines.NAMES)[0]
    kinds = maps.kinds([maps.FUNDUS, maps.GRADE, maps.RAM, "released sep", blind])
    assert kinds == {
        maps.FUNDUS: "probability",
        maps.GRADE: "heat",
        maps.RAM: "heat",
        "released sep": "probability",
        blind: "heat",
    }


def test_one_label_of_the_grade_has_one_map_for_all_regions(data):
    p = params(codes=("REFERABLE",), labels="grade", mask_epochs=0)
    net = drawn(training.build(p, data, CPU))
    read = maps.Reader(
        training.Trained(net, evidence.Rules(((),), ((1.0,), (0.0,), (0.0,))), {}, pd.DataFrame()),
        p,
        data,
        CPU,
        data.part("test"),
    )
    found = read(data.part("test")["image_id"][0])
    assert maps.SUPERVISED not in found
    assert {one.shape for one in found.values()} == {(len(p.regions), SIDE, SIDE)}, (
        "on each lesion, and on all"
    )
    for one in found.values():
        assert (one == one[:1]).all()
