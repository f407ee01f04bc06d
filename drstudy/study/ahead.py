"""Kernels made ahead: a process that has imported the large libraries, and gives each stage a copy of itself to run its notebook in.

The process (:mod:`drstudy.study.forking`) waits for a first request, imports :data:`LIBRARIES`, and forks for this and each further request. What a stage
would spend on the start of an interpreter and on imports is spent once per `drstudy reproduce`. A copy forgets what it has imported of this project, so
that a stage always runs the code of its own start. No library is used before the fork, so that no thread, random number or GPU is shared.

A copy has the environment that its stage asks for, but libraries read the number of threads when they load. This process therefore
has :data:`THREADS`, and only stages with the same number ask for a copy (:mod:`drstudy.study.kernels`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

SOCKET = "DRSTUDY_KERNELS"
"""Environment variable with the path of the socket."""
THREADS = 1
"""Threads of the stages that can have a copy."""
DEFAULTS = {
    "PYTHONHASHSEED": "0",  # as a stage sets it
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # as a kernel sets it before Matplotlib is imported
}
"""Environment variables that are read when an interpreter starts or a library is imported, unless the user sets them."""
LIBRARIES = (
    "ipykernel.kernelapp",
    "cv2",
    "torch",
    "torch._dynamo",  # of the optimisers
    "drstudy.models.compat",  # before torchvision
    "torchvision.models",
    "torchvision.transforms.v2",
    "pandas",
    "matplotlib.pyplot",
    "seaborn",
    "scipy.stats",
    "sklearn.linear_model",
    "sklearn.metrics",
)
GPUS = ("/dev/nvidiactl", "/dev/kfd")
"""Device files of the drivers of NVIDIA and AMD."""
REQUESTS = 4096
"""Stages that may wait for a copy at one time, at most."""


@contextlib.contextmanager
def offered(libraries: tuple[str, ...] = LIBRARIES) -> Iterator[None]:
    """Offer copies to the processes that are started inside, by :data:`SOCKET` in their environment. Nothing is offered where the system
    is not Linux, as it cannot fork or its libraries do not bear it, nor where there is a GPU, as no copy has ever run on one.

    Args:
        libraries: Names of the modules that are imported ahead.
    """
    with contextlib.ExitStack() as held:
        if sys.platform.startswith("linux") and not any(Path(file).exists() for file in GPUS):
            try:
                held.enter_context(_serving(libraries))
            except OSError as error:
                print(f"No kernels are made ahead ({error}); ordinary ones start.", file=sys.stderr)
        yield


@contextlib.contextmanager
def _serving(libraries: tuple[str, ...]) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="drstudy-") as folder:  # which only its owner can enter
        address = str(Path(folder) / "kernels")
        environment = DEFAULTS | os.environ | {"OMP_NUM_THREADS": str(THREADS)}
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(address)
            listening.listen(REQUESTS)  # from now on a stage finds it, and waits
            command = [sys.executable, "-m", "drstudy.study.forking", str(os.getpid()), *libraries]
            process = subprocess.Popen(command, env=environment, stdin=listening)
        os.environ[SOCKET] = address
        try:
            yield
        finally:
            del os.environ[SOCKET]
            process.terminate()
            process.wait()
