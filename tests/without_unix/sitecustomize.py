"""Python imports this at its start where this folder is on ``PYTHONPATH``: the library then finds no module that only Unix has.

Other packages are left alone, since each has its own code for Windows.
"""

import builtins

ONLY_UNIX = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
importing = builtins.__import__


def without_unix(name, globals=None, *rest, **named):
    asking = (globals or {}).get("__package__") or (globals or {}).get("__name__") or ""
    if name.partition(".")[0] in ONLY_UNIX and asking.partition(".")[0] == "drstudy":
        raise ModuleNotFoundError(f"No module named {name!r}, as on Windows", name=name)
    return importing(name, globals, *rest, **named)


builtins.__import__ = without_unix
