// SPDX-License-Identifier: GPL-2.0
/*
 * What a page-writer (page-writer.c) does while it runs, and when it does not.
 *
 * Everything is done under the big lock: software that reads COUNTER finds all writes
 * up to that number in memory, except those that failed.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "hw/pci/msix.h"
#include "page-writer.h"

/* Writes are done in bursts, this far apart. */
#define PAGE_WRITER_PERIOD_NS       (NANOSECONDS_PER_SECOND / 1000)
/* One that comes late makes up for no more than this. */
#define PAGE_WRITER_LATE_NS         (4 * PAGE_WRITER_PERIOD_NS)

/* The finalizer of splitmix64 */
static uint64_t page_writer_mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ULL;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebULL;
    return x ^ x >> 31;
}

bool page_writer_runs(const PageWriterState *s)
{
    return (s->regs[PAGE_WRITER_REG_CONTROL] & PAGE_WRITER_RUN) &&
           s->mode == PAGE_WRITER_MODE_RUN;
}

bool page_writer_is_master(PageWriterState *s)
{
    return pci_get_word(PCI_DEVICE(s)->config + PCI_COMMAND) &
           PCI_COMMAND_MASTER;
}

/* To be called after what page_writer_runs() looks at has changed. */
static void page_writer_schedule(PageWriterState *s)
{
    if (!page_writer_runs(s)) {
        timer_del(s->timer);
    } else if (!timer_pending(s->timer)) {
        s->burst_ns = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
        s->due = 0;
        timer_mod(s->timer, s->burst_ns + PAGE_WRITER_PERIOD_NS);
    }
}

static void page_writer_interrupt(PageWriterState *s, unsigned int vector)
{
    /* A vector that is masked becomes pending; without MSI-X it is lost. */
    if (msix_enabled(PCI_DEVICE(s))) {
        msix_notify(PCI_DEVICE(s), vector);
    }
}

static void page_writer_write(PageWriterState *s)
{
    uint64_t *regs = s->regs;
    MemTxAttrs attrs = { .requester_id = pci_requester_id(PCI_DEVICE(s)) };
    uint64_t n = ++regs[PAGE_WRITER_REG_COUNTER];
    uint64_t seed = regs[PAGE_WRITER_REG_SEED];
    uint64_t page = page_writer_mix(seed + n) %
                    (regs[PAGE_WRITER_REG_LENGTH] / PAGE_WRITER_PAGE_SIZE);
    uint64_t addr = regs[PAGE_WRITER_REG_BASE] + page * PAGE_WRITER_PAGE_SIZE;
    uint64_t words[2] = {
        cpu_to_le64(n), cpu_to_le64(page_writer_mix(seed ^ n)),
    };

    s->journal[n % PAGE_WRITER_JOURNAL_ENTRIES] = page;
    if (regs[PAGE_WRITER_REG_LIMIT] && n >= regs[PAGE_WRITER_REG_LIMIT]) {
        regs[PAGE_WRITER_REG_CONTROL] &= ~PAGE_WRITER_RUN;
        regs[PAGE_WRITER_REG_STATUS] |= PAGE_WRITER_LIMIT_REACHED;
    }
    if (pci_dma_rw(PCI_DEVICE(s), addr, words, sizeof(words),
                   DMA_DIRECTION_FROM_DEVICE, attrs) != MEMTX_OK) {
        if (!regs[PAGE_WRITER_REG_FAILED]++) {
            regs[PAGE_WRITER_REG_FAILED_ADDRESS] = addr;
        }
        regs[PAGE_WRITER_REG_STATUS] |= PAGE_WRITER_WRITE_FAILED;
        page_writer_interrupt(s, PAGE_WRITER_VECTOR_FAILED);
    }
    if (regs[PAGE_WRITER_REG_PROGRESS] &&
        n % regs[PAGE_WRITER_REG_PROGRESS] == 0) {
        page_writer_interrupt(s, PAGE_WRITER_VECTOR_PROGRESS);
    }
}

void page_writer_burst(void *opaque)
{
    PageWriterState *s = opaque;
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    int64_t passed = MIN(now - s->burst_ns, PAGE_WRITER_LATE_NS);

    s->burst_ns = now;
    if (page_writer_is_master(s)) {
        s->due += passed * s->regs[PAGE_WRITER_REG_RATE];
    }
    /* The memory written may be registers of the function: look each time. */
    while (s->due >= NANOSECONDS_PER_SECOND && page_writer_runs(s)) {
        s->due -= NANOSECONDS_PER_SECOND;
        page_writer_write(s);
    }
    if (page_writer_runs(s)) {
        timer_mod(s->timer, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) +
                            PAGE_WRITER_PERIOD_NS);
    }
}

void page_writer_control(PageWriterState *s, uint64_t control)
{
    uint64_t *regs = s->regs;

    if (!(control & PAGE_WRITER_RUN)) {
        regs[PAGE_WRITER_REG_CONTROL] = 0;
    } else if (!regs[PAGE_WRITER_REG_CONTROL] && page_writer_may_run(regs)) {
        regs[PAGE_WRITER_REG_CONTROL] = PAGE_WRITER_RUN;
        regs[PAGE_WRITER_REG_STATUS] = 0;
        regs[PAGE_WRITER_REG_COUNTER] = 0;
        regs[PAGE_WRITER_REG_FAILED] = 0;
        regs[PAGE_WRITER_REG_FAILED_ADDRESS] = 0;
        memset(s->journal, 0, sizeof(s->journal));
    }
    page_writer_schedule(s);
}

void page_writer_set_mode(PageWriterState *s, uint64_t mode)
{
    PCIDevice *pdev = PCI_DEVICE(s);
    unsigned int vector;

    if (mode > PAGE_WRITER_MODE_STOPPED) {
        return;
    }
    if (s->mode == PAGE_WRITER_MODE_RUN) {
        /* What is pending must not be raised by unmasking it meanwhile. */
        s->pending = *pdev->msix_pba & PAGE_WRITER_VECTOR_MASK;
        *pdev->msix_pba &= ~PAGE_WRITER_VECTOR_MASK;
    }
    s->mode = mode;
    if (mode == PAGE_WRITER_MODE_RUN) {
        for (vector = 0; vector < PAGE_WRITER_VECTORS; vector++) {
            if (s->pending & 1U << vector) {
                msix_notify(pdev, vector);
            }
        }
    }
    page_writer_schedule(s);
}
