// SPDX-License-Identifier: GPL-2.0

//! The view of a domain for flushes: every tag once, however many attachments have it.
//!
//! It sits under a spinlock, so it neither allocates nor frees: a caller that adds a tag brings the
//! memory ([`Addition`]) and frees what is left of it; a caller that removes a tag frees the tag.

use kernel::prelude::*;

use super::super::locked_vec::Room;

/// The tags of all attachments, each once and in the order in which they came, with the number of
/// attachments that have it.
///
/// # Invariants
///
/// Both vectors have the same length.
pub(super) struct View<T> {
    tags: KVec<T>,
    users: KVec<usize>,
}

/// What is needed to add the tags of an attachment.
pub(super) struct Addition<T> {
    /// The tags; those that were used up are gone.
    tags: KVec<Option<T>>,
    /// Room for what is known and for what is added, in both vectors of the view.
    room: (Room<T>, Room<usize>),
}

impl<T: Clone + PartialEq> Addition<T> {
    /// Prepares to add `tags` to a view that has `known` tags.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(tags: &[T], known: usize) -> Result<Self> {
        let room = known.checked_add(tags.len()).ok_or(ENOMEM)?;
        let mut copies = KVec::with_capacity(tags.len(), GFP_KERNEL)?;
        for tag in tags {
            copies.push(Some(tag.clone()), GFP_KERNEL)?;
        }
        Ok(Self {
            tags: copies,
            room: (Room::new(room)?, Room::new(room)?),
        })
    }
}

impl<T: Clone + PartialEq> View<T> {
    /// Nothing to flush.
    pub(super) const fn new() -> Self {
        // INVARIANT: Both are empty.
        Self {
            tags: KVec::new(),
            users: KVec::new(),
        }
    }

    /// The tags.
    #[inline]
    pub(super) fn tags(&self) -> &[T] {
        &self.tags
    }

    fn find(&self, tag: &T) -> Option<usize> {
        self.tags.iter().position(|known| known == tag)
    }

    /// Adds one attachment's tags. The view has no more of them than `addition` was made for.
    ///
    /// Context: any. Leaves in `addition` what the caller has to drop where dropping is allowed.
    pub(super) fn add(&mut self, addition: &mut Addition<T>) {
        addition.room.0.give(&mut self.tags);
        addition.room.1.give(&mut self.users);
        for place in addition.tags.iter_mut() {
            let known = place.as_ref().and_then(|tag| self.find(tag));
            match known.and_then(|index| self.users.get_mut(index)) {
                // The copy stays where it is.
                Some(users) => *users += 1,
                None => {
                    if let Some(tag) = place.take() {
                        self.push(tag, 1);
                    }
                }
            }
        }
    }

    fn push(&mut self, tag: T, users: usize) {
        // INVARIANT: Both get an element. Neither fails, since the caller stays within the capacity
        // of both.
        let _ = self.tags.push_within_capacity(tag);
        let _ = self.users.push_within_capacity(users);
    }

    /// Removes a tag of one attachment. Returns it if it was the last that had it, to be dropped
    /// where dropping is allowed.
    ///
    /// Context: any.
    pub(super) fn remove(&mut self, tag: &T) -> Option<T> {
        let index = self.find(tag)?;
        let users = self.users.get_mut(index)?;
        if *users > 1 {
            *users -= 1;
            return None;
        }
        // INVARIANT: Both lose the element with the same index.
        let _ = self.users.remove(index);
        self.tags.remove(index).ok()
    }
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_view)]
mod tests {
    use super::*;

    fn add(view: &mut View<u32>, tags: &[u32]) -> Result {
        let mut addition = Addition::new(tags, view.tags().len())?;
        view.add(&mut addition);
        Ok(())
    }

    #[test]
    fn tags_are_counted() -> Result {
        let mut view = View::new();

        add(&mut view, &[7, 8])?;
        // A known one before a new one: the new one must not be mistaken for it.
        add(&mut view, &[7, 9])?;
        assert_eq!(view.tags(), &[7, 8, 9]);

        assert_eq!(view.remove(&7), None);
        assert_eq!(view.remove(&8), Some(8));
        assert_eq!(view.tags(), &[7, 9]);
        assert_eq!(view.remove(&7), Some(7));
        assert_eq!(view.remove(&7), None);
        assert_eq!(view.remove(&9), Some(9));
        assert!(view.tags().is_empty());
        Ok(())
    }

    #[test]
    fn a_tag_twice_in_one_attachment_is_counted_twice() -> Result {
        let mut view = View::new();

        add(&mut view, &[5, 5])?;
        assert_eq!(view.tags(), &[5]);
        assert_eq!(view.remove(&5), None);
        assert_eq!(view.remove(&5), Some(5));
        Ok(())
    }

    #[test]
    fn nothing_is_added_and_removed() -> Result {
        let mut view = View::new();

        add(&mut view, &[])?;
        assert!(view.tags().is_empty());
        assert_eq!(view.remove(&1), None);
        Ok(())
    }
}
