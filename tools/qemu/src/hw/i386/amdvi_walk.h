/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The page table walks of an emulated AMD IOMMU, host (v1) and guest (v2).
 */

#ifndef HW_I386_AMDVI_WALK_H
#define HW_I386_AMDVI_WALK_H

#include "amdvi_cache.h"

/* Device table entry, quadword 0 */
#define AMDVI_DTE_V                     (1ULL << 0)
#define AMDVI_DTE_TV                    (1ULL << 1)
#define AMDVI_DTE_HAD(dte)              extract64((dte)->val[0], 7, 2)
#define AMDVI_DTE_HAD_NONE              0
#define AMDVI_DTE_HAD_A                 1
#define AMDVI_DTE_HAD_A_AND_D           3
#define AMDVI_DTE_MODE(dte)             extract64((dte)->val[0], 9, 3)
#define AMDVI_DTE_GIOV                  (1ULL << 54)
#define AMDVI_DTE_GV                    (1ULL << 55)
#define AMDVI_DTE_GLX(dte)              extract64((dte)->val[0], 56, 2)
/* quadwords 1 and 2 */
#define AMDVI_DTE_DOMID(dte)            extract64((dte)->val[1], 0, 16)
#define AMDVI_DTE_GPT_LEVELS(dte)       extract64((dte)->val[2], 54, 2)

/* A PASID has so many bits: PASmax of the extended features says one less. */
#define AMDVI_PASID_BITS                16

/* Flags of an IO_PAGE_FAULT event: where they are in its second word */
#define AMDVI_FAULT_GN                  (1U << 0)
#define AMDVI_FAULT_PR                  (1U << 4)
#define AMDVI_FAULT_RW                  (1U << 5)
#define AMDVI_FAULT_PE                  (1U << 6)
#define AMDVI_FAULT_RZ                  (1U << 7)

/**
 * struct AMDVIAccess - what is to be translated
 * @as: the address space that the tables are in
 * @cache: where links between tables are remembered
 * @who: whose they are
 * @dte: the device table entry; one that amdvi_dte_is_legal() accepts
 * @addr: the address that the device uses
 * @pasid: the PASID of the request, 0: it carries none
 * @is_write: the device writes
 * @hd: the unit keeps accessed and dirty flags where HAD asks for it
 */
typedef struct AMDVIAccess {
    AddressSpace *as;
    AMDVICache *cache;
    const AMDVIWho *who;
    const AMDVIDTE *dte;
    hwaddr addr;
    uint32_t pasid;
    bool is_write;
    bool hd;
} AMDVIAccess;

typedef enum AMDVIWalkStatus {
    AMDVI_WALK_DONE,
    AMDVI_WALK_FAULT,       /* the tables refuse: IO_PAGE_FAULT */
    AMDVI_WALK_ERROR,       /* an entry cannot be read, or not be marked */
} AMDVIWalkStatus;

/**
 * struct AMDVIWalk - how a walk ended
 * @to: the translation, if it is done
 * @flags: of the event, if it faults
 * @entry: where the table entry is that it failed at, else
 */
typedef struct AMDVIWalk {
    AMDVITranslation to;
    uint16_t flags;
    hwaddr entry;
} AMDVIWalk;

/* Does a guest page table translate requests with @pasid, or 0: without one? */
bool amdvi_dte_is_guest(const AMDVIDTE *dte, uint32_t pasid);

/**
 * amdvi_dte_is_legal() - can this unit do what the entry asks for?
 * @hd: the unit keeps accessed and dirty flags
 * @gt: the unit has guest translation, and it is enabled
 *
 * Without @hd HAD means nothing. A guest page table on top of a host page table
 * is not emulated, so an entry that asks for it is illegal.
 */
bool amdvi_dte_is_legal(const AMDVIDTE *dte, bool hd, bool gt);

AMDVIWalkStatus amdvi_walk(const AMDVIAccess *access, AMDVIWalk *walk);

#endif
