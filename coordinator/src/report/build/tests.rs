//! Reports of small ledgers.

use super::*;
use crate::experiment::{JobKey, JobPhase, ScopeChoice, TestFilter};
use flakefarm_shared::{
    AttemptRecord, AttemptSpec, Failure, InfraError, InfraStage, JobReport, Outcome, Phase, Sample, SweepId,
    WorkerId,
};
use flakefarm_shared::{FailureKind, Order, Scope, Selection};
use std::num::NonZeroU32;

const VICTIM: &str = "tests/test a.py::test_v[it's]";
const STEADY: &str = "tests/test_b.py::test_s";

fn question(tests: &[&str]) -> Question {
    Question {
        runs: Runs::Fixed(NonZeroU32::new(4).expect("four")),
        scope: ScopeChoice::Suite,
        tests: TestFilter(tests.iter().map(|&test| test.to_owned()).collect()),
        ..Question::detect(7)
    }
}

fn meta() -> SweepMeta {
    SweepMeta {
        id: "s".into(),
        project: "p".into(),
        revision: None,
        started_at: 1_000_000,
        finished_at: Some(9_000_000),
        stopped: Some(Stopped::Answered),
        framework: None,
        image: None,
        command: None,
        sandbox: None,
        typed: Typed { path: "my project".into(), arguments: Vec::new() },
        under: World::Plain,
        collection_errors: Vec::new(),
        notes: Vec::new(),
        trust: None,
    }
}

fn sample(test: &str, position: u32, fails: bool) -> Sample {
    let failure = Failure {
        kind: FailureKind::Assertion,
        phase: Phase::Call,
        exceptions: vec!["builtins.AssertionError".into()],
        message: "no".into(),
        frames: Vec::new(),
        circumstances: Vec::new(),
        signature: "0123456789abcdef".into(),
    };
    Sample {
        test: TestId::from(test),
        outcome: if fails { Outcome::Fail(failure) } else { Outcome::Pass },
        wall_us: 1_500,
        cpu_us: 1_000,
        phases: None,
        position,
        output: None,
        warnings: Vec::new(),
        expected_failure: None,
    }
}

/// A ledger of suite attempts, each an order and whether the victim failed; none: infrastructure.
fn ledger(attempts: &[(Order, Option<bool>)]) -> Ledger {
    let mut ledger = Ledger::new(vec![TestId::from(VICTIM), TestId::from(STEADY)]);
    let specs: Vec<AttemptSpec> = attempts
        .iter()
        .zip(0..)
        .map(|((order, _), index)| AttemptSpec {
            index,
            ..AttemptSpec::plain(Scope::Suite, Selection::All, *order)
        })
        .collect();
    let key = JobKey::new(JobPhase::More, 0);
    ledger.note_planned(key, &specs);
    let sweep: SweepId = "0195925b-3f00-7c41-9d5e-6a1b2c3d4e5f".parse().expect("an id");
    let records = attempts.iter().zip(&specs).map(|((_, failed), spec)| AttemptRecord {
        started_at: 2_000_000 + i64::from(spec.index),
        wall_us: 500_000,
        end: match failed {
            Some(_) => AttemptEnd::Completed,
            None => {
                AttemptEnd::Infrastructure(InfraError { stage: InfraStage::Engine, message: "gone".into() })
            }
        },
        samples: failed
            .map_or_else(Vec::new, |failed| vec![sample(VICTIM, 1, failed), sample(STEADY, 0, false)]),
        ..AttemptRecord::completed(spec, WorkerId("w".into()))
    });
    let report = JobReport { v: 1, job: key.id(sweep), listing: None, attempts: records.collect() };
    ledger.note_report(key, &report);
    ledger
}

#[test]
fn an_order_dependent_failure_is_repeated_among_its_neighbours() {
    let ledger = ledger(&[
        (Order::Given, Some(false)),
        (Order::Shuffled { seed: 41 }, Some(true)),
        (Order::Given, Some(false)),
        (Order::Given, None),
    ]);
    let report = build(meta(), &question(&[]), &ledger, &History::default());
    let victim = report.tests.iter().find(|test| test.id == VICTIM).expect("it was listed");
    assert_eq!(victim.reproduce, "flakefarm sweep 'my project' --scope suite --runs 3 --seed 7");
    assert_eq!(
        victim.reproduce_failure.as_deref(),
        Some("flakefarm sweep 'my project' --scope suite --order shuffled:41 --runs 1")
    );
    assert_eq!(victim.timeline.len(), 3);
    let report = build(meta(), &question(&["tests/*", "-x it's"]), &ledger, &History::default());
    let victim = report.tests.iter().find(|test| test.id == VICTIM).expect("it was listed");
    assert_eq!(
        victim.reproduce,
        r"flakefarm sweep 'my project' --tests 'tests/*' --tests='-x it'\''s' --scope suite --runs 3 --seed 7"
    );
}

#[test]
fn infrastructure_errors_are_listed_and_charged_to_no_test() {
    let report = build(
        meta(),
        &question(&[]),
        &ledger(&[(Order::Given, Some(false)), (Order::Given, None)]),
        &History::default(),
    );
    assert_eq!((report.sweep.attempts, report.sweep.samples, report.sweep.infrastructure_errors), (1, 2, 1));
    assert_eq!(report.sweep.infrastructure.len(), 1);
    assert!(report.tests.iter().all(|test| test.attempts == 1 && test.failures == 0));
    assert_eq!(report.sweep.scope.as_deref(), Some("suite"));
}

#[test]
fn a_long_timeline_keeps_every_rare_failure_and_both_ends() {
    let attempts: Vec<_> = (0..2_000).map(|i| (Order::Given, Some(i % 100 == 50))).collect();
    let report = build(meta(), &question(&[]), &ledger(&attempts), &History::default());
    let victim = report.tests.iter().find(|test| test.id == VICTIM).expect("it was listed");
    assert_eq!(victim.timeline.len(), TIMELINE_LIMIT);
    assert_eq!(victim.timeline.iter().filter(|entry| entry.outcome.is_failure()).count(), 20);
    assert!(victim.timeline.is_sorted_by_key(|entry| entry.at));
}

#[test]
fn a_time_beyond_all_calendars_still_makes_a_report() {
    for at in [i64::MIN, i64::MAX] {
        let report =
            build(SweepMeta { started_at: at, ..meta() }, &question(&[]), &ledger(&[]), &History::default());
        serde_json::to_string(&report).expect("every date can be written");
    }
}

#[test]
fn what_was_asked_is_in_the_answer() {
    let asked = Question { order: Some(Order::Reversed), ..question(&[]) };
    let meta = SweepMeta {
        typed: Typed { path: "my project".into(), arguments: vec!["-k".into(), "not slow".into()] },
        under: World::Home,
        ..meta()
    };
    let ledger = ledger(&[(Order::Reversed, Some(true)), (Order::Reversed, Some(true))]);
    let report = build(meta, &asked, &ledger, &History::default());
    assert_eq!(report.sweep.under.as_deref(), Some("home"));
    assert_eq!(report.sweep.order.as_deref(), Some("reversed"));
    let headline = words::headline(&report);
    assert!(headline.ends_with(", under home, in order reversed."), "{headline}");
    let victim = report.tests.iter().find(|test| test.id == VICTIM).expect("it is reported");
    assert!(victim.stopped_because.starts_with("under home, in order reversed: failed"), "{victim:#?}");
    let failure = victim.reproduce_failure.as_deref().expect("it failed");
    for command in [victim.reproduce.as_str(), failure] {
        assert!(
            command.starts_with("flakefarm sweep 'my project' --scope suite --order reversed"),
            "{command}"
        );
        assert!(command.contains(" --under home "), "{command}");
        assert!(command.ends_with(" -- -k 'not slow'"), "{command}");
    }
}

#[test]
fn notes_that_differ_in_numbers_only_are_told_once() {
    let notes = ["it took 1.25 s", "it took 17.5 s", "it took 3 s", "something else"];
    let folded = folded(notes.iter().map(|note| (*note).to_owned()).collect());
    assert_eq!(folded, ["it took 1.25 s (and 1 more like it)", "it took 3 s", "something else"]);
}
