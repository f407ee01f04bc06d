"""Make a virtual environment with the exact versions of constraints.txt, and show how far the installation is.

    python tools/install.py [FOLDER] [EXTRAS]     (default: .venv dev)

It needs the standard library only, since it runs before anything is installed. pip's whole output goes to FOLDER/install.log.
"""

import os
import re
import subprocess
import sys
import threading
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EVERY_TERMINAL, EVERY_LOG = 0.5, 15.0  # seconds between two looks, and between two lines in a log
FOUND = re.compile(
    r"(?:Collecting|Requirement already satisfied:) ([\w.-]+)|Processing \S*?([\w.]+)-\d[^/]*\.(?:whl|tar\.gz)"
)
FILE = re.compile(
    r"(?:Downloading|Using cached) (?:\S*/)?([\w.-]+?)-\d\S*\.(?:whl|tar\.gz|zip) \(([\d.]+) ([kMG]?B)\)"
)
TO_INSTALL = re.compile(r"Installing collected packages: (.+)")
BYTES = {"B": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}
"""Size of pip's units in MB."""


class Progress:
    """What pip has done so far, from its lines and from the packages that are in their place.

    Args:
        packages: Folder into which pip installs (``site-packages``).
        known: Number of packages that constraints.txt pins: no more than these can be needed.
    """

    def __init__(self, packages, known):
        self.packages, self.known = packages, known
        self.found, self.now, self.size, self.megabytes = set(), "", "", 0.0
        self.total, self.before = 0, self.in_place()

    def in_place(self):
        """Number of packages that are installed."""
        return sum(1 for _ in self.packages.glob("*.dist-info")) if self.packages.is_dir() else 0

    def read(self, line):
        """Take in a line of pip."""
        if match := FOUND.search(line):
            self.found.add((match[1] or match[2]).lower())
        elif match := FILE.search(line):
            self.now, self.size = match[1], f"{match[2]} {match[3]}"
            self.megabytes += float(match[2]) * BYTES[match[3]]
        elif match := TO_INSTALL.search(line):
            self.total, self.before = len(match[1].split(",")), self.in_place()

    def text(self, seconds):
        """One line: how far it is after some seconds."""
        time_so_far = f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
        if self.total:
            done = min(max(self.in_place() - self.before, 0), self.total)
            return f"installing: {done} of {self.total} packages are in their place, {time_so_far}"
        now = f", now {self.now} ({self.size})" if self.now else ""
        return f"downloading: {len(self.found)} of at most {self.known} packages, {self.megabytes:.0f} MB{now}, {time_so_far}"


def show(progress, process, out):
    """Print the progress until pip ends: one line that is written over in a terminal, a line now and then in a log."""
    began = told = time.monotonic()
    terminal, last = out.isatty(), ""
    while process.poll() is None:
        time.sleep(EVERY_TERMINAL)
        now = time.monotonic()
        if terminal or now - told >= EVERY_LOG:
            text = progress.text(now - began)
            out.write("\r" + text[:100].ljust(len(last)) if terminal else text + "\n")
            out.flush()
            told, last = now, text[:100]
    if terminal and last:
        out.write("\n")
    return time.monotonic() - began


def run(command, progress, log, out=sys.stdout):
    """Run pip; returns its exit status and its last lines.

    Args:
        command: Command line.
        progress: What its lines are given to.
        log: File for the whole output.
        out: Where the progress is shown.
    """
    said = []
    process = subprocess.Popen(
        command,
        cwd=str(ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )

    def read():
        with log.open("w", encoding="utf-8") as file:
            for line in process.stdout:
                file.write(line)
                said.append(line.rstrip())
                progress.read(line)

    reader = threading.Thread(target=read)
    reader.start()
    seconds = show(progress, process, out)
    reader.join()
    if not process.returncode:
        out.write(f"installed {progress.total} packages in {seconds / 60:.1f} minutes\n")
    return process.returncode, said[-15:]


def main(folder=".venv", extras="dev", *_):
    """Make the environment and install into it; exits with a message if that fails."""
    if sys.version_info < (3, 11):  # noqa: UP036  (this runs before anything could check it)
        sys.exit(
            f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}: make PYTHON=python3.11 ..."
        )
    place = (ROOT / folder).resolve()
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(place, with_pip=True, symlinks=os.name != "nt")
    pins = [
        line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line
    ]
    print(
        f"installing the exact versions of constraints.txt into {folder} (once; pip's output: {folder}/install.log)",
        flush=True,
    )
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run(
        [str(python), "-c", ask], stdout=subprocess.PIPE, encoding="utf-8", check=True
    ).stdout
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "-c", "constraints.txt"]
    command = [str(python), "-u", "-m", "pip", "install", *options, "-e", f".[{extras}]"]
    status, last = run(command, Progress(Path(packages.strip()), len(pins)), place / "install.log")
    if status:
        sys.exit(
            "\n".join(last)
            + f"\nThe installation failed. The lines above are pip's last ones; all are in {folder}/install.log. Check the "
            "network and the space on the disk, and start the same command again: what was downloaded is kept."
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
