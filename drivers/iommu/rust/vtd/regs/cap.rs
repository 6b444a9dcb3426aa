// SPDX-License-Identifier: GPL-2.0

//! Version and capabilities (VT-d specification, 11.4.1 to 11.4.3).
//!
//! All of these are read-only. What they mean for the driver is in [`crate::caps`].

use kernel::io::register;

register! {
    /// Architecture version that the unit implements.
    pub(crate) VER(u32) @ 0x00 {
        7:4     major;
        3:0     minor;
    }

    /// Capabilities of the unit.
    pub(crate) CAP(u64) @ 0x08 {
        /// ESRTPS: setting the root table pointer invalidates all translation caches.
        63:63   enhanced_set_root => bool;
        /// FL5LP: first stage with five levels.
        60:60   first_stage_five_levels => bool;
        /// FS1GP: 1 GiB pages in first-stage tables.
        56:56   first_stage_1g => bool;
        /// DRD: draining of reads on an IOTLB invalidation.
        55:55   drain_reads => bool;
        /// DWD: draining of writes on an IOTLB invalidation.
        54:54   drain_writes => bool;
        /// MAMV: the largest address mask of a page-selective IOTLB invalidation.
        53:48   max_address_mask;
        /// NFR: number of fault recording registers, less one.
        47:40   fault_records;
        /// PSI: page-selective invalidation of second-stage translations.
        39:39   page_selective => bool;
        /// SSLPS bit 1: 1 GiB pages in second-stage tables.
        35:35   second_stage_1g => bool;
        /// SSLPS bit 0: 2 MiB pages in second-stage tables.
        34:34   second_stage_2m => bool;
        /// FRO: offset of the fault recording registers, in units of 16 bytes.
        33:24   fault_offset;
        /// MGAW: maximum guest address width, less one.
        21:16   guest_width;
        /// SAGAW: one bit for each supported number of second-stage levels.
        12:8    second_stage_levels;
        /// CM: absent entries may be cached.
        7:7     caching_mode => bool;
        /// PHMR: a protected high memory region.
        6:6     protected_high => bool;
        /// PLMR: a protected low memory region.
        5:5     protected_low => bool;
        /// RWBF: the write buffer must be flushed explicitly.
        4:4     write_buffer_flush => bool;
        /// ND: number of domains, coded as 2^(4 + 2 ND).
        2:0     domains;
    }

    /// Extended capabilities of the unit.
    pub(crate) ECAP(u64) @ 0x10 {
        /// SMPWC: walks of scalable-mode paging structures are coherent.
        48:48   coherent_walk => bool;
        /// FSTS: first-stage translation.
        47:47   first_stage => bool;
        /// SSTS: second-stage translation.
        46:46   second_stage => bool;
        /// SSADS: accessed and dirty flags in second-stage tables.
        45:45   second_stage_dirty => bool;
        /// SMTS: scalable-mode translation.
        43:43   scalable_mode => bool;
        /// PASID: requests with PASID.
        40:40   pasid => bool;
        /// SC: snoop control in second-stage leaves, and page snoop in PASID entries.
        7:7     snoop_control => bool;
        /// PT: pass-through translation.
        6:6     pass_through => bool;
        /// IR: interrupt remapping.
        3:3     interrupt_remapping => bool;
        /// QI: queued invalidation.
        1:1     queued_invalidation => bool;
        /// C: accesses to root, context and PASID tables are coherent.
        0:0     coherent_tables => bool;
    }
}
