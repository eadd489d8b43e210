//! Panels carried out: what is found under other worlds, what is not blamed on tests, what it costs.

use super::*;
use crate::experiment::{CauseCategory, Condition, JobPhase, SandboxChoice, Unbearable};
use crate::plan::Panel;
use flakefarm_shared::{Limits, ProjectSpec, SandboxLevel, Zone, project::Framework, project::Network};
use std::collections::BTreeSet;
use std::num::NonZeroU64;

const AHEAD: World = World::TimeZone(Zone::Ahead);
/// The quick panel's.
const SLOW: World = World::CpuContention { hogs: 3 };

fn project(network: Network, variables: &[(&str, &str)]) -> ProjectSpec {
    ProjectSpec {
        variables: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        limits: Limits { network, ..Limits::default() },
        ..ProjectSpec::of_image("p", Framework::Pytest, "i")
    }
}

fn with_panel(panel: Panel, runs: u32) -> Question {
    Question { panel: panel.worlds(&project(Network::None, &[]), 0), ..question(ScopeChoice::Auto, runs) }
}

/// With a fixed number of runs, and with as many as each answer takes.
fn with_panel_both_ways(panel: Panel, runs: u32) -> [Question; 2] {
    let fixed = with_panel(panel, runs);
    [fixed.clone(), Question { runs: Runs::Adaptive, ..fixed }]
}

fn suite_attempts(ledger: &Ledger) -> Vec<World> {
    let specs = ledger.each_attempt().filter_map(|attempt| attempt.spec);
    specs.filter(|spec| spec.scope == Scope::Suite).map(|spec| spec.treatment.world).collect()
}

#[test]
fn a_quick_panel_costs_at_most_fourteen_suite_runs_orders_included() {
    for network in [Network::None, Network::Bridge] {
        for variables in [&[][..], &[("PYTHONHASHSEED", "0")]] {
            let panel = Panel::Quick.worlds(&project(network, variables), 0);
            let question = Question { panel, ..question(ScopeChoice::Auto, 3) };
            let ledger = carry_out(&Model::new(&[], 12, CALM), &question, 1);
            let worlds = suite_attempts(&ledger);
            assert_eq!(worlds.len(), 14, "{worlds:?}");
            assert_eq!(worlds.iter().collect::<BTreeSet<_>>().len(), 12, "given, reversed, shuffled are one");
        }
    }
    let pinned = Panel::Quick.worlds(&project(Network::None, &[("PYTHONHASHSEED", "0")]), 0);
    assert!(pinned.contains(&World::HashSeed(flakefarm_shared::HashSeed::Random)));
    assert!(Panel::None.worlds(&project(Network::None, &[]), 0).is_empty());
}

#[test]
fn what_fails_elsewhere_only_is_fragile_and_what_fails_twice_is_flaky() {
    let model = Model::new(
        &[
            ("tests/test_0.py::test_zone", Kind::FailsUnder(AHEAD)),
            ("tests/test_1.py::test_twice", Kind::FailsUnder(World::Twice)),
            ("tests/test_2.py::test_broken", Kind::Broken),
            ("tests/test_3.py::test_random", Kind::Flakes(0.4)),
            ("tests/test_3.py::test_network", Kind::PassesUnder(World::NetworkOn)),
        ],
        20,
        CALM,
    );
    for question in with_panel_both_ways(Panel::Quick, 10) {
        let ledger = carry_out(&model, &question, 7);
        let zone = judge(&question, &ledger, "tests/test_0.py::test_zone");
        assert_eq!(zone.verdict, Verdict::Fragile, "{}", zone.stopped_because);
        assert_eq!(zone.failures, 0, "what fails elsewhere is no failure of the plain rate");
        let finding = zone
            .category
            .expect("three of three against none of ten and two against none of fifty are no chance");
        assert_eq!(finding.category, Category::Condition(CauseCategory::TimeZone));
        let under = zone.conditions.iter().find(|count| count.condition == Condition::World(AHEAD)).unwrap();
        // Among so many plain runs, one look that says the same is enough.
        let looks = if question.runs == Runs::Adaptive { 1 } else { 2 };
        assert_eq!((under.attempts, under.failures), (1 + looks, 1 + looks), "looked at alone");

        let twice = judge(&question, &ledger, "tests/test_1.py::test_twice");
        assert_eq!(twice.verdict, Verdict::Flaky, "{}", twice.stopped_because);
        assert_eq!(
            twice.category.map(|finding| finding.category),
            Some(Category::Condition(CauseCategory::NotIdempotent))
        );
        let network = judge(&question, &ledger, "tests/test_3.py::test_network");
        assert_eq!(network.verdict, Verdict::Fragile, "{}", network.stopped_because);
        assert!(network.stopped_because.starts_with("passed only 2 of 2 under network-on"));
        assert_eq!(judge(&question, &ledger, "tests/test_2.py::test_broken").verdict, Verdict::Broken);
        assert_eq!(judge(&question, &ledger, "tests/test_3.py::test_random").verdict, Verdict::Flaky);

        let steady = judge(&question, &ledger, "tests/test_0.py::test_steady_0");
        assert_eq!(steady.verdict, Verdict::Healthy, "{}", steady.stopped_because);
        let plain: u32 = steady
            .conditions
            .iter()
            .filter(|count| !matches!(count.condition, Condition::World(_)))
            .map(|count| count.attempts)
            .sum();
        assert_eq!(steady.attempts, plain, "runs elsewhere are no attempts of the plain rate");
        assert!(steady.stopped_because.contains("also clean under twice,"), "{}", steady.stopped_because);
    }
}

#[test]
fn a_world_that_breaks_the_project_accuses_nobody() {
    let breaks: Vec<String> = (0..12).map(|n| format!("tests/test_0.py::test_bears_not_{n}")).collect();
    let named: Vec<(&str, Kind)> =
        breaks.iter().map(|name| (name.as_str(), Kind::FailsUnder(AHEAD))).collect();
    let model = Model::new(&named, 8, CALM);
    for question in with_panel_both_ways(Panel::Quick, 6) {
        let ledger = carry_out(&model, &question, 3);
        for name in &breaks {
            let found = judge(&question, &ledger, name);
            assert_eq!(found.verdict, Verdict::Healthy, "{}", found.stopped_because);
        }
        let worlds = WorldsSeen::read(&ledger);
        assert!(worlds.not_given.is_empty(), "{worlds:?}");
        let unbearable: Vec<_> = worlds.unbearable.into_iter().collect();
        assert_eq!(unbearable, [(AHEAD, Unbearable { failing: 12, tests: 20 })]);
    }
}

#[test]
fn tests_that_wait_run_three_times_on_a_slow_machine() {
    let mut model = Model::new(&[], 12, CALM);
    model.population.tests[3].risks = vec![flakefarm_shared::Risk::Sleep];
    model.population.tests[7].risks = vec![flakefarm_shared::Risk::Clock];
    let sleeps = model.tests()[3].id.clone();
    let history = History::new(&model.ids(), &model.population.sources(), [], 0);
    let [fixed, adaptive] = with_panel_both_ways(Panel::Quick, 5);
    for (question, again) in [(fixed, 0), (adaptive, 2)] {
        let ledger = carry_out_knowing(&model, &question, &history, 4);
        let specs = ledger.each_attempt().filter_map(|attempt| attempt.spec);
        let mut slow: Vec<_> =
            specs.filter(|spec| spec.treatment.world == SLOW).map(|spec| spec.tests.clone()).collect();
        slow.sort_by_key(|tests| matches!(tests, Selection::Only(tests) if tests.len() == 1));
        assert_eq!(slow.len(), 1 + again, "{slow:?}");
        assert_eq!(slow[1..], vec![Selection::only(vec![sleeps.clone()]); again]);
    }
    for test in &mut model.population.tests {
        test.risks.push(flakefarm_shared::Risk::Concurrency);
        test.seconds = 1.0;
    }
    model.population.tests[3].seconds = 0.9;
    let history = History::new(&model.ids(), &model.population.sources(), [], 0);
    let ledger = carry_out_knowing(&model, &with_panel_both_ways(Panel::Quick, 5)[1], &history, 4);
    let specs = ledger.each_attempt().filter_map(|attempt| attempt.spec);
    let chosen = specs.filter(|spec| spec.treatment.world == SLOW).filter_map(|spec| match &spec.tests {
        Selection::Only(tests) => Some(tests.to_vec()),
        Selection::All => None,
    });
    for tests in chosen.collect::<Vec<_>>() {
        assert_eq!(tests.len(), 2, "1 % of 59 runs of 12 s and a start, of what takes four times as long");
        assert!(tests.contains(&sleeps), "the cheapest come first: {tests:?}");
    }
    let unread = carry_out(&model, &with_panel_both_ways(Panel::Quick, 5)[1], 4);
    let slow = suite_attempts(&unread).into_iter().filter(|world| *world == SLOW).count();
    assert_eq!(slow, 1, "nobody knows what they do");
}

#[test]
fn a_world_is_borne_or_not_by_tests_however_often_each_ran_there() {
    let wait = |n: usize| (format!("tests/test_0.py::test_waits_{n}"), Kind::FailsUnder(SLOW));
    let waiting: Vec<_> = (0..12).map(wait).collect();
    let named: Vec<_> = waiting.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
    let mut model = Model::new(&named, 16, CALM);
    for test in &mut model.population.tests {
        if test.id.0.contains("waits") {
            test.risks = vec![flakefarm_shared::Risk::Sleep];
        }
    }
    let history = History::new(&model.ids(), &model.population.sources(), [], 0);
    let question = with_panel_both_ways(Panel::Quick, 5)[1].clone();
    let ledger = carry_out_knowing(&model, &question, &history, 6);
    assert_eq!(WorldsSeen::read(&ledger).unbearable, std::collections::BTreeMap::new());
    let found =
        model.tests().iter().filter(|test| judge(&question, &ledger, &test.id.0).verdict == Verdict::Fragile);
    assert_eq!(found.count(), 12, "36 of 52 runs failed there, by 12 of 28 tests");
}

#[test]
fn a_world_that_cannot_be_given_is_left_out_with_a_note() {
    let mut model = Model::new(&[], 9, CALM);
    model.population.missing_worlds = vec![AHEAD, World::Twice];
    for question in with_panel_both_ways(Panel::Quick, 3) {
        let ledger = carry_out(&model, &question, 3);
        let tried = suite_attempts(&ledger).into_iter().filter(|world| *world == AHEAD).count();
        assert_eq!(tried, 1, "trying again would change nothing");
        let worlds = WorldsSeen::read(&ledger);
        assert_eq!(worlds.not_given.len(), 2, "{worlds:?}");
        assert_eq!(worlds.not_given[&World::Twice], "not to be had");
        assert!(ledger.nothing_ran().is_empty(), "the plain runs ran");
    }
}

#[test]
fn an_adaptive_sweep_varies_before_it_repeats() {
    let model = Model::new(&zoo(), 20, CALM);
    let [_, question] = with_panel_both_ways(Panel::Quick, 1);
    let mut ledger = Ledger::new(model.ids());
    let first = next(&question, &ledger).jobs;
    let attempts: usize = first.iter().map(|job| job.attempts.len()).sum();
    assert_eq!(attempts, usize::from(question.workers.get()), "nobody waits, and nothing is queued");
    for job in &first {
        ledger.note_planned(job.key, &job.attempts);
    }
    let mut dice = ChaCha8Rng::seed_from_u64(1);
    let made =
        Luck::new(&model.population, 1).make(&first[0].attempts[0], &WorkerId("w".into()), None, &mut dice);
    ledger.note_report(first[0].key, &report(first[0].key, vec![made]));
    let then = next(&question, &ledger).jobs;
    let worlds = |job: &PlannedJob| job.attempts.iter().filter(|spec| !spec.treatment.is_plain()).count();
    let panel: usize = then.iter().map(worlds).sum();
    assert_eq!(panel, question.panel.len() - 1, "all of the panel that concerns the suite");
    let more = then.iter().position(|job| job.key.phase == JobPhase::More).unwrap_or(then.len());
    assert!(then[more..].iter().all(|job| worlds(job) == 0), "the panel goes first");
}

#[test]
fn a_panel_adds_nothing_to_what_is_counted_of_plain_runs() {
    let model = Model::new(&zoo(), 20, CALM);
    let [_, question] = with_panel_both_ways(Panel::Quick, 1);
    let ledger = carry_out(&model, &question, 5);
    assert!(ledger.container_seconds() > ledger.plain_container_seconds());
    for test in model.ids() {
        let counted = ledger.tally_of(ledger.place(&test).unwrap()).heard();
        assert_eq!(counted as usize, ledger.plain(&test).count(), "{test}");
        assert!(ledger.observations(&test).len() > counted as usize, "{test} ran in other worlds, too");
    }
}

#[test]
fn a_budget_pays_for_the_panel_too() {
    let model = Model::new(&zoo(), 20, CALM);
    let [_, question] = with_panel_both_ways(Panel::Full, 1);
    for attempts in [4, 12, 40] {
        let budget = Some(Budget::Attempts(NonZeroU64::new(attempts).unwrap()));
        let question = Question { budget, ..question.clone() };
        let ledger = carry_out(&model, &question, 1);
        assert!(ledger.attempts() <= attempts, "{} of {attempts}", ledger.attempts());
        assert!(next(&question, &ledger).limited);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn panels_come_to_their_end_in_a_storm(chaos: u64, full: bool) {
        let model = Model::new(&zoo(), 12, STORM);
        for question in with_panel_both_ways(if full { Panel::Full } else { Panel::Quick }, 6) {
            let ledger = carry_out(&model, &question, chaos);
            match question.runs {
                Runs::Fixed(_) => nobody_is_accused_falsely(&model, &question, &ledger),
                Runs::Adaptive => {
                    adaptive::everything_is_answered(&model, &question, &ledger, &History::default());
                }
            }
        }
    }
}

#[test]
fn a_default_sweep_costs_about_the_fixed_number_and_its_clean_runs_elsewhere_count() {
    let panel = Panel::Quick.worlds(&project(Network::None, &[]), 0);
    let found_of = |model: &Model, question: &Question| {
        let ledger = carry_out(model, question, 5);
        let named = |test: &TestId| judge(question, &ledger, test.as_str());
        let flagged: BTreeSet<TestId> = ledger
            .tests()
            .iter()
            .filter(|test| matches!(named(test).verdict, Verdict::Flaky | Verdict::Fragile | Verdict::Broken))
            .cloned()
            .collect();
        (ledger, flagged)
    };
    let model = Model::new(&zoo(), 200, CALM);
    let fixed = Question { panel: Vec::new(), ..question(ScopeChoice::Suite, 59) };
    let default = Question { panel, runs: Runs::Adaptive, ..question(ScopeChoice::Auto, 59) };
    let (fixed, by_fixed) = found_of(&model, &fixed);
    let (ledger, by_default) = found_of(&model, &default);
    assert!(by_default.is_superset(&by_fixed), "{by_fixed:?} {by_default:?}");
    let share = ledger.container_seconds() / fixed.container_seconds();
    // Added to the repeats instead of counted among them, the panel made it 1.29.
    assert!(share <= 1.05, "{share}");
    let steady = judge(&default, &ledger, "tests/test_0.py::test_steady_0");
    assert_eq!(steady.verdict, Verdict::Healthy);
    assert!((40..59).contains(&steady.attempts), "{}", steady.stopped_because);
    assert!(steady.stopped_because.contains(" in other worlds"), "{}", steady.stopped_because);
}

#[test]
fn what_failed_only_in_prepared_interpreters_is_made_again_in_a_container() {
    let model = Model::new(&zoo(), 20, CALM);
    let victim = TestId::from("tests/test_1.py::test_victim");
    for runs in [Runs::Fixed(NonZeroU32::new(3).unwrap()), Runs::Adaptive] {
        for seed in 0..4 {
            let question =
                Question { runs, seed, sandbox: SandboxChoice::Forked, ..question(ScopeChoice::Suite, 3) };
            let ledger = carry_out(&model, &question, seed);
            let confirmed = ledger.observations(&victim).iter().any(|observation| {
                matches!(observation.seen, Seen::Fail(_)) && observation.level == SandboxLevel::Container
            });
            assert!(confirmed, "{runs:?} {seed}");
            assert!(ledger.keys_of(JobPhase::Confirm).count() <= 7);
        }
    }
}
