// SPDX-License-Identifier: GPL-2.0
/*
 * The page table walks of an emulated AMD IOMMU, host (v1) and guest (v2).
 *
 * Level 1 holds leaves of 4 KiB, as in the specification.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/host-utils.h"
#include "amdvi_walk.h"

#define AMDVI_ADDR_MASK         MAKE_64BIT_MASK(12, 40)

/* Device table entry, quadword 0: where IR and IW are in a table entry too */
#define AMDVI_IR_IW(val)        extract64(val, 61, 2)

/* Host table entries. A run of such entries is a leaf of another size. */
#define AMDVI_V1_PR             (1ULL << 0)
#define AMDVI_V1_A              (1ULL << 5)
#define AMDVI_V1_D              (1ULL << 6)
#define AMDVI_V1_NEXT(pte)      extract64(pte, 9, 3)
#define AMDVI_V1_NEXT_SIZE      7
#define AMDVI_V1_LEVELS         6

/* Guest table entries, and what leads to them */
#define AMDVI_GCR3_V            (1ULL << 0)
#define AMDVI_V2_P              (1ULL << 0)
#define AMDVI_V2_RW             (1ULL << 1)
#define AMDVI_V2_US             (1ULL << 2)
#define AMDVI_V2_A              (1ULL << 5)
#define AMDVI_V2_D              (1ULL << 6)
#define AMDVI_V2_PS             (1ULL << 7)
#define AMDVI_V2_LEVELS         4
#define AMDVI_V2_GIB_LEVEL      3
/* The highest address bit that is not a copy of another, with a PASID */
#define AMDVI_V2_SIGN_BIT       47

/* How many address bits the levels up to this one translate, and the offset */
static unsigned int amdvi_level_bits(unsigned int level)
{
    return 12 + 9 * level;
}

/* Is any of the bits from @low on, below @high, set? */
static bool amdvi_any_bit(hwaddr addr, unsigned int low, unsigned int high)
{
    high = MIN(high, 64);
    return low < high && extract64(addr, low, high - low);
}

static hwaddr amdvi_entry_of(hwaddr table, hwaddr addr, unsigned int level)
{
    unsigned int shift = amdvi_level_bits(level - 1);

    /* The sixth level translates what is left of 64 bits. */
    return table + 8 * extract64(addr, shift, MIN(9, 64 - shift));
}

static bool amdvi_read_entry(const AMDVIAccess *access, hwaddr at,
                             uint64_t *entry)
{
    if (address_space_read(access->as, at, MEMTXATTRS_UNSPECIFIED, entry,
                           sizeof(*entry)) != MEMTX_OK) {
        return false;
    }
    *entry = le64_to_cpu(*entry);
    return true;
}

/*
 * The entry at @at of a table of @level. If it is @known to lead to a table it is
 * not read, and has been marked.
 */
static bool amdvi_find_entry(const AMDVIAccess *access, hwaddr at,
                             unsigned int level, uint64_t *entry, bool *known)
{
    *known = amdvi_cache_find_link(access->cache, access->who, access->addr,
                                   amdvi_level_bits(level - 1), entry);
    return *known || amdvi_read_entry(access, at, entry);
}

/*
 * Mark an entry as used unless it is @known, and remember it if it leads to a
 * table.
 */
static IOMMUADResult amdvi_use_entry(const AMDVIAccess *access, IOMMUADWalk *ad,
                                     hwaddr at, unsigned int level,
                                     uint64_t *entry, bool leaf, bool known)
{
    IOMMUADResult marked;

    if (known) {
        return IOMMU_AD_DONE;
    }
    marked = iommu_ad_mark(ad, at, entry, leaf && access->is_write);
    if (!leaf && marked == IOMMU_AD_DONE) {
        amdvi_cache_add_link(access->cache, access->who, access->addr,
                             amdvi_level_bits(level - 1), *entry);
    }
    return marked;
}

static AMDVIWalkStatus amdvi_fault(const AMDVIAccess *access, AMDVIWalk *walk,
                                   uint16_t flags)
{
    walk->flags = flags | (access->is_write ? AMDVI_FAULT_RW : 0);
    return AMDVI_WALK_FAULT;
}

static AMDVIWalkStatus amdvi_done(const AMDVIAccess *access, AMDVIWalk *walk,
                                  const IOMMUADWalk *ad, uint64_t pte,
                                  unsigned int order, unsigned int perm)
{
    walk->to.mask = MAKE_64BIT_MASK(0, order);
    walk->to.base = pte & AMDVI_ADDR_MASK & ~walk->to.mask;
    walk->to.perm = perm;
    walk->to.settled = iommu_ad_leaf_is_settled(ad, pte);
    return AMDVI_WALK_DONE;
}

/*
 * The size of the page, as a power of two, that a host leaf maps; 0: the leaf
 * says one that does not fit its level. The highest level has no leaves.
 */
static unsigned int amdvi_v1_leaf_order(uint64_t pte, unsigned int level)
{
    unsigned int order = amdvi_level_bits(level - 1);
    unsigned int coded;

    if (level == AMDVI_V1_LEVELS) {
        return 0;
    }
    if (AMDVI_V1_NEXT(pte) == 0) {
        return order;
    }
    /* The lowest zero of the address says how large the page is. */
    coded = 13 + cto64((pte & AMDVI_ADDR_MASK) >> 12);
    return coded > order && coded < amdvi_level_bits(level) ? coded : 0;
}

static IOMMUADWalk amdvi_v1_ad(const AMDVIAccess *access)
{
    unsigned int had = AMDVI_DTE_HAD(access->dte);

    return iommu_ad_walk(access->as, access->hd && had != AMDVI_DTE_HAD_NONE,
                         AMDVI_V1_A,
                         had == AMDVI_DTE_HAD_A_AND_D ? AMDVI_V1_D : 0);
}

/* Host tables: an entry names the level that follows, so levels can be skipped. */
static AMDVIWalkStatus amdvi_walk_v1(const AMDVIAccess *access,
                                     AMDVIWalk *walk)
{
    const unsigned int wanted = access->is_write ? IOMMU_WO : IOMMU_RO;
    hwaddr table = access->dte->val[0] & AMDVI_ADDR_MASK;
    unsigned int level = AMDVI_DTE_MODE(access->dte);
    unsigned int perm = AMDVI_IR_IW(access->dte->val[0]);
    IOMMUADWalk ad = amdvi_v1_ad(access);

    if (amdvi_any_bit(access->addr, amdvi_level_bits(level), 64)) {
        return amdvi_fault(access, walk, 0);
    }

    for (;;) {
        unsigned int next, order = 0;
        IOMMUADResult marked;
        bool leaf, known;
        uint64_t pte;

        walk->entry = amdvi_entry_of(table, access->addr, level);
        if (!amdvi_find_entry(access, walk->entry, level, &pte, &known)) {
            return AMDVI_WALK_ERROR;
        }
        if (!(pte & AMDVI_V1_PR)) {
            return amdvi_fault(access, walk, 0);
        }

        next = AMDVI_V1_NEXT(pte);
        leaf = next == 0 || next == AMDVI_V1_NEXT_SIZE;
        if (leaf) {
            order = amdvi_v1_leaf_order(pte, level);
        }
        if (leaf ? !order : next >= level) {
            return amdvi_fault(access, walk, AMDVI_FAULT_PR | AMDVI_FAULT_RZ);
        }
        if (!(perm & AMDVI_IR_IW(pte) & wanted)) {
            return amdvi_fault(access, walk, AMDVI_FAULT_PR | AMDVI_FAULT_PE);
        }
        if (!leaf && amdvi_any_bit(access->addr, amdvi_level_bits(next),
                                   amdvi_level_bits(level - 1))) {
            return amdvi_fault(access, walk, 0);
        }

        marked = amdvi_use_entry(access, &ad, walk->entry, level, &pte, leaf,
                                 known);
        if (marked == IOMMU_AD_AGAIN) {
            continue;
        }
        if (marked == IOMMU_AD_FAILED) {
            return AMDVI_WALK_ERROR;
        }

        perm &= AMDVI_IR_IW(pte);
        if (leaf) {
            return amdvi_done(access, walk, &ad, pte, order, perm);
        }
        table = pte & AMDVI_ADDR_MASK;
        level = next;
    }
}

/*
 * The root of the guest page table of a PASID; requests without one use that of
 * PASID 0. Each level of the GCR3 table is indexed by nine bits of the PASID.
 */
static AMDVIWalkStatus amdvi_find_gcr3(const AMDVIAccess *access,
                                       AMDVIWalk *walk, hwaddr *root)
{
    const uint64_t *val = access->dte->val;
    hwaddr table = extract64(val[0], 58, 3) << 12 |
                   extract64(val[1], 16, 16) << 15 |
                   extract64(val[1], 43, 21) << 31;
    unsigned int level = AMDVI_DTE_GLX(access->dte) + 1;
    uint64_t entry;

    if (amdvi_any_bit(access->pasid, MIN(9 * level, AMDVI_PASID_BITS), 64)) {
        return amdvi_fault(access, walk, AMDVI_FAULT_GN);
    }
    while (level--) {
        walk->entry = table + 8 * extract64(access->pasid, 9 * level, 9);
        if (!amdvi_read_entry(access, walk->entry, &entry)) {
            return AMDVI_WALK_ERROR;
        }
        if (!(entry & AMDVI_GCR3_V)) {
            return amdvi_fault(access, walk, AMDVI_FAULT_GN);
        }
        table = entry & AMDVI_ADDR_MASK;
    }
    *root = table;
    return AMDVI_WALK_DONE;
}

/* Does an address have bits that the tables do not translate? */
static bool amdvi_v2_is_beyond(const AMDVIAccess *access)
{
    if (!access->pasid) {
        return amdvi_any_bit(access->addr, amdvi_level_bits(AMDVI_V2_LEVELS),
                             64);
    }
    return sextract64(access->addr, 0, AMDVI_V2_SIGN_BIT + 1) !=
           (int64_t)access->addr;
}

/* Address bits that must be zero in a guest leaf of this level; PAT may be set */
static bool amdvi_v2_leaf_is_bad(uint64_t pte, unsigned int level)
{
    return level > AMDVI_V2_GIB_LEVEL ||
           amdvi_any_bit(pte, 13, amdvi_level_bits(level - 1));
}

/*
 * Guest tables, as a processor's. Flags are always kept. Requests without a
 * PASID use all address bits that the levels translate; with one addresses are
 * sign-extended. All are user accesses.
 */
static AMDVIWalkStatus amdvi_walk_v2(const AMDVIAccess *access,
                                     AMDVIWalk *walk)
{
    IOMMUADWalk ad = iommu_ad_walk(access->as, true, AMDVI_V2_A, AMDVI_V2_D);
    unsigned int perm = AMDVI_IR_IW(access->dte->val[0]);
    const unsigned int wanted = access->is_write ? IOMMU_WO : IOMMU_RO;
    unsigned int level = AMDVI_V2_LEVELS;
    AMDVIWalkStatus status;
    hwaddr table;

    status = amdvi_find_gcr3(access, walk, &table);
    if (status != AMDVI_WALK_DONE) {
        return status;
    }
    if (amdvi_v2_is_beyond(access)) {
        return amdvi_fault(access, walk, AMDVI_FAULT_GN);
    }

    for (;;) {
        IOMMUADResult marked;
        bool leaf, known;
        unsigned int here;
        uint64_t pte;

        walk->entry = amdvi_entry_of(table, access->addr, level);
        if (!amdvi_find_entry(access, walk->entry, level, &pte, &known)) {
            return AMDVI_WALK_ERROR;
        }
        if (!(pte & AMDVI_V2_P)) {
            return amdvi_fault(access, walk, AMDVI_FAULT_GN);
        }

        leaf = level == 1 || (pte & AMDVI_V2_PS);
        if (leaf && level > 1 && amdvi_v2_leaf_is_bad(pte, level)) {
            return amdvi_fault(access, walk, AMDVI_FAULT_GN | AMDVI_FAULT_PR |
                               AMDVI_FAULT_RZ);
        }
        here = !(pte & AMDVI_V2_US) ? IOMMU_NONE :
               (pte & AMDVI_V2_RW) ? IOMMU_RW : IOMMU_RO;
        if (!(perm & here & wanted)) {
            return amdvi_fault(access, walk, AMDVI_FAULT_GN | AMDVI_FAULT_PR |
                               AMDVI_FAULT_PE);
        }

        marked = amdvi_use_entry(access, &ad, walk->entry, level, &pte, leaf,
                                 known);
        if (marked == IOMMU_AD_AGAIN) {
            continue;
        }
        if (marked == IOMMU_AD_FAILED) {
            return AMDVI_WALK_ERROR;
        }

        perm &= here;
        if (leaf) {
            return amdvi_done(access, walk, &ad, pte,
                              amdvi_level_bits(level - 1), perm);
        }
        table = pte & AMDVI_ADDR_MASK;
        level--;
    }
}

bool amdvi_dte_is_guest(const AMDVIDTE *dte, uint32_t pasid)
{
    return (dte->val[0] & AMDVI_DTE_GV) &&
           (pasid || (dte->val[0] & AMDVI_DTE_GIOV));
}

bool amdvi_dte_is_legal(const AMDVIDTE *dte, bool hd, bool gt)
{
    unsigned int had = AMDVI_DTE_HAD(dte);

    if (!(dte->val[0] & AMDVI_DTE_V) || !(dte->val[0] & AMDVI_DTE_TV)) {
        return true;
    }
    if (AMDVI_DTE_MODE(dte) > AMDVI_V1_LEVELS) {
        return false;
    }
    if (hd && had != AMDVI_DTE_HAD_NONE && had != AMDVI_DTE_HAD_A &&
        had != AMDVI_DTE_HAD_A_AND_D) {
        return false;
    }
    if (!(dte->val[0] & AMDVI_DTE_GV)) {
        return true;
    }
    return gt && AMDVI_DTE_MODE(dte) == 0 && AMDVI_DTE_GLX(dte) < 3 &&
           AMDVI_DTE_GPT_LEVELS(dte) == 0;
}

AMDVIWalkStatus amdvi_walk(const AMDVIAccess *access, AMDVIWalk *walk)
{
    const unsigned int wanted = access->is_write ? IOMMU_WO : IOMMU_RO;

    if (amdvi_dte_is_guest(access->dte, access->pasid)) {
        return amdvi_walk_v2(access, walk);
    }
    if (access->pasid) {
        return amdvi_fault(access, walk, AMDVI_FAULT_GN);
    }
    if (!(AMDVI_IR_IW(access->dte->val[0]) & wanted)) {
        return amdvi_fault(access, walk, AMDVI_FAULT_PR | AMDVI_FAULT_PE);
    }
    return amdvi_walk_v1(access, walk);
}
