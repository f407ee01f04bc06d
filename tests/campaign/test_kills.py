"""`drstudy reproduce`, killed again and again, ends with the bytes of an undisturbed run; also under unusual names of folder and profile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from example_paper import COPIED

from drstudy.core import paths

pytestmark = [pytest.mark.notebook, pytest.mark.slow]
KILLS = 10
COMPARED = ("predictions.csv", "history.csv", "split.csv", "manifest.csv", "tables/*.csv")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with one small profile, whose name looks like a number."""
    root = tmp_path_factory.mktemp("kills") / "it's {a} folder"
    for name in COPIED:
        source, target = paths.root() / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    own = root / "params" / "2024"
    own.mkdir()
    (own / "profile.yaml").write_text("description: x\nbackbones: [efficientnet_lite0]\n")
    (own / "01_data_audit.yaml").write_text("N_PATIENTS: 24\nIMAGE_SIZE: 64\nPHANTOM_SIZE: 128\n")
    (own / "03_fine_tuning.yaml").write_text("EPOCHS: 6\nINPUT_SIZE: 64\nRESAMPLES: 20\n")
    return root


def start(project: Path, where: Path, until: str = "03", **how) -> subprocess.Popen:
    folders = {"DRSTUDY_RESULTS": str(where / "results"), "DRSTUDY_DATA": str(where / "data")}
    command = [
        sys.executable,
        "-m",
        "drstudy.study.cli",
        "reproduce",
        "--profile",
        "2024",
        "--until",
        until,
        "--cores",
        "1",
    ]
    return subprocess.Popen(
        command,
        cwd=project,
        env={**os.environ, **folders, "PYTHONPATH": str(project)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **how,
    )


@pytest.mark.skipif(
    not hasattr(signal, "SIGKILL"), reason="no process on Windows can ignore Ctrl-C for its children"
)
def test_a_run_in_the_background_that_ignores_interrupts_starts_nothing_after_it_was_stopped(
    project, tmp_path
):
    """`nohup drstudy reproduce &` in a script, and later `kill`: Snakemake inherits that SIGINT is ignored."""

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    process = start(project, tmp_path, "0", preexec_fn=ignore)
    said = ""
    while " starts: " not in said:
        said += process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=200)
    assert process.returncode == 130, said + rest
    assert " starts: " not in rest, "other stages need nothing of this one"
    assert "stopped; finished stages are kept" in rest


def finished(project: Path, where: Path) -> Path:
    process = start(project, where)
    said, _ = process.communicate(timeout=500)
    assert process.returncode == 0, said
    return where / "results" / "2024"


def test_reproduce_killed_at_random_moments_ends_with_the_same_bytes(project, tmp_path):
    undisturbed = finished(project, tmp_path / "a {b}")
    rng = np.random.default_rng(0)
    for turn in range(KILLS):
        process = start(project, tmp_path / "killed")
        time.sleep(float(rng.uniform(1, 14)))
        if turn % 2:
            process.send_signal(signal.SIGTERM)
        else:
            os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate(timeout=200)
        assert "Traceback" not in said
    disturbed = finished(project, tmp_path / "killed")
    files = [file for pattern in COMPARED for file in sorted(undisturbed.rglob(pattern))]
    assert len(files) > 5
    for file in files:
        other = disturbed / file.relative_to(undisturbed)
        assert other.read_bytes() == file.read_bytes(), file.name
    networks = [
        json.loads((folder / "03_fine_tuning/efficientnet_lite0-seed0/run.json").read_text())
        for folder in (undisturbed, disturbed)
    ]
    assert networks[0]["outputs"]["model.safetensors"] == networks[1]["outputs"]["model.safetensors"]
    left = [
        path
        for path in (tmp_path / "killed").rglob(".*")
        if path.is_file() and path.suffix in (".npy", ".csv", ".json", ".safetensors")
    ]
    assert not left, left
