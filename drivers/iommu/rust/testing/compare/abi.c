// SPDX-License-Identifier: GPL-2.0
/*
 * Compares the Rust page tables under the C ABI with the C ones: the same calls
 * must return the same, flush the same and leave the same entries.
 */
#include <kunit/device.h>
#include <linux/module.h>
#include <linux/sizes.h>

#include "abi.h"

#define ROUNDS 600

#define AMDV1_FEATURES                                                  \
	(BIT(PT_FEAT_DYNAMIC_TOP) | BIT(PT_FEAT_AMDV1_ENCRYPT_TABLES) | \
	 BIT(PT_FEAT_AMDV1_FORCE_COHERENCE))

static const struct abi_shape shapes[] = {
	{ "amdv1", TABLES_AMDV1,
	  { { AMDV1_FEATURES | BIT(PT_FEAT_FLUSH_RANGE), 64, 52 }, 2 },
	  { 0, BIT_ULL(39) - ABI_WINDOW, -ABI_WINDOW } },
	{ "amdv1_no_gaps", TABLES_AMDV1,
	  { { AMDV1_FEATURES | BIT(PT_FEAT_FLUSH_RANGE_NO_GAPS), 48, 48 }, 1 },
	  { 0, BIT_ULL(39), BIT_ULL(48) - ABI_WINDOW } },
	{ "amdv1_mock", TABLES_AMDV1_MOCK, { { 0, 56, 51 }, 2 },
	  { 0, BIT_ULL(36), BIT_ULL(38) - ABI_WINDOW } },
	{ "vtdss_3", TABLES_VTDSS, { { BIT(PT_FEAT_FLUSH_RANGE), 39, 52 }, 2 },
	  { 0, BIT_ULL(37), BIT_ULL(39) - ABI_WINDOW } },
	{ "vtdss_4_incoherent", TABLES_VTDSS,
	  { { BIT(PT_FEAT_FLUSH_RANGE) | BIT(PT_FEAT_DMA_INCOHERENT), 48, 40 }, 3 },
	  { 0, BIT_ULL(39) - ABI_WINDOW, BIT_ULL(48) - ABI_WINDOW } },
	{ "vtdss_5_snoop", TABLES_VTDSS,
	  { { BIT(PT_FEAT_FLUSH_RANGE) | BIT(PT_FEAT_VTDSS_FORCE_COHERENCE) |
	    BIT(PT_FEAT_VTDSS_FORCE_WRITEABLE), 57, 52 }, 4 },
	  { 0, BIT_ULL(48) - ABI_WINDOW, BIT_ULL(57) - ABI_WINDOW } },
	{ "x86_64_4", TABLES_X86_64,
	  { { BIT(PT_FEAT_SIGN_EXTEND) | BIT(PT_FEAT_FLUSH_RANGE), 48, 52 }, 3 },
	  { 0, BIT_ULL(47) - ABI_WINDOW, -BIT_ULL(47) } },
	{ "x86_64_5_incoherent", TABLES_X86_64,
	  { { BIT(PT_FEAT_SIGN_EXTEND) | BIT(PT_FEAT_FLUSH_RANGE) |
	    BIT(PT_FEAT_DMA_INCOHERENT), 57, 52 }, 4 },
	  { 0, BIT_ULL(48), -ABI_WINDOW } },
	{ "x86_64_amd", TABLES_X86_64,
	  { { BIT(PT_FEAT_X86_64_AMD_ENCRYPT_TABLES) |
	    BIT(PT_FEAT_FLUSH_RANGE_NO_GAPS), 47, 52 }, 3 },
	  { 0, BIT_ULL(40), BIT_ULL(47) - ABI_WINDOW } },
};

static void describe(const struct abi_shape *what, char *name)
{
	strscpy(name, what->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(shape, shapes, describe);

/* Everything that C code can read out of a struct that was initialised. */
static void compare_structs(struct kunit *test, struct abi *abi)
{
	struct tables *c = &abi->side[TABLES_C], *rust = &abi->side[TABLES_RUST];
	const struct pt_common *of_c = c->common, *of_rust = rust->common;
	struct pt_iommu_info info[TABLES_NR_SIDES] = {};
	struct tables_top top[TABLES_NR_SIDES];
	bool has_hardware = false;
	unsigned int i;

	KUNIT_EXPECT_EQ(test, of_c->features, of_rust->features);
	KUNIT_EXPECT_EQ(test, of_c->max_vasz_lg2, of_rust->max_vasz_lg2);
	KUNIT_EXPECT_EQ(test, of_c->max_oasz_lg2, of_rust->max_oasz_lg2);
	KUNIT_EXPECT_EQ(test, raw_top_level(of_c), raw_top_level(of_rust));
	KUNIT_EXPECT_EQ(test, c->domain.type, rust->domain.type);
	KUNIT_EXPECT_EQ(test, c->domain.is_iommupt, rust->domain.is_iommupt);
	KUNIT_EXPECT_EQ(test, c->domain.pgsize_bitmap, rust->domain.pgsize_bitmap);
	KUNIT_EXPECT_MEMEQ(test, &c->domain.geometry, &rust->domain.geometry,
			   offsetofend(struct iommu_domain_geometry, force_aperture));
	KUNIT_EXPECT_EQ(test, c->iommu.nid, rust->iommu.nid);
	KUNIT_EXPECT_PTR_EQ(test, c->iommu.driver_ops, rust->iommu.driver_ops);
	KUNIT_EXPECT_PTR_EQ(test, c->iommu.iommu_device, rust->iommu.iommu_device);
	KUNIT_EXPECT_EQ(test, !c->iommu.ops->set_dirty, !rust->iommu.ops->set_dirty);

	for (i = 0; i != TABLES_NR_SIDES; i++) {
		struct tables *side = &abi->side[i];

		side->iommu.ops->get_info(&side->iommu, &info[i]);
		has_hardware = tables_hw_info(side, &top[i]);
		if (has_hardware)
			KUNIT_EXPECT_EQ(test, top[i].phys, raw_top_phys(side->common));
	}
	KUNIT_EXPECT_EQ(test, info[TABLES_C].pgsize_bitmap, info[TABLES_RUST].pgsize_bitmap);
	if (has_hardware)
		KUNIT_EXPECT_EQ(test, top[TABLES_C].number, top[TABLES_RUST].number);
}

/*
 * C cannot compute the size of the top if the addresses do not fill one of its
 * entries, and accepts the wrong result.
 */
static bool c_can_take(enum tables_format format, const struct tables_config *config)
{
	unsigned int granule_lg2 = format == TABLES_AMDV1_MOCK ? 11 : 12;

	if (config->common.features & BIT(PT_FEAT_DYNAMIC_TOP) && config->level < 5)
		return true;
	return config->common.hw_max_vasz_lg2 > granule_lg2 + 9 * config->level;
}

/* Which configurations are refused, with which error, and what the others give. */
static void test_init(struct kunit *test)
{
	static const u8 vasz[] = { 0, 1, 12, 30, 32, 39, 47, 48, 56, 57, 63, 64, 65 };
	static const u8 oasz[] = { 0, 1, 32, 40, 51, 52, 53, 64 };
	struct abi *abi = test->priv;
	unsigned int accepted = 0, refused = 0, i, n;

	for (n = 0; n != 40000; n++) {
		enum tables_format format = abi_draw(abi, TABLES_NR_FORMATS);
		struct tables_config config = {
			.common = {
				/* Any few of the features that there are. */
				.features = abi_draw(abi, BIT(10)) & abi_draw(abi, BIT(10)),
				.hw_max_vasz_lg2 = vasz[abi_draw(abi, ARRAY_SIZE(vasz))],
				.hw_max_oasz_lg2 = oasz[abi_draw(abi, ARRAY_SIZE(oasz))],
			},
			.level = abi_draw(abi, 7),
			.dev = abi->dev,
		};
		int ret[TABLES_NR_SIDES];

		if (abi_draw(abi, 2) && format == TABLES_AMDV1)
			config.common.features |= AMDV1_FEATURES;
		/* A kernel for debugging lets every top grow in C. */
		if (IS_ENABLED(CONFIG_DEBUG_GENERIC_PT) && format != TABLES_AMDV1)
			config.common.features &= ~BIT(PT_FEAT_DYNAMIC_TOP);
		if (!c_can_take(format, &config))
			continue;
		for (i = 0; i != TABLES_NR_SIDES; i++)
			ret[i] = tables_init_as(&abi->side[i], format, i, &config);
		KUNIT_ASSERT_EQ_MSG(test, ret[TABLES_C], ret[TABLES_RUST],
				    "%s: features 0x%x, input %u, output %u, level %u",
				    tables_format_name(format), config.common.features,
				    config.common.hw_max_vasz_lg2,
				    config.common.hw_max_oasz_lg2, config.level);
		if (!ret[TABLES_C]) {
			compare_structs(test, abi);
			accepted++;
		} else {
			refused++;
		}
		for (i = 0; i != TABLES_NR_SIDES; i++) {
			tables_destroy(&abi->side[i]);
			abi->side[i].iommu.ops = NULL;
		}
	}
	kunit_info(test, "%u accepted, %u refused", accepted, refused);
	KUNIT_EXPECT_GT(test, accepted, 100);
	KUNIT_EXPECT_GT(test, refused, 100);
}

/* A driver may remove leaf sizes from its domain; those of AMD-Vi and VT-d do. */
static void restrict_sizes(struct abi *abi)
{
	unsigned long sizes = abi->side[TABLES_C].domain.pgsize_bitmap;
	unsigned long fewer = (sizes & -sizes) | (sizes & abi_draw(abi, 0));
	unsigned int i;

	for (i = 0; i != TABLES_NR_SIDES; i++)
		abi->side[i].domain.pgsize_bitmap = fewer;
}

static void make_tables(struct kunit *test, const struct abi_shape *what)
{
	struct tables_config config = what->config;
	struct abi *abi = test->priv;
	unsigned int i;

	abi->what = what;
	config.dev = abi->dev;
	for (i = 0; i != TABLES_NR_SIDES; i++) {
		iommu_iotlb_gather_init(&abi->gather[i]);
		KUNIT_ASSERT_EQ(test, 0,
				tables_init_as(&abi->side[i], what->format, i, &config));
	}
}

/* A random sequence of calls. */
static void test_random(struct kunit *test)
{
	const struct abi_shape *what = test->param_value;
	struct abi *abi = test->priv;
	unsigned int n;

	make_tables(test, what);
	if (abi_draw(abi, 2))
		restrict_sizes(abi);
	for (n = 0; n != ROUNDS; n++) {
		abi_call(test, abi);
		if (n % 50 == 0)
			abi_assert_same(test, abi);
		cond_resched();
	}
	abi_assert_same(test, abi);
	abi_sync(abi);
}

/* Once a leaf size is removed, a page of that size is no longer mapped. */
static void test_smallest_size_gone(struct kunit *test)
{
	const struct abi_shape *what = test->param_value;
	u64 window = what->windows[0];
	struct abi *abi = test->priv;
	unsigned int i;

	make_tables(test, what);
	for (i = 0; i != TABLES_NR_SIDES; i++) {
		struct pt_iommu *iommu = &abi->side[i].iommu;
		size_t mapped = 0;
		u64 page;

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
	abi_assert_same(test, abi);
}

/* Checks that the comparison can fail: it must notice each bit of an entry. */
static void test_one_bit_is_noticed(struct kunit *test)
{
	const struct abi_shape *what = test->param_value;
	u64 window = what->windows[0];
	struct abi *abi = test->priv;
	struct tables *c = &abi->side[TABLES_C], *rust = &abi->side[TABLES_RUST];
	struct raw_difference difference;
	struct raw_item item;
	unsigned int i, bit;

	make_tables(test, what);
	for (i = 0; i != TABLES_NR_SIDES; i++) {
		struct pt_iommu *iommu = &abi->side[i].iommu;
		size_t mapped = 0;

		KUNIT_ASSERT_EQ(test, 0,
				iommu->ops->map_range(iommu, window, SZ_4K, SZ_4K,
						      IOMMU_READ | IOMMU_WRITE,
						      GFP_KERNEL, &mapped));
	}
	KUNIT_ASSERT_TRUE(test, raw_next(rust->raw, rust->common, window, U64_MAX, &item));
	for (bit = 0; bit < 64; bit++) {
		/* Of the leaf, and of an empty entry of the same table. */
		for (i = 0; i < 512; i += 256) {
			u64 *word = item.word + i;
			u64 value = READ_ONCE(*word);

			WRITE_ONCE(*word, value ^ BIT_ULL(bit));
			KUNIT_EXPECT_FALSE_MSG(test,
					       raw_same(c->raw, c->common, rust->common,
							&difference),
					       "bit %u", bit);
			WRITE_ONCE(*word, value);
		}
	}
	KUNIT_EXPECT_TRUE(test, raw_same(c->raw, c->common, rust->common, &difference));
}

static int abi_init(struct kunit *test)
{
	struct abi *abi = kunit_kzalloc(test, sizeof(*abi), GFP_KERNEL);

	if (!abi)
		return -ENOMEM;
	abi->dev = kunit_device_register(test, "iommu_pt_abi");
	if (IS_ERR(abi->dev))
		return PTR_ERR(abi->dev);
	/* A fixed seed: a failure can be reproduced. */
	prandom_seed_state(&abi->random, 0x70742d70616972);
	test->priv = abi;
	return 0;
}

static void abi_exit(struct kunit *test)
{
	struct abi *abi = test->priv;
	unsigned int i;

	for (i = 0; abi && i != TABLES_NR_SIDES; i++)
		tables_destroy(&abi->side[i]);
}

static struct kunit_case abi_cases[] = {
	KUNIT_CASE(test_init),
	KUNIT_CASE_PARAM(test_random, shape_gen_params),
	KUNIT_CASE_PARAM(test_smallest_size_gone, shape_gen_params),
	KUNIT_CASE_PARAM(test_one_bit_is_noticed, shape_gen_params),
	{}
};

static struct kunit_suite abi_suite = {
	.name = "rust_iommu_pt_abi",
	.init = abi_init,
	.exit = abi_exit,
	.test_cases = abi_cases,
};

kunit_test_suite(abi_suite);

MODULE_DESCRIPTION("Comparison of the Rust page tables with the C ones");
MODULE_LICENSE("GPL");
