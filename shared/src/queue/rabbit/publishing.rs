//! Publishing. One task owns the link for it, apart from the consumers' links, because a broker short
//! of memory or disk stops reading from connections that publish. The task alone sends on the channel:
//! confirms are matched by the order of sending.

use super::link::{Broker, Link};
use crate::backoff::Backoff;
use crate::queue::QueueError;
use crate::telemetry::SpanContext;
use bytes::Bytes;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Confirmation, PublisherConfirm};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// For one message, over as many links as it takes.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(20);
/// For the broker to take or answer one request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Between attempts to connect: shorter than [`PUBLISH_DEADLINE`], or a message could wait all its time
/// beside a broker that is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Requests that wait for the task.
const BACKLOG: usize = 256;
/// `delivery_mode` of a message that survives the broker's restart.
const PERSISTENT: u8 = 2;
/// How often a message had come back before it was handed back uncounted.
pub(super) const RETURNS_HEADER: &str = "x-flakefarm-returns";
/// The context of a trace, as W3C writes it; it stays with a message that is handed back.
pub(super) const CONTEXT_HEADER: &str = "traceparent";

/// A message and where it goes.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) body: Bytes,
    pub(super) reach: Reach,
    /// What it comes from, for who collects traces.
    pub(super) context: Option<SpanContext>,
    /// The queue on which an answer is heard.
    pub(super) reply_to: Option<ShortString>,
    /// Of a message that is handed back: how often it had come back.
    pub(super) returns: Option<u32>,
}

/// Who has to get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// A queue has to hold it, durably.
    Queue,
    /// Whoever listens.
    Listeners,
}

enum Request {
    Publish { outgoing: Outgoing, reply: oneshot::Sender<PublisherConfirm> },
    Count { queue: ShortString, reply: oneshot::Sender<u32> },
}

/// How to reach the task.
#[derive(Debug, Clone)]
pub(super) struct Publisher {
    line: watch::Receiver<Line>,
}

/// Whether the task has a link now.
#[derive(Debug, Clone)]
enum Line {
    Down(QueueError),
    Up(Session),
    Closed,
}

/// One link of the task's, as its users see it.
#[derive(Debug, Clone)]
struct Session {
    requests: mpsc::Sender<Request>,
    /// Cancelled by whoever finds the link useless; the task then opens another.
    broken: CancellationToken,
}

impl Session {
    fn fail<T>(&self, error: QueueError) -> Result<T, QueueError> {
        self.broken.cancel();
        Err(error)
    }

    /// Hands the request to the task and takes its reply.
    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, QueueError> {
        let lost = || QueueError::Unreachable("the connection was lost".to_owned());
        let (reply, answer) = oneshot::channel();
        self.requests.send(make(reply)).await.map_err(|_| lost())?;
        answer.await.map_err(|_| lost())
    }

    /// Success is exactly an acknowledgement without a returned message: lapin acknowledges what
    /// could not be routed, too.
    async fn publish(&self, outgoing: Outgoing, broker: &Broker) -> Result<(), QueueError> {
        let exchange = outgoing.exchange.clone();
        let confirm = self.ask(|reply| Request::Publish { outgoing, reply }).await?;
        match confirm.await {
            Ok(Confirmation::Ack(None)) => Ok(()),
            Ok(Confirmation::Nack(_)) => Err(QueueError::Full),
            Ok(Confirmation::Ack(Some(_))) => {
                self.fail(QueueError::Topology(format!("no queue is bound where `{exchange}` should route")))
            }
            Ok(Confirmation::NotRequested) => {
                self.fail(QueueError::Unreachable("the channel does not confirm".to_owned()))
            }
            Err(error) => self.fail(broker.explain(&error)),
        }
    }
}

impl Publisher {
    /// Starts the task. It ends with `shutdown`, or when the publisher and all its clones are dropped.
    pub(super) fn start(
        broker: Arc<Broker>,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, line) =
            watch::channel(Line::Down(QueueError::Unreachable("not connected yet".to_owned())));
        (Self { line }, keep_line(broker, sender, shutdown))
    }

    /// Tries again over new links, for twenty seconds in all. After an error that is not
    /// [`QueueError::Full`] the message may have arrived all the same.
    pub(super) async fn publish(&self, outgoing: Outgoing, broker: &Broker) -> Result<(), QueueError> {
        let deadline = Instant::now() + PUBLISH_DEADLINE;
        let mut last_error = None;
        loop {
            let session = match timeout_at(deadline, self.session()).await {
                Ok(session) => session?,
                Err(_) => return Err(last_error.unwrap_or_else(|| self.why_down())),
            };
            match timeout_at(deadline, session.publish(outgoing.clone(), broker)).await {
                Ok(Err(error @ (QueueError::Unreachable(_) | QueueError::Topology(_)))) => {
                    session.broken.cancel();
                    last_error = Some(error);
                }
                Ok(settled @ (Ok(()) | Err(QueueError::Full | QueueError::Closed))) => return settled,
                Err(_) => {
                    let seconds = PUBLISH_DEADLINE.as_secs();
                    return session.fail(QueueError::Unreachable(format!("no confirm within {seconds} s")));
                }
            }
        }
    }

    /// Messages that wait in `queue`.
    pub(super) async fn count(&self, queue: ShortString) -> Result<u64, QueueError> {
        let counting = async {
            let session = self.session().await?;
            session.ask(|reply| Request::Count { queue, reply }).await
        };
        match timeout(REQUEST_DEADLINE, counting).await {
            Ok(count) => count.map(u64::from),
            Err(_) => Err(self.why_down()),
        }
    }

    /// Waits for a link that nobody has found broken.
    async fn session(&self) -> Result<Session, QueueError> {
        let mut line = self.line.clone();
        let usable = |line: &Line| match line {
            Line::Up(session) => !session.broken.is_cancelled(),
            Line::Closed => true,
            Line::Down(_) => false,
        };
        match line.wait_for(usable).await.as_deref() {
            Ok(Line::Up(session)) => Ok(session.clone()),
            Ok(Line::Closed | Line::Down(_)) | Err(_) => Err(QueueError::Closed),
        }
    }

    fn why_down(&self) -> QueueError {
        match &*self.line.borrow() {
            Line::Down(error) => error.clone(),
            Line::Up(_) => QueueError::Unreachable("the connection was lost".to_owned()),
            Line::Closed => QueueError::Closed,
        }
    }
}

/// The task: opens links for ever, and serves requests on them.
async fn keep_line(broker: Arc<Broker>, line: watch::Sender<Line>, shutdown: CancellationToken) {
    let mut backoff = Backoff::up_to(LONGEST_PAUSE);
    loop {
        let opened = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            () = line.closed() => break,
            opened = open(&broker) => opened,
        };
        match opened {
            Ok(link) => {
                backoff.connected();
                tracing::info!("publishes to {}", broker.place());
                let (requests, received) = mpsc::channel(BACKLOG);
                let broken = CancellationToken::new();
                line.send_replace(Line::Up(Session { requests, broken: broken.clone() }));
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => {}
                    () = line.closed() => {}
                    () = broken.cancelled() => {}
                    () = serve(&link, received, &broker) => {}
                }
                broken.cancel();
                line.send_replace(Line::Down(QueueError::Unreachable("the connection was lost".to_owned())));
                link.close().await;
            }
            Err(error) => {
                tracing::warn!("cannot publish yet, will try again: {error}");
                line.send_replace(Line::Down(error));
            }
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            () = line.closed() => break,
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
    line.send_replace(Line::Closed);
}

async fn open(broker: &Broker) -> Result<Link, QueueError> {
    let link = broker.open("publishing").await?;
    let confirms = link.channel.confirm_select(Default::default());
    match timeout(REQUEST_DEADLINE, confirms).await {
        Ok(Ok(())) => Ok(link),
        Ok(Err(error)) => Err(broker.explain(&error)),
        Err(_) => Err(QueueError::Unreachable(format!("{} does not answer", broker.place()))),
    }
}

/// Returns when the link has failed. A request without a reply tells its asker so.
async fn serve(link: &Link, mut requests: mpsc::Receiver<Request>, broker: &Broker) {
    while let Some(request) = requests.recv().await {
        let served = async {
            match request {
                Request::Publish { outgoing, reply } => {
                    let confirm = send(link, outgoing).await?;
                    // An asker that has gone away gave up waiting.
                    drop(reply.send(confirm));
                }
                Request::Count { queue, reply } => drop(reply.send(count(link, queue).await?)),
            }
            Ok::<(), lapin::Error>(())
        };
        match timeout(REQUEST_DEADLINE, served).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                return tracing::warn!("lost the connection for publishing: {}", broker.explain(&error));
            }
            Err(_) => {
                return tracing::warn!(
                    "{} does not take messages: is it short of memory or disk?",
                    broker.place()
                );
            }
        }
    }
}

/// Of a message that survives the broker's restart.
fn durable() -> BasicProperties {
    BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(PERSISTENT)
}

async fn send(link: &Link, outgoing: Outgoing) -> lapin::Result<PublisherConfirm> {
    let Outgoing { exchange, key, body, reach, context, reply_to, returns } = outgoing;
    let (mut properties, mandatory) = match reach {
        Reach::Queue => (durable(), true),
        Reach::Listeners => (BasicProperties::default().with_content_type("application/json".into()), false),
    };
    let mut headers = FieldTable::default();
    if let Some(context) = context {
        headers.insert(CONTEXT_HEADER.into(), AMQPValue::LongString(context.to_string().into()));
    }
    if let Some(returns) = returns {
        headers.insert(RETURNS_HEADER.into(), AMQPValue::LongLongInt(i64::from(returns)));
    }
    if !headers.inner().is_empty() {
        properties = properties.with_headers(headers);
    }
    if let Some(reply_to) = reply_to {
        properties = properties.with_reply_to(reply_to);
    }
    let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
    link.channel.basic_publish(exchange, key, options, &body, properties).await
}

/// On a channel of its own: a missing queue closes the channel.
async fn count(link: &Link, queue: ShortString) -> lapin::Result<u32> {
    let channel = link.connection().create_channel().await?;
    let options = QueueDeclareOptions::durable().passive();
    let declared = channel.queue_declare(queue, options, FieldTable::default()).await?;
    let count = declared.message_count();
    channel.close(200, "counted".into()).await?;
    Ok(count)
}
