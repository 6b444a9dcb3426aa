// SPDX-License-Identifier: GPL-2.0
/*
 * The benchmark's program: init of a kernel without other processes.
 *
 * It reads /plan, a line for each measurement, and runs the same work on a domain
 * with the C tables and on one with the Rust tables, alternating by repetition;
 * each goes first every other time. The program 'run' in this directory handles
 * its output.
 *
 *	domain FORMAT IOVA LEAF SIZE REPETITIONS
 *	mock IOVA SIZE REPETITIONS
 *	work NAME ACTION [ARGUMENT...]
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdnoreturn.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../../../drivers/iommu/rust/testing/bench/abi.h"
#include "mock.h"

#define NR_SIDES 2
#define WARM_UP 2
#define PAGE 4096ULL
#define AMDV1 1

static const char *const formats[] = { "vtdss", "amdv1", "x86_64" };
static const char *const sides[NR_SIDES] = { "c", "rust" };

/* The subject of the plan's lines: one domain for each side. */
static struct {
	unsigned int format;
	unsigned long long iova;
	unsigned long long leaf;
	unsigned long long size;
	unsigned long repetitions;
	int fd[NR_SIDES];
	/* Or domains of iommufd's self-test, which stay mapped. */
	bool is_mock;
	struct mock mock[NR_SIDES];
	bool mapped;
	/* Tables of x86-64 have no dirty query. */
	bool tracks[NR_SIDES];
	/* A bit for each leaf, and a bit for each page. */
	uint8_t *dirt;
	uint8_t *expected;
	uint8_t *result;
	size_t dirt_bytes;
	size_t bitmap_bytes;
} domain;

static noreturn void end(int status)
{
	printf("END %d\n", status);
	fflush(stdout);
	sync();
	if (getpid() == 1)
		reboot(RB_POWER_OFF);
	exit(status);
}

static noreturn void fail(const char *format, ...)
{
	va_list arguments;

	printf("FAIL ");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	end(1);
}

static uint64_t random_state;

/* splitmix64: the same dirty pages in each run of the benchmark. */
static uint64_t random_next(void)
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

static struct pt_bench_run request(unsigned int op)
{
	return (struct pt_bench_run){
		.op = op,
		.iova = domain.iova,
		.size = domain.size,
		.leaf = domain.leaf,
		.step = domain.size,
		.repeat = 1,
	};
}

static void ask(unsigned int side, struct pt_bench_run *run)
{
	if (ioctl(domain.fd[side], PT_BENCH_RUN, run))
		fail("%s %s: operation %u: %s", formats[domain.format],
		     sides[side], run->op, strerror(errno));
}

static void do_op(unsigned int side, unsigned int op)
{
	struct pt_bench_run run = request(op);

	ask(side, &run);
}

static void look_if_it_tracks(unsigned int side)
{
	struct pt_bench_run run = request(PT_BENCH_QUERY);

	run.bitmap = (uintptr_t)domain.result;
	domain.tracks[side] = !ioctl(domain.fd[side], PT_BENCH_RUN, &run);
	if (!domain.tracks[side] && errno != EOPNOTSUPP)
		fail("%s %s: a query: %s", formats[domain.format], sides[side],
		     strerror(errno));
}

static bool has_side(unsigned int side)
{
	return domain.fd[side] >= 0;
}

static void set_mapped(bool mapped)
{
	unsigned int side;

	if (mapped == domain.mapped)
		return;
	for (side = 0; side < NR_SIDES; side++) {
		if (!has_side(side))
			continue;
		do_op(side, mapped ? PT_BENCH_MAP : PT_BENCH_UNMAP);
		if (!mapped)
			continue;
		do_op(side, PT_BENCH_COLLECT);
		look_if_it_tracks(side);
	}
	domain.mapped = mapped;
}

static void close_domain(void)
{
	unsigned int side;

	for (side = 0; side < NR_SIDES; side++) {
		if (has_side(side) && domain.is_mock)
			mock_close(&domain.mock[side]);
		else if (has_side(side))
			close(domain.fd[side]);
		domain.fd[side] = -1;
	}
	free(domain.dirt);
	free(domain.expected);
	if (domain.result)
		munmap(domain.result, domain.bitmap_bytes);
	memset(&domain, 0, sizeof(domain));
	domain.fd[0] = -1;
	domain.fd[1] = -1;
}

static void allocate_bitmaps(void)
{
	domain.dirt_bytes = (domain.size / domain.leaf + 7) / 8;
	domain.bitmap_bytes = (domain.size / PAGE / 8 + PAGE - 1) / PAGE * PAGE;
	domain.dirt = calloc(1, domain.dirt_bytes);
	domain.expected = calloc(1, domain.bitmap_bytes);
	domain.result = mmap(NULL, domain.bitmap_bytes, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (!domain.dirt || !domain.expected || domain.result == MAP_FAILED)
		fail("no memory for the bitmaps");
}

static void open_domain(const char *line)
{
	char name[16];
	unsigned int side, i;

	close_domain();
	if (sscanf(line, "domain %15s %llx %llx %llx %lu", name, &domain.iova,
		   &domain.leaf, &domain.size, &domain.repetitions) != 5)
		fail("the plan has a line that cannot be read: %s", line);
	for (i = 0; i < sizeof(formats) / sizeof(*formats); i++) {
		if (!strcmp(name, formats[i]))
			break;
	}
	if (i == sizeof(formats) / sizeof(*formats))
		fail("the plan names a format that does not exist: %s", name);
	domain.format = i;
	for (side = 0; side < NR_SIDES; side++) {
		struct pt_bench_run run = { .op = PT_BENCH_INIT, .format = i, .side = side };
		int fd = open("/dev/" PT_BENCH_DEVICE, O_RDWR | O_CLOEXEC);

		if (fd < 0)
			fail("/dev/" PT_BENCH_DEVICE ": %s", strerror(errno));
		if (!ioctl(fd, PT_BENCH_RUN, &run)) {
			domain.fd[side] = fd;
			continue;
		}
		if (errno != EOPNOTSUPP)
			fail("%s %s: %s", name, sides[side], strerror(errno));
		close(fd);
	}
	allocate_bitmaps();
}

/* Tells the kernel which tables to use before each of the two domains is made. */
static void open_mock(const char *line)
{
	int bench = open("/dev/" PT_BENCH_DEVICE, O_RDWR | O_CLOEXEC);
	unsigned int side;

	if (bench < 0)
		fail("/dev/" PT_BENCH_DEVICE ": %s", strerror(errno));
	close_domain();
	if (sscanf(line, "mock %llx %llx %lu", &domain.iova, &domain.size,
		   &domain.repetitions) != 3)
		fail("the plan has a line that cannot be read: %s", line);
	domain.format = AMDV1;
	domain.leaf = PAGE;
	domain.is_mock = true;
	for (side = 0; side < NR_SIDES; side++) {
		struct pt_bench_run run = { .op = PT_BENCH_MOCK, .side = side };

		if (ioctl(bench, PT_BENCH_RUN, &run))
			fail("choosing the tables of iommufd's self-test: %s", strerror(errno));
		if (mock_open(&domain.mock[side], domain.iova, domain.size))
			fail("iommufd's self-test, %s, %s: %s", sides[side],
			     domain.mock[side].doing, strerror(errno));
		domain.fd[side] = domain.mock[side].fd;
		domain.tracks[side] = true;
	}
	domain.mapped = true;
	close(bench);
	allocate_bitmaps();
}

static void mark_dirty(unsigned long leaf)
{
	unsigned long pages = domain.leaf / PAGE;
	unsigned long page;

	if (domain.dirt[leaf / 8] & (1 << (leaf % 8)))
		return;
	domain.dirt[leaf / 8] |= 1 << (leaf % 8);
	for (page = leaf * pages; page < (leaf + 1) * pages; page++)
		domain.expected[page / 8] |= 1 << (page % 8);
}

/* random PERMILLE: each leaf at random; run PERMILLE: one run, anywhere. */
static void make_dirt(const char *how, unsigned long permille)
{
	unsigned long leaves = domain.size / domain.leaf;
	unsigned long length = leaves * permille / 1000;
	unsigned long i, first = 0;

	memset(domain.dirt, 0, domain.dirt_bytes);
	memset(domain.expected, 0, domain.bitmap_bytes);
	if (!strcmp(how, "random")) {
		for (i = 0; i < leaves; i++) {
			if (random_next() % 1000 < permille)
				mark_dirty(i);
		}
		return;
	}
	if (length < leaves)
		first = random_next() % (leaves - length);
	for (i = first; i < first + length; i++)
		mark_dirty(i);
}

struct work {
	char name[32];
	char action[16];
	char how[16];
	unsigned long long number;
	unsigned long repeat;
};

static void set_dirty(unsigned int side)
{
	struct pt_bench_run run = request(PT_BENCH_SET_DIRTY);

	run.bitmap = (uintptr_t)domain.dirt;
	if (!domain.is_mock)
		ask(side, &run);
	else if (mock_set_dirty(&domain.mock[side], domain.dirt))
		fail("iommufd's self-test, %s: setting D: %s", sides[side], strerror(errno));
	memset(domain.result, 0, domain.bitmap_bytes);
}

static void compare(unsigned int side, const struct work *work, const uint8_t *expected)
{
	size_t i;

	for (i = 0; i < domain.size / PAGE / 8; i++) {
		if (domain.result[i] == expected[i])
			continue;
		fail("%s %s %s: the bitmap is wrong at byte %zu: %02x, not %02x",
		     formats[domain.format], sides[side], work->name, i,
		     domain.result[i], expected[i]);
	}
}

/* All reported leaves must be clean afterwards; not checked each time. */
static void check_clean(unsigned int side, const struct work *work)
{
	struct pt_bench_run run = request(PT_BENCH_QUERY);

	run.bitmap = (uintptr_t)domain.result;
	memset(domain.result, 0, domain.bitmap_bytes);
	memset(domain.expected, 0, domain.bitmap_bytes);
	ask(side, &run);
	compare(side, work, domain.expected);
}

static uint64_t query(unsigned int side, const struct work *work)
{
	struct pt_bench_run run = request(PT_BENCH_QUERY);
	uint64_t begin;

	set_dirty(side);
	run.bitmap = (uintptr_t)domain.result;
	run.repeat = work->repeat;
	if (!strcmp(work->action, "peek"))
		run.flags = PT_BENCH_NO_CLEAR;
	if (!strcmp(work->action, "get")) {
		run.op = PT_BENCH_GET;
		begin = now();
		ask(side, &run);
		run.ns = now() - begin;
	} else {
		ask(side, &run);
	}
	compare(side, work, domain.expected);
	return run.ns / work->repeat;
}

/* Like a VMM: one call for all. */
static uint64_t ioctl_query(unsigned int side, const struct work *work)
{
	uint64_t begin, ns;

	set_dirty(side);
	begin = now();
	if (mock_get(&domain.mock[side], domain.result))
		fail("GET_DIRTY_BITMAP, %s: %s", sides[side], strerror(errno));
	ns = now() - begin;
	compare(side, work, domain.expected);
	return ns;
}

static uint64_t simple(unsigned int side, const struct work *work, unsigned int op)
{
	struct pt_bench_run run = request(op);

	run.step = op == PT_BENCH_MAP || op == PT_BENCH_UNMAP ?
		   work->number * domain.leaf : domain.leaf;
	run.repeat = work->repeat;
	if (op == PT_BENCH_READ && work->number > 1)
		run.flags = PT_BENCH_WIDE;
	ask(side, &run);
	return run.ns / work->repeat;
}

/* One repetition on one side: nanoseconds. */
static uint64_t once(unsigned int side, const struct work *work)
{
	uint64_t ns;

	if (!strcmp(work->action, "map")) {
		/* From an empty table, and back to one. */
		ns = simple(side, work, PT_BENCH_MAP);
		do_op(side, PT_BENCH_UNMAP);
		return ns;
	}
	if (!strcmp(work->action, "unmap")) {
		do_op(side, PT_BENCH_MAP);
		ns = simple(side, work, PT_BENCH_UNMAP);
		/* A table that was emptied in pieces still exists. */
		do_op(side, PT_BENCH_MAP);
		do_op(side, PT_BENCH_UNMAP);
		return ns;
	}
	if (!strcmp(work->action, "translate"))
		return simple(side, work, PT_BENCH_TRANSLATE);
	if (!strcmp(work->action, "read"))
		return simple(side, work, PT_BENCH_READ);
	if (!strcmp(work->action, "ioctl"))
		return ioctl_query(side, work);
	return query(side, work);
}

static bool asks_for_dirt(const struct work *work)
{
	return !strcmp(work->action, "query") || !strcmp(work->action, "peek") ||
	       !strcmp(work->action, "get") || !strcmp(work->action, "ioctl");
}

static void do_work(const char *line)
{
	unsigned long leaves = domain.size / domain.leaf;
	struct work work = { .repeat = 1 };
	unsigned long repetition;

	if (sscanf(line, "work %31s %15s %15s %llu %lu", work.name, work.action,
		   work.how, &work.number, &work.repeat) < 4 || !work.repeat)
		fail("the plan has a line that cannot be read: %s", line);
	printf("WORK %s %llu %s\n", formats[domain.format], domain.size >> 20, work.name);
	fflush(stdout);
	set_mapped(strcmp(work.action, "map") && strcmp(work.action, "unmap"));
	for (repetition = 0; repetition < domain.repetitions + WARM_UP; repetition++) {
		unsigned int turn;

		if (asks_for_dirt(&work)) {
			random_state = repetition;
			make_dirt(work.how, work.number);
		}
		for (turn = 0; turn < NR_SIDES; turn++) {
			unsigned int side = (repetition + turn) % NR_SIDES;
			uint64_t ns;

			if (!has_side(side) ||
			    (asks_for_dirt(&work) && !domain.tracks[side]))
				continue;
			ns = once(side, &work);
			if (repetition >= WARM_UP)
				printf("S %s %llu %s %s %llu %lu\n",
				       formats[domain.format], domain.size >> 20,
				       work.name, sides[side],
				       (unsigned long long)ns, leaves);
			if (repetition == 0 && !strcmp(work.action, "query")) {
				check_clean(side, &work);
				make_dirt(work.how, work.number);
			}
		}
	}
}

static void count(void)
{
	unsigned int side;

	set_mapped(true);
	for (side = 0; side < NR_SIDES; side++) {
		struct pt_bench_run run = request(PT_BENCH_COUNT);

		if (!has_side(side))
			continue;
		ask(side, &run);
		printf("T %s %llu %s %llu %llu\n", formats[domain.format],
		       domain.size >> 20, sides[side],
		       (unsigned long long)run.count,
		       (unsigned long long)run.tables);
	}
}

int main(void)
{
	char line[256];
	FILE *plan;

	if (getpid() == 1) {
		mkdir("/dev", 0755);
		mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	}
	domain.fd[0] = -1;
	domain.fd[1] = -1;
	plan = fopen("/plan", "r");
	if (!plan)
		fail("/plan: %s", strerror(errno));
	while (fgets(line, sizeof(line), plan)) {
		if (!strncmp(line, "domain ", 7))
			open_domain(line);
		else if (!strncmp(line, "mock ", 5))
			open_mock(line);
		else if (!strncmp(line, "work ", 5))
			do_work(line);
		else if (!strncmp(line, "count", 5))
			count();
		else
			fail("the plan has a line that cannot be read: %s", line);
	}
	close_domain();
	end(0);
}
