"""Result folders: a record is written last, whole and true; what is missing says which command makes it."""

from __future__ import annotations

import hashlib
import io
import json
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from drstudy.core import paths, records
from drstudy.core.records import RecordError
from drstudy.papers.transfer import params


@pytest.fixture(autouse=True)
def folders(own_folders):
    return own_folders


@pytest.fixture
def run():
    return records.start(params.DataAudit(profile="demo", seed=3))


def stored(run) -> dict:
    return json.loads((run.folder / "run.json").read_text())


def test_a_finished_record_holds_what_the_contract_says(run, monkeypatch, capsys):
    monkeypatch.setenv(records.RUN_ID, "abc")
    run.metric(qwk=0.5, images=np.int64(7), auc=np.float64(0.1) + 0.2, weights_used="none", empty=None)
    run.path("split.csv").write_text("image_id\n")
    run.finish()
    data = stored(run)
    assert data["status"] == "finished"
    assert data["run_id"] == "abc"
    assert (data["notebook"], data["profile"], data["variant"]) == ("01_data_audit", "demo", "")
    assert data["params"] == params.DataAudit(profile="demo", seed=3).upper()
    assert data["metrics"] == {
        "qwk": 0.5,
        "images": 7,
        "auc": 0.1 + 0.2,
        "weights_used": "none",
        "empty": None,
    }
    assert data["device"] == "CPU"
    assert data["packages"]["numpy"] == np.__version__
    assert data["seconds"] > 0
    assert data["peak_rss_mb"] > 20, "an interpreter with pandas holds more, so the unit is right"
    assert data["peak_rss_mb"] < 1e5
    assert capsys.readouterr().out == "finished: 5 metrics, 1 files in results/demo/01_data_audit\n"


def test_a_record_knows_its_own_trainings_only(run):
    records.TRAININGS["earlier"] = {"code": {"drstudy/training/loop.py": "a"}, "found": True}
    run.finish()
    assert stored(run)["trainings"]["keys"] == ["earlier"]
    later = records.start(params.DataAudit(profile="demo", seed=4))
    later.finish()
    assert stored(later)["trainings"] == {"keys": [], "found": 0, "code": {}}


def test_outputs_are_hashed_without_the_record_logs_and_hidden_files(run):
    for name in (
        "split.csv",
        "tables/a.csv",
        "executed.ipynb",
        "checkpoints/last.safetensors",
        "tensorboard/events",
        ".split-x.csv",
        ".ipynb_checkpoints/executed-checkpoint.ipynb",
    ):
        run.path(name).write_bytes(name.encode())
    run.finish()
    expected = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("split.csv", "tables/a.csv")}
    assert stored(run)["outputs"] == expected


def test_an_older_record_is_gone_when_a_run_starts(run):
    run.finish()
    (run.folder / "failure.json").write_text("{}")
    records.start(run.parameters)
    assert not (run.folder / "run.json").exists()
    assert not (run.folder / "failure.json").exists()
    with pytest.raises(RecordError, match="no finished run"):
        records.load(run.folder)


def test_inputs_are_hashed_by_their_public_path(run, folders):
    (folders / "data").mkdir()
    (folders / "data/labels.csv").write_text("x")
    assert run.input("data/labels.csv") == folders / "data/labels.csv"
    run.finish()
    assert stored(run)["inputs"] == {"data/labels.csv": hashlib.sha256(b"x").hexdigest()}


def test_a_metric_keeps_its_first_value(run):
    run.metric(qwk=0.5, undefined=math.nan)
    run.metric(qwk=0.5, undefined=math.nan)  # a cell run again
    with pytest.raises(ValueError, match=r"'qwk' was already recorded as 0\.5"):
        run.metric(qwk=0.6)
    for value in ([1], {"a": 1}, object()):
        with pytest.raises(ValueError, match="'bad' is a"):
            run.metric(bad=value)


def test_what_is_not_finite_becomes_null(run):
    run.metric(a=math.nan, b=math.inf, c=-math.inf, d=np.float64("nan"))
    run.finish()
    assert "NaN" not in (run.folder / "run.json").read_text()
    assert stored(run)["metrics"] == dict.fromkeys("abcd")


def test_json_is_written_atomically(tmp_path):
    path = tmp_path / "a.json"
    records.write_json({"old": 1, "nested": [math.nan, {"x": (1, 2)}]}, path)
    assert json.loads(path.read_text()) == {"old": 1, "nested": [None, {"x": [1, 2]}]}
    before = path.read_bytes()
    with pytest.raises(TypeError):
        records.write_json({"new": object()}, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_tables_are_written_in_full_precision_and_handed_back(run):
    frame = pd.DataFrame({"value": [0.1 + 0.2, 1 / 3, math.nan]}, index=["x", "y", "z"])
    assert run.table(frame, "scores") is frame
    read = pd.read_csv(run.folder / "tables/scores.csv", float_precision="round_trip")
    assert read["value"].tolist()[:2] == [0.1 + 0.2, 1 / 3]
    run.table(frame, "indexed", index=True)
    assert pd.read_csv(run.folder / "tables/indexed.csv", index_col=0).index.tolist() == ["x", "y", "z"]


def test_figures_have_the_same_bytes_each_time(run):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    digests = []
    for _ in range(2):
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([1, 2])
        assert run.figure(figure, "line", svg=True) is figure
        assert set(run.outputs()) == {"figures/line.png", "figures/line.svg"}
        digests.append(run.outputs()["figures/line.png"])
    assert digests[0] == digests[1]


# --- reading ---------------------------------------------------------------------------------------


def test_a_record_is_read_back(run):
    run.metric(qwk=0.5)
    run.path("split.csv").write_text("x")
    run.finish()
    record = records.load("results/demo/01_data_audit")
    assert record.params["SEED"] == 3
    assert record.metrics == {"qwk": 0.5}
    assert record.name == "01_data_audit"
    assert record.parameters(params.DataAudit) == run.parameters
    assert record.path("split.csv").read_text() == "x"
    with pytest.raises(RecordError, match=r"results/demo/01_data_audit/manifest\.csv is missing"):
        record.path("manifest.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no finished run"),
        (b"{ torn", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"null", "cannot be read"),
        (b"{}", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b'{"status": "running"}', "is 'running', not finished"),
    ],
)
def test_what_cannot_be_used_says_which_command_makes_it(folders, content, message):
    folder = folders / "results/demo/03_fine_tuning/vgg16-seed0"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "run.json").write_bytes(content)
    command = "drstudy run 03_fine_tuning --profile demo --variant vgg16-seed0"
    with pytest.raises(RecordError, match=rf"{message}.*{command}"):
        records.load("results/demo/03_fine_tuning/vgg16-seed0")


def test_a_path_that_is_no_result_says_what_one_looks_like():
    with pytest.raises(RecordError, match="results/<profile>/<notebook>"):
        records.load("data/elsewhere")


def test_find_reads_all_records_of_a_profile_by_name():
    for variant in ("b-seed0", "a-seed0"):
        records.start(params.FineTuning(profile="demo", variant=variant)).finish()
    records.start(params.DataAudit(profile="demo")).finish()
    records.start(params.DataAudit(profile="other")).finish()
    names = [record.name for record in records.find("demo")]
    assert names == ["01_data_audit", "03_fine_tuning/a-seed0", "03_fine_tuning/b-seed0"]
    assert records.find("none") == []


def test_upstream_notes_the_record_as_input(run):
    run.finish()
    later = records.start(params.Oversampling(profile="demo"))
    records.upstream("results/demo/01_data_audit", later)
    later.finish()
    digest = paths.sha256(run.folder / "run.json")
    assert stored(later)["inputs"] == {"results/demo/01_data_audit/run.json": digest}


def test_upstream_is_made_in_smoke_alone(monkeypatch):
    calls = []

    def fake(folder):
        calls.append(paths.show(folder))
        records.start(params.FineTuning(variant="densenet121-seed0")).finish()

    monkeypatch.setattr(records, "_make", fake)
    monkeypatch.setattr(records, "git_state", dict)
    with pytest.raises(RecordError, match="Make it with"):
        records.upstream("results/demo/03_fine_tuning/densenet121-seed0")
    assert calls == []
    record = records.upstream("results/smoke/03_fine_tuning/densenet121-seed0")
    assert record.data["status"] == "finished"
    assert calls == ["results/smoke/03_fine_tuning/densenet121-seed0"]


def test_making_a_stage_shows_its_lines_and_tells_its_error(monkeypatch):
    """Also where stderr is no file, as in a kernel."""
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    with pytest.raises(
        RecordError, match=r"vgg-seed0 is needed and could not be made\. The profile 'smoke' has no stage"
    ):
        records._make(paths.results() / "smoke/03_fine_tuning/vgg-seed0")
    assert shown.getvalue().startswith("error: The profile 'smoke' has no stage")


def test_git_state_follows_the_work_tree(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert records.git_state() == {"commit": None, "dirty": None}
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "first")
    state = records.git_state()
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert records.git_state() == {"commit": state["commit"], "dirty": True}
