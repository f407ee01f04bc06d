"""The papers of this study, and the look-ups that follow from their list. A new paper adds its name to :data:`NAMES`."""

from __future__ import annotations

from importlib import import_module

from drstudy.core.params import Parameters
from drstudy.papers.base import Notebook, Paper, Section, System
from drstudy.papers.explainable import Explainable

NAMES = (
    "transfer",
    "ram",
    "lesions",
    "sall",
    "glam",
    "gan",
    "views",
    "beside",
    "external",
    "explorer",
)
"""Folders below ``drstudy/papers``, in the order in which the ledger and the README show them."""

PAPERS: tuple[Paper, ...] = tuple(import_module(f"drstudy.papers.{name}.paper").PAPER for name in NAMES)

NOTEBOOKS: dict[str, Notebook] = {
    notebook.name: notebook
    for notebook in sorted((n for paper in PAPERS for n in paper.notebooks), key=lambda n: n.name)
}
"""All notebooks by name, in the order of their numbers."""


def parameters(notebook: str) -> type[Parameters]:
    """The parameter class of a notebook.

    Raises:
        KeyError: If there is no such notebook, with the names that exist.
    """
    if notebook not in NOTEBOOKS:
        raise KeyError(f"There is no notebook {notebook!r}; there are {', '.join(NOTEBOOKS)}.")
    return NOTEBOOKS[notebook].cls


def sections() -> list[Section]:
    """All sections of the report, in the order in which they stand."""
    return sorted((section for paper in PAPERS for section in paper.sections), key=lambda s: s.order)


def systems() -> list[System]:
    """The systems of all papers, in the order in which tables show them.

    Raises:
        ValueError: If two have the same identifier.
    """
    found = [system for paper in PAPERS for system in paper.systems]
    ids = [system.id for system in found]
    if twice := next((name for name in ids if ids.count(name) > 1), ""):
        raise ValueError(
            f"Two systems have the identifier {twice!r}. Change `id` in the paper.py of one of them."
        )
    return found


def explainable() -> list[Explainable]:
    """The networks of all papers that explain photographs from outside the study."""
    return [one for paper in PAPERS for one in paper.explainable]
