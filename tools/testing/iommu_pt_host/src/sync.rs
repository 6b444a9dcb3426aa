// SPDX-License-Identifier: GPL-2.0

//! Stand-in for the kernel's atomic types, of which the page tables use `Atomic<u64>`.

/// The part of `kernel::sync::atomic` that the page tables use.
pub mod atomic {
    use std::sync::atomic::{
        AtomicU64,
        Ordering, //
    };

    /// A memory ordering.
    pub trait MemoryOrdering {
        /// The standard library's ordering.
        const ORDERING: Ordering;
    }

    macro_rules! orderings {
        ($($name:ident => $ordering:ident,)*) => {
            $(
                #[doc = concat!("The ordering `", stringify!($ordering), "`.")]
                pub struct $name;

                impl MemoryOrdering for $name {
                    const ORDERING: Ordering = Ordering::$ordering;
                }
            )*
        };
    }

    orderings! {
        Relaxed => Relaxed,
        Acquire => Acquire,
        Release => Release,
        Full => SeqCst,
    }

    /// An atomic variable; only for `u64`.
    #[repr(transparent)]
    pub struct Atomic<T>(AtomicU64, std::marker::PhantomData<T>);

    impl Atomic<u64> {
        /// An atomic with a first value.
        pub const fn new(value: u64) -> Self {
            Self(AtomicU64::new(value), std::marker::PhantomData)
        }

        /// The atomic at `ptr`.
        ///
        /// # Safety
        ///
        /// `ptr` is aligned and valid for `'a`, and all access to it is atomic.
        pub unsafe fn from_ptr<'a>(ptr: *mut u64) -> &'a Self {
            // SAFETY: The type is transparent down to a `u64`, the rest is the caller's promise.
            unsafe { &*ptr.cast() }
        }

        /// Adds; returns the old value.
        #[inline(always)]
        pub fn fetch_add<O: MemoryOrdering>(&self, value: u64, _: O) -> u64 {
            self.0.fetch_add(value, O::ORDERING)
        }

        /// Subtracts; returns the old value.
        #[inline(always)]
        pub fn fetch_sub<O: MemoryOrdering>(&self, value: u64, _: O) -> u64 {
            self.0.fetch_sub(value, O::ORDERING)
        }

        /// Pointer to the value.
        #[cfg(not(tsan))]
        pub const fn as_ptr(&self) -> *mut u64 {
            self.0.as_ptr()
        }

        /// The type that acts as a pointer to the value for volatile accesses.
        #[cfg(tsan)]
        pub const fn as_ptr(&self) -> Word {
            Word(self.0.as_ptr())
        }

        /// Reads the value.
        #[inline(always)]
        pub fn load<O: MemoryOrdering>(&self, _: O) -> u64 {
            self.0.load(O::ORDERING)
        }

        /// Writes the value.
        #[inline(always)]
        pub fn store<O: MemoryOrdering>(&self, value: u64, _: O) {
            self.0.store(value, O::ORDERING)
        }

        /// Writes `new` if the value is `old`; returns the old value, as an error if it differs.
        #[inline(always)]
        pub fn cmpxchg<O: MemoryOrdering>(&self, old: u64, new: u64, _: O) -> Result<u64, u64> {
            self.0
                .compare_exchange(old, new, O::ORDERING, Ordering::Relaxed)
        }
    }
    /// A word with volatile accesses, which ThreadSanitizer treats as plain ones.
    ///
    /// The kernel's memory model treats them as relaxed atomic ones, so they become such. A read
    /// acquires, because that model orders dependent accesses after it, and the sanitizer does not
    /// know dependencies.
    #[cfg(tsan)]
    pub struct Word(*mut u64);

    #[cfg(tsan)]
    impl Word {
        /// Reads the word.
        ///
        /// # Safety
        ///
        /// It is there.
        pub unsafe fn read_volatile(self) -> u64 {
            // SAFETY: By this function's contract.
            unsafe { AtomicU64::from_ptr(self.0) }.load(Ordering::Acquire)
        }

        /// Writes the word.
        ///
        /// # Safety
        ///
        /// It is there.
        pub unsafe fn write_volatile(self, value: u64) {
            // SAFETY: By this function's contract.
            unsafe { AtomicU64::from_ptr(self.0) }.store(value, Ordering::Relaxed)
        }
    }
}
