"""The kernel in which the notebook of a stage runs: a new process of this interpreter, or a copy of one that has imported the large
libraries already (:mod:`drstudy.study.ahead`)."""

from __future__ import annotations

import json
import os
import select
import socket
import sys
from contextlib import suppress
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

from drstudy.study import ahead

NAME = "drstudy-copy"
"""Of the provisioner by which jupyter_client starts a copy."""


class OwnKernel(AsyncKernelManager):
    """Starts the interpreter that runs now, whatever kernel named python3 is installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="drstudy", language="python")


class OwnCopy(OwnKernel):
    """Asks for a copy, and starts an interpreter where none is to be had."""

    @property
    def kernel_spec(self) -> KernelSpec:
        spec = super().kernel_spec
        spec.metadata = {"kernel_provisioner": {"provisioner_name": NAME}}
        return spec


def manager(threads: int) -> type[OwnKernel]:
    """How the kernel of a stage is started.

    Args:
        threads: That the stage computes on; 0 is all.
    """
    if threads != ahead.THREADS or ahead.SOCKET not in os.environ:
        return OwnKernel
    known = KernelProvisionerFactory.instance().provisioners
    known[NAME] = EntryPoint(
        NAME, f"{__name__}:{CopyProvisioner.__name__}", "jupyter_client.kernel_provisioners"
    )
    return OwnCopy


class CopyProvisioner(LocalProvisioner):
    """Starts a kernel as a copy. If that fails, it says so and starts it as an ordinary process, which takes some seconds longer."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        start = cmd.index("ipykernel_launcher")
        try:
            self.process = Copy(cmd[start:], kwargs.get("cwd") or Path.cwd(), kwargs["env"])
        except OSError as error:
            print(f"No kernel was made ahead ({error}); an ordinary one starts.", file=sys.stderr)
            return await super().launch_kernel(cmd, **kwargs)
        self.pid = self.pgid = self.process.pid  # it leads a group of its own
        self.cwd = kwargs.get("cwd")
        return self.connection_info


class Copy:
    """A process that another one forked, with what jupyter_client uses of :class:`subprocess.Popen`.

    Args:
        arguments: Of the kernel; the first is the name of the program.
        folder: Where it starts.
        environment: All variables that it has.

    Raises:
        OSError: If nobody answers.
    """

    stdin = stdout = stderr = None

    def __init__(self, arguments: list[str], folder: str | Path, environment: dict[str, str]) -> None:
        self.returncode: int | None = None
        self.connection = socket.socket(socket.AF_UNIX)
        try:
            self.connection.connect(environment[ahead.SOCKET])
            socket.send_fds(self.connection, [b"\n"], [1, 2])
            asked = {"arguments": arguments, "folder": str(folder), "environment": environment}
            self.connection.sendall(json.dumps(asked).encode() + b"\n")
            answer = self.connection.makefile().readline()
            if not answer:
                raise ConnectionResetError("the process that makes them has ended")
        except BaseException:
            self.connection.close()
            raise
        self.pid = int(answer)

    def poll(self) -> int | None:
        """None while it runs; afterwards 0, as its status is known only to the process that forked it."""
        if self.returncode is None and select.select([self.connection], [], [], 0)[0]:
            self.connection.close()  # its other end has closed, as the process writes nothing more
            self.returncode = 0
        return self.returncode

    def wait(self) -> int:
        """Wait for its end; returns as :meth:`poll`."""
        if self.returncode is None:
            select.select([self.connection], [], [])
        return self.poll() or 0

    def send_signal(self, number: int) -> None:
        """Nothing happens where it has ended."""
        with suppress(psutil.NoSuchProcess):
            psutil.Process(self.pid).send_signal(number)
