//! The queue port: jobs out to workers, their messages back, control to all. Delivery is at least
//! once: whoever takes a message must bear to see it again. Every adapter passes the contract suite
//! in `tests/`.

mod body;
mod embedded;
mod rabbit;

pub use embedded::EmbeddedQueue;
pub use rabbit::{RabbitQueue, Role};

use crate::message::{Class, Control, JobMessage, WorkerMessage};
use crate::metrics::timed;
use crate::telemetry::SpanContext;

/// How often a job may come back before it counts as poison. The broker reads the limit so, and every
/// adapter does: a job that is never settled is delivered `DELIVERY_LIMIT + 1` times, the last time with
/// `redeliveries == DELIVERY_LIMIT`, and then goes to the dead-letter queue.
pub const DELIVERY_LIMIT: u32 = 5;

/// Why a job is dead, in RabbitMQ's words: it came back too often.
pub const REASON_DELIVERY_LIMIT: &str = "delivery_limit";

/// Why a job is dead, in RabbitMQ's words: a worker refused it, or could not read it.
pub const REASON_REJECTED: &str = "rejected";

/// A queue. Cloning is cheap; clones share connections.
#[derive(Debug, Clone)]
pub enum Queue {
    /// In this process.
    Embedded(EmbeddedQueue),
    /// RabbitMQ.
    Rabbit(RabbitQueue),
}

/// The queue refused or could not be reached. Every variant is worth a retry but `Topology`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// No connection, or it was lost; the message may or may not have arrived.
    #[error("the queue cannot be reached: {0}")]
    Unreachable(String),
    /// The queue is full: publish more slowly.
    #[error("the queue is full")]
    Full,
    /// Exchanges or queues are missing, or were declared differently.
    #[error("the queue's topology is wrong: {0}")]
    Topology(String),
    /// The queue was closed for shutdown.
    #[error("the queue is closed")]
    Closed,
}

/// Interactive jobs that one slot takes in a row while others wait: then one of bulk, so that people
/// never starve the night.
pub(crate) const INTERACTIVE_STREAK: u32 = 4;

/// A job as received. Dropping it without an answer gives it back, as a crash would: that is counted.
#[derive(Debug)]
pub struct JobDelivery {
    /// The job.
    pub message: JobMessage,
    /// How often it was delivered before.
    pub redeliveries: u32,
    /// What it came from, for who collects traces.
    pub context: Option<SpanContext>,
    pub(crate) receipt: Receipt,
}

/// A worker's message as received. Dropping it without an answer gives it back.
#[derive(Debug)]
pub struct WorkerDelivery {
    /// The message.
    pub message: WorkerMessage,
    /// Where its sender hears an answer.
    pub reply_to: ReplyTo,
    pub(crate) receipt: Receipt,
}

/// Where a worker hears an answer: at its own ear, if it told one; else every worker is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplyTo(pub(crate) Option<String>);

/// Where a dead message came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Jobs of a class.
    Jobs(Class),
    /// Messages of workers.
    Results,
}

impl Origin {
    /// All there are.
    pub const ALL: [Origin; 3] =
        [Origin::Jobs(Class::Interactive), Origin::Jobs(Class::Bulk), Origin::Results];

    /// The stable word used in SQL and HTTP.
    pub fn word(self) -> &'static str {
        match self {
            Origin::Jobs(class) => class.word(),
            Origin::Results => "results",
        }
    }
}

/// What nobody could run or read, as received from the dead-letter queue.
#[derive(Debug)]
pub struct DeadDelivery {
    /// The job, if its body could be read.
    pub message: Option<JobMessage>,
    /// As it was sent.
    pub body: Vec<u8>,
    /// Where it died, if the broker says so.
    pub origin: Option<Origin>,
    /// Why it is there, in the broker's words (`delivery_limit`, `rejected`).
    pub reason: String,
    pub(crate) receipt: Receipt,
}

#[derive(Debug)]
pub(crate) enum Receipt {
    Embedded(embedded::EmbeddedReceipt),
    Rabbit(rabbit::RabbitReceipt),
}

/// How many jobs wait and are in hand, per class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Waiting.
    pub ready: u64,
    /// With a worker, unanswered; `None` where the queue cannot say (AMQP does not).
    pub unacknowledged: Option<u64>,
}

/// Takes jobs of both classes for one slot, one at a time: it holds no job ahead, so that none waits
/// behind another while somebody else is free.
#[derive(Debug)]
pub enum JobSlot {
    /// In this process.
    Embedded(embedded::EmbeddedJobSlot),
    /// RabbitMQ.
    Rabbit(rabbit::RabbitJobSlot),
}

/// Messages from workers, for coordinators.
#[derive(Debug)]
pub enum WorkerMessageConsumer {
    /// In this process.
    Embedded(embedded::EmbeddedWorkerMessageConsumer),
    /// RabbitMQ.
    Rabbit(rabbit::RabbitWorkerMessageConsumer),
}

/// Dead jobs, for coordinators.
#[derive(Debug)]
pub enum DeadConsumer {
    /// In this process.
    Embedded(embedded::EmbeddedDeadConsumer),
    /// RabbitMQ.
    Rabbit(rabbit::RabbitDeadConsumer),
}

/// Control messages since the subscription began; a lagging or disconnected subscriber misses some.
#[derive(Debug)]
pub enum ControlSubscription {
    /// In this process.
    Embedded(tokio::sync::broadcast::Receiver<Control>),
    /// RabbitMQ.
    Rabbit(rabbit::RabbitControlSubscription),
}

macro_rules! each {
    ($self:expr, $inner:ident => $call:expr) => {
        match $self {
            Self::Embedded($inner) => $call,
            Self::Rabbit($inner) => $call,
        }
    };
}

impl Queue {
    /// Opens `embedded:` or `amqp(s)://…`. Connects in the background: a broker that is down at
    /// start is reported by [`Queue::check`] and waited for by everything else.
    pub fn open(address: &str, role: Role) -> Result<Self, QueueError> {
        match address.split_once(':').map(|(scheme, _)| scheme) {
            Some("embedded") => Ok(Self::Embedded(EmbeddedQueue::new())),
            Some("amqp" | "amqps") => Ok(Self::Rabbit(RabbitQueue::new(address, role)?)),
            _ => Err(QueueError::Topology(format!(
                "`{address}` is no queue address: expected `embedded:` or `amqp://…`"
            ))),
        }
    }

    /// Connects once and verifies the topology (declares it, for [`Role::Coordinator`]).
    pub async fn check(&self) -> Result<(), QueueError> {
        each!(self, queue => queue.check().await)
    }

    /// Publishes a job; `Ok` means the queue holds it durably.
    pub async fn publish_job(&self, message: &JobMessage) -> Result<(), QueueError> {
        timed("queue", "publish", async { each!(self, queue => queue.publish_job(message).await) }).await
    }

    /// Publishes a worker's message; `Ok` means the queue holds it durably.
    pub async fn publish_worker_message(&self, message: &WorkerMessage) -> Result<(), QueueError> {
        timed("queue", "publish", async { each!(self, queue => queue.publish_worker_message(message).await) })
            .await
    }

    /// Tells every worker that listens now.
    pub async fn broadcast(&self, control: &Control) -> Result<(), QueueError> {
        each!(self, queue => queue.broadcast(control).await)
    }

    /// Tells the one who listens there; nobody's listening is no failure.
    pub async fn reply(&self, to: &ReplyTo, control: &Control) -> Result<(), QueueError> {
        each!(self, queue => queue.reply(to, control).await)
    }

    /// Publishes what was parked again, byte by byte, where it came from.
    pub async fn publish_again(&self, origin: Origin, body: Vec<u8>) -> Result<(), QueueError> {
        each!(self, queue => queue.publish_again(origin, body).await)
    }

    /// Takes jobs for one slot. Slots of one worker share a connection.
    pub fn slot(&self) -> JobSlot {
        match self {
            Self::Embedded(queue) => JobSlot::Embedded(queue.slot()),
            Self::Rabbit(queue) => JobSlot::Rabbit(queue.slot()),
        }
    }

    /// Takes workers' messages.
    pub fn worker_messages(&self) -> WorkerMessageConsumer {
        match self {
            Self::Embedded(queue) => WorkerMessageConsumer::Embedded(queue.worker_messages()),
            Self::Rabbit(queue) => WorkerMessageConsumer::Rabbit(queue.worker_messages()),
        }
    }

    /// Takes dead jobs.
    pub fn dead(&self) -> DeadConsumer {
        match self {
            Self::Embedded(queue) => DeadConsumer::Embedded(queue.dead()),
            Self::Rabbit(queue) => DeadConsumer::Rabbit(queue.dead()),
        }
    }

    /// Listens for control messages.
    pub fn controls(&self) -> ControlSubscription {
        match self {
            Self::Embedded(queue) => ControlSubscription::Embedded(queue.controls()),
            Self::Rabbit(queue) => ControlSubscription::Rabbit(queue.controls()),
        }
    }

    /// Jobs waiting and in hand.
    pub async fn depth(&self, class: Class) -> Result<Depth, QueueError> {
        timed("queue", "depth", async { each!(self, queue => queue.depth(class).await) }).await
    }

    /// Closes connections; unanswered deliveries go back to the queue at once.
    pub async fn close(&self) {
        each!(self, queue => queue.close().await)
    }
}

impl JobSlot {
    /// The next job, an interactive one first, but one of bulk after a few of them. Call it when the
    /// previous delivery is answered. Waits through lost connections, reconnecting by itself; `None`
    /// only after [`Queue::close`]. Cancel safe: a dropped call loses no job.
    pub async fn next(&mut self) -> Option<JobDelivery> {
        each!(self, slot => slot.next().await)
    }

    /// An interactive job if one waits now, while the slot has a job in hand that can be laid aside.
    /// Looks at most every tenth of a second, over all slots of the worker; cancel safe.
    pub async fn urgent(&mut self) -> Option<JobDelivery> {
        each!(self, slot => slot.urgent().await)
    }

    /// Takes no more jobs. Returns when the queue sends this slot nothing more, or cannot be reached; the delivery in
    /// hand can still be answered. A worker that leaves calls it before it gives anything back, which would else
    /// come to itself.
    pub async fn leave(&mut self) {
        match self {
            // Nothing is sent to it that it does not ask for.
            Self::Embedded(_) => {}
            Self::Rabbit(slot) => slot.leave().await,
        }
    }
}

impl WorkerMessageConsumer {
    /// As [`JobSlot::next`].
    pub async fn next(&mut self) -> Option<WorkerDelivery> {
        each!(self, consumer => consumer.next().await)
    }
}

impl DeadConsumer {
    /// As [`JobSlot::next`].
    pub async fn next(&mut self) -> Option<DeadDelivery> {
        each!(self, consumer => consumer.next().await)
    }
}

impl ControlSubscription {
    /// The next control message; `None` after [`Queue::close`]. Cancel safe.
    pub async fn next(&mut self) -> Option<Control> {
        use tokio::sync::broadcast::error::RecvError;
        match self {
            Self::Embedded(receiver) => loop {
                match receiver.recv().await {
                    Ok(control) => return Some(control),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            },
            Self::Rabbit(subscription) => subscription.next().await,
        }
    }
}

impl Receipt {
    /// An error means that the answer did not arrive: the delivery will come again.
    pub(crate) async fn ack(self) -> Result<(), QueueError> {
        each!(self, receipt => receipt.ack().await)
    }

    pub(crate) async fn give_back(self) -> Result<(), QueueError> {
        each!(self, receipt => receipt.give_back().await)
    }

    pub(crate) async fn reject(self) -> Result<(), QueueError> {
        each!(self, receipt => receipt.reject().await)
    }
}

impl JobDelivery {
    /// Settles the job. An error means the answer did not arrive and the job will come again.
    pub async fn ack(self) -> Result<(), QueueError> {
        self.receipt.ack().await
    }

    /// Puts the job back for another worker, at the queue's end. That is no failure of the job's: it is
    /// not counted as a delivery. A crash in the middle may leave two of it.
    pub async fn give_back(self) -> Result<(), QueueError> {
        self.receipt.give_back().await
    }

    /// Sends the job to the dead-letter queue.
    pub async fn reject(self) -> Result<(), QueueError> {
        self.receipt.reject().await
    }
}

impl WorkerDelivery {
    /// Settles the message.
    pub async fn ack(self) -> Result<(), QueueError> {
        self.receipt.ack().await
    }

    /// Puts the message back.
    pub async fn give_back(self) -> Result<(), QueueError> {
        self.receipt.give_back().await
    }
}

impl DeadDelivery {
    /// Settles the dead job.
    pub async fn ack(self) -> Result<(), QueueError> {
        self.receipt.ack().await
    }
}
