"""The command line: what a user types, and what it says when that is wrong."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer
from photographs import eyepacs

from drstudy.core import paths, records
from drstudy.data import images
from drstudy.papers.transfer import params
from drstudy.study import cli, cluster, execute, plan, run, welcome


@pytest.fixture
def drstudy(own_folders, command_line):
    """The command, in folders of this test alone."""
    return command_line


@pytest.fixture
def stages(monkeypatch):
    """What would be run: (stage, overrides) of each call of run.run."""
    calls = []
    monkeypatch.setattr(run, "run", lambda stage, overrides: calls.append((stage, overrides)))
    return calls


def test_parameters_are_yaml_values(drstudy, stages):
    code, _, _ = drstudy(
        "run", "03", "--variant", "vgg16-seed0", "-p", "EPOCHS=3", "-p", "BETAS=[0, 0.9]", "-p", "HEAD=mlp"
    )
    assert code == 0
    [(stage, overrides)] = stages
    assert (stage.notebook, stage.profile, stage.variant) == ("03_fine_tuning", "demo", "vgg16-seed0")
    assert overrides == {"EPOCHS": 3, "BETAS": [0, 0.9], "HEAD": "mlp"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "03", "-p", "EPOCHS"), "error: --parameter takes NAME=VALUE, not 'EPOCHS'."),
        (("run", "99"), "error: The profile 'demo' has no stage '99'. It has:\n  00_paper_audit"),
        (("reproduce", "--profile", "dmeo"), "error: There is no profile 'dmeo'; there are demo"),
        (
            ("reproduce", "--profile", "smoke", "--until", "9"),
            "error: The profile 'smoke' has no notebook '9'.",
        ),
        (("report", "--profile", "smoke"), "error: Nothing of smoke is finished yet"),
    ],
)
def test_mistakes_are_one_message_without_a_traceback(drstudy, stages, arguments, message):
    code, _, err = drstudy(*arguments)
    assert code == 1
    assert err.startswith(message)
    assert "Traceback" not in err
    assert not stages


def test_unknown_parameter_is_refused(drstudy):
    code, _, err = drstudy("run", "01", "--profile", "smoke", "-p", "N_PATIENT=3")
    assert code == 1
    assert "N_PATIENT is not a parameter of this notebook; did you mean N_PATIENTS?" in err


def test_traceback_on_request(drstudy, monkeypatch):
    monkeypatch.setenv("DRSTUDY_TRACEBACK", "1")
    with pytest.raises(KeyError):
        cli_main(monkeypatch, "reproduce", "--profile", "dmeo")


class Unforeseen(Exception):
    """Of no module of the project."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y"),
            "No space left on device: /x/y. Free some space",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "/x/y"),
            "Read-only file system: /x/y. The disk is read-only",
        ),
        (
            OSError(errno.EACCES, "Permission denied", "/x"),
            "Permission denied: /x. You may not write or read there",
        ),
        (MemoryError(), "There is not enough memory"),
        (csv.Error("line contains NUL"), "Error: line contains NUL. This was not foreseen; .* --debug"),
        (Unforeseen("one\ntwo"), "Unforeseen: one. This was not foreseen"),
        (images.StoreError("The image store needs 9 GB."), "The image store needs 9 GB."),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError"),
    ],
)
def test_every_error_is_one_sentence_and_debug_shows_where(drstudy, monkeypatch, error, said):
    def fail(*_):
        raise error

    monkeypatch.setattr(plan, "profile", fail)
    code, _, err = drstudy("reproduce", "--profile", "smoke")
    assert code == 1
    assert re.match(f"error: {said}", err)
    assert "Traceback" not in err
    with pytest.raises(type(error)):
        cli_main(monkeypatch, "reproduce", "--debug", "--profile", "smoke")


def test_a_parameter_that_another_option_sets_or_that_comes_twice_is_refused(drstudy, stages):
    for arguments, said in (
        (("-p", "PROFILE=demo"), "PROFILE is set by --profile"),
        (("-p", "EPOCHS=1", "-p", "EPOCHS=2"), "EPOCHS is given more than once"),
        (("-p", "BETAS=[0.9"), "--parameter BETAS"),
        (("-p", "EPOCHS=!!python/object/apply:os.system [x]"), "--parameter EPOCHS"),
    ):
        code, _, err = drstudy("run", "03", "--variant", "vgg16-seed0", *arguments)
        assert code == 1
        assert said in err
    assert not stages


def test_a_relative_folder_of_data_is_the_callers(drstudy, tmp_path, monkeypatch):
    eyepacs(tmp_path / "mine", 6, 64)
    monkeypatch.chdir(tmp_path)
    code, out, err = drstudy("data", "check", "eyepacs", "mine")
    assert code == 0, out + err
    assert "12 of 6 patients" not in err
    code, out, _ = drstudy("data", "check", "eyepacs", "nowhere")
    assert code == 1
    assert "ERROR: DATA_ROOT" in out


def test_without_a_command_it_shows_the_five_things_that_people_do_first(drstudy):
    code, out, err = drstudy()
    assert (code, err) == (0, "")
    assert len(welcome.FIRST) == 5
    for number, (wish, command) in enumerate(welcome.FIRST, start=1):
        assert f"  {number}. {wish}:\n       {command}\n" in out


@pytest.mark.parametrize("command", [command for _, command in welcome.FIRST])
def test_every_command_that_it_shows_is_understood(command):
    """Each word is a command, an option or an argument, and none is missing."""
    program, *words = command.split()
    assert program == "drstudy"
    group, context = typer.main.get_command(cli.app), None
    while hasattr(group, "commands"):
        context = click.Context(group, info_name=program, parent=context)
        _, group, words = group.resolve_command(context, words)
    parsed = group.make_context("drstudy", words, parent=context)
    assert not parsed.args


@pytest.mark.parametrize(("number", "variant"), [("03", "densenet121-seed0")])
def test_the_stage_that_it_shows_exists(number, variant):
    assert plan.stage(number, "smoke", variant).variant == variant


def test_lab_opens_the_list_of_notebooks_as_a_page(drstudy, monkeypatch):
    asked = []
    monkeypatch.setattr(
        cli.subprocess,
        "run",
        lambda command, **_: asked.append(command) or subprocess.CompletedProcess(command, 0),
    )
    assert drstudy("lab")[0] == 0
    [(*_, folder, settings, page)] = asked
    assert (paths.root() / page).is_file()
    assert folder == f"--notebook-dir={paths.root()}"
    place = Path(settings.removeprefix("--LabApp.app_settings_dir="))
    content = json.loads((place / "overrides.json").read_text(encoding="utf-8"))
    assert (
        content["@jupyterlab/docmanager-extension:plugin"]["defaultViewers"]["markdown"] == "Markdown Preview"
    )


def cli_main(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["drstudy", *arguments])
    cli.main()


def test_profiles_say_how_far_they_are(drstudy):
    records.start(params.DataAudit()).finish()
    _, out, _ = drstudy("profiles")
    lines = {line.split()[0]: line for line in out.splitlines() if not line.startswith("finished")}
    assert set(lines) == set(plan.profiles())
    total = len(plan.plan("smoke"))
    assert f"1 of {total} stages finished" in lines["smoke"]
    assert f"0 of {len(plan.plan('demo'))} stages finished" in lines["demo"]


def reproduce(drstudy, monkeypatch, pending, outcome):
    monkeypatch.setattr(execute, "pending", lambda *_: {name: f"{name}: a reason" for name in pending})

    def executed(*_):
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(execute, "execute", executed)
    return drstudy("reproduce", "--profile", "smoke")


def test_reproduce_with_nothing_to_do_starts_nothing(drstudy, monkeypatch):
    code, out, _ = reproduce(drstudy, monkeypatch, [], AssertionError("it was started"))
    assert code == 0
    assert out.splitlines()[-1].startswith("nothing to do: everything is finished; open ")


def test_a_dry_run_says_why_each_stage_would_run_and_starts_nothing(drstudy, monkeypatch):
    monkeypatch.setattr(
        execute, "pending", lambda *_: {"01": "01: no finished record", "report": "report: 01 will run"}
    )
    monkeypatch.setattr(execute, "execute", lambda *_: pytest.fail("it was started"))
    code, out, _ = drstudy("reproduce", "--profile", "smoke", "--dry-run")
    assert code == 0
    to_run, estimate, *why = out.splitlines()[1:]
    assert to_run == "to run: 01, report"
    assert estimate.startswith("estimate: about ")
    assert why == ["01: no finished record", "report: 01 will run"]


def test_reproduce_ends_with_where_to_look(drstudy, monkeypatch):
    code, out, _ = reproduce(drstudy, monkeypatch, ["01", "report"], {})
    assert code == 0
    assert "to run: 01, report" in out
    assert "results/smoke/<notebook>/executed.ipynb; `drstudy lab` opens them" in out.splitlines()[-2]
    assert out.splitlines()[-1].endswith("open results/smoke/report/index.html")


def test_reproduce_ends_with_what_failed_and_why(drstudy, monkeypatch):
    code, out, err = reproduce(drstudy, monkeypatch, ["01", "02"], {"01": "OSError: the disk is full"})
    assert code == 1
    assert err.splitlines()[0] == "failed: 01: OSError: the disk is full"
    assert "drstudy report --profile smoke" in err
    assert "it goes on with what is unfinished" in err
    assert "done" not in out


def test_reproduce_interrupted_says_that_it_goes_on(drstudy, monkeypatch):
    code, _, err = reproduce(drstudy, monkeypatch, ["01"], KeyboardInterrupt())
    assert code == 130
    assert "the same command goes on from here" in err


def test_reproduce_twice_at_once_is_refused(drstudy, monkeypatch, own_folders):
    with run.alone(own_folders / "results" / "smoke", "it"):
        code, _, err = reproduce(drstudy, monkeypatch, ["01"], AssertionError("it was started"))
    assert code == 1
    assert "Another process is running" in err


def test_reproduce_is_refused_while_snakemake_of_a_killed_command_still_works(
    drstudy, monkeypatch, own_folders
):
    with paths.locked(execute.working("smoke"), wait=False):
        code, _, err = reproduce(drstudy, monkeypatch, ["01"], AssertionError("it was started"))
    assert code == 1
    assert "Another process is running drstudy reproduce --profile smoke" in err


def test_snakemake_works_under_a_lock_of_its_own(own_folders):
    command = [sys.executable, "-m", "drstudy.study.locked", str(own_folders / "lock"), "--version"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert re.fullmatch(r"[0-9.]+\n", done.stdout), done.stderr
    with paths.locked(own_folders / "lock"):
        refused = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "Another process is using" in refused.stderr


def test_reproduce_runs_the_study_that_is_asked_for(drstudy, monkeypatch):
    asked = []
    monkeypatch.setattr(execute, "pending", lambda *given: asked.append(given) or {"06": "06: a reason"})
    monkeypatch.setattr(execute, "execute", lambda *given: asked.append(given) or {})
    code, _, _ = drstudy("reproduce", "--profile", "smoke", "--study", "all", "--cores", "3")
    assert code == 0
    assert asked[0] == ("smoke", "", "all")
    *given, watch = asked[1]
    assert given == ["smoke", 3, "", "all", None]
    assert list(watch.stages) == ["06"]


@pytest.mark.parametrize(
    ("options", "cores"),
    [((), os.cpu_count()), (("--cluster", "ours"), cluster.CORES), (("--cores", "3"), 3)],
)
def test_cores_of_this_machine_or_of_a_stage_on_a_cluster(drstudy, monkeypatch, options, cores):
    asked = []
    monkeypatch.setattr(execute, "pending", lambda *_: {"00": "00: no finished record"})
    monkeypatch.setattr(execute, "execute", lambda *given: asked.append(given) or {})
    drstudy("reproduce", "--profile", "smoke", "--until", "00", *options)
    assert asked[0][1] == cores
    assert asked[0][-2] == (Path("ours") if "--cluster" in options else None)
    assert asked[0][-1].cores == cores
