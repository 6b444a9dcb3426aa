// SPDX-License-Identifier: GPL-2.0

//! Several CPUs at one command buffer, whose unit needs some time for a batch but can run several
//! at once.

use kernel::{
    iommu::block::Block,
    sync::{
        atomic::{
            Atomic,
            Full,
            Release, //
        },
        new_mutex,
        new_spinlock_irq,
        Arc,
        Completion,
        Mutex,
        SpinLockIrq, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    },
    workqueue, //
};

use super::*;

/// CPUs that submit, and how many batches each.
const CPUS: usize = 4;
const BATCHES: u64 = 2000;

/// Time from when a unit is told of a batch until it is done.
const LATENCY: Delta = Delta::from_micros(20);

/// A unit that is at work: it takes up to this many batches at once.
const DEPTH: usize = SLOTS;

/// What the unit is about to do.
struct Work {
    /// The slot that is fetched next.
    head: usize,
    /// When the unit is done with the commands up to which slot, the oldest first.
    due: KVec<(u64, usize)>,
}

/// The unit, its ring, and the CPUs that use it.
#[pin_data]
struct Machine {
    queue: Pin<KBox<Queue>>,
    start: Instant<Monotonic>,
    #[pin]
    work: SpinLockIrq<Work>,
    /// Commands that were carried out, for each CPU.
    ran: [Atomic<u64>; CPUS],
    failed: Atomic<u64>,
    running: Atomic<u64>,
    #[pin]
    done: Completion,
    /// Held during a whole batch by CPUs that let no other one in.
    #[pin]
    alone: Mutex<()>,
}

impl Machine {
    fn new(cpus: usize) -> Result<Arc<Self>> {
        let queue = KBox::pin_init(Queue::new(None), GFP_KERNEL)?;
        queue.run(|| Ok(()))?;
        let work = Work {
            head: 0,
            due: KVec::with_capacity(DEPTH, GFP_KERNEL)?,
        };
        Arc::pin_init(
            pin_init!(Self {
                queue,
                start: Instant::now(),
                work <- new_spinlock_irq!(work),
                ran: [const { Atomic::new(0) }; CPUS],
                failed: Atomic::new(0),
                // CAST: A small number.
                running: Atomic::new(cpus as u64),
                done <- Completion::new(),
                alone <- new_mutex!(()),
            }),
            GFP_KERNEL,
        )
    }

    fn now(&self) -> u64 {
        // CAST: Time does not run backwards.
        self.start.elapsed().as_nanos() as u64
    }

    /// Does what is due.
    fn run(&self) {
        let mut work = self.work.lock();
        let now = self.now();
        while let Some((due, tail)) = work.due.first().copied() {
            if due > now {
                return;
            }
            let _ = work.due.remove(0);
            while work.head != tail {
                let command = self.queue.memory.load(work.head);
                work.head = (work.head + 1) % SLOTS;
                match command {
                    Some([word, data]) if word >> 60 == desc::Kind::Wait as u64 => {
                        let _ = self
                            .queue
                            .memory
                            .status
                            .word(0)
                            .map(|w| w.store(data, Release));
                    }
                    // CAST: The requester ID is the number of the CPU.
                    Some([word, _]) if word >> 60 == desc::Kind::DeviceEntry as u64 => {
                        self.ran[word as usize % CPUS].add(1, Relaxed);
                    }
                    _ => {}
                }
            }
        }
    }

    /// What a CPU does: each of its batches is done when it is told so.
    fn submit(&self, cpu: usize, is_alone: bool) {
        for batch in 1..=BATCHES {
            let commands = [
                // CAST: A small number.
                Command::device_entry(cpu as u16),
                Command::pages(7, None, Block::ALL, true),
            ];
            let guard = is_alone.then(|| self.alone.lock());
            let result = self
                .queue
                .start(self, &commands)
                .and_then(|ticket| self.queue.wait(self, ticket));
            drop(guard);
            if result.is_err() || self.ran[cpu].load(Relaxed) != batch {
                self.failed.add(1, Relaxed);
            }
        }
        if self.running.fetch_sub(1, Full) == 1 {
            self.done.complete_all();
        }
    }
}

impl Port for Machine {
    fn head(&self) -> usize {
        self.work.lock().head
    }

    fn set_tail(&self, index: usize) {
        // CAST: Some microseconds.
        let due = self.now() + LATENCY.as_nanos() as u64;
        let mut work = self.work.lock();
        // There are fewer batches than slots.
        let _ = work.due.push_within_capacity((due, index));
    }

    fn is_running(&self) -> bool {
        true
    }

    /// The CPUs that wait play the unit.
    fn pause(&self, _round: u32) {
        self.run();
        core::hint::spin_loop();
    }
}

/// Has `cpus` submit their batches at once. Returns the microseconds that it took.
fn run(cpus: usize, is_alone: bool) -> Result<i64> {
    let machine = Machine::new(cpus)?;
    let start = Instant::<Monotonic>::now();
    for cpu in 0..cpus {
        let machine = machine.clone();
        workqueue::system_unbound().try_spawn(GFP_KERNEL, move || machine.submit(cpu, is_alone))?;
    }
    machine.done.wait_for_completion();
    assert_eq!(machine.failed.load(Relaxed), 0);
    assert!(!machine.queue.is_dead());
    Ok(start.elapsed().as_micros_ceil())
}

#[kunit_tests(rust_amdvi_cmd_concurrent)]
mod suite {
    use super::*;

    /// How long it takes is for information: the processors of a test machine need not run at the
    /// same time.
    #[test]
    fn every_batch_is_done_when_it_is_said_to_be() -> Result {
        for cpus in [1, 2, CPUS] {
            let (alone, together) = (run(cpus, true)?, run(cpus, false)?);
            pr_info!(
                "{} x {} batches: {} us if each waits for the others, {} us if not\n",
                cpus,
                BATCHES,
                alone,
                together
            );
        }
        Ok(())
    }
}
