//! What the plugin tells of the state that tests change, and chosen tests in a chosen order.

use super::{PATIENCE, attempt, ids, python};
use flakefarm_shared::{AttemptEnd, Detail, Order, World};
use flakefarm_worker::frameworks::python::RunRequest;

#[test]
fn changed_state_is_told_of_the_test_that_changed_it_and_of_no_other() {
    let asked = ids(&[
        "test_changes.py::test_changes_much",
        "test_changes.py::test_changes_nothing",
        "test_changes.py::test_comes_last",
    ]);
    let request = RunRequest::Run {
        tests: Some(&asked),
        order: Order::AsListed,
        detail: Detail::State,
        world: World::Plain,
    };
    let reading = attempt("polluting", python(), request, PATIENCE);
    assert_eq!(reading.end, AttemptEnd::Completed);
    assert_eq!(reading.tests, asked, "in the order of the list");
    let failed: Vec<bool> = reading.samples.iter().map(|read| read.sample.outcome.is_failure()).collect();
    assert_eq!(failed, [false, false, true]);

    let [much, nothing, last] = &reading.details[..] else { panic!("{:#?}", reading.details) };
    let change = |kind: &str, name: &str| {
        let found = much.changes.iter().find(|change| change.kind == kind && change.name.contains(name));
        found.unwrap_or_else(|| panic!("no {kind} {name}: {:#?}", much.changes))
    };
    let discounts = change("module global", "shop.DISCOUNTS");
    assert_eq!((discounts.before.as_str(), discounts.after.as_str()), ("{}", "{'clearance': 20}"));
    assert_eq!(change("unloaded module", "stock").after, "unloaded");
    assert!(!much.changes.iter().any(|change| change.name.starts_with("stock.")), "{:#?}", much.changes);
    assert_eq!(change("environment variable", "SHOP_REGION").after, "south");
    assert_eq!(change("working directory", "cwd").after, "/");
    assert_eq!(change("umask", "umask").after, "027");
    // However many files others write outside the project at the same time.
    assert!(change("file", "left-over.txt").after.starts_with("1 bytes"));
    assert_eq!(change("mock", "time.monotonic_ns").after, "Mock");
    assert!(change("logging", "shop").after.contains("NullHandler"));
    assert_eq!(change("thread", "left-over").after, "daemon");
    assert_eq!(change("activity", "processes started").after, "1");
    assert!(much.output.contains("what it printed"), "of a passing test, too: {}", much.output);
    for detail in [nothing, last] {
        // Outside a sandbox, files of others change below /tmp.
        let own: Vec<_> = detail.changes.iter().filter(|change| change.kind != "file").collect();
        assert!(own.is_empty(), "{own:#?}");
    }
}

#[test]
fn nothing_is_told_that_was_not_asked_for() {
    let asked = ids(&["test_changes.py::test_changes_nothing"]);
    let request = RunRequest::Run {
        tests: Some(&asked),
        order: Order::Given,
        detail: Detail::Outcomes,
        world: World::Plain,
    };
    assert_eq!(attempt("polluting", python(), request, PATIENCE).details, []);
}
