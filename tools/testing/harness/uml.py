# SPDX-License-Identifier: GPL-2.0
"""One run of the kernel as a program of the host, in bounded time.

Not by 'kunit.py exec': it keeps kernel and log in one build folder, which checkouts share here,
and does not report what the kernel warns about outside of a test. Its parser reads the output.
"""

import dataclasses
import os
import pathlib
import signal
import subprocess
import tempfile
import threading
import time

from . import cpio
from .errors import MachineError
from .machine import TROUBLE

# Its output goes to standard output; standard input is empty.
PARAMETERS = ("console=tty", "con=null", "con0=fd:0,fd:1", "panic=-1", "loglevel=7")


@dataclasses.dataclass
class Outcome:
    """The outcome of a run."""

    lines: list
    timed_out: bool
    seconds: float
    status: int

    def failures(self):
        """Return a sentence for each error outside of the tests."""
        found = []
        if self.timed_out:
            found.append(f"the kernel did not finish in {self.seconds:.0f} s and was ended")
        elif self.status != 0:
            found.append(f"the kernel ended with status {self.status}")
        found += [f"the kernel said: {line.strip()}" for line in self.lines if TROUBLE.search(line)]
        return found


def run(products, parameters, *, log, limit, files=None, on_line=None, memory="1G"):
    """Boot the kernel and return the Outcome once it is off.

    `files` is a root file system, name to content; `on_line` sees each line as
    it comes.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [str(products.kernel), f"mem={memory}", *PARAMETERS, *parameters]
    begun = time.monotonic()
    lines = []
    ended = threading.Event()
    with tempfile.TemporaryDirectory(prefix="rust-iommu-") as scratch, log.open("w") as kept:
        if files:
            image = pathlib.Path(scratch, "image.cpio")
            image.write_bytes(cpio.archive(files))
            command.append(f"initrd={image}")
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # UML keeps its sockets below the home directory.
                env={**os.environ, "HOME": scratch},
                text=True,
                errors="replace",
                # Its helper processes end with it.
                start_new_session=True,
            )
        except OSError as error:
            raise MachineError(f"{products.kernel} cannot be run: {error.strerror}") from error

        def end():
            ended.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(limit, end)
        timer.start()
        try:
            for line in process.stdout:
                kept.write(line)
                lines.append(line.rstrip("\r\n"))
                if on_line:
                    on_line(lines[-1])
            process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return Outcome(lines, ended.is_set(), time.monotonic() - begun, process.returncode)
