//! `flakefarm analyse` and `flakefarm repair` from the command line, on a repository whose code changed.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::harness::{command, git, project, report, said};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

const SHOP: &str = "RATE = 17\n\ndef total(items, rate):\n    result = 0\n    for item in items:\n        result += item * rate\n    return result\n\ndef bill(items):\n    return total(items, RATE)\n";
const TESTS: &str = "import random\nimport shop\n\ndef test_total():\n    assert shop.total([1, 2], 2) == 6\n\ndef test_one():\n    assert shop.total([1], rate=2) == 2\n\ndef test_bill():\n    assert shop.bill([1]) == 17\n\ndef test_steady():\n    assert shop.bill([]) == 0\n\ndef test_before():\n    open('/nowhere/rates.json')\n";

/// A repository in which a function was renamed and a constant changed since the last commit.
fn changed() -> tempfile::TempDir {
    let project = project(&[
        ("flakefarm.toml", "[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n"),
        ("shop.py", SHOP),
        ("test_shop.py", TESTS),
    ]);
    git(project.path(), "git init -q -b main . && git add . && git commit -qm base");
    let new = SHOP.replace("total(", "sum_up(").replace("RATE = 17", "RATE = 19");
    std::fs::write(project.path().join("shop.py"), new).unwrap();
    project
}

fn ask(what: &str, root: &Path, arguments: &[&str]) -> Output {
    let state = tempfile::tempdir().unwrap();
    let common = ["--format", "json", "--seed", "1", "--sandbox", "nested"];
    command(state.path()).arg(what).args(arguments).arg(root).args(common).output().unwrap()
}

fn test<'a>(analysis: &'a Value, name: &str) -> &'a Value {
    let id = format!("test_shop.py::{name}");
    analysis["tests"].as_array().unwrap().iter().find(|test| test["id"] == id).unwrap()
}

#[test]
fn failures_are_traced_to_the_change_that_made_them() {
    let project = changed();
    let output = ask("analyse", project.path(), &["--runs", "2"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let analysis = report(&output);
    assert_eq!(analysis["base"], "HEAD");
    let cause = |name: &str| {
        let test = test(&analysis, name);
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (word(&test["since"]), word(&test["cause"]["kind"]), word(&test["cause"]["subject"]))
    };
    let expected =
        |since: &str, kind: &str, subject: &str| (since.to_owned(), kind.to_owned(), subject.to_owned());
    assert_eq!(cause("test_total"), expected("change", "renamed", "shop.total"));
    assert_eq!(cause("test_bill"), expected("change", "constant", "shop.RATE"));
    assert_eq!(cause("test_before"), expected("before", "missing_file", "/nowhere/rates.json"));
    // Two failures with one cause are one entry.
    let entries = analysis["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 3, "{entries:#?}");
    assert_eq!(entries[0]["tests"].as_array().unwrap().len(), 2);
    assert_eq!(entries[0]["next"], "flakefarm repair --base HEAD");
    assert_eq!(analysis["passed"], 1);
}

#[test]
fn a_rename_is_followed_proved_and_written_and_a_changed_value_is_not() {
    let project = changed();
    let root = project.path();
    let tests = ["test_shop.py::test_total", "test_shop.py::test_one"];
    let looked = ask("repair", root, &tests);
    assert_eq!(looked.status.code(), Some(0), "{}", said(&looked));
    assert_eq!(
        std::fs::read_to_string(root.join("test_shop.py")).unwrap(),
        TESTS,
        "nothing is written unasked"
    );
    let proposal = &report(&looked)["proposals"][0];
    assert_eq!(proposal["outcome"], "proved", "{proposal:#}");
    assert_eq!(proposal["inverse"], true);
    let still = &proposal["still_fails"]["asked"];
    assert!(still["noticed_before"].as_u64().unwrap() > 0, "{proposal:#}");
    assert_eq!(still["noticed_still"], still["noticed_before"]);

    let applied = ask("repair", root, &[tests[0], tests[1], "--apply"]);
    assert_eq!(applied.status.code(), Some(0), "{}", said(&applied));
    assert_eq!(
        std::fs::read_to_string(root.join("test_shop.py")).unwrap(),
        TESTS.replace("shop.total", "shop.sum_up")
    );

    // What is left fails because the code does something else: no reference is to be followed.
    git(root, "git add . && git commit -qm renamed");
    let refused = ask("repair", root, &["test_shop.py::test_bill", "--base", "HEAD"]);
    assert_ne!(refused.status.code(), Some(0), "{}", said(&refused));

    // The difference shows what could be expected instead: shown, and not written.
    let before = std::fs::read_to_string(root.join("test_shop.py")).unwrap();
    let shown = ask("repair", root, &["--base", "HEAD~1", "--apply"]);
    assert_eq!(shown.status.code(), Some(1), "{}", said(&shown));
    let told = report(&shown);
    assert_eq!(told["oracles"][0]["strategy"], "expected-value", "{told:#}");
    assert!(told["oracles"][0]["diff"].as_str().unwrap().contains("+    assert shop.bill([1]) == 19"));
    assert_eq!(std::fs::read_to_string(root.join("test_shop.py")).unwrap(), before);

    // Code that does something else is called a regression.
    git(root, "git add . && git commit -qm rates --allow-empty");
    let wrong = std::fs::read_to_string(root.join("shop.py")).unwrap().replace("result +=", "result -=");
    std::fs::write(root.join("shop.py"), wrong).unwrap();
    let told = report(&ask("repair", root, &[]));
    assert_eq!(told["proposals"].as_array().unwrap().len(), 0, "{told:#}");
    assert_eq!(told["regressions"][0]["subject"], "shop.sum_up", "{told:#}");
}

/// The file cannot even be imported before its tests follow the code: what is wrong with the code shows afterwards.
#[test]
fn a_regression_beside_a_rename_is_told_and_nothing_is_written() {
    let code = "def total(items):\n    result = 0\n    for item in items:\n        result += item\n    return result\n\n\ndef label(name):\n    return f'<{name}>'\n";
    let tests = "from shop import label, total\n\n\ndef test_total():\n    assert total([1, 2]) == 3\n\n\ndef test_label():\n    assert label('a') == '<a>'\n";
    let project = project(&[("shop.py", code), ("test_shop.py", tests)]);
    let root = project.path();
    git(root, "git init -q . && git add . && git commit -qm right");
    let wrong = code.replace("def label", "def tag").replace("result += item", "result = item");
    std::fs::write(root.join("shop.py"), wrong).unwrap();
    let output = ask("repair", root, &["--apply"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let told = report(&output);
    assert_eq!(told["proposals"][0]["outcome"], "not_proved", "{told:#}");
    let regression = &told["regressions"][0];
    assert_eq!(regression["subject"], "shop.total", "{told:#}");
    assert_eq!(regression["tests"], serde_json::json!(["test_shop.py::test_total"]), "{told:#}");
    assert_eq!(told["regressions"].as_array().unwrap().len(), 1, "{told:#}");
    assert_eq!(std::fs::read_to_string(root.join("test_shop.py")).unwrap(), tests);
}

#[test]
fn what_is_proved_goes_where_it_is_wanted_and_comes_back() {
    let project = changed();
    let (root, state) = (project.path(), tempfile::tempdir().unwrap());
    let common = ["--format", "json", "--seed", "1", "--sandbox", "nested"];
    let run = |arguments: &[&str], answers: &str| {
        let mut child = command(state.path())
            .arg("repair")
            .args(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // One that asks nothing has gone before it is answered.
        let _unread = std::io::Write::write_all(&mut child.stdin.take().unwrap(), answers.as_bytes());
        child.wait_with_output().unwrap()
    };
    let standing = || {
        let mut text = Vec::new();
        for script in ["git status --porcelain=v2 --branch", "cat shop.py test_shop.py", "git stash list"] {
            let done = std::process::Command::new("sh").args(["-ec", script]).current_dir(root).output();
            text.extend(done.unwrap().stdout);
        }
        text
    };
    let before = standing();
    let place = root.to_str().unwrap();
    let tests = ["test_shop.py::test_total", "test_shop.py::test_one"];
    let looked = run(&[&[tests[0], tests[1], place, "--dry-run"], &common[..]].concat(), "");
    assert_eq!(looked.status.code(), Some(0), "{}", said(&looked));
    let id = report(&looked)["session"].as_str().unwrap().to_owned();
    assert_eq!(standing(), before);

    // Nobody answers; then one hunk is wanted, which is all of it.
    let asked = run(&[&["--resume", &id, "--interactive"], &common[..]].concat(), "");
    assert!(String::from_utf8_lossy(&asked.stderr).contains("nothing is written"), "{}", said(&asked));
    assert_eq!(standing(), before);

    let branched =
        run(&[&["--resume", &id, "--branch", "repair/total", "--interactive"], &common[..]].concat(), "y\n");
    assert_eq!(branched.status.code(), Some(0), "{}", said(&branched));
    assert_eq!(report(&branched)["branch"][0], "repair/total");
    assert_eq!(standing(), before, "work tree and HEAD stay");
    git(
        root,
        "git show repair/total:test_shop.py | grep -q shop.sum_up && git log -1 --format=%s repair/total | grep -q Repair",
    );
    let undone = run(&["--undo", &id], "");
    assert_eq!(undone.status.code(), Some(0), "{}", said(&undone));
    git(root, "test -z \"$(git branch --list 'repair/*')\"");
    assert_eq!(standing(), before);

    // It was undone: it can be written elsewhere. What has changed since is not taken back.
    let written = run(&[&["--resume", &id, "--apply"], &common[..]].concat(), "");
    assert_eq!(written.status.code(), Some(0), "{}", said(&written));
    let file = root.join("test_shop.py");
    let mended = std::fs::read_to_string(&file).unwrap();
    assert_eq!(mended, TESTS.replace("shop.total", "shop.sum_up"));
    std::fs::write(&file, format!("{mended}# mine\n")).unwrap();
    let refused = run(&["--undo", &id], "");
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{mended}# mine\n"));
    std::fs::write(&file, &mended).unwrap();
    assert_eq!(run(&["--undo", &id[..20]], "").status.code(), Some(0));
    assert_eq!(standing(), before);
    let listed = report(&run(&["--list", "--format", "json"], ""));
    assert_eq!(listed["repairs"][0]["state"], "undone", "{listed:#}");
    for arguments in [&["--dry-run", "--apply"][..], &["--list", "--stats"], &["--branch", "x", "--apply"]] {
        assert_eq!(run(arguments, "").status.code(), Some(2), "{arguments:?}");
    }
}
