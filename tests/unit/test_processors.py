"""The script that stands in for other processors: its settings reach the libraries, and what cannot be emulated is refused."""

import subprocess
import sys

import pytest

from drstudy import paths

sys.path.insert(0, str(paths.root() / "tests"))
import processors

PROBE = """
import numpy._core._multiarray_umath as numpy_core, torch
print(torch.backends.cpu.get_cpu_capability(), sum(numpy_core.__cpu_features__.get(n, False) for n in numpy_core.__cpu_dispatch__))
"""


def probe(kind: str) -> list[str]:
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(
        command, env=processors.environment(kind), capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize("kind", ["avx2", "sse4"])
def test_libraries_use_fewer_instructions(kind):
    if kind not in processors.available():
        pytest.skip(f"this processor cannot emulate {kind}")
    torch_level, numpy_levels = probe(kind)
    assert torch_level == {"avx2": "AVX2", "sse4": "DEFAULT"}[kind]
    assert int(numpy_levels) == {"avx2": 1, "sse4": 0}[kind]


def test_native_changes_nothing_and_other_kinds_keep_the_rest():
    assert processors.environment("native", {"A": "1"}) == {"A": "1"}
    assert processors.environment("avx2", {"A": "1"})["A"] == "1"
    with pytest.raises(KeyError, match="there are native, avx512, avx2, sse4"):
        processors.environment("z80")


def test_only_what_the_processor_has_can_be_emulated(monkeypatch, capsys):
    monkeypatch.setattr("drstudy.devices.cpu_flags", lambda: {"sse4_2", "avx2"})
    assert processors.available() == ["avx2", "sse4"]
    assert processors.main(["avx512", "--", "true"]) == 2
    assert "cannot emulate avx512" in capsys.readouterr().out


def test_status_is_that_of_the_command():
    assert processors.main(["native", "--", sys.executable, "-c", "pass"]) == 0
    assert processors.main(["native", "--", sys.executable, "-c", "raise SystemExit(3)"]) == 1
