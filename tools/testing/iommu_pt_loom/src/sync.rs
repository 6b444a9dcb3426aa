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

    /// An atomic variable; only for `u64`.
    pub struct Atomic<T>(Kind, std::marker::PhantomData<T>);

    enum Kind {
        Tracked(AtomicU64),
        /// Of the entries of a table, loom has no room for all.
        Plain(std::sync::atomic::AtomicU64),
    }

    impl Atomic<u64> {
        /// An atomic with a first value.
        pub fn new(value: u64) -> Self {
            Self(
                Kind::Tracked(AtomicU64::new(value)),
                std::marker::PhantomData,
            )
        }

        /// An atomic that loom does not track: a 0 that the operation which splits a leaf fills,
        /// and that no test has two threads use.
        pub fn untracked() -> Self {
            Self(Kind::Plain(Default::default()), std::marker::PhantomData)
        }

        /// The type that acts as a pointer to the value for volatile accesses.
        pub fn as_ptr(&self) -> Word<'_> {
            Word(self)
        }

        /// Writes `new` if the value is `old`; returns the old value, as an error if it differs.
        pub fn cmpxchg<O: MemoryOrdering>(&self, old: u64, new: u64, _: O) -> Result<u64, u64> {
            match &self.0 {
                Kind::Tracked(word) => {
                    word.compare_exchange(old, new, O::ORDERING, Ordering::Relaxed)
                }
                Kind::Plain(word) => {
                    word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
                }
            }
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
            match &self.0 .0 {
                Kind::Tracked(word) => word.load(Ordering::Acquire),
                Kind::Plain(word) => word.load(Ordering::Acquire),
            }
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
            match &self.0 .0 {
                Kind::Tracked(word) => drop(word.swap(value, Ordering::Relaxed)),
                Kind::Plain(word) => word.store(value, Ordering::Relaxed),
            }
        }
    }
}
