"""Tables, sentences and figures of notebook 11, from made-up scores."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest

from drstudy.evaluation import ordinal
from drstudy.papers.ram import figures, model, tables

matplotlib.use("agg")

NAMES = tables.names(("ram_net5", "baseline_net5"), "efficientnet_lite0", "bundled")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Two sizes of two networks: at 256 px less noise, in the baseline more."""
    random = np.random.default_rng(0)
    grade = random.integers(0, 5, 120)
    parts = []
    for network, size, noise in (
        ("ram_net5", 128, 1.2),
        ("ram_net5", 256, 0.3),
        ("baseline_net5", 128, 0.5),
        ("baseline_net5", 256, 3.0),
    ):
        about = {"network": network, "size": size, "image_id": [f"{i:03d}" for i in range(120)]}
        split = np.repeat(["validation", "test"], 60)
        patients = {"patient_id": [f"{i // 2:03d}" for i in range(120)], "split": split, "grade": grade}
        parts.append(pd.DataFrame(about | patients | {"score": grade + random.normal(0, noise, 120)}))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def together(table):
    return tables.with_both_sizes(table)


@pytest.fixture(scope="module")
def agreed(together):
    return tables.agreement(together, 200, 0)


def test_counts_stand_beside_print():
    found = tables.parameters(model.parameters()).set_index(["network", "quantity"])
    millions = found.xs("parameters, millions", level=1)
    assert (millions["value"].round(1) == millions["printed"]).all()
    # 1 - 9,729,249 / 12,402,657 and 1 - 9,841,633 / 12,465,121
    assert found.loc[("net5", "fewer than the baseline, %"), "value"] == pytest.approx(21.5551, abs=1e-4)
    assert found.loc[("net4", "fewer than the baseline, %"), "value"] == pytest.approx(21.0466, abs=1e-4)
    assert found.loc[("ram_net5", "of these, biases of positions, %"), "value"] == pytest.approx(
        43.27, abs=0.01
    )


def test_sizes_together_are_the_mean_of_their_scores(table, together):
    both = together[(together["network"] == "ram_net5") & (together["size"] == "128+256")]
    assert len(both) == 120
    parts = [table[(table["network"] == "ram_net5") & (table["size"] == size)] for size in (128, 256)]
    mean = sum(part.set_index("image_id")["score"] for part in parts) / 2
    pd.testing.assert_series_equal(both.set_index("image_id")["score"], mean, check_names=False)
    one = table[table["size"] == 128]
    assert len(tables.with_both_sizes(one)) == len(one), "of one size there is nothing to add"


def test_agreement_is_of_test_with_cuts_of_validation(together, agreed):
    agreement, cuts = agreed
    part = together[(together["network"] == "ram_net5") & (together["size"] == "128")]
    validation, test = (part[part["split"] == split] for split in ("validation", "test"))
    expected = ordinal.fit_cuts(validation["score"], validation["grade"].to_numpy())
    assert cuts["ram_net5", "128"].tolist() == expected.tolist()
    row = agreement.set_index(["network", "size", "cuts", "metric"]).loc[("ram_net5", "128", "fitted", "qwk")]
    by_hand = ordinal.bootstrap(test, expected, 200, 0).set_index("metric").loc["qwk"]
    assert row["value"] == by_hand["value"]
    assert row["lo"] < row["value"] < row["hi"]


def test_kappa_is_shown_with_its_interval(agreed):
    found, _ = agreed
    names = dict.fromkeys(found["network"], "a network (no pretraining)")
    shown = tables.display_agreement(found, names)
    kappa = found[found["metric"] == "qwk"]
    assert len(shown) == len(kappa) / 2
    pairs = list(dict.fromkeys(zip(kappa["network"], kappa["size"])))
    assert list(shown["size, px"]) == [size for _, size in pairs]
    first = kappa.iloc[0]
    assert first["cuts"] == "rounded"
    assert shown["QWK, rounded"].iloc[0] == f"{first['value']:.2f} [{first['lo']:.2f}, {first['hi']:.2f}]"
    assert set(shown["network"]) == {"a network (no pretraining)"}


def test_comparisons_find_what_was_made(together, agreed):
    compared = tables.comparisons(together, agreed[1], 200, 0)
    qwk = compared[compared["metric"] == "qwk"].set_index(["comparison", "a"])
    assert qwk.loc[("size", "ram_net5"), "lo"] > 0, "256 px was made better"
    assert qwk.loc[("size", "baseline_net5"), "hi"] < 0, "and worse in the baseline"
    assert qwk.loc[("head", "ram_net5"), "lo"] > 0
    assert qwk.loc[("head", "ram_net5"), "b"] == "baseline_net5"
    metrics = tables.as_metrics(agreed[0], compared)
    assert metrics["qwk_size_256_minus_128_ram_net5_lo"] == qwk.loc[("size", "ram_net5"), "lo"]
    assert {"qwk_ram_net5_128_256", "qwk_head_256_minus_256_ram_net5"} < set(metrics)


def test_blend_is_compared_with_the_single_eye(together):
    """A blend that knows the grade exactly beats one eye; one that is the single eye's score does not differ."""
    own = together[(together["network"] == "ram_net5") & (together["size"] == "128")].reset_index(drop=True)
    perfect = own.assign(score=own["grade"].astype(float))
    for blend, better in ((perfect, True), (own, False)):
        found = tables.blended(together, [("ram_net5", 128)], [blend], 200, 0).set_index("eyes")
        gap = found.loc["both minus single"]
        assert gap["value"] == pytest.approx(found.loc["both", "value"] - found.loc["single", "value"])
        assert (gap["lo"] > 0) == better
        assert better or gap["hi"] == 0


GAPS = pd.DataFrame(
    [
        ("a fused", "a 128", "heat", 12, 0.01, 0.005, 0.02),
        ("a fused", "a 128", "hit", 12, -0.1, -0.2, -0.05),
        ("a fused", "a 256", "heat", 12, 0.0, -0.1, 0.1),
        ("a fused", "a 256", "hit", 3, 0.2, np.nan, np.nan),
    ],
    columns=["map", "minus", "quantity", "eyes", "value", "lo", "hi"],
)


def test_sentences_follow_from_the_intervals():
    ends = [sentence.rpartition(": ")[2] for sentence in tables.findings(GAPS)]
    assert ends == ["better", "worse", "undecided", "too few patients for an interval"]
    assert tables.findings(GAPS)[0].startswith(
        "a fused minus a 128, share of heat on lesions: +1.0 points [+0.5, +2.0]"
    )


def test_eyes_without_masks_have_no_numbers():
    nothing = GAPS.assign(eyes=0, value=np.nan, lo=np.nan, hi=np.nan)
    assert tables.findings(nothing)[0] == "a fused minus a 128: no eye could be measured in both"
    assert len(tables.findings(nothing)) == 2
    assert set(tables.readable(nothing)["pointing game, points"]) == {"-"}


def test_readable_differences_keep_order_and_say_points():
    same = GAPS.assign(eyes=12)
    shown = tables.readable(same)
    assert shown["minus"].tolist() == ["a 128", "a 256"]
    assert shown["heat on lesions, points"].tolist() == ["+1.0 (+0.5 to +2.0)", "+0.0 (-10.0 to +10.0)"]
    assert shown["pointing game, points"].tolist()[1] == "+20.0"


def test_figures_are_drawn(tmp_path, table, agreed):
    history = pd.DataFrame(
        {
            "network": "ram_net5",
            "size": [128, 128, 256],
            "epoch": [1, 2, 1],
            "loss": 1.0,
            "val_loss": 1.0,
            "val_qwk": 0.1,
        }
    )
    summary = pd.DataFrame(
        {"kind": "mask", "region": "lesion", "layer": ["a", "b"], "eyes": [9, 9], "hit_chance": [0.1, 0.1]}
        | {f"{name}{end}": [1.0, 1.2] for name in ("enrichment", "hit") for end in ("", "_lo", "_hi")}
    )
    drawn = {
        "learning": figures.learning_curves(history, NAMES),
        "scores": figures.score_by_grade(table[table["split"] == "test"], NAMES),
        "agreement": figures.agreement_by_size(agreed[0], NAMES),
        "dots": figures.localisation_dots(summary, "lesion"),
    }
    for name, figure in drawn.items():
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    assert len(drawn["scores"].axes) >= 4
    assert len(drawn["dots"].axes) == 2
    nothing = figures.localisation_dots(summary.assign(eyes=0, enrichment=np.nan, hit=np.nan), "lesion")
    assert "no mask of lesion" in nothing.get_suptitle()


def test_panel_shows_lowest_middle_and_highest_grade_on_one_scale():
    from drstudy.papers.ram import maps

    random = np.random.default_rng(0)
    raw = random.normal(size=(5, 6, 6)).astype(np.float32)
    ids = np.array(list("abcde"))
    parts = {
        ("n", size): maps.ScoreMaps(raw, raw.mean((1, 2)), 0.0, 1 / 12, 1 / 6, (0.0, 1.0), ids)
        for size in (128, 256)
    }
    eyes = pd.DataFrame({"image_id": ids, "grade": [2, 0, 4, 0, 1], "row": range(5)})
    images = random.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    figure = figures.network_panel(maps.kinds(parts), "n", eyes, images, lambda _: {})
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == ["photograph", "128 px", "256 px", "fused", "fused as printed"]
    rows = [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel().startswith("grade")]
    assert [row.split(",")[0] for row in rows] == ["grade 0", "grade 2", "grade 4"]
