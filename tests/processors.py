"""Run a command as another kind of processor would: the libraries are told to use fewer instructions than this one has.

    python tests/processors.py                       the fast part of the suite under each kind that can be emulated here
    python tests/processors.py avx2                  the same under one kind
    python tests/processors.py avx2 -- COMMAND ...   any command under one kind
    python tests/processors.py --if-possible avx2    the same, or one line that says that this processor cannot (`make test`)

It is the libraries that are lowered (torch and its oneDNN and MKL, OpenBLAS, NumPy, OpenCV, the C library), each by its own switch, not the processor. So
times come close to those of the other kind, and last digits become those of its code paths; a processor of another maker may still
differ in what MKL chooses.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from drstudy.core import devices

ROOT = Path(__file__).resolve().parents[1]

NUMPY_LEVELS = ("X86_V3", "X86_V4", "AVX512_ICL", "AVX512_SPR")
"""What NumPy's x86-64 wheel chooses among when it starts; it cannot go below X86_V2, for which it is compiled."""

OPENCV_LEVELS = (
    "AVX512-SKX",
    "AVX512-COMMON",
    "AVX512-ICL",
    "AVX512-CLX",
    "AVX512-CNL",
    "AVX512F",
    "AVX2",
    "FMA3",
    "AVX",
    "FP16",
)


def _lowered(
    torch: str, onednn: str, mkl: str, openblas: str, numpy: int, opencv: int, glibc: str = ""
) -> dict[str, str]:
    """Environment variables of one kind.

    ``numpy`` and ``opencv`` say how many of the highest and first levels are switched off. ``glibc`` lists what the C library's
    ``exp``, ``sin`` and so on must do without; every processor of the two higher kinds has all that they use.
    """
    return {
        "ATEN_CPU_CAPABILITY": torch,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "MKL_ENABLE_INSTRUCTIONS": mkl,
        "OPENBLAS_CORETYPE": openblas,
        "NPY_DISABLE_CPU_FEATURES": " ".join(NUMPY_LEVELS[len(NUMPY_LEVELS) - numpy :]),
        "OPENCV_CPU_DISABLE": ",".join(OPENCV_LEVELS[:opencv]),
    } | ({"GLIBC_TUNABLES": f"glibc.cpu.hwcaps={glibc}"} if glibc else {})


KINDS: dict[str, dict[str, str]] = {
    "avx512": _lowered("avx512", "AVX512_CORE", "AVX512", "SKYLAKEX", 2, 0),
    "avx2": _lowered("avx2", "AVX2", "AVX2", "HASWELL", 3, 6),
    "sse4": _lowered("default", "SSE41", "SSE4_2", "NEHALEM", 4, 10, "-AVX,-AVX2,-FMA"),
}
"""Kinds below a recent server: AVX-512 without bf16 units, AVX2 (most laptops and many servers), and what every x86-64 processor has."""

NEEDED = {"avx512": "avx512f", "avx2": "avx2", "sse4": "sse4_2"}
"""The flag of ``/proc/cpuinfo`` without which a kind cannot be emulated."""

FAST = ("-m", "not slow and not notebook and not real")
"""Arguments of pytest for the fast part of the suite."""


def available() -> list[str]:
    """Kinds that this processor can emulate, the highest first."""
    here = devices.cpu_flags()
    return [kind for kind, flag in NEEDED.items() if flag in here]


def environment(kind: str, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a kind of processor; ``native`` is this one as it is.

    Raises:
        KeyError: If there is no such kind.
    """
    base = dict(os.environ if base is None else base)
    if kind == "native":
        return base
    if kind not in KINDS:
        raise KeyError(f"There is no kind of processor {kind!r}; there are native, {', '.join(KINDS)}.")
    return base | KINDS[kind]


def run(kind: str, command: list[str]) -> int:
    """Run a command under a kind; returns its exit status."""
    print(f"as {kind}: {' '.join(command)}", flush=True)
    return subprocess.run(command, env=environment(kind), cwd=ROOT).returncode


def main(arguments: list[str]) -> int:
    own, command = (
        arguments,
        [
            sys.executable,
            "-m",
            "pytest",
            "-n",
            "2",
            "--dist",
            "loadscope",
            *FAST,
            "tests/unit",
            "tests/papers",
        ],
    )
    if "--" in arguments:
        at = arguments.index("--")
        own, command = arguments[:at], arguments[at + 1 :]
    optional = "--if-possible" in own
    kinds = [name for name in own if name != "--if-possible"] or available()
    unknown = [kind for kind in kinds if kind != "native" and kind not in KINDS]
    if unknown:
        print(f"There is no kind of processor {', '.join(unknown)}; there are native, {', '.join(KINDS)}.")
        return 2
    impossible = [kind for kind in kinds if kind != "native" and kind not in available()]
    if impossible or not kinds:
        print(
            f"This processor cannot emulate {', '.join(impossible) or 'any kind'}; it can: {', '.join(available()) or 'none'}."
        )
        if optional:
            print("skipped: the fast part of the suite as another kind of processor")
        return 0 if optional else 2
    failed = [kind for kind in kinds if run(kind, command)]
    print(
        f"passed: {', '.join(k for k in kinds if k not in failed) or 'none'}; failed: {', '.join(failed) or 'none'}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
