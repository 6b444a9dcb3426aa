// SPDX-License-Identifier: GPL-2.0

//! Which slots of a ring are in use, by which batch, and what has become of them. Pure.
//!
//! The CPU that has put a batch into the ring is its *owner*. A slot is in use until its owner has
//! seen how the batch ended, and frees the slot.

use kernel::prelude::*;

/// The contents of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// Nothing.
    Free,
    /// A command of a batch.
    Command,
    /// The last command of a batch: it makes the unit write this number.
    Wait(u32),
    /// A command that the unit has refused.
    Refused,
    /// The last command of a batch, which the unit has dropped.
    Dropped,
}

/// A batch that is under way: the slots that it has.
#[derive(Debug)]
pub(super) struct Ticket {
    first: usize,
    /// How many slots, that of the last command included.
    len: usize,
    /// The slot of the last command.
    pub(super) last: usize,
    /// What the unit writes to the word of that slot.
    pub(super) number: u32,
}

/// The state of a batch whose number the unit has not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The unit is at it.
    Pending,
    /// The unit has refused a command and will not write the number.
    Refused,
    /// The unit has dropped the batch or its end, and no command was refused.
    Dropped,
}

/// Which slots of a ring are in use, and by which batch.
pub(super) struct Occupancy {
    marks: KVec<Mark>,
    next: usize,
    number: u32,
    running: bool,
}

impl Occupancy {
    /// `count` slots, all free. The unit does not fetch yet.
    pub(super) fn new(count: usize) -> Result<Self> {
        Ok(Self {
            marks: KVec::from_elem(Mark::Free, count, GFP_KERNEL)?,
            next: 0,
            number: 0,
            running: false,
        })
    }

    /// The unit fetches from the first slot on, or no longer.
    pub(super) fn run(&mut self, on: bool) {
        self.next = 0;
        self.running = on;
    }

    /// Whether the unit fetches.
    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    /// The slot behind the last command: what the tail register is set to.
    pub(super) fn next(&self) -> usize {
        self.next
    }

    fn at(&self, slot: usize) -> usize {
        slot % self.marks.len().max(1)
    }

    /// The slot `index` places into the batch.
    pub(super) fn slot(&self, ticket: &Ticket, index: usize) -> usize {
        self.at(ticket.first + index)
    }

    fn mark(&mut self, slot: usize, mark: Mark) {
        let slot = self.at(slot);
        if let Some(place) = self.marks.get_mut(slot) {
            *place = mark;
        }
    }

    fn is(&self, slot: usize, mark: Mark) -> bool {
        self.marks.get(self.at(slot)) == Some(&mark)
    }

    /// Takes slots for `commands` commands and the one that ends them. [`None`] while there is no
    /// room.
    ///
    /// One slot more has to be free: a tail that meets the head would say that the ring is empty.
    pub(super) fn reserve(&mut self, commands: usize) -> Option<Ticket> {
        let (first, len) = (self.next, commands.checked_add(1)?);
        if len >= self.marks.len() || !(0..=len).all(|index| self.is(first + index, Mark::Free)) {
            return None;
        }
        // Zero is what the words hold before they are used first.
        self.number = self.number.wrapping_add(1).max(1);
        for index in 0..commands {
            self.mark(first + index, Mark::Command);
        }
        let last = self.at(first + commands);
        self.mark(last, Mark::Wait(self.number));
        self.next = self.at(last + 1);
        Some(Ticket {
            first,
            len,
            last,
            number: self.number,
        })
    }

    /// Returns the state of a batch whose number the unit has not written.
    pub(super) fn standing(&self, ticket: &Ticket) -> Standing {
        match (self.has_refused(ticket), self.marks.get(ticket.last)) {
            // The batch goes on behind a command that was replaced.
            (_, Some(Mark::Wait(_))) => Standing::Pending,
            (true, _) => Standing::Refused,
            (false, _) => Standing::Dropped,
        }
    }

    /// Whether the unit has refused a command of the batch.
    fn has_refused(&self, ticket: &Ticket) -> bool {
        (0..ticket.len).any(|index| self.is(ticket.first + index, Mark::Refused))
    }

    /// Gives the slots of a batch back. Returns whether a command of it was refused.
    pub(super) fn give_back(&mut self, ticket: Ticket) -> bool {
        let refused = self.has_refused(&ticket);
        for index in 0..ticket.len {
            self.mark(ticket.first + index, Mark::Free);
        }
        refused
    }

    /// Notes that the unit refused what is in `slot`. Returns whether that is new.
    pub(super) fn refuse(&mut self, slot: usize) -> bool {
        let known = self.is(slot, Mark::Refused) || self.is(slot, Mark::Free);
        if !known {
            self.mark(slot, Mark::Refused);
        }
        !known
    }

    /// Notes that the unit dropped all ends of batches that it has fetched, which are those before
    /// `head`, except those that are `done`.
    pub(super) fn drop_before(&mut self, head: usize, done: impl Fn(usize, u32) -> bool) {
        // All are, if the head has caught up with the tail.
        let (mut slot, head) = (self.next, self.at(head));
        for _ in 0..self.marks.len() {
            self.drop_one(slot, &done);
            slot = self.at(slot + 1);
            if slot == head {
                break;
            }
        }
    }

    /// Notes that the unit dropped all ends of batches except those that are `done`, and fetches
    /// from the first slot on.
    pub(super) fn drop_all(&mut self, done: impl Fn(usize, u32) -> bool) {
        for slot in 0..self.marks.len() {
            self.drop_one(slot, &done);
        }
        self.next = 0;
    }

    fn drop_one(&mut self, slot: usize, done: impl Fn(usize, u32) -> bool) {
        if let Some(Mark::Wait(number)) = self.marks.get(slot) {
            if !done(slot, *number) {
                self.mark(slot, Mark::Dropped);
            }
        }
    }
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_ring_occupancy)]
mod tests {
    use super::*;

    fn no(_slot: usize, _number: u32) -> bool {
        false
    }

    #[test]
    fn the_tail_never_meets_the_head() -> Result {
        let mut slots = Occupancy::new(8)?;
        // Seven slots at most, and only once all are given back.
        assert!(slots.reserve(7).is_none());
        let whole = slots.reserve(6).ok_or(EINVAL)?;
        assert_eq!((whole.last, slots.next()), (6, 7));
        assert!(slots.reserve(0).is_none());
        slots.give_back(whole);
        let around = slots.reserve(2).ok_or(EINVAL)?;
        assert_eq!((around.last, slots.next()), (1, 2));
        assert_eq!(slots.slot(&around, 1), 0);
        assert!(slots.reserve(4).is_none());
        assert!(slots.reserve(3).is_some());
        Ok(())
    }

    #[test]
    fn slots_come_back_in_any_order() -> Result {
        let mut slots = Occupancy::new(8)?;
        let one = slots.reserve(1).ok_or(EINVAL)?;
        let two = slots.reserve(2).ok_or(EINVAL)?;
        assert_ne!(one.number, two.number);
        slots.give_back(two);
        // The first is in the way of a third that would go around.
        assert!(slots.reserve(2).is_none());
        slots.give_back(one);
        assert!(slots.reserve(2).is_some());
        Ok(())
    }

    #[test]
    fn a_refused_command_belongs_to_one_batch() -> Result {
        let mut slots = Occupancy::new(16)?;
        let one = slots.reserve(2).ok_or(EINVAL)?;
        let two = slots.reserve(2).ok_or(EINVAL)?;
        assert!(slots.refuse(slots.slot(&two, 1)));
        assert!(!slots.refuse(slots.slot(&two, 1)));
        assert!(!slots.refuse(12));
        assert_eq!(slots.standing(&two), Standing::Pending);
        assert!(!slots.give_back(one));
        assert!(slots.give_back(two));
        // An end that is refused never comes.
        let three = slots.reserve(0).ok_or(EINVAL)?;
        assert!(slots.refuse(three.last));
        assert_eq!(slots.standing(&three), Standing::Refused);
        Ok(())
    }

    #[test]
    fn what_was_fetched_is_dropped_and_the_rest_is_not() -> Result {
        let mut slots = Occupancy::new(16)?;
        let done = slots.reserve(1).ok_or(EINVAL)?;
        let dropped = slots.reserve(1).ok_or(EINVAL)?;
        let waiting = slots.reserve(1).ok_or(EINVAL)?;
        let number = done.number;
        slots.drop_before(4, |_, other| other == number);
        assert_eq!(slots.standing(&done), Standing::Pending);
        assert_eq!(slots.standing(&dropped), Standing::Dropped);
        assert_eq!(slots.standing(&waiting), Standing::Pending);
        // Beyond the end of the ring as well.
        slots.give_back(done);
        slots.give_back(dropped);
        let end = slots.reserve(8).ok_or(EINVAL)?;
        let around = slots.reserve(1).ok_or(EINVAL)?;
        assert_eq!(around.last, 0);
        slots.drop_before(1, no);
        assert_eq!(slots.standing(&end), Standing::Dropped);
        assert_eq!(slots.standing(&around), Standing::Dropped);
        Ok(())
    }

    #[test]
    fn a_ring_that_begins_anew_waits_for_the_owners() -> Result {
        let mut slots = Occupancy::new(8)?;
        let culprit = slots.reserve(1).ok_or(EINVAL)?;
        let behind = slots.reserve(1).ok_or(EINVAL)?;
        slots.refuse(0);
        slots.drop_all(no);
        assert_eq!(slots.standing(&culprit), Standing::Refused);
        assert_eq!(slots.standing(&behind), Standing::Dropped);
        assert_eq!(slots.next(), 0);
        assert!(slots.reserve(1).is_none());
        assert!(slots.give_back(culprit));
        assert!(slots.reserve(1).is_none());
        assert!(!slots.give_back(behind));
        assert!(slots.reserve(1).is_some());
        Ok(())
    }
}
