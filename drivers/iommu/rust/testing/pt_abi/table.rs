// SPDX-License-Identifier: GPL-2.0

//! A `struct pt_iommu_<format>` of C as a tree of the Rust tables.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

use kernel::{
    bindings,
    ffi::c_uint,
    iommu::pt::{
        Format,
        Level,
        Limits,
        Range,
        Tree, //
    },
    prelude::*,
    sync::atomic::Atomic, //
};

use super::{
    format::{
        CFormat,
        Features, //
    },
    memory::DomainTables, //
};

/// The layout that `struct pt_iommu_<format>` has for each format.
#[repr(C)]
pub(super) struct RawTable {
    pub(super) iommu: bindings::pt_iommu,
    pub(super) common: bindings::pt_common,
}

/// The layout that `struct pt_iommu_<format>_cfg` has for each format.
#[repr(C)]
pub(super) struct RawConfig {
    pub(super) common: bindings::pt_iommu_cfg,
    pub(super) top_level: c_uint,
}

/// A mask of the `lg2` lowest bits; all from 64 on.
pub(super) const fn low_mask(lg2: u32) -> u64 {
    if lg2 >= u64::BITS {
        u64::MAX
    } else {
        (1 << lg2) - 1
    }
}

/// Binary logarithm of the entries of a table.
pub(super) const ENTRIES_LG2: u32 = 9;

/// The bits of an address that a top table of `level` resolves, with what is below it.
pub(super) const fn resolved_lg2<F: Format>(level: u8) -> u32 {
    // CAST: From 8 bits to 32.
    F::PAGE_LG2 + ENTRIES_LG2 * (level as u32 + 1)
}

/// The level in a word of the top table.
#[inline(always)]
fn level_of(word: u64) -> u8 {
    // CAST: Three bits.
    (word & u64::from(bindings::PT_TOP_LEVEL_MASK)) as u8
}

/// `READ_ONCE()`: of a field that C code may write at the same time.
///
/// # Safety
///
/// `field` is valid for reads and aligned.
#[inline(always)]
unsafe fn read_once<T: Copy>(field: *const T) -> T {
    // SAFETY: `field` is valid for reads and aligned (contract). A volatile read of a number is
    // what the kernel's memory model takes for a relaxed atomic one; a call of `Atomic::load` costs
    // several times as much.
    unsafe { field.read_volatile() }
}

/// A page table that C code owns.
///
/// # Invariants
///
/// - `raw` points to a struct that [`init()`](super::init::init) has filled for the format `C`. It
///   lives during `'a`, and with it the tables, the domain's and the driver's operations, and the
///   device.
/// - Meanwhile, only operations on [`Table::tree`] of a format that grows change `top_of_table`. C
///   may change the features.
/// - After `init()` a driver may have removed sizes from `domain.pgsize_bitmap`, before the first
///   operation.
/// - `mem` is the memory of its tables, and `features` what it has.
///
/// A contract calls a struct a *live table* of the format `C` if the first three hold for it until
/// the function returns, or until a borrow that the function returns ends.
pub(super) struct Table<'a, C: CFormat> {
    raw: NonNull<RawTable>,
    mem: DomainTables,
    features: Features,
    lifetime: PhantomData<(&'a RawTable, C)>,
}

impl<C: CFormat> Table<'_, C> {
    /// Borrows the table of a `struct pt_iommu`.
    ///
    /// # Safety
    ///
    /// `iommu` is the first member of a live table of the format `C`.
    #[inline]
    pub(super) unsafe fn from_raw(iommu: *mut bindings::pt_iommu) -> Self {
        let raw = iommu.cast::<RawTable>();
        // SAFETY: The table is live (contract), so the field is valid and aligned. C sets bits of
        // it meanwhile.
        let features = unsafe { read_once(&raw const (*raw).common.features) };
        let features = C::effective(Features::from_raw(features));
        // SAFETY: The table is live, and its device with it (contract). `init()` refuses an
        // incoherent table without a device.
        let mem = unsafe { DomainTables::new(iommu, features.has(Features::DMA_INCOHERENT)) };

        // INVARIANT: The table is live (contract); its memory and features were just read.
        Self {
            // SAFETY: `iommu` points to a live table (contract), so it is not null.
            raw: unsafe { NonNull::new_unchecked(raw) },
            mem,
            features,
            lifetime: PhantomData,
        }
    }

    /// Borrows the table of a domain.
    ///
    /// # Safety
    ///
    /// `domain` is that of a live table of the format `C`.
    #[inline]
    pub(super) unsafe fn from_domain(domain: *mut bindings::iommu_domain) -> Self {
        const_assert!(core::mem::offset_of!(bindings::pt_iommu, domain) == 0);
        // SAFETY: The table is live (contract). The domain is its first member.
        unsafe { Self::from_raw(domain.cast()) }
    }

    /// The features that the table has.
    #[inline]
    pub(super) fn features(&self) -> Features {
        self.features
    }

    /// The memory of the tables.
    #[inline]
    pub(super) fn memory(&self) -> &DomainTables {
        &self.mem
    }

    /// The owner that claims on the tree name.
    #[inline(always)]
    pub(super) fn owner(&self) -> *const RawTable {
        self.raw.as_ptr()
    }

    /// The struct that the driver embeds and the core passes.
    #[inline]
    pub(super) fn iommu(&self) -> *mut bindings::pt_iommu {
        self.raw.as_ptr().cast()
    }

    /// The domain.
    #[inline]
    pub(super) fn domain(&self) -> *mut bindings::iommu_domain {
        self.raw.as_ptr().cast()
    }

    /// The operations of the driver, if it has any.
    #[inline]
    pub(super) fn driver_ops(&self) -> Option<&bindings::pt_iommu_driver_ops> {
        // SAFETY: By the type invariants, the struct and the driver's operations live during `'a`.
        unsafe { (*self.iommu()).driver_ops.as_ref() }
    }

    /// The leaf sizes in use. The driver may have removed some of those that `init()` offered.
    #[inline]
    pub(super) fn page_sizes(&self) -> u64 {
        // SAFETY: By the type invariants the struct is live. Nothing changes the field any more.
        let sizes = unsafe { (*self.domain()).pgsize_bitmap };

        // CAST: `unsigned long` has 64 bits here.
        sizes as u64 & C::Format::PAGE_SIZES
    }

    /// The input addresses, sign bit included; with a top that grows, those of the highest.
    #[inline]
    pub(super) fn input_lg2(&self) -> u32 {
        // SAFETY: By the type invariants the struct is live. Only `init()` writes the field.
        unsafe { (*self.raw.as_ptr()).common.max_vasz_lg2 }.into()
    }

    /// The output addresses.
    #[inline]
    pub(super) fn output_lg2(&self) -> u32 {
        // SAFETY: By the type invariants the struct is live. Only `init()` writes the field.
        unsafe { (*self.raw.as_ptr()).common.max_oasz_lg2 }.into()
    }

    /// The word that holds the address of the top table and its level.
    #[inline]
    fn top(&self) -> &Atomic<u64> {
        // SAFETY: By the type invariants, the struct lives during `'a`.
        let word = unsafe { &raw mut (*self.raw.as_ptr()).common.top_of_table };

        // CAST: `uintptr_t` has the size of `u64` here: this is built for 64 bits only.
        const_assert!(size_of::<usize>() == size_of::<u64>());
        // SAFETY: By the type invariants the word lives as long as `self`. C code reads it by
        // `READ_ONCE()`, and writes it only by operations on the tree.
        unsafe { Atomic::from_ptr(word.cast::<u64>()) }
    }

    /// What can be mapped, and how.
    ///
    /// Each operation calls this and uses a part of it. The rest must cost nothing, so
    /// `read_once()` reads only what may change.
    #[inline(always)]
    fn limits(&self) -> Limits {
        let sign_extend = self.features.has(Features::SIGN_EXTEND);
        // `init()` refuses a table that has only the sign bit.
        let aperture_lg2 = self.input_lg2().wrapping_sub(sign_extend.into());
        let level = if self.features.has(Features::DYNAMIC_TOP) {
            C::top_max(self.input_lg2())
        } else if C::Format::GROWS {
            self.top_level()
        } else {
            // SAFETY: By the type invariants the struct is live. Nothing changes the word of a top
            // that does not grow.
            level_of(unsafe { (*self.raw.as_ptr()).common.top_of_table } as u64)
        };

        Limits {
            coherent: !self.features.has(Features::DMA_INCOHERENT),
            // No format here needs to know.
            marks: true,
            splits: false,
            sign_extend,
            // `init()` refuses more than `INPUT_LG2`.
            aperture_last: if C::INPUT_LG2 < u64::BITS {
                !u64::MAX.wrapping_shl(aperture_lg2)
            } else {
                low_mask(aperture_lg2)
            },
            page_sizes: self.page_sizes(),
            output_last: low_mask(self.output_lg2()),
            top_level: Level::top_of(level + 1).unwrap_or(Level::MAX),
        }
    }

    /// The level of the current top table.
    #[inline]
    pub(super) fn top_level(&self) -> u8 {
        // SAFETY: `top()` returns a reference to an atomic, so its word is valid for reads and
        // aligned.
        level_of(unsafe { read_once(self.top().as_ptr()) })
    }

    /// The tree.
    #[inline(always)]
    pub(super) fn tree(&self) -> Tree<'_, C::Format, DomainTables> {
        // SAFETY:
        // - By the type invariants the word names a tree in `mem`, and nothing frees the tree while
        //   `self` is borrowed.
        // - `init()` chose `input_lg2` and the sizes such that the highest top resolves them. A
        //   driver may have removed the smallest; `Ops::check()` refuses what needs it.
        unsafe { Tree::from_parts(&self.mem, self.top(), self.limits()) }
    }

    /// Whether the current top reaches `range`: only a map makes it grow.
    pub(super) fn is_reached(&self, range: &Range) -> bool {
        !self.features.has(Features::DYNAMIC_TOP)
            || range.last() <= low_mask(resolved_lg2::<C::Format>(self.top_level()))
    }
}
