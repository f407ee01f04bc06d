"""The ledger, fed made-up results: each verdict by its rule, and nothing claimed of networks or data that
were not there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fabricated import eyes, fine_tuning, graded, sealed

from drstudy.core import paths, records
from drstudy.papers.ram.params import Ram
from drstudy.papers.registry import NOTEBOOKS, PAPERS
from drstudy.papers.transfer import params
from drstudy.papers.transfer import tables as paper_tables
from drstudy.study import claims
from drstudy.study.claims import (
    DIRECTION,
    INCONCLUSIVE,
    NOT_REPRODUCED,
    NOT_TESTABLE,
    REPRODUCED,
    Claim,
    Evidence,
    Found,
)

ABOUT = {
    "id": "x",
    "paper": "P",
    "place": "Table 1",
    "says": "s",
    "maps_to": "m",
    "own_networks": False,
    "needs": "n",
}
NUMBER = {"tolerance": 0.02, "widest": 0.1, "why": "because"}


def claim(*evidence: dict, **more) -> Claim:
    items = [Evidence(notebook="04_backbone_comparison", table="scores", **item) for item in evidence]
    return Claim(
        **ABOUT | (NUMBER if any("printed" in item for item in evidence) else {}) | more, evidence=items
    )


def paper(value: float, lo: float = np.nan, hi: float = np.nan) -> Found:
    return Found(value, lo, hi, paper_setting=True)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (paper(0.78, 0.75, 0.81), REPRODUCED),
        (paper(0.81, 0.785, 0.83), REPRODUCED),  # 0.77 is 0.015 below the interval, within the tolerance
        (paper(0.82, 0.795, 0.84), NOT_REPRODUCED),
        (paper(0.60, 0.55, 0.65), NOT_REPRODUCED),
        (paper(0.78, 0.70, 0.86), INCONCLUSIVE),  # 0.16 wide
        (paper(0.78), REPRODUCED),  # a loss has no interval
        (paper(0.80), NOT_REPRODUCED),
        (paper(np.nan), INCONCLUSIVE),
        (Found(0.78, 0.75, 0.81), DIRECTION),  # other data or networks
        (Found(0.60, 0.55, 0.65), NOT_REPRODUCED),
        (Found(lacking="nothing has run"), NOT_TESTABLE),
    ],
)
def test_verdict_of_a_printed_number(found, verdict):
    assert claims.judge(claim({"printed": 0.77}), [found])[0] == verdict


@pytest.mark.parametrize(
    ("sign", "found", "verdict"),
    [
        (1, paper(0.2, 0.1, 0.3), REPRODUCED),
        (1, Found(0.2, 0.1, 0.3), DIRECTION),
        (1, paper(0.2, -0.1, 0.5), INCONCLUSIVE),
        (1, paper(-0.2, -0.3, -0.1), NOT_REPRODUCED),
        (-1, paper(-0.2, -0.3, -0.1), REPRODUCED),
        (-1, paper(0.2, 0.1, 0.3), NOT_REPRODUCED),
        (1, paper(0.2), INCONCLUSIVE),  # one run has no interval
        (1, paper(-0.25, -0.25, -0.25), INCONCLUSIVE),  # nor have seven patients who all agree
    ],
)
def test_verdict_of_a_direction(sign, found, verdict):
    assert claims.judge(claim({"sign": sign}), [found])[0] == verdict


def test_number_that_is_off_on_the_claimed_side():
    both = claim({"printed": 0.3, "sign": 1})
    assert claims.judge(both, [paper(0.5, 0.45, 0.55)])[0] == DIRECTION
    assert claims.judge(both, [paper(-0.5, -0.55, -0.45)])[0] == NOT_REPRODUCED
    assert claims.judge(both, [paper(0.31, 0.28, 0.34)])[0] == REPRODUCED


def test_worst_of_several_numbers_counts():
    three = claim({"printed": 0.77}, {"sign": 1}, {"sign": 1})
    good, open_, bad = paper(0.77, 0.75, 0.79), paper(0.1, -0.1, 0.3), paper(-0.2, -0.3, -0.1)
    lacking = Found(lacking="VGG16 was not trained")
    assert claims.judge(three, [good, good, good])[0] == REPRODUCED
    assert claims.judge(three, [good, open_, good])[0] == INCONCLUSIVE
    assert claims.judge(three, [good, open_, bad])[0] == NOT_REPRODUCED
    assert claims.judge(three, [good, lacking, bad]) == (NOT_TESTABLE, "needs n; here: VGG16 was not trained")
    assert claims.judge(claim(), []) == (NOT_TESTABLE, "needs n")


@pytest.mark.parametrize(
    ("evidence", "more", "says"),
    [
        ({"printed": 0.77}, {"tolerance": None}, "needs tolerance"),
        ({"printed": 0.77}, {"why": ""}, "needs tolerance, widest and why"),
        ({"printed": 0.01}, {}, "not below the number"),
        ({}, {}, "a printed number, a sign, or both"),
        ({"sign": 1, "measure": "final_loss"}, {}, "a table, or a measure"),
        ({"sign": 1}, {"verdict": "reproduced"}, "verdict"),  # nobody writes one
    ],
)
def test_claims_that_cannot_be_judged_are_refused(evidence, more, says):
    with pytest.raises(ValueError, match=says):
        claim(evidence, **more)


def test_the_ledger_is_valid_and_has_what_it_must():
    found = {c.id: c for c in claims.read()}
    printed = {
        name: [e.printed for e in found[f"table2_{name}"].evidence]
        for name in ("resnet101", "vgg16", "densenet121")
    }

    assert printed == {
        r.backbone: [r.sensitivity, r.specificity, r.accuracy] for r in paper_tables.PAPER_TABLE2.itertuples()
    }
    assert {
        "densenet121_best",
        "vgg16_most_specific",
        "densenet121_converges_fastest",
        "loss_015",
        "transfer_learning_helps",
    } < set(found)
    assert {"oversampling_helps_rare_grades", "errors_lean_to_normal", "wrong_attends_vessels"} < set(found)
    assert {"heatmaps_miss_lesions", "heatmaps_beside_disc"} < set(found)
    assert {c.paper for c in found.values()} == {paper.citation for paper in PAPERS if paper.claims}
    for c in found.values():
        assert {e.notebook for e in c.evidence} <= set(NOTEBOOKS)


# results, made up, in an empty results folder


def audit(source: str, images: int) -> None:
    run = records.start(params.DataAudit(source=source))
    run.metric(n_images=images)
    run.finish()


def comparison(frame: pd.DataFrame, name: str) -> None:
    run = records.start(params.BackboneComparison())
    run.table(frame, name)
    run.finish()


def scores(**values: float) -> pd.DataFrame:
    rows = [
        ("densenet121_seed0", metric, value, value - 0.02, value + 0.02) for metric, value in values.items()
    ]
    return pd.DataFrame(rows, columns=["run", "metric", "value", "lo", "hi"])


TABLE2 = {"sensitivity_ge2": 0.775, "specificity_ge2": 0.91, "accuracy_ge2": 0.885}


def verdict(name: str) -> tuple[str, str]:
    one = next(c for c in claims.read() if c.id == name)
    return claims.judge(one, claims.look_up(one, records.find("smoke")))


def test_paper_setting_is_the_full_data_and_imagenet_weights(own_folders):
    audit("eyepacs", 35126)
    fine_tuning(graded(eyes(30)), "densenet121", "imagenet")
    comparison(scores(**TABLE2), "scores")
    assert verdict("table2_densenet121")[0] == REPRODUCED
    comparison(scores(**TABLE2 | {"accuracy_ge2": 0.8}), "scores")
    assert verdict("table2_densenet121") == (
        NOT_REPRODUCED,
        "the printed 0.883 lies outside the interval ± tolerance",
    )
    assert verdict("table2_vgg16")[1].endswith("here: VGG16 was not trained")


@pytest.mark.parametrize(
    ("source", "images", "weights", "says"),
    [
        ("phantom", 640, "none", "here: 640 images of phantom; DenseNet121 started from random weights"),
        ("phantom", 640, "imagenet", "here: 640 images of phantom"),
        ("eyepacs", 658, "imagenet", "here: 658 images of eyepacs"),
        ("eyepacs", 35126, "bundled", "here: weights bundled"),
        ("eyepacs", 35126, "none", "DenseNet121 started from random weights"),
    ],
)
def test_claims_on_the_papers_networks_are_not_tested_elsewhere(own_folders, source, images, weights, says):
    """Not even where the numbers happen to agree."""
    audit(source, images)
    fine_tuning(graded(eyes(30)), "densenet121", weights)
    comparison(scores(**TABLE2), "scores")
    found, reason = verdict("table2_densenet121")
    assert found == NOT_TESTABLE
    assert says in reason


def test_general_claims_are_tested_on_pretrained_networks_only(own_folders):
    audit("phantom", 640)
    run = records.start(params.Oversampling())
    rows = [("recall_grade3", 0.3, 0.1, 0.5), ("recall_grade4", 0.2, 0.05, 0.4)]
    run.table(pd.DataFrame(rows, columns=["metric", "value", "lo", "hi"]), "paper_minus_none")
    run.metric(weights_used="bundled")
    run.finish()
    found = verdict("oversampling_helps_rare_grades")
    assert found[0] == DIRECTION
    assert found[1].endswith("on other data or networks than the paper's")
    run = records.start(params.Oversampling())
    run.table(pd.DataFrame(rows, columns=["metric", "value", "lo", "hi"]), "paper_minus_none")
    run.metric(weights_used="none")
    run.finish()
    assert verdict("oversampling_helps_rare_grades")[1].endswith(
        "only networks that started from random weights"
    )


@pytest.mark.parametrize(
    ("value", "expected"), [(-0.2, DIRECTION), (0.2, NOT_REPRODUCED), (-0.05, INCONCLUSIVE)]
)
def test_transfer_learning_is_judged_by_the_run_without_pretraining(own_folders, value, expected):
    """Without it minus with it: below 0 is what the paper claims, on another network."""
    audit("phantom", 640)
    fine_tuning(graded(eyes(30)), "efficientnet_lite0", "bundled")
    rows = [
        (oddity, metric, value, value - 0.1, value + 0.1)
        for oddity in ("head", "weights")
        for metric in ("qwk", "macro_auc")
    ]
    comparison(pd.DataFrame(rows, columns=["oddity", "metric", "value", "lo", "hi"]), "oddities")
    assert verdict("transfer_learning_helps")[0] == expected
    comparison(pd.DataFrame(rows[:2], columns=["oddity", "metric", "value", "lo", "hi"]), "oddities")
    assert verdict("transfer_learning_helps")[0] == NOT_TESTABLE


def test_runs_of_an_ablation_are_no_evidence_on_other_claims(own_folders):
    """They follow another recipe: a run whose every wrong grade 3 is called 0 must not be found."""
    audit("phantom", 640)
    fine_tuning(graded(eyes(30)), "efficientnet_lite0", "bundled", variant="efficientnet_lite0-seed0-paper")
    assert verdict("errors_lean_to_normal")[1].endswith("03_fine_tuning has not run")
    fine_tuning(graded(eyes(30)), "vgg16", "imagenet", variant="vgg16-seed0-head")
    assert verdict("table2_vgg16")[1].endswith("04_backbone_comparison has not run")
    comparison(scores(**TABLE2), "scores")
    assert verdict("table2_vgg16")[1].endswith("VGG16 was not trained")


def test_heatmaps_take_the_weights_of_the_network_they_explain(own_folders):
    audit("phantom", 640)
    columns = ["layer", "kind", "region", "group", "difference", "difference_lo", "difference_hi"]
    rows = [
        ("early", "part", "lesion", "all", -0.1, -0.2, -0.05),
        ("late", "part", "lesion", "all", 0.1, 0.05, 0.2),
    ]
    for backbone, weights, expected in (
        ("densenet121", "none", NOT_TESTABLE),
        ("efficientnet_lite0", "bundled", NOT_REPRODUCED),
    ):
        model = fine_tuning(graded(eyes(30)), backbone, weights)
        run = records.start(
            params.HeatmapAnalysis(variant=f"{backbone}-seed0", model=paths.show(model.folder))
        )
        run.table(pd.DataFrame(rows, columns=columns), "heat_summary")
        run.finish()
        assert verdict("heatmaps_miss_lesions")[0] == expected  # of the last layer, which is the deepest


def test_severe_predicted_normal_counts_wrong_answers_to_grade_3(own_folders):
    """Ten wrong eyes of grade 3: eight say 0, one 2, one 4. Right eyes, and other grades, do not count."""
    said = [0] * 8 + [2, 4] + [3] * 5 + [0] * 20
    grade = [3] * 15 + [4] * 20
    ids = [f"{i:03d}" for i in range(35)]
    rows = pd.DataFrame({"image_id": ids, "patient_id": ids, "split": "test", "grade": grade})
    rows = rows.assign(**{f"p{g}": np.where(np.array(said) == g, 1.0, 0.0) for g in range(5)})
    record = fine_tuning(rows, "efficientnet_lite0", "bundled")
    value, lo, hi = claims.measures()["severe_predicted_normal"](record)
    assert value == pytest.approx(0.8 - 0.25)
    assert 0 < lo < value < hi <= 0.75
    audit("phantom", 640)
    assert verdict("errors_lean_to_normal")[0] == DIRECTION


def test_loss_and_convergence_come_from_histories(own_folders):
    audit("eyepacs", 35126)
    steps = {"densenet121": 20, "vgg16": 60, "resnet101": 80}
    for backbone, length in steps.items():
        for seed in range(3):
            record = fine_tuning(graded(eyes(30)), backbone, "imagenet", seed=seed)
            step = np.arange(1, 401)
            loss = 0.14 + 1.4 * np.exp(-step / (length + seed))
            history = pd.DataFrame(
                {"epoch": (step - 1) // 40 + 1, "step": step, "loss": loss, "val_loss": np.nan}
            )
            history.to_csv(record.folder / "history.csv", index=False)
            record = sealed(record)
    assert claims.measures()["final_loss"](record)[0] == pytest.approx(loss[-40:].mean())
    assert verdict("loss_015")[0] == REPRODUCED
    assert verdict("densenet121_converges_fastest")[0] == REPRODUCED
    settled = claims.measures()["steps_to_settle"](record)[0]
    assert (
        1.5 * 82 < settled < 3.5 * 82
    )  # an exponential falls to a tenth in 2.3 of its lengths, and smoothing delays it


def test_one_seed_cannot_tell_which_converges_faster(own_folders):
    audit("eyepacs", 35126)
    for backbone in ("densenet121", "vgg16", "resnet101"):
        fine_tuning(graded(eyes(30)), backbone, "imagenet")
    assert verdict("densenet121_converges_fastest")[0] == INCONCLUSIVE


def test_ledger_without_results_and_its_file(own_folders):
    audit("phantom", 640)
    table = claims.write("smoke")
    assert len(table) == len(claims.read())
    assert set(table["verdict"]) == {NOT_TESTABLE}
    assert table["reason"].str.startswith("needs ").all()
    again = pd.read_csv(paths.results() / "smoke" / "claims.csv")
    assert again["verdict"].tolist() == table["verdict"].tolist()


# --- a further paper, whose networks start from random weights ------------------------------------


def ram(weights_used: str = "bundled", **tables: pd.DataFrame) -> records.Record:
    fine_tuning(graded(eyes(30)), "efficientnet_lite0", "bundled")
    run = records.start(Ram())
    run.metric(weights_used=weights_used)
    for name, frame in tables.items():
        run.table(frame, name)
    run.finish()
    return records.load(run.folder)


def test_counts_hold_on_any_data(own_folders):
    from drstudy.papers.ram import model as networks
    from drstudy.papers.ram import tables as tables_ram

    audit("phantom", 80)
    counted = networks.parameters()
    ram(parameters=tables_ram.parameters(counted))
    assert verdict("ram_parameters")[0] == REPRODUCED
    assert verdict("ram_fewer_parameters")[0] == REPRODUCED
    ram(parameters=tables_ram.parameters(counted | {"parameters_ram_net4": 12_000_000}))
    assert verdict("ram_parameters")[0] == NOT_REPRODUCED
    assert verdict("ram_fewer_parameters")[0] == NOT_REPRODUCED


def fusion(network: str, lo: float) -> pd.DataFrame:
    rows = [
        {
            "map": f"{network} fused as printed",
            "minus": f"{network} {size} scaled",
            "quantity": "heat",
            "region": "lesion",
        }
        | {"value": lo + 0.01, "lo": lo, "hi": lo + 0.02}
        for size in (128, 256)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("lo", "found"), [(0.01, DIRECTION), (-0.01, INCONCLUSIVE), (-0.05, NOT_REPRODUCED)])
def test_random_weights_are_that_papers_setting(own_folders, lo, found):
    audit("phantom", 80)
    ram(heat_differences=fusion("ram_net5", lo))
    assert verdict("ram_fusion")[0] == found
    assert verdict("ram_fusion_pretrained")[0] == NOT_TESTABLE, "no such network was trained"


@pytest.mark.parametrize(("weights_used", "found"), [("bundled", DIRECTION), ("none", NOT_TESTABLE)])
def test_a_pretrained_backbone_is_asked_for_by_name(own_folders, weights_used, found):
    """Of the regression's own backbone, not of the classification network that it is compared with."""
    audit("phantom", 80)
    ram(weights_used, heat_differences=fusion("efficientnet_lite0", 0.01))
    assert verdict("ram_fusion_pretrained")[0] == found


def test_its_kappa_needs_its_data(own_folders):
    about = {
        "comparison": "head",
        "a": "ram_net5",
        "metric": "qwk",
        "value": -0.004,
        "lo": -0.01,
        "hi": 0.003,
    }
    table = pd.DataFrame([about])
    audit("phantom", 80)
    ram(comparisons=table)
    assert verdict("ram_competitive") == (
        NOT_TESTABLE,
        "needs all 35,126 EyePACS photographs at 512 px; here: 80 images of phantom",
    )
    audit("eyepacs", 35126)
    assert verdict("ram_competitive")[0] == REPRODUCED


def test_time_saved_is_read_from_the_turns(own_folders):
    from drstudy.papers.ram import tables as tables_ram

    audit("phantom", 80)
    random = np.random.default_rng(0)
    rows = []
    for turn in range(30):
        slow = 40 * random.uniform(0.98, 1.02)
        for kind, saved in (("net5", 0.13), ("net4", 0.12)):
            rows.append((f"baseline_{kind}", turn, slow))
            rows.append((f"ram_{kind}", turn, slow * (1 - saved) * random.uniform(0.99, 1.01)))
    timed = pd.DataFrame(rows, columns=["network", "round", "seconds_per_1000_images"])
    table = tables_ram.timing(timed, seed=0).set_index("kind")
    assert table.loc["net5", "lo"] < 13 < table.loc["net5", "hi"] + 0.5
    assert table.loc["net5", "printed"] == pytest.approx(12.98, abs=0.01)
    record = ram()
    table.reset_index().to_csv(record.folder / "timings.csv")
    assert verdict("ram_faster")[0] == DIRECTION
    slower = table.reset_index().assign(value=-5.0, lo=-6.0, hi=-4.0)
    slower.to_csv(record.folder / "timings.csv")
    assert verdict("ram_faster")[0] == NOT_REPRODUCED
    assert tables_ram.timing(timed.iloc[:0], seed=0).empty, "no turns, no table"


def test_verdicts_are_those_of_the_ledger(own_folders):
    results = [fine_tuning(graded(eyes(40), 2, 1), "efficientnet_lite0", "bundled")]
    found = claims.verdicts(results)
    assert list(found) == [one.id for one in claims.read()]
    assert [verdict for verdict, _ in found.values()] == claims.ledger(results)["verdict"].tolist()
