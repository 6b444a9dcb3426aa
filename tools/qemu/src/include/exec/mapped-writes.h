/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Writes of devices into guest memory that they have mapped.
 *
 * A device that maps guest memory for writing is translated once, when it maps.
 * It writes later, by when the guest can have read the dirty flag, cleared it
 * and invalidated the translation. Hardware would translate the write itself
 * and set the flag again. So a mapping through an IOMMU that keeps such flags is
 * remembered, and translated once more when the device is done writing: no
 * write is lost, some are reported twice.
 */

#ifndef EXEC_MAPPED_WRITES_H
#define EXEC_MAPPED_WRITES_H

/* QEMU 10.1 moved it */
#if __has_include("system/memory.h")
#include "system/memory.h"
#else
#include "exec/memory.h"
#endif

/* Watch an IOMMU. Once is enough, for as long as the region lives. */
void mapped_writes_watch(IOMMUMemoryRegion *iommu);

bool mapped_writes_watched(IOMMUMemoryRegion *iommu);

/**
 * mapped_writes_begin() - a device will write to @len bytes from @addr on
 * @as: the address space that the device sees
 * @buffer: where it will write to; names the mapping when it ends
 */
void mapped_writes_begin(AddressSpace *as, void *buffer, hwaddr addr,
                         hwaddr len);

/**
 * mapped_writes_end() - the device has written @written bytes, from the start
 *
 * Does nothing for a mapping that was not begun. Takes the locks of the IOMMU's
 * translation, so the caller must hold none that nest inside them.
 */
void mapped_writes_end(AddressSpace *as, void *buffer, hwaddr written);

#endif
