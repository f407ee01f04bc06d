"""Label files as people save them: any byte-order mark, encoding and delimiter."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import pandas as pd

from drstudy.data.sources.base import Reading, SourceError, entry

csv.field_size_limit(2**30)  # a long remark in a cell is no fault


def read_csv(path: Path, reading: Reading) -> pd.DataFrame:
    """A table of strings, whatever its byte-order mark, encoding and delimiter; lines that do not fit are
    named.

    Of columns with one name the later ones get a number; :func:`need_columns` refuses such a column where it is needed.

    Raises:
        SourceError: If it is empty, or no text.
    """
    name = reading.show(path.relative_to(reading.root).as_posix())
    text = _text(path, name, reading)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t|", key=first.count) if first else ","
    if delimiter != ",":
        reading.problems.append(
            (name, f"columns are separated by {delimiter!r}, not by commas", "used: read as such")
        )
    numbered = _lines(text, delimiter, name, reading)
    if len(numbered) < 2:
        raise SourceError(f"{name} holds no rows. {reading.layout}")
    header = [cell.strip() for cell in numbered[0][1]]
    while header and not header[-1]:
        header.pop()  # columns without a name at the end, of which each line may have another number
    rows = []
    for number, line in numbered[1:]:
        overhang = any(cell.strip() for cell in line[len(header) :])
        if len(line) < len(header) or overhang:
            reading.exclude(
                f"{name}, line {number}", f"{len(line)} columns where the heading has {len(header)}"
            )
            continue
        rows.append([cell.strip() for cell in line[: len(header)]])
    unique, twice = _unique(header)
    frame = pd.DataFrame(rows, columns=unique, dtype=str)
    frame = frame.loc[:, [bool(column) for column in header]]
    frame.attrs["twice"] = twice
    return frame


def _unique(header: list[str]) -> tuple[list[str], set[str]]:
    """Names of columns, later ones of the same name with a number behind them; and the names that occur more than once."""
    counts, unique = Counter[str](), []
    for column in header:
        counts[column] += 1
        unique.append(column if counts[column] == 1 else f"{column} ({counts[column]})")
    return unique, {column for column, count in counts.items() if column and count > 1}


def _lines(text: str, delimiter: str, name: str, reading: Reading) -> list[tuple[int, list[str]]]:
    """Lines that are not blank, with their numbers.

    A quotation mark that is opened and never closed would swallow the lines after it. If swallowed lines look like rows of their own,
    quotation marks are read as letters instead.
    """
    found, swallowed = _parsed(text, delimiter, csv.QUOTE_MINIMAL, name)
    if swallowed:
        found, _ = _parsed(text, delimiter, csv.QUOTE_NONE, name)
        found = [(number, [cell.strip().strip('"') for cell in line]) for number, line in found]
        reading.problems.append(
            (f"{name}, line {swallowed}", "a quotation mark that is not closed", "used: read as a letter")
        )
    return [(number, line) for number, line in found if any(cell.strip() for cell in line)]


def _parsed(text: str, delimiter: str, quoting: int, name: str) -> tuple[list[tuple[int, list[str]]], int]:
    """Lines with their numbers, and the number of the first one that swallows rows (0 if none does)."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, quoting=quoting
    )
    found, swallowed, before, width = [], 0, 0, 0
    try:
        for line in reader:
            width = width or len(line)
            long = any(
                part.count(delimiter) >= width - 1
                for cell in line
                if "\n" in cell or "\r" in cell
                for part in cell.splitlines()[1:]
            )
            swallowed = swallowed or (before + 1 if long and width > 1 else 0)
            found.append((before + 1, line))
            before = reader.line_num
    except csv.Error as error:
        raise SourceError(f"{name}, line {reader.line_num}: {error}. Save the table as CSV again.") from None
    return found, swallowed


def needed(reading: Reading, name: str) -> Path:
    """The path of a file of the data set.

    Raises:
        SourceError: If it is missing.
    """
    path = entry(reading.root, name)
    if not path.is_file():
        raise SourceError(f"{reading.show(name)} is missing. {reading.layout}")
    return path


def need_columns(reading: Reading, table: pd.DataFrame, file: str, *names: str) -> None:
    """Refuse a table without these columns.

    Raises:
        SourceError: Naming the columns that are missing and those that are there, or a column that is there more than once.
    """
    missing = [name for name in names if name not in table]
    if missing:
        raise SourceError(
            f"{file} has no column {', '.join(missing)}; it has {', '.join(table)}. {reading.layout}"
        )
    twice = sorted(set(names) & table.attrs.get("twice", set()))
    if twice:
        raise SourceError(f"{file} has the column {', '.join(twice)} more than once: leave one of them.")


def _text(path: Path, name: str, reading: Reading) -> str:
    """The text of a file, whatever its encoding, which is noted where it is not UTF-8.

    Raises:
        SourceError: If it cannot be opened, or is no text.
    """
    try:
        text, encoding = _decode(path.read_bytes())
    except OSError as error:
        raise SourceError(f"{name} cannot be opened ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"{name} is no {error.encoding} text ({error.reason}). Save it as UTF-8.") from None
    if "\0" in text:
        raise SourceError(f"{name} is no text (it has zero bytes). Save the table as CSV again.")
    if encoding != "utf-8":
        reading.problems.append((name, f"text is {encoding}, not plain UTF-8", "used: read as such"))
    return text


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
