//! What a sweep has tried on one test, by arm: a reading of the ledger, nothing decided.

use crate::plan::ledger::Standing;
use crate::plan::{Ledger, Observation, Seen};
use crate::score::Counts;
use flakefarm_shared::{
    AttemptRecord, AttemptSpec, Detail, Order, Scope, Selection, TestDetail, TestId, World,
};
use std::collections::BTreeMap;

/// Attempts without a word of the test, beyond those with one, after which an arm is given up.
const IN_VAIN: u32 = 3;

/// One treatment of the test.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Arm {
    /// The test alone.
    Alone(World),
    /// The test among all others.
    Suite(Order, World),
    /// Chosen tests one after the other, this one among them.
    Listed(Vec<TestId>),
}

impl Arm {
    /// The test alone, nothing changed.
    pub(super) const PLAIN: Arm = Arm::Alone(World::Plain);

    /// One attempt of this arm on `test`.
    pub(super) fn spec(&self, test: &TestId, neighbours: &Selection) -> AttemptSpec {
        match self {
            Arm::Alone(world) => AttemptSpec {
                world: *world,
                ..AttemptSpec::plain(Scope::Test, Selection::Only(vec![test.clone()]), Order::Given)
            },
            Arm::Suite(order, world) => {
                AttemptSpec { world: *world, ..AttemptSpec::plain(Scope::Suite, neighbours.clone(), *order) }
            }
            Arm::Listed(tests) => {
                AttemptSpec::plain(Scope::Suite, Selection::Only(tests.clone()), Order::AsListed)
            }
        }
    }

    /// The arm that `spec` is of, as `test` sees it.
    fn of(spec: &AttemptSpec, test: &TestId) -> Option<Arm> {
        match (spec.scope, spec.order, &spec.tests) {
            (Scope::Test, _, Selection::Only(tests)) => {
                (tests == std::slice::from_ref(test)).then_some(Arm::Alone(spec.world))
            }
            (Scope::Suite, Order::AsListed, Selection::Only(tests)) => {
                tests.contains(test).then(|| Arm::Listed(tests.clone()))
            }
            (Scope::Suite, order, _) => Some(Arm::Suite(order, spec.world)),
            (Scope::Test | Scope::File, _, _) => None,
        }
    }
}

/// How the attempts of one arm went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// It passed.
    pub(super) passes: u32,
    /// It failed.
    pub(super) failures: u32,
    /// It was skipped.
    pub(super) skips: u32,
    /// Nothing was heard yet.
    pub(super) outstanding: u32,
    /// They ended without a word of the test.
    pub(super) in_vain: u32,
}

impl Tally {
    /// Passes and failures.
    pub(super) fn counts(self) -> Counts {
        Counts { attempts: self.attempts(), failures: self.failures }
    }

    /// Passes and failures together.
    pub(super) fn attempts(self) -> u32 {
        self.passes + self.failures
    }

    /// Whether it did both.
    pub(super) fn varies(self) -> bool {
        self.passes > 0 && self.failures > 0
    }

    /// Whether nothing is to be had from it any more.
    pub(super) fn is_given_up(self) -> bool {
        self.in_vain >= IN_VAIN + self.attempts() + self.skips
    }

    /// Attempts that are missing for `wanted` to be heard of.
    pub(super) fn missing(self, wanted: u32) -> u32 {
        if self.is_given_up() || (self.skips > 0 && self.attempts() == 0) {
            return 0;
        }
        wanted.saturating_sub(self.attempts() + self.outstanding)
    }

    fn add(&mut self, seen: &Seen) {
        match seen {
            Seen::Pass => self.passes += 1,
            Seen::Fail(_) => self.failures += 1,
            Seen::Skip => self.skips += 1,
        }
    }

    fn plus(self, other: Tally) -> Tally {
        Tally {
            passes: self.passes + other.passes,
            failures: self.failures + other.failures,
            skips: self.skips + other.skips,
            outstanding: self.outstanding + other.outstanding,
            in_vain: self.in_vain + other.in_vain,
        }
    }
}

/// One attempt that ended, as the test saw it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial<'a> {
    /// What the attempt left behind, without its samples.
    pub(super) record: &'a AttemptRecord,
    /// What the test did.
    pub(super) observation: &'a Observation,
}

impl<'a> Trial<'a> {
    /// What a test printed and changed in it, if that was asked for.
    pub(super) fn detail(&self, test: &TestId) -> Option<&'a TestDetail> {
        self.record.details.iter().find(|detail| detail.test == *test)
    }
}

/// Everything that was tried on one test.
#[derive(Debug)]
pub(super) struct Trials<'a> {
    /// The test.
    pub(super) test: &'a TestId,
    tallies: BTreeMap<Arm, Tally>,
    seen: Vec<(Arm, Trial<'a>)>,
    watched: BTreeMap<Arm, u32>,
}

impl<'a> Trials<'a> {
    /// Reads the ledger.
    pub(super) fn read(ledger: &'a Ledger, test: &'a TestId) -> Self {
        let mut trials = Self { test, tallies: BTreeMap::new(), seen: Vec::new(), watched: BTreeMap::new() };
        let observations: BTreeMap<(&str, u32), &Observation> =
            ledger.observations(test).iter().map(|o| ((o.key.as_ref(), o.index), o)).collect();
        for attempt in ledger.each_attempt() {
            let Some(spec) = attempt.spec else { continue };
            let Some(arm) = Arm::of(spec, test) else { continue };
            if spec.detail == Detail::State {
                *trials.watched.entry(arm.clone()).or_default() += 1;
            }
            let tally = trials.tallies.entry(arm.clone()).or_default();
            match (attempt.standing, observations.get(&(attempt.key, attempt.index))) {
                (Standing::Outstanding, _) => tally.outstanding += 1,
                (Standing::Ended(record), Some(observation)) => {
                    tally.add(&observation.seen);
                    trials.seen.push((arm, Trial { record, observation }));
                }
                (Standing::Ended(_) | Standing::Lost, _) => tally.in_vain += 1,
            }
        }
        trials
    }

    /// How the attempts of `arm` went.
    pub(super) fn tally(&self, arm: &Arm) -> Tally {
        self.tallies.get(arm).copied().unwrap_or_default()
    }

    /// The same over all arms that `wanted` picks.
    pub(super) fn sum(&self, wanted: impl Fn(&Arm) -> bool) -> Tally {
        let picked = self.tallies.iter().filter(|(arm, _)| wanted(arm));
        picked.fold(Tally::default(), |sum, (_, tally)| sum.plus(*tally))
    }

    /// All arms with their tallies.
    pub(super) fn arms(&self) -> impl Iterator<Item = (&Arm, Tally)> {
        self.tallies.iter().map(|(arm, tally)| (arm, *tally))
    }

    /// Attempts of `arm` in which state was watched, those under way included.
    pub(super) fn watched(&self, arm: &Arm) -> u32 {
        self.watched.get(arm).copied().unwrap_or_default()
    }

    /// Whether some attempt that concerns the test is under way.
    pub(super) fn under_way(&self) -> bool {
        self.tallies.values().any(|tally| tally.outstanding > 0)
    }

    /// What the attempts of `arm` left behind, those in which state was watched first.
    pub(super) fn of_arm(&self, arm: &Arm) -> Vec<Trial<'a>> {
        let mut trials: Vec<Trial<'a>> =
            self.seen.iter().filter(|(known, _)| known == arm).map(|(_, trial)| *trial).collect();
        trials.sort_by_key(|trial| trial.record.details.is_empty());
        trials
    }
}
