// SPDX-License-Identifier: GPL-2.0

//! The command register and the invalidation queue of a unit, and which code uses them.
//!
//! A unit has one of each. Where the kernel remaps interrupts it uses both, and the driver shares
//! them. Elsewhere the driver is the only user: it allocates the ring of the queue, and keeps the
//! state of the command register.
//!
//! VT-d specification, 6.5.2 (queue) and 11.4.4 (commands).

#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
mod tests;

use kernel::{
    io::{
        poll::read_poll_timeout_atomic,
        Io, //
    },
    iommu::hw::{
        dmar::{
            CommandBits,
            SharedUnit, //
        },
        mmio::PhysMem, //
    },
    prelude::*,
    sizes::SZ_4K,
    sync::{
        atomic::{
            AtomicFlag,
            Full,
            Relaxed, //
        },
        new_spinlock_irq,
        SpinLockIrq, //
    },
    time::Delta, //
};

use crate::{
    qi::{
        self,
        desc::Descriptor,
        Hardware,
        Port,
        Queue, //
    },
    regs::command::{
        CommandState,
        GCMD,
        GSTS, //
    }, //
};

/// The number of polls of a command's status, ten microseconds apart: one second.
pub(super) const COMMAND_ROUNDS: usize = 100_000;

/// Time between two polls.
pub(super) const COMMAND_DELAY: Delta = Delta::from_micros(10);

/// A command to a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Switches translation on or off.
    Translation(bool),
    /// Switches the queue on or off.
    Queue(bool),
    /// Makes the unit use the root table that `RTADDR` names.
    SetRoot,
    /// Makes the unit flush its write buffer.
    FlushWriteBuffer,
}

impl Command {
    /// The bits to write, and the status that says that the unit has obeyed.
    fn bits(self) -> CommandBits {
        let state = |on: bool, bit: u32, status: u32| CommandBits {
            set: if on { bit } else { 0 },
            clear: if on { 0 } else { bit },
            once: 0,
            mask: status,
            want: if on { status } else { 0 },
        };
        let once = |bit, status, want| CommandBits {
            once: bit,
            mask: status,
            want,
            ..CommandBits::default()
        };
        match self {
            Self::Translation(on) => state(on, GCMD::TRANSLATION_MASK, GSTS::TRANSLATION_MASK),
            Self::Queue(on) => state(on, GCMD::QUEUE_MASK, GSTS::QUEUE_MASK),
            Self::SetRoot => once(
                GCMD::SET_ROOT_MASK,
                GSTS::ROOT_SET_MASK,
                GSTS::ROOT_SET_MASK,
            ),
            Self::FlushWriteBuffer => once(
                GCMD::FLUSH_WRITE_BUFFER_MASK,
                GSTS::FLUSHING_WRITE_BUFFER_MASK,
                0,
            ),
        }
    }
}

/// A command register and a queue that no other code uses.
#[pin_data]
pub(super) struct Own {
    #[pin]
    queue: Queue,
    #[pin]
    command: SpinLockIrq<CommandState>,
}

impl Own {
    /// The ring of the queue.
    pub(super) fn ring(&self) -> &qi::Memory {
        self.queue.memory()
    }

    /// Says that the unit fetches descriptors, or no longer.
    pub(super) fn run(&self, on: bool) {
        self.queue.run(on);
    }

    /// Whether the unit fetches descriptors.
    pub(super) fn is_running(&self) -> bool {
        self.queue.is_running()
    }

    /// Whether the driver has enabled the queue and not disabled it.
    pub(super) fn was_enabled(&self) -> bool {
        self.command.lock().queue()
    }

    /// Takes over which states of the command register are on, as `status` says.
    pub(super) fn adopt(&self, status: GSTS) {
        *self.command.lock() = status.into();
    }

    fn command(&self, regs: &PhysMem<SZ_4K>, command: Command) -> Result {
        let bits = command.bits();
        let mut state = self.command.lock();
        // One-shot bits are not remembered.
        *state = CommandState::from_raw((state.into_raw() | bits.set) & !bits.clear);
        regs.write_reg(GCMD::from_raw(state.into_raw() | bits.once));
        read_poll_timeout_atomic(
            || Ok(regs.read(GSTS).into_raw()),
            |status| status & bits.mask == bits.want,
            COMMAND_DELAY,
            COMMAND_ROUNDS,
        )?;
        Ok(())
    }
}

/// Which code drives the command register and the queue of a unit.
pub(super) enum Control {
    /// This driver alone.
    Own(Pin<KBox<Own>>),
    /// The kernel's interrupt remapping too.
    Shared {
        /// The unit, as the kernel knows it.
        unit: SharedUnit,
        /// Whether this driver has given it up.
        dead: AtomicFlag,
    },
}

impl Control {
    /// A queue of the driver's own, on the NUMA node `node`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn own(node: Option<u32>) -> Result<Self> {
        let memory = qi::Memory::new(qi::SLOTS, node)?;
        let own = KBox::try_pin_init(
            try_pin_init!(Own {
                queue <- Queue::new(memory),
                command <- new_spinlock_irq!(CommandState::zeroed()),
            }),
            GFP_KERNEL,
        )?;
        Ok(Self::Own(own))
    }

    /// The queue and the register that `unit` shares.
    pub(super) fn shared(unit: SharedUnit) -> Self {
        Self::Shared {
            unit,
            dead: AtomicFlag::new(false),
        }
    }

    /// The driver's own queue, unless it is shared.
    pub(super) fn as_own(&self) -> Option<&Own> {
        match self {
            Self::Own(own) => Some(own),
            Self::Shared { .. } => None,
        }
    }

    /// Whether the unit was given up. Context: any.
    pub(super) fn is_dead(&self) -> bool {
        match self {
            Self::Own(own) => own.queue.is_dead(),
            Self::Shared { dead, .. } => dead.load(Relaxed),
        }
    }

    /// Gives the unit up, for ever. Returns whether it was alive. Context: any.
    pub(super) fn kill(&self) -> bool {
        match self {
            Self::Own(own) => own.queue.kill(),
            Self::Shared { dead, .. } => !dead.xchg(true, Full),
        }
    }

    /// Issues a command through `regs`, and waits until the unit has obeyed. Context: any.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT`.
    pub(super) fn command(&self, regs: &PhysMem<SZ_4K>, command: Command) -> Result {
        match self {
            Self::Own(own) => own.command(regs, command),
            Self::Shared { unit, .. } => unit.command(command.bits()),
        }
    }

    /// Runs invalidations on the unit behind `port`, and waits until they are done. Context: any.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if the unit refused a descriptor;
    /// - `ETIMEDOUT` if it does not answer: it is given up, and only this caller is told so;
    /// - `EIO` if it was given up before.
    pub(super) fn submit(&self, port: &impl Port, batch: &[Descriptor]) -> Result {
        match self {
            Self::Own(own) => own.queue.submit(&Hardware(port), batch),
            Self::Shared { .. } if self.is_dead() => Err(EIO),
            Self::Shared { unit, .. } => batch
                .chunks(SharedUnit::BATCH)
                .try_for_each(|chunk| {
                    let mut words = [[0; 4]; SharedUnit::BATCH];
                    for (to, descriptor) in words.iter_mut().zip(chunk) {
                        *to = descriptor.0;
                    }
                    unit.submit(&words[..chunk.len()])
                })
                .map_err(|error| match error {
                    ETIMEDOUT if !self.kill() => EIO,
                    EINVAL => {
                        // Which one of several is not known.
                        let refused = batch.first().filter(|_| batch.len() == 1);
                        port.report("refuses an invalidation", refused.copied());
                        EINVAL
                    }
                    error => error,
                }),
        }
    }
}
