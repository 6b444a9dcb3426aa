// SPDX-License-Identifier: GPL-2.0
/*
 * A paging domain without hardware, over the tables of C or over those of Rust:
 * see tables.h.
 */
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/numa.h>
#ifdef CONFIG_RUST_IOMMU_PT_ABI
#include <linux/rust_iommu_pt.h>
#endif

#include "../../iommu-pages.h"
#include "tables.h"

PT_IOMMU_CHECK_DOMAIN(struct tables, as_vtdss.iommu, domain);
PT_IOMMU_CHECK_DOMAIN(struct tables, as_amdv1.iommu, domain);
PT_IOMMU_CHECK_DOMAIN(struct tables, as_x86_64.iommu, domain);

static struct tables *tables_of(struct iommu_domain *domain)
{
	return container_of(domain, struct tables, domain);
}

/* There is no IOTLB: only the tables that waited for the flush are freed. */
static void tables_sync(struct iommu_domain *domain,
			struct iommu_iotlb_gather *gather)
{
	struct tables *tables = tables_of(domain);

	tables->flushed_from = gather->start;
	tables->flushed_last = gather->end;
	tables->flushes++;
	iommu_put_pages_list(&gather->freelist);
}

static void tables_change_top(struct pt_iommu *iommu, phys_addr_t top,
			      unsigned int level)
{
}

static spinlock_t *tables_top_lock(struct pt_iommu *iommu)
{
	return &tables_of(&iommu->domain)->top_lock;
}

static const struct pt_iommu_driver_ops tables_driver_ops = {
	.change_top = tables_change_top,
	.get_top_lock = tables_top_lock,
};

/* What the drivers of each format ask for; the mock's is iommufd's selftest. */
static const struct pt_iommu_vtdss_cfg vtdss_cfg = {
	.common = {
		.features = BIT(PT_FEAT_FLUSH_RANGE),
		.hw_max_vasz_lg2 = 48,
		.hw_max_oasz_lg2 = 52,
	},
	.top_level = 3,
};

static const struct pt_iommu_amdv1_cfg amdv1_cfg = {
	.common = {
		.features = BIT(PT_FEAT_FLUSH_RANGE) | BIT(PT_FEAT_DYNAMIC_TOP) |
			    BIT(PT_FEAT_AMDV1_ENCRYPT_TABLES) |
			    BIT(PT_FEAT_AMDV1_FORCE_COHERENCE),
		.hw_max_vasz_lg2 = 64,
		.hw_max_oasz_lg2 = 52,
	},
	.starting_level = 2,
};

static const struct pt_iommu_x86_64_cfg x86_64_cfg = {
	.common = {
		.features = BIT(PT_FEAT_FLUSH_RANGE),
		.hw_max_vasz_lg2 = 47,
		.hw_max_oasz_lg2 = 52,
	},
	.top_level = 3,
};

static const struct pt_iommu_amdv1_mock_cfg amdv1_mock_cfg = {
	.common = {
		.hw_max_vasz_lg2 = 56,
		.hw_max_oasz_lg2 = 51,
	},
	.starting_level = 4,
};

/* A kind is a format, or a format with _rust behind it. */
#define TABLES_KIND(kind, format)                                               \
	static const struct iommu_domain_ops kind##_ops = {                     \
		.iova_to_phys = pt_iommu_##kind##_iova_to_phys,                 \
		.iotlb_sync = tables_sync,                                      \
	};                                                                      \
	static const struct iommu_dirty_ops kind##_dirty_ops = {                \
		.read_and_clear_dirty = pt_iommu_##kind##_read_and_clear_dirty, \
	};                                                                      \
	static int kind##_init(struct tables *tables)                           \
	{                                                                       \
		tables->domain.ops = &kind##_ops;                               \
		tables->domain.dirty_ops = &kind##_dirty_ops;                   \
		return pt_iommu_##kind##_init(&tables->as_##format,             \
					      &format##_cfg, GFP_KERNEL);       \
	}

TABLES_KIND(vtdss, vtdss)
TABLES_KIND(amdv1, amdv1)
TABLES_KIND(x86_64, x86_64)
#ifdef CONFIG_IOMMUFD_TEST
TABLES_KIND(amdv1_mock, amdv1_mock)
#endif
#ifdef CONFIG_RUST_IOMMU_PT_ABI
TABLES_KIND(vtdss_rust, vtdss)
TABLES_KIND(amdv1_rust, amdv1)
TABLES_KIND(x86_64_rust, x86_64)
#ifdef CONFIG_IOMMUFD_TEST
TABLES_KIND(amdv1_mock_rust, amdv1_mock)
#endif
#endif

static int (*const inits[TABLES_NR_FORMATS][TABLES_NR_SIDES])(struct tables *) = {
	[TABLES_VTDSS][TABLES_C] = vtdss_init,
	[TABLES_AMDV1][TABLES_C] = amdv1_init,
	[TABLES_X86_64][TABLES_C] = x86_64_init,
#ifdef CONFIG_IOMMUFD_TEST
	[TABLES_AMDV1_MOCK][TABLES_C] = amdv1_mock_init,
#endif
#ifdef CONFIG_RUST_IOMMU_PT_ABI
	[TABLES_VTDSS][TABLES_RUST] = vtdss_rust_init,
	[TABLES_AMDV1][TABLES_RUST] = amdv1_rust_init,
	[TABLES_X86_64][TABLES_RUST] = x86_64_rust_init,
#ifdef CONFIG_IOMMUFD_TEST
	[TABLES_AMDV1_MOCK][TABLES_RUST] = amdv1_mock_rust_init,
#endif
#endif
};

/**
 * tables_format_name() - Name a format
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
 * tables_track() - Tell if tables of a format can be asked for dirty pages
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
 * tables_init() - Make an empty table
 * @tables: What to fill
 * @format: Its format
 * @side: Whose table
 *
 * Returns: -EOPNOTSUPP if this kernel has no such table.
 */
int tables_init(struct tables *tables, enum tables_format format,
		enum tables_side side)
{
	memset(tables, 0, sizeof(*tables));
	spin_lock_init(&tables->top_lock);
	tables->iommu.nid = NUMA_NO_NODE;
	tables->iommu.driver_ops = &tables_driver_ops;

	switch (format) {
	case TABLES_VTDSS:
		tables->raw = &raw_vtdss;
		tables->common = &tables->as_vtdss.vtdss_pt.common;
		break;
	case TABLES_AMDV1:
		tables->raw = &raw_amdv1;
		tables->common = &tables->as_amdv1.amdpt.common;
		break;
	case TABLES_X86_64:
		tables->raw = &raw_x86_64;
		tables->common = &tables->as_x86_64.x86_64_pt.common;
		break;
	case TABLES_AMDV1_MOCK:
		tables->raw = &raw_amdv1_mock;
		tables->common = &tables->as_amdv1_mock.amdpt.common;
		break;
	default:
		return -EINVAL;
	}
	if (!inits[format][side])
		return -EOPNOTSUPP;
	return inits[format][side](tables);
}

/**
 * tables_destroy() - Free all tables of a domain
 * @tables: The domain; one whose initialisation failed will do
 */
void tables_destroy(struct tables *tables)
{
	pt_iommu_deinit(&tables->iommu);
}

MODULE_IMPORT_NS("GENERIC_PT_IOMMU");
MODULE_IMPORT_NS("IOMMUFD");
