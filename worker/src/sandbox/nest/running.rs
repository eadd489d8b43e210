//! An attempt that runs in a nest: its output, its end, and the nest's way back to its job.

use super::{Key, Nest, Preparation, lost, unexpected};
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

/// Nests of one job that run nothing of it at the moment, with what they are good for.
pub(crate) type Idle = Arc<Mutex<Vec<(Key, Nest)>>>;

/// A running attempt. Dropped, it takes its nest with it.
#[derive(Debug)]
pub struct RunningNested {
    nest: Nest,
    home: Option<Home>,
    /// By which the nest knows it.
    number: u32,
    lines: Lines,
    errors: BoundedOutput,
    end: Option<Result<Ended, InfraError>>,
    deadline: Instant,
    timed_out: bool,
    killed: bool,
}

/// Where a nest goes when its attempt has ended; without one it ends, too.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    pub(crate) idle: Idle,
    pub(crate) key: Key,
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
        home: Option<Home>,
        request: &SandboxRequest,
        fork: Option<&Preparation>,
    ) -> Result<Asked, InfraError> {
        let timeout = Duration::from_millis(request.limits.attempt_timeout_ms);
        let number = nest.start(request, fork).await?;
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
            home,
            number,
            lines: Lines::new(LINE_CAP),
            errors: BoundedOutput::new(ERROR_HALF),
            end: None,
            deadline: Instant::now() + timeout + LAST_RESORT,
            timed_out: false,
            killed: false,
        })))
    }

    /// Asks for the attempt that is to follow in the same nest, if one with `key` can: it then starts as soon
    /// as this one has ended. At most one is asked for ahead.
    pub(crate) async fn announce(&mut self, key: &Key, request: &SandboxRequest, fork: Option<&Preparation>) {
        let follows = self.home.as_ref().is_some_and(|home| home.key == *key);
        if !follows || self.end.is_some() || self.killed || self.nest.announced.is_some() {
            return;
        }
        if let Err(error) = self.nest.announce(request, fork).await {
            self.end = Some(Err(error));
        }
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
        if let Err(error) = self.nest.ask(&[Ask::Kill(self.number)]).await {
            self.end = Some(Err(error));
        }
    }

    /// See [`crate::sandbox::RunningSandbox::abandon`].
    pub async fn abandon(self) {
        self.nest.close().await;
    }

    /// See [`crate::sandbox::RunningSandbox::finish`].
    pub async fn finish(mut self) -> Result<SandboxExit, InfraError> {
        while self.end.is_none() {
            self.advance().await;
            self.lines.clear();
        }
        let Self { nest, home, end, errors, timed_out, .. } = self;
        match end {
            Some(Ok(ended)) => {
                if let Some(Home { idle, key }) = home {
                    idle.lock().expect("no holder panics").push((key, nest));
                }
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
