//! What a sweep has tried on one test, by arm: a reading of the ledger, nothing decided.

use super::arm::Arm;
use super::certainty::Counts;
use super::job_key::{JobKey, JobPhase};
use super::ledger::{AttemptFacts, Ledger, Observation, Seen, Standing};
use flakefarm_shared::{Detail, TestDetail, TestId};
use std::collections::BTreeMap;

/// Attempts without a word of the test, beyond those with one, after which an arm is given up.
const IN_VAIN: u32 = 3;

/// How the attempts of one arm went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// It passed.
    pub passes: u32,
    /// It failed.
    pub failures: u32,
    /// It was skipped.
    pub skips: u32,
    /// Nothing was heard yet.
    pub outstanding: u32,
    /// They ended without a word of the test.
    pub in_vain: u32,
}

impl Tally {
    /// Passes and failures.
    pub fn counts(self) -> Counts {
        Counts { attempts: self.attempts(), failures: self.failures }
    }

    /// Passes and failures together.
    pub fn attempts(self) -> u32 {
        self.passes + self.failures
    }

    /// Whether it did both.
    pub fn varies(self) -> bool {
        self.passes > 0 && self.failures > 0
    }

    /// Whether nothing is to be had from it any more.
    pub fn is_given_up(self) -> bool {
        self.in_vain >= IN_VAIN + self.attempts() + self.skips
    }

    /// Attempts that are missing for `wanted` to be heard of.
    pub fn missing(self, wanted: u32) -> u32 {
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
pub struct Trial<'a> {
    /// What the attempt left behind, without its samples.
    pub record: &'a AttemptFacts,
    /// What the test did.
    pub observation: &'a Observation,
}

impl<'a> Trial<'a> {
    /// What a test printed and changed in it, if that was asked for.
    pub fn detail(&self, test: &TestId) -> Option<&'a TestDetail> {
        self.record.details.iter().find(|detail| detail.test == *test)
    }
}

/// Everything that was tried on one test.
#[derive(Debug)]
pub struct Trials<'a> {
    /// The test.
    pub test: &'a TestId,
    /// Where it was read from.
    pub ledger: &'a Ledger,
    tallies: BTreeMap<Arm, Tally>,
    seen: Vec<(Arm, Trial<'a>)>,
    watched: BTreeMap<Arm, u32>,
}

impl<'a> Trials<'a> {
    /// Reads the ledger.
    pub fn read(ledger: &'a Ledger, test: &'a TestId) -> Self {
        let mut trials =
            Self { test, ledger, tallies: BTreeMap::new(), seen: Vec::new(), watched: BTreeMap::new() };
        let observations: BTreeMap<(JobKey, u32), &Observation> =
            ledger.observations(test).iter().map(|o| ((o.key, o.index), o)).collect();
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
    pub fn tally(&self, arm: &Arm) -> Tally {
        self.tallies.get(arm).copied().unwrap_or_default()
    }

    /// The same over all arms that `wanted` picks.
    pub fn sum(&self, wanted: impl Fn(&Arm) -> bool) -> Tally {
        let picked = self.tallies.iter().filter(|(arm, _)| wanted(arm));
        picked.fold(Tally::default(), |sum, (_, tally)| sum.plus(*tally))
    }

    /// How often it passed or failed in attempts that were planned for it. Others have it run beside them, too, and
    /// attempts on the suite serve all.
    pub fn made_for_it(&self) -> usize {
        let place = self.ledger.place(self.test).and_then(|place| u32::try_from(place).ok());
        let own = |observation: &Observation| {
            observation.key.phase == JobPhase::DiagnoseTest
                && observation.key.arm == place
                && !matches!(observation.seen, Seen::Skip)
        };
        self.seen.iter().filter(|(_, trial)| own(trial.observation)).count()
    }

    /// All arms with their tallies.
    pub fn arms(&self) -> impl Iterator<Item = (&Arm, Tally)> {
        self.tallies.iter().map(|(arm, tally)| (arm, *tally))
    }

    /// Attempts of `arm` in which state was watched, those under way included.
    pub fn watched(&self, arm: &Arm) -> u32 {
        self.watched.get(arm).copied().unwrap_or_default()
    }

    /// Whether some attempt that concerns the test is under way.
    pub fn under_way(&self) -> bool {
        self.tallies.values().any(|tally| tally.outstanding > 0)
    }

    /// What the attempts of `arm` left behind, those in which state was watched first.
    pub fn of_arm(&self, arm: &Arm) -> Vec<Trial<'a>> {
        let mut trials: Vec<Trial<'a>> =
            self.seen.iter().filter(|(known, _)| known == arm).map(|(_, trial)| *trial).collect();
        trials.sort_by_key(|trial| trial.record.details.is_empty());
        trials
    }
}
