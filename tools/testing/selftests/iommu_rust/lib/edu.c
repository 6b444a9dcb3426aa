// SPDX-License-Identifier: GPL-2.0
/*
 * QEMU's edu device as a libvfio driver: a conventional PCI function that copies
 * from and to its own buffer, a page at most, and reaches 256 MiB.
 *
 * It does not report whether an access was refused: a refused read leaves the
 * buffer unchanged, and a refused write is lost.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/bits.h>
#include <linux/io.h>

#include "edu.h"
#include "interrupts.h"

#define EDU_VENDOR 0x1234
#define EDU_DEVICE 0x11e8

/* Registers of BAR 0, and the DMA engine's address of the buffer. */
#define EDU_SRC 0x80
#define EDU_DST 0x88
#define EDU_COUNT 0x90
#define EDU_CMD 0x98
#define EDU_START BIT(0)
#define EDU_TO_MEMORY BIT(1)
#define EDU_BUFFER 0x40000UL
#define EDU_BAR_SIZE SZ_1M

static int edu_probe(struct vfio_pci_device *device)
{
	if (!vfio_pci_device_match(device, EDU_VENDOR, EDU_DEVICE))
		return -EINVAL;

	device->driver.max_memcpy_size = PAGE_4K;
	device->driver.max_memcpy_count = 1;
	return 0;
}

static void edu_init(struct vfio_pci_device *device)
{
	vfio_pci_cmd_set(device, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void edu_remove(struct vfio_pci_device *device)
{
	vfio_pci_cmd_clear(device, PCI_COMMAND_MASTER);
}

/* Bounded: two seconds; the device takes a tenth of a second. */
static int wait_for(void *bar)
{
	for (int rounds = 0; rounds < 400; rounds++) {
		if (!(readq(bar + EDU_CMD) & EDU_START))
			return 0;
		usleep(5000);
	}

	return -ETIMEDOUT;
}

static int edu_wait(struct vfio_pci_device *device)
{
	return wait_for(device->bars[0].vaddr);
}

static void run(void *bar, u64 src, u64 dst, u64 size, u64 command)
{
	writeq(src, bar + EDU_SRC);
	writeq(dst, bar + EDU_DST);
	writeq(size, bar + EDU_COUNT);
	writeq(command | EDU_START, bar + EDU_CMD);
}

/* Into the buffer, and from there to the target. */
static void edu_memcpy_start(struct vfio_pci_device *device, iova_t src, iova_t dst, u64 size,
			     u64 count)
{
	run(device->bars[0].vaddr, src, EDU_BUFFER, size, 0);
	VFIO_ASSERT_EQ(edu_wait(device), 0, "%s does not read\n", device->bdf);
	run(device->bars[0].vaddr, EDU_BUFFER, dst, size, EDU_TO_MEMORY);
}

static const struct vfio_pci_driver_ops edu_ops = {
	.name = "edu",
	.probe = edu_probe,
	.init = edu_init,
	.remove = edu_remove,
	.memcpy_start = edu_memcpy_start,
	.memcpy_wait = edu_wait,
};

void edu_driver_probe(struct vfio_pci_device *device)
{
	if (!device->driver.ops && !edu_ops.probe(device))
		device->driver.ops = &edu_ops;
}

static void path_of(const struct edu_sysfs *edu, char *path, const char *name)
{
	snprintf_assert(path, PATH_MAX, "/sys/bus/pci/devices/%s/%s", edu->bdf, name);
}

static bool reads(const struct edu_sysfs *edu, const char *name, char *text, size_t size)
{
	char path[PATH_MAX];
	ssize_t got;
	int fd;

	path_of(edu, path, name);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return false;
	got = read(fd, text, size - 1);
	close(fd);
	if (got <= 0)
		return false;
	text[got] = 0;
	text[strcspn(text, "\n")] = 0;

	return true;
}

static bool is_edu(const struct edu_sysfs *edu)
{
	char vendor[16], device[16];

	return reads(edu, "vendor", vendor, sizeof(vendor)) && !strcmp(vendor, "0x1234") &&
	       reads(edu, "device", device, sizeof(device)) && !strcmp(device, "0x11e8");
}

static bool find_on_root_bus(struct edu_sysfs *edu)
{
	DIR *devices = opendir("/sys/bus/pci/devices");
	struct dirent *entry;
	bool found = false;

	VFIO_ASSERT_NOT_NULL(devices);
	while (!found && (entry = readdir(devices))) {
		if (strncmp(entry->d_name, "0000:00:", 8))
			continue;
		snprintf_assert(edu->bdf, sizeof(edu->bdf), "%s", entry->d_name);
		found = is_edu(edu);
	}
	VFIO_ASSERT_EQ(closedir(devices), 0);

	return found;
}

static void enable_by_sysfs(struct edu_sysfs *edu)
{
	char path[PATH_MAX];
	u16 command;
	int fd;

	path_of(edu, path, "config");
	fd = open(path, O_RDWR);
	VFIO_ASSERT_LE(0, fd);
	VFIO_ASSERT_EQ(pread(fd, &command, sizeof(command), PCI_COMMAND), sizeof(command));
	command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	VFIO_ASSERT_EQ(pwrite(fd, &command, sizeof(command), PCI_COMMAND), sizeof(command));
	VFIO_ASSERT_EQ(close(fd), 0);
}

const char *edu_sysfs_open(struct edu_sysfs *edu)
{
	char path[PATH_MAX];
	int fd;

	if (!find_on_root_bus(edu))
		return "no edu on the root bus";
	if (!reads(edu, "iommu_group/type", edu->type, sizeof(edu->type)))
		return "it has no group";
	path_of(edu, path, "iommu_group/type");
	if (__write_file(path, "identity"))
		return "its default domain cannot become the identity";
	enable_by_sysfs(edu);

	path_of(edu, path, "resource0");
	fd = open(path, O_RDWR);
	VFIO_ASSERT_LE(0, fd);
	edu->bar = mmap(NULL, EDU_BAR_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	VFIO_ASSERT_NE(edu->bar, MAP_FAILED);
	VFIO_ASSERT_EQ(close(fd), 0);

	return NULL;
}

void edu_sysfs_close(struct edu_sysfs *edu)
{
	char path[PATH_MAX];

	if (edu->bar)
		VFIO_ASSERT_EQ(munmap(edu->bar, EDU_BAR_SIZE), 0);
	path_of(edu, path, "iommu_group/type");
	VFIO_ASSERT_EQ(__write_file(path, edu->type), 0);
}

void edu_sysfs_copy(struct edu_sysfs *edu, u64 from, u64 to, u64 size)
{
	run(edu->bar, from, EDU_BUFFER, size, 0);
	VFIO_ASSERT_EQ(wait_for(edu->bar), 0, "%s does not read\n", edu->bdf);
	run(edu->bar, EDU_BUFFER, to, size, EDU_TO_MEMORY);
	VFIO_ASSERT_EQ(wait_for(edu->bar), 0, "%s does not write\n", edu->bdf);
}
