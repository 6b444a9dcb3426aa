# SPDX-License-Identifier: GPL-2.0
"""The cache of results: of runs whose inputs have not changed since.

The machines of the C drivers are the oracle, and take a third of the time of all virtual
machines. A change of Rust files cannot change their results, nor can a change of one
driver change the results of the other driver's machines. So results are kept under a key
of all that can change them: the emulator, the kernel without its Rust files or without
those of the other driver, the tests, the image, and the runner itself. Results of a
program of the host are kept by the files that it is made of and reads.  A failure is
never kept, and FRESH=1 runs everything.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import time

from . import CHECKOUT, ktap

HERE = pathlib.Path(__file__).resolve().parent
TOOLCHAIN = (("rustc", "-vV"), ("cargo", "nextest", "--version"), ("python3", "--version"))
KEPT_AT_MOST = 64


def files_below(place):
    """Return the files that `place` is or holds, without build output."""
    if place.is_file():
        return [place]
    found = sorted(path for path in place.rglob("*") if path.is_file())
    return [path for path in found if not {"target", "__pycache__"} & set(path.parts)]


class Entry:
    """The place of one run's results."""

    def __init__(self, products, words, places):
        """The results depend only on `words` and the files below `places`."""
        self.path = None
        if not products or products.debug or os.environ.get("FRESH"):
            return
        key = hashlib.sha256()
        for word in words:
            key.update(word.encode() + b"\0")
        for path in sorted(HERE.rglob("*.py")):
            key.update(path.read_bytes())
        for place in places:
            for path in files_below(place):
                name = path.relative_to(place.parent)
                key.update(f"{name}\0{path.stat().st_size}\0".encode())
                key.update(path.read_bytes())
        self.path = products.results / f"{key.hexdigest()[:16]}.json"

    @classmethod
    def of_machine(
        cls, products, machine, job, parameters, *, all_drivers=False, real_time=False
    ):
        """The entry of a job on a machine: the set-up knows what it depends on. With
        `all_drivers` any of the drivers may take part. In `real_time` the result depends on
        the load of the host, and is not kept."""
        driver = machine.config.module.split()[0] if machine.config.module else "c"
        keys = [products.keys.get(f"{driver}_key")]
        if all_drivers:
            keys = list(products.keys.values())
        if real_time or not all(keys):
            return cls(None, (), ())
        return cls(products, (*keys, repr(machine), job, parameters), ())

    @classmethod
    def of_program(cls, products, suite, values):
        """The entry of a program of the host, if it names what its results depend on."""
        if not suite.made_of:
            return cls(None, (), ())
        versions = [
            subprocess.run(tool, capture_output=True, text=True, check=False).stdout
            for tool in TOOLCHAIN
        ]
        places = [CHECKOUT / place.format(**values) for place in suite.made_of]
        # Independent of the checkout's path.
        words = [word.replace(str(CHECKOUT), "") for word in suite.command]
        return cls(products, (suite.name, *words, *versions), places)

    def load(self):
        """Return the results and their time, or nothing."""
        if not self.path or not self.path.is_file():
            return None, ""
        try:
            text = self.path.read_text()
            results = ktap.Results(**json.loads(text))
        except (ValueError, TypeError):
            # Truncated, or of another version: run it again.
            return None, ""
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.path.stat().st_mtime))
        return results, since

    def store(self, results):
        """Keep the results if nothing failed."""
        if not self.path or results.failures or not results.passed:
            return
        whole = self.path.with_suffix(f".{os.getpid()}")
        whole.write_text(json.dumps(dataclasses.asdict(results)))
        whole.replace(self.path)
        kept = sorted(self.path.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in kept[:-KEPT_AT_MOST]:
            path.unlink(missing_ok=True)
