//! An attempt that runs in a nest: its output, its end, and the nest's way back to its job.

use super::{Nest, Preparation, lost, unexpected};
use crate::sandbox::output::{BoundedOutput, Lines};
use crate::sandbox::{SandboxExit, SandboxRequest};
use flakefarm_nest::{Ask, Ended, Tell};
use flakefarm_shared::InfraError;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

const LINE_CAP: usize = 1 << 20;
const ERROR_HALF: usize = 64 << 10;
/// Beyond the attempt's own limit, before it is killed from here.
const LAST_RESORT: Duration = Duration::from_secs(5);
/// For an interpreter to import and collect, at least.
const PREPARING: Duration = Duration::from_secs(120);
/// For a killed attempt to be gone.
const SETTLING: Duration = Duration::from_secs(30);

/// Nests of one job that run nothing at the moment, with what they are good for.
pub(crate) type Idle<Key> = Arc<Mutex<Vec<(Key, Nest)>>>;

/// A running attempt. Dropped, it takes its nest with it.
#[derive(Debug)]
pub struct RunningNested {
    nest: Nest,
    give_back: GiveBack,
    lines: Lines,
    errors: BoundedOutput,
    end: Option<Result<Ended, InfraError>>,
    deadline: Instant,
    timed_out: bool,
    killed: bool,
}

/// Where a nest goes when its attempt has ended.
pub(crate) struct GiveBack(Box<dyn FnOnce(Nest) + Send>);

impl GiveBack {
    /// Nobody wants it: it ends.
    pub(crate) fn nowhere() -> Self {
        Self(Box::new(drop))
    }

    pub(crate) fn to<Key: Send + 'static>(idle: &Idle<Key>, key: Key) -> Self {
        let idle = idle.clone();
        Self(Box::new(move |nest| idle.lock().expect("no holder panics").push((key, nest))))
    }
}

impl std::fmt::Debug for GiveBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GiveBack")
    }
}

/// What came of asking for an attempt.
pub(crate) enum Asked {
    /// It runs.
    Runs(Box<RunningNested>),
    /// It cannot be forked, for this reason.
    NotForked(Box<Nest>, String),
}

impl RunningNested {
    /// Starts an attempt in `nest`, which runs nothing. Not cancel safe for the nest: given up, it goes.
    pub(crate) async fn start(
        mut nest: Nest,
        give_back: GiveBack,
        request: &SandboxRequest,
        fork: Option<&Preparation>,
    ) -> Result<Asked, InfraError> {
        let timeout = Duration::from_millis(request.limits.attempt_timeout_ms);
        nest.start(request, fork).await?;
        if fork.is_some() {
            let patience = timeout.max(PREPARING);
            let Ok(heard) = tokio::time::timeout(patience, nest.hear()).await else {
                let why = format!("the interpreter was not ready after {} s", patience.as_secs());
                return Ok(Asked::NotForked(Box::new(nest), why));
            };
            match heard? {
                Tell::Forked => {}
                Tell::NotForked(why) => return Ok(Asked::NotForked(Box::new(nest), why)),
                Tell::Failed(why) => return Err(lost(&why)),
                told @ (Tell::Ready | Tell::Output(_) | Tell::Errors(_) | Tell::Ended(_)) => {
                    return Err(unexpected(&told));
                }
            }
        }
        Ok(Asked::Runs(Box::new(Self {
            nest,
            give_back,
            lines: Lines::new(LINE_CAP),
            errors: BoundedOutput::new(ERROR_HALF),
            end: None,
            deadline: Instant::now() + timeout + LAST_RESORT,
            timed_out: false,
            killed: false,
        })))
    }

    /// See [`crate::sandbox::RunningSandbox::next_line`].
    pub async fn next_line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(line) = self.lines.pop() {
                return Some(line);
            }
            if self.end.is_some() {
                return None;
            }
            self.advance().await;
        }
    }

    /// See [`crate::sandbox::RunningSandbox::kill`].
    pub async fn kill(&mut self) {
        if self.end.is_some() || self.killed {
            return;
        }
        self.killed = true;
        self.deadline = self.deadline.min(Instant::now() + SETTLING);
        if let Err(error) = self.nest.ask(&Ask::Kill).await {
            self.end = Some(Err(error));
        }
    }

    /// See [`crate::sandbox::RunningSandbox::finish`].
    pub async fn finish(mut self) -> Result<SandboxExit, InfraError> {
        while self.end.is_none() {
            self.advance().await;
            self.lines.clear();
        }
        let Self { nest, give_back, end, errors, timed_out, .. } = self;
        match end {
            Some(Ok(ended)) => {
                (give_back.0)(nest);
                Ok(SandboxExit {
                    exit_code: i64::from(ended.exit_code),
                    oom_killed: ended.out_of_memory,
                    timed_out,
                    output: errors,
                    cpu_us: Some(ended.cpu_us),
                })
            }
            Some(Err(error)) => {
                nest.close().await;
                Err(error)
            }
            None => Err(lost("an attempt was not waited for")),
        }
    }

    /// Takes up what the nest tells next. Cancel safe: what is heard is taken up before the next await.
    async fn advance(&mut self) {
        let told = tokio::select! {
            told = self.nest.hear() => told,
            () = tokio::time::sleep_until(self.deadline) => return self.deadline_passed().await,
        };
        match told {
            Ok(Tell::Output(piece)) => self.lines.push(&piece),
            Ok(Tell::Errors(piece)) => self.errors.push(&piece),
            Ok(Tell::Ended(ended)) => {
                self.lines.end();
                self.end = Some(Ok(ended));
            }
            Ok(Tell::Failed(why)) => self.end = Some(Err(lost(&why))),
            Ok(told @ (Tell::Ready | Tell::NotForked(_) | Tell::Forked)) => {
                self.end = Some(Err(unexpected(&told)));
            }
            Err(error) => self.end = Some(Err(error)),
        }
    }

    async fn deadline_passed(&mut self) {
        if self.killed {
            self.end = Some(Err(lost("an attempt did not end after it was killed")));
        } else {
            self.kill().await;
            self.timed_out = true;
            self.deadline = Instant::now() + SETTLING;
        }
    }
}
