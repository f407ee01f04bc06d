"""What an error means for a user, and what to do about it: one table for the command line and for failed stages."""

from __future__ import annotations

import errno
import re

OTHER_DISK = "set DRSTUDY_DATA and DRSTUDY_RESULTS to folders on another disk"
REMEDIES = {
    errno.ENOSPC: f"Free some space and start the same command again: it goes on where it stopped. Or {OTHER_DISK}.",
    errno.EDQUOT: f"Your quota is used up. Free some space and start the same command again. Or {OTHER_DISK}.",
    errno.EROFS: f"The disk is read-only: {OTHER_DISK}.",
    errno.EACCES: f"You may not write or read there. Change the permission. Or {OTHER_DISK}.",
    errno.EMFILE: "Too many files are open. Lower WORKERS, or raise the limit with `ulimit -n`.",
}
"""What to do about errors of the system, by their number."""

MEMORY = "Close other programs, lower BATCH_SIZE, IMAGE_SIZE or WORKERS, or run fewer stages side by side with --cores 1."
BY_NAME = {
    "MemoryError": MEMORY,
    "OutOfMemoryError": MEMORY,
    "DeadKernelError": f"The system ended the notebook's process, which usually means that memory ran out. {MEMORY}",
    "ModuleNotFoundError": "Install the exact versions again with `make install`, or `python tools/install.py`.",
    "ImportError": "Install the exact versions again with `make install`, or `python tools/install.py`.",
    "KeyboardInterrupt": "Start the same command again: finished stages are kept, and training goes on from its last epoch.",
    "ParameterError": "Change the named parameter in params/<profile>/, or the option that sets it.",
    "RecordError": "Run the stage that the message names, or the whole profile with `drstudy reproduce`.",
    "SourceError": "Look at the data set with `drstudy data check SOURCE FOLDER`, which lists all that is wrong with it.",
    "StoreError": "Do what the message says and start the same command again: what was prepared is kept.",
}
"""What to do about errors by the name of their class, as a notebook reports it."""

UNFORESEEN = "If the message does not say what to do, this is probably an error of the project: please report it with the file failure.json."
_NUMBER = re.compile(r"\[Errno (\d+)\]")
_MEMORY = re.compile(r"out of memory|can't allocate memory|Unable to allocate", re.IGNORECASE)


def of(name: str, message: str) -> str:
    """What to do about an error that a notebook reported.

    Args:
        name: Name of its class.
        message: Its text.
    """
    number = _NUMBER.search(message)
    if number and int(number[1]) in REMEDIES:
        return REMEDIES[int(number[1])]
    if _MEMORY.search(message):
        return MEMORY
    return BY_NAME.get(name, UNFORESEEN)


def in_one_sentence(error: Exception) -> str:
    """What an error means for a user: its own words where they are meant for users, else its kind, its first line and what to do."""
    if isinstance(error, KeyError):
        return str(error.args[0] if error.args else error)
    if isinstance(error, OSError) and error.errno in REMEDIES:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}. {REMEDIES[error.errno]}"
    if isinstance(error, MemoryError):
        return f"There is not enough memory. {MEMORY}"
    if isinstance(error, ValueError | OSError) or type(error).__module__.startswith("drstudy"):
        return str(error)
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}. This was not foreseen; the same command with --debug shows where it happened."
