"""One task trained by several processes: one per GPU, or on a CPU to test it.

Each step's batch is divided among the processes; norms, losses and gradients are those of the whole batch, and validation images are
dealt out, none twice and none left out. ``PROCESSES: n`` in a notebook's parameters does it. Without a notebook::

    accelerate launch --multi_gpu --num_processes 2 -m drstudy.training.process MODULE:FUNCTION \
        params/paper/03_fine_tuning.yaml -p BACKBONE=densenet121

leaves checkpoints, from which the notebook of the same parameters goes on to the predictions.
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
    """Refuse processes that could not be started, before anything is computed.

    Raises:
        ValueError: If the parameters do not say how another process makes the task (``made_by``), or if ``folder`` is not their result
            folder, where checkpoints meet.
    """
    if not getattr(p, "made_by", "") or folder is None or folder != p.folder:
        raise ValueError(
            "PROCESSES above 1 is for a notebook whose parameters say how other processes make its task (made_by), and that trains into "
            "its own result folder, where the checkpoints meet. Set PROCESSES to 1."
        )


def start(p: Training) -> None:
    """Train in ``p.processes`` processes; what they leave are finished checkpoints.

    Raises:
        RuntimeError: If a process failed, with the end of what they said.
    """
    command = [sys.executable, "-m", "accelerate.commands.launch", f"--num_processes={p.processes}"]
    # its --cpu starts one process; with --multi_gpu each takes a GPU where there is one, else the CPU
    command += ["--multi_gpu", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "recipe.yaml"
        file.write_text(yaml.safe_dump(p.upper()))
        command += ["-m", "drstudy.training.process", p.made_by, str(file)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=paths.root()
        )
        said: list[str] = []
        for line in process.stdout:
            said = [*said[-100:], line]
            if line.startswith(("epoch", "feature store", "resumed")):
                print(line, end="", flush=True)
        if process.wait():
            raise RuntimeError(f"Training in {p.processes} processes failed:\n{''.join(said)}")
