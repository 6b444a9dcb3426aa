// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel counts and logs about interrupts.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libvfio.h>

#include "interrupts.h"

long interrupts_counted(const char *name)
{
	FILE *file = fopen("/proc/interrupts", "r");
	char line[1024];
	long sum = 0;

	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file)) {
		char *at = strstr(line, name);
		long count;
		int used;

		if (!at || at[strlen(name)] != ':')
			continue;
		for (at += strlen(name) + 1; sscanf(at, "%ld%n", &count, &used) == 1; at += used)
			sum += count;
	}
	fclose(file);

	return sum;
}

int interrupts_per_cpu(int irq, u64 *counts, int nr_counts)
{
	char path[PATH_MAX];
	unsigned long count;
	FILE *file;
	int nr = 0;

	snprintf_assert(path, sizeof(path), "/sys/kernel/irq/%d/per_cpu_count", irq);
	file = fopen(path, "r");
	VFIO_ASSERT_NOT_NULL(file, "cannot open %s\n", path);
	while (nr < nr_counts && fscanf(file, nr ? ",%lu" : "%lu", &count) == 1)
		counts[nr++] = count;
	VFIO_ASSERT_EQ(fclose(file), 0);

	return nr;
}

static int smaller(const void *one, const void *other)
{
	return *(const int *)one - *(const int *)other;
}

int interrupts_of_function(const char *bdf, int *irqs, int nr_irqs)
{
	char path[PATH_MAX];
	struct dirent *entry;
	DIR *directory;
	int nr = 0;

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/msi_irqs", bdf);
	directory = opendir(path);
	if (!directory)
		return 0;
	while ((entry = readdir(directory))) {
		if (entry->d_name[0] == '.')
			continue;
		if (nr < nr_irqs)
			irqs[nr] = atoi(entry->d_name);
		nr++;
	}
	VFIO_ASSERT_EQ(closedir(directory), 0);
	if (irqs)
		qsort(irqs, min(nr, nr_irqs), sizeof(*irqs), smaller);

	return nr;
}

int kernel_log_open(void)
{
	int kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);

	VFIO_ASSERT_LE(0, kmsg);
	VFIO_ASSERT_LE(0, lseek(kmsg, 0, SEEK_END));

	return kmsg;
}

bool kernel_says(int kmsg, const char *text)
{
	char line[2048];
	bool says = false;
	ssize_t got;

	/* A message that was overwritten is an error, and the next call reads on. */
	while ((got = read(kmsg, line, sizeof(line) - 1)) > 0 || errno == EPIPE) {
		line[got > 0 ? got : 0] = 0;
		if (strstr(line, text))
			says = true;
	}

	return says;
}

int __write_file(const char *path, const char *text)
{
	ssize_t length = strlen(text);
	int fd, error = 0;

	fd = open(path, O_WRONLY);
	if (fd < 0)
		return -errno;
	if (write(fd, text, length) != length)
		error = -errno;
	close(fd);

	return error;
}
