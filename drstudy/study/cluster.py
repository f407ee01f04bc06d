"""A cluster on which Snakemake runs the stages: one of its profiles, a folder with a ``config.yaml`` such as ``cluster/slurm``.

Snakemake and the plugin of its executor do the work. This module only says beforehand, in one sentence, what is missing.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import yaml

from drstudy.study.failures import StageError

CORES = 8
"""Cores that a stage which uses a whole machine asks for, unless `drstudy reproduce --cores` says otherwise."""
SUBMIT = {"slurm": "sbatch", "lsf": "bsub"}
"""The program by which an executor hands in a job."""


def options(folder: Path) -> list[str]:
    """Options of Snakemake for a cluster.

    Args:
        folder: Of the profile of Snakemake (not one of this study's profiles).

    Raises:
        FileNotFoundError: If it has no ``config.yaml``.
        ValueError: If that file is not a YAML mapping that names an executor.
        StageError: If the plugin of the executor is not installed, or this machine cannot hand in jobs.
    """
    file = folder.resolve() / "config.yaml"
    if not file.is_file():
        raise FileNotFoundError(
            f"--cluster {folder}: there is no {file}. It must be a profile of Snakemake, such as cluster/slurm of this project."
        )
    executor = _executor(file)
    if not importlib.util.find_spec(f"snakemake_executor_plugin_{executor.replace('-', '_')}"):
        raise StageError(
            f"{file} asks for the executor {executor!r}, which is not installed: "
            f"pip install -c constraints.txt -e '.[cluster]' for SLURM, else pip install snakemake-executor-plugin-{executor}."
        )
    program = SUBMIT.get(executor, "")
    if program and not shutil.which(program):
        raise StageError(
            f"There is no {program} on this machine, so it cannot hand in jobs. Start drstudy on a login node of the cluster."
        )
    return ["--profile", str(file.parent)]


def _executor(file: Path) -> str:
    """Name of the executor that a profile asks for."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {error}") from error
    executor = content.get("executor") if isinstance(content, dict) else None
    if not executor or not isinstance(executor, str):
        raise ValueError(f"{file} names no executor. It needs a line such as `executor: slurm`.")
    return executor
