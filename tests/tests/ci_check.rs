//! `flakefarm check` and `guard` as a CI job runs them, and the templates that run them there.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::harness::{command, flakefarm, git, project, repository, said};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

const TOML: (&str, &str) = ("flakefarm.toml", "[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n");

/// A repository whose last commit breaks one test, while another was broken before.
fn repository_with_a_change() -> tempfile::TempDir {
    let project = project(&[
        TOML,
        (".gitignore", "reports/\n"),
        (
            "tests/test_shop.py",
            "import random\n\
             def test_good(): pass\n\
             def test_flaky(): assert random.random() < 0.5\n\
             def test_before(): assert 1 == 2\n\
             def test_now(): pass\n\
             class TestMore:\n\
             \x20   def test_once(self): pass\n",
        ),
    ]);
    git(
        project.path(),
        "git init -q -b main . && git add . && git commit -qm base && git checkout -qb change",
    );
    git(
        project.path(),
        "sed -i 's/def test_now(): pass/def test_now(): assert 3 == 4/' tests/test_shop.py && git commit -qam change",
    );
    project
}

fn junit(root: &Path, name: &str, failed: &[(&str, &str)], passed: usize) {
    let failed = failed.iter().map(|(class, name)| {
        format!("<testcase classname=\"{class}\" name=\"{name}\" time=\"0.01\"><failure message=\"assert 1 == 2\"/></testcase>")
    });
    let passed = (0..passed)
        .map(|n| format!("<testcase classname=\"tests.test_other\" name=\"test_{n}\" time=\"0.01\"/>"));
    let cases: String = failed.chain(passed).collect();
    std::fs::create_dir_all(root.join("reports")).unwrap();
    let text = format!("<testsuites><testsuite name=\"pytest\">{cases}</testsuite></testsuites>");
    std::fs::write(root.join("reports").join(name), text).unwrap();
}

fn check(root: &Path, arguments: &[&str]) -> Output {
    let state = tempfile::tempdir().unwrap();
    command(state.path()).arg("check").arg(root).args(arguments).output().unwrap()
}

#[test]
fn each_failed_test_gets_its_answer() {
    let project = repository_with_a_change();
    let root = project.path();
    let class = "tests.test_shop";
    junit(root, "one.xml", &[(class, "test_flaky"), (class, "test_before"), (class, "test_now")], 30);
    junit(root, "deep.xml", &[("tests.test_shop.TestMore", "test_once"), ("com.example.Other", "works")], 15);
    let reports = root.join("reports/*.xml").display().to_string();
    let output =
        check(root, &["--junit", &reports, "--base", "main", "--format", "json", "--max-flake-rate", "9%"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(checked["schema"], "flakefarm.check/v1");
    assert_eq!((&checked["cases"], &checked["passed"]), (&Value::from(50), &Value::from(45)));
    let answer = |id: &str| {
        let all = checked["answers"].as_array().unwrap();
        let found = all.iter().find(|answered| answered["id"] == id);
        found.unwrap_or_else(|| panic!("{id} in {checked:#}"))["answer"].as_str().unwrap().to_owned()
    };
    // A test of 50 % passes or fails 32 times in a row twice in 2^32: less often than once in 10^9.
    assert_eq!(answer("tests/test_shop.py::test_flaky"), "flaky");
    assert_eq!(answer("tests/test_shop.py::test_before"), "before");
    assert_eq!(answer("tests/test_shop.py::test_now"), "broken");
    assert_eq!(answer("tests/test_shop.py::TestMore::test_once"), "not_reproduced");
    assert_eq!(answer("com.example.Other.works"), "could_not_run");
}

#[test]
fn a_failure_that_only_the_order_of_the_job_shows_is_seen_in_it() {
    let source = "SEEN = []\ndef test_victim(): assert not SEEN\ndef test_other(): pass\ndef test_polluter(): SEEN.append(1)\n";
    let project = project(&[TOML, ("tests/test_o.py", source)]);
    let root = project.path();
    let case = |name: &str, body: &str| {
        format!("<testcase classname=\"tests.test_o\" name=\"{name}\" time=\"0.01\">{body}</testcase>")
    };
    let failure = "<failure message=\"assert not [1]\"/>";
    let cases = case("test_polluter", "") + &case("test_other", "") + &case("test_victim", failure);
    let text = format!("<testsuites><testsuite name=\"pytest\">{cases}</testsuite></testsuites>");
    std::fs::write(root.join("report.xml"), text).unwrap();
    let report = root.join("report.xml").display().to_string();
    let output = check(root, &["--junit", &report, "--format", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
    let answers = checked["answers"].as_array().unwrap();
    assert_eq!((answers.len(), &answers[0]["answer"]), (1, &"flaky".into()), "{checked:#}");
    let reason = answers[0]["reason"].as_str().unwrap();
    assert!(reason.contains("it passes alone") && reason.contains("in the order of the job"), "{reason}");
}

#[test]
fn what_cannot_be_asked_is_said() {
    let project = repository_with_a_change();
    let root = project.path();
    let reports = root.join("reports/a.xml").display().to_string();
    // All is well: nothing to say.
    junit(root, "a.xml", &[], 50);
    for (format, text) in
        [("markdown", ""), ("github", ""), ("gitlab", "[]\n"), ("human", "50 of 50 passed\n")]
    {
        let output = check(root, &["--junit", &reports, "--format", format]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), text, "{format}");
    }
    // The reports of another project.
    junit(root, "a.xml", &[("com.example.Other", "works")], 3);
    let output = check(root, &["--junit", &reports]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("com.example.Other.works"), "{}", said(&output));
    // No report, no JUnit, and a base that is not there.
    std::fs::write(root.join("reports/b.xml"), "<html>").unwrap();
    for junit in ["reports/none.xml", "reports/none*.xml", "reports/b.xml"] {
        let output = check(root, &["--junit", &root.join(junit).display().to_string()]);
        assert_eq!(output.status.code(), Some(2), "{junit}: {}", said(&output));
    }
    // Without a container engine, the job's own result stands.
    junit(root, "a.xml", &[("tests.test_shop", "test_now")], 3);
    for (choice, code) in [("fail", 70), ("pass", 0)] {
        let state = tempfile::tempdir().unwrap();
        let mut asked = command(state.path());
        asked.arg("check").arg(root).args(["--junit", &reports, "--on-unavailable", choice]);
        let output = asked.env("DOCKER_HOST", "unix:///nonexistent/docker.sock").output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains("the job's own result stands"), "{}", said(&output));
    }
}

#[test]
fn a_change_of_tests_is_guarded() {
    let project = repository_with_a_change();
    let root = project.path();
    let guard = |arguments: &[&str]| {
        let state = tempfile::tempdir().unwrap();
        command(state.path()).arg("guard").arg(root).args(arguments).output().unwrap()
    };
    let nothing = guard(&["--base", "change"]);
    assert_eq!(nothing.status.code(), Some(0), "{}", said(&nothing));
    assert!(said(&nothing).contains("nothing to guard"), "{}", said(&nothing));
    git(root, "git checkout -q main && git checkout -qb other");
    std::fs::write(
        root.join("tests/test_new.py"),
        "import random\ndef test_new(): assert random.random() < 0.5\n",
    )
    .unwrap();
    let settings = format!("{}[sweep]\npanel = \"none\"\nscope = \"test\"\n", TOML.1);
    std::fs::write(root.join(TOML.0), settings).unwrap();
    let output = guard(&["--base", "main", "--format", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ids: Vec<&str> =
        report["tests"].as_array().unwrap().iter().map(|test| test["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["tests/test_new.py::test_new"], "only what changed: {}", said(&output));
    // Of a file that was there, the tests that are other than before.
    git(root, "git add . && git commit -qm 'a new test'");
    std::fs::write(
        root.join("tests/test_new.py"),
        "import random\ndef test_new(): assert random.random() < 0.5\ndef test_more(): pass\n",
    )
    .unwrap();
    let output = guard(&["--base", "HEAD", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let tests = report["tests"].as_array().unwrap();
    assert_eq!((tests.len(), &tests[0]["id"]), (1, &"tests/test_new.py::test_more".into()), "{report:#}");
    let unknown = guard(&["--base", "no-such-branch"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", said(&unknown));
}

/// `deploy/ci/flakefarm-check` in a recorded environment, with this build of flakefarm.
fn template(root: &Path, environment: &[(&str, &str)]) -> Output {
    let state = tempfile::tempdir().unwrap();
    let programs = flakefarm().parent().unwrap().display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let mut run = Command::new(repository().join("deploy/ci/flakefarm-check"));
    for (name, _) in std::env::vars() {
        let of_ci = ["GITHUB_", "GITLAB_", "CI_", "BUILDKITE", "JENKINS_", "FLAKEFARM_C", "FLAKEFARM_FARM"];
        if of_ci.iter().any(|start| name.starts_with(start)) {
            run.env_remove(name);
        }
    }
    run.current_dir(root)
        .env("PATH", path)
        .env("FLAKEFARM_STATE", state.path())
        .env("FLAKEFARM_IMAGE", flakefarm_tests::harness::test_image())
        .env("FLAKEFARM_JUNIT", "reports/*.xml")
        .envs(environment.iter().copied());
    run.output().unwrap()
}

#[test]
fn the_templates_work_in_recorded_environments() {
    let project = repository_with_a_change();
    let root = project.path();
    git(root, "git update-ref refs/remotes/origin/main main");
    junit(root, "a.xml", &[("tests.test_shop", "test_now")], 49);
    let summary = root.join("reports/summary").display().to_string();
    let github = [
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_BASE_REF", "main"),
        ("GITHUB_STEP_SUMMARY", summary.as_str()),
        ("FLAKEFARM_FARM", ""),
    ];
    let output = template(root, &github);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.starts_with("::error file=tests/test_shop.py,title=broken on this commit"),
        "{}",
        said(&output)
    );
    assert!(text.contains("before the change"), "{text}");
    let shown = std::fs::read_to_string(&summary).unwrap();
    assert!(shown.starts_with("**49 of 50 passed**"), "{shown}");

    let base = Command::new("git").args(["rev-parse", "main"]).current_dir(root).output().unwrap();
    let base = String::from_utf8(base.stdout).unwrap().trim().to_owned();
    let gitlab = [
        ("GITLAB_CI", "true"),
        ("CI_MERGE_REQUEST_DIFF_BASE_SHA", base.as_str()),
        ("FLAKEFARM_OUTPUT", "quality.json"),
    ];
    let output = template(root, &gitlab);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let quality: Value =
        serde_json::from_str(&std::fs::read_to_string(root.join("quality.json")).unwrap()).unwrap();
    assert_eq!(quality[0]["check_name"], "flakefarm-broken-on-this-commit");
    assert_eq!(quality[0]["location"]["path"], "tests/test_shop.py");

    let buildkite = [("BUILDKITE", "true"), ("BUILDKITE_PULL_REQUEST_BASE_BRANCH", "not-fetched")];
    let output = template(root, &buildkite);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("origin/not-fetched is not in this clone"), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("**49 of 50 passed**"), "{}", said(&output));

    let jenkins = [
        ("JENKINS_URL", "https://ci.example"),
        ("CHANGE_TARGET", "main"),
        ("FLAKEFARM_CHECK_FAIL_ON", "flaky"),
    ];
    let output = template(root, &jenkins);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("broken on this commit"), "{}", said(&output));
}

#[test]
fn the_templates_are_well_formed_and_run_the_script() {
    let ci = repository().join("deploy/ci");
    let shell = Command::new("sh").arg("-n").arg(ci.join("flakefarm-check")).output().unwrap();
    assert!(shell.status.success(), "{}", said(&shell));
    let script = "import sys, json, yaml\nprint(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let load = |file: &str| -> Value {
        let output = Command::new("python3").args(["-c", script]).arg(ci.join(file)).output().unwrap();
        assert!(output.status.success(), "python3 with yaml (python3-yaml) reads {file}: {}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let action = load("github/action.yml");
    assert_eq!(action["runs"]["using"], "composite");
    let step = &action["runs"]["steps"][0];
    assert!(step["run"].as_str().unwrap().contains("flakefarm-check"));
    // Inputs reach the shell as variables, never as text of the script.
    assert!(!step["run"].as_str().unwrap().contains("${{"));
    for input in action["inputs"].as_object().unwrap().keys() {
        let used = format!("${{{{ inputs.{input} }}}}");
        assert!(
            step["env"].as_object().unwrap().values().any(|value| value == used.as_str()),
            "{input} is used"
        );
    }
    let gitlab = load("gitlab/flakefarm.yml");
    assert_eq!(gitlab[".flakefarm-check"]["script"][0], "deploy/ci/flakefarm-check");
    let buildkite = load("buildkite/pipeline.yml");
    assert!(buildkite["steps"][0]["command"].as_str().unwrap().contains("deploy/ci/flakefarm-check"));
    let jenkins = std::fs::read_to_string(ci.join("jenkins/Jenkinsfile")).unwrap();
    assert!(jenkins.contains("sh 'deploy/ci/flakefarm-check'"));
    assert_eq!(jenkins.matches('{').count(), jenkins.matches('}').count());
}
