//! What a listing says of the sources: fingerprints change with what a test touches and with
//! nothing else, and risks are found where they are.

use super::*;
use flakefarm_shared::Risk;
use std::collections::BTreeMap;

const CONFTEST: &str = "import pytest\n\n@pytest.fixture\ndef price():\n    return 3\n";
const ORDERS: &str = "
from shop.store import Store
import time


def place(item):
    return Store().put(item)


def slow_place(item):
    time.sleep(0.1)
    return place(item)
";
const STORE: &str = "
import random


class Store:
    def put(self, item):
        return [item]

    def pick(self):
        return random.choice([1, 2])
";
const TEST_ORDERS: &str = r##"
import pytest
from shop import orders

LIMIT = 3  # of orders


def helper(item):
    return orders.place(item)


def test_place(price):
    # why not
    assert helper("""
# not a comment
""") != price


@pytest.mark.parametrize("text", ["a::b", "c[d]"])
def test_slow(text):
    assert orders.slow_place(text)


class TestStore:
    size = 2

    def setup_method(self):
        self.items = {1, 2}

    def test_order(self):
        assert list(self.items)

    def test_sorted(self):
        assert sorted({3, 1}) == [1, 3]
"##;
const TEST_RISKY: &str = r#"
import datetime as dt
import os
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from random import Random, random

SEEN = []


def test_network(): socket.create_connection(("localhost", 1))
def test_thread(): threading.Thread(target=print).start()
async def test_coroutine(): pass
def test_clock(): assert dt.datetime.now()
def test_randomness(): assert random() < 1
def test_seeded(): assert Random(1).random() < 1
def test_set(): assert [x for x in {"a", "b"}]
def test_joined(): assert ",".join(set("ab"))
def test_same_set(): assert {x for x in {"a", "b"}} == {"a", "b"}
def test_directory(): assert os.listdir(".")[0]
def test_sorted_directory(): assert sorted(Path(".").iterdir())
def test_process(): subprocess.run(["true"])
def test_tmp(): open("/tmp/left.txt", "w").close()
def test_tempfile(): tempfile.mkdtemp()
def test_environ(): os.environ["A"] = "b"
def test_shared(): SEEN.append(1)
def test_own(): SEEN = []; SEEN.append(1)
def test_calm(): assert sum([1, 2]) == 3
"#;

fn project() -> BTreeMap<&'static str, String> {
    [
        ("conftest.py", CONFTEST),
        ("shop/__init__.py", ""),
        ("shop/orders.py", ORDERS),
        ("shop/store.py", STORE),
        ("shop/unused.py", "X = 1\n"),
        ("tests/test_orders.py", TEST_ORDERS),
        ("tests/test_risky.py", TEST_RISKY),
        ("tests/test_broken.py", "def test_never(:\n"),
        ("tests/twin.txt", ">>> 1 + 1\n2\n"),
        ("pytest.ini", "[pytest]\naddopts = --doctest-glob=*.txt\n"),
    ]
    .into_iter()
    .map(|(path, text)| (path, text.to_owned()))
    .collect()
}

/// Fingerprint and risks by the test's own name.
fn listed(files: &BTreeMap<&'static str, String>) -> BTreeMap<String, (Digest, Vec<Risk>)> {
    let home = tempfile::tempdir().expect("a temporary directory");
    for (path, text) in files {
        let path = home.path().join("work").join(path);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }
    let listing = attempt_at(home.path(), python(), RunRequest::List, PATIENCE);
    assert_eq!(listing.garbage_lines, 0);
    assert_eq!(listing.sources.len(), listing.tests.len(), "{listing:#?}");
    let name = |test: &TestId| test.as_str().split_once("::").expect("a name").1.to_owned();
    let found = listing.tests.iter().zip(&listing.sources);
    found.map(|(test, source)| (name(test), (source.fingerprint.clone(), source.risks.clone()))).collect()
}

#[test]
fn a_fingerprint_changes_with_what_the_test_touches_and_with_nothing_else() {
    let before = listed(&project());
    let changed = |path: &'static str, from: &str, to: &str| -> Vec<String> {
        let mut files = project();
        let text = files.get_mut(path).expect("a file of the project");
        assert!(text.contains(from), "{path} does not hold {from:?}");
        *text = text.replacen(from, to, 1);
        let after = listed(&files);
        assert_eq!(before.len(), after.len());
        let differs = |name: &&String| before[*name].0 != after[*name].0;
        before.keys().filter(differs).cloned().collect()
    };
    let of_orders = [
        "TestStore::test_order",
        "TestStore::test_sorted",
        "test_place",
        "test_slow[a::b]",
        "test_slow[c[d]]",
    ];
    let everything: Vec<String> = before.keys().cloned().collect();
    // The test itself: only it. A comment: nobody. What looks like one in a string: its test.
    assert_eq!(changed("tests/test_orders.py", "!= price", "> price"), ["test_place"]);
    assert_eq!(changed("tests/test_orders.py", "# why not", "# because\n\n    # of that"), [""; 0]);
    assert_eq!(changed("tests/test_orders.py", "# not a comment", "# nor this"), ["test_place"]);
    assert_eq!(changed("tests/test_orders.py", "[1, 3]", "[1, 3, ]"), ["TestStore::test_sorted"]);
    // What its class or file shares: all that share it.
    let of_class = ["TestStore::test_order", "TestStore::test_sorted"];
    assert_eq!(changed("tests/test_orders.py", "{1, 2}", "{1, 2, 3}"), of_class);
    assert_eq!(changed("tests/test_orders.py", "LIMIT = 3", "LIMIT = 4"), of_orders);
    // Imported code, directly or not; code that nobody imports.
    assert_eq!(changed("shop/orders.py", "0.1", "0.2"), of_orders);
    assert_eq!(changed("shop/store.py", "[item]", "[item, item]"), of_orders);
    assert_eq!(changed("shop/unused.py", "1", "2"), [""; 0]);
    // What everything stands on.
    assert_eq!(changed("conftest.py", "3", "4"), everything);
    assert_eq!(changed("pytest.ini", "addopts", "norecursedirs = no\naddopts"), everything);
    // Not Python: its text.
    assert_eq!(changed("tests/twin.txt", "1 + 1", "2 + 0"), ["twin.txt"]);
}

#[test]
fn risks_are_found_in_the_test_and_in_what_it_names() {
    let found = listed(&project());
    let expected: [(&str, &[Risk]); 22] = [
        ("test_place", &[Risk::Randomness]), // a method of the class it comes to use
        ("test_slow[a::b]", &[Risk::Sleep, Risk::Randomness]),
        ("TestStore::test_sorted", &[]),
        ("twin.txt", &[]),
        ("test_network", &[Risk::Network]),
        ("test_thread", &[Risk::Concurrency]),
        ("test_coroutine", &[Risk::Concurrency]),
        ("test_clock", &[Risk::Clock]),
        ("test_randomness", &[Risk::Randomness]),
        ("test_seeded", &[]),
        ("test_set", &[Risk::Unordered]),
        ("test_joined", &[Risk::Unordered]),
        ("test_same_set", &[]),
        ("test_directory", &[Risk::Unordered]),
        ("test_sorted_directory", &[]),
        ("test_process", &[Risk::Subprocess]),
        ("test_tmp", &[Risk::TemporaryFiles]),
        ("test_tempfile", &[Risk::TemporaryFiles]),
        ("test_environ", &[Risk::SharedState]),
        ("test_shared", &[Risk::SharedState]),
        ("test_own", &[]),
        ("test_calm", &[]),
    ];
    for (name, risks) in expected {
        let mut risks = risks.to_vec();
        risks.sort_unstable();
        let mut told = found[name].1.clone();
        told.sort_unstable();
        assert_eq!(told, risks, "{name}");
    }
}

/// pytest 9.2 warns who asks for the configuration as a whole.
#[test]
fn where_warnings_are_errors_sources_are_told_and_what_is_configured_is_in_the_fingerprint() {
    let mut files = project();
    let strict = "[pytest]\nfilterwarnings = error\naddopts = --doctest-glob=*.txt\n";
    files.insert("pytest.ini", strict.to_owned());
    let before = listed(&files);
    assert_eq!(before["test_clock"].1, [Risk::Clock]);
    files.insert("pytest.ini", format!("{strict}norecursedirs = no\n"));
    let after = listed(&files);
    assert!(before.keys().all(|name| before[name].0 != after[name].0), "{before:#?}");
}

#[test]
fn sources_of_a_nasty_project_are_told_all_the_same() {
    let listing = attempt("nasty", python(), RunRequest::List, PATIENCE);
    assert_eq!(listing.sources.len(), listing.tests.len());
    let again = attempt("nasty", python(), RunRequest::List, PATIENCE);
    assert_eq!(listing.sources, again.sources, "the place of the project does not matter");
    let run = run_all("nasty", Order::Given);
    assert_eq!(run.sources, Vec::new(), "a run does not read sources");
}
