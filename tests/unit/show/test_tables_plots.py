"""Tables beside the paper's numbers, and figures by what they draw."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest
from fabricated import fine_tuning, four_runs, graded, history, sixty_patients

from drstudy.core import records
from drstudy.core.names import GRADE_NAMES
from drstudy.core.records import RecordError
from drstudy.evaluation import metrics
from drstudy.papers import registry
from drstudy.papers.transfer import figures as paper_figures
from drstudy.papers.transfer import tables as paper_tables
from drstudy.show import figures, style, tables

RESAMPLES = 40


@pytest.fixture(scope="module")
def images() -> pd.DataFrame:
    return sixty_patients()


@pytest.fixture(autouse=True)
def _results(tmp_path, monkeypatch):
    monkeypatch.setenv("DRSTUDY_RESULTS", str(tmp_path / "results"))


@pytest.fixture
def runs(images) -> list[tables.ComparedRun]:
    return four_runs(images)


@pytest.fixture
def scores(runs) -> pd.DataFrame:
    return tables.scores([*runs, tables.always_grade_0(runs[0])], RESAMPLES, seed=0)


def test_runs_are_named_and_labelled_with_the_weights_used(runs):
    assert [run.name for run in runs] == [
        "densenet121_seed0",
        "resnet101_seed0",
        "efficientnet_lite0_seed0",
        "efficientnet_lite0_seed1",
    ]
    assert [run.label for run in runs] == [
        "DenseNet121 (ImageNet)",
        "ResNet101 (no pretraining)",
        "EfficientNet-Lite0 (ImageNet, bundled), seed 0",
        "EfficientNet-Lite0 (ImageNet, bundled), seed 1",
    ]
    assert [run.seed for run in runs] == [0, 0, 0, 1]
    assert set(runs[0].predictions["split"]) == {"test"}


def test_labels_stay_distinct_when_only_the_variant_differs(images):
    records = [
        fine_tuning(graded(images), "vgg16", variant="vgg16-single", head="single"),
        fine_tuning(graded(images), "vgg16", variant="vgg16-paper", head="paper"),
    ]
    labels = [run.label for run in tables.read_runs(records)]
    assert labels == [f"VGG16 (no pretraining), seed 0, vgg16-{head}" for head in ("single", "paper")]


def test_runs_that_cannot_be_compared_are_refused(images):
    record = fine_tuning(graded(images), "vgg16")
    with pytest.raises(RecordError, match="vgg16_seed0 more than once"):
        tables.read_runs([record, record])
    other = fine_tuning(graded(images.iloc[2:]), "resnet101")
    with pytest.raises(
        metrics.PredictionError, match=r"vgg16_seed0 and resnet101_seed0: .*not tested on the same"
    ):
        tables.read_runs([record, other])
    del record.metrics["seconds_per_epoch"]
    with pytest.raises(
        RecordError, match=r"03_fine_tuning/vgg16-seed0 has no seconds_per_epoch. Run notebook 03"
    ):
        tables.read_runs([record])


def test_the_baseline_scores_what_it_must(scores):
    baseline = scores[scores["run"] == "always_grade_0"].set_index("metric")["value"]
    assert baseline["qwk"] == 0
    assert baseline["balanced_accuracy"] == pytest.approx(0.2)
    assert baseline["accuracy"] == pytest.approx(1 - baseline["prevalence_ge1"])
    assert baseline["macro_auc"] == 0.5
    assert np.isnan(baseline["precision_grade3"])


def test_display_rounds_and_says_what_is_missing(scores):
    shown = tables.display(
        scores, {"qwk": "QWK", "recall_grade4": "recall of 4", "precision_grade3": "precision of 3"}
    )
    row = scores.set_index(["run", "metric"]).loc[("densenet121_seed0", "qwk")]
    assert shown.loc["DenseNet121 (ImageNet)", "QWK"] == f"{row.value:.2f} [{row.lo:.2f}, {row.hi:.2f}]"
    rare = scores.set_index(["run", "metric"]).loc[("densenet121_seed0", "recall_grade4")]
    assert 0 < rare["n_valid"] < RESAMPLES
    assert shown.loc["DenseNet121 (ImageNet)", "recall of 4"].endswith("†")
    assert shown.loc["always grade 0", "precision of 3"] == "undefined"
    assert list(shown.index) == list(scores["label"].unique())


def test_differences_are_to_densenet121(runs):
    table = tables.differences(runs, RESAMPLES, seed=0)
    assert set(table["run"]) == {run.name for run in runs[1:]}
    assert set(table["reference"]) == {"DenseNet121 (ImageNet)"}
    row = table.query("run == 'resnet101_seed0' and metric == 'qwk'").iloc[0]
    mine, theirs = (metrics.evaluate(run.predictions)["qwk"] for run in (runs[1], runs[0]))
    assert row["value"] == mine - theirs < 0
    without = tables.differences(runs[1:], RESAMPLES, seed=0)
    assert without.empty
    assert list(without) == list(table)


def test_differences_prefer_the_same_seed(images):
    runs = tables.read_runs(
        [fine_tuning(graded(images, seed=10 * s), "densenet121", seed=s) for s in (0, 1)]
        + [fine_tuning(graded(images, seed=10 * s + 1), "vgg16", seed=s) for s in (0, 1, 2)]
    )
    table = tables.differences(runs, 5, seed=0)
    references = table.drop_duplicates("run").set_index("run")["reference"].to_dict()
    name = "DenseNet121 (no pretraining), seed {}".format
    assert references == {
        "vgg16_seed0": name(0),
        "vgg16_seed1": name(1),
        "vgg16_seed2": name(0),
    }


def test_seed_spread(runs, scores):
    spread = tables.seed_spread(scores, {"qwk": "QWK"})
    assert spread["label"].tolist() == ["EfficientNet-Lite0 (ImageNet, bundled)"]
    values = [metrics.evaluate(run.predictions)["qwk"] for run in runs[2:]]
    assert spread["mean"].item() == pytest.approx(np.mean(values))
    assert spread["std"].item() == pytest.approx(np.std(values, ddof=1))
    assert tables.seed_spread(scores[scores["seed"] == 0], {"qwk": "QWK"}).empty


def test_flat_metrics(scores):
    flat = tables.flat(scores[scores["metric"] == "qwk"])
    assert len(flat) == 3 * 5
    of_one_run = scores[(scores["metric"] == "qwk") & (scores["run"] == "densenet121_seed0")].drop(
        columns="run"
    )
    assert tables.flat(of_one_run) == {
        f"qwk{end}": flat[f"densenet121_seed0_qwk{end}"] for end in ("", "_lo", "_hi")
    }
    assert (
        flat["densenet121_seed0_qwk_lo"] <= flat["densenet121_seed0_qwk"] <= flat["densenet121_seed0_qwk_hi"]
    )


# Figures


def luminance(colour: str) -> float:
    """Relative luminance of sRGB, 0 to 1 (WCAG 2)."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_grade_colours_are_ordered_even_in_grey():
    levels = [luminance(colour) for colour in style.GRADE_COLOURS]
    contrast = [(a + 0.05) / (b + 0.05) for a, b in pairwise(levels)]
    assert len(levels) == len(GRADE_NAMES) == 5
    assert min(contrast) > 1.5  # neighbours differ by lightness alone, so without any hue too


def test_backbones_have_fixed_colours_and_labels():
    study = ("densenet121", "resnet101", "vgg16", *(f"efficientnet_lite{n}" for n in range(3)))
    known = [style.backbone_colour(name) for name in study]
    assert len(set(known)) == 6
    assert style.backbone_colour("convnext_tiny") == style.backbone_colour("convnext_tiny") not in known
    assert style.backbone_label("densenet121", "none") == "DenseNet121 (no pretraining)"
    assert style.backbone_label("vgg16", "imagenet") == "VGG16 (ImageNet)"
    assert style.backbone_label("vgg16", "none", records.SHORT) == "VGG16 (no pretraining, short recipe)"
    assert style.backbone_label("efficientnet_lite2", "bundled") == "EfficientNet-Lite2 (ImageNet, bundled)"
    assert (
        style.backbone_label("convnext_tiny", "weights/eyes.safetensors")
        == "convnext_tiny (weights eyes.safetensors)"
    )


COLOUR_BLIND = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
"""What linear red, green and blue become in these eyes (Machado et al. 2009, severity 1)."""


def seen_by(eyes_of: str, known: list[str]) -> np.ndarray:
    """Colours as these eyes see them, (N, 3) in CIELAB."""
    from skimage.color import rgb2lab

    srgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in known])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(COLOUR_BLIND[eyes_of]).T, 0, 1)
    seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    return rgb2lab(seen)


@pytest.mark.parametrize("eyes_of", COLOUR_BLIND)
def test_backbones_are_distinguished_by_every_kind_of_colour_vision(eyes_of):
    from skimage.color import deltaE_ciede2000

    known = [style.backbone_colour(name) for name in style.BACKBONE_COLOURS]
    assert len(known) == 6
    lab = seen_by(eyes_of, known)
    # 2.3 is just noticeable side by side; lines and dots of a figure need several times that
    assert all(deltaE_ciede2000(a, b) > 10 for a, b in combinations(lab, 2))


COMPARED = ("densenet121", "efficientnet_lite0")
"""Backbones that stand beside the systems of papers in the demo."""


def system_names() -> list[str]:
    """Printed names of the systems of all papers; of fine-tuned networks those of :data:`COMPARED`."""
    fixed = [system.name for system in registry.systems() if "{network}" not in system.name]
    return fixed + [f"Five grades: {style.backbone_label(name, 'bundled')}" for name in COMPARED]


def test_a_system_has_its_own_colour_whichever_stand_beside_it():
    names = system_names()
    whole = style.system_colours(names)
    assert len(set(whole.values())) == len(names)
    assert style.system_colours(names[::-2]) == {name: whole[name] for name in names[::-2]}
    own = "Five grades: EfficientNet-Lite0 (no pretraining, short recipe), seed 1"
    assert style.system_colour(own) == style.backbone_colour("efficientnet_lite0")
    assert style.system_colour("Five grades: EfficientNet-Lite1 (ImageNet)") == style.backbone_colour(
        "efficientnet_lite1"
    )
    assert style.system_colour("centre") == style.BASELINE_COLOURS["centre"]
    assert style.system_colour("A system of a new paper") in style.SPARE_COLOURS
    assert style.SYSTEM_COLOURS["RAM"] == style.lesion_map_colour("RAM")


@pytest.mark.parametrize("eyes_of", COLOUR_BLIND)
def test_systems_are_distinguished_by_every_kind_of_colour_vision(eyes_of):
    from skimage.color import deltaE_ciede2000

    lab = seen_by(eyes_of, [style.system_colour(name) for name in system_names()])
    assert all(deltaE_ciede2000(a, b) > 10 for a, b in combinations(lab, 2))


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_confusion_matrices_show_counts_and_row_shares():
    counts = np.diag([9, 1, 0, 2, 3])
    counts[0, 2] = 1
    figure = figures.confusion_matrices({"one": counts, "two": counts, "three": counts, "four": counts})
    panels = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in panels] == ["one", "two", "three", "four"]
    assert texts(panels[0])[:3] == ["9\n90 %", "0\n0 %", "1\n10 %"]
    assert texts(panels[0])[10:15] == ["–"] * 5  # no image has grade 2
    assert (panels[0].get_xlabel(), panels[0].get_ylabel()) == ("predicted grade", "observed grade")


def test_roc_curves_carry_auc_and_pass_through_decisions(runs, scores):
    figure = figures.roc_curves(runs, scores, paper_tables.PAPER_TABLE2)
    ax = figure.axes[1]
    assert ax.get_title().startswith("grade ≥ 2")
    area = scores.set_index(["run", "metric"]).loc[("resnet101_seed0", "auc_ge2")]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels[2] == f"{area.value:.2f} [{area.lo:.2f}, {area.hi:.2f}]"
    curve = next(line for line in ax.get_lines() if line.get_label() == labels[2])
    trapezoids = np.trapezoid(curve.get_ydata(), curve.get_xdata()) / 1e4
    assert trapezoids == pytest.approx(
        area.value, abs=1e-12
    )  # the area that the legend states is the one drawn
    hollow = [line for line in ax.get_lines() if line.get_marker() == "D"]
    drawn = sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in hollow)
    assert drawn == [pytest.approx(point) for point in [(4, 6), (8.7, 77), (11, 29)]]
    pink = style.backbone_colour("efficientnet_lite0")
    assert [
        line.get_linestyle()
        for line in ax.get_lines()
        if line.get_color() == pink and len(line.get_xdata()) > 1
    ] == ["-", "--"]


def test_loss_curves_are_drawn_whole_whichever_is_highest():
    low, high = history(), history()
    high["loss"] *= 5
    figure = figures.loss_curves({"low": low, "high": high}, ["k", "k"])
    for ax in figure.axes[:2]:
        bottom, top = ax.get_ylim()
        assert bottom == 0
        assert top > high["loss"].max()


def test_roc_curves_say_where_a_cut_is_undefined(images):
    healthy = images.assign(grade=images["grade"].clip(upper=2))
    runs = tables.read_runs([fine_tuning(graded(healthy), "vgg16")])
    figure = figures.roc_curves(runs, tables.scores(runs, 5, seed=0))
    assert [texts(ax) for ax in figure.axes] == [
        [],
        [],
        ["undefined: one class only"],
        ["undefined: one class only"],
    ]


def test_metric_dots_show_values_intervals_chance_and_paper(scores):
    columns = {"qwk": "QWK", "sensitivity_ge2": "sensitivity at grade ≥ 2"}
    figure = figures.metric_dots(scores, columns, paper=paper_tables.paper_at(2))
    qwk, sensitivity = figure.axes
    assert [tick.get_text() for tick in qwk.get_yticklabels()] == list(scores["label"].unique())
    row = scores.set_index(["run", "metric"]).loc[("resnet101_seed0", "qwk")]
    bars = [line for line in qwk.get_lines() if list(line.get_xdata()) == [row.lo, row.hi]]
    assert [list(bar.get_ydata()) for bar in bars] == [[1, 1]]
    dotted = [line for line in qwk.get_lines() if line.get_linestyle() == ":"]
    assert [list(line.get_xdata()) for line in dotted] == [[0, 0]]
    hollow = {
        line.get_xdata()[0]: line.get_color()
        for line in sensitivity.get_lines()
        if line.get_marker() == "D" and len(line.get_xdata())
    }
    assert hollow == {
        0.77: style.backbone_colour("densenet121"),
        0.29: style.backbone_colour("resnet101"),
    }


def test_smoothing_is_tensorboards():
    values = pd.Series([1.0, 3.0, 2.0])
    w = 0.6
    by_hand = [1, (w * 1 + 3) / (w + 1), (w**2 * 1 + w * 3 + 2) / (w**2 + w + 1)]
    assert figures.smoothed(values, w).tolist() == pytest.approx(by_hand)


def test_loss_curves_draw_each_step_and_each_epoch():
    made = history(epochs=4, steps=6)
    figure = figures.loss_curves({"A": made, "B": made}, ["#0072B2", "#D55E00"])
    raw, smooth, validation, chance = figure.axes[0].get_lines()
    assert list(raw.get_xdata()) == list(range(1, 25))
    assert raw.get_alpha() < 1
    assert smooth.get_ydata()[-1] == figures.smoothed(made["loss"], 0.9).iloc[-1]
    assert list(validation.get_xdata()) == [6, 12, 18, 24]
    assert chance.get_ydata()[0] == pytest.approx(1.609, abs=1e-3)


def test_recall_bars_by_sampler_and_by_backbone(scores):
    names = dict(zip(scores["label"].unique(), ("none", "sqrt", "inverse", "paper", "other")))
    samplers = scores.assign(label=scores["label"].map(names)).drop(columns="backbone")
    for table in (scores, samplers):
        figure = figures.recall_by_grade(table)
        bars = figure.axes[0].containers
        assert [bar.get_label() for bar in bars] == list(table["label"].unique())
        row = scores.set_index(["run", "metric"]).loc[("resnet101_seed0", "recall_grade2")]
        assert bars[1][2].get_height() == pytest.approx(100 * row["value"])
    colours = [bar[0].get_facecolor() for bar in figures.recall_by_grade(scores).axes[0].containers]
    assert colours[2] == colours[3]  # two seeds of one backbone


def test_class_shares_draw_both():
    rows = [
        (s, g, e, d)
        for s in ("none", "paper")
        for g, e, d in zip(range(5), (0.5, 0.2, 0.1, 0.1, 0.1), (0.4, 0.3, 0.1, 0.1, 0.1))
    ]
    figure = paper_figures.class_shares(pd.DataFrame(rows, columns=["sampler", "grade", "expected", "drawn"]))
    ax = figure.axes[1]
    assert ax.get_title() == "sampler: paper"
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([40, 30, 10, 10, 10])
    assert [segment[0][1] for segment in ax.collections[0].get_segments()] == pytest.approx(
        [50, 20, 10, 10, 10]
    )


def test_figures_are_returned_closed(runs, scores):
    import matplotlib.pyplot as plt

    figures.metric_dots(scores, {"qwk": "QWK"})
    assert plt.get_fignums() == []  # else a notebook would show them twice
