//! Containers started ahead: each has its tree in place and waits for its program, so that the first
//! instruction runs a few milliseconds after it was asked for. They are made while other attempts end or
//! wait for the engine's files, and so many attempts get through in the same time.
//!
//! It is bounded, forgets what nobody asks for any more, and each container serves one attempt. One
//! task makes and removes them; it ends with [`Pool::close`]. What a killed process leaves behind loses
//! its input, ends by itself, and is removed by label.

use super::super::engine::Role;
use super::{Launched, Launcher, Program};
use flakefarm_shared::{InfraError, Limits};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Waiting containers in all: each is a process and some kernel memory.
const BOUND: usize = 16;
/// Made at once: enough to be busy while one waits for the engine's files.
const MADE_AT_ONCE: usize = 2;
/// A shape that nobody asked for in this time is given up.
const IDLE: Duration = Duration::from_secs(300);
/// After a failure to make one.
const PAUSE: Duration = Duration::from_secs(2);

/// How many attempts are to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToCome {
    /// More than anybody has counted.
    Many,
    /// So many more: no container is made ahead for one that does not come.
    These(usize),
}

impl ToCome {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::These(some), Self::These(more)) => Self::These(some + more),
            (Self::Many, _) | (_, Self::Many) => Self::Many,
        }
    }

    /// After one has come.
    fn less_one(self) -> Self {
        match self {
            Self::Many => Self::Many,
            Self::These(some) => Self::These(some.saturating_sub(1)),
        }
    }

    fn at_most(self, bound: usize) -> usize {
        match self {
            Self::Many => bound,
            Self::These(some) => some.min(bound),
        }
    }
}

/// What containers must have in common to stand in for one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) image: String,
    pub(super) limits: Limits,
    pub(super) user: u32,
}

#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    launcher: Arc<Launcher>,
    shelves: Mutex<Vec<Shelf>>,
    changed: Notify,
    closed: CancellationToken,
}

/// Containers of one shape.
struct Shelf {
    shape: Shape,
    wanted: usize,
    to_come: ToCome,
    asked: Instant,
    ready: VecDeque<Launched>,
    /// On their way to `ready`.
    making: usize,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf")
            .field("shape", &self.shape)
            .field("wanted", &self.wanted)
            .field("ready", &self.ready.len())
            .finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(launcher: Arc<Launcher>) -> Self {
        let shared = Shared {
            launcher,
            shelves: Mutex::default(),
            changed: Notify::new(),
            closed: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared), keeper: Mutex::default() }
    }

    /// Keeps `count` containers of `shape` ready, for a while, as far as the bound allows, for attempts that
    /// are to come beside those that earlier wishes told of.
    pub(super) fn wish(&self, shape: Shape, count: NonZeroU16, to_come: ToCome) {
        if self.shared.closed.is_cancelled() {
            return;
        }
        let mut shelves = self.shared.shelves();
        let mut shelf = match shelves.iter().position(|shelf| shelf.shape == shape) {
            Some(place) => shelves.remove(place),
            None => Shelf {
                shape,
                wanted: 0,
                to_come: ToCome::These(0),
                asked: Instant::now(),
                ready: VecDeque::new(),
                making: 0,
            },
        };
        shelf.wanted = usize::from(count.get()).min(BOUND);
        shelf.to_come = shelf.to_come.and(to_come);
        shelf.asked = Instant::now();
        // The last asked for comes first; those beyond the bound go.
        shelves.insert(0, shelf);
        let mut total = 0;
        shelves.retain(|shelf| {
            total += shelf.wanted;
            total <= BOUND
        });
        drop(shelves);
        self.shared.changed.notify_one();
        let mut keeper = self.keeper.lock().expect("no holder panics");
        if keeper.is_none() {
            *keeper = Some(tokio::spawn(keep(self.shared.clone())));
        }
    }

    /// A container of `shape` that is ready, if there is one.
    pub(super) fn take(&self, shape: &Shape) -> Option<Launched> {
        let mut shelves = self.shared.shelves();
        let shelf = shelves.iter_mut().find(|shelf| shelf.shape == *shape)?;
        shelf.asked = Instant::now();
        shelf.to_come = shelf.to_come.less_one();
        let mut found = None;
        while let Some(mut launched) = shelf.ready.pop_front() {
            // One that ended while it waited was ended by somebody else.
            if launched.exit.next().now_or_never().is_none() {
                found = Some(launched);
                break;
            }
        }
        drop(shelves);
        self.shared.changed.notify_one();
        found
    }

    pub(super) fn ready(&self) -> usize {
        self.shared.shelves().iter().map(|shelf| shelf.ready.len()).sum()
    }

    /// Ends the keeping; what was ready goes to the engine's clean-up queue.
    pub(super) async fn close(&self) {
        self.shared.closed.cancel();
        let keeper = self.keeper.lock().expect("no holder panics").take();
        if let Some(keeper) = keeper
            && keeper.await.is_err()
        {
            tracing::warn!("the keeper of ready containers ended early");
        }
        self.shared.shelves().clear();
    }
}

impl Shared {
    fn shelves(&self) -> MutexGuard<'_, Vec<Shelf>> {
        self.shelves.lock().expect("no holder panics")
    }

    /// Drops what nobody asks for any more; then a shape that has too few, the last asked for first,
    /// which counts as being made from now on.
    fn next(&self) -> Option<Shape> {
        let mut shelves = self.shelves();
        shelves.retain(|shelf| shelf.asked.elapsed() < IDLE);
        let shelf = shelves
            .iter_mut()
            .find(|shelf| shelf.ready.len() + shelf.making < shelf.to_come.at_most(shelf.wanted))?;
        shelf.making += 1;
        Some(shelf.shape.clone())
    }

    async fn make(&self, shape: Shape) -> Result<(), InfraError> {
        let lifetime = IDLE + Duration::from_millis(shape.limits.attempt_timeout_ms);
        let launched = self.launcher.launch(&shape, &Role::Ready, Program::Awaited, lifetime).await;
        let mut shelves = self.shelves();
        let shelf = shelves.iter_mut().find(|shelf| shelf.shape == shape);
        // Given up while it was made: dropped, and so removed.
        let Some(shelf) = shelf else { return launched.map(drop) };
        shelf.making = shelf.making.saturating_sub(1);
        shelf.ready.push_back(launched?);
        Ok(())
    }
}

/// Makes what is lacking until the pool is closed; after a failure it rests.
async fn keep(shared: Arc<Shared>) {
    let mut making = FuturesUnordered::new();
    let mut rest_until = None;
    loop {
        let resting = rest_until.is_some_and(|until| Instant::now() < until);
        while making.len() < MADE_AT_ONCE
            && !resting
            && let Some(shape) = shared.next()
        {
            making.push(shared.make(shape));
        }
        tokio::select! {
            Some(made) = making.next(), if !making.is_empty() => {
                if let Err(error) = made {
                    tracing::warn!("failed to keep a container ready: {error}");
                    rest_until = Some(Instant::now() + PAUSE);
                }
            }
            () = shared.changed.notified() => {}
            () = tokio::time::sleep(if resting { PAUSE } else { IDLE / 10 }) => {}
            () = shared.closed.cancelled() => return,
        }
    }
}
