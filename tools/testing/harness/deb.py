# SPDX-License-Identifier: GPL-2.0
"""Installs the packages of 'make deb' in a clean Debian root, boots it and migrates a memory.

The commands are those of Documentation/driver-api/rust-iommu/install.rst, as they are written
there: what it installs runs in the root, and what follows the reboot in the machine that boots
from it, as root, with the installed kernel and initrd. Prints KTAP.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import types

from . import CHECKOUT, configs
from . import machine as vm
from .errors import MachineError

PAGE = CHECKOUT / "Documentation/driver-api/rust-iommu/install.rst"
SETUP = CHECKOUT / "tools/setup/setup"
PACKAGES = CHECKOUT / "build/check/deb"
OUTPUT = CHECKOUT / "build/check"
# Headings of the page.
INSTALL = "Install the packages"
MIGRATE = "Migrate memory"
# What the boot loader hands over: the page asks for the last one, the emulator for the others.
PARAMETERS = "root=/dev/nvme0n1 rw init=/root/job console=ttyS0 panic=-1 intel_iommu=off"
MACHINE = "vtd-ss/pt"
DISK = "4G"
LIMIT = 1200
# What the output of a command has to hold, by the beginning of the command.
EXPECTED = {
    "uname": r"-rust-iommu$",
    "ls /sys/class/iommu": r"\brust-dmar\d",
    "iommu-migrate": r"^migrated: .* 0 lost, memory identical",
    "cat": r"^ *\d+ +[1-9]\d* +\d+\.\d\d +\d+\.\d$",
}
# A configuration that no Rust kernel can have.
REFUSED = "CONFIG_RANDSTRUCT_FULL=y\n# CONFIG_RANDSTRUCT_NONE is not set\n"
REFUSAL = r"CONFIG_RUST is not set, and the drivers are written in Rust"

# It is the first process: the small kernel cannot run systemd.
JOB = """\
#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
# The initrd leaves its /dev behind here.
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 -opost
cd /root
while IFS= read -r command <&3; do
	echo "$ $command"
	eval "$command"
	echo "= $?"
done 3</root/commands
sleep 0.3
systemctl reboot --force --force
"""
# For want of udev, which needs more of a kernel too, the initrd is told what to load.
INITRD_MODULES = "nvme\n"


class Report:
    """Prints a result at a time."""

    def __init__(self, count):
        print(f"KTAP version 1\n1..{count}", flush=True)
        self.count = 0
        self.failed = False

    def say(self, name, good, said=()):
        for line in said:
            print(f"# {line}")
        self.count += 1
        self.failed |= not good
        print(f"{'ok' if good else 'not ok'} {self.count} {name}", flush=True)


def commands(heading):
    """Return the commands for root below a heading of the page."""
    lines = PAGE.read_text().splitlines()
    begin = lines.index(heading)
    end = next(
        (at for at in range(begin + 2, len(lines)) if re.fullmatch(r"=+", lines[at])), len(lines)
    )
    return [line.strip()[2:] for line in lines[begin:end] if re.match(r" +# ", line)]


def call(words, environment=None):
    """Run a command; return whether it succeeded, and the end of what it said."""
    done = subprocess.run(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **(environment or {})},
        check=False,
    )
    # Without the steps of dpkg's percentages.
    said = [line for line in done.stdout.splitlines() if not line.endswith("%")]
    return done.returncode == 0, said[-12:]


def as_root(script, *arguments):
    """Run a shell script as root; its mounts end with it."""
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    return call([*sudo, "unshare", "-m", "sh", "-euc", script, "sh", *arguments])


def install(report, scratch):
    """Unpack the root, and run the page's commands in it; return whether it can boot."""
    root = scratch / "root"
    packed = (PACKAGES / "root").read_text().strip()
    good, said = as_root(
        'mkdir "$1"; tar -xpf "$2" -C "$1"; cp "$3"/*.deb "$1/root/";'
        'printf %s "$4" >>"$1/etc/initramfs-tools/modules"',
        root,
        packed,
        PACKAGES,
        INITRD_MODULES,
    )
    for command in commands(INSTALL):
        if good:
            good, said = as_root(
                'mount -t proc proc "$1/proc"; mount -t sysfs sysfs "$1/sys";'
                'mount --rbind /dev "$1/dev"; exec chroot "$1" /bin/bash -euc "$2"',
                root,
                f"export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive;"
                f"cd /root; {command}",
            )
        report.say(f"install: {command}", good, said)
    return good


def make_disk(scratch):
    """Put the commands into the root, and the root onto a disk; return kernel and initrd."""
    (scratch / "commands").write_text("".join(f"{line}\n" for line in commands(MIGRATE)))
    (scratch / "job").write_text(JOB)
    good, said = as_root(
        'cd "$1"; cp commands job root/root/; chmod a+x root/root/job;'
        "rm root/root/*.deb; cp root/boot/vmlinuz-* vmlinuz; cp root/boot/initrd.img-* initrd;"
        'chmod a+r vmlinuz initrd; /sbin/mke2fs -q -t ext4 -d root disk "$2"; chmod a+rw disk;'
        "rm -rf root",
        scratch,
        DISK,
    )
    if not good:
        raise MachineError(f"there is no disk of the root: {' '.join(said)}")
    return scratch / "vmlinuz", scratch / "initrd"


def boot(scratch, log):
    """Boot the installed kernel; return the lines at the job's port, and why it ended early."""
    kernel, initrd = make_disk(scratch)
    machine = configs.machines(MACHINE)[0]
    qemu = (PACKAGES / "qemu").read_text().strip()
    parts = types.SimpleNamespace(qemu=qemu, kernel=kernel, debug="")
    build = vm.Build(memory="2G", devices=())
    words = vm.command(parts, machine, build, initrd, log, "", real_time=False)
    words[words.index("-append") + 1] = PARAMETERS
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT,
            check=False,
        )
        output, wrong = done.stdout, "" if done.returncode == 0 else f"QEMU: {done.returncode}"
    except subprocess.TimeoutExpired as error:
        output, wrong = error.stdout or b"", f"nothing within {LIMIT} s"
    return output.decode(errors="replace").replace("\r", "").splitlines(), wrong


def migrate(report, scratch):
    """Boot from the root, and judge what each command of the page said there."""
    log = OUTPUT / "deb.console"
    log.unlink(missing_ok=True)
    lines, wrong = boot(scratch, log)
    for command in commands(MIGRATE):
        said, status = [], wrong or "the machine went down before it"
        if f"$ {command}" in lines:
            rest = lines[lines.index(f"$ {command}") + 1 :]
            end = next((at for at, line in enumerate(rest) if re.match(r"= \d", line)), None)
            said = rest[:end]
            status = "it did not end" if end is None else rest[end][2:]
        expected = next((EXPECTED[start] for start in EXPECTED if command.startswith(start)), "")
        found = any(re.search(expected, line) for line in said) if expected else True
        if not found:
            said.append(f"no line is like {expected}")
        report.say(f"migrate: {command}", status == "0" and found, [*said, f"status: {status}"])
    trouble = vm.find_trouble(log)
    report.say("kernel_log", not trouble and not wrong, [*trouble, wrong] if wrong else trouble)


def show():
    """Run everything; return whether all is as it should be."""
    report = Report(4 + len(commands(INSTALL)) + len(commands(MIGRATE)))
    good, said = call([SETUP, "deb-config"], {"CONFIG": ""})
    report.say("default_configuration", good, said)
    good, said = call([SETUP, "deb-small"], {"CONFIG": ""})
    report.say("packages", good, said)
    with tempfile.TemporaryDirectory(prefix="rust-iommu-") as place:
        scratch = pathlib.Path(place)
        refused = scratch / "config"
        refused.write_text((PACKAGES / "config").read_text() + REFUSED if good else "")
        refusal, said = call([SETUP, "deb-config"], {"CONFIG": str(refused)})
        report.say(
            "refused_configuration",
            not refusal and any(re.search(REFUSAL, line) for line in said),
            said,
        )
        if good and install(report, scratch):
            migrate(report, scratch)
    return not report.failed


def main():
    OUTPUT.mkdir(parents=True, exist_ok=True)
    try:
        return 0 if show() else 1
    except (MachineError, OSError, ValueError) as error:
        print(f"Bail out! {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
