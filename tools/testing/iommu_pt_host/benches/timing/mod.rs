// SPDX-License-Identifier: GPL-2.0

//! What the benchmarks share: time, its median, and a gather.

use iommu_pt_host::pt::{
    tests::memory::TestMem,
    DetachedTable,
    Gather,
    Range, //
};
use std::time::Instant;

/// The nanoseconds that `work` takes.
pub fn time(mut work: impl FnMut()) -> f64 {
    let start = Instant::now();

    work();
    start.elapsed().as_nanos() as f64
}

/// The best and the median of some times.
pub fn best_and_median(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[0], times[times.len() / 2])
}

/// Tables that wait for a flush.
pub struct Drain<'m>(pub &'m TestMem, pub Vec<DetachedTable<&'m TestMem>>);

impl<'m> Gather<&'m TestMem> for Drain<'m> {
    fn add_range(&mut self, _range: Range) {}

    fn queue_free(&mut self, table: DetachedTable<&'m TestMem>) {
        self.1.push(table);
    }
}

impl Drain<'_> {
    /// Frees them.
    pub fn flush(&mut self) {
        for table in self.1.drain(..) {
            // SAFETY: There is no hardware.
            unsafe { table.free(&self.0) }
        }
    }
}
