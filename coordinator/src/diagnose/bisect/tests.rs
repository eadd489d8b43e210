//! Bisections of rows whose truth is known.

use super::*;
use crate::experiment::{QuestionKind, RevisionSnapshot, ScopeChoice};
use flakefarm_shared::{
    AttemptRecord, Digest, Failure, FailureKind, JobReport, Order, Outcome, Phase, Sample, Scope, SweepId,
    TestId, WorkerId, World,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::num::NonZeroU16;

const TEST: &str = "t.py::test";

/// What one attempt at a revision does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    FailsAtRate(f64),
    HasNoSuchTest,
    CannotRun,
}

fn question(revisions: usize, workers: u16) -> Question {
    let revision = |place: usize| RevisionSnapshot {
        commit: format!("{place:040}"),
        subject: format!("step {place}"),
        snapshot: Digest::of(&[u8::try_from(place).unwrap()]),
    };
    let request = BisectRequest {
        test: TestId::from(TEST),
        revisions: (0..revisions).map(revision).collect(),
        scope: Scope::Test,
        order: Order::Given,
        world: World::Plain,
    };
    Question {
        kind: QuestionKind::Bisect(Box::new(request)),
        scope: ScopeChoice::Test,
        workers: NonZeroU16::new(workers).unwrap(),
        ..Question::detect(1)
    }
}

fn bisect(row: &[At], workers: u16, dice: u64) -> (Bisection, u64, usize) {
    let question = question(row.len(), workers);
    let QuestionKind::Bisect(request) = &question.kind else { unreachable!() };
    let mut ledger = Ledger::new(vec![TestId::from(TEST)]);
    let mut dice = ChaCha8Rng::seed_from_u64(dice);
    let sweep: SweepId = "0195925b-3f00-7c41-9d5e-6a1b2c3d4e5f".parse().unwrap();
    for round in 0..200 {
        let planned = plan(&question, request, &ledger);
        if planned.state == Planning::Complete {
            return (judge(&question, request, &ledger), ledger.attempts(), round);
        }
        for job in planned.jobs {
            let place = job.key.arm.unwrap() as usize;
            let submitted = place + 1 == request.revisions.len();
            let own = (!submitted).then_some(&request.revisions[place].snapshot);
            assert!(job.attempts.iter().all(|spec| spec.treatment.other_source() == own));
            ledger.note_planned(job.key, &job.attempts);
            if row[place] == At::CannotRun {
                ledger.note_lost(job.key, "set-up failed");
                continue;
            }
            let attempts = job.attempts.iter().map(|spec| run(spec, row[place], &mut dice)).collect();
            let report = JobReport { v: 1, job: job.key.id(sweep), listing: None, attempts };
            ledger.note_report(job.key, &report);
        }
    }
    panic!("the bisection does not end");
}

fn run(spec: &AttemptSpec, at: At, dice: &mut ChaCha8Rng) -> AttemptRecord {
    let failure = Failure {
        kind: FailureKind::Assertion,
        phase: Phase::Call,
        exceptions: Vec::new(),
        message: "no".into(),
        frames: Vec::new(),
        circumstances: Vec::new(),
        signature: "s".into(),
    };
    let outcome = match at {
        At::FailsAtRate(rate) if dice.random_bool(rate) => Some(Outcome::Fail(failure)),
        At::FailsAtRate(_) => Some(Outcome::Pass),
        At::HasNoSuchTest | At::CannotRun => None,
    };
    let sample = |outcome| Sample {
        test: TestId::from(TEST),
        outcome,
        wall_us: 1,
        cpu_us: 1,
        phases: None,
        position: 0,
        output: None,
        warnings: Vec::new(),
        expected_failure: None,
    };
    AttemptRecord {
        wall_us: 1,
        end: match outcome {
            Some(_) => AttemptEnd::Completed,
            None => AttemptEnd::NothingRan {
                reason: "none of the selected tests".into(),
                why: flakefarm_shared::NothingRan::NothingCollected,
            },
        },
        samples: outcome.map(sample).into_iter().collect(),
        ..AttemptRecord::completed(spec, WorkerId("w".into()))
    }
}

/// A row that fails at `rate` from `first` on.
fn row(length: usize, first: usize, rate: f64) -> Vec<At> {
    (0..length).map(|place| At::FailsAtRate(if place < first { 0.0 } else { rate })).collect()
}

#[test]
fn the_first_flaky_revision_is_found_as_often_as_promised() {
    for (rate, workers) in [(1.0, 2), (0.3, 2), (0.3, 8), (0.1, 2)] {
        let mut right = 0;
        for dice in 0..20 {
            let first = 1 + usize::try_from(dice).unwrap() * 3 % 63;
            let (found, ..) = bisect(&row(64, first, rate), workers, dice);
            assert_eq!(found.outcome, BisectOutcome::Found, "{found:?}");
            // A rare flake would need more clean runs than are made: that is said, not hidden.
            assert!(rate < 0.2 || found.confidence > 0.9, "{}", found.confidence);
            right += u32::from(found.candidates[0].subject == format!("step {first}"));
        }
        assert!(right >= 18, "{right} of 20 at rate {rate}");
    }
}

#[test]
fn more_workers_take_fewer_rounds() {
    let rounds = |workers| bisect(&row(200, 77, 1.0), workers, 1).2;
    assert!(rounds(8) < rounds(2), "{} and {}", rounds(8), rounds(2));
}

#[test]
fn revisions_without_the_test_count_as_good_and_broken_ones_are_passed_over() {
    let mut revisions = row(10, 6, 1.0);
    revisions[..4].fill(At::HasNoSuchTest);
    let (found, ..) = bisect(&revisions, 2, 1);
    assert_eq!((found.outcome, found.candidates[0].subject.as_str()), (BisectOutcome::Found, "step 6"));

    let mut revisions = row(10, 6, 1.0);
    revisions[5] = At::CannotRun;
    let (found, ..) = bisect(&revisions, 2, 1);
    assert_eq!(found.outcome, BisectOutcome::Narrowed, "{found:?}");
    let candidates: Vec<&str> = found.candidates.iter().map(|one| one.subject.as_str()).collect();
    assert_eq!(candidates, ["step 5", "step 6"]);
}

#[test]
fn ends_that_are_not_what_they_are_said_to_be_are_told() {
    let (found, attempts, _) = bisect(&row(10, 10, 1.0), 2, 1);
    assert_eq!((found.outcome, attempts), (BisectOutcome::NotReproduced, 150));
    let (found, ..) = bisect(&row(10, 0, 1.0), 2, 1);
    assert_eq!(found.outcome, BisectOutcome::FlakyAtGood);
    let mut revisions = row(10, 3, 1.0);
    revisions[9] = At::CannotRun;
    assert_eq!(bisect(&revisions, 2, 1).0.outcome, BisectOutcome::NotReproduced);
}
