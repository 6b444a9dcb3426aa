// SPDX-License-Identifier: GPL-2.0
/*
 * Accessed and dirty flags of I/O page tables: the change of an entry.
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"
#include "qemu/rcu.h"
#include "iommu_ad.h"

/*
 * The guest's processors run while this runs, and change the same word by plain
 * stores and by locked instructions, which TCG and KVM both carry out as the
 * host's own. So the host's compare-and-swap on the host's address of the word
 * is what a locked read-modify-write of the device is on real hardware.
 */
static IOMMUADResult iommu_ad_swap(AddressSpace *as, hwaddr addr,
                                   uint64_t seen, uint64_t want)
{
    const MemTxAttrs attrs = MEMTXATTRS_UNSPECIFIED;
    hwaddr len = sizeof(seen);
    hwaddr offset;
    MemoryRegion *mr;
    uint64_t *word;
    uint64_t old;

    RCU_READ_LOCK_GUARD();
    mr = address_space_translate(as, addr, &offset, &len, true, attrs);
    if (len < sizeof(seen) || !memory_region_is_ram(mr) || mr->readonly ||
        memory_region_is_romd(mr) || memory_region_is_ram_device(mr)) {
        return IOMMU_AD_FAILED;
    }

    word = (uint64_t *)((uint8_t *)memory_region_get_ram_ptr(mr) + offset);
    if (!QEMU_PTR_IS_ALIGNED(word, sizeof(*word))) {
        return IOMMU_AD_FAILED;
    }

    seen = cpu_to_le64(seen);
    old = qatomic_cmpxchg(word, seen, cpu_to_le64(want));
    if (old != seen) {
        return IOMMU_AD_AGAIN;
    }
    memory_region_set_dirty(mr, offset, sizeof(seen));
    return IOMMU_AD_DONE;
}

IOMMUADResult iommu_ad_mark(IOMMUADWalk *walk, hwaddr addr, uint64_t *entry,
                            bool written)
{
    uint64_t want = *entry | walk->accessed | (written ? walk->dirty : 0);
    IOMMUADResult result;

    if (want == *entry) {
        return IOMMU_AD_DONE;
    }
    if (walk->no_snoop) {
        return IOMMU_AD_REFUSED;
    }

    result = iommu_ad_swap(walk->as, addr, *entry, want);
    if (result == IOMMU_AD_DONE) {
        *entry = want;
    } else if (result == IOMMU_AD_AGAIN && --walk->tries == 0) {
        result = IOMMU_AD_FAILED;
    }
    return result;
}
