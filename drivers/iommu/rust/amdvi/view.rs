// SPDX-License-Identifier: GPL-2.0

//! What the files in debugfs show of a unit and of a device, in words.

use kernel::{
    fmt,
    iommu::files::{
        show_sizes,
        yes, //
    }, //
};

use crate::{
    caps::{
        Caps,
        TableKind, //
    },
    dte::entry::{
        Entry,
        Translation,
        Word0,
        Word2, //
    }, //
};

/// Writes what a unit can do.
pub(crate) fn show_caps(caps: &Caps, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "EFR: {:#018x}", caps.raw_efr())?;
    writeln!(f, "EFR2: {:#018x}", caps.raw_efr2())?;
    for (name, tables) in [("host", TableKind::Host), ("guest", TableKind::Guest)] {
        write!(f, "{name} tables: ")?;
        let Some(shape) = caps.shape(tables) else {
            writeln!(f, "none")?;
            continue;
        };
        write!(
            f,
            "{} to {} levels, {} bits, ",
            shape.levels, shape.max_levels, shape.input_lg2
        )?;
        show_sizes(shape.page_sizes, f)?;
        match caps.dirty(tables) {
            Ok(()) => writeln!(f, ", tracks dirty pages")?,
            Err(missing) => writeln!(f, ", tracks no dirty pages: {}", missing.reason())?,
        }
    }
    writeln!(f, "PASIDs of a device: {}", caps.pasids())?;
    writeln!(f, "remaps interrupts: {}", yes(caps.remaps_interrupts()))?;
    writeln!(f, "caches absent entries: {}", yes(caps.cache_absent()))?;
    writeln!(f, "one command forgets all: {}", yes(caps.invalidate_all()))
}

/// Writes the device table entry of the requester ID `source`.
pub(crate) fn show_entry(source: u16, entry: &Entry, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let [word0, word1, word2, word3] = entry.0;

    write!(
        f,
        "device table entry {source:#06x}: {word0:#018x} {word1:#018x} {word2:#018x} \
         {word3:#018x}, "
    )?;
    match entry.translation() {
        Translation::Blocked => write!(f, "requests are refused")?,
        Translation::PassThrough => write!(f, "passed through")?,
        Translation::Host => write!(
            f,
            "host table at {:#x}, {} levels, dirty flags {}",
            word0 & Word0::HOST_TABLE_MASK,
            entry.word0().host_levels().get(),
            if entry.word0().dirty().get() != 0 {
                "on"
            } else {
                "off"
            }
        )?,
        Translation::Guest => write!(
            f,
            "guest tables by PASID, requests without one {}",
            if entry.is_guest_untagged() {
                "as with PASID 0"
            } else {
                "passed through"
            }
        )?,
    }
    writeln!(
        f,
        ", domain id {}, interrupts remapped: {}",
        entry.domain(),
        yes(Word2::from_raw(word2).interrupts())
    )
}
