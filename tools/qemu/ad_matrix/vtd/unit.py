# SPDX-License-Identifier: GPL-2.0
"""The VT-d unit as a driver sees it: registers, tables above the page tables, queue."""

from machine import EDU_SID, EDU_SLOT, NVME_SLOT, PASID_SLOT, MachineError

BASE = 0xFED9_0000
CAP, ECAP, GCMD, GSTS, RTADDR = 0x08, 0x10, 0x18, 0x1C, 0x20
FSTS, IQH, IQT, IQA, FRCD = 0x34, 0x80, 0x88, 0x90, 0x220

GCMD_TE, GCMD_SRTP, GCMD_QIE = 1 << 31, 1 << 30, 1 << 26
RTADDR_SMT = 1 << 10
IQA_DW = 1 << 11
FSTS_PFO, FSTS_IQE = 1 << 0, 1 << 4
FRCD_F = 1 << 63

ECAP_C, ECAP_SMTS = 1 << 0, 1 << 43
ECAP_SSADS, ECAP_SSTS, ECAP_FSTS, ECAP_SMPWC = 1 << 45, 1 << 46, 1 << 47, 1 << 48

# Where they lie in guest memory; each is one page.
# Behind the queue is the page that a unit writes its status to.
ROOT, CONTEXT, PASID_DIR, PASID_TABLE, QUEUE = range(0x0010_0000, 0x0010_5000, 0x1000)
QUEUE_SIZE = 0x1000
# The context tables of other buses, of which there are a few, and PASID directories and
# tables of devices that have their own.
OTHER_CONTEXT, OTHER_PASIDS = 0x0011_0000, 0x0012_0000

PGTT_PASS_THROUGH = 4
AW_48 = 2
SSADE = 1 << 9
# Of an invalidation of pages: hint that no links have changed.
IH = 1 << 6

WAIT_DONE = 0x600D_0000


class Unit:
    """Programs the unit of one Machine."""

    def __init__(self, machine, base=BASE, queue=QUEUE):
        self.machine = machine
        self.base = base
        self.queue_page = queue
        self.status = queue + 0x1000
        self.ram = machine.ram
        self.others = []            # devices with a PASID table for themselves alone
        self.tail = 0
        self.waits = 0
        self.cap = machine.read64(self.base + CAP)
        self.ecap = machine.read64(self.base + ECAP)
        self.scalable = bool(self.ecap & ECAP_SMTS)
        self.queue_dw = IQA_DW if self.scalable else 0
        machine.write64(self.base + IQT, 0)
        machine.write64(self.base + IQA, queue | self.queue_dw)
        self._command(GCMD_QIE, GCMD_QIE)

    def _command(self, bits, want):
        status = self.machine.read32(self.base + GSTS) & (GCMD_TE | GCMD_QIE)
        self.machine.write32(self.base + GCMD, status | bits)
        if self.machine.read32(self.base + GSTS) & want != want:
            raise MachineError(f"command {bits:#x} is not acknowledged")

    def _clear_page(self, page):
        for word in range(page >> 3, (page + 0x1000) >> 3):
            self.ram[word] = 0

    def _write(self, address, words):
        for position, word in enumerate(words):
            self.ram[(address >> 3) + position] = word

    # The tables that lead from the device to its page table.

    def set_legacy(self, page_table, domain):
        """Translate in legacy mode."""
        for page in (ROOT, CONTEXT):
            self._clear_page(page)
        self._write(ROOT, [CONTEXT | 1])
        self._write(CONTEXT + 16 * (EDU_SLOT << 3),
                    [page_table.root | 1, domain << 8 | page_table.levels - 2])
        self._switch(ROOT)

    def set_scalable(self):
        """Scalable mode, with an empty PASID table for the device."""
        for page in (ROOT, CONTEXT, PASID_DIR, PASID_TABLE):
            self._clear_page(page)
        self._write(ROOT, [CONTEXT | 1])
        self.others = []
        for slot in (EDU_SLOT, NVME_SLOT, PASID_SLOT):
            self._write(CONTEXT + 32 * (slot << 3), [PASID_DIR | 1])
        self._write(PASID_DIR, [PASID_TABLE | 1])
        self.serve()

    def set_device_table(self):
        """Set the root table pointer once more; flushes nothing."""
        self._command(GCMD_SRTP, GCMD_SRTP)

    def switch_off_and_on(self):
        """Let everything pass for a moment; flushes nothing."""
        self.machine.write32(self.base + GCMD, GCMD_QIE)
        self._command(GCMD_TE, GCMD_TE)

    def serve(self):
        """Scalable mode, with the tables that another unit has."""
        self._switch(ROOT | RTADDR_SMT)

    def _switch(self, rtaddr):
        self.machine.write64(self.base + RTADDR, rtaddr)
        self._command(GCMD_SRTP, GCMD_SRTP)
        self.flush_all()
        self._command(GCMD_TE, GCMD_TE)
        self.clear_faults()

    def set_device(self, device, page_table, domain):
        """Let a page table translate for one device only; flushes nothing."""
        if device not in self.others:
            self.others.append(device)
        table = OTHER_PASIDS + 0x2000 * self.others.index(device)
        context = CONTEXT
        if device >> 8:
            context = OTHER_CONTEXT + (device >> 8 << 12)
            self._clear_page(context)
            self._write(ROOT + 16 * (device >> 8), [context | 1])
        self._clear_page(table)
        self._clear_page(table + 0x1000)
        self.set_entry(page_table, domain, True, table)
        self._write(table + 0x1000, [table | 1])
        self._write(context + 32 * (device & 0xFF), [table + 0x1000 | 1])

    def set_entry(self, page_table, domain, ssade=False, table=PASID_TABLE):
        """Write the first entry of a PASID table, that of the devices; flushes nothing."""
        stage = page_table.stage
        word = 1 | page_table.levels - 2 << 2 | stage.pgtt << 6 | (SSADE if ssade else 0)
        first = page_table.root if stage.pgtt == 1 else 0
        second = 0 if first else page_table.root
        # The word with the present bit last, as a driver does it.
        self._write(table + 8, [domain, first, 0, 0, 0, 0, 0])
        self._write(table, [word | second])

    def set_pass_through(self, domain):
        self._write(PASID_TABLE + 8, [domain, 0, 0, 0, 0, 0, 0])
        self._write(PASID_TABLE, [1 | AW_48 << 2 | PGTT_PASS_THROUGH << 6])

    def clear_entry(self):
        """Not present any more; the rest of the entry stays as it was."""
        self._write(PASID_TABLE, [self.ram[PASID_TABLE >> 3] & ~1])

    # The invalidation queue.

    def submit(self, low, high=0):
        """Queue one descriptor, which must be done then."""
        self.queue(low, high)
        if self.machine.read32(self.base + FSTS) & FSTS_IQE:
            raise MachineError(f"descriptor {low:#x} {high:#x} is refused")
        if not self.is_done():
            raise MachineError(f"descriptor {low:#x} {high:#x} is not completed")

    def is_done(self):
        """The last descriptor that was queued is completed."""
        return self.ram[self.status >> 3] & 0xFFFF_FFFF == WAIT_DONE + self.waits

    def queue_is_empty(self):
        """The unit has fetched what was queued."""
        return self.machine.read64(self.base + IQH) == self.machine.read64(self.base + IQT)

    def queue(self, low, high=0):
        """Queue one descriptor, and one that tells when it is done."""
        self.waits = (self.waits + 1) & 0xFFFF
        self._put(low, high)
        self._put(5 | 1 << 5 | (WAIT_DONE + self.waits) << 32, self.status)
        shift = 5 if self.queue_dw else 4
        self.machine.write64(self.base + IQT, self.tail << shift)

    def queue_flush(self):
        """Queue a flush of all translations; it need not be done then."""
        self.queue(2 | 1 << 4)

    def _put(self, low, high):
        size = 32 if self.queue_dw else 16
        self._write(self.queue_page + size * self.tail, [low, high] + [0] * (size // 8 - 2))
        self.tail = (self.tail + 1) % (QUEUE_SIZE // size)

    def flush_contexts(self):
        self.submit(1 | 1 << 4)

    def flush_context_of_device(self):
        self.submit(1 | 3 << 4 | EDU_SID << 32)

    def flush_pasids(self):
        self.submit(7 | 3 << 4)

    def flush_pasid(self, domain, pasid=0):
        self.submit(7 | 1 << 4 | domain << 16 | pasid << 32)

    def flush_pasids_of(self, domain):
        self.submit(7 | domain << 16)

    def flush_iotlb(self):
        self.submit(2 | 1 << 4)

    def flush_domain(self, domain):
        self.submit(2 | 2 << 4 | domain << 16)

    def flush_pages(self, domain, address, order=0, leaves=False):
        """With `leaves` (IH) what is cached of links stays."""
        self.submit(2 | 3 << 4 | domain << 16, address | order | (IH if leaves else 0))

    def flush_first_stage(self, domain, pasid=0):
        self.submit(6 | 2 << 4 | domain << 16 | pasid << 32)

    def flush_first_stage_pages(self, domain, address, order=0, pasid=0, leaves=False):
        self.submit(6 | 3 << 4 | domain << 16 | pasid << 32,
                    address | order | (IH if leaves else 0))

    def flush_translation(self, stage, domain, address, order=0):
        """Flush one leaf the way a driver of this stage does."""
        if stage.pgtt == 1:
            self.flush_first_stage_pages(domain, address, order)
        else:
            self.flush_pages(domain, address, order)

    def flush_leaves(self, stage, domain, address):
        """Flush the leaf of an address, but no link."""
        if stage.pgtt == 1:
            self.flush_first_stage_pages(domain, address & -1 << 12, leaves=True)
        else:
            self.flush_pages(domain, address & -1 << 12, leaves=True)

    def flush_all(self):
        self.flush_contexts()
        if self.scalable:
            self.flush_pasids()
        self.flush_iotlb()

    # Faults.

    def fault(self):
        """(reason, address, is_read) of the recorded fault, or None."""
        high = self.machine.read64(self.base + FRCD + 8)
        if not high & FRCD_F:
            return None
        low = self.machine.read64(self.base + FRCD)
        if high & 0xFFFF != EDU_SID:
            raise MachineError(f"a fault of another device: {high & 0xFFFF:#x}")
        return high >> 32 & 0xFF, low & ~0xFFF, bool(high >> 62 & 1)

    def clear_faults(self):
        self.machine.write64(self.base + FRCD + 8, FRCD_F)
        self.machine.write32(self.base + FSTS, FSTS_PFO)
