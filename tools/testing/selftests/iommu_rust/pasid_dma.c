// SPDX-License-Identifier: GPL-2.0
/*
 * PASIDs of a device, each in a separate page table: a write with a PASID
 * arrives and is reported in its page table and nowhere else; and the unit
 * refuses a detached PASID.
 *
 * Takes a pasid-dma on the command line, and fails if its PASIDs are not
 * available. Uses the first and the last PASID.
 */
#include "lib/harness.h"
#include "lib/pasid.h"

#define PASID_FLAG IOMMU_HWPT_ALLOC_PASID
#define BOTH_FLAGS (IOMMU_HWPT_ALLOC_PASID | IOMMU_HWPT_ALLOC_DIRTY_TRACKING)

static const char *device_bdf;

FIXTURE(pasid_dma) {
	struct dirty_env env;
	struct dirty_env rid;
	struct dirty_env lane[2];
	u32 pasid[2];
	u32 count;
};

FIXTURE_VARIANT(pasid_dma) {
	bool rid;
};

/* The domain of the device itself: none, or a page table for PASIDs. */
FIXTURE_VARIANT_ADD(pasid_dma, alone) { .rid = false, };
FIXTURE_VARIANT_ADD(pasid_dma, beside_rid) { .rid = true, };

FIXTURE_SETUP(pasid_dma)
{
	ASSERT_EQ(NULL, pasid_env_open(&self->env, device_bdf));
	self->count = pasid_count(&self->env);
	ASSERT_NE(0, self->count);
	self->pasid[0] = 1;
	self->pasid[1] = self->count - 1;

	pasid_lane_open(&self->env, &self->rid, BOTH_FLAGS);
	for (int i = 0; i < 2; i++)
		pasid_lane_open(&self->env, &self->lane[i], BOTH_FLAGS);
	ASSERT_EQ(self->lane[0].area.region.iova, self->lane[1].area.region.iova);

	if (variant->rid)
		device_attach(&self->env.dev, self->rid.hwpt);
	else
		device_detach(&self->env.dev);
}

/* All PASIDs may still be attached: iommufd detaches them. */
FIXTURE_TEARDOWN(pasid_dma)
{
	for (int i = 0; i < 2; i++)
		__device_detach_pasid(&self->env.dev, self->pasid[i]);
	device_attach(&self->env.dev, self->env.iommu->ioas_id);

	for (int i = 0; i < 2; i++)
		pasid_lane_close(&self->lane[i]);
	pasid_lane_close(&self->rid);
	pasid_env_close(&self->env);
}

static void attach_both(FIXTURE_DATA(pasid_dma) *self)
{
	for (int i = 0; i < 2; i++)
		device_attach_pasid(&self->env.dev, self->pasid[i],
				    self->lane[i].hwpt);
}

static void track_both(FIXTURE_DATA(pasid_dma) *self, bool on)
{
	for (int i = 0; i < 2; i++)
		hwpt_set_dirty(&self->lane[i], self->lane[i].hwpt, on);
}

/* The same addresses lead to other memory with each PASID. */
TEST_F(pasid_dma, isolated)
{
	attach_both(self);
	for (int round = 0; round < 8; round++) {
		for (int i = 0; i < 2; i++) {
			pasid_write_random(&self->lane[i], self->pasid[i], 4);
			pasid_read(&self->lane[i], self->pasid[i], round);
		}
	}
	for (int i = 0; i < 2; i++)
		EXPECT_TRUE(pasid_lane_is_intact(&self->lane[i]));

	EXPECT_EQ(variant->rid ? 0 : -EFAULT,
		  __pasid_write(&self->rid, NO_PASID, 3));
}

/* The bitmap of each page table reports what was written with its PASID. */
TEST_F(pasid_dma, dirty_is_exact)
{
	attach_both(self);
	track_both(self, true);
	for (int round = 0; round < 8; round++) {
		for (int i = 0; i < 2; i++) {
			struct dirty_env *lane = &self->lane[i];

			page_set_clear(&lane->written);
			pasid_write_random(lane, self->pasid[i], 16);
			pasid_read(lane, self->pasid[i], round);
		}
		for (int i = 0; i < 2; i++) {
			struct dirty_env *lane = &self->lane[i];

			EXPECT_EXACT(dirty_ask(lane, lane->hwpt, &lane->written));
			EXPECT_EXACT(dirty_ask(lane, lane->hwpt, &lane->none));
		}
	}
}

/* A write through a translation that was cached when the page was clean. */
TEST_F(pasid_dma, same_page_again)
{
	attach_both(self);
	track_both(self, true);
	for (int i = 0; i < 2; i++)
		page_set_add(&self->lane[i].written, 5);
	for (int round = 0; round < 8; round++) {
		struct dirty_env *lane = &self->lane[round % 2];
		struct dirty_env *other = &self->lane[1 - round % 2];

		pasid_write(lane, self->pasid[round % 2], 5);
		EXPECT_EXACT(dirty_ask(other, other->hwpt, &other->none));
		EXPECT_EXACT(dirty_ask(lane, lane->hwpt, &lane->written));
		pasid_write(lane, self->pasid[round % 2], 5);
		EXPECT_EXACT(dirty_ask(lane, lane->hwpt, &lane->written));
	}
}

/* Writes of the device itself are dirty in its own page table. */
TEST_F(pasid_dma, dirty_beside_rid)
{
	struct dirty_env *rid = &self->rid;

	if (!variant->rid)
		device_attach(&self->env.dev, rid->hwpt);
	attach_both(self);
	track_both(self, true);
	hwpt_set_dirty(rid, rid->hwpt, true);
	for (int round = 0; round < 4; round++) {
		page_set_clear(&rid->written);
		page_set_clear(&self->lane[0].written);
		pasid_write_random(rid, NO_PASID, 8);
		pasid_write_random(&self->lane[0], self->pasid[0], 8);
		EXPECT_EXACT(dirty_ask(rid, rid->hwpt, &rid->written));
		EXPECT_EXACT(dirty_ask(rid, rid->hwpt, &rid->none));
		EXPECT_EXACT(dirty_ask(&self->lane[0], self->lane[0].hwpt,
				       &self->lane[0].written));
		EXPECT_EXACT(dirty_ask(&self->lane[1], self->lane[1].hwpt,
				       &self->lane[1].none));
	}
}

/* Tracking was on before the PASID was attached; off and on again while it is. */
TEST_F(pasid_dma, toggle)
{
	struct dirty_env *lane = &self->lane[1];

	track_both(self, true);
	attach_both(self);
	pasid_write_random(lane, self->pasid[1], 8);
	EXPECT_EXACT(dirty_ask(lane, lane->hwpt, &lane->written));

	pasid_write_random(lane, self->pasid[1], 8);
	track_both(self, false);
	track_both(self, true);
	EXPECT_EXACT(dirty_ask(lane, lane->hwpt, &lane->none));
	page_set_clear(&lane->written);
	pasid_write_random(lane, self->pasid[1], 8);
	EXPECT_EXACT(dirty_ask(lane, lane->hwpt, &lane->written));
}

/* Detached: refused at once, cached or not, and earlier writes stay reported. */
TEST_F(pasid_dma, detached_is_refused)
{
	struct dirty_env *lane = &self->lane[0];

	attach_both(self);
	track_both(self, true);
	for (int round = 0; round < 4; round++) {
		page_set_clear(&lane->written);
		pasid_write_random(lane, self->pasid[0], 4);
		page_set_add(&lane->written, 9);
		pasid_write(lane, self->pasid[0], 9);
		device_detach_pasid(&self->env.dev, self->pasid[0]);

		EXPECT_EQ(-EFAULT, __pasid_write(lane, self->pasid[0], 9));
		EXPECT_EQ(-EFAULT, __pasid_read(lane, self->pasid[0], 9));
		pasid_write(&self->lane[1], self->pasid[1], 9);
		EXPECT_EXACT(dirty_ask(lane, lane->hwpt, &lane->written));

		device_attach_pasid(&self->env.dev, self->pasid[0], lane->hwpt);
		EXPECT_EXACT(dirty_ask(lane, lane->hwpt, &lane->none));
	}
	device_detach_pasid(&self->env.dev, self->pasid[0]);
	device_detach_pasid(&self->env.dev, self->pasid[1]);
	for (int i = 0; i < 2; i++)
		EXPECT_EQ(-EFAULT, __pasid_write(&self->lane[i], self->pasid[i], 9));
	EXPECT_EQ(variant->rid ? 0 : -EFAULT,
		  __pasid_write(&self->rid, NO_PASID, 9));
}

/* PASIDs that are not attached, next to one that is. */
TEST_F(pasid_dma, others_are_refused)
{
	device_attach_pasid(&self->env.dev, 2, self->lane[0].hwpt);
	pasid_write(&self->lane[0], 2, 0);
	for (u32 pasid = 1; pasid < self->count; pasid = pasid * 2 + 1) {
		EXPECT_EQ(-EFAULT, __pasid_write(&self->lane[0], pasid, 0));
		EXPECT_EQ(-EFAULT, __pasid_read(&self->lane[0], pasid, 0));
	}
	pasid_write(&self->lane[0], 2, 1);
	device_detach_pasid(&self->env.dev, 2);
}

/* Moved to another page table without a gap: nothing stale is used. */
TEST_F(pasid_dma, replaced)
{
	u32 pasid = self->pasid[1];

	track_both(self, true);
	device_attach_pasid(&self->env.dev, pasid, self->lane[1].hwpt);
	for (int round = 0; round < 8; round++) {
		struct dirty_env *lane = &self->lane[round % 2];
		struct dirty_env *other = &self->lane[1 - round % 2];

		device_attach_pasid(&self->env.dev, pasid, lane->hwpt);
		page_set_clear(&lane->written);
		page_set_add(&lane->written, 7);
		pasid_write(lane, pasid, 7);
		pasid_write_random(lane, pasid, 4);
		EXPECT_EXACT(dirty_ask(lane, lane->hwpt, &lane->written));
		EXPECT_EXACT(dirty_ask(other, other->hwpt, &other->none));
	}
}

/* Two PASIDs, and the device itself, in one page table. */
TEST_F(pasid_dma, one_page_table)
{
	struct dirty_env *lane = &self->lane[0];

	device_attach(&self->env.dev, lane->hwpt);
	for (int i = 0; i < 2; i++)
		device_attach_pasid(&self->env.dev, self->pasid[i], lane->hwpt);
	hwpt_set_dirty(lane, lane->hwpt, true);
	for (int round = 0; round < 4; round++) {
		page_set_clear(&lane->written);
		page_set_add(&lane->written, 3);
		for (int i = 0; i < 2; i++) {
			pasid_write(lane, self->pasid[i], 3);
			pasid_write_random(lane, self->pasid[i], 4);
		}
		pasid_write(lane, NO_PASID, 3);
		EXPECT_EXACT(dirty_ask(lane, lane->hwpt, &lane->written));

		/* The flush must reach each of the three. */
		page_set_clear(&lane->written);
		page_set_add(&lane->written, 3);
		pasid_write(lane, round == 3 ? NO_PASID : self->pasid[round % 2], 3);
		EXPECT_EXACT(dirty_ask(lane, lane->hwpt, &lane->written));
	}

	device_detach_pasid(&self->env.dev, self->pasid[0]);
	pasid_write(lane, self->pasid[1], 3);
	EXPECT_EQ(-EFAULT, __pasid_write(lane, self->pasid[0], 3));
	device_detach_pasid(&self->env.dev, self->pasid[1]);
	pasid_write(lane, NO_PASID, 3);
	device_detach(&self->env.dev);
	EXPECT_EQ(-EFAULT, __pasid_write(lane, NO_PASID, 3));
}

/* No PASID can reach unmapped memory, cached or not. */
TEST_F(pasid_dma, unmapped_is_refused)
{
	struct dirty_env *lane = &self->lane[0];

	for (int i = 0; i < 2; i++)
		device_attach_pasid(&self->env.dev, self->pasid[i], lane->hwpt);
	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < 2; i++)
			pasid_write(lane, self->pasid[i], 11);
		iommu_unmap(lane->iommu, &lane->area.region);
		for (int i = 0; i < 2; i++)
			EXPECT_EQ(-EFAULT, __pasid_write(lane, self->pasid[i], 11));
		iommu_map(lane->iommu, &lane->area.region);
		dirty_area_remap(lane, &lane->area);
		for (int i = 0; i < 2; i++)
			pasid_write(lane, self->pasid[i], 11);
	}
}

/* The device itself moves to another page table; its PASIDs are not affected. */
TEST_F(pasid_dma, rid_comes_and_goes)
{
	struct dirty_env *rid = &self->rid;

	attach_both(self);
	track_both(self, true);
	for (int round = 0; round < 4; round++) {
		device_attach(&self->env.dev, rid->hwpt);
		pasid_write(rid, NO_PASID, 1);
		for (int i = 0; i < 2; i++)
			pasid_write_random(&self->lane[i], self->pasid[i], 2);

		device_attach(&self->env.dev, self->lane[0].hwpt);
		page_set_add(&self->lane[0].written, 1);
		pasid_write(&self->lane[0], NO_PASID, 1);
		for (int i = 0; i < 2; i++)
			pasid_write_random(&self->lane[i], self->pasid[i], 2);

		device_detach(&self->env.dev);
		EXPECT_EQ(-EFAULT, __pasid_write(rid, NO_PASID, 1));
		for (int i = 0; i < 2; i++) {
			struct dirty_env *lane = &self->lane[i];

			pasid_write_random(lane, self->pasid[i], 2);
			EXPECT_EXACT(dirty_ask(lane, lane->hwpt, &lane->written));
			page_set_clear(&lane->written);
		}
	}
}

/* A reset of the device blocks its PASIDs and puts them back. */
TEST_F(pasid_dma, reset)
{
	attach_both(self);
	track_both(self, true);
	pasid_write_random(&self->lane[0], self->pasid[0], 4);

	vfio_pci_device_reset(self->env.dev.pci);
	vfio_pci_cmd_set(self->env.dev.pci, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);

	for (int i = 0; i < 2; i++) {
		struct dirty_env *lane = &self->lane[i];

		pasid_write_random(lane, self->pasid[i], 4);
		EXPECT_EXACT(dirty_ask(lane, lane->hwpt, &lane->written));
	}
}

/*
 * PASIDs that are attached when the device is closed are detached when it is opened
 * again.
 */
TEST_F(pasid_dma, closed)
{
	attach_both(self);
	pasid_write(&self->lane[0], self->pasid[0], 2);
	pasid_write(&self->lane[0], self->pasid[0], 2);

	dirty_dev_close(&self->env, &self->env.dev);
	dirty_dev_open(&self->env, &self->env.dev, device_bdf);
	vfio_pci_cmd_set(self->env.dev.pci, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	for (int i = 0; i < 2; i++) {
		self->lane[i].dev = self->env.dev;
		EXPECT_EQ(-EFAULT, __pasid_write(&self->lane[i], self->pasid[i], 2));
	}
	self->rid.dev = self->env.dev;
}

/* What the ioctls refuse; a refused call changes nothing. */
TEST_F(pasid_dma, refusals)
{
	struct dirty_dev *dev = &self->env.dev;
	u32 plain;

	plain = hwpt_alloc(&self->lane[0], 0);
	EXPECT_EQ(-EINVAL, __device_attach_pasid(dev, self->pasid[0], plain));
	EXPECT_EQ(-EINVAL, __device_attach_pasid(dev, self->count,
						 self->lane[0].hwpt));
	EXPECT_EQ(-EFAULT, __pasid_write(&self->lane[0], self->pasid[0], 0));

	/* The device itself in a page table that is not for PASIDs. */
	device_attach(dev, plain);
	EXPECT_EQ(-EINVAL, __device_attach_pasid(dev, self->pasid[0],
						 self->lane[0].hwpt));
	pasid_write(&self->lane[0], NO_PASID, 0);
	EXPECT_EQ(-EFAULT, __pasid_write(&self->lane[0], self->pasid[0], 0));

	/* It cannot be attached to one while PASIDs are attached. */
	device_attach(dev, self->rid.hwpt);
	attach_both(self);
	EXPECT_EQ(-EINVAL, __device_attach(dev, plain));
	pasid_write(&self->rid, NO_PASID, 0);
	for (int i = 0; i < 2; i++)
		pasid_write(&self->lane[i], self->pasid[i], 0);

	iommufd_destroy(&self->lane[0], plain);
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
