"""One thing changed at a time: what differs is read from the records, and numbers agree with those of their sources."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fabricated import eyes, fine_tuning, graded

from drstudy.core import paths, records
from drstudy.evaluation import metrics, statistics
from drstudy.explain.measures import baselines
from drstudy.papers.transfer import oddities, params

B, SEED = 200, 0
LITE = "efficientnet_lite0"


@pytest.fixture
def test_images():
    return eyes(60, shares=(0.4, 0.15, 0.22, 0.13, 0.1))


def ablated(
    images: pd.DataFrame, name: str, skill: float = 1.2, weights: str = "bundled", **changes
) -> records.Record:
    recipe = {key.lower(): value for key, value in params.paper_recipe().items()} | {"weights": weights}
    values = recipe | {"variant": f"{LITE}-seed0-{name}"} | changes
    return fine_tuning(graded(images, skill), LITE, values.pop("weights"), **values)


def test_what_was_changed_is_read_from_the_records(own_folders, test_images):
    base = ablated(test_images, "paper")
    assert oddities.changed(base, ablated(test_images, "head", head="single")) == {
        "HEAD": ("paper", "single")
    }
    stored = ablated(test_images, "bn", frozen_bn="eval", views=4)
    assert set(oddities.changed(base, stored)) == {"FROZEN_BN", "VIEWS"}
    assert oddities.changed(base, ablated(test_images, "none", weights="none")) == {
        "WEIGHTS": ("bundled", "none")
    }
    assert oddities.changed(base, ablated(test_images, "same")) == {}


def test_what_was_changed_is_the_recipe_that_ran(own_folders, test_images):
    """A short recipe that held is a change; one that did not is none."""
    settings = {"EPOCHS": 2}
    base = ablated(test_images, "paper")
    assert oddities.changed(base, ablated(test_images, "a", without_pretraining=settings)) == {}
    short = ablated(test_images, "b", weights="none", without_pretraining=settings)
    assert oddities.changed(base, short) == {"WEIGHTS": ("bundled", "none"), "EPOCHS": (100, 2)}
    assert "epochs 2 (paper 100)" in oddities.describe([short])


@pytest.mark.parametrize(
    ("changes", "says"), [({}, "in nothing"), ({"head": "single", "sampler": "none"}, "in HEAD, SAMPLER")]
)
def test_one_setting_at_a_time_or_no_row(own_folders, test_images, changes, says):
    base, other = ablated(test_images, "paper"), ablated(test_images, "other", **changes)
    with pytest.raises(records.RecordError, match=f"differs from .* {says}: one setting"):
        oddities.compare([base, other], [], None, B, SEED)


def test_rows_are_the_paired_differences_changed_minus_paper(own_folders, test_images):
    base, better = ablated(test_images, "paper", 0.6), ablated(test_images, "head", 3.0, head="single")
    table = oddities.compare([base, better], [], None, B, SEED)
    rows = table[table["oddity"] == "head"].set_index("metric")
    first, second = (metrics.read_predictions(r.path("predictions.csv")) for r in (base, better))
    expected = statistics.paired_difference(second, first, B, SEED).set_index("metric")
    pd.testing.assert_frame_equal(
        rows[["value", "lo", "hi"]], expected.loc[rows.index, ["value", "lo", "hi"]], check_dtype=False
    )
    assert rows.loc["qwk", "value"] > 0 < rows.loc["qwk", "lo"]
    assert rows.loc["qwk", "changed_value"] - rows.loc["qwk", "paper_value"] == pytest.approx(
        rows.loc["qwk", "value"]
    )
    assert (rows["paper"] == "paper").all()
    assert (rows["changed"] == "single").all()
    assert (rows["network"] == "EfficientNet-Lite0 (ImageNet, bundled)").all()


def test_what_was_not_run_keeps_its_row_and_says_so(own_folders, test_images):
    table = oddities.compare([], [], None, B, SEED)
    assert table["oddity"].tolist() == list(oddities.EXPECTED)
    assert set(table["note"]) == {"not run in this profile"}
    shown = oddities.display(table)
    assert set(shown["difference"]) == {"–"}
    assert shown["oddity"].tolist() == list(oddities.EXPECTED.values())
    assert "no network" in oddities.describe([])
    base, other = ablated(test_images, "paper"), ablated(test_images, "betas", betas=(0.9, 0.999))
    table = oddities.compare([base, other], [], None, B, SEED)
    assert set(table.loc[table["note"].notna(), "oddity"]) == set(oddities.EXPECTED) - {"betas"}


def test_the_recipe_says_where_it_is_not_the_papers(own_folders, test_images):
    told = oddities.describe([ablated(test_images, "paper", epochs=8)])
    assert "weights bundled (paper imagenet), epochs 8 (paper 100)" in told


def test_split_is_the_leak_turned_round(own_folders):
    """Printed by image 0.80, by patient on the same images 0.75: changing the split takes 0.05 away."""
    rows = [
        *(
            ("image", "own", *cell)
            for cell in (("score", "qwk", 0.8, 0.7, 0.9), ("honest", "qwk", 0.75, 0.6, 0.85))
        ),
        ("image", "own", "difference", "qwk", 0.05, 0.01, 0.1),
        ("image", "new patients", "difference", "qwk", 0.5, 0.4, 0.6),
        ("row", "own", "difference", "qwk", 0.3, 0.2, 0.4),
    ]
    run = records.start(params.Oversampling())
    columns = ["way", "rows", "what", "metric", "value", "lo", "hi"]
    run.table(pd.DataFrame(rows, columns=columns).assign(n_valid=B), "leaks")
    run.metric(weights_used="bundled")
    run.finish()
    table = oddities.compare([], [], records.load(run.folder), B, SEED)
    row = table[table["oddity"] == "split"].iloc[0]
    assert (row["paper_value"], row["changed_value"]) == (0.8, 0.75)
    assert (row["value"], row["lo"], row["hi"]) == (-0.05, -0.1, -0.01)
    assert (row["paper"], row["changed"]) == ("by image", "by patient")


def heatmaps(images: pd.DataFrame, heat: dict[str, np.ndarray], area: float = 0.02) -> records.Record:
    audit = records.start(params.DataAudit())
    images.to_csv(audit.path("split.csv"), index=False)
    audit.finish()
    model = fine_tuning(graded(images), "densenet121", "imagenet")
    run = records.start(
        params.HeatmapAnalysis(model=paths.show(model.folder), audit=paths.show(audit.folder))
    )
    found = [
        pd.DataFrame(
            {
                "image_id": images["image_id"],
                "layer": layer,
                "kind": "part",
                "region": "lesion",
                "area": area,
                "heat": share,
            }
        )
        for layer, share in heat.items()
    ]
    run.table(pd.concat(found), "heat_by_eye")
    run.finish()
    return records.load(run.folder)


def test_layer_is_compared_by_its_heat_on_lesions_on_the_same_eyes(own_folders, test_images):
    random = np.random.default_rng(0)
    first = random.uniform(0.01, 0.03, len(test_images))
    first[:3] = np.nan  # no heat there
    late = 2 * np.nan_to_num(first, nan=0.5)
    blind = baselines.label("centre", (7, 7))
    record = heatmaps(
        test_images, {"denselayer16": first, "denseblock4": first, "norm5_relu": late, blind: late}
    )
    table = oddities.compare([], [record], None, B, SEED)
    rows = table[table["oddity"] == "layer"].set_index("changed")
    times = np.nanmean(first) / 0.02
    assert (rows["paper"] == "denselayer16").all()
    assert set(rows.index) == {"denseblock4", "norm5_relu"}, "a map that knows nothing is no layer"
    assert rows.loc["norm5_relu", "paper_value"] == pytest.approx(times)
    assert rows.loc["norm5_relu", "changed_value"] == pytest.approx(2 * times)
    assert rows.loc["norm5_relu", "value"] == pytest.approx(times)
    assert rows.loc["norm5_relu", "lo"] < times < rows.loc["norm5_relu", "hi"]
    assert rows.loc["denseblock4", ["value", "lo", "hi"]].tolist() == [0, 0, 0]
    assert f"{len(test_images) - 3} of {len(test_images)} eyes" in rows.loc["norm5_relu", "note"]
    assert rows.loc["norm5_relu", "network"] == "DenseNet121 (ImageNet)"


def test_one_layer_has_nothing_to_compare(own_folders, test_images):
    record = heatmaps(test_images, {"conv_head": np.full(len(test_images), 0.02)})
    table = oddities.compare([], [record], None, B, SEED)
    assert table.loc[table["oddity"] == "layer", "note"].tolist() == ["not run in this profile"]


def test_display_has_one_line_a_shown_number(own_folders, test_images):
    base, other = ablated(test_images, "paper"), ablated(test_images, "head", 3.0, head="single")
    shown = oddities.display(oddities.compare([base, other], [], None, B, SEED))
    rows = shown[shown["oddity"] == "head"]
    assert rows["measured"].tolist() == list(oddities.SHOWN.values())
    assert rows["difference"].str.fullmatch(r"[+-]?\d\.\d\d \[-?\d\.\d\d, -?\d\.\d\d\]").all()


def test_differences_no_larger_than_another_seeds_are_noted(own_folders, test_images):
    base = ablated(test_images, "paper", 1.0)
    runs = {
        "again": ablated(test_images, "again", 1.3, seed=1),
        "head": ablated(test_images, "head", 1.0, head="single"),
        "sampler": ablated(test_images, "sampler", 9.0, sampler="inverse"),
    }
    table = oddities.compare([base, *runs.values()], [], None, B, SEED)
    note = table[table["metric"] == "qwk"].set_index("oddity")["note"]
    assert note["head"] == oddities.WITHIN_SEEDS, "the same probabilities"
    assert pd.isna(note["sampler"])
    assert pd.isna(note["seed"])
