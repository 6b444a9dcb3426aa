// SPDX-License-Identifier: GPL-2.0
/*
 * Two conventional functions behind one PCIe-to-PCI bridge. The bridge sends the
 * requests of both with one requester ID (PCIe-to-PCI bridge specification 1.0,
 * 2.3), so they are one IOMMU group with one page table: either function may be attached or
 * detached without an effect on the other.
 *
 * Takes any number of edu devices on the command line, two of which are in one group.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/harness.h"

static char **device_bdfs;
static int nr_devices;

FIXTURE(shared_group) {
	struct dirty_env env;
	struct dirty_dev second;
};

/* The number at the end of the group's link. */
static int group_of(const char *bdf)
{
	char path[PATH_MAX], target[PATH_MAX];
	ssize_t length;

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", bdf);
	length = readlink(path, target, sizeof(target) - 1);
	VFIO_ASSERT_LT(0, length, "%s has no group\n", bdf);
	target[length] = 0;

	return atoi(strrchr(target, '/') + 1);
}

static bool find_pair(const char **pair)
{
	for (int i = 0; i < nr_devices; i++) {
		for (int j = i + 1; j < nr_devices; j++) {
			if (group_of(device_bdfs[i]) != group_of(device_bdfs[j]))
				continue;
			pair[0] = device_bdfs[i];
			pair[1] = device_bdfs[j];
			return true;
		}
	}

	return false;
}

FIXTURE_SETUP(shared_group)
{
	struct dirty_env *env = &self->env;
	const char *pair[2];

	ASSERT_TRUE(find_pair(pair));
	ASSERT_EQ(NULL, dirty_env_open(env, pair[0], PAGE_4K));

	/*
	 * libvfio attaches the second function to the IOAS, so the group must already
	 * be there.
	 */
	device_attach(&env->dev, env->iommu->ioas_id);
	dirty_dev_open(env, &self->second, pair[1]);
	vfio_pci_driver_init(self->second.pci);

	/* Moves the group, so both of them. */
	device_attach(&env->dev, env->hwpt);
	device_attach(&self->second, env->hwpt);
	hwpt_set_dirty(env, env->hwpt, true);

	/*
	 * pci_pasid_table_setup() of Linux 7.3.4 enters only a function's own requester ID
	 * if the unit is in scalable mode: the unit refuses requests that have the
	 * bridge's.
	 */
	if (dirty_driver_is_c_vtd(pair[0]) &&
	    __dirty_write(&env->dev, &env->area, 0) == -EIO)
		SKIP(return, "the C driver enters no bridge in its tables: no DMA from behind it");
}

FIXTURE_TEARDOWN(shared_group)
{
	if (self->second.pci)
		dirty_dev_close(&self->env, &self->second);
	dirty_env_close(&self->env);
}

/*
 * amd_iommu_set_dirty_tracking() of Linux 7.3.4 writes the entries of the functions, but
 * not that of the requester ID of their requests: the unit sets no D.
 */
#define EXPECT_TRACKED(_report) do {						\
	struct dirty_report __t = (_report);					\
										\
	if (dirty_driver_is_c_amd(device_bdfs[0]) && __t.missing &&		\
	    !__t.extra && !__t.stray)						\
		KNOWN_DIFFERENCE("the C driver does not switch tracking on for aliases"); \
	else									\
		EXPECT_EXACT(__t);						\
} while (0)

/* Writes pages by the device, and expects exactly these. */
static void expect_tracked(struct dirty_env *env, struct dirty_dev *dev,
			   struct __test_metadata *_metadata)
{
	page_set_clear(&env->written);
	dirty_write_random_by(env, dev, &env->written, 3);
	EXPECT_TRACKED(dirty_ask(env, env->hwpt, &env->written));
	EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->none));
}

/* dirty_write() looks for its stamp in memory, whether writes are tracked or not. */
TEST_F(shared_group, both_reach_memory)
{
	struct dirty_env *env = &self->env;

	for (int round = 0; round < 2; round++) {
		dirty_write(&env->dev, &env->area, round);
		dirty_write(&self->second, &env->area, round);
		dirty_area_remap(env, &env->area);
		dirty_write(&self->second, &env->area, round);
		dirty_write(&env->dev, &env->area, round);
	}
}

TEST_F(shared_group, both_are_tracked)
{
	struct dirty_env *env = &self->env;

	for (int round = 0; round < 2; round++) {
		expect_tracked(env, &env->dev, _metadata);
		expect_tracked(env, &self->second, _metadata);
	}
}

/* One page, written by each in turn: both use the same cached translation. */
TEST_F(shared_group, same_page_in_turn)
{
	struct dirty_env *env = &self->env;
	struct dirty_dev *devs[] = { &env->dev, &self->second };

	page_set_add(&env->written, 77);
	for (int round = 0; round < 4; round++) {
		dirty_write(devs[round % 2], &env->area, 77);
		EXPECT_TRACKED(dirty_ask(env, env->hwpt, &env->written));
	}
}

TEST_F(shared_group, one_is_detached)
{
	struct dirty_env *env = &self->env;
	struct dirty_dev *devs[] = { &env->dev, &self->second };

	for (int round = 0; round < 4; round++) {
		struct dirty_dev *goes = devs[round % 2], *stays = devs[1 - round % 2];

		/* Neither earlier nor concurrent writes are lost. */
		page_set_clear(&env->written);
		dirty_write_random_by(env, stays, &env->written, 2);
		dirty_write_random_by(env, goes, &env->written, 2);
		device_detach(goes);
		dirty_write_random_by(env, stays, &env->written, 2);
		EXPECT_TRACKED(dirty_ask(env, env->hwpt, &env->written));

		expect_tracked(env, stays, _metadata);
		device_attach(goes, env->hwpt);
		expect_tracked(env, goes, _metadata);
		expect_tracked(env, stays, _metadata);
	}
}

/* One of the two is closed, and its user loses it. */
TEST_F(shared_group, one_is_closed)
{
	struct dirty_env *env = &self->env;

	expect_tracked(env, &self->second, _metadata);
	dirty_dev_close(env, &self->second);
	expect_tracked(env, &env->dev, _metadata);
}

/* Both are detached: no write of either arrives until one is attached again. */
TEST_F(shared_group, both_are_detached)
{
	struct dirty_env *env = &self->env;
	struct dirty_dev *devs[] = { &env->dev, &self->second };

	for (int round = 0; round < 2; round++) {
		page_set_clear(&env->written);
		page_set_add(&env->written, 5);
		for (int i = 0; i < 2; i++)
			dirty_write(devs[i], &env->area, 5);
		for (int i = 0; i < 2; i++)
			device_detach(devs[(i + round) % 2]);
		for (int i = 0; i < 2; i++)
			EXPECT_EQ(-EIO, __dirty_write(devs[i], &env->area, 5));
		EXPECT_TRACKED(dirty_ask(env, env->hwpt, &env->written));

		for (int i = 0; i < 2; i++)
			device_attach(devs[i], env->hwpt);
		for (int i = 0; i < 2; i++)
			expect_tracked(env, devs[i], _metadata);
	}
}

/* A group has one page table: neither function may have another one. */
TEST_F(shared_group, no_page_table_of_its_own)
{
	struct dirty_env *env = &self->env;
	u32 other = hwpt_alloc(env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);

	device_detach(&self->second);
	EXPECT_EQ(-EINVAL, __device_attach(&self->second, other));
	expect_tracked(env, &env->dev, _metadata);
	device_attach(&self->second, env->hwpt);
	expect_tracked(env, &self->second, _metadata);

	/* Moving one function moves both. */
	hwpt_set_dirty(env, other, true);
	device_attach(&self->second, other);
	page_set_clear(&env->written);
	dirty_write_random_by(env, &env->dev, &env->written, 3);
	EXPECT_TRACKED(dirty_ask(env, other, &env->written));
	EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->none));
	device_attach(&env->dev, env->hwpt);
	expect_tracked(env, &self->second, _metadata);
	iommufd_destroy(env, other);
}

int main(int argc, char *argv[])
{
	device_bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_devices);

	return test_harness_run(argc, argv);
}
