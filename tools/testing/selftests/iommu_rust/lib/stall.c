// SPDX-License-Identifier: GPL-2.0
/*
 * Registers of QEMU's iommu-stall, which has no driver in the kernel.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/io.h>
#include <linux/sizes.h>

#include <libvfio.h>

#include "stall.h"

#define STALL_VENDOR 0x1234
#define STALL_DEVICE 0x11f0
#define STALL_ID 0x4c4c415453554d4dULL

/**
 * struct stall - The function's BAR 0
 * @id: identifies the function
 * @units: of the machine
 * @unit: the unit that the other registers control; the first
 * @stop: 1 while no command is fetched
 * @delay: time for which the unit will stop at its next command, in
 * milliseconds
 * @lose: completions that will get lost
 * @commands: fetched so far
 * @held: how often the unit did not fetch a waiting command
 */
struct stall {
	u64 id;
	u64 units;
	u64 unit;
	u64 stop;
	u64 delay;
	u64 lose;
	u64 commands;
	u64 held;
};

static int read_id(const char *bdf, const char *name)
{
	char path[PATH_MAX];
	int value = -1;
	FILE *file;

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", bdf, name);
	file = fopen(path, "r");
	if (!file)
		return -1;
	if (fscanf(file, "%x", &value) != 1)
		value = -1;
	fclose(file);

	return value;
}

static int open_of(const char *bdf, const char *name)
{
	char path[PATH_MAX];
	int fd;

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", bdf, name);
	fd = open(path, O_RDWR);
	VFIO_ASSERT_LE(0, fd, "cannot open %s\n", path);

	return fd;
}

/* Lets the function answer, and maps its registers. */
static struct stall *map(const char *bdf)
{
	struct stall *stall;
	u16 command;
	int fd;

	fd = open_of(bdf, "config");
	VFIO_ASSERT_EQ(pread(fd, &command, sizeof(command), PCI_COMMAND), sizeof(command));
	command |= PCI_COMMAND_MEMORY;
	VFIO_ASSERT_EQ(pwrite(fd, &command, sizeof(command), PCI_COMMAND), sizeof(command));
	VFIO_ASSERT_EQ(close(fd), 0);

	fd = open_of(bdf, "resource0");
	stall = mmap(NULL, SZ_4K, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	VFIO_ASSERT_NE(stall, MAP_FAILED);
	VFIO_ASSERT_EQ(close(fd), 0);
	VFIO_ASSERT_EQ(readq(&stall->id), STALL_ID);

	return stall;
}

struct stall *stall_open(void)
{
	DIR *devices = opendir("/sys/bus/pci/devices");
	struct stall *stall = NULL;
	struct dirent *entry;

	VFIO_ASSERT_NOT_NULL(devices);
	while (!stall && (entry = readdir(devices))) {
		if (read_id(entry->d_name, "vendor") == STALL_VENDOR &&
		    read_id(entry->d_name, "device") == STALL_DEVICE)
			stall = map(entry->d_name);
	}
	VFIO_ASSERT_EQ(closedir(devices), 0);

	return stall;
}

void stall_close(struct stall *stall)
{
	VFIO_ASSERT_EQ(munmap(stall, SZ_4K), 0);
}

void stall_stop(struct stall *stall, bool stop)
{
	writeq(stop, &stall->stop);
}

void stall_delay(struct stall *stall, u64 milliseconds)
{
	writeq(milliseconds, &stall->delay);
}

u64 stall_commands(struct stall *stall)
{
	return readq(&stall->commands);
}

u64 stall_held(struct stall *stall)
{
	return readq(&stall->held);
}
