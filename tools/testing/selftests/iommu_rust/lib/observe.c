// SPDX-License-Identifier: GPL-2.0
/*
 * What a Rust driver shows in debugfs and says by tracepoints.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "observe.h"

#define TRACEFS "/sys/kernel/tracing"
#define TEXT_BYTES SZ_1M

const char *observe_driver(void)
{
	static const char * const drivers[] = {
		"/sys/kernel/debug/rust_vtd",
		"/sys/kernel/debug/rust_amdvi",
	};

	for (int i = 0; i < 2; i++) {
		if (!access(drivers[i], F_OK))
			return drivers[i];
	}
	return NULL;
}

static const char *read_text(const char *path)
{
	static char text[TEXT_BYTES];
	size_t length = 0;
	ssize_t got;
	int fd;

	fd = open(path, O_RDONLY);
	VFIO_ASSERT_LE(0, fd, "%s cannot be opened\n", path);
	while ((got = read(fd, text + length, sizeof(text) - 1 - length)) > 0)
		length += got;
	VFIO_ASSERT_EQ(got, 0, "%s cannot be read\n", path);
	VFIO_ASSERT_LT(length, sizeof(text) - 1, "%s is too long\n", path);
	VFIO_ASSERT_EQ(close(fd), 0);
	text[length] = '\0';

	return text;
}

static void write_text(const char *path, const char *text)
{
	ssize_t length = strlen(text);
	int fd = open(path, O_WRONLY | O_TRUNC);

	VFIO_ASSERT_LE(0, fd, "%s cannot be opened\n", path);
	VFIO_ASSERT_EQ(write(fd, text, length), length, "%s takes no %s\n", path, text);
	VFIO_ASSERT_EQ(close(fd), 0);
}

static void file_path(char *path, const char *fmt, va_list args)
{
	int length = snprintf(path, PATH_MAX, "%s/", observe_driver());

	VFIO_ASSERT_LT(vsnprintf(path + length, PATH_MAX - length, fmt, args),
		       PATH_MAX - length);
}

const char *observe_read(const char *fmt, ...)
{
	char path[PATH_MAX];
	va_list args;

	va_start(args, fmt);
	file_path(path, fmt, args);
	va_end(args);

	return read_text(path);
}

void observe_write(u64 number, const char *fmt, ...)
{
	char path[PATH_MAX], text[32];
	va_list args;

	va_start(args, fmt);
	file_path(path, fmt, args);
	va_end(args);
	snprintf(text, sizeof(text), "%#llx\n", (unsigned long long)number);
	write_text(path, text);
}

/* What is behind "NAME: " at the start of a line, or NULL. */
static const char *find_value(const char *text, const char *name)
{
	size_t length = strlen(name);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, name, length) && !strncmp(line + length, ": ", 2))
			return line + length + 2;
	}
	return NULL;
}

u64 observe_number(const char *text, const char *name)
{
	const char *value = find_value(text, name);

	VFIO_ASSERT_NOT_NULL(value, "no line \"%s\" in:\n%s\n", name, text);

	return strtoull(value, NULL, 0);
}

u64 observe_last_domain(void)
{
	char path[PATH_MAX];
	struct dirent *entry;
	u64 last = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/domains", observe_driver());
	dir = opendir(path);
	VFIO_ASSERT_NE(dir, NULL, "%s is missing\n", path);
	while ((entry = readdir(dir))) {
		u64 number = strtoull(entry->d_name, NULL, 10);

		if (number > last && !strstr(observe_read("domains/%lu/state", number),
					     "tracking: none"))
			last = number;
	}
	VFIO_ASSERT_EQ(closedir(dir), 0);
	VFIO_ASSERT_NE(last, 0, "no domain is shown\n");

	return last;
}

const char *observe_unit(const char *bdf)
{
	const char *text = observe_read("devices/%s/state", bdf);
	static char unit[64];
	const char *name;

	name = find_value(text, "unit");
	VFIO_ASSERT_NOT_NULL(name, "no unit in:\n%s\n", text);
	snprintf_assert(unit, sizeof(unit), "%.*s", (int)strcspn(name, "\n "), name);

	return unit;
}

/* There is no line for a size of which there are no leaves: then NULL. */
static const char *leaves_line(u64 domain, const char *size)
{
	const char *text = observe_read("domains/%lu/leaves", domain);
	char name[64];

	/* The tables were walked. */
	VFIO_ASSERT_NE(observe_number(text, "tables"), 0);
	snprintf(name, sizeof(name), "leaves of %s", size);

	return find_value(text, name);
}

u64 observe_leaves(u64 domain, const char *size)
{
	const char *line = leaves_line(domain, size);

	return line ? strtoull(line, NULL, 10) : 0;
}

u64 observe_dirty_leaves(u64 domain, const char *size)
{
	const char *line = leaves_line(domain, size);
	unsigned long long all, dirty;
	int found;

	if (!line)
		return 0;
	found = sscanf(line, "%llu, %llu of them dirty", &all, &dirty);
	VFIO_ASSERT_EQ(found, 2, "not understood: %.200s\n", line);

	return dirty;
}

void trace_begin(void)
{
	if (access(TRACEFS "/events", F_OK))
		VFIO_ASSERT_EQ(mount("tracefs", TRACEFS, "tracefs", 0, NULL), 0);
	write_text(TRACEFS "/buffer_size_kb", "4096");
	write_text(TRACEFS "/trace", "");
	write_text(TRACEFS "/events/rust_iommu/enable", "1");
}

void trace_end(void)
{
	write_text(TRACEFS "/events/rust_iommu/enable", "0");
}

u64 trace_count(const char *event)
{
	const char *text = read_text(TRACEFS "/trace");
	char name[64];
	u64 count = 0;

	snprintf(name, sizeof(name), " %s: ", event);
	while ((text = strstr(text, name))) {
		text += strlen(name);
		count++;
	}
	return count;
}

static void add_harvest(struct trace_sum *sum, u64 domain, const char *event)
{
	unsigned long long number, iova, length, dirty, first, cleared, time;
	int clear, error, found, rest;

	found = sscanf(event, "domain=%llu iova=0x%llx length=%llu bytes %n", &number, &iova,
		       &length, &rest);
	VFIO_ASSERT_EQ(found, 3, "not understood: %.200s\n", event);
	event += rest;
	found = sscanf(event, "clear=%d dirty=%llu bytes cleared=0x%llx+%llu bytes %n", &clear,
		       &dirty, &first, &cleared, &rest);
	VFIO_ASSERT_EQ(found, 4, "not understood: %.200s\n", event);
	event += rest;
	found = sscanf(event, "time=%llu ns error=%d", &time, &error);
	VFIO_ASSERT_EQ(found, 2, "not understood: %.200s\n", event);
	if (number != domain)
		return;
	sum->queries++;
	sum->no_clear += !clear;
	sum->dirty += dirty;
	sum->time += time;
	sum->failed += !!error;
	if (!cleared)
		return;
	if (!sum->cleared || first < sum->cleared_first)
		sum->cleared_first = first;
	if (!sum->cleared || first + cleared - 1 > sum->cleared_last)
		sum->cleared_last = first + cleared - 1;
	sum->cleared += cleared;
}

static void add_tracking(struct trace_sum *sum, u64 domain, const char *event)
{
	unsigned long long number;
	int on, error, found;

	found = sscanf(event, "domain=%llu on=%d error=%d", &number, &on, &error);
	VFIO_ASSERT_EQ(found, 3, "not understood: %.200s\n", event);
	if (number != domain)
		return;
	sum->on += on;
	sum->off += !on;
	sum->failed += !!error;
}

struct trace_sum trace_of(u64 domain)
{
	static const char harvest[] = " iommu_harvest: ", tracking[] = " iommu_tracking: ";
	struct trace_sum sum = {};
	const char *line = read_text(TRACEFS "/trace"), *event;

	VFIO_ASSERT_EQ(strstr(line, "LOST"), NULL, "events were lost\n");
	for (; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';

		size_t length = strcspn(line, "\n");

		event = memmem(line, length, harvest, strlen(harvest));
		if (event)
			add_harvest(&sum, domain, event + strlen(harvest));
		event = memmem(line, length, tracking, strlen(tracking));
		if (event)
			add_tracking(&sum, domain, event + strlen(tracking));
	}
	return sum;
}
