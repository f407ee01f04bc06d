"""The process that forks kernels: ``python -m drstudy.study.forking PARENT LIBRARIES``, with the socket on which it listens as standard
input. :mod:`drstudy.study.ahead` starts it, on Linux only, and says what it is for. Nobody imports this module."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import socketserver
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from drstudy.study import ahead

LOOK_SECONDS = 0.5
"""Time between two looks whether the process that started this one is alive."""


class _Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    max_children = ahead.REQUESTS

    def __init__(self, parent: int, libraries: list[str]) -> None:
        super().__init__("", _Kernel, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=0)
        self.parent, self.libraries = parent, libraries
        self.kept: list[
            ModuleType
        ] = []  # those of this project, which a copy forgets, stay in memory with what they declared

    def process_request(self, *request: Any) -> None:
        if self.libraries:
            for name in self.libraries:
                with contextlib.suppress(Exception):  # the notebook will tell what cannot be imported
                    self.kept.append(importlib.import_module(name))
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

        self.server.socket.detach()  # standard input, which is replaced below
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
    parent, *libraries = sys.argv[1:]
    os.setsid()  # so that Ctrl-C in a terminal does not reach it
    if sys.path[0] in ("", str(Path.cwd())):
        del sys.path[0]  # a kernel adds its own folder
    with _Server(int(parent), libraries) as server:
        server.serve_forever(LOOK_SECONDS)


if __name__ == "__main__":
    main()
