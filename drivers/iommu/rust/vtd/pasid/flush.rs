// SPDX-License-Identifier: GPL-2.0

//! The invalidations that a change of a PASID entry needs, and their order.
//!
//! VT-d specification, 6.5.3.3 and the table "Guidance to Software for Invalidations" there: first
//! the PASID cache, then the translations that were made with the entry; in the other order the
//! unit could cache new ones from the old entry. Device TLBs would come third; this driver never
//! enables them. Pure.

use crate::{
    caps::{
        Caps,
        Stage, //
    },
    iotlb::Tag,
    qi::desc::Descriptor,
};

use super::{
    entry::{
        Entry,
        Translation, //
    },
    writer::Forget, //
};

/// The most descriptors that one change needs.
const LONGEST: usize = 3;

/// Descriptors in the order of submission.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    descriptors: [Descriptor; LONGEST],
    len: usize,
}

impl Batch {
    fn new() -> Self {
        Self {
            descriptors: [Descriptor([0; 4]); LONGEST],
            len: 0,
        }
    }

    fn push(mut self, descriptor: Descriptor) -> Self {
        if let Some(place) = self.descriptors.get_mut(self.len) {
            *place = descriptor;
            self.len += 1;
        }
        self
    }

    /// The descriptors.
    pub(crate) fn as_slice(&self) -> &[Descriptor] {
        self.descriptors.get(..self.len).unwrap_or(&[])
    }
}

/// The owner of the entry that changes.
#[derive(Clone, Copy)]
pub(crate) struct Owner {
    /// Requester ID of the device.
    pub(crate) source: u16,
    /// The PASID; zero for requests without one.
    pub(crate) pasid: u32,
}

/// The invalidation of everything that was translated with `entry`.
fn translations(caps: &Caps, entry: &Entry, pasid: u32) -> Descriptor {
    let domain = entry.domain();
    match entry.translation() {
        Some(Translation::Second) => Tag {
            stage: Stage::Second,
            domain,
            pasid,
        }
        .all(caps),
        // Pass-through is cached by domain and PASID as well.
        _ => Descriptor::pasid_iotlb_all(domain, pasid),
    }
}

/// The descriptors for `what`.
pub(crate) fn batch(caps: &Caps, owner: Owner, what: Forget) -> Batch {
    let batch = Batch::new();
    match what {
        Forget::Old(entry) => {
            batch
                .push(Descriptor::pasid_cache(entry.domain(), owner.pasid))
                .push(translations(caps, &entry, owner.pasid))
                // Hardware needs no more. QEMU before 10.2 re-reads whether a device bypasses the
                // unit only when its context entry is invalidated.
                .push(Descriptor::context_device(owner.source, 0))
        }
        Forget::Absent(entry) => {
            // Units that cache absent entries (CAP.CM) need the first two. QEMU always needs the
            // first and the third, to re-read how it translates the device.
            let batch = batch.push(Descriptor::pasid_cache(entry.domain(), owner.pasid));
            let batch = if caps.caching_mode() {
                batch.push(translations(caps, &entry, owner.pasid))
            } else {
                batch
            };
            batch.push(Descriptor::context_device(owner.source, 0))
        }
        Forget::Dirty(entry) => batch
            .push(Descriptor::pasid_cache(entry.domain(), owner.pasid))
            .push(translations(caps, &entry, owner.pasid)),
    }
}

#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
#[kernel::prelude::kunit_tests(rust_vtd_pasid_flush)]
mod tests {
    use super::*;
    use crate::{
        pasid::entry::Common,
        regs::cap::{
            CAP,
            ECAP, //
        },
    };

    fn caps(caching: bool) -> Caps {
        Caps::new(CAP::from_raw(u64::from(caching) << 7), ECAP::from_raw(0))
    }

    fn owner(pasid: u32) -> Owner {
        Owner {
            source: 0x108,
            pasid,
        }
    }

    fn common(domain: u16) -> Common {
        Common {
            domain,
            walk_snoop: true,
            page_snoop: false,
        }
    }

    #[test]
    fn an_old_second_stage_entry() {
        let entry = Entry::second_stage(0x1000, 4, false, common(7));
        let batch = batch(&caps(false), owner(0), Forget::Old(entry));
        assert_eq!(
            batch.as_slice(),
            &[
                Descriptor::pasid_cache(7, 0),
                Descriptor::iotlb_domain(7, (false, false)),
                Descriptor::context_device(0x108, 0),
            ]
        );
    }

    #[test]
    fn an_old_first_stage_or_pass_through_entry() {
        for entry in [
            Entry::first_stage(0x1000, 4, 4, common(7)),
            Entry::pass_through(4, common(7)),
        ] {
            let batch = batch(&caps(false), owner(9), Forget::Old(entry));
            assert_eq!(
                batch.as_slice(),
                &[
                    Descriptor::pasid_cache(7, 9),
                    Descriptor::pasid_iotlb_all(7, 9),
                    Descriptor::context_device(0x108, 0),
                ]
            );
        }
    }

    #[test]
    fn a_new_entry() {
        let entry = Entry::first_stage(0x1000, 4, 4, common(7));
        let cached = batch(&caps(true), owner(0), Forget::Absent(entry));
        assert_eq!(
            cached.as_slice(),
            &[
                Descriptor::pasid_cache(7, 0),
                Descriptor::pasid_iotlb_all(7, 0),
                Descriptor::context_device(0x108, 0),
            ]
        );
        let plain = batch(&caps(false), owner(0), Forget::Absent(entry));
        assert_eq!(plain.as_slice().len(), 2);
    }

    #[test]
    fn dirty_tracking() {
        let entry = Entry::second_stage(0x1000, 4, false, common(7));
        let batch = batch(&caps(false), owner(3), Forget::Dirty(entry));
        assert_eq!(
            batch.as_slice(),
            &[
                Descriptor::pasid_cache(7, 3),
                Descriptor::iotlb_domain(7, (false, false)),
            ]
        );
    }
}
