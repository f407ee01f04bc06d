"""Settings of the campaign; and Snakemake, which must plan for results folders and profiles of any permitted name."""

from __future__ import annotations

import subprocess

import pytest
import settings_cases
from cases import judge

from drstudy.core import paths, settings
from drstudy.study import execute


@pytest.mark.parametrize("case", settings_cases.cases(), ids=lambda case: case.label)
def test_setting(case, tmp_path):
    judge(case, tmp_path)


def test_plain_values_are_read_by_the_rules_of_yaml_1_2():
    text = "{a: 1e-4, b: 10, c: -2.5, d: true, e: null, f: 'yes', g: yes, h: 0, i: [1, .5], j: 1.0e+3, k: 2024-01-01}"
    assert settings.parse(text, "x") == {
        **{
            "a": 1e-4,
            "b": 10,
            "c": -2.5,
            "d": True,
            "e": None,
            "f": "yes",
            "g": "yes",
            "h": 0,
            "i": [1, 0.5],
        },
        **{"j": 1000.0, "k": "2024-01-01"},
    }


def test_every_file_of_every_profile_reads_as_before():
    """The two versions of YAML agree on the project's own files, but for numbers such as ``1e-4``."""
    import yaml

    files = sorted((paths.root() / "params").glob("*/*.yaml"))
    assert len(files) > 20
    for file in files:
        assert settings.read(file) == yaml.safe_load(file.read_text()), file


ODD = ("a b", "a'b", 'a"b', "a{x}b", "a*b", "a#b", "a,b", "ünï", "a\\b", "$(touch pwn)", "a;b", "a[1]")


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_snakemake_plans_in_a_results_folder_of_any_name(name, tmp_path, monkeypatch):
    results = tmp_path / name / "results"
    results.mkdir(parents=True)
    monkeypatch.setenv("DRSTUDY_RESULTS", str(results))
    done = subprocess.run(
        execute.command("smoke", "core", "00", 1, "--dry-run"), capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "pwn").exists()
