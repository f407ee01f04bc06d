"""Which stages have to run, and why: from the records alone, never from the dates of files.

A record says with which parameters, by which notebook, by which code and from which inputs its result was made
(:func:`drstudy.study.digests.made_by`). A stage has to run if one of these is another one now, if an artefact is missing, or if a stage
that it needs has to run. Snakemake is told the outcome (:mod:`drstudy.study.execute`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from drstudy.core import paths, records
from drstudy.papers.base import Stage
from drstudy.study import digests, outside, plan, trains

MOST = 3
"""Names that one reason lists; it counts the others."""

UNFINISHED = "no finished record"


def find(stages: Iterable[Stage]) -> dict[str, list[str]]:
    """The reasons of each of these stages, and of each that they need (of other profiles too), by result folder.

    Args:
        stages: Of :func:`drstudy.study.plan.plan`.

    Returns:
        Stages in an order in which they can run; a stage that need not run has no reasons.
    """
    found: dict[str, list[str]] = {}
    for stage in stages:
        _visit(stage, found)
    return found


def why(stage: Stage) -> list[str]:
    """Why a stage has to run; nothing where its result is up to date."""
    return find([stage])[stage.folder]


def _visit(stage: Stage, found: dict[str, list[str]]) -> None:
    if stage.folder in found:
        return
    needed = [plan.stage_of(folder) for folder in stage.needs]
    for need in needed:
        _visit(need, found)
    waits = {need.folder: label(need, stage.profile) for need in needed if found[need.folder]}
    found[stage.folder] = own(stage, waits) + ([f"{some([*waits.values()])} will run"] if waits else [])


def own(stage: Stage, running: Collection[str] = ()) -> list[str]:
    """Why a stage has to run, apart from stages that it needs and that have to run themselves.

    Args:
        stage: The stage.
        running: Result folders of those.
    """
    try:
        record = records.load(stage.folder)
    except records.RecordError as error:
        return [f"{UNFINISHED} ({_why_not(error)})" if stage.record.is_file() else UNFINISHED]
    return [
        *_parameters(record.data.get("params", {}), stage.parameters().upper()),
        *_code(record.data.get("made_by"), stage),
        *_inputs(record, [folder for folder in stage.needs if folder not in running]),
        *_artefacts(record),
    ]


def _why_not(error: records.RecordError) -> str:
    """What is wrong with a record, without the command that makes it again."""
    return str(error).partition(" Make it with")[0].rstrip(".")


def _parameters(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One reason per parameter that has another value, is new, or is gone."""
    found = []
    for name in {**now, **before}:
        if name not in before:
            found.append(f"parameter {name} is new ({now[name]!r})")
        elif name not in now:
            found.append(f"parameter {name} no longer exists")
        elif before[name] != now[name]:
            found.append(f"parameter {name} changed from {before[name]!r} to {now[name]!r}")
    return found


def _code(before: Mapping[str, Any] | None, stage: Stage) -> list[str]:
    """Whether the notebook, a module that it imports, or a file outside the project is another one now."""
    if not before:
        return ["its record does not say which code made it (run it by `drstudy run`, not by hand)"]
    now = digests.made_by(stage)
    found = ["notebook text changed"] if before["notebook"] != now["notebook"] else []
    changed = digests.changes(before["library"], now["library"])
    found += [f"{some(changed)} changed"] if changed else []
    if "outside" not in before and now["outside"]:
        return [*found, f"its record does not say which files of {some([*now['outside']])} it was made from"]
    return [*found, *outside.changes(before.get("outside", {}), now["outside"])]


def _inputs(record: records.Record, needed: Iterable[str]) -> list[str]:
    """Whether a stage that it needs has run since."""
    read, needs = record.data.get("inputs", {}), (record.data.get("made_by") or {}).get("needs", {})
    changed = []
    for folder in needed:
        file = paths.resolve(folder) / "run.json"
        known = read.get(paths.show(file)) or needs.get(folder)
        if known and file.is_file() and known != paths.sha256(file):
            changed.append(label(plan.stage_of(folder), record.data["profile"]))
    return [f"{some(changed)} has run since"] if changed else []


def _artefacts(record: records.Record) -> list[str]:
    """Whether a file of the result, or the image store that it wrote, is missing or another one than was written."""
    found = []
    for names, what in zip(record.damage(), ("missing", "not what its run wrote")):
        if names:
            found.append(f"{some(names)} {'is' if len(names) == 1 else 'are'} {what}")
    where = record.folder / "images.json"
    if not found and where.is_file():
        from drstudy.data import images  # only here: it loads much

        try:
            images.open_store(json.loads(where.read_text(encoding="utf-8"))["store"])
        except images.StoreError as error:
            found.append(f"its image store cannot be used ({error})")
    return found


def of_report(profile: str, stages: Iterable[Stage]) -> list[str]:
    """Why the report of a profile has to be written, apart from stages that have to run.

    Args:
        profile: Name of the profile.
        stages: The stages that the report must show, all finished.
    """
    folder = paths.results() / profile / "report"
    if not all((folder / name).is_file() for name in ("index.html", "made_by.json")):
        return ["no report"]
    before = json.loads((folder / "made_by.json").read_text(encoding="utf-8"))
    now = digests.of_report(profile)
    changed = [name for kind in now for name in digests.changes(before[kind], now[kind])]
    results = before["results"]
    newer = [s.name for s in stages if s.record.is_file() and results.get(s.result) != paths.sha256(s.record)]
    return ([f"{some(changed)} changed"] if changed else []) + (
        [f"{some(newer)} has run since"] if newer else []
    )


def label(stage: Stage, profile: str) -> str:
    """Name of a stage, with its profile if that is another one."""
    return stage.name if stage.profile == profile else f"{stage.profile} {stage.name}"


def line(stage: Stage, profile: str, found: Mapping[str, list[str]]) -> str:
    """One line on a stage that has to run: its name, the reasons, and whether it trains, if its notebook has networks to train.

    Args:
        stage: The stage.
        profile: Name of the profile that is run.
        found: Of :func:`find`.
    """
    text = f"{label(stage, profile)}: {'; '.join(found[stage.folder])}"
    if not stage.cls.TRAINS:
        return text
    trained = trains.why(stage, found)
    says = (
        f"trains: {some(trained)}"
        if trained
        else "trains nothing: its networks are in the trained-model store"
    )
    return f"{text} ({says})"


def some(names: list[str]) -> str:
    """The first few of these names, and how many more there are."""
    more = len(names) - MOST
    return ", ".join(names[:MOST]) + (f" and {more} more" if more > 0 else "")
