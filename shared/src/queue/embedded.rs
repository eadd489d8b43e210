//! The queue inside one process, for the farm that is one program. Nothing is kept on disk: after a
//! crash the coordinator publishes again what its database says is open, as it does for a lost broker.
//!
//! It keeps the laws of the broker it stands in for: unanswered deliveries come back and are counted,
//! poison goes to the dead-letter queue, a slot holds one job. Queues are first in, first out, but what
//! comes back goes to the end.

use super::body::{Body, decode, encode};
use super::{
    DELIVERY_LIMIT, DeadDelivery, Depth, INTERACTIVE_STREAK, JobDelivery, Origin, QueueError,
    REASON_DELIVERY_LIMIT, REASON_REJECTED, Receipt, ReplyTo, WorkerDelivery,
};
use crate::message::{Class, Control, JobMessage, WorkerMessage};
use crate::telemetry::{self, SpanContext};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Notify, broadcast};

/// Controls a subscriber may lag behind before it misses some.
const CONTROL_BACKLOG: usize = 256;

/// A queue in memory. All clones are one queue, and closed together.
#[derive(Debug, Clone)]
pub struct EmbeddedQueue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something became takeable, or the queue closed.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    interactive: Lane,
    bulk: Lane,
    results: Lane,
    dead: Lane,
    /// `None` once the queue is closed, which ends all subscriptions.
    controls: Option<broadcast::Sender<Control>>,
}

#[derive(Debug, Default)]
struct Lane {
    ready: VecDeque<Entry>,
    unacknowledged: u64,
}

/// A message and its past.
#[derive(Debug, Clone)]
struct Entry {
    body: Vec<u8>,
    /// How often it was delivered and came back.
    returns: u32,
    /// Why it is dead, in the dead-letter queue, and where it died.
    reason: &'static str,
    origin: Option<Origin>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LaneName {
    Jobs(Class),
    Results,
    Dead,
}

impl State {
    fn lane(&mut self, name: LaneName) -> &mut Lane {
        match name {
            LaneName::Jobs(Class::Interactive) => &mut self.interactive,
            LaneName::Jobs(Class::Bulk) => &mut self.bulk,
            LaneName::Results => &mut self.results,
            LaneName::Dead => &mut self.dead,
        }
    }

    fn dead_letter(&mut self, name: LaneName, entry: Entry, reason: &'static str) {
        let origin = match name {
            LaneName::Jobs(class) => Some(Origin::Jobs(class)),
            LaneName::Results => Some(Origin::Results),
            LaneName::Dead => entry.origin,
        };
        self.dead.ready.push_back(Entry { returns: 0, reason, origin, ..entry });
    }

    fn hand_back(&mut self, name: LaneName, entry: Entry) {
        self.lane(name).ready.push_back(entry);
    }

    fn requeue(&mut self, name: LaneName, mut entry: Entry) {
        entry.returns += 1;
        if matches!(name, LaneName::Jobs(_)) && entry.returns > DELIVERY_LIMIT {
            self.dead_letter(name, entry, REASON_DELIVERY_LIMIT);
        } else {
            self.lane(name).ready.push_back(entry);
        }
    }

    fn closed(&self) -> bool {
        self.controls.is_none()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the queue's state")
    }

    fn publish<T: Body>(&self, name: LaneName, message: &T) -> Result<(), QueueError> {
        self.publish_body(name, encode(message))
    }

    fn publish_body(&self, name: LaneName, body: Vec<u8>) -> Result<(), QueueError> {
        let entry = Entry { body, returns: 0, reason: "", origin: None };
        let mut state = self.lock();
        if state.closed() {
            return Err(QueueError::Closed);
        }
        state.lane(name).ready.push_back(entry);
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }
}

impl EmbeddedQueue {
    /// An empty queue.
    #[expect(clippy::new_without_default, reason = "a queue is made on purpose: a second one shares nothing")]
    pub fn new() -> Self {
        let state = State {
            interactive: Lane::default(),
            bulk: Lane::default(),
            results: Lane::default(),
            dead: Lane::default(),
            controls: Some(broadcast::channel(CONTROL_BACKLOG).0),
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }) }
    }

    pub(super) async fn check(&self) -> Result<(), QueueError> {
        if self.shared.lock().closed() { Err(QueueError::Closed) } else { Ok(()) }
    }

    pub(super) async fn publish_job(&self, message: &JobMessage) -> Result<(), QueueError> {
        self.shared.publish(LaneName::Jobs(message.class), message)
    }

    pub(super) async fn publish_worker_message(&self, message: &WorkerMessage) -> Result<(), QueueError> {
        self.shared.publish(LaneName::Results, message)
    }

    pub(super) async fn broadcast(&self, control: &Control) -> Result<(), QueueError> {
        let state = self.shared.lock();
        let controls = state.controls.as_ref().ok_or(QueueError::Closed)?;
        // An error says that nobody listens, which is no failure.
        drop(controls.send(control.clone()));
        Ok(())
    }

    /// To all: there are few in one process.
    pub(super) async fn reply(&self, _to: &ReplyTo, control: &Control) -> Result<(), QueueError> {
        self.broadcast(control).await
    }

    pub(super) async fn publish_again(&self, origin: Origin, body: Vec<u8>) -> Result<(), QueueError> {
        let name = match origin {
            Origin::Jobs(class) => LaneName::Jobs(class),
            Origin::Results => LaneName::Results,
        };
        self.shared.publish_body(name, body)
    }

    pub(super) fn slot(&self) -> EmbeddedJobSlot {
        let lanes = Class::ALL.map(|class| Consumer::new(&self.shared, LaneName::Jobs(class)));
        EmbeddedJobSlot { shared: Arc::clone(&self.shared), lanes, streak: 0 }
    }

    pub(super) fn worker_messages(&self) -> EmbeddedWorkerMessageConsumer {
        EmbeddedWorkerMessageConsumer(Consumer::new(&self.shared, LaneName::Results))
    }

    pub(super) fn dead(&self) -> EmbeddedDeadConsumer {
        EmbeddedDeadConsumer(Consumer::new(&self.shared, LaneName::Dead))
    }

    pub(super) fn controls(&self) -> broadcast::Receiver<Control> {
        match &self.shared.lock().controls {
            Some(controls) => controls.subscribe(),
            // Its sender is gone at once: the subscription has ended.
            None => broadcast::channel(1).1,
        }
    }

    pub(super) async fn depth(&self, class: Class) -> Result<Depth, QueueError> {
        let mut state = self.shared.lock();
        if state.closed() {
            return Err(QueueError::Closed);
        }
        let lane = state.lane(LaneName::Jobs(class));
        Ok(Depth { ready: lane.ready.len() as u64, unacknowledged: Some(lane.unacknowledged) })
    }

    pub(super) async fn close(&self) {
        self.shared.lock().controls = None;
        self.shared.changed.notify_waiters();
    }
}

#[derive(Debug)]
struct Consumer {
    shared: Arc<Shared>,
    lane: LaneName,
}

impl Consumer {
    fn new(shared: &Arc<Shared>, lane: LaneName) -> Self {
        Self { shared: Arc::clone(shared), lane }
    }

    /// Cancel safe: a message leaves its lane only in the poll that returns it.
    async fn next(&mut self) -> Option<(Entry, EmbeddedReceipt)> {
        loop {
            let changed = self.shared.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // Registered before looking, or a message published in between would be slept through.
            changed.as_mut().enable();
            match self.take() {
                Ok(Some(taken)) => return Some(taken),
                Ok(None) => changed.await,
                Err(_) => return None,
            }
        }
    }

    fn take(&self) -> Result<Option<(Entry, EmbeddedReceipt)>, QueueError> {
        let mut state = self.shared.lock();
        if state.closed() {
            return Err(QueueError::Closed);
        }
        let lane = state.lane(self.lane);
        let Some(entry) = lane.ready.pop_front() else { return Ok(None) };
        lane.unacknowledged += 1;
        let receipt = EmbeddedReceipt {
            shared: Arc::clone(&self.shared),
            lane: self.lane,
            unanswered: Some(entry.clone()),
        };
        Ok(Some((entry, receipt)))
    }

    /// The next message that can be read; the others go to the dead-letter queue.
    async fn next_readable<T: Body>(&mut self) -> Option<(T, u32, EmbeddedReceipt)> {
        loop {
            let (entry, receipt) = self.next().await?;
            if let Some((message, receipt)) = self.read(&entry, receipt) {
                return Some((message, entry.returns, receipt));
            }
        }
    }

    fn read<T: Body>(&self, entry: &Entry, mut receipt: EmbeddedReceipt) -> Option<(T, EmbeddedReceipt)> {
        match decode(&entry.body) {
            Ok(message) => Some((message, receipt)),
            Err(why) => {
                tracing::warn!("parking a message of {:?} in the dead-letter queue: {why}", self.lane);
                receipt.settle(|state, name, entry| state.dead_letter(name, entry, REASON_REJECTED)).ok();
                None
            }
        }
    }
}

/// Jobs for one slot.
#[derive(Debug)]
pub struct EmbeddedJobSlot {
    shared: Arc<Shared>,
    /// In the order of [`Class::ALL`].
    lanes: [Consumer; 2],
    /// Interactive jobs taken in a row.
    streak: u32,
}

impl EmbeddedJobSlot {
    pub(super) async fn next(&mut self) -> Option<JobDelivery> {
        loop {
            let shared = Arc::clone(&self.shared);
            let mut changed = std::pin::pin!(shared.changed.notified());
            // Registered before looking, or a message published in between would be slept through.
            changed.as_mut().enable();
            let order = if self.streak < INTERACTIVE_STREAK { [0, 1] } else { [1, 0] };
            for lane in order {
                if let Some(delivery) = self.take(lane).ok()? {
                    return Some(delivery);
                }
            }
            changed.await;
        }
    }

    pub(super) async fn urgent(&mut self) -> Option<JobDelivery> {
        self.take(0).ok().flatten()
    }

    fn take(&mut self, lane: usize) -> Result<Option<JobDelivery>, QueueError> {
        while let Some((entry, receipt)) = self.lanes[lane].take()? {
            if let Some((message, receipt)) = self.lanes[lane].read::<JobMessage>(&entry, receipt) {
                self.streak = if lane == 0 { self.streak + 1 } else { 0 };
                let receipt = Receipt::Embedded(receipt);
                let context = telemetry::is_on().then(|| SpanContext::of_sweep(message.sweep));
                return Ok(Some(JobDelivery { message, redeliveries: entry.returns, context, receipt }));
            }
        }
        Ok(None)
    }
}

/// Messages from workers.
#[derive(Debug)]
pub struct EmbeddedWorkerMessageConsumer(Consumer);

impl EmbeddedWorkerMessageConsumer {
    pub(super) async fn next(&mut self) -> Option<WorkerDelivery> {
        let (message, _, receipt) = self.0.next_readable().await?;
        Some(WorkerDelivery { message, reply_to: ReplyTo::default(), receipt: Receipt::Embedded(receipt) })
    }
}

/// Dead jobs.
#[derive(Debug)]
pub struct EmbeddedDeadConsumer(Consumer);

impl EmbeddedDeadConsumer {
    pub(super) async fn next(&mut self) -> Option<DeadDelivery> {
        let (entry, receipt) = self.0.next().await?;
        let message = decode(&entry.body).ok();
        let Entry { body, reason, origin, .. } = entry;
        let receipt = Receipt::Embedded(receipt);
        Some(DeadDelivery { message, body, origin, reason: reason.to_owned(), receipt })
    }
}

/// The right to answer one delivery.
#[derive(Debug)]
pub(crate) struct EmbeddedReceipt {
    shared: Arc<Shared>,
    lane: LaneName,
    /// `None` once answered.
    unanswered: Option<Entry>,
}

impl EmbeddedReceipt {
    pub(crate) async fn ack(mut self) -> Result<(), QueueError> {
        self.settle(|_, _, _| {})
    }

    pub(crate) async fn give_back(mut self) -> Result<(), QueueError> {
        self.settle(State::hand_back)
    }

    pub(crate) async fn reject(mut self) -> Result<(), QueueError> {
        self.settle(|state, name, entry| state.dead_letter(name, entry, REASON_REJECTED))
    }

    fn settle(&mut self, place: impl FnOnce(&mut State, LaneName, Entry)) -> Result<(), QueueError> {
        let Some(entry) = self.unanswered.take() else { return Ok(()) };
        let mut state = self.shared.lock();
        state.lane(self.lane).unacknowledged -= 1;
        let closed = state.closed();
        if !closed {
            place(&mut state, self.lane, entry);
        }
        drop(state);
        self.shared.changed.notify_waiters();
        if closed { Err(QueueError::Closed) } else { Ok(()) }
    }
}

impl Drop for EmbeddedReceipt {
    fn drop(&mut self) {
        self.settle(State::requeue).ok();
    }
}
