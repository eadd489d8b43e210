//! The queue on RabbitMQ, 3.10 or later. Quorum queues, publisher confirms, answers after the work.
//!
//! Publishing has one connection, and so has every consumer: each is opened, and opened again after a
//! failure, by a task of its own. [`RabbitQueue::close`] ends and joins them all.
//!
//! Dropping a consumer gives back what it had fetched ahead. Deliveries already in hand stay with
//! their holder, who may still answer them: so a worker stops taking jobs and finishes those it has.

mod consuming;
mod link;
mod publishing;
mod slot;
mod topology;

pub(crate) use consuming::RabbitReceipt;

use super::body::{decode, encode};
use super::{
    DELIVERY_LIMIT, DeadDelivery, Depth, JobDelivery, Origin, QueueError, Receipt, ReplyTo, WorkerDelivery,
};
use crate::message::{Class, Control, JobMessage, WorkerMessage};
use crate::telemetry::{self, SpanContext};
use consuming::{Answer, Inbox, Source, SourceQueue, Unreadable, consume};
use lapin::message::Delivery;
use lapin::types::{AMQPValue, ShortString};
use link::Broker;
use publishing::{CONTEXT_HEADER, Outgoing, Publisher, RETURNS_HEADER, Reach};
use slot::{SlotInbox, Slots, slot};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Worker messages taken ahead: as many as are recorded at once.
const RESULTS_PREFETCH: u16 = 256;
/// Dead jobs taken ahead.
const DEAD_PREFETCH: u16 = 16;
/// Controls taken ahead.
const CONTROL_PREFETCH: u16 = 64;
/// For all tasks to end.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// Who opens the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Declares exchanges and queues.
    Coordinator,
    /// Waits until a coordinator has declared them.
    Worker,
}

/// A farm's queues on a broker.
#[derive(Clone)]
pub struct RabbitQueue {
    shared: Arc<Shared>,
}

struct Shared {
    broker: Arc<Broker>,
    /// Started by the first who publishes.
    publisher: OnceLock<Publisher>,
    slots: Arc<Slots>,
    ear: Ear,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    /// Ends the publisher's task, after all that may hand something back.
    silence: CancellationToken,
    publishing: TaskTracker,
}

/// Where this end hears controls now: the queue of its latest subscription.
#[derive(Debug, Clone, Default)]
struct Ear(Arc<Mutex<Option<ShortString>>>);

impl Ear {
    fn is_at(&self, queue: ShortString) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(queue);
    }

    fn name(&self) -> Option<ShortString> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for RabbitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitQueue").field("place", &self.shared.broker.place()).finish_non_exhaustive()
    }
}

impl RabbitQueue {
    /// Reads `amqp(s)://user:password@host:port/vhost?prefix=…` and connects to nothing yet. The
    /// prefix, if given, precedes the names of all exchanges and queues. The methods need a tokio
    /// runtime, and `amqps` a process-wide default of rustls's cryptography.
    pub fn new(address: &str, role: Role) -> Result<Self, QueueError> {
        let broker = Arc::new(Broker::parse(address, role)?);
        let shared = Shared {
            slots: Arc::new(Slots::new(Arc::clone(&broker))),
            broker,
            publisher: OnceLock::new(),
            ear: Ear::default(),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            silence: CancellationToken::new(),
            publishing: TaskTracker::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Over a connection of its own, so that it tells how the broker is now.
    pub(super) async fn check(&self) -> Result<(), QueueError> {
        if self.shared.shutdown.is_cancelled() {
            return Err(QueueError::Closed);
        }
        self.shared.broker.open("check").await?.close().await;
        Ok(())
    }

    pub(super) async fn publish_job(&self, message: &JobMessage) -> Result<(), QueueError> {
        let exchange = self.shared.broker.names.jobs_exchange();
        let context = telemetry::is_on().then(|| SpanContext::of_sweep(message.sweep));
        let (key, body) = (message.class.word().into(), encode(message).into());
        let outgoing =
            Outgoing { exchange, key, body, reach: Reach::Queue, context, reply_to: None, returns: None };
        self.publisher().publish(outgoing, &self.shared.broker).await
    }

    pub(super) async fn publish_worker_message(&self, message: &WorkerMessage) -> Result<(), QueueError> {
        let exchange = self.shared.broker.names.results_exchange();
        let (key, body) = (topology::RESULTS_KEY.into(), encode(message).into());
        let reply_to = self.shared.ear.name();
        let outgoing =
            Outgoing { exchange, key, body, reach: Reach::Queue, context: None, reply_to, returns: None };
        self.publisher().publish(outgoing, &self.shared.broker).await
    }

    pub(super) async fn publish_again(&self, origin: Origin, body: Vec<u8>) -> Result<(), QueueError> {
        let names = &self.shared.broker.names;
        let (exchange, key) = match origin {
            Origin::Jobs(class) => (names.jobs_exchange(), class.word()),
            Origin::Results => (names.results_exchange(), topology::RESULTS_KEY),
        };
        self.publish_body(exchange, key.into(), body, Reach::Queue).await
    }

    pub(super) async fn broadcast(&self, control: &Control) -> Result<(), QueueError> {
        let exchange = self.shared.broker.names.control_exchange();
        self.publish_body(exchange, "".into(), encode(control), Reach::Listeners).await
    }

    /// Through the default exchange, which routes by the names of queues.
    pub(super) async fn reply(&self, to: &ReplyTo, control: &Control) -> Result<(), QueueError> {
        match &to.0 {
            Some(queue) => {
                self.publish_body("".into(), queue.as_str().into(), encode(control), Reach::Listeners).await
            }
            None => self.broadcast(control).await,
        }
    }

    async fn publish_body(
        &self,
        exchange: ShortString,
        key: ShortString,
        body: Vec<u8>,
        reach: Reach,
    ) -> Result<(), QueueError> {
        let outgoing = Outgoing {
            exchange,
            key,
            body: body.into(),
            reach,
            context: None,
            reply_to: None,
            returns: None,
        };
        self.publisher().publish(outgoing, &self.shared.broker).await
    }

    fn publisher(&self) -> &Publisher {
        self.shared.publisher.get_or_init(|| {
            let (publisher, task) =
                Publisher::start(Arc::clone(&self.shared.broker), self.shared.silence.clone());
            self.shared.publishing.spawn(task.instrument(tracing::info_span!("publisher")));
            publisher
        })
    }

    pub(super) fn slot(&self) -> RabbitJobSlot {
        let publisher = self.publisher().clone();
        let (inbox, task) = slot(Arc::clone(&self.shared.slots), publisher, self.shared.shutdown.clone());
        self.shared.tasks.spawn(task.instrument(tracing::info_span!("slot")));
        RabbitJobSlot(inbox)
    }

    pub(super) fn worker_messages(&self) -> RabbitWorkerMessageConsumer {
        let queue = self.shared.broker.names.results_queue();
        RabbitWorkerMessageConsumer(self.consume(
            SourceQueue::Shared(queue),
            RESULTS_PREFETCH,
            read_worker_message,
        ))
    }

    pub(super) fn dead(&self) -> RabbitDeadConsumer {
        let queue = self.shared.broker.names.dead_queue();
        RabbitDeadConsumer(self.consume(SourceQueue::Shared(queue), DEAD_PREFETCH, read_dead))
    }

    pub(super) fn controls(&self) -> RabbitControlSubscription {
        RabbitControlSubscription(self.consume(
            SourceQueue::Control(self.shared.ear.clone()),
            CONTROL_PREFETCH,
            read_control,
        ))
    }

    fn consume<T: Send + 'static>(
        &self,
        queue: SourceQueue,
        prefetch: u16,
        read: fn(Delivery, RabbitReceipt) -> Result<T, Unreadable>,
    ) -> Inbox<T> {
        let source = Source { queue, prefetch, read };
        let (inbox, task) = consume(Arc::clone(&self.shared.broker), source, self.shared.shutdown.clone());
        self.shared.tasks.spawn(task.instrument(tracing::info_span!("consumer")));
        inbox
    }

    pub(super) async fn depth(&self, class: Class) -> Result<Depth, QueueError> {
        let ready = self.publisher().count(self.shared.broker.names.jobs_queue(class)).await?;
        Ok(Depth { ready, unacknowledged: None })
    }

    pub(super) async fn close(&self) {
        self.shared.shutdown.cancel();
        let Shared { tasks, slots, silence, publishing, .. } = &*self.shared;
        let ending = async {
            tasks.close();
            tasks.wait().await;
            silence.cancel();
            publishing.close();
            publishing.wait().await;
        };
        if tokio::time::timeout(CLOSE_DEADLINE, ending).await.is_err() {
            tracing::warn!("connections to {} did not close in time", self.shared.broker.place());
            silence.cancel();
        }
        slots.close().await;
    }
}

fn read_job(delivery: Delivery, receipt: RabbitReceipt) -> Result<JobDelivery, Unreadable> {
    match decode(&delivery.data) {
        Ok(message) => {
            let redeliveries = redeliveries(&delivery);
            if redeliveries > DELIVERY_LIMIT {
                // Handed back in between, which hides the earlier returns from the broker.
                return Err(Unreadable { receipt, why: format!("it came back {redeliveries} times") });
            }
            let context = context(&delivery);
            Ok(JobDelivery { message, redeliveries, context, receipt: Receipt::Rabbit(receipt) })
        }
        Err(why) => Err(Unreadable { receipt, why }),
    }
}

fn read_worker_message(delivery: Delivery, receipt: RabbitReceipt) -> Result<WorkerDelivery, Unreadable> {
    match decode(&delivery.data) {
        Ok(message) => {
            // Whoever may write results may write any name here.
            let named = delivery.properties.reply_to().as_ref().map(ShortString::as_str);
            let reply_to = ReplyTo(named.filter(|name| topology::is_control_queue(name)).map(str::to_owned));
            Ok(WorkerDelivery { message, reply_to, receipt: Receipt::Rabbit(receipt) })
        }
        Err(why) => Err(Unreadable { receipt, why }),
    }
}

fn read_dead(delivery: Delivery, receipt: RabbitReceipt) -> Result<DeadDelivery, Unreadable> {
    let message = decode(&delivery.data).ok();
    let reason = death(&delivery, "reason").unwrap_or_else(|| "unknown".to_owned());
    let died_in = death(&delivery, "queue").unwrap_or_default();
    // A prefix keeps farms apart; the rest of the name says which queue it is.
    let is = |origin: &Origin| match origin {
        Origin::Jobs(class) => died_in.ends_with(&format!("ff.jobs.{}", class.word())),
        Origin::Results => died_in.ends_with("ff.results"),
    };
    let origin = Origin::ALL.into_iter().find(is);
    Ok(DeadDelivery { message, body: delivery.data, origin, reason, receipt: Receipt::Rabbit(receipt) })
}

fn read_control(delivery: Delivery, receipt: RabbitReceipt) -> Result<(Control, RabbitReceipt), Unreadable> {
    match decode(&delivery.data) {
        Ok(control) => Ok((control, receipt)),
        Err(why) => Err(Unreadable { receipt, why }),
    }
}

fn header<'a>(delivery: &'a Delivery, name: &str) -> Option<&'a AMQPValue> {
    delivery.properties.headers().as_ref()?.inner().get(name)
}

/// What it came from, for who collects traces.
fn context(delivery: &Delivery) -> Option<SpanContext> {
    header(delivery, CONTEXT_HEADER)?.as_long_string()?.to_string().parse().ok()
}

/// How often it came back: as the broker counts (the first delivery lacks the header), and before it
/// was handed back uncounted. One that it did not count, but says was delivered before, may have a copy
/// that somebody works on.
fn redeliveries(delivery: &Delivery) -> u32 {
    let counted = number(delivery, "x-delivery-count").max(u32::from(delivery.redelivered));
    counted.saturating_add(number(delivery, RETURNS_HEADER))
}

fn number(delivery: &Delivery, name: &str) -> u32 {
    let count = match header(delivery, name) {
        Some(AMQPValue::LongLongInt(count)) => *count,
        Some(AMQPValue::LongInt(count)) => i64::from(*count),
        Some(AMQPValue::LongUInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortShortInt(count)) => i64::from(*count),
        _ => 0,
    };
    u32::try_from(count).unwrap_or(0)
}

/// What the broker says of the latest death.
fn death(delivery: &Delivery, what: &str) -> Option<String> {
    let deaths = header(delivery, "x-death")?.as_array()?;
    let latest = deaths.as_slice().first()?.as_field_table()?;
    Some(latest.inner().get(what)?.as_long_string()?.to_string())
}

/// Jobs for one slot.
#[derive(Debug)]
pub struct RabbitJobSlot(SlotInbox);

impl RabbitJobSlot {
    pub(super) async fn next(&mut self) -> Option<JobDelivery> {
        self.0.next().await
    }

    pub(super) async fn urgent(&mut self) -> Option<JobDelivery> {
        self.0.urgent().await
    }

    pub(super) async fn leave(&mut self) {
        self.0.leave().await
    }
}

/// Messages from workers.
#[derive(Debug)]
pub struct RabbitWorkerMessageConsumer(Inbox<WorkerDelivery>);

impl RabbitWorkerMessageConsumer {
    pub(super) async fn next(&mut self) -> Option<WorkerDelivery> {
        self.0.next().await
    }
}

/// Dead jobs.
#[derive(Debug)]
pub struct RabbitDeadConsumer(Inbox<DeadDelivery>);

impl RabbitDeadConsumer {
    pub(super) async fn next(&mut self) -> Option<DeadDelivery> {
        self.0.next().await
    }
}

/// Control messages, over a queue of the subscription's own.
#[derive(Debug)]
pub struct RabbitControlSubscription(Inbox<(Control, RabbitReceipt)>);

impl RabbitControlSubscription {
    pub(super) async fn next(&mut self) -> Option<Control> {
        let (control, receipt) = self.0.next().await?;
        receipt.answer_later(Answer::Ack);
        Some(control)
    }
}
