// SPDX-License-Identifier: GPL-2.0
/*
 * VT-d units that the kernel's interrupt remapping runs
 * (drivers/iommu/intel/irq_remapping.c), for a driver that remaps DMA with them.
 *
 * The unit has one command register and one invalidation queue. Both users
 * change the register under register_lock and from the state in iommu->gcmd,
 * and both submit under q_lock to the ring in iommu->qi: a private copy of
 * either would switch the other user off.
 *
 * Lock order: dmar_global_lock, then one of irq_2_ir_lock, register_lock and
 * q_lock. The kernel takes q_lock under irq_2_ir_lock; this file does not.
 *
 * The locks and lists are not exported to modules: what calls these functions
 * must be part of the kernel crate, and not be inlined into drivers.
 */

#if defined(CONFIG_DMAR_TABLE) && defined(CONFIG_IRQ_REMAP)

#include <linux/delay.h>
#include <linux/iopoll.h>
#include <linux/timekeeping.h>
#include <asm/irq_remapping.h>
#include "../../drivers/iommu/intel/iommu.h"
#include "../../drivers/iommu/irq_remapping.h"

/* The longest wait for a command, in microseconds, and the time between looks. */
#define DMAR_COMMAND_TIMEOUT	1000000
#define DMAR_COMMAND_DELAY	10
/*
 * The least wait for a batch, in looks and in nanoseconds: a virtual machine that is
 * paused looks rarely. The first looks are not a microsecond apart.
 */
#define DMAR_BATCH_LOOKS	100000
#define DMAR_BATCH_TIMEOUT	NSEC_PER_SEC
#define DMAR_QUICK_LOOKS	100
/* Looks between two reads of the fault status, which are slow. */
#define DMAR_FAULT_LOOKS	64

/* The state bits and the one-shot bits that a driver of DMA changes. */
#define DMAR_DMA_STATES		DMA_GCMD_TE
#define DMAR_DMA_ONCE		(DMA_GCMD_SRTP | DMA_GCMD_WBF)

/* A unit that is shared, and the words that its waits write, one for each slot. */
struct dmar_shared {
	struct intel_iommu *iommu;
	int entry;
	/* Of the last batch, under q_lock. */
	u32 number;
	/* The unit may write to this value later. */
	bool leaked;
	u32 done[QI_LENGTH];
};

static inline struct intel_iommu *dmar_find_unit(u64 base)
{
	struct dmar_drhd_unit *drhd;
	struct intel_iommu *iommu;

	for_each_iommu(iommu, drhd)
		if (drhd->reg_base_addr == base)
			return iommu;
	return NULL;
}

/*
 * An entry of the interrupt table that is in use keeps the unit from being
 * removed (dmar_ir_hotplug()).
 */
static inline int dmar_hold(struct intel_iommu *iommu)
{
	guard(raw_spinlock_irqsave)(&irq_2_ir_lock);
	return bitmap_find_free_region(iommu->ir_table->bitmap, INTR_REMAP_TABLE_ENTRIES, 0);
}

static inline void dmar_release(struct intel_iommu *iommu, int entry)
{
	guard(raw_spinlock_irqsave)(&irq_2_ir_lock);
	bitmap_release_region(iommu->ir_table->bitmap, entry, 0);
}

/*
 * Finds the unit with registers at @base, and keeps it from being removed. The kernel's
 * handler reports its faults from now on. May sleep.
 *
 * Returns -ENODEV if interrupt remapping does not run this unit, -EBUSY if the
 * C driver translates with it, -EOPNOTSUPP if its queue has narrow descriptors.
 */
__rust_helper struct dmar_shared *rust_helper_dmar_get_shared_unit(u64 base)
{
	struct intel_iommu *iommu;
	struct dmar_shared *shared __free(kfree) = NULL;
	int error;

	guard(rwsem_read)(&dmar_global_lock);
	if (!irq_remapping_enabled)
		return ERR_PTR(-ENODEV);
	iommu = dmar_find_unit(base);
	if (!iommu || !iommu->qi || !iommu->ir_table)
		return ERR_PTR(-ENODEV);
	if (intel_iommu_enabled)
		return ERR_PTR(-EBUSY);
	if (!ecap_smts(iommu->ecap))
		return ERR_PTR(-EOPNOTSUPP);

	shared = kzalloc_obj(*shared);
	if (!shared)
		return ERR_PTR(-ENOMEM);
	/* A kernel that translates nothing asks for it only where NUMA nodes are known. */
	error = dmar_set_interrupt(iommu);
	if (error)
		return ERR_PTR(error);
	shared->iommu = iommu;
	shared->entry = dmar_hold(iommu);
	if (shared->entry < 0)
		return ERR_PTR(shared->entry);
	return no_free_ptr(shared);
}

/* May sleep. */
__rust_helper void rust_helper_dmar_put_shared_unit(struct dmar_shared *shared)
{
	dmar_release(shared->iommu, shared->entry);
	if (!READ_ONCE(shared->leaked))
		kfree(shared);
}

/* Where the registers of a unit are, as the kernel has claimed and mapped them. */
__rust_helper void rust_helper_dmar_registers(struct dmar_shared *shared, u64 *base, u64 *bytes)
{
	*base = shared->iommu->reg_phys;
	*bytes = shared->iommu->reg_size;
}

/*
 * Sets and clears bits of the command register, writes the one-shot bits @once
 * with them, and waits until the status register reads @want in the bits @mask.
 * Any context.
 *
 * Returns -EINVAL for bits that are not about DMA.
 */
__rust_helper int rust_helper_dmar_command(struct dmar_shared *shared, u32 set, u32 clear,
					   u32 once, u32 mask, u32 want)
{
	struct intel_iommu *iommu = shared->iommu;
	u32 states = set | clear, status;
	int error;

	if ((states & ~DMAR_DMA_STATES) || (once & ~DMAR_DMA_ONCE))
		return -EINVAL;

	guard(raw_spinlock_irqsave)(&iommu->register_lock);
	iommu->gcmd = (iommu->gcmd | set) & ~clear;
	writel(iommu->gcmd | once, iommu->reg + DMAR_GCMD_REG);
	error = readl_poll_timeout_atomic(iommu->reg + DMAR_GSTS_REG, status,
					  (status & mask) == want, DMAR_COMMAND_DELAY,
					  DMAR_COMMAND_TIMEOUT);
	/* States have the same bit in both registers. */
	if (error)
		iommu->gcmd = (iommu->gcmd & ~states) | (status & states);
	return error;
}

/* Whether a descriptor invalidates what is cached for DMA, and nothing else. */
static inline bool dmar_is_for_dma(const u64 *descriptor)
{
	/* The type is in bits 3:0 and 11:9. */
	switch (descriptor[0] & (GENMASK_ULL(3, 0) | GENMASK_ULL(11, 9))) {
	case QI_CC_TYPE:
	case QI_IOTLB_TYPE:
	case QI_EIOTLB_TYPE:
	case QI_PC_TYPE:
		return true;
	default:
		return false;
	}
}

/*
 * Whether the batch of this number, whose first wait is in @slot, is done. Numbers grow in
 * the order of the ring: a later one in the same slot says so too.
 */
static inline bool dmar_is_done(struct dmar_shared *shared, u32 slot, u32 number)
{
	return (s32)(READ_ONCE(shared->done[slot % QI_LENGTH]) - number) >= 0;
}

/*
 * Whether the unit has stopped at a descriptor of the batch, because it refuses it. That
 * one becomes an invalidation of the interrupt-entry cache, which the unit accepts, so
 * that it goes on.
 */
static inline bool dmar_refuses(struct dmar_shared *shared, u32 first, u32 count, u32 number)
{
	static const struct qi_desc accepted = { .qw0 = QI_IEC_TYPE };
	struct intel_iommu *iommu = shared->iommu;
	int shift = qi_shift(iommu);
	u32 head;

	guard(raw_spinlock_irqsave)(&iommu->qi->q_lock);
	/* The slots may belong to another batch by now. */
	if (dmar_is_done(shared, first + count, number))
		return false;
	if (!(readl(iommu->reg + DMAR_FSTS_REG) & DMA_FSTS_IQE))
		return false;
	head = readl(iommu->reg + DMAR_IQH_REG) >> shift;
	if ((head - first) % QI_LENGTH >= count)
		return false;
	memcpy(iommu->qi->desc + (head << shift), &accepted, sizeof(accepted));
	writel(DMA_FSTS_IQE, iommu->reg + DMAR_FSTS_REG);
	/*
	 * The unit goes on when the bit is cleared, but QEMU's only when the tail is written.
	 * The specification (11.4.9.2) does not speak of writing the value that the register
	 * has: this says only that there is nothing new. The kernel's code does not write it
	 * here, as its next submission does.
	 */
	writel(iommu->qi->free_head << shift, iommu->reg + DMAR_IQT_REG);
	return true;
}

/* Frees the slots that the unit is done with, as each submission of the kernel does. */
static inline void dmar_reclaim(struct q_inval *qi)
{
	while (READ_ONCE(qi->desc_status[qi->free_tail]) == QI_FREE &&
	       qi->free_tail != qi->free_head) {
		qi->free_tail = (qi->free_tail + 1) % QI_LENGTH;
		qi->free_cnt++;
	}
}

static inline void dmar_write_wait(struct intel_iommu *iommu, u32 slot, void *word, u64 value)
{
	struct qi_desc wait = {
		.qw0 = QI_IWD_STATUS_DATA(value) | QI_IWD_STATUS_WRITE | QI_IWD_TYPE,
		.qw1 = virt_to_phys(word),
	};

	memcpy(iommu->qi->desc + (slot << qi_shift(iommu)), &wait, sizeof(wait));
}

/*
 * Puts the descriptors and two waits into the ring, if there is room. The first wait
 * writes a number to the word of its slot. The second one frees the slots: only the first
 * of them is in use, so that no slot is free before the unit is done with all, and each is
 * free then, whether or not this driver still waits.
 *
 * The kernel's code waits for room without reclaiming any, and reclaims when it is done.
 * So there is always room for one of its submissions: one descriptor and its wait, and the
 * slot that is never used.
 *
 * Stores the first slot in @first and returns the number; 0 if there is no room.
 */
static inline u32 dmar_begin(struct dmar_shared *shared, const u64 (*descriptors)[4], u32 count,
			     u32 *first)
{
	struct intel_iommu *iommu = shared->iommu;
	struct q_inval *qi = iommu->qi;
	int shift = qi_shift(iommu);
	u32 slot, number;

	guard(raw_spinlock_irqsave)(&qi->q_lock);
	dmar_reclaim(qi);
	if (qi->free_cnt < count + 2 + 3)
		return 0;

	*first = qi->free_head;
	for (u32 i = 0; i < count; i++) {
		slot = (*first + i) % QI_LENGTH;
		memcpy(qi->desc + (slot << shift), descriptors[i], 1 << shift);
		qi->desc_status[slot] = QI_FREE;
	}
	/* Odd, so never 0. */
	shared->number += 2;
	number = shared->number | 1;
	slot = (*first + count) % QI_LENGTH;
	qi->desc_status[slot] = QI_FREE;
	WRITE_ONCE(shared->done[slot], number - 1);
	dmar_write_wait(iommu, slot, &shared->done[slot], number);
	slot = (slot + 1) % QI_LENGTH;
	qi->desc_status[slot] = QI_FREE;
	qi->desc_status[*first] = QI_IN_USE;
	dmar_write_wait(iommu, slot, &qi->desc_status[*first], QI_FREE);

	qi->free_head = (slot + 1) % QI_LENGTH;
	qi->free_cnt -= count + 2;
	writel(qi->free_head << shift, iommu->reg + DMAR_IQT_REG);
	return number;
}

/*
 * Runs @count descriptors of 256 bits, and waits until the unit is done with them: a
 * second, or a little longer. Any context.
 *
 * Not by qi_submit_sync(): it waits without a bound for a unit that does not answer, and
 * recognises an error of the first descriptor only.
 *
 * Interrupts stay disabled: the unit stops at a refused descriptor until this code removes
 * it, and the kernel's code, in a handler on this CPU, would wait for that.
 *
 * Returns -EINVAL if the unit refuses a descriptor, or one is not about DMA: a wait would
 * write to any address, and the invalidation of a device's TLB can time out, which the
 * kernel's code would have to handle.
 */
__rust_helper int rust_helper_dmar_submit(struct dmar_shared *shared,
					  const u64 (*descriptors)[4], u32 count)
{
	u64 deadline = ktime_get_mono_fast_ns() + DMAR_BATCH_TIMEOUT;
	u32 first = 0, number = 0;
	int error = 0;

	for (u32 i = 0; i < count; i++) {
		if (!dmar_is_for_dma(descriptors[i]))
			return -EINVAL;
	}

	guard(irqsave)();
	for (u32 look = 0;; look++) {
		if (!number)
			number = dmar_begin(shared, descriptors, count, &first);
		if (number && dmar_is_done(shared, first + count, number))
			return error;
		if (number && look % DMAR_FAULT_LOOKS == DMAR_FAULT_LOOKS - 1 &&
		    dmar_refuses(shared, first, count, number))
			error = -EINVAL;
		if (look >= DMAR_BATCH_LOOKS && ktime_get_mono_fast_ns() > deadline)
			break;
		if (look < DMAR_QUICK_LOOKS)
			cpu_relax();
		else
			udelay(1);
	}
	if (number)
		WRITE_ONCE(shared->leaked, true);
	return -ETIMEDOUT;
}

#else /* CONFIG_DMAR_TABLE && CONFIG_IRQ_REMAP */

struct dmar_shared;

__rust_helper struct dmar_shared *rust_helper_dmar_get_shared_unit(u64 base)
{
	return ERR_PTR(-ENODEV);
}

__rust_helper void rust_helper_dmar_put_shared_unit(struct dmar_shared *shared)
{
}

__rust_helper void rust_helper_dmar_registers(struct dmar_shared *shared, u64 *base, u64 *bytes)
{
	*base = 0;
	*bytes = 0;
}

__rust_helper int rust_helper_dmar_command(struct dmar_shared *shared, u32 set, u32 clear,
					   u32 once, u32 mask, u32 want)
{
	return -ENODEV;
}

__rust_helper int rust_helper_dmar_submit(struct dmar_shared *shared,
					  const u64 (*descriptors)[4], u32 count)
{
	return -ENODEV;
}

#endif /* CONFIG_DMAR_TABLE && CONFIG_IRQ_REMAP */
