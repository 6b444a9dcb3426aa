// SPDX-License-Identifier: GPL-2.0
/*
 * A unit that has stopped answering. Its caches can no longer be invalidated: no device
 * behind it may do DMA, no query may report a page as clean that a device may write
 * unseen, every attach fails, and no call hangs.
 *
 * Each test kills the unit, so a machine runs only one of them:
 *
 *   dead_unit -t TEST BDF BDF
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <time.h>
#include <unistd.h>

#include "lib/harness.h"
#include "lib/interrupts.h"
#include "lib/observe.h"
#include "lib/stall.h"

/* Longer than any driver waits for a unit, even several times. */
#define NO_HANG_MS 20000
/* While an interrupt moves a CPU waits with interrupts disabled: at most twice what is meant. */
#define MOVE_MS 2000
/* A unit that is given up costs no time. */
#define AT_ONCE_MS 100

static char **device_bdfs;
static int nr_devices;

FIXTURE(dead_unit) {
	struct dirty_env env;
	/* Another device, in another IOAS. */
	struct dirty_env other;
	struct page_set all;
	u32 spare;
	/* Of the first environment, as the driver's files number it. */
	u64 domain;
	struct stall *stall;
	u64 begun;
};

static u64 now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

FIXTURE_SETUP(dead_unit)
{
	struct dirty_env *env = &self->env;

	ASSERT_EQ(2, nr_devices);
	self->stall = stall_open();
	ASSERT_NE(NULL, self->stall);
	ASSERT_EQ(NULL, dirty_env_open(env, device_bdfs[0], PAGE_4K));
	self->domain = observe_last_domain();
	ASSERT_EQ(NULL, dirty_env_open(&self->other, device_bdfs[1], PAGE_4K));
	self->spare = hwpt_alloc(env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
	self->all = page_set_alloc(&env->area);
	for (u64 page = 0; page < self->all.nr; page++)
		page_set_add(&self->all, page);

	/* The unit answers, and both devices write. */
	hwpt_set_dirty(env, env->hwpt, true);
	dirty_write_random(env, 4);
	EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
	dirty_write(&self->other.dev, &self->other.area, 3);
	trace_begin();
	self->begun = now_ms();
}

FIXTURE_TEARDOWN(dead_unit)
{
	page_set_free(&self->all);
	dirty_env_close(&self->other);
	dirty_env_close(&self->env);
	stall_close(self->stall);
	EXPECT_GT(NO_HANG_MS, now_ms() - self->begun);
	trace_end();
}

/* Of the function itself, not vfio's view of it. */
static bool masters_the_bus(const char *bdf)
{
	char path[PATH_MAX];
	u16 command;
	int fd;

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/config", bdf);
	fd = open(path, O_RDONLY);
	VFIO_ASSERT_LE(0, fd);
	VFIO_ASSERT_EQ(pread(fd, &command, sizeof(command), PCI_COMMAND), sizeof(command));
	VFIO_ASSERT_EQ(close(fd), 0);

	return command & PCI_COMMAND_MASTER;
}

static void expect_dead(FIXTURE_DATA(dead_unit) *self, struct __test_metadata *_metadata)
{
	EXPECT_LT(0, stall_held(self->stall));
	for (int i = 0; i < 2; i++)
		EXPECT_FALSE(masters_the_bus(device_bdfs[i]));

	/* Permanently, even if the unit would answer again. */
	for (int again = 0; again < 2; again++) {
		EXPECT_EQ(-EIO, __device_attach(&self->env.dev, self->spare));
		EXPECT_EQ(-EIO, __device_attach(&self->other.dev, self->other.iommu->ioas_id));
		stall_stop(self->stall, false);
	}
	for (int i = 0; i < 2; i++)
		EXPECT_FALSE(masters_the_bus(device_bdfs[i]));
	EXPECT_EQ(1, trace_count("iommu_unit_dead"));
}

/*
 * A leaf that was made clean without a flush can be written through a translation
 * cached as dirty.
 */
TEST_F(dead_unit, by_harvest)
{
	struct dirty_env *env = &self->env;
	struct dirty_query look = query_all(&env->area);

	look.flags = IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR;
	dirty_write_page(env, 0);
	dirty_write_page(env, env->area.nr_pages - 1);
	dirty_write_random(env, 4);
	stall_stop(self->stall, true);
	EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));

	for (int round = 0; round < 2; round++) {
		EXPECT_EXACT(dirty_query(env, env->hwpt, &env->area, look, &self->all));
		EXPECT_EXACT(dirty_ask(env, env->hwpt, &self->all));
	}
	expect_dead(self, _metadata);
	EXPECT_EXACT(dirty_ask(env, env->hwpt, &self->all));

	/* What an operator sees of it. */
	EXPECT_LT(0, observe_number(observe_read("domains/%lu/counters", self->domain),
				    "failed flushes"));
	EXPECT_NE(NULL, strstr(observe_read("units/%s/state", observe_unit(device_bdfs[0])),
			       "dead: yes"));
}

TEST_F(dead_unit, by_unmap)
{
	struct dirty_env *env = &self->env;

	dirty_write_page(env, 3);
	stall_stop(self->stall, true);
	dirty_area_unmap(env, &env->area);
	expect_dead(self, _metadata);
}

TEST_F(dead_unit, by_attach)
{
	stall_stop(self->stall, true);
	EXPECT_EQ(-EIO, __device_attach(&self->env.dev, self->spare));
	expect_dead(self, _metadata);
}

/* A detach cannot be refused: the user has given up the device, whatever the unit does. */
TEST_F(dead_unit, by_detach)
{
	dirty_write_page(&self->env, 3);
	stall_stop(self->stall, true);
	device_detach(&self->env.dev);
	expect_dead(self, _metadata);
}

/* The ioctl's result may differ; the resulting state may not. */
TEST_F(dead_unit, by_switch)
{
	struct dirty_env *env = &self->env;

	hwpt_set_dirty(env, env->hwpt, false);
	dirty_write_page(env, 3);
	stall_stop(self->stall, true);
	__hwpt_set_dirty(env->iommu->iommufd, env->hwpt, IOMMU_HWPT_DIRTY_TRACKING_ENABLE);
	expect_dead(self, _metadata);
}

/* Returns the error, and how long it took. */
static int move_to(int irq, const char *cpus, u64 *ms)
{
	u64 begun = now_ms();
	char path[64];
	int error;

	snprintf_assert(path, sizeof(path), "/proc/irq/%d/smp_affinity", irq);
	error = __write_file(path, cpus);
	*ms = now_ms() - begun;

	return error;
}

/* Under the raw spinlock of the interrupt; a driver that remaps no interrupts is not asked. */
TEST_F(dead_unit, by_move)
{
	int irq, error;
	u64 ms;

	ASSERT_LE(1, interrupts_of_function(device_bdfs[1], &irq, 1));
	ASSERT_EQ(0, move_to(irq, "1", &ms));
	/* The kernel gives the old vector back first. */
	usleep(100000);
	stall_stop(self->stall, true);
	error = move_to(irq, "2", &ms);
	TH_LOG("moved with %d after %lu ms", error, (unsigned long)ms);
	EXPECT_EQ(-EIO, error);
	EXPECT_GT(MOVE_MS, ms);
	/* The kernel puts another move off: it keeps both vectors. */
	move_to(irq, "1", &ms);
	EXPECT_GT(AT_ONCE_MS, ms);
	expect_dead(self, _metadata);
}

int main(int argc, char *argv[])
{
	device_bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_devices);

	return test_harness_run(argc, argv);
}
