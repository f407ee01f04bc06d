"""Checked parameters: the base of the one class that each notebook has, used right after papermill has injected.

Papermill only warns of an unknown name and turns a YAML ``1e-4`` into a string (its documented behaviour). Here the
first is an error that names the nearest field, and the second is read as a number. In the notebooks and in
``params/<profile>/*.yaml`` the names are UPPER_CASE; in Python they are attributes in lower case. The classes themselves
are in ``drstudy/papers/<paper>/params.py``, and the recipe that several of them share is :mod:`drstudy.training.recipe`.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from drstudy.core import paths, settings

Positive = Annotated[int, Field(ge=1, le=100_000)]
"""A number of epochs, images, resamples, ...; more of them would never end, or not fit into memory."""
Share = Annotated[float, Field(ge=0, le=1)]
Settings = dict[str, Any]
Checked = TypeVar("Checked", bound="Parameters")
Variant = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]*)?$")]


class ParameterError(ValueError):
    """A parameter has an unknown name, a wrong type, or a value out of range."""


class Parameters(BaseModel):
    """What every notebook takes.

    Attributes:
        profile: Name of the profile; results go to ``results/<profile>/``.
        variant: Sub-folder of the result where a notebook runs more than once (backbone and seed), else empty.
        seed: Seed of everything random in this notebook.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    notebook: ClassVar[str] = ""
    TRAINS: ClassVar[bool] = False
    """Whether the notebook trains networks."""
    SHOWS: ClassVar[frozenset[str]] = frozenset({"profile", "variant"})
    """Fields of this class that decide what is measured or shown and never what is trained; subclasses name their own beside them."""
    FED_BY: ClassVar[tuple[str, ...]] = ("AUDIT",)
    """Parameters that name the result folders from which trainings take their photographs or recipe."""

    OUTSIDE: ClassVar[frozenset[str]] = frozenset()
    """Fields of this class that may name a file or folder outside the project, of which the result depends; subclasses name their own beside
    them."""

    profile: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")] = "smoke"
    variant: Variant = ""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @field_validator("*", mode="before")
    @classmethod
    def _plain_types(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what pydantic would turn into the type of a field although it is not meant so."""
        if wrong := _mistaken(value, cls.model_fields[info.field_name].annotation):
            raise ValueError(wrong)
        return value

    @classmethod
    def names(cls) -> list[str]:
        """The names as notebooks write them."""
        return [name.upper() for name in cls.model_fields]

    @classmethod
    def shows(cls) -> set[str]:
        """Names of all fields, as notebooks write them, of which another value trains nothing anew."""
        return {name.upper() for kind in cls.__mro__ for name in vars(kind).get("SHOWS", ())}

    @classmethod
    def outside(cls) -> set[str]:
        """Names of all fields, as notebooks write them, that may name files outside the project."""
        return {name.upper() for kind in cls.__mro__ for name in vars(kind).get("OUTSIDE", ())}

    def places(self, name: str) -> list[str]:
        """The files and folders that a parameter of :meth:`outside` names; none where it is empty."""
        value = getattr(self, name.lower())
        return [value] if isinstance(value, str) and value else []

    @classmethod
    def check(cls, namespace: Mapping[str, Any]) -> Self:
        """Build the parameters from a notebook's ``globals()`` (or any mapping with UPPER_CASE names).

        Raises:
            ParameterError: Naming each field that is unknown, of a wrong type or out of range, and what to write instead.
        """
        given = {
            name: value
            for name, value in namespace.items()
            if name.isupper() and not name.startswith("_") and not isinstance(value, types.ModuleType | type)
        }
        problems = [unknown(name, cls.names()) for name in given if name not in cls.names()]
        known = {name.lower(): value for name, value in given.items() if name in cls.names()}
        try:
            parameters = cls(**known)
        except ValidationError as error:
            problems += [explain(item) for item in error.errors()]
        if problems:
            where = f"notebook {cls.notebook}" if cls.notebook else cls.__name__
            raise ParameterError(f"Parameters of {where}:\n" + "\n".join(f"  - {line}" for line in problems))
        return parameters

    @property
    def folder(self) -> Path:
        """Where this notebook's result goes: ``results/<profile>/<notebook>[/<variant>]``."""
        return paths.results() / self.profile / self.notebook / self.variant

    def upper(self) -> dict[str, Any]:
        """As JSON-ready UPPER_CASE names: what ``run.json`` records and papermill takes."""
        return {name.upper(): value for name, value in self.model_dump(mode="json").items()}


class Computing(Parameters):
    """For notebooks that run a network.

    Attributes:
        device, precision, threads: See :func:`drstudy.core.devices.setup`.
    """

    SHOWS: ClassVar[frozenset[str]] = frozenset({"threads"})

    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    threads: Annotated[int, Field(ge=0, le=1024)] = 0


def _mistaken(value: Any, kind: Any) -> str:
    """Why a value must not be taken for a type, although it could be turned into it; empty if it may."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _mistaken(value, inner[0])
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return f"should be a list, not {value!r}"
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return next((wrong for one, of in zip(value, kinds) if (wrong := _mistaken(one, of))), "")
    if origin is Literal and isinstance(value, bool) and not any(isinstance(one, bool) for one in inner):
        return f"should be one of {', '.join(map(str, inner))}, not {value}"
    if kind is bool and not isinstance(value, bool):
        return f"should be true or false, not {value!r}"
    if kind in (int, float):
        what = "a whole number" if kind is int else "a number"
        if isinstance(value, bool):
            return f"should be {what}, not {value}"
        if isinstance(value, str | bytes) and not (
            isinstance(value, str) and settings.DECIMAL.fullmatch(value.strip())
        ):
            return f"should be {what}, not the text {value!r}"
    if kind is str and isinstance(value, bytes):
        return "should be text, not bytes"
    return ""


def from_files(cls: type[Checked], files: list[Path], overrides: Mapping[str, Any] | None = None) -> Checked:
    """Merge flat YAML files (later wins) and overrides, and check them before any kernel starts.

    Args:
        cls: Parameter class of the notebook.
        files: Flat YAML files with UPPER_CASE names.
        overrides: UPPER_CASE names to values, over those of the files.

    Raises:
        ParameterError: As :meth:`Parameters.check`; also if a file is not a flat mapping, but for parameters that are mappings
            themselves (``WITHOUT_PRETRAINING``), which are taken whole.
    """
    merged: dict[str, Any] = {}
    mappings = {name.upper() for name, field in cls.model_fields.items() if field.annotation == Settings}
    for file in files:
        try:
            content = settings.read(file)
        except settings.SettingsError as error:
            raise ParameterError(str(error)) from None
        content = {} if content is None else content
        if not isinstance(content, dict) or any(
            isinstance(value, dict) and name not in mappings for name, value in content.items()
        ):
            but = f"; only {', '.join(sorted(mappings))} holds settings itself" if mappings else ""
            raise ParameterError(f"{paths.show(file)} must be a flat mapping of NAME: value{but}.")
        _upper_case(content, paths.show(file))
        if hidden := [str(name) for name in content if str(name).startswith("_")]:
            raise ParameterError(f"{paths.show(file)}: {unknown(hidden[0], cls.names())}")
        merged.update(content)
    _upper_case(overrides or {}, "Parameters given directly")
    merged.update(overrides or {})
    return cls.check(merged)


def each_once(value: tuple[str, ...]) -> tuple[str, ...]:
    """A list without repetitions, unchanged.

    Raises:
        ValueError: If an entry stands twice.
    """
    twice = next((one for place, one in enumerate(value) if one in value[:place]), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is named more than once")
    return value


def identity_pattern(value: str) -> str:
    """A regular expression that says whose eye a photograph shows; see :mod:`drstudy.data.sources.identity`.

    Raises:
        ValueError: If it is no regular expression, or has no group ``patient``.
    """
    try:
        groups = re.compile(value).groupindex
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression ({error})") from None
    if value and "patient" not in groups:
        raise ValueError(f"{value!r} has no group (?P<patient>...)")
    return value


def _upper_case(names: Iterable[Any], where: str) -> None:
    lower = [str(name) for name in names if not str(name).isupper()]
    lower = [name for name in lower if not name.startswith("_")] or lower
    if lower:
        raise ParameterError(f"{where}: names are written in UPPER CASE, not {', '.join(lower)}.")


def unknown(name: str, known: list[str]) -> str:
    """What is wrong with a name that no parameter of a notebook has, with the nearest of those that it has."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}."
    return f"{name} is not a parameter of this notebook; {hint}"


def explain(error: Any) -> str:
    """What pydantic found wrong with one value: its name, the value, and what it should be."""
    name = ".".join(str(part) for part in error["loc"]).upper()
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{name} = {error['input']!r}: {message}" if name else message
