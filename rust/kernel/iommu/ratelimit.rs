// SPDX-License-Identifier: GPL-2.0

//! A limit for messages that a device can provoke.

use kernel::{
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// Lets through a burst of messages in each window of time.
///
/// Two processors that meet at the edge of a window may let through one burst more; a limit for
/// the log needs no lock.
pub struct RateLimit {
    start: Instant<Monotonic>,
    /// Number of the window, plus one, so that zero stands for none yet.
    window: Atomic<u64>,
    /// Messages in this window.
    count: Atomic<u64>,
}

/// Length of a window in nanoseconds.
const WINDOW_NS: u64 = 5_000_000_000;

/// Messages that pass in a window.
const BURST: u64 = 10;

impl RateLimit {
    /// A limit that has let nothing through.
    #[expect(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            window: Atomic::new(0),
            count: Atomic::new(0),
        }
    }

    /// Whether another message may be printed now. May be called in any context.
    pub fn allows(&self) -> bool {
        // CAST: monotonic time does not go back.
        self.allows_at(self.start.elapsed().as_nanos() as u64)
    }

    fn allows_at(&self, now: u64) -> bool {
        let window = now / WINDOW_NS + 1;
        if self.window.load(Relaxed) != window {
            self.window.store(window, Relaxed);
            self.count.store(0, Relaxed);
        }
        let count = self.count.load(Relaxed);
        self.count.store(count + 1, Relaxed);
        count < BURST
    }
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kernel::prelude::kunit_tests(rust_iommu_ratelimit)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_in_each_window() {
        let limit = RateLimit::new();
        for window in 0..3 {
            let passed = (0..100)
                .filter(|step| limit.allows_at(window * WINDOW_NS + step))
                .count();
            assert_eq!(passed as u64, BURST);
        }
    }
}
