// SPDX-License-Identifier: GPL-2.0
/*
 * Memory as something sees it that does not snoop the processors' caches.
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "hw/i386/write-back.h"

#define WRITE_BACK_LINE 64

static QemuMutex write_back_lock;
/* By address. NULL: not watched */
static GHashTable *write_back_lines;

void write_back_watch(void)
{
    if (!write_back_lines) {
        qemu_mutex_init(&write_back_lock);
        write_back_lines = g_hash_table_new_full(g_int64_hash, g_int64_equal,
                                                 g_free, g_free);
    }
}

bool write_back_is_watched(void)
{
    return write_back_lines;
}

void write_back_line(hwaddr addr)
{
    uint64_t start = addr & ~(hwaddr)(WRITE_BACK_LINE - 1);
    uint8_t *line;

    if (!write_back_lines) {
        return;
    }
    line = g_malloc(WRITE_BACK_LINE);
    if (address_space_read(&address_space_memory, start, MEMTXATTRS_UNSPECIFIED,
                           line, WRITE_BACK_LINE) != MEMTX_OK) {
        g_free(line);
        return;
    }
    QEMU_LOCK_GUARD(&write_back_lock);
    g_hash_table_replace(write_back_lines, g_memdup2(&start, sizeof(start)),
                         line);
}

void write_back_read(hwaddr addr, void *buf, hwaddr len)
{
    uint8_t *to = buf;

    QEMU_LOCK_GUARD(&write_back_lock);
    while (len) {
        hwaddr offset = addr & (WRITE_BACK_LINE - 1);
        hwaddr piece = MIN(WRITE_BACK_LINE - offset, len);
        uint64_t start = addr - offset;
        const uint8_t *line = g_hash_table_lookup(write_back_lines, &start);

        if (line) {
            memcpy(to, line + offset, piece);
        } else {
            memset(to, 0xff, piece);
        }
        addr += piece;
        to += piece;
        len -= piece;
    }
}
