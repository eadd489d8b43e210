//! Attempts on one test alone: how many of them were made, and which are still wanted.

use super::costs::Costs;
use crate::experiment::{Estimate, JobPhase, Ledger, derive_seed};
use flakefarm_shared::{AttemptSpec, Order, Scope, Selection, TestId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Attempts on one test that gave no sample of it after which it is given up; and how many more for each that gave
/// one. So a test is not given up as long as it is heard of in one of four, and three failures in a row are borne.
const IN_VAIN: u32 = 4;
const IN_VAIN_FOR_EACH: u32 = 3;
/// Attempts in which nothing ran, with none that gave a sample, after which no test is tried alone.
const NOTHING_EVER_RAN: u32 = 8;

/// Attempts on single tests that are wanted. A sweep may want millions; nobody needs to see more of them than can
/// be planned at a turn.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// The first ones.
    pub(super) next: Vec<AttemptSpec>,
    /// How many come after them, of which tests, by place.
    pub(super) later: Vec<(usize, u32)>,
}

impl Missing {
    /// What is foreseen of those that come later.
    pub(super) fn later(&self, costs: &Costs<'_>) -> Estimate {
        let mut later = Estimate::default();
        for (place, runs) in &self.later {
            later.attempts += u64::from(*runs);
            let each = costs.alone(&costs.ledger().tests()[*place]).unwrap_or(0.0);
            later.container_seconds += f64::from(*runs) * each;
        }
        later
    }
}

/// Tests that are run alone.
pub(super) struct Alone {
    /// Tests that the screen has chosen.
    pub(super) screened: BTreeSet<usize>,
    nothing_runs: bool,
}

impl Alone {
    pub(super) fn read(ledger: &Ledger) -> Self {
        let tallies = || (0..ledger.tests().len()).map(|place| ledger.tally_of(place));
        let nothing_runs = tallies().all(|tally| tally.alone == 0)
            && tallies().map(|tally| tally.alone_in_vain).sum::<u32>() >= NOTHING_EVER_RAN
            && ledger.nothing_ran_alone() >= NOTHING_EVER_RAN;
        let screened = ledger
            .keys_of(JobPhase::Screen)
            .flat_map(|key| ledger.attempts_of(key))
            .filter_map(|attempt| match &attempt.spec?.tests {
                Selection::Only(tests) => ledger.place(tests.first()?),
                Selection::All => None,
            })
            .collect();
        Self { screened, nothing_runs }
    }

    /// Whether runs alone of the test at `place` are given up: too many reported nothing.
    pub(super) fn given_up(&self, place: usize, ledger: &Ledger) -> bool {
        let tally = ledger.tally_of(place);
        self.nothing_runs || tally.alone_in_vain >= IN_VAIN + IN_VAIN_FOR_EACH * tally.alone
    }

    /// Attempts that are missing for every test to have as many as `targets` says, one of each test
    /// before a second of any; the first `most` of them.
    pub(super) fn wanted(&self, targets: &[u32], ledger: &Ledger, most: usize) -> Missing {
        let have = |place: usize| {
            let tally = ledger.tally_of(place);
            tally.alone_under_way + tally.alone
        };
        let is_short = |place: &usize| have(*place) < targets[*place] && !self.given_up(*place, ledger);
        // The one with the fewest attempts is the next; of several, the first in the framework's order.
        let mut short: BinaryHeap<Reverse<(u32, usize)>> =
            (0..targets.len()).filter(is_short).map(|place| Reverse((have(place), place))).collect();
        let mut missing = Missing::default();
        while let Some(Reverse((round, place))) = short.pop() {
            if missing.next.len() == most {
                missing.later.push((place, targets[place] - round));
                missing
                    .later
                    .extend(short.drain().map(|Reverse((have, place))| (place, targets[place] - have)));
                missing.later.sort_unstable();
                break;
            }
            missing.next.push(spec(&ledger.tests()[place]));
            if round + 1 < targets[place] {
                short.push(Reverse((round + 1, place)));
            }
        }
        missing
    }
}

/// One attempt on `test` alone.
pub(super) fn spec(test: &TestId) -> AttemptSpec {
    AttemptSpec::plain(Scope::Test, Selection::only(vec![test.clone()]), Order::Given)
}

/// As many of `tests`, in the order of the screen, as one run alone of each costs no more than `seconds`.
pub(super) fn affordable<'t>(
    tests: &'t [TestId],
    seed: u64,
    seconds: f64,
    costs: &Costs<'_>,
) -> impl Iterator<Item = &'t TestId> {
    let mut spent = 0.0;
    screen_order(costs.ledger(), tests, seed).into_iter().take_while(move |test| {
        spent += costs.alone(test).unwrap_or(0.0);
        spent <= seconds
    })
}

/// All tests in the order in which the screen takes them: one of each file before a second of any,
/// by the seed.
fn screen_order<'t>(ledger: &Ledger, tests: &'t [TestId], seed: u64) -> Vec<&'t TestId> {
    let mut files: BTreeMap<&str, Vec<(u64, &TestId)>> = BTreeMap::new();
    for test in tests {
        let rank = derive_seed(seed, &format!("screen:{test}"));
        files.entry(ledger.file_of(test)).or_default().push((rank, test));
    }
    let mut order: Vec<(usize, u64, &TestId)> = Vec::with_capacity(tests.len());
    for mut members in files.into_values() {
        members.sort_unstable();
        order.extend(members.into_iter().enumerate().map(|(round, (rank, test))| (round, rank, test)));
    }
    order.sort_unstable();
    order.into_iter().map(|(_, _, test)| test).collect()
}
