// SPDX-License-Identifier: GPL-2.0

//! Global command and status, root table address, protected memory (11.4.4, 11.4.5, 11.4.8).
//!
//! `GCMD` is write-only. A command is one write that repeats every state that must not change and
//! changes one bit; one-shot bits must be zero in every other write. [`crate::unit`] keeps the
//! states in a shadow, because reading them back from `GSTS` would need every one-shot bit masked.

use kernel::{
    bitfield,
    io::register, //
};

register! {
    /// Global command register, write-only.
    pub(crate) GCMD(u32) @ 0x18 {
        /// TE: translation enable (state).
        31:31   translation => bool;
        /// SRTP: set the root table pointer (one-shot).
        30:30   set_root => bool;
        /// WBF: flush the write buffer (one-shot).
        27:27   flush_write_buffer => bool;
        /// QIE: queued invalidation enable (state).
        26:26   queue => bool;
        /// IRE: interrupt remapping enable (state).
        25:25   interrupt_remapping => bool;
    }

    /// Global status register, read-only.
    pub(crate) GSTS(u32) @ 0x1c {
        /// TES: translation is on.
        31:31   translation => bool;
        /// RTPS: the root table pointer has been set.
        30:30   root_set => bool;
        /// WBFS: a flush of the write buffer is under way.
        27:27   flushing_write_buffer => bool;
        /// QIES: queued invalidation is on.
        26:26   queue => bool;
        /// IRES: interrupt remapping is on.
        25:25   interrupt_remapping => bool;
    }

    /// Root table address register.
    pub(crate) RTADDR(u64) @ 0x20 {
        /// RTA: the table's address, in 4 KiB units.
        63:12   table;
        /// TTM: translation table mode; see [`SCALABLE_MODE`].
        11:10   mode;
    }

    /// Protected memory enable register.
    pub(crate) PMEN(u32) @ 0x64 {
        /// EPM: the protected regions are enabled.
        31:31   enable => bool;
        /// PRS: the protected regions are in force.
        0:0     in_force => bool;
    }
}

/// The value of `RTADDR.TTM` that selects scalable-mode tables.
pub(crate) const SCALABLE_MODE: u64 = 0b01;

impl RTADDR {
    /// A scalable-mode root table at the physical address `table`.
    pub(crate) fn scalable(table: u64) -> Self {
        Self::from_raw((table & Self::TABLE_MASK) | SCALABLE_MODE << Self::MODE_SHIFT)
    }

    /// Whether the tables are of scalable mode.
    pub(crate) fn is_scalable(self) -> bool {
        self.mode().get() == SCALABLE_MODE
    }
}

bitfield! {
    /// The bits in the shadow of `GCMD`: the states, without the one-shot bits.
    pub(crate) struct CommandState(u32) {
        31:31   translation => bool;
        26:26   queue => bool;
    }
}

impl From<GSTS> for CommandState {
    fn from(status: GSTS) -> Self {
        Self::from_raw(0)
            .with_translation(status.translation())
            .with_queue(status.queue())
    }
}

impl From<CommandState> for GCMD {
    fn from(state: CommandState) -> Self {
        Self::from_raw(state.into_raw())
    }
}
