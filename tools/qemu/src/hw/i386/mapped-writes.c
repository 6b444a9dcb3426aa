// SPDX-License-Identifier: GPL-2.0
/*
 * Writes of devices into guest memory that they have mapped.
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/lockable.h"
#include "qemu/queue.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "exec/mapped-writes.h"

typedef struct MappedWrite {
    AddressSpace *as;
    void *buffer;
    hwaddr addr;
    hwaddr len;
    QLIST_ENTRY(MappedWrite) next;
} MappedWrite;

/* Protects what follows; never held across a translation. */
static QemuMutex lock;
static GHashTable *watched;
static QLIST_HEAD(, MappedWrite) pending = QLIST_HEAD_INITIALIZER(pending);
/* Its length, so that an unmap costs nothing where nothing is watched. */
static unsigned int num_pending;

static void __attribute__((constructor)) mapped_writes_init(void)
{
    qemu_mutex_init(&lock);
}

void mapped_writes_watch(IOMMUMemoryRegion *iommu)
{
    QEMU_LOCK_GUARD(&lock);
    if (!watched) {
        watched = g_hash_table_new(NULL, NULL);
    }
    g_hash_table_add(watched, iommu);
}

bool mapped_writes_watched(IOMMUMemoryRegion *iommu)
{
    QEMU_LOCK_GUARD(&lock);
    return watched && g_hash_table_contains(watched, iommu);
}

void mapped_writes_begin(AddressSpace *as, void *buffer, hwaddr addr,
                         hwaddr len)
{
    MappedWrite *write = g_new(MappedWrite, 1);

    write->as = as;
    write->buffer = buffer;
    write->addr = addr;
    write->len = len;

    QEMU_LOCK_GUARD(&lock);
    QLIST_INSERT_HEAD(&pending, write, next);
    qatomic_set(&num_pending, num_pending + 1);
}

static MappedWrite *mapped_writes_take(AddressSpace *as, void *buffer)
{
    MappedWrite *write;

    QEMU_LOCK_GUARD(&lock);
    QLIST_FOREACH(write, &pending, next) {
        if (write->as == as && write->buffer == buffer) {
            QLIST_REMOVE(write, next);
            qatomic_set(&num_pending, num_pending - 1);
            return write;
        }
    }
    return NULL;
}

void mapped_writes_end(AddressSpace *as, void *buffer, hwaddr written)
{
    g_autofree MappedWrite *write = NULL;
    hwaddr done, len, xlat;

    if (!qatomic_read(&num_pending)) {
        return;
    }
    write = mapped_writes_take(as, buffer);
    if (!write) {
        return;
    }

    RCU_READ_LOCK_GUARD();
    written = MIN(written, write->len);
    for (done = 0; done < written; done += len) {
        len = written - done;
        /* A translation that is refused by now is recorded as a fault. */
        address_space_translate(as, write->addr + done, &xlat, &len, true,
                                MEMTXATTRS_UNSPECIFIED);
        if (!len) {
            return;
        }
    }
}
