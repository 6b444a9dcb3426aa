// SPDX-License-Identifier: GPL-2.0

//! The order of changes, before a unit that looks at everything after each step and remembers all
//! that it has seen until it is told to forget it.

use super::*;
use crate::dte::entry::Translation;

const ROOT: Root = Root {
    table: 0x7000,
    levels: 2,
    domain: 9,
    pass_through: 1,
};

const HOST_TABLE: u64 = 0x9000;

/// The PASIDs that the unit looks at; requests without one are 0.
const PASIDS: [u32; 3] = [0, 5, 600];

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Effect {
    Refused,
    Passes,
    Host,
    Guest(u64),
}

/// A unit, and the memory that it reads.
struct Unit {
    roots: [Option<u64>; PASIDS.len()],
    entry: Entry,
    /// The entry that it remembers.
    cached: Entry,
    /// Whether the device may send requests with PASID.
    on: bool,
    /// Whether switching them on fails.
    refuses: bool,
    /// What it remembers of requests.
    seen: KVec<(u32, Effect)>,
    /// What requests may meet during a change, by PASID.
    allowed: [[Effect; 2]; PASIDS.len()],
    /// Fails at this call, and from then on.
    fails_at: usize,
    calls: usize,
}

fn place(pasid: u32) -> usize {
    PASIDS.iter().position(|known| *known == pasid).unwrap_or(0)
}

impl Unit {
    fn new() -> Self {
        Self {
            roots: [None; PASIDS.len()],
            entry: Entry::BLOCKED,
            cached: Entry::BLOCKED,
            on: false,
            refuses: false,
            seen: KVec::new(),
            allowed: [[Effect::Refused; 2]; PASIDS.len()],
            fails_at: usize::MAX,
            calls: 0,
        }
    }

    fn by_entry(&self, entry: &Entry, pasid: u32) -> Effect {
        let tables = self.roots[place(pasid)].map_or(Effect::Refused, Effect::Guest);
        match entry.translation() {
            Translation::Blocked => Effect::Refused,
            Translation::Guest => {
                // The table that hardware reads is the device's, with the id of its PASIDs.
                assert_eq!(entry.0[1] & 0xffff, u64::from(ROOT.domain));
                assert_eq!(entry.0[0] >> 56 & 3, u64::from(ROOT.levels - 1));
                if pasid == 0 && !entry.is_guest_untagged() {
                    Effect::Passes
                } else {
                    tables
                }
            }
            _ if pasid != 0 => Effect::Refused,
            Translation::PassThrough => Effect::Passes,
            Translation::Host => Effect::Host,
        }
    }

    fn effect(&self, pasid: u32) -> Effect {
        self.by_entry(&self.entry, pasid)
    }

    /// Requests of all kinds come now, under the entry that is in memory and under the one that is
    /// remembered.
    fn look(&mut self) {
        for entry in [self.entry, self.cached] {
            // It has the GCR3 table while there may be requests with PASID, unless there is a host
            // table, or the unit has failed.
            assert!(
                !self.on
                    || self.calls > self.fails_at
                    || matches!(entry.translation(), Translation::Guest | Translation::Host)
            );
        }
        for pasid in PASIDS {
            for entry in [self.entry, self.cached] {
                let effect = self.by_entry(&entry, pasid);
                // A unit that does not answer has a device blocked that need not be.
                let blocked = self.calls > self.fails_at && effect == Effect::Refused;
                assert!(blocked || self.allowed[place(pasid)].contains(&effect));
                if effect != Effect::Refused && !self.seen.contains(&(pasid, effect)) {
                    assert!(self.seen.push((pasid, effect), GFP_KERNEL).is_ok());
                }
            }
        }
    }

    fn call(&mut self) -> Result {
        self.calls += 1;
        if self.calls > self.fails_at {
            return Err(ETIMEDOUT);
        }
        Ok(())
    }

    /// Nothing is remembered but what is so.
    fn remembers_no_more_than_is_so(&self) {
        for (pasid, effect) in &self.seen {
            assert_eq!(*effect, self.effect(*pasid));
        }
    }
}

impl Hardware for Unit {
    fn switch(&mut self, on: bool) -> Result {
        if on && self.refuses {
            return Err(EBUSY);
        }
        self.on = on;
        self.look();
        Ok(())
    }

    fn set_tables(&mut self, pasid: u32, root: Option<u64>) -> Result {
        self.roots[place(pasid)] = root;
        self.look();
        Ok(())
    }

    fn set_entry(&mut self, wanted: Wanted) -> Result {
        let old = self.entry;
        self.entry = match wanted {
            Wanted::Entry(entry) => entry,
            Wanted::Host => Entry::host(HOST_TABLE, 4, false, 77),
        };
        self.look();
        if let Err(error) = self.call() {
            self.entry = Entry::BLOCKED;
            return Err(error);
        }
        self.cached = self.entry;
        // As `unit::Unit::forget` does: what belongs to the old entry, of requests without PASID.
        let guest = old.translation() == Translation::Guest && old.is_guest_untagged();
        self.seen
            .retain(|(pasid, effect)| *pasid != 0 || guest != matches!(effect, Effect::Guest(_)));
        self.look();
        Ok(())
    }

    fn forget(&mut self, pasid: u32) -> Result {
        self.call()?;
        self.seen
            .retain(|(known, effect)| *known != pasid || !matches!(effect, Effect::Guest(_)));
        self.look();
        Ok(())
    }
}

fn effect_of(untagged: Untagged) -> Effect {
    match untagged {
        Untagged::Blocked => Effect::Refused,
        Untagged::PassThrough => Effect::Passes,
        Untagged::Host => Effect::Host,
        Untagged::Guest(root) => Effect::Guest(root),
    }
}

/// A device in a state, behind a unit that has seen all of it.
fn device(untagged: Untagged, used: &[u32]) -> Result<(State, Unit)> {
    let mut unit = Unit::new();
    let mut state = State::new(ROOT);
    unit.allowed[0][1] = effect_of(untagged);
    state.begin(&mut unit)?;
    for pasid in used {
        unit.allowed[place(*pasid)][1] = Effect::Guest(0x1000 * u64::from(*pasid));
    }
    state.set_untagged(untagged, &mut unit)?;
    for pasid in used {
        state.reserve()?;
        state.attach(*pasid, 0x1000 * u64::from(*pasid), &mut unit)?;
    }
    // All is as it is, and has to stay so.
    for pasid in PASIDS {
        unit.allowed[place(pasid)] = [unit.effect(pasid); 2];
    }
    unit.look();
    unit.calls = 0;
    Ok((state, unit))
}

const UNTAGGED: [Untagged; 5] = [
    Untagged::Blocked,
    Untagged::PassThrough,
    Untagged::Host,
    Untagged::Guest(0x2000),
    Untagged::Guest(0x3000),
];

/// Every state that a device can be in.
fn for_each_state(mut each: impl FnMut(Untagged, &[u32]) -> Result) -> Result {
    for untagged in UNTAGGED {
        for used in [&[][..], &[5], &[5, 600]] {
            if untagged != Untagged::Host || used.is_empty() {
                each(untagged, used)?;
            }
        }
    }
    Ok(())
}

/// Makes a change, on a unit that answers and on one that stops doing so at each call in turn.
fn change(
    untagged: Untagged,
    used: &[u32],
    pasid: u32,
    new: Effect,
    mut change: impl FnMut(&mut State, &mut Unit) -> Result,
) -> Result {
    let (mut state, mut unit) = device(untagged, used)?;
    let old = unit.effect(pasid);
    unit.allowed[place(pasid)] = [old, new];
    change(&mut state, &mut unit)?;
    assert_eq!(unit.effect(pasid), new);
    unit.remembers_no_more_than_is_so();
    for other in PASIDS.into_iter().filter(|other| *other != pasid) {
        assert_eq!(unit.effect(other), unit.allowed[place(other)][0]);
    }

    for fails_at in 0..unit.calls {
        let (mut state, mut unit) = device(untagged, used)?;
        unit.allowed[place(pasid)] = [old, new];
        unit.fails_at = fails_at;
        assert_eq!(change(&mut state, &mut unit), Err(ETIMEDOUT));
        for pasid in PASIDS {
            assert_eq!(unit.effect(pasid), Effect::Refused);
        }
    }
    Ok(())
}

#[kunit_tests(rust_amdvi_pasids)]
mod suite {
    use super::*;

    #[test]
    fn requests_without_pasid_change() -> Result {
        for_each_state(|old, used| {
            for new in UNTAGGED {
                if new == Untagged::Host && !used.is_empty() {
                    continue;
                }
                change(old, used, 0, effect_of(new), |state, unit| {
                    state.set_untagged(new, unit)?;
                    assert_eq!(state.untagged(), new);
                    Ok(())
                })?;
            }
            Ok(())
        })
    }

    #[test]
    fn a_pasid_is_attached_and_replaced() -> Result {
        for_each_state(|untagged, used| {
            if untagged == Untagged::Host {
                return Ok(());
            }
            change(untagged, used, 5, Effect::Guest(0x8000), |state, unit| {
                state.reserve()?;
                state.attach(5, 0x8000, unit)?;
                assert!(state.is_used());
                Ok(())
            })
        })
    }

    #[test]
    fn a_pasid_is_detached() -> Result {
        for_each_state(|untagged, used| {
            change(untagged, used, 5, Effect::Refused, |state, unit| {
                state.detach(5, unit)?;
                assert_eq!(state.is_used(), used.len() > 1);
                Ok(())
            })
        })
    }

    /// The entry has the table before they are on, and after they are off nothing of it.
    #[test]
    fn they_are_switched_on_and_off() -> Result {
        for_each_state(|untagged, used| {
            let (mut state, mut unit) = device(untagged, used)?;
            assert!(unit.on);
            for pasid in used {
                unit.allowed[place(*pasid)][1] = Effect::Refused;
                state.detach(*pasid, &mut unit)?;
            }
            // As the core leaves a device.
            let passes = untagged == Untagged::PassThrough;
            let (left, entry) = if passes {
                (untagged, Entry::pass_through(ROOT.pass_through))
            } else {
                (Untagged::Blocked, Entry::BLOCKED)
            };
            unit.allowed[0][1] = effect_of(left);
            state.set_untagged(left, &mut unit)?;
            state.end(&mut unit)?;
            assert!(!unit.on);
            assert_eq!((unit.entry, unit.cached), (entry, entry));
            unit.remembers_no_more_than_is_so();
            Ok(())
        })
    }

    #[test]
    fn they_may_refuse_to_be_switched_on() -> Result {
        let mut unit = Unit::new();
        unit.refuses = true;
        assert_eq!(State::new(ROOT).begin(&mut unit), Err(EBUSY));
        assert!(!unit.on);
        assert_eq!((unit.entry, unit.cached), (Entry::BLOCKED, Entry::BLOCKED));
        Ok(())
    }

    /// The entry of a device that was just found may be any.
    #[test]
    fn the_first_entry_is_always_written() -> Result {
        let mut unit = Unit::new();
        unit.allowed[0][1] = Effect::Passes;
        unit.entry = Entry::pass_through(1);
        State::new(ROOT).begin(&mut unit)?;
        assert_eq!(unit.entry.translation(), Translation::Guest);
        assert_eq!(unit.effect(0), Effect::Refused);
        Ok(())
    }

    #[test]
    fn a_pasid_that_is_not_attached_costs_nothing() -> Result {
        let (mut state, mut unit) = device(Untagged::PassThrough, &[5])?;
        unit.calls = 0;
        state.detach(600, &mut unit)?;
        assert_eq!(unit.calls, 0);
        Ok(())
    }
}
