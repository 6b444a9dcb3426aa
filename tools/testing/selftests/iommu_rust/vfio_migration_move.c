// SPDX-License-Identifier: GPL-2.0
/*
 * A page writer's state is moved to another one, which goes on where the first one has
 * stopped: no write is missing, none is made twice. Nor is one when the move is given up.
 *
 * Takes two functions on the command line.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <linux/bits.h>

#include "lib/harness.h"
#include "lib/migration.h"
#include "lib/writer.h"

#define SEED 0x307e

static char **device_bdfs;
static int nr_devices;

FIXTURE(vfio_migration_move) {
	/* Each has memory of its own, at the same address. */
	struct dirty_env env[2];
};

FIXTURE_SETUP(vfio_migration_move)
{
	ASSERT_EQ(2, nr_devices);
	for (int i = 0; i < 2; i++)
		writer_env_open(&self->env[i], device_bdfs[i]);
	writer_start(&self->env[0], &self->env[0].dev, SEED);
	writer_wait(&self->env[0].dev, 1000);
}

FIXTURE_TEARDOWN(vfio_migration_move)
{
	for (int i = 0; i < 2; i++)
		writer_env_close(&self->env[i]);
}

/* It is in a state in which it does not write: all must be as the counter says. */
#define EXPECT_WHOLE(_env) do {							\
	struct dirty_env *__env = (_env);					\
	u64 __counter = writer_counter(&__env->dev);				\
										\
	EXPECT_EQ(0, writer_wrong_pages(__env, SEED, __counter));		\
	EXPECT_EQ(0, writer_wrong_entries(__env, &__env->dev, SEED, __counter)); \
} while (0)

/* What is dirty is copied, as QEMU does with a virtual machine's memory. */
static u64 copy_dirty(struct dirty_env *from, struct dirty_env *to)
{
	u64 size = DIV_ROUND_UP(from->area.nr_pages, 8), copied = 0;
	u8 *bits = calloc_assert(1, size);
	struct iommu_hwpt_get_dirty_bitmap cmd = {
		.hwpt_id = from->hwpt,
		.iova = from->area.region.iova,
		.length = from->area.region.size,
		.page_size = PAGE_4K,
		.data = (uintptr_t)bits,
	};

	VFIO_ASSERT_EQ(__hwpt_get_dirty(from->iommu->iommufd, &cmd), 0);
	for (u64 page = 0; page < from->area.nr_pages; page++) {
		if (!(bits[page / 8] & BIT(page % 8)))
			continue;
		memcpy(dirty_area_page(&to->area, page), dirty_area_page(&from->area, page),
		       PAGE_4K);
		copied++;
	}
	free(bits);

	return copied;
}

/*
 * The whole of a live migration, as QEMU does it: memory first, while the function
 * writes, then what has become dirty, then the function. Returns the rounds.
 */
static int migrate(struct dirty_env *from, struct dirty_env *to)
{
	struct vfio_pci_device *source = from->dev.pci, *target = to->dev.pci;
	struct mig_stream stream = {};
	struct vfio_precopy_info info;
	int fd, rounds = 0, into;

	hwpt_set_dirty(from, from->hwpt, true);
	memcpy(to->area.region.vaddr, from->area.region.vaddr, from->area.region.size);
	fd = mig_open(source, VFIO_DEVICE_STATE_PRE_COPY);
	do {
		mig_read_all(fd, &stream);
		writer_wait(&from->dev, 500);
		VFIO_ASSERT_LT(0, copy_dirty(from, to));
		VFIO_ASSERT_EQ(__mig_precopy_info(fd, &info), 0);
		VFIO_ASSERT_LT(rounds++, 1000);
	} while (rounds < 5 || !info.dirty_bytes);

	mig_set_state(source, VFIO_DEVICE_STATE_STOP_COPY);
	copy_dirty(from, to);
	hwpt_set_dirty(from, from->hwpt, false);
	mig_read_all(fd, &stream);
	VFIO_ASSERT_EQ(close(fd), 0);

	into = mig_open(target, VFIO_DEVICE_STATE_RESUMING);
	VFIO_ASSERT_EQ(__mig_write(into, stream.data, stream.size, 10007), 0);
	mig_set_state(target, VFIO_DEVICE_STATE_RUNNING_P2P);
	VFIO_ASSERT_EQ(close(into), 0);
	mig_free(&stream);

	return rounds;
}

TEST_F(vfio_migration_move, there_and_back)
{
	for (int round = 0; round < 6; round++) {
		struct dirty_env *from = &self->env[round % 2], *to = &self->env[1 - round % 2];
		u64 counter;

		EXPECT_LE(5, migrate(from, to));
		counter = writer_counter(&from->dev);
		EXPECT_EQ(counter, writer_counter(&to->dev));
		EXPECT_WHOLE(from);
		EXPECT_WHOLE(to);

		/* The first one rests, and the other one goes on. */
		mig_set_state(to->dev.pci, VFIO_DEVICE_STATE_RUNNING);
		writer_wait(&to->dev, 1000);
		EXPECT_EQ(counter, writer_counter(&from->dev));
		mig_set_state(to->dev.pci, VFIO_DEVICE_STATE_RUNNING_P2P);
		EXPECT_WHOLE(to);
		mig_set_state(to->dev.pci, VFIO_DEVICE_STATE_RUNNING);
		/* That is not its memory any more. */
		vfio_pci_device_reset(from->dev.pci);
		vfio_pci_cmd_set(from->dev.pci, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	}
}

/* Without pre-copy, in one piece or byte by byte. */
TEST_F(vfio_migration_move, stopped)
{
	struct vfio_pci_device *source = self->env[0].dev.pci, *target = self->env[1].dev.pci;

	for (int round = 0; round < 2; round++) {
		struct mig_stream stream = {};
		int fd = mig_open(source, VFIO_DEVICE_STATE_STOP_COPY);

		while (mig_read(fd, &stream, round ? 97 : SZ_1M) > 0)
			;
		EXPECT_EQ(0, mig_read(fd, &stream, 1));
		EXPECT_EQ(mig_data_size(source), stream.size);
		close(fd);
		memcpy(self->env[1].area.region.vaddr, self->env[0].area.region.vaddr,
		       self->env[0].area.region.size);

		fd = mig_open(target, VFIO_DEVICE_STATE_RESUMING);
		EXPECT_EQ(0, __mig_write(fd, stream.data, stream.size, round ? 1 : SZ_1M));
		mig_set_state(target, VFIO_DEVICE_STATE_RUNNING);
		close(fd);
		writer_wait(&self->env[1].dev, 1000);
		mig_set_state(target, VFIO_DEVICE_STATE_STOP);
		EXPECT_LE(1000, writer_counter(&self->env[1].dev) -
				writer_counter(&self->env[0].dev));
		EXPECT_WHOLE(&self->env[1]);
		mig_free(&stream);

		mig_set_state(source, VFIO_DEVICE_STATE_RUNNING);
		writer_wait(&self->env[0].dev, 100);
	}
}

/* What there is to read, and how much the device says that there is. */
TEST_F(vfio_migration_move, precopy_info)
{
	struct vfio_pci_device *source = self->env[0].dev.pci;
	u64 frame = mig_data_size(source);
	struct mig_stream stream = {};
	struct vfio_precopy_info info;
	int fd = mig_open(source, VFIO_DEVICE_STATE_PRE_COPY);

	for (int part = 0; part < 2; part++) {
		ASSERT_EQ(0, __mig_precopy_info(fd, &info));
		EXPECT_EQ(frame - part * 1000, info.initial_bytes);
		EXPECT_EQ(0, info.dirty_bytes);
		EXPECT_EQ(1000, mig_read(fd, &stream, 1000));
	}
	EXPECT_EQ((ssize_t)frame - 2000, mig_read(fd, &stream, SZ_1M));
	mig_set_state(source, VFIO_DEVICE_STATE_PRE_COPY_P2P);
	EXPECT_EQ(-ENOMSG, mig_read(fd, &stream, SZ_1M));
	ASSERT_EQ(0, __mig_precopy_info(fd, &info));
	EXPECT_EQ(0, info.initial_bytes);
	EXPECT_EQ(0, info.dirty_bytes);

	/* The journal is all new, and is read again. */
	mig_set_state(source, VFIO_DEVICE_STATE_PRE_COPY);
	writer_wait(&self->env[0].dev, WRITER_JOURNAL_ENTRIES);
	for (int part = 0; part < 2; part++) {
		ASSERT_EQ(0, __mig_precopy_info(fd, &info));
		EXPECT_EQ(0, info.initial_bytes);
		EXPECT_EQ(frame - part * 1000, info.dirty_bytes);
		EXPECT_EQ(1000, mig_read(fd, &stream, 1000));
	}
	EXPECT_EQ((ssize_t)frame - 2000, mig_read(fd, &stream, SZ_1M));
	EXPECT_EQ(-ENOMSG, mig_read(fd, &stream, SZ_1M));
	EXPECT_EQ(2 * frame, stream.size);

	info.argsz = sizeof(info) - 1;
	EXPECT_EQ(-1, ioctl(fd, VFIO_MIG_GET_PRECOPY_INFO, &info));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, ioctl(fd, VFIO_DEVICE_RESET, NULL));
	EXPECT_EQ(ENOTTY, errno);
	mig_set_state(source, VFIO_DEVICE_STATE_STOP_COPY);
	EXPECT_EQ(-EINVAL, __mig_precopy_info(fd, &info));
	close(fd);
	mig_free(&stream);
}

/* The rest of a frame comes before the next one. */
TEST_F(vfio_migration_move, reader_is_behind)
{
	struct vfio_pci_device *source = self->env[0].dev.pci, *target = self->env[1].dev.pci;
	u64 frame = mig_data_size(source);
	struct mig_stream stream = {};
	int fd = mig_open(source, VFIO_DEVICE_STATE_PRE_COPY);

	/* The final frame is put where none of its members is aligned. */
	EXPECT_EQ(1001, mig_read(fd, &stream, 1001));
	mig_set_state(source, VFIO_DEVICE_STATE_STOP_COPY);
	mig_read_all(fd, &stream);
	EXPECT_EQ(2 * frame, stream.size);
	close(fd);

	fd = mig_open(target, VFIO_DEVICE_STATE_RESUMING);
	EXPECT_EQ(0, __mig_write(fd, stream.data, stream.size, SZ_1M));
	mig_set_state(target, VFIO_DEVICE_STATE_STOP);
	EXPECT_EQ(writer_counter(&self->env[0].dev), writer_counter(&self->env[1].dev));
	close(fd);
	mig_free(&stream);
}

/* The reader gives up half-way: nothing was lost, and the next attempt succeeds. */
TEST_F(vfio_migration_move, reader_stops)
{
	static const u32 given_up[] = {
		VFIO_DEVICE_STATE_PRE_COPY,
		VFIO_DEVICE_STATE_PRE_COPY_P2P,
		VFIO_DEVICE_STATE_STOP_COPY,
	};
	struct dirty_env *env = &self->env[0];
	struct vfio_pci_device *source = env->dev.pci;

	for (size_t i = 0; i < ARRAY_SIZE(given_up); i++) {
		struct mig_stream stream = {};
		struct vfio_precopy_info info;
		int other, fd = mig_open(source, given_up[i]);

		EXPECT_EQ(1000, mig_read(fd, &stream, 1000));
		/* Also by one who has closed the file before. */
		if (i == 2)
			close(fd);
		mig_set_state(source, VFIO_DEVICE_STATE_RUNNING);
		if (i != 2) {
			EXPECT_EQ(-ENODEV, mig_read(fd, &stream, 1000));
			EXPECT_EQ(-EINVAL, __mig_precopy_info(fd, &info));
			/* That of another transfer is not this one. */
			other = mig_open(source, VFIO_DEVICE_STATE_PRE_COPY);
			EXPECT_EQ(-ENODEV, mig_read(fd, &stream, 1000));
			EXPECT_EQ(-ENODEV, __mig_precopy_info(fd, &info));
			EXPECT_EQ(1000, mig_read(other, &stream, 1000));
			mig_set_state(source, VFIO_DEVICE_STATE_RUNNING);
			close(other);
			close(fd);
		}
		mig_free(&stream);
		EXPECT_TRUE(writer_is_writing(env, &env->dev));
		mig_set_state(source, VFIO_DEVICE_STATE_RUNNING_P2P);
		EXPECT_WHOLE(env);
		mig_set_state(source, VFIO_DEVICE_STATE_RUNNING);
	}
	EXPECT_LE(5, migrate(env, &self->env[1]));
	EXPECT_WHOLE(&self->env[1]);
}

/* The file can be read or written once, in one direction, through one opening. */
TEST_F(vfio_migration_move, files)
{
	struct vfio_pci_device *source = self->env[0].dev.pci, *target = self->env[1].dev.pci;
	int out = mig_open(source, VFIO_DEVICE_STATE_STOP_COPY);
	int in = mig_open(target, VFIO_DEVICE_STATE_RESUMING);
	struct mig_stream stream = {};
	struct dirty_env *env;
	char path[64], byte = 0;

	for (int i = 0; i < 2; i++) {
		snprintf_assert(path, sizeof(path), "/proc/self/fd/%d", i ? in : out);
		EXPECT_EQ(-1, open(path, i ? O_WRONLY : O_RDONLY));
		EXPECT_EQ(ENXIO, errno);
		EXPECT_EQ(-1, lseek(i ? in : out, 0, SEEK_SET));
		EXPECT_EQ(ESPIPE, errno);
	}
	EXPECT_EQ(-1, pread(out, &byte, 1, 0));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(-1, pwrite(in, &byte, 1, 0));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(-1, write(out, &byte, 1));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(-1, read(in, &byte, 1));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(-1, read(out, (void *)1, 1));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, write(in, (void *)1, 1));
	EXPECT_EQ(EFAULT, errno);

	/* None of that has taken a byte away. Asked for again, a state is what it was. */
	mig_set_state(source, VFIO_DEVICE_STATE_STOP_COPY);
	mig_set_state(target, VFIO_DEVICE_STATE_RESUMING);
	mig_read_all(out, &stream);
	EXPECT_EQ(0, __mig_write(in, stream.data, stream.size, SZ_1M));
	mig_set_state(target, VFIO_DEVICE_STATE_STOP);
	EXPECT_EQ(-ENODEV, __mig_write(in, &byte, 1, 1));
	mig_free(&stream);

	/* The files are there for longer than what they are of. */
	mig_set_state(source, VFIO_DEVICE_STATE_STOP);
	mig_set_state(source, VFIO_DEVICE_STATE_RUNNING);
	close(out);
	out = mig_open(source, VFIO_DEVICE_STATE_PRE_COPY);
	env = &self->env[0];
	dirty_dev_close(env, &env->dev);
	EXPECT_EQ(-1, read(out, &byte, 1));
	EXPECT_EQ(ENODEV, errno);
	writer_dev_open(env, &env->dev, device_bdfs[0]);
	EXPECT_EQ(-1, read(out, &byte, 1));
	EXPECT_EQ(ENODEV, errno);
	close(in);
	close(out);
}

int main(int argc, char *argv[])
{
	device_bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_devices);

	return test_harness_run(argc, argv);
}
