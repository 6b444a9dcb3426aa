// SPDX-License-Identifier: GPL-2.0

//! The part of a format that the hardware supports.

use super::{
    addr::{
        low_mask,
        Iova,
        Level,
        PhysAddr,
        Range,
        TABLE_LG2, //
    },
    format::Format, //
};
use kernel::error::{
    code::*,
    Result, //
};

/// The configuration of a page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Number of levels that the hardware is told to walk at first.
    pub levels: u8,

    /// Number of levels that it can be told to walk later, when a mapping needs them. The same as
    /// `levels` if the top is not to grow; ignored if the format's never does.
    pub max_levels: u8,

    /// Leaf sizes that the hardware supports, a bit for each power of two. Must have the smallest
    /// of the format; sizes that the format does not know are ignored.
    pub page_sizes: u64,

    /// Binary logarithm of the input addresses that the hardware takes; the format may have fewer.
    pub input_lg2: u32,

    /// Binary logarithm of the output addresses that the hardware takes; the format may have fewer.
    pub output_lg2: u32,

    /// Whether the hardware's walks snoop the processor's caches.
    pub coherent: bool,

    /// Whether the hardware sets the accessed and dirty flags of leaves itself. Ignored unless the
    /// format needs it for dirty tracking ([`Format::DIRTY_PERMITS`]).
    pub marks: bool,

    /// Whether leaves may be split while devices use them: see `split.rs`.
    pub splits: bool,
}

/// What can be mapped, and how.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Whether the hardware's walks snoop the processor's caches.
    pub coherent: bool,

    /// Whether the hardware sets the accessed and dirty flags of leaves itself, see
    /// [`Config::marks`].
    pub marks: bool,

    /// Whether leaves may be split while devices use them: see `split.rs`.
    pub splits: bool,

    /// Whether the upper half of a sign-extended space can be mapped too: the addresses whose
    /// complement is at most `aperture_last`.
    pub sign_extend: bool,

    /// The last address that can be mapped, but for an upper half.
    pub aperture_last: Iova,

    /// The leaf sizes that can be used, a bit for each power of two, the smallest of the format
    /// among them.
    pub page_sizes: u64,

    /// The last output address.
    pub output_last: PhysAddr,

    /// The highest level that the top may come to.
    pub top_level: Level,
}

impl Limits {
    /// The limits of a tree in the format `F` for the hardware that `config` describes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the format has no trees of that many levels, if the hardware lacks the smallest
    /// page of the format, or if it takes fewer addresses than one such page has.
    pub(super) fn new<F: Format>(config: &Config) -> Result<Self> {
        let last = if F::GROWS {
            config.max_levels.max(config.levels)
        } else {
            config.levels
        };

        if config.levels < F::MIN_LEVELS || last > F::MAX_LEVELS {
            return Err(EINVAL);
        }
        if config.input_lg2 < F::PAGE_LG2 || config.output_lg2 < F::PAGE_LG2 {
            return Err(EINVAL);
        }

        let top_level = Level::top_of(last)?;
        // A leaf is smaller than a whole tree.
        let fitting = low_mask(top_level.item_lg2(F::PAGE_LG2) + TABLE_LG2);
        let page_sizes = config.page_sizes & F::PAGE_SIZES & fitting;

        if page_sizes & (1 << F::PAGE_LG2) == 0 {
            return Err(EINVAL);
        }
        Ok(Self {
            coherent: config.coherent,
            marks: config.marks,
            splits: config.splits,
            sign_extend: false,
            aperture_last: low_mask(config.input_lg2.min(F::input_lg2(last))),
            page_sizes,
            output_last: low_mask(config.output_lg2.min(F::OUTPUT_LG2)),
            top_level,
        })
    }

    /// Whether all of `range` can be mapped.
    #[inline(always)]
    pub(super) fn hold(&self, range: &Range) -> bool {
        range.last() <= self.aperture_last
            || (self.sign_extend && !range.first() <= self.aperture_last)
    }
}
