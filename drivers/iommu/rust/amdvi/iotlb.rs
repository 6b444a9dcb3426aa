// SPDX-License-Identifier: GPL-2.0

//! The tags under which translations are cached, and the commands that drop them (specification,
//! 2.4.3 and 2.2.3). Pure.

use kernel::iommu::block::Block;

use crate::cmd::desc::Command;

/// The tag of cached translations in one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// The domain id.
    pub(crate) domain: u16,
    /// The PASID of guest translations, 0 for requests without one; [`None`] for host ones.
    pub(crate) pasid: Option<u32>,
}

impl Tag {
    /// The command that drops what is cached under the tag in `block`.
    pub(crate) fn pages(self, block: Block, tables: bool) -> Command {
        Command::pages(self.domain, self.pasid, block, tables)
    }

    /// The command that drops everything cached under the tag.
    pub(crate) fn all(self) -> Command {
        self.pages(Block::ALL, true)
    }
}
