"""Where things are: one root, whatever folder papermill, nbval or JupyterLab starts in.

Two environment variables move the large folders: ``DRSTUDY_DATA`` (default ``<root>/data``) and
``DRSTUDY_RESULTS`` (default ``<root>/results``).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pandas import DataFrame

WINDOWS = sys.platform == "win32"
PATIENCE = 2.0
"""Seconds for which :func:`replace` waits on Windows until no other process reads the file that it replaces."""

AnyPath = TypeVar("AnyPath", bound=PurePath)


def root() -> Path:
    """The project's folder: the nearest one upwards (of this file, else of the caller) that holds ``notebooks/``.

    Raises:
        FileNotFoundError: If there is none, with what to do.
    """
    for start in (Path(__file__).resolve().parent, Path.cwd().resolve()):
        for folder in (start, *start.parents):
            if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file():
                return folder
    raise FileNotFoundError(
        "The folder of the study was not found: no folder above this one holds both notebooks/ and pyproject.toml. "
        "Start drstudy inside a clone of the project, installed with `pip install -e .`."
    )


def data() -> Path:
    """The folder of data sets and stores (git ignores it)."""
    return Path(os.environ.get("DRSTUDY_DATA") or root() / "data").resolve()


def results() -> Path:
    """The folder of results (git ignores it)."""
    return Path(os.environ.get("DRSTUDY_RESULTS") or root() / "results").resolve()


def resolve(path: str | os.PathLike[str]) -> Path:
    """A path as parameters write it: absolute, or relative to the root; ``data/...`` and ``results/...`` follow the variables."""
    path = Path(path).expanduser()
    if path.is_absolute():
        return path
    if path.parts[:1] == ("results",):
        return results().joinpath(*path.parts[1:])
    if path.parts[:1] == ("data",):
        return data().joinpath(*path.parts[1:])
    return (root() / path).resolve()


def show(path: str | os.PathLike[str]) -> str:
    """The inverse of :func:`resolve` for readers: ``results/...``, ``data/...``, relative to the root, else absolute."""
    path = Path(path).resolve()
    for base, prefix in ((results(), "results"), (data(), "data")):
        if path.is_relative_to(base):
            return (Path(prefix) / path.relative_to(base)).as_posix()
    try:
        shown = relative(path, root()).as_posix()
    except ValueError:  # another drive
        return path.as_posix()
    return (
        shown if resolve(shown) == path else path.as_posix()
    )  # the root's own data/ while DRSTUDY_DATA is another


def common(first: AnyPath, *others: AnyPath) -> AnyPath:
    """The deepest folder that is, or holds, all of these paths.

    Args:
        first, others: Paths of one kind, all absolute or all relative.

    Raises:
        ValueError: If there is none: they are on different drives of Windows, or some are absolute and some relative.
    """
    for folder in (first, *first.parents):
        if all(path.is_relative_to(folder) for path in others):
            return folder
    raise ValueError(f"No folder holds all of {', '.join(map(str, (first, *others)))}.")


def relative(path: AnyPath, start: AnyPath) -> AnyPath:
    """A path as seen from a folder, through ``..`` where it is not below it.

    Args:
        path, start: Absolute paths without ``..``.

    Raises:
        ValueError: If they are on different drives of Windows.
    """
    shared = common(path, start)
    ups = len(start.relative_to(shared).parts)
    return type(path)(*[".."] * ups, path.relative_to(shared))


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; renamed to ``path`` when the block ends well, removed when it does not.

    The temporary name keeps the suffix, so writers that go by it work.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, f".{path.stem}-")
    handle, name = tempfile.mkstemp(
        prefix=f".{path.stem}-{_host()}-{os.getpid()}-", suffix=path.suffix, dir=path.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace(source: Path, target: Path) -> None:
    """Rename a file, over another one if there is one. On Windows this fails while another process has the target open (a virus scanner, a
    reader), so there it is tried again for :data:`PATIENCE` seconds.

    Raises:
        OSError: If it cannot be done.
    """
    last = time.monotonic() + PATIENCE
    while True:
        try:
            source.replace(target)
            return
        except PermissionError:
            if not WINDOWS or time.monotonic() > last:
                raise
            time.sleep(0.05)


def write_csv(frame: DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table atomically, without its index, with the same line ends on all systems."""
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def _host() -> str:
    """A short digest of this machine's name, so that a process of another one is not taken for dead."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def sweep(folder: Path, prefix: str = ".") -> None:
    """Remove temporary files of :func:`atomic` that a process of this machine left when it was killed.

    Args:
        folder: Where they lie, not below it.
        prefix: Beginning of their names.
    """
    left = re.compile(rf"{re.escape(prefix)}(?:.*-)?{_host()}-(\d+)-[^-]*")
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (match := left.fullmatch(entry.name)) and not lives(int(match[1])):
                Path(entry).unlink()


def lives(process: int) -> bool:
    """Whether a process of this machine is there. (Signal 0, which asks this on Unix, would end the process on Windows.)"""
    import psutil

    return psutil.pid_exists(process)


def read_csv(path: str | os.PathLike[str], text: Iterable[str] = (), **dtypes: Any) -> DataFrame:
    """Read a table that :func:`write_csv` wrote.

    Args:
        path: File.
        text: Columns of texts, which are kept as they stand: ``NA`` may be the name of a patient. Those that the table lacks are passed over.
        dtypes: Types of other columns. An empty cell of these is missing.

    Raises:
        ValueError: If the file is empty or no table, naming it.
    """
    import pandas as pd

    kept = tuple(text)
    try:
        names = pd.read_csv(path, nrows=0).columns
        missing = {name: [] if name in kept else ["", "NA", "NaN", "nan", "<NA>"] for name in names}
        types = {**{name: str for name in kept}, **dtypes}
        return pd.read_csv(path, dtype=types, keep_default_na=False, na_values=missing)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{show(path)} cannot be read as a table ({str(error).strip()}).") from None


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Folders below a root as :func:`os.walk` gives them, top down and in order, without hidden names. Links to folders are followed, and each
    folder is visited once, so that a link to a folder above it has no effect.

    Yields:
        The folder, the names of its folders (which may be removed from the list), and those of its files.
    """
    seen: set[tuple[int, int]] = set()
    for directory, folders, names in os.walk(root, followlinks=True):
        status = Path(directory).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(directory), folders, sorted(name for name in names if not name.startswith("."))


@contextmanager
def locked(path: str | os.PathLike[str], wait: bool = True) -> Iterator[None]:
    """Hold a lock file, which one process at a time can do; the system releases the lock of a process that dies.

    Args:
        path: Lock file. It is made with its folder where it is missing, and nothing needs to remove it.
        wait: Whether to wait for a process that holds it.

    Raises:
        BlockingIOError: If another process holds it and ``wait`` is false.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise BlockingIOError(f"Another process is using {show(path)}.") from None
    try:
        yield
    finally:
        lock.release()


def trained(key: str) -> Path:
    """Where the trained-model store keeps a training of this key, whether it is there or not."""
    return data() / "models" / f"{key}.safetensors"


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
