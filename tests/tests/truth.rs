//! Nothing but the truth, as a person sees it: small projects of the kinds that other people's tools got wrong,
//! swept by the real command at several levels of isolation.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::harness::{command, project, report, said, with_verdict};
use serde_json::Value;
use std::process::Output;
use tempfile::TempDir;

const TOML: (&str, &str) = ("flakefarm.toml", "[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n");
/// The levels at which what is isolated must be true.
const LEVELS: [&str; 3] = ["container", "nested", "forked-only"];

/// Sweeps at a level of isolation.
fn sweep(level: &str, project: &TempDir, more: &[&str]) -> Output {
    let state = tempfile::tempdir().unwrap();
    command(state.path())
        .args(["sweep", "--seed", "1", "--format", "json", "--sandbox", level])
        .args(more)
        .arg(project.path())
        .output()
        .unwrap()
}

fn test<'a>(report: &'a Value, ending: &str) -> &'a Value {
    let tests = report["tests"].as_array().unwrap();
    let found = tests.iter().find(|test| test["id"].as_str().unwrap().ends_with(ending));
    found.unwrap_or_else(|| panic!("no {ending} in {report:#}"))
}

/// Sending anything needs a route, no server.
const WANTS_NETWORK: &str = "import socket, subprocess, sys
CODE = \"import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.1', 443))\"
def test_through_a_child():
    subprocess.run([sys.executable, '-c', CODE], check=True)
def test_itself():
    exec(CODE)
def test_fails_without():
    assert 0
";

#[test]
fn a_child_process_that_wants_a_network_is_told_like_a_test_that_does() {
    let project = project(&[TOML, ("test_net.py", WANTS_NETWORK)]);
    for level in LEVELS {
        let output = sweep(level, &project, &["--runs", "2", "--panel", "none"]);
        let report = report(&output);
        assert_eq!(with_verdict(&report, "broken").len(), 3, "{level}: {}", said(&output));
        for name in ["::test_through_a_child", "::test_itself"] {
            let why = test(&report, name)["stopped_because"].as_str().unwrap();
            assert!(why.contains("1 packet without a route") && why.contains("--under network-on"), "{why}");
        }
        let why = test(&report, "::test_fails_without")["stopped_because"].as_str().unwrap();
        assert!(!why.contains("network"), "{why}");
    }
    // Given where it can be given.
    let output = sweep("nested", &project, &["--runs", "2"]);
    let report = report(&output);
    let fragile = with_verdict(&report, "fragile");
    assert_eq!(
        fragile,
        ["test_net.py::test_itself", "test_net.py::test_through_a_child"],
        "{}",
        said(&output)
    );
    for name in fragile {
        assert_eq!(test(&report, &name)["cause"]["category"], "network");
    }
}

/// What is decided by nothing but the project itself.
const SURE: [(&str, &str); 5] = [
    (
        "test_ids.py",
        "import time, uuid, pytest
class Handler: pass
@pytest.mark.parametrize('handler', [Handler(), Handler()], ids=repr)
def test_handler(handler): pass
@pytest.mark.parametrize('token', [str(uuid.uuid4()), 'fixed'])
def test_token(token): pass
@pytest.mark.parametrize('stamp', [time.time_ns()])
def test_stamp(stamp): assert False, 'always'
",
    ),
    (
        "test_module.py",
        "import pytest
@pytest.fixture(scope='module', autouse=True)
def database():
    yield
    raise RuntimeError('the database could not be dropped')
def test_one(): pass
def test_two(): pass
def test_three(): assert 0
",
    ),
    (
        "test_class.py",
        "class TestShop:
    @classmethod
    def teardown_class(cls): raise OSError('shop stays open')
    def test_a(self): pass
    def test_b(self): pass
",
    ),
    (
        "test_own.py",
        "import pytest
@pytest.fixture
def lock():
    yield
    assert False, 'lock was not given back'
def test_lock(lock): pass
@pytest.mark.xfail(reason='never run', run=False)
def test_not_run(): assert False
",
    ),
    ("test_missing.py", "import not_installed_anywhere\ndef test_extra(): pass\n"),
];

#[test]
fn what_is_shared_is_one_finding_and_ids_that_change_are_one_test_at_every_level() {
    let files: Vec<(&str, &str)> = [TOML].into_iter().chain(SURE).collect();
    let project = project(&files);
    for level in LEVELS {
        let output = sweep(level, &project, &["--runs", "4", "--panel", "none", "--scope", "suite"]);
        let report = report(&output);
        let healthy = [
            "test_class.py::TestShop::test_a",
            "test_class.py::TestShop::test_b",
            "test_ids.py::test_handler",
            "test_ids.py::test_token",
            "test_module.py::test_one",
            "test_module.py::test_two",
        ];
        assert_eq!(with_verdict(&report, "healthy"), healthy, "{level}: {}", said(&output));
        let broken = [
            "test_class.py::TestShop::teardown_class (tear-down)",
            "test_ids.py::test_stamp",
            "test_module.py::database (tear-down)",
            "test_module.py::test_three",
            "test_own.py::test_lock",
        ];
        assert_eq!(with_verdict(&report, "broken"), broken, "{level}: {}", said(&output));
        assert_eq!(with_verdict(&report, "skipped"), ["test_own.py::test_not_run"]);
        for name in &broken[..3] {
            assert_eq!(
                (&test(&report, name)["attempts"], &test(&report, name)["failures"]),
                (&4.into(), &4.into())
            );
        }
        let database = test(&report, broken[2]);
        assert_eq!(database["subject"], "fixture");
        let why = database["stopped_because"].as_str().unwrap();
        assert!(why.contains("whichever test comes last (test_module.py::test_"), "{why}");
        let lock = &test(&report, "::test_lock")["failures_by_signature"][0];
        assert_eq!(lock["within"], "in the tear-down of the fixture `lock` (function)");
        assert_eq!(report["sweep"]["collection_errors"][0]["path"], "test_missing.py");
        let notes = report["sweep"]["notes"].as_array().unwrap();
        let changing: Vec<&str> = notes
            .iter()
            .filter_map(|note| note.as_str())
            .filter(|note| note.starts_with("ids of "))
            .collect();
        assert_eq!(changing.len(), 1, "{notes:?}");
        for function in ["test_handler", "test_token", "test_stamp"] {
            assert!(changing[0].contains(&format!("`test_ids.py::{function}`")), "{changing:?}");
        }
    }
}

/// What is decided by chance. None is on one side of the middle in all of 32 runs but once in 2 ** 31 (5e-10); there
/// are four of them.
const CHANCE: [(&str, &str); 4] = [
    (
        "test_sometimes.py",
        "import random
if random.random() < 0.5: import not_installed_anywhere
def test_there(): pass
",
    ),
    (
        "test_module.py",
        "import pytest, random
@pytest.fixture(scope='module', autouse=True)
def database():
    yield
    assert random.random() < 0.5, 'not dropped'
def test_one(): pass
def test_two(): pass
",
    ),
    (
        "test_port.py",
        "import pytest, random
def test_port():
    if random.random() < 0.5: pytest.skip('port is taken')
",
    ),
    (
        "test_known.py",
        "import pytest, random
@pytest.mark.xfail(reason='wobbles', strict=False)
def test_wobbles(): assert random.random() < 0.5
",
    ),
];

#[test]
fn imports_that_come_and_go_tear_downs_that_fail_now_and_then_and_skips_are_told() {
    let files: Vec<(&str, &str)> = [TOML].into_iter().chain(CHANCE).collect();
    let project = project(&files);
    let arguments = ["--runs", "32", "--panel", "none", "--scope", "suite", "--fail-on", "flaky"];
    let output = sweep("nested", &project, &arguments);
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let flaky = ["test_module.py::database (tear-down)", "test_sometimes.py (collection)"];
    assert_eq!(with_verdict(&report, "flaky"), flaky, "{}", said(&output));
    assert_eq!(test(&report, flaky[1])["subject"], "file");
    assert_eq!(report["sweep"]["collection_errors"], Value::Null, "it is no missing file");
    let notes = report["sweep"]["notes"].to_string();
    let port = test(&report, "::test_port");
    assert!(
        notes.contains(&format!("was skipped in {} of 32 runs (port is taken)", port["skips"])),
        "{notes}"
    );
    assert!(notes.contains("`test_known.py::test_wobbles` is expected to fail, and passed in "), "{notes}");
    assert_eq!(test(&report, "::test_wobbles")["verdict"], "healthy");
    assert_eq!(test(&report, "::test_two")["verdict"], "healthy");
}

#[test]
fn what_is_red_without_a_test_to_blame_is_red() {
    let ends = "def pytest_sessionfinish(): raise RuntimeError('report server is away')\n";
    let ends = flakefarm_tests::harness::project(&[
        TOML,
        ("conftest.py", ends),
        ("test_a.py", "def test_a(): pass\n"),
    ]);
    let sweep = |project: &TempDir, runs: &str, gate: &str| {
        sweep("nested", project, &["--runs", runs, "--panel", "none", "--scope", "suite", "--fail-on", gate])
    };
    let output = sweep(&ends, "3", "broken");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let odd = report(&output)["sweep"]["odd_ends"].clone();
    assert_eq!(odd, serde_json::json!({ "attempts": 3, "of": 3 }));
    // All starts the same: 2 ** -31. Listings are left alone: they are given up after six starts.
    let starts = "import random, sys\nif 'flakefarm_sources' not in sys.modules and random.random() < 0.5: \
                  sys.exit('set DATABASE_URL first')\n";
    let starts = flakefarm_tests::harness::project(&[
        TOML,
        ("conftest.py", starts),
        ("test_a.py", "def test_a(): pass\n"),
    ]);
    let output = sweep(&starts, "32", "flaky");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(report(&output)["sweep"]["failed_starts"].as_u64().unwrap() > 0, "{}", said(&output));
}

/// What a person types, in the directory where the sweep was typed.
fn typed(line: &str, state: &TempDir, directory: &TempDir) -> Output {
    let binary = flakefarm_tests::harness::flakefarm();
    let line = line.replacen("flakefarm sweep", &format!("{} sweep --format json", binary.display()), 1);
    let mut shell = command(state.path());
    let environment: Vec<_> =
        shell.get_envs().map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned))).collect();
    shell = std::process::Command::new("sh");
    for (name, value) in environment {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.args(["-c", &line]).current_dir(directory.path()).output().unwrap()
}

/// An option that must be given again, a directory that is not where one stands, a quote in an id.
const TYPED: [(&str, &str); 3] = [
    (
        "my shop/conftest.py",
        "import pytest
def pytest_addoption(parser): parser.addoption('--stage', required=True)
@pytest.fixture
def stage(request): return request.config.getoption('--stage')
",
    ),
    (
        "my shop/test_shop.py",
        "import datetime, pytest
LEFT = []
def test_a_spoils(stage): LEFT.append(stage)
def test_b_victim(stage): assert stage == 'dev' and not LEFT
@pytest.mark.parametrize('name', [\"it's\"])
def test_c_quoted(stage, name): assert 0
DONE = []
def test_d_once(): DONE.append(1); assert DONE == [1]
def test_e_zone(): assert datetime.datetime(1970, 1, 1).timestamp() == 0
",
    ),
    (
        "my shop/test_tear.py",
        "import pytest
@pytest.fixture(scope='module', autouse=True)
def database():
    yield
    assert 0, 'not dropped'
def test_f(): pass
",
    ),
];

#[test]
fn every_printed_command_shows_what_it_claims_from_where_the_sweep_was_typed() {
    let files: Vec<(&str, &str)> = [("my shop/flakefarm.toml", TOML.1)].into_iter().chain(TYPED).collect();
    let (directory, state) = (project(&files), tempfile::tempdir().unwrap());
    let sweep = "flakefarm sweep 'my shop' --seed 1 --runs 4 --sandbox nested -- --stage dev";
    let output = typed(sweep, &state, &directory);
    let first = report(&output);
    assert_eq!(with_verdict(&first, "flaky").len(), 2, "{}", said(&output));
    assert_eq!(with_verdict(&first, "fragile"), ["test_shop.py::test_e_zone"], "{}", said(&output));
    assert_eq!(with_verdict(&first, "broken").len(), 2, "{}", said(&output));
    for found in first["tests"].as_array().unwrap() {
        let id = found["id"].as_str().unwrap();
        let failed = |report: &Value| {
            let again = report["tests"].as_array().unwrap().iter().find(|test| test["id"] == id);
            again.is_some_and(|test| !test["failures_by_signature"].as_array().unwrap().is_empty())
        };
        let commands = [&found["reproduce"], &found["reproduce_failure"]];
        for line in commands.into_iter().filter_map(Value::as_str) {
            if found["verdict"] == "healthy" {
                continue;
            }
            let output = typed(line, &state, &directory);
            assert_eq!(output.status.code(), Some(0), "{line}\n{}", said(&output));
            assert!(failed(&report(&output)), "{id}: {line}\n{}", said(&output));
        }
    }
}
