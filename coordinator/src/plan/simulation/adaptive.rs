//! Adaptive sweeps, bent until something would break.

use super::*;
use flakefarm_shared::{Digest, TestSource};
use std::num::NonZeroU64;

fn adaptive(scope: ScopeChoice, guarantee: Guarantee) -> Question {
    Question { runs: Runs::Adaptive, guarantee, ..question(scope, 1) }
}

/// No steady test is accused, and every test is answered.
#[track_caller]
pub(super) fn everything_is_answered(model: &Model, question: &Question, ledger: &Ledger, history: &History) {
    let answers = answers(question, ledger, history);
    let worlds = WorldsSeen::read(ledger);
    for TestModel { id: test, nature, .. } in model.tests() {
        let found = assess(question, ledger, &answers, &worlds, test);
        let text = &found.stopped_because;
        assert!(fitting(nature).contains(&found.verdict), "{test} {nature:?}: {:?} {text}", found.verdict);
        let answer = answers.of(ledger, test).answer;
        let scope = question.scope;
        assert!(
            answer.is_final(),
            "{test} {nature:?}, scope {scope}: {answer:?} {text} {:?}",
            ledger.place(test).map(|place| ledger.tally_of(place))
        );
        if question.guarantee == Guarantee::PerTest && *nature == Nature::Steady && history.is_empty() {
            let clean = found.attempts + answers.of(ledger, test).elsewhere;
            assert!(clean >= question.runs_for_guarantee(), "{test}: {text}");
        }
    }
}

#[test]
fn adaptive_sweeps_answer_everything_under_both_guarantees() {
    for guarantee in Guarantee::ALL {
        let model = Model::new(&zoo(), 40, CALM);
        for chaos in 0..6 {
            let question = Question { seed: chaos, ..adaptive(ScopeChoice::Auto, guarantee) };
            let ledger = carry_out(&model, &question, chaos);
            everything_is_answered(&model, &question, &ledger, &History::default());
            let check = |found: &Assessment, verdict: Verdict, category: Option<Category>| {
                assert_eq!(found.verdict, verdict, "{found:#?}");
                let named = found.category.as_ref().map(|finding| finding.category);
                // Fewer runs leave it open more often; they never name another.
                let left_open = guarantee == Guarantee::PerSuite && named.is_none();
                assert!(named == category || left_open, "{found:#?}");
            };
            let judged = |test| judge(&question, &ledger, test);
            check(&judged("tests/test_1.py::test_victim"), Verdict::Flaky, Some(Category::OrderVictim));
            check(&judged("tests/test_2.py::test_brittle"), Verdict::Flaky, Some(Category::OrderBrittle));
            check(&judged("tests/test_3.py::test_random"), Verdict::Flaky, Some(Category::NonDeterministic));
            check(&judged("tests/test_3.py::test_broken"), Verdict::Broken, None);
        }
    }
}

#[test]
fn an_adaptive_sweep_costs_no_more_than_the_fixed_number_and_the_suites_guarantee_far_less() {
    let model = Model::new(&zoo(), 40, CALM);
    let cost = |question: &Question| carry_out(&model, question, 1).container_seconds();
    let fixed = cost(&question(ScopeChoice::Auto, 59));
    let per_test = cost(&adaptive(ScopeChoice::Auto, Guarantee::PerTest));
    let per_suite = cost(&adaptive(ScopeChoice::Auto, Guarantee::PerSuite));
    assert!(per_test <= fixed && per_suite < 0.6 * per_test, "{fixed} {per_test} {per_suite}");
}

#[test]
fn crashes_and_hangs_cost_nobody_else_an_answer() {
    let mut named = zoo();
    named.push(("tests/test_0.py::test_segfaults", Kind::Crashes(1.0)));
    named.push(("tests/test_1.py::test_sometimes_segfaults", Kind::Crashes(0.3)));
    named.push(("tests/test_2.py::test_hangs", Kind::HangsInSuites));
    named.push(("tests/test_3.py::test_silent", Kind::Silent));
    let model = Model::new(&named, 20, CALM);
    for scope in ScopeChoice::ALL {
        for guarantee in Guarantee::ALL {
            let max_flake_rate = Rate::new(0.25).unwrap();
            let question = Question { max_flake_rate, ..adaptive(scope, guarantee) };
            let ledger = carry_out(&model, &question, 3);
            everything_is_answered(&model, &question, &ledger, &History::default());
        }
    }
}

#[test]
fn adaptive_sweep_of_a_farm_that_always_fails_ends() {
    let model = Model::new(&[], 5, Weather { infrastructure: 1.0, in_a_row: u32::MAX, ..CALM });
    for scope in ScopeChoice::ALL {
        let question = adaptive(scope, Guarantee::PerTest);
        let ledger = carry_out(&model, &question, 1);
        let found = judge(&question, &ledger, "tests/test_0.py::test_steady_0");
        assert_eq!((found.verdict, found.attempts), (Verdict::Inconclusive, 0));
    }
}

#[test]
fn an_adaptive_sweep_of_a_selection_runs_nothing_else() {
    let model = Model::new(&zoo(), 40, CALM);
    for scope in ScopeChoice::ALL {
        let tests = TestFilter(vec!["test_1.py".into()]);
        let question = Question { tests, ..adaptive(scope, Guarantee::PerSuite) };
        let ledger = carry_out(&model, &question, 1);
        for TestModel { id: test, .. } in model.tests() {
            let wanted = test.as_str().contains("test_1.py");
            assert_eq!(!ledger.observations(test).is_empty(), wanted, "{test}");
        }
    }
}

#[test]
fn a_budget_of_attempts_is_kept_and_said() {
    let model = Model::new(&zoo(), 30, CALM);
    for scope in [ScopeChoice::Auto, ScopeChoice::Suite] {
        let budget = Some(Budget::Attempts(NonZeroU64::new(12).unwrap()));
        let question = Question { budget, ..adaptive(scope, Guarantee::PerTest) };
        let ledger = carry_out(&model, &question, 1);
        assert!(ledger.attempts() <= 12, "{}", ledger.attempts());
        assert!(next(&question, &ledger).limited);
        let found = judge(&question, &ledger, "tests/test_0.py::test_steady_0");
        let text = &found.stopped_because;
        assert_eq!(found.verdict, Verdict::Inconclusive);
        assert!(text.contains("of 59 wanted: if it flakes, less than"), "{text}");
    }
}

#[test]
fn container_time_is_kept_but_for_the_first_attempt() {
    let model = Model::new(&zoo(), 30, CALM);
    for seconds in [1, 10, 30] {
        let budget = Some(Budget::Container(Duration::from_secs(seconds)));
        let question = Question { budget, ..adaptive(ScopeChoice::Auto, Guarantee::PerTest) };
        let ledger = carry_out(&model, &question, 1);
        let (spent, one) = (ledger.container_seconds(), ledger.mean_attempt_seconds(Scope::Suite).unwrap());
        let seconds = seconds as f64;
        assert!(spent <= 1.1 * seconds + one && spent >= 0.9 * seconds - one, "{spent} of {seconds}");
    }
}

#[test]
fn when_the_clock_has_run_out_nothing_more_is_planned() {
    let model = Model::new(&zoo(), 30, CALM);
    let budget = Some(Budget::Clock(Duration::from_secs(60)));
    let question = Question { budget, ..adaptive(ScopeChoice::Auto, Guarantee::PerTest) };
    let mut ledger = Ledger::new(model.ids());
    let first = plan(&question, &ledger, &History::default(), Duration::ZERO);
    assert!(!first.jobs.is_empty() && first.state == Planning::Working);
    for job in &first.jobs {
        ledger.note_planned(job.key, &job.attempts);
    }
    let late = plan(&question, &ledger, &History::default(), Duration::from_secs(61));
    assert_eq!((late.jobs.len(), late.state, late.limited), (0, Planning::Overdue, true));
}

#[test]
fn what_earlier_sweeps_saw_is_not_run_again() {
    const DAY: i64 = 86_400_000_000;
    let model = Model::new(&[], 40, CALM);
    let tests = model.ids();
    let fingerprint = |version: &str| Digest::of(version.as_bytes());
    let past = |failures| -> Vec<PastRun> {
        let run = |test: &TestId| PastRun {
            test: test.clone(),
            fingerprint: Some(fingerprint("a")),
            attempts: 80,
            failures,
            seconds: 0.01,
            finished_at: 99 * DAY,
        };
        tests.iter().map(run).collect()
    };
    let history = |version: &str, failures, today| {
        let source = TestSource { fingerprint: fingerprint(version), risks: Vec::new(), body: None };
        History::new(&tests, &vec![source; tests.len()], past(failures), today * DAY)
    };
    for guarantee in Guarantee::ALL {
        let question = adaptive(ScopeChoice::Auto, guarantee);
        let cost = |history: &History| {
            let ledger = carry_out_knowing(&model, &question, history, 1);
            everything_is_answered(&model, &question, &ledger, history);
            ledger.container_seconds()
        };
        let new = cost(&History::default());
        let known = cost(&history("a", 0, 100));
        assert!(known < 0.12 * new, "{guarantee:?}: {known} {new}");
        for again in [history("b", 0, 100), history("a", 1, 100), history("a", 0, 1_000)] {
            let cost = cost(&again);
            assert!(cost > 0.6 * new, "{guarantee:?}: {cost} {new}");
        }
    }
}

#[test]
fn a_budget_too_small_for_one_round_is_refused_with_one_that_is_not() {
    const DAY: i64 = 86_400_000_000;
    let tests = Model::new(&[], 40, CALM).ids();
    let source = TestSource { fingerprint: Digest::of(b"new"), risks: Vec::new(), body: None };
    let run = |test: &TestId| PastRun {
        test: test.clone(),
        fingerprint: Some(Digest::of(b"old")),
        attempts: 80,
        failures: 0,
        seconds: 0.5,
        finished_at: DAY,
    };
    let known = History::new(&tests, &vec![source; tests.len()], tests.iter().map(run), 2 * DAY);
    #[track_caller]
    fn check(tests: &[TestId], scope: ScopeChoice, budget: &str, history: &History, expect: Option<&str>) {
        let budget = Some(budget.parse().unwrap());
        let question = Question { budget, ..adaptive(scope, Guarantee::PerTest) };
        let found = affords_one_round(&question, tests, history).map_err(|error| error.to_string());
        match expect {
            None => assert_eq!(found, Ok(())),
            Some(least) => assert!(found.clone().unwrap_err().ends_with(least), "{found:?}"),
        }
    }
    let new = History::default();
    check(&tests, ScopeChoice::Test, "attempts:39", &new, Some("that takes attempts:40"));
    check(&tests, ScopeChoice::Test, "attempts:40", &new, None);
    check(&tests, ScopeChoice::File, "attempts:3", &new, Some("that takes attempts:4"));
    check(&tests, ScopeChoice::Auto, "attempts:1", &new, None);
    check(&tests, ScopeChoice::Auto, "container:1s", &new, None);
    check(&tests, ScopeChoice::Auto, "container:20s", &known, Some("that takes container:22s"));
    check(&tests, ScopeChoice::Auto, "22s", &known, None);
    check(&tests, ScopeChoice::Test, "10s", &known, Some("that takes 20s"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn adaptive_sweeps_lose_nothing_in_a_storm(
        chaos: u64, scope in 0..4_usize, suite: bool, crash in 0.0..1.0_f64,
    ) {
        let mut named = zoo();
        named.push(("tests/test_1.py::test_segfaults", Kind::Crashes(crash)));
        named.push(("tests/test_2.py::test_hangs", Kind::HangsInSuites));
        let model = Model::new(&named, 12, STORM);
        let guarantee = Guarantee::ALL[usize::from(suite)];
        let max_flake_rate = Rate::new(0.2).unwrap();
        let question = Question { seed: chaos, max_flake_rate, ..adaptive(ScopeChoice::ALL[scope], guarantee) };
        let ledger = carry_out(&model, &question, chaos);
        everything_is_answered(&model, &question, &ledger, &History::default());
    }

    #[test]
    fn adaptive_plans_do_not_depend_on_the_order_of_arrival(chaos: u64, cut in 0.0..1.0_f64) {
        let model = Model::new(&zoo(), 6, STORM);
        let max_flake_rate = Rate::new(0.3).unwrap();
        let question = Question { max_flake_rate, ..adaptive(ScopeChoice::Auto, Guarantee::PerSuite) };
        let (one, other) = noted_twice(&model, &question, chaos, cut);
        prop_assert_eq!(next(&question, &one), next(&question, &other));
        let of = |ledger: &Ledger| answers(&question, ledger, &History::default());
        prop_assert_eq!(of(&one), of(&other));
    }
}
