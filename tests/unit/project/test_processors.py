"""Other kinds of processor: what is lowered, what happens where a kind cannot be emulated, and what must be equal to the bit."""

from __future__ import annotations

import subprocess
import sys

import layers
import numpy as np
import processors
import pytest

KINDS = processors.available()

PROBE = """
import numpy._core._multiarray_umath as core, torch
print(torch.backends.cpu.get_cpu_capability(), sum(core.__cpu_features__.get(name, False) for name in core.__cpu_dispatch__))
"""


@pytest.mark.parametrize("kind", ["avx2", "sse4"])
def test_libraries_use_fewer_instructions(kind):
    if kind not in KINDS:
        pytest.skip(f"this processor cannot emulate {kind}")
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(
        command, env=processors.environment(kind), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == {"avx2": ["AVX2", "1"], "sse4": ["DEFAULT", "0"]}[kind]


def test_native_changes_nothing_and_an_unknown_kind_is_refused():
    assert processors.environment("native", {"A": "1"}) == {"A": "1"}
    assert processors.environment("avx2", {"A": "1"})["ATEN_CPU_CAPABILITY"] == "avx2"
    with pytest.raises(KeyError, match="no kind of processor 'vax'"):
        processors.environment("vax")
    assert processors.main(["vax"]) == 2


def test_a_kind_that_cannot_be_emulated_is_an_error_or_skipped_with_a_line(monkeypatch, capsys):
    monkeypatch.setattr(processors, "available", lambda: [])
    command = ["--", sys.executable, "-c", "raise SystemExit(1)"]
    assert processors.main(["avx2", *command]) == 2
    assert "cannot emulate avx2" in capsys.readouterr().out
    assert processors.main(["--if-possible", "avx2", *command]) == 0
    assert "skipped: the fast part of the suite" in capsys.readouterr().out


def test_only_what_the_processor_has_can_be_emulated(monkeypatch):
    monkeypatch.setattr("drstudy.core.devices.cpu_flags", lambda: {"sse4_2", "avx2"})
    assert processors.available() == ["avx2", "sse4"]


def test_a_failing_command_fails():
    assert processors.main(["native", "--", sys.executable, "-c", "raise SystemExit(3)"]) == 1
    assert processors.main(["native", "--", sys.executable, "-c", ""]) == 0


def test_agreement_is_equal_to_the_bit_or_in_digits():
    a = {"x": np.array([1.0, np.nan])}
    assert layers.agreement(a, {"x": np.array([1.0, np.nan])}) == layers.EQUAL
    assert layers.agreement(a, {"x": np.array([1.0 + 1e-6, np.nan])}) == "6.0 digits"
    assert (
        layers.agreement({"x": np.array([3, 5])}, {"x": np.array([3, 7])})
        == "1 of 2 entries differ, by at most 2"
    )
    assert layers.agreement(a, {"x": np.array([1.0])}) == "another number of entries"


@pytest.fixture(scope="module")
def native():
    return layers.compute(layers.EXACT, "native")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_equal_to_the_bit_on_every_kind(native, kind):
    """The claims of docs/reproducibility.md, each in a process of its own that is told to use fewer instructions."""
    other = layers.compute(layers.EXACT, kind)
    words = {name: layers.agreement(native[name], other[name]) for name in layers.EXACT}
    assert words == dict.fromkeys(layers.EXACT, layers.EQUAL)


def test_the_comparison_sees_one_bit():
    """A deliberate fault: the last bit of one number of many."""
    values = np.random.default_rng(0).random(1000)
    other = values.copy()
    other[7] = np.nextafter(other[7], 2)
    assert layers.agreement({"sum": values}, {"sum": other}) != layers.EQUAL
