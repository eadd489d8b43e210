//! Jobs for one slot. A free slot is subscribed to both classes, with a credit of one message each; a
//! slot that has taken a job holds no other. The subscription of the class that it took stays, used up
//! until the job is answered, so that a queue of bulk jobs flows without further requests; the other
//! one is given up, and what it brought meanwhile goes back, uncounted.
//!
//! Rejected: one consumer with a credit of all slots for each class (hoards one class while the other
//! fills the slots), and a credit over all consumers of a channel (quorum queues do not have it).
//!
//! Slots of a worker share a connection and have a channel each. A task owns the channel and throws it
//! away when anything at all is wrong.

use super::consuming::{Again, Answer, LateAnswer, REQUEST_DEADLINE, RabbitReceipt, Unreadable, send_late};
use super::link::{Broker, Link};
use super::publishing::Publisher;
use super::read_job;
use crate::backoff::Backoff;
use crate::message::Class;
use crate::queue::{INTERACTIVE_STREAK, JobDelivery, QueueError, Receipt};
use futures::StreamExt;
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicGetOptions, BasicQosOptions};
use lapin::types::FieldTable;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Between attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often the slots of a worker together ask for a job of the other class.
const LOOK: Duration = Duration::from_millis(100);
/// For the broker to send the next job of the class that flows, before the slot listens to both.
const FLOW: Duration = Duration::from_millis(20);

/// What the slots of a worker share.
pub(super) struct Slots {
    broker: Arc<Broker>,
    /// Held while connecting: one slot does it for all.
    line: tokio::sync::Mutex<Line>,
    looked: Mutex<Instant>,
}

struct Line {
    link: Option<Link>,
    backoff: Backoff,
    retry_at: Instant,
}

impl Slots {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        let line = Line { link: None, backoff: Backoff::up_to(LONGEST_PAUSE), retry_at: Instant::now() };
        Self { broker, line: tokio::sync::Mutex::new(line), looked: Mutex::new(Instant::now()) }
    }

    /// A channel on the connection of all. Waits for a broker that is away; an error is
    /// worth another call. Cancel safe.
    async fn channel(&self) -> Result<Channel, QueueError> {
        let mut line = self.line.lock().await;
        if line.link.as_ref().is_some_and(|link| !link.connection().status().connected()) {
            line.link = None;
        }
        while line.link.is_none() {
            tokio::time::sleep_until(line.retry_at).await;
            match self.broker.open("jobs").await {
                Ok(link) => {
                    tracing::info!("takes jobs from {}", self.broker.place());
                    line.backoff.connected();
                    line.link = Some(link);
                }
                Err(error) => tracing::warn!("cannot take jobs yet, will try again: {error}"),
            }
            line.retry_at = Instant::now() + line.backoff.pause();
        }
        let link = line.link.as_ref().expect("it was just made");
        let opening = async {
            let channel = link.connection().create_channel().await?;
            channel.basic_qos(1, BasicQosOptions::default()).await?;
            Ok::<_, lapin::Error>(channel)
        };
        let opened = match timeout(REQUEST_DEADLINE, opening).await {
            Ok(opened) => opened.map_err(|error| self.broker.explain(&error)),
            Err(_) => Err(QueueError::Unreachable(format!("{} does not answer", self.broker.place()))),
        };
        if opened.is_err() {
            // Whatever is wrong with it, the next call starts anew.
            line.link = None;
        }
        opened
    }

    /// Whether it is time to look for a job of the other class.
    fn look(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = looked.elapsed() >= LOOK;
        if due {
            *looked = Instant::now();
        }
        due
    }

    /// Closes the connection of all.
    pub(super) async fn close(&self) {
        if let Some(link) = self.line.lock().await.link.take() {
            link.close().await;
        }
    }
}

enum Request {
    Next(oneshot::Sender<JobDelivery>),
    Urgent(oneshot::Sender<Option<JobDelivery>>),
}

/// How the worker reaches the task.
#[derive(Debug)]
pub(super) struct SlotInbox {
    /// None once it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    /// Asked for and not yet received.
    next: Option<oneshot::Receiver<JobDelivery>>,
    urgent: Option<oneshot::Receiver<Option<JobDelivery>>>,
    going: Going,
}

/// What inbox and task tell each other of the end.
#[derive(Debug, Clone, Default)]
struct Going {
    /// No more jobs are wanted.
    asked: CancellationToken,
    /// Nothing is subscribed any more.
    gone: CancellationToken,
}

impl SlotInbox {
    /// Cancel safe.
    pub(super) async fn leave(&mut self) {
        self.going.asked.cancel();
        self.going.gone.cancelled().await;
    }

    pub(super) async fn next(&mut self) -> Option<JobDelivery> {
        if self.next.is_none() {
            let (reply, answer) = oneshot::channel();
            self.requests.as_ref()?.send(Request::Next(reply)).await.ok()?;
            self.next = Some(answer);
        }
        let received = self.next.as_mut().expect("it was just set").await;
        self.next = None;
        received.ok()
    }

    pub(super) async fn urgent(&mut self) -> Option<JobDelivery> {
        if self.urgent.is_none() {
            let (reply, answer) = oneshot::channel();
            self.requests.as_ref()?.send(Request::Urgent(reply)).await.ok()?;
            self.urgent = Some(answer);
        }
        let received = self.urgent.as_mut().expect("it was just set").await;
        self.urgent = None;
        received.ok().flatten()
    }
}

impl Drop for SlotInbox {
    /// What came and was not taken goes back, uncounted: nobody has begun it. That there will be no more
    /// requests is said first, so that the task unsubscribes before it gives back.
    fn drop(&mut self) {
        self.requests = None;
        let next = self.next.as_mut().and_then(|next| {
            next.close();
            next.try_recv().ok()
        });
        let urgent = self.urgent.as_mut().and_then(|urgent| {
            urgent.close();
            urgent.try_recv().ok().flatten()
        });
        next.into_iter().chain(urgent).for_each(hand_back);
    }
}

fn hand_back(delivery: JobDelivery) {
    match delivery.receipt {
        Receipt::Rabbit(receipt) => receipt.answer_later(Answer::HandBack),
        Receipt::Embedded(_) => unreachable!("a slot on RabbitMQ takes from RabbitMQ"),
    }
}

/// Makes the inbox and its task, which ends with `shutdown`, or when the inbox is dropped and the last
/// delivery from it is answered.
pub(super) fn slot(
    slots: Arc<Slots>,
    publisher: Publisher,
    shutdown: CancellationToken,
) -> (SlotInbox, impl Future<Output = ()> + Send) {
    let (requests, received) = mpsc::channel(2);
    let going = Going::default();
    let task = keep_slot(slots, publisher, received, going.clone(), shutdown);
    (SlotInbox { requests: Some(requests), next: None, urgent: None, going }, task)
}

async fn keep_slot(
    slots: Arc<Slots>,
    publisher: Publisher,
    mut requests: mpsc::Receiver<Request>,
    going: Going,
    shutdown: CancellationToken,
) {
    // However it ends.
    let _gone = going.gone.clone().drop_guard();
    // One that a lost channel left unanswered.
    let mut asked = None;
    // A broker without the queue loses a channel at once, each time.
    let mut backoff = Backoff::up_to(LONGEST_PAUSE);
    loop {
        if asked.is_none() {
            asked = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = going.asked.cancelled() => return,
                request = requests.recv() => request,
            };
        }
        let opened = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = going.asked.cancelled() => return,
            opened = meanwhile(&mut requests, &mut asked, slots.channel()) => opened,
        };
        let channel = match opened {
            Ok(channel) => channel,
            Err(error) => {
                tracing::warn!("cannot take jobs yet, will try again: {error}");
                continue;
            }
        };
        backoff.connected();
        let (late, late_answers) = mpsc::unbounded_channel();
        let broken = CancellationToken::new();
        let _void = broken.clone().drop_guard();
        let mut serving = Serving {
            slots: &slots,
            publisher: &publisher,
            channel: channel.clone(),
            consumers: [None, None],
            last: None,
            streak: 0,
            broken,
            late: Some(late),
            late_answers,
            going: &going,
            shutdown: &shutdown,
        };
        let end = serving.serve(&mut requests, &mut asked).await;
        drop(serving);
        // An error means that it was closed or lost already.
        timeout(REQUEST_DEADLINE, channel.close(200, "goodbye".into())).await.ok();
        match end {
            Ok(()) => return,
            Err(why) => tracing::debug!("a slot lost its channel: {why}"),
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = going.asked.cancelled() => return,
            () = meanwhile(&mut requests, &mut asked, tokio::time::sleep(backoff.pause())) => {}
        }
    }
}

/// Waits for `what` while no job can come. Nobody waits with it who has one in hand: for them there is nothing
/// urgent now.
async fn meanwhile<T>(
    requests: &mut mpsc::Receiver<Request>,
    asked: &mut Option<Request>,
    what: impl Future<Output = T>,
) -> T {
    let nothing = |reply: oneshot::Sender<Option<JobDelivery>>| drop(reply.send(None));
    match asked.take() {
        Some(Request::Urgent(reply)) => nothing(reply),
        next => *asked = next,
    }
    let mut what = std::pin::pin!(what);
    let mut wanted = true;
    loop {
        tokio::select! {
            biased;
            done = &mut what => return done,
            request = requests.recv(), if wanted => match request {
                Some(Request::Urgent(reply)) => nothing(reply),
                Some(next) => *asked = Some(next),
                None => wanted = false,
            },
        }
    }
}

/// A channel in use.
struct Serving<'a> {
    slots: &'a Slots,
    /// Of what is handed back.
    publisher: &'a Publisher,
    channel: Channel,
    /// In the order of [`Class::ALL`].
    consumers: [Option<lapin::Consumer>; 2],
    /// The class of the last job.
    last: Option<usize>,
    /// Interactive jobs in a row.
    streak: u32,
    broken: CancellationToken,
    /// None when the inbox was dropped.
    late: Option<mpsc::UnboundedSender<LateAnswer>>,
    late_answers: mpsc::UnboundedReceiver<LateAnswer>,
    going: &'a Going,
    shutdown: &'a CancellationToken,
}

/// Why a channel is of no more use.
type Lost = String;

/// What came of waiting.
enum Came {
    Delivery(usize, Box<Delivery>),
    Nothing,
    /// The slot is no longer wanted.
    End,
}

impl Serving<'_> {
    /// Serves until no more is wanted and all is answered. At `shutdown` what came and nobody took still
    /// goes back first: a channel that is closed over it counts as a return, and returns end a job.
    async fn serve(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
        asked: &mut Option<Request>,
    ) -> Result<(), Lost> {
        loop {
            if asked.is_none() {
                tokio::select! {
                    biased;
                    () = self.shutdown.cancelled() => break,
                    () = self.going.asked.cancelled() => break,
                    () = self.broken.cancelled() => return Err("an answer could not be sent".to_owned()),
                    // Before answers: a subscriber is sent what it gives back, even after it has unsubscribed,
                    // when nobody looks at it any more.
                    request = requests.recv() => match request {
                        Some(request) => *asked = Some(request),
                        None => break,
                    },
                    Some(answer) = self.late_answers.recv() => send_late(answer).await?,
                }
                continue;
            }
            match asked.take() {
                Some(Request::Urgent(reply)) => {
                    let found = if self.slots.look() { self.get(0).await? } else { None };
                    if let Err(Some(delivery)) = reply.send(found) {
                        hand_back(delivery);
                    }
                }
                Some(Request::Next(reply)) => {
                    *asked = Some(Request::Next(reply));
                    if self.next(asked).await?.is_none() {
                        break;
                    }
                }
                None => {}
            }
        }
        for class in [0, 1] {
            self.unsubscribe(class).await?;
        }
        self.going.gone.cancel();
        self.late = None;
        loop {
            tokio::select! {
                biased;
                () = self.broken.cancelled() => return Ok(()),
                answer = self.late_answers.recv() => match answer {
                    None => return Ok(()),
                    Some(answer) => send_late(answer).await?,
                },
                // What somebody still has in hand stays unanswered.
                () = self.shutdown.cancelled() => return Ok(()),
            }
        }
    }

    /// Takes the next job to whoever asked; `None` when nobody wants it any more. What is asked stays
    /// in `asked` until it is answered, so that it outlives the channel.
    async fn next(&mut self, asked: &mut Option<Request>) -> Result<Option<()>, Lost> {
        let other = match self.last {
            Some(1) if self.slots.look() => Some(0),
            Some(0) if self.streak >= INTERACTIVE_STREAK => Some(1),
            Some(_) | None => None,
        };
        if let Some(other) = other {
            self.streak = 0;
            if let Some(delivery) = self.get(other).await? {
                self.answer(asked, other, delivery);
                return self.unsubscribe(1 - other).await.map(Some);
            }
        }
        loop {
            // First what flows, then both.
            let patience = match self.consumers {
                [Some(_), Some(_)] => None,
                [None, None] => Some(Duration::ZERO),
                [Some(_), None] | [None, Some(_)] => Some(FLOW),
            };
            let (class, delivery) = match self.wait(asked, patience).await? {
                Came::Delivery(class, delivery) => (class, *delivery),
                Came::End => return Ok(None),
                Came::Nothing => {
                    for class in [0, 1] {
                        self.subscribe(class).await?;
                    }
                    continue;
                }
            };
            if let Some(delivery) = self.read(delivery) {
                self.answer(asked, class, delivery);
                return self.unsubscribe(1 - class).await.map(Some);
            }
        }
    }

    fn answer(&mut self, asked: &mut Option<Request>, class: usize, delivery: JobDelivery) {
        self.last = Some(class);
        self.streak = if class == 0 { self.streak + 1 } else { 0 };
        match asked.take() {
            Some(Request::Next(reply)) => {
                if let Err(delivery) = reply.send(delivery) {
                    hand_back(delivery);
                }
            }
            Some(Request::Urgent(_)) | None => hand_back(delivery),
        }
    }

    async fn wait(&mut self, asked: &mut Option<Request>, patience: Option<Duration>) -> Result<Came, Lost> {
        let patience = async {
            match patience {
                Some(patience) => tokio::time::sleep(patience).await,
                None => std::future::pending().await,
            }
        };
        let mut patience = std::pin::pin!(patience);
        let Some(Request::Next(reply)) = asked else { return Ok(Came::End) };
        let [interactive, bulk] = &mut self.consumers;
        loop {
            return tokio::select! {
                biased;
                () = self.shutdown.cancelled() => Ok(Came::End),
                () = self.going.asked.cancelled() => Ok(Came::End),
                () = self.broken.cancelled() => Err("an answer could not be sent".to_owned()),
                () = reply.closed() => Ok(Came::End),
                Some(answer) = self.late_answers.recv() => {
                    send_late(answer).await?;
                    continue;
                }
                came = from(interactive) => Ok(Came::Delivery(0, Box::new(came?))),
                came = from(bulk) => Ok(Came::Delivery(1, Box::new(came?))),
                () = &mut patience => Ok(Came::Nothing),
            };
        }
    }

    /// One job of the class that waits now.
    async fn get(&mut self, class: usize) -> Result<Option<JobDelivery>, Lost> {
        loop {
            let queue = self.slots.broker.names.jobs_queue(Class::ALL[class]);
            let getting = self.channel.basic_get(queue, BasicGetOptions::default());
            match timeout(REQUEST_DEADLINE, getting).await {
                Ok(Ok(None)) => return Ok(None),
                Ok(Ok(Some(message))) => match self.read(message.delivery) {
                    Some(delivery) => return Ok(Some(delivery)),
                    None => continue,
                },
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err("the broker does not answer".to_owned()),
            }
        }
    }

    /// The job; one that cannot be read is rejected.
    fn read(&self, delivery: Delivery) -> Option<JobDelivery> {
        let late = self.late.clone()?;
        let again = Again::of(self.publisher, &self.slots.broker, &self.channel, &delivery);
        let receipt = RabbitReceipt::new(delivery.acker.clone(), self.broken.clone(), late, Some(again));
        match read_job(delivery, receipt) {
            Ok(delivery) => Some(delivery),
            Err(Unreadable { receipt, why }) => {
                tracing::warn!("rejecting a job that cannot be read: {why}");
                receipt.answer_later(Answer::Reject);
                None
            }
        }
    }

    async fn subscribe(&mut self, class: usize) -> Result<(), Lost> {
        if self.consumers[class].is_some() {
            return Ok(());
        }
        let queue = self.slots.broker.names.jobs_queue(Class::ALL[class]);
        let options = BasicConsumeOptions::default();
        let subscribing = self.channel.basic_consume(queue, "".into(), options, FieldTable::default());
        match timeout(REQUEST_DEADLINE, subscribing).await {
            Ok(Ok(consumer)) => self.consumers[class] = Some(consumer),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("the broker does not answer".to_owned()),
        }
        Ok(())
    }

    /// Unsubscribes first and gives back second: a subscriber is sent at once what it gives back.
    async fn unsubscribe(&mut self, class: usize) -> Result<(), Lost> {
        let Some(mut consumer) = self.consumers[class].take() else { return Ok(()) };
        let cancelling = async {
            self.channel.basic_cancel(consumer.tag(), Default::default()).await?;
            let mut excess = Vec::new();
            while let Some(delivery) = consumer.next().await {
                excess.push(delivery?);
            }
            Ok::<_, lapin::Error>(excess)
        };
        let excess = match timeout(REQUEST_DEADLINE, cancelling).await {
            Ok(Ok(excess)) => excess,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("the broker does not answer".to_owned()),
        };
        for delivery in excess.into_iter().filter_map(|delivery| self.read(delivery)) {
            hand_back(delivery);
        }
        Ok(())
    }
}

/// The next delivery of a consumer; never, where there is none.
async fn from(consumer: &mut Option<lapin::Consumer>) -> Result<Delivery, Lost> {
    match consumer {
        None => std::future::pending().await,
        Some(consumer) => match consumer.next().await {
            Some(Ok(delivery)) => Ok(delivery),
            Some(Err(error)) => Err(error.to_string()),
            // Seen when somebody deletes the queue: no end of work, but a failure.
            None => Err("the broker ended the consumer".to_owned()),
        },
    }
}
