// SPDX-License-Identifier: GPL-2.0
/*
 * A message-signalled interrupt that a device forges: a write to 0xfee00000, which
 * no page table translates (VT-d specification, 3.14).
 *
 * With interrupt remapping the unit refuses it, and the kernel logs that, whichever page
 * table the device is attached to; no CPU is interrupted. With the argument "open" the test
 * expects the opposite: a machine without remapping, where the message interrupts.
 *
 * The kernel uses the vector on Hyper-V only, so it counts each such interrupt as a
 * spurious one. (It does not acknowledge vector 0xff, which then blocks the CPU.)
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/harness.h"

/* Physical destination, CPU 0; compatibility format; further words go there too. */
#define MSI_ADDRESS 0xfee00000ULL
/* VT-d: remappable format, with the handles from 0 on. AMD-Vi has one format. */
#define MSI_REMAPPABLE 0xfee00010ULL
/* Fixed delivery, edge, and the vector HYPERV_STIMER0_VECTOR. */
#define MSI_DATA 0xedU
/* The same, but delivered as NMI, which has no vector. */
#define MSI_NMI (MSI_DATA | 4 << 8)
/* The kernel prints no more than ten faults in so many seconds. */
#define SECONDS_OF_FAULTS 5
/* What the DMA engine writes at least, in words. */
#define WORDS 16

static const char *device_bdf;
static bool is_open;

/* What the driver says of a message that the unit refuses, in each of two formats. */
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

/*
 * Returns the sum of all CPUs in the line @kind, -1 if it cannot be read. /proc/interrupts
 * has some lines only after the first one.
 */
static long interrupts(const char *kind)
{
	FILE *file = fopen("/proc/interrupts", "r");
	char line[1024];
	long sum = 0;

	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file)) {
		char *at = strstr(line, kind);
		long count;
		int used;

		if (!at)
			continue;
		for (at += strlen(kind); sscanf(at, "%ld%n", &count, &used) == 1; at += used)
			sum += count;
	}
	fclose(file);

	return sum;
}

/* Whether a line that came to the log since kmsg was opened or read holds @text. */
static bool kernel_says(int kmsg, const char *text)
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
	self->before = interrupts("SPU:");
	ASSERT_LE(0, self->before);
	self->kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	ASSERT_LE(0, self->kmsg);
	lseek(self->kmsg, 0, SEEK_END);
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

	return interrupts("SPU:") - before;
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
	long before = interrupts("NMI:");

	if (is_open)
		SKIP(return, "the CPU would get the NMI");
	for (int word = 0; word < WORDS; word++)
		words[word] = MSI_NMI;
	EXPECT_EQ(0, forge(&self->env, self->before, MSI_ADDRESS));
	EXPECT_EQ(before, interrupts("NMI:"));
	EXPECT_TRUE(kernel_says(self->kmsg, refusal()->compatibility));
}

/* The device goes on: what it is refused does not stop it. */
TEST_F(forged_msi, writes_memory_afterwards)
{
	forge(&self->env, self->before, MSI_ADDRESS);
	dirty_write_random(&self->env, 4);
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);
	is_open = argc > 1 && !strcmp(argv[1], "open");

	return test_harness_run(is_open ? 1 : argc, argv);
}
