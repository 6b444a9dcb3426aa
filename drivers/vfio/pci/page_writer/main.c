// SPDX-License-Identifier: GPL-2.0
/*
 * The states of migration, and what VFIO's users are shown of the function.
 */
#include <linux/file.h>
#include <linux/module.h>
#include <linux/pci.h>

#include "page_writer.h"

static struct page_writer_device *to_writer(struct vfio_device *vdev)
{
	return container_of(vdev, struct page_writer_device, core.vdev);
}

static bool is_saving(enum vfio_device_mig_state state)
{
	return page_writer_is_pre_copy(state) || state == VFIO_DEVICE_STATE_STOP_COPY;
}

/* A function cannot tell DMA to its peers from other DMA: in the P2P states it does none. */
static enum page_writer_mode mode_of(enum vfio_device_mig_state state)
{
	switch (state) {
	case VFIO_DEVICE_STATE_RUNNING:
	case VFIO_DEVICE_STATE_PRE_COPY:
		return PAGE_WRITER_RUNS;
	case VFIO_DEVICE_STATE_RUNNING_P2P:
	case VFIO_DEVICE_STATE_PRE_COPY_P2P:
		return PAGE_WRITER_QUIESCED;
	default:
		return PAGE_WRITER_STOPPED;
	}
}

void page_writer_become(struct page_writer_device *writer, enum vfio_device_mig_state state)
{
	page_writer_close_file(writer);
	writer->state = state;
}

/* An arc that has failed half-way may have left another mode than that of the state. */
static bool is_settled(struct page_writer_device *writer)
{
	return !writer->host || writer->state == VFIO_DEVICE_STATE_ERROR ||
	       writer->mode == mode_of(writer->state);
}

/* If the device lock is taken, the next one to take state_mutex does this. */
static void settle(struct page_writer_device *writer)
{
	if (page_writer_set_mode(writer, mode_of(writer->state)) == -EIO)
		page_writer_become(writer, VFIO_DEVICE_STATE_ERROR);
}

void page_writer_lock(struct page_writer_device *writer)
{
	mutex_lock(&writer->state_mutex);
	if (!is_settled(writer))
		settle(writer);
}

/* Does what a reset has left to the holder of state_mutex, however often there was one. */
void page_writer_unlock(struct page_writer_device *writer)
{
	for (;;) {
		spin_lock(&writer->reset_lock);
		if (!writer->reset_is_due)
			break;
		writer->reset_is_due = false;
		spin_unlock(&writer->reset_lock);

		page_writer_become(writer, VFIO_DEVICE_STATE_RUNNING);
		/* The holder has not told the function anything since: see begin_access(). */
		writer->mode = PAGE_WRITER_RUNS;
	}
	mutex_unlock(&writer->state_mutex);
	spin_unlock(&writer->reset_lock);
}

/*
 * The reset has made the function run, and no arc has told it anything since: the device
 * lock is still held. See page_writer.h about the locks.
 */
static void page_writer_reset_done(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = pci_get_drvdata(pdev);
	struct page_writer_device *writer = to_writer(&core->vdev);
	bool is_mine;

	spin_lock(&writer->reset_lock);
	is_mine = mutex_trylock(&writer->state_mutex);
	if (!is_mine)
		WRITE_ONCE(writer->reset_is_due, true);
	spin_unlock(&writer->reset_lock);
	if (!is_mine)
		return;

	page_writer_become(writer, VFIO_DEVICE_STATE_RUNNING);
	writer->mode = PAGE_WRITER_RUNS;
	page_writer_unlock(writer);
}

/* One arc, of those that vfio_mig_get_next_state() names. */
static struct file *step(struct page_writer_device *writer, enum vfio_device_mig_state next)
{
	enum vfio_device_mig_state now = writer->state;
	int ret = 0;

	if (mode_of(next) != writer->mode)
		ret = page_writer_set_mode(writer, mode_of(next));
	if (ret)
		return ERR_PTR(ret);

	if (is_saving(next)) {
		if (!is_saving(now))
			return page_writer_save_file(writer, page_writer_is_pre_copy(next) ?
						     PAGE_WRITER_PRE_COPY : PAGE_WRITER_FINAL);
		if (!page_writer_is_pre_copy(next))
			ret = page_writer_append(writer, PAGE_WRITER_FINAL);
		return ERR_PTR(ret);
	}
	if (next == VFIO_DEVICE_STATE_RESUMING)
		return page_writer_resume_file(writer);

	if (now == VFIO_DEVICE_STATE_RESUMING)
		ret = page_writer_finish(writer);
	if (!ret)
		page_writer_close_file(writer);

	return ERR_PTR(ret);
}

static struct file *page_writer_set_state(struct vfio_device *vdev,
					  enum vfio_device_mig_state wanted)
{
	struct page_writer_device *writer = to_writer(vdev);
	enum vfio_device_mig_state next;
	struct file *filp = NULL;
	int ret;

	if (wanted == VFIO_DEVICE_STATE_ERROR)
		return ERR_PTR(-EINVAL);

	page_writer_lock(writer);
	/* vfio_mig_get_next_state() of Linux 7.3.4 warns of any driver in this state. */
	if (writer->state == VFIO_DEVICE_STATE_ERROR)
		filp = ERR_PTR(-EINVAL);
	else if (!is_settled(writer))
		filp = ERR_PTR(-EBUSY);
	/* No state on the way has a file: only the last one has. */
	while (!IS_ERR(filp) && writer->state != wanted) {
		ret = vfio_mig_get_next_state(vdev, writer->state, wanted, &next);
		filp = ret ? ERR_PTR(ret) : step(writer, next);
		if (!IS_ERR(filp))
			writer->state = next;
	}
	/* Any other refusal leaves the function as it was. */
	if (filp == ERR_PTR(-EIO))
		page_writer_become(writer, VFIO_DEVICE_STATE_ERROR);
	page_writer_unlock(writer);

	return filp;
}

static int page_writer_get_state(struct vfio_device *vdev, enum vfio_device_mig_state *state)
{
	struct page_writer_device *writer = to_writer(vdev);

	page_writer_lock(writer);
	*state = writer->state;
	page_writer_unlock(writer);

	return 0;
}

static int page_writer_get_data_size(struct vfio_device *vdev, unsigned long *size)
{
	*size = page_writer_frame_size(to_writer(vdev));

	return 0;
}

static const struct vfio_migration_ops page_writer_migration_ops = {
	.migration_set_state = page_writer_set_state,
	.migration_get_state = page_writer_get_state,
	.migration_get_data_size = page_writer_get_data_size,
};

static int page_writer_open_device(struct vfio_device *vdev)
{
	struct page_writer_device *writer = to_writer(vdev);
	void __iomem *guest, *host;
	int ret;

	ret = vfio_pci_core_enable(&writer->core);
	if (ret)
		return ret;

	page_writer_lock(writer);
	guest = vfio_pci_core_get_iomap(&writer->core, 0);
	host = vfio_pci_core_get_iomap(&writer->core, 2);
	if (IS_ERR(guest) || IS_ERR(host)) {
		ret = IS_ERR(guest) ? PTR_ERR(guest) : PTR_ERR(host);
	} else {
		writer->guest = guest;
		writer->host = host;
		writer->state = VFIO_DEVICE_STATE_RUNNING;
		ret = page_writer_start(writer);
		if (ret)
			writer->host = NULL;
	}
	page_writer_unlock(writer);
	if (ret) {
		vfio_pci_core_disable(&writer->core);
		return ret;
	}
	vfio_pci_core_finish_enable(&writer->core);

	return 0;
}

static void page_writer_close_device(struct vfio_device *vdev)
{
	struct page_writer_device *writer = to_writer(vdev);

	page_writer_lock(writer);
	page_writer_become(writer, VFIO_DEVICE_STATE_RUNNING);
	writer->guest = NULL;
	writer->host = NULL;
	page_writer_unlock(writer);
	vfio_pci_core_close_device(vdev);
}

/*
 * User space is shown the lower half of BAR 2. A config access that sizes the BAR finds
 * all of it: a virtual machine gets its own answer from what VFIO says.
 */
static int page_writer_region_info(struct vfio_device *vdev, struct vfio_region_info *info,
				   struct vfio_info_cap *caps)
{
	int ret = vfio_pci_ioctl_get_region_info(vdev, info, caps);

	if (!ret && info->index == VFIO_PCI_BAR2_REGION_INDEX)
		info->size = PAGE_WRITER_GUEST_SIZE;

	return ret;
}

/* Of @count bytes at @pos, how many user space may access; 0 behind the region's end. */
static size_t accessible(loff_t pos, size_t count)
{
	u64 offset = pos & VFIO_PCI_OFFSET_MASK;

	if (VFIO_PCI_OFFSET_TO_INDEX(pos) != VFIO_PCI_BAR2_REGION_INDEX)
		return count;
	if (offset >= PAGE_WRITER_GUEST_SIZE)
		return 0;
	return min(count, PAGE_WRITER_GUEST_SIZE - offset);
}

static ssize_t page_writer_read(struct vfio_device *vdev, char __user *buf, size_t count,
				loff_t *ppos)
{
	size_t shown = accessible(*ppos, count);

	return count && !shown ? -EINVAL : vfio_pci_core_read(vdev, buf, shown, ppos);
}

static ssize_t page_writer_write(struct vfio_device *vdev, const char __user *buf, size_t count,
				 loff_t *ppos)
{
	size_t shown = accessible(*ppos, count);

	return count && !shown ? -EINVAL : vfio_pci_core_write(vdev, buf, shown, ppos);
}

static int page_writer_mmap(struct vfio_device *vdev, struct vm_area_struct *vma)
{
	loff_t pos = (loff_t)vma->vm_pgoff << PAGE_SHIFT;
	size_t size = vma->vm_end - vma->vm_start;

	if (accessible(pos, size) != size)
		return -EINVAL;

	return vfio_pci_core_mmap(vdev, vma);
}

/*
 * The core holds an ioeventfd against all of a BAR, and the function has no doorbell.
 * For dma-bufs it asks page_writer_device.core.pci_ops, and there are none.
 */
static long page_writer_ioctl(struct vfio_device *vdev, unsigned int cmd, unsigned long arg)
{
	return cmd == VFIO_DEVICE_IOEVENTFD ? -ENOTTY : vfio_pci_core_ioctl(vdev, cmd, arg);
}

static int page_writer_init_device(struct vfio_device *vdev)
{
	struct page_writer_device *writer = to_writer(vdev);

	mutex_init(&writer->state_mutex);
	spin_lock_init(&writer->reset_lock);
	writer->state = VFIO_DEVICE_STATE_RUNNING;
	vdev->migration_flags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P |
				VFIO_MIGRATION_PRE_COPY;
	vdev->mig_ops = &page_writer_migration_ops;

	return vfio_pci_core_init_dev(vdev);
}

static void page_writer_release_device(struct vfio_device *vdev)
{
	mutex_destroy(&to_writer(vdev)->state_mutex);
	vfio_pci_core_release_dev(vdev);
}

static const struct vfio_device_ops page_writer_ops = {
	.name = "page-writer-vfio-pci",
	.init = page_writer_init_device,
	.release = page_writer_release_device,
	.open_device = page_writer_open_device,
	.close_device = page_writer_close_device,
	.ioctl = page_writer_ioctl,
	.get_region_info_caps = page_writer_region_info,
	.device_feature = vfio_pci_core_ioctl_feature,
	.read = page_writer_read,
	.write = page_writer_write,
	.mmap = page_writer_mmap,
	.request = vfio_pci_core_request,
	.match = vfio_pci_core_match,
	.match_token_uuid = vfio_pci_core_match_token_uuid,
	.bind_iommufd = vfio_iommufd_physical_bind,
	.unbind_iommufd = vfio_iommufd_physical_unbind,
	.attach_ioas = vfio_iommufd_physical_attach_ioas,
	.detach_ioas = vfio_iommufd_physical_detach_ioas,
};

static int page_writer_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct page_writer_device *writer;
	int ret;

	if (!pci_resource_len(pdev, 0) || pci_resource_len(pdev, 2) != PAGE_WRITER_BAR2_SIZE) {
		pci_err(pdev, "has no BAR 0, or one of %llu bytes as BAR 2, not %u: bind vfio-pci to it, which does not migrate\n",
			(u64)pci_resource_len(pdev, 2), PAGE_WRITER_BAR2_SIZE);
		return -ENODEV;
	}

	writer = vfio_alloc_device(page_writer_device, core.vdev, &pdev->dev, &page_writer_ops);
	if (IS_ERR(writer))
		return PTR_ERR(writer);

	pci_set_drvdata(pdev, &writer->core);
	ret = vfio_pci_core_register_device(&writer->core);
	if (ret)
		vfio_put_device(&writer->core.vdev);

	return ret;
}

static void page_writer_remove(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = pci_get_drvdata(pdev);

	vfio_pci_core_unregister_device(core);
	vfio_put_device(&core->vdev);
}

/* A function gets this driver only if its driver_override names it. */
static const struct pci_device_id page_writer_table[] = {
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(0x1234, 0x11f1) },
	{ }
};
MODULE_DEVICE_TABLE(pci, page_writer_table);

static const struct pci_error_handlers page_writer_err_handlers = {
	.reset_done = page_writer_reset_done,
	.error_detected = vfio_pci_core_aer_err_detected,
};

static struct pci_driver page_writer_driver = {
	.name = KBUILD_MODNAME,
	.id_table = page_writer_table,
	.probe = page_writer_probe,
	.remove = page_writer_remove,
	.err_handler = &page_writer_err_handlers,
	.driver_managed_dma = true,
};
module_pci_driver(page_writer_driver);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("The Rust IOMMU authors");
MODULE_DESCRIPTION("VFIO driver with migration for the page writer");
