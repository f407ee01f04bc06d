"""Drafts of reporting checklists and a model card, filled from the records of a profile.

A paper declares its checklists: YAML files with the items, in our own short words, and for each item the sentences that may answer
it. A sentence names facts in braces. :func:`facts` looks these up in ``run.json``, parameters and tables of finished runs: the facts
that the papers declare, and those of every study (:data:`OWN`). A sentence with an unknown fact is left out, and an item without any
sentence left is **not reported**: nothing is guessed, and a person has to complete the draft.
"""

from __future__ import annotations

import contextlib
import functools
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from drstudy.core import paths, records
from drstudy.core.params import ParameterError
from drstudy.papers import registry
from drstudy.papers.base import NOT_REPORTED
from drstudy.study import claims

Fact = Callable[[str, Sequence[records.Record]], Any]
"""A function of a profile's name and its finished records."""

FROM_RECORDS, BY_PROJECT = "records", "stated by the project"


class Item(BaseModel):
    """One item.

    Attributes:
        item: Its number in the checklist, or its heading.
        asks: What it asks for.
        records: Sentences with facts in braces, at least one each.
        stated: Sentences that hold for the project whatever was run, and that no record could hold.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    item: str
    asks: str
    records: tuple[str, ...] = ()
    stated: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _records_name_facts(self) -> Item:
        known = look_ups()
        unknown = sorted({name for text in self.records for name in _names(text)} - known.keys())
        if unknown:
            raise ValueError(
                f"item {self.item}: unknown facts {', '.join(unknown)}; there are {', '.join(known)}"
            )
        if any(not _names(text) for text in self.records) or any(_names(text) for text in self.stated):
            raise ValueError(
                f"item {self.item}: sentences of `records` name a fact in braces, those of `stated` none"
            )
        return self


class Sheet(BaseModel):
    """A checklist: its title, the publication it follows, its items."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    title: str
    source: str
    items: tuple[Item, ...] = Field(min_length=1)


def sheets() -> list[Path]:
    """The files of all checklists, in the order in which the report links them."""
    return [file for paper in registry.PAPERS for file in paper.checklists]


def read(file: Path) -> Sheet:
    """A checklist of a paper.

    Args:
        file: One of :func:`sheets`.

    Raises:
        drstudy.core.params.ParameterError: If the file is not valid, or names a fact that there is not.
    """
    try:
        return Sheet(name=file.stem, **yaml.safe_load(file.read_text(encoding="utf-8")))
    except (ValidationError, TypeError) as error:
        raise ParameterError(f"{paths.show(file)}: {error}") from error


def facts(profile: str, found: Sequence[records.Record]) -> dict[str, str]:
    """What finished results say, by the names of :func:`look_ups`; what they do not say is not there.

    Args:
        profile: Its name.
        found: All finished records of it, as :func:`drstudy.core.records.find` gives them.
    """
    said = {}
    for name, look_up in look_ups().items():
        with contextlib.suppress(KeyError, records.RecordError):  # a record without it does not say it
            said[name] = look_up(profile, list(found))
    return {name: str(value) for name, value in said.items() if value not in (None, "")}


def fill(sheet: Sheet, known: dict[str, str]) -> pd.DataFrame:
    """Columns ``item``, ``asks``, ``answer`` (or :data:`NOT_REPORTED`) and ``from``."""
    rows = []
    for item in sheet.items:
        sentences = [text.format(**known) for text in item.records if _names(text) <= known.keys()]
        origin = " and ".join([*[FROM_RECORDS][: len(sentences)], *[BY_PROJECT][: len(item.stated)]])
        answer = " ".join([*item.stated, *sentences])
        rows.append(
            {"item": item.item, "asks": item.asks, "answer": answer or NOT_REPORTED, "from": origin or "–"}
        )
    return pd.DataFrame(rows)


def markdown(sheet: Sheet, filled: pd.DataFrame, header: str) -> str:
    """A filled sheet for a text editor."""
    rows = [
        [str(cell).replace("|", "\\|") for cell in row]
        for row in [list(filled), ["---"] * 4, *filled.to_numpy().tolist()]
    ]
    table = "".join("| " + " | ".join(row) + " |\n" for row in rows)
    return f"# {sheet.title}\n\n{header}\n\nFollows: {sheet.source}. Items in our own words.\n\n{table}"


def header(profile: str, filled: pd.DataFrame) -> str:
    """What stands above every draft."""
    open_items = int((filled["answer"] == NOT_REPORTED).sum())
    return (
        f"Machine-filled draft, from the records of profile {profile}; nobody has checked it. "
        f"{open_items} of {len(filled)} items are {NOT_REPORTED}."
    )


def _names(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@functools.cache
def look_ups() -> dict[str, Fact]:
    """Every fact that a sentence may name, and how it is looked up; None or an empty text is unknown."""
    found = dict(OWN)
    for paper in registry.PAPERS:
        found |= paper.facts()
    return found


def _claims(_: str, found: Sequence[records.Record]) -> str:
    counts = claims.ledger(found)["verdict"].value_counts()
    return ", ".join(f"{number} {verdict}" for verdict, number in counts.items())


def _commits(_: str, found: Sequence[records.Record]) -> str:
    return ", ".join(
        dict.fromkeys(
            (git["commit"] or "of no repository")[:10] + (" with uncommitted changes" if git["dirty"] else "")
            for git in (record.data["git"] for record in found)
        )
    )


def _software(_: str, found: Sequence[records.Record]) -> str:
    packages: dict[str, set[str]] = {}
    for record in found:
        for name, version in record.data["packages"].items():
            packages.setdefault(name, set()).add(version)
    return ", ".join(f"{name} {' and '.join(sorted(versions))}" for name, versions in packages.items())


def _citation(name: str) -> Fact:
    """A field of CITATION.cff."""

    def look_up(_: str, found: Sequence[records.Record]) -> Any:
        file = paths.root() / "CITATION.cff"
        return yaml.safe_load(file.read_text(encoding="utf-8")).get(name) if file.is_file() else None

    return look_up


def _authors(profile: str, found: Sequence[records.Record]) -> str:
    return ", ".join(author.get("name", "") for author in _citation("authors")(profile, found) or [])


OWN: dict[str, Fact] = {
    "profile": lambda profile, _: profile,
    "project": _citation("title"),
    "version": _citation("version"),
    "licence": _citation("license"),
    "authors": _authors,
    "commit": _commits,
    "software": _software,
    "claims": _claims,
}
"""Facts of every study, whatever its papers are."""
