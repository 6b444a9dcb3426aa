/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the Rust abstractions of the IOMMU core (rust/kernel/iommu) report to
 * ftrace, perf and BPF: Documentation/driver-api/rust-iommu/observe.rst.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM rust_iommu

#if !defined(_TRACE_RUST_IOMMU_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_RUST_IOMMU_H

#include <linux/tracepoint.h>

/*
 * The core has asked a domain which pages of a range are dirty.
 *
 * @dirty is what was reported. The leaves that were made clean lie between
 * @cleared_iova and the end of @cleared bytes from there: what the core flushes
 * next. Both are 0 if nothing was.
 */
TRACE_EVENT(iommu_harvest,
	TP_PROTO(u64 domain, u64 iova, u64 length, bool clear, u64 dirty,
		 u64 cleared_iova, u64 cleared, u64 time, int error),
	TP_ARGS(domain, iova, length, clear, dirty, cleared_iova, cleared, time, error),
	TP_STRUCT__entry(
		__field(u64, domain)
		__field(u64, iova)
		__field(u64, length)
		__field(u64, dirty)
		__field(u64, cleared_iova)
		__field(u64, cleared)
		__field(u64, time)
		__field(int, error)
		__field(bool, clear)
	),
	TP_fast_assign(
		__entry->domain = domain;
		__entry->iova = iova;
		__entry->length = length;
		__entry->dirty = dirty;
		__entry->cleared_iova = cleared_iova;
		__entry->cleared = cleared;
		__entry->time = time;
		__entry->error = error;
		__entry->clear = clear;
	),
	TP_printk("domain=%llu iova=0x%llx length=%llu bytes clear=%d dirty=%llu bytes cleared=0x%llx+%llu bytes time=%llu ns error=%d",
		  __entry->domain, __entry->iova, __entry->length, __entry->clear,
		  __entry->dirty, __entry->cleared_iova, __entry->cleared,
		  __entry->time, __entry->error)
);

/* Dirty tracking of a domain was switched, or with an error was not. */
TRACE_EVENT(iommu_tracking,
	TP_PROTO(u64 domain, bool on, int error),
	TP_ARGS(domain, on, error),
	TP_STRUCT__entry(
		__field(u64, domain)
		__field(int, error)
		__field(bool, on)
	),
	TP_fast_assign(
		__entry->domain = domain;
		__entry->error = error;
		__entry->on = on;
	),
	TP_printk("domain=%llu on=%d error=%d", __entry->domain, __entry->on, __entry->error)
);

/*
 * A unit does not answer: it is given up, and @devices behind it have lost bus
 * mastering. The texts do not end with a zero.
 */
TRACE_EVENT(iommu_unit_dead,
	TP_PROTO(const char *kind, size_t kind_length, u64 number, const char *reason,
		 size_t reason_length, u64 devices),
	TP_ARGS(kind, kind_length, number, reason, reason_length, devices),
	TP_STRUCT__entry(
		__string_len(kind, kind, kind_length)
		__string_len(reason, reason, reason_length)
		__field(u64, number)
		__field(u64, devices)
	),
	TP_fast_assign(
		__assign_str(kind);
		__assign_str(reason);
		__entry->number = number;
		__entry->devices = devices;
	),
	TP_printk("unit=%s%llu reason=\"%s\" devices=%llu", __get_str(kind), __entry->number,
		  __get_str(reason), __entry->devices)
);

#endif /* _TRACE_RUST_IOMMU_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
