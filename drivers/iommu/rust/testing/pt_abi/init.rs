// SPDX-License-Identifier: GPL-2.0

//! Makes a table from the configuration that a driver asks for.

use core::mem::offset_of;

use kernel::{
    bindings,
    iommu::{
        hw::pages::{
            self,
            Gfp, //
        },
        pt::{
            Format,
            Tree, //
        }, //
    },
    pr_err_once,
    prelude::*,
    warn_on, //
};

use super::{
    format::{
        CFormat,
        Features, //
    },
    memory::DomainTables,
    ops::Ops,
    table::{
        low_mask,
        resolved_lg2,
        RawConfig,
        RawTable, //
    }, //
};

/// The properties of a table, from what a driver asked for.
struct Shape {
    features: Features,
    start: u8,
    input_lg2: u8,
    output_lg2: u8,
}

impl Shape {
    /// Checks `config` in the order of C, so that the first of several mistakes decides the error.
    fn new<C: CFormat>(config: &RawConfig) -> Result<Self> {
        let RawConfig { common, top_level } = config;
        let asked = Features::from_raw(common.features);
        let has = C::effective(asked);

        if u32::from(common.hw_max_vasz_lg2) > C::INPUT_LG2
            || common.hw_max_vasz_lg2 == 0
            || common.hw_max_oasz_lg2 == 0
        {
            return Err(EINVAL);
        }
        if !C::TOPS.contains(top_level) {
            return Err(C::BAD_TOP);
        }
        if u32::from(common.hw_max_oasz_lg2) > C::Format::OUTPUT_LG2 {
            return Err(EINVAL);
        }

        // CAST: `TOPS` ends before 8.
        let start = *top_level as u8;
        let grows = has.has(Features::DYNAMIC_TOP);
        let highest = top_level == C::TOPS.end();
        // CAST: At most 12 + 9 * 6 = 66.
        let resolved = resolved_lg2::<C::Format>(start) as u8;
        let mut input_lg2 = common.hw_max_vasz_lg2;

        if C::CUT_TO_TOP && !grows && !highest {
            input_lg2 = input_lg2.min(resolved);
        }

        // A top that resolves all 64 bits is a separate feature.
        let at_first = if grows && !highest {
            input_lg2.min(resolved)
        } else {
            input_lg2
        };
        let asked = if u32::from(at_first) == u64::BITS {
            asked.with(Features::FULL_VA)
        } else {
            asked
        };

        if !C::SUPPORTED.includes(asked)
            || !(cfg!(CONFIG_DEBUG_GENERIC_PT) || asked.includes(C::FORCED))
        {
            return Err(EOPNOTSUPP);
        }
        if !grows && input_lg2 > resolved {
            return Err(EOPNOTSUPP);
        }
        Ok(Self {
            features: asked,
            start,
            input_lg2,
            output_lg2: common.hw_max_oasz_lg2,
        })
    }
}

/// The leaf sizes of a table with that many bits of address: each is smaller than half of the
/// addresses.
pub(super) fn page_sizes<C: CFormat>(input_lg2: u32, output_lg2: u32) -> u64 {
    C::Format::PAGE_SIZES & low_mask(input_lg2.saturating_sub(1)) & low_mask(output_lg2)
}

/// Sets all fields to zero but the domain and what the driver chose. `init()` does this first:
/// `pt_iommu_deinit()` does nothing as long as there are no operations.
///
/// # Safety
///
/// `raw` is valid for reads and writes, and its bytes are initialised. No other code uses it.
unsafe fn zero(raw: *mut RawTable) {
    let after = offset_of!(bindings::pt_iommu, domain) + size_of::<bindings::iommu_domain>();

    // SAFETY: `raw` is valid and initialised, and no other code uses it (contract). All that is
    // written lies in the struct. Zeroes are valid for all fields.
    unsafe {
        let bindings::pt_iommu {
            driver_ops,
            nid,
            iommu_device,
            ..
        } = (*raw).iommu;

        raw.cast::<u8>()
            .add(after)
            .write_bytes(0, size_of::<RawTable>() - after);
        (*raw).iommu.driver_ops = driver_ops;
        (*raw).iommu.nid = nid;
        (*raw).iommu.iommu_device = iommu_device;
    }
}

/// Fills the domain as the core wants it.
fn fill_domain<C: CFormat>(domain: &mut bindings::iommu_domain, shape: &Shape) {
    let sign = u32::from(shape.features.has(Features::SIGN_EXTEND));
    let input_lg2 = u32::from(shape.input_lg2);

    domain.type_ = bindings::__IOMMU_DOMAIN_PAGING;
    // CAST: `unsigned long` has 64 bits here.
    domain.pgsize_bitmap = page_sizes::<C>(input_lg2, shape.output_lg2.into()) as usize;
    domain.is_iommupt = true;
    // Of a sign-extended space, the core gets the lower half.
    domain.geometry = bindings::iommu_domain_geometry {
        aperture_start: 0,
        aperture_end: low_mask(input_lg2 - sign),
        force_aperture: true,
    };
}

/// `pt_iommu_<format>_init()`: makes a table that maps nothing.
///
/// # Errors
///
/// - `EINVAL` for sizes that the format does not have, and for features that do not go together or
///   whose driver operations or device are missing.
/// - `EOPNOTSUPP` for features that the format does not have, for a top that is too small, and for
///   tables that would have to be encrypted.
/// - `ENOMEM`.
///
/// # Safety
///
/// `table` points to an initialised struct (zeroes will do), and no other code uses it. Its
/// `driver_ops` and `iommu_device` are null, or valid for as long as it is used. `config` is valid
/// and does not change during the call.
pub(super) unsafe fn init<C: CFormat>(
    table: *mut C::Table,
    config: *const C::Config,
    gfp: bindings::gfp_t,
) -> Result {
    let raw = table.cast::<RawTable>();
    // SAFETY: `config` is valid and does not change (contract). It has the layout of a `RawConfig`,
    // by the contract of `CFormat`.
    let config = unsafe { &*config.cast::<RawConfig>() };

    // SAFETY: `table` is initialised, and no other code uses it (contract). It has the layout of a
    // `RawTable`, by the contract of `CFormat`.
    unsafe { zero(raw) };

    let shape = Shape::new::<C>(config)?;
    let has = C::effective(shape.features);
    let incoherent = has.has(Features::DMA_INCOHERENT);
    // SAFETY: `raw` is initialised, and no other code uses it; its `driver_ops` is null or valid
    // (contract).
    let (ops, device) = unsafe { ((*raw).iommu.driver_ops.as_ref(), (*raw).iommu.iommu_device) };

    if has.has(Features::DYNAMIC_TOP) {
        let usable = ops.is_some_and(|ops| ops.change_top.is_some() && ops.get_top_lock.is_some());

        if warn_on!(!usable) {
            return Err(EINVAL);
        }
    }
    if has.has(Features::SIGN_EXTEND)
        && (has.has(Features::FULL_VA) || has.has(Features::DYNAMIC_TOP))
    {
        return Err(EINVAL);
    }
    if incoherent && warn_on!(device.is_null()) {
        return Err(EINVAL);
    }
    if has.has(C::ENCRYPT) && pages::are_encrypted() {
        pr_err_once!("Rust page tables cannot be encrypted: build without RUST_IOMMU_PT\n");
        return Err(EOPNOTSUPP);
    }

    // SAFETY: `raw` is initialised, and no other code uses it (contract).
    fill_domain::<C>(unsafe { &mut (*raw).iommu.domain }, &shape);

    // SAFETY: `raw` is valid. Its device is null or stays valid as long as the table is used
    // (contract), which is longer than `mem` is.
    let mem = unsafe { DomainTables::new(&raw const (*raw).iommu, incoherent) };
    let levels = shape.start + 1;
    let top = Tree::<C::Format, _>::new_top(&mem, !incoherent, levels, Gfp::from_raw(gfp))?;

    // SAFETY: `raw` is initialised, and no other code uses it (contract).
    unsafe {
        // CAST: `uintptr_t` has 64 bits here.
        (*raw).common.top_of_table = top as usize;
        (*raw).common.max_oasz_lg2 = shape.output_lg2;
        (*raw).common.max_vasz_lg2 = shape.input_lg2;
        (*raw).common.features = shape.features.as_raw();
        // This is last, see `zero()`.
        (*raw).iommu.ops = &Ops::<C>::TABLE;
    }
    Ok(())
}
