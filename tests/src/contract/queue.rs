//! The laws of the queue port. Each takes a farm's queue of its own and empty, by both its ends, and
//! panics where the queue breaks the law. An adapter passes all of them or is not an adapter.

use crate::eventually::eventually;
use flakefarm_shared::queue::{
    ControlSubscription, DELIVERY_LIMIT, DeadDelivery, JobDelivery, JobSlot, Origin, Queue, QueueError,
    REASON_DELIVERY_LIMIT, REASON_REJECTED, WorkerMessageConsumer,
};
use flakefarm_shared::{
    Class, Control, JobEnd, JobId, JobMessage, Payload, Permit, SweepId, WIRE_VERSION, WorkerId,
    WorkerMessage,
};
use futures::FutureExt as _;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::timeout;

/// Longer than any pause between attempts to connect, with the connecting.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One queue, as coordinator and worker hold it.
#[derive(Debug)]
pub struct Ends {
    /// The coordinator's.
    pub coordinator: Queue,
    /// The worker's.
    pub worker: Queue,
}

/// A published job arrives as it was published, once it is settled it is gone.
pub async fn published_job_is_delivered(ends: &Ends) {
    let published = publish_jobs(ends, 1).await;
    let mut jobs = ends.worker.slot();
    let delivery = next(&mut jobs).await;
    assert_eq!((&delivery.message, delivery.redeliveries), (&published[0], 0));
    delivery.ack().await.expect("acknowledged");
    drop(jobs);
    nothing_is_left(ends).await;
}

/// The job of a worker that vanishes comes again, and says so.
pub async fn unanswered_job_of_a_dropped_consumer_is_redelivered(ends: &Ends) {
    let published = publish_jobs(ends, 1).await;
    let mut vanishing = ends.worker.slot();
    drop(next(&mut vanishing).await);
    drop(vanishing);
    let again = next(&mut ends.worker.slot()).await;
    assert_eq!(again.message, published[0]);
    assert!(again.redeliveries >= 1, "{again:?}");
    again.ack().await.expect("acknowledged");
}

/// A slot that stops taking jobs may settle the one it has, and what it was sent and did not take goes
/// to others, uncounted.
pub async fn dropped_slot_gives_back_only_what_nobody_took(ends: &Ends) {
    let published = publish_jobs(ends, 3).await;
    let mut stopping = ends.worker.slot();
    let in_hand = next(&mut stopping).await;
    drop(stopping);
    // Asked for a job, and gone before it is taken.
    let mut hasty = ends.worker.slot();
    assert!(hasty.next().now_or_never().is_none_or(|taken| taken.is_some()));
    drop(hasty);
    let (mut one, mut other) = (ends.worker.slot(), ends.worker.slot());
    let others = [next(&mut one).await, next(&mut other).await];
    let mut seen = ids(others.iter().map(|delivery| &delivery.message));
    assert!(seen.insert(in_hand.message.job), "a job in hand was delivered to another");
    assert_eq!(seen, ids(&published));
    in_hand.ack().await.expect("its slot is gone and the job is settled all the same");
    for delivery in others {
        delivery.ack().await.expect("acknowledged");
    }
    drop((one, other));
    nothing_is_left(ends).await;
}

/// Slots that leave are sent nothing more, not even what one of them gives back afterwards: it goes to others,
/// uncounted, however many leave over it.
pub async fn slots_that_leave_are_sent_nothing_more(ends: &Ends) {
    let published = publish_jobs(ends, 1).await;
    for _ in 0..=DELIVERY_LIMIT {
        let (mut busy, mut idle) = (ends.worker.slot(), ends.worker.slot());
        let in_hand = next(&mut busy).await;
        assert!(idle.next().now_or_never().is_none(), "there is no other job");
        let left = async { tokio::join!(busy.leave(), idle.leave()) };
        timeout(PATIENCE, left).await.expect("they leave");
        in_hand.give_back().await.expect("a slot that leaves may answer");
    }
    let again = next(&mut ends.worker.slot()).await;
    assert_eq!((&again.message, again.redeliveries), (&published[0], 0));
    again.ack().await.expect("acknowledged");
}

/// A job given back comes again however often, and that is no failure of it; what was counted before
/// stays counted.
pub async fn given_back_job_is_redelivered_and_not_counted(ends: &Ends) {
    let published = publish_jobs(ends, 1).await;
    let mut jobs = ends.worker.slot();
    for _ in 0..2 * (DELIVERY_LIMIT + 1) {
        let delivery = next(&mut jobs).await;
        assert_eq!((&delivery.message, delivery.redeliveries), (&published[0], 0));
        delivery.give_back().await.expect("given back");
    }
    drop(next(&mut jobs).await);
    let counted = next(&mut jobs).await;
    assert_eq!((&counted.message, counted.redeliveries), (&published[0], 1));
    counted.give_back().await.expect("given back");
    let again = next(&mut jobs).await;
    assert_eq!((&again.message, again.redeliveries), (&published[0], 1));
    again.ack().await.expect("acknowledged");
}

/// A refused job is dead at once.
pub async fn rejected_job_is_dead(ends: &Ends) {
    let published = publish_jobs(ends, 1).await;
    next(&mut ends.worker.slot()).await.reject().await.expect("rejected");
    let dead = next_dead(ends).await;
    assert_eq!((dead.message.as_ref(), dead.reason.as_str()), (Some(&published[0]), REASON_REJECTED));
    assert_eq!(dead.origin, Some(Origin::Jobs(Class::Bulk)));
    dead.ack().await.expect("acknowledged");
}

/// A job that nobody survives is dead after the limit, having been delivered once more than it.
pub async fn poison_is_dead_after_the_delivery_limit(ends: &Ends) {
    let published = publish_jobs(ends, 1).await;
    let mut jobs = ends.worker.slot();
    for redeliveries in 0..=DELIVERY_LIMIT {
        let delivery = next(&mut jobs).await;
        assert_eq!(delivery.redeliveries, redeliveries);
        drop(delivery);
    }
    let dead = next_dead(ends).await;
    assert_eq!((dead.message.as_ref(), dead.reason.as_str()), (Some(&published[0]), REASON_DELIVERY_LIMIT));
    dead.ack().await.expect("acknowledged");
}

/// A dead job that its reader drops comes again.
pub async fn unanswered_dead_job_is_redelivered(ends: &Ends) {
    publish_jobs(ends, 1).await;
    next(&mut ends.worker.slot()).await.reject().await.expect("rejected");
    let first = next_dead(ends).await;
    let message = first.message.clone();
    drop(first);
    let again = next_dead(ends).await;
    assert_eq!((&again.message, again.reason.as_str()), (&message, REASON_REJECTED));
    again.ack().await.expect("acknowledged");
}

/// What another version wrote is parked, not guessed at.
pub async fn job_of_a_foreign_version_is_dead(ends: &Ends) {
    let foreign = JobMessage { v: WIRE_VERSION + 1, ..job() };
    ends.coordinator.publish_job(&foreign).await.expect("published");
    let readable = publish_jobs(ends, 1).await;
    let delivery = next(&mut ends.worker.slot()).await;
    assert_eq!(delivery.message, readable[0]);
    delivery.ack().await.expect("acknowledged");
    let dead = next_dead(ends).await;
    assert_eq!((dead.message.as_ref(), dead.reason.as_str()), (None, REASON_REJECTED));
    assert_eq!(dead.origin, Some(Origin::Jobs(Class::Bulk)));
    // As it was sent, and where it came from, so that an operator can have it read again.
    let body = serde_json::from_slice::<JobMessage>(&dead.body).expect("it is whole");
    assert_eq!(body, foreign);
    let readable = serde_json::to_vec(&JobMessage { v: WIRE_VERSION, ..body }).expect("serialises");
    dead.ack().await.expect("acknowledged");
    ends.coordinator.publish_again(Origin::Jobs(Class::Bulk), readable).await.expect("published");
    let again = next(&mut ends.worker.slot()).await;
    assert_eq!(again.message, JobMessage { v: WIRE_VERSION, ..foreign });
    again.ack().await.expect("acknowledged");
}

/// Every job goes to exactly one of two willing workers.
pub async fn two_consumers_share_the_work(ends: &Ends) {
    let published = publish_jobs(ends, 30).await;
    let mut one = ends.worker.slot();
    let mut other = ends.worker.slot();
    // Both hold a job, so both take part.
    let (first, second) = (next(&mut one).await, next(&mut other).await);
    let mut seen = vec![first.message.job, second.message.job];
    first.ack().await.expect("acknowledged");
    second.ack().await.expect("acknowledged");
    while seen.len() < published.len() {
        let taken = async {
            tokio::select! { delivery = one.next() => delivery, delivery = other.next() => delivery }
        };
        let delivery = timeout(PATIENCE, taken).await.expect("all jobs come").expect("open");
        seen.push(delivery.message.job);
        delivery.ack().await.expect("acknowledged");
    }
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), ids(&published));
    drop((one, other));
    nothing_is_left(ends).await;
}

/// A slot holds no job ahead of either class: an idle one gets them at once.
pub async fn slot_holds_one_job_and_none_ahead(ends: &Ends) {
    publish_jobs(ends, 2).await;
    let mut busy = ends.worker.slot();
    let in_hand = next(&mut busy).await;
    let urgent = JobMessage { class: Class::Interactive, ..job() };
    ends.coordinator.publish_job(&urgent).await.expect("published");
    let mut idle = [ends.worker.slot(), ends.worker.slot()];
    let [one, other] = &mut idle;
    let taken = [next(one).await, next(other).await];
    let classes: BTreeSet<_> = taken.iter().map(|delivery| delivery.message.class).collect();
    assert_eq!(classes, BTreeSet::from(Class::ALL), "{taken:?}");
    assert!(taken.iter().all(|delivery| delivery.redeliveries == 0), "{taken:?}");
    for delivery in taken.into_iter().chain([in_hand]) {
        delivery.ack().await.expect("acknowledged");
    }
    drop((busy, idle));
    nothing_is_left(ends).await;
}

/// Behind a queue full of bulk, an interactive job is the next that a slot takes, or the one that it
/// takes in between; and behind many interactive ones bulk is not starved.
pub async fn urgent_jobs_go_first_and_bulk_is_not_starved(ends: &Ends) {
    publish_jobs(ends, 8).await;
    let mut jobs = ends.worker.slot();
    next(&mut jobs).await.ack().await.expect("acknowledged");
    let in_hand = next(&mut jobs).await;
    let urgent = |_| JobMessage { class: Class::Interactive, ..job() };
    let published: Vec<_> = (0..12).map(urgent).collect();
    for message in &published {
        ends.coordinator.publish_job(message).await.expect("published");
    }
    let between = {
        let jobs = tokio::sync::Mutex::new(&mut jobs);
        eventually("an interactive job comes in between", PATIENCE, async || {
            jobs.lock().await.urgent().await.ok_or_else(|| "none".to_owned())
        })
        .await
    };
    assert_eq!(between.message.class, Class::Interactive);
    between.ack().await.expect("acknowledged");
    in_hand.ack().await.expect("acknowledged");
    let (mut order, mut longest, mut run) = (Vec::new(), 0, 0);
    for _ in 0..17 {
        let delivery = next(&mut jobs).await;
        // The job takes a while: slots look for the other class at most every tenth of a second.
        tokio::time::sleep(Duration::from_millis(120)).await;
        run = if delivery.message.class == Class::Interactive { run + 1 } else { 0 };
        longest = longest.max(run);
        order.push(delivery.message.class);
        delivery.ack().await.expect("acknowledged");
    }
    assert_eq!(order.iter().filter(|class| **class == Class::Interactive).count(), 11, "{order:?}");
    assert!(longest <= 5, "bulk waits for few interactive jobs in a row: {order:?}");
    let first_half = order[..9].iter().filter(|class| **class == Class::Interactive).count();
    assert!(first_half >= 5, "people go first: {order:?}");
    drop(jobs);
    nothing_is_left(ends).await;
}

/// A dropped `next` loses no job.
pub async fn cancelled_next_loses_no_job(ends: &Ends) {
    let published = publish_jobs(ends, 20).await;
    let mut jobs = ends.worker.slot();
    let mut seen = BTreeSet::new();
    while seen.len() < published.len() {
        let delivery = {
            let jobs = tokio::sync::Mutex::new(&mut jobs);
            eventually("a job arrives", PATIENCE, async || {
                jobs.lock().await.next().now_or_never().ok_or_else(|| format!("{} jobs", seen.len()))
            })
            .await
        };
        let delivery = delivery.expect("open");
        assert_eq!(delivery.redeliveries, 0, "a job was lost and came again");
        seen.insert(delivery.message.job);
        delivery.ack().await.expect("acknowledged");
    }
    assert_eq!(seen, ids(&published));
}

/// At least once is the publisher's business, too: the queue removes no duplicates.
pub async fn duplicates_are_both_delivered(ends: &Ends) {
    let message = job();
    for _ in 0..2 {
        ends.coordinator.publish_job(&message).await.expect("published");
    }
    let mut jobs = ends.worker.slot();
    for _ in 0..2 {
        let delivery = next(&mut jobs).await;
        assert_eq!((&delivery.message, delivery.redeliveries), (&message, 0));
        delivery.ack().await.expect("acknowledged");
    }
}

/// Depth counts what waits, by class.
pub async fn depth_counts_waiting_jobs(ends: &Ends) {
    publish_jobs(ends, 3).await;
    depth_becomes(ends, Class::Bulk, 3).await;
    depth_becomes(ends, Class::Interactive, 0).await;
    let delivery = next(&mut ends.worker.slot()).await;
    delivery.ack().await.expect("acknowledged");
    depth_becomes(ends, Class::Bulk, 2).await;
}

/// Workers' messages come back as often as it takes to store them; there is no limit for them.
pub async fn worker_messages_round_trip(ends: &Ends) {
    let worker = WorkerId("w1".to_owned());
    let beat = WorkerMessage::Beat {
        v: WIRE_VERSION,
        worker: worker.clone(),
        at: 1,
        slots: 2,
        version: "0.1.0".to_owned(),
        jobs: Vec::new(),
        draining: false,
        trouble: Some("none".to_owned()),
    };
    let ended = WorkerMessage::JobEnded {
        v: WIRE_VERSION,
        job: JobId::new(),
        sweep: SweepId::new(),
        publication: 1,
        worker,
        end: JobEnd::Done { report: Payload::Inline(b"report".to_vec()) },
    };
    let mut messages = ends.coordinator.worker_messages();
    for message in [&beat, &ended] {
        ends.worker.publish_worker_message(message).await.expect("published");
        for _ in 0..DELIVERY_LIMIT + 2 {
            let delivery = next_message(&mut messages).await;
            assert_eq!(&delivery.message, message);
            delivery.give_back().await.expect("given back");
        }
        drop(next_message(&mut messages).await);
        let delivery = next_message(&mut messages).await;
        assert_eq!(&delivery.message, message);
        delivery.ack().await.expect("acknowledged");
    }
}

/// A control reaches everybody who listens.
pub async fn control_reaches_all_subscribers(ends: &Ends) {
    let mut subscriptions = [ends.worker.controls(), ends.worker.controls(), ends.coordinator.controls()];
    let control = Control::Cancel { sweep: SweepId::new() };
    for subscription in &mut subscriptions {
        // A subscription begins in the background and misses what was said before.
        let subscription = tokio::sync::Mutex::new(subscription);
        let received = eventually("the control arrives", PATIENCE, async || {
            ends.coordinator.broadcast(&control).await.map_err(|error| error.to_string())?;
            subscription.lock().await.next().now_or_never().ok_or_else(|| "nothing".to_owned())
        })
        .await;
        assert_eq!(received, Some(control.clone()));
    }
}

/// An answer reaches the one who asked. On a broker it reaches nobody else: a farm of many workers could not
/// carry answers that each of them had to read.
pub async fn an_answer_reaches_the_one_who_asked(ends: &Ends) {
    let mut messages = ends.coordinator.worker_messages();
    let (mut asker, mut bystander) = (ends.worker.controls(), ends.coordinator.controls());
    for subscription in [&mut asker, &mut bystander] {
        let subscription = tokio::sync::Mutex::new(subscription);
        eventually("the subscription has begun", PATIENCE, async || {
            let control = Control::Cancel { sweep: SweepId::new() };
            ends.coordinator.broadcast(&control).await.map_err(|error| error.to_string())?;
            subscription.lock().await.next().now_or_never().ok_or_else(|| "nothing".to_owned())
        })
        .await;
    }
    let worker = WorkerId("asker".to_owned());
    let (job, publication) = (JobId::new(), 2);
    let ask = WorkerMessage::Ask {
        v: WIRE_VERSION,
        worker: worker.clone(),
        job,
        publication,
        held_ms: 0,
        came_back: true,
        returns: 3,
    };
    ends.worker.publish_worker_message(&ask).await.expect("published");
    let delivery = next_message(&mut messages).await;
    let answer = Control::Answer { worker, job, publication, permit: Permit::Run };
    ends.coordinator.reply(&delivery.reply_to, &answer).await.expect("answered");
    delivery.ack().await.expect("acknowledged");
    let heard = async |subscription: &mut ControlSubscription| {
        // Said to all after the answer, so that what comes before it can be told from what never comes.
        let last = Control::Cancel { sweep: SweepId::new() };
        ends.coordinator.broadcast(&last).await.expect("said");
        let mut heard = Vec::new();
        loop {
            let control = timeout(PATIENCE, subscription.next()).await.expect("in time").expect("open");
            if control == last {
                return heard;
            }
            heard.push(control);
        }
    };
    assert!(heard(&mut asker).await.contains(&answer));
    // In one process there are few to tell.
    let told_to_all = matches!(ends.coordinator, Queue::Embedded(_));
    assert_eq!(heard(&mut bystander).await.contains(&answer), told_to_all);
}

/// A control to nobody is no failure.
pub async fn control_without_subscribers_is_no_failure(ends: &Ends) {
    ends.coordinator.broadcast(&Control::Cancel { sweep: SweepId::new() }).await.expect("said to nobody");
}

/// Closing ends every wait, and nothing more is taken in.
pub async fn closing_ends_consumers_and_publishers(ends: &Ends) {
    ends.worker.check().await.expect("usable");
    let mut jobs = ends.worker.slot();
    let mut messages = ends.worker.worker_messages();
    let mut dead = ends.worker.dead();
    let mut controls = ends.worker.controls();
    let waiting = async { tokio::join!(jobs.next(), messages.next(), dead.next(), controls.next()) };
    let (ended, ()) =
        timeout(PATIENCE, futures::future::join(waiting, ends.worker.close())).await.expect("all end");
    assert!(matches!(ended, (None, None, None, None)), "{ended:?}");
    assert!(matches!(ends.worker.publish_job(&job()).await, Err(QueueError::Closed)));
    assert!(matches!(ends.worker.check().await, Err(QueueError::Closed)));
    assert!(ends.worker.slot().next().await.is_none());
    assert!(ends.worker.controls().next().await.is_none());
}

/// A bulk job.
pub fn job() -> JobMessage {
    JobMessage {
        v: WIRE_VERSION,
        job: JobId::new(),
        sweep: SweepId::new(),
        class: Class::Bulk,
        publication: 1,
        spec: Payload::Inline(b"spec".to_vec()),
        made: None,
        again: 0,
    }
}

/// Publishes bulk jobs from the coordinator, all at once: in which order they wait, nobody has said.
///
/// # Panics
/// When the queue does not take them.
pub async fn publish_jobs(ends: &Ends, count: usize) -> Vec<JobMessage> {
    let messages: Vec<_> = (0..count).map(|_| job()).collect();
    let published = messages.iter().map(|message| ends.coordinator.publish_job(message));
    for outcome in futures::future::join_all(published).await {
        outcome.expect("published");
    }
    messages
}

/// The next job.
///
/// # Panics
/// When none comes, or the queue is closed.
pub async fn next(jobs: &mut JobSlot) -> JobDelivery {
    timeout(PATIENCE, jobs.next()).await.expect("a job comes").expect("the queue is open")
}

/// The next dead job, as a coordinator receives it.
///
/// # Panics
/// When none comes, or the queue is closed.
pub async fn next_dead(ends: &Ends) -> DeadDelivery {
    let mut dead = ends.coordinator.dead();
    timeout(PATIENCE, dead.next()).await.expect("a dead job comes").expect("the queue is open")
}

async fn next_message(messages: &mut WorkerMessageConsumer) -> flakefarm_shared::queue::WorkerDelivery {
    timeout(PATIENCE, messages.next()).await.expect("a message comes").expect("the queue is open")
}

async fn depth_becomes(ends: &Ends, class: Class, expected: u64) {
    eventually("the depth is as expected", PATIENCE, async || match ends.coordinator.depth(class).await {
        Ok(depth) if depth.ready == expected => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// A job published now is the only one.
async fn nothing_is_left(ends: &Ends) {
    depth_becomes(ends, Class::Bulk, 0).await;
    let published = publish_jobs(ends, 1).await;
    let last = next(&mut ends.worker.slot()).await;
    assert_eq!(last.message, published[0]);
    last.ack().await.expect("acknowledged");
}

fn ids<'a>(messages: impl IntoIterator<Item = &'a JobMessage>) -> BTreeSet<JobId> {
    messages.into_iter().map(|message| message.job).collect()
}
