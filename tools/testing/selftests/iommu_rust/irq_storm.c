// SPDX-License-Identifier: GPL-2.0
/*
 * Two functions raise the interrupts of all their vectors, one after the other as fast as they
 * arrive and all at once, while the interrupts move between CPUs, and while a CPU goes and
 * returns. Each vector has a separate eventfd: what was raised must arrive there, once, and
 * nothing anywhere else.
 *
 * Takes two igb on the command line, and a second CPU that can be switched off.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include <linux/bits.h>
#include <linux/io.h>

#include "lib/harness.h"
#include "lib/interrupts.h"

/* 82576 datasheet, 8.8: cause set, mask set, auto clear; and 7.3.2.11, general purpose. */
#define IGB_GPIE 0x1514
#define IGB_GPIE_MULTIPLE_MSIX BIT(4)
#define IGB_EICS 0x1520
#define IGB_EIMS 0x1524
#define IGB_EIAC 0x152c

#define NR_SOURCES 2
#define NR_VECTORS 10
#define ALL_VECTORS (BIT(NR_VECTORS) - 1)
#define MAX_CPUS 8

/* How long one that was raised may take: it is lost after that. */
#define PATIENCE_MS 3000
/* How often each interrupt moves to the other CPU, and a CPU goes. */
#define MOVES 30
#define CPU_CYCLES 8
/* What each function raises at least from one move to the next, and after a CPU went or came. */
#define RAISED_PER_MOVE 2
#define RAISED_PER_CYCLE 40

#define CPU1_ONLINE "/sys/devices/system/cpu/cpu1/online"

static char **device_bdfs;
static int nr_devices;

/**
 * struct source - A function that raises interrupts
 * @dev: the function
 * @irqs: of its vectors
 * @before: how many each CPU had before
 * @stop: for the thread that raises them
 * @raised: interrupts so far
 * @arrived: of these
 * @lost: of these, those that did not arrive in time
 * @wrong: that arrived without having been raised
 * @thread: that raises them
 */
struct source {
	struct dirty_dev dev;
	int irqs[NR_VECTORS];
	u64 before[NR_VECTORS][MAX_CPUS];
	atomic_bool *stop;
	u64 raised;
	u64 arrived;
	u64 lost;
	u64 wrong;
	pthread_t thread;
};

FIXTURE(irq_storm) {
	struct dirty_env env;
	struct source sources[NR_SOURCES];
	atomic_bool stop;
	/* How often an interrupt moved, and could not because its CPU was off. */
	u64 moved;
	u64 refused;
	long spurious;
	long errors;
	int kmsg;
};

static void source_open(struct dirty_env *env, struct source *source, const char *bdf)
{
	struct vfio_pci_device *pci;
	void *bar;
	int nr;

	dirty_dev_open(env, &source->dev, bdf);
	pci = source->dev.pci;
	VFIO_ASSERT_LE(NR_VECTORS, pci->msix_info.count);
	vfio_pci_cmd_set(pci, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	vfio_pci_msix_enable(pci, 0, NR_VECTORS);

	bar = pci->bars[0].vaddr;
	writel(IGB_GPIE_MULTIPLE_MSIX, bar + IGB_GPIE);
	writel(ALL_VECTORS, bar + IGB_EIAC);
	writel(ALL_VECTORS, bar + IGB_EIMS);

	nr = interrupts_of_function(bdf, source->irqs, NR_VECTORS);
	VFIO_ASSERT_EQ(nr, NR_VECTORS);
	for (int i = 0; i < NR_VECTORS; i++)
		interrupts_per_cpu(source->irqs[i], source->before[i], MAX_CPUS);
}

FIXTURE_SETUP(irq_storm)
{
	ASSERT_EQ(NR_SOURCES, nr_devices);
	ASSERT_EQ(0, __write_file(CPU1_ONLINE, "1"));
	self->env.iommu = iommu_init(MODE_IOMMUFD);
	for (int i = 0; i < NR_SOURCES; i++) {
		source_open(&self->env, &self->sources[i], device_bdfs[i]);
		self->sources[i].stop = &self->stop;
	}
	self->spurious = interrupts_counted("SPU");
	self->errors = interrupts_counted("ERR");
	ASSERT_LE(0, self->spurious);
	ASSERT_LE(0, self->errors);
	self->kmsg = kernel_log_open();
}

FIXTURE_TEARDOWN(irq_storm)
{
	__write_file(CPU1_ONLINE, "1");
	close(self->kmsg);
	for (int i = 0; i < NR_SOURCES; i++) {
		vfio_pci_msix_disable(self->sources[i].dev.pci);
		dirty_dev_close(&self->env, &self->sources[i].dev);
	}
	iova_allocator_cleanup(self->env.iova);
	iommu_cleanup(self->env.iommu);
}

/* Waits for any of the vectors @waiting. Returns those that are still to come. */
static u32 take(struct source *source, u32 waiting, int patience)
{
	struct pollfd fds[NR_VECTORS];
	u64 count;

	for (int i = 0; i < NR_VECTORS; i++) {
		fds[i].fd = source->dev.pci->msi_eventfds[i];
		fds[i].events = POLLIN;
	}
	if (!poll(fds, NR_VECTORS, patience)) {
		source->lost += __builtin_popcount(waiting);
		return 0;
	}
	for (int i = 0; i < NR_VECTORS; i++) {
		if (!(fds[i].revents & POLLIN))
			continue;
		VFIO_ASSERT_EQ(read(fds[i].fd, &count, sizeof(count)), sizeof(count));
		if (waiting & BIT(i)) {
			waiting &= ~BIT(i);
			source->arrived++;
			count--;
		}
		source->wrong += count;
	}

	return waiting;
}

/* Raises the vectors of @mask, and waits until each has arrived. */
static void raise_and_take(struct source *source, u32 mask)
{
	u32 waiting = mask;

	source->raised += __builtin_popcount(mask);
	writel(mask, source->dev.pci->bars[0].vaddr + IGB_EICS);
	while (waiting)
		waiting = take(source, waiting, PATIENCE_MS);
}

static bool is_broken(struct source *source)
{
	return READ_ONCE(source->lost) || READ_ONCE(source->wrong);
}

static void *storm(void *data)
{
	struct source *source = data;

	while (!atomic_load(source->stop) && !is_broken(source)) {
		for (int i = 0; i < NR_VECTORS; i++)
			raise_and_take(source, BIT(i));
		raise_and_take(source, ALL_VECTORS);
	}

	return NULL;
}

static void storm_begin(FIXTURE_DATA(irq_storm) *self)
{
	for (int i = 0; i < NR_SOURCES; i++)
		VFIO_ASSERT_EQ(pthread_create(&self->sources[i].thread, NULL, storm,
					      &self->sources[i]), 0);
}

/* Until each function has raised so many more; those that broke raise none. */
static void await(FIXTURE_DATA(irq_storm) *self, u64 count)
{
	for (int i = 0; i < NR_SOURCES; i++) {
		struct source *source = &self->sources[i];
		u64 begun = READ_ONCE(source->raised);

		while (READ_ONCE(source->raised) - begun < count && !is_broken(source))
			sched_yield();
	}
}

/* The CPU that each interrupt may go to; one that is off is refused. */
static void move_all(FIXTURE_DATA(irq_storm) *self, int cpu)
{
	char path[64], mask[8];

	snprintf_assert(mask, sizeof(mask), "%x", 1 << cpu);
	for (int i = 0; i < NR_SOURCES * NR_VECTORS; i++) {
		int irq = self->sources[i / NR_VECTORS].irqs[i % NR_VECTORS];
		int ret;

		snprintf_assert(path, sizeof(path), "/proc/irq/%d/smp_affinity", irq);
		ret = __write_file(path, mask);
		VFIO_ASSERT_TRUE(!ret || ret == -EINVAL, "%s: %d\n", path, ret);
		if (ret)
			self->refused++;
		else
			self->moved++;
		await(self, RAISED_PER_MOVE);
	}
}

static void *move_about(void *data)
{
	FIXTURE_DATA(irq_storm) *self = data;

	for (int round = 0; round < MOVES; round++)
		move_all(self, round % 2);

	return NULL;
}

/* Interrupts that only that CPU may have must go to another one, and may return. */
static void cycle_cpu(FIXTURE_DATA(irq_storm) *self, struct __test_metadata *_metadata, bool move)
{
	for (int round = 0; round < CPU_CYCLES; round++) {
		if (move)
			move_all(self, 1);
		await(self, RAISED_PER_CYCLE);
		ASSERT_EQ(0, __write_file(CPU1_ONLINE, "0"));
		await(self, RAISED_PER_CYCLE);
		ASSERT_EQ(0, __write_file(CPU1_ONLINE, "1"));
	}
}

/* Nothing was lost, nothing came that was not raised, and the kernel counted the same. */
static void storm_end(FIXTURE_DATA(irq_storm) *self, struct __test_metadata *_metadata)
{
	u64 came[MAX_CPUS] = {}, counts[MAX_CPUS], raised = 0;
	int nr = 0;

	atomic_store(&self->stop, true);
	for (int i = 0; i < NR_SOURCES; i++) {
		struct source *source = &self->sources[i];

		ASSERT_EQ(0, pthread_join(source->thread, NULL));
		usleep(20000);
		take(source, 0, 0);
		EXPECT_EQ(0, source->lost);
		EXPECT_EQ(0, source->wrong);
		EXPECT_EQ(source->raised, source->arrived);
		raised += source->raised;
		for (int v = 0; v < NR_VECTORS; v++) {
			nr = interrupts_per_cpu(source->irqs[v], counts, MAX_CPUS);
			for (int cpu = 0; cpu < nr; cpu++)
				came[cpu] += counts[cpu] - source->before[v][cpu];
		}
	}
	TH_LOG("%lu raised, %lu on CPU 0, %lu on CPU 1; %lu moves, %lu refused",
	       (unsigned long)raised, (unsigned long)came[0], (unsigned long)came[1],
	       (unsigned long)self->moved, (unsigned long)self->refused);
	EXPECT_EQ(2, nr);
	EXPECT_EQ(raised, came[0] + came[1]);
	EXPECT_LT(0, came[0]);
	EXPECT_LT(0, came[1]);
	EXPECT_EQ(self->spurious, interrupts_counted("SPU"));
	EXPECT_EQ(self->errors, interrupts_counted("ERR"));
	EXPECT_FALSE(kernel_says(self->kmsg, "No irq handler for vector"));
}

TEST_F(irq_storm, affinities_move)
{
	storm_begin(self);
	move_about(self);
	storm_end(self, _metadata);
	EXPECT_EQ(0, self->refused);
}

TEST_F(irq_storm, a_cpu_goes_and_returns)
{
	storm_begin(self);
	cycle_cpu(self, _metadata, true);
	storm_end(self, _metadata);
	EXPECT_EQ(0, self->refused);
}

TEST_F(irq_storm, both_at_once)
{
	pthread_t mover;

	storm_begin(self);
	ASSERT_EQ(0, pthread_create(&mover, NULL, move_about, self));
	cycle_cpu(self, _metadata, false);
	ASSERT_EQ(0, pthread_join(mover, NULL));
	storm_end(self, _metadata);
}

int main(int argc, char *argv[])
{
	device_bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_devices);

	return test_harness_run(argc, argv);
}
