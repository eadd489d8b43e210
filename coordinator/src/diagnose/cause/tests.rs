//! What is told of the state that tests leave.

use super::*;
use crate::experiment::{JobKey, JobPhase};
use flakefarm_shared::{
    AttemptRecord, AttemptSpec, Detail, JobReport, Outcome, Sample, Selection, StateChange, SweepId,
    WIRE_VERSION,
};

const VICTIM: &str = "tests/test_v.py::test_victim";
const POLLUTER: &str = "tests/test_p.py::test_polluter";

fn change(kind: &str, name: &str) -> StateChange {
    StateChange { kind: kind.into(), name: name.into(), before: "1".into(), after: "2".into() }
}

/// What is told of the polluter, if it and the victim changed these.
fn told(polluter: Vec<StateChange>, victim: Vec<StateChange>) -> Vec<String> {
    let (before, test) = (TestId::from(POLLUTER), TestId::from(VICTIM));
    let arm = Arm::listed(vec![before.clone(), test.clone()]);
    let spec = AttemptSpec { detail: Detail::State, ..arm.spec(&test, &Selection::All) };
    let mut ledger = Ledger::new(vec![before.clone(), test.clone()]);
    let key = JobKey::of_arm(JobPhase::DiagnoseTest, 1, 0);
    ledger.note_planned(key, std::slice::from_ref(&spec));
    let detail = |test: &TestId, changes| TestDetail { test: test.clone(), output: None, changes };
    let sample = Sample {
        test: test.clone(),
        outcome: Outcome::Pass,
        wall_us: 1,
        cpu_us: 1,
        phases: None,
        position: 1,
        output: None,
        warnings: Vec::new(),
        expected_failure: None,
    };
    let record = AttemptRecord {
        samples: vec![sample],
        details: vec![detail(&before, polluter), detail(&test, victim)],
        ..AttemptRecord::completed(&spec, WorkerId("w".into()))
    };
    let sweep = SweepId(uuid::Uuid::nil());
    let report = JobReport { v: WIRE_VERSION, job: key.id(sweep), listing: None, attempts: vec![record] };
    ledger.note_report(key, &report);
    let trials = Trials::read(&ledger, &test);
    changes(&trials, &arm, &[vec![before]]).into_iter().map(|change| change.name).collect()
}

#[test]
fn what_changes_under_every_test_hides_nothing() {
    let policy = || change("patched function", "asyncio.get_event_loop_policy");
    let found = told(vec![policy(), change(RANDOM_STATE, "random")], vec![policy()]);
    assert_eq!(found, ["random"]);
    assert_eq!(
        told(vec![policy()], vec![policy()]),
        ["asyncio.get_event_loop_policy"],
        "nothing else is left"
    );
    let found =
        told(vec![change("environment variable", "HOME"), change(RANDOM_STATE, "random")], Vec::new());
    assert_eq!(found, ["HOME"], "random numbers are drawn all the time");
}

#[test]
fn variables_of_another_tests_file_are_told_only_if_nothing_else_is() {
    let own = || change("module global", "tests.test_p.COUNTER");
    assert_eq!(
        told(vec![own(), change("module global", "shop.cart.PRICES")], Vec::new()),
        ["shop.cart.PRICES"]
    );
    assert_eq!(told(vec![own()], Vec::new()), ["tests.test_p.COUNTER"]);
}
