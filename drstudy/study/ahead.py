"""Kernels made ahead: a process that has imported the large libraries, and gives each stage a copy of itself to run its notebook in.

``python -m drstudy.study.ahead DESCRIPTOR PARENT LIBRARIES`` waits for a first request, imports the libraries, and forks for this and each further
request. What a stage would spend on the start of an interpreter and on imports is spent once per `drstudy reproduce`. Nothing of this project is imported ahead, so that a
stage always runs the code of its own start. No library is used before the fork, so that no thread, random number or GPU is shared.

A copy has the environment that its stage asks for, but libraries read the number of threads when they load. This process therefore
has :data:`THREADS`, and only stages with the same number ask for a copy (:mod:`drstudy.study.kernels`).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
LOOK_SECONDS = 0.5
"""Time between two looks whether the process that started this one is alive."""


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
            given = [str(listening.fileno()), str(os.getpid())]
            process = subprocess.Popen(
                [sys.executable, "-m", "drstudy.study.ahead", *given, *libraries],
                env=environment,
                pass_fds=[listening.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        os.environ[SOCKET] = address
        try:
            yield
        finally:
            del os.environ[SOCKET]
            process.terminate()
            process.wait()


class _Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    max_children = REQUESTS

    def __init__(self, listening: int, parent: int, libraries: list[str]) -> None:
        super().__init__("", _Kernel, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=listening)
        self.parent, self.libraries = parent, libraries

    def process_request(self, *request: Any) -> None:
        if self.libraries:
            for name in self.libraries:
                with contextlib.suppress(ImportError):  # of which the notebook will tell
                    importlib.import_module(name)
            self.libraries = []
            gc.collect()
            gc.freeze()  # else the next collection in a copy would write to every page that it shares
        super().process_request(*request)

    def service_actions(self) -> None:
        super().service_actions()
        if os.getppid() != self.parent:
            os._exit(1)


class _Kernel(socketserver.StreamRequestHandler):
    """What the copy does: it takes the output files, folder, environment and arguments of the request, and becomes a kernel."""

    def handle(self) -> None:
        from ipykernel.kernelapp import IPKernelApp

        self.server.socket.close()
        _, outputs, _, _ = socket.recv_fds(self.request, 1, 2)
        asked = json.loads(self.rfile.readline())
        os.setsid()
        for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), *outputs)):
            os.dup2(file, number)
            os.close(file)
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv = asked["arguments"]
        for name in [name for name in sys.modules if name.partition(".")[0] == "drstudy"]:
            del sys.modules[name]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.wfile.write(f"{os.getpid()}\n".encode())
        threading.Thread(target=self._end_with_the_stage, daemon=True).start()
        IPKernelApp.launch_instance(sys.argv[1:], parent_handle=1)  # 1: it has no parent to watch

    def _end_with_the_stage(self) -> None:
        """Its end of the connection closes, however it ends."""
        self.rfile.read(1)
        os._exit(1)


def main() -> None:
    """Serve until the process that started this one ends it, or has ended."""
    listening, parent, *libraries = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.path[0] in ("", str(Path.cwd())):
        del sys.path[0]  # a kernel adds its own folder
    with _Server(int(listening), int(parent), libraries) as server:
        server.serve_forever(LOOK_SECONDS)


if __name__ == "__main__":
    main()
