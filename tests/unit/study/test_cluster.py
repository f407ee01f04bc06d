"""What is said before anything is handed to a cluster, and what Snakemake is told."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from drstudy.core import paths
from drstudy.study import cluster, execute, plan
from drstudy.study.run import StageError


@pytest.fixture
def installed(monkeypatch):
    """As on a login node with Snakemake's SLURM executor."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (None, FileNotFoundError, "It must be a profile of Snakemake, such as cluster/slurm"),
        ("executor: [", ValueError, "is not valid YAML"),
        ("jobs: 3", ValueError, "names no executor"),
        ("- slurm", ValueError, "names no executor"),
    ],
)
def test_a_folder_that_is_no_profile_of_snakemake(tmp_path, installed, text, error, says):
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(error, match=says) as raised:
        cluster.options(tmp_path)
    assert str(tmp_path / "config.yaml") in str(raised.value)


def test_a_plugin_that_is_not_installed(tmp_path):
    (tmp_path / "config.yaml").write_text("executor: no-such-scheduler\n")
    with pytest.raises(
        StageError, match=r"not installed: pip install .*snakemake-executor-plugin-no-such-scheduler"
    ):
        cluster.options(tmp_path)


def test_a_machine_that_cannot_hand_in_jobs(installed, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(StageError, match=r"There is no sbatch on this machine.*login node"):
        cluster.options(paths.root() / "cluster" / "slurm")


def test_a_relative_folder_is_one_of_the_caller(tmp_path, installed, monkeypatch):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "config.yaml").write_text("executor: slurm\n")
    monkeypatch.chdir(tmp_path)
    assert cluster.options((tmp_path / "ours").relative_to(tmp_path)) == ["--profile", str(tmp_path / "ours")]


def test_a_cluster_decides_how_many_jobs_run_side_by_side(own_folders, installed):
    here = execute.command("smoke", "core", "01", 3)
    there = execute.command("smoke", "core", "01", 3, cluster=paths.root() / "cluster" / "slurm")
    assert here[here.index("--cores") + 1] == "3"
    assert "--profile" not in here
    assert there[there.index("--profile") + 1] == str(paths.root() / "cluster" / "slurm")
    assert "cores=3" in there[there.index("--config") + 1 : there.index("--profile")]
    assert "--cores" not in there  # Snakemake would take it for the cores of all jobs together


def test_a_stage_asks_for_gpus_if_it_runs_networks():
    asked = {stage.notebook: stage.gpus for stage in plan.plan("paper")}
    assert asked["00_paper_audit"] == asked["01_data_audit"] == asked["04_backbone_comparison"] == 0
    assert asked["03_fine_tuning"] == asked["05_heatmap_analysis"] == 1


def test_one_gpu_for_each_process_and_none_on_the_cpu(monkeypatch):
    stage = plan.stage("03", "smoke", "densenet121-seed0")
    given = stage.parameters()
    for changed, gpus in (({"device": "cpu"}, 0), ({"processes": 4}, 4), ({"device": "cuda"}, 1)):
        monkeypatch.setattr(type(stage), "parameters", lambda self, c=changed: given.model_copy(update=c))
        assert stage.gpus == gpus
