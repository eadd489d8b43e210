//! Sweeps of three workers: what is wrong with one of them is found, and alike ones are not accused.

use super::*;
use crate::experiment::JobPhase;
use flakefarm_shared::{
    AttemptRecord, AttemptSpec, Failure, FailureKind, JobId, JobReport, Order, Outcome, Phase, Sample, Scope,
    Selection, TestId, WIRE_VERSION,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const TESTS: u32 = 20;
const WORKERS: [&str; 3] = ["ada", "ben", "cleo"];

/// What a test does in an attempt: how often it fails, and how long it takes in microseconds.
type Behaviour<'a> = &'a dyn Fn(&str, u32, u32) -> (f64, u64);

/// A sweep of so many attempts on the suite, in turns on each worker. `behaviour` is told the worker, the test and
/// the number of the attempt.
fn sweep(attempts: u32, seed: u64, behaviour: Behaviour<'_>) -> Ledger {
    let dice = &mut ChaCha8Rng::seed_from_u64(seed);
    let tests: Vec<TestId> = (0..TESTS).map(|n| TestId(format!("tests/test_a.py::test_{n}"))).collect();
    let mut ledger = Ledger::new(tests.clone());
    for number in 0..attempts {
        let worker = WORKERS[number as usize % WORKERS.len()];
        let key = JobKey::new(JobPhase::More, number);
        let order = Order::Shuffled { seed: u64::from(number) };
        let spec = AttemptSpec { index: 0, ..AttemptSpec::plain(Scope::Suite, Selection::All, order) };
        let mut record = AttemptRecord::completed(&spec, WorkerId(worker.to_owned()));
        record.started_at = i64::from(number) * 1_000_000;
        for (n, test) in (0..).zip(&tests) {
            let (rate, wall_us) = behaviour(worker, n, number);
            record.samples.push(Sample {
                test: test.clone(),
                outcome: if dice.random_bool(rate) { failed() } else { Outcome::Pass },
                wall_us: wall_us * dice.random_range(80..=120) / 100,
                cpu_us: wall_us,
                phases: None,
                position: n,
                output: None,
                warnings: Vec::new(),
                expected_failure: None,
            });
        }
        ledger.note_planned(key, &[spec]);
        let job = JobId(uuid::Uuid::nil());
        ledger.note_report(key, &JobReport { v: WIRE_VERSION, job, listing: None, attempts: vec![record] });
    }
    ledger
}

fn failed() -> Outcome {
    Outcome::Fail(Failure {
        kind: FailureKind::Assertion,
        phase: Phase::Call,
        exceptions: Vec::new(),
        message: String::new(),
        frames: Vec::new(),
        circumstances: Vec::new(),
        signature: "a".to_owned(),
    })
}

#[test]
fn one_that_fails_more_is_found() {
    let ledger = sweep(60, 1, &|worker, _, _| (if worker == "ben" { 0.3 } else { 0.01 }, 10_000));
    let bad = bad_worker(&ledger).expect("found");
    assert_eq!((bad.worker.0.as_str(), bad.attempts), ("ben", 20));
    let WorkerFault::FailsMore { failures, expected, tests } = bad.fault else { panic!("{bad}") };
    assert!(failures > 80 && expected < 12.0 && tests > 15, "{failures} {expected} {tests}");
    assert!(bad.to_string().contains("failures in 20 attempts"), "{bad}");
}

#[test]
fn one_that_fails_everything_is_found() {
    let ledger = sweep(60, 2, &|worker, _, _| (if worker == "cleo" { 1.0 } else { 0.0 }, 10_000));
    assert_eq!(bad_worker(&ledger).map(|bad| bad.worker.0), Some("cleo".to_owned()));
}

#[test]
fn one_that_is_slow_is_found() {
    let ledger = sweep(60, 3, &|worker, _, _| (0.0, if worker == "ada" { 60_000 } else { 10_000 }));
    let bad = bad_worker(&ledger).expect("found");
    assert_eq!(bad.worker.0, "ada");
    assert!(matches!(bad.fault, WorkerFault::Slow { times } if (5.0..7.0).contains(&times)), "{bad}");
    // Twice as slow is no fault, and 40 ms of 10 are nothing that a machine could help.
    let ledger = sweep(60, 3, &|worker, _, _| (0.0, if worker == "ada" { 20_000 } else { 10_000 }));
    assert_eq!(bad_worker(&ledger), None);
    let ledger = sweep(60, 3, &|worker, _, _| (0.0, if worker == "ada" { 2_000 } else { 10 }));
    assert_eq!(bad_worker(&ledger), None);
}

#[test]
fn tests_that_depend_on_a_machine_accuse_nobody() {
    let ledger =
        sweep(90, 4, &|worker, test, _| (if worker == "ben" && test < 2 { 1.0 } else { 0.0 }, 10_000));
    assert_eq!(bad_worker(&ledger), None);
}

#[test]
fn a_passing_trouble_accuses_nobody() {
    let ledger =
        sweep(90, 5, &|worker, _, number| (if worker == "ben" && number < 40 { 0.5 } else { 0.02 }, 10_000));
    assert_eq!(bad_worker(&ledger), None);
}

#[test]
fn a_worker_with_few_attempts_is_not_compared() {
    let ledger = sweep(27, 6, &|worker, _, _| (if worker == "cleo" { 1.0 } else { 0.0 }, 10_000));
    assert_eq!(bad_worker(&ledger), None);
}

/// Flaky tests of every rate, some of which fail together: 2,000 sweeps accuse nobody.
#[test]
fn alike_workers_are_not_accused() {
    for seed in 0..2_000 {
        let dice = ChaCha8Rng::seed_from_u64(seed);
        let together = |number: u32| dice.clone().random::<u32>().wrapping_mul(number | 1) % 7 == 0;
        let ledger = sweep(45, seed, &|_, test, number| {
            let rate = match test {
                0..4 => 0.02 * f64::from(test),
                4..8 if together(number) => 0.9,
                8 => 0.5,
                _ => 0.0,
            };
            (rate, 10_000)
        });
        assert_eq!(bad_worker(&ledger), None, "seed {seed}");
    }
}
