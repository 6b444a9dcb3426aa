// SPDX-License-Identifier: GPL-2.0
/*
 * Virtual functions are created and destroyed while another function is tracked, and a virtual
 * function is given to a program: it has a page table of its requester ID, and its writes are
 * tracked.
 *
 * Takes two igb on the command line: one that writes, and one that gets virtual functions. vfio
 * must let users create these (vfio_pci.enable_sriov=1).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <uuid/uuid.h>

#include <linux/bits.h>
#include <linux/io.h>

#include "lib/harness.h"
#include "lib/interrupts.h"

/* 82576 datasheet, 8.12: registers of the function, and its first ring as a VF sees it. */
#define IGB_TCTL 0x400
#define IGB_TCTL_EN BIT(1)
#define IGB_VF_TDBAL 0x3800
#define IGB_VF_TDBAH 0x3804
#define IGB_VF_TDLEN 0x3808
#define IGB_VF_TDH 0x3810
#define IGB_VF_TDT 0x3818
#define IGB_VF_TXDCTL 0x3828
#define IGB_TXDCTL_ENABLE BIT(25)
/* A context descriptor that sends nothing; its status is written back. */
#define IGB_CONTEXT (BIT(29) | BIT(27) | BIT(21))
#define IGB_DONE BIT(0)
#define IGB_RING_BYTES 128

#define VF_BAR_SIZE SZ_16K
#define MOST_VFS 7
#define TOKEN "7b1a3c52-98d0-4c3f-8a55-51c0f9a0d7e1"

static char **device_bdfs;
static int nr_devices;

/* What a ring of igb consists of; the function writes @status. */
struct descriptor {
	u64 unused;
	u32 command;
	u32 status;
};

static const char *pf_bdf(void)
{
	return device_bdfs[1];
}

static void set_vfs(int count)
{
	char path[PATH_MAX], text[8];

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/sriov_numvfs", pf_bdf());
	snprintf_assert(text, sizeof(text), "%d", count);
	VFIO_ASSERT_EQ(__write_file(path, text), 0, "%s does not get %d VFs\n", pf_bdf(), count);
}

/* The address of a virtual function. Returns whether there is one of that number. */
static bool vf_bdf(int number, char *bdf, size_t size)
{
	char path[PATH_MAX], target[PATH_MAX];
	ssize_t length;

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/virtfn%d", pf_bdf(), number);
	length = readlink(path, target, sizeof(target) - 1);
	if (length < 0)
		return false;
	target[length] = 0;
	snprintf_assert(bdf, size, "%s", strrchr(target, '/') + 1);

	return true;
}

static bool vf_has_group(int number)
{
	char path[PATH_MAX];

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/virtfn%d/iommu_group",
			pf_bdf(), number);

	return !access(path, F_OK);
}

static int nr_groups(void)
{
	DIR *groups = opendir("/sys/kernel/iommu_groups");
	struct dirent *entry;
	int nr = 0;

	VFIO_ASSERT_NOT_NULL(groups);
	while ((entry = readdir(groups)))
		nr += entry->d_name[0] != '.';
	VFIO_ASSERT_EQ(closedir(groups), 0);

	return nr;
}

FIXTURE(sriov) {
	struct dirty_env env;
};

FIXTURE_SETUP(sriov)
{
	ASSERT_EQ(2, nr_devices);
	set_vfs(0);
	ASSERT_EQ(NULL, dirty_env_open(&self->env, device_bdfs[0], PAGE_4K));
	hwpt_set_dirty(&self->env, self->env.hwpt, true);
}

FIXTURE_TEARDOWN(sriov)
{
	set_vfs(0);
	dirty_env_close(&self->env);
}

TEST_F(sriov, come_and_go_while_another_is_tracked)
{
	struct dirty_env *env = &self->env;
	int before = nr_groups();

	for (int round = 0; round < 4; round++) {
		int count = round % 2 ? MOST_VFS : 1;

		dirty_write_random(env, 4);
		set_vfs(count);
		for (int vf = 0; vf < count; vf++)
			EXPECT_TRUE(vf_has_group(vf));
		EXPECT_LT(before, nr_groups());
		dirty_write_random(env, 4);
		EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
		dirty_write_random(env, 4);
		set_vfs(0);
		EXPECT_EQ(before, nr_groups());
		dirty_write_random(env, 4);
		EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
	}
}

static void region(struct vfio_pci_device *pci, u32 index, struct vfio_region_info *info)
{
	*info = (struct vfio_region_info){ .argsz = sizeof(*info), .index = index };
	VFIO_ASSERT_EQ(ioctl(pci->fd, VFIO_DEVICE_GET_REGION_INFO, info), 0);
}

/* libvfio opens no function that needs a token. */
static void vf_open(struct dirty_env *env, struct dirty_dev *dev, const char *bdf)
{
	struct vfio_device_bind_iommufd bind = {
		.argsz = sizeof(bind),
		.flags = VFIO_DEVICE_BIND_FLAG_TOKEN,
		.iommufd = env->iommu->iommufd,
	};
	struct vfio_pci_device *pci = vfio_pci_device_alloc(bdf, env->iommu);
	struct vfio_pci_bar *bar = &pci->bars[0];
	uuid_t token;

	VFIO_ASSERT_EQ(uuid_parse(TOKEN, token), 0);
	bind.token_uuid_ptr = (uintptr_t)token;
	vfio_pci_cdev_open(pci, bdf);
	VFIO_ASSERT_EQ(ioctl(pci->fd, VFIO_DEVICE_BIND_IOMMUFD, &bind), 0, "%s: %s\n", bdf,
		       strerror(errno));
	dev->pci = pci;
	dev->id = bind.out_devid;
	device_attach(dev, env->iommu->ioas_id);
	region(pci, VFIO_PCI_CONFIG_REGION_INDEX, &pci->config_space);
	region(pci, VFIO_PCI_BAR0_REGION_INDEX, &bar->info);
	bar->vaddr = mmap(NULL, VF_BAR_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, pci->fd,
			  bar->info.offset);
	VFIO_ASSERT_NE(bar->vaddr, MAP_FAILED);
	vfio_pci_cmd_set(pci, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void vf_close(struct dirty_dev *dev)
{
	VFIO_ASSERT_EQ(munmap(dev->pci->bars[0].vaddr, VF_BAR_SIZE), 0);
	VFIO_ASSERT_EQ(close(dev->pci->fd), 0);
	vfio_pci_device_free(dev->pci);
	dev->pci = NULL;
}

/* Has the virtual function write a status into @page. Returns whether it did. */
static bool vf_write(struct dirty_env *env, u64 page)
{
	struct descriptor *descriptor = dirty_area_page(&env->area, page);
	u64 iova = env->area.region.iova + page * PAGE_4K;
	void *bar = env->dev.pci->bars[0].vaddr;

	*descriptor = (struct descriptor){ .command = IGB_CONTEXT };
	writel(0, bar + IGB_VF_TXDCTL);
	writel((u32)iova, bar + IGB_VF_TDBAL);
	writel(iova >> 32, bar + IGB_VF_TDBAH);
	writel(IGB_RING_BYTES, bar + IGB_VF_TDLEN);
	writel(0, bar + IGB_VF_TDH);
	writel(0, bar + IGB_VF_TDT);
	writel(IGB_TXDCTL_ENABLE, bar + IGB_VF_TXDCTL);
	writel(1, bar + IGB_VF_TDT);

	return READ_ONCE(descriptor->status) & IGB_DONE;
}

static void vf_write_random(struct dirty_env *env, u64 nr)
{
	while (nr--)
		VFIO_ASSERT_TRUE(vf_write(env, page_set_add_random(&env->written, &env->seed)));
}

/* A virtual function in the hands of a program, and the function that it is a part of. */
FIXTURE(sriov_assigned) {
	struct dirty_env env;
	struct dirty_dev pf;
	char bdf[16];
};

FIXTURE_SETUP(sriov_assigned)
{
	struct dirty_env *env = &self->env;

	ASSERT_EQ(2, nr_devices);
	set_vfs(0);
	env->iommu = iommu_init(MODE_IOMMUFD);
	ASSERT_EQ(0, __ioas_huge_pages(env->iommu->iommufd, env->iommu->ioas_id, false));
	dirty_dev_open(env, &self->pf, pf_bdf());
	vfio_device_set_vf_token(self->pf.pci->fd, TOKEN);
	vfio_pci_cmd_set(self->pf.pci, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	set_vfs(3);
	writel(IGB_TCTL_EN, self->pf.pci->bars[0].vaddr + IGB_TCTL);

	/* Not the first one, whose ring is the first one of the function too. */
	ASSERT_TRUE(vf_bdf(2, self->bdf, sizeof(self->bdf)));
	vf_open(env, &env->dev, self->bdf);
	ASSERT_EQ(NULL, dirty_area_map(env, &env->area, PAGE_4K, SZ_1M));
	env->written = page_set_alloc(&env->area);
	env->none = page_set_alloc(&env->area);
	env->seed = 1;
	env->hwpt = hwpt_alloc(env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
	device_attach(&env->dev, env->hwpt);
}

FIXTURE_TEARDOWN(sriov_assigned)
{
	struct dirty_env *env = &self->env;

	page_set_free(&env->none);
	page_set_free(&env->written);
	dirty_area_unmap(env, &env->area);
	vf_close(&env->dev);
	set_vfs(0);
	dirty_dev_close(env, &self->pf);
	iova_allocator_cleanup(env->iova);
	iommu_cleanup(env->iommu);
}

TEST_F(sriov_assigned, is_tracked)
{
	struct dirty_env *env = &self->env;

	hwpt_set_dirty(env, env->hwpt, true);
	for (int round = 0; round < 4; round++) {
		page_set_clear(&env->written);
		vf_write_random(env, 8);
		EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->written));
		EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->none));
	}
}

/* Its page table is not that of the function, nor of another virtual one. */
TEST_F(sriov_assigned, is_confined)
{
	struct dirty_env *env = &self->env;

	EXPECT_TRUE(vf_write(env, 5));
	device_detach(&env->dev);
	EXPECT_FALSE(vf_write(env, 5));
	device_attach(&env->dev, env->hwpt);
	EXPECT_TRUE(vf_write(env, 5));
}

int main(int argc, char *argv[])
{
	device_bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_devices);

	return test_harness_run(argc, argv);
}
