/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a Rust driver shows in debugfs and says by tracepoints.
 */
#ifndef SELFTESTS_IOMMU_RUST_LIB_OBSERVE_H
#define SELFTESTS_IOMMU_RUST_LIB_OBSERVE_H

#include "dirty.h"

/**
 * struct trace_sum - The events of a domain since trace_begin()
 * @queries: events iommu_harvest
 * @no_clear: those of queries that clear nothing
 * @dirty: bytes that these report
 * @cleared: bytes of ranges in which they have made leaves clean
 * @cleared_first: the lowest address of these, and
 * @cleared_last: the highest
 * @time: nanoseconds that they took
 * @on: events iommu_tracking that say "on", and
 * @off: those that say "off"
 * @failed: events of either kind with an error
 */
struct trace_sum {
	u64 queries;
	u64 no_clear;
	u64 dirty;
	u64 cleared;
	u64 cleared_first;
	u64 cleared_last;
	u64 time;
	u64 on;
	u64 off;
	u64 failed;
};

/* The directory of the driver that is loaded, or NULL. */
const char *observe_driver(void);

/* The domain with dirty tracking that was made last; ends the test if there is none. */
u64 observe_last_domain(void);

/* The unit of a device, as its file names it; ends the test if there is none. */
const char *observe_unit(const char *bdf);

/* Reads a file below the driver's directory; ends the test if it is not there. */
const char *observe_read(const char *fmt, ...);

/* Writes a number to it. */
void observe_write(u64 number, const char *fmt, ...);

/* The number behind "NAME: " at the start of a line; ends the test if there is no such line. */
u64 observe_number(const char *text, const char *name);

/* How many leaves of a size ("4 KiB") a domain has, and how many of these are dirty. */
u64 observe_leaves(u64 domain, const char *size);
u64 observe_dirty_leaves(u64 domain, const char *size);

/* Forgets all events, and traces those of the drivers from now on, or not. */
void trace_begin(void);
void trace_end(void);
struct trace_sum trace_of(u64 domain);

/* How many events have that name. */
u64 trace_count(const char *event);

#endif /* SELFTESTS_IOMMU_RUST_LIB_OBSERVE_H */
