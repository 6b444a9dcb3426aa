// SPDX-License-Identifier: GPL-2.0

//! The other side: a walk as the specifications have the hardware do it.
//!
//! Shares no code with the formats and the operations that it tests.

use super::{
    super::{
        Iova,
        PhysAddr,
        Prot,
        TableMem,
        Top, //
    },
    memory::TestMem,
    spec::{
        mask,
        Spec,
        Word, //
    }, //
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

/// The address of the entry with that number in the table at `table`.
fn entry(mem: &TestMem, table: PhysAddr, index: u64) -> *mut u64 {
    // SAFETY: The caller has the address from an entry or from the top, so it is a table's.
    let base = unsafe { (&mem).virt(table) }.as_ptr().cast::<u64>();

    // CAST: A number of entries fits any width.
    base.wrapping_add(index as usize)
}

/// Walks for `iova`. For an access, a write or not, sets A on the way and makes the leaf dirty.
fn walk<S: Spec>(mem: &TestMem, top: Top, iova: Iova, mark: Option<bool>) -> Result<Found> {
    let mut table = top.phys;

    for level in (0..u32::from(top.levels)).rev() {
        let is_top = level + 1 == u32::from(top.levels);
        let index = iova >> S::item_lg2(level) & mask(if is_top { S::TOP_LG2 } else { 9 });
        let entry = entry(mem, table, index);
        // SAFETY: A word of a table; all access to it is atomic.
        let word = unsafe { Atomic::from_ptr(entry) };

        loop {
            let old = word.load(Relaxed);
            let read = S::read(old, level).map_err(|_| EIO)?;
            let new = match (&read, mark) {
                (Word::Empty, _) => return Err(ENOENT),
                (_, None) => old,
                (Word::Table(_), _) => old | S::ACCESSED_LINK,
                (Word::Leaf { prot, .. }, Some(write)) => {
                    if !prot.contains(if write { Prot::WRITE } else { Prot::READ }) {
                        return Err(EACCES);
                    }
                    if write {
                        S::written(old)
                    } else {
                        old | S::ACCESSED
                    }
                }
            };

            // The word may have changed since it was read: then it is looked at anew.
            if new != old && word.cmpxchg(old, new, Full).is_err() {
                continue;
            }
            match read {
                Word::Leaf { phys, lg2, .. } => {
                    return Ok(Found {
                        word: old,
                        entry,
                        phys,
                        lg2,
                    });
                }
                Word::Table(phys) => table = phys,
                Word::Empty => return Err(ENOENT),
            }
            break;
        }
    }
    Err(EIO)
}

/// The entry for `iova` in the table of `level` that a walk for it comes to.
///
/// # Errors
///
/// `ENOENT` if there is no such table, `EIO` if an entry on the way is none that the specification
/// has.
pub fn entry_at<S: Spec>(mem: &TestMem, top: Top, iova: Iova, level: u32) -> Result<*mut u64> {
    let mut table = top.phys;
    let mut at = u32::from(top.levels) - 1;

    loop {
        let is_top = at + 1 == u32::from(top.levels);
        let index = iova >> S::item_lg2(at) & mask(if is_top { S::TOP_LG2 } else { 9 });
        let entry = entry(mem, table, index);

        if at == level {
            return Ok(entry);
        }
        // SAFETY: A word of a table; all access to it is atomic.
        let word = unsafe { Atomic::from_ptr(entry) }.load(Relaxed);

        match S::read(word, at).map_err(|_| EIO)? {
            Word::Table(below) => table = below,
            _ => return Err(ENOENT),
        }
        at -= 1;
    }
}

/// Finds the leaf for `iova` and changes nothing.
///
/// # Errors
///
/// `ENOENT` if there is none, `EIO` if an entry on the way is none that the specification has.
pub fn find<S: Spec>(mem: &TestMem, top: Top, iova: Iova) -> Result<Found> {
    walk::<S>(mem, top, iova, None)
}

/// Reads or writes `iova`, and returns the address that the access comes to.
///
/// # Errors
///
/// `ENOENT` if nothing is mapped, `EACCES` if the access is not allowed, `EIO` if an entry on the
/// way is none that the specification has.
pub fn access<S: Spec>(mem: &TestMem, top: Top, iova: Iova, write: bool) -> Result<PhysAddr> {
    let found = walk::<S>(mem, top, iova, Some(write))?;

    Ok(found.phys | (iova & mask(found.lg2)))
}
