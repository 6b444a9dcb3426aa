// SPDX-License-Identifier: GPL-2.0
/*
 * Makes page tables in C and in Rust, and keeps book of what they ask of their
 * driver.
 */
#include "pair.h"

#include <linux/bits.h>
#include <linux/module.h>
#include <linux/string.h>

unsigned int pt_pages_list_count(struct iommu_pages_list *list)
{
	return list_count_nodes(&list->pages);
}

static void pair_iotlb_sync(struct iommu_domain *domain,
			    struct iommu_iotlb_gather *gather)
{
	struct pt_side *side = container_of(domain, struct pt_side, domain);

	side->syncs++;
	side->sync_start = gather->start;
	side->sync_last = gather->end;
	side->freed += pt_pages_list_count(&gather->freelist);
	iommu_put_pages_list(&gather->freelist);
}

static void pair_change_top(struct pt_iommu *iommu, phys_addr_t phys,
			    unsigned int level)
{
	struct pt_side *side = container_of(iommu, struct pt_side, iommu);

	lockdep_assert_held(&side->lock);
	side->top_level = level;
}

static spinlock_t *pair_get_top_lock(struct pt_iommu *iommu)
{
	return &container_of(iommu, struct pt_side, iommu)->lock;
}

static const struct pt_iommu_driver_ops pair_driver_ops = {
	.change_top = pair_change_top,
	.get_top_lock = pair_get_top_lock,
};

int pt_side_init(struct pt_side *side, const struct pt_pair_format *format,
		 unsigned int which, struct device *dev,
		 const struct pt_iommu_cfg *cfg, unsigned int level)
{
	memset(side, 0, sizeof(*side));
	spin_lock_init(&side->lock);
	side->domain.ops = format->ops[which];
	side->iommu.driver_ops = &pair_driver_ops;
	side->iommu.iommu_device = dev;
	side->iommu.nid = NUMA_NO_NODE;
	return format->init[which](side, cfg, level);
}

#define PAIR_SIDE(fmt, fn, level_member)                                       \
	static int fn##_pair_init(struct pt_side *side,                        \
				  const struct pt_iommu_cfg *common,           \
				  unsigned int level)                          \
	{                                                                      \
		struct pt_iommu_##fmt##_cfg cfg = { .common = *common,         \
						    .level_member = level };   \
									       \
		return pt_iommu_##fn##_init((void *)side, &cfg, GFP_KERNEL);   \
	}                                                                      \
	static const struct iommu_domain_ops fn##_pair_ops = {                 \
		IOMMU_PT_DOMAIN_OPS(fn),                                       \
		.iotlb_sync = pair_iotlb_sync,                                 \
	}

#define PAIR_HW_INFO(fmt, fn, phys_member, number_member)                      \
	static void fn##_pair_hw_info(struct pt_side *side,                    \
				      struct pt_pair_top *top)                 \
	{                                                                      \
		struct pt_iommu_##fmt##_hw_info info;                          \
									       \
		pt_iommu_##fn##_hw_info((void *)side, &info);                  \
		top->phys = info.phys_member;                                  \
		top->number = info.number_member;                              \
	}

#define PAIR_MEMBERS(fn)                                                       \
	.init = { fn##_pair_init, fn##_rust_pair_init },                       \
	.ops = { &fn##_pair_ops, &fn##_rust_pair_ops },                        \
	.dirty = { pt_iommu_##fn##_read_and_clear_dirty,                       \
		   pt_iommu_##fn##_rust_read_and_clear_dirty }

static bool amdv1_is_table(u64 entry, unsigned int level)
{
	unsigned int next = (entry >> 9) & 7;

	return level && (entry & BIT(0)) && next != 0 && next != 7;
}

static bool x86_is_table(u64 entry, unsigned int level)
{
	return level && entry && !(entry & BIT(7));
}

PAIR_SIDE(amdv1, amdv1, starting_level);
PAIR_SIDE(amdv1, amdv1_rust, starting_level);
PAIR_HW_INFO(amdv1, amdv1, host_pt_root, mode);
PAIR_HW_INFO(amdv1, amdv1_rust, host_pt_root, mode);

const struct pt_pair_format pt_pair_amdv1 = {
	.name = "amdv1",
	.granule_lg2 = 12,
	PAIR_MEMBERS(amdv1),
	.hw_info = { amdv1_pair_hw_info, amdv1_rust_pair_hw_info },
	.is_table = amdv1_is_table,
	.table_ignored = PT_PAIR_ADDRESS,
};

PAIR_SIDE(amdv1, amdv1_mock, starting_level);
PAIR_SIDE(amdv1, amdv1_mock_rust, starting_level);

const struct pt_pair_format pt_pair_mock = {
	.name = "amdv1_mock",
	.granule_lg2 = 11,
	PAIR_MEMBERS(amdv1_mock),
	.is_table = amdv1_is_table,
	.table_ignored = PT_PAIR_ADDRESS,
	.address_shift = 1,
};

PAIR_SIDE(vtdss, vtdss, top_level);
PAIR_SIDE(vtdss, vtdss_rust, top_level);
PAIR_HW_INFO(vtdss, vtdss, ssptptr, aw);
PAIR_HW_INFO(vtdss, vtdss_rust, ssptptr, aw);

const struct pt_pair_format pt_pair_vtdss = {
	.name = "vtdss",
	.granule_lg2 = 12,
	PAIR_MEMBERS(vtdss),
	.hw_info = { vtdss_pair_hw_info, vtdss_rust_pair_hw_info },
	.is_table = x86_is_table,
	/* C marks what it has flushed from the caches. */
	.table_ignored = PT_PAIR_ADDRESS | BIT(10),
};

PAIR_SIDE(x86_64, x86_64, top_level);
PAIR_SIDE(x86_64, x86_64_rust, top_level);
PAIR_HW_INFO(x86_64, x86_64, gcr3_pt, levels);
PAIR_HW_INFO(x86_64, x86_64_rust, gcr3_pt, levels);

const struct pt_pair_format pt_pair_x86_64 = {
	.name = "x86_64",
	.granule_lg2 = 12,
	PAIR_MEMBERS(x86_64),
	.hw_info = { x86_64_pair_hw_info, x86_64_rust_pair_hw_info },
	.is_table = x86_is_table,
	.table_ignored = PT_PAIR_ADDRESS | BIT(9),
};

MODULE_IMPORT_NS("GENERIC_PT_IOMMU");
