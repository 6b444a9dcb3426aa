// SPDX-License-Identifier: GPL-2.0
/*
 * Streams that a page writer does not take, and a function that does not answer. It says
 * why, once; nothing of it has changed; and after a reset it takes a good stream.
 *
 * Takes the function on the command line.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/klog.h>
#include <unistd.h>

#include "lib/harness.h"
#include "lib/migration.h"
#include "lib/writer.h"

#define SEED 0xbadbed

/* Of the state that is behind each header: its own header, and some of its registers. */
#define STATE sizeof(struct mig_frame)
#define STATE_CRC (STATE + 16)
#define STATE_CONTENTS (STATE + 32)
#define STATE_RATE (STATE_CONTENTS + 5 * 8)
#define STATE_END (STATE_CONTENTS + (11 + 1 + WRITER_JOURNAL_ENTRIES) * 8)

static const char *device_bdf;

FIXTURE(vfio_migration_refused) {
	struct dirty_env env;
	struct vfio_pci_device *pci;
	/* A good one: a frame of pre-copy, and the final one. */
	struct mig_stream stream;
	size_t frame;
	u64 counter;
};

FIXTURE_SETUP(vfio_migration_refused)
{
	struct dirty_env *env = &self->env;
	int fd;

	writer_env_open(env, device_bdf);
	self->pci = env->dev.pci;
	writer_start(env, &env->dev, SEED);
	writer_wait(&env->dev, 1000);

	fd = mig_open(self->pci, VFIO_DEVICE_STATE_PRE_COPY);
	mig_read_all(fd, &self->stream);
	mig_set_state(self->pci, VFIO_DEVICE_STATE_STOP_COPY);
	mig_read_all(fd, &self->stream);
	close(fd);
	self->counter = writer_counter(&env->dev);
	self->frame = mig_data_size(self->pci);
	ASSERT_EQ(STATE_END, self->frame);
	ASSERT_EQ(2 * self->frame, self->stream.size);
}

FIXTURE_TEARDOWN(vfio_migration_refused)
{
	mig_free(&self->stream);
	writer_env_close(&self->env);
}

/* How often the log has it. */
static int said(const char *words)
{
	static char log[SZ_1M];
	int count = 0, length;

	length = klogctl(3 /* SYSLOG_ACTION_READ_ALL */, log, sizeof(log) - 1);
	VFIO_ASSERT_LT(0, length);
	log[length] = 0;
	for (char *at = log; (at = strstr(at, words)); at++)
		count++;

	return count;
}

static void reset(FIXTURE_DATA(vfio_migration_refused) *self)
{
	vfio_pci_device_reset(self->pci);
	vfio_pci_cmd_set(self->pci, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	VFIO_ASSERT_EQ(mig_state(self->pci), VFIO_DEVICE_STATE_RUNNING);
	VFIO_ASSERT_EQ(writer_counter(&self->env.dev), 0);
}

/* Nothing of before is left, and the good stream is taken. */
static void expect_usable(FIXTURE_DATA(vfio_migration_refused) *self,
			  struct __test_metadata *_metadata)
{
	int fd;

	reset(self);
	EXPECT_FALSE(writer_is_writing(&self->env, &self->env.dev));
	fd = mig_open(self->pci, VFIO_DEVICE_STATE_RESUMING);
	EXPECT_EQ(0, __mig_write(fd, self->stream.data, self->stream.size, SZ_1M));
	mig_set_state(self->pci, VFIO_DEVICE_STATE_STOP);
	EXPECT_EQ(self->counter, writer_counter(&self->env.dev));
	/* It has later writes of those who had the same state. */
	memset(self->env.area.region.vaddr, 0, self->env.area.region.size);
	mig_set_state(self->pci, VFIO_DEVICE_STATE_RUNNING);
	EXPECT_TRUE(writer_is_writing(&self->env, &self->env.dev));
	close(fd);
}

/* The write, or else the end of it, is refused with @error, and with @words in the log. */
static void expect_refusal(FIXTURE_DATA(vfio_migration_refused) *self, const void *data,
			   size_t size, bool at_once, int error, const char *words,
			   struct __test_metadata *_metadata)
{
	int fd, none, before, ret;

	TH_LOG("%s", words);
	reset(self);
	/* The kernel drops messages that come too fast. */
	sleep(1);
	before = said(words);
	fd = mig_open(self->pci, VFIO_DEVICE_STATE_RESUMING);
	ret = __mig_write(fd, data, size, 4099);
	EXPECT_EQ(at_once ? error : 0, ret);
	if (at_once)
		EXPECT_EQ(error, __mig_write(fd, data, 1, 1));
	for (int again = 0; again < 2; again++) {
		EXPECT_EQ(error, __mig_set_state(self->pci, VFIO_DEVICE_STATE_RUNNING, &none));
		EXPECT_EQ(-1, none);
		EXPECT_EQ(VFIO_DEVICE_STATE_RESUMING, mig_state(self->pci));
	}
	/* The function itself says it each time that it is asked. */
	EXPECT_LE(1, said(words) - before);
	if (at_once)
		EXPECT_EQ(1, said(words) - before);
	EXPECT_EQ(0, writer_counter(&self->env.dev));
	close(fd);
	expect_usable(self, _metadata);
}

TEST_F(vfio_migration_refused, broken_frame)
{
	static const struct {
		size_t at;
		int error;
		const char *words;
	} cases[] = {
		{ offsetof(struct mig_frame, magic), -EINVAL, "is not of such a function" },
		{ offsetof(struct mig_frame, version), -EOPNOTSUPP, "has another version" },
		{ offsetof(struct mig_frame, kind), -EINVAL, "has an unknown kind of frame" },
		{ offsetof(struct mig_frame, length), -EINVAL, "has a state of another size" },
		{ offsetof(struct mig_frame, crc), -EBADMSG, "was changed on its way" },
		{ STATE, -EBADMSG, "was changed on its way" },
		/* The last byte of the journal. */
		{ STATE_END - 1, -EBADMSG, "was changed on its way" },
	};

	u8 *stream = malloc_assert(self->stream.size);

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (int last = 0; last < 2; last++) {
			memcpy(stream, self->stream.data, self->stream.size);
			stream[last * self->frame + cases[i].at] ^= 0x40;
			expect_refusal(self, stream, self->stream.size, true, cases[i].error,
				       cases[i].words, _metadata);
		}
	}
	free(stream);
}

TEST_F(vfio_migration_refused, truncated)
{
	const char *words = "ends before its last frame does";
	size_t whole = self->stream.size;
	const size_t sizes[] = {
		0, 1, STATE - 1, STATE, STATE + 1, self->frame - 1, self->frame, self->frame + 1,
		self->frame + STATE - 1, self->frame + STATE, whole - 4096, whole - 1,
	};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		expect_refusal(self, self->stream.data, sizes[i], false, -ENODATA, words,
			       _metadata);
}

/* What was missing comes too late after that was said. */
TEST_F(vfio_migration_refused, late)
{
	int fd, none;

	reset(self);
	fd = mig_open(self->pci, VFIO_DEVICE_STATE_RESUMING);
	EXPECT_EQ(0, __mig_write(fd, self->stream.data, 5000, SZ_1M));
	EXPECT_EQ(-ENODATA, __mig_set_state(self->pci, VFIO_DEVICE_STATE_STOP, &none));
	EXPECT_EQ(-ENODATA, __mig_write(fd, self->stream.data + 5000, 1, 1));
	close(fd);
	expect_usable(self, _metadata);
}

TEST_F(vfio_migration_refused, too_long)
{
	struct mig_stream *stream = &self->stream;

	stream->data = realloc(stream->data, stream->size + self->frame);
	ASSERT_NE(NULL, stream->data);
	memcpy(stream->data + stream->size, stream->data + self->frame, self->frame);
	expect_refusal(self, stream->data, stream->size + self->frame, true, -EINVAL,
		       "goes on behind its end", _metadata);
	expect_refusal(self, stream->data, stream->size + 1, true, -EINVAL,
		       "goes on behind its end", _metadata);
}

/* Frames that are whole, with a state that the function itself refuses. */
TEST_F(vfio_migration_refused, by_the_function)
{
	static const struct {
		size_t at;
		bool checked;
		int error;
		const char *words;
	} cases[] = {
		{ STATE, false, -EOPNOTSUPP, "refuses the state, with result 2" },
		{ STATE + 8, false, -EOPNOTSUPP, "refuses the state, with result 2" },
		{ STATE + 12, false, -EINVAL, "refuses the state, with result 3" },
		{ STATE_CONTENTS + 9, false, -EBADMSG, "refuses the state, with result 4" },
		{ STATE_RATE + 7, true, -EINVAL, "refuses the state, with result 5" },
	};
	u8 *frame = malloc_assert(self->frame);
	struct mig_frame *header = (void *)frame;
	u32 crc;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		memcpy(frame, self->stream.data + self->frame, self->frame);
		frame[cases[i].at] ^= 0x40;
		if (cases[i].checked) {
			crc = mig_crc(frame + STATE_CONTENTS, self->frame - STATE_CONTENTS);
			memcpy(frame + STATE_CRC, &crc, sizeof(crc));
		}
		header->crc = mig_crc(frame + STATE, self->frame - STATE);
		expect_refusal(self, frame, self->frame, false, cases[i].error, cases[i].words,
			       _metadata);
	}
	free(frame);
}

/* Of the function itself, not what VFIO shows of it. */
static void config_access(bool write, size_t at, void *data, size_t size)
{
	char path[PATH_MAX];
	int fd;

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/config", device_bdf);
	fd = open(path, O_RDWR);
	VFIO_ASSERT_LE(0, fd);
	VFIO_ASSERT_EQ((write ? pwrite(fd, data, size, at) : pread(fd, data, size, at)),
		       (ssize_t)size);
	VFIO_ASSERT_EQ(close(fd), 0);
}

/* BAR 2 is moved away: where the driver looks for it there is nothing. */
TEST_F(vfio_migration_refused, does_not_answer)
{
	static const u32 asked[] = {
		VFIO_DEVICE_STATE_RUNNING_P2P, VFIO_DEVICE_STATE_STOP, VFIO_DEVICE_STATE_PRE_COPY,
		VFIO_DEVICE_STATE_STOP_COPY, VFIO_DEVICE_STATE_RESUMING,
	};
	u32 upper, away = 0x7f;
	int none, before;

	for (size_t i = 0; i < ARRAY_SIZE(asked); i++) {
		TH_LOG("%s", mig_name(asked[i]));
		reset(self);
		sleep(1);
		before = said("reset it");
		config_access(false, PCI_BASE_ADDRESS_3, &upper, sizeof(upper));
		config_access(true, PCI_BASE_ADDRESS_3, &away, sizeof(away));
		EXPECT_EQ(-EIO, __mig_set_state(self->pci, asked[i], &none));
		EXPECT_EQ(-1, none);
		EXPECT_EQ(VFIO_DEVICE_STATE_ERROR, mig_state(self->pci));
		EXPECT_EQ(1, said("reset it") - before);
		/* For good, also when it answers again. */
		config_access(true, PCI_BASE_ADDRESS_3, &upper, sizeof(upper));
		for (int j = 0; j < MIG_NR_STATES; j++) {
			EXPECT_EQ(-EINVAL, __mig_set_state(self->pci, mig_states[j], &none));
			EXPECT_EQ(-1, none);
		}
		EXPECT_EQ(-EINVAL, __mig_set_state(self->pci, VFIO_DEVICE_STATE_ERROR, &none));
		EXPECT_EQ(VFIO_DEVICE_STATE_ERROR, mig_state(self->pci));
		expect_usable(self, _metadata);
	}
}

/* It falls silent with a data transfer under way. */
TEST_F(vfio_migration_refused, does_not_answer_any_more)
{
	struct mig_stream stream = {};
	struct vfio_precopy_info info;
	u32 upper, away = 0x7f;
	int fd, none;

	reset(self);
	fd = mig_open(self->pci, VFIO_DEVICE_STATE_PRE_COPY);
	EXPECT_EQ(1000, mig_read(fd, &stream, 1000));
	config_access(false, PCI_BASE_ADDRESS_3, &upper, sizeof(upper));
	config_access(true, PCI_BASE_ADDRESS_3, &away, sizeof(away));
	EXPECT_EQ(0, __mig_precopy_info(fd, &info));
	EXPECT_EQ(-EIO, __mig_set_state(self->pci, VFIO_DEVICE_STATE_STOP_COPY, &none));
	EXPECT_EQ(VFIO_DEVICE_STATE_ERROR, mig_state(self->pci));
	EXPECT_EQ(-ENODEV, mig_read(fd, &stream, 1000));
	EXPECT_EQ(-EINVAL, __mig_precopy_info(fd, &info));
	config_access(true, PCI_BASE_ADDRESS_3, &upper, sizeof(upper));
	close(fd);
	mig_free(&stream);
	expect_usable(self, _metadata);
}

/* It falls silent when all is read that there was, and is asked for more. */
TEST_F(vfio_migration_refused, does_not_answer_a_reader)
{
	for (int by_read = 0; by_read < 2; by_read++) {
		struct mig_stream stream = {};
		struct vfio_precopy_info info;
		u32 upper, away = 0x7f;
		int fd, before;

		reset(self);
		sleep(1);
		before = said("reset it");
		fd = mig_open(self->pci, VFIO_DEVICE_STATE_PRE_COPY);
		mig_read_all(fd, &stream);
		EXPECT_EQ(self->frame, stream.size);
		config_access(false, PCI_BASE_ADDRESS_3, &upper, sizeof(upper));
		config_access(true, PCI_BASE_ADDRESS_3, &away, sizeof(away));
		EXPECT_EQ(-EIO, by_read ? mig_read(fd, &stream, 1000) :
					  __mig_precopy_info(fd, &info));
		EXPECT_EQ(VFIO_DEVICE_STATE_ERROR, mig_state(self->pci));
		EXPECT_EQ(1, said("reset it") - before);
		EXPECT_EQ(-ENODEV, mig_read(fd, &stream, 1000));
		config_access(true, PCI_BASE_ADDRESS_3, &upper, sizeof(upper));
		close(fd);
		mig_free(&stream);
		expect_usable(self, _metadata);
	}
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
