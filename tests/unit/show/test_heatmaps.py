"""Heat and outlines in numbers, and that every figure of maps can be drawn."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from drstudy.show import heatmaps

mpl.use("agg")


IMAGE = np.random.default_rng(1).integers(20, 220, (48, 48, 3), dtype=np.uint8)
HEAT = np.linspace(0.1, 0.5, 48)[None] * np.ones((48, 1))


def test_the_paper_s_heat_is_jet_with_red_for_high():
    picture = heatmaps.printed_heat(HEAT)
    np.testing.assert_allclose(picture[0, 0], (0, 0, 0.5))
    np.testing.assert_allclose(picture[0, -1], (0.5, 0, 0))


def test_the_legible_overlay_is_the_photograph_where_there_is_no_heat():
    grey = IMAGE.astype(float) @ (0.299, 0.587, 0.114) / 255
    for highest in (0.0, 1.0):
        found = heatmaps.overlay(IMAGE, np.zeros((48, 48)), highest)
        np.testing.assert_allclose(found, np.repeat(grey[..., None], 3, axis=2))
    hot = heatmaps.overlay(np.zeros_like(IMAGE), np.full((48, 48), 2.0), 2.0)
    np.testing.assert_allclose(hot[0, 0], 0.75 * np.array(mpl.colormaps["inferno"](1.0)[:3]))


def masks():
    lesion = np.zeros((48, 48), np.float32)
    lesion[10:20, 10:20] = 1
    return {
        "FOV": np.ones((48, 48), bool),
        "MA": lesion,
        "HE": None,
        "EX": lesion * 0,
        "DISC": lesion.T[::-1],
    }


def test_outlines_are_drawn_for_masks_that_hold_something():
    _, axes = heatmaps.figures.new_figure()
    assert heatmaps.outline(axes[0, 0], masks()) == ["MA", "DISC"]
    assert heatmaps.outline(axes[0, 0], {}) == []


def summary():
    rows = []
    for layer in ("x", "y"):
        for kind, region, area in (
            ("part", "lesion", 0.03),
            ("part", "elsewhere", 0.97),
            ("mask", "MA", 0.01),
        ):
            values = {
                "heat": 2 * area,
                "heat_lo": area,
                "heat_hi": 3 * area,
                "enrichment": 2.0,
                "enrichment_lo": np.nan,
            }
            about = {"layer": layer, "kind": kind, "region": region, "group": "all", "area": area, "eyes": 9}
            rows.append(about | values | {"enrichment_hi": np.nan})
    return pd.DataFrame(rows)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("given", [masks(), {}])
def test_every_figure_is_drawn(tmp_path, given):
    three = [IMAGE] * 3, [HEAT, HEAT * 2, HEAT * 0], [given] * 3
    figures = {
        "layers": heatmaps.layers_panel(three[0], {"x": three[1], "y": three[1]}, three[2], ["a", "b", "c"]),
        "bars": heatmaps.share_bars(summary()),
        "bars, no masks": heatmaps.share_bars(summary().assign(eyes=0)),
    }
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    bars = figures["bars"].axes[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx([6.0, 6.0])


def differences(layers, regions, eyes=12):
    rows = []
    for layer in layers:
        for region in regions:
            for metric in ("heat", "hit"):
                for against in ("random 7x7", "centre 7x7", "intensity 7x7", "vessels 7x7"):
                    about = {
                        "layer": layer,
                        "region": region,
                        "metric": metric,
                        "against": against,
                        "eyes": eyes,
                    }
                    ends = {"difference": 0.02, "difference_lo": 0.01, "difference_hi": 0.04}
                    rows.append(about | ends | {"other": 0.1 if metric == "heat" else 0.0})
    return pd.DataFrame(rows)


@pytest.mark.filterwarnings("error")
def test_points_beyond_chance_are_in_percent_of_the_baseline_or_in_points():
    names = {"heat": "energy", "hit": "pointing"}
    found = pd.concat([differences(["x"], ["lesion", "MA"]), differences(["x"], ["PRH"], eyes=3)])
    figure = heatmaps.beyond_chance(found, names, ["lesion", "MA", "PRH"])
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["lesion (12 eyes)", "MA (12 eyes)"]
    dots = [[line for line in axis.lines if line.get_marker() == "o"] for axis in (left, right)]
    assert [list(line.get_xdata()) for line in dots[0]] == [pytest.approx([20, 20])] * 4, "0.02 of 0.1"
    assert [list(line.get_xdata()) for line in dots[1]] == [pytest.approx([2, 2])] * 4
    intervals = [line.get_xdata() for line in right.lines if line.get_marker() == "None"][
        1:
    ]  # after the line of 0
    assert len(intervals) == 8
    assert all(list(ends) == pytest.approx([1, 4]) for ends in intervals), "drawn as they are given"
    nothing = heatmaps.beyond_chance(differences(["x"], ["PRH"], eyes=3), names, ["PRH"])
    assert nothing.axes[0].texts[0].get_text() == "no lesion is in enough eyes"


@pytest.mark.filterwarnings("error")
def test_methods_and_cascade_are_drawn(tmp_path):
    found = differences(["grad_cam", "finer: fusion"], ["lesion"])
    found = found[found["against"] == "random 7x7"]
    figure = heatmaps.methods_beside(found, {"heat": "energy"}, ["grad_cam", "finer: fusion"], "title")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["Grad-CAM", "finer: fusion"]
    rows = [
        {"method": method, "check": "random weights", "stage": stage, "step": step}
        | {f"{name}{end}": 1 - 0.4 * step for name in ("spearman", "ssim") for end in ("", "_lo", "_hi")}
        for method in ("grad_cam", "guided_backprop")
        for step, stage in enumerate(("head", "features.conv0 to features.denseblock1"), 1)
    ]
    figure = heatmaps.cascade(pd.DataFrame(rows), 0.5)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["trained", "head", "conv0"]
    figure.savefig(tmp_path / "cascade.png")
