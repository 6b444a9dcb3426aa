/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Two page tables of one format, in C and in Rust, behind the same struct, so
 * that the same calls can be made to both.
 */
#ifndef _RUST_IOMMU_PT_PAIR_H
#define _RUST_IOMMU_PT_PAIR_H

#include <linux/iommu.h>
#include <linux/rust_iommu_pt.h>
#include <linux/spinlock.h>
#include "../../../iommu-pages.h"

enum { SIDE_C, SIDE_RUST, SIDES };

/* A domain, and what its driver was asked to do. */
struct pt_side {
	union {
		struct iommu_domain domain;
		struct pt_iommu iommu;
		struct pt_iommu_amdv1 amdv1;
		struct pt_iommu_vtdss vtdss;
		struct pt_iommu_x86_64 x86_64;
	};
	/* Protects the top, as the driver's lock does. */
	spinlock_t lock;
	unsigned int syncs;
	unsigned long sync_start;
	unsigned long sync_last;
	unsigned int freed;
	unsigned int top_level;
};

/* What a driver tells the hardware, whatever the format calls it. */
struct pt_pair_top {
	u64 phys;
	u8 number;
};

struct pt_pair_format {
	const char *name;
	unsigned int granule_lg2;
	int (*init[SIDES])(struct pt_side *side, const struct pt_iommu_cfg *cfg,
			   unsigned int level);
	void (*hw_info[SIDES])(struct pt_side *side, struct pt_pair_top *top);
	const struct iommu_domain_ops *ops[SIDES];
	int (*dirty[SIDES])(struct iommu_domain *domain, unsigned long iova,
			    size_t size, unsigned long flags,
			    struct iommu_dirty_bitmap *dirty);
	bool (*is_table)(u64 entry, unsigned int level);
	/* Bits that a table entry need not have in common. */
	u64 table_ignored;
	/* How far an address is shifted in an entry. */
	unsigned int address_shift;
};

extern const struct pt_pair_format pt_pair_amdv1;
extern const struct pt_pair_format pt_pair_mock;
extern const struct pt_pair_format pt_pair_vtdss;
extern const struct pt_pair_format pt_pair_x86_64;

#define PT_PAIR_ADDRESS GENMASK_ULL(51, 12)

/* The structs of all formats have it at the same place. */
static inline struct pt_common *pt_side_common(struct pt_side *side)
{
	return &side->amdv1.amdpt.common;
}

static inline unsigned int pt_side_top_level(struct pt_side *side)
{
	return pt_side_common(side)->top_of_table & PT_TOP_LEVEL_MASK;
}

static inline u64 *pt_side_top(struct pt_side *side)
{
	return (u64 *)(pt_side_common(side)->top_of_table &
		       ~(uintptr_t)PT_TOP_LEVEL_MASK);
}

int pt_side_init(struct pt_side *side, const struct pt_pair_format *format,
		 unsigned int which, struct device *dev,
		 const struct pt_iommu_cfg *cfg, unsigned int level);
unsigned int pt_pages_list_count(struct iommu_pages_list *list);

#endif /* _RUST_IOMMU_PT_PAIR_H */
