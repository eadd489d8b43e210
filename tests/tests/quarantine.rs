//! Quarantine as people and CI use it, from this machine's own state and from a project's file. No
//! container is needed.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::harness::{command, project, said};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

const REPORT: &str = "<testsuite name=\"pytest\"><testcase classname=\"tests.test_a\" name=\"test_x\">\
                      <failure type=\"AssertionError\" message=\"assert 1 == 2\"/></testcase>\
                      <testcase classname=\"tests.test_a\" name=\"test_y\"/></testsuite>";

/// A project at this directory, as one user works on it.
struct Place {
    project: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let project = project(&[
            ("flakefarm.toml", "name = \"shop\"\n"),
            ("tests/test_a.py", "def test_x(): pass\ndef test_y(): pass\n"),
            (".github/CODEOWNERS", "* @all\n/tests/ @testers\n"),
        ]);
        Self { project, state: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> &Path {
        self.project.path()
    }

    fn flakefarm(&self, arguments: &[&str]) -> Output {
        command(self.state.path()).current_dir(self.root()).args(arguments).output().unwrap()
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.flakefarm(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `flakefarm run` of a command that writes a report and ends with `code`.
    fn run(&self, report: &str, code: i32) -> Output {
        let script = format!("cat > r.xml <<'END'\n{report}\nEND\nexit {code}");
        self.flakefarm(&["run", "--junit", "r.xml", "--", "sh", "-c", &script])
    }
}

#[test]
fn a_test_is_added_listed_exported_and_removed_and_all_of_it_is_logged() {
    let place = Place::new();
    let id = "tests/test_a.py::test_x";
    place.succeeds(&["quarantine", "add", id, "--reason", "it races", "--ticket", "T-1", "--who", "me"]);
    let listed: Value =
        serde_json::from_str(&place.succeeds(&["quarantine", "list", "--format", "json"])).unwrap();
    let entry = &listed["entries"][0];
    assert_eq!(
        (&entry["test"], &entry["owner"], &entry["standing"]),
        (&id.into(), &"@testers".into(), &"holds".into())
    );
    assert!(place.succeeds(&["quarantine", "list"]).contains("@testers"));
    for (format, expect) in [
        ("pytest-deselect", "--deselect=tests/test_a.py::test_x"),
        ("pytest-xfail", "pytest.mark.xfail"),
        ("toml", "test = \"tests/test_a.py::test_x\""),
        ("go", "^test_x$"),
    ] {
        let text = place.succeeds(&["quarantine", "export", "--format", format]);
        assert!(text.contains(expect), "{format}: {text}");
    }
    // What is exported for the project is in order, as `verify` reads it.
    place.succeeds(&["quarantine", "export", "--output", "flakefarm-quarantine.toml"]);
    place.succeeds(&["quarantine", "verify"]);
    place.succeeds(&["quarantine", "remove", id, "--why", "it was mended", "--who", "me"]);
    let again = place.flakefarm(&["quarantine", "remove", id]);
    assert_eq!(again.status.code(), Some(2), "{}", said(&again));
    let log = place.succeeds(&["quarantine", "log"]);
    assert!(log.contains("removed") && log.contains("it was mended") && log.contains("added"), "{log}");
    for (wrong, expect) in [
        (&["quarantine", "add", "a", "--reason", "x", "--expires", "soon"][..], "is no day"),
        (&["quarantine", "add", "a", "--reason", "x", "--expires", "2001-01-01"][..], "is over"),
        (&["quarantine", "add", "*", "--reason", "x"][..], "every test"),
        (&["quarantine", "add", "a", "--reason", " "][..], "reason"),
        (&["quarantine", "add", "a", "--reason", "x", "--signature", "zz"][..], "sixteen"),
    ] {
        let output = place.flakefarm(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", said(&output));
        assert!(said(&output).contains(expect), "{wrong:?}: {}", said(&output));
    }
}

#[test]
fn only_failures_that_are_all_quarantined_are_overridden() {
    let place = Place::new();
    let check = |report: &str, code: i32, expect: i32, words: &str| {
        let output = place.run(report, code);
        assert_eq!(output.status.code(), Some(expect), "{words}: {}", said(&output));
        assert!(said(&output).contains(words), "{words}: {}", said(&output));
    };
    check(REPORT, 3, 3, "1 of 1 failures count");
    place.succeeds(&["quarantine", "add", "tests/test_a.py::test_x", "--reason", "it races"]);
    check(REPORT, 3, 0, "the one failure is quarantined");
    check(REPORT, 0, 0, "");
    // Another one fails, too.
    let two = REPORT
        .replace("name=\"test_y\"/>", "name=\"test_y\"><error type=\"E\" message=\"other\"/></testcase>");
    check(&two, 1, 1, "1 of 2 failures count");
    // A command that crashes without a failed test, without a report, or in the middle of one.
    check(
        "<testsuite><testcase classname=\"a\" name=\"b\"/></testsuite>",
        5,
        5,
        "no test of its reports did",
    );
    check("<testsuite><testcase classname=\"a\" name=", 5, 5, "could not be read whole");
    let none = place.flakefarm(&["run", "--junit", "none*.xml", "--", "sh", "-c", "exit 7"]);
    assert_eq!(none.status.code(), Some(7), "{}", said(&none));
    // The report of an earlier run is not this one's.
    place.run(REPORT, 0);
    let stale = place.flakefarm(&["run", "--junit", "r.xml", "--", "sh", "-c", "exit 9"]);
    assert_eq!(stale.status.code(), Some(9), "{}", said(&stale));
    // Killed by a signal, as a shell tells it; not to be started.
    let killed = place.flakefarm(&["run", "--junit", "r.xml", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.status.code(), Some(137), "{}", said(&killed));
    let unknown = place.flakefarm(&["run", "--junit", "r.xml", "--", "no-such-program"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", said(&unknown));
}

#[test]
fn a_file_by_hand_mutes_what_is_right_in_it_and_says_what_is_wrong() {
    let place = Place::new();
    let file = place.root().join("flakefarm-quarantine.toml");
    let entry = "[[quarantine]]\ntest = \"tests/test_a.py::test_x\"\nreason = \"it races\"\n";
    std::fs::write(&file, format!("{entry}expires = 2999-01-01\n")).unwrap();
    assert_eq!(place.run(REPORT, 1).status.code(), Some(0));
    // Muted by its signature alone, another failure of the same test counts.
    std::fs::write(&file, format!("{entry}expires = 2999-01-01\nsignature = \"{}\"\n", "0".repeat(16)))
        .unwrap();
    assert_eq!(place.run(REPORT, 1).status.code(), Some(1));
    for (lines, line, key) in [
        ("expires = \"one day\"\n", 4, "expires"),
        ("", 1, "expires"),
        ("expires = 2999-01-01\nowners = \"@me\"\n", 5, "owners"),
        ("expires = 2999-01-01\nticket = 12\n", 5, "ticket"),
    ] {
        std::fs::write(&file, format!("{entry}{lines}")).unwrap();
        let verified = place.flakefarm(&["quarantine", "verify"]);
        assert_eq!(verified.status.code(), Some(1), "{}", said(&verified));
        let told = format!("flakefarm-quarantine.toml:{line}: `{key}`");
        assert!(said(&verified).contains(&told), "{told} in {}", said(&verified));
        let ran = place.run(REPORT, 1);
        assert_eq!(ran.status.code(), Some(1), "{lines}: {}", said(&ran));
        assert!(said(&ran).contains(&format!("`{key}`")), "{}", said(&ran));
    }
    std::fs::write(&file, format!("{entry}expires = 2001-01-01\n")).unwrap();
    let verified = place.flakefarm(&["quarantine", "verify"]);
    assert_eq!(verified.status.code(), Some(1), "{}", said(&verified));
    let ran = place.run(REPORT, 1);
    assert!(said(&ran).contains("its quarantine ended: 2001-01-01"), "{}", said(&ran));
}
