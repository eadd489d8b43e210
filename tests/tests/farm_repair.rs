//! A repair that the farm carries out by itself, from the command line: asked for, interrupted by the end of its
//! coordinator, followed, fetched, accepted.

use flakefarm_tests::eventually::wait_for;
use flakefarm_tests::farm::Farm;
use flakefarm_tests::harness::{command, git, project, report, said};
use std::process::Output;
use std::time::Duration;

/// Of what a loaded machine takes for a few small sweeps.
const PATIENCE: Duration = Duration::from_secs(600);
const SHOP: &str = "def total(items):\n    return sum(items)\n\ndef most(items):\n    return max(items)\n";
const TESTS: &str = "import shop\n\ndef test_total():\n    assert shop.total([1, 2]) == 3\n\ndef test_most():\n    assert shop.most([1, 2]) == 2\n";

#[test]
fn the_farm_repairs_by_itself_and_a_coordinators_end_costs_time_only() {
    let mut farm = Farm::start();
    let project = project(&[
        ("flakefarm.toml", "[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n"),
        ("shop.py", SHOP),
        ("test_shop.py", TESTS),
    ]);
    let root = project.path();
    git(root, "git init -q -b main . && git add . && git commit -qm base");
    std::fs::write(root.join("shop.py"), SHOP.replace("total", "sum_up")).unwrap();
    let place = root.to_str().unwrap().to_owned();
    let ask = |farm: &Farm, arguments: &[&str]| -> Output {
        let mut ask = command(farm.dir.path());
        ask.arg("repair").args(arguments).args(["--farm", &farm.url, "--token", &farm.token]);
        ask.output().unwrap()
    };
    let wanted = ["test_shop.py::test_total", &place, "--detach", "--interactive", "--sandbox", "nested"];
    let asked = ask(&farm, &wanted);
    assert_eq!(asked.status.code(), Some(0), "{}\n{}", said(&asked), farm.logs());
    let id = String::from_utf8(asked.stdout.clone()).unwrap().trim().to_owned();
    assert!(said(&asked).contains(&format!("flakefarm repair --follow {id}")), "{}", said(&asked));

    // Its first questions wait for a worker when the coordinator is killed; the next one finds them.
    wait_for("the repair asks", PATIENCE, || match farm.query("SELECT COUNT(*) FROM sweeps") {
        Some(1..) => Ok(()),
        other => Err(format!("{other:?}: {}", farm.logs())),
    });
    let mut killed = farm.coordinator.take().unwrap();
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    farm.start_coordinator();
    farm.start_worker("one");
    let json = ["--format", "json"];
    let followed = ask(&farm, &[&["--follow", id.as_str()], &json[..]].concat());
    assert_eq!(followed.status.code(), Some(0), "{}\n{}", said(&followed), farm.logs());
    let view = report(&followed);
    assert_eq!(view["state"], "proved", "{view:#}");
    assert_eq!(view["mended"], serde_json::json!(["test_shop.py::test_total"]));
    assert_eq!(view["told"]["proposals"][0]["outcome"], "proved", "{view:#}");
    assert!(said(&followed).contains("proposal 1"), "{}", said(&followed));
    // Before, after, the suite, and the mutants in two trees: each was asked once, though it was begun twice.
    assert_eq!(view["tries"], 2, "{view:#}");
    let sweeps = farm.query("SELECT COUNT(*) FROM sweeps WHERE source LIKE 'repair 0%'");
    assert_eq!(sweeps, Some(5), "{}", farm.logs());

    let patch = ask(&farm, &["--patch", &id]);
    assert_eq!(patch.status.code(), Some(0), "{}", said(&patch));
    std::fs::write(root.join("the.patch"), &patch.stdout).unwrap();
    git(root, "git apply the.patch");
    let repaired = std::fs::read_to_string(root.join("test_shop.py")).unwrap();
    assert_eq!(repaired, TESTS.replace("shop.total", "shop.sum_up"));

    let accepted = ask(&farm, &[&["--accept", id.as_str()], &json[..]].concat());
    assert_eq!(report(&accepted)["state"], "probation", "{}", said(&accepted));
    let listed = ask(&farm, &["--list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains(&id), "{}", said(&listed));
    let runs = "SELECT COUNT(*) FROM sweeps WHERE source LIKE 'repair on probation %' AND class = 'bulk'";
    assert_eq!(farm.query(runs), Some(1));
    // What has ended is not cancelled.
    let cancelled = ask(&farm, &[&["--cancel", id.as_str()], &json[..]].concat());
    assert_eq!(report(&cancelled)["state"], "probation", "{}", said(&cancelled));
}
