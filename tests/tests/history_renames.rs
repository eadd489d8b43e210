//! Tests that are renamed and moved between two sweeps, as people do it: what is clear keeps its history, what
//! is not links nothing, and what was linked can be taken back.
#![expect(clippy::unwrap_used, reason = "in a test, a failed step is the failure")]

use flakefarm_tests::harness::{command, project, said};
use serde_json::Value;
use std::path::Path;

const BEFORE: &str = "
import pytest
def test_basket_adds(tmp_path):
    '''Old words.'''
    items = [1, 2]
    assert sum(items) == 3
@pytest.mark.parametrize('n', [1, 2])
def test_doubles(n):
    assert n * 2 == n + n
def test_twin_one(): assert len('ab') == 2
def test_twin_two(): assert len('ab') == 2
def test_stays(): assert 'stays'
";
/// One file less: a test went into a class of another file under another name, twins both got other names.
const AFTER: &str = "
import pytest
@pytest.mark.parametrize('n', [1, 2])
def test_twice(n):
    assert n * 2 == n + n
def test_twin_three(): assert len('ab') == 2
def test_twin_four(): assert len('ab') == 2
def test_stays(): assert 'stays'
";
const MOVED: &str = "
class TestBasket:
    def test_adds(self, tmp_path):
        # New words.
        items = [1, 2]

        assert sum(items) == 3
";

fn sweep(state: &Path, project: &Path) {
    let mut sweep = command(state);
    sweep.args(["sweep", "--runs", "2", "--seed", "1", "--panel", "none", "--sandbox", "process"]);
    let output = sweep.arg(project).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

fn ask(state: &Path, words: &[&str]) -> Value {
    let output = command(state).args(words).args(["--project", "shop", "--format", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{words:?}: {}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn runs(state: &Path, test: &str) -> u64 {
    let found = ask(state, &["history", test]);
    found["classes"].as_array().unwrap().iter().map(|class| class["summary"]["runs"].as_u64().unwrap()).sum()
}

/// Links that hold, as earlier name and name, in order.
fn links(state: &Path) -> Vec<(String, String)> {
    let found = ask(state, &["tests", "links"]);
    let holding = found["links"].as_array().unwrap().iter().filter(|link| link["unlinked_at"].is_null());
    let word = |link: &Value, key: &str| link[key].as_str().unwrap().to_owned();
    let mut links: Vec<_> = holding.map(|link| (word(link, "earlier"), word(link, "test"))).collect();
    links.sort();
    links
}

#[test]
fn a_test_that_is_renamed_and_moved_keeps_its_history() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    let project =
        project(&[("flakefarm.toml", "[project]\nname = \"shop\"\n"), ("tests/test_old.py", BEFORE)]);
    sweep(state, project.path());
    assert!(links(state).is_empty(), "there is nothing to compare with");
    let (old, new) =
        ("tests/test_old.py::test_basket_adds", "tests/unit/test_basket.py::TestBasket::test_adds");
    let before = runs(state, old);
    assert!(before > 0);

    std::fs::create_dir(project.path().join("tests/unit")).unwrap();
    std::fs::write(project.path().join("tests/unit/test_basket.py"), MOVED).unwrap();
    std::fs::write(project.path().join("tests/test_old.py"), AFTER).unwrap();
    sweep(state, project.path());
    let pair = |earlier: &str, test: &str| (earlier.to_owned(), test.to_owned());
    let doubled = |n: u32| {
        pair(&format!("tests/test_old.py::test_doubles[{n}]"), &format!("tests/test_old.py::test_twice[{n}]"))
    };
    let expected = [pair(old, new), doubled(1), doubled(2)];
    assert_eq!(links(state), expected, "twins are not told apart, and link nothing");
    let found = ask(state, &["history", new]);
    assert_eq!(found["earlier_names"], serde_json::json!([old]));
    assert_eq!(found["verdicts"].as_array().unwrap().len(), 2, "of both sweeps");
    let both = runs(state, new);
    assert!(both > before, "{both} of which {before} under the old name");
    let names = |found: Value| -> Vec<String> {
        let tests = found["tests"].as_array().unwrap().clone();
        tests.iter().map(|test| test["test"].as_str().unwrap().to_owned()).collect()
    };
    let ranked = names(ask(state, &["tests"]));
    assert!(ranked.contains(&new.to_owned()) && !ranked.contains(&old.to_owned()), "{ranked:?}");

    // Taken back, it stays so, however often the same is seen.
    let change =
        |word: &str| command(state).args(["tests", word, new, old, "--project", "shop"]).output().unwrap();
    assert_eq!(change("unlink").status.code(), Some(0));
    let again = change("unlink");
    assert_eq!(again.status.code(), Some(2), "{}", said(&again));
    sweep(state, project.path());
    assert_eq!(links(state), expected[1..]);
    assert_eq!(runs(state, old), before);
    assert_eq!(change("link").status.code(), Some(0));
    assert_eq!(links(state), expected);

    // What comes back beside its other name was another test all along; what somebody said stays.
    std::fs::write(project.path().join("tests/test_old.py"), format!("{BEFORE}\n{AFTER}")).unwrap();
    sweep(state, project.path());
    assert_eq!(links(state), expected[..1]);
}
