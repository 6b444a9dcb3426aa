# SPDX-License-Identifier: GPL-2.0
"""The kernel as a program of this machine: built from a patched tree, run in bounded time."""

import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CONFIG = HERE / "kernel.config"
SELFTESTS = "tools/testing/selftests"
MEMORY = "1G"
PARAMETERS = ("console=tty", "con=null", "con0=fd:0,fd:1", "panic=-1", "loglevel=7")
# How many kernels stay in the cache: those of two versions of a series of five.
KEPT = 12

TROUBLE = re.compile(
    r"\b(WARNING: (?!.*[Ss]pectre)|BUG: |Oops: |general protection fault|kernel BUG at|"
    r"Kernel panic|INFO: possible |INFO: task .* blocked|suspicious RCU usage|"
    r"Invalid wait context|inconsistent lock state|UBSAN: |KASAN: |"
    r"sleeping function called from invalid|refcount_t: )"
)


class KernelError(Exception):
    """A kernel that could not be built or run, as one sentence."""


def digest(*pieces):
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(piece if isinstance(piece, bytes) else str(piece).encode())
        whole.update(b"\0")
    return whole.hexdigest()[:16]


def command(words, log, cwd=None):
    """Run a command, with its output in `log`; it must succeed."""
    with log.open("ab") as file:
        done = subprocess.run(
            [str(word) for word in words],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            # The options of a make that runs this must not reach the makes that run here.
            env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
            check=False,
        )
    if done.returncode != 0:
        errors = [line for line in log.read_text(errors="replace").splitlines() if "rror" in line]
        raise KernelError(f"{words[0]} failed: {errors[-1].strip() if errors else ''} (log: {log})")


class Tree:
    """A copy of the kernel's source that holds one build, and is patched in place."""

    def __init__(self, source, cache, log):
        self.source = source
        self.cache = cache / "linux"
        # A source of the user has a tree to itself, as in tools/setup.
        self.place = self.cache / (f"ksrc-{digest(source)}" if os.environ.get("KSRC") else "tree")
        self.log = log
        self.llvm = os.environ.get("LLVM") or "-19"
        self.jobs = os.environ.get("JOBS") or str(os.cpu_count())

    def make(self, *words):
        fixed = ("KBUILD_BUILD_TIMESTAMP=2026-01-01", "KBUILD_BUILD_USER=rust-iommu")
        command(
            ["make", "-C", self.place, f"LLVM={self.llvm}", "ARCH=um", f"-j{self.jobs}"]
            + [*fixed, "KBUILD_BUILD_HOST=rust-iommu", *words],
            self.log,
        )

    def provide(self):
        """Copy the source, without what a build in it has left."""
        if self.place.is_dir():
            return
        self.cache.mkdir(parents=True, exist_ok=True)
        partial = self.place.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        left = ("*.o", "*.a", "*.ko", "*.cmd", "/.git", "/.config*", "/vmlinux*", "/.overlay")
        left += ("/include/generated", "/include/config", "/arch/*/include/generated")
        command(
            ["rsync", "-a", *(f"--exclude={name}" for name in left), f"{self.source}/", partial],
            self.log,
        )
        partial.rename(self.place)

    def configure(self):
        kept = self.cache / f"{self.place.name}.config-key"
        key = digest(CONFIG.read_bytes())
        if kept.is_file() and kept.read_text() == key and (self.place / ".config").is_file():
            return
        self.make("allnoconfig")
        merge = "scripts/kconfig/merge_config.sh"
        command([merge, "-m", ".config", CONFIG], self.log, cwd=self.place)
        self.make("olddefconfig")
        lines = set((self.place / ".config").read_text().splitlines())
        for line in CONFIG.read_text().splitlines():
            wrong = line.startswith("CONFIG_") and not line.endswith("=n") and line not in lines
            if wrong:
                raise KernelError(f"{line} took no effect: its dependencies are not met")
        kept.write_text(key)

    def build(self, contents):
        """Return a kernel with these files, from the cache if it was built before."""
        key = digest(
            self.place, self.llvm, CONFIG.read_bytes(), (self.source / "Makefile").read_bytes(),
            *(piece for name in sorted(contents) for piece in (name, contents[name])),
        )  # fmt: skip
        kernel = self.cache / "kernels" / key
        if kernel.is_file():
            kernel.touch()
            return kernel
        self.provide()
        self.write(contents)
        self.configure()
        self.make("linux")
        kernel.parent.mkdir(exist_ok=True)
        shutil.copy2(self.place / "linux", kernel.with_suffix(".new"))
        kernel.with_suffix(".new").rename(kernel)
        kernel.touch()
        by_age = sorted(kernel.parent.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in by_age[:-KEPT]:
            path.unlink()
        return kernel

    def write(self, contents):
        """Write the files that differ: make compiles again what is newer."""
        for name, text in contents.items():
            path = self.place / name
            if path.read_bytes() != text:
                path.write_bytes(text)

    def build_selftest(self, contents, into):
        """Build the selftest of iommufd, with this kernel's interface, static."""
        with tempfile.TemporaryDirectory(prefix="rust-iommu-") as scratch:
            scratch = pathlib.Path(scratch)
            names = ["drivers/iommu/iommufd/iommufd_test.h", f"{SELFTESTS}/iommu"]
            # iommufd's interface of this kernel; the rest is in the host's headers.
            names += ["include/uapi/linux/iommufd.h"]
            names += [f"{SELFTESTS}/{name}" for name in ("kselftest.h", "kselftest_harness.h")]
            for name in names:
                (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                copy = shutil.copytree if (self.source / name).is_dir() else shutil.copyfile
                copy(self.source / name, scratch / name)
            for name, text in contents.items():
                if (scratch / name).is_file():
                    (scratch / name).write_bytes(text)
            command(
                ["gcc", "-O2", "-Wall", "-Wno-unused-function", "-static", "-D_GNU_SOURCE=",
                 f"-I{scratch}/{SELFTESTS}", f"-I{scratch}/include/uapi", "-o", into,
                 scratch / SELFTESTS / "iommu/iommufd.c", "-lcap", "-lpthread"],
                self.log,
            )  # fmt: skip

    def image(self, files, into):
        """Write the root file system: names in it, and the files of this machine."""
        names = [f"dir {name} 755 0 0" for name in ("/bin", "/dev")]
        names.append("nod /dev/console 600 0 0 c 5 1")
        names += [f"file {name} {path} 755 0 0" for name, path in files.items()]
        listed = into.with_suffix(".list")
        listed.write_text("\n".join(names) + "\n")
        with into.open("wb") as file:
            subprocess.run([self.place / "usr/gen_init_cpio", listed], stdout=file, check=True)


def run(kernel, image, log, limit):
    """Run the kernel to its end; return its lines, and why it ended if not by itself."""
    words = [kernel, f"mem={MEMORY}", *PARAMETERS, f"initrd={image}", "kunit.enable=0"]
    # Without support for scripts in the kernel a program has to read the script.
    words += ["rdinit=/bin/busybox", "--", "sh", "/init"]
    wrong = ""
    with tempfile.TemporaryDirectory(prefix="rust-iommu-") as scratch:
        process = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL,
            # A pipe: UML waits for its console to become writable, which a file never does.
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # UML keeps its sockets below the home directory.
            env={**os.environ, "HOME": scratch},
            # Its helper processes end with it.
            start_new_session=True,
        )
        try:
            said = process.communicate(timeout=limit)[0]
            if process.returncode != 0:
                wrong = f"the kernel ended with status {process.returncode}"
        except subprocess.TimeoutExpired:
            wrong = f"the kernel did not finish in {limit} s"
            os.killpg(process.pid, signal.SIGKILL)
            said = process.communicate()[0]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    log.write_bytes(said)
    return said.decode(errors="replace").splitlines(), wrong
