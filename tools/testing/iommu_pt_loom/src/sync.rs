// SPDX-License-Identifier: GPL-2.0

//! Stand-in for the kernel's atomic types, of which the page tables use `Atomic<u64>`.

/// The part of `kernel::sync::atomic` that the page tables use.
pub mod atomic {
    use loom::sync::atomic::{
        AtomicU64,
        Ordering, //
    };

    /// A memory ordering.
    pub trait MemoryOrdering {
        /// Loom's ordering.
        const ORDERING: Ordering;
    }

    /// The ordering `Relaxed`.
    pub struct Relaxed;

    /// The ordering `Release`.
    pub struct Release;

    /// The ordering `Full`. Weaker here than in the kernel: no fence.
    pub struct Full;

    impl MemoryOrdering for Relaxed {
        const ORDERING: Ordering = Ordering::Relaxed;
    }

    impl MemoryOrdering for Release {
        const ORDERING: Ordering = Ordering::Release;
    }

    impl MemoryOrdering for Full {
        const ORDERING: Ordering = Ordering::AcqRel;
    }

    /// An atomic variable; only for `u64`. One without a value is never written and reads as 0:
    /// loom has no room for all entries of a table.
    pub struct Atomic<T>(Option<AtomicU64>, std::marker::PhantomData<T>);

    impl Atomic<u64> {
        /// An atomic with a first value.
        pub fn new(value: u64) -> Self {
            Self(Some(AtomicU64::new(value)), std::marker::PhantomData)
        }

        /// An atomic that is not used.
        pub fn unused() -> Self {
            Self(None, std::marker::PhantomData)
        }

        fn used(&self) -> &AtomicU64 {
            self.0.as_ref().expect("an entry that no test uses")
        }

        /// The type that acts as a pointer to the value for volatile accesses.
        pub fn as_ptr(&self) -> Word<'_> {
            Word(self)
        }

        /// Writes `new` if the value is `old`; returns the old value, as an error if it differs.
        pub fn cmpxchg<O: MemoryOrdering>(&self, old: u64, new: u64, _: O) -> Result<u64, u64> {
            self.used()
                .compare_exchange(old, new, O::ORDERING, Ordering::Relaxed)
        }
    }

    /// A word with volatile accesses, which the kernel's memory model treats as relaxed atomic
    /// ones. A read acquires: that model orders dependent accesses after it, and loom does not know
    /// dependencies.
    pub struct Word<'a>(&'a Atomic<u64>);

    impl Word<'_> {
        /// Reads the word.
        ///
        /// # Safety
        ///
        /// It is there, as the type says already; for the pointer that this stands for.
        pub unsafe fn read_volatile(self) -> u64 {
            self.0
                 .0
                .as_ref()
                .map_or(0, |word| word.load(Ordering::Acquire))
        }

        /// Writes the word.
        ///
        /// Uses an exchange, and ignores the old value. Loom does not keep a total order of the
        /// stores to a word: after a compare-and-exchange in one thread and a store in another, a
        /// third thread could read the value of the exchange, although the store is the last one
        /// because nothing may come between the two sides of an exchange.
        ///
        /// # Safety
        ///
        /// It is there, as the type says already; for the pointer that this stands for.
        pub unsafe fn write_volatile(self, value: u64) {
            self.0.used().swap(value, Ordering::Relaxed);
        }
    }
}
