// SPDX-License-Identifier: GPL-2.0
/*
 * As many vectors as the machine has: a function gets one after the other until the kernel has
 * no more for it, raises each once, and gives all of them back; then it gets as many again.
 *
 * A CPU of x86 has about 200 vectors for devices, so this is what a kernel for as many CPUs as
 * the machine has can give, or what the table of the function holds. Takes an NVMe controller
 * with more vectors than that: each completion queue names the vector that it raises.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <linux/bits.h>
#include <linux/io.h>

#include "lib/harness.h"
#include "lib/interrupts.h"

/* NVM Express base specification 2.0, 3.1.3: registers, and the doorbells of queue n. */
#define NVME_CC 0x14
#define NVME_CSTS 0x1c
#define NVME_AQA 0x24
#define NVME_ASQ 0x28
#define NVME_ACQ 0x30
#define NVME_TAIL(n) (0x1000 + 8 * (n))
#define NVME_HEAD(n) (0x1004 + 8 * (n))
/* Enabled; entries of 64 and of 16 bytes. */
#define NVME_CC_ENABLED 0x460001
#define NVME_READY 1

/* Commands of the controller (5.), and one that needs no memory. */
#define NVME_DELETE_SQ 0
#define NVME_CREATE_SQ 1
#define NVME_DELETE_CQ 4
#define NVME_CREATE_CQ 5
#define NVME_FLUSH 0
#define NVME_CONTIGUOUS 1
#define NVME_INTERRUPTS 2
#define NVME_PHASE BIT(16)

#define ADMIN_ENTRIES 64
#define QUEUE_ENTRIES 2
/* Vectors of a CPU that are there for devices, at least. */
#define VECTORS_OF_CPU 180
#define MOST_VECTORS 2048
/* Entries of a device's table, where AMD-Vi remaps its interrupts. */
#define ENTRIES_OF_DEVICE 512
#define PATIENCE_MS 5000

static const char *device_bdf;

struct nvme_command {
	u32 opcode;
	u32 namespace;
	u64 unused[2];
	u64 memory[2];
	u32 words[6];
};

struct nvme_completion {
	u32 result[3];
	u32 status;
};

/* One page each: the queues of the controller, and a pair for each vector in turn. */
struct queues {
	struct nvme_command admin[ADMIN_ENTRIES];
	struct nvme_completion admin_done[4096 / sizeof(struct nvme_completion)];
	struct nvme_command commands[4096 / sizeof(struct nvme_command)];
	struct nvme_completion done[4096 / sizeof(struct nvme_completion)];
};

FIXTURE(many_vectors) {
	struct dirty_env env;
	struct queues *queues;
	void *bar;
	u32 commands;
	int fds[MOST_VECTORS];
	int nr;
	int epoll;
};

FIXTURE_SETUP(many_vectors)
{
	struct rlimit files = { .rlim_cur = MOST_VECTORS + 64, .rlim_max = MOST_VECTORS + 64 };
	struct dma_region *region;

	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &files));
	self->env.iommu = iommu_init(MODE_IOMMUFD);
	dirty_dev_open(&self->env, &self->env.dev, device_bdf);
	ASSERT_LE(MOST_VECTORS, self->env.dev.pci->msix_info.count);
	region = &self->env.dev.pci->driver.region;
	ASSERT_LE(sizeof(*self->queues), region->size);
	self->queues = region->vaddr;
	self->bar = self->env.dev.pci->bars[0].vaddr;
	vfio_pci_cmd_set(self->env.dev.pci, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

FIXTURE_TEARDOWN(many_vectors)
{
	dirty_dev_close(&self->env, &self->env.dev);
	iova_allocator_cleanup(self->env.iova);
	iommu_cleanup(self->env.iommu);
}

static u64 iova_of(FIXTURE_DATA(many_vectors) *self, void *vaddr)
{
	struct dma_region *region = &self->env.dev.pci->driver.region;

	return region->iova + (vaddr - region->vaddr);
}

static void controller_start(FIXTURE_DATA(many_vectors) *self)
{
	int round = 0;

	writel(0, self->bar + NVME_CC);
	memset(self->queues, 0, sizeof(*self->queues));
	self->commands = 0;
	writel((ADMIN_ENTRIES - 1) << 16 | (ADMIN_ENTRIES - 1), self->bar + NVME_AQA);
	writeq(iova_of(self, self->queues->admin), self->bar + NVME_ASQ);
	writeq(iova_of(self, self->queues->admin_done), self->bar + NVME_ACQ);
	writel(NVME_CC_ENABLED, self->bar + NVME_CC);
	while (!(readl(self->bar + NVME_CSTS) & NVME_READY)) {
		VFIO_ASSERT_LT(round++, 1000, "the controller does not start\n");
		usleep(1000);
	}
}

/* Has the controller carry out a command; bounded. */
static void execute(FIXTURE_DATA(many_vectors) *self, u32 opcode, void *memory, u32 queue,
		    u32 flags)
{
	u32 at = self->commands % ADMIN_ENTRIES, round = 0;
	u32 phase = self->commands / ADMIN_ENTRIES % 2 ? 0 : NVME_PHASE;
	struct nvme_completion *done = &self->queues->admin_done[at];

	self->queues->admin[at] = (struct nvme_command){
		.opcode = opcode,
		.memory = { memory ? iova_of(self, memory) : 0 },
		.words = { memory ? (QUEUE_ENTRIES - 1) << 16 | queue : queue, flags },
	};
	self->commands++;
	writel(self->commands % ADMIN_ENTRIES, self->bar + NVME_TAIL(0));
	while ((READ_ONCE(done->status) & NVME_PHASE) != phase) {
		VFIO_ASSERT_LT(round++, 5000, "the controller does not answer\n");
		usleep(100);
	}
	VFIO_ASSERT_EQ(done->status >> 17, 0, "command %u was refused\n", opcode);
	writel(self->commands % ADMIN_ENTRIES, self->bar + NVME_HEAD(0));
}

static int add_vector(FIXTURE_DATA(many_vectors) *self, u32 vector, int fd)
{
	char buffer[sizeof(struct vfio_irq_set) + sizeof(fd)] = {};
	struct vfio_irq_set *set = (struct vfio_irq_set *)buffer;

	set->argsz = sizeof(buffer);
	set->flags = VFIO_IRQ_SET_ACTION_TRIGGER | VFIO_IRQ_SET_DATA_EVENTFD;
	set->index = VFIO_PCI_MSIX_IRQ_INDEX;
	set->start = vector;
	set->count = 1;
	memcpy(set->data, &fd, sizeof(fd));

	return ioctl(self->env.dev.pci->fd, VFIO_DEVICE_SET_IRQS, set) ? -errno : 0;
}

/* Until there are no more. Returns the error of the one that is not there. */
static int add_vectors(FIXTURE_DATA(many_vectors) *self)
{
	int ret = 0;

	self->epoll = epoll_create1(0);
	VFIO_ASSERT_LE(0, self->epoll);
	for (self->nr = 0; self->nr < MOST_VECTORS; self->nr++) {
		struct epoll_event event = { .events = EPOLLIN, .data.u32 = self->nr };
		int fd = eventfd(0, EFD_NONBLOCK);

		VFIO_ASSERT_LE(0, fd);
		ret = add_vector(self, self->nr, fd);
		if (ret) {
			close(fd);
			break;
		}
		VFIO_ASSERT_EQ(epoll_ctl(self->epoll, EPOLL_CTL_ADD, fd, &event), 0);
		self->fds[self->nr] = fd;
	}

	return ret;
}

static void give_back(FIXTURE_DATA(many_vectors) *self)
{
	vfio_pci_msix_disable(self->env.dev.pci);
	for (int vector = 0; vector < self->nr; vector++)
		close(self->fds[vector]);
	close(self->epoll);
}

/* Waits for the vector, and returns how often others came. The first is the controller's own. */
static u64 take(FIXTURE_DATA(many_vectors) *self, u32 vector)
{
	struct epoll_event event;
	u64 count, wrong = 0;

	do {
		VFIO_ASSERT_EQ(epoll_wait(self->epoll, &event, 1, PATIENCE_MS), 1,
			       "vector %u is lost\n", vector);
		VFIO_ASSERT_EQ(read(self->fds[event.data.u32], &count, sizeof(count)),
			       sizeof(count));
		if (event.data.u32 == vector)
			count--;
		if (event.data.u32)
			wrong += count;
	} while (event.data.u32 != vector);

	return wrong;
}

static u64 raise_each(FIXTURE_DATA(many_vectors) *self)
{
	struct queues *queues = self->queues;
	u64 wrong = 0;

	controller_start(self);
	for (u32 vector = 1; vector < self->nr; vector++) {
		execute(self, NVME_CREATE_CQ, queues->done, 1,
			vector << 16 | NVME_INTERRUPTS | NVME_CONTIGUOUS);
		execute(self, NVME_CREATE_SQ, queues->commands, 1, 1 << 16 | NVME_CONTIGUOUS);
		queues->commands[0] = (struct nvme_command){ .opcode = NVME_FLUSH };
		writel(1, self->bar + NVME_TAIL(1));
		wrong += take(self, vector);
		/* Otherwise it raises the vector again when the queue goes. */
		writel(1, self->bar + NVME_HEAD(1));
		execute(self, NVME_DELETE_SQ, NULL, 1, 0);
		execute(self, NVME_DELETE_CQ, NULL, 1, 0);
	}
	writel(0, self->bar + NVME_CC);

	return wrong;
}

TEST_F(many_vectors, each_arrives_and_all_return)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int before = interrupts_of_function(device_bdf, NULL, 0);
	int kmsg = kernel_log_open();
	long spurious = interrupts_counted("SPU");
	bool is_amdvi = !access("/sys/firmware/acpi/tables/IVRS", F_OK);
	int nr = 0;

	EXPECT_EQ(0, before);
	for (int round = 0; round < 2; round++) {
		EXPECT_EQ(-ENOSPC, add_vectors(self));
		TH_LOG("%d vectors on %ld CPUs", self->nr, cpus);
		EXPECT_LE(is_amdvi ? ENTRIES_OF_DEVICE : VECTORS_OF_CPU * cpus, self->nr);
		EXPECT_GE(is_amdvi ? ENTRIES_OF_DEVICE : MOST_VECTORS, self->nr);
		if (round)
			EXPECT_EQ(nr, self->nr);
		nr = self->nr;
		EXPECT_LE(nr, interrupts_of_function(device_bdf, NULL, 0));
		EXPECT_EQ(0, raise_each(self));
		give_back(self);
		EXPECT_EQ(0, interrupts_of_function(device_bdf, NULL, 0));
	}
	EXPECT_EQ(spurious, interrupts_counted("SPU"));
	EXPECT_FALSE(kernel_says(kmsg, "No irq handler for vector"));
	close(kmsg);
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
