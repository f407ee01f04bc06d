"""``drstudy explain``: what it writes, what it refuses and goes on, what it never overwrites, and which networks it takes."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from photographs import EYE, encoded, photograph
from trained_eyes import MODEL, VARIANT, audit, trained

from drstudy.core import records
from drstudy.core.names import PROBABILITIES
from drstudy.data import dataset
from drstudy.evaluation import calibration, common, metrics
from drstudy.explain.measures import common_maps
from drstudy.explain.methods import cam
from drstudy.papers.transfer import params
from drstudy.study import explaining, explanations, networks
from drstudy.training import prediction

FILES = {"page.html", "photograph.png", "map.png", "outlines.png", "explanation.json"}


@pytest.fixture
def model(own_folders):
    """A finished audit and a finished network of it."""
    audit(own_folders / "eyes")
    return trained()


@pytest.fixture
def given(tmp_path):
    """Two photographs, and four files that are none."""
    folder = tmp_path / "given"
    folder.mkdir()
    for name in ("b", "a"):
        (folder / f"{name}.png").write_bytes(encoded(photograph(ord(name), 240), "PNG"))
    (folder / "black.jpg").write_bytes(encoded(np.zeros((300, 300, 3), np.uint8)))
    noise = np.random.default_rng(1).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    (folder / "noise.png").write_bytes(encoded(noise, "PNG"))
    (folder / "text.jpg").write_text("words and no picture")
    (folder / "notes.txt").write_text("not looked at in a folder")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def table(output: Path) -> dict[str, dict[str, str]]:
    with (output / "explanations.csv").open(encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_refused_files_are_named_and_the_others_are_explained(model, given, command_line, tmp_path):
    output = tmp_path / "out"
    code, out, err = command_line("explain", given, "--model", MODEL, "--output", output)
    assert code == 1
    assert (
        f"2 of 5 photographs explained (research only, not a medical device): open {output}/index.html" in out
    )
    for name, reason in (
        ("black.jpg", "too dark"),
        ("noise.png", "field of view not found"),
        ("text.jpg", "cannot be read"),
    ):
        [line] = [line for line in err.splitlines() if line.startswith(f"refused: {given / name}: ")]
        assert reason in line
        assert line.endswith(".")
    found = table(output)
    assert list(found) == ["a", "b", "black", "noise", "text"]
    assert {name: row["status"] for name, row in found.items()} == {
        **dict.fromkeys(("a", "b"), "explained"),
        **dict.fromkeys(("black", "noise", "text"), "refused"),
    }
    assert {path.name for path in output.iterdir()} == {
        "a",
        "b",
        "explanations.csv",
        "explanations.json",
        "index.html",
    }
    assert {path.name for path in (output / "a").iterdir()} == FILES
    code, out, _ = command_line("explain", given / "a.png", "--model", MODEL, "--output", tmp_path / "other")
    assert code == 0
    assert "1 of 1 photographs explained" in out


def test_answers_are_those_of_the_network_at_the_temperature_of_validation(model, given, tmp_path):
    outcome = explaining.run([given / "a.png"], MODEL, tmp_path / "out", device="cpu")
    [row] = outcome.rows
    net = prediction.load(model)
    stored = explaining.read(given / "a.png", 96, 120).image
    own = prediction.predict(net, stored[None], networks.load(MODEL, "cpu").compute, net.input_size)[0]
    assert [row[name] for name in PROBABILITIES] == pytest.approx(own.tolist(), abs=1e-6)
    temperature = calibration.fit_temperature(
        metrics.read_predictions(model.path("predictions.csv"), "validation")
    )
    powers = own ** (1 / temperature)
    calibrated = [row[f"calibrated_{name}"] for name in PROBABILITIES]
    assert calibrated == pytest.approx((powers / powers.sum()).tolist(), abs=1e-5)
    assert row["p_referable"] == pytest.approx(sum(calibrated[2:]))
    facts = json.loads((tmp_path / "out" / "a" / "explanation.json").read_text())
    assert facts["answer"]["predicted"] == row["predicted"] == own.argmax()
    assert facts["network"]["temperature"] == pytest.approx(temperature)
    expected = cam.explain_images(
        net, stored[None], ["a"], net.input_size, networks.load(MODEL, "cpu").compute
    )
    assert np.allclose(facts["map"]["values"], expected.raw[facts["map"]["layer"]][0], atol=1e-6)


def test_the_same_photograph_gives_the_same_bytes(model, given, tmp_path):
    """No date, no random name: what is made twice is equal, also over an earlier answer."""
    first, second = (tmp_path / name for name in ("one", "two"))
    explaining.run([given], MODEL, first, device="cpu")
    explaining.run([given], MODEL, second, device="cpu")
    before = content(first)
    assert content(second) == before
    explaining.run([given], MODEL, first, device="cpu")
    assert content(first) == before


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href") and value]

    def handle_data(self, data):
        self.text += data


def test_every_page_says_research_only_and_needs_no_other_file(model, given, tmp_path):
    output = tmp_path / "out"
    explaining.run([given], MODEL, output, device="cpu")
    for name in ("a/page.html", "b/page.html"):
        page = Page((output / name).read_text(encoding="utf-8"))
        body = page.text[page.text.index("}") :]
        assert "Research only. This is not a medical device." in body
        assert len(page.links) == 3
        assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
        assert "Not calibrated" not in body
        assert "No outlines: 05_heatmap_analysis has not run for this network" in body
    index = Page((output / "index.html").read_text(encoding="utf-8"))
    assert "Research only. This is not a medical device." in index.text
    assert "3 refused" in index.text
    assert all((output / link).is_file() for link in index.links)
    assert json.loads((output / "explanations.json").read_text())["notice"].startswith("Research only")


def test_a_network_of_synthetic_eyes_says_so(own_folders, given, tmp_path):
    audit(own_folders / "eyes", "phantom")
    trained()
    explaining.run([given / "a.png"], MODEL, tmp_path / "out", device="cpu")
    for name in ("a/page.html", "index.html"):
        assert "synthetic photographs only" in (tmp_path / "out" / name).read_text()


def mapped(model: records.Record) -> records.Record:
    """A result of notebook 05 for the network: Grad-CAM of disease of validation and test eyes."""
    p = params.HeatmapAnalysis(model=MODEL, variant=VARIANT)
    run = records.start(p)
    records.upstream(p.model, run)
    data = dataset.load(records.load(p.audit))
    both = common.eyes(data.part("test"), data.part("validation"))
    net, compute = prediction.load(model), networks.load(MODEL, "cpu").compute
    _, disease, _ = cam.of_grades(net, data.images, both["image_id"], both["row"].to_numpy(), compute)
    common_maps.save(run.path(common_maps.FILE), {"lesion": disease}, both)
    run.finish()
    return records.load(run.folder)


def test_the_cut_comes_from_validation_maps_of_this_very_network(model, given, tmp_path):
    mapped(model)
    network = networks.load(MODEL, "cpu")
    assert network.explainer.map_cut > 0
    assert network.explainer.highest > 0
    assert re.fullmatch(
        r"cut .* fitted on 4 validation eyes with lesion masks", network.explainer.map_cut_note
    )
    explaining.run([given / "a.png"], MODEL, tmp_path / "out", device="cpu")
    facts = json.loads((tmp_path / "out" / "a" / "explanation.json").read_text())
    assert facts["outlines_status"] in explanations.STATUS_WORDS
    trained(seed=1)  # the same folder, another network
    assert networks.load(MODEL, "cpu").explainer.map_cut is None
    assert "of an earlier network; run it again" in networks.load(MODEL, "cpu").explainer.map_cut_note


def test_outlines_are_given_in_pixels_of_the_photograph():
    from drstudy.data.images import Crop
    from drstudy.explain.measures.outlines import Outline

    ring = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 20.0]])
    found = explanations.polygons(Outline("lesion", 0.5, 100, (ring,)), Crop(-5, 40, 200, 300, 280), 100)
    assert found["in_crop"] == [[[0, 0], [10, 0], [10, 20]]]
    assert found["in_photograph"] == [[[-5, 40], [15, 40], [15, 80]]]


@pytest.mark.parametrize("what", ["missing", "unfinished", "another stage", "audit"])
def test_what_is_no_trained_network_is_refused_with_those_that_exist(model, given, tmp_path, what):
    folder = {
        "missing": "results/smoke/03_fine_tuning/vgg16-seed0",
        "unfinished": os.fspath(tmp_path),
        "another stage": "results/smoke/05_heatmap_analysis/x-seed0",
        "audit": "results/smoke/01_data_audit",
    }[what]
    if what == "another stage":
        run = records.start(params.HeatmapAnalysis(variant="x-seed0"))
        run.finish()
    reason = {"missing": "there is no such folder", "unfinished": "not a finished result"}.get(
        what, "is a result of"
    )
    with pytest.raises(networks.ModelError, match=rf"{reason}(.|\n)*Give --model one of: {MODEL}\."):
        explaining.run([given], folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_a_model_those_that_exist_are_named(own_folders, given, command_line):
    code, _, err = command_line("explain", given)
    assert (code, "`drstudy reproduce --profile demo --until 03`" in err) == (1, True)
    audit(own_folders / "eyes")
    trained()
    code, _, err = command_line("explain", given)
    assert code == 1
    assert (
        f"error: --model is missing: the result folder of a trained network. Give --model one of: {MODEL}."
        in err
    )


def test_a_damaged_network_is_refused(model, given, tmp_path):
    with (model.folder / "model.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(records.RecordError, match="not what its run wrote"):
        explaining.run([given], MODEL, tmp_path / "out")


def test_missing_files_and_empty_folders_are_errors_before_anything_is_written(model, given, tmp_path):
    (tmp_path / "empty").mkdir()
    for path, message in ((tmp_path / "no.jpg", "no such file"), (tmp_path / "empty", "has no photograph")):
        with pytest.raises(explaining.InputError, match=message):
            explaining.run([given, path], MODEL, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_are_unique_and_safe(tmp_path):
    for folder in ("left", "right"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "Eye.png").write_bytes(b"x")
    (tmp_path / "left" / "eye.jpg").write_bytes(b"x")
    (tmp_path / "left" / "..a b: c.png").write_bytes(b"x")
    found = explaining.gather(
        [
            tmp_path / "left",
            tmp_path / "right",
            tmp_path / "left" / "eye.jpg",
            tmp_path / "left" / "..a b: c.png",
        ]
    )
    names = [one.name for one in found]
    assert len(names) == len({name.lower() for name in names}) == 4
    assert "a_b_c" in names
    assert all(re.fullmatch(r"[\w-][\w.-]*", name) for name in names)


FOREIGN = {
    "a file of the user": lambda out: (out / "a").write_text("mine"),
    "a folder of the user": lambda out: (out / "a" / "mine").mkdir(parents=True),
    "a note beside an answer": lambda out: (out / "a" / "note.txt").write_text("mine"),
    "an edited page": lambda out: (out / "a" / "page.html").write_text("mine"),
    "a table of the user": lambda out: (out / "explanations.csv").write_text("id,grade\n"),
    "a page of the user": lambda out: (out / "index.html").write_text("<!doctype html>mine"),
    "data of the user": lambda out: (out / "explanations.json").write_text("{}"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_nothing_is_overwritten_that_was_not_made_here(model, given, tmp_path, what):
    output = tmp_path / "out"
    output.mkdir()
    if what in ("a note beside an answer", "an edited page"):
        explaining.run([given / "a.png"], MODEL, output, device="cpu")
    FOREIGN[what](output)
    before = content(output)
    with pytest.raises(
        explanations.OverwriteError, match=r"is not overwritten\. Choose another folder with --output"
    ):
        explaining.run([given / "a.png", given / "b.png"], MODEL, output, device="cpu")
    assert content(output) == before


def test_answers_of_two_networks_or_of_two_files_of_a_name_do_not_mix(model, given, tmp_path):
    output = tmp_path / "out"
    explaining.run([given / "a.png"], MODEL, output, device="cpu")
    (tmp_path / "a.png").write_bytes(encoded(EYE, "PNG"))
    with pytest.raises(explanations.OverwriteError, match="explains another file of that name"):
        explaining.run([tmp_path / "a.png"], MODEL, output, device="cpu")
    trained(backbone="efficientnet_lite1", variant="efficientnet_lite1-seed0")
    with pytest.raises(explanations.OverwriteError, match=f"is of another network .*{MODEL}"):
        explaining.run([given / "b.png"], MODEL.replace("lite0", "lite1"), output, device="cpu")


def test_a_later_run_adds_to_the_earlier_answers(model, given, tmp_path):
    """And a photograph that is refused now has no answer left."""
    output = tmp_path / "out"
    explaining.run([given / "a.png", given / "black.jpg"], MODEL, output, device="cpu")
    explaining.run([given / "b.png"], MODEL, output, device="cpu")
    assert {name: row["status"] for name, row in table(output).items()} == {
        "a": "explained",
        "b": "explained",
        "black": "refused",
    }
    shutil.copy(given / "black.jpg", given / "a.png")
    explaining.run([given / "a.png"], MODEL, output, device="cpu")
    assert table(output)["a"]["status"] == "refused"
    assert not (output / "a").exists()
    assert (output / "b").is_dir()


def test_a_killed_run_leaves_no_half_answer(model, given, tmp_path, monkeypatch):
    """It fails while the last file of a photograph is written; what was finished before stays, and the next run cleans up."""
    output = tmp_path / "out"
    explaining.run([given / "a.png"], MODEL, output, device="cpu")
    before = content(output)
    with monkeypatch.context() as patch:
        patch.setattr(
            explanations.records, "write_json", lambda *_: (_ for _ in ()).throw(OSError("disk full"))
        )
        with pytest.raises(OSError, match="disk full"):
            explaining.run([given / "a.png"], MODEL, output, device="cpu")
    assert content(output) == before
    left = output / f"{explaining.BUILDING}999999999-x"
    left.mkdir()
    explaining.run([given / "b.png"], MODEL, output, device="cpu")
    assert not left.exists()
    assert {path.name for path in (output / "b").iterdir()} == FILES


def test_progress_is_a_line_for_each_photograph_in_a_log(model, given, command_line, tmp_path):
    _, _, err = command_line(
        "explain", given / "b.png", given / "black.jpg", "--model", MODEL, "--output", tmp_path / "out"
    )
    assert err.splitlines()[:2] == ["1/2 b: explained", "2/2 black: refused"]


def test_help_says_research_only(command_line):
    _, out, _ = command_line("explain", "--help")
    assert "not a medical device" in " ".join(out.replace("│", " ").split())
