// SPDX-License-Identifier: GPL-2.0
/*
 * The states of migration of a page writer: what each arc between two of them does, as
 * the function and its memory show it, and what each of them refuses.
 *
 * Takes the function on the command line.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/io.h>

#include "lib/harness.h"
#include "lib/migration.h"
#include "lib/writer.h"

#define SEED 0x5eed

static const char *device_bdf;

FIXTURE(vfio_migration) {
	struct dirty_env env;
	struct vfio_pci_device *pci;
	struct writer *writer;
	/* Of the state that the function is in, or -1. */
	int fd;
};

FIXTURE_SETUP(vfio_migration)
{
	writer_env_open(&self->env, device_bdf);
	self->pci = self->env.dev.pci;
	self->writer = writer_of(&self->env.dev);
	self->fd = -1;
	writer_start(&self->env, &self->env.dev, SEED);
	writer_wait(&self->env.dev, 100);
}

FIXTURE_TEARDOWN(vfio_migration)
{
	if (self->fd >= 0)
		close(self->fd);
	writer_env_close(&self->env);
}

static bool runs(u32 state)
{
	return state == VFIO_DEVICE_STATE_RUNNING || state == VFIO_DEVICE_STATE_PRE_COPY;
}

/* The uAPI names two arcs that there are not, and no way to ask for ERROR. */
static bool is_legal(u32 from, u32 to)
{
	if (to == VFIO_DEVICE_STATE_ERROR || to >= VFIO_DEVICE_STATE_NR)
		return false;
	return from != VFIO_DEVICE_STATE_STOP_COPY || !mig_is_pre_copy(to);
}

/* Whether the arc begins a data transfer. */
static bool begins(u32 from, u32 to)
{
	if (to == VFIO_DEVICE_STATE_RESUMING)
		return from != to;
	return mig_is_saving(to) && !mig_is_saving(from);
}

static void expect_state(FIXTURE_DATA(vfio_migration) *self, u32 state,
			 struct __test_metadata *_metadata)
{
	EXPECT_EQ(state, mig_state(self->pci));
	EXPECT_EQ(runs(state), writer_is_writing(&self->env, &self->env.dev));
}

static void close_transfer(FIXTURE_DATA(vfio_migration) *self)
{
	if (self->fd >= 0)
		VFIO_ASSERT_EQ(close(self->fd), 0);
	self->fd = -1;
}

/* From RUNNING, from where there is a way to any other. */
static void bring_to(FIXTURE_DATA(vfio_migration) *self, u32 state)
{
	if (begins(VFIO_DEVICE_STATE_RUNNING, state))
		self->fd = mig_open(self->pci, state);
	else
		mig_set_state(self->pci, state);
}

static void begin_anew(FIXTURE_DATA(vfio_migration) *self)
{
	close_transfer(self);
	vfio_pci_device_reset(self->pci);
	writer_start(&self->env, &self->env.dev, SEED);
	writer_wait(&self->env.dev, 100);
}

/* The state of the function, which stays where it is. */
static struct mig_stream saved(FIXTURE_DATA(vfio_migration) *self)
{
	struct mig_stream stream = {};
	int fd = mig_open(self->pci, VFIO_DEVICE_STATE_STOP_COPY);

	mig_read_all(fd, &stream);
	VFIO_ASSERT_EQ(close(fd), 0);
	mig_set_state(self->pci, VFIO_DEVICE_STATE_RUNNING);

	return stream;
}

TEST_F(vfio_migration, features)
{
	u64 none[3] = {};

	EXPECT_EQ(VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY,
		  mig_flags(self->pci));
	EXPECT_EQ(-ENOTTY, __mig_feature(self->pci, VFIO_DEVICE_FEATURE_PROBE |
					 VFIO_DEVICE_FEATURE_SET |
					 VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
					 none, sizeof(none)));
	EXPECT_EQ(0, __mig_feature(self->pci, VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET |
				   VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, none, 0));
	expect_state(self, VFIO_DEVICE_STATE_RUNNING, _metadata);
}

TEST_F(vfio_migration, every_arc)
{
	struct mig_stream stream = saved(self);

	for (int i = 0; i < MIG_NR_STATES; i++) {
		for (int j = 0; j < MIG_NR_STATES; j++) {
			u32 from = mig_states[i], to = mig_states[j];
			u64 counter;
			int fd;

			if (!is_legal(from, to))
				continue;
			TH_LOG("%s -> %s", mig_name(from), mig_name(to));
			bring_to(self, from);
			expect_state(self, from, _metadata);
			/* Only a whole state can be left behind. */
			if (from == VFIO_DEVICE_STATE_RESUMING && to != from) {
				EXPECT_EQ(0, __mig_write(self->fd, stream.data, stream.size,
							 SZ_1M));
				/* It has writes with higher numbers than those to come. */
				memset(self->env.area.region.vaddr, 0,
				       self->env.area.region.size);
			}

			counter = writer_counter(&self->env.dev);
			EXPECT_EQ(0, __mig_set_state(self->pci, to, &fd));
			EXPECT_EQ(begins(from, to), fd >= 0);
			expect_state(self, to, _metadata);
			/* No arc between two states that do not run leads through one that does. */
			if (from != VFIO_DEVICE_STATE_RESUMING && !runs(from) && !runs(to))
				EXPECT_EQ(counter, writer_counter(&self->env.dev));
			if (fd >= 0) {
				close_transfer(self);
				self->fd = fd;
			}
			begin_anew(self);
		}
	}
	mig_free(&stream);
}

TEST_F(vfio_migration, no_other_arc)
{
	static const u32 wrong[] = {
		VFIO_DEVICE_STATE_ERROR,
		VFIO_DEVICE_STATE_PRE_COPY,
		VFIO_DEVICE_STATE_PRE_COPY_P2P,
		VFIO_DEVICE_STATE_NR,
		~0U,
	};
	int refused = 0;

	for (int i = 0; i < MIG_NR_STATES; i++) {
		bring_to(self, mig_states[i]);
		for (size_t j = 0; j < ARRAY_SIZE(wrong); j++) {
			int fd;

			if (is_legal(mig_states[i], wrong[j]))
				continue;
			TH_LOG("%s -> %s", mig_name(mig_states[i]), mig_name(wrong[j]));
			EXPECT_EQ(-EINVAL, __mig_set_state(self->pci, wrong[j], &fd));
			EXPECT_EQ(-1, fd);
			expect_state(self, mig_states[i], _metadata);
			refused++;
		}
		/* What it was about goes on. */
		if (mig_is_saving(mig_states[i])) {
			struct mig_stream stream = {};

			mig_read_all(self->fd, &stream);
			EXPECT_LT(0, stream.size);
			EXPECT_EQ(0, stream.size % mig_data_size(self->pci));
			mig_free(&stream);
		}
		begin_anew(self);
	}
	/* Three from each state, and the two arcs that there are not. */
	EXPECT_EQ(3 * MIG_NR_STATES + 2, refused);
}

/* In a P2P state the guest's registers work; in STOP they keep what they have. */
TEST_F(vfio_migration, registers)
{
	mig_set_state(self->pci, VFIO_DEVICE_STATE_STOP);
	writeq(0, &self->writer->control);
	EXPECT_EQ(1, readq(&self->writer->control));
	mig_set_state(self->pci, VFIO_DEVICE_STATE_RUNNING);
	expect_state(self, VFIO_DEVICE_STATE_RUNNING, _metadata);

	mig_set_state(self->pci, VFIO_DEVICE_STATE_RUNNING_P2P);
	writeq(0, &self->writer->control);
	EXPECT_EQ(0, readq(&self->writer->control));
	mig_set_state(self->pci, VFIO_DEVICE_STATE_RUNNING);
	EXPECT_FALSE(writer_is_writing(&self->env, &self->env.dev));
}

/* How often it has interrupted since that was last asked. */
static u64 interrupts(struct vfio_pci_device *pci)
{
	u64 value = 0;

	/* More than enough for one that is under way. */
	usleep(5000);
	if (read(pci->msi_eventfds[0], &value, sizeof(value)) < 0)
		VFIO_ASSERT_EQ(errno, EAGAIN);

	return value;
}

TEST_F(vfio_migration, interrupts)
{
	static const u32 quiet[] = {
		VFIO_DEVICE_STATE_RUNNING_P2P,
		VFIO_DEVICE_STATE_STOP,
		VFIO_DEVICE_STATE_RUNNING_P2P,
	};

	vfio_pci_msix_enable(self->pci, 0, 1);
	fcntl_set_nonblock(self->pci->msi_eventfds[0]);
	writeq(0, &self->writer->control);
	writeq(WRITER_RATE / 1000, &self->writer->progress);
	writeq(1, &self->writer->control);

	for (int round = 0; round < 3; round++) {
		EXPECT_LT(0, interrupts(self->pci));
		for (size_t i = 0; i < ARRAY_SIZE(quiet); i++) {
			mig_set_state(self->pci, quiet[i]);
			if (!i)
				interrupts(self->pci);
			EXPECT_EQ(0, interrupts(self->pci));
		}
		mig_set_state(self->pci, VFIO_DEVICE_STATE_RUNNING);
	}
	EXPECT_LT(0, interrupts(self->pci));
	vfio_pci_msix_disable(self->pci);
}

/* One that was masked is pending, is moved as such, and raised where the function runs. */
TEST_F(vfio_migration, pending_interrupt)
{
	void *bar2 = self->pci->bars[2].vaddr;
	struct mig_stream stream = {};
	int fd;

	vfio_pci_msix_enable(self->pci, 0, 1);
	fcntl_set_nonblock(self->pci->msi_eventfds[0]);
	writel(PCI_MSIX_ENTRY_CTRL_MASKBIT, bar2 + PCI_MSIX_ENTRY_VECTOR_CTRL);
	writeq(0, &self->writer->control);
	writeq(1, &self->writer->progress);
	writeq(1, &self->writer->control);
	writer_wait(&self->env.dev, 100);
	writeq(0, &self->writer->control);
	EXPECT_EQ(0, interrupts(self->pci));
	EXPECT_EQ(1, readq(bar2 + WRITER_PBA));
	stream = saved(self);

	/* That forgets it, and has the vector unmasked. */
	vfio_pci_device_reset(self->pci);
	vfio_pci_cmd_set(self->pci, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	EXPECT_EQ(0, readl(bar2 + PCI_MSIX_ENTRY_VECTOR_CTRL));
	EXPECT_EQ(0, readq(bar2 + WRITER_PBA));
	EXPECT_EQ(0, interrupts(self->pci));

	fd = mig_open(self->pci, VFIO_DEVICE_STATE_RESUMING);
	EXPECT_EQ(0, __mig_write(fd, stream.data, stream.size, SZ_1M));
	mig_set_state(self->pci, VFIO_DEVICE_STATE_RUNNING_P2P);
	EXPECT_EQ(0, interrupts(self->pci));
	mig_set_state(self->pci, VFIO_DEVICE_STATE_RUNNING);
	EXPECT_EQ(1, interrupts(self->pci));
	close(fd);
	mig_free(&stream);
	vfio_pci_msix_disable(self->pci);
}

/* A virtual machine that has not yet switched its BARs on is migrated, too. */
TEST_F(vfio_migration, without_memory_decoding)
{
	struct mig_stream stream = {};
	int fd;

	vfio_pci_cmd_clear(self->pci, PCI_COMMAND_MEMORY);
	fd = mig_open(self->pci, VFIO_DEVICE_STATE_PRE_COPY);
	mig_read_all(fd, &stream);
	mig_set_state(self->pci, VFIO_DEVICE_STATE_STOP_COPY);
	mig_read_all(fd, &stream);
	EXPECT_LT(mig_data_size(self->pci), stream.size);
	EXPECT_EQ(0, stream.size % mig_data_size(self->pci));
	close(fd);

	fd = mig_open(self->pci, VFIO_DEVICE_STATE_RESUMING);
	EXPECT_EQ(0, __mig_write(fd, stream.data, stream.size, SZ_1M));
	mig_set_state(self->pci, VFIO_DEVICE_STATE_RUNNING);
	close(fd);
	EXPECT_FALSE(vfio_pci_config_readw(self->pci, PCI_COMMAND) & PCI_COMMAND_MEMORY);

	vfio_pci_cmd_set(self->pci, PCI_COMMAND_MEMORY);
	expect_state(self, VFIO_DEVICE_STATE_RUNNING, _metadata);
	mig_free(&stream);
}

/* Nothing leads to the half of BAR 2 that is the host's. */
TEST_F(vfio_migration, hidden_half)
{
	struct vfio_region_info *info = &self->pci->bars[2].info;
	struct vfio_device_ioeventfd doorbell = {
		.argsz = sizeof(doorbell),
		.flags = VFIO_DEVICE_IOEVENTFD_64,
		.offset = info->offset + WRITER_GUEST_SIZE,
		.fd = -1,
	};
	size_t size = sizeof(struct vfio_device_feature_dma_buf) +
		      sizeof(struct vfio_region_dma_range);
	struct vfio_device_feature_dma_buf *buffer = calloc_assert(1, size);
	int prot = PROT_READ | PROT_WRITE;
	u64 value[2] = {};
	int ret;

	EXPECT_EQ(WRITER_GUEST_SIZE, info->size);
	/* The MSI-X table is in what is mapped. */
	EXPECT_TRUE(info->flags & VFIO_REGION_INFO_FLAG_MMAP);
	EXPECT_TRUE(info->flags & VFIO_REGION_INFO_FLAG_CAPS);

	for (u64 at = WRITER_GUEST_SIZE; at < WRITER_BAR2_SIZE; at += PAGE_4K) {
		EXPECT_EQ(-1, pread(self->pci->fd, value, 8, info->offset + at));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(-1, pwrite(self->pci->fd, value, 8, info->offset + at));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE_4K, prot, MAP_SHARED, self->pci->fd,
					   info->offset + at));
		EXPECT_EQ(EINVAL, errno);
	}
	/* Nor what begins before it. */
	EXPECT_EQ(8, pread(self->pci->fd, value, 16, info->offset + WRITER_GUEST_SIZE - 8));
	EXPECT_EQ(8, pwrite(self->pci->fd, value, 16, info->offset + WRITER_GUEST_SIZE - 8));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, WRITER_BAR2_SIZE, prot, MAP_SHARED, self->pci->fd,
				   info->offset));

	doorbell.fd = eventfd(0, 0);
	EXPECT_EQ(-1, ioctl(self->pci->fd, VFIO_DEVICE_IOEVENTFD, &doorbell));
	EXPECT_EQ(ENOTTY, errno);
	close(doorbell.fd);

	buffer->region_index = 2;
	buffer->open_flags = O_RDWR;
	buffer->nr_ranges = 1;
	buffer->dma_ranges[0].offset = WRITER_GUEST_SIZE;
	buffer->dma_ranges[0].length = PAGE_4K;
	ret = __mig_feature(self->pci, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF,
			    buffer, size);
	/* The latter if the kernel has none at all. */
	EXPECT_TRUE(ret == -EOPNOTSUPP || ret == -ENOTTY);
	free(buffer);
	expect_state(self, VFIO_DEVICE_STATE_RUNNING, _metadata);
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
