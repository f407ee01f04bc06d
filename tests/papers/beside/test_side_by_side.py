"""Notebook 20 on fabricated predictions: who is compared, differences by hand, what is missing, other eyes, claims by rule."""

from __future__ import annotations

import dataclasses

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fabricated import NETWORKS, eyes, fine_tuning, graded
from sklearn.metrics import roc_auc_score

from drstudy.core import paths, records
from drstudy.evaluation import common, metrics, statistics
from drstudy.explain.measures import common_maps
from drstudy.papers import registry
from drstudy.papers.base import Claimed, System
from drstudy.papers.beside import figures, gather, grading, locating, params, tables
from drstudy.papers.ram.params import Ram
from drstudy.papers.transfer.params import DataAudit

matplotlib.use("agg")

SCORED = System(
    id="scored",
    name="Scored (ours)",
    notebook="11_ram",
    claimed=Claimed(
        says="kappa 0.84", claim="scored_kappa", measure="qwk", source="eyepacs", pretrained=False
    ),
)
ABSENT = System(id="absent", name="Absent", notebook="99_absent", claimed=Claimed(says="better"))
REFERENCE = "results/smoke/03_fine_tuning/efficientnet_lite0-seed0"
RESAMPLES = 40


@pytest.fixture
def images():
    return eyes(40, seed=2, shares=(0.5, 0.2, 0.2, 0.07, 0.03))


def scored(
    images: pd.DataFrame, noise: float = 1.0, seed: int = 9, predictions: bool = True, **changes
) -> records.Record:
    """A finished result of notebook 11 whose system says a number and a grade, but no probability."""
    random = np.random.default_rng(seed)
    run = records.start(Ram(**changes))
    both = pd.concat([images, images.assign(split="validation", image_id=images["image_id"] + "_v")])
    score = both["grade"].to_numpy() + random.normal(0, noise, len(both))
    if predictions:
        frame = common.frame(both, score, predicted=np.clip(np.rint(score), 0, 4))
        common.write(frame, run.path(common.FILE))
    run.metric(weights_used="bundled", parameters_system=3_500_000)
    run.finish()
    return records.load(run.folder)


def asked(**changes) -> params.SideBySide:
    return params.SideBySide(resamples=RESAMPLES, **changes)


@pytest.fixture
def three(own_folders, images):
    """Two pretrained networks, one from scratch, and a scored system."""
    fine_tuning(graded(images, 2, 5), "efficientnet_lite0", "bundled")
    fine_tuning(graded(images, 3, 3), "densenet121", "imagenet")
    fine_tuning(graded(images, 1, 4), "resnet101", "none")
    scored(images)
    return gather.read([NETWORKS, SCORED, ABSENT], asked(reference=REFERENCE))


def test_systems_stand_in_the_order_of_their_declarations(three, own_folders):
    assert [one.label for one in three.systems] == [
        "Five grades: DenseNet121 (ImageNet)",
        "Five grades: EfficientNet-Lite0 (ImageNet, bundled)",
        "Scored (ours)",
    ]
    assert three.systems[three.reference].record.folder == paths.resolve(REFERENCE)
    again = gather.read([SCORED, NETWORKS], asked(reference=REFERENCE))
    assert [one.system.id for one in again.systems] == ["scored", "network", "network"]


def test_what_is_missing_is_named_with_its_reason(three):
    why = dict(zip(three.missing["system"] + ": " + three.missing["what"], three.missing["why"]))
    assert why["Absent: system"] == "no result of 99_absent in this profile"
    assert why["Five grades: ResNet101 (no pretraining): system"] == "the network started from random weights"
    assert why["Scored (ours): maps"] == "11_ram has no common_maps.npz"
    assert (
        why["Five grades: DenseNet121 (ImageNet): maps"]
        == "05_heatmap_analysis/densenet121-seed0 has not run"
    )


def test_a_result_that_was_planned_and_did_not_run_is_missing(own_folders, images):
    fine_tuning(graded(images, 2, 5), "efficientnet_lite0", "bundled")
    found = gather.read(
        [NETWORKS, SCORED], asked(reference=REFERENCE, results=(REFERENCE, "results/smoke/11_ram"))
    )
    assert ("scored", "Scored (ours)", "system", "11_ram has not run") in set(
        map(tuple, found.missing.to_numpy())
    )


def test_a_result_without_predictions_is_missing(own_folders, images):
    fine_tuning(graded(images, 2, 5), "efficientnet_lite0", "bundled")
    scored(images, predictions=False)
    found = gather.read([NETWORKS, SCORED], asked(reference=REFERENCE))
    assert "11_ram has no common_predictions.csv" in set(found.missing["why"])


def test_a_damaged_result_is_an_error_and_not_missing(own_folders, images):
    fine_tuning(graded(images, 2, 5), "efficientnet_lite0", "bundled")
    record = scored(images)
    file = record.folder / common.FILE
    file.write_text(file.read_text().replace("test", "text", 1))
    with pytest.raises(records.RecordError, match="not what its run wrote"):
        gather.read([NETWORKS, SCORED], asked(reference=REFERENCE))


def test_a_reference_that_no_paper_declares_is_refused(own_folders, images):
    fine_tuning(graded(images, 2, 5), "efficientnet_lite0", "bundled")
    with pytest.raises(records.RecordError, match="No paper declares a system of results/smoke/03"):
        gather.read([SCORED], asked(reference=REFERENCE))


def test_of_several_seeds_the_first_is_compared(own_folders, images):
    fine_tuning(graded(images, 2, 5), "efficientnet_lite0", "bundled", seed=1)
    fine_tuning(graded(images, 2, 6), "efficientnet_lite0", "bundled", seed=0)
    found = gather.read([NETWORKS], asked(reference=REFERENCE))
    assert [one.record.data["variant"] for one in found.systems] == ["efficientnet_lite0-seed0"]


def test_differences_are_those_of_a_loop_over_patients_and_holm_by_hand(three):
    """Each resample is made anew row by row, and scored by scikit-learn."""
    drawn = [grading.draw(one, 0.9, RESAMPLES, 0) for one in three.systems]
    found = grading.differences(drawn, three.references()[:1])
    auc = found[found["measure"] == "auc"].set_index("system")
    base = three.systems[three.reference].part("test")
    ids = np.unique(base["patient_id"])
    counts = statistics.resample_counts(base["patient_id"], RESAMPLES, 0)
    raw = {}
    for one in three.systems:
        if one is three.systems[three.reference]:
            continue
        test = one.part("test")
        gaps = []
        for row in [np.ones(len(ids), int), *counts]:
            times = dict(zip(ids, row))
            drawn_rows = np.repeat(np.arange(len(test)), [times[name] for name in test["patient_id"]])
            truth = test["grade"].to_numpy()[drawn_rows] >= 2
            areas = [roc_auc_score(truth, part["score"].to_numpy()[drawn_rows]) for part in (test, base)]
            gaps.append(areas[0] - areas[1])
        draws = np.array(gaps[1:])
        raw[one.label] = min(1, 2 * (min((draws <= 0).sum(), (draws >= 0).sum()) + 1) / (RESAMPLES + 1))
        assert auc.loc[one.label, "value"] == pytest.approx(gaps[0], abs=1e-12)
        assert auc.loc[one.label, "lo"] == pytest.approx(np.percentile(draws, 2.5), abs=1e-12)
        assert auc.loc[one.label, "p"] == pytest.approx(raw[one.label], abs=1e-12)
    first, second = sorted(raw, key=raw.get)
    assert auc.loc[first, "p_holm"] == pytest.approx(min(1, 2 * raw[first]))
    assert auc.loc[second, "p_holm"] == pytest.approx(max(min(1, 2 * raw[first]), raw[second]))


def test_holm_counts_the_systems_of_one_measure(monkeypatch, three):
    drawn = [grading.draw(one, 0.9, RESAMPLES, 0) for one in three.systems]
    given = iter((0.02, 0.03))
    monkeypatch.setattr(grading.tests, "p_value", lambda draws: next(given, 0.5))
    found = grading.differences(drawn, three.references()[:1])
    qwk = found[found["measure"] == "qwk"]
    assert qwk["p"].tolist() == [0.02, 0.03]
    assert qwk["p_holm"].tolist() == pytest.approx([0.04, 0.04])  # 2 x 0.02, and no less than the one before


def test_systems_with_other_test_eyes_are_shown_and_not_differenced(own_folders, images):
    fine_tuning(graded(images, 2, 5), "efficientnet_lite0", "bundled")
    scored(images.iloc[2:])
    found = gather.read([NETWORKS, SCORED], asked(reference=REFERENCE))
    assert [one.same_eyes for one in found.systems] == [True, False]
    drawn = [grading.draw(one, 0.9, RESAMPLES, 0) for one in found.systems]
    assert grading.differences(drawn, found.references()).empty
    assert grading.pairs(drawn, "auc").empty
    scores = grading.scores(drawn)
    assert tables.display_grading(scores, False)["system"].tolist() == ["Scored (ours)"]
    assert tables.display_grading(scores, True)["system"].tolist() == [
        "Five grades: EfficientNet-Lite0 (ImageNet, bundled)"
    ]


def test_an_eye_with_another_grade_is_another_eye(own_folders, images):
    fine_tuning(graded(images, 2, 5), "efficientnet_lite0", "bundled")
    scored(images.assign(grade=[(images["grade"].iloc[0] + 1) % 5, *images["grade"].iloc[1:]]))
    assert not gather.read([NETWORKS, SCORED], asked(reference=REFERENCE)).systems[1].same_eyes


@pytest.mark.parametrize(("changes", "same"), [({"image_size": 512}, True), ({"n_patients": 41}, False)])
def test_rows_alone_do_not_make_the_same_eyes(own_folders, images, changes, same):
    """A phantom of other eyes has the same identifiers; the same eyes may be photographed with more pixels."""
    for variant, own in (("", {}), ("other", changes)):
        records.start(DataAudit(variant=variant, **own)).finish()
    fine_tuning(graded(images, 2, 5), "efficientnet_lite0", "bundled")
    scored(images, audit="results/smoke/01_data_audit/other")
    assert gather.read([NETWORKS, SCORED], asked(reference=REFERENCE)).systems[1].same_eyes == same


def test_a_system_may_name_its_test_eyes_by_another_parameter(own_folders, images):
    """One that learns from other photographs than those it is compared on."""
    records.start(DataAudit()).finish()
    records.start(DataAudit(variant="other", n_patients=41)).finish()
    fine_tuning(graded(images, 2, 5), "efficientnet_lite0", "bundled")
    scored(images, audit="results/smoke/01_data_audit/other", model="results/smoke/01_data_audit")
    elsewhere = dataclasses.replace(SCORED, eyes="MODEL")
    for system, same in ((SCORED, False), (elsewhere, True)):
        found = gather.read([NETWORKS, system], asked(reference=REFERENCE))
        assert found.systems[1].same_eyes == same


def test_scores_of_five_probabilities_are_those_of_the_main_study(three):
    one = three.systems[three.reference]
    test = metrics.read_predictions(one.record.path("predictions.csv"))
    expected = metrics.evaluate(test)
    found = grading.scores([grading.draw(one, 0.9, RESAMPLES, 0)]).set_index("measure")["value"]
    assert found["qwk"] == pytest.approx(expected["qwk"], abs=1e-12)
    assert found["auc"] == pytest.approx(expected["auc_ge2"], abs=1e-12)
    p = test[["p2", "p3", "p4"]].sum(axis=1)
    assert found["brier"] == pytest.approx(((p - (test["grade"] >= 2)) ** 2).mean(), abs=1e-12)


def test_the_cut_is_fixed_on_validation_and_not_on_test(three):
    one = three.systems[-1]
    drawn = grading.draw(one, 0.9, RESAMPLES, 0)
    validation, test = one.part("validation"), one.part("test")
    below = validation.loc[validation["grade"] < 2, "score"]
    assert (below < drawn.cut).mean() >= 0.9
    assert (below.sort_values().iloc[: int(np.ceil(0.9 * len(below))) - 1] < drawn.cut).all()
    positive = test["grade"] >= 2
    assert drawn.draws["sensitivity"][0] == pytest.approx((test.loc[positive, "score"] >= drawn.cut).mean())


def test_what_a_system_does_not_say_has_no_number(three):
    found = grading.scores([grading.draw(three.systems[-1], 0.9, RESAMPLES, 0)]).set_index("measure")["value"]
    assert np.isnan(found[["ece", "brier"]]).all()
    assert found[["qwk", "auc", "sensitivity", "specificity"]].notna().all()


# --- maps -----------------------------------------------------------------------------------------------


def by_eye() -> pd.DataFrame:
    """Ten patients with two eyes each: the second map is 0.1 better in every eye, the third in half of them; one blind map."""
    rows = []
    for eye in range(20):
        for system, value in (
            ("A", 0.2),
            ("B", 0.3),
            ("C", 0.2 + 0.1 * (eye % 2)),
            *((n, 0.1) for n in locating.BLIND),
        ):
            row = {"system": system, "image_id": f"e{eye}", "patient_id": f"p{eye // 2}", "region": "lesion"}
            rows.append(row | {"ap": value, "dice": value, "hit": 1.0, "patch": np.nan})
    return pd.DataFrame(rows)


class Held:
    """A result of which only the file of common maps is asked."""

    def __init__(self, file) -> None:
        self.file = file

    def path(self, name: str):
        return self.file


class Data:
    """Photographs without content of three patients with two eyes each."""

    def __init__(self) -> None:
        ids, owners = [f"e{k}" for k in range(6)], [f"p{k // 2}" for k in range(6)]
        self.table = pd.DataFrame({"image_id": ids, "patient_id": owners, "row": range(6)})
        self.images = np.full((6, 32, 32, 3), 90, np.uint8)


def masks_of(image_id: str) -> dict[str, np.ndarray | None]:
    """A lesion of four cells, at another place in each eye; no exudate in any; other lesions not annotated."""
    masks = {"FOV": np.ones((32, 32), bool), "MA": np.zeros((32, 32), bool), "EX": np.zeros((32, 32), bool)}
    at = 3 + 4 * int(image_id[1:])
    masks["MA"][at : at + 2, at : at + 2] = True
    return masks | {"HE": None, "DISC": None, "VESSEL": None}


def test_maps_of_all_systems_meet_one_truth_and_cuts_of_validation(monkeypatch, tmp_path, three):
    monkeypatch.setattr(locating.localisation, "masks_of", lambda audit: masks_of)
    data = Data()
    eyes = data.table.assign(split=["validation"] * 2 + ["test"] * 4)
    truth = np.stack([masks_of(name)["MA"] for name in eyes["image_id"]]).astype(float)
    held = []
    for name, maps in (("right", {"MA": truth}), ("flat", {"lesion": np.ones((6, 8, 8))})):
        common_maps.save(tmp_path / f"{name}.npz", maps, eyes)
        held.append(dataclasses.replace(three.systems[0], label=name, maps=Held(tmp_path / f"{name}.npz")))
    held.append(dataclasses.replace(three.systems[0], label="none", maps=None))
    p = asked(codes=("MA", "HE", "EX"))
    found = locating.measure(held, None, data, p)
    assert set(found["image_id"]) == {"e2", "e3", "e4", "e5"}, "validation eyes only fix the cuts"
    assert list(dict.fromkeys(found["system"])) == ["right", "flat", *locating.BLIND]
    right = found[found["system"] == "right"]
    assert set(right["region"]) == {"MA"}, "it has no map of all lesions"
    assert right[["ap", "dice", "hit"]].to_numpy().tolist() == [[1.0, 1.0, 1.0]] * 4
    flat = found[(found["system"] == "flat") & (found["region"] == "lesion")]
    assert flat["ap"].to_numpy() == pytest.approx([4 / 1024] * 4)
    assert set(flat["patient_id"]) == {"p1", "p2"}
    assert set(found["region"]) == {"MA", "lesion"}, "what no eye has, or nobody annotated, has no row"
    numbers = locating.scores(found, RESAMPLES, 0).set_index(["system", "region", "measure"])
    assert numbers.loc[("right", "MA", "dice"), ["eyes", "patients", "value"]].tolist() == [4, 2, 1.0]
    assert np.isnan(numbers.loc[("right", "MA", "dice"), "lo"]), "no interval of two patients"


def test_photographs_without_masks_have_no_localisation(monkeypatch, tmp_path, three):
    monkeypatch.setattr(
        locating.localisation, "masks_of", lambda audit: lambda name: {"FOV": masks_of(name)["FOV"]}
    )
    data = Data()
    common_maps.save(
        tmp_path / "m.npz",
        {"lesion": np.ones((6, 8, 8))},
        data.table.assign(split=["validation"] * 2 + ["test"] * 4),
    )
    held = dataclasses.replace(three.systems[0], maps=Held(tmp_path / "m.npz"))
    found = locating.measure([held], None, data, asked())
    assert found.empty
    assert list(found) == locating.COLUMNS
    scores = locating.scores(found, RESAMPLES, 0)
    assert tables.display_locating(scores).empty
    assert tables.display_by_lesion(scores).empty
    assert locating.beyond_blind(found, RESAMPLES, 0).empty
    assert tables.display_differences(locating.differences(found, [held.label], RESAMPLES, 0)).empty


def test_maps_are_compared_on_the_eyes_that_both_have():
    table = by_eye()
    table = table[~((table["system"] == "B") & (table["image_id"] == "e3"))]
    found = locating.differences(table, ["A"], 50, 0).set_index(["system", "measure"])
    assert found.loc[("B", "ap"), ["eyes", "value"]].tolist() == [19, pytest.approx(0.1)]
    assert found.loc[("C", "ap"), ["eyes", "value"]].tolist() == [20, pytest.approx(0.05)]
    assert found.loc[("C", "hit"), "p"] == 1.0, "no difference in any resample"
    assert ("B", "patch") not in found.index
    assert found.loc[("B", "ap"), "p_holm"] == pytest.approx(2 * 2 / 51)
    assert not set(locating.BLIND) & set(found.index.get_level_values("system"))


def test_beyond_blind_needs_all_four():
    found = locating.beyond_blind(by_eye(), 50, 0)
    assert found[found["measure"] == "ap"]["beats_all"].all()
    assert not found[found["measure"] == "hit"]["beats_all"].any()
    three = by_eye()
    three = three[three["system"] != "vessels"]
    assert not locating.beyond_blind(three, 50, 0)["beats_all"].any()


def test_bars_join_neighbours_that_do_not_differ():
    pairs = pd.DataFrame({"a": ["A", "A", "B"], "b": ["B", "C", "C"], "p_holm": [0.2, 0.01, 0.3]})
    assert figures.cliques(["A", "B", "C"], pairs) == [(0, 1), (1, 2)]
    assert figures.cliques(["A", "B", "C"], pairs.assign(p_holm=0.5)) == [(0, 2)]
    assert figures.cliques(["A", "B", "C"], pairs.assign(p_holm=0.01)) == []
    assert figures.cliques(["A", "B", "C"], pairs.assign(p_holm=np.nan)) == [(0, 2)]


# --- claims ---------------------------------------------------------------------------------------------


class Audit:
    """An audit of EyePACS, or of the phantom."""

    def __init__(self, source: str) -> None:
        self.params = {"SOURCE": source}


@pytest.mark.parametrize(
    ("changes", "source", "weights", "measured", "said"),
    [
        ({}, "eyepacs", "none", ["qwk"], "yes"),
        ({}, "phantom", "none", ["qwk"], "no: other photographs (phantom)"),
        ({"source": ""}, "eyepacs", "none", ["qwk"], "no: photographs that are not available to this study"),
        ({"measure": ""}, "eyepacs", "none", ["qwk"], "no: another measure"),
        ({}, "eyepacs", "none", ["auc"], "no: no QWK here"),
        ({}, "eyepacs", "bundled", ["qwk"], "no: random starting weights in the paper"),
        ({"pretrained": True}, "eyepacs", "none", ["qwk"], "no: pretrained in the paper"),
        ({"pretrained": None}, "eyepacs", "bundled", ["qwk"], "yes"),
        ({"as_published": False}, "eyepacs", "none", ["qwk"], "no: an adaptation by this study"),
        (
            {"measure": "", "as_published": False},
            "phantom",
            "none",
            [],
            "no: other photographs (phantom); another measure; an adaptation by this study",
        ),
    ],
)
def test_comparable_follows_from_declared_facts(changes, source, weights, measured, said):
    facts = {"measure": "qwk", "source": "eyepacs", "pretrained": False, "as_published": True} | changes
    claimed = Claimed(says="kappa 0.84", **facts)
    assert tables.comparable(claimed, weights, Audit(source), measured) == said


def test_the_readmes_table_has_a_row_for_every_system_missing_ones_too(three):
    drawn = [grading.draw(one, 0.9, RESAMPLES, 0) for one in three.systems]
    scores, nothing = grading.scores(drawn), locating.scores(pd.DataFrame(columns=locating.COLUMNS), 10, 0)
    verdicts = {"scored_kappa": ("not testable here", "needs a GPU")}
    found = tables.claimed_and_found(
        [NETWORKS, SCORED, ABSENT], three, scores, nothing, verdicts, Audit("phantom")
    )
    assert found["system"].tolist() == [one.label for one in three.systems] + ["Absent"]
    assert found.isna().sum().sum() == 0
    row = found.set_index("system").loc["Scored (ours)"]
    assert row["claimed by the paper"] == "kappa 0.84"
    assert row["verdict of the ledger"] == "not testable here"
    assert row["comparable?"].startswith(
        "no: other photographs (phantom); random starting weights in the paper"
    )
    value = scores.set_index(["system", "measure"]).loc[("Scored (ours)", "qwk"), "value"]
    assert row["QWK"].startswith(f"{value:.2f} [")
    assert (
        found.set_index("system").loc["Absent", "comparable?"] == "no: no result of 99_absent in this profile"
    )


def test_figures_are_drawn_with_and_without_maps(three):
    drawn = [grading.draw(one, 0.9, RESAMPLES, 0) for one in three.systems]
    figures.scores(grading.scores(drawn), grading.MEASURES)
    for table in (by_eye(), pd.DataFrame(columns=locating.COLUMNS)):
        values, pairs = figures.compared(drawn, table, RESAMPLES, 0)
        figure = figures.critical_differences(values, pairs, tables.TITLES)
        assert len(figure.axes) == (3 if len(table) else 2)


def test_all_declared_systems_have_their_claims_in_the_ledger():
    from drstudy.study import claims

    known = {claim.id for claim in claims.read()}
    named = {one.claimed.claim for one in registry.systems() if one.claimed and one.claimed.claim}
    assert named <= known
    assert {one.notebook for one in registry.systems()} <= set(registry.NOTEBOOKS)
    assert {one.maps_notebook for one in registry.systems()} <= set(registry.NOTEBOOKS)
