"""The paper's Table 2 beside ours, its arithmetic, and the deviations of each recipe."""

from __future__ import annotations

import pandas as pd
import pytest
from fabricated import fine_tuning, four_runs, graded, sixty_patients

from drstudy.evaluation import metrics
from drstudy.papers.transfer import params
from drstudy.papers.transfer import tables as paper_tables
from drstudy.show import style, tables

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


def test_the_papers_table_as_printed():
    printed = paper_tables.PAPER_TABLE2.set_index("backbone")
    assert list(printed.loc["resnet101"]) == [0.29, 0.89, 0.76]
    assert list(printed.loc["vgg16"]) == [0.06, 0.96, 0.74]
    assert list(printed.loc["densenet121"]) == [0.77, 0.913, 0.883]


def test_the_papers_arithmetic():
    """Against the numbers of sources A5, to the places that it prints."""
    found = paper_tables.paper_arithmetic().set_index("backbone")
    a5 = {
        "resnet101": (0.217, 0.200, 0.233),
        "vgg16": (0.244, 0.233, 0.256),
        "densenet121": (0.210, 0.197, 0.224),
    }
    for backbone, expected in a5.items():
        assert tuple(found.loc[backbone, ["implied", "lo", "hi"]]) == pytest.approx(expected, abs=6e-4)
    assert found["sd_ge2"].to_dict() == pytest.approx(
        {"resnet101": 0.9, "vgg16": 8.0, "densenet121": 0.2}, abs=0.06
    )
    assert found["nearest"].to_dict() == {
        "resnet101": "grade ≥ 2",
        "vgg16": "grade ≥ 1",  # its range is above every rate of grade >= 2 and below that of grade >= 1
        "densenet121": "grade ≥ 2",
    }
    order = ["resnet101", "vgg16", "densenet121"]
    assert list(100 * found.loc[order, "accuracy_ge1"]) == pytest.approx([73.1, 72.1, 87.5], abs=0.06)
    assert list(100 * found.loc[order, "accuracy_ge2"]) == pytest.approx([77.3, 78.4, 88.5], abs=0.06)
    assert list(100 * found.loc[order, "accuracy_ge3"]) == pytest.approx([86.3, 92.0, 90.7], abs=0.06)


def test_table2_holds_every_cut_and_the_papers_rows(runs, scores):
    long = paper_tables.table2(scores)
    ours = long[long["source"] == "this study"]
    assert len(ours) == 5 * 5 * 3  # four cuts and the mean, five rows, three quantities
    row = ours.query(
        "positive == 'grade ≥ 3' and quantity == 'specificity' and backbone == 'resnet101'"
    ).iloc[0]
    direct = metrics.evaluate(runs[1].predictions)
    assert row["value"] == direct["specificity_ge3"]
    assert row["prevalence"] == direct["prevalence_ge3"]
    paper = long[long["source"] == paper_tables.PAPER_SOURCE]
    assert set(paper["positive"]) == {paper_tables.NOT_STATED}
    assert paper[["prevalence", "lo", "hi", "seed"]].isna().all(axis=None)
    assert paper.query("backbone == 'densenet121' and quantity == 'accuracy'")["value"].item() == 0.883

    shown = paper_tables.table2_display(long)
    assert list(shown.columns) == ["sensitivity, %", "specificity, %", "accuracy, %"]
    assert len(shown) == 5 * 5 + 3
    assert shown.loc[(paper_tables.NOT_STATED, "DenseNet121, as printed"), "specificity, %"] == "91.3"
    positive = f"grade ≥ 2: {100 * direct['prevalence_ge2']:.1f} % of images"
    assert shown.loc[(positive, "always grade 0"), "specificity, %"] == "100.0 [100.0, 100.0]"
    assert list(shown.index.unique(0))[-1] == paper_tables.NOT_STATED


def test_costs_and_deviations_come_from_the_records(runs):
    costs = tables.costs([*runs, tables.always_grade_0(runs[0])])
    assert list(costs.index) == [run.label for run in runs]
    assert costs.loc["DenseNet121 (ImageNet)", "parameters"] == 7_000_000
    assert costs.loc["DenseNet121 (ImageNet)", "peak memory, MiB"] == runs[0].record.data["peak_rss_mb"] > 0
    differing = paper_tables.recipe_deviations(runs)
    assert differing.loc["weights", "DenseNet121 (ImageNet)"] == "="
    assert differing.loc["weights", "ResNet101 (no pretraining)"] == "none"
    assert differing.loc["head", "ResNet101 (no pretraining)"] == "="
    assert differing.loc["head", "DenseNet121 (ImageNet)"] == "single"
    assert differing.loc["epochs", "paper"] == str(params.PAPER["epochs"])
    assert "sampler" not in differing.index  # all use the paper's


def test_deviations_name_the_weights_used_not_those_asked_for(images):
    record = fine_tuning(graded(images), "vgg16", "none", weights="imagenet-if-reachable")
    differing = paper_tables.recipe_deviations(tables.read_runs([record]))
    assert differing.loc["weights", "VGG16 (no pretraining)"] == "none"


@pytest.mark.parametrize(
    ("used", "label", "epochs"),
    [("none", "VGG16 (no pretraining, short recipe)", 2), ("imagenet", "VGG16 (ImageNet)", 3)],
)
def test_labels_costs_and_deviations_are_of_the_recipe_that_ran(images, used, label, epochs):
    record = fine_tuning(
        graded(images),
        "vgg16",
        used,
        weights="imagenet-if-reachable",
        without_pretraining={"EPOCHS": 2, "VIEWS": 1},
    )
    (run,) = tables.read_runs([record])
    assert run.label == style.record_label(record) == label
    assert record.params["EPOCHS"] == 3, "what was asked for stays on record"
    assert record.recipe["EPOCHS"] == record.metrics["epochs"] == epochs
    differing = paper_tables.recipe_deviations([run])[label]
    assert (differing["epochs"], differing["views"]) == ((str(epochs), "1") if epochs == 2 else ("3", "2"))
    costs = tables.costs([run]).loc[label]
    assert (costs["epochs"], costs["views"]) == (epochs, record.recipe["VIEWS"])
