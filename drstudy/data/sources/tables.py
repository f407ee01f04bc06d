"""Label files as people save them: any byte-order mark, encoding and delimiter."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd

from drstudy.data.sources.base import Reading, SourceError


def read_csv(path: Path, reading: Reading) -> pd.DataFrame:
    """A table of strings, whatever its byte-order mark, encoding and delimiter; lines that do not fit are
    named.

    Raises:
        SourceError: If it is empty.
    """
    name = reading.show(path.relative_to(reading.root).as_posix())
    content = path.read_bytes()
    text, encoding = _decode(content)
    if encoding != "utf-8":
        reading.problems.append((name, f"text is {encoding}, not plain UTF-8", "used: read as such"))
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t|", key=first.count) if first else ","
    if delimiter != ",":
        reading.problems.append(
            (name, f"columns are separated by {delimiter!r}, not by commas", "used: read as such")
        )
    lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    numbered = [(number, line) for number, line in enumerate(lines, 1) if any(cell.strip() for cell in line)]
    if len(numbered) < 2:
        raise SourceError(f"{name} holds no rows. {reading.layout}")
    header = [cell.strip() for cell in numbered[0][1]]
    rows = []
    for number, line in numbered[1:]:
        overhang = any(cell.strip() for cell in line[len(header) :])
        if len(line) < len(header) or overhang:
            reading.exclude(
                f"{name}, line {number}", f"{len(line)} columns where the heading has {len(header)}"
            )
            continue
        rows.append([cell.strip() for cell in line[: len(header)]])
    frame = pd.DataFrame(rows, columns=header, dtype=str)
    return frame.loc[:, [bool(column) for column in header]]


def needed(reading: Reading, name: str) -> Path:
    """The path of a file of the data set.

    Raises:
        SourceError: If it is missing.
    """
    path = reading.root / name
    if not path.is_file():
        raise SourceError(f"{reading.show(name)} is missing. {reading.layout}")
    return path


def need_columns(reading: Reading, table: pd.DataFrame, file: str, *names: str) -> None:
    """Refuse a table without these columns.

    Raises:
        SourceError: Naming the columns that are missing and those that are there.
    """
    missing = [name for name in names if name not in table]
    if missing:
        raise SourceError(
            f"{file} has no column {', '.join(missing)}; it has {', '.join(table)}. {reading.layout}"
        )


def _decode(content: bytes) -> tuple[str, str]:
    for mark, encoding, label in (
        (b"\xef\xbb\xbf", "utf-8-sig", "UTF-8 with a byte-order mark"),
        (b"\xff\xfe", "utf-16", "UTF-16"),
        (b"\xfe\xff", "utf-16", "UTF-16"),
    ):
        if content.startswith(mark):
            return content.decode(encoding), label
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return content.decode("latin-1"), "Latin-1"
