// SPDX-License-Identifier: GPL-2.0

//! The other side: a walk as the specifications have the hardware do it.
//!
//! Shares no code with the formats and the operations that it tests.

use super::{
    super::{
        Iova,
        PhysAddr,
        TableMem,
        Top, //
    },
    memory::TestMem, //
};
use kernel::{
    error::{
        code::*,
        Result, //
    },
    sync::atomic::{
        Atomic,
        Full,
        Relaxed, //
    }, //
};

/// What the hardware makes of the bits of an entry.
pub struct Hardware {
    /// An entry with any of these is present.
    pub present: u64,
    /// All of these must be set on the whole way for a read.
    pub read: u64,
    /// All of these must be set on the whole way for a write.
    pub write: u64,
    /// Set in each entry that is used.
    pub accessed: u64,
    /// Set in a leaf that is written through.
    pub dirty: u64,
    /// Must be clear in an entry that links a table, beside the page-size bit.
    pub table_reserved: u64,
    /// Whether bits 11:9 name the level of what an entry points to; else bit 7 marks large leaves.
    pub next_level: bool,
}

/// What an entry points to.
enum Target {
    /// A table of the level below.
    Table,
    /// A page with so many address bits.
    Page(u32),
}

/// A leaf as the walk found it.
pub struct Found {
    /// The word of the entry.
    pub word: u64,
    /// Address of the entry, for a processor.
    pub entry: *mut u64,
    /// Output address of the first byte of the leaf.
    pub phys: PhysAddr,
    /// Binary logarithm of the size of the leaf.
    pub lg2: u32,
}

impl Hardware {
    /// What a present entry of `level` points to.
    fn target(&self, word: u64, level: u32) -> Result<Target> {
        let shift = 12 + 9 * level;

        if self.next_level {
            return match (word >> 9) & 0x7 {
                0 if level < 5 => Ok(Target::Page(shift)),
                7 if level < 5 => {
                    let lg2 = 13 + (word >> 12).trailing_ones();

                    // The size belongs to this level, and there is none of 512 GiB.
                    if lg2 <= shift || lg2 >= shift + 9 || lg2 == 39 {
                        return Err(EIO);
                    }
                    Ok(Target::Page(lg2))
                }
                next if level > 0 && next == u64::from(level) => Ok(Target::Table),
                _ => Err(EIO),
            };
        }

        let leaf = level == 0 || word & 1 << 7 != 0;

        if leaf && level > 2 || !leaf && word & self.table_reserved != 0 {
            return Err(EIO);
        }
        Ok(if leaf {
            Target::Page(shift)
        } else {
            Target::Table
        })
    }

    /// The address of the entry for `iova` in the table at `table`.
    fn entry(&self, mem: &TestMem, table: PhysAddr, iova: Iova, shift: u32) -> *mut u64 {
        let index = (iova >> shift) & 0x1ff;

        // SAFETY: The caller has the address from an entry or from the top, so it is a table's.
        let base = unsafe { (&mem).virt(table) }.as_ptr().cast::<u64>();

        base.wrapping_add(index as usize)
    }

    /// Walks for `iova`, setting A on the way and D in the leaf for a write.
    fn walk(&self, mem: &TestMem, top: Top, iova: Iova, mark: Option<bool>) -> Result<Found> {
        let mut table = top.phys;
        let mut allowed = u64::MAX;

        for level in (0..u32::from(top.levels)).rev() {
            let shift = 12 + 9 * level;
            let entry = self.entry(mem, table, iova, shift);
            // SAFETY: A word of a table; all access to it is atomic.
            let word = unsafe { Atomic::from_ptr(entry) };

            loop {
                let old = word.load(Relaxed);
                let rights = allowed & old;

                if old & self.present == 0 {
                    return Err(ENOENT);
                }

                let target = self.target(old, level)?;
                let mut new = old;

                if let Some(write) = mark {
                    let needed = if write { self.write } else { self.read };

                    if rights & needed != needed {
                        return Err(EACCES);
                    }
                    new |= self.accessed;
                    if write && matches!(target, Target::Page(_)) {
                        new |= self.dirty;
                    }
                }
                // The word may have changed since it was read: then it is looked at anew.
                if new != old && word.cmpxchg(old, new, Full).is_err() {
                    continue;
                }

                let address = old & 0x000f_ffff_ffff_f000;

                if let Target::Page(lg2) = target {
                    return Ok(Found {
                        word: old,
                        entry,
                        phys: address & !((1 << lg2) - 1),
                        lg2,
                    });
                }
                allowed = rights;
                table = address;
                break;
            }
        }
        Err(EIO)
    }

    /// Finds the leaf for `iova` and changes nothing.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none, `EIO` if a reserved bit is set on the way.
    pub fn find(&self, mem: &TestMem, top: Top, iova: Iova) -> Result<Found> {
        self.walk(mem, top, iova, None)
    }

    /// Reads or writes `iova`, and returns the address that the access comes to.
    ///
    /// # Errors
    ///
    /// `ENOENT` if nothing is mapped, `EACCES` if the access is not allowed, `EIO` if a reserved
    /// bit is set.
    pub fn access(&self, mem: &TestMem, top: Top, iova: Iova, write: bool) -> Result<PhysAddr> {
        let found = self.walk(mem, top, iova, Some(write))?;

        Ok(found.phys | (iova & ((1 << found.lg2) - 1)))
    }
}
