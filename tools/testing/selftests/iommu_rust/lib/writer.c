// SPDX-License-Identifier: GPL-2.0
/*
 * The registers of QEMU's page-writer, and what its memory has to hold.
 */
#include <string.h>
#include <unistd.h>

#include <linux/bits.h>
#include <linux/io.h>

#include "leaves.h"
#include "writer.h"

#define WRITER_ID 0x0001525745474150ULL

/* Where each environment has its area: the one to migrate to, too. */
#define AREA_IOVA BIT_ULL(32)
#define AREA_SIZE SZ_4M

#define WRITER_WRITES BIT(0)

/*
 * How long a test watches a function that does not write, which would have made 500 writes,
 * and how long it waits for a write of one that does: its emulator may be busy.
 */
#define WATCH_US 10000
#define PATIENCE_US 5000000

struct writer *writer_of(struct dirty_dev *dev)
{
	return dev->pci->bars[0].vaddr;
}

void writer_dev_open(struct dirty_env *env, struct dirty_dev *dev, const char *bdf)
{
	dirty_dev_open(env, dev, bdf);
	VFIO_ASSERT_EQ(readq(&writer_of(dev)->id), WRITER_ID, "%s is no page writer\n", bdf);
	vfio_pci_cmd_set(dev->pci, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	if (env->hwpt)
		device_attach(dev, env->hwpt);
}

void writer_env_open(struct dirty_env *env, const char *bdf)
{
	env->iommu = iommu_init(MODE_IOMMUFD);
	VFIO_ASSERT_EQ(__ioas_huge_pages(env->iommu->iommufd, env->iommu->ioas_id, false), 0);
	writer_dev_open(env, &env->dev, bdf);
	VFIO_ASSERT_TRUE(dirty_capable(env, &env->dev));

	leaves_place(&env->area, leaves_alloc(PAGE_4K, AREA_SIZE), AREA_IOVA, AREA_SIZE, PAGE_4K);
	leaves_map(env, &env->area);
	env->written = page_set_alloc(&env->area);
	env->none = page_set_alloc(&env->area);
	env->hwpt = hwpt_alloc(env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
	device_attach(&env->dev, env->hwpt);
}

void writer_env_close(struct dirty_env *env)
{
	dirty_env_close(env);
}

/* The finalizer of splitmix64. */
static u64 mix(u64 x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	x ^= x >> 31;

	return x;
}

void writer_start(struct dirty_env *env, struct dirty_dev *dev, u64 seed)
{
	struct writer *writer = writer_of(dev);

	vfio_pci_cmd_set(dev->pci, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	writeq(0, &writer->control);
	memset(env->area.region.vaddr, 0, env->area.region.size);
	writeq(env->area.region.iova, &writer->base);
	writeq(env->area.region.size, &writer->length);
	writeq(seed, &writer->seed);
	writeq(WRITER_RATE, &writer->rate);
	writeq(0, &writer->limit);
	writeq(1, &writer->control);
	VFIO_ASSERT_EQ(readq(&writer->control), 1, "%s does not start\n", dev->pci->bdf);
}

u64 writer_counter(struct dirty_dev *dev)
{
	VFIO_ASSERT_EQ(readq(&writer_of(dev)->failed), 0, "a write of %s failed\n", dev->pci->bdf);

	return readq(&writer_of(dev)->counter);
}

void writer_wait(struct dirty_dev *dev, u64 count)
{
	u64 begun = writer_counter(dev);

	/* Ten times as long as it should take. */
	for (u64 round = 0; round < 10 + count * 10000 / WRITER_RATE; round++) {
		if (writer_counter(dev) - begun >= count)
			return;
		usleep(1000);
	}
	VFIO_FAIL("%s made %lu of %lu writes\n", dev->pci->bdf,
		  (unsigned long)(writer_counter(dev) - begun), (unsigned long)count);
}

/* The number of the last write that memory has. */
static u64 newest(struct dirty_env *env)
{
	u64 number = 0;

	for (u64 page = 0; page < env->area.nr_pages; page++)
		number = max(number, READ_ONCE(*(u64 *)dirty_area_page(&env->area, page)));

	return number;
}

bool writer_is_writing(struct dirty_env *env, struct dirty_dev *dev)
{
	bool expected = readq(&writer_of(dev)->status) & WRITER_WRITES;
	u64 counter = writer_counter(dev), number = newest(env);
	bool counts, arrives;
	int waited = 0;

	do {
		usleep(WATCH_US);
		waited += WATCH_US;
		counts = writer_counter(dev) != counter;
		arrives = newest(env) != number;
	} while (expected && !(counts && arrives) && waited < PATIENCE_US);
	VFIO_ASSERT_EQ(counts, arrives, "%s counts writes that do not arrive\n", dev->pci->bdf);
	VFIO_ASSERT_EQ(counts, expected, "%s has a wrong status\n", dev->pci->bdf);

	return counts;
}

u64 writer_page(struct dirty_env *env, u64 seed, u64 number)
{
	return mix(seed + number) % env->area.nr_pages;
}

u64 writer_wrong_pages(struct dirty_env *env, u64 seed, u64 counter)
{
	u64 *numbers = calloc_assert(env->area.nr_pages, sizeof(*numbers));
	u64 wrong = 0;

	for (u64 number = 1; number <= counter; number++)
		numbers[writer_page(env, seed, number)] = number;

	for (u64 page = 0; page < env->area.nr_pages; page++) {
		u64 expected[PAGE_4K / sizeof(u64)] = {};

		if (numbers[page]) {
			expected[0] = numbers[page];
			expected[1] = mix(seed ^ numbers[page]);
		}
		if (!memcmp(dirty_area_page(&env->area, page), expected, PAGE_4K))
			continue;
		if (!wrong++)
			printf("# page %lu has write %lu and should have %lu\n",
			       (unsigned long)page,
			       *(unsigned long *)dirty_area_page(&env->area, page),
			       (unsigned long)numbers[page]);
	}
	free(numbers);

	return wrong;
}

u64 writer_wrong_entries(struct dirty_env *env, struct dirty_dev *dev, u64 seed, u64 counter)
{
	u64 *journal = dev->pci->bars[2].vaddr + WRITER_JOURNAL;
	u64 wrong = 0;

	for (u64 back = 0; back < min_t(u64, counter, WRITER_JOURNAL_ENTRIES); back++) {
		u64 number = counter - back;
		u64 *entry = &journal[number % WRITER_JOURNAL_ENTRIES];

		wrong += readq(entry) != writer_page(env, seed, number);
	}

	return wrong;
}
