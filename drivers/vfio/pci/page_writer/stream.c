// SPDX-License-Identifier: GPL-2.0
/*
 * The data transfers of a migration: what is read where a function is saved, and
 * written where it is resumed.
 *
 * A stream is any number of frames with the state of a running function and one
 * frame with that of a stopped one, which is loaded. The first ones let the reader
 * look whether the stream is for it, and are forgotten.
 */
#include <linux/anon_inodes.h>
#include <linux/crc32.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "page_writer.h"

#define FRAME_MAGIC 0x4d41524652574750ULL /* PGWRFRAM */
#define FRAME_VERSION 1

/* Entries of the journal: when as many writes were made, it is all new. */
#define JOURNAL_ENTRIES 8192

/**
 * struct page_writer_frame - What is in front of each state
 * @magic: FRAME_MAGIC
 * @version: FRAME_VERSION
 * @kind: of enum page_writer_frame_kind
 * @length: bytes that follow
 * @crc: CRC-32 of these
 */
struct page_writer_frame {
	__le64 magic;
	__le32 version;
	__le32 kind;
	__le32 length;
	__le32 crc;
};

static_assert(sizeof(struct page_writer_frame) == 24);

/**
 * struct page_writer_file - One data transfer
 * @filp: what user space reads or writes
 * @writer: the function, with a reference: user space may keep the file for longer
 * @data: room for two frames if it is read, for one if it is written
 * @filled: bytes in @data
 * @pos: how many of them were read
 * @initial: what is unread of them is the first frame
 * @counter: when the last frame was saved
 * @final: a whole final frame was written
 * @error: why the stream was refused, or 0
 */
struct page_writer_file {
	struct file *filp;
	struct page_writer_device *writer;
	u8 *data;
	size_t filled;
	size_t pos;
	bool initial;
	u64 counter;
	bool final;
	int error;
};

size_t page_writer_frame_size(struct page_writer_device *writer)
{
	return sizeof(struct page_writer_frame) + writer->state_size;
}

/* As zlib has it. */
static u32 frame_crc(const void *data, size_t length)
{
	return ~crc32(~0, data, length);
}

/* Appends a frame, behind what is unread of the one before. */
int page_writer_append(struct page_writer_device *writer, enum page_writer_frame_kind kind)
{
	struct page_writer_file *file = writer->file;
	struct page_writer_frame frame = {
		.magic = cpu_to_le64(FRAME_MAGIC),
		.version = cpu_to_le32(FRAME_VERSION),
		.kind = cpu_to_le32(kind),
		.length = cpu_to_le32(writer->state_size),
	};
	u8 *end;
	int ret;

	file->filled -= file->pos;
	memmove(file->data, file->data + file->pos, file->filled);
	file->pos = 0;

	/* It need not be aligned. */
	end = file->data + file->filled;
	ret = page_writer_save(writer, end + sizeof(frame), &file->counter);
	if (ret)
		return ret;

	frame.crc = cpu_to_le32(frame_crc(end + sizeof(frame), writer->state_size));
	memcpy(end, &frame, sizeof(frame));
	file->filled += page_writer_frame_size(writer);

	return 0;
}

/* Bytes of a frame that could be saved now, beside those that are there. */
static ssize_t new_bytes(struct page_writer_file *file)
{
	u64 counter;
	int ret;

	ret = page_writer_counter(file->writer, &counter);
	if (ret)
		return ret;

	/* It may have been started again, which is far away too. */
	return counter - file->counter < JOURNAL_ENTRIES ? 0 : page_writer_frame_size(file->writer);
}

static ssize_t save_read(struct file *filp, char __user *buf, size_t len, loff_t *pos)
{
	struct page_writer_file *file = filp->private_data;
	struct page_writer_device *writer = file->writer;
	ssize_t done;

	if (pos)
		return -ESPIPE;

	page_writer_lock(writer);
	if (writer->file != file) {
		done = -ENODEV;
		goto unlock;
	}
	if (file->pos == file->filled && page_writer_is_pre_copy(writer->state)) {
		file->initial = false;
		done = new_bytes(file);
		if (!done)
			done = -ENOMSG;
		if (done > 0)
			done = page_writer_append(writer, PAGE_WRITER_PRE_COPY);
		if (done == -EIO)
			page_writer_become(writer, VFIO_DEVICE_STATE_ERROR);
		if (done < 0)
			goto unlock;
	}
	done = min(len, file->filled - file->pos);
	if (copy_to_user(buf, file->data + file->pos, done))
		done = -EFAULT;
	else
		file->pos += done;
unlock:
	page_writer_unlock(writer);

	return done;
}

static long save_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct page_writer_file *file = filp->private_data;
	struct page_writer_device *writer = file->writer;
	struct vfio_precopy_info info;
	ssize_t unread;
	int ret;

	ret = vfio_check_precopy_ioctl(&writer->core.vdev, cmd, arg, &info);
	if (ret)
		return ret;

	page_writer_lock(writer);
	if (!page_writer_is_pre_copy(writer->state)) {
		ret = -EINVAL;
		goto unlock;
	}
	if (writer->file != file) {
		ret = -ENODEV;
		goto unlock;
	}
	unread = file->filled - file->pos;
	info.initial_bytes = file->initial ? unread : 0;
	info.dirty_bytes = file->initial ? 0 : unread;
	if (!unread) {
		unread = new_bytes(file);
		if (unread < 0)
			ret = unread;
		else
			info.dirty_bytes = unread;
		if (ret == -EIO)
			page_writer_become(writer, VFIO_DEVICE_STATE_ERROR);
	}
unlock:
	page_writer_unlock(writer);
	if (ret)
		return ret;

	return copy_to_user((void __user *)arg, &info,
			    offsetofend(struct vfio_precopy_info, dirty_bytes)) ? -EFAULT : 0;
}

static int release(struct inode *inode, struct file *filp)
{
	struct page_writer_file *file = filp->private_data;

	vfio_put_device(&file->writer->core.vdev);
	kvfree(file->data);
	kfree(file);

	return 0;
}

static const struct file_operations save_fops = {
	.owner = THIS_MODULE,
	.read = save_read,
	.unlocked_ioctl = save_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.release = release,
};

/* Says why a stream is not taken, once, and takes no more of it. */
static int refuse(struct page_writer_file *file, int error, const char *why)
{
	file->error = error;
	pci_notice_ratelimited(file->writer->core.pdev,
			       "refuses a stream that %s: reset it, and migrate again\n", why);
	return error;
}

static int check_header(struct page_writer_file *file)
{
	struct page_writer_frame *frame = (void *)file->data;
	u32 kind = le32_to_cpu(frame->kind);

	if (le64_to_cpu(frame->magic) != FRAME_MAGIC)
		return refuse(file, -EINVAL, "is not of such a function");
	if (le32_to_cpu(frame->version) != FRAME_VERSION)
		return refuse(file, -EOPNOTSUPP, "has another version");
	if (kind != PAGE_WRITER_PRE_COPY && kind != PAGE_WRITER_FINAL)
		return refuse(file, -EINVAL, "has an unknown kind of frame");
	if (le32_to_cpu(frame->length) != file->writer->state_size)
		return refuse(file, -EINVAL, "has a state of another size");

	return 0;
}

static int check_state(struct page_writer_file *file)
{
	struct page_writer_frame *frame = (void *)file->data;

	if (le32_to_cpu(frame->crc) != frame_crc(frame + 1, file->writer->state_size))
		return refuse(file, -EBADMSG, "was changed on its way");
	if (le32_to_cpu(frame->kind) == PAGE_WRITER_FINAL)
		file->final = true;
	else
		file->filled = 0;

	return 0;
}

/* Takes what belongs to the frame that is begun, @len bytes at most; returns how many. */
static ssize_t take(struct page_writer_file *file, const char __user *buf, size_t len)
{
	size_t header = sizeof(struct page_writer_frame);
	size_t whole = page_writer_frame_size(file->writer);
	int ret = 0;

	if (file->error)
		return file->error;
	if (file->final)
		return refuse(file, -EINVAL, "goes on behind its end");

	len = min(len, (file->filled < header ? header : whole) - file->filled);
	if (copy_from_user(file->data + file->filled, buf, len))
		return -EFAULT;
	file->filled += len;
	if (file->filled == header)
		ret = check_header(file);
	else if (file->filled == whole)
		ret = check_state(file);

	return ret ?: len;
}

static ssize_t resume_write(struct file *filp, const char __user *buf, size_t len, loff_t *pos)
{
	struct page_writer_file *file = filp->private_data;
	struct page_writer_device *writer = file->writer;
	ssize_t done = 0, ret = 0;

	if (pos)
		return -ESPIPE;

	page_writer_lock(writer);
	if (writer->file != file)
		ret = -ENODEV;
	while (ret >= 0 && done < len) {
		ret = take(file, buf + done, len - done);
		if (ret > 0)
			done += ret;
	}
	page_writer_unlock(writer);

	/* What was taken is not to be written again; what was refused may not be. */
	if (ret == -EFAULT && done)
		return done;
	return ret < 0 ? ret : done;
}

static const struct file_operations resume_fops = {
	.owner = THIS_MODULE,
	.write = resume_write,
	.release = release,
};

/* Makes the data transfer, which user space gets and the device has a reference to. */
static struct file *open_file(struct page_writer_device *writer, size_t room,
			      const struct file_operations *fops, int flags)
{
	struct page_writer_file *file;
	struct file *filp;

	file = kzalloc_obj(*file, GFP_KERNEL_ACCOUNT);
	if (!file)
		return ERR_PTR(-ENOMEM);
	file->data = kvzalloc(room, GFP_KERNEL_ACCOUNT);
	if (!file->data) {
		kfree(file);
		return ERR_PTR(-ENOMEM);
	}

	filp = anon_inode_getfile("page_writer_migration", fops, file, flags);
	if (IS_ERR(filp)) {
		kvfree(file->data);
		kfree(file);
		return filp;
	}
	stream_open(file_inode(filp), filp);

	file->filp = filp;
	file->initial = true;
	file->writer = writer;
	get_device(&writer->core.vdev.device);
	writer->file = file;

	return filp;
}

struct file *page_writer_save_file(struct page_writer_device *writer,
				   enum page_writer_frame_kind kind)
{
	struct file *filp;
	int ret;

	filp = open_file(writer, 2 * page_writer_frame_size(writer), &save_fops, O_RDONLY);
	if (IS_ERR(filp))
		return filp;
	ret = page_writer_append(writer, kind);
	if (ret) {
		page_writer_close_file(writer);
		return ERR_PTR(ret);
	}

	return get_file(filp);
}

struct file *page_writer_resume_file(struct page_writer_device *writer)
{
	struct file *filp;

	filp = open_file(writer, page_writer_frame_size(writer), &resume_fops, O_WRONLY);
	return IS_ERR(filp) ? filp : get_file(filp);
}

/* Loads what was written, all of which has to be there. */
int page_writer_finish(struct page_writer_device *writer)
{
	struct page_writer_file *file = writer->file;

	if (file->error)
		return file->error;
	if (!file->final)
		return refuse(file, -ENODATA, "ends before its last frame does");

	return page_writer_load(writer, file->data + sizeof(struct page_writer_frame));
}

/* User space may have it still, and reads or writes no more. */
void page_writer_close_file(struct page_writer_device *writer)
{
	if (!writer->file)
		return;
	fput(writer->file->filp);
	writer->file = NULL;
}
