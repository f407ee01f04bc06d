"""The smoke profile, run as a user runs it: papermill, Snakemake, records, report; then again, and after a kill."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pandas as pd
import pytest
import torch
from expectations import Expectation, load
from windows_names import unfit

from drstudy.core import paths
from drstudy.evaluation import metrics, statistics
from drstudy.show import intervals
from drstudy.study import checklists, plan

LITE = "03_fine_tuning/efficientnet_lite0-seed0"
DENSE = "03_fine_tuning/densenet121-seed0"
FILES = {
    "01_data_audit": [
        "manifest.csv",
        "quarantine.csv",
        "audit.csv",
        "duplicates.csv",
        "split.csv",
        "images.json",
    ],
    "02_oversampling": ["tables/shares.csv", "tables/leak_exposure.csv", "tables/leaks.csv"],
    LITE: ["predictions.csv", "history.csv", "model.safetensors", "tables/test_scores.csv"],
    "04_backbone_comparison": [
        "tables/table2.csv",
        "tables/scores.csv",
        "tables/oddities.csv",
        "timings.csv",
    ],
    "11_ram": [
        "predictions.csv",
        "common_predictions.csv",
        "common_maps.npz",
        "timings.csv",
        "tables/parameters.csv",
        "tables/agreement.csv",
        "tables/heat_differences.csv",
    ],
    "12_lesions": [
        "predictions.csv",
        "common_predictions.csv",
        "common_maps.npz",
        "maps.npz",
        "efficientnet_lite0.safetensors",
        "tables/history.csv",
        "tables/thresholds.csv",
        "tables/cuts.csv",
        "tables/label_scores.csv",
        "tables/decisions.csv",
        "tables/minus_grades.csv",
        "tables/attention.csv",
        "outlines/outlines.json",
    ],
    "13_sall": [
        "predictions.csv",
        "timings.csv",
        "tables/collections.csv",
        "tables/teachers.csv",
        "tables/gains.csv",
        "tables/claims.csv",
    ],
    "14_glam": ["predictions.csv", "common_predictions.csv", "common_maps.npz"],
    "20_side_by_side": ["timings.csv", "tables/systems.csv", "tables/missing.csv", "tables/grading.csv"],
    "21_views": [
        "predictions_1.csv",
        "predictions_fresh.csv",
        "timings.csv",
        "tables/scores.csv",
        "tables/differences.csv",
    ],
    "22_external_validation": [
        "predictions_pooled.csv",
        "tables/choices.csv",
        "tables/matrix.csv",
        "tables/ablation.csv",
        "tables/curve.csv",
    ],
    "23_explorer": ["tables/systems.csv", "tables/eyes.csv", "tables/worst.csv", "tables/worst_maps.csv"],
    "05_heatmap_analysis/densenet121-seed0": [
        "maps.npz",
        "common_maps.npz",
        "tables/heat_summary.csv",
        "tables/cases.csv",
    ],
}
SLOW = 60  # seconds: what a notebook of this profile should take at most
ALREADY = 30  # seconds: a second run only plans
LONG = 20  # epochs of the run that is killed

pytestmark = pytest.mark.notebook


class Study:
    """A results folder of its own; data (the phantom, the image store) is shared."""

    def __init__(self, base: Path, data: Path) -> None:
        self.base = base
        self.environment = os.environ | {
            "DRSTUDY_RESULTS": str(base),
            "DRSTUDY_DATA": str(data),
            "OMP_NUM_THREADS": "1",  # the same bytes are asked of the same number of threads only
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "drstudy.study.cli", *arguments]

    def drstudy(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, env=self.environment)

    def folder(self, stage: str) -> Path:
        return self.base / "smoke" / stage

    def record(self, stage: str) -> dict:
        return json.loads((self.folder(stage) / "run.json").read_text())

    def take(self, other: Study, *stages: str) -> None:
        """Copy finished results of another study."""
        for stage in stages:
            shutil.copytree(other.folder(stage), self.folder(stage))

    def forget(self) -> None:
        """Empty the trained-model store, so that the next run trains."""
        shutil.rmtree(Path(self.environment["DRSTUDY_DATA"]) / "models", ignore_errors=True)

    def numbers(self, stage: str) -> dict[str, bytes]:
        """Predictions, splits and tables of a stage, byte by byte."""
        folder = self.folder(stage)
        files = [*folder.glob("tables/*.csv"), *folder.glob("predictions.csv"), *folder.glob("split.csv")]
        return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def study(tmp_path_factory, data):
    """The whole profile, reproduced."""
    made = Study(tmp_path_factory.mktemp("results"), data)
    done = made.drstudy("reproduce", "--profile", "smoke", "--study", "all", "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    made.said = done.stdout.splitlines()
    return made


@pytest.fixture
def another(tmp_path, data):
    return Study(tmp_path / "results", data)


STAGES = [stage.folder.removeprefix("results/smoke/") for stage in plan.plan("smoke", "all")]


@pytest.mark.parametrize("stage", STAGES)
def test_stage_is_finished(study, stage, record_property):
    record = study.record(stage)
    assert record["status"] == "finished"
    assert re.fullmatch("[0-9a-f]{32}", record["run_id"])
    folder = study.folder(stage)
    assert not (folder / "failure.json").exists()
    assert {name: paths.sha256(folder / name) for name in record["outputs"]} == record["outputs"]
    executed = nbformat.read(folder / "executed.ipynb", 4)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    record_property("seconds", record["seconds"])
    if record["seconds"] > SLOW:
        print(f"note: {stage} took {record['seconds']:.0f} s, more than the {SLOW} s of its budget")


@pytest.mark.parametrize("stage", FILES)
def test_stage_leaves_the_files_that_others_read(study, stage):
    missing = [name for name in FILES[stage] if name not in study.record(stage)["outputs"]]
    assert not missing


def test_windows_accepts_the_names_of_all_files_of_results_and_stores(study, data):
    for folder in (study.base, data):
        names = [
            file.relative_to(folder).as_posix()
            for file in folder.rglob("*")
            if ".snakemake" not in file.parts
        ]
        assert len(names) > 20
        assert not [f"{name}: {why}" for name in names if (why := unfit(name))]


def test_split_keeps_patients_together_and_predictions_follow_it(study):
    split = pd.read_csv(
        study.folder("01_data_audit") / "split.csv", dtype={"image_id": str, "patient_id": str}
    )
    assert list(split.columns) == ["image_id", "patient_id", "grade", "split"]
    assert set(split["split"]) == {"train", "validation", "test"}
    assert (split.groupby("patient_id")["split"].nunique() == 1).all()
    expected = split[split["split"] != "train"].set_index("image_id").sort_index()
    for stage in (LITE, DENSE):
        found = pd.read_csv(
            study.folder(stage) / "predictions.csv", dtype={"image_id": str, "patient_id": str}
        )
        assert list(found.columns) == ["image_id", "patient_id", "split", "grade", *metrics.PROBABILITIES]
        assert (
            found[metrics.PROBABILITIES].sum(axis=1).sub(1).abs().max() < 1e-6
        )  # softmax in single precision
        found = found.set_index("image_id").sort_index()[["patient_id", "grade", "split"]]
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_comparison_has_the_scores_of_the_fine_tuning(study):
    """The same predictions under the same definition: not close, equal."""
    whole = study.record("04_backbone_comparison")["metrics"]
    for stage, prefix in ((LITE, "efficientnet_lite0_seed0"), (DENSE, "densenet121_seed0")):
        own = study.record(stage)["metrics"]
        for name in ("qwk", "accuracy", "auc_ge2", "sensitivity_ge2", "qwk_lo", "qwk_hi"):
            assert whole[f"{prefix}_{name}"] == own[name], name


@pytest.mark.parametrize("expected", load(), ids=lambda e: f"{e.stage} {e.metric}")
def test_number(study, expected: Expectation):
    if expected.spread and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip(
            "without AVX2, torch resizes photographs by another method: trained numbers were not measured for it"
        )
    found = study.record(expected.stage)["metrics"][expected.metric]
    assert expected.holds(found), (
        f"{found}, not {expected.value} within {expected.tolerance} ({expected.reason})"
    )


def follows(table: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Values and intervals are those of the predictions; where a file was read between, its last digit may be another."""
    columns = ["value", "lo", "hi", "n_valid"]
    pd.testing.assert_frame_equal(
        table.set_index("metric")[columns],
        expected.set_index("metric")[columns],
        rtol=0,
        atol=1e-9,
        check_dtype=False,
    )


def test_scores_of_the_samplers_follow_from_their_predictions(study):
    """nbval does not compare these tables: an eye at the border between two grades moves them on another processor."""
    folder, p = study.folder("02_oversampling"), study.record("02_oversampling")["params"]
    table = pd.read_csv(folder / "tables" / "scores.csv", float_precision="round_trip")
    predictions = {
        sampler: metrics.read_predictions(folder / f"predictions_{sampler}.csv", "validation")
        for sampler in p["SAMPLERS"]
    }
    for sampler, one in predictions.items():
        follows(table[table["label"] == sampler], statistics.bootstrap(one, p["RESAMPLES"], p["SEED"]))
        assert study.record("02_oversampling")["metrics"][f"{sampler}_qwk"] == pytest.approx(
            metrics.evaluate(one)["qwk"]
        )
    paired = statistics.paired_difference(
        predictions["paper"], predictions["none"], p["RESAMPLES"], p["SEED"]
    )
    follows(pd.read_csv(folder / "tables" / "paper_minus_none.csv", float_precision="round_trip"), paired)


@pytest.mark.parametrize("stage", [LITE, DENSE])
def test_scores_and_model_card_follow_from_the_predictions(study, stage):
    """nbval does not compare these two tables, for the same reason."""
    folder, p = study.folder(stage), study.record(stage)["params"]
    test = metrics.read_predictions(folder / "predictions.csv")
    expected = statistics.bootstrap(test, p["RESAMPLES"], p["SEED"])
    follows(pd.read_csv(folder / "tables" / "test_scores.csv", float_precision="round_trip"), expected)
    card = pd.read_csv(folder / "tables" / "model_card.csv").set_index("field")["value"]
    assert card["test QWK"] == intervals.text(*expected.set_index("metric").loc["qwk", ["value", "lo", "hi"]])
    assert card["tested on"].startswith(f"{len(test)} images of {test['patient_id'].nunique()} patients")
    assert card["epoch kept"].startswith(
        f"{study.record(stage)['metrics']['best_epoch']:g} of {p['EPOCHS']}, "
    )


def test_progress_is_readable(study):
    assert study.said[0].startswith("smoke: ")
    assert study.said[1].startswith("to run: 00, 01, 01 amd, 02, 03 ")
    assert re.match(
        r"estimate: about \d+ \w+ on 2 cores \([0-9.]+ core-minutes, as measured on ", study.said[2]
    )
    done = [
        n
        for n, line in enumerate(study.said)
        if re.match(r"done in [0-9.]+ minutes \([0-9.]+ core-minutes\)", line)
    ]
    assert done == [len(study.said) - 3], "then what to open"
    assert study.said[-1].endswith("open results/smoke/report/index.html")
    told = [line for line in study.said if line.startswith("progress: ")]
    assert told[-1].startswith(f"progress: {len(STAGES)} of {len(STAGES)} stages finished after ")
    assert any(
        re.match(r"\[03 densenet121-seed0\] cell \d+/\d+, \d+ s: Training$", line) for line in study.said
    )
    # a kernel's interpreter may have last words of its own when it is shut down; the stages' lines are ours
    own = [
        line
        for line in study.said[3:-3]
        if re.search(r"cell \d+/\d+|epoch \d+/\d+| starts: | finished in ", line)
    ]
    prefix = re.compile(r"\[\d\d( [a-z0-9_]+-seed0| amd)?\] ")
    assert len(own) > 50
    strange = [line for line in own if not prefix.match(line) or len(prefix.findall(line)) > 1]
    assert not strange, "every line says which stage it is of"


def test_second_run_does_nothing_and_says_so(study):
    before = {file: file.stat().st_mtime_ns for file in study.base.rglob("run.json")}
    began = time.monotonic()
    done = study.drstudy("reproduce", "--profile", "smoke", "--study", "all")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == [
        "nothing to do: everything is finished; open results/smoke/report/index.html"
    ]
    assert {file: file.stat().st_mtime_ns for file in study.base.rglob("run.json")} == before
    assert time.monotonic() - began < ALREADY


def test_failure_is_told_by_the_notebooks_error(tmp_path):
    """Not by Snakemake's account of it: data cannot be written, since a file is where their folder should be."""
    (tmp_path / "file").touch()
    broken = Study(tmp_path / "results", tmp_path / "file" / "data")
    done = broken.drstudy("reproduce", "--profile", "smoke", "--until", "03")
    assert done.returncode == 1
    first, cell, *told, last = done.stderr.splitlines()
    assert first.startswith("failed: 01: NotADirectoryError: ")
    assert re.fullmatch(r'  Cell \[\d+\], under ".+":', cell)
    assert any(re.match(r"  > +\d+ \| ", line) for line in told), "the failing line is marked"
    assert any(line.startswith("  What to do: ") for line in told)
    assert "  Run this stage alone: drstudy run 01_data_audit --profile smoke" in told
    assert last.startswith("1 failed after ")
    assert "error: 01 failed. NotADirectoryError: " in done.stdout
    assert "drstudy run 01_data_audit --profile smoke" in done.stdout
    for word in ("Traceback", "snakemake", "Snakemake", "rule"):
        assert word not in done.stdout + done.stderr


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("href", "src") and value]


def test_report_links_resolve(study):
    """Every link and picture of every page; nothing is fetched from a network."""
    pages = sorted((study.base / "smoke" / "report").glob("*.html"))
    assert len(pages) == 1 + 2 * len(STAGES) + len(checklists.sheets())
    problems, checked = [], 0
    for page in pages:
        links = _Links()
        links.feed(page.read_text(encoding="utf-8"))
        for link in links.found:
            target = unquote(link.split("#")[0])
            if re.match(r"https?://|//", link):
                problems.append(f"{page.name}: {link} is elsewhere")
            elif target and not link.startswith("data:") and not (page.parent / target).resolve().is_file():
                problems.append(f"{page.name}: {link} is not there")
            checked += 1
    assert not problems, "\n".join(problems)
    assert checked > 50
    summary = json.loads((study.base / "smoke" / "summary.json").read_text())
    assert set(summary) == set(STAGES)


def test_twice_the_same_bytes(study, another):
    """Fresh kernels, a fresh results folder: predictions and tables are equal byte by byte."""
    another.take(study, "01_data_audit", DENSE)
    another.forget()
    for notebook, stage in (("03", LITE), ("04", "04_backbone_comparison")):
        variant = ("--variant", "efficientnet_lite0-seed0") if notebook == "03" else ()
        done = another.drstudy("run", notebook, "--profile", "smoke", *variant)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(study.numbers(stage)) >= 3
        assert another.numbers(stage) == study.numbers(stage)


def test_killed_run_goes_on_and_ends_the_same(study, another, tmp_path):
    """SIGKILL in the middle of training; then the same command, against a run that nobody disturbed."""
    run = ("run", "03", "--profile", "smoke", "--variant", "efficientnet_lite0-seed0", "-p", f"EPOCHS={LONG}")
    another.take(study, "01_data_audit")
    process = subprocess.Popen(
        another.command(*run),
        stdout=subprocess.PIPE,
        text=True,
        env=another.environment,
        start_new_session=True,
    )
    for line in process.stdout:
        if f"epoch {LONG // 4}/{LONG}:" in line:
            break
    else:
        pytest.fail("it ended before it could be killed")
    os.killpg(process.pid, signal.SIGKILL)  # the kernel, which has a session of its own, follows its parent
    process.wait()
    folder = another.folder(LITE)
    assert not (folder / "run.json").exists()
    assert not list(folder.glob("predictions.csv"))
    wait_for_kernel(folder)

    undisturbed = Study(tmp_path / "undisturbed", Path(another.environment["DRSTUDY_DATA"]))
    undisturbed.take(study, "01_data_audit")
    for one in (another, undisturbed):
        one.forget()
        done = one.drstudy(*run)
        assert done.returncode == 0, done.stdout + done.stderr
        first = int(re.search(rf"epoch (\d+)/{LONG}:", done.stdout)[1])
        assert first > LONG // 4 if one is another else first == LONG // 20
    assert another.numbers(LITE) == undisturbed.numbers(LITE)
    history = [one.folder(LITE) / "history.csv" for one in (another, undisturbed)]
    assert history[0].read_bytes() == history[1].read_bytes()

    done = another.drstudy(
        "reproduce", "--profile", "smoke", "--until", "03"
    )  # those are not the profile's parameters
    assert done.returncode == 0, done.stdout + done.stderr
    assert another.numbers(LITE) == study.numbers(LITE)


def wait_for_kernel(folder: Path, seconds: float = 15) -> None:
    """Until no file of a killed run changes any more: its kernel looks for its parent once a second."""
    seen, since = None, time.monotonic()
    while time.monotonic() - since < seconds:
        state = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
        if state == seen:
            return
        seen = state
        time.sleep(2)
    pytest.fail("the kernel lives on without its parent")
