# SPDX-License-Identifier: GPL-2.0
"""What the set-up built: it writes the places into files below build/."""

import dataclasses
import pathlib

from . import CHECKOUT
from .errors import MachineError


def _read(name, hint):
    """Return the pairs of a file of the set-up; `hint` names the commands that write it."""
    path = CHECKOUT / "build" / name
    if not path.is_file():
        raise MachineError(f"nothing is set up yet: run {hint}")
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def _places(values):
    """Return the values as paths, all of which exist."""
    places = {key: pathlib.Path(value) for key, value in values.items()}
    for place in places.values():
        if not place.exists():
            raise MachineError(f"{place} is gone: run 'make check' to build it again")
    return places


@dataclasses.dataclass
class Products:
    """What a virtual machine is made of."""

    qemu: pathlib.Path
    kernel: pathlib.Path
    image: pathlib.Path
    tree: pathlib.Path
    # The place of cached results, and what they depend on, by the driver of the machine.
    results: pathlib.Path
    keys: dict
    # The name of the debug kernel, or nothing.
    debug: str = ""
    # The archive that follows the image in a machine that runs virtual machines, if it was set up.
    vmm: pathlib.Path | None = None

    @property
    def patience(self):
        """The factor of time limits: a debug kernel is slow."""
        return 5 if self.debug else 1

    @classmethod
    def load(cls):
        values = _read("products", "'make check' or 'make run'")
        debug = values.pop("debug", "")
        keys = {name: values.pop(name) for name in list(values) if name.endswith("_key")}
        return cls(**_places(values), keys=keys, debug=debug)


@dataclasses.dataclass
class UmlProducts:
    """The kernel as a program of the host, and the benchmark that runs on it."""

    kernel: pathlib.Path
    bench: pathlib.Path
    tree: pathlib.Path

    @classmethod
    def load(cls):
        return cls(**_places(_read("products.uml", "'make check' or 'make bench'")))
