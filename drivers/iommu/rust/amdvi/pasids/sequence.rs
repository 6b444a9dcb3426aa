// SPDX-License-Identifier: GPL-2.0

//! The order in which a device's PASIDs, its GCR3 table and its device table entry change. Pure.
//!
//! An entry has one field for whether requests without PASID are translated by guest tables (GIoV)
//! and one for whether it has a GCR3 table at all (GV); see [`entry_for`]. At every step the unit
//! treats requests of each kind, without PASID or with one, as before the change or as after it,
//! and refuses none in between:
//!
//! - the entry names the GCR3 table before the device may send requests with PASID, and until the
//!   device may not any more; the table decides on each PASID, and refuses most of them;
//! - guest tables enter the GCR3 table before an entry makes the unit use them, and leave it after
//!   the last entry that did;
//! - the translations of the old tables are invalidated last, when the unit cannot use these tables
//!   again.
//!
//! Host tables are the exception: an entry with a GCR3 table too would be nested translation. The
//! unit refuses all requests with PASID then. PASIDs stay enabled in the device, because the core
//! expects that of a device that has PASIDs (`iommufd_get_hw_info()` warns).
//!
//! If a unit does not answer, the whole device is blocked: it is unknown what the unit caches.

use kernel::prelude::*;

use crate::dte::entry::Entry;

/// How the unit treats requests without PASID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untagged {
    /// They are refused.
    Blocked,
    /// They pass.
    PassThrough,
    /// A host table translates them. No PASID can have guest tables: that is nested translation.
    Host,
    /// Guest tables at this address translate them.
    Guest(u64),
}

/// The wanted device table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// This value.
    Entry(Entry),
    /// The one for the host table that is being attached, with its current top.
    Host,
}

/// A device, and the unit that sees it.
pub(crate) trait Hardware {
    /// Enables PASIDs in the device, or disables them.
    fn switch(&mut self, on: bool) -> Result;
    /// Gives guest tables, or none, to a PASID that has an entry; PASID 0 stands for requests
    /// without PASID. Invalidates nothing.
    fn set_tables(&mut self, pasid: u32, root: Option<u64>) -> Result;
    /// Replaces the device table entry, and invalidates the old one and its translations of
    /// requests without PASID. If the unit does not answer, the entry blocks.
    fn set_entry(&mut self, wanted: Wanted) -> Result;
    /// Invalidates the translations of guest tables for a PASID.
    fn forget(&mut self, pasid: u32) -> Result;
}

/// Where a device's GCR3 table is, and the domain id that is cached with its PASIDs.
#[derive(Clone, Copy)]
pub(crate) struct Root {
    /// Its physical address.
    pub(crate) table: u64,
    /// Its levels.
    pub(crate) levels: u8,
    /// The id.
    pub(crate) domain: u16,
    /// The id for requests that pass once the PASIDs are off.
    pub(crate) pass_through: u16,
}

/// The state of a device.
pub(crate) struct State {
    root: Root,
    untagged: Untagged,
    /// The state that the entry was last given.
    wanted: Wanted,
    used: KVec<u32>,
}

/// The entry for requests without PASID, while the device may send requests with PASID too.
fn entry_for(root: &Root, untagged: Untagged) -> Wanted {
    let giov = match untagged {
        // The entry of PASID 0 is not present.
        Untagged::Blocked | Untagged::Guest(_) => true,
        Untagged::PassThrough => false,
        Untagged::Host => return Wanted::Host,
    };
    Wanted::Entry(Entry::guest_by_pasid(
        root.table,
        root.levels,
        giov,
        root.domain,
    ))
}

impl State {
    /// A device that has nothing yet.
    pub(crate) fn new(root: Root) -> Self {
        Self {
            root,
            untagged: Untagged::Blocked,
            wanted: Wanted::Entry(Entry::BLOCKED),
            used: KVec::new(),
        }
    }

    /// Switches the PASIDs on. All requests are refused, with or without one.
    ///
    /// # Errors
    ///
    /// The errors of the hardware; the entry blocks then.
    pub(crate) fn begin(&mut self, hardware: &mut impl Hardware) -> Result {
        self.write(entry_for(&self.root, self.untagged), hardware)?;
        hardware.switch(true).inspect_err(|_| {
            // A unit that does not answer is dead, and nothing is freed.
            let _ = self.write(Wanted::Entry(Entry::BLOCKED), hardware);
        })
    }

    /// Switches the PASIDs off. Requests without PASID pass if they did, else they are refused, and
    /// nothing of the device is read any more.
    ///
    /// # Errors
    ///
    /// The errors of the hardware.
    pub(crate) fn end(&mut self, hardware: &mut impl Hardware) -> Result {
        hardware.switch(false)?;
        self.write(
            Wanted::Entry(match self.untagged {
                Untagged::PassThrough => Entry::pass_through(self.root.pass_through),
                _ => Entry::BLOCKED,
            }),
            hardware,
        )
    }

    /// How the unit treats requests without PASID.
    pub(crate) fn untagged(&self) -> Untagged {
        self.untagged
    }

    /// Whether a PASID has guest tables.
    pub(crate) fn is_used(&self) -> bool {
        !self.used.is_empty()
    }

    /// Makes room for one more PASID.
    pub(crate) fn reserve(&mut self) -> Result {
        Ok(self.used.reserve(1, GFP_KERNEL)?)
    }

    fn write(&mut self, wanted: Wanted, hardware: &mut impl Hardware) -> Result {
        self.wanted = wanted;
        hardware.set_entry(wanted)
    }

    /// Writes the entry for the state of the device, if it changes. For a host table it always
    /// does: each domain has its own.
    fn update(&mut self, hardware: &mut impl Hardware) -> Result {
        let wanted = entry_for(&self.root, self.untagged);
        if self.wanted == wanted && wanted != Wanted::Host {
            return Ok(());
        }
        self.write(wanted, hardware)
    }

    /// Blocks the device, after an error.
    fn block(&mut self, hardware: &mut impl Hardware, pasid: u32) {
        let _ = hardware.set_tables(pasid, None);
        let _ = self.write(Wanted::Entry(Entry::BLOCKED), hardware);
    }

    /// Changes how the unit treats requests without PASID. Not to [`Untagged::Host`] while PASIDs
    /// are in use.
    ///
    /// # Errors
    ///
    /// The errors of the hardware; the device is blocked then, with all of its PASIDs.
    pub(crate) fn set_untagged(&mut self, new: Untagged, hardware: &mut impl Hardware) -> Result {
        let old = core::mem::replace(&mut self.untagged, new);
        self.change_untagged(old, hardware).inspect_err(|_| {
            self.untagged = Untagged::Blocked;
            self.block(hardware, 0);
        })
    }

    fn change_untagged(&mut self, old: Untagged, hardware: &mut impl Hardware) -> Result {
        let guest = |untagged| matches!(untagged, Untagged::Guest(_));
        if let Untagged::Guest(root) = self.untagged {
            hardware.set_tables(0, Some(root))?;
        }
        self.update(hardware)?;
        if guest(old) && !guest(self.untagged) {
            hardware.set_tables(0, None)?;
        }
        if guest(old) || guest(self.untagged) {
            hardware.forget(0)?;
        }
        Ok(())
    }

    /// Gives `pasid` the guest tables at `root`, in place of its old ones. Room was reserved.
    ///
    /// # Errors
    ///
    /// The errors of the hardware; the device is blocked then, with all of its PASIDs.
    pub(crate) fn attach(&mut self, pasid: u32, root: u64, hardware: &mut impl Hardware) -> Result {
        if !self.used.contains(&pasid) {
            // Within the capacity.
            let _ = self.used.push_within_capacity(pasid);
        }
        hardware
            .set_tables(pasid, Some(root))
            .and_then(|()| hardware.forget(pasid))
            .inspect_err(|_| {
                self.used.retain(|known| *known != pasid);
                self.block(hardware, pasid);
            })
    }

    /// Takes the guest tables of `pasid` away. Does nothing if it has none.
    ///
    /// # Errors
    ///
    /// The errors of the hardware; the device is blocked then, with all of its PASIDs.
    pub(crate) fn detach(&mut self, pasid: u32, hardware: &mut impl Hardware) -> Result {
        if !self.used.contains(&pasid) {
            return Ok(());
        }
        self.used.retain(|known| *known != pasid);
        hardware
            .set_tables(pasid, None)
            .and_then(|()| hardware.forget(pasid))
            .inspect_err(|_| self.block(hardware, pasid))
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
mod tests;
