# SPDX-License-Identifier: GPL-2.0
"""A QEMU without a guest: its CPUs do not run, this program acts for them.

Guest memory is a shared file, mapped here as well, so that page tables can be
read and changed as a CPU would, also while the device walks them.
Registers go through QEMU's qtest protocol.
"""

import mmap
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

RAM_SIZE = 256 << 20
ANSWER_TIMEOUT_S = 60

EDU_SLOT = 4
EDU_SID = EDU_SLOT << 3
EDU_BAR = 0xE0000000
EDU_BUFFER = 0x40000
EDU_DMA_SRC = 0x80
EDU_DMA_DST = 0x88
EDU_DMA_COUNT = 0x90
EDU_DMA_COMMAND = 0x98
EDU_DMA_RUN = 1
EDU_DMA_TO_MEMORY = 2
EDU_DMA_TIME_NS = 100_000_000

# A disk that answers late: between a read and its data lies this long.
NVME_SLOT = 5
NVME_BAR = 0xE010_0000
NVME_LATENCY_S = 0.3

# Functions that a machine has only if its properties name them; stock QEMU lacks some.
PASID = "pasid-dma"             # DMA with a PASID: hw/misc/pasid-dma.c
STALL = "iommu-stall"           # stops the unit: hw/i386/iommu_stall.c
# A bridge to conventional PCI, and behind it two edu, whose requests are the bridge's.
BRIDGE = "pcie-pci-bridge"
# One more unit, and a root port with an edu that it serves.
SECOND_UNIT = "under"
# One on the root bus, one behind a root port, one behind a bridge to conventional PCI.
WRITER = "page-writer"          # writes memory by itself: hw/misc/page-writer.c
# The virtual clock runs by itself: with real time, or as fast as there is something to do.
REAL_TIME, ICOUNT = "real-time", "icount"
FUNCTIONS = (PASID, STALL, BRIDGE, SECOND_UNIT, WRITER, REAL_TIME, ICOUNT)

PASID_SLOT = 6
PASID_SID = PASID_SLOT << 3
PASID_BAR = 0xE020_0000
PASID_BITS = 20
(PASID_REG_SOURCE, PASID_REG_TARGET, PASID_REG_LENGTH, PASID_REG_PASID,
 PASID_REG_COMMAND, PASID_REG_STATUS) = range(0x08, 0x38, 8)
PASID_REG_BUFFER = 0x1000
PASID_PRESENT = 1 << 31
PASID_READ, PASID_WRITE = 1, 2

BRIDGE_SLOT = 8
BRIDGE_WINDOW = 0xE040_0000
BRIDGED_SLOTS = (1, 2)
BRIDGED_BARS = (BRIDGE_WINDOW, BRIDGE_WINDOW + 0x10_0000)

PORT_SLOT = 9
PORT_BUS = 3
PORT_WINDOW = 0xE060_0000
SECOND_BASE = {"intel-iommu": 0xFED9_1000, "amd-iommu": 0xFED8_4000}

STALL_SLOT = 7
STALL_BAR = 0xE030_0000
(STALL_ID, STALL_UNITS, STALL_UNIT, STALL_STOP, STALL_DELAY, STALL_LOSE, STALL_COMMANDS,
 STALL_HELD, STALL_LINE) = range(STALL_BAR, STALL_BAR + 0x48, 8)

WRITER_SLOT, WRITER_PORT_SLOT, WRITER_BRIDGE_SLOT = 10, 11, 12

# Firmware that is all HLT: such a clock needs a CPU, and this one does nothing.
FIRMWARE_SIZE = 64 << 10
HLT = b"\xf4"

PCIE_BASE = 0xB000_0000
PASID_CAPABILITY = 0x100

PCI_ADDRESS = 0xCF8
PCI_DATA = 0xCFC


class MachineError(Exception):
    """QEMU did not start, ended, or answered with something else."""


class Machine:
    """One QEMU with an IOMMU and the edu device behind it."""

    def __init__(self, qemu, properties, unit="intel-iommu"):
        self.unit = unit
        self.functions = [word for word in properties if word in FUNCTIONS]
        self.properties = [word for word in properties if word not in FUNCTIONS]
        self._dir = tempfile.mkdtemp(prefix="ad-matrix-")
        self._process = None
        self._stream = None
        self.ram = None
        try:
            self._start(qemu)
        except BaseException:
            self.close()
            raise

    def _start(self, qemu):
        ram_path = os.path.join(self._dir, "ram")
        socket_path = os.path.join(self._dir, "qtest")
        self._log_path = os.path.join(self._dir, "stderr")
        with open(ram_path, "wb+") as ram_file:
            ram_file.truncate(RAM_SIZE)
            self.mapping = mmap.mmap(ram_file.fileno(), RAM_SIZE)
        # Items of eight bytes: each load and store is one access of the host.
        self.ram = memoryview(self.mapping).cast("Q")

        listener = socket.socket(socket.AF_UNIX)
        listener.bind(socket_path)
        listener.listen(1)
        device = ",".join([self.unit, "intremap=off"] + self.properties)
        command = [
            qemu, "-machine", "q35,memory-backend=ram,kernel-irqchip=off",
            *self._clock(), "-m", f"{RAM_SIZE >> 20}M", "-nodefaults",
            "-display", "none", "-qtest", f"unix:{socket_path}",
            "-L", "/usr/share/qemu", "-L", "/usr/share/seabios",
            "-object", f"memory-backend-file,id=ram,size={RAM_SIZE},"
                       f"mem-path={ram_path},share=on",
            "-device", device,
            "-device", f"edu,addr={EDU_SLOT:02x}.0,dma_mask=0xffffffffffffffff",
            "-blockdev", "null-co,node-name=disk,size=1048576,read-zeroes=on,"
                         f"latency-ns={int(NVME_LATENCY_S * 1e9)}",
            "-device", f"nvme,addr={NVME_SLOT:02x}.0,serial=disk,drive=disk",
        ]
        if PASID in self.functions:
            command += ["-device", f"{PASID},addr={PASID_SLOT:02x}.0,"
                                   f"pasid-bits={PASID_BITS}"]
        if STALL in self.functions:
            command += ["-device", f"{STALL},addr={STALL_SLOT:02x}.0"]
        if BRIDGE in self.functions:
            command += ["-device", f"{BRIDGE},id=bridge,addr={BRIDGE_SLOT:02x}.0"]
            for slot in BRIDGED_SLOTS:
                command += ["-device", f"edu,bus=bridge,addr={slot:02x}.0,"
                                       "dma_mask=0xffffffffffffffff"]
        if SECOND_UNIT in self.functions:
            command += ["-device", f"pcie-root-port,id=port0,addr={PORT_SLOT:02x}.0,chassis=1",
                        "-device", f"{device},{SECOND_UNIT}=port0,"
                                   f"base={SECOND_BASE[self.unit]:#x}",
                        "-device", "edu,bus=port0,dma_mask=0xffffffffffffffff"]
        if WRITER in self.functions:
            command += ["-device", f"{WRITER},addr={WRITER_SLOT:02x}.0",
                        "-device", f"pcie-root-port,id=port1,addr={WRITER_PORT_SLOT:02x}.0,"
                                   "chassis=2",
                        "-device", f"{WRITER},bus=port1",
                        "-device", f"{BRIDGE},id=bridge1,addr={WRITER_BRIDGE_SLOT:02x}.0",
                        "-device", f"{WRITER},bus=bridge1,addr=01.0"]
        with open(self._log_path, "wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        with listener:
            self._stream = self._accept(listener)
        self._init_devices()

    def _clock(self):
        """What makes the virtual clock run: this program, unless properties say otherwise."""
        if REAL_TIME not in self.functions and ICOUNT not in self.functions:
            return ["-accel", "qtest"]
        path = os.path.join(self._dir, "firmware")
        with open(path, "wb") as firmware:
            firmware.write(HLT * FIRMWARE_SIZE)
        icount = ["-icount", "shift=3,sleep=off"] if ICOUNT in self.functions else []
        return ["-accel", "tcg", *icount, "-bios", path]

    def _accept(self, listener):
        """Wait for QEMU to connect, or to end without having done so."""
        listener.settimeout(0.1)
        for _ in range(ANSWER_TIMEOUT_S * 10):
            try:
                connection, _ = listener.accept()
            except socket.timeout:
                if self._process.poll() is not None:
                    break
                continue
            connection.settimeout(ANSWER_TIMEOUT_S)
            return connection.makefile("rw", encoding="ascii", newline="\n")
        raise MachineError(f"QEMU does not start: {self.log_line()}")

    def log_line(self):
        """What QEMU said last on its standard error."""
        with open(self._log_path, encoding="utf-8", errors="replace") as log:
            lines = [line.strip() for line in log if line.strip()]
        return lines[-1] if lines else "it said nothing"

    def command(self, text):
        """Send one qtest command, return the words of its answer."""
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
            answer = self._stream.readline().split()
        except OSError as error:
            raise MachineError(f"QEMU stopped answering ({error}): "
                               f"{self.log_line()}") from error
        if not answer:
            raise MachineError(f"QEMU ended at \"{text}\": {self.log_line()}")
        if answer[0] != "OK":
            raise MachineError(f"\"{text}\" is answered by \"{' '.join(answer)}\"")
        return answer[1:]

    def read32(self, address):
        return int(self.command(f"readl {address:#x}")[0], 16)

    def write32(self, address, value):
        self.command(f"writel {address:#x} {value:#x}")

    def read64(self, address):
        return int(self.command(f"readq {address:#x}")[0], 16)

    def write64(self, address, value):
        self.command(f"writeq {address:#x} {value:#x}")

    def read_bytes(self, address, size):
        return bytes.fromhex(self.command(f"read {address:#x} {size:#x}")[0][2:])

    def write_bytes(self, address, data):
        self.command(f"write {address:#x} {len(data):#x} 0x{data.hex()}")

    def _select_config(self, slot, offset, bus):
        address = 1 << 31 | bus << 16 | slot << 11 | offset
        self.command(f"outl {PCI_ADDRESS:#x} {address:#x}")

    def read_config(self, slot, offset, bus=0):
        self._select_config(slot, offset, bus)
        return int(self.command(f"inl {PCI_DATA:#x}")[0], 16)

    def write_config(self, slot, offset, value, bus=0):
        self._select_config(slot, offset, bus)
        self.command(f"outl {PCI_DATA:#x} {value:#x}")

    def number_bus(self, bus):
        """Give the bus behind the bridge a number, and its functions their addresses."""
        self._open_bridge(BRIDGE_SLOT, bus, zip(BRIDGED_SLOTS, BRIDGED_BARS))

    def _open_bridge(self, bridge, bus, functions):
        functions = list(functions)
        self.write_config(bridge, 0x18, bus << 16 | bus << 8)
        self.write_config(bridge, 0x20, functions[-1][1] & 0xFFFF_0000
                          | functions[0][1] >> 16)
        self.write_config(bridge, 0x04, 0x6)
        for slot, bar in functions:
            self.write_config(slot, 0x10, bar, bus)
            self.write_config(slot, 0x04, 0x6, bus)
            if self.read32(bar) & 0xFFFF != 0x00ED:
                raise MachineError("a device behind the bridge does not answer at its BAR")

    def _init_devices(self):
        bars = [(EDU_SLOT, EDU_BAR), (NVME_SLOT, NVME_BAR)]
        if PASID in self.functions:
            bars.append((PASID_SLOT, PASID_BAR))
        if STALL in self.functions:
            bars.append((STALL_SLOT, STALL_BAR))
        for slot, bar in bars:
            self.write_config(slot, 0x10, bar)
            self.write_config(slot, 0x04, 0x6)  # memory space, bus master
        if self.read32(EDU_BAR) & 0xFFFF != 0x00ED:
            raise MachineError("the edu device does not answer at its BAR")
        if SECOND_UNIT in self.functions:
            self._open_bridge(PORT_SLOT, PORT_BUS, [(0, PORT_WINDOW)])
        if PASID in self.functions:
            # The memory-mapped configuration space: that of q35's host bridge.
            self.write_config(0, 0x64, 0)
            self.write_config(0, 0x60, PCIE_BASE | 1)
            self.enable_pasids(True)

    def enable_pasids(self, enabled):
        """The switch of the function's PASID capability."""
        control = PCIE_BASE + (PASID_SLOT << 15) + PASID_CAPABILITY + 6
        self.command(f"writew {control:#x} {int(enabled):#x}")

    def pasid_dma(self, pasid, address, to_memory, count=8):
        """Read from, or write to, an address of a PASID, or of none; the status."""
        write = self.write64
        write(PASID_BAR + PASID_REG_SOURCE, address)
        write(PASID_BAR + PASID_REG_TARGET, address)
        write(PASID_BAR + PASID_REG_LENGTH, count)
        write(PASID_BAR + PASID_REG_PASID,
              0 if pasid is None else pasid | PASID_PRESENT)
        write(PASID_BAR + PASID_REG_COMMAND, PASID_WRITE if to_memory else PASID_READ)
        return self.read64(PASID_BAR + PASID_REG_STATUS)

    def dma(self, address, to_memory, count=8, bar=EDU_BAR):
        """Let the device read from, or write to, an address that it sees."""
        source, target = EDU_BUFFER, address
        if not to_memory:
            source, target = address, EDU_BUFFER
        self.write64(bar + EDU_DMA_SRC, source)
        self.write64(bar + EDU_DMA_DST, target)
        self.write64(bar + EDU_DMA_COUNT, count)
        self.write64(bar + EDU_DMA_COMMAND,
                     EDU_DMA_RUN | (EDU_DMA_TO_MEMORY if to_memory else 0))
        self.command(f"clock_step {EDU_DMA_TIME_NS}")
        if self.read64(bar + EDU_DMA_COMMAND) & EDU_DMA_RUN:
            raise MachineError("the edu device did not finish its transfer")

    def wait_ms(self, milliseconds):
        """Let that much virtual time pass."""
        self.wait_us(milliseconds * 1000)

    def wait_us(self, microseconds):
        self.command(f"clock_step {microseconds * 1000}")

    def pause(self, seconds):
        """Stop the QEMU process; return for how long it stood still, at least."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)
        start = time.monotonic()
        time.sleep(seconds)
        paused = time.monotonic() - start
        self._process.send_signal(signal.SIGCONT)
        return paused

    def close(self):
        """End QEMU and remove what it used."""
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._stream:
            self._stream.close()
        if self.ram is not None:
            self.ram.release()
            self.ram = None
            self.mapping.close()
        shutil.rmtree(self._dir, ignore_errors=True)
