//! Canned answers in place of sandboxes: a project whose tests all pass in no time, or fail at a rate. What is measured or
//! tested with it is everything but the attempts: planner, queue, worker, stores.

use super::{BoundedOutput, SandboxExit, SandboxRequest};
use flakefarm_shared::{InfraError, InfraStage};
use serde::Deserialize;
use serde_json::json;
use std::collections::VecDeque;
use std::io::Write as _;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const KILLED: i64 = 137;

/// A project of so many tests. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct ScriptedSandbox {
    tests: Arc<[String]>,
    /// How long an attempt takes.
    pace: Duration,
    /// Where each attempt that starts is noted.
    starts: Option<Arc<Path>>,
    /// Of a hundred runs of each test, so many fail.
    failing: u32,
    runs: Arc<AtomicU32>,
}

/// What an attempt is asked for, as far as a script cares.
#[derive(Deserialize)]
struct Asked {
    mode: String,
    tests: Option<Vec<String>>,
}

impl ScriptedSandbox {
    /// A project of `tests` tests in files of a hundred.
    pub fn new(tests: NonZeroU32) -> Self {
        let tests = (0..tests.get()).map(Self::test_name).collect();
        Self { tests, pace: Duration::ZERO, starts: None, failing: 0, runs: Arc::default() }
    }

    /// Attempts take `pace`, and each that starts is a line in the file `starts`: worker, attempt.
    pub fn paced(self, pace: Duration, starts: &Path) -> Self {
        Self { pace, starts: Some(starts.into()), ..self }
    }

    /// Of a hundred runs so many fail, spread evenly over runs and tests.
    pub fn failing(self, percent: u32) -> Self {
        Self { failing: percent, ..self }
    }

    /// The id of its test of this number, from 0.
    pub fn test_name(number: u32) -> String {
        format!("tests/test_{:03}.py::test_{number:06}", number / 100)
    }

    pub(super) fn start(&self, request: &SandboxRequest) -> Result<RunningScript, InfraError> {
        let mut parts = request.stdin.splitn(2, |byte| *byte == b'\n');
        let nonce = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let asked: Asked =
            serde_json::from_slice(parts.next().unwrap_or_default()).map_err(|error| InfraError {
                stage: InfraStage::Sandbox,
                message: format!("a script was asked for something else than an attempt: {error}"),
            })?;
        let selected = asked.tests.as_deref().unwrap_or(&self.tests);
        let mut lines = VecDeque::with_capacity(selected.len() * 2 + 3);
        let mut say = |event: serde_json::Value| {
            lines.push_back(format!("{nonce} {} {event}", lines.len()).into_bytes());
        };
        say(json!({ "e": "session", "framework": "script 1", "python": "none", "mode": asked.mode }));
        say(json!({ "e": "collected", "tests": selected, "missing": [] }));
        if asked.mode == "run" {
            for (i, test) in selected.iter().enumerate() {
                say(json!({ "e": "start", "test": test, "i": i }));
                // 37 and 100 have no common divisor: each hundred runs meet each number once.
                let run = self.runs.fetch_add(1, Ordering::Relaxed);
                say(if run.wrapping_mul(37) % 100 < self.failing {
                    json!({
                        "e": "end", "test": test, "i": i, "outcome": "fail", "wall_us": 1000, "cpu_us": 900,
                        "phase": "call", "kind": "exception", "exceptions": ["builtins.OSError"],
                        "message": "scripted", "frames": [],
                    })
                } else {
                    json!({ "e": "end", "test": test, "i": i, "outcome": "pass", "wall_us": 1000, "cpu_us": 900 })
                });
            }
        }
        say(json!({ "e": "finish", "exit": 0 }));
        if let (Some(starts), "run") = (&self.starts, asked.mode.as_str()) {
            note(starts, request).map_err(|error| InfraError {
                stage: InfraStage::Sandbox,
                message: format!("failed to note a start in {}: {error}", starts.display()),
            })?;
        }
        Ok(RunningScript { lines, exit_code: 0, ready_at: Instant::now() + self.pace })
    }
}

/// One write, so that several processes may append at the same time.
fn note(starts: &Path, request: &SandboxRequest) -> std::io::Result<()> {
    let line = format!("{} {} {}\n", request.worker, request.attempt.job, request.attempt.index);
    std::fs::File::options().create(true).append(true).open(starts)?.write_all(line.as_bytes())
}

/// An answer that is being read.
#[derive(Debug)]
pub struct RunningScript {
    lines: VecDeque<Vec<u8>>,
    exit_code: i64,
    /// Nothing is said before.
    ready_at: Instant,
}

impl RunningScript {
    pub(super) async fn next_line(&mut self) -> Option<Vec<u8>> {
        if Instant::now() < self.ready_at {
            tokio::time::sleep_until(self.ready_at.into()).await;
        }
        self.lines.pop_front()
    }

    pub(super) fn kill(&mut self) {
        self.exit_code = KILLED;
        self.lines.clear();
        self.ready_at = Instant::now();
    }

    pub(super) fn finish(self) -> SandboxExit {
        SandboxExit {
            exit_code: self.exit_code,
            oom_killed: false,
            timed_out: false,
            output: BoundedOutput::new(0),
            cpu_us: Some(0),
        }
    }
}
