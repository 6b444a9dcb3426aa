// SPDX-License-Identifier: GPL-2.0
/*
 * The iommufd and VFIO ioctls of dirty tracking, one function each.
 */
#include <errno.h>
#include <sys/ioctl.h>

#include "dirty.h"
#include "split.h"

static int __ioctl(int fd, unsigned long op, void *arg)
{
	return ioctl(fd, op, arg) ? -errno : 0;
}

int __hw_info(int iommufd, u32 dev_id, struct iommu_hw_info *info,
	      struct iommu_hw_info_vtd *vtd)
{
	*info = (struct iommu_hw_info){
		.size = sizeof(*info),
		.dev_id = dev_id,
		.data_len = vtd ? sizeof(*vtd) : 0,
		.data_uptr = (uintptr_t)vtd,
	};

	return __ioctl(iommufd, IOMMU_GET_HW_INFO, info);
}

int __ioas_huge_pages(int iommufd, u32 ioas_id, bool enable)
{
	struct iommu_option cmd = {
		.size = sizeof(cmd),
		.option_id = IOMMU_OPTION_HUGE_PAGES,
		.op = IOMMU_OPTION_OP_SET,
		.object_id = ioas_id,
		.val64 = enable,
	};

	return __ioctl(iommufd, IOMMU_OPTION, &cmd);
}

int __hwpt_alloc(int iommufd, u32 dev_id, u32 ioas_id, u32 flags, u32 *hwpt)
{
	struct iommu_hwpt_alloc cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.dev_id = dev_id,
		.pt_id = ioas_id,
		.data_type = IOMMU_HWPT_DATA_NONE,
	};
	int ret;

	ret = __ioctl(iommufd, IOMMU_HWPT_ALLOC, &cmd);
	if (!ret)
		*hwpt = cmd.out_hwpt_id;

	return ret;
}

u32 hwpt_alloc(struct dirty_env *env, u32 flags)
{
	struct iommu *iommu = env->iommu;
	u32 hwpt;

	VFIO_ASSERT_EQ(__hwpt_alloc(iommu->iommufd, env->dev.id, iommu->ioas_id,
				    flags, &hwpt), 0);
	split_new_table(env, hwpt);

	return hwpt;
}

int __hwpt_set_dirty(int iommufd, u32 hwpt, u32 flags)
{
	struct iommu_hwpt_set_dirty_tracking cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.hwpt_id = hwpt,
	};

	return __ioctl(iommufd, IOMMU_HWPT_SET_DIRTY_TRACKING, &cmd);
}

void hwpt_set_dirty(struct dirty_env *env, u32 hwpt, bool enable)
{
	u32 flags = enable ? IOMMU_HWPT_DIRTY_TRACKING_ENABLE : 0;

	VFIO_ASSERT_EQ(__hwpt_set_dirty(env->iommu->iommufd, hwpt, flags), 0);
	split_tracking(env, hwpt, enable);
}

int __hwpt_get_dirty(int iommufd, struct iommu_hwpt_get_dirty_bitmap *cmd)
{
	cmd->size = sizeof(*cmd);

	return __ioctl(iommufd, IOMMU_HWPT_GET_DIRTY_BITMAP, cmd);
}

int __iommufd_destroy(int iommufd, u32 id)
{
	struct iommu_destroy cmd = {
		.size = sizeof(cmd),
		.id = id,
	};

	return __ioctl(iommufd, IOMMU_DESTROY, &cmd);
}

void iommufd_destroy(struct dirty_env *env, u32 id)
{
	VFIO_ASSERT_EQ(__iommufd_destroy(env->iommu->iommufd, id), 0);
	split_forget_table(env, id);
}

/* A device that is attached already is moved: that is how iommufd replaces. */
int __device_attach(struct dirty_dev *dev, u32 pt_id)
{
	struct vfio_device_attach_iommufd_pt cmd = {
		.argsz = sizeof(cmd),
		.pt_id = pt_id,
	};

	return __ioctl(dev->pci->fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &cmd);
}

void device_attach(struct dirty_dev *dev, u32 pt_id)
{
	VFIO_ASSERT_EQ(__device_attach(dev, pt_id), 0);
}

int __device_detach(struct dirty_dev *dev)
{
	struct vfio_device_detach_iommufd_pt cmd = {
		.argsz = sizeof(cmd),
	};

	return __ioctl(dev->pci->fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, &cmd);
}

void device_detach(struct dirty_dev *dev)
{
	VFIO_ASSERT_EQ(__device_detach(dev), 0);
}
