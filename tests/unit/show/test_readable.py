"""Tables as a reader meets them: no name of a variable, no raw number, and the order of the numbers kept."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from drstudy.show import readable
from drstudy.show.vocabulary import DASH, Term

TESTS = pd.DataFrame(
    {
        "run": ["vgg16_seed0", "resnet101_seed0"],
        "label": ["VGG16 (no pretraining)", "ResNet101 (no pretraining)"],
        "metric": ["auc_ge2", "qwk"],
        "value": [-0.016970458830923962, -0.581081081081081],
        "lo": [-0.14887, -0.72368],
        "hi": [0.11393, -0.42303],
        "n_valid": [2000, 1990],
        "p_images": [0.8026286066084669, 4.17e-07],
        "p_patients_holm": [0.7996, np.nan],
    }
)


def cells(table: readable.Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def headings(table: readable.Table) -> list[str]:
    return [column.heading for column in table.columns]


def test_variables_become_words_and_an_interval_joins_its_number():
    table = readable.table(TESTS)
    assert headings(table) == [
        "network",
        "measure",
        "value",
        "p, eyes taken as independent",
        "p, patients resampled, adjusted",
    ]
    assert cells(table) == [
        ["VGG16 (no pretraining)", "AUC, grade ≥ 2", "-0.017 [-0.149, 0.114]", "0.803", "0.800"],
        ["ResNet101 (no pretraining)", "QWK", "-0.581 [-0.724, -0.423] †", "< 0.001", DASH],
    ]
    assert table.notes == "†: undefined in some resamples, which the interval leaves out."
    assert [column.numeric for column in table.columns] == [False, False, True, True, True]
    assert "DeLong" in table.columns[3].explains
    assert table.columns[2].explains == "In brackets: 95 % interval."


def test_a_paper_names_its_own_columns_for_all_tables_or_one():
    terms = {
        "value": Term("difference", "Less the other."),
        "other/value": Term("kappa"),
        "p_images": Term("p"),
    }
    assert headings(readable.table(TESTS, terms))[2:4] == ["difference", "p"]
    assert headings(readable.table(TESTS, terms, name="other"))[2] == "kappa"


def test_cells_are_sorted_by_their_number_and_shown_as_number_and_interval():
    frame = pd.DataFrame({"a": ["+4.6 (1.9 to 7.6)", "-", "1,234", "-0.25 [-0.38, -0.12], p = 0.418"]})
    (column,) = zip(*readable.table(frame).rows)
    assert [cell.order for cell in column] == [4.6, -math.inf, 1234.0, -0.25]
    assert [cell.lead for cell in column] == ["+4.6", DASH, "1,234", "-0.25"]
    assert column[0].rest == "(1.9 to 7.6)"
    small = readable.table(pd.DataFrame({"gap": [1.5e-08, 2.0]})).rows
    assert small[0][0].text == "1.5 × 10⁻⁸"
    assert small[0][0].order == pytest.approx(1.5e-08)


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ([0.396875, 0.14375], ["0.397", "0.144"]),
        ([0.75, 0.25], ["0.75", "0.25"]),
        ([25810, 3.0], ["25,810", "3"]),
        ([25810.4, 3.5], ["25,810", "4"]),
        ([6.8194, 100.0], ["6.8", "100.0"]),
        ([1.234, np.nan], ["1.23", DASH]),
        ([7653829, 490885], ["7,653,829", "490,885"]),
        ([0.0, 0.0], ["0", "0"]),
    ],
)
def test_a_column_has_one_number_of_digits(numbers, shown):
    assert readable.texts_of(pd.Series(numbers, name="x")) == shown


@pytest.mark.parametrize(
    ("text", "column", "shown"),
    [
        ("aupr", "metric", "average precision"),
        ("accuracy_ge3", "metric", "accuracy, grade ≥ 3"),
        ("brier_ge2", "metric", "Brier score, grade ≥ 2"),
        ("lesion", "region", "all lesions"),
        ("lesion", "group", "lesion"),
        ("densenet121-seed0", "run", "DenseNet121, seed 0"),
        ("efficientnet_lite0-seed1-again", "run", "EfficientNet-Lite0, seed 1, again"),
        ("ram_net5 fused", "map", "RAM net-5 fused"),
        ("efficientnet_lite0 fused", "map", "EfficientNet-Lite0 fused"),
        ("grad_cam", "map", "Grad-CAM"),
        ("norm5_relu", "layer", "norm5_relu"),
        ("4.17e-07", "x", "4.17 × 10⁻⁷"),
        ("1.2e+04 [-3e-05, 2]", "x", "12,000 [-3 × 10⁻⁵, 2]"),
        ("True", "possible", "yes"),
    ],
)
def test_codes_become_names_and_other_names_stay(text, column, shown):
    assert readable.value(text, column) == shown


def test_limits_without_their_number_stand_as_an_interval():
    frame = pd.DataFrame({"value": [0.5], "lo": [0.4], "hi": [0.6], "bca_lo": [0.41], "bca_hi": [0.62]})
    table = readable.table(frame)
    assert headings(table) == ["value", "BCa interval"]
    assert cells(table) == [["0.5 [0.4, 0.6]", "0.41 to 0.62"]]


def test_headings_of_lesions_and_grades_are_explained():
    table = readable.table(
        pd.DataFrame({"MA": [0.1], "recall, grade 3": [0.2], "share_of_it": [0.3], "Unnamed: 0": ["a"]})
    )
    assert headings(table) == ["MA", "recall, grade 3", "share of it", "row"]
    legend = dict(readable.legend(table))
    assert legend["MA"] == "MA: microaneurysm."
    assert "Grade 3: severe NPDR." in legend["recall, grade 3"]
    assert "row" not in legend


def test_names_that_cells_have_too_stay_as_headings():
    frame = pd.DataFrame({"trained on": ["dr600_mini"], "dr600_mini": ["0.71 [0.62, 0.78]"]})
    assert headings(readable.table(frame)) == ["trained on", "dr600_mini"]


def test_a_long_table_says_that_it_was_cut():
    table = readable.table(pd.DataFrame({"n": range(65)}), most=60)
    assert len(table.rows) == 60
    assert table.notes == "The first 60 of 65 rows."
