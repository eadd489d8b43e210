//! What a ledger keeps of many attempts, and that it does not matter when it is told.

use super::*;
use crate::experiment::JobPhase;
use flakefarm_shared::{Order, Sample, Scope, Selection, SweepId, WorkerId};

const KEY: JobKey = JobKey { phase: JobPhase::Alone, arm: None, number: 0 };

fn spec(index: u32, test: &TestId) -> AttemptSpec {
    let only = Selection::only(vec![test.clone()]);
    AttemptSpec { index, ..AttemptSpec::plain(Scope::Test, only, Order::Given) }
}

fn report(specs: &[AttemptSpec]) -> JobReport {
    let sweep: SweepId = "0195925b-3f00-7c41-9d5e-6a1b2c3d4e5f".parse().expect("an id");
    let record = |spec: &AttemptSpec| {
        let Selection::Only(tests) = &spec.tests else { panic!("one test is asked for") };
        let sample = Sample {
            test: tests[0].clone(),
            outcome: Outcome::Pass,
            wall_us: 10,
            cpu_us: 5,
            phases: None,
            position: 0,
            output: None,
            warnings: Vec::new(),
            expected_failure: None,
        };
        AttemptRecord { samples: vec![sample], ..AttemptRecord::completed(spec, WorkerId("w".into())) }
    };
    JobReport { v: 1, job: KEY.id(sweep), listing: None, attempts: specs.iter().map(record).collect() }
}

/// What one attempt costs, beside what several have in common: a coordinator keeps millions of them.
#[test]
fn an_attempt_costs_some_bytes() {
    assert_eq!(size_of::<Planned>(), 16);
    // With an `Arc`'s two counts in eighty bytes, which is what an allocator gives.
    assert!(size_of::<AttemptFacts>() <= 64, "{}", size_of::<AttemptFacts>());
    assert!(size_of::<Observation>() <= 56, "{}", size_of::<Observation>());
    assert!(size_of::<Counted>() <= 24, "{}", size_of::<Counted>());
}

#[test]
fn what_several_attempts_ask_for_is_kept_once() {
    let tests = vec![TestId::from("t.py::a"), TestId::from("t.py::b")];
    let mut ledger = Ledger::new(tests.clone());
    let specs: Vec<AttemptSpec> = (0..100).map(|index| spec(index, &tests[index as usize % 2])).collect();
    ledger.note_planned(KEY, &specs);
    assert_eq!(ledger.asked.len(), 2);
    assert_eq!(ledger.under_way(0), 50);
    ledger.note_report(KEY, &report(&specs));
    assert_eq!((ledger.under_way(0), ledger.tally_of(0).alone), (0, 50));
    assert!(ledger.jobs[&KEY].counted.is_empty(), "nothing is left to take back");
}

/// What a job's second worker runs of it begins in its midst, and may be told backwards.
#[test]
fn attempts_are_found_by_their_indices_in_whatever_order_they_are_told() {
    let tests = vec![TestId::from("t.py::a"), TestId::from("t.py::b")];
    let specs: Vec<AttemptSpec> =
        [7, 3, 5].iter().map(|index| spec(*index, &tests[usize::from(*index == 5)])).collect();
    let mut ledger = Ledger::new(tests.clone());
    ledger.note_report(KEY, &report(&specs[..1]));
    assert!(ledger.attempts_of(KEY)[0].spec.is_none(), "its plan is not known yet");
    ledger.note_planned(KEY, &specs);
    ledger.note_report(KEY, &report(&specs[1..]));
    let told = ledger.attempts_of(KEY);
    assert_eq!(told.iter().map(|attempt| attempt.index).collect::<Vec<u32>>(), [3, 5, 7]);
    assert!(told.iter().all(|attempt| matches!(attempt.standing, Standing::Ended(_))));
    let tests_of = |index| ledger.attempt(KEY, index).and_then(|attempt| Some(attempt.spec?.tests.clone()));
    assert_eq!(tests_of(5), Some(Selection::only(vec![tests[1].clone()])));
    assert_eq!(tests_of(4), None);
    let spec = ledger.spec_of(&ledger.observations(&tests[1])[0]).map(|spec| spec.tests.clone());
    assert_eq!(spec, Some(Selection::only(vec![tests[1].clone()])));
}

/// A ledger with something added shares what it was made of, and neither changes the other.
#[test]
fn what_is_added_to_a_copy_stays_there() {
    let tests = vec![TestId::from("t.py::a")];
    let mut ledger = Ledger::new(tests.clone());
    ledger.note_planned(KEY, &[spec(0, &tests[0])]);
    let copy = ledger.clone();
    assert!(Arc::ptr_eq(&copy.listed, &ledger.listed));
    ledger.note_report(KEY, &report(&[spec(0, &tests[0])]));
    assert_eq!((copy.samples_total(), ledger.samples_total()), (0, 1));
}
