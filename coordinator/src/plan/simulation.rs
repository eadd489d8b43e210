//! Plans carried out against suites whose truth is known, by a farm that loses, repeats and
//! reorders: nothing is lost, everything ends, nobody is accused falsely. Suite and farm are those of
//! [`crate::simulate`]; here they are bent until something would break.

mod adaptive;
mod costs;
mod worlds;

use super::*;
use crate::experiment::{JobKey, Verdict};
use crate::score::{Assessment, Category, assess};
use crate::simulate::attempt::{Mishap, Runs as Luck};
use crate::simulate::farm::{Farm, Weather};
use crate::simulate::population::{Nature, Population, TestModel};
use flakefarm_shared::{
    AttemptRecord, AttemptSpec, JobReport, Scope, Selection, SweepId, TestId, WIRE_VERSION, WorkerId, World,
};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;
use std::num::{NonZeroU16, NonZeroU32};

/// The planner promises to bear three failures in a row.
const STORM: Weather =
    Weather { infrastructure: 0.15, lost: 0.1, nothing_ran: 0.05, twice: 0.1, late: 600.0, in_a_row: 3 };
/// Nothing goes wrong, but reports arrive in any order.
const CALM: Weather = Weather { twice: 0.1, late: 600.0, ..Weather::CALM };

/// A test that others are told of by name.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Steady,
    Broken,
    Skips,
    Flakes(f64),
    VictimOf(&'static str),
    Needs(&'static str),
    Crashes(f64),
    HangsInSuites,
    Silent,
    /// Fails in this world.
    FailsUnder(World),
    /// Passes in this world only, and says that it wants a network.
    PassesUnder(World),
}

struct Model {
    population: Population,
    weather: Weather,
}

impl Model {
    fn new(named: &[(&str, Kind)], steady: usize, weather: Weather) -> Self {
        let mut tests: Vec<(TestId, Kind)> = (0..steady)
            .map(|n| (TestId(format!("tests/test_{}.py::test_steady_{n}", n % 4)), Kind::Steady))
            .collect();
        // Spread over the suite rather than gathered at its end.
        for (n, (name, kind)) in named.iter().enumerate() {
            let place = (n * 7 + 3).min(tests.len());
            tests.insert(place, (TestId::from(*name), *kind));
        }
        let place = |name: &str| tests.iter().position(|(test, _)| test.as_str() == name).unwrap();
        let nature = |kind: &Kind| match kind {
            Kind::Steady => Nature::Steady,
            Kind::Broken => Nature::Broken,
            Kind::Skips => Nature::Skips,
            Kind::Flakes(rate) => Nature::Flakes(*rate),
            Kind::VictimOf(polluter) => Nature::VictimOf(vec![place(polluter)]),
            Kind::Needs(setter) => Nature::Needs(vec![place(setter)]),
            Kind::Crashes(rate) => Nature::Crashes(*rate),
            Kind::HangsInSuites => Nature::HangsInSuites,
            Kind::Silent => Nature::Silent,
            Kind::FailsUnder(world) => Nature::FailsUnder(*world),
            Kind::PassesUnder(world) => Nature::PassesUnder(*world),
        };
        let model = |(id, kind): &(TestId, Kind)| TestModel {
            id: id.clone(),
            nature: nature(kind),
            seconds: 0.01,
            version: 0,
            risks: Vec::new(),
        };
        Self { population: Population::of(tests.iter().map(model).collect()), weather }
    }

    fn tests(&self) -> &[TestModel] {
        &self.population.tests
    }

    fn ids(&self) -> Vec<TestId> {
        self.population.ids()
    }
}

fn question(scope: ScopeChoice, runs: u32) -> Question {
    Question {
        runs: Runs::Fixed(NonZeroU32::new(runs).unwrap()),
        scope,
        workers: NonZeroU16::new(4).unwrap(),
        ..Question::detect(20_240_229)
    }
}

fn next(question: &Question, ledger: &Ledger) -> Plan {
    plan(question, ledger, &History::default(), Duration::ZERO)
}

/// Plans and runs to the end: jobs end in any order, some are reported twice, some never.
fn carry_out(model: &Model, question: &Question, chaos: u64) -> Ledger {
    carry_out_knowing(model, question, &History::default(), chaos)
}

fn carry_out_knowing(model: &Model, question: &Question, history: &History, chaos: u64) -> Ledger {
    let tests = model.tests().len() as u64;
    let bound = 40 * u64::from(question.runs_per_test()) * (tests + 2) + 1_000;
    let mut attempts = 0;
    let mut checked = |question: &Question, ledger: &Ledger, history: &History, elapsed: Duration| {
        let now = plan(question, ledger, history, elapsed);
        assert_eq!(now, plan(question, ledger, history, elapsed), "planning is a function of its arguments");
        if now.state == Planning::Complete {
            assert!(now.jobs.is_empty() && ledger.outstanding().next().is_none());
        }
        for job in &now.jobs {
            assert!(!ledger.knows(job.key), "{} was planned twice", job.key);
            assert!(!job.attempts.is_empty());
            assert!(job.attempts.iter().enumerate().all(|(place, spec)| spec.index as usize == place));
            attempts += job.attempts.len() as u64;
        }
        assert!(attempts < bound, "planned {attempts} attempts and no end");
        now
    };
    let farm = Farm {
        population: &model.population,
        weather: model.weather,
        workers: 64,
        gather: 1,
        seed: chaos,
        starts_at: 0,
    };
    farm.carry_out(question, history, &mut checked).expect("the planner goes on").ledger
}

fn report(key: JobKey, attempts: Vec<AttemptRecord>) -> JobReport {
    let job = key.id(SweepId(uuid::Uuid::nil()));
    JobReport { v: WIRE_VERSION, job, listing: None, attempts }
}

fn judge(question: &Question, ledger: &Ledger, test: &str) -> Assessment {
    let answers = answers(question, ledger, &History::default());
    assess(question, ledger, &answers, &WorldsSeen::read(ledger), &TestId::from(test))
}

fn zoo() -> Vec<(&'static str, Kind)> {
    vec![
        ("tests/test_0.py::test_polluter", Kind::Steady),
        ("tests/test_1.py::test_victim", Kind::VictimOf("tests/test_0.py::test_polluter")),
        ("tests/test_0.py::test_setter", Kind::Steady),
        ("tests/test_2.py::test_brittle", Kind::Needs("tests/test_0.py::test_setter")),
        ("tests/test_3.py::test_random", Kind::Flakes(0.3)),
        ("tests/test_3.py::test_broken", Kind::Broken),
        ("tests/test_2.py::test_skips", Kind::Skips),
    ]
}

/// Verdicts that accuse no test of this nature falsely.
fn fitting(nature: &Nature) -> &'static [Verdict] {
    match nature {
        Nature::Steady => &[Verdict::Healthy],
        Nature::Skips => &[Verdict::Skipped],
        Nature::Silent => &[Verdict::Inconclusive],
        Nature::Broken => &[Verdict::Broken],
        Nature::Crashes(rate) if *rate >= 1.0 => &[Verdict::Broken],
        Nature::Flakes(_)
        | Nature::VictimOf(_)
        | Nature::Needs(_)
        | Nature::Crashes(_)
        | Nature::HangsInSuites
        | Nature::FailsUnder(_)
        | Nature::PassesUnder(_) => &[Verdict::Flaky, Verdict::Fragile, Verdict::Healthy, Verdict::Broken],
    }
}

#[track_caller]
fn nobody_is_accused_falsely(model: &Model, question: &Question, ledger: &Ledger) {
    let runs = question.runs_per_test();
    let answers = answers(question, ledger, &History::default());
    let worlds = WorldsSeen::read(ledger);
    for TestModel { id: test, nature, .. } in model.tests() {
        let found = assess(question, ledger, &answers, &worlds, test);
        let text = &found.stopped_because;
        assert!(fitting(nature).contains(&found.verdict), "{test} {nature:?}: {:?} {text}", found.verdict);
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
    named.retain(|(_, kind)| matches!(kind, Kind::Steady));
    named.push(("tests/test_2.py::test_brittle", Kind::Needs("tests/test_0.py::test_setter")));
    let model = Model::new(&named, 10, CALM);
    let question = question(ScopeChoice::Auto, 12);
    let ledger = carry_out(&model, &question, 1);
    let found = judge(&question, &ledger, "tests/test_2.py::test_brittle");
    assert_eq!(found.verdict, Verdict::Flaky, "{found:#?}");
}

#[test]
fn crashes_and_hangs_cost_nobody_else_a_run() {
    let mut named = zoo();
    named.push(("tests/test_0.py::test_segfaults", Kind::Crashes(1.0)));
    named.push(("tests/test_1.py::test_sometimes_segfaults", Kind::Crashes(0.3)));
    named.push(("tests/test_2.py::test_hangs", Kind::HangsInSuites));
    named.push(("tests/test_3.py::test_silent", Kind::Silent));
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
        for TestModel { id: test, .. } in model.tests() {
            let wanted = test.as_str().contains("test_1.py");
            assert_eq!(!ledger.observations(test).is_empty(), wanted, "{test}");
        }
    }
    let nothing = Question { tests: TestFilter(vec!["no such".into()]), ..question(ScopeChoice::Auto, 6) };
    assert_eq!(next(&nothing, &Ledger::new(model.ids())).state, Planning::Complete);
    assert_eq!(next(&question(ScopeChoice::Auto, 6), &Ledger::new(Vec::new())).state, Planning::Complete);
}

#[test]
fn first_jobs_are_single_and_later_ones_are_batched() {
    let model = Model::new(&[], 10, CALM);
    let question = question(ScopeChoice::Suite, 59);
    let mut ledger = Ledger::new(model.ids());
    let first = next(&question, &ledger);
    assert_eq!(first.jobs.len(), 8, "two for each of four workers");
    assert!(first.jobs.iter().all(|job| job.attempts.len() == 1));
    let mut dice = ChaCha8Rng::seed_from_u64(1);
    for job in &first.jobs {
        ledger.note_planned(job.key, &job.attempts);
    }
    let job = &first.jobs[0];
    let (worker, mut luck) = (WorkerId("worker".into()), Luck::new(&model.population, 1));
    let records = job.attempts.iter().map(|spec| luck.make(spec, &worker, None, &mut dice)).collect();
    ledger.note_report(job.key, &report(job.key, records));
    let second = next(&question, &ledger);
    let sizes: Vec<usize> = second.jobs.iter().map(|job| job.attempts.len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 51);
    assert!((4..=6).contains(&sizes.len()), "{sizes:?}");
    assert_eq!(second.remaining.attempts, 58);
    let each = ledger.mean_attempt_seconds(Scope::Suite).unwrap();
    assert!((second.remaining.container_seconds - 58.0 * each).abs() < 0.1, "{:?}", second.remaining);
}

/// However much is asked for, a turn looks at a bounded part of it, jobs under way are bounded, and what is left is
/// foreseen all the same.
#[test]
fn a_turn_plans_a_bounded_part_of_what_is_asked_for() {
    const RUNS: u32 = 20_000;
    let model = Model::new(&[], 40, CALM);
    for (scope, asked) in [(ScopeChoice::Test, 40 * u64::from(RUNS)), (ScopeChoice::Suite, u64::from(RUNS))] {
        let question = question(scope, RUNS);
        let mut ledger = Ledger::new(model.ids());
        let first = next(&question, &ledger);
        assert_eq!(first.remaining.attempts, asked, "{scope:?}");
        let job = &first.jobs[0];
        ledger.note_planned(job.key, &job.attempts);
        let (worker, mut luck) = (WorkerId("worker".into()), Luck::new(&model.population, 1));
        let mut dice = ChaCha8Rng::seed_from_u64(1);
        let records = job.attempts.iter().map(|spec| luck.make(spec, &worker, None, &mut dice)).collect();
        ledger.note_report(job.key, &report(job.key, records));
        let mut turns = 0;
        loop {
            let turn = next(&question, &ledger);
            assert_eq!(turn.remaining.attempts, asked - 1, "{scope:?}");
            assert!(turn.jobs.iter().map(|job| job.attempts.len()).sum::<usize>() <= batch::AT_A_TURN);
            if turn.jobs.is_empty() {
                break;
            }
            for job in turn.jobs {
                ledger.note_planned(job.key, &job.attempts);
            }
            turns += 1;
        }
        assert!(ledger.outstanding().count() <= batch::most_under_way(4), "{scope:?}");
        assert!(turns > 0, "{scope:?}");
    }
}

#[test]
fn the_longest_of_the_jobs_planned_together_come_first() {
    let mut model = Model::new(&[], 40, CALM);
    for (number, test) in (1_u32..).zip(&mut model.population.tests) {
        test.seconds = 20.0 + f64::from(number * 7 % 41);
    }
    let seconds: HashMap<TestId, f64> =
        model.tests().iter().map(|test| (test.id.clone(), test.seconds)).collect();
    let past = seconds.iter().map(|(test, seconds)| PastRun {
        test: test.clone(),
        fingerprint: None,
        attempts: 5,
        failures: 0,
        seconds: *seconds,
        finished_at: 0,
    });
    let history = History::new(&model.ids(), &[], past, 1);
    let question = question(ScopeChoice::Test, 3);
    let mut ledger = Ledger::new(model.ids());
    let first = plan(&question, &ledger, &history, Duration::ZERO);
    let job = &first.jobs[0];
    let (worker, mut luck) = (WorkerId("worker".into()), Luck::new(&model.population, 1));
    let mut dice = ChaCha8Rng::seed_from_u64(1);
    for job in &first.jobs {
        ledger.note_planned(job.key, &job.attempts);
    }
    let records = job.attempts.iter().map(|spec| luck.make(spec, &worker, None, &mut dice)).collect();
    ledger.note_report(job.key, &report(job.key, records));
    let second = plan(&question, &ledger, &history, Duration::ZERO);
    let longest = |job: &PlannedJob| match &job.attempts[..] {
        [AttemptSpec { tests: Selection::Only(tests), .. }] => seconds[&tests[0]],
        attempts => panic!("one attempt on a test of over 20 seconds: {attempts:?}"),
    };
    let planned: Vec<f64> = second.jobs.iter().map(longest).collect();
    assert!(planned.len() > 50 && planned.is_sorted_by(|one, next| one >= next), "{planned:?}");
}

#[test]
fn estimates_and_tallies_say_what_is_known() {
    let model = Model::new(&zoo(), 10, CALM);
    let question = question(ScopeChoice::Auto, 10);
    let ledger = carry_out(&model, &question, 1);
    assert_eq!(ledger.tally().only_failed, 1);
    assert!(ledger.tally().both >= 2);
    assert_eq!(ledger.outstanding().count(), 0);
    assert_eq!(next(&question, &ledger).remaining, Estimate::default());
}

#[test]
fn chance_is_seldom_taken_for_order() {
    let names: Vec<String> = (0..40).map(|n| format!("tests/test_{}.py::test_random_{n}", n % 5)).collect();
    let (mut flaky, mut by_order, mut by_chance) = (0, 0, 0);
    for seed in 0..5 {
        let rate = |n: usize| [0.02, 0.05, 0.1, 0.2, 0.5][n % 5];
        let named: Vec<(&str, Kind)> =
            names.iter().enumerate().map(|(n, name)| (name.as_str(), Kind::Flakes(rate(n)))).collect();
        let model = Model::new(&named, 10, CALM);
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
        named.push(("tests/test_1.py::test_segfaults", Kind::Crashes(crash)));
        named.push(("tests/test_2.py::test_hangs", Kind::HangsInSuites));
        let model = Model::new(&named, 12, STORM);
        let question = Question { seed: chaos, ..question(ScopeChoice::ALL[scope], runs) };
        let ledger = carry_out(&model, &question, chaos);
        nobody_is_accused_falsely(&model, &question, &ledger);
    }

    #[test]
    fn order_of_arrival_does_not_matter(chaos: u64, cut in 0.0..1.0_f64) {
        let model = Model::new(&zoo(), 6, STORM);
        let question = question(ScopeChoice::Auto, 6);
        let (one, other) = noted_twice(&model, &question, chaos, cut);
        prop_assert_eq!(next(&question, &one), next(&question, &other));
        for TestModel { id: test, .. } in model.tests() {
            prop_assert_eq!(one.observations(test), other.observations(test));
            prop_assert_eq!(judge(&question, &one, test.as_str()), judge(&question, &other, test.as_str()));
        }
        prop_assert_eq!(one.attempts(), other.attempts());
        prop_assert_eq!(one.infrastructure_errors(), other.infrastructure_errors());
        prop_assert_eq!(one.collection_errors(), other.collection_errors());
        prop_assert_eq!(one.container_seconds(), other.container_seconds());
    }
}

/// Part of a sweep, noted as it came, and in another order with repetitions.
fn noted_twice(model: &Model, question: &Question, chaos: u64, cut: f64) -> (Ledger, Ledger) {
    let full = carry_out(model, question, chaos);
    let mut dice = ChaCha8Rng::seed_from_u64(chaos);
    let mut luck = Luck::new(&model.population, chaos);
    let mut notes: Vec<Note> = Vec::new();
    for key in full.keys() {
        let specs: Vec<AttemptSpec> = full
            .attempts_of(key)
            .iter()
            .filter_map(|a| Some(AttemptSpec { index: a.index, ..a.spec?.clone() }))
            .collect();
        notes.push(Note::Planned(key, specs.clone()));
        if dice.random_bool(cut) {
            for _ in 0..dice.random_range(1..3) {
                let mut records = Vec::new();
                for spec in &specs {
                    let mishap = [None, None, None, Some(Mishap::Infrastructure), Some(Mishap::NothingRan)]
                        [dice.random_range(0..5)];
                    let worker = WorkerId(format!("worker-{}", dice.random_range(0..3)));
                    let mut record = luck.make(spec, &worker, mishap, &mut dice);
                    record.started_at = dice.random_range(0..1_000_000);
                    records.push(record);
                }
                notes.push(Note::Report(key, Box::new(report(key, records))));
            }
        }
        if dice.random_bool(0.1) {
            notes.push(Note::Lost(key, format!("reason {}", dice.random_range(0..3))));
        }
    }
    let one = noted(model, &notes);
    let again = notes.clone();
    notes.extend(again);
    for place in (1..notes.len()).rev() {
        notes.swap(place, dice.random_range(0..=place));
    }
    let other = noted(model, &notes);
    (one, other)
}

#[derive(Debug, Clone)]
enum Note {
    Planned(JobKey, Vec<AttemptSpec>),
    Report(JobKey, Box<JobReport>),
    Lost(JobKey, String),
}

fn noted(model: &Model, notes: &[Note]) -> Ledger {
    let mut ledger = Ledger::new(model.ids());
    for note in notes {
        match note {
            Note::Planned(key, specs) => ledger.note_planned(*key, specs),
            Note::Report(key, report) => ledger.note_report(*key, report),
            Note::Lost(key, reason) => ledger.note_lost(*key, reason),
        }
    }
    ledger
}
