"""Settings in YAML, read by the rules of YAML 1.2, and the one check of names that become parts of paths.

PyYAML reads YAML 1.1, in which ``010`` is 8, ``1:30`` is 90, ``1_0`` is 10, ``1e-4`` is a text, ``no`` is false, and the first of two equal keys is lost.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar

import yaml

from drstudy.core import paths

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
"""Names of profiles: they are folders, and parts of Snakemake's targets."""
BACKBONE = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""Names of backbones, which begin a variant."""
DEVICES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
)
"""Names that no file can have on Windows, with any suffix."""
WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)", re.ASCII)
DECIMAL = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)


class SettingsError(ValueError):
    """A file of settings that cannot be read, or a name that cannot be used."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema, without leading zeros; a key that is given twice is an error."""

    yaml_implicit_resolvers: ClassVar[dict] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"{twice} is given more than once", node.start_mark
            )
        return super().construct_mapping(node, deep)


for tag, pattern, first in (
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    ("int", WHOLE, "-+0123456789"),
    ("float", DECIMAL, "-+.0123456789"),
    ("null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{pattern.pattern})$"), list(first)
    )


def read(file: Path) -> Any:
    """The content of a YAML file; ``None`` if it is empty.

    Raises:
        SettingsError: If it cannot be opened, is no text, or is no valid YAML, naming the file and the place.
    """
    where = paths.show(file)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{where} cannot be opened ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{where} is no UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8."
        ) from None
    return parse(text, where)


def parse(text: str, where: str) -> Any:
    """The value of a YAML text.

    Args:
        text: One document.
        where: What it is, for the message.

    Raises:
        SettingsError: If it is no valid YAML, has more than one document, a key twice, or a tag (nothing is ever executed).
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise SettingsError(f"{where} is nested too deeply.") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SettingsError(f"{where}{place}: {problem}.") from None


def check_name(name: Any, what: str, pattern: re.Pattern[str] = NAME) -> str:
    """A name that becomes part of a path, unchanged.

    Raises:
        SettingsError: If it is no text, has other letters than lower case, digits, ``_``, ``.`` and ``-``, or if no folder can have it on
            Windows.
    """
    if not isinstance(name, str) or not pattern.fullmatch(name) or ".." in name:
        rule = "lower-case letters, digits, '_'" + (", '.' and '-'" if pattern is NAME else "")
        raise SettingsError(
            f"{what} {name!r} cannot be used: it must have only {rule}, begin with a letter or digit, and have at most 64 letters."
        )
    if name.split(".")[0] in DEVICES or name.endswith("."):
        raise SettingsError(
            f"{what} {name!r} cannot be used: Windows has no folder of this name. Choose another one."
        )
    return name
