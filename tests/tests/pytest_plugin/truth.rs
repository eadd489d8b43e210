//! Nothing but the truth: what pytest loses or misplaces, and what tests do to how they are watched.

use super::*;
use flakefarm_shared::{Circumstance, ExpectedFailure, Failure, WideFixture};

fn run_project(files: &[(&str, &str)], world: World) -> AttemptReading {
    let home = tempfile::tempdir().expect("a temporary directory");
    for (name, content) in files {
        let path = home.path().join("work").join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, content).expect("a file");
    }
    let request = RunRequest::Run { tests: None, order: Order::Given, detail: Detail::Outcomes, world };
    attempt_at(home.path(), python(), request, PATIENCE)
}

fn failure<'a>(reading: &'a AttemptReading, ending: &str) -> &'a Failure {
    match &sample(reading, ending).sample.outcome {
        Outcome::Fail(failure) => failure,
        other => panic!("{ending} did not fail: {other:?}"),
    }
}

const HOOKS: [(&str, &str); 6] = [
    (
        "pytest_runtest_makereport",
        r#"
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    if (yield).get_result().failed: item.page.screenshot()
"#,
    ),
    (
        "pytest_runtest_makereport",
        r#"
def pytest_runtest_makereport(item, call):
    if call.excinfo: item.page.screenshot()
"#,
    ),
    ("pytest_exception_interact", "def pytest_exception_interact(node): node.page.screenshot()\n"),
    (
        "pytest_runtest_logreport",
        r#"
def pytest_runtest_logreport(report):
    if report.failed: raise AttributeError('page')
"#,
    ),
    (
        "pytest_runtest_logfinish",
        r#"
def pytest_runtest_logfinish(nodeid):
    if 'fails' in nodeid: raise AttributeError('page')
"#,
    ),
    (
        "pytest_exception_interact",
        r#"
import pytest
def pytest_exception_interact(): pytest.exit('AttributeError page')
"#,
    ),
];

#[test]
fn a_hook_that_raises_is_the_failure_of_the_test_it_was_called_for() {
    let tests = "def test_before(): pass\ndef test_fails(): assert 1 == 2\ndef test_after(): pass\n";
    for (hook, body) in HOOKS {
        let reading = run_project(&[("conftest.py", body), ("test_a.py", tests)], World::Plain);
        let running = TestId::from("test_a.py::test_fails");
        assert_eq!(reading.end, AttemptEnd::Interrupted { by: FailureKind::Framework, running }, "{hook}");
        let told: Vec<String> = reading.samples.iter().map(told).collect();
        assert_eq!(told[0], "test_a.py::test_before: pass", "{hook}: what ran before is kept");
        assert_eq!(told.len(), 2, "{hook}: {told:#?}");
        let failure = failure(&reading, "::test_fails");
        let named = Circumstance::Hook { name: hook.to_owned(), path: "conftest.py".to_owned() };
        assert_eq!(failure.circumstances, [named], "{failure:?}");
        assert!(failure.message.contains(hook) && failure.message.contains("page"), "{}", failure.message);
        assert!(failure.message.contains("after the test had failed: assert 1 == 2"), "{}", failure.message);
    }
}

#[test]
fn a_hook_that_raises_for_a_passing_test_is_a_failure_too() {
    let tests = ("test_a.py", "def test_a(): pass\n");
    let hook = "def pytest_runtest_teardown(item):\n    raise OSError('away')\n";
    let reading = run_project(&[("conftest.py", hook), tests], World::Plain);
    assert_eq!(told(&reading.samples[0]), "test_a.py::test_a: exception in teardown [builtins.OSError] away");
    let hook = "def pytest_runtest_logreport(report):\n    raise OSError('away')\n";
    let reading = run_project(&[("conftest.py", hook), tests], World::Plain);
    assert_eq!(failure(&reading, "test_a").kind, FailureKind::Framework);
}

#[test]
fn the_end_of_a_session_that_raises_is_said() {
    let hook = "def pytest_sessionfinish():\n    raise RuntimeError('report server is away')\n";
    let files = [("conftest.py", hook), ("test_a.py", "def test_a(): pass\n")];
    let reading = run_project(&files, World::Plain);
    assert_eq!((reading.end, reading.samples.len()), (AttemptEnd::Completed, 1));
    let [Remark::AbnormalEnd { exit_code: 3, text }] = &reading.remarks[..] else {
        panic!("{:?}", reading.remarks)
    };
    assert!(text.contains("report server is away"), "{text}");
}

#[test]
fn what_a_framework_clears_between_runs_is_there_in_the_next_pass() {
    let doctests = r#"
def double(n):
    """
    >>> double(2)
    4
    """
    return 2 * n
"#;
    let files = [
        ("pytest.ini", "[pytest]\naddopts = --doctest-modules\n"),
        ("double.py", doctests),
        ("test_x.txt", ">>> x = 1\n>>> x\n1\n"),
    ];
    let reading = run_project(&files, World::Twice);
    let told: Vec<String> = reading.samples.iter().map(told).collect();
    assert_eq!(told, ["double.py::double.double: pass", "test_x.txt::test_x.txt: pass"]);
}

const SPOILERS: &str = r#"
import pytest
@pytest.fixture(scope='session')
def basket(): return ['pear']
@pytest.fixture(scope='module')
def box(): return ['pear']
LEFT = ['pear']
def test_session(basket): basket.pop()
def test_module(box): box.pop()
def test_global(basket): LEFT.pop()
def test_sound(box): box.append(1)
class TestClass:
    @classmethod
    def setup_class(cls): cls.made = ['pear']
    def test_class(self): self.made.pop()
"#;

#[test]
fn a_test_that_spoils_a_fixture_of_a_wider_scope_is_not_idempotent_and_the_fixture_is_named() {
    let files = [("test_a.py", SPOILERS)];
    let plain = run_project(&files, World::Plain);
    assert!(plain.samples.iter().all(|read| !read.sample.outcome.is_failure()), "{plain:#?}");
    let reading = run_project(&files, World::Twice);
    let spoilt = |name: &str, scope: &str| Circumstance::SecondPass {
        fixtures: vec![WideFixture { name: name.to_owned(), scope: scope.to_owned() }],
    };
    assert_eq!(failure(&reading, "::test_session").circumstances, [spoilt("basket", "session")]);
    assert_eq!(failure(&reading, "::test_module").circumstances, [spoilt("box", "module")]);
    assert_eq!(failure(&reading, "::test_global").circumstances, [], "new fixtures do not help");
    let class = &failure(&reading, "::test_class").circumstances;
    assert_eq!(class, &[Circumstance::SecondPass { fixtures: Vec::new() }]);
    assert_eq!(sample(&reading, "::test_sound").sample.outcome, Outcome::Pass);
}

const TEAR_DOWNS: &str = r#"
import pytest
@pytest.fixture(scope='module', autouse=True)
def database():
    yield
    raise RuntimeError('not dropped')
@pytest.fixture
def lock():
    yield
    raise OSError('not given back')
def test_one(lock): pass
def test_two(): pass
"#;

#[test]
fn a_failing_tear_down_names_its_fixture_and_one_that_tests_share_is_no_tests_failure() {
    let shared = |reading: &AttemptReading| -> Vec<(String, String, String, TestId, String)> {
        let told = reading.remarks.iter().map(|remark| match remark {
            Remark::TearDown { fixture, scope, home, last, failure } => {
                (fixture.clone(), scope.clone(), home.clone(), last.clone(), failure.message.clone())
            }
            other => panic!("{other:?}"),
        });
        told.collect()
    };
    let database = |last: &str| {
        let text = |text: &str| text.to_owned();
        vec![(text("database"), text("module"), text("test_a.py"), TestId::from(last), text("not dropped"))]
    };
    let reading = run_project(&[("test_a.py", TEAR_DOWNS)], World::Plain);
    let lock = Circumstance::Fixture { name: "lock".to_owned(), scope: "function".to_owned() };
    assert_eq!(failure(&reading, "::test_one").circumstances, [lock]);
    assert_eq!(sample(&reading, "::test_two").sample.outcome, Outcome::Pass);
    assert_eq!(shared(&reading), database("test_a.py::test_two"));
    // Each test is the last one there.
    let reading = run_project(&[("test_a.py", &TEAR_DOWNS.replace("(lock)", "()"))], World::Twice);
    assert!(reading.samples.iter().all(|read| read.sample.outcome == Outcome::Pass), "{reading:#?}");
    assert_eq!(shared(&reading).len(), 2);
    // Both the test's own fixture and the shared one, and both the test and the shared one.
    let both = TEAR_DOWNS.replace("test_two(): pass", "test_two(lock): pass");
    let reading = run_project(&[("test_a.py", &both)], World::Plain);
    assert!(failure(&reading, "::test_two").message.contains("not given back"));
    assert_eq!(shared(&reading), database("test_a.py::test_two"));
    let both = TEAR_DOWNS.replace("test_two(): pass", "test_two(): assert 0");
    let reading = run_project(&[("test_a.py", &both)], World::Plain);
    assert_eq!(failure(&reading, "::test_two").phase, Phase::Call);
    assert_eq!(shared(&reading), database("test_a.py::test_two"));
}

const EXPECTED: &str = r#"
import pytest
@pytest.mark.xfail
def test_fails(): assert 0
@pytest.mark.xfail
def test_passes(): pass
@pytest.mark.xfail(reason='never run', run=False)
def test_not_run(): assert 0
def test_plain(): pass
"#;

#[test]
fn expected_failures_say_what_they_did_and_what_did_not_run_is_no_pass() {
    let reading = run_project(&[("test_a.py", EXPECTED)], World::Plain);
    let did = |ending: &str| sample(&reading, ending).sample.expected_failure;
    assert_eq!(did("::test_fails"), Some(ExpectedFailure::Failed));
    assert_eq!(did("::test_passes"), Some(ExpectedFailure::Passed));
    assert_eq!((did("::test_not_run"), did("::test_plain")), (None, None));
    let skip = "test_a.py::test_not_run: skip: expected to fail, not run: never run";
    assert_eq!(told(sample(&reading, "::test_not_run")), skip);
}

#[test]
fn a_file_that_is_skipped_as_a_whole_and_an_order_of_the_projects_own_are_told() {
    let conftest = r#"
import pytest
@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items):
    yield
    items.sort(key=lambda item: item.name)
"#;
    let module = r#"
import pytest
pytest.skip('no database', allow_module_level=True)
def test_x(): pass
"#;
    let tests = "def test_b(): pass\ndef test_a(): pass\n";
    let files = [("conftest.py", conftest), ("test_m.py", module), ("test_a.py", tests)];
    let reading = run_project(&files, World::Plain);
    assert_eq!(reading.remarks, [Remark::Reordered]);
    let [skipped] = &reading.skipped_files[..] else { panic!("{:?}", reading.skipped_files) };
    assert_eq!((skipped.path.as_str(), skipped.message.as_str()), ("test_m.py", "Skipped: no database"));
}

const FORGER: &str = r#"
import json, os
def say(event):
    for fd in range(3, 1024):
        try: os.write(fd, (json.dumps(event) + chr(10)).encode())
        except OSError: pass
END = {'e': 'end', 'i': 1, 'wall_us': 2**64 - 1, 'cpu_us': 5}
def test_forges():
    say(dict(END, test='test_a.py::test_victim', outcome='fail', phase='call', message='forged'))
    say(dict(END, test='test_a.py::test_broken', outcome='pass'))
    say({'e': 'finish', 'exit': 0})
    for fd in range(3, 1024):
        try: os.write(fd, b'half a line')
        except OSError: pass
def test_victim(): pass
def test_broken(): assert 0
"#;

#[test]
fn a_test_cannot_speak_for_others_in_passing() {
    let reading = run_project(&[("test_a.py", FORGER)], World::Plain);
    let outcomes: Vec<bool> = reading.samples.iter().map(|read| read.sample.outcome.is_failure()).collect();
    assert_eq!((reading.end, outcomes), (AttemptEnd::Completed, vec![false, false, true]));
    let what = "a result that is not pytest's own was written while `test_a.py::test_forges` ran".to_owned();
    assert_eq!(reading.remarks, [Remark::Tampering { what }]);
}

const CHILD: &str = r#"
import os, subprocess, sys
CODE = '''
import os, sys
links = []
for fd in os.listdir('/proc/self/fd'):
    try: links.append(os.readlink('/proc/self/fd/' + fd))
    except OSError: pass
sys.exit(' '.join(set(links) & set(os.environ['CHANNELS'].split())))
'''
def is_open(fd):
    try: os.fstat(fd)
    except OSError: return False
    return True
def test_child():
    kept = [fd for fd in range(200, 1024) if is_open(fd) and not os.get_inheritable(fd)]
    pipes = [os.readlink('/proc/self/fd/%d' % fd) for fd in kept]
    assert pipes, 'one of these is the channel'
    environment = dict(os.environ, CHANNELS=' '.join(pipes))
    done = subprocess.run([sys.executable, '-c', CODE], close_fds=False, env=environment, capture_output=True)
    assert done.stderr.strip() == b''
"#;

#[test]
fn a_child_of_a_test_has_no_way_to_the_channel() {
    let reading = run_project(&[("test_a.py", CHILD)], World::Plain);
    assert_eq!(reading.samples[0].sample.outcome, Outcome::Pass);
}
