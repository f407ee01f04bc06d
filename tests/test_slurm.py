"""Stages on a SLURM of one node: jobs wait for the node, one that is killed runs again, and the tables are those of a local run.

It needs the Debian packages slurm-wlm and munge, and the extra ``cluster`` of this project; docs/gpu.md has what a user types.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import slurm
import yaml

from drstudy.core import paths

pytestmark = [pytest.mark.slow, pytest.mark.notebook]
PATIENCE = 300
"""Seconds until a test gives up on a busy machine."""
QUICK = {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 2, "latency-wait": 5}
"""What the test changes in the project's profile: it asks soon, and not an accounting database, which the loopback has not."""


@pytest.fixture
def cluster():
    """A running SLURM; the test is skipped where it is not installed."""
    if absent := slurm.missing():
        pytest.skip(
            f"no SLURM: {', '.join(absent)} missing (Debian: apt-get install slurmctld slurmd slurm-client munge)"
        )
    if not importlib.util.find_spec("snakemake_executor_plugin_slurm"):
        pytest.skip("Snakemake's SLURM executor is missing (pip install -c constraints.txt -e '.[cluster]')")
    with tempfile.TemporaryDirectory() as folder, slurm.Cluster(Path(folder)) as running:
        yield running


def start(folder: Path, *options: str, environment: dict[str, str] | None = None) -> subprocess.Popen:
    """`drstudy reproduce` of the profile smoke up to notebook 01, with data and results of its own."""
    own = {"DRSTUDY_DATA": str(folder / "data"), "DRSTUDY_RESULTS": str(folder / "results")}
    command = ["-m", "drstudy.study.cli", "reproduce", "--profile", "smoke", "--until", "01", *options]
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | (environment or {}) | own,
        cwd=paths.root(),
    )


def end(process: subprocess.Popen) -> str:
    """Wait for it; returns what it printed."""
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert "done in" in said
    return said


def until(found, process: subprocess.Popen, what: str):
    """Wait until a function finds something, while the process runs; returns what it found."""
    last = time.monotonic() + PATIENCE
    while not (value := found()):
        assert process.poll() is None, f"it ended before {what}: {process.communicate()[0]}"
        assert time.monotonic() < last, f"{what} did not come to pass"
        time.sleep(0.3)
    return value


def tables(folder: Path) -> dict[str, bytes]:
    """Every table of the results but those of measured times."""
    root = folder / "results"
    files = [file for file in root.rglob("*.csv") if file.name != "timings.csv"]
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in files}


def test_a_killed_job_runs_again_and_the_tables_are_those_of_a_local_run(tmp_path, cluster):
    end(start(tmp_path / "local", "--cores", "1"))

    profile = yaml.safe_load((paths.root() / "cluster/slurm/config.yaml").read_text()) | QUICK
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "config.yaml").write_text(yaml.safe_dump(profile))
    filler = cluster("sbatch", "--parsable", "--exclusive", "--output=/dev/null", "--wrap=sleep 900").strip()
    folder = tmp_path / "cluster"
    options = ("--cluster", str(tmp_path / "profile"), "--cores", "2")
    process = start(folder, *options, environment=cluster.environment)

    def in_state(state: str, *but: str):
        return [n for n, job in cluster.jobs().items() if job[0] == state and n not in (filler, *but)]

    try:
        [first] = until(lambda: in_state("PENDING"), process, "a job waits for the node")
        _, comment, cores, _ = cluster.jobs()[first]
        assert "01_data_audit" in comment
        assert cores == "2"
        cluster("scancel", filler)
        works = folder / "results" / "smoke" / "01_data_audit" / ".lock"
        until(works.is_file, process, "the job works on notebook 01")
        assert in_state("RUNNING") == [first]
        cluster("scancel", first)
        [second] = until(lambda: in_state("RUNNING", first), process, "a second job runs")
        assert first in in_state("CANCELLED")
        end(process)
    finally:
        process.terminate()
        process.wait(60)
    assert cluster.jobs()[second][0] == "COMPLETED"
    assert len(cluster.jobs()) == 3
    local = tables(tmp_path / "local")
    assert "smoke/01_data_audit/split.csv" in local
    assert tables(folder) == local
