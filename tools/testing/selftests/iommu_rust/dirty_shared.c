// SPDX-License-Identifier: GPL-2.0
/*
 * Two devices in one page table: dirty bits belong to the page table, whichever
 * device wrote, and a switch or a flush reaches both devices.
 *
 * Takes two devices on the command line.
 */
#include "lib/harness.h"

static char **device_bdfs;
static int nr_devices;

FIXTURE(dirty_shared) {
	struct dirty_env env;
	struct dirty_dev second;
};

FIXTURE_VARIANT(dirty_shared) {
	u64 leaf;
};

FIXTURE_VARIANT_ADD(dirty_shared, leaf_4k) { .leaf = SZ_4K, };
FIXTURE_VARIANT_ADD(dirty_shared, leaf_2m) { .leaf = SZ_2M, };

FIXTURE_SETUP(dirty_shared)
{
	const char *skip;

	if (nr_devices < 2)
		SKIP(return, "needs two devices on the command line");

	skip = dirty_env_open(&self->env, device_bdfs[0], variant->leaf);
	if (skip)
		SKIP(return, "%s", skip);

	dirty_dev_open(&self->env, &self->second, device_bdfs[1]);
	if (!self->second.pci->driver.ops)
		SKIP(return, "libvfio has no driver for %s", device_bdfs[1]);
	vfio_pci_driver_init(self->second.pci);

	if (__device_attach(&self->second, self->env.hwpt))
		SKIP(return, "%s cannot share a page table with %s",
		     device_bdfs[1], device_bdfs[0]);
}

FIXTURE_TEARDOWN(dirty_shared)
{
	dirty_dev_close(&self->env, &self->second);
	dirty_env_close(&self->env);
}

static void write_random(struct dirty_env *env, struct dirty_dev *dev, int nr)
{
	dirty_write_random_by(env, dev, &env->written, nr);
}

TEST_F(dirty_shared, both_write)
{
	struct dirty_env *env = &self->env;
	u32 hwpt = env->hwpt;

	hwpt_set_dirty(env, hwpt, true);
	for (int round = 0; round < 3; round++) {
		page_set_clear(&env->written);
		write_random(env, &env->dev, 4);
		write_random(env, &self->second, 4);
		EXPECT_EXACT(dirty_ask(env, hwpt, &env->written));
		EXPECT_EXACT(dirty_ask(env, hwpt, &env->none));
	}
}

/* One page, written by each in turn: a flush must reach what either has cached. */
TEST_F(dirty_shared, same_page_in_turn)
{
	struct dirty_env *env = &self->env;
	struct dirty_dev *devs[] = { &env->dev, &self->second };

	hwpt_set_dirty(env, env->hwpt, true);
	page_set_add(&env->written, 77);
	for (size_t i = 0; i < ARRAY_SIZE(devs); i++)
		dirty_write(devs[i], &env->area, 77);

	for (int round = 0; round < 6; round++) {
		EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->written));
		dirty_write(devs[round % 2], &env->area, 77);
	}
	EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->written));
}

/* The second device is attached and detached while tracking is on. */
TEST_F(dirty_shared, second_comes_and_goes)
{
	struct dirty_env *env = &self->env;
	u32 hwpt = env->hwpt;

	device_detach(&self->second);
	hwpt_set_dirty(env, hwpt, true);
	for (int round = 0; round < 3; round++) {
		device_attach(&self->second, hwpt);
		page_set_clear(&env->written);
		write_random(env, &self->second, 4);
		write_random(env, &env->dev, 4);
		EXPECT_EXACT(dirty_ask(env, hwpt, &env->written));

		page_set_clear(&env->written);
		write_random(env, &self->second, 4);
		device_detach(&self->second);
		write_random(env, &env->dev, 4);
		EXPECT_EXACT(dirty_ask(env, hwpt, &env->written));
	}
	device_attach(&self->second, hwpt);
}

TEST_F(dirty_shared, switch_reaches_both)
{
	struct dirty_env *env = &self->env;
	u32 hwpt = env->hwpt;

	for (int round = 0; round < 3; round++) {
		write_random(env, &env->dev, 2);
		write_random(env, &self->second, 2);
		hwpt_set_dirty(env, hwpt, true);
		EXPECT_EXACT(dirty_ask(env, hwpt, &env->none));

		page_set_clear(&env->written);
		write_random(env, &self->second, 2);
		EXPECT_EXACT(dirty_ask(env, hwpt, &env->written));
		page_set_clear(&env->written);
		write_random(env, &env->dev, 2);
		EXPECT_EXACT(dirty_ask(env, hwpt, &env->written));
		hwpt_set_dirty(env, hwpt, false);
	}
}

/* Each in a separate page table: switching one off does not switch the other off. */
TEST_F(dirty_shared, apart)
{
	struct dirty_env *env = &self->env;
	u32 own = hwpt_alloc(env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
	u32 hwpt = env->hwpt;

	hwpt_set_dirty(env, hwpt, true);
	device_attach(&self->second, own);
	hwpt_set_dirty(env, own, true);

	write_random(env, &self->second, 4);
	EXPECT_EXACT(dirty_ask(env, hwpt, &env->none));
	EXPECT_EXACT(dirty_ask(env, own, &env->written));

	hwpt_set_dirty(env, own, false);
	page_set_clear(&env->written);
	write_random(env, &env->dev, 4);
	EXPECT_EXACT(dirty_ask(env, hwpt, &env->written));
	EXPECT_EXACT(dirty_ask(env, own, &env->none));

	device_attach(&self->second, hwpt);
	iommufd_destroy(env, own);
}

int main(int argc, char *argv[])
{
	device_bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_devices);

	return test_harness_run(argc, argv);
}
