//! What a default sweep costs beside a fixed number of runs of the suite, and that it finds no less.

use super::*;
use crate::experiment::JobPhase;
use crate::plan::Panel;
use crate::simulate::attempt::CONTAINER_SECONDS;
use flakefarm_shared::{ProjectSpec, Zone, project::Framework};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

const WORKERS: u16 = 2;

/// What a sweep made, spent and found.
struct Swept {
    seconds: f64,
    flagged: BTreeSet<TestId>,
    /// Categories of the flagged tests.
    named: BTreeMap<TestId, Category>,
    /// Attempts and seconds by phase and scope.
    phases: BTreeMap<String, (u32, f64)>,
}

fn swept(model: &Model, question: &Question, luck: u64) -> Swept {
    let workers = usize::from(WORKERS);
    let farm = Farm {
        population: &model.population,
        weather: Weather::CALM,
        workers,
        gather: 1,
        seed: luck,
        starts_at: 0,
    };
    let history = History::new(&model.ids(), &model.population.sources(), [], 0);
    let ledger = farm.carry_out(question, &history, &mut plan).unwrap().ledger;
    let mut found = Swept {
        seconds: ledger.container_seconds(),
        flagged: BTreeSet::new(),
        named: BTreeMap::new(),
        phases: BTreeMap::new(),
    };
    let answers = answers(question, &ledger, &history);
    let worlds = WorldsSeen::read(&ledger);
    for TestModel { id, nature, .. } in model.tests() {
        let judged = assess(question, &ledger, &answers, &worlds, id);
        assert!(fitting(nature).contains(&judged.verdict), "{id} {nature:?}: {judged:#?}");
        if matches!(judged.verdict, Verdict::Flaky | Verdict::Fragile | Verdict::Broken) {
            found.flagged.insert(id.clone());
            found.named.extend(judged.category.map(|finding| (id.clone(), finding.category)));
        }
    }
    for attempt in ledger.each_attempt() {
        if let (Some(spec), crate::experiment::Standing::Ended(record)) = (attempt.spec, attempt.standing) {
            let world = if attempt.key.phase == JobPhase::Look { "" } else { word(spec.treatment.world) };
            let name = format!("{:?} {:?} {world}", attempt.key.phase, spec.scope);
            let entry = found.phases.entry(name).or_default();
            *entry = (entry.0 + 1, entry.1 + record.wall_us as f64 / 1e6);
        }
    }
    found
}

fn word(world: World) -> &'static str {
    match world {
        World::Twice => "twice",
        World::CpuContention { .. } => "busy",
        _ => "",
    }
}

/// A suite whose tests take `seconds` together.
fn suite(named: &[(&str, Kind)], size: usize, seconds: f64) -> Model {
    let mut model = Model::new(named, size - named.len(), Weather::CALM);
    let each = seconds / size as f64;
    // One source shows that time matters to it: the others were read, too.
    model.population.tests[0].risks = vec![flakefarm_shared::Risk::Sleep];
    model.population.tests.iter_mut().for_each(|test| test.seconds = each);
    model
}

fn default_question(seed: u64) -> Question {
    let panel = Panel::Quick.worlds(&ProjectSpec::of_image("p", Framework::Pytest, "i"), 0);
    Question {
        panel,
        runs: Runs::Adaptive,
        workers: NonZeroU16::new(WORKERS).unwrap(),
        ..Question::detect(seed)
    }
}

fn scenarios() -> Vec<(&'static str, Vec<(&'static str, Kind)>)> {
    let victims = vec![
        ("tests/test_0.py::test_polluter", Kind::Steady),
        ("tests/test_1.py::test_victim_a", Kind::VictimOf("tests/test_0.py::test_polluter")),
        ("tests/test_1.py::test_victim_b", Kind::VictimOf("tests/test_0.py::test_polluter")),
        ("tests/test_1.py::test_victim_c", Kind::VictimOf("tests/test_0.py::test_polluter")),
        ("tests/test_2.py::test_victim_d", Kind::VictimOf("tests/test_0.py::test_polluter")),
        ("tests/test_2.py::test_victim_e", Kind::VictimOf("tests/test_0.py::test_polluter")),
    ];
    let broken = [
        "tests/test_0.py::test_broken_a",
        "tests/test_0.py::test_broken_b",
        "tests/test_1.py::test_broken_c",
        "tests/test_2.py::test_broken_d",
        "tests/test_3.py::test_broken_e",
        "tests/test_3.py::test_broken_f",
    ];
    let ahead = World::TimeZone(Zone::Ahead);
    let fragile = vec![
        ("tests/test_0.py::test_zone_a", Kind::FailsUnder(ahead)),
        ("tests/test_0.py::test_zone_b", Kind::FailsUnder(ahead)),
        ("tests/test_1.py::test_zone_c", Kind::FailsUnder(ahead)),
        ("tests/test_2.py::test_zone_d", Kind::FailsUnder(ahead)),
        ("tests/test_3.py::test_twice", Kind::FailsUnder(World::Twice)),
    ];
    vec![
        ("all healthy", Vec::new()),
        ("one flaky", vec![("tests/test_3.py::test_random", Kind::Flakes(0.3))]),
        ("one seldom flaky", vec![("tests/test_3.py::test_seldom", Kind::Flakes(0.06))]),
        ("a victim", victims[..2].to_vec()),
        ("five victims", victims),
        ("one broken", vec![(broken[0], Kind::Broken)]),
        ("six broken", broken.iter().map(|name| (*name, Kind::Broken)).collect()),
        ("five fragile", fragile),
        ("all kinds", zoo()),
    ]
}

#[test]
fn a_default_sweep_costs_no_more_than_fifty_nine_runs_and_finds_no_less() {
    let (mut table, mut dear, mut rows) = (String::new(), 0, 0);
    let (mut named, mut flagged) = (0, 0);
    // Seconds of a suite of 100 tests beside the start of its container: mostly start, mostly tests.
    for in_tests in [0.2, 30.0] {
        for (name, tests) in scenarios() {
            let model = suite(&tests, 100, in_tests);
            let fixed = Question { panel: Vec::new(), ..question(ScopeChoice::Suite, 59) };
            let by_fixed = swept(&model, &fixed, 5);
            let by_default = swept(&model, &default_question(1), 5);
            assert!(by_default.flagged.is_superset(&by_fixed.flagged), "{name} {:?}", by_fixed.flagged);
            let cost = by_default.seconds / by_fixed.seconds;
            named += by_default.named.len();
            flagged += by_default.flagged.len();
            rows += 1;
            // Half a percent is what runs on a slow machine cost where tests are what costs, and nothing else saves;
            // two sweeps of one suite differ by more.
            dear += usize::from(cost >= 1.005);
            let _ = writeln!(table, "{in_tests:5.1} s + {CONTAINER_SECONDS}: {cost:.3} {name}");
            for (phase, (attempts, seconds)) in by_default.phases {
                let suites = seconds / by_fixed.seconds * 59.0;
                let _ = writeln!(table, "          {attempts:3} x  {suites:5.1} suites  {phase}");
            }
        }
    }
    println!("{table}{named} of {flagged} named");
    assert!(5 * dear <= rows, "{dear} of {rows} cost more\n{table}");
}
