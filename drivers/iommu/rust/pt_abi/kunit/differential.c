// SPDX-License-Identifier: GPL-2.0
/*
 * The Rust page tables under the C ABI, held against the C ones: the same calls
 * must give the same answers, the same flushes and the same entries.
 */
#include "pair.h"

#include <kunit/device.h>
#include <kunit/test.h>
#include <linux/module.h>
#include <linux/prandom.h>

#define WINDOW BIT_ULL(34)
#define ROUNDS 600

struct pair_case {
	const char *name;
	const struct pt_pair_format *format;
	struct pt_iommu_cfg cfg;
	unsigned int level;
	/* Where to map: windows of addresses. */
	u64 windows[3];
};

struct pair {
	struct pt_side side[SIDES];
	struct iommu_iotlb_gather gather[SIDES];
	const struct pair_case *what;
	struct device *dev;
	struct rnd_state rnd;
};

#define AMDV1_FEATURES                                                  \
	(BIT(PT_FEAT_DYNAMIC_TOP) | BIT(PT_FEAT_AMDV1_ENCRYPT_TABLES) | \
	 BIT(PT_FEAT_AMDV1_FORCE_COHERENCE))

static const struct pair_case pair_cases[] = {
	{ "amdv1", &pt_pair_amdv1,
	  { AMDV1_FEATURES | BIT(PT_FEAT_FLUSH_RANGE), 64, 52 }, 2,
	  { 0, BIT_ULL(39) - WINDOW, -WINDOW } },
	{ "amdv1_no_gaps", &pt_pair_amdv1,
	  { AMDV1_FEATURES | BIT(PT_FEAT_FLUSH_RANGE_NO_GAPS), 48, 48 }, 1,
	  { 0, BIT_ULL(39), BIT_ULL(48) - WINDOW } },
	{ "amdv1_mock", &pt_pair_mock, { 0, 56, 51 }, 2,
	  { 0, BIT_ULL(36), BIT_ULL(38) - WINDOW } },
	{ "vtdss_3", &pt_pair_vtdss, { BIT(PT_FEAT_FLUSH_RANGE), 39, 52 }, 2,
	  { 0, BIT_ULL(37), BIT_ULL(39) - WINDOW } },
	{ "vtdss_4_incoherent", &pt_pair_vtdss,
	  { BIT(PT_FEAT_FLUSH_RANGE) | BIT(PT_FEAT_DMA_INCOHERENT), 48, 40 }, 3,
	  { 0, BIT_ULL(39) - WINDOW, BIT_ULL(48) - WINDOW } },
	{ "vtdss_5_snoop", &pt_pair_vtdss,
	  { BIT(PT_FEAT_FLUSH_RANGE) | BIT(PT_FEAT_VTDSS_FORCE_COHERENCE) |
	    BIT(PT_FEAT_VTDSS_FORCE_WRITEABLE), 57, 52 }, 4,
	  { 0, BIT_ULL(48) - WINDOW, BIT_ULL(57) - WINDOW } },
	{ "x86_64_4", &pt_pair_x86_64,
	  { BIT(PT_FEAT_SIGN_EXTEND) | BIT(PT_FEAT_FLUSH_RANGE), 48, 52 }, 3,
	  { 0, BIT_ULL(47) - WINDOW, -BIT_ULL(47) } },
	{ "x86_64_5_incoherent", &pt_pair_x86_64,
	  { BIT(PT_FEAT_SIGN_EXTEND) | BIT(PT_FEAT_FLUSH_RANGE) |
	    BIT(PT_FEAT_DMA_INCOHERENT), 57, 52 }, 4,
	  { 0, BIT_ULL(48), -WINDOW } },
	{ "x86_64_amd", &pt_pair_x86_64,
	  { BIT(PT_FEAT_X86_64_AMD_ENCRYPT_TABLES) |
	    BIT(PT_FEAT_FLUSH_RANGE_NO_GAPS), 47, 52 }, 3,
	  { 0, BIT_ULL(40), BIT_ULL(47) - WINDOW } },
};

static void pair_case_name(const struct pair_case *what, char *name)
{
	strscpy(name, what->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(pair, pair_cases, pair_case_name);

static u64 draw(struct pair *pair, u64 below)
{
	u64 number = prandom_u32_state(&pair->rnd);

	number = number << 32 | prandom_u32_state(&pair->rnd);
	return below ? number % below : 0;
}

/* Everything that C code can read out of a struct that was initialised. */
static void compare_structs(struct kunit *test, struct pair *pair,
			    const struct pt_pair_format *format)
{
	struct pt_side *c = &pair->side[SIDE_C], *rust = &pair->side[SIDE_RUST];
	struct pt_common *of_c = pt_side_common(c), *of_rust = pt_side_common(rust);
	struct pt_iommu_info info[SIDES] = {};
	struct pt_pair_top top[SIDES];
	unsigned int i;

	KUNIT_EXPECT_EQ(test, of_c->features, of_rust->features);
	KUNIT_EXPECT_EQ(test, of_c->max_vasz_lg2, of_rust->max_vasz_lg2);
	KUNIT_EXPECT_EQ(test, of_c->max_oasz_lg2, of_rust->max_oasz_lg2);
	KUNIT_EXPECT_EQ(test, pt_side_top_level(c), pt_side_top_level(rust));
	KUNIT_EXPECT_EQ(test, c->domain.type, rust->domain.type);
	KUNIT_EXPECT_EQ(test, c->domain.is_iommupt, rust->domain.is_iommupt);
	KUNIT_EXPECT_EQ(test, c->domain.pgsize_bitmap, rust->domain.pgsize_bitmap);
	KUNIT_EXPECT_MEMEQ(test, &c->domain.geometry, &rust->domain.geometry,
			   offsetofend(struct iommu_domain_geometry, force_aperture));
	KUNIT_EXPECT_EQ(test, c->iommu.nid, rust->iommu.nid);
	KUNIT_EXPECT_PTR_EQ(test, c->iommu.driver_ops, rust->iommu.driver_ops);
	KUNIT_EXPECT_PTR_EQ(test, c->iommu.iommu_device, rust->iommu.iommu_device);
	KUNIT_EXPECT_EQ(test, !c->iommu.ops->set_dirty, !rust->iommu.ops->set_dirty);

	for (i = 0; i != SIDES; i++) {
		struct pt_side *side = &pair->side[i];

		side->iommu.ops->get_info(&side->iommu, &info[i]);
		if (format->hw_info[i]) {
			format->hw_info[i](side, &top[i]);
			KUNIT_EXPECT_EQ(test, top[i].phys,
					virt_to_phys(pt_side_top(side)));
		}
	}
	KUNIT_EXPECT_EQ(test, info[SIDE_C].pgsize_bitmap, info[SIDE_RUST].pgsize_bitmap);
	if (format->hw_info[SIDE_C])
		KUNIT_EXPECT_EQ(test, top[SIDE_C].number, top[SIDE_RUST].number);
}

/*
 * C computes the size of a top that it never uses part of, and takes nonsense
 * for an answer, where the addresses do not even fill one entry of it.
 */
static bool c_can_take(const struct pt_pair_format *format,
		       const struct pt_iommu_cfg *cfg, unsigned int level)
{
	if (cfg->features & BIT(PT_FEAT_DYNAMIC_TOP) && level < 5)
		return true;
	return cfg->hw_max_vasz_lg2 > format->granule_lg2 + 9 * level;
}

/* What is refused, and with which error, and what comes of what is not. */
static void test_init(struct kunit *test)
{
	static const u8 vasz[] = { 0, 1, 12, 30, 32, 39, 47, 48, 56, 57, 63, 64, 65 };
	static const u8 oasz[] = { 0, 1, 32, 40, 51, 52, 53, 64 };
	static const struct pt_pair_format *const formats[] = {
		&pt_pair_amdv1, &pt_pair_mock, &pt_pair_vtdss, &pt_pair_x86_64,
	};
	struct pair *pair = test->priv;
	unsigned int accepted = 0, refused = 0, i, n;

	for (n = 0; n != 40000; n++) {
		const struct pt_pair_format *format =
			formats[draw(pair, ARRAY_SIZE(formats))];
		struct pt_iommu_cfg cfg = {
			/* Any few of the features that there are. */
			.features = draw(pair, BIT(10)) & draw(pair, BIT(10)),
			.hw_max_vasz_lg2 = vasz[draw(pair, ARRAY_SIZE(vasz))],
			.hw_max_oasz_lg2 = oasz[draw(pair, ARRAY_SIZE(oasz))],
		};
		unsigned int level = draw(pair, 7);
		int ret[SIDES];

		if (draw(pair, 2) && format == &pt_pair_amdv1)
			cfg.features |= AMDV1_FEATURES;
		/* A kernel for debugging lets every top grow in C. */
		if (IS_ENABLED(CONFIG_DEBUG_GENERIC_PT) && format != &pt_pair_amdv1)
			cfg.features &= ~BIT(PT_FEAT_DYNAMIC_TOP);
		if (!c_can_take(format, &cfg, level))
			continue;
		for (i = 0; i != SIDES; i++)
			ret[i] = pt_side_init(&pair->side[i], format, i, pair->dev,
					      &cfg, level);
		KUNIT_ASSERT_EQ_MSG(test, ret[SIDE_C], ret[SIDE_RUST],
				    "%s: features 0x%x, input %u, output %u, level %u",
				    format->name, cfg.features, cfg.hw_max_vasz_lg2,
				    cfg.hw_max_oasz_lg2, level);
		if (!ret[SIDE_C]) {
			compare_structs(test, pair, format);
			accepted++;
		} else {
			refused++;
		}
		for (i = 0; i != SIDES; i++) {
			pt_iommu_deinit(&pair->side[i].iommu);
			pair->side[i].iommu.ops = NULL;
		}
	}
	kunit_info(test, "%u accepted, %u refused", accepted, refused);
	KUNIT_EXPECT_GT(test, accepted, 100);
	KUNIT_EXPECT_GT(test, refused, 100);
}

/* Tables below the same entries, and the same leaves, bit for bit. */
static void compare_tables(struct kunit *test, const struct pt_pair_format *format,
			   const u64 *c, const u64 *rust, unsigned int level)
{
	unsigned int i;

	for (i = 0; i != 512; i++) {
		u64 of_c = READ_ONCE(c[i]), of_rust = READ_ONCE(rust[i]);

		if (!format->is_table(of_c, level)) {
			KUNIT_ASSERT_EQ_MSG(test, of_c, of_rust,
					    "entry %u of a table of level %u", i, level);
			continue;
		}
		KUNIT_ASSERT_TRUE(test, format->is_table(of_rust, level));
		KUNIT_ASSERT_EQ(test, of_c & ~format->table_ignored,
				of_rust & ~format->table_ignored);
		compare_tables(test, format,
			       phys_to_virt((of_c & PT_PAIR_ADDRESS) >>
					    format->address_shift),
			       phys_to_virt((of_rust & PT_PAIR_ADDRESS) >>
					    format->address_shift),
			       level - 1);
	}
}

static void compare_trees(struct kunit *test, struct pair *pair)
{
	struct pt_side *c = &pair->side[SIDE_C], *rust = &pair->side[SIDE_RUST];

	KUNIT_ASSERT_EQ(test, pt_side_top_level(c), pt_side_top_level(rust));
	KUNIT_ASSERT_EQ(test, c->top_level, rust->top_level);
	compare_tables(test, pair->what->format, pt_side_top(c), pt_side_top(rust),
		       pt_side_top_level(c));
}

/* What the drivers were asked to flush, and to free after it. */
static void compare_syncs(struct kunit *test, struct pair *pair)
{
	struct pt_side *c = &pair->side[SIDE_C], *rust = &pair->side[SIDE_RUST];

	KUNIT_ASSERT_EQ(test, c->syncs, rust->syncs);
	KUNIT_ASSERT_EQ(test, c->sync_start, rust->sync_start);
	KUNIT_ASSERT_EQ(test, c->sync_last, rust->sync_last);
	KUNIT_ASSERT_EQ(test, c->freed, rust->freed);
}

static void sync_gathers(struct pair *pair)
{
	bool queued = draw(pair, 4) == 0;
	unsigned int i;

	for (i = 0; i != SIDES; i++) {
		struct pt_side *side = &pair->side[i];

		/* What a flush of everything would end with. */
		if (pair->gather[i].queued)
			iommu_put_pages_list(&pair->gather[i].freelist);
		else
			iommu_iotlb_sync(&side->domain, &pair->gather[i]);
		iommu_iotlb_gather_init(&pair->gather[i]);
		pair->gather[i].queued = queued;
		side->syncs = 0;
		side->sync_start = 0;
		side->sync_last = 0;
		side->freed = 0;
	}
}

/* A range to work on: leaves of one size in a row, or whatever comes. */
static void draw_range(struct pair *pair, u64 *iova, u64 *len, u64 *size)
{
	const unsigned long sizes = pair->side[SIDE_C].domain.pgsize_bitmap &
				    (WINDOW - 1);
	const unsigned long smallest = sizes & -sizes;
	u64 offset;

	do {
		*size = BIT_ULL(draw(pair, 34));
	} while (!(*size & sizes));
	*len = *size * (1 + draw(pair, draw(pair, 2) ? 600 : 4));
	if (draw(pair, 4) == 0)
		*len += smallest * draw(pair, 600);
	*len = min(*len, WINDOW);
	offset = draw(pair, WINDOW - *len + 1);
	offset -= offset % (draw(pair, 4) ? *size : smallest);
	if (draw(pair, 3) == 0)
		offset %= BIT_ULL(22);
	offset -= offset % smallest;
	*iova = pair->what->windows[draw(pair, 3)] + offset;
}

static void do_map(struct kunit *test, struct pair *pair)
{
	static const unsigned int prots[] = {
		IOMMU_READ, IOMMU_WRITE, IOMMU_READ | IOMMU_WRITE,
		IOMMU_READ | IOMMU_WRITE | IOMMU_CACHE, IOMMU_WRITE | IOMMU_MMIO,
	};
	u64 limit = BIT_ULL(pair->what->cfg.hw_max_oasz_lg2);
	unsigned int prot = prots[draw(pair, ARRAY_SIZE(prots))];
	size_t mapped[SIDES] = { 0x1000, 0x1000 };
	u64 iova, len, size, phys;
	int ret[SIDES];
	unsigned int i;

	draw_range(pair, &iova, &len, &size);
	phys = draw(pair, limit - len + 1);
	switch (draw(pair, 8)) {
	case 0:
		phys -= phys % 0x1000;
		break;
	case 1:
		/* Beyond what the entries hold, or what anything is aligned to. */
		phys |= draw(pair, 2) ? limit : 1;
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

	for (i = 0; i != SIDES; i++) {
		struct pt_iommu *iommu = &pair->side[i].iommu;

		ret[i] = iommu->ops->map_range(iommu, iova, phys, len, prot,
					       GFP_KERNEL, &mapped[i]);
	}
	KUNIT_ASSERT_EQ_MSG(test, ret[SIDE_C], ret[SIDE_RUST],
			    "iova 0x%llx, phys 0x%llx, len 0x%llx, prot %u", iova, phys,
			    len, prot);
	KUNIT_ASSERT_EQ(test, mapped[SIDE_C], mapped[SIDE_RUST]);
}

static void do_unmap(struct kunit *test, struct pair *pair)
{
	u64 iova, len, size;
	size_t ret[SIDES];
	unsigned int i;

	draw_range(pair, &iova, &len, &size);
	for (i = 0; i != SIDES; i++) {
		struct pt_iommu *iommu = &pair->side[i].iommu;

		ret[i] = iommu->ops->unmap_range(iommu, iova, len, &pair->gather[i]);
	}
	KUNIT_ASSERT_EQ_MSG(test, ret[SIDE_C], ret[SIDE_RUST], "iova 0x%llx, len 0x%llx",
			    iova, len);
	if (!ret[SIDE_C]) {
		/* C adds a range of no bytes. */
		sync_gathers(pair);
		return;
	}
	compare_syncs(test, pair);
	KUNIT_ASSERT_EQ(test, pair->gather[SIDE_C].start, pair->gather[SIDE_RUST].start);
	KUNIT_ASSERT_EQ(test, pair->gather[SIDE_C].end, pair->gather[SIDE_RUST].end);
	KUNIT_ASSERT_EQ(test, pt_pages_list_count(&pair->gather[SIDE_C].freelist),
			pt_pages_list_count(&pair->gather[SIDE_RUST].freelist));
	if (draw(pair, 3) == 0)
		sync_gathers(pair);
}

static void do_translate(struct kunit *test, struct pair *pair)
{
	unsigned int n, i;

	for (n = 0; n != 20; n++) {
		u64 iova = pair->what->windows[draw(pair, 3)] + draw(pair, WINDOW);
		phys_addr_t phys[SIDES];

		if (draw(pair, 2))
			iova = draw(pair, 0);
		for (i = 0; i != SIDES; i++) {
			struct iommu_domain *domain = &pair->side[i].domain;

			phys[i] = domain->ops->iova_to_phys(domain, iova);
		}
		KUNIT_ASSERT_EQ_MSG(test, phys[SIDE_C], phys[SIDE_RUST], "iova 0x%llx", iova);
	}
}

/* Makes leaves dirty and harvests whole windows, so that no leaf is cut. */
static void do_dirty(struct kunit *test, struct pair *pair)
{
	const struct pt_pair_format *format = pair->what->format;
	u64 window = pair->what->windows[draw(pair, 3)];
	unsigned long flags = draw(pair, 2) ? IOMMU_DIRTY_NO_CLEAR : 0;
	struct iommu_iotlb_gather gather[SIDES];
	unsigned int n, i;
	int ret[SIDES];

	if (pair->what->cfg.features & BIT(PT_FEAT_DMA_INCOHERENT))
		return;
	for (n = 0; n != 50 && pair->side[SIDE_C].iommu.ops->set_dirty; n++) {
		u64 iova = window + draw(pair, draw(pair, 2) ? WINDOW : BIT_ULL(22));

		for (i = 0; i != SIDES; i++) {
			struct pt_iommu *iommu = &pair->side[i].iommu;

			ret[i] = iommu->ops->set_dirty(iommu, iova);
		}
		KUNIT_ASSERT_EQ(test, ret[SIDE_C], ret[SIDE_RUST]);
	}
	for (i = 0; i != SIDES; i++) {
		struct iommu_dirty_bitmap dirty;

		iommu_dirty_bitmap_init(&dirty, NULL, &gather[i]);
		ret[i] = format->dirty[i](&pair->side[i].domain, window, WINDOW, flags,
					  &dirty);
	}
	KUNIT_ASSERT_EQ(test, ret[SIDE_C], ret[SIDE_RUST]);
	KUNIT_ASSERT_EQ(test, gather[SIDE_C].start, gather[SIDE_RUST].start);
	KUNIT_ASSERT_EQ(test, gather[SIDE_C].end, gather[SIDE_RUST].end);
}

/* The domain's driver takes leaf sizes away, as AMD's and VT-d's do. */
static void restrict_sizes(struct pair *pair)
{
	unsigned long sizes = pair->side[SIDE_C].domain.pgsize_bitmap;
	unsigned long fewer = (sizes & -sizes) | (sizes & draw(pair, 0));
	unsigned int i;

	for (i = 0; i != SIDES; i++)
		pair->side[i].domain.pgsize_bitmap = fewer;
}

/* Any sequence of calls. */
static void test_random(struct kunit *test)
{
	const struct pair_case *what = test->param_value;
	struct pair *pair = test->priv;
	unsigned int i, n;

	pair->what = what;
	for (i = 0; i != SIDES; i++) {
		iommu_iotlb_gather_init(&pair->gather[i]);
		KUNIT_ASSERT_EQ(test, 0,
				pt_side_init(&pair->side[i], what->format, i, pair->dev,
					     &what->cfg, what->level));
	}
	if (draw(pair, 2))
		restrict_sizes(pair);
	for (n = 0; n != ROUNDS; n++) {
		switch (draw(pair, 8)) {
		case 0 ... 2:
			do_map(test, pair);
			break;
		case 3 ... 5:
			do_unmap(test, pair);
			break;
		case 6:
			do_translate(test, pair);
			break;
		case 7:
			do_dirty(test, pair);
			break;
		}
		if (n % 50 == 0)
			compare_trees(test, pair);
		cond_resched();
	}
	compare_trees(test, pair);
	sync_gathers(pair);
}

/* Beside a page that is mapped, another one is not, once its size is taken away. */
static void test_smallest_size_gone(struct kunit *test)
{
	const struct pair_case *what = test->param_value;
	u64 window = what->windows[0];
	struct pair *pair = test->priv;
	unsigned int i;

	pair->what = what;
	for (i = 0; i != SIDES; i++) {
		struct pt_iommu *iommu = &pair->side[i].iommu;
		size_t mapped = 0;
		u64 page;

		KUNIT_ASSERT_EQ(test, 0,
				pt_side_init(&pair->side[i], what->format, i, pair->dev,
					     &what->cfg, what->level));
		page = iommu->domain.pgsize_bitmap & -iommu->domain.pgsize_bitmap;
		KUNIT_ASSERT_EQ(test, 0,
				iommu->ops->map_range(iommu, window, page, page,
						      IOMMU_READ | IOMMU_WRITE,
						      GFP_KERNEL, &mapped));
		KUNIT_EXPECT_EQ(test, page, mapped);
		iommu->domain.pgsize_bitmap &= ~page;
		KUNIT_EXPECT_EQ(test, -ENXIO,
				iommu->ops->map_range(iommu, window + page, page, page,
						      IOMMU_READ | IOMMU_WRITE,
						      GFP_KERNEL, &mapped));
		KUNIT_EXPECT_EQ(test, page, mapped);
	}
	compare_trees(test, pair);
}

static int differential_init(struct kunit *test)
{
	struct pair *pair = kunit_kzalloc(test, sizeof(*pair), GFP_KERNEL);

	if (!pair)
		return -ENOMEM;
	pair->dev = kunit_device_register(test, "pt_pair_dev");
	if (IS_ERR(pair->dev))
		return PTR_ERR(pair->dev);
	/* The same each time, so that what fails once fails again. */
	prandom_seed_state(&pair->rnd, 0x70742d70616972);
	test->priv = pair;
	return 0;
}

static void differential_exit(struct kunit *test)
{
	struct pair *pair = test->priv;
	unsigned int i;

	for (i = 0; pair && i != SIDES; i++)
		pt_iommu_deinit(&pair->side[i].iommu);
}

static struct kunit_case differential_cases[] = {
	KUNIT_CASE(test_init),
	KUNIT_CASE_PARAM(test_random, pair_gen_params),
	KUNIT_CASE_PARAM(test_smallest_size_gone, pair_gen_params),
	{}
};

static struct kunit_suite differential_suite = {
	.name = "rust_iommu_pt_abi",
	.init = differential_init,
	.exit = differential_exit,
	.test_cases = differential_cases,
};

kunit_test_suite(differential_suite);

MODULE_DESCRIPTION("The Rust page tables held against the C ones");
MODULE_LICENSE("GPL");
