//! `flakefarm run -- COMMAND`: a test command whose failures of quarantined tests alone do not fail the job.
//! Anything else is the command's own: its exit code, its output, its signals.

use crate::args::RunArgs;
use crate::check::mapping::{self, Mapped};
use crate::check::reports;
use crate::exit::{Complaint, Exit};
use crate::memory::Memory;
use crate::quarantine::Quarantine;
use crate::say::say;
use flakefarm_coordinator::history::ingest::case::{Case, CaseOutcome};
use flakefarm_coordinator::history::ingest::{counts, junit};
use std::fs::File;
use std::io::BufReader;
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::SystemTime;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// Failures that are said one by one.
const SHOWN: usize = 50;

/// Runs it; the exit code of all of it.
pub(crate) async fn run(args: &RunArgs) -> Result<ExitCode, Complaint> {
    let root = crate::ask::project_root(&args.path)?;
    let before = written(&args.junit);
    let status = carry_out(args).await?;
    let own = code(status);
    if status.success() || status.signal().is_some() {
        return Ok(ExitCode::from(own));
    }
    let failures = match failures(&args.junit, &before) {
        Ok(failures) => failures,
        Err(why) => {
            say(format!("flakefarm: {why}: the command's own exit code stands"));
            return Ok(ExitCode::from(own));
        }
    };
    let memory = Memory::of_project(&args.memory, &root)?;
    let quarantine = Quarantine::of_memory(&root, &memory).await;
    for note in &quarantine.notes {
        say(format!("warning: {note}"));
    }
    let (mut muted, mut counting) = (Vec::new(), Vec::new());
    for case in &failures {
        let names = names(&root, case);
        let (kind, message) = said(case);
        let shown = names.first().cloned().unwrap_or_default();
        let known: Vec<&String> = names.iter().collect();
        match quarantine.muting(&known, counts::signature(kind, message)) {
            Some(entry) => muted.push(format!("quarantined  {shown}  ({})", entry.describe())),
            None => counting.push(match quarantine.expired(&known) {
                Some(entry) => format!("counts       {shown}  (its quarantine ended: {})", entry.expires),
                None => format!("counts       {shown}"),
            }),
        }
    }
    for line in muted.iter().chain(&counting).take(SHOWN) {
        say(format!("flakefarm: {line}"));
    }
    if counting.is_empty() {
        let failures = match muted.len() {
            1 => "the one failure is".to_owned(),
            failures => format!("all {failures} failures are"),
        };
        say(format!("flakefarm: {failures} quarantined: exit code 0 instead of {own}"));
        return Ok(Exit::Clean.into());
    }
    say(format!("flakefarm: {} of {} failures count: exit code {own}", counting.len(), failures.len()));
    Ok(ExitCode::from(own))
}

/// The command with our own standard streams; what we are told to do, it is told.
async fn carry_out(args: &RunArgs) -> Result<ExitStatus, Complaint> {
    let (program, arguments) = args.command.split_first().expect("clap demands a command");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    // A terminal sends it to the whole group, the command among it: we only outlive it.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut child = Command::new(program).args(arguments).spawn().map_err(|error| {
        Complaint::new(Exit::Usage, format!("failed to start {}: {error}", program.display()))
            .hint("flakefarm run --junit REPORT -- COMMAND")
    })?;
    loop {
        let name = tokio::select! {
            status = child.wait() => return Ok(status?),
            _ = terminate.recv() => "TERM",
            _ = hang_up.recv() => "HUP",
            _ = interrupt.recv() => continue,
        };
        if let Some(id) = child.id() {
            // The shell's own kill: this crate has no way to a system call.
            let sent = Command::new("kill").args(["-s", name, &id.to_string()]).status().await;
            if !sent.is_ok_and(|status| status.success()) {
                child.start_kill()?;
            }
        }
    }
}

/// As a shell tells it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(1)
}

/// When the reports that are there were written: those of an earlier run are not this one's.
fn written(patterns: &[String]) -> Vec<(PathBuf, Option<SystemTime>)> {
    let files = reports::files(patterns).unwrap_or_default();
    files.into_iter().map(|file| (file.clone(), modified(&file))).collect()
}

fn modified(file: &Path) -> Option<SystemTime> {
    file.metadata().and_then(|meta| meta.modified()).ok()
}

/// The cases that failed in this run's reports; or why that is not known.
fn failures(patterns: &[String], before: &[(PathBuf, Option<SystemTime>)]) -> Result<Vec<Case>, String> {
    let files = reports::files(patterns).map_err(|complaint| complaint.message)?;
    let fresh: Vec<PathBuf> = files
        .into_iter()
        .filter(|file| !before.iter().any(|(old, at)| old == file && *at == modified(file)))
        .collect();
    if fresh.is_empty() {
        return Err("the command wrote no report".to_owned());
    }
    let mut failures = Vec::new();
    for file in fresh {
        let opened = File::open(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let reading = junit::read(BufReader::new(opened), &mut |case| {
            if case.attempts.last().is_some_and(|attempt| attempt.outcome.is_failure()) {
                failures.push(case);
            }
            ControlFlow::Continue(())
        });
        // What cannot be read to its end may hide a failure that counts.
        if !reading.complete || reading.problem_count > 0 {
            let problem = reading.problems.first().map_or_else(String::new, |problem| problem.what.clone());
            return Err(format!("{} could not be read whole: {problem}", file.display()));
        }
    }
    if failures.is_empty() {
        return Err("it failed, and no test of its reports did".to_owned());
    }
    Ok(failures)
}

/// What a test may be called in an entry: by its id, and as its report spells it.
fn names(root: &Path, case: &Case) -> Vec<String> {
    let (Mapped::Test(id) | Mapped::File(id) | Mapped::Unknown(id)) = mapping::map(root, case);
    let mut names = vec![id];
    for between in ["::", "#", "."] {
        for around in [&case.class, &case.file] {
            if !around.is_empty() {
                names.push(format!("{around}{between}{}", case.name));
            }
        }
    }
    if case.class.is_empty() && case.file.is_empty() {
        names.push(case.name.clone());
    }
    names
}

fn said(case: &Case) -> (&str, &str) {
    match case.attempts.last().map(|attempt| &attempt.outcome) {
        Some(CaseOutcome::Fail { kind, message }) => (kind, message),
        Some(CaseOutcome::Pass | CaseOutcome::Skip) | None => ("", ""),
    }
}
