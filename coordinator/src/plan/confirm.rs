//! What failed only in attempts that were forked from a prepared interpreter, again in fresh containers:
//! the very attempts, once nothing else is wanted, for otherwise chance decides whether an accusation
//! can stand.

use super::batch;
use crate::experiment::{JobKey, JobPhase, Ledger, Observation, Plan, PlannedJob, Planning, Question, Seen};
use flakefarm_shared::{AttemptSpec, SandboxLevel, Scope};
use std::collections::BTreeSet;

/// Attempts that confirm, at most: a test that fails in every other of them is missed once in a hundred
/// times.
const CONFIRMING: usize = 7;

/// `planned`, or what is left to confirm where it asks for nothing more.
pub(super) fn confirm(question: &Question, ledger: &Ledger, planned: Plan) -> Plan {
    let is_asked = question.sandbox.confirms() && question.rerun.is_none() && !planned.limited;
    if !is_asked || planned.state != Planning::Complete {
        return planned;
    }
    let made = ledger.keys_of(JobPhase::Confirm).count();
    if made >= CONFIRMING {
        return planned;
    }
    let Some(spec) = most_telling(ledger) else { return planned };
    let key = JobKey::new(JobPhase::Confirm, batch::index(made));
    let jobs = vec![PlannedJob { key, attempts: vec![AttemptSpec { index: 0, ..spec }] }];
    Plan { jobs, state: Planning::Working, ..planned }
}

/// The attempt that says most of tests whose failures were all seen in prepared interpreters: the one in
/// which most of them failed, those first that were not made in a container yet.
fn most_telling(ledger: &Ledger) -> Option<AttemptSpec> {
    let failed = |o: &&Observation| matches!(o.seen, Seen::Fail(_));
    let forked = |o: &Observation| o.level == SandboxLevel::Forked;
    let mut found: Vec<(&AttemptSpec, usize)> = Vec::new();
    let unconfirmed = ledger.tests().iter().filter(|test| {
        let mut failures = ledger.observations(test).iter().filter(failed).peekable();
        failures.peek().is_some() && failures.all(forked)
    });
    for test in unconfirmed {
        let mut specs: Vec<&AttemptSpec> = Vec::new();
        for spec in ledger.observations(test).iter().filter(failed).filter_map(|o| ledger.spec_of(o)) {
            let is_new = match spec.scope {
                Scope::Test => specs.is_empty(),
                Scope::File | Scope::Suite => !specs.iter().any(|known| is_same(known, spec)),
            };
            if is_new {
                specs.push(spec);
            }
        }
        for spec in specs {
            match found.iter_mut().find(|(known, _)| is_same(known, spec)) {
                Some((_, tests)) => *tests += 1,
                None => found.push((spec, 1)),
            }
        }
    }
    let again: BTreeSet<_> = ledger
        .keys_of(JobPhase::Confirm)
        .flat_map(|key| ledger.attempts_of(key))
        .filter_map(|attempt| attempt.spec)
        .map(|spec| spec.order)
        .collect();
    found
        .into_iter()
        .max_by_key(|(spec, tests)| (!again.contains(&spec.order), *tests))
        .map(|(spec, _)| spec.clone())
}

fn is_same(one: &AttemptSpec, other: &AttemptSpec) -> bool {
    one.scope == other.scope && one.order == other.order && one.tests == other.tests
}
