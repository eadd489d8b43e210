//! Plans carried out against a model project whose truth is known, by a model farm that loses,
//! repeats and reorders: nothing is lost, everything ends, nobody is accused falsely.

mod worlds;

use super::*;
use crate::score::{Assessment, Category, Verdict, assess};
use flakefarm_shared::{
    AttemptEnd, AttemptRecord, Failure, FailureKind, InfraError, InfraStage, JobId, JobReport, Order,
    Outcome, Phase, Sample, Scope, Selection, SweepId, TestId, WIRE_VERSION, WorkerId, World,
};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU16, NonZeroU32};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Nature {
    Steady,
    Broken,
    Skips,
    Flakes(f64),
    /// Fails once the named test has run.
    VictimOf(&'static str),
    /// Fails unless the named test has run.
    Needs(&'static str),
    CrashesAlways,
    CrashesSometimes(f64),
    HangsInSuites,
    /// Listed, but never says anything.
    Silent,
    /// Fails in this world.
    FailsUnder(World),
    /// Passes in this world only, and says that it wants a network.
    PassesUnder(World),
}

/// How often the farm fails by itself.
#[derive(Debug, Clone, Copy)]
struct Weather {
    infrastructure: f64,
    lost: f64,
    nothing_ran: f64,
    /// Failures in a row that one test or slot meets at most; the planner promises to bear three.
    in_a_row: u32,
}

const CALM: Weather = Weather { infrastructure: 0.0, lost: 0.0, nothing_ran: 0.0, in_a_row: 0 };
const STORM: Weather = Weather { infrastructure: 0.15, lost: 0.1, nothing_ran: 0.05, in_a_row: 3 };

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mishap {
    Infrastructure,
    NothingRan,
}

impl Weather {
    fn strikes(&self, dice: &mut ChaCha8Rng) -> Option<Mishap> {
        if dice.random_bool(self.infrastructure) {
            Some(Mishap::Infrastructure)
        } else if dice.random_bool(self.nothing_ran) {
            Some(Mishap::NothingRan)
        } else {
            None
        }
    }
}

struct Model {
    tests: Vec<(TestId, Nature)>,
    weather: Weather,
    /// Worlds that cannot be given.
    missing_worlds: Vec<World>,
}

impl Model {
    fn new(named: &[(&str, Nature)], steady: usize, weather: Weather) -> Self {
        let mut tests: Vec<_> = (0..steady)
            .map(|n| (TestId(format!("tests/test_{}.py::test_steady_{n}", n % 4)), Nature::Steady))
            .collect();
        // Spread over the suite rather than gathered at its end.
        for (n, (name, nature)) in named.iter().enumerate() {
            let place = (n * 7 + 3).min(tests.len());
            tests.insert(place, (TestId::from(*name), *nature));
        }
        Self { tests, weather, missing_worlds: Vec::new() }
    }

    fn ids(&self) -> Vec<TestId> {
        self.tests.iter().map(|(test, _)| test.clone()).collect()
    }

    fn run(&self, spec: &AttemptSpec, mishap: Option<Mishap>, dice: &mut ChaCha8Rng) -> AttemptRecord {
        let mut record = AttemptRecord {
            index: spec.index,
            scope: spec.scope,
            order: spec.order,
            world: spec.world,
            level: spec.level,
            worker: WorkerId(format!("worker-{}", dice.random_range(0..3))),
            started_at: dice.random_range(0..1_000_000),
            wall_us: 700_000,
            concurrency: 2,
            end: AttemptEnd::Completed,
            samples: Vec::new(),
            output: None,
            collection_errors: Vec::new(),
            details: Vec::new(),
        };
        if mishap == Some(Mishap::Infrastructure) {
            record.end = AttemptEnd::Infrastructure(InfraError {
                stage: InfraStage::Sandbox,
                message: "no space left".into(),
            });
            return record;
        }
        if self.missing_worlds.contains(&spec.world) {
            record.end = AttemptEnd::NothingRan { reason: "not to be had".into() };
            return record;
        }
        let selected = |test: &TestId| match &spec.tests {
            Selection::All => true,
            Selection::Only(tests) => tests.contains(test),
        };
        let mut order: Vec<&(TestId, Nature)> =
            self.tests.iter().filter(|(test, _)| selected(test)).collect();
        order.retain(|(_, nature)| *nature != Nature::Silent);
        if order.is_empty() || mishap == Some(Mishap::NothingRan) {
            record.end = AttemptEnd::NothingRan { reason: "no tests ran".into() };
            return record;
        }
        match spec.order {
            Order::Given => {}
            Order::Reversed => order.reverse(),
            Order::Shuffled { seed } => {
                order.sort_by_key(|(test, _)| Sha256::digest(format!("{seed}:{test}")).to_vec());
            }
            Order::AsListed => {
                if let Selection::Only(listed) = &spec.tests {
                    order.sort_by_key(|(test, _)| listed.iter().position(|other| other == test));
                }
            }
        }
        let mut ran: BTreeSet<&str> = BTreeSet::new();
        for (position, (test, nature)) in order.into_iter().enumerate() {
            let pass = |ok: bool| if ok { Outcome::Pass } else { failed(FailureKind::Assertion) };
            let ends = |kind: FailureKind| (failed(kind.clone()), Some(kind));
            let crash = FailureKind::Crash { exit_code: 139 };
            let (outcome, end) = match nature {
                Nature::Steady => (Outcome::Pass, None),
                Nature::Broken => (failed(FailureKind::Exception), None),
                Nature::Skips => (Outcome::Skip { reason: "not here".into() }, None),
                Nature::Flakes(rate) => (pass(!dice.random_bool(*rate)), None),
                Nature::VictimOf(polluter) => (pass(!ran.contains(polluter)), None),
                Nature::Needs(setter) => (pass(ran.contains(setter)), None),
                Nature::CrashesAlways => ends(crash),
                Nature::CrashesSometimes(rate) if dice.random_bool(*rate) => ends(crash),
                Nature::CrashesSometimes(_) => (Outcome::Pass, None),
                Nature::HangsInSuites if spec.scope == Scope::Suite => {
                    ends(FailureKind::Timeout { limit_ms: 60_000 })
                }
                Nature::HangsInSuites => (Outcome::Pass, None),
                Nature::Silent => unreachable!("filtered above"),
                Nature::FailsUnder(world) => (pass(spec.world != *world), None),
                Nature::PassesUnder(world) if spec.world == *world => (Outcome::Pass, None),
                Nature::PassesUnder(_) => {
                    let Outcome::Fail(mut failure) = failed(FailureKind::Exception) else {
                        unreachable!("it is a failure")
                    };
                    failure.exceptions = vec!["socket.gaierror".into()];
                    (Outcome::Fail(failure), None)
                }
            };
            record.wall_us += 10_000;
            record.samples.push(Sample {
                test: test.clone(),
                outcome,
                wall_us: 10_000,
                cpu_us: 9_000,
                position: u32::try_from(position).unwrap(),
                output: None,
                warnings: Vec::new(),
            });
            ran.insert(test.as_str());
            if let Some(by) = end {
                record.end = AttemptEnd::Interrupted { by, running: test.clone() };
                break;
            }
        }
        record
    }
}

fn failed(kind: FailureKind) -> Outcome {
    Outcome::Fail(Failure {
        signature: format!("{}0000", kind.word()),
        kind,
        phase: Phase::Call,
        exceptions: vec!["builtins.AssertionError".into()],
        message: "assert 1 == 2".into(),
        frames: Vec::new(),
    })
}

fn question(scope: ScopeChoice, runs: u32) -> Question {
    Question {
        kind: QuestionKind::Detect,
        runs: Runs::Fixed(NonZeroU32::new(runs).unwrap()),
        scope,
        order: None,
        seed: 20_240_229,
        confidence: Confidence::DEFAULT,
        max_flake_rate: Rate::DEFAULT,
        workers: NonZeroU16::new(4).unwrap(),
        tests: TestFilter::default(),
        panel: Vec::new(),
    }
}

/// Plans and runs to the end: jobs end in any order, some are reported twice, some never.
fn carry_out(model: &Model, question: &Question, chaos: u64) -> Ledger {
    let mut dice = ChaCha8Rng::seed_from_u64(chaos);
    let mut ledger = Ledger::new(model.ids());
    let mut under_way: Vec<PlannedJob> = Vec::new();
    let bound = 40 * u64::from(question.runs_per_test()) * (model.tests.len() as u64 + 2) + 1_000;
    let mut attempts = 0;
    let mut spoiled: BTreeMap<String, u32> = BTreeMap::new();
    let empty = "attempts in which nothing ran".to_owned();
    loop {
        let now = plan(question, &ledger);
        assert_eq!(now, plan(question, &ledger), "planning is a function of its arguments");
        if now.state == Planning::Complete {
            assert!(under_way.is_empty() && now.jobs.is_empty());
            return ledger;
        }
        for job in now.jobs {
            assert!(!ledger.knows(&job.key), "{} was planned twice", job.key);
            assert!(!job.attempts.is_empty());
            assert!(job.attempts.iter().enumerate().all(|(place, spec)| spec.index as usize == place));
            ledger.note_planned(&job.key, &job.attempts);
            attempts += job.attempts.len() as u64;
            under_way.push(job);
        }
        assert!(attempts < bound, "planned {attempts} attempts and no end");
        assert!(!under_way.is_empty(), "working, but on nothing");
        let job = under_way.swap_remove(dice.random_range(0..under_way.len()));
        let weather = model.weather;
        let labels: Vec<String> = job.attempts.iter().map(|spec| label(&job.key, spec)).collect();
        let spared = |spoiled: &BTreeMap<String, u32>, label: &String| {
            spoiled.get(label).is_some_and(|times| *times >= weather.in_a_row)
        };
        if dice.random_bool(weather.lost) && !labels.iter().any(|label| spared(&spoiled, label)) {
            labels.into_iter().for_each(|label| *spoiled.entry(label).or_default() += 1);
            ledger.note_lost(&job.key, "its worker was lost four times");
            continue;
        }
        let mut records = Vec::new();
        for (spec, label) in job.attempts.iter().zip(labels) {
            let mut mishap = weather.strikes(&mut dice);
            if spared(&spoiled, &label) || (mishap == Some(Mishap::NothingRan) && spared(&spoiled, &empty)) {
                mishap = None;
            }
            if mishap == Some(Mishap::NothingRan) {
                *spoiled.entry(empty.clone()).or_default() += 1;
            }
            *spoiled.entry(label).or_default() += u32::from(mishap.is_some());
            records.push(model.run(spec, mishap, &mut dice));
        }
        let report = report(&job.key, records);
        ledger.note_report(&job.key, &report);
        if dice.random_bool(0.1) {
            ledger.note_report(&job.key, &report);
        }
    }
}

/// What the planner tries again: a test alone, or the slot at the root of a chain.
fn label(key: &str, spec: &AttemptSpec) -> String {
    match (spec.scope, &spec.tests) {
        (Scope::Test, Selection::Only(tests)) => tests[0].0.clone(),
        _ => match key.strip_prefix("retry/") {
            Some(rest) => rest.rsplit_once('/').unwrap().0.to_owned(),
            None => format!("{key}.{}", spec.index),
        },
    }
}

fn report(key: &str, attempts: Vec<AttemptRecord>) -> JobReport {
    let job = JobId::derive(SweepId(uuid::Uuid::nil()), key);
    JobReport { v: WIRE_VERSION, job, listing: None, attempts }
}

fn judge(question: &Question, ledger: &Ledger, test: &str) -> Assessment {
    assess(question, ledger, &TestId::from(test))
}

fn zoo() -> Vec<(&'static str, Nature)> {
    vec![
        ("tests/test_0.py::test_polluter", Nature::Steady),
        ("tests/test_1.py::test_victim", Nature::VictimOf("tests/test_0.py::test_polluter")),
        ("tests/test_0.py::test_setter", Nature::Steady),
        ("tests/test_2.py::test_brittle", Nature::Needs("tests/test_0.py::test_setter")),
        ("tests/test_3.py::test_random", Nature::Flakes(0.3)),
        ("tests/test_3.py::test_broken", Nature::Broken),
        ("tests/test_2.py::test_skips", Nature::Skips),
    ]
}

#[track_caller]
fn nobody_is_accused_falsely(model: &Model, question: &Question, ledger: &Ledger) {
    let runs = question.runs_per_test();
    for (test, nature) in &model.tests {
        let found = assess(question, ledger, test);
        let text = &found.stopped_because;
        let allowed: &[Verdict] = match nature {
            Nature::Steady => &[Verdict::Healthy],
            Nature::Skips => &[Verdict::Skipped],
            Nature::Silent => &[Verdict::Inconclusive],
            Nature::Broken | Nature::CrashesAlways => &[Verdict::Broken],
            Nature::Flakes(_)
            | Nature::VictimOf(_)
            | Nature::Needs(_)
            | Nature::CrashesSometimes(_)
            | Nature::HangsInSuites
            | Nature::FailsUnder(_)
            | Nature::PassesUnder(_) => {
                &[Verdict::Flaky, Verdict::Fragile, Verdict::Healthy, Verdict::Broken]
            }
        };
        assert!(allowed.contains(&found.verdict), "{test} {nature:?}: {:?} {text}", found.verdict);
        if *nature == Nature::Silent {
            assert!(text.starts_with("never ran"), "{text}");
        } else {
            let heard = found.attempts + found.skips;
            assert!(heard >= runs, "{test} {nature:?}: {heard} of {runs} runs, {text}");
        }
    }
}

#[test]
fn auto_tells_the_kinds_of_flakiness_apart() {
    let model = Model::new(&zoo(), 40, CALM);
    for chaos in 0..10 {
        let question = Question { seed: chaos, ..question(ScopeChoice::Auto, 30) };
        let ledger = carry_out(&model, &question, chaos);
        nobody_is_accused_falsely(&model, &question, &ledger);
        #[track_caller]
        fn check(found: &Assessment, verdict: Verdict, category: Option<Category>) {
            assert_eq!(found.verdict, verdict, "{found:#?}");
            assert_eq!(found.category.as_ref().map(|finding| finding.category), category, "{found:#?}");
        }
        let judged = |test| judge(&question, &ledger, test);
        check(&judged("tests/test_1.py::test_victim"), Verdict::Flaky, Some(Category::OrderVictim));
        check(&judged("tests/test_2.py::test_brittle"), Verdict::Flaky, Some(Category::OrderBrittle));
        check(&judged("tests/test_3.py::test_random"), Verdict::Flaky, Some(Category::NonDeterministic));
        check(&judged("tests/test_3.py::test_broken"), Verdict::Broken, None);
        // The whole look costs less than twice the screen itself.
        let suite = ledger.attempt_seconds(Scope::Suite).0;
        assert!(ledger.container_seconds() < 4.0 * suite + 60.0, "{}", ledger.container_seconds());
    }
}

#[test]
fn brittle_test_that_passes_in_every_order_is_found_by_the_screen() {
    // The setter's name sorts nowhere in particular; make all others set as well.
    let mut named = zoo();
    named.retain(|(_, nature)| *nature == Nature::Steady);
    named.push(("tests/test_2.py::test_brittle", Nature::Needs("tests/test_0.py::test_setter")));
    let model = Model::new(&named, 10, CALM);
    let question = question(ScopeChoice::Auto, 12);
    let ledger = carry_out(&model, &question, 1);
    let found = judge(&question, &ledger, "tests/test_2.py::test_brittle");
    assert_eq!(found.verdict, Verdict::Flaky, "{found:#?}");
}

#[test]
fn crashes_and_hangs_cost_nobody_else_a_run() {
    let mut named = zoo();
    named.push(("tests/test_0.py::test_segfaults", Nature::CrashesAlways));
    named.push(("tests/test_1.py::test_sometimes_segfaults", Nature::CrashesSometimes(0.3)));
    named.push(("tests/test_2.py::test_hangs", Nature::HangsInSuites));
    named.push(("tests/test_3.py::test_silent", Nature::Silent));
    let model = Model::new(&named, 20, CALM);
    for scope in ScopeChoice::ALL {
        let question = question(scope, 10);
        let ledger = carry_out(&model, &question, 3);
        nobody_is_accused_falsely(&model, &question, &ledger);
    }
    let question = question(ScopeChoice::Auto, 10);
    let ledger = carry_out(&model, &question, 4);
    let hangs = judge(&question, &ledger, "tests/test_2.py::test_hangs");
    assert_eq!(hangs.verdict, Verdict::Flaky, "{hangs:#?}");
    assert_eq!(hangs.category.unwrap().category, Category::OrderVictim);
}

#[test]
fn project_in_which_nothing_ever_runs_is_given_up_soon() {
    let model = Model::new(&[], 30, Weather { nothing_ran: 1.0, in_a_row: u32::MAX, ..CALM });
    for scope in ScopeChoice::ALL {
        let ledger = carry_out(&model, &question(scope, 30), 1);
        assert!(ledger.attempts() < 60, "{scope}: {}", ledger.attempts());
        let found = judge(&question(scope, 30), &ledger, "tests/test_0.py::test_steady_0");
        assert_eq!(found.verdict, Verdict::Inconclusive);
        assert!(found.stopped_because.contains("no tests ran"), "{}", found.stopped_because);
    }
}

#[test]
fn farm_that_always_fails_is_given_up() {
    let model = Model::new(&[], 5, Weather { infrastructure: 1.0, in_a_row: u32::MAX, ..CALM });
    for scope in ScopeChoice::ALL {
        let ledger = carry_out(&model, &question(scope, 5), 1);
        let found = judge(&question(scope, 5), &ledger, "tests/test_0.py::test_steady_0");
        assert_eq!(found.verdict, Verdict::Inconclusive);
        assert_eq!((found.attempts, ledger.attempts()), (0, 0));
        assert!(ledger.infrastructure_errors() > 0);
    }
}

#[test]
fn a_selection_runs_nothing_else() {
    let model = Model::new(&zoo(), 40, CALM);
    for scope in ScopeChoice::ALL {
        let question = Question { tests: TestFilter(vec!["test_1.py".into()]), ..question(scope, 6) };
        let ledger = carry_out(&model, &question, 1);
        for (test, _) in &model.tests {
            let wanted = test.as_str().contains("test_1.py");
            assert_eq!(!ledger.observations(test).is_empty(), wanted, "{test}");
        }
    }
    let nothing = Question { tests: TestFilter(vec!["no such".into()]), ..question(ScopeChoice::Auto, 6) };
    assert_eq!(plan(&nothing, &Ledger::new(model.ids())).state, Planning::Complete);
    assert_eq!(plan(&question(ScopeChoice::Auto, 6), &Ledger::new(Vec::new())).state, Planning::Complete);
}

#[test]
fn first_jobs_are_single_and_later_ones_are_batched() {
    let model = Model::new(&[], 10, CALM);
    let question = question(ScopeChoice::Suite, 59);
    let mut ledger = Ledger::new(model.ids());
    let first = plan(&question, &ledger);
    assert_eq!(first.jobs.len(), 8, "two for each of four workers");
    assert!(first.jobs.iter().all(|job| job.attempts.len() == 1));
    let mut dice = ChaCha8Rng::seed_from_u64(1);
    for job in &first.jobs {
        ledger.note_planned(&job.key, &job.attempts);
    }
    let job = &first.jobs[0];
    let records = job.attempts.iter().map(|spec| model.run(spec, None, &mut dice)).collect();
    ledger.note_report(&job.key, &report(&job.key, records));
    let second = plan(&question, &ledger);
    let sizes: Vec<usize> = second.jobs.iter().map(|job| job.attempts.len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 51);
    assert!((4..=6).contains(&sizes.len()), "{sizes:?}");
    assert_eq!(second.remaining.attempts, 58);
    assert!((second.remaining.container_seconds - 58.0 * 0.8).abs() < 0.1, "{:?}", second.remaining);
}

#[test]
fn estimates_and_tallies_say_what_is_known() {
    let model = Model::new(&zoo(), 10, CALM);
    let question = question(ScopeChoice::Auto, 10);
    let ledger = carry_out(&model, &question, 1);
    assert_eq!(ledger.tally().only_failed, 1);
    assert!(ledger.tally().both >= 2);
    assert_eq!(ledger.outstanding().count(), 0);
    assert_eq!(plan(&question, &ledger).remaining, Estimate::default());
}

#[test]
fn chance_is_seldom_taken_for_order() {
    let names: Vec<String> = (0..40).map(|n| format!("tests/test_{}.py::test_random_{n}", n % 5)).collect();
    let (mut flaky, mut by_order, mut by_chance) = (0, 0, 0);
    for seed in 0..5 {
        let mut model = Model::new(&[], 10, CALM);
        for (n, name) in names.iter().enumerate() {
            let rate = [0.02, 0.05, 0.1, 0.2, 0.5][n % 5];
            model.tests.push((TestId(name.clone()), Nature::Flakes(rate)));
        }
        let question = Question { seed, ..question(ScopeChoice::Auto, 30) };
        let ledger = carry_out(&model, &question, seed);
        nobody_is_accused_falsely(&model, &question, &ledger);
        for name in &names {
            let found = judge(&question, &ledger, name);
            flaky += u32::from(found.verdict == Verdict::Flaky);
            match found.category.map(|finding| finding.category) {
                Some(Category::NonDeterministic) => by_chance += 1,
                Some(Category::OrderVictim | Category::OrderBrittle | Category::OrderDependent) => {
                    by_order += 1
                }
                Some(Category::Condition(_)) | None => {}
            }
        }
    }
    // One in twenty is the level of each comparison; only tests without a witness are compared.
    assert!(flaky > 130 && by_chance > 110 && by_order * 20 <= flaky, "{flaky} {by_chance} {by_order}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_in_a_storm(chaos: u64, runs in 1_u32..12, scope in 0..4_usize, crash in 0.0..1.0_f64) {
        let mut named = zoo();
        named.push(("tests/test_1.py::test_segfaults", Nature::CrashesSometimes(crash)));
        named.push(("tests/test_2.py::test_hangs", Nature::HangsInSuites));
        let model = Model::new(&named, 12, STORM);
        let question = Question { seed: chaos, ..question(ScopeChoice::ALL[scope], runs) };
        let ledger = carry_out(&model, &question, chaos);
        nobody_is_accused_falsely(&model, &question, &ledger);
    }

    #[test]
    fn order_of_arrival_does_not_matter(chaos: u64, cut in 0.0..1.0_f64) {
        let model = Model::new(&zoo(), 6, STORM);
        let question = question(ScopeChoice::Auto, 6);
        // Part of a sweep, noted as it came ...
        let full = carry_out(&model, &question, chaos);
        let mut dice = ChaCha8Rng::seed_from_u64(chaos);
        let mut notes: Vec<Note> = Vec::new();
        for key in full.keys() {
            let specs: Vec<AttemptSpec> = full.attempts_of(key).iter().filter_map(|a| a.spec.cloned()).collect();
            notes.push(Note::Planned(key.to_owned(), specs.clone()));
            if dice.random_bool(cut) {
                for _ in 0..dice.random_range(1..3) {
                    let mut records = Vec::new();
                    for spec in &specs {
                        let mishap = STORM.strikes(&mut dice);
                        records.push(model.run(spec, mishap, &mut dice));
                    }
                    notes.push(Note::Report(key.to_owned(), report(key, records)));
                }
            }
            if dice.random_bool(0.1) {
                notes.push(Note::Lost(key.to_owned(), format!("reason {}", dice.random_range(0..3))));
            }
        }
        let one = noted(&model, &notes);
        // ... and in another order, with repetitions.
        let again = notes.clone();
        notes.extend(again);
        for place in (1..notes.len()).rev() {
            notes.swap(place, dice.random_range(0..=place));
        }
        let other = noted(&model, &notes);
        prop_assert_eq!(plan(&question, &one), plan(&question, &other));
        for (test, _) in &model.tests {
            prop_assert_eq!(one.observations(test), other.observations(test));
            prop_assert_eq!(assess(&question, &one, test), assess(&question, &other, test));
        }
        prop_assert_eq!(one.attempts(), other.attempts());
        prop_assert_eq!(one.infrastructure_errors(), other.infrastructure_errors());
        prop_assert_eq!(one.collection_errors(), other.collection_errors());
        prop_assert_eq!(one.container_seconds(), other.container_seconds());
    }
}

#[derive(Debug, Clone)]
enum Note {
    Planned(String, Vec<AttemptSpec>),
    Report(String, JobReport),
    Lost(String, String),
}

fn noted(model: &Model, notes: &[Note]) -> Ledger {
    let mut ledger = Ledger::new(model.ids());
    for note in notes {
        match note {
            Note::Planned(key, specs) => ledger.note_planned(key, specs),
            Note::Report(key, report) => ledger.note_report(key, report),
            Note::Lost(key, reason) => ledger.note_lost(key, reason),
        }
    }
    ledger
}
