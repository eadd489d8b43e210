//! The process level: an attempt is a plain process of this machine, in a directory of its own. It is
//! no isolation: what a test does to the machine is done. For trials, and for what trusts itself.

use super::output::{BoundedOutput, Lines};
use super::place::Place;
use super::{SandboxExit, SandboxRequest};
use crate::user::user_name;
use flakefarm_shared::{InfraError, InfraStage};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::time::Instant;

const LINE_CAP: usize = 1 << 20;
const ERROR_HALF: usize = 64 << 10;
/// Beyond the attempt's own limit, before it is killed from here.
const LAST_RESORT: Duration = Duration::from_secs(5);
/// After the program's end, for output of children that it has left.
const SETTLING: Duration = Duration::from_secs(1);
/// Where images have what lies in the place's own directory here.
const IN_IMAGES: &str = "/flakefarm/";

/// A running process. Dropped, it is killed.
#[derive(Debug)]
pub struct RunningProcess {
    child: Child,
    stdin: Option<(ChildStdin, Vec<u8>)>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    status: Option<ExitStatus>,
    lines: Lines,
    errors: BoundedOutput,
    deadline: Instant,
    timed_out: bool,
    sent: usize,
    /// Removed at the end.
    directory: TempDir,
}

enum Step {
    Output(Vec<u8>),
    Errors(Vec<u8>),
    Fed(usize),
    Ended(std::io::Result<ExitStatus>),
    Deadline,
}

impl RunningProcess {
    pub(super) fn start(request: SandboxRequest) -> Result<Self, InfraError> {
        let place = Place::read(Path::new(&request.image))?;
        let failed = |what: &str, error: std::io::Error| InfraError {
            stage: InfraStage::Sandbox,
            message: format!("failed to {what}: {error}"),
        };
        let directory = tempfile::Builder::new()
            .prefix("flakefarm-attempt-")
            .tempdir()
            .map_err(|error| failed("make a directory for an attempt", error))?;
        let (work, home) = (directory.path().join("work"), directory.path().join("home"));
        let tree = Path::new(&request.image).join("tree");
        copy(&tree, &work).map_err(|error| failed("copy the project's tree", error))?;
        std::fs::create_dir(&home).map_err(|error| failed("make a home for an attempt", error))?;
        let here = |word: &String| match word.strip_prefix(IN_IMAGES) {
            Some(rest) => Path::new(&request.image).join(rest).display().to_string(),
            None => word.clone(),
        };
        let mut argv = request.argv.iter().map(here);
        let program = argv.next().unwrap_or_default();
        // Through a shell, so that a program that does not exist ends as it does elsewhere.
        let mut command = tokio::process::Command::new("/bin/sh");
        command.args(["-c", "ulimit -c 0; exec \"$@\"", "sh", &program]).args(argv);
        command.current_dir(&work).env("PATH", place.search_path()).env("HOME", &home).env("TMPDIR", &home);
        // Who runs flakefarm; a service's environment may not say it.
        let name = own_name();
        command.env("USER", &name).env("LOGNAME", &name);
        command.envs(request.variables.iter().map(|(name, value)| (name, here(value))));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| failed("start a process", error))?;
        let timeout = Duration::from_millis(request.limits.attempt_timeout_ms);
        Ok(Self {
            stdin: child.stdin.take().map(|stdin| (stdin, request.stdin)),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
            status: None,
            lines: Lines::new(LINE_CAP),
            errors: BoundedOutput::new(ERROR_HALF),
            deadline: Instant::now() + timeout + LAST_RESORT,
            timed_out: false,
            sent: 0,
            directory,
        })
    }

    /// See [`super::RunningSandbox::next_line`].
    pub async fn next_line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(line) = self.lines.pop() {
                return Some(line);
            }
            self.stdout.as_ref()?;
            self.advance().await;
        }
    }

    /// See [`super::RunningSandbox::kill`].
    pub async fn kill(&mut self) {
        let Some(group) = self.child.id().filter(|_| self.status.is_none()) else { return };
        // The whole group, which the standard library cannot.
        let killed =
            tokio::process::Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).status().await;
        if !killed.is_ok_and(|status| status.success())
            && let Err(error) = self.child.start_kill()
        {
            tracing::warn!("failed to kill process {group}: {error}");
        }
    }

    /// See [`super::RunningSandbox::finish`].
    pub async fn finish(mut self) -> Result<SandboxExit, InfraError> {
        while self.status.is_none() || self.stdout.is_some() || self.stderr.is_some() {
            self.advance().await;
            self.lines.clear();
        }
        let Self { status, errors, timed_out, directory, .. } = self;
        if let Err(error) = directory.close() {
            tracing::warn!("failed to remove an attempt's directory: {error}");
        }
        let status = status.expect("the loop above waits for it");
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        let exit_code = i64::from(code.unwrap_or(-1));
        Ok(SandboxExit { exit_code, oom_killed: false, timed_out, output: errors, cpu_us: None })
    }

    /// One step of everything that goes on at once. Cancel safe: each branch is, and what a branch
    /// yields is taken up before the next await.
    async fn advance(&mut self) {
        let Self { child, stdin, stdout, stderr, status, sent, deadline, .. } = self;
        let step = tokio::select! {
            piece = read(stdout), if stdout.is_some() => Step::Output(piece),
            piece = read(stderr), if stderr.is_some() => Step::Errors(piece),
            written = feed(stdin, *sent), if stdin.is_some() => Step::Fed(written),
            ended = child.wait(), if status.is_none() => Step::Ended(ended),
            () = tokio::time::sleep_until(*deadline) => Step::Deadline,
        };
        match step {
            Step::Output(piece) if piece.is_empty() => {
                self.lines.end();
                self.stdout = None;
            }
            Step::Output(piece) => self.lines.push(&piece),
            Step::Errors(piece) if piece.is_empty() => self.stderr = None,
            Step::Errors(piece) => self.errors.push(&piece),
            Step::Fed(written) => {
                self.sent += written;
                if written == 0 {
                    self.stdin = None;
                }
            }
            Step::Ended(ended) => {
                self.status = Some(ended.unwrap_or_else(|_| ExitStatus::from_raw(0xff00)));
                self.deadline = Instant::now() + SETTLING;
            }
            Step::Deadline if self.status.is_some() => {
                // A child that it has left holds the pipes; here, nothing ends it.
                self.lines.end();
                (self.stdout, self.stderr) = (None, None);
            }
            Step::Deadline => {
                self.timed_out = true;
                self.deadline = Instant::now() + LAST_RESORT;
                self.kill().await;
            }
        }
    }
}

/// What there is to read; empty at the end.
async fn read(stream: &mut Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let Some(stream) = stream else { return Vec::new() };
    let mut piece = vec![0; 64 << 10];
    let length = stream.read(&mut piece).await.unwrap_or(0);
    piece.truncate(length);
    piece
}

/// How much was written; nothing at the end, or if nobody reads it.
async fn feed(stdin: &mut Option<(ChildStdin, Vec<u8>)>, sent: usize) -> usize {
    let Some((stdin, bytes)) = stdin else { return 0 };
    stdin.write(&bytes[sent..]).await.unwrap_or(0)
}

/// The name of this process's user, of a number that has none something like it.
fn own_name() -> String {
    let user = std::fs::metadata("/proc/self").map_or(0, |own| std::os::unix::fs::MetadataExt::uid(&own));
    let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = known.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == user.to_string()).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| user_name(user))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path())?, target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
