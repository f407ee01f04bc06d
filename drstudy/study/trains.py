"""Whether a stage that runs again would train: the trained-model store finds a network again unless something that decides it changed.

A record lists the trainings that its notebook asked the store for, and the code that trained. From these, the parameters, and the stages
before it, this module says beforehand what the store will find; the store itself goes by the exact key
(:mod:`drstudy.training.identity`). Where it cannot be sure it says that the stage trains.
"""

from __future__ import annotations

from collections.abc import Mapping

from drstudy.core import code, devices, paths, records
from drstudy.papers.base import Stage
from drstudy.study import digests, outside, plan

DATA = "drstudy/data/"
"""Code by which a stage may hand other photographs, labels or splits to the next one."""


def why(stage: Stage, running: Mapping[str, list[str]]) -> list[str]:
    """Why a stage would train if it ran now; nothing if it would find all its networks, or has none.

    Args:
        stage: The stage.
        running: Reasons of every stage to run, by result folder (:func:`drstudy.study.reasons.find`); without reasons it does not.
    """
    if not stage.cls.TRAINS:
        return []
    try:
        record = records.load(stage.folder)
    except records.RecordError:
        return ["no finished record"]
    kept = record.data.get("trainings")
    if not isinstance(kept, dict):
        return ["its record does not say which networks it trained"]
    changed = [f"parameter {name} changed" for name in _parameters(record, stage)]
    if not kept["keys"]:
        return changed
    return [
        *changed,
        *(f"{name} changed" for name in _changed(kept["code"])),
        *_missing(kept["keys"]),
        *_library(record),
        *_fed(stage, running),
    ]


def _parameters(record: records.Record, stage: Stage) -> list[str]:
    """Parameters with another value, apart from those that only decide what is shown."""
    changed = digests.changes(record.data.get("params", {}), stage.parameters().upper())
    return [name for name in changed if name not in stage.cls.shows()]


def _changed(before: Mapping[str, str]) -> list[str]:
    """Files that trained and compute something else now."""
    now = {name: code.digest(file) for name in before if (file := code.ROOT / name).is_file()}
    return digests.changes(before, now)


def _missing(keys: list[str]) -> list[str]:
    """Whether networks are no longer in the store."""
    gone = sum(not paths.trained(key).is_file() for key in keys)
    return [f"{gone} of its {len(keys)} networks are not in the trained-model store"] if gone else []


def _library(record: records.Record) -> list[str]:
    """Whether it was trained by another version of torch."""
    before, now = record.data.get("packages", {}).get("torch"), devices.packages().get("torch")
    return [f"torch is {now}, it was {before}"] if before != now else []


def _fed(stage: Stage, running: Mapping[str, list[str]]) -> list[str]:
    """Whether a stage that feeds the training may hand over something else."""
    given = stage.parameters().upper()
    folders = [given[name] for name in stage.cls.FED_BY if given.get(name)]
    return [
        f"{plan.stage_of(folder).name} may give other data"
        for folder in folders
        if _other_data(folder, running)
    ]


def _other_data(folder: str, running: Mapping[str, list[str]]) -> bool:
    """Whether a stage that has to run may leave another split, other photographs or another recipe."""
    if not running.get(folder):
        return False
    stage = plan.stage_of(folder)
    try:
        record = records.load(stage.folder)
    except records.RecordError:
        return True
    library = (record.data.get("made_by") or {}).get("library", {})
    changed = digests.changes(library, digests.library(stage.notebook))
    before = (record.data.get("made_by") or {}).get("outside", {})
    return bool(
        not library
        or outside.changes(before, outside.of(stage.parameters()))
        or _parameters(record, stage)
        or any(name.startswith(DATA) for name in changed)
        or why(stage, running)
        or any(_other_data(need, running) for need in stage.needs)
    )
