// SPDX-License-Identifier: GPL-2.0

//! The thread that keeps the device writing while the memory is migrated.

use std::{
    sync::{
        atomic::{
            AtomicBool,
            Ordering, //
        },
        Arc, //
    },
    thread::{
        self,
        JoinHandle, //
    },
    time::{
        Duration,
        Instant, //
    },
};

use anyhow::{
    anyhow,
    bail,
    ensure,
    Context,
    Result, //
};
use device_memory::Memory;

use crate::{
    device::Engine,
    pattern::{
        Pattern,
        Write, //
    },
    place::Places,
    rounds::Device,
    truth::Truth, //
};

/// How long the device may take for its first writes, and for the first one that is tracked.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What the thread works on.
pub(crate) struct Job {
    /// The device.
    pub(crate) engine: Box<dyn Engine>,
    /// The memory that it writes to.
    pub(crate) memory: Arc<Memory>,
    /// Where the device sees that memory.
    pub(crate) places: Arc<Places>,
    /// What it writes.
    pub(crate) pattern: Pattern,
    /// Where its writes are recorded.
    pub(crate) truth: Arc<Truth>,
    /// How many writes it makes in a second, or as many as it can.
    pub(crate) rate: Option<u32>,
}

/// A device that keeps writing until it is stopped.
pub(crate) struct Worker {
    truth: Arc<Truth>,
    places: Arc<Places>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Worker {
    /// Sets the device going and waits until it has made its first `warm_up` writes. May sleep.
    ///
    /// # Errors
    ///
    /// The device fails, or does not write.
    pub(crate) fn start(job: Job, warm_up: u64) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let truth = Arc::clone(&job.truth);
        let places = Arc::clone(&job.places);
        let thread = thread::Builder::new()
            .name("device".into())
            .spawn({
                let stop = Arc::clone(&stop);
                move || job.run(&stop)
            })
            .context("cannot start a thread; raise the limit on processes (ulimit -u)")?;
        let mut worker = Self {
            truth,
            places,
            stop,
            thread: Some(thread),
        };
        worker.wait_for(warm_up)?;
        Ok(worker)
    }

    /// Has the device write at `iova` too, where the memory is mapped by now, and waits until it has
    /// made `warm_up` writes there and everywhere else. May sleep.
    ///
    /// # Errors
    ///
    /// The device fails, or does not write.
    pub(crate) fn add_place(&mut self, iova: u64, warm_up: u64) -> Result<()> {
        self.places.add(iova);
        self.wait_for(warm_up)
    }

    /// Waits until the device has made `writes` writes at each place. May sleep.
    fn wait_for(&mut self, writes: u64) -> Result<()> {
        let begin = Instant::now();
        while self.places.fewest() < writes {
            self.check()?;
            ensure!(
                begin.elapsed() < PATIENCE,
                "the device made only {} writes in {PATIENCE:?}; ask for a higher --rate",
                self.places.fewest()
            );
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits for the end of the thread and hands on what it ended with.
    fn join(&mut self) -> Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(anyhow!("the thread that drives the device died")),
            None => Ok(()),
        }
    }
}

impl Device for Worker {
    fn truth(&self) -> &Truth {
        &self.truth
    }

    fn check(&mut self) -> Result<()> {
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            self.join()?;
            bail!("the device stopped writing by itself");
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // On the way out after an error elsewhere: that one is reported, not a second one from here.
        let _ = self.stop();
    }
}

impl Job {
    fn run(mut self, stop: &AtomicBool) -> Result<()> {
        let (prefix, lengths) = (self.engine.prefix(), self.engine.lengths());
        // Small batches, so that the device writes all the time and not in bursts.
        let batch = match self.rate {
            // CAST: A `u32` fits into a `usize` of the supported targets.
            Some(rate) => self.engine.batch().min((rate as usize / 500).max(1)),
            None => self.engine.batch(),
        };
        let pause = match self.rate {
            Some(rate) => Duration::from_secs_f64(batch as f64 / f64::from(rate.max(1))),
            None => Duration::ZERO,
        };
        let mut next = Instant::now();
        let mut result = Ok(());
        while result.is_ok() && !stop.load(Ordering::Relaxed) {
            let writes: Vec<_> = (0..batch)
                .map(|_| self.pattern.next(prefix, &lengths))
                .collect();
            result = self.make(&writes);
            next += pause;
            match next.checked_duration_since(Instant::now()) {
                Some(rest) => thread::sleep(rest),
                // Too slow for the rate: go on from here instead of catching up in a burst.
                None => next = Instant::now(),
            }
        }
        // Stopped in any case, but the first error is the one to tell.
        let stopped = self.engine.stop();
        result.and(stopped)
    }

    /// Has the device make some writes, on the record.
    fn make(&mut self, writes: &[Write]) -> Result<()> {
        let iova = self.places.next();
        self.truth.begin(writes.iter().flat_map(Write::pages));
        self.engine.dma_write(iova, writes)?;
        self.truth.end(writes.len() as u64);

        // A device that says that it wrote, and did not, would make the record worthless.
        if let Some(last) = writes.last() {
            let mut found = vec![0; last.data.len()];
            self.memory.copy_out(last.offset, &mut found)?;
            ensure!(
                found == last.data,
                "the device wrote {} bytes at IOVA {:#x}, but they are not in the memory mapped \
                 there; the IOMMU sent them elsewhere, look for faults in the kernel's log",
                last.data.len(),
                iova + last.offset as u64
            );
        }
        self.places.count(iova, writes.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;
    use crate::{
        bitmap_of,
        PAGE_SIZE, //
    };

    const SIZE: usize = 64 * PAGE_SIZE;

    /// Writes to the memory itself; after `good` batches it does what `then` says.
    struct Fake {
        memory: Arc<Memory>,
        good: usize,
        then: fn() -> Result<()>,
    }

    impl Engine for Fake {
        fn lengths(&self) -> RangeInclusive<usize> {
            64..=64
        }

        fn batch(&self) -> usize {
            4
        }

        fn dma_write(&mut self, _iova: u64, writes: &[Write]) -> Result<()> {
            if self.good == 0 {
                return (self.then)();
            }
            self.good -= 1;
            for write in writes {
                self.memory.copy_in(write.offset, &write.data)?;
            }
            Ok(())
        }

        fn stop(&mut self) -> Result<()> {
            Ok(())
        }
    }

    fn start(good: usize, then: fn() -> Result<()>, warm_up: u64) -> Result<Worker> {
        let memory = Arc::new(Memory::new(c"test", SIZE, None)?);
        Worker::start(
            Job {
                engine: Box::new(Fake {
                    memory: Arc::clone(&memory),
                    good,
                    then,
                }),
                memory,
                places: Arc::new(Places::new(0)),
                pattern: Pattern::new(1, SIZE),
                truth: Arc::new(Truth::new(bitmap_of(SIZE / PAGE_SIZE, []))),
                rate: None,
            },
            warm_up,
        )
    }

    #[test]
    fn writes_until_stopped() -> Result<()> {
        let mut worker = start(usize::MAX, || Ok(()), 100)?;
        worker.check()?;
        worker.stop()?;
        assert!(worker.truth().writes().0 >= 100);
        Ok(())
    }

    #[test]
    fn writes_at_every_place() -> Result<()> {
        let mut worker = start(usize::MAX, || Ok(()), 10)?;
        worker.add_place(1 << 40, 100)?;
        worker.stop()?;
        assert!(worker.truth().writes().0 >= 200);
        Ok(())
    }

    #[test]
    fn a_device_that_fails_is_noticed() {
        let error = start(3, || bail!("broken"), 100)
            .err()
            .map(|e| e.to_string());
        assert_eq!(error.as_deref(), Some("broken"));
    }

    #[test]
    fn a_device_that_only_claims_to_write_is_noticed() {
        let error = start(3, || Ok(()), 100).err().map(|e| e.to_string());
        assert!(error.is_some_and(|e| e.contains("sent them elsewhere")));
    }
}
