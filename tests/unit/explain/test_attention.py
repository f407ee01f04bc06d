"""Whose mask a map lies on, for maps whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from drstudy.explain.measures import attention, baselines
from drstudy.papers.lesions import figures
from drstudy.show import map_tables

SIZE, EYES = 48, 24
LABELS = ["HE", "EX", "MA"]
RESAMPLES, SEED = 200, 0


def disc(x, y, radius):
    rows, columns = np.indices((SIZE, SIZE))
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


FOV = disc(23.5, 23.5, 22)


def eye(number):
    """HE left, EX right, MA below, each moved from eye to eye; every fourth eye has no EX, MA is never annotated
    in the last."""
    move = number % 3
    masks = {
        "FOV": FOV,
        "HE": disc(12 + move, 20, 3),
        "EX": disc(34, 20 + move, 4) if number % 4 else np.zeros_like(FOV),
        "MA": disc(24, 38 - move, 2) if number < EYES - 1 else None,
    }
    return {code: None if mask is None else mask.astype(np.float32) for code, mask in masks.items()}


MASKS = {f"e{number:02d}": eye(number) for number in range(EYES)}
IDS = list(MASKS)
PATIENTS = {name: f"p{int(name[1:]) // 2:02d}" for name in IDS}
EVERYONE = pd.DataFrame(True, IDS, LABELS)


def masks_of(name):
    return MASKS[name] | {"FOV": FOV}


def maps(draw):
    """(N, L, S, S): ``draw(label, masks)`` for every eye and label."""
    return np.stack([[np.asarray(draw(label, MASKS[name]), np.float32) for label in LABELS] for name in IDS])


def own(label, masks):
    return np.zeros_like(FOV) if masks[label] is None else masks[label]


def measured(draw, **options):
    return attention.measure(maps(draw), LABELS, IDS, masks_of, PATIENTS, **options)


def confused(draw, predicted=EVERYONE, **options):
    found = attention.confusion(measured(draw, **options), LABELS, predicted, PATIENTS, RESAMPLES, SEED)
    return found.set_index(["map", "mask", "condition"])


def test_maps_equal_to_their_masks_give_a_diagonal():
    found = confused(own)
    for label in LABELS:
        cell = found.loc[label, label, "present"]
        assert cell["heat"] == pytest.approx(1, abs=1e-6)
        assert cell["enrichment"] == pytest.approx(1 / cell["area"], rel=1e-6)
        assert cell["hit"] == 1
        assert cell["aupr"] == pytest.approx(1, abs=1e-6)
        for other in LABELS:
            if other != label:
                away = found.loc[label, other, "present"]
                assert (away["heat"], away["enrichment"], away["hit"]) == (0, 0, 0)
                assert away["aupr"] < away["area"] + 0.01


def test_uniform_maps_are_at_chance_in_every_cell():
    found = confused(lambda label, masks: np.ones_like(FOV))
    cells = found[found["eyes"] > 0]
    np.testing.assert_allclose(cells["enrichment"], 1, rtol=1e-5)
    np.testing.assert_allclose(cells["enrichment_lo"], 1, rtol=1e-5)
    np.testing.assert_allclose(cells["aupr"], cells["area"], rtol=1e-5)
    np.testing.assert_allclose(cells["aupr_over_chance"], 0, atol=1e-7)
    np.testing.assert_allclose(cells["hit"], cells["hit_chance"], rtol=1e-6)


def test_swapped_maps_lie_off_the_diagonal():
    swap = {"HE": "EX", "EX": "HE", "MA": "MA"}
    found = confused(lambda label, masks: own(swap[label], masks))
    assert found.loc[("HE", "EX", "present"), "heat"] == pytest.approx(1, abs=1e-6)
    assert found.loc[("HE", "HE", "present"), "heat"] == 0
    assert found.loc[("EX", "HE", "present"), "heat"] == pytest.approx(1, abs=1e-6)


def test_cells_count_the_eyes_that_their_condition_names():
    predicted = EVERYONE.copy()
    predicted.loc[IDS[:10], "HE"] = False
    found = confused(lambda label, masks: np.ones_like(FOV), predicted)
    with_ex, with_ma = np.arange(EYES) % 4 > 0, np.arange(EYES) < EYES - 1
    said = np.arange(EYES) >= 10
    assert found.loc[("HE", "HE", "predicted"), "eyes"] == said.sum()
    assert found.loc[("HE", "EX", "predicted"), "eyes"] == (said & with_ex).sum()
    assert found.loc[("EX", "HE", "present"), "eyes"] == with_ex.sum()
    assert found.loc[("EX", "HE", "absent"), "eyes"] == (~with_ex).sum()
    assert found.loc[("EX", "EX", "absent"), "eyes"] == 0
    assert found.loc[("HE", "EX", "absent"), "eyes"] == 0
    assert found.loc[("MA", "HE", "present"), "eyes"] == with_ma.sum()
    assert found.loc[("MA", "HE", "absent"), "eyes"] == 0, "not annotated is not absent"
    patients = {PATIENTS[name] for name, there in zip(IDS, with_ex) if there}
    assert found.loc[("EX", "HE", "present"), "patients"] == len(patients)


def test_maps_of_absent_lesions_show_what_they_take_for_them():
    found = confused(lambda label, masks: masks["HE"] if label == "EX" else own(label, masks))
    assert found.loc[("EX", "HE", "absent"), "heat"] == pytest.approx(1, abs=1e-6)
    assert found.loc[("EX", "HE", "absent"), "eyes"] == EYES / 4


def test_maps_without_heat_are_counted_and_left_out():
    def draw(label, masks):
        return own(label, masks) if label != "HE" or masks["EX"].any() else np.zeros_like(FOV)

    cell = confused(draw).loc["HE", "HE", "present"]
    assert (cell["eyes"], cell["no_heat"]) == (18, 6)
    assert cell["heat"] == pytest.approx(1, abs=1e-6)


def test_few_patients_give_no_interval():
    table = measured(own)
    few = table[table["image_id"].isin(IDS[:6])]
    found = attention.confusion(few, LABELS, EVERYONE, PATIENTS, RESAMPLES, SEED).set_index(
        ["map", "mask", "condition"]
    )
    cell = found.loc["HE", "HE", "present"]
    assert cell["patients"] == 3
    assert cell[["heat_lo", "enrichment_lo", "hit_lo", "aupr_lo", "aupr_over_chance_hi"]].isna().all()
    preferred = attention.own_mask(few, LABELS, EVERYONE, PATIENTS, RESAMPLES, SEED)
    assert preferred["difference_lo"].isna().all()
    assert preferred["difference"].notna().all()
    said = map_tables.attention_findings(
        preferred, attention.own_map(few, LABELS, EVERYONE, PATIENTS, RESAMPLES, SEED)
    )
    assert all("too few patients" in sentence for sentence in said)


def test_own_mask_is_the_difference_of_two_lifts_on_the_same_eyes():
    """3/4 of the heat on HE, 1/4 on EX, in every eye."""

    def draw(label, masks):
        both = 3 * masks["HE"] / masks["HE"].sum() + masks["EX"] / max(masks["EX"].sum(), 1)
        return both if label == "HE" else own(label, masks)

    found = attention.own_mask(measured(draw), LABELS, EVERYONE, PATIENTS, RESAMPLES, SEED)
    row = found.set_index(["label", "against", "map", "metric"]).loc["HE", "EX", "HE", "enrichment"]
    pixels = FOV.sum()
    assert row["eyes"] == 18
    assert row["own"] == pytest.approx(0.75 * pixels / disc(12, 20, 3).sum(), rel=1e-5)
    assert row["other"] == pytest.approx(0.25 * pixels / disc(34, 20, 4).sum(), rel=1e-5)
    assert row["difference"] == pytest.approx(row["own"] - row["other"])
    assert row["difference_lo"] == pytest.approx(row["difference"], rel=1e-5), "equal in all eyes"
    hit = found.set_index(["label", "against", "map", "metric"]).loc["HE", "EX", "HE", "hit"]
    assert hit["own"] > 0.8 > 0 > hit["other"]


def test_maps_that_know_their_lesion_prefer_it_and_others_do_not():
    good = measured(own)
    masks = attention.own_mask(good, LABELS, EVERYONE, PATIENTS, RESAMPLES, SEED)
    maps_ = attention.own_map(good, LABELS, EVERYONE, PATIENTS, RESAMPLES, SEED)
    assert set(zip(masks["label"], masks["against"])) == {(a, b) for a in LABELS for b in LABELS if a != b}
    assert (masks["difference_lo"] > 0).all()
    assert (maps_["difference_lo"] > 0).all()
    assert len(maps_) == 6 * 4
    said = map_tables.attention_findings(masks, maps_)
    assert any("more on HE; HE gets more heat from its own map" in sentence for sentence in said)
    uniform = measured(lambda label, masks: np.ones_like(FOV))
    blind = attention.own_mask(uniform, LABELS, EVERYONE, PATIENTS, RESAMPLES, SEED)
    np.testing.assert_allclose(blind["difference"], 0, atol=1e-5)


def test_one_map_for_all_labels_may_prefer_a_mask_but_is_no_better_than_itself():
    """It lies on HE whatever it is asked for: mask against mask is deceived, map against map is not."""
    table = measured(lambda label, masks: masks["HE"] + 0.01)
    masks = attention.own_mask(table, LABELS, EVERYONE, PATIENTS, RESAMPLES, SEED)
    assert (masks.loc[masks["label"] == "HE", "difference_lo"] > 0).all()
    assert (masks.loc[(masks["label"] == "EX") & (masks["against"] == "HE"), "difference_hi"] < 0).all()
    maps_ = attention.own_map(table, LABELS, EVERYONE, PATIENTS, RESAMPLES, SEED)
    np.testing.assert_allclose(maps_["difference"], 0, atol=1e-12)
    assert all(
        "no difference" in sentence.split(";")[1] for sentence in map_tables.attention_findings(masks, maps_)
    )


def test_baselines_are_measured_on_the_same_eyes():
    images = np.full((EYES, SIZE, SIZE, 3), 100, np.uint8)
    beside = baselines.beside(images, range(EYES), [(6, 6)], SEED)
    table = measured(own, beside=beside)
    found = attention.confusion(table, LABELS, EVERYONE, PATIENTS, RESAMPLES, SEED).set_index(
        ["map", "mask", "condition"]
    )
    centre = found.loc["centre 6x6", "EX", "all"]
    assert centre["eyes"] == 18
    assert 0.3 < centre["enrichment"] < 3

    def blank_in_a_third(label, masks):
        return own(label, masks) * (label != "HE" or masks["HE"][20, 9] == 0)

    table = measured(blank_in_a_third, beside=beside)
    masks = attention.own_mask(table, LABELS, EVERYONE, PATIENTS, RESAMPLES, SEED)
    eyes = masks.groupby(["label", "against"])["eyes"].nunique()
    assert (eyes == 1).all()
    assert "vessels 6x6" not in set(masks["map"]), "a grey photograph has no vessels"
    assert {"centre 6x6", "random 6x6", "intensity 6x6"} <= set(masks["map"])
    shown = map_tables.attention(masks)
    assert shown["label"].tolist()[0] == "HE"
    assert {"enrichment, times chance", "hit, points", "aupr, points"} <= set(shown)


@pytest.mark.parametrize("question", [attention.own_mask, attention.own_map])
def test_pairs_that_no_eye_has_are_left_out_and_the_control_is_no_pair(question):
    table = measured(own)
    nothing = question(table[table["image_id"] == IDS[0]], ["EX", "MA"], EVERYONE, PATIENTS, RESAMPLES, SEED)
    assert not (nothing["label"] == "EX").any()
    nobody = question(table, LABELS, ~EVERYONE, PATIENTS, RESAMPLES, SEED)
    assert nobody.empty
    assert map_tables.attention(nobody).empty
    with pytest.raises(ValueError, match="'predicted' or 'present'"):
        question(table, LABELS, EVERYONE, PATIENTS, RESAMPLES, SEED, condition="absent")


def test_what_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="24 eyes and 2 labels"):
        attention.measure(maps(own), LABELS[:2], IDS, masks_of, PATIENTS)
    with pytest.raises(ValueError, match="nothing on e00"):
        attention.confusion(measured(own), LABELS, EVERYONE.iloc[1:], PATIENTS, RESAMPLES, SEED)
    with pytest.raises(ValueError, match="nothing on MA"):
        attention.confusion(measured(own), LABELS, EVERYONE[["HE", "EX"]], PATIENTS, RESAMPLES, SEED)


# --- figures --------------------------------------------------------------------------------------


def test_the_matrix_shows_every_cell_and_says_where_there_is_none():
    table = confused(own).reset_index()
    figure = figures.attention_matrix(table)
    left, right = figure.axes[:2]
    texts = [text.get_text() for text in left.texts]
    assert len(texts) == 2 * 9
    cell = table[(table["map"] == "HE") & (table["mask"] == "HE") & (table["condition"] == "predicted")].iloc[
        0
    ]
    assert f"{cell['enrichment']:.1f}" in texts
    assert any("24 eyes" in text for text in texts)
    assert sum(text.get_text() == "no eye" for text in right.texts) == 7
    assert [text.get_text() for text in right.texts].count("no heat in\n6 eyes") == 2
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["HE map", "EX map", "MA map"]
    colours = left.collections[0].get_facecolors().reshape(3, 3, 4)
    assert colours[0, 0, 0] > colours[0, 0, 2] + 0.3, "far above chance is orange"
    assert colours[0, 1, 2] > colours[0, 1, 1] + 0.2, "no heat at all is the far end of purple, and not blank"
    for metric in ("hit", "heat", "aupr_over_chance"):
        figures.attention_matrix(table, metric, ["present"])
    with pytest.raises(KeyError):
        figures.attention_matrix(table, "dice")


def test_examples_are_chosen_by_a_rule():
    rows = [
        ("a", "HE", True, "outlined", 0.6, 1, 0.9),
        ("b", "HE", True, "outlined", 0.4, 1, 0.9),
        ("c", "HE", True, "outlined", 0.2, 1, 0.9),
        ("d", "HE", True, "outlined", 0.0, 0, 0.7),
        ("e", "HE", True, "outlined", 0.0, 0, 0.8),
        ("f", "HE", False, "outlined", np.nan, 0, 0.6),
        ("g", "HE", False, "outlined", np.nan, 0, 0.7),
        ("h", "HE", True, "not predicted", 0.0, 0, 0.2),
        ("i", "HE", True, "not predicted", 0.0, 0, 0.1),
        ("j", "HE", None, "outlined", np.nan, None, 1.0),
        ("a", "EX", False, "outlined", np.nan, 0, 0.99),
    ]
    columns = ["image_id", "label", "present", "status", "dice", "outlines_right", "probability"]
    table = pd.DataFrame(rows, columns=columns).astype({"present": "boolean", "outlines_right": "Int64"})
    for order in (table, table[::-1]):
        found = figures.choose_outlined(order)
        assert dict(zip(found["case"], found["image_id"])) == {
            "best": "a",
            "typical": "c",
            "misplaced": "e",
            "false alarm": "g",
            "missed": "i",
        }
    assert figures.choose_outlined(table.iloc[:0]).empty
