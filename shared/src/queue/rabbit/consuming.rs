//! Consuming. Each consumer has a task that owns a link: it hands deliveries over, sends the answers
//! of those that were dropped unanswered, and opens another link when anything at all is wrong.
//!
//! A delivery belongs to the link it came over. When that is lost the broker delivers again, so
//! deliveries that still wait in the inbox are skipped, and answers to those in hand fail.

use super::link::{Broker, Link};
use super::publishing::{Outgoing, Publisher, Reach};
use super::{Ear, topology};
use crate::backoff::Backoff;
use crate::queue::QueueError;
use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Acker, Channel};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// For the broker to take one request.
pub(super) const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// Between attempts to connect: a farm is to work soon after its broker is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What to consume, and how to read it.
pub(super) struct Source<T> {
    pub(super) queue: SourceQueue,
    pub(super) prefetch: u16,
    /// Reads a delivery, or says why it cannot be read: then it is rejected.
    pub(super) read: fn(Delivery, RabbitReceipt) -> Result<T, Unreadable>,
}

/// The queue to consume from.
pub(super) enum SourceQueue {
    /// One of the topology's.
    Shared(ShortString),
    /// One of the consumer's own, which hears all controls; where it is now is told here.
    Control(Ear),
}

/// A delivery that cannot be read.
pub(super) struct Unreadable {
    pub(super) receipt: RabbitReceipt,
    pub(super) why: String,
}

/// Where the task puts what it received.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    received: mpsc::Receiver<Received<T>>,
}

#[derive(Debug)]
struct Received<T> {
    item: T,
    broken: CancellationToken,
}

impl<T> Inbox<T> {
    /// Cancel safe. `None` once the queue is closed.
    pub(super) async fn next(&mut self) -> Option<T> {
        loop {
            let received = self.received.recv().await?;
            if !received.broken.is_cancelled() {
                return Some(received.item);
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Ack,
    /// To the queue's end, uncounted; counted where there is no way to publish it again.
    HandBack,
    /// As a crash would.
    GiveBack,
    Reject,
}

/// How a message is published again: the broker itself counts every return. Over the publisher's connection: a broker
/// short of memory stops reading from one that publishes, and answers would wait there, too.
#[derive(Clone)]
pub(super) struct Again {
    publisher: Publisher,
    broker: Arc<Broker>,
    outgoing: Outgoing,
    /// It came over this one.
    channel: Channel,
}

impl fmt::Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Again").field("outgoing", &self.outgoing).finish_non_exhaustive()
    }
}

impl Again {
    /// The way back of a delivery that came over `channel` from the exchange of jobs.
    pub(super) fn of(
        publisher: &Publisher,
        broker: &Arc<Broker>,
        channel: &Channel,
        delivery: &Delivery,
    ) -> Self {
        let outgoing = Outgoing {
            exchange: broker.names.jobs_exchange(),
            key: delivery.routing_key.clone(),
            body: delivery.data.clone().into(),
            reach: Reach::Queue,
            context: super::context(delivery),
            reply_to: None,
            returns: Some(super::redeliveries(delivery)),
        };
        Self { publisher: publisher.clone(), broker: Arc::clone(broker), outgoing, channel: channel.clone() }
    }

    /// Whether a queue holds it. What came over a channel that is lost is there already.
    async fn publish(&self) -> bool {
        if !self.channel.status().connected() {
            return false;
        }
        let publishing = self.publisher.publish(self.outgoing.clone(), &self.broker);
        matches!(timeout(REQUEST_DEADLINE, publishing).await, Ok(Ok(())))
    }
}

impl Answer {
    /// Giving back is a `reject`: since RabbitMQ 4.3 a `nack` does not count towards the delivery limit.
    async fn send(self, acker: &Acker, again: Option<&Again>) -> Result<(), String> {
        let answer = match (self, again) {
            (Answer::HandBack, Some(again)) if again.publish().await => Answer::Ack,
            (answer, _) => answer,
        };
        let sending = async {
            match answer {
                Answer::Ack => acker.ack(BasicAckOptions::default()).await,
                Answer::HandBack | Answer::GiveBack => {
                    acker.reject(BasicRejectOptions { requeue: true }).await
                }
                Answer::Reject => acker.reject(BasicRejectOptions { requeue: false }).await,
            }
        };
        match timeout(REQUEST_DEADLINE, sending).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err("the connection was lost".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer was taken within {} s", REQUEST_DEADLINE.as_secs())),
        }
    }
}

/// An answer that nobody waits for, sent by the task.
pub(super) struct LateAnswer {
    acker: Acker,
    answer: Answer,
    again: Option<Again>,
}

/// The right to answer one delivery.
#[derive(Debug)]
pub(crate) struct RabbitReceipt {
    /// `None` once answered.
    acker: Option<Box<Acker>>,
    broken: CancellationToken,
    /// Unbounded, because a drop cannot wait; the prefetch bounds it.
    late: mpsc::UnboundedSender<LateAnswer>,
    again: Option<Box<Again>>,
}

impl RabbitReceipt {
    pub(super) fn new(
        acker: Acker,
        broken: CancellationToken,
        late: mpsc::UnboundedSender<LateAnswer>,
        again: Option<Again>,
    ) -> Self {
        Self { acker: Some(Box::new(acker)), broken, late, again: again.map(Box::new) }
    }

    pub(crate) async fn ack(self) -> Result<(), QueueError> {
        self.answer(Answer::Ack).await
    }

    pub(crate) async fn give_back(self) -> Result<(), QueueError> {
        self.answer(Answer::HandBack).await
    }

    pub(crate) async fn reject(self) -> Result<(), QueueError> {
        self.answer(Answer::Reject).await
    }

    /// If the call is dropped half-way the task sees to it that the delivery is answered at all.
    async fn answer(mut self, answer: Answer) -> Result<(), QueueError> {
        let Some(acker) = &self.acker else { return Ok(()) };
        let sent = answer.send(acker, self.again.as_deref()).await;
        self.acker = None;
        let Err(why) = sent else { return Ok(()) };
        self.broken.cancel();
        Err(QueueError::Unreachable(why))
    }

    /// Has the task answer.
    pub(super) fn answer_later(mut self, answer: Answer) {
        self.pass_on(answer);
    }

    fn pass_on(&mut self, answer: Answer) {
        if let Some(acker) = self.acker.take() {
            // An error means that the task has closed the link: the broker takes it back.
            drop(self.late.send(LateAnswer {
                acker: *acker,
                answer,
                again: self.again.take().map(|again| *again),
            }));
        }
    }
}

impl Drop for RabbitReceipt {
    fn drop(&mut self) {
        self.pass_on(Answer::GiveBack);
    }
}

/// Makes the inbox and the task that fills it. The task ends with `shutdown`, or when the inbox is
/// dropped and the last delivery from it is answered.
pub(super) fn consume<T: Send + 'static>(
    broker: Arc<Broker>,
    source: Source<T>,
    shutdown: CancellationToken,
) -> (Inbox<T>, impl Future<Output = ()> + Send) {
    let (outbox, received) = mpsc::channel(usize::from(source.prefetch.max(1)));
    (Inbox { received }, keep_consuming(broker, source, outbox, shutdown))
}

async fn keep_consuming<T>(
    broker: Arc<Broker>,
    source: Source<T>,
    outbox: mpsc::Sender<Received<T>>,
    shutdown: CancellationToken,
) {
    let mut backoff = Backoff::up_to(LONGEST_PAUSE);
    loop {
        let opened = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = outbox.closed() => return,
            opened = open(&broker, &source) => opened,
        };
        match opened {
            Ok((link, consumer)) => {
                backoff.connected();
                let queue = consumer.queue();
                tracing::info!("takes messages from `{queue}` on {}", broker.place());
                let end = serve(&link, consumer, &source, &outbox, &shutdown).await;
                link.close().await;
                match end {
                    End::Finished => return,
                    End::Lost(why) => tracing::warn!("lost `{queue}` on {}: {why}", broker.place()),
                }
            }
            Err(error) => tracing::warn!("cannot take messages yet, will try again: {error}"),
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = outbox.closed() => return,
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

async fn open<T>(broker: &Broker, source: &Source<T>) -> Result<(Link, lapin::Consumer), QueueError> {
    let purpose = match &source.queue {
        SourceQueue::Shared(queue) => queue.as_str(),
        SourceQueue::Control(_) => "control",
    };
    let link = broker.open(purpose).await?;
    let subscribing = async {
        link.channel.basic_qos(source.prefetch.max(1), BasicQosOptions::default()).await?;
        let queue = match &source.queue {
            SourceQueue::Shared(queue) => queue.clone(),
            SourceQueue::Control(_) => topology::declare_control_queue(&link.channel, &broker.names).await?,
        };
        let consumer = link
            .channel
            .basic_consume(queue.clone(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
            .await?;
        if let SourceQueue::Control(ear) = &source.queue {
            ear.is_at(queue);
        }
        Ok::<_, lapin::Error>(consumer)
    };
    match timeout(REQUEST_DEADLINE, subscribing).await {
        Ok(Ok(consumer)) => Ok((link, consumer)),
        Ok(Err(error)) => Err(broker.explain(&error)),
        Err(_) => Err(QueueError::Unreachable(format!("{} does not answer", broker.place()))),
    }
}

enum End {
    /// Nobody needs the link any more.
    Finished,
    /// It has failed.
    Lost(String),
}

async fn serve<T>(
    link: &Link,
    mut consumer: lapin::Consumer,
    source: &Source<T>,
    outbox: &mpsc::Sender<Received<T>>,
    shutdown: &CancellationToken,
) -> End {
    let broken = CancellationToken::new();
    // However this ends, the deliveries of this link are void.
    let _void = broken.clone().drop_guard();
    let (late, mut late_answers) = mpsc::unbounded_channel();
    loop {
        let received = tokio::select! {
            biased;
            () = shutdown.cancelled() => return End::Finished,
            () = broken.cancelled() => return End::Lost("an answer could not be sent".to_owned()),
            () = outbox.closed() => break,
            Some(late_answer) = late_answers.recv() => {
                if let Err(why) = send_late(late_answer).await {
                    return End::Lost(why);
                }
                continue;
            }
            received = next_with_room(&mut consumer, outbox) => received,
        };
        let (room, delivery) = match received {
            None => break,
            Some((room, Some(Ok(delivery)))) => (room, delivery),
            Some((_, Some(Err(error)))) => return End::Lost(error.to_string()),
            // Seen when somebody deletes the queue: no end of work, but a failure.
            Some((_, None)) => return End::Lost("the broker ended the consumer".to_owned()),
        };
        let receipt = RabbitReceipt::new(delivery.acker.clone(), broken.clone(), late.clone(), None);
        match (source.read)(delivery, receipt) {
            Ok(item) => room.send(Received { item, broken: broken.clone() }),
            Err(Unreadable { receipt, why }) => {
                tracing::warn!("rejecting a message from `{}` that cannot be read: {why}", consumer.queue());
                receipt.answer_later(Answer::Reject);
            }
        }
    }
    // The inbox was dropped. What it held is among the late answers, what is in hand may be answered yet.
    if let Err(why) = stop_deliveries(link, &mut consumer).await {
        return End::Lost(why);
    }
    drop(late);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return End::Finished,
            () = broken.cancelled() => return End::Finished,
            late_answer = late_answers.recv() => match late_answer {
                None => return End::Finished,
                Some(late_answer) => if let Err(why) = send_late(late_answer).await {
                    return End::Lost(why);
                },
            },
        }
    }
}

/// Cancel safe: a delivery leaves the consumer only when the whole is ready. `None` when the inbox was
/// dropped.
async fn next_with_room<'a, T>(
    consumer: &mut lapin::Consumer,
    outbox: &'a mpsc::Sender<Received<T>>,
) -> Option<(mpsc::Permit<'a, Received<T>>, Option<lapin::Result<Delivery>>)> {
    let room = outbox.reserve().await.ok()?;
    Some((room, consumer.next().await))
}

pub(super) async fn send_late(late: LateAnswer) -> Result<(), String> {
    let LateAnswer { acker, answer, again } = late;
    // Whoever was answering when it was dropped had sent the answer already.
    if !acker.usable() {
        return Ok(());
    }
    answer.send(&acker, again.as_ref()).await
}

/// Unsubscribes first and gives back second: a subscriber is sent at once what it gives back.
async fn stop_deliveries(link: &Link, consumer: &mut lapin::Consumer) -> Result<(), String> {
    let stopping = async {
        link.channel.basic_cancel(consumer.tag(), Default::default()).await?;
        while let Some(delivery) = consumer.next().await {
            delivery?.reject(BasicRejectOptions { requeue: true }).await?;
        }
        Ok::<(), lapin::Error>(())
    };
    match timeout(REQUEST_DEADLINE, stopping).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the broker does not answer".to_owned()),
    }
}
