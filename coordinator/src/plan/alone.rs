//! Attempts on one test alone: how many of them were made, and which are still wanted.

use super::ledger::{Ledger, Standing};
use super::{derive_seed, file_of};
use flakefarm_shared::{AttemptEnd, AttemptSpec, Order, Scope, Selection, TestId};
use std::collections::{BTreeMap, BTreeSet};

/// Attempts on one test that gave no sample of it, beyond those that did, after which it is given up.
const IN_VAIN: u32 = 4;
/// Attempts in which nothing ran, with none that gave a sample, after which no test is tried alone.
const NOTHING_EVER_RAN: u32 = 8;

/// How attempts on tests alone went, by place in the ledger.
pub(super) struct Alone {
    made: Vec<Made>,
    /// Tests that the screen has chosen.
    pub(super) screened: BTreeSet<usize>,
    nothing_runs: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Made {
    outstanding: u32,
    gave_a_sample: u32,
    in_vain: u32,
}

impl Alone {
    pub(super) fn read(ledger: &Ledger) -> Self {
        let mut made = vec![Made::default(); ledger.tests().len()];
        let mut screened = BTreeSet::new();
        let (mut nothing, mut something) = (0_u32, 0_u32);
        for attempt in ledger.each_attempt() {
            let Some(spec) = attempt.spec.filter(|spec| spec.scope == Scope::Test && spec.world.is_plain())
            else {
                continue;
            };
            let Selection::Only(tests) = &spec.tests else { continue };
            let Some((test, place)) = tests.first().and_then(|test| Some((test, ledger.place(test)?))) else {
                continue;
            };
            if attempt.key.starts_with("screen/") {
                screened.insert(place);
            }
            match attempt.standing {
                Standing::Outstanding => made[place].outstanding += 1,
                Standing::Lost => made[place].in_vain += 1,
                Standing::Ended(record) => {
                    if ledger.has_sample(test, attempt.key, attempt.index) {
                        made[place].gave_a_sample += 1;
                        something += 1;
                    } else {
                        made[place].in_vain += 1;
                        nothing += u32::from(matches!(record.end, AttemptEnd::NothingRan { .. }));
                    }
                }
            }
        }
        Self { made, screened, nothing_runs: something == 0 && nothing >= NOTHING_EVER_RAN }
    }

    /// Attempts that are missing for every test to have as many as `targets` says, one of each test
    /// before a second of any.
    pub(super) fn wanted(&self, targets: &[u32], ledger: &Ledger) -> Vec<AttemptSpec> {
        if self.nothing_runs {
            return Vec::new();
        }
        let mut rounds: Vec<(u32, usize)> = Vec::new();
        for (place, (made, target)) in self.made.iter().zip(targets).enumerate() {
            if made.in_vain >= IN_VAIN + made.gave_a_sample {
                continue;
            }
            let have = made.outstanding + made.gave_a_sample;
            rounds.extend((have..*target).map(|round| (round, place)));
        }
        rounds.sort_unstable();
        rounds.into_iter().map(|(_, place)| spec(&ledger.tests()[place])).collect()
    }
}

/// One attempt on `test` alone.
pub(super) fn spec(test: &TestId) -> AttemptSpec {
    AttemptSpec::plain(Scope::Test, Selection::Only(vec![test.clone()]), Order::Given)
}

/// All tests in the order in which the screen takes them: one of each file before a second of any,
/// by the seed.
pub(super) fn screen_order(tests: &[TestId], seed: u64) -> Vec<&TestId> {
    let mut files: BTreeMap<&str, Vec<(u64, &TestId)>> = BTreeMap::new();
    for test in tests {
        let rank = derive_seed(seed, &format!("screen:{test}"));
        files.entry(file_of(test)).or_default().push((rank, test));
    }
    let mut order: Vec<(usize, u64, &TestId)> = Vec::with_capacity(tests.len());
    for mut members in files.into_values() {
        members.sort_unstable();
        order.extend(members.into_iter().enumerate().map(|(round, (rank, test))| (round, rank, test)));
    }
    order.sort_unstable();
    order.into_iter().map(|(_, _, test)| test).collect()
}
