"""Baselines, paired differences, the paper's claim as a test: on maps and numbers made by hand."""

import numpy as np
import pandas as pd
import pytest

from drstudy.explain.measures import baselines, comparison, localisation, scores
from drstudy.papers.transfer import shift
from drstudy.show import map_tables

SIZE = 96
rows, columns = np.indices((SIZE, SIZE))


def circle(x, y, radius):
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


FOV = circle(47.5, 47.5, 46)
PHOTOGRAPH = np.where(FOV[..., None], (180, 120, 80), 0).astype(np.uint8)


def masks_of(image_id):
    """Each eye has one haemorrhage, elsewhere in each; patients have two eyes."""
    random = np.random.default_rng(list(image_id.encode()))
    lesion = circle(*random.uniform(25, 70, 2), 5)
    vessel = np.zeros((SIZE, SIZE), np.float32)
    vessel[46:49] = FOV[46:49]
    return {"FOV": FOV, "HE": lesion, "EX": lesion & False, "DISC": circle(20, 47, 6), "VESSEL": vessel}


EYES = [f"{patient}{side}" for patient in "abcdefghij" for side in "lr"]
PATIENTS = {image_id: image_id[0] for image_id in EYES}
GRIDS = {"good": (12, 12), "blind": (12, 12)}


@pytest.fixture(scope="module")
def measured():
    """A map that knows the lesions, and one that does not, beside the baselines on their grid."""
    lesions = np.stack([masks_of(image_id)["HE"] for image_id in EYES]).astype(np.float32)
    good = lesions.reshape(len(EYES), 12, 8, 12, 8).mean((2, 4))
    blind = np.random.default_rng(0).random(good.shape).astype(np.float32)
    images = np.broadcast_to(PHOTOGRAPH, (len(EYES), SIZE, SIZE, 3))
    beside = baselines.beside(images, range(len(EYES)), GRIDS.values(), seed=0)
    return localisation.measure({"good": good, "blind": blind}, EYES, masks_of, 0.25, beside)


def test_baselines_are_on_the_grid_of_the_map_and_know_nothing_of_it():
    found = baselines.beside(PHOTOGRAPH[None], [0], [(7, 7), (14, 9), (7, 7)], 3)(0, "al", masks_of("al"))
    assert list(found) == [
        f"{name} {grid}"
        for grid in ("7x7", "14x9")
        for name in ("random#0", "random#1", "random#2", "random#3", "centre", "intensity", "vessels")
    ]
    assert all(map_.shape == ((7, 7) if name.endswith("7x7") else (14, 9)) for name, map_ in found.items())
    assert all(map_.min() >= 0 for map_ in found.values())
    middle = found["centre 7x7"]
    assert np.unravel_index(middle.argmax(), middle.shape) == (3, 3)
    np.testing.assert_allclose(middle, middle[::-1], atol=1e-6)
    assert np.unravel_index(found["vessels 7x7"].argmax(), (7, 7))[0] == 3
    assert not np.array_equal(found["random#0 7x7"], found["random#1 7x7"])
    again = baselines.beside(PHOTOGRAPH[None], [0], [(7, 7)], 3)
    np.testing.assert_array_equal(again(0, "al", masks_of("al"))["random#2 7x7"], found["random#2 7x7"])
    assert not np.array_equal(again(0, "ar", masks_of("ar"))["random#2 7x7"], found["random#2 7x7"])


def test_random_fields_are_smooth():
    field = baselines.random_field(np.random.default_rng(0), (64, 64)).astype(float)
    neighbours = np.corrcoef(field[:, 1:].ravel(), field[:, :-1].ravel())[0, 1]
    assert neighbours > 0.6, "of a Gaussian one cell wide it is exp(-1/4) = 0.78"
    assert field.min() == 0


def test_vesselness_finds_dark_lines_and_leaves_spots():
    image = PHOTOGRAPH.copy()
    image[30:32, 20:75] = image[30:75, 60:62] = (150, 60, 40)
    image[circle(35, 65, 4)] = (150, 60, 40)
    found = baselines.vesselness(image, FOV)
    assert found[30:32, 30:55].min() >= 50
    assert found[circle(35, 65, 4)].mean() < 5, "single pixels of its edge survive"
    assert found[~FOV].max() == 0
    assert found[FOV & ~circle(47.5, 47.5, 40)].max() == 0, "the edge of the field is no vessel"


def test_a_map_that_knows_beats_all_four_and_a_blind_one_none(measured):
    table = comparison.prepare(measured[0], PATIENTS)
    found = comparison.differences(table, comparison.pairs(GRIDS), PATIENTS, 500, 0)
    on_lesions = found[found["region"] == "HE"]
    for metric in comparison.HEADLINES:
        cell = on_lesions[on_lesions["metric"] == metric].groupby("layer", sort=False)
        said = {layer: map_tables.verdict(part) for layer, part in cell}
        assert said["good"] == "above all four", metric
        assert "above" not in said["blind"].replace("not above", ""), metric
    assert set(found["region"]) == {"lesion", "HE", "disc", "vessel", "beside disc"}, "EX is empty everywhere"
    assert set(found["eyes"]) == {len(EYES)}
    shown = map_tables.differences(on_lesions[on_lesions["metric"] == "aupr"], ["layer", "region"])
    assert list(shown["layer"]) == ["good", "blind"]
    assert [name for name in shown if name.startswith("minus")] == [
        "minus random", "minus centre", "minus intensity", "minus vessels",
    ]  # fmt: skip


def test_lesions_are_covered_by_the_map_that_knows(measured):
    found = comparison.coverage(measured[1], comparison.pairs(GRIDS), PATIENTS, 500, 0)
    whole = found[(found["region"] == "lesion") & (found["size"] == "all")].set_index(["layer", "against"])
    assert whole.loc[("good", "random 12x12"), "value"] > 0.9
    assert whole.loc[("good", "random 12x12"), "difference_lo"] > 0.5
    assert whole.loc[("blind", "random 12x12"), "difference_lo"] < 0
    assert whole.loc[("blind", "random 12x12"), "value"] == pytest.approx(0.1, abs=0.1), "a tenth is chance"
    assert whole["lesions"].eq(len(EYES)).all()
    by_size = found[(found["region"] == "HE") & (found["size"] != "all") & (found["layer"] == "good")]
    assert set(by_size["size"]) == {"1/4 and more"}, "11 pixels of a disc of 12"


def test_the_validation_cut_is_chosen_by_other_patients(measured):
    raw = measured[0]
    table = comparison.prepare(raw, PATIENTS)
    pick = (raw["layer"] == "blind") & (raw["region"] == "HE") & raw["aupr"].notna()
    curves = raw[pick].set_index("image_id")[localisation.CURVE]
    found = table[(table["layer"] == "blind") & (table["region"] == "HE")].set_index("image_id")
    for image_id in ("al", "er"):
        others = curves[[name[0] != image_id[0] for name in curves.index]].to_numpy(float)
        cut = int(np.flatnonzero(scores.best_fraction(others) == scores.FRACTIONS)[0])
        assert found.loc[image_id, "dice_validation"] == curves.loc[image_id].iloc[cut]
    assert (found["dice_validation"] <= found["dice_oracle"] + 1e-12).all()
    alone = comparison.prepare(raw[raw["image_id"].isin(["al", "ar"])], PATIENTS)
    assert alone["dice_validation"].isna().all(), "one patient has no others"


def test_draws_of_a_baseline_become_their_mean(measured):
    raw = measured[0]
    table = comparison.prepare(raw, PATIENTS)
    drawn = raw[raw["layer"].str.startswith("random") & (raw["kind"] == "mask") & (raw["region"] == "HE")]
    one = table[(table["layer"] == "random 12x12") & (table["kind"] == "mask") & (table["region"] == "HE")]
    assert len(one) == len(EYES)
    expected = drawn[drawn["image_id"] == "cl"][["heat", "hit", "aupr"]].mean()
    np.testing.assert_allclose(one[one["image_id"] == "cl"][["heat", "hit", "aupr"]].iloc[0], expected)
    np.testing.assert_allclose(table["iou_fixed"].dropna(), scores.iou(table["dice_fixed"].dropna()))
    assert not set(localisation.CURVE) & set(table)


def test_verdicts_and_numbers_for_readers():
    cell = pd.DataFrame(
        {
            "against": ["random 7x7", "centre 7x7", "intensity 7x7", "vessels 7x7"],
            "difference_lo": [0.1, -0.1, -0.3, 0.2],
            "difference_hi": [0.3, 0.2, -0.1, 0.4],
        }
    )
    assert map_tables.verdict(cell) == "above random, vessels; not above centre; below intensity"
    assert map_tables.verdict(cell.assign(difference_lo=0.1)) == "above all four"
    assert map_tables.verdict(cell.assign(difference_lo=[np.nan, 0, 0, 0])) == "too few patients"


def severe_eyes():
    """Eight patients with a severe left eye predicted normal and a severe right eye predicted severe."""
    table = []
    for patient in "abcdefgh":
        for side, called in (("l", 0), ("r", 3)):
            p = np.full(5, 0.1)
            p[called] = 0.6
            table.append(
                {"image_id": patient + side, "patient_id": patient, "grade": 3}
                | {f"p{k}": p[k] for k in range(5)}
            )
    table.append(table[0] | {"image_id": "zl", "patient_id": "z", "grade": 1})
    return shift.severe(pd.DataFrame(table).astype({"grade": "Int64"}))


def shares_of(eyes, call, truth):
    """Rows of parts: shares on (lesion, vessel) for the call of missed eyes, and everything else's."""
    made = []
    for eye in eyes.to_dict("records"):
        jitter = 0.01 * ord(eye["patient_id"]) % 0.03
        for layer in (shift.CALL, shift.TRUTH, shift.NORMAL):
            wrong = layer == shift.NORMAL or (layer == shift.CALL and eye["called"] == 0)
            lesion, vessel = call if wrong else truth
            for region, heat in (("lesion", lesion + jitter), ("vessel", vessel - jitter)):
                about = {"image_id": eye["image_id"], "layer": layer, "kind": "part", "region": region}
                made.append(about | {"heat": heat + jitter, "area": 0.05})
    return pd.DataFrame(made)


def test_severe_eyes_are_those_with_a_severe_grade():
    eyes = severe_eyes()
    assert len(eyes) == 16
    assert eyes["called"].tolist() == [0, 3] * 8


def test_the_paper_s_claim_is_seen_where_it_is_true_and_refused_where_not():
    eyes = severe_eyes()
    moved = shift.test(shares_of(eyes, (0.02, 0.3), (0.10, 0.1)), eyes, 200, 0).set_index(
        ["comparison", "region"]
    )
    still = shift.test(shares_of(eyes, (0.05, 0.1), (0.05, 0.1)), eyes, 200, 0)
    for name in shift.COMPARISONS:
        assert moved.loc[(name, "lesion"), "difference_hi"] < 0, name
        assert moved.loc[(name, "vessel"), "difference_lo"] > 0, name
        assert moved.loc[(name, "elsewhere"), "eyes"] == 0
    assert moved.loc[("same eye, predicted normal", "lesion"), "difference"] == pytest.approx(-0.08)
    assert moved["eyes"].unstack()["lesion"].to_dict() == {
        "same eye, predicted normal": 8, "same eye, predicted too low": 8, "normal against truth": 16, "matched eyes": 8,
    }  # fmt: skip
    shown = shift.readable(moved.reset_index())
    assert set(shown["verdict"]) == {
        "falls, as the paper says", "rises, as the paper says", "no heat in one of the maps, or not annotated",
    }  # fmt: skip
    assert not set(shift.readable(still)["verdict"]) & {
        "falls, as the paper says",
        "rises, as the paper says",
    }


def test_without_missed_eyes_there_is_no_number_and_no_error():
    eyes = severe_eyes()
    eyes = eyes[eyes["called"] == 3]
    found = shift.test(shares_of(eyes, (0.1, 0.1), (0.1, 0.1)), eyes, 50, 0).set_index(
        ["comparison", "region"]
    )
    assert found.loc[("same eye, predicted normal", "lesion"), "eyes"] == 0
    assert found.loc[("matched eyes", "vessel"), "eyes"] == 0
    assert np.isnan(found.loc[("same eye, predicted normal", "lesion"), "difference"])
    assert found.loc[("normal against truth", "lesion"), "eyes"] == 8
