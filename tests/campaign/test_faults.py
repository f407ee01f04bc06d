"""Faults while something is written: kills, power cuts, full and read-only disks, two processes at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from photographs import encoded, folder_of, photograph

from drstudy.core import paths
from drstudy.data import images
from drstudy.data.images import writing

SIZE = 64
ROOT = Path(images.__file__).parents[3]
BUILD = """
import sys, time
from drstudy.data import images, manifest
from drstudy.data.images import writing
writing.BLOCK = 4
plain = writing.prepare
def slow(*a):
    time.sleep({pause})
    return plain(*a)
writing.prepare = slow
if __name__ == "__main__":
    images.build(manifest.read(sys.argv[1]), {size}, workers={workers}, folder=sys.argv[2])
"""


@pytest.fixture(scope="module")
def some(tmp_path_factory) -> pd.DataFrame:
    """Forty photographs, two of them broken."""
    root = tmp_path_factory.mktemp("some")
    files = {f"eye_{n:03}.jpeg": encoded(photograph(n, 90)) for n in range(40)}
    files["eye_005.jpeg"] = files["eye_030.jpeg"] = b"broken"
    return folder_of(root, files)


@pytest.fixture(scope="module")
def whole(some, tmp_path_factory) -> images.ImageStore:
    return images.build(some, SIZE, workers=1, folder=tmp_path_factory.mktemp("whole"))


def same(store: images.ImageStore, other: images.ImageStore) -> None:
    """Two stores have equal bytes, and nothing else lies beside them."""
    names = {"images.npy", "index.csv", "measures.csv", "problems.csv", "store.json"}
    for name in names:
        assert (store.folder / name).read_bytes() == (other.folder / name).read_bytes(), name
    assert {path.name for path in store.folder.iterdir()} <= names | {"lock", "compared.json"}


def start(some, tmp_path: Path, pause: float = 0.02, workers: int = 1) -> subprocess.Popen:
    some.to_csv(tmp_path / "manifest.csv", index=False)
    (tmp_path / "build.py").write_text(BUILD.format(size=SIZE, pause=pause, workers=workers))
    command = [
        sys.executable,
        str(tmp_path / "build.py"),
        str(tmp_path / "manifest.csv"),
        str(tmp_path / "cut"),
    ]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True)


def begun(whole, tmp_path: Path) -> Path:
    """Waits for the first rows of the other process; returns their journal."""
    journal = tmp_path / "cut" / whole.folder.name / "rows.jsonl"
    until = time.monotonic() + 60
    while time.monotonic() < until and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.01)
    return journal


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(20))
def test_killed_at_a_random_moment_it_resumes_to_the_same_bytes(some, whole, tmp_path, turn):
    rng = np.random.default_rng(turn)
    process = start(some, tmp_path, pause=0.01)
    begun(whole, tmp_path)
    time.sleep(float(rng.uniform(0, 0.7)))
    process.send_signal([signal.SIGKILL, signal.SIGTERM, signal.SIGINT][turn % 3])
    process.wait()
    same(images.build(some, SIZE, workers=1, folder=tmp_path / "cut"), whole)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_process_that_they_work_for(some, whole, tmp_path, number):
    process = start(some, tmp_path, pause=0.2, workers=3)
    begun(whole, tmp_path)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 3
    process.send_signal(number)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=15)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


def stopped(some, folder: Path, monkeypatch) -> Path:
    """A store of which all rows are written, and nothing is finished; its journal."""
    with monkeypatch.context() as patch:
        patch.setattr(writing, "_finish", lambda *_: pytest.fail("cut off", pytrace=False))
        with pytest.raises(pytest.fail.Exception, match="cut off"):
            images.build(some, SIZE, workers=1, folder=folder)
    return next(folder.glob("*/rows.jsonl"))


GARBAGE = {
    "zero bytes": lambda text: text + bytes(4096),
    "zero bytes and a line end": lambda text: text + bytes(4096) + b"\n",
    "noise": lambda text: text + np.random.default_rng(0).integers(0, 255, 999, np.uint8).tobytes() + b"\n",
    "half of a line": lambda text: text[:-40],
    "a number": lambda text: text + b"7\n",
    "a list": lambda text: text + b"[1, 2]\n",
    "a record without its digest": lambda text: text + b'{"row": 3, "image_id": "x", "bad": "y"}\n',
    "an edited measurement": lambda text: text.replace(b'"brightness": ', b'"brightness": 1', 1),
    "a line changed into zero bytes": lambda text: (
        bytes(len(text.splitlines()[0])) + text[len(text.splitlines()[0]) :]
    ),
    "nothing": lambda text: b"",
    "lines in another order": lambda text: b"".join(reversed(text.splitlines(keepends=True))),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_damaged_journal_is_read_as_far_as_it_is_true(some, whole, tmp_path, monkeypatch, kind):
    journal = stopped(some, tmp_path, monkeypatch)
    journal.write_bytes(GARBAGE[kind](journal.read_bytes()))
    same(images.build(some, SIZE, workers=1, folder=tmp_path), whole)


@pytest.mark.parametrize("left", ["store.json", "images.part.npy", "images.npy", "rows.jsonl"])
def test_an_empty_file_of_a_power_cut_is_made_again(some, whole, tmp_path, monkeypatch, left):
    journal = stopped(some, tmp_path, monkeypatch)
    (journal.parent / left).write_bytes(b"")
    same(images.build(some, SIZE, workers=1, folder=tmp_path), whole)


def test_excluded_pictures_take_no_second_array(some, whole, tmp_path, monkeypatch):
    """Room is asked for one array, and no more is written."""
    seen = []
    replace = os.replace

    def watched(source, target):
        folder = Path(target).parent
        seen.append(sum(path.stat().st_size for path in folder.glob("*.npy")))
        return replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    same(images.build(some, SIZE, workers=1, folder=tmp_path), whole)
    assert max(seen) <= len(some) * SIZE * SIZE * 3 + 256


def test_a_full_disk_that_has_room_again_goes_on(some, whole, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 10**5))
        with pytest.raises(images.StoreError, match="Free some space"):
            images.build(some, SIZE, workers=1, folder=tmp_path)
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(28, "No space left on device")

        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match="No space left"):
            images.build(some, SIZE, workers=1, folder=tmp_path)
    same(images.build(some, SIZE, workers=1, folder=tmp_path), whole)


def test_two_at_once_make_one_store(some, whole, tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=build_in, args=(some, str(tmp_path))) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    same(images.open_store(tmp_path / whole.folder.name), whole)


def build_in(some, folder: str) -> None:
    images.build(some, SIZE, workers=1, folder=folder)


def test_a_store_that_was_copied_is_compared_once(some, whole, tmp_path, monkeypatch):
    """Its file has another time, so its pixels are compared; the next time they are not."""
    shutil.copytree(whole.folder, tmp_path / "copy")
    os.utime(tmp_path / "copy" / "images.npy", (1, 1))
    images.open_store(tmp_path / "copy")
    monkeypatch.setattr("drstudy.data.images.store.decoding.sha256", lambda _: pytest.fail("compared again"))
    images.open_store(tmp_path / "copy")
    with pytest.raises(pytest.fail.Exception):
        images.open_store(tmp_path / "copy", deep=True)


def test_a_temporary_file_of_another_machine_is_left_alone(tmp_path):
    other = tmp_path / ".x-abcdef-1-zzzz.json"
    other.touch()
    with paths.atomic(tmp_path / "x.json") as temporary:
        temporary.write_text(json.dumps(1))
    assert other.exists()
    assert json.loads((tmp_path / "x.json").read_text()) == 1
