"""Shares of heat on maps and masks whose answers are known."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from drstudy.data import images, manifest
from drstudy.evaluation import statistics
from drstudy.explain.measures import localisation
from drstudy.explain.methods.cam import Explained
from drstudy.papers.transfer import tables as paper_tables
from drstudy.show import map_tables

SIZE = 64
EXACT = 1e-6
"""Masks are float32 shares, sums float64."""


def disc(x, y, radius, size=SIZE):
    rows, columns = np.indices((size, size))
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def eye(**masks):
    """Masks of one eye: a round field of view, two lesions, disc, vessel and fovea, none of which overlap."""
    vessel = np.zeros((SIZE, SIZE), bool)
    vessel[30:32, 8:56] = True
    known = {
        "FOV": disc(31.5, 31.5, 30),
        "MA": disc(20, 20, 3),
        "HE": disc(44, 18, 5),
        "DISC": disc(14, 42, 5),
        "VESSEL": vessel,
        "FOVEA": disc(44, 46, 4),
    }
    return known | masks


def measured(heat, masks, tolerance=localisation.TOLERANCE):
    """One map's rows, by (kind, region)."""
    table, _ = localisation.measure_eye(heat[None].astype(np.float32), masks, tolerance)
    return table.set_index(["kind", "region"])


def test_a_map_equal_to_the_lesions_lies_inside_them():
    masks = eye()
    table = measured(masks["MA"] | masks["HE"], masks)
    assert table.loc[("mask", "lesion"), "heat"] == pytest.approx(1, abs=EXACT)
    assert table.loc[("part", "lesion"), "heat"] == pytest.approx(1, abs=EXACT)
    assert table.loc[("mask", "lesion"), "hit"] == 1
    assert table.loc[("mask", "vessel"), "heat"] == 0
    inside = masks["MA"].sum() / (masks["MA"].sum() + masks["HE"].sum())
    assert table.loc[("mask", "MA"), "heat"] == pytest.approx(inside, abs=EXACT)


def test_the_complement_has_nothing_inside():
    masks = eye()
    table = measured(~(masks["MA"] | masks["HE"]), masks)
    assert table.loc[("mask", "lesion"), "heat"] == 0
    assert table.loc[("part", "elsewhere"), "heat"] > 0


def test_a_uniform_map_has_the_share_of_the_area():
    masks = eye()
    table = measured(np.full((SIZE, SIZE), 0.3), masks)
    known = table[table["status"] == "measured"]
    np.testing.assert_allclose(known["heat"], known["area"], rtol=EXACT)
    assert len(known) == 5 + 7 + 1
    by_mask = known.loc["mask"]
    np.testing.assert_allclose(by_mask["hit"], by_mask["hit_chance"], rtol=EXACT)
    fov = masks["FOV"].sum()
    assert table.loc[("mask", "HE"), "area"] == pytest.approx(masks["HE"].sum() / fov, abs=EXACT)
    assert table.loc[("field", "outside"), "area"] == pytest.approx(1 - fov / SIZE**2, abs=EXACT)


def test_a_shifted_blob_loses_what_it_leaves():
    masks = eye(MA=disc(20, 20, 0), HE=np.zeros((SIZE, SIZE), bool))
    masks["HE"][10:20, 20:30] = True
    masks["MA"] = masks["HE"]
    for shift, share in ((0, 1.0), (3, 0.7), (7, 0.3), (10, 0.0)):
        heat = np.zeros((SIZE, SIZE))
        heat[10:20, 20 + shift : 30 + shift] = 2.0
        assert measured(heat, masks).loc[("mask", "lesion"), "heat"] == pytest.approx(share, abs=EXACT)


def test_heat_outside_the_field_of_view_is_reported_and_not_shared():
    masks = eye()
    heat = np.where(masks["FOV"], masks["HE"], 0).astype(float) * 2
    outside = ~masks["FOV"]
    heat[outside] = heat.sum() / outside.sum()
    table = measured(heat, masks)
    assert table.loc[("field", "outside"), "heat"] == pytest.approx(0.5, abs=EXACT)
    assert table.loc[("part", "lesion"), "heat"] == pytest.approx(1, abs=EXACT)


def overlapping():
    whole = np.ones((SIZE, SIZE), bool)
    return {
        "FOV": whole,
        "EX": disc(32, 32, 6),
        "DISC": disc(32, 32, 10),
        "VESSEL": whole,
        "FOVEA": disc(32, 32, 3),
    }


def test_overlaps_go_to_the_lesion_then_disc_then_vessel():
    table = measured(np.ones((SIZE, SIZE)), overlapping())
    counts = {"lesion": disc(32, 32, 6).sum(), "fovea": 0, "elsewhere": 0}
    counts["disc"] = disc(32, 32, 10).sum() - counts["lesion"]
    counts["vessel"] = SIZE**2 - disc(32, 32, 10).sum()
    for region, pixels in counts.items():
        assert table.loc[("part", region), "heat"] == pytest.approx(pixels / SIZE**2, abs=EXACT)
    whole = table.loc["mask"]
    assert whole.loc["vessel", "heat"] == pytest.approx(1)
    assert whole.loc["fovea", "heat"] == pytest.approx(disc(32, 32, 3).sum() / SIZE**2, abs=EXACT)


@pytest.mark.parametrize("masks", [eye(), overlapping(), eye(VESSEL=None, FOVEA=None), eye(MA=None, HE=None)])
def test_the_partition_s_shares_sum_to_one(masks):
    random = np.random.default_rng(0)
    random_covers = {
        code: random.random((SIZE, SIZE)) if m is not None and code != "FOV" else m
        for code, m in masks.items()
    }
    for given in (masks, random_covers):
        table = measured(random.random((SIZE, SIZE)), given)
        assert table.loc["part", "heat"].sum() == pytest.approx(1, abs=EXACT)
        assert table.loc["part", "area"].sum() == pytest.approx(1, abs=EXACT)


def test_a_pixel_half_covered_counts_half():
    masks = {"FOV": np.ones((SIZE, SIZE), bool), "MA": np.zeros((SIZE, SIZE), np.float32)}
    masks["MA"][5, 5] = 0.5
    masks["HE"] = masks["MA"] / 2
    heat = np.zeros((SIZE, SIZE))
    heat[5, 5] = 1
    table = measured(heat, masks)
    assert table.loc[("part", "lesion"), "heat"] == 0.5
    assert table.loc[("part", "elsewhere"), "heat"] == 0.5
    assert table.loc[("mask", "HE"), "heat"] == 0.25


def test_what_is_not_annotated_is_not_zero():
    table = measured(np.ones((SIZE, SIZE)), eye(VESSEL=None, DISC=None, SE=None))
    for key in (
        ("part", "vessel"),
        ("mask", "vessel"),
        ("mask", "disc"),
        ("mask", "beside disc"),
        ("mask", "SE"),
    ):
        assert table.loc[key, "status"] == "not annotated"
        assert table.loc[key, ["area", "heat", "hit"]].isna().all()
    nothing = measured(np.ones((SIZE, SIZE)), {"FOV": eye()["FOV"]})
    assert nothing.loc[("mask", "lesion"), "status"] == "not annotated"
    assert nothing.loc[("part", "elsewhere"), "heat"] == pytest.approx(1)


def test_an_empty_mask_is_named():
    table = measured(np.ones((SIZE, SIZE)), eye(EX=np.zeros((SIZE, SIZE), bool)))
    assert table.loc[("mask", "EX"), "status"] == "empty mask"
    assert table.loc[("mask", "EX"), "area"] == 0
    assert np.isnan(table.loc[("mask", "EX"), "heat"])
    healthy = measured(np.ones((SIZE, SIZE)), eye(MA=np.zeros((SIZE, SIZE)), HE=np.zeros((SIZE, SIZE))))
    assert healthy.loc[("part", "lesion"), "status"] == "measured"
    assert healthy.loc[("part", "lesion"), "heat"] == 0


def test_a_map_without_heat_is_named():
    masks = eye()
    nowhere = measured(np.zeros((SIZE, SIZE)), masks)
    assert set(nowhere["status"]) == {"no heat"}
    assert nowhere["heat"].isna().all()
    outside = measured(~masks["FOV"], masks)
    assert set(outside.drop(("field", "outside"))["status"]) == {"no heat"}
    assert outside.loc[("field", "outside"), "heat"] == 1


def test_the_pointing_game_has_a_tolerance_in_disc_diameters_and_draws_ties():
    masks = {"FOV": np.ones((100, 100), bool), "MA": np.zeros((100, 100), bool)}
    masks |= {"DISC": np.zeros((100, 100), bool)}
    masks["DISC"][80:96, 20:28] = True  # 128 pixels: as a circle, 12.77 across, of which a quarter is 3.19
    masks["MA"][50, 50] = True
    for distance, hit in ((0, 1), (3, 1), (4, 0)):
        heat = np.zeros((100, 100))
        heat[50, 50 + distance] = 1
        assert measured(heat, masks, 0.25).loc[("mask", "MA"), "hit"] == hit
    heat = np.zeros((100, 100))
    heat[50, 50 + 6] = 1
    assert measured(heat, masks, 0.5).loc[("mask", "MA"), "hit"] == 1, "half a disc is 6.4 pixels"
    heat = np.zeros((100, 100))
    heat[50, 50] = heat[0, 0] = heat[99, 99] = heat[0, 99] = 1
    assert measured(heat, masks, 0.25).loc[("mask", "MA"), "hit"] == 0.25
    assert (
        measured(heat, masks, 0.25).loc[("mask", "MA"), "hit_chance"] == 37 / 100**2
    )  # lattice points within 3.19


def test_beside_the_disc_is_a_ring_of_half_its_diameter():
    masks = {"FOV": np.ones((200, 200), bool), "DISC": disc(100, 100, 40, 200)}
    table = measured(np.ones((200, 200)), masks)
    ring = disc(100, 100, 80, 200) & ~disc(100, 100, 40, 200)
    # 2 %: half a pixel in the radius of 80
    assert table.loc[("mask", "beside disc"), "area"] == pytest.approx(ring.mean(), rel=0.02)


@pytest.mark.parametrize(
    ("heat", "masks", "message"),
    [
        (np.ones((1, 64, 64)), {"MA": np.ones((64, 64))}, "FOV"),
        (np.ones((1, 64, 64)), {"FOV": np.zeros((64, 64), bool)}, "FOV"),
        (np.ones((1, 32, 32)), eye(), r"\(1, 32, 32\)"),
        (np.ones((64, 64)), eye(), r"\(64, 64\)"),
        (-np.ones((1, 64, 64)), eye(), "at least 0"),
        (np.full((1, 64, 64), np.nan), eye(), "finite"),
    ],
)
def test_refuses_what_cannot_be_measured(heat, masks, message):
    with pytest.raises(ValueError, match=message):
        localisation.measure_eye(heat, masks)


def test_measures_every_eye_and_layer_after_upsampling():
    raw = np.zeros((2, 8, 8), np.float32)
    raw[0, 2, 5], raw[1, 7, 7] = 3, -1  # eye b: nothing speaks for its class
    explained = Explained({"x": raw, "y": raw + 1}, np.zeros((2, 5)), np.zeros(2, int), np.array(["a", "b"]))
    maps = {layer: explained.maps(layer) for layer in explained.layers}
    table, lesions = localisation.measure(maps, explained.image_ids, lambda image_id: eye())
    assert set(map(tuple, lesions[["image_id", "layer", "region"]].to_numpy())) == {
        (image_id, layer, code) for image_id, layer in ("ax", "ay", "by") for code in ("MA", "HE")
    }, "a map without heat covers nothing"
    assert list(table["image_id"].unique()) == ["a", "b"]
    assert list(table["layer"].unique()) == ["x", "y"]
    cells = table.set_index(["image_id", "layer", "kind", "region"])
    assert cells.loc[("a", "x", "mask", "HE"), "hit"] == 1  # cell (2, 5) is centred on (44, 20)
    assert cells.loc[("b", "x", "mask", "HE"), "status"] == "no heat"
    assert cells.loc[("b", "y", "mask", "HE"), "status"] == "measured"


def shares():
    """Ten patients, one or two eyes each, with drawn shares in one region of one layer."""
    random = np.random.default_rng(5)
    rows = []
    for patient in range(10):
        for side in "lr"[: 1 + patient % 2]:
            area = random.uniform(0.01, 0.2)
            row = {
                "image_id": f"{patient}{side}",
                "layer": "x",
                "kind": "mask",
                "region": "lesion",
                "status": "measured",
            }
            rows.append(
                row
                | {"area": area, "heat": random.uniform(0, 0.5), "hit": random.integers(2), "hit_chance": 0.3}
            )
    return pd.DataFrame(rows)


def test_summary_equals_a_bootstrap_that_draws_patients_row_by_row():
    table = shares()
    patients = {image_id: image_id[0] for image_id in table["image_id"]}
    found = localisation.summarise(table, patients, resamples=300, seed=4).iloc[0]
    counts = statistics.resample_counts(np.array(sorted(set(patients.values()))), 300, 4)
    heat, ratio = [], []
    for drawn in counts:
        rows = pd.concat(
            [table[table["image_id"].str[0] == str(p)] for p, n in enumerate(drawn) for _ in range(n)]
        )
        heat.append(rows["heat"].mean())
        ratio.append(rows["heat"].mean() / rows["area"].mean())
    assert found["eyes"] == 15
    assert found["patients"] == 10
    assert found["heat"] == pytest.approx(table["heat"].mean())
    assert found["enrichment"] == pytest.approx(table["heat"].mean() / table["area"].mean())
    assert found["difference"] == pytest.approx((table["heat"] - table["area"]).mean())
    np.testing.assert_allclose(found[["heat_lo", "heat_hi"]].astype(float), np.percentile(heat, (2.5, 97.5)))
    np.testing.assert_allclose(
        found[["enrichment_lo", "enrichment_hi"]].astype(float), np.percentile(ratio, (2.5, 97.5))
    )
    assert found["heat_lo"] < found["heat"] < found["heat_hi"]


def test_summary_counts_what_it_leaves_out():
    table = shares()
    table.loc[0, ["status", "heat"]] = ["no heat", np.nan]
    table.loc[1:2, "status"] = "empty mask"
    table.loc[1:2, "heat"] = np.nan
    table.loc[3, ["status", "heat", "area"]] = ["not annotated", np.nan, np.nan]
    found = localisation.summarise(table, {i: i[0] for i in table["image_id"]}, 50, 0).iloc[0]
    assert found[["eyes", "no_heat", "empty_mask", "not_annotated"]].tolist() == [11, 1, 2, 1]
    assert found["heat"] == pytest.approx(table["heat"][4:].mean())


def test_summary_by_group_and_without_numbers():
    table = shares()
    groups = {
        image_id: "right" if image_id < "7" else "wrong" for image_id in table["image_id"] if image_id != "0l"
    }
    patients = {i: i[0] for i in table["image_id"]}
    found = localisation.summarise(table, patients, 50, 0, groups).set_index("group")
    assert found["eyes"].to_dict() == {"right": 9, "wrong": 5}
    assert found["patients"].to_dict() == {"right": 6, "wrong": 3}
    assert np.isfinite(found.loc["right", "heat_lo"])
    assert np.isfinite(found.loc["wrong", "heat"])
    assert np.isnan(found.loc["wrong", "heat_lo"]), "three patients cannot give an interval"
    nothing = localisation.summarise(table.assign(status="no heat", heat=np.nan), patients, 50, 0).iloc[0]
    assert nothing["eyes"] == 0
    assert np.isnan(nothing["heat"])
    assert nothing["no_heat"] == 15
    with pytest.raises(ValueError, match="0l for one"):
        localisation.summarise(table, {}, 50, 0)


def predictions():
    p = np.eye(5)[[0, 3, 0, 0, 1]]
    grades = pd.array([0, 3, 4, 2, pd.NA], dtype="Int64")
    return pd.DataFrame(p, columns=[f"p{k}" for k in range(5)]).assign(image_id=list("abcde"), grade=grades)


def test_outcomes_of_eyes_with_a_grade():
    assert localisation.outcome(predictions()) == {"a": "right", "b": "right", "c": "wrong", "d": "wrong"}
    assert localisation.missed(predictions()) == {"c": "severe predicted normal"}
    ungraded = predictions().assign(grade=pd.array([pd.NA] * 5, dtype="Int64"))
    assert localisation.outcome(ungraded) == localisation.missed(ungraded) == {}


def summary(groups=None):
    """Every kind of row: measured, empty and not annotated masks, with intervals and (wrong) without."""
    tables = []
    for i in range(12):
        shift = np.roll(disc(20, 20, 4).astype(np.float32), i, axis=1)[None]
        table, _ = localisation.measure_eye(shift + 0.1, eye(EX=np.zeros((SIZE, SIZE)), FOVEA=None))
        tables.append(table.drop(columns="map").assign(image_id=f"{i:02d}", layer="x"))
    table = pd.concat(tables, ignore_index=True)
    return localisation.summarise(table, {f"{i:02d}": f"{i:02d}" for i in range(12)}, 100, 0, groups)


def test_metrics_are_flat_and_say_what_they_are():
    whole = summary()
    found = localisation.as_metrics(whole)
    row = whole[(whole["kind"] == "mask") & (whole["region"] == "lesion")].iloc[0]
    assert found["heat_lesion_x"] == row["heat"]
    assert found["enrichment_lesion_x_lo"] == row["enrichment_lo"]
    assert found["area_lesion_x"] == row["area"]
    assert found["eyes_beside_disc_x"] == 12
    assert not any("fovea" in name for name in found)
    assert found["heat_outside_x_hi"] >= found["heat_outside_x"]
    assert len(found) == 4 * 11 + 8


def test_readers_see_words_where_there_is_no_number():
    table = map_tables.shares(summary(), regions=("lesion", "fovea", "EX")).set_index("region")
    assert table.loc["fovea", "heat, %"] == "not annotated"
    assert table.loc["EX", ["eyes", "empty mask", "heat, %", "area, %"]].tolist() == [0, 12, "-", "-"]
    row = summary().query("kind == 'mask' and region == 'lesion'").iloc[0]
    expected = f"{100 * row['heat']:.1f} ({100 * row['heat_lo']:.1f} to {100 * row['heat_hi']:.1f})"
    assert table.loc["lesion", "heat, %"] == expected
    assert "fovea" not in set(map_tables.shares(summary())["region"])
    parts = map_tables.shares(summary(), ("part", "field"))
    assert list(parts["region"]) == ["lesion", "disc", "vessel", "elsewhere", "outside"]
    assert "hit, %" not in parts
    assert map_tables.shares(summary({})).empty
    few = map_tables.shares(summary({"01": "wrong"}), regions=("lesion",))
    assert " to " not in few.loc[0, "heat, %"]


def test_findings_name_the_paper_and_what_is_measured():
    groups = {f"{i:02d}": "right" for i in range(6)}
    lines = paper_tables.findings(summary(), "x", summary(groups), summary({}))
    lesion = map_tables.shares(summary(), regions=("lesion",)).loc[0]
    assert lines[0].startswith(
        f"Paper: the heat covers lesions only partly. Here: {lesion['heat, %']} % of the heat"
    )
    assert f"{lesion['times chance']} times chance (group 'all', 12 eyes)" in lines[0]
    assert "no eye of the group 'severe predicted normal'" in lines[2]
    assert "(group 'right', 6 eyes)" in lines[2]


@pytest.fixture
def audit(tmp_path):
    """An audited source of three photographs, of which two have masks of some kinds."""
    cv2 = pytest.importorskip("cv2")
    photograph = np.zeros((96, 128, 3), np.uint8)
    photograph[disc(64, 48, 45, 128)[:96]] = (60, 90, 160)
    mask = np.zeros((96, 128), np.uint8)
    mask[40:50, 60:70] = 255
    rows = []
    for name in ("a", "b", "c"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), photograph)
        row = {"image_id": name, "path": str(tmp_path / f"{name}.png"), "source": "test"}
        rows.append(row | {"lesion_HE": "", "lesion_EX": 0, "lesion_SE": 1})
    for name, code in (("a", "HE"), ("b", "HE"), ("b", "DISC")):
        path = tmp_path / f"{name}_{code}.png"
        cv2.imwrite(str(path), mask)
        next(row for row in rows if row["image_id"] == name)[f"mask_{code}"] = str(path)
    table = manifest.build(rows)
    table.to_csv(tmp_path / "manifest.csv", index=False)
    store = images.build(table, 48, workers=1, folder=tmp_path / "images")
    (tmp_path / "images.json").write_text(json.dumps({"store": str(store.folder)}))
    return SimpleNamespace(path=lambda name: tmp_path / name)


def test_masks_are_read_in_the_geometry_of_the_store(audit):
    masks = localisation.masks_of(audit)("b")
    assert masks["HE"].shape == (48, 48)
    side = 91  # of the square around the field of view; the mask is 10 x 10 pixels in it
    assert masks["HE"].sum() == pytest.approx(
        100 * (48 / side) ** 2, rel=0.05
    )  # the field is found to a pixel
    assert masks["FOV"].dtype == bool
    assert np.pi / 4 < masks["FOV"].mean() < 0.85  # its hull is found outwards, by up to half a pixel of 48


def test_a_missing_mask_is_absent_or_unknown(audit):
    read = localisation.masks_of(audit)
    assert read("a")["DISC"].sum() == 0  # others of the source have such files
    assert read("c")["HE"].sum() == 0
    assert read("c")["EX"].sum() == 0  # the manifest says that there is none
    assert read("c")["SE"] is None  # the manifest says that there is one, but nobody drew it
    assert read("a")["VESSEL"] is None
