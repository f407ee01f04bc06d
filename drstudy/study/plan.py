"""The stages of a profile: which notebook runs with which parameters, after which other stages.

The papers of the registry say what their stages are; ``Snakefile`` runs them, and :mod:`drstudy.study.reasons` says which of them have to
run.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from drstudy.core import params, paths, records, settings
from drstudy.papers import registry
from drstudy.papers.base import Paper, Profile, Stage

COMMON = frozenset(
    ("densenet121", "resnet101", "vgg16", "inception_v3", *(f"efficientnet_lite{size}" for size in (0, 1, 2)))
)
"""Backbones that are known without loading torch."""
STUDIES = {
    "core": tuple(name for name, notebook in registry.NOTEBOOKS.items() if notebook.study == "core"),
    "all": tuple(registry.NOTEBOOKS),
}
"""Which notebooks ``drstudy reproduce`` runs: those of the main study, or all."""


def profiles() -> list[str]:
    """Names of all profiles."""
    return sorted(path.parent.name for path in (paths.root() / "params").glob("*/profile.yaml"))


def profile_file(name: str) -> Path:
    """The file of a profile, whether it exists or not.

    Raises:
        drstudy.core.params.ParameterError: If no profile can have this name.
    """
    try:
        settings.check_name(name, "The profile name")
    except settings.SettingsError as error:
        raise params.ParameterError(str(error)) from None
    return paths.root() / "params" / name / "profile.yaml"


def profile(name: str) -> Profile:
    """Read a profile.

    Raises:
        KeyError: If there is none of that name, with those that exist.
        drstudy.core.params.ParameterError: If its file is not valid.
    """
    file = profile_file(name)
    if not file.is_file():
        raise KeyError(
            f"There is no profile {name!r}; there are {', '.join(profiles())}. A profile is a folder params/<name> with a profile.yaml."
        )
    try:
        content = settings.read(file)
        if not isinstance(content, dict) or "name" in content:
            raise ValueError("it must be a mapping of settings, without a name")
        made = Profile(name=name, **{str(key): value for key, value in content.items()})
        _check(made, file)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        )
        raise params.ParameterError(f"{paths.show(file)} is not a valid profile: {problems}") from None
    except settings.SettingsError as error:
        raise params.ParameterError(str(error)) from None
    except ValueError as error:
        raise params.ParameterError(f"{paths.show(file)} is not a valid profile: {error}") from None
    return made


def _check(made: Profile, file: Path) -> None:
    """Refuse names in a profile that would fail later, or be passed over.

    Raises:
        ValueError: Naming the first one.
    """
    for name in made.notebooks:
        if name not in registry.NOTEBOOKS:
            raise ValueError(f"notebooks: {params.unknown(name, list(registry.NOTEBOOKS))}")
    for backbone in (*made.backbones, *([made.ablation.backbone] if made.ablation else [])):
        settings.check_name(backbone, "The backbone", settings.BACKBONE)
        if backbone not in COMMON:
            from drstudy.models import nets  # only here: it loads torch

            if backbone not in nets.names():
                near = difflib.get_close_matches(backbone, nets.names(), n=1)
                raise ValueError(
                    f"there is no backbone {backbone!r}" + (f"; did you mean {near[0]}?" if near else "")
                )
    if other := sorted(set(made.overrides) - set(made.backbones)):
        raise ValueError(f"overrides names {other[0]!r}, which is not among the backbones")
    if made.models_from and not profile_file(made.models_from).is_file():
        raise ValueError(
            f"models_from: there is no profile {made.models_from!r}; there are {', '.join(profiles())}"
        )
    for one in made.sets_from:
        _check_set(one)
    for other in file.parent.iterdir():
        known = ("profile.yaml", "common.yaml", *(f"{name}.yaml" for name in registry.NOTEBOOKS))
        if (
            other.suffix.lower() in (".yaml", ".yml")
            and other.name not in known
            and not other.name.startswith(".")
        ):
            near = difflib.get_close_matches(other.name, known, n=1)
            raise ValueError(
                f"{other.name} beside it is read by no notebook"
                + (f"; did you mean {near[0]}?" if near else "")
            )


def _check_set(one: str) -> None:
    """Refuse an entry of ``sets_from`` that names no profile, or no further audit of it.

    Raises:
        ValueError: With the names that there are.
    """
    name, _, variant = one.partition("/")
    if not profile_file(name).is_file():
        raise ValueError(f"sets_from: there is no profile {name!r}; there are {', '.join(profiles())}")
    content = settings.read(profile_file(name))
    audits = content.get("audits") if isinstance(content, dict) else None
    if variant and variant not in (audits or {}):
        known = ", ".join(audits or {}) or "none"
        raise ValueError(f"sets_from: the profile {name!r} has no further audit {variant!r}; it has {known}")


def plan(name: str, study: str = "core") -> list[Stage]:
    """All stages of a profile, in an order in which they can run.

    A paper is left out if it needs what the profile's photographs do not come with.

    Args:
        name: Of :func:`profiles`.
        study: Of :data:`STUDIES`.

    Raises:
        KeyError: If there is no such profile or study.
        ValueError: If stages need each other in a circle.
    """
    if study not in STUDIES:
        raise KeyError(f"There is no study {study!r}; there are {', '.join(STUDIES)}.")
    chosen = profile(name)
    wanted = [notebook for notebook in chosen.notebooks or STUDIES[study]]
    papers = [paper for paper in registry.PAPERS if set(paper.needs) <= set(chosen.data)]
    found = [stage for paper in papers for stage in paper.stages(chosen) if stage.notebook in wanted]
    found += [stage for stage in _across(chosen, papers, found) if stage.notebook in wanted]
    needed = {folder for stage in found for folder in stage.needs}
    return in_order([stage for stage in found if not stage.auxiliary or stage.folder in needed])


def _across(chosen: Profile, papers: Sequence[Paper], planned: Sequence[Stage]) -> list[Stage]:
    """Stages that compare the systems of papers, from the planned stages of the papers that have systems."""
    own = {notebook.name for paper in papers if paper.systems for notebook in paper.notebooks}
    read = [stage for stage in planned if stage.notebook in own and not stage.auxiliary]
    systems = registry.systems()
    return [stage for paper in papers if paper.across for stage in paper.across(chosen, systems, read)]


def in_order(stages: list[Stage]) -> list[Stage]:
    """The same stages, each after those among them that it needs, otherwise in the given order.

    Raises:
        ValueError: If some need each other in a circle.
    """
    rest, ordered = list(stages), []
    while rest:
        waiting = {stage.folder for stage in rest}
        first = next((stage for stage in rest if not waiting & set(stage.needs)), None)
        if first is None:
            raise ValueError(f"Stages need each other in a circle: {', '.join(s.name for s in rest)}.")
        rest.remove(first)
        ordered.append(first)
    return ordered


def result_names(name: str, study: str) -> list[str]:
    """Names of the records (``<notebook>[/<variant>]``) of a profile's stages, in the order of :func:`plan`."""
    return [stage.result for stage in plan(name, study)]


def stage(notebook: str, profile_name: str, variant: str = "") -> Stage:
    """One stage of a profile, of any study; the notebook may be given by its number.

    Without a variant it is the stage that has none, or the only one of its notebook.

    Raises:
        KeyError: If the profile has no such stage, with those that it has.
    """
    stages = plan(profile_name, "all")
    fits = [s for s in stages if s.notebook.startswith(notebook) and (not variant or s.variant == variant)]
    fits = [s for s in fits if s.variant == variant] or fits
    if len(fits) != 1:
        which = "no stage" if not fits else f"{len(fits)} stages"
        known = "\n".join(
            f"  {s.notebook} {'--variant ' + s.variant if s.variant else ''}".rstrip() for s in stages
        )
        raise KeyError(
            f"The profile {profile_name!r} has {which} {' '.join((notebook, variant)).strip()!r}. It has:\n{known}"
        )
    return fits[0]


def stage_of(folder: str) -> Stage:
    """The stage that makes a result folder, written as parameters write it: ``results/<profile>/<notebook>[/<variant>]``.

    Raises:
        KeyError: As :func:`stage`.
    """
    _, profile_name, notebook, *variant = folder.split("/")
    return stage(notebook, profile_name, *variant)


def waiting(profile_name: str) -> list[Stage]:
    """Stages of a profile's core study that have no finished record yet."""
    unfinished = []
    for one in plan(profile_name):
        try:
            records.load(one.folder)
        except records.RecordError:
            unfinished.append(one)
    return unfinished
