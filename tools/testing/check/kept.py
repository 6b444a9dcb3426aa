# SPDX-License-Identifier: GPL-2.0
"""Results of machines on which nothing runs that has changed, kept between runs.

The machines of the C drivers are the oracle, and a third of the time that the
virtual machines take.  A change of Rust files cannot change what they say, nor can
a change of one driver change what the machines of the other say.  So results are
kept under a key of all that can: the emulator, the kernel but for its Rust or for
the other driver's, the tests, the image, and the runner itself.  A failure is
never kept, and FRESH=1 runs everything.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import time

import ktap

HERE = pathlib.Path(__file__).resolve().parent
RUNNER = (HERE, HERE.parent / "vm")
KEPT_AT_MOST = 64


class Shelf:
    """The place of one machine's results."""

    def __init__(self, products, machine, job, parameters):
        self.path = None
        driver = machine.config.module.split()[0] if machine.config.module else "c"
        inputs = products.keys.get(f"{driver}_key")
        if not inputs or products.debug or os.environ.get("FRESH"):
            return
        key = hashlib.sha256()
        for part in (inputs, repr(machine), job, parameters):
            key.update(part.encode() + b"\0")
        for folder in RUNNER:
            for path in sorted(folder.glob("*.py")):
                key.update(path.read_bytes())
        self.path = products.results / f"{key.hexdigest()[:16]}.json"

    def take(self):
        """Return the results and the time they are from, or nothing."""
        if not self.path or not self.path.is_file():
            return None, ""
        try:
            text = self.path.read_text()
            results = ktap.Results(**json.loads(text))
        except (ValueError, TypeError):
            # Cut short, or of another version: run it again.
            return None, ""
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.path.stat().st_mtime))
        return results, since

    def put(self, results):
        """Keep the results, if nothing failed."""
        if not self.path or results.failures or not results.passed:
            return
        whole = self.path.with_suffix(f".{os.getpid()}")
        whole.write_text(json.dumps(dataclasses.asdict(results)))
        whole.replace(self.path)
        kept = sorted(self.path.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in kept[:-KEPT_AT_MOST]:
            path.unlink(missing_ok=True)
