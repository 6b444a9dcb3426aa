/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the kernel counts and logs about interrupts.
 */
#ifndef SELFTESTS_IOMMU_RUST_LIB_INTERRUPTS_H
#define SELFTESTS_IOMMU_RUST_LIB_INTERRUPTS_H

#include <stdbool.h>

#include <linux/types.h>

/* The kernel prints no more than ten faults in so many seconds. */
#define SECONDS_OF_FAULTS 5

/*
 * The sum of all CPUs in the line "SPU" or "ERR" of /proc/interrupts, which is not there
 * before the first one; -1 if that cannot be read.
 */
long interrupts_counted(const char *name);

/* How many interrupts @irq each CPU has had, also one that is off now. Returns how many CPUs. */
int interrupts_per_cpu(int irq, u64 *counts, int nr_counts);

/* The interrupts that the driver of the function @bdf has allocated. Returns how many. */
int interrupts_of_function(const char *bdf, int *irqs, int nr_irqs);

/* The kernel's log from now on. */
int kernel_log_open(void);

/* Whether a line that came to the log since @kmsg was opened or read holds @text. */
bool kernel_says(int kmsg, const char *text);

/* Returns 0 or a negative errno. */
int __write_file(const char *path, const char *text);

#endif /* SELFTESTS_IOMMU_RUST_LIB_INTERRUPTS_H */
