"""The stages of a profile: which notebook runs with which parameters, and how one of them is run truthfully.

``Snakefile`` orders the stages; each is run by :func:`run` through papermill.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psutil
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from drstudy.core import params, paths, records
from drstudy.papers import registry
from drstudy.papers.registry import BY_NOTEBOOK
from drstudy.papers.transfer.params import paper_recipe

PAPER_AUDIT, AUDIT, OVERSAMPLING, TRAINING, COMPARISON, HEATMAPS, RELIABILITY, RAM, LESIONS, VIEWS = (
    BY_NOTEBOOK
)

FURTHER = (RAM, LESIONS, VIEWS)
"""Notebooks beyond the main paper's study, and appendices; ``drstudy reproduce`` runs them with ``--study all``."""

STUDIES = {
    "core": tuple(name for name in BY_NOTEBOOK if name not in FURTHER),
    "all": tuple(BY_NOTEBOOK),
}
"""Which notebooks ``drstudy reproduce`` runs."""

BUNDLED = "efficientnet_lite0"
"""The backbone that has its weights everywhere: the first choice where a notebook compares with one network."""

BASE = "paper"
"""Name of the run that the others of an :class:`Ablation` differ from."""

ABLATED = r"^[a-z][a-z0-9_]*$"
"""Names of the others; the variant is ``<backbone>-seed<seed>-<name>``."""


class Ablation(BaseModel):
    """What the paper's oddities are worth: its recipe, and the same with one setting changed at a time.

    Attributes:
        backbone: The network.
        recipe: Parameters of notebook 03 over :data:`drstudy.papers.transfer.params.PAPER` for all of them: where the profile cannot afford
            the paper's own. Notebook 04 lists them.
        changes: Name to the parameters that this one run has over those.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    backbone: str
    recipe: dict[str, Any] = {}
    changes: dict[Annotated[str, Field(pattern=ABLATED)], dict[str, Any]] = Field(min_length=1)

    @field_validator("changes")
    @classmethod
    def _base_is_not_a_change(cls, value: dict[str, Any]) -> dict[str, Any]:
        if BASE in value:
            raise ValueError(f"{BASE!r} names the recipe that is changed, and cannot be a change")
        return value


class Profile(BaseModel):
    """``params/<profile>/profile.yaml``: what a profile runs.

    Attributes:
        description: One sentence for ``drstudy reproduce --help`` and the report.
        notebooks: Those that the profile runs; empty is all of the study that is asked for.
        backbones, seeds: Notebooks 03 and 05 run once for each pair (05 only for those ``explained``).
        overrides: Parameters of notebook 03 for one backbone, by its name, over those of the profile's files.
        explained: Backbones whose networks notebook 05 explains; empty is all.
        lesion_labels: Whether the photographs have labels of lesions; without them there is no notebook 12.
        models_from: The profile whose trained networks notebooks 05 and 12 look at; empty means this one.
        ablation: Further runs of notebook 03 that notebook 04 compares with each other, and with no other network.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    description: str
    notebooks: tuple[str, ...] = ()
    backbones: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    overrides: dict[str, dict[str, Any]] = {}
    explained: tuple[str, ...] = ()
    lesion_labels: bool = True
    models_from: str = ""
    ablation: Ablation | None = None

    @model_validator(mode="after")
    def _explains_what_it_trains(self) -> Profile:
        if other := set(self.explained) - set(self.backbones):
            raise ValueError(f"explained names {', '.join(sorted(other))}, not among the backbones")
        return self

    @property
    def variants(self) -> tuple[str, ...]:
        """``<backbone>-seed<seed>`` of every network."""
        return tuple(f"{backbone}-seed{seed}" for backbone in self.backbones for seed in self.seeds)


@dataclass(frozen=True)
class Stage:
    """One run of one notebook.

    Attributes:
        notebook, profile, variant: As in ``results/<profile>/<notebook>[/<variant>]``.
        overrides: Parameters that follow from the profile, over those of its files.
        needs: Result folders that must be finished first.
    """

    notebook: str
    profile: str
    variant: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """As parameters write it."""
        return f"results/{self.profile}/{self.result}"

    @property
    def result(self) -> str:
        """``<notebook>[/<variant>]``, as its record is named."""
        return "/".join(part for part in (self.notebook, self.variant) if part)

    @property
    def name(self) -> str:
        """Short, for log lines: ``03 densenet121-seed0``."""
        return f"{self.notebook[:2]} {self.variant}".strip()

    @property
    def arguments(self) -> str:
        """Of ``drstudy run``."""
        return f"{self.notebook} --profile {self.profile}" + (
            f" --variant {self.variant}" if self.variant else ""
        )

    @property
    def record(self) -> Path:
        """Its ``run.json``, there or not."""
        return paths.resolve(self.folder) / "run.json"

    @property
    def files(self) -> list[Path]:
        """The parameter files, later ones winning; the smoke profile has none: it is the notebooks' own defaults."""
        base = paths.root() / "params" / self.profile
        return [path for path in (base / "common.yaml", base / f"{self.notebook}.yaml") if path.is_file()]

    def parameters(self) -> params.Parameters:
        """All parameters, checked."""
        return params.from_files(registry.parameters(self.notebook), self.files, self.overrides)


def profiles() -> list[str]:
    """Names of all profiles."""
    return sorted(path.parent.name for path in (paths.root() / "params").glob("*/profile.yaml"))


def profile(name: str) -> Profile:
    """Read a profile.

    Raises:
        KeyError: If there is none of that name, with those that exist.
        params.ParameterError: If its file is not valid.
    """
    file = paths.root() / "params" / name / "profile.yaml"
    if not file.is_file():
        raise KeyError(
            f"There is no profile {name!r}; there are {', '.join(profiles())}. A profile is a folder params/<name> with a profile.yaml."
        )
    try:
        return Profile(name=name, **(yaml.safe_load(file.read_text()) or {}))
    except (ValidationError, TypeError) as error:
        raise params.ParameterError(f"{paths.show(file)} is not a valid profile: {error}") from error


def plan(name: str, study: str = "core") -> list[Stage]:
    """All stages of a profile, in an order in which they can run.

    Args:
        name: Of :func:`profiles`.
        study: Of :data:`STUDIES`.

    Raises:
        KeyError: If there is no such profile or study.
    """
    if study not in STUDIES:
        raise KeyError(f"There is no study {study!r}; there are {', '.join(STUDIES)}.")
    chosen = profile(name)
    notebooks = chosen.notebooks or STUDIES[study]
    audit = f"results/{name}/{AUDIT}"
    trained = [f"results/{name}/{TRAINING}/{variant}" for variant in chosen.variants]
    models = [f"results/{chosen.models_from or name}/{TRAINING}/{variant}" for variant in chosen.variants]
    common = {"PROFILE": name}
    stages = [
        Stage(PAPER_AUDIT, name, overrides=common),
        Stage(AUDIT, name, overrides=common),
        Stage(OVERSAMPLING, name, overrides=common | {"AUDIT": audit}, needs=(audit,)),
    ]
    pairs = [(backbone, seed) for backbone in chosen.backbones for seed in chosen.seeds]
    for variant, (backbone, seed) in zip(chosen.variants, pairs):
        own = common | {"AUDIT": audit, "VARIANT": variant, "BACKBONE": backbone, "SEED": seed}
        own |= chosen.overrides.get(backbone, {})
        stages.append(Stage(TRAINING, name, variant, own, (audit,)))
    for variant, model, (backbone, _) in zip(chosen.variants, models, pairs):
        if backbone not in (chosen.explained or chosen.backbones):
            continue
        others = [
            folder for folder, (other, _) in zip(models, pairs) if other == backbone and folder != model
        ]
        own = common | {"AUDIT": audit, "VARIANT": variant, "MODEL": model, "OTHERS": others}
        stages.append(Stage(HEATMAPS, name, variant, own, (audit, model, *others)))
    ablated = _ablated(name, chosen, common | {"AUDIT": audit})
    stages += ablated
    compared = {"RUNS": trained}
    if ablated:
        maps = [s.folder for s in stages if s.notebook == HEATMAPS and s.notebook in notebooks]
        compared |= {"ABLATIONS": [s.folder for s in ablated], "HEATMAPS": maps}
        compared |= {"LEAKS": f"results/{name}/{OVERSAMPLING}"} if OVERSAMPLING in notebooks else {}
    read = [
        folder for value in compared.values() for folder in ([value] if isinstance(value, str) else value)
    ]
    stages.append(Stage(COMPARISON, name, overrides=common | compared, needs=tuple(read)))
    stages.append(Stage(RELIABILITY, name, overrides=common | {"RUNS": trained}, needs=tuple(trained)))
    pretrained = [model for model in models if BUNDLED in model]
    model = (pretrained or models)[0]
    stages.append(Stage(RAM, name, overrides=common | {"AUDIT": audit, "MODEL": model}, needs=(audit, model)))
    if chosen.lesion_labels:
        taken = f"results/{chosen.models_from}/{LESIONS}" if chosen.models_from else ""
        own = common | {"AUDIT": audit, "MODEL": model, "TRAINED": taken}
        stages.append(Stage(LESIONS, name, overrides=own, needs=tuple(filter(None, (audit, model, taken)))))
    stages.append(Stage(VIEWS, name, overrides=common | {"AUDIT": audit}, needs=(audit,)))
    return [stage for stage in stages if stage.notebook in notebooks]


def result_names(name: str, study: str) -> list[str]:
    """Names of the records (``<notebook>[/<variant>]``) of a profile's stages, in the order of :func:`plan`."""
    return [stage.result for stage in plan(name, study)]


def _ablated(name: str, chosen: Profile, common: dict[str, Any]) -> list[Stage]:
    """Runs of notebook 03 for the profile's ablation, the paper's recipe first."""
    if chosen.ablation is None:
        return []
    backbone, seed = chosen.ablation.backbone, chosen.seeds[0]
    recipe = paper_recipe() | chosen.ablation.recipe
    stages = []
    for change, values in ({BASE: {}} | chosen.ablation.changes).items():
        own = common | {"BACKBONE": backbone, "SEED": seed} | recipe | values
        variant = own["VARIANT"] = f"{backbone}-seed{own['SEED']}-{change}"
        stages.append(Stage(TRAINING, name, variant, own, (common["AUDIT"],)))
    return stages


def is_ablation(record: records.Record) -> bool:
    """Whether a record of notebook 03 is of an :class:`Ablation`, and so of no network that the profile compares."""
    return record.data["notebook"] == TRAINING and bool(re.search(r"-seed\d+-", record.data["variant"]))


def stage(notebook: str, profile_name: str, variant: str = "") -> Stage:
    """One stage of a profile, of any study; the notebook may be given by its number.

    Raises:
        KeyError: If the profile has no such stage, with those that it has.
    """
    stages = plan(profile_name, "all")
    fits = [s for s in stages if s.notebook.startswith(notebook) and (not variant or s.variant == variant)]
    if len(fits) != 1:
        which = "no stage" if not fits else f"{len(fits)} stages"
        known = "\n".join(
            f"  {s.notebook} {'--variant ' + s.variant if s.variant else ''}".rstrip() for s in stages
        )
        raise KeyError(
            f"The profile {profile_name!r} has {which} {' '.join((notebook, variant)).strip()!r}. It has:\n{known}"
        )
    return fits[0]


def _cells(notebook: str) -> list[tuple[str, str]]:
    """Kind and text of a notebook's cells."""
    content = json.loads((paths.root() / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))
    return [(cell["cell_type"], "".join(cell["source"])) for cell in content["cells"]]


def source_digest(notebook: str) -> str:
    """SHA-256 of a notebook's cells without their outputs."""
    return hashlib.sha256(json.dumps(_cells(notebook)).encode()).hexdigest()


def library(notebook: str) -> list[Path]:
    """Files of this package that a notebook imports, directly or through others: what its result depends on."""
    found: dict[str, Path] = {}
    unread = [("", "\n".join(text for kind, text in _cells(notebook) if kind == "code"))]
    while unread:
        package, text = unread.pop()
        for name in _imports(text, package) - found.keys():
            base = Path(__file__).parents[2].joinpath(*name.split("."))
            if (file := base / "__init__.py").is_file():
                package = name
            elif (file := base.with_suffix(".py")).is_file():
                package = name.rpartition(".")[0]
            else:
                continue  # a function or class of a module that is already there
            found[name] = file
            unread.append((package, file.read_text(encoding="utf-8")))
    return sorted(found.values())


def _imports(text: str, package: str) -> set[str]:
    """Every ``drstudy`` module that code may import, at its top or inside functions, with the packages above it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    parts = [name.split(".") for name in names if name.split(".")[0] == "drstudy"]
    return {".".join(part[:end]) for part in parts for end in range(1, len(part) + 1)}


_ANSI = re.compile(r"\x1b\[[0-9;]*m")  # colours in a kernel's traceback


class StageError(RuntimeError):
    """A notebook failed, or ended without a finished record."""


def _say(line: str) -> None:
    """Print a line in one write, so that lines of stages that run side by side do not run into each other."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class _Lines(io.TextIOBase):
    """Writes whole lines with the stage's name in front, so that parallel stages stay readable in a terminal and a log."""

    def __init__(self, prefix: str) -> None:
        self.prefix, self.rest = prefix, ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            if line.strip():
                _say(f"[{self.prefix}]   {line.rstrip()}")
        return len(text)


def _heading(nb: Any, index: int) -> str:
    """The nearest heading above a cell."""
    for cell in reversed(nb.cells[: index + 1]):
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line.startswith("#"):
                    return line.lstrip("# ").strip()
    return ""


def _engine(name: str) -> str:
    """Register papermill's engine with a progress line a heading; returns the engine's name."""
    from papermill.engines import NBClientEngine, papermill_engines

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **kwargs):
            start, began, told = nb_man.cell_start, time.monotonic(), [""]
            total = len(nb_man.nb.cells)

            def cell_start(cell, cell_index=None, **more):
                heading = _heading(nb_man.nb, cell_index)
                if cell.cell_type == "code" and heading != told[0]:
                    told[0] = heading
                    _say(
                        f"[{name}] cell {cell_index + 1}/{total}, {time.monotonic() - began:.0f} s: {heading}"
                    )
                return start(cell, cell_index, **more)

            nb_man.cell_start = cell_start
            kwargs["extra_arguments"] = [
                "--IPKernelApp.log_level=50"
            ]  # its start-up and shutdown chatter is not about the study
            return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)

    papermill_engines.register("drstudy", Engine)
    return "drstudy"


def run(stage: Stage, overrides: dict[str, Any] | None = None) -> records.Record:
    """Run one stage: check its parameters, execute its notebook, and believe only its record.

    Args:
        stage: Of :func:`plan`.
        overrides: Further UPPER_CASE parameters, over all others.

    Returns:
        The finished record.

    Raises:
        params.ParameterError: Before a kernel starts.
        StageError: If a cell failed, the kernel died, or no finished record of this very run was left; ``failure.json`` then
            holds the parameters and the traceback.
    """
    checked = params.from_files(
        registry.parameters(stage.notebook), stage.files, {**stage.overrides, **(overrides or {})}
    )
    began = time.monotonic()
    with alone(checked.folder, stage.name):
        for stale in ("run.json", "failure.json"):
            (checked.folder / stale).unlink(missing_ok=True)
        _say(f"[{stage.name}] starts: {paths.show(checked.folder)}")
        try:
            record = _execute(stage, checked)
        except BaseException as error:
            (checked.folder / "run.json").unlink(missing_ok=True)  # written, perhaps, before papermill failed
            reason = _write_failure(stage, checked, error)
            if not isinstance(error, Exception):
                raise
            raise StageError(reason) from error
    seconds, memory = time.monotonic() - began, record.data["peak_rss_mb"]
    _say(f"[{stage.name}] finished in {seconds:.0f} s, peak memory {memory:.0f} MiB")
    return record


def _execute(stage: Stage, checked: params.Parameters) -> records.Record:
    """Run the notebook in a kernel, and read the record that it left."""
    import papermill

    os.environ[records.RUN_ID] = run_id = uuid.uuid4().hex
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("PYTHONHASHSEED", "0")
    if getattr(checked, "threads", 0):
        os.environ["OMP_NUM_THREADS"] = str(checked.threads)
    papermill.execute_notebook(
        paths.root() / "notebooks" / f"{stage.notebook}.ipynb",
        checked.folder / "executed.ipynb",
        parameters=checked.upper(),
        engine_name=_engine(stage.name),
        kernel_name="python3",
        cwd=paths.root() / "notebooks",
        progress_bar=False,
        stdout_file=_Lines(stage.name),
    )
    try:
        record = records.load(checked.folder)
    except records.RecordError as error:
        raise StageError(
            "it ended without a finished record: a cell left early, or run.finish() was not reached"
        ) from error
    if record.data["run_id"] != run_id:
        raise StageError("its record is of another run")
    return record


def _write_failure(stage: Stage, checked: params.Parameters, error: BaseException) -> str:
    """Write ``failure.json``; returns what to tell the user."""
    folder = checked.folder
    executed = folder / "executed.ipynb"
    name = getattr(error, "ename", type(error).__name__)
    if name == "KeyboardInterrupt":
        reason = "it was interrupted"
    elif isinstance(error, StageError):
        reason = str(error)
    else:
        reason = f"{name}: {getattr(error, 'evalue', error)}".rstrip(": ")
    content = {
        "notebook": stage.notebook,
        "params": checked.upper(),
        "reason": reason,
        "traceback": _ANSI.sub("", traceback.format_exc()).splitlines(),
        "executed": paths.show(executed) if executed.exists() else None,
        "peak_rss_mb": records.peak_rss_mb(),
    }
    records.write_json(content, folder / "failure.json")
    return (
        f"{stage.name} failed. {reason}\n"
        f"The notebook up to the failure: {paths.show(executed)}; parameters and traceback: {paths.show(folder / 'failure.json')}.\n"
        f"Run it again with `drstudy run {stage.arguments}`, or open the executed notebook in JupyterLab with `make lab`."
    )


@contextmanager
def alone(folder: Path, what: str) -> Iterator[int]:
    """Keep two processes from working in one folder; yields the lock's descriptor.

    The lock dies with the process (and those that inherit the descriptor), so nothing needs unlocking after a kill.

    Raises:
        StageError: If another process has the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StageError(
                f"Another process is running {what} in {paths.show(folder)}. Wait for it or stop it."
            ) from None
        yield lock.fileno()


def _snakemake(profile_name: str, study: str, until: str, cores: int, *options: str) -> list[str]:
    """The command line of Snakemake for a profile."""
    chosen = [s for s in plan(profile_name, study) if s.notebook.startswith(until)]
    if not chosen:
        further = any(s.notebook.startswith(until) for s in plan(profile_name, "all"))
        hint = " in the study core; use --study all" if further else ""
        raise KeyError(f"The profile {profile_name!r} has no notebook {until!r}{hint}.")
    altered = [str(s.record) for s in chosen if _altered(s)]
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(paths.root() / "Snakefile")),
        *(
            "--directory",
            str(paths.results() / profile_name),
            "--nolock",
            "--quiet",
            "rules",
            "progress",
            "host",
        ),
        *("--rerun-triggers", "mtime", "input", "code", "params"),
        *("--config", f"profile={profile_name}", f"study={study}", "--cores", str(cores)),
        *(["--forcerun", *altered] if altered else []),
        *options,
        *(["--", *(str(s.record) for s in chosen)] if until else []),
    ]


def _altered(stage: Stage) -> bool:
    """Whether its record is of other parameters than the profile's, as after ``drstudy run --parameter``."""
    try:
        return records.load(stage.folder).params != stage.parameters().upper()
    except records.RecordError:
        return False


def pending(profile_name: str, until: str = "", study: str = "core") -> list[str]:
    """What :func:`execute` would run: names of stages, and ``report``.

    Raises:
        StageError: If Snakemake cannot plan, with what it says.
    """
    done = subprocess.run(
        _snakemake(profile_name, study, until, 1, "--summary"), capture_output=True, text=True
    )
    if done.returncode:
        raise StageError(f"Snakemake cannot plan {profile_name}:\n{done.stderr.strip()}")
    rows = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    outputs = {row[0] for row in rows[1:] if row[-1] != "no update"}
    names = [
        stage.name for stage in plan(profile_name, study) if str(stage.record) in outputs or _altered(stage)
    ]
    return names + (["report"] if any(output.endswith("index.html") for output in outputs) else [])


def execute(
    profile_name: str, cores: int, until: str = "", lock: int | None = None, study: str = "core"
) -> dict[str, str]:
    """Run a profile's unfinished stages and its report under Snakemake, which goes on with what does not need a failed stage.

    Args:
        profile_name: Of :func:`profiles`.
        cores: Stages that may run side by side.
        until: Only this notebook, by number or name, and what it needs; empty is all.
        lock: Descriptor that Snakemake inherits, so that the lock lasts as long as it works.
        study: Of :data:`STUDIES`.

    Returns:
        Name and reason of each stage that failed.

    Raises:
        KeyboardInterrupt: After Ctrl-C or a termination signal, when all stages have stopped.
        StageError: If Snakemake itself failed, with what it says.
    """
    began = time.time()
    with tempfile.TemporaryFile("w+") as chatter:
        process = subprocess.Popen(
            _snakemake(profile_name, study, until, cores, "--rerun-incomplete", "--keep-going"),
            stderr=chatter,
            pass_fds=() if lock is None else (lock,),
        )
        status = _wait(process)
        failed = {s.name: _failure(s) for s in plan(profile_name, study) if _failure(s, began)}
        if status and not failed:
            chatter.seek(0)
            raise StageError(f"Snakemake failed on {profile_name}:\n{chatter.read().strip()}")
    return failed


def _wait(process: subprocess.Popen) -> int:
    """Wait for Snakemake; on Ctrl-C or a termination signal stop its stages, wait until they have stopped, and raise."""

    def stop(number: int, frame: Any) -> None:
        if number == signal.SIGTERM:  # Ctrl-C reaches the stages by itself
            for child in psutil.Process().children(recursive=True):
                child.send_signal(signal.SIGINT)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    interrupted = False
    try:
        while True:
            try:
                status = process.wait()
                break
            except KeyboardInterrupt:
                interrupted = True
    finally:
        signal.signal(signal.SIGTERM, before)
    if interrupted:
        raise KeyboardInterrupt
    return status


def _failure(stage: Stage, since: float = 0) -> str:
    """The reason in a stage's ``failure.json``, if that was written since then; else empty."""
    file = stage.record.with_name("failure.json")
    return json.loads(file.read_text())["reason"] if file.is_file() and file.stat().st_mtime >= since else ""


def waiting(profile_name: str) -> list[Stage]:
    """Stages of a profile that have no finished record yet."""
    unfinished = []
    for stage in plan(profile_name):
        try:
            records.load(stage.folder)
        except records.RecordError:
            unfinished.append(stage)
    return unfinished


def write_summary(profile_name: str) -> None:
    """Write every finished stage's metrics, by stage, to ``results/<profile>/summary.json``."""
    found = {record.name: record.metrics for record in records.find(profile_name)}
    records.write_json(found, paths.results() / profile_name / "summary.json")
