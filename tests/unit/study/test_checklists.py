"""Checklists: what a record says is shown, what none says is not reported, and no sentence can be had without a fact."""

from __future__ import annotations

import pandas as pd
import pytest
from fabricated import eyes, fine_tuning, graded

from drstudy.core import paths, records
from drstudy.papers.transfer import params
from drstudy.study import checklists
from drstudy.study.checklists import NOT_REPORTED, Item, Sheet

FILES = {file.stem: file for file in checklists.sheets()}
ITEMS = {"claim_2024": [str(n) for n in range(1, 45)]}
ITEMS["tripod_ai"] = [
    *(
        "1",
        "2",
        "3a",
        "3b",
        "3c",
        "4",
        "5a",
        "5b",
        "6a",
        "6b",
        "6c",
        "7",
        "8a",
        "8b",
        "8c",
        "9a",
        "9b",
        "9c",
        "10",
        "11",
    ),
    *("12a", "12b", "12c", "12d", "12e", "12f", "12g", "13", "14", "15", "16", "17"),
    *(
        "18a",
        "18b",
        "18c",
        "18d",
        "18e",
        "18f",
        "19",
        "20a",
        "20b",
        "20c",
        "21",
        "22",
        "23a",
        "23b",
        "24",
        "25",
        "26",
    ),
    *("27a", "27b", "27c"),
]
NEVER = {"claim_2024": {"2", "18", "21", "34", "44"}}
NEVER["tripod_ai"] = {"2", "3c", "6c", "10", "14", "18a", "18b", "18d", "19", "23b", "27a"}
"""Items that only a person can answer."""


def answers(name: str) -> pd.Series:
    known = checklists.facts("smoke", records.find("smoke"))
    return checklists.fill(checklists.read(FILES[name]), known).set_index("item")["answer"]


def audit(images: pd.DataFrame, source: str = "phantom", **metrics: float) -> None:
    run = records.start(params.DataAudit(source=source))
    split = images.assign(
        split=["train", "train", "validation", "test"] * (len(images) // 4) + ["test"] * (len(images) % 4)
    )
    split.to_csv(run.path("split.csv"), index=False)
    counts = {"n_images": len(images), "n_graded": len(images), "n_patients": images["patient_id"].nunique()}
    names = (
        "n_quarantined",
        "n_noted",
        "n_flagged",
        "n_exact_duplicates",
        "n_near_duplicates",
        "n_duplicates_across_splits",
    )
    shares = {f"prevalence_ge{cut}": float((images["grade"] >= cut).mean()) for cut in (1, 2, 3, 4)}
    run.metric(**dict.fromkeys(names, 0) | counts | shares | metrics)
    run.finish()


def everything(images: pd.DataFrame) -> None:
    """A finished record of every notebook whose numbers are quoted."""
    audit(images)
    model = fine_tuning(graded(images), "densenet121", "imagenet")
    frame = {"metric": "qwk", "value": 0.125, "lo": 0.05, "hi": 0.2}
    run = records.start(params.Oversampling())
    run.table(pd.DataFrame([frame | {"way": "row", "rows": "own", "what": "difference"}]), "leaks")
    run.metric(weights_used="imagenet")
    run.finish()
    run = records.start(params.BackboneComparison())
    row = frame | {"oddity": "head", "title": "head", "paper": "paper", "changed": "single"}
    run.table(pd.DataFrame([row]), "oddities")
    run.finish()
    run = records.start(params.HeatmapAnalysis(model=paths.show(model.folder)))
    heat = {"layer": "norm5_relu", "kind": "part", "region": "lesion", "eyes": 9, "group": "all"}
    heat |= {"enrichment": 2.5, "enrichment_lo": 2.0, "enrichment_hi": 3.0}
    run.table(
        pd.DataFrame([heat | {"difference": 0.1, "difference_lo": 0.0, "difference_hi": 0.2}]), "heat_summary"
    )
    run.finish()
    run = records.start(params.Reliability(cut=3))
    run.table(pd.DataFrame({"label": ["D"], "temperature": [1.75]}), "temperatures")
    calibration = {"label": "D", "state": "scaled", "metric": "ece", "value": 0.0625, "lo": 0.05, "hi": 0.075}
    run.table(pd.DataFrame([calibration, calibration | {"state": "as trained", "value": 0.5}]), "calibration")
    point = {
        "label": "D",
        "wanted": 0.9,
        "threshold": 0.42,
        "metric": "sensitivity",
        "value": 0.75,
        "lo": 0.7,
        "hi": 0.8,
    }
    run.table(pd.DataFrame([point]), "operating_points")
    run.metric(comparisons=6, below_5_percent=2)
    run.finish()


@pytest.mark.parametrize("name", list(ITEMS))
def test_every_item_of_the_checklist_has_its_row(name):
    assert [item.item for item in checklists.read(FILES[name]).items] == ITEMS[name]


@pytest.mark.parametrize("name", list(FILES))
def test_without_records_nothing_but_the_project_is_reported(own_folders, name):
    sheet = checklists.read(FILES[name])
    known = checklists.facts("smoke", [])
    assert known.keys() <= {"profile", "project", "version", "licence", "authors", "claims"}
    found = checklists.fill(sheet, known).set_index("item")
    answered = found[found["answer"] != NOT_REPORTED]
    of_project = {item.item for item in sheet.items if item.stated}
    about = {"project", "version", "licence", "authors", "claims"}
    of_project |= {i.item for i in sheet.items if any(checklists._names(t) <= about for t in i.records)}
    assert set(answered.index) <= of_project
    assert (found["answer"] == NOT_REPORTED).sum() > len(found) / 2


@pytest.mark.parametrize("name", list(ITEMS))
def test_complete_records_answer_all_but_what_only_a_person_knows(own_folders, name):
    everything(eyes(40))
    found = answers(name)
    external = {"33"} if name == "claim_2024" else {"27c"}
    assert set(found.index[found == NOT_REPORTED]) == NEVER[name] | external


def test_every_fact_can_be_known(own_folders):
    """So that no fact is missing for want of a name spelt right; those of real collections and other profiles stand apart."""
    images = eyes(40)
    everything(images)
    known = set(checklists.facts("smoke", records.find("smoke")))
    assert set(checklists.look_ups()) - known == {"collection", "external"}


def test_facts_are_those_of_the_records(own_folders):
    images = eyes(40)
    everything(images)
    known = checklists.facts("smoke", records.find("smoke"))
    record = records.load(paths.results() / "smoke/03_fine_tuning/densenet121-seed0")
    assert known["weights"] == "DenseNet121 (ImageNet) seed 0: imagenet"
    assert f"learning rate {record.params['LEARNING_RATE']:g}" in known["recipe"]
    assert known["n_images"] == str(len(images))
    assert known["images_by_split"].split("; ")[0] == str(2 * (len(images) // 4))
    assert known["calibration"] == "D: ECE 0.06 [0.05, 0.07]" or "0.06 [0.05, 0.08]" in known["calibration"]
    assert known["tests"] == "2 of 6 differences below 0.05"
    assert known["cut"] == "3"
    assert "2.50 [2.00, 3.00] times chance" in known["heat"]
    assert known["leak_row"] == "QWK 0.12 [0.05, 0.20] higher than without a leak"
    assert "DenseNet121 (ImageNet)" in known["networks"]
    assert int(known["patients_torn"]) > 0, "this made-up split tears patients, and says so"


def test_real_photographs_are_not_called_synthetic(own_folders):
    audit(eyes(40), "eyepacs")
    found = answers("claim_2024")
    assert "eyepacs" in found["5"]
    for item in ("11", "13", "14", "16"):  # de-identification, cameras and graders are in no record
        assert found[item] == NOT_REPORTED
    assert "synthetic" not in " ".join(found)


def test_photographs_without_a_grade_have_no_prevalence(own_folders):
    """As IDRiD's segmentation part: notebook 01 records none, and the report is written all the same."""
    images = eyes(40)
    audit(images, "idrid", **dict.fromkeys((f"prevalence_ge{cut}" for cut in (1, 2, 3, 4)), None))
    known = checklists.facts("smoke", records.find("smoke"))
    assert "prevalence" not in known
    assert known["n_images"] == str(len(images))


def test_ablations_are_not_networks_of_the_study(own_folders):
    images = eyes(40)
    audit(images)
    fine_tuning(graded(images), "densenet121", "imagenet")
    fine_tuning(graded(images), "efficientnet_lite0", "none", variant="efficientnet_lite0-seed0-paper")
    known = checklists.facts("smoke", records.find("smoke"))
    assert known["n_networks"] == "1"
    assert known["networks"] == "DenseNet121 (ImageNet)"


def test_limits_hold_only_where_they_do(own_folders):
    images = eyes(40)
    audit(images, "eyepacs")
    for seed in (0, 1):
        fine_tuning(graded(images), "vgg16", "none", seed=seed)
    limits = checklists.facts("smoke", records.find("smoke"))["limits"]
    assert "synthetic" not in limits
    assert "one training seed" not in limits
    assert "random starting weights: VGG16 (no pretraining)" in limits


def sheet(**item) -> Sheet:
    return Sheet(name="x", title="X", source="s", items=[{"item": "1", "asks": "a"} | item])


def test_a_sentence_with_an_unknown_fact_is_left_out():
    two = sheet(records=["{n_images} images.", "At {image_size} pixels."])
    assert checklists.fill(two, {"n_images": "7"}).iloc[0].tolist() == ["1", "a", "7 images.", "records"]
    assert checklists.fill(two, {}).iloc[0].tolist() == ["1", "a", NOT_REPORTED, "–"]
    both = sheet(records=["{n_images} images."], stated=["Ours."])
    assert checklists.fill(both, {"n_images": "7"})["from"].tolist() == ["records and stated by the project"]


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ({"records": ["{n_imags} images."]}, "unknown facts n_imags"),
        ({"records": ["Many images."]}, "name a fact in braces"),
        ({"stated": ["{n_images} images."]}, "name a fact in braces"),
        ({"answer": "x"}, "answer"),
    ],
)
def test_sheets_that_promise_too_much_are_refused(item, says):
    with pytest.raises(ValueError, match=says):
        sheet(**item)


def test_drafts_say_that_they_are(own_folders):
    one = sheet(records=["{n_images} a|b."])
    filled = checklists.fill(one, {"n_images": "7"})
    header = checklists.header("demo", filled)
    assert header.startswith("Machine-filled draft")
    assert "0 of 1 items are not reported" in header
    text = checklists.markdown(one, filled, header)
    assert header in text
    assert "| 1 | a | 7 a\\|b. | records |" in text
    assert Item(item="1", asks="a").records == ()
