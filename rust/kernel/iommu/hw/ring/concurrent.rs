// SPDX-License-Identifier: GPL-2.0

//! Several CPUs at one ring, whose unit needs some time for each batch but can run several at once.

use kernel::{
    sync::{
        atomic::{
            Atomic,
            Release, //
        },
        new_spinlock_irq,
        Arc,
        Completion,
        SpinLockIrq, //
    },
    time::{
        Instant,
        Monotonic, //
    },
    workqueue, //
};

use super::*;

const SLOTS: usize = 16;

/// CPUs that submit, and how many batches each.
const CPUS: usize = 4;
const BATCHES: u64 = 500;

/// The time that a batch takes.
const LATENCY: Delta = Delta::from_micros(20);

struct Work;

impl AsRef<[u64; 2]> for Work {
    fn as_ref(&self) -> &[u64; 2] {
        &[1, 1]
    }
}

/// The unit, its ring, and its users.
#[pin_data]
struct Machine {
    #[pin]
    queue: Queue<2>,
    start: Instant<Monotonic>,
    /// When the batch is done that ends in the slot, in nanoseconds from the start; zero for none.
    due: [Atomic<u64>; SLOTS],
    failed: Atomic<u64>,
    running: Atomic<u64>,
    #[pin]
    done: Completion,
    /// Held during a whole batch by the case in which no other CPU is let in.
    #[pin]
    alone: SpinLockIrq<()>,
}

impl Machine {
    fn new(cpus: usize) -> Result<Arc<Self>> {
        let queue = Queue::new(Memory::new(SLOTS, None)?);
        let machine = Arc::pin_init(
            try_pin_init!(Self {
                queue <- queue,
                start: Instant::now(),
                due: [const { Atomic::new(0) }; SLOTS],
                failed: Atomic::new(0),
                // CAST: A small number.
                running: Atomic::new(cpus as u64),
                done <- Completion::new(),
                alone <- new_spinlock_irq!(()),
            }? Error),
            GFP_KERNEL,
        )?;
        machine.queue.run(true);
        Ok(machine)
    }

    fn now(&self) -> u64 {
        // CAST: Time does not run backwards. Never zero.
        self.start.elapsed().as_nanos() as u64 + 1
    }

    fn work(&self, is_alone: bool) {
        for _ in 0..BATCHES {
            let result = if is_alone {
                let _guard = self.alone.lock();
                self.queue.submit(self, &[Work, Work])
            } else {
                self.queue.submit(self, &[Work, Work])
            };
            if result.is_err() {
                self.failed.add(1, Relaxed);
            }
        }
        if self.running.fetch_sub(1, Full) == 1 {
            self.done.complete_all();
        }
    }
}

impl Port<2> for Machine {
    fn set_tail(&self, index: usize) {
        // CAST: Some microseconds.
        let due = self.now() + LATENCY.as_nanos() as u64;
        self.due[(index + SLOTS - 1) % SLOTS].store(due, Release);
    }

    fn wait_command(&self, status: u64, number: u32) -> [u64; 2] {
        [u64::from(number), status]
    }

    fn has_error(&self) -> bool {
        false
    }

    fn recover(&self, _pending: &mut Pending<'_, 2>) -> Result {
        Ok(())
    }

    /// The CPUs that wait play the unit.
    fn pause(&self, _round: u32) {
        for (slot, place) in self.due.iter().enumerate() {
            let due = place.load(Relaxed);
            if due == 0 || due > self.now() || place.cmpxchg(due, 0, Full).is_err() {
                continue;
            }
            if let (Some([number, _]), Ok(word)) = (
                self.queue.memory().load(slot),
                self.queue.memory().status.word(slot),
            ) {
                word.store(number, Release);
            }
        }
        core::hint::spin_loop();
    }
}

/// Lets `cpus` CPUs submit their batches at once. Returns the microseconds that it took.
fn run(cpus: usize, is_alone: bool) -> Result<i64> {
    let machine = Machine::new(cpus)?;
    let start = Instant::<Monotonic>::now();
    for _ in 0..cpus {
        let machine = machine.clone();
        workqueue::system_unbound().try_spawn(GFP_KERNEL, move || machine.work(is_alone))?;
    }
    machine.done.wait_for_completion();
    assert_eq!(machine.failed.load(Relaxed), 0);
    assert!(!machine.queue.is_dead());
    Ok(start.elapsed().as_micros_ceil())
}

#[kunit_tests(rust_iommu_ring_concurrent)]
mod suite {
    use super::*;

    /// How long the two cases take is printed only: the CPUs of a test machine need
    /// not be there at the same time.
    #[test]
    fn every_batch_ends() -> Result {
        for cpus in [1, 2, CPUS] {
            let (alone, together) = (run(cpus, true)?, run(cpus, false)?);
            pr_info!(
                "ring: {} x {} batches: {} us if each waits for the others, {} us if not\n",
                cpus,
                BATCHES,
                alone,
                together
            );
        }
        Ok(())
    }
}
