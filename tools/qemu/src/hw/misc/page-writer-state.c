// SPDX-License-Identifier: GPL-2.0
/*
 * The state of a page-writer (page-writer.c), which can be moved to another one.
 *
 * It is little endian: a header of 32 bytes, CONTROL to FAILED_ADDRESS (STATUS without
 * its bit 0), the vectors that are pending, and JOURNAL.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "page-writer.h"
#include <zlib.h> /* for crc32 */

typedef struct QEMU_PACKED PageWriterSaved {
    uint64_t magic;
    uint32_t version;
    uint32_t length;        /* of all */
    uint32_t crc;           /* CRC-32 of what follows the header */
    uint32_t reserved[3];   /* 0; the end of the header */
    uint64_t regs[PAGE_WRITER_REGS - PAGE_WRITER_REG_CONTROL];
    uint64_t pending;
    uint64_t journal[PAGE_WRITER_JOURNAL_ENTRIES];
} PageWriterSaved;

#define PAGE_WRITER_HEADER_SIZE offsetof(PageWriterSaved, regs)

QEMU_BUILD_BUG_ON(PAGE_WRITER_HEADER_SIZE != 32);
QEMU_BUILD_BUG_ON(sizeof(PageWriterSaved) != PAGE_WRITER_STATE_SIZE);
QEMU_BUILD_BUG_ON(PAGE_WRITER_STATE_SIZE > PAGE_WRITER_WINDOW_SIZE);

bool page_writer_may_run(const uint64_t *regs)
{
    uint64_t base = regs[PAGE_WRITER_REG_BASE];
    uint64_t length = regs[PAGE_WRITER_REG_LENGTH];
    uint64_t rate = regs[PAGE_WRITER_REG_RATE];

    return base % PAGE_WRITER_PAGE_SIZE == 0 &&
           length && length % PAGE_WRITER_PAGE_SIZE == 0 &&
           base <= UINT64_MAX - (length - 1) &&
           rate && rate <= PAGE_WRITER_MAX_RATE;
}

static uint32_t page_writer_crc(PageWriterState *s)
{
    return crc32(0, s->window + PAGE_WRITER_HEADER_SIZE,
                 PAGE_WRITER_STATE_SIZE - PAGE_WRITER_HEADER_SIZE);
}

PageWriterResult page_writer_save(PageWriterState *s)
{
    PageWriterSaved *saved = (PageWriterSaved *)s->window;
    uint64_t pending = s->pending;
    size_t i;

    if (s->mode == PAGE_WRITER_MODE_RUN) {
        pending = *PCI_DEVICE(s)->msix_pba & PAGE_WRITER_VECTOR_MASK;
    }
    for (i = 0; i < ARRAY_SIZE(saved->regs); i++) {
        saved->regs[i] = cpu_to_le64(s->regs[PAGE_WRITER_REG_CONTROL + i]);
    }
    saved->pending = cpu_to_le64(pending);
    for (i = 0; i < PAGE_WRITER_JOURNAL_ENTRIES; i++) {
        saved->journal[i] = cpu_to_le64(s->journal[i]);
    }
    saved->magic = cpu_to_le64(PAGE_WRITER_ID);
    saved->version = cpu_to_le32(PAGE_WRITER_STATE_VERSION);
    saved->length = cpu_to_le32(PAGE_WRITER_STATE_SIZE);
    saved->crc = cpu_to_le32(page_writer_crc(s));
    memset(saved->reserved, 0, sizeof(saved->reserved));
    s->state_length = PAGE_WRITER_STATE_SIZE;
    return PAGE_WRITER_DONE;
}

/* Whether a function can be in this state. */
static bool page_writer_can_be(const uint64_t *regs, uint64_t pending,
                               const uint64_t *journal)
{
    const uint64_t flags = PAGE_WRITER_WRITE_FAILED | PAGE_WRITER_LIMIT_REACHED;
    uint64_t control = regs[PAGE_WRITER_REG_CONTROL];
    uint64_t status = regs[PAGE_WRITER_REG_STATUS];
    uint64_t counter = regs[PAGE_WRITER_REG_COUNTER];
    uint64_t limit = regs[PAGE_WRITER_REG_LIMIT];
    uint64_t failed = regs[PAGE_WRITER_REG_FAILED];
    uint64_t address = regs[PAGE_WRITER_REG_FAILED_ADDRESS];
    size_t i;

    if ((control & ~(uint64_t)PAGE_WRITER_RUN) || (status & ~flags) ||
        (pending & ~(uint64_t)PAGE_WRITER_VECTOR_MASK) || failed > counter ||
        !failed != !(status & PAGE_WRITER_WRITE_FAILED) ||
        address % PAGE_WRITER_PAGE_SIZE || (address && !failed)) {
        return false;
    }
    if (!control) {
        /* Software may have changed the other registers since the last write. */
        return true;
    }
    if (!page_writer_may_run(regs) || (limit && counter >= limit) ||
        (status & PAGE_WRITER_LIMIT_REACHED)) {
        return false;
    }
    for (i = 0; i < PAGE_WRITER_JOURNAL_ENTRIES; i++) {
        if (journal[i] >= regs[PAGE_WRITER_REG_LENGTH] / PAGE_WRITER_PAGE_SIZE) {
            return false;
        }
    }
    return true;
}

PageWriterResult page_writer_load(PageWriterState *s)
{
    const PageWriterSaved *saved = (const PageWriterSaved *)s->window;
    g_autofree uint64_t *journal = g_new(uint64_t, PAGE_WRITER_JOURNAL_ENTRIES);
    uint64_t regs[PAGE_WRITER_REGS] = { PAGE_WRITER_ID };
    uint64_t pending;
    size_t i;

    if (s->mode != PAGE_WRITER_MODE_STOPPED) {
        return PAGE_WRITER_NOT_POSSIBLE;
    }
    if (s->state_length < PAGE_WRITER_HEADER_SIZE) {
        return PAGE_WRITER_BAD_LENGTH;
    }
    if (le64_to_cpu(saved->magic) != PAGE_WRITER_ID ||
        le32_to_cpu(saved->version) != PAGE_WRITER_STATE_VERSION) {
        return PAGE_WRITER_BAD_VERSION;
    }
    if (s->state_length != PAGE_WRITER_STATE_SIZE ||
        le32_to_cpu(saved->length) != PAGE_WRITER_STATE_SIZE) {
        return PAGE_WRITER_BAD_LENGTH;
    }
    if (le32_to_cpu(saved->crc) != page_writer_crc(s)) {
        return PAGE_WRITER_BAD_CHECKSUM;
    }

    for (i = 0; i < ARRAY_SIZE(saved->regs); i++) {
        regs[PAGE_WRITER_REG_CONTROL + i] = le64_to_cpu(saved->regs[i]);
    }
    pending = le64_to_cpu(saved->pending);
    for (i = 0; i < PAGE_WRITER_JOURNAL_ENTRIES; i++) {
        journal[i] = le64_to_cpu(saved->journal[i]);
    }
    if (!buffer_is_zero(saved->reserved, sizeof(saved->reserved)) ||
        !page_writer_can_be(regs, pending, journal)) {
        return PAGE_WRITER_BAD_CONTENTS;
    }

    memcpy(s->regs, regs, sizeof(s->regs));
    memcpy(s->journal, journal, sizeof(s->journal));
    s->pending = pending;
    return PAGE_WRITER_DONE;
}
