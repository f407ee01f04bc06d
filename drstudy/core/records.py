"""What happened: the result folder of a notebook and its truthful record, ``run.json``.

A stage counts as done only if papermill exited 0 **and** its ``run.json`` says ``finished``: papermill's own metadata
was seen to call cells completed after their kernel was killed. The record is written last and atomically.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drstudy.core import devices, paths
from drstudy.core.params import Checked, Parameters

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

RUN_ID = "DRSTUDY_RUN_ID"
MADE_BY = "DRSTUDY_MADE_BY"
"""Environment variables by which the runner of a notebook says what the record must hold: the run's id, and (as JSON) the digests of the
notebook and of the code that made the result."""

SHORT, FULL = "without_pretraining", "full"
"""The metric ``recipe`` of a record: whether the settings of ``WITHOUT_PRETRAINING`` held."""

NEEDED = ("status", "notebook", "profile", "variant", "params", "metrics")
"""What every record must hold."""
NOT_OUTPUTS = ("run.json", "executed.ipynb", "failure.json")
NOT_OUTPUT_FOLDERS = ("checkpoints", "tensorboard")


TRAININGS: dict[str, dict[str, Any]] = {}
"""Trainings since the last :func:`start` that the trained-model store knows: key to ``code`` (digests of what trained) and ``found``
(whether it was there already)."""


class RecordError(RuntimeError):
    """A result that is needed is missing, unfinished or broken."""


class Run:
    """A result folder being filled. Make it with :func:`start`; :meth:`finish` writes the record.

    Attributes:
        folder: ``results/<profile>/<notebook>[/<variant>]``.
        metrics: Flat names to numbers, as they will stand in the record.
    """

    def __init__(self, parameters: Parameters, device: devices.Compute | None = None) -> None:
        self.parameters = parameters
        self.folder = parameters.folder
        self.device = device
        self.metrics: dict[str, float | int | str | None] = {}
        self._inputs: dict[str, str] = {}
        self._began = time.perf_counter()
        TRAININGS.clear()  # a process may make several results one after the other
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in ("run.json", "failure.json"):
            (self.folder / stale).unlink(missing_ok=True)
        for stale in ("tables", "figures"):
            shutil.rmtree(self.folder / stale, ignore_errors=True)

    def path(self, name: str) -> Path:
        """A file of this result; its folder exists when this returns."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def input(self, path: str | os.PathLike[str]) -> Path:
        """Note a file that this result depends on (path and SHA-256), and return it resolved."""
        resolved = paths.resolve(path)
        self._inputs[paths.show(resolved)] = paths.sha256(resolved)
        return resolved

    def metric(self, **values: float | int | str | None) -> None:
        """Add metrics under flat names; a name given twice is an error.

        Raises:
            ValueError: If a name is already there with another value, or a value is not a plain number or text.
        """
        for name, value in values.items():
            value = value.item() if hasattr(value, "item") else value
            if not isinstance(value, int | float | str | type(None)):
                raise ValueError(
                    f"Metric {name!r} is a {type(value).__name__}; it must be a number, a text or None."
                )
            known = self.metrics.get(name, value)
            if known != value and not (known != known and value != value):  # NaN again is no other value
                raise ValueError(f"Metric {name!r} was already recorded as {known!r}.")
            self.metrics[name] = value

    def table(self, frame: pd.DataFrame, name: str, index: bool = False) -> pd.DataFrame:
        """Write ``tables/<name>.csv`` (full precision) and return the frame for display.

        A table ends a step of a notebook, so memory that was freed on the way is given back to the system.
        """
        devices.give_back_freed_memory()
        with paths.atomic(self.path(f"tables/{name}.csv")) as temporary:
            frame.to_csv(temporary, index=index, lineterminator="\n")
        return frame

    def timings(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Write ``timings.csv``, apart from the tables, which are the same for every run of the same parameters; return the frame."""
        with paths.atomic(self.path("timings.csv")) as temporary:
            frame.to_csv(temporary, lineterminator="\n")
        return frame

    def figure(self, figure: Figure, name: str, svg: bool = False) -> Figure:
        """Write ``figures/<name>.png`` (150 dpi), for drawings also ``.svg``; return the figure for display."""
        for suffix in (".png", ".svg") if svg else (".png",):
            metadata = {"Date": None} if suffix == ".svg" else {"Software": None}
            with paths.atomic(self.path(f"figures/{name}{suffix}")) as temporary:
                figure.savefig(temporary, dpi=150, bbox_inches="tight", metadata=metadata)
        return figure

    def outputs(self) -> dict[str, str]:
        """SHA-256 of every file of the result, by its path inside the folder. A variant of the same notebook, which lies in a
        folder below, is a result of its own."""
        variants = {path.parent for path in self.folder.glob("*/run.json")}
        files = (
            path
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not variants & set(path.parents)
        )
        relative = [(path, path.relative_to(self.folder)) for path in files]
        return {
            name.as_posix(): paths.sha256(path)
            for path, name in relative
            if name.as_posix() not in NOT_OUTPUTS
            and name.parts[0] not in NOT_OUTPUT_FOLDERS
            and not any(part.startswith(".") for part in name.parts)
        }

    def finish(self) -> None:
        """Write ``run.json``, last and atomically, and drop the checkpoints. Prints one line that holds for every run of the same parameters."""
        record = {
            "status": "finished",
            "run_id": os.environ.get(RUN_ID, ""),
            "notebook": self.parameters.notebook,
            "profile": self.parameters.profile,
            "variant": self.parameters.variant,
            "params": self.parameters.upper(),
            "metrics": self.metrics,
            "inputs": self._inputs,
            "outputs": self.outputs(),
            **_made_by(),
            "trainings": _trainings(),
            "git": git_state(),
            "packages": devices.packages(),
            "device": str(self.device) if self.device else "CPU",
            "processor": devices.processor(),
            "cpu_seconds": round(cpu_seconds(), 3),
            "seconds": round(time.perf_counter() - self._began, 3),
            "peak_rss_mb": round(peak_rss_mb(), 1),
        }
        record = _plain(record)
        write_json(record | {"digest": _signature(record)}, self.folder / "run.json")
        shutil.rmtree(
            self.folder / "checkpoints", ignore_errors=True
        )  # else another run would start where this one ended
        print(
            f"finished: {len(self.metrics)} metrics, {len(record['outputs'])} files in {paths.show(self.folder)}"
        )


def _trainings() -> dict[str, Any]:
    """``keys`` of all trainings, how many of them were ``found``, and ``code``: digests of all that trained."""
    found = sum(one["found"] for one in TRAININGS.values())
    code = {name: digest for one in TRAININGS.values() for name, digest in one["code"].items()}
    return {"keys": [*TRAININGS], "found": found, "code": code}


def _made_by() -> dict[str, Any]:
    """The record's ``made_by``, if whoever runs the notebook said it; nothing in JupyterLab."""
    given = os.environ.get(MADE_BY)
    return {"made_by": json.loads(given)} if given else {}


def start(parameters: Parameters, device: devices.Compute | None = None) -> Run:
    """Open the result folder of a notebook; an older record there is removed, so that it cannot be mistaken for this run's."""
    return Run(parameters, device)


class Record:
    """A finished result, read only.

    Attributes:
        folder: Where it is.
        data: The content of ``run.json``.
    """

    def __init__(self, folder: Path, data: dict[str, Any]) -> None:
        self.folder = folder
        self.data = data

    @property
    def params(self) -> dict[str, Any]:
        """UPPER_CASE parameters of that run."""
        return self.data["params"]

    @property
    def recipe(self) -> dict[str, Any]:
        """UPPER_CASE parameters of the recipe that really ran, of a notebook that trains a network: :attr:`params`, but with the
        weights that were used, and where these were none with the settings of ``WITHOUT_PRETRAINING``."""
        short = self.params["WITHOUT_PRETRAINING"] if self.metrics.get("recipe") == SHORT else {}
        return self.params | short | {"WEIGHTS": self.metrics["weights_used"]}

    @property
    def metrics(self) -> dict[str, Any]:
        return self.data["metrics"]

    @property
    def name(self) -> str:
        """``<notebook>[/<variant>]``."""
        return "/".join(part for part in (self.data["notebook"], self.data["variant"]) if part)

    def path(self, name: str) -> Path:
        """A file of this result, compared with the digest that its run wrote.

        Raises:
            RecordError: If it is not there, or is another one.
        """
        path = self.folder / name
        if not path.exists():
            raise RecordError(
                f"{paths.show(path)} is missing although its run.json says finished. Delete {paths.show(self.folder)} and run it again."
            )
        known = self.data.get("outputs", {}).get(name)
        if known and known != _digest(path):
            raise RecordError(
                f"{paths.show(path)} is not what its run wrote: it was edited or damaged since. {how_to_make(self.folder)}"
            )
        return path

    def damage(self) -> tuple[list[str], list[str]]:
        """Names of the files of this result that are missing, and of those that are not what its run wrote."""
        outputs = self.data.get("outputs", {})
        missing = [name for name in outputs if not (self.folder / name).exists()]
        there = {name: known for name, known in outputs.items() if name not in missing}
        return missing, [name for name, known in there.items() if known != _digest(self.folder / name)]

    def check(self) -> None:
        """Refuse a result of which a file is missing or changed.

        Raises:
            RecordError: Naming the files.
        """
        for names, what in zip(self.damage(), ("missing", "not what the run wrote")):
            if names:
                raise RecordError(
                    f"{paths.show(self.folder)}: {', '.join(names[:3])}{' and more' if len(names) > 3 else ''} "
                    f"{'is' if len(names) == 1 else 'are'} {what}. {how_to_make(self.folder)}"
                )

    def parameters(self, cls: type[Checked]) -> Checked:
        """The parameters of that run as the class of its notebook.

        Raises:
            drstudy.core.params.ParameterError: If they are no valid parameters of that class.
        """
        return cls.check(self.params)


_DIGESTS: dict[tuple[str, int, int], str] = {}


def _digest(path: Path) -> str:
    """SHA-256 of a file, computed once for each size and time that this process sees."""
    status = path.stat()
    key = (str(path), status.st_size, status.st_mtime_ns)
    if key not in _DIGESTS:
        _DIGESTS[key] = paths.sha256(path)
    return _DIGESTS[key]


def _signature(record: Mapping[str, Any]) -> str:
    """Digest of a record without its own digest."""
    rest = {name: value for name, value in record.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def load(folder: str | os.PathLike[str]) -> Record:
    """Read a finished record.

    Raises:
        RecordError: If it is missing, unfinished or unreadable, with the command that makes it.
    """
    folder = paths.resolve(folder)
    file = folder / "run.json"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        status = data["status"]
    except FileNotFoundError:
        raise RecordError(f"{paths.show(folder)} has no finished run. {how_to_make(folder)}") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise RecordError(f"{paths.show(file)} cannot be read ({error}). {how_to_make(folder)}") from None
    if status != "finished":
        raise RecordError(f"{paths.show(folder)} is {status!r}, not finished. {how_to_make(folder)}")
    if missing := [name for name in NEEDED if name not in data]:
        raise RecordError(f"{paths.show(file)} lacks {', '.join(missing)}. {how_to_make(folder)}")
    if "digest" in data and data["digest"] != _signature(data):
        raise RecordError(f"{paths.show(file)} was edited or damaged after its run. {how_to_make(folder)}")
    record = Record(folder, data)
    if folder.is_relative_to(paths.results()):
        stands, says = folder.relative_to(paths.results()).as_posix(), f"{data['profile']}/{record.name}"
        if stands != says:
            raise RecordError(f"{paths.show(file)} is the record of results/{says}. {how_to_make(folder)}")
    return record


def upstream(folder: str | os.PathLike[str], run: Run | None = None) -> Record:
    """The finished result that a notebook builds on; in the smoke profile it is made where it is missing.

    Args:
        folder: As a parameter writes it, such as ``results/demo/01_data_audit``.
        run: Notes the record as an input of this run.

    Raises:
        RecordError: As :func:`load`, in any other profile; in the smoke profile if it cannot be made, with the reason.
    """
    resolved = paths.resolve(folder)
    try:
        record = load(resolved)
    except RecordError:
        if not resolved.is_relative_to(paths.results() / "smoke"):
            raise
        print(f"{paths.show(resolved)} is not there yet: running it now", file=sys.stderr)
        _make(resolved)
        record = load(resolved)
    if run is not None:
        run.input(record.folder / "run.json")
    return record


def _make(folder: Path) -> None:
    """Run the stage of a result folder; its lines are shown as they come (a kernel's stderr is no file that a process could have)."""
    command = [sys.executable, "-m", "drstudy.study.cli", "run", *_stage_of(folder)]
    last = ""
    read = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8", "errors": "replace"}
    with subprocess.Popen(command, **read) as process:
        for line in process.stdout:
            print(line, end="", file=sys.stderr)
            last = line.strip() if line.startswith("error: ") else last
    if process.returncode:
        raise RecordError(
            f"{paths.show(folder)} is needed and could not be made. {last.removeprefix('error: ')}"
        )


def _stage_of(folder: Path) -> list[str]:
    """Command-line arguments that make a result folder: notebook, profile and variant."""
    profile, notebook, *variant = folder.relative_to(paths.results()).parts
    return [notebook, "--profile", profile, *(["--variant", variant[0]] if variant else [])]


def how_to_make(folder: Path) -> str:
    """A sentence that says which command makes this result folder."""
    if folder.is_relative_to(paths.results()) and len(folder.relative_to(paths.results()).parts) >= 2:
        return f"Make it with `drstudy run {' '.join(_stage_of(folder))}`, or all of the profile with `drstudy reproduce`."
    return "Check the path: result folders look like results/<profile>/<notebook>[/<variant>]."


def find(profile: str) -> list[Record]:
    """All finished records of a profile, by name."""
    return below(paths.results() / profile)


def below(base: Path) -> list[Record]:
    """All finished records below a folder that looks like ``results/<profile>``, by name."""
    found = []
    for file in sorted(base.glob("*/run.json")) + sorted(base.glob("*/*/run.json")):
        if file.parent.name != "report":
            found.append(load(file.parent))
    return sorted(found, key=lambda record: record.name)


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write JSON atomically; NaN and infinities become null, as JSON has none."""
    with paths.atomic(path) as temporary:
        text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        temporary.write_text(text, encoding="utf-8", newline="\n")  # the same bytes on all systems


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def git_state() -> dict[str, Any]:
    """Commit and whether the work tree differs from it; ``None`` values outside a repository."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=paths.root(), capture_output=True, encoding="utf-8", timeout=20
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain")
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(status) if status is not None else None}


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, MiB."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        import psutil

        memory = psutil.Process().memory_info()
        return getattr(memory, "peak_wset", memory.rss) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def cpu_seconds() -> float:
    """Time that processors have spent on this process and its finished children so far, core-seconds. Windows does not count the children."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def environment(device: devices.Compute | None = None) -> str:
    """One line for the top of a notebook: what runs this."""
    found = devices.packages()
    parts = [
        f"{name} {found[name]}" for name in ("drstudy", "python", "torch", "torchvision") if name in found
    ]
    return ", ".join([*parts, f"on {device}" if device else "on CPU"])
