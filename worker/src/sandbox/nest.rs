//! The nested, forked and host levels: a nest (the static program of the crate `flakefarm-nest`) runs
//! attempts one after the other, each in namespaces of its own. In a container of its own per job it
//! is the nested level, on this machine the host level; the wire between is the same.

mod container;
mod host;
mod running;

pub(crate) use container::{Outer, Use};
pub use host::LocalSandbox;
pub use running::RunningNested;
pub(crate) use running::{Asked, Home, Idle};

use super::SandboxRequest;
use bollard::container::LogOutput;
use bollard::errors::Error;
use flakefarm_nest::{Ask, Attempt, Fork, SetUp, Tell, Tellings};
use flakefarm_shared::{AttemptId, Digest, InfraError, InfraStage, Limits};
use futures::{Stream, StreamExt};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The program, static, for the machine that this one was built for. Empty where there are no
/// namespaces.
pub(super) const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/flakefarm-nest"));
/// For a nest to set its world up.
const OPENING: Duration = Duration::from_secs(60);
/// Pieces of an attempt's input: the nest reads one at once.
const PIECE: usize = 1 << 20;
/// What a nest says beside the wire, kept for the error that follows.
const ASIDE: usize = 4096;
/// Interpreters that take turns in one nest at most, each with another hash seed (unless the project sets it).
pub const INTERPRETERS: usize = 3;
/// Attempts that one of them is worth being prepared for: it costs as much as a dozen of short ones.
const WORTH_ONE: usize = 4;

/// How to prepare an interpreter that attempts are forked from.
#[derive(Debug, Clone)]
pub struct Preparation {
    /// The program that collects and then waits to be asked.
    pub argv: Vec<String>,
    /// Its standard input.
    pub input: String,
    /// Attempts of the job that are to be forked: few are worth fewer interpreters.
    pub attempts: usize,
}

impl Preparation {
    /// Interpreters that take turns.
    pub fn interpreters(&self) -> usize {
        (self.attempts / WORTH_ONE).clamp(1, INTERPRETERS)
    }
}

/// What carries the wire.
enum Carrier {
    Container {
        // Declared first, dropped first: the end of the streams tells the engine nothing new.
        output: Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>,
        input: Pin<Box<dyn AsyncWrite + Send>>,
        outer: Outer,
    },
    Host {
        output: Pin<Box<dyn AsyncRead + Send>>,
        input: Pin<Box<dyn AsyncWrite + Send>>,
        process: host::NestProcess,
    },
}

/// What an attempt needs of a nest that was not opened for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    image: String,
    limits: Limits,
    used_for: Use,
    /// Interpreters are prepared with them.
    variables: BTreeMap<String, String>,
}

impl Key {
    pub(crate) fn of(request: &SandboxRequest, used_for: Use) -> Self {
        let (image, limits) = (request.image.clone(), request.limits.clone());
        Self { image, limits, used_for, variables: request.variables.clone() }
    }
}

/// A nest that is set up. Dropped, it goes with everything in it.
pub(crate) struct Nest {
    carrier: Carrier,
    tellings: Tellings,
    aside: Vec<u8>,
    piece: Vec<u8>,
    /// Attempts that it was asked for.
    asked: u32,
    /// The last of them, if nobody has started it yet.
    announced: Option<AttemptId>,
}

impl std::fmt::Debug for Nest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nest").finish_non_exhaustive()
    }
}

/// Why no attempt was started.
#[derive(Debug)]
pub(crate) enum NotStarted {
    /// This level cannot be had here; a stricter one may.
    Unsupported(String),
    /// Something of ours failed.
    Infrastructure(InfraError),
}

impl From<InfraError> for NotStarted {
    fn from(error: InfraError) -> Self {
        NotStarted::Infrastructure(error)
    }
}

impl Nest {
    fn over(carrier: Carrier) -> Self {
        Self {
            carrier,
            tellings: Tellings::default(),
            aside: Vec::new(),
            piece: vec![0; 64 << 10],
            asked: 0,
            announced: None,
        }
    }

    /// Has the nest set its world up.
    async fn set_up(&mut self, set_up: SetUp) -> Result<(), NotStarted> {
        self.ask(&[Ask::SetUp(set_up)]).await?;
        let told = tokio::time::timeout(OPENING, self.hear()).await;
        match told {
            Ok(Ok(Tell::Ready)) => Ok(()),
            Ok(Ok(Tell::Failed(why))) => Err(NotStarted::Unsupported(why)),
            Ok(Ok(told)) => Err(unexpected(&told).into()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(lost("a nest did not set itself up in time").into()),
        }
    }

    /// Asks for an attempt, unless it was announced. What follows is heard from [`Nest::hear`]. Returns its
    /// number.
    async fn start(
        &mut self,
        request: &SandboxRequest,
        fork: Option<&Preparation>,
    ) -> Result<u32, InfraError> {
        if self.announced.take() != Some(request.attempt) {
            self.ask_for(request, fork).await?;
        }
        Ok(self.asked)
    }

    /// Asks for the attempt that is to follow the running one.
    async fn announce(
        &mut self,
        request: &SandboxRequest,
        fork: Option<&Preparation>,
    ) -> Result<(), InfraError> {
        self.ask_for(request, fork).await?;
        self.announced = Some(request.attempt);
        Ok(())
    }

    /// The attempt that it was asked for ahead.
    pub(crate) fn announced(&self) -> Option<AttemptId> {
        self.announced
    }

    async fn ask_for(
        &mut self,
        request: &SandboxRequest,
        fork: Option<&Preparation>,
    ) -> Result<(), InfraError> {
        let mut asks: Vec<Ask> =
            request.stdin.chunks(PIECE).map(|piece| Ask::Input(piece.to_vec())).collect();
        asks.push(Ask::Start(Box::new(Attempt {
            argv: request.argv.clone(),
            variables: request.variables.clone(),
            scratch_bytes: request.limits.scratch_bytes,
            pids: request.limits.pids,
            memory_bytes: request.limits.memory_bytes,
            fork: fork.map(|preparation| Fork {
                argv: preparation.argv.clone(),
                input: preparation.input.clone(),
                hash_seeds: hash_seeds(request, preparation.interpreters()),
            }),
        })));
        self.asked += 1;
        self.ask(&asks).await
    }

    /// In one piece: each wakes several processes on its way.
    async fn ask(&mut self, asks: &[Ask]) -> Result<(), InfraError> {
        let frames: Vec<u8> = asks.iter().flat_map(Ask::to_frame).collect();
        let (Carrier::Container { input, .. } | Carrier::Host { input, .. }) = &mut self.carrier;
        let sent = async {
            input.write_all(&frames).await?;
            input.flush().await
        };
        sent.await.map_err(|error| lost(&format!("lost a nest while asking it: {error}")))
    }

    /// What it tells next. Cancel safe.
    async fn hear(&mut self) -> Result<Tell, InfraError> {
        loop {
            if let Some(tell) = self.tellings.pop().map_err(|error| self.gone(&error.to_string()))? {
                return Ok(tell);
            }
            match &mut self.carrier {
                Carrier::Container { output, .. } => match output.next().await {
                    Some(Ok(LogOutput::StdOut { message })) => self.tellings.push(&message),
                    Some(Ok(LogOutput::StdErr { message })) => {
                        let room = ASIDE.saturating_sub(self.aside.len());
                        self.aside.extend_from_slice(&message[..room.min(message.len())]);
                    }
                    Some(Ok(LogOutput::Console { .. } | LogOutput::StdIn { .. })) => {}
                    Some(Err(error)) => return Err(self.gone(&error.to_string())),
                    None => return Err(self.gone("its container has ended")),
                },
                Carrier::Host { output, .. } => match output.read(&mut self.piece).await {
                    Ok(0) => return Err(self.gone("it has ended")),
                    Ok(length) => self.tellings.push(&self.piece[..length]),
                    Err(error) => return Err(self.gone(&error.to_string())),
                },
            }
        }
    }

    fn gone(&self, why: &str) -> InfraError {
        let aside = String::from_utf8_lossy(&self.aside);
        let aside = aside.trim();
        lost(&format!("lost a nest: {why}{}{aside}", if aside.is_empty() { "" } else { ": " }))
    }

    /// Takes it down with everything in it.
    pub(crate) async fn close(self) {
        match self.carrier {
            Carrier::Container { output, input, outer } => {
                drop((output, input));
                outer.remove().await;
            }
            Carrier::Host { output, input, process } => {
                drop((output, input));
                process.end().await;
            }
        }
    }
}

/// Other seeds for every job: a job has too few interpreters to show what depends on them.
fn hash_seeds(request: &SandboxRequest, interpreters: usize) -> Vec<u32> {
    let digest = Digest::of(request.attempt.job.to_string().as_bytes());
    let seeds = digest.as_str().as_bytes().chunks(8).filter_map(|part| std::str::from_utf8(part).ok());
    // Python takes no more than 32 bits, and 0 for no seed at all.
    seeds
        .filter_map(|part| u32::from_str_radix(part, 16).ok())
        .map(|seed| seed.max(1))
        .take(interpreters)
        .collect()
}

fn unexpected(told: &Tell) -> InfraError {
    lost(&format!("a nest told {told:?} where it should not"))
}

fn lost(message: &str) -> InfraError {
    InfraError { stage: InfraStage::Sandbox, message: message.to_owned() }
}
