"""``failure.json``: why a stage failed, in which cell, and what to do; written by the stage, read by `drstudy reproduce`."""

from __future__ import annotations

import json
import re
import traceback
from pathlib import Path
from typing import Any

from drstudy.core import params, paths, records
from drstudy.papers.base import Stage
from drstudy.study import remedies

NAME = "failure.json"
AROUND = 3
"""Lines of a cell that are shown before and after the failing one."""

_ANSI = re.compile(r"\x1b\[[0-9;]*m")  # colours in a kernel's traceback
_LINE = re.compile(r"Cell In\[\d+\], line (\d+)")


class StageError(RuntimeError):
    """A notebook failed, or ended without a finished record."""


def write(stage: Stage, checked: params.Parameters, error: BaseException) -> str:
    """Write ``failure.json`` of a stage.

    Args:
        stage: The stage that failed.
        checked: Its parameters.
        error: What papermill, or the check of the record, raised.

    Returns:
        What to tell the user: the cell, the error, and what to do.
    """
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
        "cell": _cell(error, executed),
        "remedy": remedies.of(name, reason),
        "again": f"drstudy run {stage.arguments}",
        "traceback": _ANSI.sub("", traceback.format_exc()).splitlines(),
        "executed": paths.show(executed) if executed.exists() else None,
        "peak_rss_mb": records.peak_rss_mb(),
    }
    records.write_json(content, folder / NAME)
    return f"{stage.name} failed. {text(content, folder)}"


def read(stage: Stage, since: float = 0) -> str:
    """What to tell the user of a stage's ``failure.json``, if it was written since then; else empty.

    Args:
        stage: The stage.
        since: Time in seconds, as of :func:`time.time`.
    """
    file = stage.record.with_name(NAME)
    if not file.is_file() or file.stat().st_mtime < since:
        return ""
    return text(json.loads(file.read_text(encoding="utf-8")), file.parent)


def text(content: dict[str, Any], folder: Path) -> str:
    """The lines on a failure: the error first, then the cell with the failing line marked, what to do, and where more stands.

    Args:
        content: Of ``failure.json``.
        folder: In which that lies.
    """
    lines = [content["reason"]]
    if cell := content.get("cell"):
        heading = f', under "{cell["heading"]}"' if cell["heading"] else ""
        lines += [
            f"  Cell [{cell['number']}]{heading}:",
            *(f"  {line}" for line in cell["lines"]),
        ]
    if content.get("remedy"):
        lines.append(f"  What to do: {content['remedy']}")
    if content.get("again"):
        lines.append(f"  Run this stage alone: {content['again']}")
    if content.get("executed"):
        lines.append(f"  The notebook up to the failure: {content['executed']} (open it with `drstudy lab`)")
    lines.append(f"  Parameters and traceback: {paths.show(folder / NAME)}")
    return "\n".join(lines)


def heading(cells: list[Any], index: int) -> str:
    """The nearest heading above a cell; empty if there is none.

    Args:
        cells: Of a notebook.
        index: Of the cell.
    """
    for cell in reversed(cells[: index + 1]):
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line.startswith("#"):
                    return line.lstrip("# ").strip()
    return ""


def _cell(error: BaseException, executed: Path) -> dict[str, Any] | None:
    """The failing cell of papermill's error: its number as JupyterLab shows it, the heading above it, and its lines around the failing one; else None."""
    if not hasattr(error, "cell_index") or not executed.is_file():
        return None
    import nbformat

    cells = nbformat.read(executed, 4).cells
    place = next(
        (
            n
            for n, cell in enumerate(cells)
            if cell.cell_type == "code" and cell.execution_count == error.exec_count
        ),
        error.cell_index,
    )
    failing = _LINE.search(_ANSI.sub("", "\n".join(error.traceback or ())))
    lines = _excerpt(error.source.splitlines(), int(failing[1]) if failing else 0)
    return {"number": error.exec_count, "heading": heading(cells, place), "lines": lines}


def _excerpt(source: list[str], failing: int) -> list[str]:
    """A cell's lines around the failing one (counted from 1; 0 is unknown), which is marked; what is left out is ``...``."""
    centre = failing or AROUND + 1
    first, last = max(centre - AROUND, 1), min(centre + AROUND, len(source))
    shown = [
        f"{'>' if number == failing else ' '} {number:>3} | {source[number - 1]}"
        for number in range(first, last + 1)
    ]
    return [*(["      | ..."] if first > 1 else []), *shown, *(["      | ..."] if last < len(source) else [])]
