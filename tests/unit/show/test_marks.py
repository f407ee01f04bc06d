"""The marks that figures share: where points, intervals, bars and texts stand, and what becomes of numbers that are missing."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import LogNorm, to_hex

from drstudy.show import figures, marks, style

matplotlib.use("agg")

TABLE = pd.DataFrame(
    [
        ("a", "one", 1.0, 0.5, 2.0),
        ("a", "two", 3.0, 2.0, 5.0),
        ("b", "one", 4.0, np.nan, np.nan),
        ("b", "two", np.nan, np.nan, np.nan),
    ],
    columns=["group", "level", "value", "lo", "hi"],
)
PALETTE = {"one": "#0072B2", "two": "#D55E00"}
RED, BLUE = "#D55E00", "#0072B2"


@pytest.fixture
def ax():
    return figures.new_figure(1, 1, 4, 3)[1][0, 0]


def ends(ax) -> list[tuple[float, float, float]]:
    """Place, lower and upper limit of each interval that is drawn (values to the right)."""
    lines = [line for line in ax.lines if line.get_marker() in ("None", "")]
    return [
        (float(line.get_ydata()[0]), min(line.get_xdata()), max(line.get_xdata()))
        for line in lines
        if len(line.get_xdata()) > 1
    ]


def test_points_stand_at_their_estimates_side_by_side(ax):
    dots = marks.points(ax, TABLE, "group", ["a", "b"], PALETTE, "level", span=0.4)
    assert {level: line.get_xdata().tolist() for level, line in dots.items()} == {
        "one": [1, 4],
        "two": [3],
    }
    assert dots["one"].get_ydata() == pytest.approx([-0.2, 0.8])
    assert dots["two"].get_ydata() == pytest.approx([0.2])
    assert {level: to_hex(line.get_color()).upper() for level, line in dots.items()} == PALETTE
    assert sorted(ends(ax)) == pytest.approx(np.array([(-0.2, 0.5, 2.0), (0.2, 2.0, 5.0)]))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]
    top, bottom = ax.get_ylim()[::-1]
    assert top < bottom, "the first group is at the top"


def test_points_run_upwards_and_keep_the_place_of_a_group_without_an_estimate(ax):
    order = ["nobody", "b", "a"]
    palette = dict.fromkeys(order, BLUE)
    marks.points(ax, TABLE[TABLE["level"] == "one"], "group", order, palette, vertical=True)
    points = sorted(
        (float(x), float(y))
        for line in ax.lines
        if line.get_marker() == "o"
        for x, y in zip(line.get_xdata(), line.get_ydata())
    )
    assert points == [(1, 4), (2, 1)]
    assert [text.get_text() for text in ax.get_xticklabels()] == order
    assert ax.get_xlim() == (-0.5, 2.5)


def test_points_of_other_columns_with_markers_and_hollow(ax):
    table = TABLE.rename(columns={"value": "v", "lo": "from", "hi": "to"})
    look = {"value": "v", "ends": ("from", "to"), "markers": {"one": "o", "two": "s"}, "hollow": ["two"]}
    dots = marks.points(ax, table, "group", ["a", "b"], PALETTE, "level", **look)
    assert [dots[level].get_marker() for level in PALETTE] == ["o", "s"]
    assert dots["two"].get_markerfacecolor() == "white"
    assert to_hex(dots["one"].get_markerfacecolor()).upper() == BLUE
    assert len(ends(ax)) == 2


def test_points_without_an_interval_can_be_marked(ax):
    marks.points(ax, TABLE, "group", ["a", "b"], PALETTE, "level", span=0.4, mark_missing=True)
    [hole] = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert (hole.get_xdata()[0], hole.get_ydata()[0]) == pytest.approx((4, 0.8))


def test_nothing_is_drawn_of_nothing(ax):
    assert marks.points(ax, TABLE.iloc[3:], "group", ["a", "b"], PALETTE, "level") == {}
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]
    marks.points(ax, TABLE.iloc[:0], "group", [], {})
    assert list(ax.get_yticks()) == []


def test_bars_begin_at_0_and_stand_where_places_says(ax):
    found = marks.bars(ax, TABLE, "group", ["a", "b"], PALETTE, "level", hatches={"two": "//"})
    at = marks.places(2, 2)
    heights = {level: [bar.get_height() for bar in found[level]] for level in PALETTE}
    assert heights["one"] == [1, 4]
    assert heights["two"][0] == 3
    for row, level in zip(at, PALETTE):
        middles = [bar.get_x() + bar.get_width() / 2 for bar in found[level]]
        assert middles == pytest.approx(row[: len(middles)])
        assert found[level].get_label() == level
    assert {bar.get_y() for bars in found.values() for bar in bars} == {0}
    assert {bar.get_hatch() for bar in found["two"]} == {"//"}
    assert to_hex(found["one"][0].get_facecolor()).upper() == BLUE
    drawn = [line for line in ax.lines if np.isfinite(np.asarray(line.get_ydata(), float)).all()]
    limits = sorted((min(line.get_ydata()), max(line.get_ydata())) for line in drawn)
    assert limits == [(0.5, 2.0), (2.0, 5.0)]


def test_bars_to_the_right_have_the_first_group_at_the_top(ax):
    table = TABLE[TABLE["level"] == "one"]
    marks.bars(ax, table, "group", ["a", "b"], dict.fromkeys("ab", RED), ends=None, horizontal=True)
    widths = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in ax.patches}
    assert widths == {0: 1, 1: 4}
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    assert len(ax.lines) == 0 or not any(np.isfinite(line.get_xdata()).all() for line in ax.lines)


def test_places_are_centred_on_the_groups():
    assert marks.places(2, 1) == pytest.approx(np.array([[0.0, 1.0]]))
    two = marks.places(3, 2)
    assert two.mean(axis=0) == pytest.approx([0, 1, 2])
    assert two[1] - two[0] == pytest.approx(marks.SPAN / 2)


def test_a_matrix_has_a_text_in_every_cell_that_is_a_number(ax):
    shades = pd.DataFrame([[0.0, 100.0], [np.nan, 50.0]], index=["x", "y"], columns=["p", "q"])
    texts = [["low", "high"], ["unseen", "middle"]]
    cells = marks.matrix(ax, shades, texts, style.SHARES_MAP, 11, vmin=0, vmax=100)
    assert {text.get_text(): text.get_position() for text in ax.texts} == {
        "low": (0.5, 0.5),
        "high": (1.5, 0.5),
        "middle": (1.5, 1.5),
    }
    assert {text.get_text(): text.get_color() for text in ax.texts}["low"] == "black"
    assert {text.get_text(): text.get_color() for text in ax.texts}["high"] == "white"
    assert {text.get_fontsize() for text in ax.texts} == {11}
    assert cells.get_clim() == (0, 100)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["x", "y"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first row is at the top"


def test_a_matrix_may_be_coloured_around_1(ax):
    cells = marks.matrix(
        ax, np.array([[0.1, 1.0, 10.0]]), [["a", "b", "c"]], style.SIGNED_MAP, norm=LogNorm(0.1, 10)
    )
    low, middle, high = cells.get_facecolors()[:, :3]
    assert middle.min() > 0.9, "white in the middle"
    assert low[2] > low[1] + 0.2, "purple below"
    assert high[0] > high[2] + 0.3, "orange above"


@pytest.mark.parametrize(
    ("face", "text"),
    [
        ("#ffffff", "black"),
        ("#000000", "white"),
        ("#777777", "black"),
        ("#0000ff", "white"),
        ("#ffff00", "black"),
    ],
)
def test_text_has_the_greater_contrast(face, text):
    """By the contrast of WCAG 2, (L1 + 0.05) / (L2 + 0.05), computed here for both tones."""
    rgb = [int(face[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    contrast = {"white": 1.05 / (luminance + 0.05), "black": (luminance + 0.05) / 0.05}
    assert marks.readable_on(rgb) == max(contrast, key=contrast.get) == text
