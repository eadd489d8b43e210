//! Diagnosis against tests whose nature is known: the loop of planner and judge with made-up
//! attempts, no container anywhere.

use super::{Diagnosis, judge, plan};
use crate::experiment::{
    CauseCategory, JobKey, JobPhase, Ledger, Planning, Question, QuestionKind, TestFilter,
};
use flakefarm_shared::{
    AttemptRecord, AttemptSpec, Failure, FailureKind, JobReport, Order, Outcome, Phase, Sample, Scope,
    Selection, SweepId, TestId, WorkerId, World,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::num::NonZeroU16;

const TARGET: &str = "t/test_40.py::test";
const SWEEP: &str = "0195925b-3f00-7c41-9d5e-6a1b2c3d4e5f";

/// Decides whether the target fails, from what ran before it and in which world.
type Nature = dyn Fn(&[TestId], World, &mut ChaCha8Rng) -> bool;

struct Outcomes {
    diagnosis: Diagnosis,
    /// Attempts on chosen tests: the steps of the polluter search.
    probes: usize,
    attempts: u64,
    rounds: usize,
}

fn id(number: usize) -> TestId {
    TestId(format!("t/test_{number}.py::test"))
}

fn question(workers: u16) -> Question {
    Question {
        kind: QuestionKind::Diagnose { tests: TestFilter(vec![TARGET.to_owned()]) },
        workers: NonZeroU16::new(workers).unwrap(),
        ..Question::detect(5)
    }
}

fn run(spec: &AttemptSpec, all: &[TestId], nature: &Nature, dice: &mut ChaCha8Rng) -> AttemptRecord {
    let mut order = match &spec.tests {
        Selection::All => all.to_vec(),
        Selection::Only(tests) if spec.order == Order::AsListed => tests.to_vec(),
        Selection::Only(tests) => all.iter().filter(|test| tests.contains(test)).cloned().collect(),
    };
    order = super::sequence::sequence(&order, spec.order);
    let fails = Outcome::Fail(Failure {
        kind: FailureKind::Assertion,
        phase: Phase::Call,
        exceptions: Vec::new(),
        message: "no".into(),
        frames: Vec::new(),
        circumstances: Vec::new(),
        signature: "s".into(),
    });
    let samples = order.iter().enumerate().map(|(place, test)| Sample {
        test: test.clone(),
        outcome: if test.as_str() == TARGET && nature(&order[..place], spec.treatment.world, dice) {
            fails.clone()
        } else {
            Outcome::Pass
        },
        wall_us: 1_000,
        cpu_us: 1_000,
        phases: None,
        position: u32::try_from(place).unwrap(),
        output: None,
        warnings: Vec::new(),
        expected_failure: None,
    });
    AttemptRecord {
        wall_us: 1_000_000,
        samples: samples.collect(),
        ..AttemptRecord::completed(spec, WorkerId("w".into()))
    }
}

fn diagnose(tests: usize, workers: u16, dice: u64, nature: &Nature) -> Outcomes {
    diagnose_from(Ledger::new((0..tests).map(id).collect()), workers, dice, nature)
}

/// The same with what the ledger has already.
fn diagnose_from(mut ledger: Ledger, workers: u16, dice: u64, nature: &Nature) -> Outcomes {
    let all = ledger.tests().to_vec();
    let question = question(workers);
    let mut dice = ChaCha8Rng::seed_from_u64(dice);
    let sweep: SweepId = SWEEP.parse().unwrap();
    let mut probes = 0;
    for round in 0..500 {
        let planned = plan(&question, &ledger);
        assert_eq!(planned, plan(&question, &ledger), "planning twice gives the same");
        if planned.state == Planning::Complete {
            let diagnosis = judge(&question, &ledger, &TestId::from(TARGET));
            return Outcomes { diagnosis, probes, attempts: ledger.attempts(), rounds: round };
        }
        assert!(!planned.jobs.is_empty(), "nothing is under way, so something must be wanted");
        for job in planned.jobs {
            assert!(!ledger.knows(job.key), "{} is planned twice", job.key);
            ledger.note_planned(job.key, &job.attempts);
            probes += job
                .attempts
                .iter()
                .filter(|spec| spec.scope == Scope::Suite && spec.order == Order::AsListed)
                .filter(|spec| matches!(&spec.tests, Selection::Only(tests) if tests.len() > 2))
                .count();
            let attempts = job.attempts.iter().map(|spec| run(spec, &all, nature, &mut dice)).collect();
            let report = JobReport { v: 1, job: job.key.id(sweep), listing: None, attempts };
            ledger.note_report(job.key, &report);
        }
    }
    panic!("the diagnosis does not end");
}

fn groups(diagnosis: &Diagnosis) -> Vec<Vec<String>> {
    diagnosis.experiment.order.as_ref().map(|order| order.groups.clone()).unwrap_or_default()
}

#[test]
fn a_polluter_is_found_in_few_runs_and_proved() {
    for tests in [50, 200, 1_000] {
        for workers in [1, 2, 8] {
            let found = diagnose(tests, workers, 1, &|before, _, _| before.contains(&id(7)));
            let diagnosis = &found.diagnosis;
            assert_eq!(diagnosis.category, CauseCategory::OrderVictim, "{:?}", diagnosis.evidence);
            assert_eq!(groups(diagnosis), [["t/test_7.py::test"]]);
            assert!(diagnosis.confidence > 0.95);
            let order = diagnosis.experiment.order.as_ref().unwrap();
            assert!(order.with.failures == order.with.attempts && order.alone.failures == 0);
            assert!(order.without.is_some_and(|without| without.failures == 0 && without.attempts > 1));
            let most = 4.0 * (tests as f64).log2();
            assert!(
                found.probes as f64 <= most,
                "{} runs for {tests} tests, {workers} workers",
                found.probes
            );
        }
    }
}

#[test]
fn a_state_setter_is_found() {
    let found = diagnose(120, 2, 1, &|before, _, _| !before.contains(&id(3)));
    assert_eq!(found.diagnosis.category, CauseCategory::OrderBrittle);
    assert_eq!(groups(&found.diagnosis), [["t/test_3.py::test"]]);
}

#[test]
fn several_polluters_are_found_one_after_the_other_and_those_that_need_each_other_together() {
    let found = diagnose(100, 2, 1, &|before, _, _| [7, 21].iter().any(|n| before.contains(&id(*n))));
    let mut all = groups(&found.diagnosis).concat();
    all.sort();
    assert_eq!(all, ["t/test_21.py::test", "t/test_7.py::test"]);
    assert!(found.diagnosis.experiment.order.unwrap().without.is_some_and(|without| without.failures == 0));

    let found = diagnose(100, 2, 1, &|before, _, _| [7, 21].iter().all(|n| before.contains(&id(*n))));
    let mut all = groups(&found.diagnosis);
    assert_eq!(all.len(), 1);
    all[0].sort();
    assert_eq!(all[0], ["t/test_21.py::test", "t/test_7.py::test"]);
}

#[test]
fn a_cleaner_that_hides_the_polluter_is_named() {
    // 7 pollutes unless 30 runs after it.
    let nature = |before: &[TestId], _: World, _: &mut ChaCha8Rng| {
        let last = |n: usize| before.iter().rposition(|test| *test == id(n));
        last(7).is_some_and(|polluter| last(30).is_none_or(|cleaner| cleaner < polluter))
    };
    let found = diagnose(60, 2, 1, &nature);
    assert_eq!(groups(&found.diagnosis), [["t/test_7.py::test"]], "{:?}", found.diagnosis.evidence);
    let order = found.diagnosis.experiment.order.unwrap();
    assert_eq!(order.cleaners, ["t/test_30.py::test"], "{:?}", found.diagnosis.evidence);
}

#[test]
fn a_polluter_that_works_now_and_then_is_found_all_the_same() {
    let mut right = 0;
    for dice in 0..20 {
        let found =
            diagnose(60, 2, dice, &|before, _, dice| before.contains(&id(7)) && dice.random_bool(0.7));
        right += u32::from(groups(&found.diagnosis) == [["t/test_7.py::test"]]);
    }
    assert!(right >= 16, "{right} of 20");
}

#[test]
fn conditions_are_told_apart() {
    use flakefarm_shared::world::HashSeed;
    #[track_caller]
    fn check(expect: CauseCategory, nature: &Nature) {
        let mut right = 0;
        for dice in 0..10 {
            let found = diagnose(45, 2, dice, nature);
            right += u32::from(found.diagnosis.category == expect);
            if found.diagnosis.category != expect {
                eprintln!(
                    "{expect:?}, dice {dice}: {:?} {:?}",
                    found.diagnosis.category, found.diagnosis.evidence
                );
                for arm in found.diagnosis.experiment.arms.iter().filter(|arm| arm.failures > 0) {
                    eprintln!("  {} {}/{}", arm.condition, arm.failures, arm.attempts);
                }
            }
            assert!(found.attempts < 240, "{} attempts for {expect:?}", found.attempts);
        }
        assert!(right >= 9, "{right} of 10 for {expect:?}");
    }
    check(CauseCategory::TimeZone, &|_, world, _| matches!(world, World::TimeZone(_)));
    check(CauseCategory::Clock, &|_, world, _| matches!(world, World::Clock(_)));
    check(CauseCategory::NotIdempotent, &|_, world, _| world == World::Twice);
    check(CauseCategory::Network, &|_, world, _| world != World::NetworkOn);
    check(CauseCategory::Timing, &|_, world, dice| {
        matches!(world, World::CpuContention { .. }) && dice.random_bool(0.5)
    });
    check(CauseCategory::Timing, &|_, world, dice| {
        dice.random_bool(if matches!(world, World::CpuContention { .. }) { 0.9 } else { 0.2 })
    });
    check(CauseCategory::Randomness, &|_, world, dice| match world {
        World::RandomSeed { seed } => seed % 3 == 0,
        _ => dice.random_bool(0.33),
    });
    check(CauseCategory::HashOrder, &|_, world, dice| match world {
        World::HashSeed(HashSeed::Fixed(seed)) => seed % 2 == 0,
        _ => dice.random_bool(0.5),
    });
    check(CauseCategory::Unknown, &|_, _, dice| dice.random_bool(0.3));
    check(CauseCategory::Unknown, &|_, _, _| false);
}

/// The search for what spoils another test ran this one beside it, time and again.
#[test]
fn runs_for_other_tests_take_none_of_its_own() {
    let mut ledger = Ledger::new((0..45).map(id).collect());
    let tests = Selection::only(vec![TestId::from(TARGET), id(7)]);
    let beside = AttemptSpec::plain(Scope::Suite, tests, Order::AsListed);
    let planned: Vec<AttemptSpec> = (0..300).map(|index| AttemptSpec { index, ..beside.clone() }).collect();
    let place = u32::try_from(ledger.place(&id(7)).unwrap()).unwrap();
    let key = JobKey { phase: JobPhase::DiagnoseTest, arm: Some(place), number: 0 };
    let nature = |_: &[TestId], world: World, _: &mut ChaCha8Rng| matches!(world, World::TimeZone(_));
    let all = ledger.tests().to_vec();
    let mut dice = ChaCha8Rng::seed_from_u64(1);
    let attempts = planned.iter().map(|spec| run(spec, &all, &nature, &mut dice)).collect();
    ledger.note_planned(key, &planned);
    ledger
        .note_report(key, &JobReport { v: 1, job: key.id(SWEEP.parse().unwrap()), listing: None, attempts });
    let found = diagnose_from(ledger, 2, 1, &nature);
    assert_eq!(found.diagnosis.category, CauseCategory::TimeZone, "{:?}", found.diagnosis.evidence);
}

#[test]
fn a_test_that_cannot_be_reproduced_is_told_what_was_tried() {
    let found = diagnose(45, 2, 1, &|_, _, _| false);
    assert_eq!((found.diagnosis.category, found.diagnosis.confidence), (CauseCategory::Unknown, 0.0));
    let evidence = found.diagnosis.evidence.join("\n");
    assert!(
        evidence.contains("could not be reproduced") && evidence.contains("less than 14 %"),
        "{evidence}"
    );
    assert!(found.rounds < 20, "{} rounds", found.rounds);
}

#[test]
fn chance_is_seldom_explained() {
    let mut explained = 0;
    for dice in 0..60 {
        for rate in [0.1, 0.5] {
            let found = diagnose(45, 2, dice, &move |_, _, dice| dice.random_bool(rate));
            explained += u32::from(found.diagnosis.category != CauseCategory::Unknown);
        }
    }
    assert!(explained <= 6, "{explained} of 120 where there is nothing to explain");
}
