// SPDX-License-Identifier: GPL-2.0

//! VT-d units that the kernel's interrupt remapping runs.
//!
//! A kernel that remaps interrupts keeps each unit mapped, with a running invalidation queue, also
//! when its DMA driver is off (`intel_iommu=off`). Command register and queue have two users then:
//! [`SharedUnit`] changes both the way the kernel's own code does, under its locks.

use core::ptr::NonNull;

use kernel::{
    bindings,
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*, //
};

/// A change of a unit's command register (VT-d specification, 11.4.4).
#[derive(Clone, Copy, Default)]
pub struct CommandBits {
    /// The bits to set for good.
    pub set: u32,
    /// The bits to clear for good.
    pub clear: u32,
    /// The one-shot bits to write.
    pub once: u32,
    /// The bits of the status register that tell whether the unit has obeyed.
    pub mask: u32,
    /// The value that they must have.
    pub want: u32,
}

/// A VT-d unit that interrupt remapping runs, and that remaps no DMA yet.
///
/// The kernel refuses to remove the unit while this exists, and its handler reports the unit's
/// faults.
///
/// # Invariants
///
/// `raw` is what `dmar_get_shared_unit()` returned, and was not given back: a unit of the kernel's
/// list whose queue runs and has descriptors of 256 bits. An entry of its interrupt table is
/// reserved, and the kernel frees no unit that has an entry in use.
pub struct SharedUnit {
    raw: NonNull<bindings::dmar_shared>,
}

// SAFETY: The kernel uses its units on any CPU; nothing of them belongs to a thread.
unsafe impl Send for SharedUnit {}

// SAFETY: The C functions that a shared reference calls take the locks of the unit themselves.
unsafe impl Sync for SharedUnit {}

impl SharedUnit {
    /// The most descriptors of one submission; the kernel's ring has 256 slots.
    pub const BATCH: usize = 16;

    /// Finds the unit whose registers are at the physical address `base`. May sleep.
    ///
    /// # Errors
    ///
    /// - `ENODEV`: interrupt remapping does not run this unit;
    /// - `EBUSY`: the C driver translates with it;
    /// - `EOPNOTSUPP`: its queue has descriptors of 128 bits, since the unit has no scalable mode;
    /// - `ENOMEM`: the interrupt table of the unit is full, or memory is short;
    /// - those of a request for the interrupt that reports faults.
    pub fn get(base: u64) -> Result<Self> {
        // SAFETY: The function takes any address. It may sleep, and so may this one.
        let raw = from_err_ptr(unsafe { bindings::dmar_get_shared_unit(base) })?;
        // INVARIANT: The function returns a unit of the kernel's list whose queue it has checked,
        // and of whose interrupt table it has reserved an entry.
        Ok(Self {
            raw: NonNull::new(raw).ok_or(ENODEV)?,
        })
    }

    /// The physical address of the registers and their length in bytes, as the kernel has claimed
    /// them. Context: any.
    pub(super) fn registers(&self) -> (u64, u64) {
        let (mut base, mut bytes) = (0, 0);
        // SAFETY: By the type invariants `raw` is valid; both places are valid for writing.
        unsafe { bindings::dmar_registers(self.raw.as_ptr(), &mut base, &mut bytes) };
        (base, bytes)
    }

    /// Changes the command register, and waits until the unit has obeyed: at most a second.
    ///
    /// Context: any. Takes the unit's `register_lock`.
    ///
    /// # Errors
    ///
    /// - `ETIMEDOUT`: the unit does not obey;
    /// - `EINVAL`: a bit that is not about DMA.
    pub fn command(&self, bits: CommandBits) -> Result {
        let CommandBits {
            set,
            clear,
            once,
            mask,
            want,
        } = bits;
        // SAFETY: By the type invariants `raw` is valid.
        to_result(unsafe {
            bindings::dmar_command(self.raw.as_ptr(), set, clear, once, mask, want)
        })
    }

    /// Runs descriptors, at most [`Self::BATCH`], and waits until the unit is done with them: a
    /// second, or a little longer.
    ///
    /// Context: any. Takes the unit's `q_lock`.
    ///
    /// # Errors
    ///
    /// - `EINVAL`: the unit refused a descriptor, one is not an invalidation of what is cached for
    ///   DMA, or there are too many;
    /// - `ETIMEDOUT`: it does not answer.
    pub fn submit(&self, descriptors: &[[u64; 4]]) -> Result {
        if descriptors.len() > Self::BATCH {
            return Err(EINVAL);
        }
        self.run(descriptors)
    }

    /// As [`Self::submit`], with any number of descriptors: for tests that fill the ring.
    #[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
    pub fn submit_any(&self, descriptors: &[[u64; 4]]) -> Result {
        self.run(descriptors)
    }

    #[inline(never)]
    fn run(&self, descriptors: &[[u64; 4]]) -> Result {
        // SAFETY: By the type invariants `raw` is valid and its queue takes descriptors of four
        // words, of which `descriptors` has as many as the function is told. The function only
        // reads them, and enters none if the ring has fewer slots.
        to_result(unsafe {
            bindings::dmar_submit(
                self.raw.as_ptr(),
                descriptors.as_ptr(),
                descriptors.len() as u32,
            )
        })
    }
}

impl Drop for SharedUnit {
    fn drop(&mut self) {
        // SAFETY: By the type invariants `raw` was not given back, and this value does not use it
        // any more. Units are dropped in process context.
        unsafe { bindings::dmar_put_shared_unit(self.raw.as_ptr()) };
    }
}
