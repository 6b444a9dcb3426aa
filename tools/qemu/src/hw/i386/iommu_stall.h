/* SPDX-License-Identifier: GPL-2.0 */
/*
 * An emulated IOMMU that does not answer, for tests of drivers' timeouts.
 *
 * Software tells it to by a PCI function of its own, iommu-stall: iommu_stall.c.
 */

#ifndef HW_I386_IOMMU_STALL_H
#define HW_I386_IOMMU_STALL_H

typedef struct IOMMUStall IOMMUStall;

/**
 * iommu_stall_new() - let a unit be stopped
 * @run: carries out the commands that wait in the unit's queue
 * @unit: what @run takes
 *
 * All functions are called under the big lock, as accesses to registers are.
 */
IOMMUStall *iommu_stall_new(void (*run)(void *unit), void *unit);

/**
 * iommu_stall_holds() - must the command that is next wait?
 *
 * For each command that is in the queue, before it is fetched. If it must, @run
 * is called when it need not any more.
 */
bool iommu_stall_holds(IOMMUStall *stall);

/* Is the completion that is due to get lost? */
bool iommu_stall_loses(IOMMUStall *stall);

#endif
