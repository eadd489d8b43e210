//! A framework's plugin on this machine's Python: no container, real processes.

use flakefarm_project::config::LoadedProject;
use flakefarm_shared::project::Framework;
use flakefarm_worker::frameworks;
use flakefarm_worker::frameworks::python::{self as python_frameworks, RunRequest};
use flakefarm_worker::frameworks::reader::{Asked, AttemptReader, AttemptReading, ExitSeen};
use flakefarm_worker::frameworks::seal::Nonce;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// For whatever a busy machine may take long over.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A fixture project of a framework.
pub fn fixture(framework: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(framework).join(name)
}

/// Runs one attempt of a framework on the project in `home/work`, as a sandbox would.
///
/// # Panics
///
/// If the attempt cannot be started or watched.
pub fn attempt(
    framework: Framework,
    home: &Path,
    python: &Path,
    request: RunRequest<'_>,
    limit: Duration,
) -> AttemptReading {
    let adapter = frameworks::of(framework);
    let root = home.join("work");
    let plugin = home.join("plugin");
    std::fs::create_dir(&plugin).expect("a directory");
    for (name, content) in adapter.files() {
        std::fs::write(plugin.join(name), content).expect("a file");
    }
    let mut project = LoadedProject::load(&root, None, &[]).expect("a project").spec;
    project.framework = framework;
    let mut child = Command::new(python)
        .arg(plugin.join("run.py"))
        .current_dir(&root)
        .env("HOME", home)
        .env("TZ", "UTC")
        .env_remove("PYTEST_ADDOPTS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let nonce = Nonce::new();
    stdin.write_all(&python_frameworks::request(&project, &request, &nonce)).expect("a request is read");
    drop(stdin);
    let mut stderr = child.stderr.take().expect("a pipe");
    let stray = std::thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).expect("stderr is readable");
        String::from_utf8_lossy(&text).into_owned()
    });
    let (send, lines) = std::sync::mpsc::channel();
    let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let reading = std::thread::spawn(move || {
        for line in stdout.split(b'\n') {
            if send.send(line.expect("stdout is readable")).is_err() {
                return;
            }
        }
    });

    let asked = match request {
        RunRequest::List => Asked::List,
        RunRequest::Run { tests, .. } => Asked::Run(tests),
    };
    let mut reader = AttemptReader::new(adapter.name, nonce, asked, Instant::now());
    let mut timed_out = None;
    loop {
        let since = reader.test_started_at().or(reader.last_event_at()).unwrap_or_else(Instant::now);
        // Importing and collecting may take long on a busy machine; the limit is a test's.
        let limit = if reader.test_started_at().is_some() { limit } else { limit.max(PATIENCE) };
        match lines.recv_timeout(limit.saturating_sub(since.elapsed())) {
            Ok(line) => reader.feed(&line, Instant::now()),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                timed_out = Some(limit);
                child.kill().expect("the attempt can be killed");
                break;
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().expect("the attempt ends");
    let stray = stray.join().expect("stderr was read");
    reading.join().expect("stdout was read");
    let exit_code = status.code().unwrap_or_else(|| 128 + status.signal().expect("a signal ended it"));
    reader.conclude(ExitSeen { exit_code: exit_code.into(), oom: false, timed_out }, &stray)
}

/// Copies a directory.
///
/// # Panics
///
/// If it cannot be copied.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a fixture") {
        let entry = entry.expect("a fixture");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a fixture's file");
        }
    }
}
