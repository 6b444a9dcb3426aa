// SPDX-License-Identifier: GPL-2.0
/*
 * A message-signalled interrupt that a device forges by a write with a PASID. No domain of a
 * PASID maps the range of interrupts, and no interrupt may come of it: neither where the PASID
 * has a page table nor where it has none.
 *
 * With the argument "open" the test expects the opposite, as forged_msi does: the emulator takes
 * a write to the range as an interrupt also if it has a PASID.
 *
 * Takes a pasid-dma on the command line.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "lib/harness.h"
#include "lib/interrupts.h"
#include "lib/pasid.h"

#define MSI_ADDRESS 0xfee00000ULL
/* See forged_msi. */
#define MSI_DATA 0xedU

static const char *device_bdf;
static bool is_open;

FIXTURE(forged_msi_pasid) {
	struct dirty_env env;
	struct dirty_env lane;
	long before;
};

FIXTURE_VARIANT(forged_msi_pasid) {
	u32 pasid;
	bool attached;
};

FIXTURE_VARIANT_ADD(forged_msi_pasid, with_domain) { .pasid = 1, .attached = true, };
FIXTURE_VARIANT_ADD(forged_msi_pasid, without_domain) { .pasid = 2, .attached = false, };
FIXTURE_VARIANT_ADD(forged_msi_pasid, without_pasid) { .pasid = NO_PASID, .attached = true, };

FIXTURE_SETUP(forged_msi_pasid)
{
	ASSERT_EQ(NULL, pasid_env_open(&self->env, device_bdf));
	ASSERT_LT(2, pasid_count(&self->env));
	pasid_lane_open(&self->env, &self->lane, IOMMU_HWPT_ALLOC_PASID);
	device_attach(&self->env.dev, self->lane.hwpt);
	device_attach_pasid(&self->env.dev, 1, self->lane.hwpt);
	self->before = interrupts_counted("SPU");
	ASSERT_LE(0, self->before);
}

FIXTURE_TEARDOWN(forged_msi_pasid)
{
	device_detach_pasid(&self->env.dev, 1);
	device_attach(&self->env.dev, self->env.iommu->ioas_id);
	pasid_lane_close(&self->lane);
	pasid_env_close(&self->env);
}

TEST_F(forged_msi_pasid, interrupts_none)
{
	int ret = __pasid_write_word(&self->env, variant->pasid, MSI_ADDRESS, MSI_DATA);
	long came;

	usleep(20000);
	came = interrupts_counted("SPU") - self->before;
	if (is_open) {
		EXPECT_EQ(0, ret);
		EXPECT_EQ(1, came);
	} else {
		EXPECT_EQ(-EFAULT, ret);
		EXPECT_EQ(0, came);
	}

	/* The PASIDs are what they were. */
	EXPECT_EQ(variant->attached ? 0 : -EFAULT,
		  __pasid_write(&self->lane, variant->pasid, 1));
	pasid_write(&self->lane, 1, 2);
	pasid_write(&self->lane, NO_PASID, 3);
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);
	is_open = argc > 1 && !strcmp(argv[1], "open");

	return test_harness_run(is_open ? 1 : argc, argv);
}
