"""On what it runs: device, precision, determinism, and the line that says so in every notebook."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import random
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Compute:
    """A device and the precision of its matrix products.

    Attributes:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (fp16 on CUDA only).
    """

    device: str
    precision: str

    @property
    def is_cuda(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that activations have inside :meth:`autocast` and in the feature store."""
        import torch

        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    def autocast(self) -> contextlib.AbstractContextManager:
        """Mixed precision for this device; a no-op in fp32."""
        import torch

        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.split(":")[0], dtype=self.dtype)

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """Move a batch to the device, unless it is there: pinned and non-blocking on CUDA, channels_last where it is (N, C, H, W)."""
        import torch

        if self.is_cuda and not tensor.is_cuda:
            tensor = tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    def __str__(self) -> str:
        import torch

        name = torch.cuda.get_device_name(self.device) if self.is_cuda else "CPU"
        return f"{name}, {self.precision}, {torch.get_num_threads()} thread(s)"


def setup(device: str = "auto", precision: str = "auto", threads: int = 0, seed: int = 0) -> Compute:
    """Choose the device and make it deterministic.

    Args:
        device: ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"``, ``"cuda:N"``.
        precision: ``"auto"`` is bf16 where the device computes it natively, else fp16 on CUDA and fp32 on a CPU.
        threads: CPU threads of torch; 0 keeps its own choice (all cores). The bytes of a result may depend on it.
        seed: Seeds Python, NumPy and torch.

    Raises:
        ValueError: If the device or precision is unknown or not to be had here.
    """
    import torch

    if precision not in PRECISIONS:
        raise ValueError(f"PRECISION is {precision!r}; it must be one of {', '.join(PRECISIONS)}.")
    if threads < 0:
        raise ValueError(f"THREADS is {threads}; it must be 0 (all cores) or more.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"DEVICE is {device!r}, but this torch ({torch.__version__}) sees no CUDA device. Use DEVICE 'auto' or 'cpu'."
        )
    if not device.startswith("cuda") and device != "cpu":
        raise ValueError(f"DEVICE is {device!r}; it must be 'auto', 'cpu', 'cuda' or 'cuda:N'.")
    if threads:
        torch.set_num_threads(threads)
    if device == "cpu":
        if precision == "fp16":
            raise ValueError("PRECISION 'fp16' needs a CUDA device; on a CPU use 'bf16' or 'fp32'.")
        if precision == "auto":
            precision = "bf16" if _cpu_has_bf16() else "fp32"
    else:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        if precision == "auto":
            precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    keep_freed_memory()
    deterministic(seed)
    return Compute(device, precision)


def keep_freed_memory() -> bool:
    """Tell the C library not to hand large blocks back to the system when they are freed.

    Each layer of a network on a CPU frees and asks for tens of megabytes. By default each such block is mapped afresh, page by page,
    filled with zeros: up to a quarter of a pass. The process then holds up to a gigabyte that it does not use.

    Returns:
        Whether it was possible (glibc; elsewhere nothing is changed).
    """
    trim_threshold, mmap_threshold, huge = -1, -3, 2**30  # of <malloc.h>
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all([mallopt(mmap_threshold, huge), mallopt(trim_threshold, huge)])


def give_back_freed_memory() -> bool:
    """Hand the pages that :func:`keep_freed_memory` kept back to the system: at the end of a step whose blocks the next will not ask for.

    Returns:
        Whether it was possible (glibc; elsewhere nothing is changed).
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return False
    return True


NO_BF16_BELOW = (
    "SSE41",
    "AVX",
    "AVX2",
    "AVX2_VNNI",
    "AVX2_VNNI_2",
    "AVX512_MIC",
    "AVX512_MIC_4OPS",
    "AVX512_CORE",
    "AVX512_CORE_VNNI",
)
"""Limits of oneDNN, the library behind torch's layers on a CPU, that leave its units for bf16 unused."""


def _cpu_has_bf16(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Whether bf16 is multiplied in hardware here (AMX or AVX512-BF16); without it bf16 is slower than fp32.

    The processor must have the units and oneDNN must be allowed to use them. ``ONEDNN_MAX_CPU_ISA`` (or its older name
    ``DNNL_MAX_CPU_ISA``) can forbid it, and so can this build of torch.
    """
    import torch

    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    if limit.upper() in NO_BF16_BELOW:
        return False
    with contextlib.suppress(AttributeError, RuntimeError):  # a build without oneDNN has no such question
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
    return _bf16_units(cpu_flags(cpuinfo))


def cpu_flags(cpuinfo: str = "/proc/cpuinfo") -> set[str]:
    """What this processor can do, as Linux names it; empty where there is no such file."""
    try:
        with Path(cpuinfo).open(encoding="utf-8") as file:
            return set(next((line.split(":")[1] for line in file if line.startswith("flags")), "").split())
    except OSError:
        return set()


def _bf16_units(flags: set[str]) -> bool:
    return bool(flags & {"amx_bf16", "avx512_bf16"})


LOWERING = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE")
"""Environment variables that make the libraries use fewer instructions than the processor has."""


def processor() -> str:
    """One line about the processor: its name, cores, the widest vector instructions, whether it has bf16 units, and any lowering.

    Example: ``Intel(R) Xeon(R) Processor, 2 cores, AVX-512 with bf16 units``.
    """
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as file:
        name = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), name)
    found = cpu_flags()
    widest = (
        "AVX-512"
        if "avx512f" in found
        else "AVX2"
        if "avx2" in found
        else "SSE4.2"
        if "sse4_2" in found
        else platform.machine()
    )
    units = " with bf16 units" if _bf16_units(found) else ""
    lowered = ", ".join(os.environ[variable] for variable in LOWERING if os.environ.get(variable))
    return f"{name}, {os.cpu_count()} cores, {widest}{units}" + (f", lowered to {lowered}" if lowered else "")


def calibration(repeats: int = 5) -> float:
    """Core-seconds that this machine needs for a fixed piece of the study's arithmetic (convolutions forward and backward, in float32,
    on one thread); the least of some repeats, so that what else runs disturbs it little.

    Two machines' ratio scales the times of one to the other.
    """
    import torch
    from torch import nn

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = nn.Sequential(
                *(nn.Conv2d(32, 96, 1), nn.BatchNorm2d(96), nn.ReLU6()),
                *(nn.Conv2d(96, 96, 3, padding=1, groups=96), nn.BatchNorm2d(96), nn.ReLU6()),
                *(nn.Conv2d(96, 64, 1), nn.Conv2d(64, 64, 3, padding=1)),
            ).to(memory_format=torch.channels_last)
            images = torch.randn(16, 32, 28, 28).contiguous(memory_format=torch.channels_last)
        found = []
        for _ in range(repeats + 1):  # the first is slower: it compiles and asks for memory
            began = time.thread_time()
            for _ in range(6):
                net(images).square().mean().backward()
            found.append(time.thread_time() - began)
        return min(found[1:])
    finally:
        torch.set_num_threads(threads)


def deterministic(seed: int) -> None:
    """Seed everything and ask torch for deterministic algorithms (same machine, same threads: same bytes)."""
    import numpy as np
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (libraries that use the global state)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # filling what is allocated (a debugging aid that comes with the line above) is a tenth to a third of a pass on a CPU
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False


def packages() -> dict[str, str]:
    """Versions of what a result depends on."""
    names = (
        "torch",
        "torchvision",
        "numpy",
        "pandas",
        "scikit-learn",
        "scipy",
        "grad-cam",
        "papermill",
        "opencv-python-headless",
        "pillow",
    )
    found = {"python": platform.python_version()}
    for name in (*names, "drstudy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
