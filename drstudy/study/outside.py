"""Files outside the project that a result is made from: photographs, label tables, masks, files of weights.

Their fingerprint is cheap: names, sizes and times of all files, and digests of the tables. It decides whether a finished result still stands for the
files that are there now.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drstudy.core import params, paths

TABLES = (".csv", ".tsv", ".txt", ".json", ".xls", ".xlsx")
LARGEST = 64 * 2**20
"""Bytes up to which a table or a file of weights is known by its content, and above which by its size and time."""


def of(parameters: params.Parameters) -> dict[str, dict[str, Any]]:
    """Fingerprints of the files and folders that parameters name (:meth:`drstudy.core.params.Parameters.outside`).

    Returns:
        Name of a parameter to ``path``, and for a file ``digest``; for a folder ``tables`` (path to digest) and ``folders`` (path to number of
        files, their bytes, and a digest of names, sizes and times). Parameters that name nothing that is there are left out. One that
        names several folders has its name and a number for each.
    """
    found = {}
    for name in sorted(parameters.outside()):
        places = parameters.places(name)
        for number, value in enumerate(places, start=1):
            place = paths.resolve(value)
            key = name if len(places) == 1 else f"{name} {number}"
            if place.is_file():
                found[key] = {"path": paths.show(place), "digest": _of_file(place)}
            elif value and place.is_dir():
                found[key] = {"path": paths.show(place), **_of_folder(place)}
    return found


def _of_file(file: Path) -> str:
    status = file.stat()
    return paths.sha256(file) if status.st_size <= LARGEST else f"{status.st_size} {status.st_mtime_ns}"


def _of_folder(root: Path) -> dict[str, Any]:
    tables: dict[str, str] = {}
    listed: dict[str, list[str]] = defaultdict(list)
    sizes: dict[str, int] = defaultdict(int)
    for directory, _, names in paths.walk(root):
        inner = directory.relative_to(root).as_posix()
        for name in names:
            file = directory / name
            if not file.is_file():
                continue
            status = file.stat()
            if file.suffix.lower() in TABLES and status.st_size <= LARGEST:
                tables[file.relative_to(root).as_posix()] = paths.sha256(file)
                continue
            listed[inner].append(f"{name}\t{status.st_size}\t{status.st_mtime_ns}")
            sizes[inner] += status.st_size
    folders = {
        inner: [
            len(lines),
            sizes[inner],
            hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest(),
        ]
        for inner, lines in listed.items()
    }
    return {"tables": tables, "folders": folders}


def changes(before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is another one now, in words. What is not there now is passed over, as a copied result may be without its data.

    Args:
        before, now: Results of :func:`of`.
    """
    said = []
    for name, print_ in now.items():
        old = before.get(name)
        if old is None:
            said.append(f"{print_['path']} ({name}) is new")
        elif "digest" in print_:
            if old.get("digest") != print_["digest"]:
                said.append(f"{print_['path']} changed")
        else:
            said += _of_tables(old.get("tables", {}), print_["tables"])
            said += _of_folders(old.get("folders", {}), print_["folders"])
    return said


def _of_tables(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    said = []
    for table in sorted({*before, *now}):
        if table not in now:
            said.append(f"{table} is gone")
        elif table not in before:
            said.append(f"{table} is new")
        elif before[table] != now[table]:
            said.append(f"{table} changed")
    return said


def _of_folders(before: Mapping[str, list], now: Mapping[str, list]) -> list[str]:
    said = []
    for folder in sorted({*before, *now}):
        old, new = before.get(folder, [0, 0, ""]), now.get(folder, [0, 0, ""])
        if old[0] != new[0]:
            said.append(f"{folder} has {new[0]} files, it had {old[0]}")
        elif old[2] != new[2]:
            said.append(f"files in {folder} changed")
    return said
