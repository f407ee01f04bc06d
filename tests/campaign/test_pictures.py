"""Pictures of the campaign, and random changes of bytes, which must never crash, hang or lose a decoder's warning."""

from __future__ import annotations

import signal

import pictures
import pytest
from cases import judge

from drstudy.data import images
from drstudy.data.decoding import BadImage

CASES = pictures.cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_picture(case, tmp_path):
    judge(case, tmp_path)


@pytest.mark.parametrize(
    "count", [pytest.param(12, id="few"), pytest.param(200, id="many", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kind", pictures.MUTATED)
def test_changed_bytes_are_found_or_decoded(kind, count):
    def late(*_):
        raise TimeoutError(kind)

    before = signal.signal(signal.SIGALRM, late)
    try:
        for mutant in pictures.mutants(pictures.MUTATED[kind], count, seed=len(kind)):
            signal.alarm(20)
            try:
                images.prepare(mutant, ".jpeg", pictures.SIZE, 50)
            except BadImage:
                continue
            finally:
                signal.alarm(0)
            if kind in ("JPEG", "progressive JPEG"):
                assert not pictures.decoder_complains(mutant), "a warning was lost"
    finally:
        signal.signal(signal.SIGALRM, before)


def test_no_program_is_started_for_a_picture(tmp_path, monkeypatch):
    """A PostScript program inside a .jpeg goes to no interpreter."""
    import subprocess

    monkeypatch.setattr(subprocess, "check_call", lambda *_a, **_k: pytest.fail("a program was started"))
    monkeypatch.setattr(subprocess, "Popen", lambda *_a, **_k: pytest.fail("a program was started"))
    with pytest.raises(BadImage, match="PostScript"):
        images.prepare(pictures.eps(), ".jpeg", pictures.SIZE, 50)
