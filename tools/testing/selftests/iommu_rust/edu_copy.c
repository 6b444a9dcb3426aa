// SPDX-License-Identifier: GPL-2.0
/*
 * Has QEMU's edu device copy a page of this program to another one by DMA, at
 * their physical addresses.
 *
 *   edu_copy BDF             copies and compares: 0 if the copy is right
 *   edu_copy BDF ADDRESS     reads at an address and writes nothing
 *
 * For devices without a driver whose DMA is not translated, or translated to
 * the same address: memory that firmware reserves for them. Whether an access
 * was refused is in the kernel's log; the device does not tell.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/compiler.h>
#include <linux/io.h>

#define PAGE		4096UL
#define PCI_COMMAND	4
#define PCI_MEMORY	2
#define PCI_MASTER	4

/* Registers, and where the device's own buffer is. */
#define EDU_SRC		0x80
#define EDU_DST		0x88
#define EDU_COUNT	0x90
#define EDU_CMD		0x98
#define EDU_START	1
#define EDU_TO_MEMORY	2
#define EDU_BUFFER	0x40000UL
#define EDU_BAR		0x100000UL

static void die(const char *what)
{
	fprintf(stderr, "edu_copy: %s: %s\n", what, strerror(errno));
	exit(2);
}

static int open_of(const char *bdf, const char *name, int flags)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", bdf, name);
	fd = open(path, flags);
	if (fd < 0)
		die(path);
	return fd;
}

/* Returns the registers of the device, which may do DMA then. */
static void *start(const char *bdf)
{
	uint16_t command;
	void *bar;
	int fd;

	fd = open_of(bdf, "config", O_RDWR);
	if (pread(fd, &command, sizeof(command), PCI_COMMAND) != sizeof(command))
		die("cannot read the command register");
	command |= PCI_MEMORY | PCI_MASTER;
	if (pwrite(fd, &command, sizeof(command), PCI_COMMAND) != sizeof(command))
		die("cannot write the command register");
	close(fd);

	fd = open_of(bdf, "resource0", O_RDWR);
	bar = mmap(NULL, EDU_BAR, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (bar == MAP_FAILED)
		die("cannot map BAR 0");
	close(fd);
	return bar;
}

/* Bounded: two seconds; the device takes a tenth of a second. */
static void transfer(void *bar, uint64_t src, uint64_t dst, uint64_t command)
{
	int rounds = 2000;

	writeq(src, bar + EDU_SRC);
	writeq(dst, bar + EDU_DST);
	writeq(PAGE, bar + EDU_COUNT);
	writeq(command, bar + EDU_CMD);
	while (readq(bar + EDU_CMD) & EDU_START) {
		if (!rounds--) {
			errno = ETIMEDOUT;
			die("the device does not copy");
		}
		usleep(1000);
	}
}

/* Returns a page of memory that stays where it is, and its physical address. */
static uint8_t *locked(int fill, uint64_t *address)
{
	uint64_t entry;
	uint8_t *memory;
	int fd;

	memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);
	if (memory == MAP_FAILED)
		die("cannot get a page");
	memset(memory, fill, PAGE);

	fd = open("/proc/self/pagemap", O_RDONLY);
	if (fd < 0)
		die("cannot open the page map");
	if (pread(fd, &entry, sizeof(entry), (uintptr_t)memory / PAGE * sizeof(entry)) !=
	    sizeof(entry))
		die("cannot read the page map");
	close(fd);
	/* The lower 55 bits are the number of the page. */
	*address = (entry & ((1ULL << 55) - 1)) * PAGE;
	if (!*address) {
		errno = EPERM;
		die("the page map hides where the page is");
	}
	return memory;
}

int main(int argc, char **argv)
{
	uint8_t *source, *copied;
	uint64_t from, to;
	void *bar;
	size_t i;

	if (argc < 2 || argc > 3) {
		fprintf(stderr, "usage: edu_copy BDF [ADDRESS]\n");
		return 2;
	}
	bar = start(argv[1]);
	if (argc == 3) {
		transfer(bar, strtoull(argv[2], NULL, 0), EDU_BUFFER, EDU_START);
		return 0;
	}

	source = locked(0, &from);
	copied = locked(0xee, &to);
	for (i = 0; i < PAGE; i++)
		source[i] = (uint8_t)(i * 7 + i / 256 + 1);
	transfer(bar, from, EDU_BUFFER, EDU_START);
	transfer(bar, EDU_BUFFER, to, EDU_START | EDU_TO_MEMORY);
	/* The compiler does not know that the device has written. */
	barrier();
	if (memcmp(source, copied, PAGE)) {
		printf("the copy of %#llx at %#llx is not the same\n",
		       (unsigned long long)from, (unsigned long long)to);
		return 1;
	}
	return 0;
}
