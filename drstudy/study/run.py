"""One stage: its notebook runs through papermill, and counts as done only if it leaves a finished record of this very run."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from drstudy.core import params, paths, records
from drstudy.papers.base import Stage
from drstudy.study import digests, failures
from drstudy.study.failures import StageError


def say(line: str) -> None:
    """Print a line in one write, so that lines of stages that run side by side do not run into each other."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Lines(io.TextIOBase):
    """Writes whole lines with the stage's name in front, so that parallel stages stay readable in a terminal and a log."""

    def __init__(self, prefix: str) -> None:
        self.prefix, self.rest = prefix, ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            if line.strip():
                say(f"[{self.prefix}]   {line.rstrip()}")
        return len(text)


def _engine(name: str, threads: int) -> str:
    """Register papermill's engine with a progress line per heading; returns the engine's name."""
    from papermill.engines import NBClientEngine, papermill_engines

    from drstudy.study import kernels

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **kwargs):
            start, began, told = nb_man.cell_start, time.monotonic(), [""]
            total = len(nb_man.nb.cells)

            def cell_start(cell, cell_index=None, **more):
                heading = failures.heading(nb_man.nb.cells, cell_index)
                if cell.cell_type == "code" and heading != told[0]:
                    told[0] = heading
                    say(
                        f"[{name}] cell {cell_index + 1}/{total}, {time.monotonic() - began:.0f} s: {heading}"
                    )
                return start(cell, cell_index, **more)

            nb_man.cell_start = cell_start
            kwargs["kernel_manager_class"] = kernels.manager(threads)
            kwargs["shutdown_kernel"] = (
                "immediate"  # it has written all; taking a network apart takes seconds
            )
            kwargs["extra_arguments"] = [
                "--IPKernelApp.log_level=50"
            ]  # its start-up and shutdown chatter is not about the study
            return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)

    papermill_engines.register("drstudy", Engine)
    return "drstudy"


def run(stage: Stage, overrides: dict[str, Any] | None = None) -> records.Record:
    """Run one stage: check its parameters, execute its notebook, and judge the outcome by its record.

    Args:
        stage: Of :func:`drstudy.study.plan.plan`.
        overrides: Further UPPER_CASE parameters, over all others.

    Returns:
        The finished record.

    Raises:
        params.ParameterError: Before a kernel starts.
        StageError: If a cell failed, the kernel died, or no finished record of this very run was left; ``failure.json`` then
            holds the parameters and the traceback.
    """
    checked = stage.parameters(overrides)
    began = time.monotonic()
    with alone(checked.folder, stage.name):
        for stale in ("run.json", failures.NAME):
            (checked.folder / stale).unlink(missing_ok=True)
        say(f"[{stage.name}] starts: {paths.show(checked.folder)}")
        try:
            record = _execute(stage, checked)
        except BaseException as error:
            (checked.folder / "run.json").unlink(missing_ok=True)  # written, perhaps, before papermill failed
            reason = failures.write(stage, checked, error)
            if not isinstance(error, Exception):
                raise
            raise StageError(reason) from error
    seconds, memory = time.monotonic() - began, record.data["peak_rss_mb"]
    say(f"[{stage.name}] finished in {seconds:.0f} s, peak memory {memory:.0f} MiB")
    return record


def _execute(stage: Stage, checked: params.Parameters) -> records.Record:
    """Run the notebook in a kernel, and read the record that it left."""
    papermill = load_papermill()
    run_id = uuid.uuid4().hex
    told = {records.RUN_ID: run_id, records.MADE_BY: json.dumps(digests.made_by(stage, checked))}
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("PYTHONHASHSEED", "0")
    threads = getattr(checked, "threads", 0)
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.update(told)
    logging.getLogger("papermill").addFilter(_is_not_on_settings)
    try:
        papermill.execute_notebook(
            _literal(paths.root() / "notebooks" / f"{stage.notebook}.ipynb"),
            _literal(checked.folder / "executed.ipynb"),
            parameters=checked.upper(),
            engine_name=_engine(stage.name, threads),
            kernel_name="python3",
            cwd=paths.root() / "notebooks",
            progress_bar=False,
            stdout_file=Lines(stage.name),
        )
    finally:
        for name in told:  # they are about this run only
            os.environ.pop(name, None)
    try:
        record = records.load(checked.folder)
    except records.RecordError as error:
        raise StageError(
            "it ended without a finished record: a cell left early, or run.finish() was not reached"
        ) from error
    if record.data["run_id"] != run_id:
        raise StageError("its record is of another run")
    return record


def load_papermill() -> ModuleType:
    """papermill, without two packages that it imports if they are installed, for files on HDFS and for a format of JSON: they take two seconds."""
    with without("pyarrow", "rfc3987_syntax"):
        import papermill
    return papermill


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Let modules seem not to be installed, for a library that imports them if they are. One that is imported already stays."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # None is how Python itself marks a module that cannot be imported
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _is_not_on_settings(line: logging.LogRecord) -> bool:
    """Whether a line of papermill is not its warning of names that the cell tagged `parameters` lacks. Every name was checked before; those
    that stand in the cell `settings` are known to the notebook's class and not to papermill."""
    return not line.getMessage().startswith("Passed unknown parameter")


def _literal(path: Path) -> str:
    """A path as papermill takes it, which would fill in parameters between braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


@contextmanager
def alone(folder: Path, what: str, name: str = ".lock") -> Iterator[None]:
    """Keep two processes from working in one folder. The lock dies with the process, so nothing needs unlocking after a kill.

    Args:
        folder: Where the work is done; it is made where it is missing.
        what: The work, for the message.
        name: Of the lock file in the folder.

    Raises:
        StageError: If another process has the lock.
    """
    with ExitStack() as held:
        try:
            held.enter_context(paths.locked(folder / name, wait=False))
        except BlockingIOError:
            raise StageError(
                f"Another process is running {what} in {paths.show(folder)}. Wait for it or stop it."
            ) from None
        yield
