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
        Stage, //
    },
    pasid::entry::{
        Entry,
        Translation,
        Word0,
        Word1,
        Word2, //
    }, //
};

/// Writes what a unit can do.
pub(crate) fn show_caps(caps: &Caps, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "CAP: {:#018x}", caps.raw_cap())?;
    writeln!(f, "ECAP: {:#018x}", caps.raw_ecap())?;
    for (name, stage) in [("first", Stage::First), ("second", Stage::Second)] {
        write!(f, "{name} stage: ")?;
        let Some(shape) = caps.shape(stage) else {
            writeln!(f, "none")?;
            continue;
        };
        write!(f, "{} levels, {} bits, ", shape.levels, shape.input_lg2)?;
        show_sizes(shape.page_sizes, f)?;
        match caps.dirty(stage) {
            Ok(()) => writeln!(f, ", tracks dirty pages")?,
            Err(missing) => writeln!(f, ", tracks no dirty pages: {}", missing.reason())?,
        }
    }
    writeln!(f, "domain ids: {}", caps.domains())?;
    writeln!(f, "pass-through: {}", yes(caps.pass_through()))?;
    writeln!(f, "snoop control: {}", yes(caps.snoop_control()))?;
    writeln!(f, "coherent walks: {}", yes(caps.coherent_walk()))?;
    writeln!(f, "caches absent entries: {}", yes(caps.caching_mode()))?;
    writeln!(f, "write buffer to flush: {}", yes(caps.write_buffer()))
}

/// Writes the entry of a PASID, 0 for requests without one.
pub(crate) fn show_entry(pasid: u32, entry: &Entry, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let [word0, word1, word2, ..] = entry.0;

    write!(
        f,
        "PASID table entry {pasid}: {word0:#018x} {word1:#018x} {word2:#018x}, "
    )?;
    if !entry.is_present() {
        return writeln!(f, "absent, requests are refused");
    }
    match entry.translation() {
        None => write!(f, "a kind that this driver does not write")?,
        Some(Translation::PassThrough) => write!(f, "passed through")?,
        Some(Translation::First) => write!(
            f,
            "first-stage table at {:#x}, {} levels",
            word2 & Word2::FIRST_STAGE_MASK,
            Word2::from_raw(word2).levels().get() + 4
        )?,
        Some(Translation::Second) => write!(
            f,
            "second-stage table at {:#x}, {} levels, dirty flags {}",
            word0 & Word0::SECOND_STAGE_MASK,
            entry.word0().width().get() + 2,
            if entry.word0().dirty() { "on" } else { "off" }
        )?,
    }
    let word1 = Word1::from_raw(word1);
    writeln!(
        f,
        ", domain id {}, walks snoop: {}, accesses are made to: {}",
        entry.domain(),
        yes(word1.walk_snoop()),
        yes(word1.page_snoop())
    )
}
