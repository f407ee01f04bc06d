"""Nothing that only Unix has stops the library. There is no Windows here, so what Windows lacks is taken away, and the code is read.

This cannot show that a run on Windows succeeds (docs/windows.md).
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path, PureWindowsPath

import pytest
from windows_names import unfit

from drstudy.core import paths

ROOT = paths.root()
FILES = [*sorted((ROOT / "drstudy").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]
LIBRARY = [file for file in FILES if file.is_relative_to(ROOT / "drstudy")]

ONLY_UNIX = {
    "os": {
        *(
            "fork",
            "forkpty",
            "getpgid",
            "setpgid",
            "killpg",
            "setsid",
            "getsid",
            "getuid",
            "geteuid",
            "getgid",
        ),
        *(
            "sched_getaffinity",
            "sched_setaffinity",
            "nice",
            "getloadavg",
            "uname",
            "mkfifo",
            "mknod",
            "chown",
        ),
        *(
            "fchmod",
            "fchown",
            "posix_fallocate",
            "statvfs",
            "sysconf",
            "wait",
            "WIFEXITED",
            "link",
            "symlink",
        ),
        *("kill", "getxattr", "setxattr", "sendfile", "pread", "pwrite"),
    },
    "signal": {
        *("SIGHUP", "SIGKILL", "SIGALRM", "SIGCHLD", "SIGSTOP", "SIGCONT", "SIGUSR1", "SIGUSR2", "SIGPIPE"),
        *("SIGQUIT", "alarm", "setitimer", "pause", "sigwait", "pthread_kill", "pthread_sigmask"),
    },
}
"""Names that Windows lacks, or that do something else there: ``os.kill`` ends any process, links need a right that users do not have."""
ONLY_LINUX = {"drstudy/study/forking.py"}
"""Modules that nobody imports, and that are started on Linux only."""
UNIX_ARGUMENTS = {"preexec_fn", "pass_fds", "start_new_session", "process_group", "umask"}


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """As on Windows with a Western European code page: no module of Unix alone, and text is not UTF-8 unless it is asked for."""
    found = {key: value for key, value in os.environ.items() if key not in ("LANG", "LC_ALL", "PYTHONUTF8")}
    path = os.pathsep.join([str(ROOT / "tests" / "without_unix"), str(ROOT)])
    folders = {"DRSTUDY_RESULTS": str(tmp_path / "results"), "DRSTUDY_DATA": str(tmp_path / "data")}
    encoding = {"PYTHONIOENCODING": "cp1252", "PYTHONWARNDEFAULTENCODING": "1"}
    return found | folders | encoding | {"PYTHONPATH": path} | more


IMPORT_ALL = """
import importlib, pkgutil, sys
from drstudy.models import compat  # before torchvision
import drstudy
names = [module.name for module in pkgutil.walk_packages(drstudy.__path__, "drstudy.")]
for name in names:
    if name != "drstudy.__main__":
        importlib.import_module(name)
print(len(names))
"""


def test_every_module_can_be_imported_without_the_modules_of_unix(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], capture_output=True, env=environment(tmp_path), encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    without = sum(file.name == "__init__.py" and file.parent == ROOT / "drstudy" for file in LIBRARY)
    assert int(done.stdout) == len(LIBRARY) - without


def test_the_modules_of_unix_are_really_away(tmp_path):
    code = "__package__ = 'drstudy.core'\nimport fcntl"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment(tmp_path), text=True
    )
    assert "No module named 'fcntl', as on Windows" in done.stderr


def test_costs_are_measured_without_the_module_resource(tmp_path):
    code = "from drstudy.core import records; print(records.peak_rss_mb(), records.cpu_seconds())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment(tmp_path), encoding="utf-8"
    )
    memory, seconds = map(float, done.stdout.split())
    assert 20 < memory < 1e5
    assert 0 < seconds < 600


@pytest.mark.notebook
@pytest.mark.slow
def test_a_stage_runs_without_make_without_the_modules_of_unix_and_in_another_code_page(tmp_path):
    command = [sys.executable, "-m", "drstudy", "reproduce", "--profile", "smoke", "--until", "00"]
    done = subprocess.run(
        command, capture_output=True, env=environment(tmp_path), cwd=tmp_path, encoding="utf-8"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "results/smoke/00_paper_audit/run.json").read_text(encoding="utf-8"))
    assert record["status"] == "finished"
    assert record["peak_rss_mb"] > 20
    from_here = [line for line in done.stderr.splitlines() if "EncodingWarning" in line and "drstudy" in line]
    assert not from_here


def attributes(tree: ast.AST):
    """``module.name`` of every attribute of a plain name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node, node.value.id, node.attr


def asked_for(tree: ast.AST) -> set[str]:
    """Names whose presence the module asks for with ``hasattr``."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {call.args[1].value for call in calls if getattr(call.func, "id", "") == "hasattr"}


@pytest.mark.parametrize("file", LIBRARY, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_module_needs_what_only_unix_has(file):
    if file.relative_to(ROOT).as_posix() in ONLY_LINUX:
        return
    tree = ast.parse(file.read_text(encoding="utf-8"))
    known = asked_for(tree)
    found = [
        f"{module}.{name} in line {node.lineno}"
        for node, module, name in attributes(tree)
        if name in ONLY_UNIX.get(module, ()) and name not in known
    ]
    found += [
        f"{argument.arg}= in line {node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for argument in node.keywords
        if argument.arg in UNIX_ARGUMENTS
    ]
    assert not found, f"{file.relative_to(ROOT)}: {', '.join(found)} is not to be had on Windows"


def test_what_is_for_linux_only_is_not_imported():
    modules = [name.removesuffix(".py").replace("/", ".") for name in ONLY_LINUX]
    for file in FILES:
        imported = {
            f"{node.module}.{alias.name}"
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert not imported & set(modules), file


def test_os_path_is_not_used():
    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in FILES
        for node, module, name in attributes(ast.parse(file.read_text(encoding="utf-8")))
        if (module, name) == ("os", "path")
    ]
    assert not found, f"use pathlib: {', '.join(found)}"


def speaks_text(call: ast.Call) -> bool:
    """Whether a call reads or writes text, in the encoding of the system unless it names one."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = call.func.value.id if isinstance(getattr(call.func, "value", None), ast.Name) else ""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if name in ("read_text", "write_text"):
        return True
    if owner == "subprocess":
        return "text" in given or "universal_newlines" in given
    if name in ("TemporaryFile", "NamedTemporaryFile"):
        return any("b" not in mode.value for mode in call.args[:1] if isinstance(mode, ast.Constant))
    if name != "open" or owner in ("Image", "os", "images"):
        return False
    modes = [*call.args, *([given["mode"]] if "mode" in given else [])]
    return not any("b" in one.value for one in modes if isinstance(one, ast.Constant) and len(one.value) < 4)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_text_is_read_and_written_in_a_named_encoding(file):
    calls = [
        node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
    ]
    unnamed = [
        str(call.lineno)
        for call in calls
        if speaks_text(call) and "encoding" not in {keyword.arg for keyword in call.keywords}
    ]
    assert not unnamed, f"{file.relative_to(ROOT)}, lines {', '.join(unnamed)}: encoding='utf-8' is missing"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("p.read_text()", True),
        ("open(p)", True),
        ("p.open('w')", True),
        ("subprocess.run(c, text=True)", True),
        ("tempfile.TemporaryFile('w+')", True),
        ("p.open('rb')", False),
        ("Image.open(p)", False),
        ("subprocess.run(c, capture_output=True)", False),
    ],
)
def test_the_rule_on_encodings_finds_text(code, text):
    assert speaks_text(ast.parse(code).body[0].value) == text


def test_windows_accepts_all_names_of_the_project():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    names = [name for name in listed.stdout.decode().split("\0") if name]
    assert len(names) > 100
    assert not [f"{name}: {why}" for name in names if (why := unfit(name))]
    same = {name.lower() for name in names}
    assert len(same) == len(names), "two names differ in upper and lower case only"


@pytest.mark.parametrize("name", ["a:b", "a/con.txt", "a/b.", "x?y", "LPT1"])
def test_the_rule_on_names_finds_what_windows_refuses(name):
    assert unfit(name)


def test_a_path_of_another_drive_is_shown_whole():
    start = PureWindowsPath("C:/study/drstudy")
    assert paths.relative(PureWindowsPath("C:/study/params/demo"), start).as_posix() == "../params/demo"
    assert paths.relative(start / "a", start).as_posix() == "a"
    assert paths.relative(start, start).as_posix() == "."
    with pytest.raises(ValueError, match="No folder holds all"):
        paths.relative(PureWindowsPath("D:/eyes"), start)


def test_a_file_that_another_process_reads_is_replaced_when_it_is_free(tmp_path, monkeypatch):
    tries, plain = [], Path.replace

    def busy(self, target):
        tries.append(target)
        if len(tries) < 3:
            raise PermissionError(13, "The process cannot access the file because it is being used")
        return plain(self, target)

    monkeypatch.setattr(Path, "replace", busy)
    monkeypatch.setattr(paths, "WINDOWS", True)
    (tmp_path / "a").write_text("new", encoding="utf-8")
    (tmp_path / "b").write_text("old", encoding="utf-8")
    paths.replace(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text(encoding="utf-8") == "new"
    assert len(tries) == 3


@pytest.mark.parametrize("windows", [True, False])
def test_but_not_for_ever_and_elsewhere_not_again(tmp_path, monkeypatch, windows):
    tries = []

    def busy(self, target):
        tries.append(target)
        raise PermissionError(13, "used")

    monkeypatch.setattr(Path, "replace", busy)
    monkeypatch.setattr(paths, "WINDOWS", windows)
    monkeypatch.setattr(paths, "PATIENCE", 0.12)
    with pytest.raises(PermissionError):
        paths.replace(tmp_path / "a", tmp_path / "b")
    assert (len(tries) > 1) == windows
