# SPDX-License-Identifier: GPL-2.0
"""The AMD-Vi unit as a driver sees it: registers, device table, commands, events."""

from machine import EDU_SID, NVME_SLOT, PASID_SID, MachineError

NAME = "amd-iommu"

BASE = 0xFED8_0000
DEVTAB, CMD_BASE, EVT_BASE, CONTROL, EFR = 0x00, 0x08, 0x10, 0x18, 0x30
CMD_HEAD, CMD_TAIL, EVT_HEAD, EVT_TAIL, STATUS = range(0x2000, 0x2028, 8)

CONTROL_EN, CONTROL_EVT_LOG, CONTROL_EVT_INT = 1 << 0, 1 << 2, 1 << 3
CONTROL_CMD, CONTROL_GT, CONTROL_GA = 1 << 12, 1 << 16, 1 << 17
STATUS_OVERFLOW, STATUS_EVT_INT, STATUS_EVT_RUN, STATUS_CMD_RUN = (
    1 << bit for bit in (0, 1, 3, 4))

EFR_GT, EFR_GLX_2, EFR_PASMAX_16 = 1 << 4, 1 << 14, 15 << 32
EFR_GIO, EFR_HA, EFR_HD = 1 << 48, 1 << 49, 1 << 52

DTE_V, DTE_TV, DTE_GIOV, DTE_GV, DTE_IR, DTE_IW = (
    1 << bit for bit in (0, 1, 54, 55, 61, 62))
DTE_RW = DTE_IR | DTE_IW
HAD_SHIFT, HAD_A, HAD_RESERVED, HAD_A_AND_D = 7, 1, 2, 3
MODE_SHIFT, GLX_SHIFT = 9, 56

WAIT, INV_DTE, INV_PAGES, INV_DEVICE_TLB, INV_INTERRUPTS, INV_ALL = 1, 2, 3, 4, 5, 8
PAGES_S, PAGES_PDE, PAGES_GN = 1, 2, 4

ILLEGAL_DTE, PAGE_FAULT, TABLE_ERROR, ILLEGAL_COMMAND = 1, 2, 4, 5
FAULT_I, FAULT_RW, FAULT_PE, FAULT_RZ = (1 << bit for bit in (3, 5, 6, 7))

# Where they lie in guest memory. The device table holds the devices of eight buses.
COMMANDS, GCR3_TOP, GCR3, OTHER_GCR3 = 0x0010_2000, 0x0010_5000, 0x0010_7000, 0x0010_9000
DEVICE_TABLE, DEVICE_TABLE_PAGES = 0x0014_0000, 16
# GCR3 tables of PASIDs, and the top of those of two levels.
PASID_TABLES, PASID_TOP = 0x0011_0000, 0x0011_8000
SLOTS = 256
EVENT_SLOTS = 256
# The unit's own PCI function, and kinds of its capabilities.
UNIT_SLOT = 1
CAPABILITY_MSI, CAPABILITY_IOMMU = 0x5, 0xF
NP_CACHE = 1 << 26
WAIT_DONE = 0x600D_0000
# The devices that share an entry's contents: all of bus 0 that do DMA.
DEVICES = (EDU_SID, NVME_SLOT << 3, PASID_SID)


class Unit:
    """Programs the unit of one Machine; by the same words as VT-d's where it can."""

    def __init__(self, machine, base=BASE, commands=COMMANDS):
        self.machine = machine
        self.base = base
        # Two pages follow: the log, and what tells that commands are done.
        self.commands, self.log, self.done = range(commands, commands + 0x3000, 0x1000)
        self.ram = machine.ram
        self.tail = 0
        self.waits = 0
        self.efr = machine.read64(self.base + EFR)
        self.control = CONTROL_EN | CONTROL_EVT_LOG | CONTROL_CMD
        if self.efr & EFR_GT:
            self.control |= CONTROL_GT
        self._clear(DEVICE_TABLE, DEVICE_TABLE_PAGES << 12)
        self.set_device_table()
        machine.write64(self.base + CMD_BASE, commands | 8 << 56)
        self.restart_events()

    def restart_events(self, interrupts=False):
        """An empty log, that runs."""
        write = self.machine.write64
        write(self.base + CONTROL, self.control & ~CONTROL_EVT_LOG)
        write(self.base + EVT_BASE, self.log | 8 << 56)
        write(self.base + STATUS, STATUS_OVERFLOW | STATUS_EVT_INT)
        write(self.base + CONTROL, self.control | (CONTROL_EVT_INT if interrupts else 0))

    def _clear(self, start, size):
        self.ram[start >> 3:(start + size) >> 3] = memoryview(bytes(size)).cast("Q")

    def _write(self, address, words):
        for position, word in enumerate(words):
            self.ram[(address >> 3) + position] = word

    def capability(self, kind):
        """(offset, header) of the only capability of that kind that the unit's function has."""
        found = []
        pointer = self.machine.read_config(UNIT_SLOT, 0x34) & 0xFF
        while pointer:
            header = self.machine.read_config(UNIT_SLOT, pointer)
            if header & 0xFF == kind:
                found.append((pointer, header))
            pointer = header >> 8 & 0xFF
        if len(found) != 1:
            raise MachineError(f"the unit has {len(found)} capabilities of kind {kind:#x}")
        return found[0]

    # The device table.

    def set_device_table(self):
        """Write the register that says where it is; flushes nothing."""
        self.machine.write64(self.base + DEVTAB, DEVICE_TABLE | DEVICE_TABLE_PAGES - 1)

    def switch_off_and_on(self):
        """Let everything pass for a moment; flushes nothing."""
        self.machine.write64(self.base + CONTROL, self.control & ~CONTROL_EN)
        self.machine.write64(self.base + CONTROL, self.control)

    def serve(self):
        """Translate by the tables that another unit has."""
        self.flush_all()

    def set_scalable(self):
        """A device table without entries, and nothing cached."""
        self.machine.write64(self.base + CONTROL, self.control)
        self._clear(DEVICE_TABLE, DEVICE_TABLE_PAGES << 12)
        self.flush_all()
        self.clear_faults()

    def set_words(self, *words, devices=DEVICES):
        """Write the device table entries, the first word last; flushes nothing."""
        for device in devices:
            entry = DEVICE_TABLE + 32 * device
            self._write(entry + 8, list(words[1:]) + [0] * (4 - len(words)))
            self._write(entry, words[:1])

    def words(self, device=EDU_SID):
        """A device's entry as it is."""
        entry = (DEVICE_TABLE + 32 * device) >> 3
        return list(self.ram[entry:entry + 4])

    def clear_gcr3(self):
        self._write(GCR3, [0])

    def set_device(self, device, page_table, domain):
        """Let a page table translate for one device only; flushes nothing."""
        if page_table.stage.live:
            self._write(OTHER_GCR3, [page_table.root | 1])
            self._set_gcr3(OTHER_GCR3, domain, 0, devices=(device,))
        else:
            self.set_entry(page_table, domain, True, devices=(device,))

    def set_entry(self, page_table, domain, marking=False, had=None, devices=DEVICES):
        """Let a page table translate for the devices; flushes nothing."""
        if page_table.stage.live:
            self.set_guest(page_table, domain)
            return
        if had is None:
            had = HAD_A_AND_D if marking else 0
        self.set_words(DTE_V | DTE_TV | DTE_RW | had << HAD_SHIFT
                       | page_table.levels << MODE_SHIFT | page_table.root, domain,
                       devices=devices)

    def set_guest(self, page_table, domain, glx=0):
        """Guest tables, found by a GCR3 table of one level or of two."""
        self._write(GCR3, [page_table.root | 1])
        self._write(GCR3_TOP, [GCR3 | 1])
        self._set_gcr3(GCR3_TOP if glx else GCR3, domain, glx)

    def _set_gcr3(self, top, domain, glx, flags=DTE_GIOV, devices=DEVICES):
        self.set_words(
            DTE_V | DTE_TV | DTE_RW | DTE_GV | flags | glx << GLX_SHIFT
            | (top >> 12 & 7) << 58,
            domain | (top >> 15 & 0xFFFF) << 16 | (top >> 31) << 43, devices=devices)

    def set_pasids(self, page_tables, domain, glx=0, untagged=True):
        """Guest tables by PASID, that of requests without one 0; flushes nothing.

        With a table of one level, PASIDs above 511 are entered nowhere."""
        self._clear(PASID_TABLES, PASID_TOP + 0x1000 - PASID_TABLES)
        tables = {}
        for pasid, page_table in page_tables.items():
            table = tables.setdefault(pasid >> 9, PASID_TABLES + (len(tables) << 12))
            self._write(table + 8 * (pasid & 511), [page_table.root | 1])
            self._write(PASID_TOP + 8 * (pasid >> 9), [table | 1])
        top = PASID_TOP if glx else tables.get(0, PASID_TABLES)
        self._set_gcr3(top, domain, glx, DTE_GIOV if untagged else 0)

    def clear_pasid(self, pasid):
        """Make the entry of a PASID below 512 absent; flushes nothing."""
        self._write(PASID_TABLES + 8 * pasid, [0])

    # Commands.

    def submit(self, opcode, low, high=0):
        """Queue one command, which must be done then."""
        self.queue(opcode, low, high)
        if not self.is_done():
            raise MachineError(f"command {opcode} {low:#x} {high:#x} is not completed")

    def is_done(self):
        """The last command that was queued is completed."""
        return self.ram[self.done >> 3] == WAIT_DONE + self.waits

    def queue_is_empty(self):
        """The unit has fetched what was queued."""
        return self.machine.read64(self.base + CMD_HEAD) == self.machine.read64(self.base + CMD_TAIL)

    def queue(self, opcode, low, high=0):
        """Queue one command, and one that tells when it is done."""
        self.waits += 1
        self._put(opcode << 60 | low, high)
        self._put(WAIT << 60 | self.done | 1, WAIT_DONE + self.waits)
        self.machine.write64(self.base + CMD_TAIL, self.tail << 4)

    def _put(self, low, high):
        self._write(self.commands + 16 * self.tail, [low, high])
        self.tail = (self.tail + 1) % SLOTS

    def queue_flush(self):
        """Queue a flush of everything; it need not be done then."""
        self.queue(INV_ALL, 0)

    def flush_entry(self, device=EDU_SID):
        self.submit(INV_DTE, device)

    def flush_pages(self, domain, address, order=0, guest=False, pasid=0, tables=True):
        """Invalidate so many pages, as a power of two, and what leads to them."""
        size = (PAGES_S if order else 0) | (PAGES_PDE if tables else 0)
        ones = (1 << order - 1) - 1 if order else 0
        address = address & -1 << 12 + order | ones << 12
        self.submit(INV_PAGES, domain << 32 | pasid,
                    address | size | (PAGES_GN if guest else 0))

    def flush_domain(self, domain, guest=True, pasid=0):
        """Invalidate all of a domain, its host table and what a PASID has."""
        everything = 0x7FFF_FFFF_FFFF_F000 | PAGES_S | PAGES_PDE
        self.submit(INV_PAGES, domain << 32, everything)
        if guest:
            self.submit(INV_PAGES, domain << 32 | pasid, everything | PAGES_GN)

    def flush_device_tlb(self, address):
        self.submit(INV_DEVICE_TLB, EDU_SID, address)

    def flush_translation(self, stage, domain, address, order=0):
        self.flush_pages(domain, address, order, guest=stage.live)

    def flush_leaves(self, stage, domain, address):
        """Flush the leaf of an address, but no link."""
        self.flush_pages(domain, address, guest=stage.live, tables=False)

    def flush_all(self):
        self.submit(INV_ALL, 0)

    # Events.

    def events(self, device=EDU_SID):
        """(code, flags, domain or PASID, address) of each event in the log."""
        head = self.machine.read64(self.base + EVT_HEAD)
        tail = self.machine.read64(self.base + EVT_TAIL)
        found = []
        while head != tail:
            low, high = self.ram[(self.log + head) >> 3], self.ram[(self.log + head + 8) >> 3]
            if low & 0xFFFF != device:
                raise MachineError(f"an event of another device: {low & 0xFFFF:#x}")
            found.append((low >> 60, low >> 48 & 0xFFF,
                          low >> 32 & 0xFFFF | (low >> 16 & 0xF) << 16, high))
            head = (head + 16) % (EVENT_SLOTS * 16)
        return found

    def fault(self):
        """(reason, address, is_read) of the first event, or None.

        The reason of a page fault is its flags, that of another event its code
        above them."""
        events = self.events()
        if not events:
            return None
        code, flags, _, address = events[0]
        above = 0 if code == PAGE_FAULT else code << 12
        return above | flags & ~FAULT_RW, address & ~0xFFF, not flags & FAULT_RW

    def clear_faults(self):
        self.machine.write64(self.base + EVT_HEAD, self.machine.read64(self.base + EVT_TAIL))
        self.machine.write64(self.base + STATUS, STATUS_EVT_INT)
