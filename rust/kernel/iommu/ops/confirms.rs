// SPDX-License-Identifier: GPL-2.0

//! The promise of a driver that memory safety depends on.
//!
//! Page tables are freed because a method of a driver returned `Ok`. This trait states everything
//! that such methods must guarantee, once for both traits, so that the traits need not be `unsafe`
//! as a whole.

#[cfg(doc)]
use super::{
    super::{
        gather::IotlbGather,
        hw::pages::TablePages,
        pt::{
            DetachedTable,
            Gather,
            PageTable, //
        },
        tags::Tags,
        values::Flush, //
    },
    Driver,
    PagingDomain, //
};

/// A driver for which `Ok` means that hardware has done it.
///
/// The promise is about what is freed because of it. Which memory a driver leads its devices to is
/// left to the driver, as in C.
///
/// # Safety
///
/// A unit has *forgotten* a table or a translation if it does not act on it any more, and will not
/// until a driver points it there again: no entry that it reads leads there, no cache of the unit
/// or of a device holds a copy, and no access or walk that uses one is under way. The unit itself
/// has confirmed that.
///
/// 1. *Attaching.* Nothing but [`PagingDomain::install`] points a unit to the page tables of a
///    domain, and [`Gather::change_top`] where it was pointed to them before. `install`,
///    [`Driver::attach_identity`] and [`Driver::attach_blocked`] return `Ok` only after the unit
///    has forgotten, for this slot of the device, what the slot had before.
/// 2. *Flushing.* [`PagingDomain::tags`] names each cache that may hold something of the domain
///    because of the attachment. [`PagingDomain::sync`] returns `Ok` only after each unit with a
///    tag in the [`Tags`] that it is given has dropped all copies from before the call:
///    those of the translations of the addresses of the [`Flush`], and those of table entries on
///    the way to them if the flush says so. It has forgotten then what no entry leads to any more.
/// 3. *Detached tables.* A table that [`PagingDomain::map`] or [`PagingDomain::unmap`] detaches is
///    put into the [`IotlbGather`] that the same call was given, or leaked.
/// 4. *Memory.* A [`PageTable`], [`TablePages`] or [`DetachedTable`] that a unit was told of is
///    dropped after the unit has forgotten it, or never. A domain keeps its page tables until it is
///    dropped itself.
pub unsafe trait Confirms {}
