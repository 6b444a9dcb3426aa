/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The function of page-writer.c, and its state that can be moved: page-writer-state.c
 */

#ifndef HW_MISC_PAGE_WRITER_H
#define HW_MISC_PAGE_WRITER_H

#include "qemu/units.h"
#include "hw/pci/pci_device.h"
#include "qom/object.h"

#define TYPE_PAGE_WRITER "page-writer"
OBJECT_DECLARE_SIMPLE_TYPE(PageWriterState, PAGE_WRITER)

#define PAGE_WRITER_ID              0x0001525745474150ULL   /* "PAGEWR", 1 */
#define PAGE_WRITER_PAGE_SIZE       4096
#define PAGE_WRITER_MAX_RATE        1000000
#define PAGE_WRITER_JOURNAL_ENTRIES 8192
#define PAGE_WRITER_WINDOW_SIZE     (96 * KiB)

/* CONTROL */
#define PAGE_WRITER_RUN             (1U << 0)

/* STATUS; the first is not kept, but found out when it is read */
#define PAGE_WRITER_WRITES          (1U << 0)
#define PAGE_WRITER_WRITE_FAILED    (1U << 1)
#define PAGE_WRITER_LIMIT_REACHED   (1U << 2)

#define PAGE_WRITER_VECTOR_PROGRESS 0
#define PAGE_WRITER_VECTOR_FAILED   1
#define PAGE_WRITER_VECTORS         2
#define PAGE_WRITER_VECTOR_MASK     ((1U << PAGE_WRITER_VECTORS) - 1)

/* BAR 0, in words of 8 bytes */
enum {
    PAGE_WRITER_REG_ID,
    PAGE_WRITER_REG_CONTROL,
    PAGE_WRITER_REG_STATUS,
    PAGE_WRITER_REG_BASE,
    PAGE_WRITER_REG_LENGTH,
    PAGE_WRITER_REG_SEED,
    PAGE_WRITER_REG_RATE,
    PAGE_WRITER_REG_LIMIT,
    PAGE_WRITER_REG_COUNTER,
    PAGE_WRITER_REG_PROGRESS,
    PAGE_WRITER_REG_FAILED,
    PAGE_WRITER_REG_FAILED_ADDRESS,
    PAGE_WRITER_REGS,
};

enum {
    PAGE_WRITER_MODE_RUN,
    PAGE_WRITER_MODE_QUIESCED,
    PAGE_WRITER_MODE_STOPPED,
};

/* RESULT */
typedef enum PageWriterResult {
    PAGE_WRITER_DONE,
    PAGE_WRITER_NOT_POSSIBLE,       /* in this mode, or there is no such command */
    PAGE_WRITER_BAD_VERSION,
    PAGE_WRITER_BAD_LENGTH,
    PAGE_WRITER_BAD_CHECKSUM,
    PAGE_WRITER_BAD_CONTENTS,
} PageWriterResult;

struct PageWriterState {
    PCIDevice parent_obj;

    MemoryRegion regs_bar;
    MemoryRegion bar;
    QEMUTimer *timer;
    uint8_t af_cap;

    uint64_t regs[PAGE_WRITER_REGS];
    uint64_t journal[PAGE_WRITER_JOURNAL_ENTRIES];
    /* Vectors to raise when MODE becomes 0; while it is 0, only the PBA counts */
    uint64_t pending;

    uint64_t mode;
    uint64_t result;
    uint64_t state_length;
    uint8_t window[PAGE_WRITER_WINDOW_SIZE];

    /* When the last burst was, and parts of a write (of 10^9) that are due */
    int64_t burst_ns;
    uint64_t due;
};

/* A state: its header, registers, pending vectors, journal */
#define PAGE_WRITER_STATE_VERSION   1
#define PAGE_WRITER_STATE_SIZE \
    (32 + 8 * (PAGE_WRITER_REGS + PAGE_WRITER_JOURNAL_ENTRIES))

/* Whether registers are such that RUN may be set. */
bool page_writer_may_run(const uint64_t *regs);

/* It writes, unless it is no bus master. */
bool page_writer_runs(const PageWriterState *s);
bool page_writer_is_master(PageWriterState *s);

/* Writes to CONTROL and MODE */
void page_writer_control(PageWriterState *s, uint64_t control);
void page_writer_set_mode(PageWriterState *s, uint64_t mode);

/* The timer: do the writes that are due. */
void page_writer_burst(void *opaque);

/* Write the state into the window. */
PageWriterResult page_writer_save(PageWriterState *s);

/* Take what is in the window, or refuse it and change nothing. */
PageWriterResult page_writer_load(PageWriterState *s);

#endif
