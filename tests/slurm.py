"""A SLURM of one node on the loopback, for tests: its configuration, logs and sockets lie in one folder, and it stops with the test."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])
"""Where the programs may lie; the daemons are in folders that are on the PATH of root only."""

CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MinJobAge=7200
GresTypes=gpu
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=64000 Gres=gpu:{gpus}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
"""CPUs, memory and GPUs are what the node says of itself; nothing is measured, so that the test needs none of them."""


def missing() -> list[str]:
    """Programs of the Debian packages slurm-wlm and munge that are not there."""
    return [name for name in PROGRAMS if not shutil.which(name, path=PATH)]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Cluster:
    """A running SLURM of one node; a context manager.

    Args:
        folder: An empty folder with a short path (a socket's path has at most 107 characters).
        cpus, gpus: That the node says it has.
    """

    def __init__(self, folder: Path, cpus: int = 2, gpus: int = 1) -> None:
        self.folder, self.processes = folder, []
        controller, daemon = _free_ports(2)
        names = {"host": socket.gethostname().split(".")[0], "user": getpass.getuser(), "folder": folder}
        text = CONFIGURATION.format(**names, controller=controller, daemon=daemon, cpus=cpus, gpus=gpus)
        (folder / "slurm.conf").write_text(text)
        (folder / "gres.conf").write_text("NodeName=node Name=gpu File=/dev/null\n")
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        for file in (folder / "munge.key", folder / "slurm.conf"):
            file.chmod(0o600)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        self._wrap("srun")
        path = os.pathsep.join([str(folder / "bin"), PATH])
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}

    def _wrap(self, program: str) -> None:
        """The plugin takes SLURM_CONF away before it calls srun, which a SLURM that is not in /etc cannot do without."""
        wrapper = self.folder / "bin" / program
        wrapper.parent.mkdir()
        real = shutil.which(program, path=PATH)
        wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {real} "$@"\n')
        wrapper.chmod(0o755)

    def __enter__(self) -> Cluster:
        try:
            munge = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed"}
            files = [f"--{option}={self.folder}/munge.{suffix}" for option, suffix in munge.items()]
            self._start("munged", "--foreground", "--force", *files)
            self._until((self.folder / "munge.socket").exists, 10, "munged")
            self._start("slurmctld", "-D")
            self._start("slurmd", "-D")
            self._until(lambda: self("sinfo", "--noheader", "-o", "%t").strip() == "idle", 30, "the node")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def __call__(self, *command: str) -> str:
        """Output of a command of SLURM; empty if it fails, or gets no answer from a busy machine."""
        environment = os.environ | self.environment
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout if done.returncode == 0 else ""

    def jobs(self) -> dict[str, tuple[str, ...]]:
        """State, comment (rule and wildcards), CPUs and GPUs of every job, finished ones too, by its number."""
        listed = self(
            "squeue", "--noheader", "--states=all", "-O", "JobID:|,State:|,Comment:|,NumCPUs:|,tres-per-job:|"
        )
        rows = [tuple(cell.strip() for cell in line.split("|")) for line in listed.splitlines()]
        return {row[0]: row[1:5] for row in sorted(rows, key=lambda row: int(row[0]))}

    def _start(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.out").open("w", encoding="utf-8") as log:
            self.processes.append(
                subprocess.Popen(
                    [shutil.which(program, path=PATH), *arguments],
                    stdout=log,
                    stderr=log,
                    env=os.environ | self.environment,
                )
            )

    def _until(self, true, seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                logs = "\n".join(
                    f"{f.name}:\n{f.read_text()[-2000:]}" for f in self.folder.glob("*.[lo][ou]*")
                )
                raise TimeoutError(f"{what} did not start in {seconds} s\n{logs}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Cancel all jobs, stop the daemons, the last one first, and kill what is left of the jobs."""
        try:
            if len(self.processes) == 3:
                self("scancel", "--user", getpass.getuser(), "--signal=KILL", "--full")
                self("scancel", "--user", getpass.getuser())
                end = time.monotonic() + 10
                while self("squeue", "--noheader") and time.monotonic() < end:
                    time.sleep(0.2)
            for process in reversed(self.processes):
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
        finally:
            for left in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    variables = left.environ()  # which only daemons and jobs of this SLURM have
                    if str(self.folder) in variables.get("SLURM_CONF", "") + variables.get("PATH", ""):
                        left.kill()
            for process in self.processes:
                process.wait()
