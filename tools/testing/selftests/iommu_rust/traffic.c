// SPDX-License-Identifier: GPL-2.0
/*
 * Has a page writer write and interrupt without a pause, and asks which pages are dirty, until
 * its standard input ends. Prints a line when all of that is under way.
 *
 *   traffic BDF
 *
 * Returns 0 if interrupts arrived, and memory and the reports are what was written.
 */
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include <linux/io.h>

#include "lib/report.h"
#include "lib/writer.h"

#define SEED 0x7af1c

/* Whether standard input has ended; waits for that a little. */
static bool is_over(void)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	char discarded;

	return poll(&input, 1, 1) == 1 && read(STDIN_FILENO, &discarded, 1) == 0;
}

static u64 take_interrupts(struct vfio_pci_device *pci)
{
	struct pollfd progress = { .fd = pci->msi_eventfds[0], .events = POLLIN };
	u64 count;

	if (poll(&progress, 1, 0) != 1)
		return 0;
	VFIO_ASSERT_EQ(read(progress.fd, &count, sizeof(count)), sizeof(count));

	return count;
}

/* Pages that were written and in no report, and the other way round. */
static u64 wrong_reports(struct dirty_env *env, struct page_set *reported, u64 counter)
{
	u64 wrong = 0;

	page_set_clear(&env->written);
	for (u64 number = 1; number <= counter; number++)
		page_set_add(&env->written, writer_page(env, SEED, number));
	for (u64 page = 0; page < env->area.nr_pages; page++)
		wrong += env->written.in[page] != reported->in[page];

	return wrong;
}

/* What is dirty goes into the set @reported. */
static void ask(struct dirty_env *env, struct page_set *reported)
{
	static u64 bitmap[64];
	struct iommu_hwpt_get_dirty_bitmap cmd = {
		.hwpt_id = env->hwpt,
		.iova = env->area.region.iova,
		.length = env->area.region.size,
		.page_size = PAGE_4K,
		.data = (u64)(uintptr_t)bitmap,
	};

	VFIO_ASSERT_LE(env->area.nr_pages, sizeof(bitmap) * 8);
	memset(bitmap, 0, sizeof(bitmap));
	VFIO_ASSERT_EQ(__hwpt_get_dirty(env->iommu->iommufd, &cmd), 0);
	for (u64 page = 0; page < env->area.nr_pages; page++) {
		if (bitmap[page / 64] & (1ULL << (page % 64)))
			page_set_add(reported, page);
	}
}

int main(int argc, char *argv[])
{
	const char *bdf = vfio_selftests_get_bdf(&argc, argv);
	u64 interrupts = 0, counter, pages, reports;
	struct dirty_env env = {};
	struct page_set reported;
	bool said = false;

	writer_env_open(&env, bdf);
	reported = page_set_alloc(&env.area);
	hwpt_set_dirty(&env, env.hwpt, true);
	vfio_pci_msix_enable(env.dev.pci, 0, 1);
	writeq(100, &writer_of(&env.dev)->progress);
	writer_start(&env, &env.dev, SEED);
	do {
		interrupts += take_interrupts(env.dev.pci);
		ask(&env, &reported);
		if (interrupts && !said) {
			puts("under way");
			fflush(stdout);
			said = true;
		}
	} while (!is_over());

	writeq(0, &writer_of(&env.dev)->control);
	counter = writer_counter(&env.dev);
	ask(&env, &reported);
	pages = writer_wrong_pages(&env, SEED, counter);
	reports = wrong_reports(&env, &reported, counter);
	printf("%lu writes, %lu interrupts, %lu pages wrong, %lu reports wrong\n",
	       (unsigned long)counter, (unsigned long)interrupts, (unsigned long)pages,
	       (unsigned long)reports);
	vfio_pci_msix_disable(env.dev.pci);
	page_set_free(&reported);
	writer_env_close(&env);

	return !interrupts || pages || reports;
}
