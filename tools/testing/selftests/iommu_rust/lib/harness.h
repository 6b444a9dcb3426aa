/* SPDX-License-Identifier: GPL-2.0 */
/*
 * kselftest_harness.h, and the checks of these tests.
 *
 * Each test declares its own fixture, as upstream's do, although many are
 * alike: a variant for each leaf size, an environment that is opened and
 * closed.
 */
#ifndef SELFTESTS_IOMMU_RUST_LIB_HARNESS_H
#define SELFTESTS_IOMMU_RUST_LIB_HARNESS_H

#include "kselftest_harness.h"

#include "dirty.h"
#include "report.h"

/* An emulated machine without KVM on a busy host is slow. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 300

/* The bitmap reports exactly what the device wrote. */
#define EXPECT_EXACT(_report) do {		\
	struct dirty_report __r = (_report);	\
						\
	EXPECT_EQ(0, __r.missing);		\
	EXPECT_EQ(0, __r.extra);		\
	EXPECT_EQ(0, __r.stray);		\
} while (0)

/*
 * A known difference of another driver: the test goes on, and ends as an
 * expected failure with this reason, unless it fails for another one. It is
 * listed, and never counted as passed.
 */
#define KNOWN_DIFFERENCE(fmt, ...) do {					\
	snprintf(_metadata->results->reason,				\
		 sizeof(_metadata->results->reason), fmt, ##__VA_ARGS__); \
	if (_metadata->exit_code != KSFT_FAIL)				\
		_metadata->exit_code = KSFT_XFAIL;			\
} while (0)

#endif /* SELFTESTS_IOMMU_RUST_LIB_HARNESS_H */
