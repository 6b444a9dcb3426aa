// SPDX-License-Identifier: GPL-2.0
/*
 * A function that was plugged in, or found at an unusual place: it gets a page table, its writes
 * are tracked, and its interrupts arrive.
 *
 * Takes a page writer on the command line.
 */
#include <poll.h>
#include <unistd.h>

#include <linux/io.h>

#include "lib/harness.h"
#include "lib/leaves.h"
#include "lib/writer.h"

#define SEED 0x9106
#define PATIENCE_MS 3000

static const char *device_bdf;

FIXTURE(plugged) {
	struct dirty_env env;
};

FIXTURE_SETUP(plugged)
{
	writer_env_open(&self->env, device_bdf);
}

FIXTURE_TEARDOWN(plugged)
{
	writer_env_close(&self->env);
}

/* Lets it make some writes, which become @env->written. Returns how many. */
static u64 write_some(struct dirty_env *env, u64 seed)
{
	u64 counter;

	writer_start(env, &env->dev, seed);
	writer_wait(&env->dev, 200);
	writeq(0, &writer_of(&env->dev)->control);
	counter = writer_counter(&env->dev);
	page_set_clear(&env->written);
	for (u64 number = 1; number <= counter; number++)
		page_set_add(&env->written, writer_page(env, seed, number));

	return counter;
}

TEST_F(plugged, is_tracked)
{
	struct dirty_env *env = &self->env;

	hwpt_set_dirty(env, env->hwpt, true);
	for (u64 seed = SEED; seed < SEED + 3; seed++) {
		u64 counter = write_some(env, seed);

		EXPECT_EQ(0, writer_wrong_pages(env, seed, counter));
		EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->written));
		EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->none));
	}
}

/* A page table without the area refuses its writes. */
TEST_F(plugged, is_confined)
{
	struct dirty_env *env = &self->env;
	struct writer *writer = writer_of(&env->dev);

	leaves_unmap(env, &env->area);
	writer_start(env, &env->dev, SEED);
	for (int round = 0; round < 1000 && !readq(&writer->failed); round++)
		usleep(1000);
	writeq(0, &writer->control);
	EXPECT_LT(0, readq(&writer->counter));
	EXPECT_EQ(readq(&writer->counter), readq(&writer->failed));
	for (u64 page = 0; page < env->area.nr_pages; page++)
		EXPECT_EQ(0, *(u64 *)dirty_area_page(&env->area, page));
	leaves_map(env, &env->area);
}

TEST_F(plugged, interrupts)
{
	struct vfio_pci_device *pci = self->env.dev.pci;
	struct pollfd progress = { .events = POLLIN };
	u64 count;

	vfio_pci_msix_enable(pci, 0, 1);
	progress.fd = pci->msi_eventfds[0];
	writeq(50, &writer_of(&self->env.dev)->progress);
	writer_start(&self->env, &self->env.dev, SEED);
	for (int i = 0; i < 4; i++) {
		ASSERT_EQ(1, poll(&progress, 1, PATIENCE_MS));
		ASSERT_EQ(sizeof(count), read(progress.fd, &count, sizeof(count)));
	}
	writeq(0, &writer_of(&self->env.dev)->control);
	vfio_pci_msix_disable(pci);
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
