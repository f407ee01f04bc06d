"""What a result is made of, as digests: the text of its notebook, and the code of every module that it imports.

The digest of a module is that of what it computes (:func:`drstudy.core.code.digest`): comments, docstrings and formatting are left out,
and so are the dates of files. A checkout of another branch and back, or a better sentence in a docstring, is no reason to compute
anything again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from drstudy.core import code, params, paths
from drstudy.papers import registry
from drstudy.papers.base import Stage
from drstudy.study import outside

TEMPLATES = Path(__file__).parent / "templates"


def cells(notebook: str) -> list[tuple[str, str]]:
    """Kind and text of a notebook's cells, without outputs."""
    content = json.loads((paths.root() / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))
    return [(cell["cell_type"], "".join(cell["source"])) for cell in content["cells"]]


def of_notebook(notebook: str) -> str:
    """Digest of a notebook's cells, prose included, without their outputs."""
    return hashlib.sha256(json.dumps(cells(notebook)).encode()).hexdigest()


def library(notebook: str) -> dict[str, str]:
    """Digest of each module of this package that a notebook imports, directly or through others, by its path in the project.

    A notebook that reads the registry shows what papers declare. It depends on the declarations and on the files of claims, too.
    """
    text = "\n".join(text for kind, text in cells(notebook) if kind == "code")
    imported = code.imported(text)
    found = code.closure(imported)
    if registry.__name__ not in found:
        return code.digests(found)
    declared = [f"drstudy.papers.{paper.id}.paper" for paper in registry.PAPERS]
    claims = [paper.claims for paper in registry.PAPERS if paper.claims]
    return code.digests(code.closure([*imported, *declared])) | files(claims)


def made_by(stage: Stage, parameters: params.Parameters | None = None) -> dict[str, Any]:
    """What makes the result of a stage, as its record keeps it.

    Args:
        stage: The stage.
        parameters: Its parameters, where they are not those of the profile.

    Returns:
        ``notebook``, a digest; ``library``, path of a module to its digest; ``needs``, result folder of each finished stage that it needs
        to the digest of its record; ``outside``, see :func:`drstudy.study.outside.of`.
    """
    records = {folder: paths.resolve(folder) / "run.json" for folder in stage.needs}
    return {
        "notebook": of_notebook(stage.notebook),
        "library": library(stage.notebook),
        "needs": {folder: paths.sha256(file) for folder, file in records.items() if file.is_file()},
        "outside": outside.of(parameters or stage.parameters()),
    }


def of_report(profile: str) -> dict[str, dict[str, str]]:
    """What makes the report of a profile beside its results.

    Returns:
        ``library``, path of a module to its digest, and ``files``, path of a file that the report reads to its digest.
    """
    modules = ["drstudy.study.report", *(f"drstudy.papers.{paper.id}.paper" for paper in registry.PAPERS)]
    read = [path for paper in registry.PAPERS for path in (paper.claims, *paper.checklists) if path]
    read += [path for path in TEMPLATES.iterdir() if path.is_file()]
    read += [path for path in (paths.root() / "reference" / profile).rglob("*") if path.is_file()]
    own = (paths.root() / "CITATION.cff", paths.root() / "params" / profile / "profile.yaml")
    return {
        "library": code.digests(code.closure(modules)),
        "files": files([*read, *(path for path in own if path.is_file())]),
    }


def files(found: Iterable[Path]) -> dict[str, str]:
    """Digest of each file's bytes, by its path in the project, for files that are read and not run."""
    return {paths.show(file): paths.sha256(file) for file in sorted(found)}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names whose digests (or other values) differ, and names that only one of the two has."""
    return [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
