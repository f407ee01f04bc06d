"""What every test shares: one thread, own folders for data and results, no network."""

from __future__ import annotations

import os
import socket
import sys

os.environ["OMP_NUM_THREADS"] = (
    "1"  # before torch is imported: the networks of tests are too small for two threads
)

import pytest

from drstudy.core import paths


@pytest.fixture(autouse=True, scope="session")
def _own_folders(tmp_path_factory):
    """Results and stores of a test session go to its temporary folder, never to the study's."""
    with pytest.MonkeyPatch.context() as patch:
        base = tmp_path_factory.mktemp("study")
        patch.setenv("DRSTUDY_DATA", str(base / "data"))
        patch.setenv("DRSTUDY_RESULTS", str(base / "results"))
        yield


@pytest.fixture(autouse=True)
def _same_threads():
    """A test that sets torch's threads or seeds does not change the next one's."""
    yield
    if "torch" in sys.modules and hasattr(sys.modules["torch"], "set_num_threads"):
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def own_folders(tmp_path, monkeypatch):
    """Empty data and results folders for this test alone; returns their parent."""
    monkeypatch.setenv("DRSTUDY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DRSTUDY_RESULTS", str(tmp_path / "results"))
    return tmp_path


@pytest.fixture
def command_line(monkeypatch, capsys):
    """Run the command `drstudy` in this process; returns exit status, stdout and stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        from drstudy.study import cli

        monkeypatch.setattr(sys, "argv", ["drstudy", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as left:
            status = left.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return command


@pytest.fixture
def offline(monkeypatch):
    """Name look-ups and connections fail at once, as without a network; returns the hosts that were tried."""
    tried = []

    def refuse(address, *_args, **_kwargs):
        tried.append(address[0] if isinstance(address, tuple) else address)
        raise socket.gaierror("offline, by the test")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", lambda _self, address: refuse(address))
    return tried


@pytest.fixture(scope="session")
def shared_data():
    """The folder of the optional real photographs; the test is skipped where it is absent."""
    folder = (paths.root() / "../shared/data").resolve()
    if not folder.is_dir():
        pytest.skip("the optional real photographs in ../shared/data are absent")
    return folder


COLOURS = ((60, 40, 200), (40, 150, 90), (120, 120, 40), (220, 140, 60), (240, 220, 210))
"""A colour a grade, of different brightness, since some augmentations take the hue away."""


@pytest.fixture(scope="session")
def coloured_eyes():
    """Makes a small data set in which the colour of an eye is its grade: ``coloured_eyes(train=40)``."""
    import numpy as np
    import pandas as pd

    from drstudy.data.dataset import Dataset

    def make(train: int = 40, validation: int = 15, test: int = 21, size: int = 64, seed: int = 0) -> Dataset:
        rng = np.random.default_rng(seed)
        count = train + validation + test
        split = np.repeat(["train", "validation", "test"], [train, validation, test])
        grade = np.concatenate([np.arange(n) % 5 for n in (train, validation, test)])
        y, x = np.mgrid[:size, :size]
        field = np.hypot(x - size / 2, y - size / 2) < 0.47 * size
        images = np.array(COLOURS)[grade][:, None, None] + rng.normal(0, 12, (count, size, size, 3))
        images = np.where(field[..., None], images, 0).clip(0, 255).astype(np.uint8)
        row = rng.permutation(count)  # the store's order is not the split's
        table = pd.DataFrame(
            {
                "image_id": [f"{i:03d}" for i in range(count)],
                "patient_id": [f"p{i // 2:02d}" for i in range(count)],
                "grade": pd.array(grade, dtype="Int64"),
                "split": split,
                "row": row,
            }
        )
        stored = np.empty_like(images)
        stored[row] = images
        return Dataset(stored, table, f"colours-{seed}-{size}")

    return make
