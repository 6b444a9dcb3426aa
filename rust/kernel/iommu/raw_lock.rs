// SPDX-License-Identifier: GPL-2.0

//! A spinlock that never sleeps, with interrupts disabled (`raw_spinlock_t`).
//!
//! The interrupt core calls drivers under its own raw spinlocks, under which no `spinlock_t` may be
//! taken: with `CONFIG_PREEMPT_RT` that one sleeps.

use kernel::{
    bindings,
    ffi::{
        c_char,
        c_ulong, //
    },
    sync::lock::{
        Backend,
        Lock, //
    }, //
};

/// Creates a [`RawSpinLock`] with a name and a new lock class.
///
/// For a type that is not generic: see `lock_class`.
#[macro_export]
macro_rules! new_iommu_raw_spinlock {
    ($inner:expr, $name:literal) => {
        $crate::iommu::raw_lock::RawSpinLock::new(
            $inner,
            $crate::c_str!($name),
            $crate::static_lock_class!(),
        )
    };
}
pub use new_iommu_raw_spinlock as new_raw_spinlock;

/// A raw spinlock. It may be taken in any context; interrupts are disabled while it is held.
///
/// A guard restores the state of interrupts that it has found, so guards must be dropped in the
/// opposite order of locking, those of other locks that disable interrupts included.
pub type RawSpinLock<T> = Lock<T, RawSpinLockBackend>;

/// The backend of [`RawSpinLock`].
pub struct RawSpinLockBackend;

// SAFETY: A `raw_spinlock_t` has one owner at a time. `relock()` is the default, which locks in the
// same way.
unsafe impl Backend for RawSpinLockBackend {
    type State = bindings::raw_spinlock_t;
    /// The state of interrupts before.
    type GuardState = c_ulong;

    unsafe fn init(ptr: *mut Self::State, name: *const c_char, key: *mut bindings::lock_class_key) {
        // SAFETY: `ptr` is valid for writes, and `name` and `key` are valid for ever (contract).
        unsafe { bindings::rust_iommu_raw_spin_lock_init(ptr, name, key) }
    }

    unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
        // SAFETY: The lock is initialised (contract).
        unsafe { bindings::rust_iommu_raw_spin_lock(ptr) }
    }

    unsafe fn try_lock(ptr: *mut Self::State) -> Option<Self::GuardState> {
        let mut flags = 0;
        // SAFETY: The lock is initialised (contract); `flags` is a place for the state.
        let locked = unsafe { bindings::rust_iommu_raw_spin_trylock(ptr, &mut flags) };
        locked.then_some(flags)
    }

    unsafe fn unlock(ptr: *mut Self::State, guard_state: &Self::GuardState) {
        // SAFETY: The caller owns the lock (contract), and the state is that of taking it.
        unsafe { bindings::rust_iommu_raw_spin_unlock(ptr, *guard_state) }
    }

    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // SAFETY: The lock is initialised (contract).
        unsafe { bindings::rust_iommu_raw_spin_assert_is_held(ptr) }
    }
}
