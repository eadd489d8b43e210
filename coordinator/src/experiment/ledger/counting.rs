//! Counts per test, kept up to date as notes come in. Each attempt's share of them is remembered, so
//! that a note which changes what became of it takes back exactly what it had added.

use super::reading::Standing;
use super::{Asked, AttemptEnd, AttemptFacts, AttemptSpec, JobEntry, Ledger, Observation, Seen, TestId};
use crate::experiment::job_key::JobKey;
use flakefarm_shared::{Scope, Selection, World};
use std::collections::HashMap;

/// What was seen of one listed test, and what is under way. Runs under another treatment than the plain
/// one are counted apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TestTally {
    /// Passes.
    pub passes: u32,
    /// Failures.
    pub failures: u32,
    /// Skips.
    pub skips: u32,
    /// Runs alone that said something of it.
    pub alone: u32,
    /// Runs alone that are under way.
    pub alone_under_way: u32,
    /// Runs alone that ended without a word of it.
    pub alone_in_vain: u32,
    /// Attempts on it and others that ran to their end without a word of it.
    pub unheard: u32,
    /// Attempts that it ended, by crashing or by running too long.
    pub interruptions: u32,
    /// Clean runs that passes in other worlds stand for; see [`flakefarm_shared::World::clean_runs`].
    pub passes_elsewhere: u32,
    /// Failures in such worlds, one for each attempt.
    pub failures_elsewhere: u32,
    /// Time of all runs, in microseconds.
    pub wall_us: u64,
    /// Runs under way on a selection that names it.
    pub(super) named_under_way: u32,
}

impl TestTally {
    /// Passes and failures.
    pub fn attempts(&self) -> u32 {
        self.passes + self.failures
    }

    /// Runs in other worlds that count beside those in the plain one: where a test does the same in all of
    /// them, or may fail in some and never did in the plain one, or is not yet known to do both by chance.
    pub fn elsewhere(&self) -> u32 {
        match (self.passes, self.failures) {
            (0, 0) => 0,
            (1.., 0) => self.passes_elsewhere,
            (0, 1..) if self.passes_elsewhere == 0 => self.failures_elsewhere,
            (0, 1..) => 0,
            (1.., 1..) => self.passes_elsewhere + self.failures_elsewhere,
        }
    }

    /// Runs that said something of it.
    pub fn heard(&self) -> u32 {
        self.attempts() + self.skips
    }

    /// Mean duration in seconds; none before the first run.
    pub fn mean_seconds(&self) -> Option<f64> {
        (self.heard() > 0).then(|| self.wall_us as f64 / 1e6 / f64::from(self.heard()))
    }
}

/// The tests of an attempt.
#[derive(Debug, Clone)]
pub(super) enum Coverage {
    All,
    Some(Box<[u32]>),
    /// Nothing of it is counted: its treatment is not the plain one.
    Apart,
}

impl Coverage {
    pub(super) fn of(spec: &AttemptSpec, places: &HashMap<TestId, usize>) -> Self {
        if !spec.treatment.is_plain() {
            return Coverage::Apart;
        }
        match &spec.tests {
            Selection::All => Coverage::All,
            Selection::Only(tests) => {
                let place = |test| {
                    places.get(test).map(|place| u32::try_from(*place).expect("tests are counted in 32 bits"))
                };
                Coverage::Some(tests.iter().filter_map(place).collect())
            }
        }
    }
}

/// What an attempt has added to the counts beside its observations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Counted {
    Nothing,
    UnderWay,
    /// These were to run, and nothing was heard of them.
    InVain(Box<[u32]>),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    More,
    Less,
}

impl Change {
    fn apply(self, count: &mut u32) {
        match self {
            Change::More => *count += 1,
            Change::Less => *count -= 1,
        }
    }
}

impl Ledger {
    /// Counts of the test at `place`.
    pub fn tally_of(&self, place: usize) -> &TestTally {
        &self.tallies[place]
    }

    /// Runs of the test at `place` that are under way.
    pub fn under_way(&self, place: usize) -> u32 {
        self.all_under_way + self.tallies[place].named_under_way
    }

    /// Time spent in listed tests by attempts of `scope`, in seconds.
    pub fn seconds_in_tests(&self, scope: Scope) -> f64 {
        self.in_tests_us[scope_place(scope)] as f64 / 1e6
    }

    /// Brings the counts up to what is known of the attempts of `key`.
    pub(super) fn count_again(&mut self, key: JobKey) {
        let Some(entry) = self.jobs.get(&key) else { return };
        let indices: Vec<u32> = entry.planned.iter().flatten().map(|attempt| attempt.index).collect();
        for (slot, index) in indices.into_iter().enumerate() {
            let now = self.what_counts(key, slot, index);
            self.count_instead(key, slot, now);
        }
        let entry = self.entry(key);
        if entry.counted.iter().all(|counted| *counted == Counted::Nothing) {
            entry.counted = Vec::new();
        }
    }

    /// Takes back what the attempt has added, before what became of it changes.
    pub(super) fn forget_count(&mut self, key: JobKey, index: u32) {
        if let Some(slot) = self.jobs.get(&key).and_then(|entry| entry.slot(index)) {
            self.count_instead(key, slot, Counted::Nothing);
        }
    }

    fn count_instead(&mut self, key: JobKey, slot: usize, now: Counted) {
        let entry = self.entry(key);
        if entry.counted.get(slot).unwrap_or(&Counted::Nothing) == &now {
            return;
        }
        if entry.counted.is_empty() {
            entry.counted = vec![Counted::Nothing; entry.planned.as_ref().map_or(0, Vec::len)];
        }
        let before = std::mem::replace(&mut entry.counted[slot], now.clone());
        self.count(key, slot, &before, Change::Less);
        self.count(key, slot, &now, Change::More);
    }

    fn what_counts(&self, key: JobKey, slot: usize, index: u32) -> Counted {
        let entry = &self.jobs[&key];
        let coverage = entry.coverage(slot);
        if matches!(coverage, Coverage::Apart) {
            return Counted::Nothing;
        }
        let alone = entry.scope_of(slot) == Scope::Test;
        match entry.standing(index) {
            Standing::Outstanding => Counted::UnderWay,
            Standing::Lost if alone => Counted::InVain(self.silent(key, index, coverage)),
            Standing::Ended(record) if alone || record.end == AttemptEnd::Completed => {
                match self.silent(key, index, coverage) {
                    silent if silent.is_empty() => Counted::Nothing,
                    silent => Counted::InVain(silent),
                }
            }
            Standing::Lost | Standing::Ended(_) => Counted::Nothing,
        }
    }

    fn silent(&self, key: JobKey, index: u32, coverage: &Coverage) -> Box<[u32]> {
        let silent = |place: &u32| {
            let at = |o: &Observation| (o.key, o.index).cmp(&(key, index));
            self.listed[*place as usize].binary_search_by(at).is_err()
        };
        match coverage {
            Coverage::All => (0..).take(self.tests.len()).filter(silent).collect(),
            Coverage::Some(places) => places.iter().copied().filter(silent).collect(),
            Coverage::Apart => Box::default(),
        }
    }

    fn count(&mut self, key: JobKey, slot: usize, counted: &Counted, change: Change) {
        let entry = &self.jobs[&key];
        let alone = entry.scope_of(slot) == Scope::Test;
        match (counted, entry.coverage(slot)) {
            (Counted::Nothing, _) | (Counted::UnderWay, Coverage::Apart) => {}
            (Counted::UnderWay, Coverage::All) => change.apply(&mut self.all_under_way),
            (Counted::UnderWay, Coverage::Some(places)) => {
                for place in places {
                    let tally = &mut self.tallies[*place as usize];
                    change.apply(&mut tally.named_under_way);
                    if alone {
                        change.apply(&mut tally.alone_under_way);
                    }
                }
            }
            (Counted::InVain(places), _) => {
                for place in places {
                    let tally = &mut self.tallies[*place as usize];
                    change.apply(if alone { &mut tally.alone_in_vain } else { &mut tally.unheard });
                }
            }
        }
    }

    pub(super) fn count_seen(&mut self, place: usize, observation: &Observation, change: Change) {
        let tally = &mut self.tallies[place];
        if !observation.treatment.is_plain() {
            let stands_for = observation.treatment.other_world().map_or(0, World::clean_runs);
            match observation.seen {
                Seen::Pass => (0..stands_for).for_each(|_| change.apply(&mut tally.passes_elsewhere)),
                Seen::Fail(_) if stands_for > 0 => change.apply(&mut tally.failures_elsewhere),
                Seen::Fail(_) | Seen::Skip => {}
            }
            return;
        }
        change.apply(match observation.seen {
            Seen::Pass => &mut tally.passes,
            Seen::Fail(_) => &mut tally.failures,
            Seen::Skip => &mut tally.skips,
        });
        if observation.scope == Scope::Test {
            change.apply(&mut tally.alone);
        }
        let in_tests = &mut self.in_tests_us[scope_place(observation.scope)];
        for sum in [&mut tally.wall_us, in_tests] {
            match change {
                Change::More => *sum += observation.wall_us,
                Change::Less => *sum -= observation.wall_us,
            }
        }
    }

    pub(super) fn count_interruption(&mut self, record: &AttemptFacts, change: Change) {
        if let AttemptEnd::Interrupted { running, .. } = &record.end
            && record.treatment.is_plain()
            && let Some(place) = self.places.get(running)
        {
            change.apply(&mut self.tallies[*place].interruptions);
        }
    }
}

impl JobEntry {
    fn scope_of(&self, slot: usize) -> Scope {
        self.asked(slot).spec.scope
    }

    fn coverage(&self, slot: usize) -> &Coverage {
        &self.asked(slot).coverage
    }

    fn asked(&self, slot: usize) -> &Asked {
        &self.planned.as_ref().expect("slots are those of planned attempts")[slot].asked
    }
}

fn scope_place(scope: Scope) -> usize {
    match scope {
        Scope::Test => 0,
        Scope::File => 1,
        Scope::Suite => 2,
    }
}
