// SPDX-License-Identifier: GPL-2.0

//! Interrupt remapping tables (specification, 2.2.5).
//!
//! A message of a device is the index of an entry. The index has the bits 8:0 of the message's
//! data: bits 10:9 are zero, so that the unit takes it for a fixed or arbitrated interrupt. Units
//! with NUM_INT_REMAP_SUP can have indices of 11 bits, which this driver does not use.
//!
//! An entry changes in one store of 128 bits while the unit may read it. After it,
//! INVALIDATE_INTERRUPT_TABLE for each requester ID that leads to the table, and COMPLETION_WAIT:
//! from then on no interrupt goes where the old entry sent it. Those that were sent before have
//! reached the CPU, as the wait orders them (2.4.1), and the kernel keeps the old vector for them.
//!
//! Lock order: the indices, a mutex. The list of requester IDs is a raw spinlock, under that of an
//! interrupt; the command buffer is under it.

use kernel::{
    bitmap::{
        Bitmap,
        BitmapVec, //
    },
    iommu::{
        hw::pages::{
            Gfp,
            TablePages, //
        },
        irq::parent::{
            Table,
            Target, //
        },
        raw_lock::{
            new_raw_spinlock,
            RawSpinLock, //
        }, //
    },
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

use crate::{
    dte::entry::Interrupts,
    irte::Irte,
    unit::Unit, //
};

/// The logarithm of the number of entries.
const ENTRIES_LG2: u8 = 9;

/// The number of entries.
pub(crate) const ENTRIES: u32 = 1 << ENTRIES_LG2;

/// Words of an entry.
const WORDS: usize = 2;

/// What caches entries of a table.
pub(crate) trait Cache: Send + Sync + 'static {
    /// Forgets all entries of the tables of the requester IDs `sources`, and waits until that is
    /// done.
    ///
    /// Context: any; under raw spinlocks.
    ///
    /// # Errors
    ///
    /// `EIO` if the hardware does not answer.
    fn forget_interrupts(&self, sources: &[u16]) -> Result;
}

impl Cache for Arc<Unit> {
    fn forget_interrupts(&self, sources: &[u16]) -> Result {
        Unit::forget_interrupts(self, sources)
    }
}

/// Takes `count` free indices in a row, from a multiple of `count` rounded up to a power of two if
/// `aligned`. `used` has a bit for each index.
fn take(used: &mut Bitmap, count: u32, aligned: bool) -> Option<u32> {
    let (len, count) = (used.len(), count as usize);
    if count == 0 || count > len {
        return None;
    }
    let step = if aligned {
        count.next_power_of_two()
    } else {
        1
    };
    let mut first = 0;
    while first + count <= len {
        let next = match used.next_bit(first) {
            Some(taken) if taken < first + count => taken + 1,
            _ => {
                (first..first + count).for_each(|index| used.set_bit(index));
                return u32::try_from(first).ok();
            }
        };
        first = next.next_multiple_of(step);
    }
    None
}

/// The interrupt remapping table of a device, or of those that a unit cannot tell apart.
///
/// The caller keeps it until hardware has forgotten it.
#[pin_data]
pub(crate) struct InterruptTable<C: Cache = Arc<Unit>> {
    cache: C,
    entries: TablePages,
    /// Those that are in use.
    #[pin]
    indices: Mutex<BitmapVec>,
    /// The requester IDs whose device table entries name the table.
    #[pin]
    sources: RawSpinLock<KVec<u16>>,
}

impl<C: Cache> InterruptTable<C> {
    /// An empty table for what `cache` reads, near `node`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(cache: C, node: Option<u32>) -> Result<Arc<Self>> {
        let bytes = ENTRIES as usize * WORDS * size_of::<u64>();
        let entries = TablePages::new(bytes, Gfp::KERNEL, node)?;
        let indices = BitmapVec::new(ENTRIES as usize, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                cache,
                entries,
                indices <- new_mutex!(indices, "rust_amdvi::InterruptTable::indices"),
                sources <- new_raw_spinlock!(KVec::new(), "rust_amdvi::InterruptTable::sources"),
            }),
            GFP_KERNEL,
        )
    }

    /// What a device table entry says of the table.
    pub(crate) fn in_device_entry(&self) -> Interrupts {
        Interrupts::Remapped {
            table: self.entries.phys(),
            entries_lg2: ENTRIES_LG2,
        }
    }

    /// Makes later changes reach what is cached for the requester IDs `new`. Called before their
    /// device table entries name the table. May sleep; must not run concurrently with itself or
    /// [`Self::remove_sources`].
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn add_sources(&self, new: &[u16]) -> Result {
        let mut sources = KVec::new();
        {
            let count = self.sources.lock().len();
            // Without the lock: the callers change it one after the other.
            sources.reserve(count + new.len(), GFP_KERNEL)?;
        }
        let mut held = self.sources.lock();
        for list in [&held[..], new] {
            for source in list {
                if !sources.contains(source) {
                    // Fits.
                    let _ = sources.push_within_capacity(*source);
                }
            }
        }
        core::mem::swap(&mut *held, &mut sources);
        drop(held);
        // The old memory is freed without the lock.
        drop(sources);
        Ok(())
    }

    /// Takes back [`Self::add_sources`] for those that `is_gone` names: their device table entries
    /// do not name the table any more.
    pub(crate) fn remove_sources(&self, is_gone: impl Fn(u16) -> bool) {
        self.sources.lock().retain(|source| !is_gone(*source));
    }

    /// Changes an entry that hardware may read at any time.
    ///
    /// Context: any; under raw spinlocks.
    fn replace(&self, index: u32, entry: Irte) -> Result {
        self.entries.store_pair(index as usize * WORDS, entry.0)?;
        let sources = self.sources.lock();
        self.cache.forget_interrupts(&sources)
    }
}

impl<C: Cache> Table for InterruptTable<C> {
    fn allocate(&self, count: u32, aligned: bool) -> Result<u32> {
        take(&mut self.indices.lock(), count, aligned).ok_or(ENOSPC)
    }

    fn free(&self, index: u32) {
        if index < ENTRIES {
            self.indices.lock().clear_bit(index as usize);
        }
    }

    fn set(&self, index: u32, target: Target) -> Result {
        self.replace(index, Irte::new(target)?)
    }

    fn clear(&self, index: u32) -> Result {
        self.replace(index, Irte::EMPTY)
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
#[kunit_tests(rust_amdvi_interrupt_table)]
mod tests {
    use super::*;
    use kernel::sync::atomic::Relaxed;

    /// What a unit was told to forget, at most four times three requester IDs.
    #[derive(Default)]
    struct Forgotten {
        calls: usize,
        sources: [[u16; 3]; 4],
    }

    /// A unit that notes it, without memory: it is called under a raw spinlock.
    #[pin_data]
    struct Recorder {
        #[pin]
        forgotten: RawSpinLock<Forgotten>,
        fails: bool,
    }

    impl Recorder {
        fn calls(&self) -> usize {
            self.forgotten.lock().calls
        }

        fn sources(&self, call: usize) -> [u16; 3] {
            self.forgotten.lock().sources[call]
        }
    }

    impl Cache for Arc<Recorder> {
        fn forget_interrupts(&self, sources: &[u16]) -> Result {
            let mut forgotten = self.forgotten.lock();
            let call = forgotten.calls;
            forgotten.calls += 1;
            if let Some(places) = forgotten.sources.get_mut(call) {
                for (place, source) in places.iter_mut().zip(sources) {
                    *place = *source;
                }
            }
            if self.fails {
                return Err(EIO);
            }
            Ok(())
        }
    }

    type Tested = Arc<InterruptTable<Arc<Recorder>>>;

    fn table(fails: bool) -> Result<(Tested, Arc<Recorder>)> {
        let recorder = Arc::pin_init(
            pin_init!(Recorder {
                forgotten <- new_raw_spinlock!(Forgotten::default(), "forgotten"),
                fails,
            }),
            GFP_KERNEL,
        )?;
        let table = InterruptTable::new(recorder.clone(), None)?;
        Ok((table, recorder))
    }

    fn entry(table: &Tested, index: usize) -> [u64; 2] {
        let word = |at| match table.entries.word(index * WORDS + at) {
            Ok(word) => word.load(Relaxed),
            Err(_) => 0,
        };
        [word(0), word(1)]
    }

    const TARGET: Target = Target {
        vector: 0x41,
        destination: 3,
        logical: false,
    };

    #[test]
    fn every_change_is_one_store_and_is_forgotten_by_all() -> Result {
        let (table, recorder) = table(false)?;
        table.add_sources(&[0x108, 0x100])?;
        table.set(5, TARGET)?;
        assert_eq!(entry(&table, 5), [0x301, 0x41]);
        assert_eq!(recorder.calls(), 1);
        // Another CPU.
        table.set(
            5,
            Target {
                destination: 0,
                ..TARGET
            },
        )?;
        assert_eq!(entry(&table, 5), [0x001, 0x41]);
        table.clear(5)?;
        assert_eq!(entry(&table, 5), [0, 0]);
        assert_eq!(entry(&table, 4), [0, 0]);
        assert_eq!(recorder.calls(), 3);
        for call in 0..3 {
            assert_eq!(recorder.sources(call), [0x108, 0x100, 0]);
        }
        Ok(())
    }

    #[test]
    fn an_entry_that_is_not_forgotten_is_an_error() -> Result {
        let (table, _) = table(true)?;
        assert_eq!(table.set(0, TARGET), Err(EIO));
        assert_eq!(table.clear(0), Err(EIO));
        Ok(())
    }

    #[test]
    fn what_no_entry_can_name_changes_nothing() -> Result {
        let (table, recorder) = table(false)?;
        let far = Target {
            destination: 0x100,
            ..TARGET
        };
        assert_eq!(table.set(7, far), Err(EINVAL));
        assert_eq!(table.set(ENTRIES, TARGET), Err(EINVAL));
        assert_eq!(recorder.calls(), 0);
        Ok(())
    }

    #[test]
    fn each_source_is_named_once() -> Result {
        let (table, recorder) = table(false)?;
        table.add_sources(&[0x108, 0x100])?;
        table.add_sources(&[0x100, 0x110])?;
        table.clear(0)?;
        table.remove_sources(|source| source == 0x108);
        table.clear(0)?;
        assert_eq!(recorder.sources(0), [0x108, 0x100, 0x110]);
        assert_eq!(recorder.sources(1), [0x100, 0x110, 0]);
        Ok(())
    }

    #[test]
    fn several_messages_have_indices_in_a_row() -> Result {
        let (table, _) = table(false)?;
        assert_eq!(table.allocate(1, false), Ok(0));
        // The device puts the number of the message into the low bits.
        assert_eq!(table.allocate(32, true), Ok(32));
        assert_eq!(table.allocate(3, true), Ok(4));
        assert_eq!(table.allocate(1, false), Ok(1));
        assert_eq!(table.allocate(5, false), Ok(7));
        for index in 4..7 {
            table.free(index);
        }
        assert_eq!(table.allocate(2, true), Ok(2));
        assert_eq!(table.allocate(4, true), Ok(12));
        assert_eq!(table.allocate(3, false), Ok(4));
        assert_eq!(table.allocate(0, true), Err(ENOSPC));
        Ok(())
    }

    #[test]
    fn a_full_table_says_so() -> Result {
        let (table, _) = table(false)?;
        for index in 0..ENTRIES {
            assert_eq!(table.allocate(1, false), Ok(index));
        }
        assert_eq!(table.allocate(1, false), Err(ENOSPC));
        table.free(ENTRIES - 1);
        assert_eq!(table.allocate(2, true), Err(ENOSPC));
        assert_eq!(table.allocate(1, true), Ok(ENTRIES - 1));
        assert_eq!(table.allocate(ENTRIES + 1, false), Err(ENOSPC));
        Ok(())
    }

    #[test]
    fn a_device_entry_says_where_the_table_is() -> Result {
        let (table, _) = table(false)?;
        let expected = Interrupts::Remapped {
            table: table.entries.phys(),
            entries_lg2: 9,
        };
        assert_eq!(table.in_device_entry(), expected);
        // 128 bytes are what the unit needs.
        assert_eq!(table.entries.phys() % 0x2000, 0);
        Ok(())
    }
}
