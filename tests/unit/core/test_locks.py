"""Lock files: who waits, who is refused, and that the system releases the lock of a process that was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from drstudy.core import paths

HOLD = """
import sys, time
from drstudy.core import paths
with paths.locked(sys.argv[1], wait=sys.argv[2] == "wait"):
    print("in", flush=True)
    time.sleep(float(sys.argv[3]))
"""


def holder(path, how: str, seconds: float = 60) -> subprocess.Popen:
    """A process that holds a lock for some time."""
    command = [sys.executable, "-c", HOLD, str(path), how, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")


@pytest.fixture
def held(tmp_path):
    """A lock file that another process holds, and that process."""
    file = tmp_path / "deep" / "lock"
    process = holder(file, "wait")
    assert process.stdout.readline() == "in\n"
    yield file, process
    process.kill()
    process.communicate()


def test_who_does_not_wait_is_refused_and_told_which_lock(held):
    file, process = held
    with (
        pytest.raises(BlockingIOError, match=r"Another process is using .*lock"),
        paths.locked(file, wait=False),
    ):
        pytest.fail("two processes hold it")
    assert process.poll() is None


def test_who_waits_comes_in_when_the_holder_is_killed(held):
    file, process = held
    waiting = holder(file, "wait", 0)
    time.sleep(1.5)
    assert waiting.poll() is None, "it waits"
    process.kill()
    assert waiting.communicate(timeout=30)[0] == "in\n"
    assert waiting.returncode == 0


def test_a_lock_file_that_was_left_there_holds_nobody_up(tmp_path):
    """What a killed process leaves is only a file."""
    (tmp_path / "lock").write_text("left", encoding="utf-8")
    with paths.locked(tmp_path / "lock", wait=False):
        pass
    with paths.locked(tmp_path / "lock", wait=False):
        pass


def test_an_error_inside_releases_the_lock_and_is_not_taken_for_a_held_lock(tmp_path):
    with pytest.raises(BlockingIOError, match="of the work"), paths.locked(tmp_path / "lock", wait=False):
        raise BlockingIOError("of the work")
    with paths.locked(tmp_path / "lock", wait=False):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_worker_that_ends_does_not_release_it(tmp_path):
    """Decoding workers may be forked while the feature store is locked."""
    file = tmp_path / "lock"
    with paths.locked(file):
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        refused = holder(file, "no", 0)
        assert refused.communicate(timeout=30)[0] == ""
        assert refused.returncode == 1


def test_a_process_that_is_there_lives_and_one_that_ended_does_not():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert paths.lives(process.pid)
    assert process.poll() is None, "to ask is not to end it"
    process.communicate(b"\n")
    assert not paths.lives(process.pid)
