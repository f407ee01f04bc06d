"""``drstudy explain`` by a network that regresses the grade: its score, the grade by the study's cuts, the map whose mean is the score."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pandas as pd
import pytest
from photographs import encoded, photograph
from ram_eyes import CPU, RAM, networks, regressed, stored_score
from trained_eyes import MODEL, audit, trained

from drstudy.core import records
from drstudy.data import dataset
from drstudy.evaluation import ordinal
from drstudy.explain import one
from drstudy.papers.ram import explaining as ram_explaining
from drstudy.papers.ram import maps as ram_maps
from drstudy.study import explaining
from drstudy.study import networks as opened

EYE = "03_left"
"""A test eye of the audit."""


@pytest.fixture
def eyes(own_folders):
    """A finished audit; its photographs lie in ``eyes``."""
    audit(own_folders / "eyes")
    return own_folders / "eyes"


@pytest.fixture
def model(eyes):
    return regressed()


def fitted_cuts(record, network):
    """Cuts of the validation scores of a network in the predictions of a result."""
    table = pd.read_csv(record.path("predictions.csv"), dtype={"image_id": str})
    rows = table[(table["network"] == network) & (table["split"] == "validation")]
    return ordinal.fit_cuts(rows["score"].to_numpy(), rows["grade"].to_numpy(int))


def answer(output, name=EYE):
    return json.loads((output / name / "explanation.json").read_text())


def test_score_grade_and_map_are_those_of_the_study(model, eyes, tmp_path):
    """For a photograph of the study, by the network that the comparison of all systems takes."""
    outcome = explaining.run([eyes / f"{EYE}.png"], RAM, tmp_path / "out", device="cpu")
    [row] = outcome.rows
    expected = stored_score(model, "efficientnet_lite0", EYE)
    assert row["score"] == pytest.approx(expected, abs=1e-5)
    cuts = fitted_cuts(model, "efficientnet_lite0")
    assert row["predicted"] == sum(expected >= cut for cut in cuts)
    assert [row[name] for name in ("p_referable", "p0", "calibrated_p4")] == ["", "", ""]
    facts = answer(tmp_path / "out")
    assert facts["network"]["grade_cuts"] == pytest.approx(cuts.tolist())
    net = networks()["efficientnet_lite0", 128]
    bias = net.net.get_submodule(net.head_path).bias.item()
    assert np.mean(facts["map"]["values"]) + bias == pytest.approx(expected, abs=1e-4)
    assert (facts["map"]["of"], facts["map"]["unit"]) == ("score", "grades per position, signed")


@pytest.mark.parametrize("network", ["ram_net5", "efficientnet_lite0"])
def test_heat_lies_where_the_network_looked(eyes, model, network):
    """Not stretched over the margin that a network of the paper crops away: it is the map placed as in notebook 11."""
    data = dataset.load(records.load(model.params["AUDIT"]))
    net = networks()[network, 128]
    image = data.images[0]
    found = ram_explaining.explain(net, image, CPU)
    placed = ram_maps.explain(net, data.images, ["x"], np.array([0]), CPU).placed(0, len(image))
    assert found.heat.shape == image.shape[:2]
    assert np.allclose(found.heat, placed.clip(0), atol=1e-6)
    edge = found.heat[0].max() + found.heat[:, 0].max()
    assert (edge == 0) == (network == "ram_net5")


def test_cuts_move_the_grade_and_grade_0_has_no_outline(model, eyes):
    data = dataset.load(records.load(model.params["AUDIT"]))
    net, image = networks()["efficientnet_lite0", 128], data.images[0]
    score = ram_explaining.explain(net, image, CPU).score
    for grade in range(5):
        cuts = tuple(score + shift for shift in np.arange(4) - grade + 0.5)
        found = ram_explaining.explain(net, image, CPU, cuts, cut=1e-9)
        assert found.predicted == grade
        assert found.comparable
        if grade == 0:
            assert (found.status, found.outlines) == ("not predicted", ())
        else:
            assert found.status != "not predicted"
    assert (found.probabilities, found.best, found.referable) == (None, None, None)


def test_regions_are_where_the_map_reaches_the_cut(model):
    data = dataset.load(records.load(model.params["AUDIT"]))
    net, image = networks()["efficientnet_lite0", 128], data.images[0]
    heat = ram_explaining.explain(net, image, CPU).heat
    cut = float(np.quantile(heat[heat > 0], 0.8))
    found = ram_explaining.explain(net, image, CPU, (-9, 9, 10, 11), cut)
    assert (found.predicted, found.status) == (1, "outlined")
    assert 0 < sum(outline.area for outline in found.outlines) <= (heat >= cut).sum()


def test_the_cut_comes_from_the_kept_maps_and_only_of_their_network(model):
    kept = opened.load(RAM, "cpu").explainer
    assert kept.file.name == "efficientnet_lite0-128.safetensors"
    assert kept.map_cut > 0
    assert kept.highest > 0
    assert re.fullmatch(r"cut .* fitted on 4 validation eyes with lesion masks", kept.map_cut_note)
    assert opened.load(f"{RAM}/efficientnet_lite0-128.safetensors", "cpu").explainer.map_cut == kept.map_cut
    other = opened.load(f"{RAM}/ram_net5-128.safetensors", "cpu").explainer
    assert (other.map_cut, other.highest) == (None, None)
    assert "maps of validation eyes are kept of efficientnet_lite0-128.safetensors only" in other.map_cut_note
    for one_of, network in ((kept, "efficientnet_lite0"), (other, "ram_net5")):
        assert one_of.cuts == pytest.approx(fitted_cuts(model, network).tolist())
        assert "fitted on 4 validation eyes" in one_of.note
    assert (kept.agreement["qwk"], kept.agreement["qwk_lo"]) == (0.31, 0.12)


def test_pages_and_table_show_a_score_and_no_probability(model, eyes, tmp_path, command_line):
    output = tmp_path / "out"
    (tmp_path / "black.png").write_bytes(encoded(np.zeros((240, 240, 3), np.uint8), "PNG"))
    given = (eyes / f"{EYE}.png", eyes / "02_left.png", tmp_path / "black.png")
    code, out, _ = command_line("explain", *given, "--model", RAM, "--output", output)
    assert (code, "2 of 3 photographs explained" in out) == (1, True)
    row = next(row for row in csv.DictReader((output / "explanations.csv").open()) if row["name"] == EYE)
    assert float(row["score"]) == answer(output)["answer"]["score"]
    assert row["p0"] == row["p_referable"] == ""
    page = (output / EYE / "page.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", "", page)
    assert (
        f"on the scale of grades 0 to 4 is {float(row['score']):.2f}. It implies grade {row['predicted']}"
        in text
    )
    assert "Evidence for a higher grade" in text
    assert "It gives no probabilities" in text
    assert "Grades per position." in text
    assert "Research only. This is not a medical device." in text
    assert "regression, 128 px" in text
    assert "most probable" not in text
    index = (output / "index.html").read_text(encoding="utf-8")
    assert f"score {float(row['score']):.2f}" in index
    assert "1 refused" in index


def test_averaged_maps_belong_to_the_score_of_the_single_view(eyes, tmp_path):
    """With TTA the kept maps are means over four flips, and so is the map here; score and grade stay those of the predictions."""
    record = regressed(tta=True)
    explaining.run([eyes / f"{EYE}.png"], RAM, tmp_path / "out", device="cpu")
    facts = answer(tmp_path / "out")
    assert facts["answer"]["score"] == pytest.approx(
        stored_score(record, "efficientnet_lite0", EYE), abs=1e-5
    )
    data = dataset.load(records.load(record.params["AUDIT"]))
    row = data.table.set_index("image_id").loc[EYE, "row"]
    net = networks()["efficientnet_lite0", 128]
    averaged = ram_maps.explain(net, data.images, [EYE], np.array([row]), CPU, tta=True)
    assert np.allclose(facts["map"]["values"], averaged.raw[0], atol=1e-5)
    assert "mean over the four flips" in facts["map"]["unit"]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("baseline_net5-128.safetensors", "has a dense head, and so no map of its score"),
        ("ram_net5-512.safetensors", "there is no such file"),
    ],
)
def test_networks_without_a_map_are_refused_with_those_that_have_one(model, eyes, tmp_path, file, reason):
    with pytest.raises(opened.ModelError, match=reason) as error:
        explaining.run([eyes / f"{EYE}.png"], f"{RAM}/{file}", tmp_path / "out")
    assert "ram_net5-128.safetensors" in str(error.value) or RAM in str(error.value)
    assert not (tmp_path / "out").exists()


def test_both_kinds_of_networks_are_named_and_do_not_mix(model, eyes, tmp_path):
    trained()
    assert opened.existing() == [MODEL, RAM]
    output = tmp_path / "out"
    explaining.run([eyes / f"{EYE}.png"], RAM, output, device="cpu")
    with pytest.raises(ValueError, match="is of another network"):
        explaining.run([eyes / "02_left.png"], MODEL, output, device="cpu")
    with pytest.raises(ValueError, match="is of another network"):
        explaining.run([eyes / "02_left.png"], f"{RAM}/ram_net5-128.safetensors", output, device="cpu")


def test_a_damaged_network_is_refused(model, eyes, tmp_path):
    with (model.folder / "efficientnet_lite0-128.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(records.RecordError, match="not what its run wrote"):
        explaining.run([eyes / f"{EYE}.png"], RAM, tmp_path / "out")


def test_without_graded_validation_eyes_scores_are_rounded(model):
    record = records.load(RAM)
    table = pd.read_csv(record.path("predictions.csv"), dtype={"image_id": str, "patient_id": str})
    table["grade"] = np.nan
    path = record.folder / "predictions.csv"
    table.to_csv(path, index=False)
    record.data["outputs"].pop("predictions.csv")
    found = ram_explaining.open_network(record, "", CPU)
    assert found.cuts == ordinal.ROUNDED
    assert "rounded to the nearest grade" in found.note


def test_an_unknown_file_of_the_result_is_named(model):
    with pytest.raises(
        one.UnexplainableError, match=r"no network of this result\. Networks with a map: ram_net5"
    ):
        ram_explaining.open_network(model, "common_maps.npz", CPU)


def test_photographs_from_outside_are_explained_too(model, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(photograph(9, 240), "PNG"))
    [row] = explaining.run([tmp_path / "a.png"], RAM, tmp_path / "out", device="cpu").rows
    assert row["status"] == "explained"
    assert row["outlines"] != "" or row["predicted"] == 0
