"""One task trained by several processes: one per GPU, or several on a CPU to test it.

Each step's batch is divided among the processes. Norms, losses and gradients are those of the whole batch, and each validation image is
computed by one process. ``PROCESSES: n`` in a notebook's parameters starts them. Without a notebook::

    accelerate launch --multi_gpu --num_processes 2 -m drstudy.training.process MODULE:FUNCTION \
        params/paper/common.yaml params/paper/03_fine_tuning.yaml -p BACKBONE=densenet121 -p VARIANT=densenet121-seed0

This leaves checkpoints in the result folder of these parameters, from which the notebook with the same parameters goes on to the predictions.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from drstudy.core import paths

if TYPE_CHECKING:
    from drstudy.training.recipe import Training


def check(p: Training, folder: Path | None) -> None:
    """Refuse several processes that could not be started, before anything is computed.

    Args:
        p: The recipe.
        folder: Folder of the checkpoints, as given to :func:`drstudy.training.loop.fit`.

    Raises:
        ValueError: If the parameter class does not name the function that makes the task in another process (``made_by``), or if
            ``folder`` is not the result folder of the parameters, through which the processes hand over checkpoints.
    """
    if not getattr(p, "made_by", "") or folder is None or folder != p.folder:
        raise ValueError(
            "PROCESSES above 1 is for a notebook whose parameters say how other processes make its task (made_by), and that trains into "
            "its own result folder, where the checkpoints meet. Set PROCESSES to 1."
        )


def start(p: Training) -> None:
    """Train in ``p.processes`` processes, which leave finished checkpoints in ``p.folder``.

    Raises:
        RuntimeError: If a process failed, with the end of its output.
    """
    command = [sys.executable, "-m", "accelerate.commands.launch", f"--num_processes={p.processes}"]
    # its --cpu starts one process; with --multi_gpu each takes a GPU where there is one, else the CPU
    command += ["--multi_gpu", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "recipe.yaml"
        file.write_text(yaml.safe_dump(p.upper()), encoding="utf-8")
        command += ["-m", "drstudy.training.process", p.made_by, str(file)]
        read = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "encoding": "utf-8",
            "errors": "replace",
        }
        process = subprocess.Popen(command, cwd=paths.root(), **read)
        said: list[str] = []
        for line in process.stdout:
            said = [*said[-100:], line]
            if line.startswith(("epoch", "feature store", "resumed")):
                print(line, end="", flush=True)
        if process.wait():
            raise RuntimeError(f"Training in {p.processes} processes failed:\n{''.join(said)}")
