// SPDX-License-Identifier: GPL-2.0
/*
 * A page writer is reset: in each state of its migration, and while that changes.
 *
 * Takes the function on the command line.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include <linux/io.h>

#include "lib/harness.h"
#include "lib/migration.h"
#include "lib/writer.h"

#define SEED 0x4e5e7

static const char *device_bdf;

FIXTURE(vfio_migration_reset) {
	struct dirty_env env;
	struct vfio_pci_device *pci;
	/* What a thread loads that changes states. */
	struct mig_stream stream;
	atomic_bool stop;
	/* How often it has reached each of mig_states, and was told of a broken function. */
	atomic_int reached[MIG_NR_STATES];
	atomic_int broken;
};

FIXTURE_SETUP(vfio_migration_reset)
{
	writer_env_open(&self->env, device_bdf);
	self->pci = self->env.dev.pci;
}

FIXTURE_TEARDOWN(vfio_migration_reset)
{
	writer_env_close(&self->env);
}

/* By a reset that the device's user asks for, or that sysfs asks for. */
static void make_new(FIXTURE_DATA(vfio_migration_reset) *self, bool by_sysfs)
{
	char path[PATH_MAX];
	int fd;

	if (!by_sysfs) {
		vfio_pci_device_reset(self->pci);
		return;
	}
	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/reset", device_bdf);
	fd = open(path, O_WRONLY);
	VFIO_ASSERT_LE(0, fd);
	VFIO_ASSERT_EQ(write(fd, "1", 1), 1);
	VFIO_ASSERT_EQ(close(fd), 0);
}

/* It is as new, obeys, and what it writes arrives. */
static void expect_new(FIXTURE_DATA(vfio_migration_reset) *self,
		       struct __test_metadata *_metadata)
{
	struct dirty_env *env = &self->env;
	struct mig_stream stream = {};
	int fd;

	EXPECT_EQ(VFIO_DEVICE_STATE_RUNNING, mig_state(self->pci));
	EXPECT_EQ(0, readq(&writer_of(&env->dev)->control));
	EXPECT_EQ(0, writer_counter(&env->dev));
	EXPECT_FALSE(writer_is_writing(env, &env->dev));

	writer_start(env, &env->dev, SEED);
	writer_wait(&env->dev, 500);
	fd = mig_open(self->pci, VFIO_DEVICE_STATE_STOP_COPY);
	EXPECT_EQ(0, writer_wrong_pages(env, SEED, writer_counter(&env->dev)));
	mig_read_all(fd, &stream);
	EXPECT_EQ(mig_data_size(self->pci), stream.size);
	mig_set_state(self->pci, VFIO_DEVICE_STATE_RUNNING);
	EXPECT_TRUE(writer_is_writing(env, &env->dev));
	close(fd);
	mig_free(&stream);
}

/* The transfer that a state has begun, if that has one, is over. */
static void expect_ended(u32 state, int fd, struct __test_metadata *_metadata)
{
	struct mig_stream stream = {};

	EXPECT_EQ(mig_is_saving(state) || state == VFIO_DEVICE_STATE_RESUMING, fd >= 0);
	if (fd < 0)
		return;
	EXPECT_EQ(-ENODEV, mig_is_saving(state) ? mig_read(fd, &stream, 1) :
						  __mig_write(fd, "", 1, 1));
	close(fd);
	mig_free(&stream);
}

static void expect_reset(FIXTURE_DATA(vfio_migration_reset) *self, u32 state, bool by_sysfs,
			 struct __test_metadata *_metadata)
{
	struct dirty_env *env = &self->env;
	int fd;

	TH_LOG("%s", mig_name(state));
	writer_start(env, &env->dev, SEED);
	writer_wait(&env->dev, 100);
	EXPECT_EQ(0, __mig_set_state(self->pci, state, &fd));
	make_new(self, by_sysfs);

	expect_ended(state, fd, _metadata);
	expect_new(self, _metadata);
}

TEST_F(vfio_migration_reset, in_each_state)
{
	for (int by_sysfs = 0; by_sysfs < 2; by_sysfs++) {
		for (int i = 0; i < MIG_NR_STATES; i++)
			expect_reset(self, mig_states[i], by_sysfs, _metadata);
	}
}

/**
 * struct arc - What another thread asks for
 * @pci: of this device
 * @state: what it is to become
 * @ret: what the call returns
 * @fd: the file of its data transfer, or -1
 * @begun: when it was asked for, in milliseconds
 * @ended: when the call returned
 */
struct arc {
	struct vfio_pci_device *pci;
	u32 state;
	int ret;
	int fd;
	u64 begun;
	u64 ended;
};

static u64 now_ms(void)
{
	struct timespec now;

	VFIO_ASSERT_EQ(clock_gettime(CLOCK_MONOTONIC, &now), 0);

	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void *change_late(void *data)
{
	struct arc *arc = data;

	/* A reset takes 100 ms at least (PCI Express base specification 6.0, 6.6.2). */
	usleep(20000);
	arc->begun = now_ms();
	arc->ret = __mig_set_state(arc->pci, arc->state, &arc->fd);
	arc->ended = now_ms();

	return NULL;
}

/*
 * Whether the arc came in the middle of the reset that ended at @ended. An arc that came
 * before a reset of VFIO was over 100 ms before that. One in the middle of a reset by sysfs
 * fails, and one that succeeds came before or after it.
 */
static bool met(struct arc *arc, bool by_sysfs, u64 ended)
{
	if (by_sysfs)
		return arc->ret;
	return arc->begun + 50 < ended && arc->ended + 50 > ended;
}

static void expect_meeting(FIXTURE_DATA(vfio_migration_reset) *self, u32 state, bool by_sysfs,
			   struct __test_metadata *_metadata)
{
	struct dirty_env *env = &self->env;
	struct arc arc = { .pci = self->pci, .state = state, .fd = -1 };
	pthread_t thread;
	u64 ended;

	TH_LOG("%s", mig_name(state));
	for (int attempt = 0; ; attempt++) {
		ASSERT_GT(20, attempt);
		writer_start(env, &env->dev, SEED);
		ASSERT_EQ(0, pthread_create(&thread, NULL, change_late, &arc));
		make_new(self, by_sysfs);
		ended = now_ms();
		ASSERT_EQ(0, pthread_join(thread, NULL));
		if (met(&arc, by_sysfs, ended))
			break;
		if (arc.fd >= 0)
			close(arc.fd);
		make_new(self, false);
	}
	EXPECT_EQ(-EBUSY, arc.ret);
	EXPECT_EQ(-1, arc.fd);
	expect_new(self, _metadata);
	make_new(self, false);
}

/*
 * An arc waits for a reset, and that for nothing: it is done when the arc is, which does not
 * touch the function any more.
 */
TEST_F(vfio_migration_reset, arc_waits)
{
	for (int i = 0; i < MIG_NR_STATES; i++) {
		if (mig_states[i] != VFIO_DEVICE_STATE_RUNNING)
			expect_meeting(self, mig_states[i], false, _metadata);
	}
}

/* While sysfs resets the function no arc touches it, nor what the reset is to restore. */
TEST_F(vfio_migration_reset, arc_is_refused)
{
	for (int i = 0; i < MIG_NR_STATES; i++) {
		if (mig_states[i] != VFIO_DEVICE_STATE_RUNNING)
			expect_meeting(self, mig_states[i], true, _metadata);
	}
}

static void transfer(FIXTURE_DATA(vfio_migration_reset) *self, u32 state, int fd)
{
	char piece[SZ_4K];
	ssize_t got;

	/* A reset ends either of them. */
	if (state == VFIO_DEVICE_STATE_RESUMING) {
		__mig_write(fd, self->stream.data, self->stream.size, SZ_1M);
		return;
	}
	do {
		got = read(fd, piece, sizeof(piece));
	} while (got > 0);
	if (got < 0 && errno == EIO)
		atomic_fetch_add(&self->broken, 1);
}

static void *change_states(void *data)
{
	FIXTURE_DATA(vfio_migration_reset) *self = data;

	while (!atomic_load(&self->stop)) {
		for (int i = 0; i < MIG_NR_STATES; i++) {
			int fd, ret;

			/* A reset may come in the middle of any of them: each may fail. */
			ret = __mig_set_state(self->pci, mig_states[i], &fd);
			if (!ret)
				atomic_fetch_add(&self->reached[i], 1);
			if (ret == -EIO)
				atomic_fetch_add(&self->broken, 1);
			if (fd < 0)
				continue;
			transfer(self, mig_states[i], fd);
			close(fd);
		}
	}

	return NULL;
}

static bool has_reached_all(FIXTURE_DATA(vfio_migration_reset) *self)
{
	for (int i = 0; i < MIG_NR_STATES; i++) {
		if (atomic_load(&self->reached[i]) < 5)
			return false;
	}

	return true;
}

static void expect_storm(FIXTURE_DATA(vfio_migration_reset) *self, bool by_sysfs,
			 struct __test_metadata *_metadata)
{
	struct dirty_env *env = &self->env;
	pthread_t thread;
	int fd;

	writer_start(env, &env->dev, SEED);
	writer_wait(&env->dev, 100);
	fd = mig_open(self->pci, VFIO_DEVICE_STATE_STOP_COPY);
	mig_read_all(fd, &self->stream);
	close(fd);

	ASSERT_EQ(0, pthread_create(&thread, NULL, change_states, self));
	for (int round = 0; round < 50 || !has_reached_all(self); round++) {
		ASSERT_GT(500, round);
		make_new(self, by_sysfs);
		/* The longer it takes, the more time each series of states has. */
		usleep(round % 50 * 100 + round / 50 * 1000);
	}
	atomic_store(&self->stop, true);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	mig_free(&self->stream);
	EXPECT_EQ(0, atomic_load(&self->broken));
	EXPECT_NE(VFIO_DEVICE_STATE_ERROR, mig_state(self->pci));
	make_new(self, by_sysfs);
	expect_new(self, _metadata);
}

TEST_F(vfio_migration_reset, while_states_change)
{
	expect_storm(self, false, _metadata);
}

TEST_F(vfio_migration_reset, by_sysfs_while_states_change)
{
	expect_storm(self, true, _metadata);
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
