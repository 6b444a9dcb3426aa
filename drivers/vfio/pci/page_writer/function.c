// SPDX-License-Identifier: GPL-2.0
/*
 * The function's registers, those that are the host's: mode, state, window.
 */
#include <linux/io.h>
#include <linux/iopoll.h>
#include <linux/pci.h>
#include <linux/pm_runtime.h>
#include <linux/unaligned.h>

#include "page_writer.h"

/* BAR 0 */
#define COUNTER 0x40

/* BAR 2 */
#define MODE 0x20000
#define STATE_VERSION 0x20008
#define STATE_SIZE 0x20010
#define COMMAND 0x20018
#define RESULT 0x20020
#define STATE_LENGTH 0x20028
#define WINDOW 0x28000
#define WINDOW_SIZE (PAGE_WRITER_BAR2_SIZE - WINDOW)

#define KNOWN_VERSION 1

enum {
	COMMAND_SAVE = 1,
	COMMAND_LOAD,
	/* There is no such command. */
	COMMAND_NONE = 0xff,
};

enum {
	RESULT_DONE,
	RESULT_MODE,
	RESULT_VERSION,
	RESULT_LENGTH,
	RESULT_CHECKSUM,
	RESULT_RANGE,
};

/* How long the function may take to obey, and how often the driver looks. */
#define PATIENCE_US 100000
#define POLL_US 50

/*
 * Makes the BARs answer, whether the guest has switched memory decoding on or not: a
 * virtual machine that has just been started has not, and gets its state nevertheless.
 * What user space has mapped stays as it is then, since its faults wait for memory_lock.
 * If decoding is on already they need not, nor the guest's other accesses, for the time
 * that a copy of the state takes. A read of the stream is no call of VFIO, which would wake
 * the function.
 *
 * A reset that VFIO has not begun holds the device lock and not memory_lock. It takes the
 * BARs away for its time, and end_access() must not write over what it restores. The
 * removal of the driver holds the device lock, too, and waits for the user: so this tries.
 *
 * After a reset that the caller, who holds state_mutex, has waited for here, the function
 * is in another state than the caller knows.
 */
static int begin_access(struct page_writer_device *writer, u16 *command)
{
	struct pci_dev *pdev = writer->core.pdev;

	if (pm_runtime_resume_and_get(&pdev->dev) < 0)
		return -EIO;
	down_write(&writer->core.memory_lock);
	if (!device_trylock(&pdev->dev))
		goto busy;
	if (READ_ONCE(writer->reset_is_due)) {
		device_unlock(&pdev->dev);
		goto busy;
	}
	pci_read_config_word(pdev, PCI_COMMAND, command);
	if (*command & PCI_COMMAND_MEMORY)
		downgrade_write(&writer->core.memory_lock);
	else
		pci_write_config_word(pdev, PCI_COMMAND, *command | PCI_COMMAND_MEMORY);

	return 0;
busy:
	up_write(&writer->core.memory_lock);
	pm_runtime_put(&pdev->dev);

	return -EBUSY;
}

/* VFIO's own resets wait for memory_lock, and need the device lock to be free then. */
static void end_access(struct page_writer_device *writer, u16 command)
{
	struct pci_dev *pdev = writer->core.pdev;

	if (!(command & PCI_COMMAND_MEMORY))
		pci_write_config_word(pdev, PCI_COMMAND, command);
	device_unlock(&pdev->dev);
	if (command & PCI_COMMAND_MEMORY)
		up_read(&writer->core.memory_lock);
	else
		up_write(&writer->core.memory_lock);
	pm_runtime_put(&pdev->dev);
}

static int set_mode(struct page_writer_device *writer, enum page_writer_mode mode)
{
	u64 now;

	writeq(mode, writer->host + MODE);
	if (!readq_poll_timeout(writer->host + MODE, now, now == mode, POLL_US, PATIENCE_US)) {
		writer->mode = mode;
		return 0;
	}

	pci_notice_ratelimited(writer->core.pdev,
			       "mode %d was asked for and it stays in %#llx: reset it\n",
			       mode, now);
	return -EIO;
}

int page_writer_set_mode(struct page_writer_device *writer, enum page_writer_mode mode)
{
	u16 command;
	int ret;

	ret = begin_access(writer, &command);
	if (ret)
		return ret;
	ret = set_mode(writer, mode);
	end_access(writer, command);

	return ret;
}

/* Looks whether the function is one that the driver knows, and lets it run. */
int page_writer_start(struct page_writer_device *writer)
{
	u64 version, size;
	u16 command;
	int ret;

	ret = begin_access(writer, &command);
	if (ret)
		return ret;

	version = readq(writer->host + STATE_VERSION);
	size = readq(writer->host + STATE_SIZE);
	if (version != KNOWN_VERSION || !size || size > WINDOW_SIZE || size % 8) {
		pci_err(writer->core.pdev,
			"has a state of version %llu and %llu bytes, and the driver knows version %d and %d bytes at most, in words of 8: bind vfio-pci to it, which does not migrate\n",
			version, size, KNOWN_VERSION, WINDOW_SIZE);
		ret = -ENODEV;
	} else {
		writer->state_size = size;
		ret = set_mode(writer, PAGE_WRITER_RUNS);
	}
	end_access(writer, command);

	return ret;
}

/* Looks at both BARs: where one is gone, the driver reads ones. */
int page_writer_counter(struct page_writer_device *writer, u64 *counter)
{
	u16 command;
	u64 version;
	int ret;

	ret = begin_access(writer, &command);
	if (ret)
		return ret;
	*counter = readq(writer->guest + COUNTER);
	version = readq(writer->host + STATE_VERSION);
	end_access(writer, command);
	if (*counter != ~0ULL && version == KNOWN_VERSION)
		return 0;

	pci_notice_ratelimited(writer->core.pdev,
			       "has made %#llx writes, and a state of version %#llx: reset it\n",
			       *counter, version);
	return -EIO;
}

/*
 * Returns one of RESULT_* but RESULT_MODE, which no command of the driver may have, or -EIO.
 *
 * RESULT keeps that of the command before until there is another one. It must not pass for
 * that of a command which the function does not obey, so it is changed to RESULT_MODE first.
 */
static int do_command(struct page_writer_device *writer, u64 command)
{
	void __iomem *at = writer->host + RESULT;
	u64 result;
	int ret;

	writeq(COMMAND_NONE, writer->host + COMMAND);
	ret = readq_poll_timeout(at, result, result == RESULT_MODE, POLL_US, PATIENCE_US);
	if (!ret) {
		writeq(command, writer->host + COMMAND);
		ret = readq_poll_timeout(at, result,
					 result <= RESULT_RANGE && result != RESULT_MODE,
					 POLL_US, PATIENCE_US);
	}
	if (!ret)
		return result;

	pci_notice_ratelimited(writer->core.pdev,
			       "command %llu has no result but %#llx: reset it\n", command, result);
	return -EIO;
}

/* The function is accessed by 4 or 8 bytes, which memcpy_fromio() does not promise. */
static void read_window(struct page_writer_device *writer, void *state)
{
	for (size_t at = 0; at < writer->state_size; at += 8)
		put_unaligned_le64(readq(writer->host + WINDOW + at), state + at);
}

static void write_window(struct page_writer_device *writer, const void *state)
{
	for (size_t at = 0; at < writer->state_size; at += 8)
		writeq(get_unaligned_le64(state + at), writer->host + WINDOW + at);
}

/* @state gets the state, and @counter how many writes were made before it was saved. */
int page_writer_save(struct page_writer_device *writer, void *state, u64 *counter)
{
	u64 length = 0;
	u16 command;
	int ret;

	ret = begin_access(writer, &command);
	if (ret)
		return ret;

	*counter = readq(writer->guest + COUNTER);
	/* A function that does nothing must not pass for one that saves. */
	writeq(0, writer->host + STATE_LENGTH);
	ret = do_command(writer, COMMAND_SAVE);
	if (ret == RESULT_DONE) {
		length = readq(writer->host + STATE_LENGTH);
		if (length == writer->state_size)
			read_window(writer, state);
	}
	end_access(writer, command);

	if (ret >= 0 && (ret != RESULT_DONE || length != writer->state_size)) {
		pci_notice_ratelimited(writer->core.pdev,
				       "saves %llu of %zu bytes, with result %d: reset it\n",
				       length, writer->state_size, ret);
		ret = -EIO;
	}

	return ret;
}

/* A state that is refused changes nothing. */
int page_writer_load(struct page_writer_device *writer, const void *state)
{
	u16 command;
	int ret;

	ret = begin_access(writer, &command);
	if (ret)
		return ret;
	write_window(writer, state);
	writeq(writer->state_size, writer->host + STATE_LENGTH);
	ret = do_command(writer, COMMAND_LOAD);
	end_access(writer, command);

	if (ret <= 0)
		return ret;
	pci_notice_ratelimited(writer->core.pdev,
			       "refuses the state, with result %d: reset it, and migrate from a function of the same kind\n",
			       ret);
	switch (ret) {
	case RESULT_VERSION:
		return -EOPNOTSUPP;
	case RESULT_LENGTH:
	case RESULT_RANGE:
		return -EINVAL;
	case RESULT_CHECKSUM:
		return -EBADMSG;
	default:
		return -EIO;
	}
}
