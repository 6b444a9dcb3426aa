// SPDX-License-Identifier: GPL-2.0
/*
 * A paging domain without hardware, on the C or on the Rust tables: see tables.h.
 */
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/numa.h>
#ifdef CONFIG_RUST_IOMMU_PT_ABI
#include <linux/rust_iommu_pt.h>
#endif

#include "../../../iommu-pages.h"
#include "tables.h"

PT_IOMMU_CHECK_DOMAIN(struct tables, as_vtdss.iommu, domain);
PT_IOMMU_CHECK_DOMAIN(struct tables, as_amdv1.iommu, domain);
PT_IOMMU_CHECK_DOMAIN(struct tables, as_x86_64.iommu, domain);

static struct tables *tables_of(struct iommu_domain *domain)
{
	return container_of(domain, struct tables, domain);
}

/* There is no IOTLB to flush: this frees the tables that wait for the flush. */
static void tables_sync(struct iommu_domain *domain,
			struct iommu_iotlb_gather *gather)
{
	struct tables *tables = tables_of(domain);

	tables->flushed_from = gather->start;
	tables->flushed_last = gather->end;
	tables->flushes++;
	tables->freed += tables_waiting(gather);
	iommu_put_pages_list(&gather->freelist);
}

static void tables_change_top(struct pt_iommu *iommu, phys_addr_t top,
			      unsigned int level)
{
	struct tables *tables = tables_of(&iommu->domain);

	lockdep_assert_held(&tables->top_lock);
	tables->told_level = level;
}

static spinlock_t *tables_top_lock(struct pt_iommu *iommu)
{
	return &tables_of(&iommu->domain)->top_lock;
}

static const struct pt_iommu_driver_ops tables_driver_ops = {
	.change_top = tables_change_top,
	.get_top_lock = tables_top_lock,
};

/* What the C driver of each format asks for; that of the mock is iommufd's self-test. */
static const struct tables_config usual[TABLES_NR_FORMATS] = {
	[TABLES_VTDSS] = {
		.common = {
			.features = BIT(PT_FEAT_FLUSH_RANGE),
			.hw_max_vasz_lg2 = 48,
			.hw_max_oasz_lg2 = 52,
		},
		.level = 3,
	},
	[TABLES_AMDV1] = {
		.common = {
			.features = BIT(PT_FEAT_FLUSH_RANGE) | BIT(PT_FEAT_DYNAMIC_TOP) |
				    BIT(PT_FEAT_AMDV1_ENCRYPT_TABLES) |
				    BIT(PT_FEAT_AMDV1_FORCE_COHERENCE),
			.hw_max_vasz_lg2 = 64,
			.hw_max_oasz_lg2 = 52,
		},
		.level = 2,
	},
	[TABLES_X86_64] = {
		.common = {
			.features = BIT(PT_FEAT_FLUSH_RANGE),
			.hw_max_vasz_lg2 = 47,
			.hw_max_oasz_lg2 = 52,
		},
		.level = 3,
	},
	[TABLES_AMDV1_MOCK] = {
		.common = {
			.hw_max_vasz_lg2 = 56,
			.hw_max_oasz_lg2 = 51,
		},
		.level = 4,
	},
};

struct tables_kind {
	struct iommu_domain_ops ops;
	struct iommu_dirty_ops dirty_ops;
	const struct raw_format *raw;
	/* Where a struct tables of the kind has its struct pt_common. */
	size_t common;
	int (*init)(struct tables *tables, const struct tables_config *config);
	bool (*hw_info)(struct tables *tables, struct tables_top *top);
};

/* A kind is the name of a format, with _rust appended for the Rust tables. */
#define TABLES_KIND(kind, format, member, level_member, kind_hw_info)           \
	static int kind##_init(struct tables *tables,                           \
			       const struct tables_config *config)              \
	{                                                                       \
		const struct pt_iommu_##format##_cfg cfg = {                    \
			.common = config->common,                               \
			.level_member = config->level,                          \
		};                                                              \
										\
		return pt_iommu_##kind##_init(&tables->as_##format, &cfg,       \
					      GFP_KERNEL);                      \
	}                                                                       \
	static const struct tables_kind kind##_kind = {                                \
		.ops = {                                                        \
			.iova_to_phys = pt_iommu_##kind##_iova_to_phys,         \
			.iotlb_sync = tables_sync,                              \
		},                                                              \
		.dirty_ops = {                                                  \
			.read_and_clear_dirty =                                 \
				pt_iommu_##kind##_read_and_clear_dirty,         \
		},                                                              \
		.raw = &raw_##format,                                           \
		.common = offsetof(struct tables, as_##format.member.common),   \
		.init = kind##_init,                                            \
		.hw_info = kind_hw_info,                                        \
	}

#define TABLES_HW_INFO(kind, format, phys_member, number_member)                \
	static bool kind##_hw_info(struct tables *tables,                       \
				   struct tables_top *top)                      \
	{                                                                       \
		struct pt_iommu_##format##_hw_info info;                        \
										\
		pt_iommu_##kind##_hw_info(&tables->as_##format, &info);         \
		top->phys = info.phys_member;                                   \
		top->number = info.number_member;                               \
		return true;                                                    \
	}

TABLES_HW_INFO(vtdss, vtdss, ssptptr, aw)
TABLES_HW_INFO(amdv1, amdv1, host_pt_root, mode)
TABLES_HW_INFO(x86_64, x86_64, gcr3_pt, levels)
TABLES_KIND(vtdss, vtdss, vtdss_pt, top_level, vtdss_hw_info);
TABLES_KIND(amdv1, amdv1, amdpt, starting_level, amdv1_hw_info);
TABLES_KIND(x86_64, x86_64, x86_64_pt, top_level, x86_64_hw_info);
#ifdef CONFIG_IOMMUFD_TEST
TABLES_KIND(amdv1_mock, amdv1_mock, amdpt, starting_level, NULL);
#endif
#ifdef CONFIG_RUST_IOMMU_PT_ABI
TABLES_HW_INFO(vtdss_rust, vtdss, ssptptr, aw)
TABLES_HW_INFO(amdv1_rust, amdv1, host_pt_root, mode)
TABLES_HW_INFO(x86_64_rust, x86_64, gcr3_pt, levels)
TABLES_KIND(vtdss_rust, vtdss, vtdss_pt, top_level, vtdss_rust_hw_info);
TABLES_KIND(amdv1_rust, amdv1, amdpt, starting_level, amdv1_rust_hw_info);
TABLES_KIND(x86_64_rust, x86_64, x86_64_pt, top_level, x86_64_rust_hw_info);
#ifdef CONFIG_IOMMUFD_TEST
TABLES_KIND(amdv1_mock_rust, amdv1_mock, amdpt, starting_level, NULL);
#endif
#endif

static const struct tables_kind *const kinds[TABLES_NR_FORMATS][TABLES_NR_SIDES] = {
	[TABLES_VTDSS][TABLES_C] = &vtdss_kind,
	[TABLES_AMDV1][TABLES_C] = &amdv1_kind,
	[TABLES_X86_64][TABLES_C] = &x86_64_kind,
#ifdef CONFIG_IOMMUFD_TEST
	[TABLES_AMDV1_MOCK][TABLES_C] = &amdv1_mock_kind,
#endif
#ifdef CONFIG_RUST_IOMMU_PT_ABI
	[TABLES_VTDSS][TABLES_RUST] = &vtdss_rust_kind,
	[TABLES_AMDV1][TABLES_RUST] = &amdv1_rust_kind,
	[TABLES_X86_64][TABLES_RUST] = &x86_64_rust_kind,
#ifdef CONFIG_IOMMUFD_TEST
	[TABLES_AMDV1_MOCK][TABLES_RUST] = &amdv1_mock_rust_kind,
#endif
#endif
};

/**
 * tables_format_name() - Return the name of a format
 * @format: The format
 *
 * Returns: The name, as in the names of its functions.
 */
const char *tables_format_name(enum tables_format format)
{
	static const char *const names[TABLES_NR_FORMATS] = {
		[TABLES_VTDSS] = "vtdss",
		[TABLES_AMDV1] = "amdv1",
		[TABLES_X86_64] = "x86_64",
		[TABLES_AMDV1_MOCK] = "amdv1_mock",
	};

	return names[format];
}

/**
 * tables_track() - Check whether tables of a format support dirty queries
 * @format: The format
 *
 * Returns: false for x86-64: under this ABI its leaves are dirty when they are
 * made, and the C tables have no dirty walk for them.
 */
bool tables_track(enum tables_format format)
{
	return format != TABLES_X86_64;
}

/**
 * tables_init_as() - Create an empty table with a given configuration
 * @tables: What to fill
 * @format: Its format
 * @side: C or Rust
 * @config: What the driver asks for
 *
 * Returns: -EOPNOTSUPP if this kernel has no such table, or the result of its init.
 */
int tables_init_as(struct tables *tables, enum tables_format format,
		   enum tables_side side, const struct tables_config *config)
{
	const struct tables_kind *kind = kinds[format][side];

	memset(tables, 0, sizeof(*tables));
	spin_lock_init(&tables->top_lock);
	if (!kind)
		return -EOPNOTSUPP;
	tables->raw = kind->raw;
	tables->common = (void *)tables + kind->common;
	tables->iommu.nid = NUMA_NO_NODE;
	tables->iommu.driver_ops = &tables_driver_ops;
	tables->iommu.iommu_device = config->dev;
	tables->domain.ops = &kind->ops;
	tables->domain.dirty_ops = &kind->dirty_ops;
	tables->hw_info = kind->hw_info;
	return kind->init(tables, config);
}

/**
 * tables_init() - Create an empty table as the driver of its format does
 * @tables: What to fill
 * @format: Its format
 * @side: C or Rust
 *
 * Returns: -EOPNOTSUPP if this kernel has no such table.
 */
int tables_init(struct tables *tables, enum tables_format format,
		enum tables_side side)
{
	return tables_init_as(tables, format, side, &usual[format]);
}

/**
 * tables_hw_info() - Return what a driver writes to the hardware
 * @tables: The domain
 * @top: Receives the values
 *
 * Returns: false if there is no hardware for the format.
 */
bool tables_hw_info(struct tables *tables, struct tables_top *top)
{
	return tables->hw_info && tables->hw_info(tables, top);
}

/**
 * tables_waiting() - Count the tables that wait for a flush
 * @gather: Where they wait
 *
 * Returns: Their number.
 */
unsigned long tables_waiting(struct iommu_iotlb_gather *gather)
{
	return list_count_nodes(&gather->freelist.pages);
}

/**
 * tables_destroy() - Free all tables of a domain
 * @tables: The domain; its initialisation may have failed
 */
void tables_destroy(struct tables *tables)
{
	pt_iommu_deinit(&tables->iommu);
}

MODULE_IMPORT_NS("GENERIC_PT_IOMMU");
MODULE_IMPORT_NS("IOMMUFD");
