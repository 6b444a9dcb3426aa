// SPDX-License-Identifier: GPL-2.0
/*
 * Random calls by the C ABI, each made to both tables: see abi.h.
 */
#include "../../../iommu-pages.h"
#include "abi.h"

/**
 * abi_draw() - Draw a random number
 * @abi: The tables; their state of random numbers advances
 * @below: The bound; 0 returns 0
 *
 * Returns: The number.
 */
u64 abi_draw(struct abi *abi, u64 below)
{
	u64 number = prandom_u32_state(&abi->random);

	number = number << 32 | prandom_u32_state(&abi->random);
	return below ? number % below : 0;
}

/**
 * abi_assert_same() - Compare the tables, entry by entry
 * @test: The test that fails if they differ
 * @abi: The tables
 */
void abi_assert_same(struct kunit *test, struct abi *abi)
{
	struct tables *c = &abi->side[TABLES_C], *rust = &abi->side[TABLES_RUST];
	struct raw_difference difference;
	bool same = raw_same(c->raw, c->common, rust->common, &difference);

	KUNIT_ASSERT_TRUE_MSG(test, same, "entry %u of a table of level %u: C %#llx, Rust %#llx",
			      difference.index, difference.level, difference.item[TABLES_C],
			      difference.item[TABLES_RUST]);
	KUNIT_ASSERT_EQ(test, c->told_level, rust->told_level);
}

/* What the drivers were asked to flush, and to free after it. */
static void compare_flushes(struct kunit *test, struct abi *abi)
{
	struct tables *c = &abi->side[TABLES_C], *rust = &abi->side[TABLES_RUST];

	KUNIT_ASSERT_EQ(test, c->flushes, rust->flushes);
	KUNIT_ASSERT_EQ(test, c->flushed_from, rust->flushed_from);
	KUNIT_ASSERT_EQ(test, c->flushed_last, rust->flushed_last);
	KUNIT_ASSERT_EQ(test, c->freed, rust->freed);
}

/**
 * abi_sync() - Have both flush what unmaps have left
 * @abi: The tables
 *
 * The gathers are empty afterwards. Some are marked as queued, for a flush of the
 * whole domain.
 */
void abi_sync(struct abi *abi)
{
	bool queued = abi_draw(abi, 4) == 0;
	unsigned int i;

	for (i = 0; i != TABLES_NR_SIDES; i++) {
		struct tables *side = &abi->side[i];

		/* What a flush of everything would end with. */
		if (abi->gather[i].queued)
			iommu_put_pages_list(&abi->gather[i].freelist);
		else
			iommu_iotlb_sync(&side->domain, &abi->gather[i]);
		iommu_iotlb_gather_init(&abi->gather[i]);
		abi->gather[i].queued = queued;
		side->flushes = 0;
		side->flushed_from = 0;
		side->flushed_last = 0;
		side->freed = 0;
	}
}

/* A range to work on: leaves of one size in a row, or whatever comes. */
static void draw_range(struct abi *abi, u64 *iova, u64 *len, u64 *size)
{
	const unsigned long sizes = abi->side[TABLES_C].domain.pgsize_bitmap &
				    (ABI_WINDOW - 1);
	const unsigned long smallest = sizes & -sizes;
	u64 offset;

	do {
		*size = BIT_ULL(abi_draw(abi, 34));
	} while (!(*size & sizes));
	*len = *size * (1 + abi_draw(abi, abi_draw(abi, 2) ? 600 : 4));
	if (abi_draw(abi, 4) == 0)
		*len += smallest * abi_draw(abi, 600);
	*len = min(*len, ABI_WINDOW);
	offset = abi_draw(abi, ABI_WINDOW - *len + 1);
	offset -= offset % (abi_draw(abi, 4) ? *size : smallest);
	if (abi_draw(abi, 3) == 0)
		offset %= BIT_ULL(22);
	offset -= offset % smallest;
	*iova = abi->what->windows[abi_draw(abi, ABI_NR_WINDOWS)] + offset;
}

static void do_map(struct kunit *test, struct abi *abi)
{
	static const unsigned int prots[] = {
		IOMMU_READ, IOMMU_WRITE, IOMMU_READ | IOMMU_WRITE,
		IOMMU_READ | IOMMU_WRITE | IOMMU_CACHE, IOMMU_WRITE | IOMMU_MMIO,
	};
	u64 limit = BIT_ULL(abi->what->config.common.hw_max_oasz_lg2);
	unsigned int prot = prots[abi_draw(abi, ARRAY_SIZE(prots))];
	size_t mapped[TABLES_NR_SIDES] = { 0x1000, 0x1000 };
	u64 iova, len, size, phys;
	int ret[TABLES_NR_SIDES];
	unsigned int i;

	draw_range(abi, &iova, &len, &size);
	phys = abi_draw(abi, limit - len + 1);
	switch (abi_draw(abi, 8)) {
	case 0:
		phys -= phys % 0x1000;
		break;
	case 1:
		/* Beyond what the entries hold, or what anything is aligned to. */
		phys |= abi_draw(abi, 2) ? limit : 1;
		break;
	case 2:
		/* As far from a multiple of a larger size as the other side. */
		phys = min((phys & ~(BIT_ULL(30) - 1)) | (iova & (BIT_ULL(30) - 1)),
			   (limit - len) & ~(BIT_ULL(11) - 1));
		break;
	default:
		phys -= phys % size;
		break;
	}

	for (i = 0; i != TABLES_NR_SIDES; i++) {
		struct pt_iommu *iommu = &abi->side[i].iommu;

		ret[i] = iommu->ops->map_range(iommu, iova, phys, len, prot,
					       GFP_KERNEL, &mapped[i]);
	}
	KUNIT_ASSERT_EQ_MSG(test, ret[TABLES_C], ret[TABLES_RUST],
			    "iova 0x%llx, phys 0x%llx, len 0x%llx, prot %u", iova, phys,
			    len, prot);
	KUNIT_ASSERT_EQ(test, mapped[TABLES_C], mapped[TABLES_RUST]);
}

static void do_unmap(struct kunit *test, struct abi *abi)
{
	u64 iova, len, size;
	size_t ret[TABLES_NR_SIDES];
	unsigned int i;

	draw_range(abi, &iova, &len, &size);
	for (i = 0; i != TABLES_NR_SIDES; i++) {
		struct pt_iommu *iommu = &abi->side[i].iommu;

		ret[i] = iommu->ops->unmap_range(iommu, iova, len, &abi->gather[i]);
	}
	KUNIT_ASSERT_EQ_MSG(test, ret[TABLES_C], ret[TABLES_RUST], "iova 0x%llx, len 0x%llx",
			    iova, len);
	if (!ret[TABLES_C]) {
		/* C adds a range of no bytes. */
		abi_sync(abi);
		return;
	}
	compare_flushes(test, abi);
	KUNIT_ASSERT_EQ(test, abi->gather[TABLES_C].start, abi->gather[TABLES_RUST].start);
	KUNIT_ASSERT_EQ(test, abi->gather[TABLES_C].end, abi->gather[TABLES_RUST].end);
	KUNIT_ASSERT_EQ(test, tables_waiting(&abi->gather[TABLES_C]),
			tables_waiting(&abi->gather[TABLES_RUST]));
	if (abi_draw(abi, 3) == 0)
		abi_sync(abi);
}

static void do_translate(struct kunit *test, struct abi *abi)
{
	unsigned int n, i;

	for (n = 0; n != 20; n++) {
		u64 window = abi->what->windows[abi_draw(abi, ABI_NR_WINDOWS)];
		u64 iova = window + abi_draw(abi, ABI_WINDOW);
		phys_addr_t phys[TABLES_NR_SIDES];

		if (abi_draw(abi, 2))
			iova = abi_draw(abi, 0);
		for (i = 0; i != TABLES_NR_SIDES; i++) {
			struct iommu_domain *domain = &abi->side[i].domain;

			phys[i] = domain->ops->iova_to_phys(domain, iova);
		}
		KUNIT_ASSERT_EQ_MSG(test, phys[TABLES_C], phys[TABLES_RUST], "iova 0x%llx", iova);
	}
}

/* Makes leaves dirty and harvests whole windows, so that no leaf is cut. */
static void do_dirty(struct kunit *test, struct abi *abi)
{
	u64 window = abi->what->windows[abi_draw(abi, ABI_NR_WINDOWS)];
	unsigned long flags = abi_draw(abi, 2) ? IOMMU_DIRTY_NO_CLEAR : 0;
	struct iommu_iotlb_gather gather[TABLES_NR_SIDES];
	unsigned int n, i;
	int ret[TABLES_NR_SIDES];

	if (abi->what->config.common.features & BIT(PT_FEAT_DMA_INCOHERENT))
		return;
	for (n = 0; n != 50 && abi->side[TABLES_C].iommu.ops->set_dirty; n++) {
		u64 iova = window + abi_draw(abi, abi_draw(abi, 2) ? ABI_WINDOW : BIT_ULL(22));

		for (i = 0; i != TABLES_NR_SIDES; i++) {
			struct pt_iommu *iommu = &abi->side[i].iommu;

			ret[i] = iommu->ops->set_dirty(iommu, iova);
		}
		KUNIT_ASSERT_EQ(test, ret[TABLES_C], ret[TABLES_RUST]);
	}
	for (i = 0; i != TABLES_NR_SIDES; i++) {
		struct iommu_domain *domain = &abi->side[i].domain;
		struct iommu_dirty_bitmap dirty;

		iommu_dirty_bitmap_init(&dirty, NULL, &gather[i]);
		ret[i] = domain->dirty_ops->read_and_clear_dirty(domain, window, ABI_WINDOW,
								 flags, &dirty);
	}
	KUNIT_ASSERT_EQ(test, ret[TABLES_C], ret[TABLES_RUST]);
	KUNIT_ASSERT_EQ(test, gather[TABLES_C].start, gather[TABLES_RUST].start);
	KUNIT_ASSERT_EQ(test, gather[TABLES_C].end, gather[TABLES_RUST].end);
}

/**
 * abi_call() - Make a random call on both tables, and compare the results
 * @test: The test that fails if it is not the same
 * @abi: The tables
 */
void abi_call(struct kunit *test, struct abi *abi)
{
	switch (abi_draw(abi, 8)) {
	case 0 ... 2:
		do_map(test, abi);
		break;
	case 3 ... 5:
		do_unmap(test, abi);
		break;
	case 6:
		do_translate(test, abi);
		break;
	case 7:
		do_dirty(test, abi);
		break;
	}
}
