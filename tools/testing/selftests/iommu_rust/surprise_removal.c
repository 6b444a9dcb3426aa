// SPDX-License-Identifier: GPL-2.0
/*
 * A function vanishes from its slot while a program has it, its page table tracks, and it
 * writes: what it wrote is reported, the page table goes on, and nothing of the function is left
 * when the program closes it.
 *
 * Takes a page writer behind a port with a hot-plug slot on the command line. The function is
 * gone after that.
 */
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/io.h>

#include "lib/harness.h"
#include "lib/leaves.h"
#include "lib/writer.h"

#define SEED 0x5012

static const char *device_bdf;

FIXTURE(surprise_removal) {
	struct dirty_env env;
};

FIXTURE_SETUP(surprise_removal)
{
	writer_env_open(&self->env, device_bdf);
}

/* The test has closed it. */
FIXTURE_TEARDOWN(surprise_removal)
{
}

static void function_path(char *path, const char *name)
{
	snprintf_assert(path, PATH_MAX, "/sys/bus/pci/devices/%s%s", device_bdf, name);
}

static u8 find_capability(int config, u8 id)
{
	u8 at, found[2];

	VFIO_ASSERT_EQ(pread(config, &at, 1, PCI_CAPABILITY_LIST), 1);
	while (at) {
		VFIO_ASSERT_EQ(pread(config, found, 2, at), 2);
		if (found[0] == id)
			return at;
		at = found[1];
	}
	VFIO_FAIL("the port has no capability %x\n", id);
}

/*
 * The slot loses its power, and the emulator takes the function away. The port's driver must not
 * see that it was the power: it gets its interrupt when that is back, and finds the slot empty.
 */
static void pull(void)
{
	char path[PATH_MAX], real[PATH_MAX];
	u16 control, off;
	u8 express;
	int config;

	function_path(path, "");
	VFIO_ASSERT_NOT_NULL(realpath(path, real));
	snprintf_assert(path, sizeof(path), "%s/config", dirname(real));
	config = open(path, O_RDWR);
	VFIO_ASSERT_LE(0, config, "cannot open %s\n", path);
	express = find_capability(config, PCI_CAP_ID_EXP);
	VFIO_ASSERT_EQ(pread(config, &control, 2, express + PCI_EXP_SLTCTL), 2);
	off = control & ~PCI_EXP_SLTCTL_HPIE;
	off |= PCI_EXP_SLTCTL_PWR_OFF | PCI_EXP_SLTCTL_PWR_IND_OFF;
	VFIO_ASSERT_EQ(pwrite(config, &off, 2, express + PCI_EXP_SLTCTL), 2);
	VFIO_ASSERT_EQ(pwrite(config, &control, 2, express + PCI_EXP_SLTCTL), 2);
	VFIO_ASSERT_EQ(close(config), 0);
}

/* Bounded: ten seconds. */
static bool vanishes(const char *path)
{
	for (int round = 0; round < 1000; round++) {
		if (access(path, F_OK))
			return true;
		usleep(10000);
	}

	return false;
}

TEST_F(surprise_removal, while_it_writes)
{
	struct dirty_env *env = &self->env;
	char path[PATH_MAX], group[PATH_MAX], member[PATH_MAX];
	u64 arrived = 0;

	/* Its port may be in the group, too. */
	function_path(path, "/iommu_group");
	ASSERT_NE(NULL, realpath(path, group));
	snprintf_assert(member, sizeof(member), "%s/devices/%s", group, device_bdf);
	ASSERT_EQ(0, access(member, F_OK));
	hwpt_set_dirty(env, env->hwpt, true);
	writer_start(env, &env->dev, SEED);
	writer_wait(&env->dev, 300);
	pull();
	/* The registers are gone. */
	EXPECT_NE(SEED, readq(&writer_of(&env->dev)->seed));

	for (u64 page = 0; page < env->area.nr_pages; page++) {
		if (!*(u64 *)dirty_area_page(&env->area, page))
			continue;
		page_set_add(&env->written, page);
		arrived++;
	}
	EXPECT_LE(200, arrived);
	EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->written));
	EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->none));

	/* Its page table can change, and tracking be switched. */
	dirty_area_remap(env, &env->area);
	hwpt_set_dirty(env, env->hwpt, false);
	hwpt_set_dirty(env, env->hwpt, true);
	EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->none));
	device_attach(&env->dev, env->iommu->ioas_id);
	device_attach(&env->dev, env->hwpt);

	/* The kernel waits for this program, and then removes the rest. */
	function_path(path, "");
	EXPECT_EQ(0, access(path, F_OK));
	writer_env_close(env);
	EXPECT_TRUE(vanishes(path));
	EXPECT_TRUE(vanishes(member));
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
