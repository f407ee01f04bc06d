"""Kernels that are copies of a process with the large libraries: what they share with ordinary kernels, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from drstudy.study import ahead, kernels

pytestmark = pytest.mark.notebook
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="copies are made on Linux only")
AHEAD = ("ipykernel.kernelapp", "sched")  # a module that nothing else imports
LOOK = """import json, os, signal, sys
print(json.dumps({
    "ahead": "sched" in sys.modules, "own": any(m.split(".")[0] == "drstudy" for m in sys.modules), "path": sys.path, "folder": os.getcwd(),
    "variables": dict(os.environ), "leader": os.getpgrp() == os.getpid(), "arguments": len(sys.argv), "pid": os.getpid(),
    "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "main": __name__, "interpreter": sys.executable}))"""


def execute(manager: type, code: str, folder) -> nbformat.NotebookNode:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(
        notebook, resources=resources, kernel_manager_class=manager, shutdown_kernel="immediate"
    )
    return client.execute()


def look(manager: type, folder) -> dict:
    return json.loads(execute(manager, LOOK, folder).cells[0].outputs[0].text)


@pytest.fixture
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONHASHSEED", "0")


@LINUX
def test_a_copy_differs_from_an_ordinary_kernel_by_what_is_imported_only(one_thread, monkeypatch, tmp_path):
    with ahead.offered(AHEAD):
        monkeypatch.setenv("DRSTUDY_OF_THIS_STAGE", "of this stage")
        copy = look(kernels.manager(1), tmp_path)
    ordinary = look(kernels.OwnKernel, tmp_path)
    assert copy.pop("ahead")
    assert not ordinary.pop("ahead")
    assert not copy["own"], "a stage runs the code of its own start"
    assert copy["variables"]["DRSTUDY_OF_THIS_STAGE"] == "of this stage"
    for kernel in (copy, ordinary):
        del kernel["pid"]
        for name in ("JPY_PARENT_PID", "JPY_INTERRUPT_EVENT", "IPY_INTERRUPT_EVENT", ahead.SOCKET):
            kernel["variables"].pop(name, None)
    assert copy == ordinary


LIBRARIES = """import json, os, sys
from drstudy.study import ahead
there = [name for name in ahead.LIBRARIES if name in sys.modules]
from drstudy.models.compat import torchvision
import matplotlib, torch
with torch.inference_mode():
    answer = torchvision.models.resnet18().eval()(torch.ones(1, 3, 32, 32)).shape
print(json.dumps([there, torch.get_num_threads(), matplotlib.get_backend(), list(answer)]))"""


@LINUX
@pytest.mark.slow
def test_all_libraries_are_there_and_work(one_thread, tmp_path):
    with ahead.offered():
        manager = kernels.manager(1)
        ((there, threads, backend, shape), *_) = [
            json.loads(execute(manager, LIBRARIES, tmp_path).cells[0].outputs[0].text) for _ in "ab"
        ]
    assert there == [name for name in ahead.LIBRARIES if not name.startswith("drstudy.")]
    assert threads == 1
    assert "inline" in backend
    assert shape == [1, 1000]


@LINUX
def test_a_library_that_cannot_be_imported_is_left_to_the_notebook(one_thread, tmp_path, capfd):
    with ahead.offered(("no_such_library", *AHEAD)):
        assert look(kernels.manager(1), tmp_path)["ahead"]
    assert "Traceback" not in capfd.readouterr().err


@LINUX
def test_a_figure_is_shown(one_thread, tmp_path):
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    with ahead.offered((*AHEAD, "matplotlib.pyplot")):
        executed = execute(kernels.manager(1), code, tmp_path)
    assert any("image/png" in output.get("data", {}) for output in executed.cells[0].outputs)


@LINUX
def test_copies_share_the_import(one_thread, tmp_path):
    code = "import sched, os\nprint(id(sched), os.getpid())"
    with ahead.offered(AHEAD):
        outputs = [execute(kernels.manager(1), code, tmp_path).cells[0].outputs[0].text.split() for _ in "ab"]
    (one, first), (other, second) = outputs
    assert one == other, "at the same address, as nothing was imported again"
    assert first != second


@LINUX
def test_a_killed_copy_is_a_dead_kernel(one_thread, tmp_path):
    with ahead.offered(AHEAD), pytest.raises(DeadKernelError):
        execute(kernels.manager(1), "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", tmp_path)


STAGE = """import sys, time
from drstudy.study import ahead, kernels
import asyncio
async def main():
    manager = kernels.manager(1)()
    await manager.start_kernel()
    print(manager.provisioner.pid, type(manager.provisioner.process).__name__, flush=True)
    time.sleep(600)
asyncio.run(main())"""


@LINUX
def test_a_copy_ends_with_its_stage_however_that_ends(one_thread):
    with ahead.offered(AHEAD):
        stage = subprocess.Popen([sys.executable, "-c", STAGE], stdout=subprocess.PIPE, text=True)
        pid, kind = stage.stdout.readline().split()
        assert kind == "Copy"
        kernel = psutil.Process(int(pid))
        stage.send_signal(signal.SIGKILL)
        stage.wait()
        kernel.wait(20)


@LINUX
def test_a_copy_outlives_the_process_that_made_it(one_thread):
    """If only `drstudy reproduce` is killed, stages that run go on."""
    with ahead.offered(AHEAD):
        stage = subprocess.Popen([sys.executable, "-c", STAGE], stdout=subprocess.PIPE, text=True)
        kernel = psutil.Process(int(stage.stdout.readline().split()[0]))
        made_it = kernel.parent()
    assert not made_it.is_running()
    time.sleep(1)
    assert kernel.is_running()
    stage.kill()
    stage.wait()
    kernel.wait(20)


@LINUX
def test_without_an_answer_an_ordinary_kernel_starts_and_says_so(one_thread, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(ahead.SOCKET, str(tmp_path / "nobody"))
    seen = look(kernels.manager(1), tmp_path)
    assert not seen["ahead"]
    assert "No kernel was made ahead (" in capsys.readouterr().err


@LINUX
def test_it_ends_with_the_process_that_started_it(tmp_path):
    code = "import os\nfrom drstudy.study import ahead\nwith ahead.offered(()):\n print(os.environ[ahead.SOCKET], flush=True)\n input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = subprocess.Popen([sys.executable, "-c", code], **pipes)
    started.stdout.readline()
    (child,) = psutil.Process(started.pid).children()
    started.kill()
    started.wait()
    child.wait(20)


@LINUX
def test_a_path_that_is_too_long_for_a_socket_is_no_failure(monkeypatch, tmp_path, capsys):
    far = tmp_path / ("a" * 120)
    far.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(far))
    with ahead.offered(()):
        assert kernels.manager(1) is kernels.OwnKernel
    assert "No kernels are made ahead (AF_UNIX path too long)" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["beside a GPU", "on Windows", "on a Mac"])
def test_nothing_is_offered_where_a_fork_is_not_safe(monkeypatch, tmp_path, where):
    if where == "beside a GPU":
        monkeypatch.setattr(ahead, "GPUS", (str(tmp_path),))
    else:
        monkeypatch.setattr(sys, "platform", {"on Windows": "win32", "on a Mac": "darwin"}[where])
    with ahead.offered():
        assert ahead.SOCKET not in os.environ
        assert kernels.manager(1) is kernels.OwnKernel


@LINUX
def test_only_stages_on_one_thread_ask_for_a_copy():
    with ahead.offered(()):
        assert kernels.manager(1) is kernels.OwnCopy
        assert kernels.manager(0) is kernels.manager(2) is kernels.OwnKernel
    assert ahead.SOCKET not in os.environ
    assert kernels.manager(1) is kernels.OwnKernel
