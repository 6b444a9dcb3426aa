// SPDX-License-Identifier: GPL-2.0
/*
 * A message-signalled interrupt that a device forges: a write to 0xfee00000, which
 * no page table translates (VT-d specification, 3.14).
 *
 * With interrupt remapping the unit refuses it, and the kernel logs that, whichever page
 * table the device is attached to; no CPU is interrupted. With the argument "open" the test
 * expects the opposite: a machine without remapping, where the message interrupts.
 *
 * One device is attached to a page table. Another one has no driver and the identity as its
 * default domain, and does what it is told through its registers in sysfs.
 *
 * The kernel uses the vector on Hyper-V only, so it counts each such interrupt as a
 * spurious one. (It does not acknowledge vector 0xff, which then blocks the CPU.)
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/edu.h"
#include "lib/harness.h"
#include "lib/interrupts.h"
#include "lib/leaves.h"

/* Physical destination, CPU 0; compatibility format; further words go there too. */
#define MSI_ADDRESS 0xfee00000ULL
/* Remappable format, with the handles from 0 on. */
#define MSI_REMAPPABLE 0xfee00010ULL
/* Fixed delivery, edge, and the vector HYPERV_STIMER0_VECTOR. */
#define MSI_DATA 0xedU
/* The same, but delivered as NMI, which has no vector. */
#define MSI_NMI (MSI_DATA | 4 << 8)
/* What the DMA engine writes at least, in words. */
#define WORDS 16

static const char *device_bdf;
static bool is_open;

/* What the kernel says of a message that the unit refuses, in each of two formats. */
struct refusal {
	const char *compatibility;
	const char *remappable;
};

/* Reason 25h: it was blocked. */
static const struct refusal vtd = { "fault reason 0x25", "INTR-REMAP" };
/* The message names an entry of the device's table that is not in use. */
static const struct refusal amdvi = {
	"the interrupt is not allowed",
	"the interrupt is not allowed",
};

static const struct refusal *refusal(void)
{
	return access("/sys/firmware/acpi/tables/IVRS", F_OK) ? &vtd : &amdvi;
}

FIXTURE(forged_msi) {
	struct dirty_env env;
	long before;
	int kmsg;
};

FIXTURE_SETUP(forged_msi)
{
	struct dirty_env *env = &self->env;
	u32 *words;

	env->iommu = iommu_init(MODE_IOMMUFD);
	dirty_dev_open(env, &env->dev, device_bdf);
	ASSERT_EQ(NULL, dirty_area_map(env, &env->area, PAGE_4K, SZ_2M));
	env->written = page_set_alloc(&env->area);
	env->hwpt = hwpt_alloc(env, 0);
	device_attach(&env->dev, env->hwpt);
	vfio_pci_driver_init(env->dev.pci);

	words = dirty_area_page(&env->area, 0);
	for (int word = 0; word < WORDS; word++)
		words[word] = MSI_DATA;
	/* Those of earlier tests count too. */
	sleep(SECONDS_OF_FAULTS + 1);
	self->before = interrupts_counted("SPU");
	ASSERT_LE(0, self->before);
	self->kmsg = kernel_log_open();
}

FIXTURE_TEARDOWN(forged_msi)
{
	close(self->kmsg);
	dirty_env_close(&self->env);
}

/* Has the device write the words to @target. Returns how many interrupts came of it. */
static long forge(struct dirty_env *env, long before, u64 target)
{
	struct vfio_pci_device *pci = env->dev.pci;

	/* The engine may report the write that the unit refuses. */
	vfio_pci_driver_memcpy_start(pci, env->area.region.iova, target, WORDS * sizeof(u32), 1);
	vfio_pci_driver_memcpy_wait(pci);
	usleep(20000);

	return interrupts_counted("SPU") - before;
}

TEST_F(forged_msi, compatibility_format)
{
	long came = forge(&self->env, self->before, MSI_ADDRESS);

	if (is_open) {
		EXPECT_LT(0, came);
	} else {
		EXPECT_EQ(0, came);
		EXPECT_TRUE(kernel_says(self->kmsg, refusal()->compatibility));
	}
}

/* It names an entry that belongs to another device, or that is not present. */
TEST_F(forged_msi, remappable_format)
{
	if (is_open)
		SKIP(return, "no entry to name: interrupts are not remapped");
	EXPECT_EQ(0, forge(&self->env, self->before, MSI_REMAPPABLE));
	EXPECT_TRUE(kernel_says(self->kmsg, refusal()->remappable));
}

/* On an open machine the kernel would take it for an error of the hardware. */
TEST_F(forged_msi, nmi)
{
	u32 *words = dirty_area_page(&self->env.area, 0);
	long before = interrupts_counted("NMI");

	if (is_open)
		SKIP(return, "the CPU would get the NMI");
	for (int word = 0; word < WORDS; word++)
		words[word] = MSI_NMI;
	EXPECT_EQ(0, forge(&self->env, self->before, MSI_ADDRESS));
	EXPECT_EQ(before, interrupts_counted("NMI"));
	EXPECT_TRUE(kernel_says(self->kmsg, refusal()->compatibility));
}

/* The device goes on: what it is refused does not stop it. */
TEST_F(forged_msi, writes_memory_afterwards)
{
	forge(&self->env, self->before, MSI_ADDRESS);
	dirty_write_random(&self->env, 4);
}

FIXTURE(forged_msi_identity) {
	struct edu_sysfs edu;
	u32 *word;
	u64 physical;
	long before;
	int kmsg;
};

FIXTURE_SETUP(forged_msi_identity)
{
	u32 *copy;

	ASSERT_EQ(NULL, edu_sysfs_open(&self->edu));
	self->word = leaves_alloc(PAGE_4K, PAGE_4K);
	ASSERT_EQ(0, mlock(self->word, PAGE_4K));
	self->word[0] = MSI_DATA;
	self->physical = leaves_physical(self->word);

	/* It reaches memory at its physical address: nothing translates. */
	copy = &self->word[WORDS];
	edu_sysfs_copy(&self->edu, self->physical, self->physical + WORDS * sizeof(u32),
		       sizeof(u32));
	ASSERT_EQ(MSI_DATA, READ_ONCE(*copy));

	sleep(SECONDS_OF_FAULTS + 1);
	self->before = interrupts_counted("SPU");
	ASSERT_LE(0, self->before);
	self->kmsg = kernel_log_open();
}

FIXTURE_TEARDOWN(forged_msi_identity)
{
	close(self->kmsg);
	munmap(self->word, PAGE_4K);
	edu_sysfs_close(&self->edu);
}

static long forge_by_edu(FIXTURE_DATA(forged_msi_identity) *self, u64 target)
{
	edu_sysfs_copy(&self->edu, self->physical, target, sizeof(u32));
	usleep(20000);

	return interrupts_counted("SPU") - self->before;
}

TEST_F(forged_msi_identity, compatibility_format)
{
	long came = forge_by_edu(self, MSI_ADDRESS);

	if (is_open) {
		EXPECT_LT(0, came);
	} else {
		EXPECT_EQ(0, came);
		EXPECT_TRUE(kernel_says(self->kmsg, refusal()->compatibility));
	}
}

TEST_F(forged_msi_identity, remappable_format)
{
	if (is_open)
		SKIP(return, "no entry to name: interrupts are not remapped");
	EXPECT_EQ(0, forge_by_edu(self, MSI_REMAPPABLE));
	EXPECT_TRUE(kernel_says(self->kmsg, refusal()->remappable));
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);
	is_open = argc > 1 && !strcmp(argv[1], "open");

	return test_harness_run(is_open ? 1 : argc, argv);
}
