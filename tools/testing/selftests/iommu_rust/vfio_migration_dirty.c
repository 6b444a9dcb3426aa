// SPDX-License-Identifier: GPL-2.0
/*
 * A page writer writes while its page table is asked what is dirty, as fast as it is
 * told to and without being told each time: each harvest has what was written between
 * the one before and itself, and nothing that was not.
 *
 * Takes two functions on the command line.
 */
#include <string.h>
#include <unistd.h>

#include <linux/bits.h>

#include "lib/harness.h"
#include "lib/migration.h"
#include "lib/writer.h"

#define SEED 0xd127

static char **device_bdfs;
static int nr_devices;

FIXTURE(vfio_migration_dirty) {
	struct dirty_env env;
	struct dirty_dev second;
	u8 *bits;
	/* Counters around the harvest before. */
	u64 before, after;
};

FIXTURE_SETUP(vfio_migration_dirty)
{
	struct dirty_env *env = &self->env;

	ASSERT_EQ(2, nr_devices);
	writer_env_open(env, device_bdfs[0]);
	writer_dev_open(env, &self->second, device_bdfs[1]);
	self->bits = calloc_assert(1, env->area.nr_pages / 8);
}

FIXTURE_TEARDOWN(vfio_migration_dirty)
{
	free(self->bits);
	dirty_dev_close(&self->env, &self->second);
	writer_env_close(&self->env);
}

static void begin(FIXTURE_DATA(vfio_migration_dirty) *self, struct dirty_dev *dev)
{
	self->before = writer_counter(dev);
	hwpt_set_dirty(&self->env, self->env.hwpt, true);
	self->after = writer_counter(dev);
}

static void mark(FIXTURE_DATA(vfio_migration_dirty) *self, struct page_set *set, u64 first,
		 u64 last)
{
	page_set_clear(set);
	for (u64 number = first + 1; number <= last; number++)
		page_set_add(set, writer_page(&self->env, SEED, number));
}

/* Returns how many pages were dirty. */
static u64 expect_harvest(FIXTURE_DATA(vfio_migration_dirty) *self, struct dirty_dev *dev,
			  struct __test_metadata *_metadata)
{
	struct dirty_env *env = &self->env;
	struct page_set must = page_set_alloc(&env->area), may = page_set_alloc(&env->area);
	struct iommu_hwpt_get_dirty_bitmap cmd = {
		.hwpt_id = env->hwpt,
		.iova = env->area.region.iova,
		.length = env->area.region.size,
		.page_size = PAGE_4K,
		.data = (uintptr_t)self->bits,
	};
	u64 before, after, dirty = 0, missing = 0, extra = 0;

	memset(self->bits, 0, env->area.nr_pages / 8);
	before = writer_counter(dev);
	ASSERT_EQ(0, __hwpt_get_dirty(env->iommu->iommufd, &cmd));
	after = writer_counter(dev);

	mark(self, &must, self->after, before);
	mark(self, &may, self->before, after);
	for (u64 page = 0; page < env->area.nr_pages; page++) {
		bool is_dirty = self->bits[page / 8] & BIT(page % 8);

		dirty += is_dirty;
		missing += must.in[page] && !is_dirty;
		extra += is_dirty && !may.in[page];
	}
	EXPECT_EQ(0, missing);
	EXPECT_EQ(0, extra);
	self->before = before;
	self->after = after;
	page_set_free(&must);
	page_set_free(&may);

	return dirty;
}

TEST_F(vfio_migration_dirty, while_it_writes)
{
	struct dirty_dev *dev = &self->env.dev;
	u64 dirty = 0;

	writer_start(&self->env, dev, SEED);
	writer_wait(dev, 100);
	begin(self, dev);
	for (int round = 0; round < 40; round++) {
		writer_wait(dev, 20 * (round % 10));
		dirty += expect_harvest(self, dev, _metadata);
	}
	EXPECT_LT(1000, dirty);

	mig_set_state(dev->pci, VFIO_DEVICE_STATE_RUNNING_P2P);
	expect_harvest(self, dev, _metadata);
	/* It writes no more. */
	EXPECT_EQ(0, expect_harvest(self, dev, _metadata));
	EXPECT_EQ(0, writer_wrong_pages(&self->env, SEED, writer_counter(dev)));
}

/* Whatever state the function is in, and comes from. */
TEST_F(vfio_migration_dirty, while_states_change)
{
	struct dirty_dev *dev = &self->env.dev;

	writer_start(&self->env, dev, SEED);
	begin(self, dev);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < MIG_NR_STATES; i++) {
			int fd;

			writer_wait(dev, 100);
			/* What it has loaded would be of before. */
			if (mig_states[i] == VFIO_DEVICE_STATE_RESUMING)
				continue;
			EXPECT_EQ(0, __mig_set_state(dev->pci, mig_states[i], &fd));
			if (fd >= 0)
				close(fd);
			expect_harvest(self, dev, _metadata);
			mig_set_state(dev->pci, VFIO_DEVICE_STATE_RUNNING);
			writer_wait(dev, 100);
			EXPECT_LT(0, expect_harvest(self, dev, _metadata));
		}
	}
}

/* A second function of the page table takes over what the first one has done. */
TEST_F(vfio_migration_dirty, another_goes_on)
{
	struct dirty_dev *devs[] = { &self->env.dev, &self->second };

	writer_start(&self->env, devs[0], SEED);
	begin(self, devs[0]);
	for (int round = 0; round < 4; round++) {
		struct dirty_dev *from = devs[round % 2], *to = devs[1 - round % 2];
		struct mig_stream stream = {};
		int fd;

		writer_wait(from, 200);
		EXPECT_LT(0, expect_harvest(self, from, _metadata));
		fd = mig_open(from->pci, VFIO_DEVICE_STATE_STOP_COPY);
		mig_read_all(fd, &stream);
		close(fd);
		fd = mig_open(to->pci, VFIO_DEVICE_STATE_RESUMING);
		EXPECT_EQ(0, __mig_write(fd, stream.data, stream.size, SZ_1M));
		mig_set_state(to->pci, VFIO_DEVICE_STATE_RUNNING);
		close(fd);
		mig_free(&stream);

		writer_wait(to, 200);
		EXPECT_LT(0, expect_harvest(self, to, _metadata));
	}
	mig_set_state(self->env.dev.pci, VFIO_DEVICE_STATE_STOP);
	EXPECT_EQ(0, writer_wrong_pages(&self->env, SEED, writer_counter(&self->env.dev)));
}

int main(int argc, char *argv[])
{
	device_bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_devices);

	return test_harness_run(argc, argv);
}
