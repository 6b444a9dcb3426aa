// SPDX-License-Identifier: GPL-2.0
/*
 * QEMU's edu device as a libvfio driver: a conventional PCI function that copies
 * from and to its own buffer, a page at most, and reaches 256 MiB.
 *
 * It does not report whether an access was refused: a refused read leaves the
 * buffer unchanged, and a refused write is lost.
 */
#include <errno.h>
#include <unistd.h>

#include <linux/bits.h>
#include <linux/io.h>

#include "edu.h"

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
static int edu_wait(struct vfio_pci_device *device)
{
	void *bar = device->bars[0].vaddr;

	for (int rounds = 0; rounds < 400; rounds++) {
		if (!(readq(bar + EDU_CMD) & EDU_START))
			return 0;
		usleep(5000);
	}

	return -ETIMEDOUT;
}

static void edu_run(struct vfio_pci_device *device, u64 src, u64 dst, u64 size, u64 command)
{
	void *bar = device->bars[0].vaddr;

	writeq(src, bar + EDU_SRC);
	writeq(dst, bar + EDU_DST);
	writeq(size, bar + EDU_COUNT);
	writeq(command | EDU_START, bar + EDU_CMD);
}

/* Into the buffer, and from there to the target. */
static void edu_memcpy_start(struct vfio_pci_device *device, iova_t src, iova_t dst, u64 size,
			     u64 count)
{
	edu_run(device, src, EDU_BUFFER, size, 0);
	VFIO_ASSERT_EQ(edu_wait(device), 0, "%s does not read\n", device->bdf);
	edu_run(device, EDU_BUFFER, dst, size, EDU_TO_MEMORY);
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
