// SPDX-License-Identifier: GPL-2.0
/*
 * The tracepoints of the Rust abstractions of the IOMMU core, which call them
 * from rust/kernel/iommu/trace.rs. Built into the kernel, as these are.
 */
#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include <trace/events/rust_iommu.h>
