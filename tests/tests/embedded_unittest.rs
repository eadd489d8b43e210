//! A sweep of a project of the standard library's runner, as a person types it: nothing is configured, and pytest
//! is neither installed by us nor used.

use flakefarm_tests::harness::{MIXED_RUNS, command, project, report, said, with_verdict};

const SHOP: &str = "
import random, sys, unittest

BASKET = []

class TestBasket(unittest.TestCase):
    def test_a_fills(self):
        BASKET.append('apple')

    def test_b_counts(self):
        self.assertEqual(BASKET[:1], ['apple'])

class TestCourier(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.name = 'courier'

    def test_calls(self):
        self.assertLess(random.random(), 0.5)

    def test_is_named(self):
        self.assertEqual(self.name, 'courier')

    def test_runs_without_pytest(self):
        self.assertNotIn('pytest', sys.modules)
";

#[test]
fn a_project_of_unittest_is_swept_by_its_own_runner() {
    let project = project(&[("shop/__init__.py", ""), ("shop/test_shop.py", SHOP)]);
    let state = tempfile::tempdir().unwrap();
    let sweep = |runs: u32, more: &[&str]| {
        let runs = runs.to_string();
        let mut sweep = command(state.path());
        sweep.args(["sweep", "--runs", &runs, "--seed", "3", "--panel", "none"]);
        sweep.args(more).arg(project.path()).output().unwrap()
    };
    let output = sweep(MIXED_RUNS, &["--format", "json", "--sandbox", "auto"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let swept = report(&output);
    // That `test_calls` is seen to do both: see MIXED_RUNS.
    assert_eq!(
        with_verdict(&swept, "flaky"),
        ["shop.test_shop.TestBasket.test_b_counts", "shop.test_shop.TestCourier.test_calls"]
    );
    assert_eq!(
        with_verdict(&swept, "healthy"),
        [
            "shop.test_shop.TestBasket.test_a_fills",
            "shop.test_shop.TestCourier.test_is_named",
            "shop.test_shop.TestCourier.test_runs_without_pytest",
        ]
    );
    assert_eq!(swept["sweep"]["infrastructure_errors"], 0);
    let framework = swept["sweep"]["framework"].as_str().unwrap();
    assert!(framework.starts_with("unittest, CPython 3."), "{framework}");
    assert_eq!(swept["sweep"]["command"], "python3 -m unittest");
    let of = |ending: &str| {
        let tests = swept["tests"].as_array().unwrap();
        tests.iter().find(|test| test["id"].as_str().unwrap().ends_with(ending)).unwrap().clone()
    };
    assert_eq!(of("test_b_counts")["file"], "shop/test_shop.py");
    assert_eq!(of("test_b_counts")["cause"]["category"], "order_brittle");

    // A file means its tests although their ids do not name it; what cannot be given is said.
    let output = sweep(2, &["--tests", "shop/test_shop.py", "--sandbox", "forked", "--format", "human"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(text.contains("5 tests") && text.contains("unittest cannot be forked"), "{}", said(&output));
}
