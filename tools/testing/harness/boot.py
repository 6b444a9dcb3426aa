# SPDX-License-Identifier: GPL-2.0
"""Boot a test machine and run one job in it.

Without --job it migrates memory while a device writes to it, as 'make run' does; with --vm a
virtual machine, as 'make vm' does. A job is a shell script that uses the functions of
tools/testing/vm/guest/lib.sh.
"""

import argparse
import dataclasses
import pathlib
import shlex
import sys

from . import CHECKOUT, configs
from . import machine as vm
from .errors import MachineError, UnknownName
from .products import Products


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--iommu", default="vtd-ss", metavar="NAME", help="configuration")
    parser.add_argument("--split", metavar="VALUE", help="the Rust driver's parameter of that name")
    parser.add_argument("--vm", action="store_true", help="a machine that runs virtual machines")
    parser.add_argument("--job", type=pathlib.Path, help="shell script to run in the guest")
    parser.add_argument("--check-name", action="store_true", help="only check --iommu")
    parser.add_argument("--bare", action="store_true", help="load no driver, bind no device")
    parser.add_argument("--limit", type=int, default=300, help="wall time in seconds")
    parser.add_argument("--append", default="", help="more kernel parameters")
    parser.add_argument("--log", type=pathlib.Path, help="file for the kernel's messages")
    parser.add_argument("arguments", nargs="*", help="passed on to the migration program")
    return parser.parse_args()


def shown(command):
    """Return the job that runs a command; it formats for a terminal only if there is one."""
    if sys.stdout.isatty():
        return [f"exec {command}"]
    return [
        f"{{ {command} 2>&1; echo $? >/tmp/status; }} | cat",
        'exit "$(cat /tmp/status)"',
    ]


def migration(options, machine):
    """Return the job that migrates memory, or a virtual machine."""
    words = shlex.join(options.arguments)
    if options.vm:
        name = shlex.quote(machine.config.name)
        return [
            f"bind_vfio {configs.WRITER_FUNCTION} {configs.WRITER_DRIVER}",
            "must modprobe kvm_amd",
            *shown(f"vm-migrate --iommu {name} {words}"),
        ]
    return shown(f'iommu-migrate --device "${{VFIO_DEVICES%% *}}" {words}')


class Output:
    """Passes the job's output on as it comes, except the guest's own last line."""

    LAST = b"# job ended with status"

    def __init__(self):
        self.held = b""
        self.line_begins = True
        self.over = False

    def __call__(self, piece):
        data = self.held + piece
        self.held = b""
        while data and not self.over:
            if self.line_begins and data.startswith(self.LAST):
                self.over = True
            elif self.line_begins and self.LAST.startswith(data):
                self.held = data
                data = b""
            else:
                end = data.find(b"\n") + 1
                self.line_begins = end > 0
                shown = data[:end] if end else data
                sys.stdout.buffer.write(shown)
                data = data[len(shown) :]
        sys.stdout.flush()


def main():
    options = parse_arguments()
    try:
        machine = configs.machines(options.iommu)[0]
        if options.split:
            config = machine.config.with_split(options.split)
            machine = dataclasses.replace(machine, config=config)
        if options.check_name:
            return 0
        products = Products.load()
        lines = [". /lib/lib.sh"] if options.bare else machine.config.job_head()
        if options.job:
            lines.append(options.job.read_text())
        else:
            if not machine.config.dirty:
                raise MachineError(
                    f"{machine.config.name} tracks no writes: choose another with IOMMU="
                )
            lines += migration(options, machine)
        log = options.log or CHECKOUT / "build" / "run" / f"{machine.config.name}.log"
        outcome = vm.run(
            products,
            machine,
            "\n".join(lines) + "\n",
            log=log,
            limit=options.limit,
            on_output=Output(),
            extra_parameters=f"kunit.enable=0 {options.append}",
            # The migration shows its duration.
            real_time=True,
            build=vm.VMM_HOST if options.vm else vm.Build(),
        )
    except (MachineError, UnknownName, OSError) as error:
        print(f"run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    for failure in outcome.failures():
        print(f"run: {failure} (log: {outcome.console})", file=sys.stderr)
    if outcome.failures():
        return 1
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
