// SPDX-License-Identifier: GPL-2.0

//! The device table of a unit (specification, 2.2.2).
//!
//! It has an entry for each requester ID, up to the highest that firmware names for the unit; the
//! unit refuses a request with a higher one. At first every entry blocks, with the settings that
//! firmware gives for it.
//!
//! Requests behind a bridge to conventional PCI carry the bridge's requester ID, and firmware may
//! name an alias for a device: all functions that use an ID *claim* it, and its entry follows the
//! first claim. These functions are in one group, so their translation is the same.
//!
//! Where the driver remaps interrupts, the unit refuses those with a requester ID that is not
//! claimed, as with the C driver (`init_device_table()`): a device could forge them, with the ID of
//! a function that does not exist. Firmware names the IDs of sources of interrupts that are not PCI
//! functions.
//!
//! Lock order: the table has one spinlock, with interrupts disabled. It is taken under the lock of
//! a domain's users, and only that of the command buffer is taken under it.

pub(crate) mod entry;
pub(crate) mod writer;

use kernel::{
    bitmap::BitmapVec,
    iommu::{
        hw::pages::{
            Gfp,
            TablePages, //
        },
        locked_vec, //
    },
    new_spinlock_irq,
    prelude::*,
    sizes::SZ_4K,
    sync::{
        atomic::{
            AtomicFlag,
            Relaxed, //
        },
        SpinLockIrq, //
    }, //
};

use crate::{
    acpi::Ivhd,
    regs::control::DEVTAB, //
};

use entry::{
    Entry,
    Interrupts,
    WORDS, //
};
use writer::EntryWords;

/// Bytes of an entry.
const ENTRY_BYTES: usize = WORDS * 8;

/// A function that uses a requester ID.
struct SourceClaim {
    source: u16,
    owner: u16,
}

/// The device table of a unit.
#[pin_data]
pub(crate) struct DeviceTable {
    entries: TablePages,
    /// The requester IDs whose interrupts are refused while they are not claimed.
    idle: BitmapVec,
    /// Whether devices that are released from now on have gone. Else they outlive the driver, with
    /// their interrupts.
    refuses: AtomicFlag,
    /// The claims, oldest first. The lock also protects the entries.
    #[pin]
    claims: SpinLockIrq<KVec<SourceClaim>>,
}

impl DeviceTable {
    /// The table of the unit that firmware describes by `info`, near the NUMA node `node`. Devices
    /// that are no PCI functions are passed through, with the domain id `acpi_domain`. `refuses`
    /// says whether interrupts with a requester ID that is not claimed are refused.
    ///
    /// May sleep.
    pub(crate) fn new<'a>(
        info: &'a Ivhd,
        node: Option<u32>,
        acpi_domain: u16,
        refuses: impl Fn(u16) -> bool + 'a,
    ) -> impl PinInit<Self, Error> + 'a {
        pin_init::pin_init_scope(move || {
            let last = info.last_source();
            let bytes = (usize::from(last) + 1) * ENTRY_BYTES;
            let entries = TablePages::new(bytes.max(SZ_4K), Gfp::KERNEL, node)?;
            let mut idle = BitmapVec::new(entries.size() / ENTRY_BYTES, GFP_KERNEL)?;
            for (index, words) in entries.words().chunks_exact(WORDS).enumerate() {
                // CAST: The table has at most 2^16 entries.
                let source = index as u16;
                let mut entry = Entry::BLOCKED;
                // The table has whole pages, beyond the last that firmware names.
                if source <= last {
                    entry = Entry::with_settings(info.settings(source));
                    if info.is_acpi(source) {
                        // The core does not know the device: blocked, it would stop working.
                        entry = Entry::pass_through(acpi_domain).over(&entry);
                    }
                }
                if refuses(source) {
                    idle.set_bit(index);
                    entry = entry.with_refused_interrupts(true);
                }
                for (word, value) in words.iter().zip(entry.0) {
                    word.store(value, Relaxed);
                }
            }
            Ok(try_pin_init!(Self {
                entries,
                idle,
                refuses: AtomicFlag::new(true),
                claims <- new_spinlock_irq!(KVec::new(), "rust_amdvi::dte::DeviceTable::claims"),
            }? Error))
        })
    }

    /// What to write to `DEVTAB`.
    pub(crate) fn address(&self) -> DEVTAB {
        DEVTAB::table_of(self.entries.phys(), self.entries.size())
    }

    /// The number of requester IDs that have an entry.
    pub(crate) fn sources(&self) -> u32 {
        // CAST: At most 2^16.
        (self.entries.size() / ENTRY_BYTES) as u32
    }

    /// Claims the requester ID `source` for the function `owner`, whose interrupts pass from now on
    /// or are remapped. May sleep.
    ///
    /// # Errors
    ///
    /// `ENODEV` for one beyond the table, `ENOMEM`, those of `forget`. It may be claimed then.
    pub(crate) fn claim(
        &self,
        source: u16,
        owner: u16,
        mut forget: impl FnMut(u16, Entry) -> Result,
    ) -> Result {
        if u32::from(source) >= self.sources() {
            return Err(ENODEV);
        }
        locked_vec::push(&self.claims, SourceClaim { source, owner })?;
        let _claims = self.claims.lock();
        let mut live = self.live(source, &mut forget).ok_or(ENODEV)?;
        writer::refuse_interrupts(&mut live, false)
    }

    /// Says that devices which are released from now on outlive the driver: their interrupts stay
    /// as they are.
    ///
    /// Context: any.
    pub(crate) fn spare_interrupts(&self) {
        self.refuses.store(false, Relaxed);
    }

    /// Whether the interrupts of a requester ID that nothing claims any more are refused.
    fn refuses(&self, source: u16) -> bool {
        let source = usize::from(source);
        self.refuses.load(Relaxed)
            && source < self.idle.len()
            && self.idle.next_bit(source) == Some(source)
    }

    /// Another function that claims one of the requester IDs `sources`: the unit cannot tell its
    /// requests from those of `owner`.
    ///
    /// Context: any.
    pub(crate) fn sharer(&self, owner: u16, sources: impl Iterator<Item = u16>) -> Option<u16> {
        let claims = self.claims.lock();
        let others = |source| {
            let shares = |claim: &&SourceClaim| claim.source == source && claim.owner != owner;
            claims.iter().find(shares).map(|claim| claim.owner)
        };
        let mut sources = sources;
        sources.find_map(others)
    }

    /// Releases the claims of `owner`. Each entry that followed it follows the next claim. If no
    /// claim is left, its translation does not change, and its interrupts are refused.
    ///
    /// May sleep.
    pub(crate) fn release(&self, owner: u16, mut forget: impl FnMut(u16, Entry) -> Result) {
        let mut claims = self.claims.lock();
        let shown = |claims: &KVec<SourceClaim>, source| {
            let first = claims.iter().find(|claim| claim.source == source);
            first.map(|claim| claim.owner)
        };
        while let Some(index) = claims.iter().position(|claim| claim.owner == owner) {
            let source = claims[index].source;
            let was_shown = shown(&claims, source) == Some(owner);
            if claims.remove(index).is_err() {
                return;
            }
            let next = shown(&claims, source);
            if next.is_none() && self.refuses(source) {
                if let Some(mut live) = self.live(source, &mut forget) {
                    // If the unit does not answer, the log says so.
                    let _ = writer::refuse_interrupts(&mut live, true);
                }
            }
            let (true, Some(next)) = (was_shown, next) else {
                continue;
            };
            let (Some(own), Some(mut live)) = (
                self.live(next, &mut forget).map(|live| writer::read(&live)),
                self.live(source, &mut forget),
            ) else {
                continue;
            };
            // If the unit does not answer, the log says so and the entry blocks.
            let _ = writer::replace(&mut live, own);
        }
    }

    /// Runs `change` on the entry of each of `sources` that follows `owner`; `forget` invalidates
    /// the entry of a requester ID.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// The last one of `change`; all entries are changed nevertheless.
    pub(crate) fn with(
        &self,
        owner: u16,
        sources: impl Iterator<Item = u16>,
        mut forget: impl FnMut(u16, Entry) -> Result,
        change: impl Fn(&mut Live<'_>) -> Result,
    ) -> Result {
        let claims = self.claims.lock();
        let mut result = Ok(());
        for source in sources {
            let first = claims.iter().find(|claim| claim.source == source);
            if first.is_none_or(|claim| claim.owner != owner) {
                continue;
            }
            let mut live = self.live(source, &mut forget).ok_or(EINVAL)?;
            if let Err(error) = change(&mut live) {
                result = Err(error);
            }
        }
        result
    }

    /// Changes how interrupts with the requester IDs `sources` are treated, which devices under
    /// control have claimed, to what `interrupts` says. `forget` makes the unit forget the entry
    /// and what it has cached of its table.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// The last one of `forget`; all entries are changed nevertheless. `EINVAL` for an ID beyond
    /// the table; no entry is changed then.
    pub(crate) fn set_interrupts(
        &self,
        sources: impl Iterator<Item = u16> + Clone,
        mut forget: impl FnMut(u16) -> Result,
        interrupts: impl Fn(u16) -> Interrupts,
    ) -> Result {
        if sources
            .clone()
            .any(|source| u32::from(source) >= self.sources())
        {
            return Err(EINVAL);
        }
        let _claims = self.claims.lock();
        let mut result = Ok(());
        let mut forget = |source, _: Entry| forget(source);
        for source in sources {
            let mut live = self.live(source, &mut forget).ok_or(EINVAL)?;
            if let Err(error) = writer::set_interrupts(&mut live, interrupts(source)) {
                result = Err(error);
            }
        }
        result
    }

    /// Calls `each` for every claimed requester ID.
    ///
    /// Context: any; under the lock of the table.
    ///
    /// # Errors
    ///
    /// The first error of `each`, which ends the calls.
    pub(crate) fn for_each_claim(&self, each: impl FnMut(u16) -> Result) -> Result {
        let claims = self.claims.lock();
        claims.iter().map(|claim| claim.source).try_for_each(each)
    }

    fn live<'a>(
        &'a self,
        source: u16,
        forget: &'a mut dyn FnMut(u16, Entry) -> Result,
    ) -> Option<Live<'a>> {
        (u32::from(source) < self.sources()).then_some(Live {
            entries: &self.entries,
            source,
            forget,
        })
    }
}

/// An entry that the hardware reads.
pub(crate) struct Live<'a> {
    entries: &'a TablePages,
    source: u16,
    forget: &'a mut dyn FnMut(u16, Entry) -> Result,
}

impl EntryWords for Live<'_> {
    fn load(&self, word: usize) -> u64 {
        let index = usize::from(self.source) * WORDS + word;
        self.entries
            .word(index)
            .map_or(0, |word| word.load(Relaxed))
    }

    fn store(&mut self, half: usize, values: [u64; 2]) -> Result {
        let index = usize::from(self.source) * WORDS + 2 * half;
        self.entries.store_pair(index, values)
    }

    fn forget(&mut self, old: Entry) -> Result {
        (self.forget)(self.source, old)
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
#[kunit_tests(rust_amdvi_dte)]
mod tests {
    use super::*;
    use crate::acpi::{
        scope::{
            Kind,
            Scope, //
        },
        tests::made_up_unit, //
    };
    use entry::Translation;

    const NOTHING: fn(u16, Entry) -> Result = |_, _| Ok(());

    /// A unit for the requester IDs up to 0x1ff, with what firmware wants of one of the entries of
    /// each kind.
    fn table() -> Result<Pin<KBox<DeviceTable>>> {
        table_that_refuses(|_| false)
    }

    fn table_that_refuses(refuses: fn(u16) -> bool) -> Result<Pin<KBox<DeviceTable>>> {
        let scope = |kind, first, last, settings| Scope {
            kind,
            first,
            last,
            alias: None,
            settings,
        };
        let mut info = made_up_unit()?;
        info.scopes.clear();
        for scope in [
            scope(Kind::Acpi, 0x105, 0x105, 0x02),
            scope(Kind::Pci, 0, 0x1ff, 0x41),
        ] {
            info.scopes.push(scope, GFP_KERNEL)?;
        }
        KBox::pin_init(DeviceTable::new(&info, None, 1, refuses), GFP_KERNEL)
    }

    fn entry(table: &DeviceTable, source: u16) -> Entry {
        let mut forget = NOTHING;
        table
            .live(source, &mut forget)
            .map_or(Entry([0; WORDS]), |live| writer::read(&live))
    }

    #[test]
    fn entries_are_where_the_hardware_looks() -> Result {
        let table = table()?;
        assert_eq!(table.sources(), 0x200);
        assert_eq!(
            table.address().into_raw(),
            table.entries.phys() | (0x4000 / 0x1000 - 1)
        );
        for source in [0, 8, 0x1ff] {
            assert_eq!(entry(&table, source).translation(), Translation::Blocked);
            assert_eq!(entry(&table, source).0[2], 1 << 56 | 1 << 62);
        }
        // No function claims an ACPI device, though a later entry of firmware names it as well.
        assert_eq!(entry(&table, 0x105).translation(), Translation::PassThrough);
        assert_eq!(entry(&table, 0x105).0[2], 1 << 57);

        assert_eq!(table.claim(0x200, 0x200, NOTHING), Err(ENODEV));
        table.claim(0x108, 0x108, NOTHING)?;
        let new = Entry::host(0x1000, 4, true, 2);
        let all = [0x108, 0x109].into_iter();
        table.with(0x108, all, NOTHING, |live| writer::replace(live, new))?;
        let first = 0x108 * WORDS;
        assert_eq!(table.entries.words()[first].load(Relaxed), new.0[0]);
        assert_eq!(table.entries.words()[first + 1].load(Relaxed), new.0[1]);
        // One that was not claimed is left alone.
        assert_eq!(entry(&table, 0x109).translation(), Translation::Blocked);
        Ok(())
    }

    /// Interrupts follow no claim: all devices with an ID have one table.
    #[test]
    fn interrupts_are_those_of_an_id() -> Result {
        let table = table()?;
        for owner in [0x110, 0x118] {
            table.claim(owner, owner, NOTHING)?;
            table.claim(0x100, owner, NOTHING)?;
        }
        let remapped = Interrupts::Remapped {
            table: 0x8000,
            entries_lg2: 9,
        };
        let mut forgotten = KVec::new();
        let forget = |source| Ok(forgotten.push(source, GFP_ATOMIC)?);
        table.set_interrupts([0x118, 0x100].into_iter(), forget, |_| remapped)?;
        assert_eq!(forgotten[..], [0x118, 0x100]);
        let word2 = |source| entry(&table, source).0[2];
        assert_eq!(word2(0x110), 1 << 56 | 1 << 62);
        for source in [0x118, 0x100] {
            assert_eq!(word2(source), 2 << 60 | 0x8013);
        }
        // They stay when another device's translation is shown.
        table.release(0x110, NOTHING);
        assert_eq!(word2(0x100), 2 << 60 | 0x8013);
        let unmapped = |_| Interrupts::Unmapped(0x41);
        table.set_interrupts([0x100].into_iter(), |_| Ok(()), unmapped)?;
        assert_eq!(word2(0x100), 1 << 56 | 1 << 62);
        // One ID beyond the table, and nothing changes.
        let beyond = [0x100, 0x200].into_iter();
        let refused = table.set_interrupts(beyond, |_| Ok(()), |_| remapped);
        assert_eq!(refused, Err(EINVAL));
        assert_eq!(word2(0x100), 1 << 56 | 1 << 62);
        // The unit does not forget the one; it is told of the other all the same.
        let forget = |source| if source == 0x110 { Err(EIO) } else { Ok(()) };
        let both = [0x110, 0x100].into_iter();
        assert_eq!(table.set_interrupts(both, forget, |_| remapped), Err(EIO));
        for source in [0x110, 0x100] {
            assert_eq!(word2(source), 2 << 60 | 0x8013);
        }
        Ok(())
    }

    /// Of two functions with an alias, of which either may go first.
    #[test]
    fn interrupts_of_no_device_are_refused() -> Result {
        const UNIT: u16 = 0x108;
        let table = table_that_refuses(|source| source != UNIT)?;
        let refused = |source| entry(&table, source).0[2] & 1 != 0;
        assert!(!refused(UNIT) && refused(0x110) && refused(0x1ff));
        // Firmware's settings, for interrupts without a vector.
        assert_eq!(entry(&table, 0x110).0[2], 1 << 56 | 1 << 62 | 1);

        let mut forgotten = KVec::new();
        let mut forget = |source, _: Entry| Ok(forgotten.push(source, GFP_ATOMIC)?);
        for owner in [0x110, 0x118] {
            table.claim(owner, owner, &mut forget)?;
            table.claim(0x100, owner, &mut forget)?;
        }
        assert!(!refused(0x110) && !refused(0x118) && !refused(0x100));
        table.release(0x118, &mut forget);
        assert!(refused(0x118) && !refused(0x100));
        table.release(0x110, &mut forget);
        assert!(refused(0x110) && refused(0x100));
        assert_eq!(forgotten[..], [0x110, 0x100, 0x118, 0x118, 0x110, 0x100]);

        // What always passes, before a claim and after it.
        table.claim(UNIT, UNIT, NOTHING)?;
        table.release(UNIT, NOTHING);
        assert!(!refused(UNIT));
        // A device that outlives the driver.
        table.claim(0x110, 0x110, NOTHING)?;
        table.spare_interrupts();
        table.release(0x110, NOTHING);
        assert!(!refused(0x110));
        Ok(())
    }

    #[test]
    fn an_alias_follows_its_first_owner() -> Result {
        let table = table()?;
        for owner in [0x110, 0x118] {
            table.claim(owner, owner, NOTHING)?;
            table.claim(0x100, owner, NOTHING)?;
        }
        let of = |domain| Entry::host(0x1000, 4, false, domain);
        for owner in [0x110, 0x118] {
            table.with(owner, [owner, 0x100].into_iter(), NOTHING, |live| {
                writer::replace(live, of(owner))
            })?;
        }
        assert_eq!(entry(&table, 0x118).domain(), 0x118);
        assert_eq!(entry(&table, 0x100).domain(), 0x110);
        table.release(0x110, NOTHING);
        assert_eq!(entry(&table, 0x100).domain(), 0x118);
        // The last one leaves it as it is.
        table.release(0x118, NOTHING);
        assert_eq!(entry(&table, 0x100).domain(), 0x118);
        table.release(0x118, NOTHING);
        Ok(())
    }

    #[test]
    fn who_shares_an_id_is_found() -> Result {
        let table = table()?;
        for (source, owner) in [(0x110, 0x110), (0x100, 0x110), (0x118, 0x118)] {
            table.claim(source, owner, NOTHING)?;
        }
        let sharer = |owner, sources: &[u16]| table.sharer(owner, sources.iter().copied());
        assert_eq!(sharer(0x118, &[0x118]), None);
        // Either may come first: the one with the alias, or the one that it is.
        assert_eq!(sharer(0x100, &[0x100]), Some(0x110));
        assert_eq!(sharer(0x120, &[0x120, 0x100]), Some(0x110));
        table.release(0x110, NOTHING);
        assert_eq!(sharer(0x100, &[0x100]), None);
        Ok(())
    }
}
