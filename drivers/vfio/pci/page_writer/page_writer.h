/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A VFIO driver for the page writer, a function of an emulator that writes to memory
 * by itself and whose state can be moved to another one.
 *
 * Locks, in the order in which they are taken:
 *
 *   dev_set->lock  of VFIO, while a device is opened or closed
 *   state_mutex    what struct page_writer_device says, and the host's registers
 *   mmap_lock      by a copy from or to user space
 *   memory_lock    of the core: whether and where the BARs are
 *   device lock    of the bus: no reset is under way. It is only tried, and -EBUSY if taken
 *
 * VFIO resets a function with memory_lock held. So what has to be done after a reset
 * takes state_mutex only if it is free, and leaves the work to its holder if not;
 * reset_lock, a spin lock inside all of these, decides which.
 */
#ifndef PAGE_WRITER_H
#define PAGE_WRITER_H

#include <linux/mutex.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_core.h>

/* BAR 2 has its upper half for the host. User space is not shown that there is one. */
#define PAGE_WRITER_BAR2_SIZE SZ_256K
#define PAGE_WRITER_GUEST_SIZE SZ_128K

/**
 * enum page_writer_mode - What the function does
 * @PAGE_WRITER_RUNS: all that its guest tells it
 * @PAGE_WRITER_QUIESCED: no DMA and no interrupt; its registers work
 * @PAGE_WRITER_STOPPED: nothing; its registers keep their values
 */
enum page_writer_mode {
	PAGE_WRITER_RUNS,
	PAGE_WRITER_QUIESCED,
	PAGE_WRITER_STOPPED,
};

/**
 * enum page_writer_frame_kind - What a frame of the stream holds
 * @PAGE_WRITER_PRE_COPY: the state of a function that runs on
 * @PAGE_WRITER_FINAL: the state to load; the last frame
 */
enum page_writer_frame_kind {
	PAGE_WRITER_PRE_COPY = 1,
	PAGE_WRITER_FINAL,
};

/**
 * struct page_writer_device - One function
 * @core: of VFIO
 * @state_size: bytes that the function saves, which stay as many while it is open
 * @state_mutex: protects the members from @state to @host
 * @state: of migration
 * @mode: what the function was told last; that of @state, or it is to be told
 * @file: the data transfer of @state, or NULL
 * @guest: BAR 0, NULL while the device is closed
 * @host: BAR 2, NULL while the device is closed
 * @reset_lock: protects @reset_is_due
 * @reset_is_due: the holder of @state_mutex does what has to be done after a reset
 */
struct page_writer_device {
	struct vfio_pci_core_device core;
	size_t state_size;
	/* Protects all members up to @host. */
	struct mutex state_mutex;
	enum vfio_device_mig_state state;
	enum page_writer_mode mode;
	struct page_writer_file *file;
	void __iomem *guest;
	void __iomem *host;
	/* Protects @reset_is_due, and the decision to set it. */
	spinlock_t reset_lock;
	bool reset_is_due;
};

static inline bool page_writer_is_pre_copy(enum vfio_device_mig_state state)
{
	return state == VFIO_DEVICE_STATE_PRE_COPY || state == VFIO_DEVICE_STATE_PRE_COPY_P2P;
}

/* main.c */
void page_writer_lock(struct page_writer_device *writer);
void page_writer_unlock(struct page_writer_device *writer);
/* Ends the data transfer of the state before; the caller holds state_mutex. */
void page_writer_become(struct page_writer_device *writer, enum vfio_device_mig_state state);

/*
 * function.c: the registers. Each returns -EIO if the function does not obey, and -EBUSY
 * if it was not asked: the device lock is taken, or the function was reset in between. The
 * caller holds state_mutex.
 */
int page_writer_start(struct page_writer_device *writer);
int page_writer_set_mode(struct page_writer_device *writer, enum page_writer_mode mode);
int page_writer_counter(struct page_writer_device *writer, u64 *counter);
int page_writer_save(struct page_writer_device *writer, void *state, u64 *counter);
int page_writer_load(struct page_writer_device *writer, const void *state);

/* stream.c: the data transfers. The caller holds state_mutex, but for their size. */
struct file *page_writer_save_file(struct page_writer_device *writer,
				   enum page_writer_frame_kind kind);
struct file *page_writer_resume_file(struct page_writer_device *writer);
int page_writer_append(struct page_writer_device *writer, enum page_writer_frame_kind kind);
int page_writer_finish(struct page_writer_device *writer);
void page_writer_close_file(struct page_writer_device *writer);
size_t page_writer_frame_size(struct page_writer_device *writer);

#endif /* PAGE_WRITER_H */
