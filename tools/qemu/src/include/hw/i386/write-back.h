/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory as something sees it that does not snoop the processors' caches.
 *
 * QEMU's memory is what the processors have stored. What they have written back
 * of it, by CLFLUSH, CLFLUSHOPT or CLWB, is kept beside, a line at a time, for
 * an IOMMU whose walks do not snoop. Nothing is written back by itself, and a
 * line that never was reads as ones: real caches do better, but no driver may
 * rely on it.
 */

#ifndef HW_I386_WRITE_BACK_H
#define HW_I386_WRITE_BACK_H

#include "exec/hwaddr.h"

/* From now on, what is written back is kept. */
void write_back_watch(void);

bool write_back_is_watched(void);

/* A processor writes back the line that an address is in. Any thread. */
void write_back_line(hwaddr addr);

/* Read what was written back last. Any thread. */
void write_back_read(hwaddr addr, void *buf, hwaddr len);

#endif
