"""Fine maps at cuts of other eyes: hand values, scikit-learn, SciPy, brute force; eyes without the lesion."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, f1_score

from drstudy.explain.measures import aggregate, fine, grid, localisation, scores

SIDE = 24
ROWS, COLUMNS = np.indices((SIDE, SIDE))
FOV = (ROWS - 11.5) ** 2 + (COLUMNS - 11.5) ** 2 <= 11.5**2
TOUCHING = np.ones((3, 3))
SINGLE = 1e-6
"""Maps are float32."""


def square(row, column, side):
    return (abs(ROWS - row - (side - 1) / 2) < side / 2) & (abs(COLUMNS - column - (side - 1) / 2) < side / 2)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def blobs(random):
    """A mask of some squares inside the field, empty for a third of all eyes."""
    found = np.zeros((SIDE, SIDE), bool)
    for _ in range(random.integers(0, 3) * random.integers(1, 4)):
        found |= square(*random.integers(4, 18, 2), random.integers(1, 4))
    return found & FOV


def study(eyes=12, seed=0):
    """Eyes with two kinds of lesions, and maps that see them in noise."""
    random = np.random.default_rng(seed)
    ids = [f"e{k}" for k in range(eyes)]
    masks = {name: {"FOV": FOV, "HE": blobs(random), "MA": blobs(random), "SE": None} for name in ids}
    noise = random.normal(size=(eyes, 3, SIDE, SIDE))
    truth = np.stack([[masks[name]["HE"], masks[name]["MA"], FOV & False] for name in ids])
    logits = noise + 2 * truth
    maps = {"logit": logits, "probability": 1 / (1 + np.exp(-logits)), "one": np.maximum(noise[:, 0], 0)}
    return ids, masks, maps


REGIONS = ["HE", "MA", "SE"]
KINDS = {"logit": "logit", "probability": "probability"}


@pytest.fixture(scope="module")
def measured():
    """Cuts of the first half of the eyes, measures of the other half."""
    ids, masks, maps = study()
    one, maps_of = grid.Grid(masks.__getitem__, REGIONS, SIDE), grid.maps_of(maps, ids)
    patients = {name: f"p{k // 2}" for k, name in enumerate(ids)}
    cuts = fine.fit_cuts(ids[:6], maps_of, one, patients)
    table, lesions = fine.measure(ids[6:], maps_of, one, patients, cuts, KINDS)
    return ids, masks, maps, cuts, table, lesions


def cut_of(cuts, name, region):
    return cuts.table.set_index(["map", "region"]).loc[(name, region), "cut"]


def cases(measured):
    """Row, mask, map in the field and cut of every row of the table."""
    ids, masks, maps, cuts, table, _ = measured
    for row in table.to_dict("records"):
        array = maps[row["map"]][ids.index(row["image_id"])]
        array = array if array.ndim == 2 else array[REGIONS.index(row["region"])]
        yield (
            row,
            masks[row["image_id"]][row["region"]],
            array.astype(np.float32),
            cut_of(cuts, row["map"], row["region"]),
        )


def test_scores_of_eyes_with_the_lesion_are_scikit_learn_s(measured):
    seen = 0
    for row, mask, heat, cut in cases(measured):
        if not mask.any():
            continue
        seen += 1
        truth, values = mask[FOV], heat[FOV]
        assert row["aupr"] == pytest.approx(average_precision_score(truth, values), abs=1e-9)
        assert row["dice_cut"] == pytest.approx(f1_score(truth, values >= cut), abs=1e-9)
        every = [f1_score(truth, values >= level) for level in np.unique(values[truth])]
        assert row["dice_oracle"] == pytest.approx(max(every), abs=1e-9)
        assert row["area"] == pytest.approx(truth.mean())
        assert row["aupr_over_chance"] == row["aupr"] - row["area"]
        assert np.isnan(row["false_area"])
        assert np.isnan(row["false_patches"])
        soft = 2 * values[truth].sum() / (values.sum() + truth.sum())
        energy = values[truth].sum() / values.sum()
        if row["map"] == "probability":
            assert row["soft_dice"] == pytest.approx(soft, rel=SINGLE)
        else:
            assert np.isnan(row["soft_dice"])
        if row["map"] == "logit":
            assert np.isnan(row["heat"])
        else:
            assert row["heat"] == pytest.approx(energy, rel=SINGLE)
    assert seen > 9


def test_eyes_without_the_lesion_have_a_false_area_and_no_dice(measured):
    _, masks, *_ = measured
    seen = set()
    for row, mask, heat, cut in cases(measured):
        if mask.any():
            continue
        healthy = not (masks[row["image_id"]]["HE"] | masks[row["image_id"]]["MA"]).any()
        seen.add(healthy)
        assert (row["present"], row["healthy"]) == (False, healthy)
        assert row["false_area"] == pytest.approx((heat[FOV] >= cut).mean())
        assert row["false_area_healthy"] == pytest.approx(
            row["false_area"] if healthy else np.nan, nan_ok=True
        )
        for name in (
            "heat",
            "hit",
            "aupr",
            "soft_dice",
            "dice_cut",
            "dice_oracle",
            "patch_precision",
            "patches",
        ):
            assert np.isnan(row[name]), name
    assert seen == {True, False}


def test_single_lesions_and_false_regions_are_those_of_scipy(measured):
    lesions = measured[-1].set_index(["image_id", "map", "region"]).sort_index()
    for row, mask, heat, cut in cases(measured):
        taken = (heat >= cut) & FOV
        found, count = ndimage.label(taken, TOUCHING)
        assert row["false_regions"] == count - len(set(found[mask]) - {0})
        truth, count = ndimage.label(mask, TOUCHING)
        key = (row["image_id"], row["map"], row["region"])
        assert count == (len(lesions.loc[[key]]) if key in lesions.index else 0)
        if count:
            hits = [taken[truth == k].any() for k in range(1, count + 1)]
            own = lesions.loc[[key]].sort_values("lesion")
            assert own["found"].tolist() == hits
            disc = scores.ASSUMED_DISC * 2 * np.sqrt(FOV.sum() / np.pi)
            sizes = [2 * np.sqrt((truth == k).sum() / np.pi) / disc for k in range(1, count + 1)]
            np.testing.assert_allclose(own["diameter_dd"], sizes)


def test_a_region_that_is_not_annotated_has_no_row(measured):
    table, cuts = measured[4], measured[3]
    assert set(table["region"]) == {"HE", "MA"}
    rows = cuts.table[cuts.table["region"] == "SE"]
    assert len(rows) == 3
    assert rows["cut"].isna().all()
    assert (rows["eyes"] == 0).all()


def test_energy_pointing_and_precision_are_those_of_localisation(measured):
    ids, masks, maps, _, table, _ = measured
    own = table.set_index(["image_id", "map", "region"])
    for name in ids[6:]:
        array = maps["probability"][ids.index(name)]
        found, _ = localisation.measure_eye(array.astype(np.float32), masks[name])
        found = found[found["kind"] == "mask"].set_index(["map", "region"])
        for k, region in enumerate(("HE", "MA")):
            other, row = found.loc[(k, region)], own.loc[(name, "probability", region)]
            if other["status"] == "measured":
                for column in ("hit", "hit_chance", "aupr", "area", "dice_oracle"):
                    assert row[column] == pytest.approx(other[column], rel=1e-9), column
                assert row["heat"] == pytest.approx(other["heat"], rel=SINGLE)


# --- the cut --------------------------------------------------------------------------------------


def test_the_fitted_cut_is_the_best_of_its_candidates_and_near_the_best_of_all(measured):
    ids, masks, maps, cuts, _, _ = measured
    for row in cuts.table.dropna().to_dict("records"):
        fits = [name for name in ids[:6] if masks[name][row["region"]].any()]
        assert row["eyes"] == len(fits)
        pairs = []
        for name in fits:
            array = maps[row["map"]][ids.index(name)].astype(np.float32)
            array = array if array.ndim == 2 else array[REGIONS.index(row["region"])]
            pairs.append((masks[name][row["region"]][FOV], array[FOV]))
        values = np.unique(np.concatenate([heat for _, heat in pairs]))
        curve = [np.mean([dice(truth, heat >= cut) for truth, heat in pairs]) for cut in values]
        mine = curve[np.searchsorted(values, row["cut"])]
        assert row["cut"] in values
        assert row["dice"] == pytest.approx(mine, abs=1e-9)
        # 64 of some 2,000 values are tried; between two neighbours the mean Dice moves by less than this
        assert mine >= max(curve) - 0.03


def test_a_cut_is_a_value_and_not_a_share_of_each_maximum():
    he = square(8, 8, 4)
    masks = {
        name: {"FOV": FOV, "HE": he if name != "healthy" else he & False}
        for name in ("fit", "faint", "healthy")
    }
    maps = {"x": np.stack([0.1 + 0.8 * he, 0.1 + 0.3 * he, 0.1 + 0.8 * he])}
    one, maps_of = grid.Grid(masks.__getitem__, ["HE"], SIDE), grid.maps_of(maps, list(masks))
    patients = {name: name for name in masks}
    cuts = fine.fit_cuts(["fit"], maps_of, one, patients)
    assert cuts.table["cut"].item() == np.float32(0.9)
    assert cuts.table["dice"].item() == 1
    table, lesions = fine.measure(["faint", "healthy"], maps_of, one, patients, cuts)
    faint, healthy = table.to_dict("records")
    assert (faint["dice_cut"], faint["dice_oracle"], faint["false_regions"]) == (0, 1, 0)
    assert healthy["false_area"] == healthy["false_area_healthy"] == pytest.approx(16 / FOV.sum())
    assert healthy["false_regions"] == 1
    assert lesions["found"].tolist() == [0], "the eye without the lesion has none to be found"


def test_nobody_is_measured_at_a_cut_of_their_own(measured):
    ids, masks, maps, cuts, _, _ = measured
    one, maps_of = grid.Grid(masks.__getitem__, REGIONS, SIDE), grid.maps_of(maps, ids)
    patients = {name: f"p{k // 2}" for k, name in enumerate(ids)} | {"e11": "p0"}
    with pytest.raises(ValueError, match="1 patients, p0 for one, were also used to fit the cuts"):
        fine.measure(ids[10:], maps_of, one, patients, cuts, KINDS)
    other = grid.maps_of({"new": maps["one"]}, ids)
    with pytest.raises(ValueError, match="No cut was fitted for new"):
        fine.measure(ids[6:8], other, one, patients, cuts)


def test_without_cuts_all_that_needs_one_is_unknown(measured):
    ids, masks, maps, _, table, _ = measured
    one, maps_of = grid.Grid(masks.__getitem__, REGIONS, SIDE), grid.maps_of(maps, ids)
    bare, lesions = fine.measure(ids[6:], maps_of, one, dict(zip(ids, ids)), None, KINDS)
    needs = ["dice_cut", "false_regions", "false_area", "false_area_healthy", "patches", "patch_precision"]
    assert bare[[*needs, "false_patches", "patch_over_chance"]].isna().all(axis=None)
    assert lesions["found"].isna().all()
    assert len(lesions)
    same = [name for name in ("heat", "hit", "aupr", "soft_dice", "dice_oracle", "area", "patch_chance")]
    pd.testing.assert_frame_equal(bare[same], table[same])


# --- kinds of maps ----------------------------------------------------------------------------------


def test_a_map_must_have_the_values_of_its_kind():
    one = grid.Grid(lambda name: {"FOV": FOV, "HE": square(8, 8, 4)}, ["HE"], SIDE)

    def run(values, **kinds):
        maps_of = grid.maps_of({"x": np.full((1, SIDE, SIDE), values)}, ["a"])
        return fine.measure(["a"], maps_of, one, {"a": "a"}, kinds=kinds)[0].iloc[0]

    with pytest.raises(ValueError, match="which is no heat"):
        run(-1.0)
    with pytest.raises(ValueError, match="which is no probability"):
        run(2.0, x="probability")
    with pytest.raises(ValueError, match="is of kind 'score'"):
        run(0.5, x="score")
    share = 16 / FOV.sum()
    assert run(1.0, x="probability")["soft_dice"] == pytest.approx(2 * share / (1 + share))
    assert np.isnan(run(-1.0, x="logit")["heat"])


def test_a_map_without_heat_has_no_energy_and_the_rest_is_chance():
    masks = {name: {"FOV": FOV, "HE": square(8, 8, 4)} for name in "ab"}
    maps = {"x": np.stack([square(8, 8, 4) * 0.7, np.zeros((SIDE, SIDE))])}
    one, maps_of = grid.Grid(masks.__getitem__, ["HE"], SIDE), grid.maps_of(maps, list("ab"))
    cuts = fine.fit_cuts(["a"], maps_of, one, {"a": "a"})
    row = fine.measure(["b"], maps_of, one, {"b": "b"}, cuts)[0].iloc[0]
    assert np.isnan(row["heat"])
    assert row["dice_cut"] == 0
    assert row["aupr_over_chance"] == pytest.approx(0)
    assert row["hit_over_chance"] == pytest.approx(0)


# --- patches ----------------------------------------------------------------------------------------


def test_windows_by_hand():
    field = np.ones((6, 6), bool)
    values = np.zeros((6, 6), np.float32)
    values[1, 1], values[1, 2], values[1, 4], values[4, 1], values[5, 5] = 9, 8, 7, 6, 1
    flat = values.ravel()
    assert fine.highest_windows(flat, flat >= 2, field, 3, 10).tolist() == [7, 10, 25]
    assert fine.highest_windows(flat, flat >= 2, field, 3, 2).tolist() == [7, 10]
    assert fine.highest_windows(flat, flat >= 2, field, 1, 9).tolist() == [7, 8, 10, 25]
    assert fine.highest_windows(flat, flat >= 10, field, 3, 10).tolist() == []


def test_windows_equal_a_plain_loop_and_do_not_overlap():
    random = np.random.default_rng(5)
    for side in (2, 3, 5):
        values = random.random(FOV.sum()).astype(np.float32)
        found = fine.highest_windows(values, values >= 0.4, FOV, side, 8)
        places, chosen = np.argwhere(FOV), []
        for cell in np.argsort(-values):
            apart = [np.abs(places[cell] - places[one]).max() >= side for one in chosen]
            if values[cell] >= 0.4 and all(apart) and len(chosen) < 8:
                chosen.append(cell)
        assert found.tolist() == chosen


def test_a_constant_map_has_no_favourite_place():
    flat = np.ones(FOV.sum(), np.float32)
    found = fine.highest_windows(flat, flat > 0, FOV, 1, 200)
    middle = np.argwhere(FOV)[found].mean(0)
    # 200 of 416 cells, each 6 cells from the middle on average: the mean of the places is within 4 standard errors
    np.testing.assert_allclose(middle, 11.5, atol=4 * 6 / np.sqrt(200))


def test_share_of_patches_that_hold_a_lesion():
    disc = square(10, 2, 4)  # 16 cells: its diameter is 4.5 cells, and half of it is a window of 2 cells
    he, healthy = square(5, 10, 2), np.zeros((SIDE, SIDE), bool)
    masks = {
        name: {"FOV": FOV, "DISC": disc, "HE": mask} for name, mask in (("a", he), ("b", healthy), ("v", he))
    }
    heat = np.zeros((SIDE, SIDE))
    heat[4, 10], heat[4, 12], heat[7, 10], heat[15, 15] = 9, 8, 7, 6
    # windows reach one cell down and to the right: (4, 10) reaches row 5; (4, 12), (7, 10) and (15, 15) hold nothing
    maps_of = grid.maps_of({"x": np.stack([heat, heat, 6.0 * he])}, list("abv"))
    one = grid.Grid(masks.__getitem__, ["HE"], SIDE)
    patients = dict(zip("abv", "abv"))
    cuts = fine.fit_cuts(["v"], maps_of, one, patients)
    assert cuts.table["cut"].item() == 6
    table, _ = fine.measure(["a", "b"], maps_of, one, patients, cuts, patch=0.5)
    assert table["patches"].tolist() == pytest.approx([4, np.nan], nan_ok=True)
    assert table["false_patches"].tolist() == pytest.approx([np.nan, 4], nan_ok=True)
    assert table["patch_precision"].iloc[0] == 1 / 4
    # a window of 2 cells holds the 2 x 2 lesion from 3 x 3 places
    assert table["patch_chance"].iloc[0] == pytest.approx(9 / FOV.sum())
    two, _ = fine.measure(["a"], maps_of, one, patients, cuts, patch=0.5, patches=1)
    assert (two["patches"].item(), two["patch_precision"].item()) == (1, 1)


# --- without the disc ---------------------------------------------------------------------------------


def test_without_the_disc_its_brightness_does_not_count():
    disc, he = square(10, 2, 4), square(6, 14, 3)
    masks = {"a": {"FOV": FOV, "DISC": disc, "HE": he}}
    maps_of = grid.maps_of({"x": (9.0 * disc + he)[None]}, ["a"])
    found = {
        option: fine.measure(["a"], maps_of, grid.Grid(masks.__getitem__, ["HE"], SIDE, option), {"a": "a"})[
            0
        ].iloc[0]
        for option in (False, True)
    }
    assert (found[False]["hit"], found[True]["hit"]) == (0, 1)
    assert found[False]["heat"] == pytest.approx(9 / (9 * (disc & FOV).sum() + 9))
    assert found[True]["heat"] == found[True]["aupr"] == 1


# --- aggregation --------------------------------------------------------------------------------------


def test_a_summary_has_every_number_of_one_map_and_region(measured):
    ids, *_, table, lesions = measured
    patients = {name: f"p{k // 2}" for k, name in enumerate(ids)}
    summary = aggregate.aggregate(table, lesions, patients, 50, 0).set_index(["map", "region", "metric"])
    for (name, region), part in table.groupby(["map", "region"]):
        for metric in fine.METRICS:
            known = part[metric].dropna()
            if len(known):
                row = summary.loc[(name, region, metric)]
                assert row["value"] == pytest.approx(known.mean())
                assert row["units"] == len(known)
            else:
                assert (name, region, metric) not in summary.index
        single = lesions[(lesions["map"] == name) & (lesions["region"] == region)]
        for metric, size in aggregate.RECALLS.items():
            own = single[single["size"] == size] if size else single
            if len(own):
                row = summary.loc[(name, region, metric)]
                assert (row["value"], row["units"]) == (pytest.approx(own["found"].mean()), len(own))
