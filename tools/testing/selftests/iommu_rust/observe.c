// SPDX-License-Identifier: GPL-2.0
/*
 * What an operator sees of a driver is what has happened: the counters, the events, the
 * leaves and the translations of a domain that a device writes to.
 *
 *   observe BDF
 */
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/harness.h"
#include "lib/leaves.h"
#include "lib/observe.h"

/* Where dirty-rate reads events, apart from those that this test traces. */
#define SCRIPT_TRACES "/sys/kernel/tracing/instances/dirty-rate-*"

static const char *device_bdf;

FIXTURE(observe) {
	struct dirty_env env;
	u64 domain;
};

FIXTURE_SETUP(observe)
{
	const char *skip;

	if (!observe_driver())
		SKIP(return, "no Rust driver is loaded");
	skip = dirty_env_open(&self->env, device_bdf, PAGE_4K);
	if (skip)
		SKIP(return, "%s", skip);
	self->domain = observe_last_domain();
	trace_begin();
}

FIXTURE_TEARDOWN(observe)
{
	u64 domain = self->domain;
	char path[128];

	trace_end();
	dirty_env_close(&self->env);
	/* The files go with their domain. */
	snprintf(path, sizeof(path), "%s/domains/%lu", observe_driver(), domain);
	EXPECT_NE(0, access(path, F_OK));
}

/* Everything that is counted of a domain. */
struct counters {
	u64 queries;
	u64 no_clear;
	u64 failed;
	u64 dirty;
	u64 time;
	u64 flushes;
	u64 failed_flushes;
	u64 switches;
};

static struct counters counters_of(u64 domain)
{
	const char *text = observe_read("domains/%lu/counters", domain);

	return (struct counters){
		.queries = observe_number(text, "queries"),
		.no_clear = observe_number(text, "queries without clearing"),
		.failed = observe_number(text, "failed queries"),
		.dirty = observe_number(text, "dirty"),
		.time = observe_number(text, "time in queries"),
		.flushes = observe_number(text, "flushes"),
		.failed_flushes = observe_number(text, "failed flushes"),
		.switches = observe_number(text, "switches of tracking"),
	};
}

/* Counters and events say the same, and it is what the device and the queries did. */
TEST_F(observe, queries)
{
	struct dirty_env *env = &self->env;
	struct dirty_area *area = &env->area;
	struct dirty_query look = query_all(area), all = query_all(area);
	struct counters before = counters_of(self->domain), after;
	const u64 pages[] = { 3, 4, 5, 64, area->nr_pages - 1 };
	const u64 bytes = ARRAY_SIZE(pages) * PAGE_4K;
	struct trace_sum sum, total;

	look.flags = IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR;
	EXPECT_NE(NULL, strstr(observe_read("domains/%lu/state", self->domain), "tracking: off\n"));

	/* It begins with queries that clear, and report nothing. */
	hwpt_set_dirty(env, env->hwpt, true);
	total = trace_of(self->domain);
	EXPECT_EQ(1, total.on);
	EXPECT_EQ(0, total.off);
	EXPECT_EQ(0, total.dirty);
	EXPECT_EQ(0, total.no_clear);
	EXPECT_NE(NULL, strstr(observe_read("domains/%lu/state", self->domain), "tracking: on\n"));

	for (u64 i = 0; i < ARRAY_SIZE(pages); i++)
		dirty_write_page(env, pages[i]);

	/* Twice the same, since nothing is cleared. */
	for (int i = 1; i <= 2; i++) {
		trace_begin();
		EXPECT_EXACT(dirty_query(env, env->hwpt, area, look, &env->written));
		sum = trace_of(self->domain);
		EXPECT_EQ(1, sum.queries);
		EXPECT_EQ(1, sum.no_clear);
		EXPECT_EQ(bytes, sum.dirty);
		EXPECT_EQ(0, sum.cleared);
		total.queries += sum.queries;
		total.time += sum.time;
	}

	trace_begin();
	EXPECT_EXACT(dirty_harvest(env, all));
	sum = trace_of(self->domain);
	EXPECT_EQ(1, sum.queries);
	EXPECT_EQ(0, sum.no_clear);
	EXPECT_EQ(bytes, sum.dirty);
	EXPECT_EQ(area->region.iova + 3 * PAGE_4K, sum.cleared_first);
	EXPECT_EQ(area->region.iova + area->region.size - 1, sum.cleared_last);
	EXPECT_EQ(sum.cleared_last - sum.cleared_first + 1, sum.cleared);
	total.queries += sum.queries;
	total.time += sum.time;

	/* Nothing is left. */
	trace_begin();
	EXPECT_EXACT(dirty_harvest(env, all));
	hwpt_set_dirty(env, env->hwpt, false);
	sum = trace_of(self->domain);
	EXPECT_EQ(0, sum.dirty);
	EXPECT_EQ(0, sum.cleared);
	EXPECT_EQ(0, sum.on);
	EXPECT_EQ(1, sum.off);
	total.queries += sum.queries;
	total.time += sum.time;

	after = counters_of(self->domain);
	EXPECT_EQ(total.queries, after.queries - before.queries);
	EXPECT_EQ(2, after.no_clear - before.no_clear);
	EXPECT_EQ(3 * bytes, after.dirty - before.dirty);
	EXPECT_EQ(total.time, after.time - before.time);
	EXPECT_LT(0, after.time - before.time);
	EXPECT_EQ(2, after.switches - before.switches);
	EXPECT_LT(before.flushes, after.flushes);
	EXPECT_EQ(0, after.failed);
	EXPECT_EQ(0, after.failed_flushes);
}

/* What is not enabled says nothing. */
TEST_F(observe, silence)
{
	trace_end();
	trace_begin();
	trace_end();
	hwpt_set_dirty(&self->env, self->env.hwpt, true);
	EXPECT_EXACT(dirty_harvest(&self->env, query_all(&self->env.area)));
	EXPECT_EQ(0, trace_count("iommu_harvest"));
	EXPECT_EQ(0, trace_count("iommu_tracking"));
}

/* As many leaves as are mapped, of their size, and as many dirty ones as were written. */
TEST_F(observe, leaves_by_size)
{
	struct dirty_env *env = &self->env;
	u64 domain = self->domain, small, dirty, large;
	struct dirty_area area;
	void *huge;

	hwpt_set_dirty(env, env->hwpt, true);
	/* The function writes to its ring as well: that page is dirty from now on. */
	dirty_write_page(env, 100);
	dirty = observe_dirty_leaves(domain, "4 KiB");
	for (u64 page = 0; page < 7; page++)
		dirty_write_page(env, 5 * page);
	EXPECT_EQ(dirty + 7, observe_dirty_leaves(domain, "4 KiB"));
	EXPECT_EXACT(dirty_harvest(env, query_part(0, 6)));
	EXPECT_EQ(dirty + 5, observe_dirty_leaves(domain, "4 KiB"));

	/* By pages, so that none are joined. */
	leaves_place(&area, leaves_alloc(PAGE_4K, SZ_64K),
		     iova_allocator_alloc(env->iova, SZ_64K), SZ_64K, PAGE_4K);
	small = observe_leaves(domain, "4 KiB");
	leaves_map_pages(env, &area);
	EXPECT_EQ(small + 16, observe_leaves(domain, "4 KiB"));
	EXPECT_EQ(0, __iommu_unmap(env->iommu, &area.region, NULL));
	EXPECT_EQ(small, observe_leaves(domain, "4 KiB"));

	huge = mmap(NULL, SZ_2M, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	ASSERT_NE(MAP_FAILED, huge);
	leaves_place(&area, huge, iova_allocator_alloc(env->iova, SZ_2M), SZ_2M, SZ_2M);
	large = observe_leaves(domain, "2 MiB");
	ASSERT_EQ(0, __ioas_huge_pages(env->iommu->iommufd, env->iommu->ioas_id, true));
	leaves_map(env, &area);
	EXPECT_EQ(large + 1, observe_leaves(domain, "2 MiB"));
	EXPECT_EQ(small, observe_leaves(domain, "4 KiB"));
	leaves_unmap(env, &area);
	EXPECT_EQ(large, observe_leaves(domain, "2 MiB"));
}

/* Whether the way ends at memory, and where. */
static bool leads_to(const char *text, u64 *physical)
{
	const char *line = strstr(text, "\nphysical address ");

	if (line)
		*physical = strtoull(line + strlen("\nphysical address "), NULL, 0);

	return line;
}

/* To the memory that is mapped, by a leaf that is as the device has left it. */
TEST_F(observe, translate)
{
	struct dirty_env *env = &self->env;
	struct dirty_area *area = &env->area;
	u64 physical, page = 9;
	const char *text;

	hwpt_set_dirty(env, env->hwpt, true);
	for (int written = 0; written < 3; written++) {
		/* Written, and harvested. */
		if (written == 1)
			dirty_write_page(env, page);
		if (written == 2)
			EXPECT_EXACT(dirty_harvest(env, query_all(area)));
		observe_write(area->region.iova + page * PAGE_4K + 0x123,
			      "domains/%lu/translate", self->domain);
		text = observe_read("domains/%lu/translate", self->domain);
		ASSERT_TRUE(leads_to(text, &physical));
		EXPECT_EQ(leaves_physical(dirty_area_page(area, page)) + 0x123, physical);
		EXPECT_NE(NULL, strstr(text, "leaf of 4 KiB at "));
		EXPECT_NE(NULL, strstr(text, written == 1 ? ", writable, dirty\n" :
							    ", writable, clean\n"));
	}

	observe_write(area->region.iova + area->region.size, "domains/%lu/translate", self->domain);
	text = observe_read("domains/%lu/translate", self->domain);
	EXPECT_FALSE(leads_to(text, &physical));
	EXPECT_NE(NULL, strstr(text, "\nnot mapped\n"));
	observe_write(-1ULL, "domains/%lu/translate", self->domain);
	text = observe_read("domains/%lu/translate", self->domain);
	EXPECT_NE(NULL, strstr(text, "address 0xffffffffffffffff\n"));
	EXPECT_FALSE(leads_to(text, &physical));
}

/* A device names its domain, and a domain its device; a unit counts what it is told. */
TEST_F(observe, device_and_unit)
{
	struct dirty_env *env = &self->env;
	char want[64];
	const char *text, *unit;
	u64 before;

	snprintf(want, sizeof(want), "attached: %s\n", device_bdf);
	EXPECT_NE(NULL, strstr(observe_read("domains/%lu/state", self->domain), want));
	snprintf(want, sizeof(want), "attached: domain %lu\n", self->domain);
	text = observe_read("devices/%s/state", device_bdf);
	EXPECT_NE(NULL, strstr(text, want));

	unit = observe_unit(device_bdf);
	if (dirty_switch(env) == DIRTY_SWITCHED) {
		EXPECT_NE(NULL, strstr(text, "dirty flags off"));
		hwpt_set_dirty(env, env->hwpt, true);
		text = observe_read("devices/%s/state", device_bdf);
		EXPECT_NE(NULL, strstr(text, "dirty flags on"));
	}
	text = observe_read("units/%s/state", unit);
	EXPECT_NE(NULL, strstr(text, "translation: on\n"));
	EXPECT_NE(NULL, strstr(text, "dead: no\n"));
	EXPECT_NE(NULL, strstr(observe_read("units/%s/caps", unit), ", tracks dirty pages\n"));

	before = observe_number(observe_read("units/%s/counters", unit),
				"batches of invalidations");
	device_detach(&env->dev);
	text = observe_read("devices/%s/state", device_bdf);
	EXPECT_NE(NULL, strstr(text, "attached: nothing, requests are refused\n"));
	device_attach(&env->dev, env->hwpt);
	text = observe_read("units/%s/counters", unit);
	EXPECT_LT(before, observe_number(text, "batches of invalidations"));
	EXPECT_EQ(0, observe_number(text, "batches refused and run again"));
}

/* A write to where nothing is mapped is refused, and counted by the driver that hears of it. */
TEST_F(observe, faults)
{
	struct dirty_env *env = &self->env;
	struct dirty_area nowhere = env->area;
	u64 before, after;
	const char *unit;
	bool is_shared;
	int looks;

	unit = observe_unit(device_bdf);
	is_shared = strstr(observe_read("units/%s/state", unit), "queue: shared");
	before = observe_number(observe_read("units/%s/counters", unit), "faults");
	nowhere.region.iova += nowhere.region.size;
	EXPECT_NE(0, __dirty_write(&env->dev, &nowhere, 3));

	/*
	 * The driver looks every half a second, so nothing is counted later than that. Where
	 * something has to be counted the machine may be slow.
	 */
	looks = is_shared ? 70 : 200;
	for (int look = 0; look < looks; look++) {
		after = observe_number(observe_read("units/%s/counters", unit), "faults");
		if (after != before)
			break;
		usleep(10000);
	}
	EXPECT_EQ(!is_shared, before < after);
	EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
}

/* What the script says of a domain, over all seconds. */
struct rate {
	u64 queries;
	double dirty_mib;
};

static struct rate rate_of(FILE *output, u64 domain)
{
	struct rate rate = {};
	char line[128];

	while (fgets(line, sizeof(line), output)) {
		unsigned long long number, queries;
		double dirty, time;

		/* The header has no number. */
		if (sscanf(line, "%llu %llu %lf %lf", &number, &queries, &dirty, &time) != 4)
			continue;
		if (number != domain)
			continue;
		rate.queries += queries;
		rate.dirty_mib += dirty;
	}
	return rate;
}

static bool script_listens(void)
{
	bool listens = false;
	glob_t found;

	if (!glob(SCRIPT_TRACES "/events/rust_iommu/iommu_harvest/enable", 0, NULL, &found)) {
		FILE *file = fopen(found.gl_pathv[0], "r");

		listens = file && fgetc(file) == '1';
		if (file)
			fclose(file);
	}
	globfree(&found);

	return listens;
}

/* dirty-rate shows what the device has written between the queries, no more and no less. */
TEST_F(observe, dirty_rate)
{
	const u64 rounds = 5, pages_each = 64;
	struct dirty_env *env = &self->env;
	struct rate rate;
	FILE *output;

	if (access("/bin/dirty-rate", X_OK))
		SKIP(return, "dirty-rate is not installed");
	hwpt_set_dirty(env, env->hwpt, true);
	/* Four seconds: time for the device, on a machine with other work. */
	output = popen("dirty-rate 4", "r");
	ASSERT_NE(NULL, output);
	for (int wait = 0; wait < 500 && !script_listens(); wait++)
		usleep(10000);
	ASSERT_TRUE(script_listens());

	for (u64 round = 0; round < rounds; round++) {
		for (u64 page = 0; page < pages_each; page++)
			dirty_write_page(env, page * 3);
		EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
	}

	rate = rate_of(output, self->domain);
	EXPECT_EQ(0, pclose(output));
	EXPECT_EQ(rounds, rate.queries);
	/* In hundredths, as it is printed: each second may be rounded. */
	EXPECT_LE(rounds * pages_each * PAGE_4K * 100 / SZ_1M - 4, rate.dirty_mib * 100);
	EXPECT_GE(rounds * pages_each * PAGE_4K * 100 / SZ_1M + 4, rate.dirty_mib * 100);
	/* It has left nothing behind. */
	EXPECT_FALSE(script_listens());
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
