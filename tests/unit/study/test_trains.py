"""What trains anew and what does not: in a copy of the project, after real training, for each kind of change and for each module."""

from __future__ import annotations

import json
import re

import pytest
from example_paper import Copy

pytestmark = [pytest.mark.notebook, pytest.mark.slow]

VARIANT = "efficientnet_lite0-seed0"
UNTIL = ("reproduce", "--profile", "smoke", "--until", "03")
NOTHING = "trains nothing: its networks are in the trained-model store"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy in which the photographs of the smoke profile are audited and one network is trained."""
    made = Copy(tmp_path_factory.mktemp("trains"))
    profile = made.root / "params/smoke/profile.yaml"
    text = re.sub(r"backbones: .*", "backbones: [efficientnet_lite0]", profile.read_text())
    profile.write_text(text.partition("overrides:")[0])  # which are of the other backbone
    made.drstudy(*UNTIL)
    return made


def record(copy):
    """The record of the network, without the digest of itself, so that tests may change it."""
    found = json.loads((copy.results / "03_fine_tuning" / VARIANT / "run.json").read_text())
    found.pop("digest")
    return found


def plan(copy) -> str:
    """The line of a dry run about the network."""
    lines = copy.drstudy(*UNTIL, "--dry-run").splitlines()
    return next((line for line in lines if line.startswith("03 ")), "")


@pytest.fixture
def changed(copy):
    """Changes files of the copy for one test: ``changed(name, old, new)``."""
    before = {}

    def change(name: str, old: str, new: str) -> None:
        file = copy.root / name
        text = before.setdefault(file, file.read_text() if file.exists() else None)
        assert old in (text or "")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((file.read_text() if file.exists() else "").replace(old, new, 1) if old else new)

    yield change
    for file, text in before.items():
        if text is None:
            file.unlink()
        else:
            file.write_text(text)


def test_what_is_finished_has_nothing_to_do(copy):
    assert plan(copy) == ""
    assert len(record(copy)["trainings"]["keys"]) == 1


SHOWN = {
    "a colour": ("drstudy/show/style.py", "#", "#"),
    "a sentence of the notebook": ("notebooks/03_fine_tuning.ipynb", "# 03 ", "# 03: "),
    "a new field of another paper's parameters": (
        "drstudy/papers/ram/params.py",
        "    resamples: Positive = 200\n",
        "    resamples: Positive = 200\n    extra: Positive = 1\n",
    ),
    "a parameter that is only shown": ("params/smoke/03_fine_tuning.yaml", "", "RESAMPLES: 150\n"),
}
LEARNT = {
    "the learning rate": ("params/smoke/03_fine_tuning.yaml", "", "LEARNING_RATE: 2.0e-3\n", "LEARNING_RATE"),
    "the sampler": ("params/smoke/03_fine_tuning.yaml", "", "SAMPLER: inverse\n", "SAMPLER"),
    "the code of the loss": (
        "drstudy/training/grading.py",
        "label_smoothing=self.p.label_smoothing)",
        "label_smoothing=self.p.label_smoothing + 0.01)",
        "drstudy/training/grading.py",
    ),
    "the photographs": (
        "params/smoke/01_data_audit.yaml",
        "",
        "N_PATIENTS: 41\n",
        "01 may give other data",
    ),
    "the code that makes photographs": (
        "drstudy/data/phantom/camera.py",
        "\n\n\n",
        "\n\n\nCHANGED = 1\n\n\n",
        "01 may give other data",
    ),
}


def colour(copy):
    """The first colour of the style, and another one in its place."""
    text = (copy.root / "drstudy/show/style.py").read_text()
    found = re.search(r"#[0-9a-f]{6}", text)[0]
    return found, "#123456"


@pytest.mark.parametrize("kind", SHOWN)
def test_what_is_shown_trains_nothing(copy, changed, kind):
    name, old, new = SHOWN[kind]
    changed(name, *(colour(copy) if kind == "a colour" else (old, new)))
    line = plan(copy)
    if "another paper" in kind:
        assert line == ""
    else:
        assert NOTHING in line


@pytest.mark.parametrize("kind", LEARNT)
def test_what_is_learnt_trains(copy, changed, kind):
    name, old, new, why = LEARNT[kind]
    changed(name, old, new)
    line = plan(copy)
    assert "(trains: " in line, line
    assert why in line.partition("(trains: ")[2]


def test_a_stage_that_runs_for_another_reason_finds_its_network(copy, changed):
    """As said by the dry run: the same bytes, in seconds, with the costs of the training that was found."""
    folder = copy.results / "03_fine_tuning" / VARIANT
    names = ["predictions.csv", "history.csv", "model.safetensors"]
    names += [f"tables/{file.name}" for file in (folder / "tables").iterdir()]
    before, kept = record(copy), {name: (folder / name).read_bytes() for name in names}
    models = sorted((copy.results.parents[1] / "data/models").iterdir())
    changed("drstudy/show/style.py", *colour(copy))
    copy.drstudy(*UNTIL)
    after = record(copy)
    assert after["run_id"] != before["run_id"]
    assert (before["trainings"]["found"], after["trainings"]["found"]) == (0, 1)
    assert "trained before, with the same recipe" in (folder / "executed.ipynb").read_text()
    assert {name: (folder / name).read_bytes() for name in names} == kept
    assert after["metrics"]["seconds_per_epoch"] == before["metrics"]["seconds_per_epoch"]
    assert sorted((copy.results.parents[1] / "data/models").iterdir()) == models
    assert plan(copy) == ""


def test_a_stage_whose_learning_changed_trains(copy, changed):
    changed("params/smoke/03_fine_tuning.yaml", "", "EPOCHS: 1\n")
    copy.drstudy(*UNTIL)
    text = (copy.results / "03_fine_tuning" / VARIANT / "executed.ipynb").read_text()
    assert "epoch 1/1" in text
    assert "trained before" not in text


FEEDS = """
import json
from drstudy.study import plan, reasons, trains

stages = plan.plan("smoke", "all")
found = reasons.find(stages)
print(json.dumps({stage.name: trains.why(stage, found) for stage in stages}))
"""


def test_a_network_that_is_fed_by_another_result_trains_when_that_one_changes(copy, changed):
    """Notebook 05 trains one network by the recipe of notebook 03, on the photographs behind it."""
    copy.drstudy(*UNTIL)
    folder = copy.results / "05_heatmap_analysis" / VARIANT
    folder.mkdir(parents=True)
    made = record(copy) | {"notebook": "05_heatmap_analysis", "outputs": {}}
    plain = copy.python(
        "-c",
        "from drstudy.study import plan; import json; print(json.dumps(plan.stage('05', 'smoke').parameters().upper()))",
    )
    made["params"] = json.loads(plain.stdout)
    (folder / "run.json").write_text(json.dumps(made))

    def says():
        done = copy.python("-c", FEEDS)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)[f"05 {VARIANT}"]

    assert says() == []
    changed("params/smoke/03_fine_tuning.yaml", "", "LEARNING_RATE: 2.0e-3\n")
    assert says() == [f"03 {VARIANT} may give other data"]
    (folder / "run.json").write_text(json.dumps(made | {"packages": made["packages"] | {"torch": "1.0"}}))
    assert any(line.startswith("torch is ") for line in says())
    without = made | {
        "trainings": {"keys": [], "code": {}, "found": 0},
        "params": made["params"] | {"SEED": 9},
    }
    (folder / "run.json").write_text(json.dumps(without))
    assert says() == ["parameter SEED changed"], "a record without networks may get some by another parameter"


TOUCH = """
import json
from pathlib import Path
from drstudy.core import code
from drstudy.study import execute

found = {}
for file in sorted((code.ROOT / "drstudy").rglob("*.py")):
    text = file.read_bytes()
    file.write_bytes(text + b"\\nTOUCHED = 1\\n")
    found[file.relative_to(code.ROOT).as_posix()] = execute.pending("smoke", "03")
    file.write_bytes(text)
print(json.dumps(found))
"""


def test_each_module_touched_trains_only_if_it_decides_what_is_learnt(copy):
    copy.drstudy(*UNTIL)
    done = copy.python("-c", TOUCH)
    assert done.returncode == 0, done.stderr
    found = {name: lines.get(f"03 {VARIANT}", "") for name, lines in json.loads(done.stdout).items()}
    training = {name for name, line in found.items() if "(trains: " in line}
    floors = {name.split("/")[1] for name in training}
    assert floors <= {"training", "models", "data", "core"}
    assert {name for name in training if name.startswith("drstudy/core/")} == {"drstudy/core/devices.py"}
    assert {
        "drstudy/training/loop.py",
        "drstudy/training/task.py",
        "drstudy/training/grading.py",
        "drstudy/training/features.py",
        "drstudy/training/sampling.py",
        "drstudy/training/transforms.py",
        "drstudy/models/nets.py",
        "drstudy/models/convolutions.py",
        "drstudy/data/dataset.py",
        "drstudy/data/phantom/lesions.py",
    } <= training
    for room in ("show", "study", "explain", "evaluation", "papers"):
        lines = {line for name, line in found.items() if name.startswith(f"drstudy/{room}/") and line}
        assert all(NOTHING in line for line in lines), room
    assert any(line for name, line in found.items() if name == "drstudy/show/style.py"), (
        "a colour is a reason to run"
    )
