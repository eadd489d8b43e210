//! The command line itself: settings in layers and where they come from, readers that go away, and help.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::harness::{MIXED, command, flakefarm, project, said};
use std::process::{Command, Stdio};

/// Every command that people type.
const COMMANDS: &[&str] = &[
    "sweep",
    "diagnose",
    "bisect",
    "attach",
    "init",
    "report",
    "bench",
    "simulate",
    "doctor",
    "coordinator",
    "worker",
    "token",
];

#[test]
fn settings_are_shown_with_where_they_come_from() {
    let project = project(&[
        ("flakefarm.toml", "[limits]\nmemory = \"1GiB\"\n[sweep]\nruns = 3\nseed = 4\nworker = 2\n"),
        ("test_a.py", "def test_a(): pass\n"),
    ]);
    let state = tempfile::tempdir().unwrap();
    for asking in [&["sweep"][..], &["diagnose", "test_a"], &["bisect", "test_a", "--good", "HEAD"]] {
        let output = command(state.path())
            .args(asking)
            .arg(project.path())
            .args(["--print-config", "--sandbox", "nested"])
            .env("FLAKEFARM_SEED", "9")
            .env("FLAKEFARM_TOKEN", "ff_submit_abc_def")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let root = project.path().canonicalize().unwrap();
        for (line, origin) in [
            ("memory = \"1GiB\"", format!("{}/flakefarm.toml:2", root.display())),
            ("runs = 3", format!("{}/flakefarm.toml:4", root.display())),
            ("seed = 9", "FLAKEFARM_SEED".to_owned()),
            ("sandbox = \"nested\"", "--sandbox".to_owned()),
            ("pids = 512", "default".to_owned()),
            ("token = \"(secret)\"", "FLAKEFARM_TOKEN".to_owned()),
        ] {
            let found =
                shown.lines().find(|shown| shown.starts_with(line)).unwrap_or_else(|| panic!("{shown}"));
            assert!(found.ends_with(&format!("# {origin}")), "{found}");
        }
        assert!(!shown.contains("abc_def"), "{shown}");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            stderr.contains(":6: unknown key `sweep.worker` is ignored; did you mean `workers`?"),
            "{stderr}"
        );
    }
}

#[test]
fn roles_take_a_file_and_secrets_from_files() {
    let dir = project(&[
        ("database", "postgres://flakefarm:geheim@nowhere/farm\n"),
        (
            "farm.toml",
            "[stores]\ndatabase_file = \"database\"\nquue = \"x\"\n[coordinator]\nlease = \"90s\"\n",
        ),
    ]);
    let output = command(dir.path())
        .args(["coordinator", "--print-config", "--listen", "127.0.0.1:0", "--config"])
        .arg(dir.path().join("farm.toml"))
        .env("FLAKEFARM_BLOBS", "file:///tmp/blobs")
        .env_remove("FLAKEFARM_DATABASE")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let shown = said(&output);
    for wanted in [
        "database = \"(secret)\"",
        "farm.toml:2",
        "farm.toml:3: unknown key `stores.quue` is ignored; did you mean `queue`?",
        "lease = \"90s\"",
        "farm.toml:5",
        "# FLAKEFARM_BLOBS",
        "# --listen",
    ] {
        assert!(shown.contains(wanted), "{wanted} in\n{shown}");
    }
    assert!(!shown.contains("geheim"), "{shown}");
    let output = command(dir.path()).args(["coordinator", "--lease", "soon"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("90s"), "{}", said(&output));
    // Before any store is opened.
    let mut coordinator = command(dir.path());
    coordinator.arg("coordinator").env("FLAKEFARM_REPAIR_PROVIDER", "command");
    let output = coordinator.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("FLAKEFARM_REPAIR_COMMAND"), "{}", said(&output));
}

/// Standard output and standard error in one pipe whose reader reads one line and goes away.
fn with_a_reader_that_goes_away(arguments: &[&str], state: &std::path::Path) -> std::process::ExitStatus {
    let line = format!(
        "{} {} 2>&1; echo $? > status",
        shell_words::quote(&flakefarm().display().to_string()),
        shell_words::join(arguments)
    );
    let status = Command::new("sh")
        .args(["-c", &format!("({line}) | head -n 1 >/dev/null")])
        .current_dir(state)
        .env("FLAKEFARM_STATE", state)
        .env("FLAKEFARM_IMAGE", flakefarm_tests::harness::test_image())
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let code = std::fs::read_to_string(state.join("status")).unwrap().trim().parse::<i32>().unwrap();
    std::os::unix::process::ExitStatusExt::from_raw(code << 8)
}

#[test]
fn a_reader_that_goes_away_ends_a_command_quietly() {
    let state = tempfile::tempdir().unwrap();
    for arguments in [&["--help"][..], &["sweep", "--help"], &["init", "--print", "/nonexistent"]] {
        let status = with_a_reader_that_goes_away(arguments, state.path());
        assert!(matches!(status.code(), Some(0 | 2)), "{arguments:?}: {status}");
    }
    // What would run for long is told to end: it is interrupted, as by Ctrl-C.
    let mut files = MIXED.to_vec();
    files.push(("test_slow.py", "import time\ndef test_slow(): time.sleep(5)\n"));
    let project = project(&files);
    let path = project.path().display().to_string();
    let arguments = ["sweep", path.as_str(), "--runs", "500", "--scope", "test", "--workers", "2"];
    let status = with_a_reader_that_goes_away(&arguments, state.path());
    assert_eq!(status.code(), Some(130), "{status}");
}

#[test]
fn help_of_every_command_speaks_of_what_it_does() {
    for name in COMMANDS {
        let output = Command::new(flakefarm()).args([name, "--help"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(help.contains("Usage: flakefarm"), "{help}");
        for odd in ["of what that speaks", "choose 1 or more", "is no ", "mend"] {
            assert!(!help.contains(odd), "{name}: {odd}\n{help}");
        }
    }
    let all = Command::new(flakefarm()).arg("--help").output().unwrap();
    let all = String::from_utf8_lossy(&all.stdout).into_owned();
    for name in COMMANDS {
        assert!(all.contains(&format!("\n  {name}")), "{name} is not tested for, or not there:\n{all}");
    }
}

#[test]
fn a_number_of_things_is_at_least_one() {
    let state = tempfile::tempdir().unwrap();
    let output = command(state.path()).args(["sweep", "--runs", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("must be at least 1"), "{}", said(&output));
    let output =
        command(state.path()).args(["sweep", "--detach", "."]).current_dir(state.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}
