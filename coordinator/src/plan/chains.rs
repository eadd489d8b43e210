//! Attempts on many tests at once (the suite, a file) and what follows from those that did not run
//! to their end.
//!
//! Each slot is one wanted attempt. A slot whose attempt was interrupted is followed up with the
//! tests that are missing, in the same order; one that gave nothing is tried again. The attempt and
//! its follow-ups are a chain, found again by their keys: attempt 1 of job 7 of the suite's slots fills
//! slot 8, its follow-ups are retries of arm 8, numbered from 1.

use super::batch;
use crate::experiment::{Attempt, JobKey, JobPhase, Ledger, PlannedJob, Series, Standing};
use flakefarm_shared::{
    AttemptEnd, AttemptSpec, NothingRan, Order, Scope, Selection, TestId, Treatment, World,
};
use std::collections::HashMap;

/// Follow-ups of one slot after interruptions, and, apart, after attempts that gave nothing.
const FOLLOW_UPS: u32 = 3;
/// Attempts in which nothing ran, with none that ran, after which the rest is not tried.
const NOTHING_EVER_RAN: u32 = 4;

/// One wanted attempt.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) scope: Scope,
    pub(super) order: Order,
    pub(super) tests: Selection,
    pub(super) world: World,
}

impl Slot {
    pub(super) fn spec(&self) -> AttemptSpec {
        let plain = AttemptSpec::plain(self.scope, self.tests.clone(), self.order);
        AttemptSpec { treatment: Treatment::under(self.world), ..plain }
    }

    fn covers(&self, ledger: &Ledger) -> Vec<TestId> {
        match &self.tests {
            Selection::All => ledger.tests().to_vec(),
            Selection::Only(tests) => tests.to_vec(),
        }
    }
}

/// Where the slots stand.
pub(super) struct Chains {
    /// Follow-ups to be planned now.
    pub(super) follow_ups: Vec<PlannedJob>,
    /// Attempts for slots that were not planned yet, as many as are planned at a turn; the first of them has this
    /// number.
    pub(super) first_free: usize,
    pub(super) wanted: Vec<AttemptSpec>,
    /// How many slots come after those.
    pub(super) later: usize,
    /// Whether every slot is settled.
    pub(super) settled: Settled,
    /// What each attempt's chain is, and which chains have come to their end.
    members: HashMap<(JobKey, u32), usize>,
    ended: Vec<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    All,
    NotAll,
}

/// Reads off the ledger where the slots of `series` stand.
pub(super) fn follow(series: Series, slots: &[Slot], ledger: &Ledger) -> Chains {
    let roots = roots(series, ledger);
    let nothing_runs = nothing_runs(series, ledger);
    let mut chains = Chains {
        follow_ups: Vec::new(),
        first_free: roots.len(),
        wanted: Vec::new(),
        later: 0,
        settled: Settled::All,
        members: HashMap::new(),
        ended: vec![false; slots.len()],
    };
    for (number, (slot, root)) in slots.iter().zip(&roots).enumerate() {
        match walk(series, batch::index(number), slot, *root, ledger, |attempt| {
            chains.members.insert((attempt.key, attempt.index), number);
        }) {
            Next::UnderWay => {}
            Next::Settled => chains.ended[number] = true,
            Next::FollowUp(_) if nothing_runs => chains.ended[number] = true,
            Next::FollowUp(job) => chains.follow_ups.push(job),
        }
    }
    for (number, slot) in slots.iter().enumerate().skip(roots.len()) {
        if nothing_runs {
            chains.ended[number] = true;
        } else if chains.wanted.len() < batch::AT_A_TURN {
            chains.wanted.push(slot.spec());
        } else {
            chains.later += 1;
        }
    }
    if chains.ended.iter().any(|ended| !ended) {
        chains.settled = Settled::NotAll;
    }
    chains
}

impl Chains {
    /// For each test, by place in the ledger, the slots that came to their end without a word of it.
    pub(super) fn short(&self, slots: &[Slot], ledger: &Ledger) -> Vec<u32> {
        let mut short = vec![0_u32; ledger.tests().len()];
        for (slot, _) in slots.iter().zip(&self.ended).filter(|(_, ended)| **ended) {
            match &slot.tests {
                Selection::All => short.iter_mut().for_each(|count| *count += 1),
                Selection::Only(tests) => {
                    for place in tests.iter().filter_map(|test| ledger.place(test)) {
                        short[place] += 1;
                    }
                }
            }
        }
        for (place, test) in ledger.tests().iter().enumerate() {
            if short[place] == 0 {
                continue;
            }
            let mut heard: Vec<usize> = ledger
                .observations(test)
                .iter()
                .filter_map(|observation| self.members.get(&(observation.key, observation.index)).copied())
                .filter(|number| self.ended[*number])
                .collect();
            heard.sort_unstable();
            heard.dedup();
            short[place] = short[place].saturating_sub(batch::index(heard.len()));
        }
        short
    }
}

/// Attempts that fill slots of `series`, by slot number; not their follow-ups.
pub(super) fn roots(series: Series, ledger: &Ledger) -> Vec<Attempt<'_>> {
    let mut roots: Vec<(usize, Attempt<'_>)> = ledger
        .keys_of(JobPhase::Slots(series))
        .flat_map(|key| ledger.attempts_of(key))
        .map(|attempt| (attempt.key.number as usize + attempt.index as usize, attempt))
        .collect();
    roots.sort_by_key(|(number, _)| *number);
    // Slots are planned in order and jobs noted whole, so there is no gap before the first free one.
    roots
        .into_iter()
        .enumerate()
        .take_while(|(place, (number, _))| place == number)
        .map(|(_, (_, a))| a)
        .collect()
}

fn nothing_runs(series: Series, ledger: &Ledger) -> bool {
    let (mut nothing, mut something) = (0_u32, 0_u32);
    let keys = ledger.keys_of(JobPhase::Slots(series)).chain(ledger.keys_of(JobPhase::Retry(series)));
    for attempt in keys.flat_map(|key| ledger.attempts_of(key)) {
        if let Standing::Ended(record) = attempt.standing {
            match record.end {
                AttemptEnd::Completed | AttemptEnd::Interrupted { .. } => something += 1,
                AttemptEnd::NothingRan { .. } => nothing += 1,
                AttemptEnd::Infrastructure(_) => {}
            }
        }
    }
    something == 0 && nothing >= NOTHING_EVER_RAN
}

enum Next {
    UnderWay,
    Settled,
    FollowUp(PlannedJob),
}

fn walk<'a>(
    series: Series,
    number_of_slot: u32,
    slot: &Slot,
    root: Attempt<'a>,
    ledger: &'a Ledger,
    mut visit: impl FnMut(Attempt<'a>),
) -> Next {
    let mut missing: Option<Vec<TestId>> = None;
    let mut attempt = root;
    let (mut interruptions, mut in_vain) = (0, 0);
    for number in 1.. {
        visit(attempt);
        match attempt.standing {
            Standing::Outstanding => return Next::UnderWay,
            Standing::Lost => in_vain += 1,
            Standing::Ended(record) => match &record.end {
                AttemptEnd::Completed => return Next::Settled,
                AttemptEnd::Interrupted { running, .. } => {
                    interruptions += 1;
                    let mut left = missing.take().unwrap_or_else(|| slot.covers(ledger));
                    left.retain(|test| {
                        test != running && !ledger.has_sample(test, attempt.key, attempt.index)
                    });
                    let nothing_left = left.is_empty();
                    missing = Some(left);
                    if nothing_left {
                        return Next::Settled;
                    }
                }
                // This world is not to be had here, or the project cannot bear it: that will not change.
                AttemptEnd::NothingRan { why, .. } if !slot.world.is_plain() && *why != NothingRan::Died => {
                    return Next::Settled;
                }
                AttemptEnd::NothingRan { .. } | AttemptEnd::Infrastructure(_) => in_vain += 1,
            },
        }
        let key = JobKey::of_arm(JobPhase::Retry(series), number_of_slot, number);
        match ledger.attempt(key, 0) {
            Some(next) => attempt = next,
            None if interruptions > FOLLOW_UPS || in_vain > FOLLOW_UPS => return Next::Settled,
            None => {
                // Until something is missing, it is the slot's own attempt that is tried again.
                let tests = missing.map_or_else(|| slot.tests.clone(), Selection::only);
                let spec = AttemptSpec { tests, ..slot.spec() };
                return Next::FollowUp(PlannedJob { key, attempts: vec![spec] });
            }
        }
    }
    Next::Settled
}
