// SPDX-License-Identifier: GPL-2.0

//! Following the chosen way down.

use super::{
    super::{
        addr::Level,
        format::{
            Entry,
            Format, //
        },
        table::TableMem, //
    },
    Node,
    Slot, //
};

impl<'t, F: Format, M: TableMem> Node<'t, F, M> {
    /// Goes down while there is only one way: past the tables that all claimed addresses pass through
    /// and whose entry they don't use up.
    ///
    /// Most ranges are small, and this is cheaper than the recursion of an operation.
    #[inline(always)]
    pub(in super::super) fn narrow(self) -> Self {
        let (first, last) = (self.range.first(), self.range.last());
        let differ = first ^ last;
        // Above this level first and last use the same entry.
        let mut stop = Level::of_size(F::PAGE_LG2, differ.checked_ilog2().unwrap_or(0));

        // A range that is all of an entry, no more and no less, ends at that entry.
        if differ.trailing_ones() + differ.leading_zeros() == u64::BITS && first & differ == 0 {
            stop = Level::of_size(F::PAGE_LG2, differ.trailing_ones());
        }

        self.descend(stop, |node, _| node)
    }

    /// Follows the chosen way down to the table of level `stop`, or to the last before it whose entry on
    /// the way is not a table, or one below that level; returns what `end` makes of that table and that
    /// entry.
    ///
    /// The loop is over numbers that are known when it is compiled, and a walk enters it at the level
    /// that it is at. So each step is compiled for its level: shifts and masks are constants, and
    /// what a format asks of a level is decided. That halves the instructions of a step.
    #[inline(always)]
    pub(in super::super) fn descend<R>(
        self,
        stop: Level,
        end: impl Fn(Self, Slot<'t, F, M>) -> R,
    ) -> R {
        let mut node = self;

        for number in (0..F::MAX_LEVELS).rev() {
            if node.level == Level::new(number) {
                match node.entry() {
                    Entry::Link(_) if F::SKIPS => break,
                    entry => match node.follow(entry) {
                        Slot::Table(child) if child.level >= stop => node = child,
                        slot => return end(node, slot),
                    },
                }
            }
        }
        node.descend_past_link(stop, &end)
    }

    /// What `end` makes of the entry on the chosen way that is not a table.
    ///
    /// As [`Node::descend`], but `end` is compiled for each level as well, and finds the size of a leaf
    /// decided: a loop would leave through one `end` for all levels.
    #[inline(always)]
    pub(in super::super) fn descend_to_end<R>(self, end: impl Fn(Slot<'t, F, M>) -> R) -> R {
        let mut node = self;

        node.step_at(5, &end)
            .or_else(|| node.step_at(4, &end))
            .or_else(|| node.step_at(3, &end))
            .or_else(|| node.step_at(2, &end))
            .or_else(|| node.step_at(1, &end))
            .or_else(|| node.step_at(0, &end))
            .unwrap_or_else(|| node.descend_past_link(Level::LEAF, &|_, slot| end(slot)))
    }

    /// A step of [`Node::descend_to_end`], if the walk is at the level with that number: down the chosen
    /// way, or what `end` makes of what is there instead. A link is left to [`Node::descend_past_link`].
    #[inline(always)]
    fn step_at<R>(&mut self, number: u8, end: &impl Fn(Slot<'t, F, M>) -> R) -> Option<R> {
        if number >= F::MAX_LEVELS || self.level != Level::new(number) {
            return None;
        }
        match self.entry() {
            Entry::Link(_) if F::SKIPS => None,
            entry => match self.follow(entry) {
                Slot::Table(child) => {
                    *self = child;
                    None
                }
                slot => Some(end(slot)),
            },
        }
    }

    /// Goes on where steps that are compiled for their levels come to an end: at a link. From there on the
    /// level is known at run time only.
    ///
    /// Not reached without a link, since level 0 has no tables in it.
    #[inline(always)]
    fn descend_past_link<R>(mut self, stop: Level, end: &impl Fn(Self, Slot<'t, F, M>) -> R) -> R {
        if !F::SKIPS {
            return end(self, Slot::Empty);
        }
        loop {
            match self.get_on_way() {
                Slot::Table(child) if child.level >= stop => self = child,
                slot => return end(self, slot),
            }
        }
    }
}
