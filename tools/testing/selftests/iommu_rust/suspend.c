// SPDX-License-Identifier: GPL-2.0
/*
 * The machine sleeps (S3) while a device is tracked. The unit loses its registers: after the
 * sleep it must translate as before, and report what was written before and after. Interrupts of
 * the device arrive before and after.
 *
 *   suspend [hibernate] [options] BDF
 *
 * With 'hibernate' memory is written to a disk, which the caller has made ready for that
 * (swapon), and the kernel goes on from what it reads there.
 *
 * A machine that cannot sleep fails these tests.
 */
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "lib/harness.h"
#include "lib/interrupts.h"
#include "lib/leaves.h"

/* Seconds until the clock wakes the machine: longer than it takes to fall asleep. */
#define SLEEP "+6"
/* Milliseconds after which an interrupt is lost. */
#define PATIENCE_MS 3000
/* How often to look for a message, and how far apart: in all much longer than a driver's poll. */
#define LOG_TRIES 100
#define LOG_PAUSE_US 100000

static const char *device_bdf;
static bool to_disk;

FIXTURE(suspend) {
	struct dirty_env env;
};

FIXTURE_VARIANT(suspend) {
	u64 leaf;
};

FIXTURE_VARIANT_ADD(suspend, leaf_4k) { .leaf = SZ_4K, };
FIXTURE_VARIANT_ADD(suspend, leaf_2m) { .leaf = SZ_2M, };

FIXTURE_SETUP(suspend)
{
	const char *skip = dirty_env_open(&self->env, device_bdf, variant->leaf);

	if (skip)
		SKIP(return, "%s", skip);
	hwpt_set_dirty(&self->env, self->env.hwpt, true);
}

FIXTURE_TEARDOWN(suspend)
{
	dirty_env_close(&self->env);
}

/* Until the clock wakes the machine. */
static void suspend_to_memory(void)
{
	VFIO_ASSERT_EQ(__write_file("/sys/power/mem_sleep", "deep"), 0, "no S3\n");
	/* A time that is set can only be changed by way of none. */
	__write_file("/sys/class/rtc/rtc0/wakealarm", "0");
	VFIO_ASSERT_EQ(__write_file("/sys/class/rtc/rtc0/wakealarm", SLEEP), 0, "no alarm\n");
	VFIO_ASSERT_EQ(__write_file("/sys/power/state", "mem"), 0, "the machine does not sleep\n");
}

/*
 * The kernel writes an image of memory, reads it and goes on from it. The machine stays on,
 * but devices and units sleep twice: for the image, and before it takes memory over.
 */
static void suspend_to_disk(void)
{
	VFIO_ASSERT_EQ(__write_file("/sys/power/disk", "test_resume"), 0, "no hibernation\n");
	VFIO_ASSERT_EQ(__write_file("/sys/power/state", "disk"), 0, "the machine does not sleep\n");
}

/* Lets the machine sleep. The device has lost its registers then. */
static void sleep_and_wake(struct dirty_env *env)
{
	struct vfio_pci_device *pci = env->dev.pci;

	if (to_disk)
		suspend_to_disk();
	else
		suspend_to_memory();

	vfio_pci_driver_remove(pci);
	vfio_pci_device_reset(pci);
	vfio_pci_driver_init(pci);
}

TEST_F(suspend, what_was_written_before_is_reported_after)
{
	struct dirty_env *env = &self->env;

	dirty_write_random(env, 8);
	sleep_and_wake(env);
	EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
	EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
}

/* The same page before and after: it was reported in between, and must be again. */
TEST_F(suspend, what_is_written_after_is_reported)
{
	struct dirty_env *env = &self->env;

	for (int round = 0; round < 2; round++) {
		dirty_write_page(env, 3);
		dirty_write_random(env, 8);
		EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
		sleep_and_wake(env);
		EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
		dirty_write_page(env, 3);
		dirty_write_random(env, 8);
		EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
		/* The unit must forget that the page was dirty, which takes its queue. */
		dirty_write_page(env, 3);
		EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
	}
}

TEST_F(suspend, both_are_reported_at_once)
{
	struct dirty_env *env = &self->env;

	dirty_write_random(env, 8);
	sleep_and_wake(env);
	dirty_write_random(env, 8);
	EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
}

/* Has the device raise an interrupt. Returns how many came. */
static u64 interrupts(struct dirty_env *env)
{
	struct vfio_pci_device *pci = env->dev.pci;
	struct pollfd vector = { .fd = pci->msi_eventfds[pci->driver.msi], .events = POLLIN };
	u64 count = 0;

	vfio_pci_driver_send_msi(pci);
	if (poll(&vector, 1, PATIENCE_MS) == 1)
		VFIO_ASSERT_EQ(read(vector.fd, &count, sizeof(count)), sizeof(count));

	return count;
}

/* Where units remap interrupts, the unit must know how its tables are written. */
TEST_F(suspend, interrupts_arrive_after)
{
	EXPECT_EQ(1, interrupts(&self->env));
	for (int round = 0; round < 2; round++) {
		sleep_and_wake(&self->env);
		EXPECT_EQ(1, interrupts(&self->env));
	}
}

static bool overlaps(struct dma_region *region, u64 address)
{
	return address + PAGE_4K > region->iova && address < region->iova + region->size;
}

/* Returns a page of the area whose physical address is an IOVA of nothing. */
static u64 page_that_is_no_iova(struct dirty_env *env, u64 *physical)
{
	for (u64 page = 0; page < env->area.nr_pages; page++) {
		u64 address = leaves_physical(dirty_area_page(&env->area, page));

		if (leaves_may_be_at(env, address, PAGE_4K) &&
		    !overlaps(&env->area.region, address) &&
		    !overlaps(&env->dev.local, address) &&
		    !overlaps(&env->dev.pci->driver.region, address)) {
			*physical = address;
			return page;
		}
	}
	VFIO_FAIL("each page is at an address that is also an IOVA\n");
}

/*
 * With translation off, what a device writes to an IOVA lands at that address of memory. That it
 * is refused must be logged: the unit's interrupt, or the driver's poll, came back too.
 */
TEST_F(suspend, nothing_reaches_raw_memory_after)
{
	struct dirty_env *env = &self->env;
	struct dirty_dev *dev = &env->dev;
	u64 physical, page;
	u8 before[STAMP_SIZE];
	bool says = false;
	void *memory;
	int kmsg;

	sleep_and_wake(env);
	page = page_that_is_no_iova(env, &physical);
	memory = dirty_area_page(&env->area, page);
	memset(memory, 0x5a, STAMP_SIZE);
	memcpy(before, memory, STAMP_SIZE);
	kmsg = kernel_log_open();

	/* The engine may report the write that the unit refuses. */
	vfio_pci_driver_memcpy(dev->pci, dev->local.iova, physical, STAMP_SIZE);
	EXPECT_EQ(0, memcmp(memory, before, STAMP_SIZE));
	/* The driver may poll. Each driver's message names the device, without the segment. */
	for (int i = 0; i < LOG_TRIES && !says; i++) {
		usleep(LOG_PAUSE_US);
		says = kernel_says(kmsg, device_bdf + strlen("0000:"));
	}
	EXPECT_TRUE(says);
	close(kmsg);
	EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));

	/* Where it may write, it still does. */
	dirty_write_page(env, page);
	EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);
	to_disk = argc > 1 && !strcmp(argv[1], "hibernate");
	argc -= to_disk;
	argv += to_disk;

	return test_harness_run(argc, argv);
}
