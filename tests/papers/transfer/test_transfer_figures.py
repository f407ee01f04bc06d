"""The rule that chooses the eyes of figure 5, and the paper's overlay in numbers."""

import numpy as np
import pandas as pd
import pytest

from drstudy.papers.transfer import figures

HEAT = np.linspace(0.1, 0.5, 48)[None] * np.ones((48, 1))


def predictions(rows):
    """Eyes as (image_id, grade, predicted, confidence); the second best has all the rest."""
    table = []
    for image_id, grade, predicted, confidence in rows:
        p = np.zeros(5)
        p[predicted], p[(predicted + 1) % 5] = confidence, 1 - confidence
        table.append({"image_id": image_id, "grade": grade, **{f"p{k}": p[k] for k in range(5)}})
    return pd.DataFrame(table).astype({"grade": "Int64"})


EYES = [
    ("a", 0, 0, 0.99),
    ("b", 3, 3, 0.80),
    ("c", 4, 4, 0.90),
    ("d", 2, 2, 0.95),
    ("e", 3, 1, 0.97),
    ("f", 3, 0, 0.70),
    ("g", 4, 0, 0.75),
    ("h", 1, 0, 0.98),
    ("i", 2, 3, 0.55),
    ("j", 2, 2, 0.52),
]


def chosen(rows):
    return figures.choose_cases(predictions(rows)).set_index("case")


def test_the_rule_chooses_severe_eyes_first():
    cases = chosen(EYES)
    assert cases["image_id"].to_dict() == {"right": "c", "borderline": "j", "wrong": "g"}
    assert list(cases["note"]) == ["", "", ""]
    assert cases.loc["wrong", "grade"] == 4
    assert cases.loc["wrong", "predicted"] == 0
    assert cases.loc["wrong", "confidence"] == pytest.approx(0.75)
    assert cases.loc["borderline", "margin"] == pytest.approx(0.04)


def test_the_rule_does_not_depend_on_the_order_and_ties_go_to_the_first_id():
    shuffled = [EYES[i] for i in np.random.default_rng(0).permutation(len(EYES))]
    pd.testing.assert_frame_equal(chosen(shuffled), chosen(EYES))
    assert chosen([("y", 4, 4, 0.9), ("x", 4, 4, 0.9)]).loc["right", "image_id"] == "x"


def test_without_severe_eyes_it_takes_the_highest_grade_and_says_so():
    cases = chosen([("a", 0, 0, 0.9), ("b", 2, 2, 0.6), ("c", 1, 0, 0.9), ("d", 2, 0, 0.7), ("e", 0, 0, 0.8)])
    assert cases["image_id"].to_dict() == {"right": "b", "borderline": "e", "wrong": "d"}
    assert cases.loc["right", "note"] == "no severe eye was graded correctly"
    assert cases.loc["wrong", "note"] == "no severe eye was graded wrongly"


def test_it_says_when_the_wrong_eye_was_not_called_too_low():
    assert chosen([("a", 3, 4, 0.9), ("b", 1, 0, 0.8)]).loc["wrong", ["image_id", "note"]].tolist() == [
        "a",
        "none of its kind was predicted too low",
    ]


def test_it_says_when_a_case_does_not_exist():
    perfect = chosen([("a", 0, 0, 0.9), ("b", 3, 3, 0.6)])
    assert perfect["image_id"].to_dict() == {"right": "b", "borderline": "a", "wrong": ""}
    assert perfect.loc["wrong", "note"] == "no eye was graded wrongly"
    single = chosen([("b", 3, 3, 0.6)])
    assert single.loc["borderline", "note"] == "no other eye is left"
    assert single.loc["borderline", "image_id"] == ""


def test_eyes_without_a_grade_are_neither_right_nor_wrong():
    cases = chosen([("a", pd.NA, 3, 0.9), ("b", pd.NA, 3, 0.6), ("c", pd.NA, 3, 0.8)])
    assert cases["image_id"].to_dict() == {"right": "", "borderline": "b", "wrong": "", "certain": "a"}
    assert list(cases["note"]) == ["the eyes have no grade", "", "the eyes have no grade", ""]
    assert cases["grade"].isna().all()


def test_the_paper_s_overlay_is_a_tenth_of_heat_and_eight_tenths_of_photograph():
    image = np.zeros((48, 48, 3), np.uint8)
    image[:24], image[24:] = 50, 150
    found = figures.paper_overlay(image, HEAT)
    np.testing.assert_allclose(found[0, 0], (0, 0, 0.05))
    np.testing.assert_allclose(found[-1, -1], (0.85, 0.8, 0.8))
    assert np.isfinite(figures.paper_overlay(np.full_like(image, 7), HEAT * 0)).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("outlined", [True, False])
def test_figures_4_and_5_are_drawn(tmp_path, outlined):
    image = np.random.default_rng(1).integers(20, 220, (48, 48, 3), dtype=np.uint8)
    lesion = np.zeros((48, 48), np.float32)
    lesion[10:20, 10:20] = 1
    masks = (
        {"FOV": np.ones((48, 48), bool), "MA": lesion, "HE": None, "DISC": lesion.T[::-1]} if outlined else {}
    )
    cases = chosen(EYES[:8]).reset_index()
    drawn = {
        "4": figures.figure4(image, HEAT, masks, "title"),
        "4, no heat": figures.figure4(image, HEAT * 0, masks),
        "5": figures.figure5(cases, [image] * 3, [HEAT, HEAT * 2, HEAT * 0], [masks] * 3),
    }
    for name, figure in drawn.items():
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    assert [axis.get_title() for axis in drawn["5"].axes[:3]] == [
        "right: grade 4, predicted 4 (90 %)",
        "as printed",
        "legible, one scale",
    ]
