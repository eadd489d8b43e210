//! The laws of test frameworks, on every one of them: on this machine's Python, real processes. One project of
//! unittest's cases, which all frameworks run; what each is called is the framework's own.

#[path = "pytest_plugin/venv.rs"]
mod venv;

use flakefarm_shared::project::Framework;
use flakefarm_shared::{
    AttemptEnd, Circumstance, ClockStart, Detail, Digest, ExpectedFailure, FailureKind, NothingRan, Order,
    Outcome, Phase, Remark, Sample, TestId, TestParts, World, Zone,
};
use flakefarm_tests::plugin::{self, PATIENCE};
use flakefarm_worker::frameworks;
use flakefarm_worker::frameworks::python::RunRequest;
use flakefarm_worker::frameworks::reader::AttemptReading;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

struct Subject {
    framework: Framework,
    python: PathBuf,
    home: tempfile::TempDir,
}

impl Subject {
    fn new(framework: Framework) -> Self {
        let python = match framework {
            Framework::Pytest => venv::python().to_owned(),
            // Nothing but the interpreter.
            Framework::Unittest => PathBuf::from("python3"),
        };
        let home = tempfile::tempdir().expect("a temporary directory");
        plugin::copy(&plugin::fixture("unittest", "contract"), &home.path().join("work"));
        Self { framework, python, home }
    }

    fn work(&self) -> PathBuf {
        self.home.path().join("work")
    }

    fn ask(&self, request: RunRequest<'_>, limit: Duration) -> AttemptReading {
        let plugin_files = self.home.path().join("plugin");
        if plugin_files.exists() {
            std::fs::remove_dir_all(&plugin_files).expect("the plugin can be put there anew");
        }
        plugin::attempt(self.framework, self.home.path(), &self.python, request, limit)
    }

    fn run(&self, tests: Option<&[TestId]>, order: Order, world: World) -> AttemptReading {
        self.ask(RunRequest::Run { tests, order, detail: Detail::Outcomes, world }, PATIENCE)
    }

    /// As the framework spells it.
    fn id(&self, file: &str, class: &str, name: &str) -> TestId {
        TestId(match self.framework {
            Framework::Pytest => format!("tests/{file}.py::{class}::{name}"),
            Framework::Unittest => format!("tests.{file}.{class}.{name}"),
        })
    }

    fn ids(&self, file: &str, class: &str, names: &[&str]) -> Vec<TestId> {
        names.iter().map(|name| self.id(file, class, name)).collect()
    }
}

fn parts(file: &str, class: &str, name: &str, ordinal: u32) -> TestParts {
    TestParts {
        file: format!("tests/{file}.py"),
        classes: class.split('.').map(str::to_owned).collect(),
        name: name.to_owned(),
        parameters: None,
        ordinal,
    }
}

fn of<'a>(reading: &'a AttemptReading, test: &TestId) -> &'a Sample {
    let found = reading.samples.iter().map(|read| &read.sample).find(|sample| sample.test == *test);
    found.unwrap_or_else(|| panic!("no sample of {test}: {reading:#?}"))
}

#[track_caller]
fn failed(reading: &AttemptReading, test: &TestId) -> flakefarm_shared::Failure {
    match &of(reading, test).outcome {
        Outcome::Fail(failure) => failure.clone(),
        other => panic!("{test}: {other:?}"),
    }
}

fn a_listing_tells_what_there_is(subject: &Subject) {
    let listing = subject.ask(RunRequest::List, PATIENCE);
    assert_eq!(listing.end, AttemptEnd::Completed);
    assert_eq!((listing.samples.len(), listing.garbage_lines), (0, 0));
    let name = frameworks::of(subject.framework).name;
    assert!(listing.framework_version.starts_with(name), "{}", listing.framework_version);
    assert!(listing.framework_version.contains(", CPython 3."), "{}", listing.framework_version);
    let broken: Vec<&str> = listing.collection_errors.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(broken, ["tests/test_broken.py"]);
    assert!(listing.collection_errors[0].message.contains("no_such_module_anywhere"));
    let skipped: Vec<&str> = listing.skipped_files.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(skipped, ["tests/test_skipped.py"]);
    assert_eq!((listing.parts.len(), listing.sources.len()), (listing.tests.len(), listing.tests.len()));
    let told: BTreeSet<(&TestId, &TestParts)> = listing.tests.iter().zip(&listing.parts).collect();
    for (file, class, name) in [
        ("test_outcomes", "Outcomes", "test_passes"),
        ("test_outcomes", "Coroutines", "test_fails"),
        ("test_module", "Second", "test_one"),
    ] {
        let known = (&subject.id(file, class, name), &parts(file, class, name, 1));
        assert!(told.contains(&known), "{known:?} is not in {told:#?}");
    }
    let keys: BTreeSet<Digest> = listing.parts.iter().map(TestParts::key).collect();
    assert_eq!(keys.len(), listing.tests.len(), "no two tests are kept as one");
    let run = subject.run(None, Order::Given, World::Plain);
    assert_eq!(run.tests, listing.tests);
    let ended: Vec<TestId> = run.samples.iter().map(|read| read.sample.test.clone()).collect();
    assert_eq!(ended, run.tests, "every collected test has a sample, in the order told");
}

fn outcomes_mean_the_same(subject: &Subject) {
    let reading = subject.run(None, Order::Given, World::Plain);
    assert_eq!(reading.end, AttemptEnd::Completed);
    assert_eq!(reading.garbage_lines, 0, "nothing but events on the channel");
    let own = |name: &str| subject.id("test_outcomes", "Outcomes", name);
    let other = |class: &str, name: &str| subject.id("test_outcomes", class, name);
    assert_eq!(of(&reading, &own("test_passes")).outcome, Outcome::Pass);
    let failure = failed(&reading, &own("test_asserts"));
    assert_eq!((failure.kind, failure.phase), (FailureKind::Assertion, Phase::Call));
    assert!(failure.message.contains("they differ"), "{}", failure.message);
    assert_eq!(
        failure.frames.last().map(|frame| (frame.path.as_str(), frame.function.as_str())),
        Some(("tests/test_outcomes.py", "test_asserts"))
    );
    let read = reading.samples.iter().find(|read| read.sample.test == own("test_asserts")).expect("found");
    let output = read.output.as_deref().unwrap_or_default();
    for said in ["printed before the failure", "written below Python", "AssertionError", "test_outcomes.py"] {
        assert!(output.contains(said), "{said:?} is not in {output}");
    }
    let failure = failed(&reading, &own("test_raises"));
    assert_eq!(failure.kind, FailureKind::Exception);
    assert_eq!(failure.exceptions, ["builtins.ValueError", "builtins.KeyError"]);
    assert_eq!(failed(&reading, &own("test_exits")).exceptions, ["builtins.SystemExit"]);
    assert_eq!(failed(&reading, &own("test_interrupts")).exceptions, ["builtins.KeyboardInterrupt"]);
    let skip = |reason: &str| Outcome::Skip { reason: reason.to_owned() };
    assert_eq!(of(&reading, &own("test_skips")).outcome, skip("not today"));
    assert_eq!(of(&reading, &own("test_skips_itself")).outcome, skip("thought better of it"));
    let expected = of(&reading, &own("test_expected_failure"));
    assert_eq!(
        (&expected.outcome, expected.expected_failure),
        (&Outcome::Pass, Some(ExpectedFailure::Failed))
    );
    failed(&reading, &own("test_unexpected_success"));
    let failure = failed(&reading, &own("test_parts"));
    let part = Circumstance::SubTest { name: "part (number=1)".to_owned() };
    assert!(failure.circumstances.contains(&part), "{failure:?}");
    assert!(failure.message.contains("part"), "{}", failure.message);
    for class in ["SetUpFails", "TearDownFails", "CleanupFails"] {
        failed(&reading, &other(class, "test_one"));
    }
    // What the fixtures of a class or a module raise is raised under a test, and said to be theirs.
    let fixture =
        |name: &str, scope: &str| Circumstance::Fixture { name: name.to_owned(), scope: scope.to_owned() };
    for name in ["test_one", "test_two"] {
        let failure = failed(&reading, &other("ClassFails", name));
        assert_eq!((failure.phase, failure.message.as_str()), (Phase::Setup, "class"));
        assert_eq!(failure.circumstances, [fixture("setUpClass", "class")]);
    }
    assert_eq!(of(&reading, &other("ClassSkips", "test_one")).outcome, skip("no class today"));
    // What they raise afterwards is no failure of the test that happened to come last.
    for name in ["test_one", "test_two"] {
        assert_eq!(of(&reading, &other("ClassEndsBadly", name)).outcome, Outcome::Pass);
    }
    let torn_down = reading.remarks.iter().find_map(|remark| match remark {
        Remark::TearDown { fixture, scope, home, last, failure } => {
            Some((fixture.as_str(), scope.as_str(), home.ends_with("ClassEndsBadly"), last, failure))
        }
        _ => None,
    });
    let (name, scope, is_at_home, last, failure) = torn_down.expect("the tear-down is told apart");
    assert_eq!((name, scope, is_at_home), ("tearDownClass", "class", true));
    assert_eq!(last, &other("ClassEndsBadly", "test_two"));
    assert_eq!((failure.phase, failure.message.as_str()), (Phase::Teardown, "class tear-down"));
    for class in ["First", "Second"] {
        let failure = failed(&reading, &subject.id("test_module", class, "test_one"));
        assert_eq!(failure.circumstances, [fixture("setUpModule", "module")]);
    }
    assert_eq!(of(&reading, &other("Coroutines", "test_passes")).outcome, Outcome::Pass);
    failed(&reading, &other("Coroutines", "test_fails"));
    for read in &reading.samples {
        let phases = read.sample.phases.expect("phases are told");
        assert_eq!(phases.setup_us + phases.call_us + phases.teardown_us, read.sample.wall_us);
    }
}

fn orders_are_what_was_asked_for(subject: &Subject) {
    let given = subject.run(None, Order::Given, World::Plain).tests;
    let mut reversed = given.clone();
    reversed.reverse();
    assert_eq!(subject.run(None, Order::Reversed, World::Plain).tests, reversed);
    let mut shuffled = given.clone();
    shuffled.sort_by_key(|test| Digest::of(format!("7:{test}").as_bytes()).to_string());
    let reading = subject.run(None, Order::Shuffled { seed: 7 }, World::Plain);
    let ended: Vec<TestId> = reading.samples.iter().map(|read| read.sample.test.clone()).collect();
    assert_eq!(ended, shuffled, "told and run in the order of digests");
    // Fixtures of classes are made as often as it takes.
    assert!(
        failed(&reading, &subject.id("test_outcomes", "ClassFails", "test_two")).message.contains("class")
    );
    let asked = [
        subject.id("test_worlds", "Worlds", "test_umask"),
        subject.id("test_outcomes", "Outcomes", "test_passes"),
        subject.id("test_outcomes", "Outcomes", "test_gone"),
        subject.id("test_worlds", "Worlds", "test_clock"),
    ];
    let reading = subject.run(Some(&asked), Order::AsListed, World::Plain);
    assert_eq!(reading.tests, [asked[0].clone(), asked[1].clone(), asked[3].clone()]);
    assert_eq!(reading.missing, [asked[2].clone()]);
    let nothing = subject.run(Some(&asked[2..3]), Order::Given, World::Plain);
    let AttemptEnd::NothingRan { why, .. } = nothing.end else { panic!("{nothing:#?}") };
    assert_eq!(why, NothingRan::NothingCollected);
}

fn tests_of_one_name_are_told_apart(subject: &Subject) {
    let file = subject.work().join("tests/test_again.py");
    let twice = "from tests.test_state import State\nAgain = State\n";
    std::fs::write(file, twice).expect("a file");
    let reading = subject.run(None, Order::Given, World::Plain);
    let names: BTreeSet<&TestId> = reading.tests.iter().collect();
    assert_eq!(names.len(), reading.tests.len());
    let expected = subject.id("test_state", "State", "test_leaves_things");
    assert!(reading.tests.contains(&expected));
    if subject.framework == Framework::Unittest {
        // It calls them the same, from wherever they are loaded.
        let second = TestId(format!("{expected}#2"));
        assert!(
            reading.remarks.contains(&Remark::SharedIds { tests: vec![expected.clone()] }),
            "{:?}",
            reading.remarks
        );
        let alone = subject.run(Some(std::slice::from_ref(&second)), Order::Given, World::Plain);
        assert!(alone.tests.contains(&second) && alone.missing.is_empty(), "{alone:#?}");
    }
}

fn what_ends_an_attempt_is_charged_to_the_test_that_ran(subject: &Subject) {
    std::fs::write(subject.work().join("deadly"), "").expect("a file");
    let asked = |name: &str| subject.ids("test_deadly", "Deadly", &["test_a_passes", name, "test_e_passes"]);
    for (name, by, limit) in [
        ("test_b_ends", FailureKind::Crash { exit_code: 0 }, PATIENCE),
        ("test_c_kills", FailureKind::Crash { exit_code: 137 }, PATIENCE),
        ("test_d_hangs", FailureKind::Timeout { limit_ms: 2_000 }, Duration::from_secs(2)),
    ] {
        let tests = asked(name);
        let request = RunRequest::Run {
            tests: Some(&tests),
            order: Order::Given,
            detail: Detail::Outcomes,
            world: World::Plain,
        };
        let reading = subject.ask(request, limit);
        assert_eq!(reading.end, AttemptEnd::Interrupted { by, running: tests[1].clone() }, "{name}");
        let failures: Vec<bool> =
            reading.samples.iter().map(|read| read.sample.outcome.is_failure()).collect();
        assert_eq!(failures, [false, true], "{name}: the last test is missing");
    }
}

fn worlds_are_given_or_refused(subject: &Subject) {
    let failing = |world: World| {
        let reading = subject.run(None, Order::Given, world);
        assert_eq!(reading.end, AttemptEnd::Completed, "{world}");
        let own = |sample: &&Sample| sample.test.as_str().contains("Worlds");
        let failed = reading.samples.iter().map(|read| &read.sample).filter(own);
        let failed = failed.filter(|sample| sample.outcome.is_failure()).map(|sample| sample.test.clone());
        failed.collect::<BTreeSet<TestId>>()
    };
    for (world, expect) in [
        (World::Plain, &[][..]),
        (World::Twice, &["test_twice", "test_twice_in_one_class"]),
        (World::TimeZone(Zone::Ahead), &["test_time_zone"]),
        (World::Clock(ClockStart::Days(20_000)), &["test_clock"]),
        (World::Umask, &["test_umask"]),
        (World::WarningsAsErrors, &["test_warnings"]),
    ] {
        let expect: BTreeSet<TestId> = subject.ids("test_worlds", "Worlds", expect).into_iter().collect();
        assert_eq!(failing(world), expect, "{world}");
    }
    // The home directory remembers what the seed gave before.
    failing(World::RandomSeed { seed: 3 });
    let again = failing(World::RandomSeed { seed: 3 });
    assert_eq!(again, BTreeSet::from([subject.id("test_worlds", "Worlds", "test_random_seed")]));
    let able = frameworks::of(subject.framework).capabilities();
    for world in World::catalogue().iter().filter(|world| !able.gives(**world)) {
        let reading = subject.run(None, Order::Given, *world);
        let AttemptEnd::NothingRan { why, .. } = reading.end else { panic!("{world}: {reading:#?}") };
        assert_eq!(why, NothingRan::Unavailable, "{world}");
    }
}

fn what_a_test_changes_and_prints_is_told_if_asked(subject: &Subject) {
    let tests = [subject.id("test_state", "State", "test_leaves_things")];
    let request = RunRequest::Run {
        tests: Some(&tests),
        order: Order::Given,
        detail: Detail::State,
        world: World::Plain,
    };
    let reading = subject.ask(request, PATIENCE);
    let detail = &reading.details[0];
    assert!(detail.output.contains("words"), "{detail:?}");
    let changed = |kind: &str, name: &str| detail.changes.iter().any(|c| c.kind == kind && c.name == name);
    assert!(changed("environment variable", "LEFT_BEHIND"), "{detail:?}");
    assert!(changed("module global", "tests.test_state.LEFT"), "{detail:?}");
}

macro_rules! laws {
    ($framework:ident: $subject:expr) => {
        mod $framework {
            use super::*;
            laws!(@each $subject;
                a_listing_tells_what_there_is,
                outcomes_mean_the_same,
                orders_are_what_was_asked_for,
                tests_of_one_name_are_told_apart,
                what_ends_an_attempt_is_charged_to_the_test_that_ran,
                worlds_are_given_or_refused,
                what_a_test_changes_and_prints_is_told_if_asked
            );
        }
    };
    (@each $subject:expr; $($law:ident),*) => {
        $(#[test]
        fn $law() {
            super::$law(&Subject::new($subject));
        })*
    };
}

laws!(pytest: Framework::Pytest);
laws!(unittest: Framework::Unittest);

/// Runs unittest on a project of these files.
fn unittest_on(files: &[(&str, &str)], request: RunRequest<'_>) -> AttemptReading {
    let home = tempfile::tempdir().expect("a temporary directory");
    for (path, content) in files {
        let path = home.path().join("work").join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, content).expect("a file");
    }
    plugin::attempt(Framework::Unittest, home.path(), Path::new("python3"), request, PATIENCE)
}

const CASE: &str = "import unittest\nclass A(unittest.TestCase):\n    def test_a(self): pass\n";

#[test]
fn unittest_finds_tests_where_its_own_discovery_does_and_where_projects_keep_them() {
    let settings = |text: &'static str| ("flakefarm.toml", text);
    for (files, tests, path) in [
        (vec![("tests/__init__.py", ""), ("tests/test_a.py", CASE)], vec!["tests.test_a.A.test_a"], vec![]),
        // Of a directory that is no package, modules are named from there.
        (vec![("tests/test_a.py", CASE)], vec!["test_a.A.test_a"], vec!["tests"]),
        (
            vec![
                ("src/shop/__init__.py", ""),
                ("src/shop/tests/__init__.py", ""),
                ("src/shop/tests/test_a.py", CASE),
            ],
            vec!["shop.tests.test_a.A.test_a"],
            vec!["src"],
        ),
        (
            vec![
                ("checks/check_a.py", CASE),
                settings("[tests]\npaths=['checks']\narguments=['-p', 'check*.py']\n"),
            ],
            vec!["check_a.A.test_a"],
            vec!["checks"],
        ),
        (
            vec![
                ("t/__init__.py", ""),
                ("t/test_a.py", CASE),
                settings("[tests]\narguments=['discover', '-s', 't']\n"),
            ],
            vec!["test_a.A.test_a"],
            vec!["t"],
        ),
        (
            vec![
                ("a/__init__.py", ""),
                ("a/test_a.py", CASE),
                ("test_b.py", CASE),
                settings("[tests]\narguments=['a.test_a']\n"),
            ],
            vec!["a.test_a.A.test_a"],
            vec![],
        ),
    ] {
        let listing = unittest_on(&files, RunRequest::List);
        let expected: Vec<TestId> = tests.iter().map(|test| TestId::from(*test)).collect();
        assert_eq!(
            (&listing.tests, &listing.path),
            (&expected, &path.iter().map(|p| (*p).to_owned()).collect()),
            "{listing:#?}"
        );
        assert!(!listing.parts[0].file.is_empty(), "{:?}", listing.parts);
        let run = RunRequest::Run {
            tests: Some(&expected),
            order: Order::Given,
            detail: Detail::Outcomes,
            world: World::Plain,
        };
        let reading = unittest_on(&files, run);
        assert_eq!((reading.samples.len(), reading.missing.len()), (1, 0), "{reading:#?}");
    }
}

#[test]
fn what_load_tests_makes_is_run_and_named() {
    let file = "
import doctest, unittest

def double(x):
    '''
    >>> double(2)
    4
    '''
    return 2 * x

class Numbered(unittest.TestCase):
    def __init__(self, number):
        super().__init__('run_it')
        self.number = number

    def id(self):
        return super().id() + '(%d)' % self.number

    def run_it(self):
        self.assertLess(self.number, 1)

def load_tests(loader, tests, pattern):
    tests = unittest.TestSuite()
    tests.addTests(doctest.DocTestSuite(__name__))
    tests.addTests(Numbered(number) for number in range(2))
    return tests
";
    let files =
        [("test_made.py", file), ("test_cannot.py", "def load_tests(*others):\n    raise OSError('no')\n")];
    let run =
        |tests| RunRequest::Run { tests, order: Order::Given, detail: Detail::Outcomes, world: World::Plain };
    let reading = unittest_on(&files, run(None));
    let names = ["test_made.double", "test_made.Numbered.run_it(0)", "test_made.Numbered.run_it(1)"];
    assert_eq!(reading.tests, names.map(TestId::from));
    let failures: Vec<bool> = reading.samples.iter().map(|read| read.sample.outcome.is_failure()).collect();
    assert_eq!(failures, [false, false, true]);
    assert_eq!(reading.collection_errors.len(), 1);
    assert_eq!(reading.collection_errors[0].path, "test_cannot.py");
    let one = [TestId::from(names[1])];
    assert_eq!(unittest_on(&files, run(Some(&one))).tests, one);
}

#[test]
fn arguments_that_unittest_does_not_know_are_refused() {
    let settings = ("flakefarm.toml", "[tests]\narguments=['--no-such-option']\n");
    let reading = unittest_on(&[("test_a.py", CASE), settings], RunRequest::List);
    let AttemptEnd::NothingRan { why, reason } = reading.end else { panic!("{reading:#?}") };
    assert_eq!(why, NothingRan::Refused);
    assert!(reason.contains("--no-such-option"), "{reason}");
}
