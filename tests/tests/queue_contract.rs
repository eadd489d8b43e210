//! Every adapter of the queue port against the laws of `contract::queue`: in memory, and RabbitMQ at
//! `FLAKEFARM_TEST_AMQP_URL`, each test under a prefix of its own whose queues it removes. Outages are
//! made by a relay that belongs to the test, and once by restarting the real broker with the command
//! in `FLAKEFARM_TEST_AMQP_RESTART`; the one in `FLAKEFARM_TEST_AMQP_MEMORY` takes its memory.

use flakefarm_shared::queue::{DELIVERY_LIMIT, Queue, QueueError, REASON_REJECTED, Role};
use flakefarm_shared::{Class, WIRE_VERSION, WorkerId, WorkerMessage};
use flakefarm_tests::broker::{Broker, Starved};
use flakefarm_tests::contract::queue as laws;
use flakefarm_tests::contract::queue::{Ends, PATIENCE, job, next, next_dead, publish_jobs};
use flakefarm_tests::eventually::eventually;
use flakefarm_tests::harness::service;
use futures::FutureExt as _;
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::RwLock;
use tokio::time::timeout;

/// Laws read, the test that restarts the broker writes.
static SERVER: RwLock<()> = RwLock::const_new(());

macro_rules! both_adapters {
    ($($law:ident)*) => {
        mod embedded {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $law() {
                let coordinator = Queue::open("embedded:", Role::Coordinator).unwrap();
                let ends = Ends { worker: coordinator.clone(), coordinator };
                laws::$law(&ends).await;
            })*
        }
        mod rabbitmq {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $law() {
                on_rabbitmq(async |broker| {
                    let ends = broker.ends(&broker.address).await;
                    laws::$law(&ends).await;
                    close(&ends).await;
                })
                .await;
            })*
        }
    };
}

both_adapters! {
    published_job_is_delivered
    unanswered_job_of_a_dropped_consumer_is_redelivered
    dropped_slot_gives_back_only_what_nobody_took
    slots_that_leave_are_sent_nothing_more
    given_back_job_is_redelivered_and_not_counted
    rejected_job_is_dead
    poison_is_dead_after_the_delivery_limit
    unanswered_dead_job_is_redelivered
    job_of_a_foreign_version_is_dead
    two_consumers_share_the_work
    slot_holds_one_job_and_none_ahead
    cancelled_next_loses_no_job
    duplicates_are_both_delivered
    urgent_jobs_go_first_and_bulk_is_not_starved
    depth_counts_waiting_jobs
    worker_messages_round_trip
    control_reaches_all_subscribers
    an_answer_reaches_the_one_who_asked
    control_without_subscribers_is_no_failure
    closing_ends_consumers_and_publishers
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_that_starts_first_waits_for_the_coordinator() {
    on_rabbitmq(async |broker| {
        let worker = Queue::open(&broker.address, Role::Worker).unwrap();
        let checked = worker.check().await;
        assert!(matches!(checked, Err(QueueError::Topology(_))), "{checked:?}");
        let mut jobs = worker.slot();
        let ends = Ends { coordinator: Queue::open(&broker.address, Role::Coordinator).unwrap(), worker };
        publish_jobs(&ends, 1).await;
        next(&mut jobs).await.ack().await.unwrap();
        close(&ends).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_worker_gives_its_jobs_back_at_once() {
    on_rabbitmq(async |broker| {
        let ends = broker.ends(&broker.address).await;
        let published = publish_jobs(&ends, 1).await;
        let in_hand = next(&mut ends.worker.slot()).await;
        ends.worker.close().await;
        let again = next(&mut ends.coordinator.slot()).await;
        assert_eq!((&again.message, again.redeliveries), (&published[0], 1));
        let late = in_hand.ack().await;
        assert!(matches!(late, Err(QueueError::Unreachable(_))), "{late:?}");
        again.ack().await.unwrap();
        close(&ends).await;
    })
    .await;
}

/// However many workers leave over it: a job that nobody took is nobody's failure.
#[tokio::test(flavor = "multi_thread")]
async fn workers_that_leave_give_back_what_nobody_took_uncounted() {
    on_rabbitmq(async |broker| {
        let ends = broker.ends(&broker.address).await;
        let published = publish_jobs(&ends, 1).await;
        let queue = &ends.coordinator;
        let is_ready = async |count: u64| {
            let depth = queue.depth(Class::Bulk).await.map_err(|error| error.to_string())?;
            if depth.ready == count { Ok(()) } else { Err(format!("{} are ready", depth.ready)) }
        };
        for _ in 0..=DELIVERY_LIMIT {
            let leaving = Queue::open(&broker.address, Role::Worker).unwrap();
            let mut slot = leaving.slot();
            assert!(slot.next().now_or_never().is_none(), "nothing is sent before it is asked for");
            eventually("the broker sends it", PATIENCE, async || is_ready(0).await).await;
            drop(slot);
            leaving.close().await;
            eventually("it is there again", PATIENCE, async || is_ready(1).await).await;
        }
        let again = next(&mut ends.worker.slot()).await;
        assert_eq!((&again.message, again.redeliveries), (&published[0], 0));
        again.ack().await.unwrap();
        close(&ends).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_are_made_again_and_jobs_in_hand_come_again() {
    on_rabbitmq(async |broker| {
        let (relay, address) = broker.behind_a_relay();
        let ends = broker.ends(&address).await;
        publish_jobs(&ends, 2).await;
        let (mut jobs, mut more) = (ends.worker.slot(), ends.worker.slot());
        let (one, other) = (next(&mut jobs).await, next(&mut more).await);
        relay.cut();
        relay.mend();
        // Published while the connection is made again; waits for it inside.
        publish_jobs(&ends, 1).await;
        let answered = one.ack().await;
        assert!(matches!(answered, Err(QueueError::Unreachable(_))), "{answered:?}");
        drop(other);
        let [one, other] = [next(&mut jobs).await, next(&mut more).await];
        assert!(one.redeliveries.max(other.redeliveries) >= 1, "{one:?} {other:?}");
        // The last one comes to whoever has none in hand, and asks.
        one.ack().await.unwrap();
        next(&mut jobs).await.ack().await.unwrap();
        other.ack().await.unwrap();
        close(&ends).await;
    })
    .await;
}

/// Who has a job in hand looks for an urgent one between two attempts: a broker that is away, or a queue that is
/// missing, holds up nobody.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_a_job_in_hand_does_not_wait_for_a_broker_that_is_away() {
    on_rabbitmq(async |broker| {
        let (relay, address) = broker.behind_a_relay();
        let ends = broker.ends(&address).await;
        publish_jobs(&ends, 1).await;
        let mut slot = ends.worker.slot();
        let in_hand = next(&mut slot).await;
        relay.cut();
        // The first may find out that the connection is lost; the broker stays away for all of them.
        for _ in 0..3 {
            let urgent = timeout(PATIENCE, slot.urgent()).await.expect("it is told at once");
            assert!(urgent.is_none(), "{urgent:?}");
        }
        drop(in_hand);
        relay.mend();
        next(&mut slot).await.ack().await.unwrap();
        close(&ends).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_opens_while_the_broker_is_down_and_works_once_it_is_up() {
    on_rabbitmq(async |broker| {
        let (relay, address) = broker.behind_a_relay();
        relay.cut();
        let queue = Queue::open(&address, Role::Coordinator).unwrap();
        let checked = timeout(Duration::from_secs(15), queue.check()).await.expect("check has a deadline");
        assert!(matches!(checked, Err(QueueError::Unreachable(_))), "{checked:?}");
        let mut jobs = queue.slot();
        let message = job();
        let (published, ()) = tokio::join!(queue.publish_job(&message), async { relay.mend() });
        published.unwrap();
        let delivery = next(&mut jobs).await;
        assert_eq!(delivery.message, message);
        delivery.ack().await.unwrap();
        queue.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publisher_gives_up_after_a_bounded_time() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("amqp://127.0.0.1:{}/%2f", nobody.local_addr().unwrap().port());
    drop(nobody);
    let queue = Queue::open(&address, Role::Worker).unwrap();
    let published = timeout(PATIENCE, queue.publish_job(&job())).await.expect("publishing has a deadline");
    assert!(matches!(published, Err(QueueError::Unreachable(_))), "{published:?}");
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_queue_is_declared_again() {
    on_rabbitmq(async |broker| {
        let ends = broker.ends(&broker.address).await;
        let mut jobs = ends.coordinator.slot();
        publish_jobs(&ends, 1).await;
        next(&mut jobs).await.ack().await.unwrap();
        broker.delete_queue("jobs.bulk").await;
        publish_jobs(&ends, 1).await;
        next(&mut jobs).await.ack().await.unwrap();
        close(&ends).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_queue_says_so() {
    on_rabbitmq(async |broker| {
        let ends = broker.ends(&broker.address).await;
        broker.delete_queue("jobs.bulk").await;
        let channel = broker.channel().await;
        let (queue, exchange) = (broker.name("jobs.bulk"), broker.name("jobs"));
        let mut small = FieldTable::default();
        small.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        small.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        small.insert("x-max-length".into(), AMQPValue::LongLongInt(1));
        channel.queue_declare(queue.as_str().into(), QueueDeclareOptions::durable(), small).await.unwrap();
        let options = QueueBindOptions::default();
        channel
            .queue_bind(queue.into(), exchange.into(), "bulk".into(), options, FieldTable::default())
            .await
            .unwrap();
        // The broker takes a few more than it was told. A worker publishes, for it would not redeclare.
        let full =
            eventually("the queue is full", PATIENCE, async || match ends.worker.publish_job(&job()).await {
                Err(error) => Ok(error),
                Ok(()) => Err("published".to_owned()),
            })
            .await;
        assert!(matches!(full, QueueError::Full), "{full:?}");
        close(&ends).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_declared_otherwise_is_an_error_with_a_remedy() {
    on_rabbitmq(async |broker| {
        let channel = broker.channel().await;
        let options = QueueDeclareOptions::durable();
        channel.queue_declare(broker.name("jobs.bulk").into(), options, FieldTable::default()).await.unwrap();
        let coordinator = Queue::open(&broker.address, Role::Coordinator).unwrap();
        let Err(QueueError::Topology(why)) = coordinator.check().await else { panic!("it is wrong") };
        assert!(why.contains("jobs.bulk") && why.contains("drain it"), "{why}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_dead() {
    on_rabbitmq(async |broker| {
        let ends = broker.ends(&broker.address).await;
        let channel = broker.channel().await;
        for (exchange, key) in [("jobs", "bulk"), ("results", "results")] {
            let (exchange, options) = (broker.name(exchange), BasicPublishOptions::default());
            let properties = BasicProperties::default();
            channel.basic_publish(exchange.into(), key.into(), options, b"{", properties).await.unwrap();
            let mut jobs = ends.worker.slot();
            let _messages = ends.coordinator.worker_messages();
            let dead = tokio::select! {
                dead = next_dead(&ends) => dead,
                job = jobs.next() => panic!("a job was read: {job:?}"),
            };
            assert_eq!((dead.message.as_ref(), dead.reason.as_str()), (None, REASON_REJECTED));
            assert_eq!(dead.body, b"{");
            dead.ack().await.unwrap();
        }
        close(&ends).await;
    })
    .await;
}

/// A consumer that is dropped while it subscribes must not stay subscribed: what it is sent then would
/// wait for its answer for ever.
#[tokio::test(flavor = "multi_thread")]
async fn consumer_dropped_while_it_subscribes_keeps_nothing() {
    on_rabbitmq(async |broker| {
        let ends = broker.ends(&broker.address).await;
        let beat = WorkerMessage::Beat {
            v: WIRE_VERSION,
            worker: WorkerId("w".to_owned()),
            at: 1,
            slots: 1,
            version: "0".to_owned(),
            jobs: Vec::new(),
            draining: false,
            trouble: None,
        };
        for step in 0..40 {
            // Dropped at another moment of its opening each time: the delay is what is varied.
            let hasty = ends.coordinator.worker_messages();
            tokio::time::sleep(Duration::from_micros(500 * step)).await;
            drop(hasty);
            ends.worker.publish_worker_message(&beat).await.unwrap();
            let mut patient = ends.coordinator.worker_messages();
            let came = timeout(PATIENCE, patient.next()).await.expect("the message is not lost");
            came.unwrap().ack().await.unwrap();
        }
        close(&ends).await;
    })
    .await;
}

/// A broker short of memory reads nothing from connections that publish. One that takes jobs is heard all the same, also
/// if a job has been handed back over it.
#[tokio::test(flavor = "multi_thread")]
async fn broker_short_of_memory_hears_who_takes_jobs() {
    let _alone = SERVER.write().await;
    Broker::with(async |broker| {
        let ends = broker.ends(&broker.address).await;
        let published = publish_jobs(&ends, 3).await;
        let (mut one, mut other) = (ends.worker.slot(), ends.worker.slot());
        let (first, second) = (next(&mut one).await, next(&mut other).await);
        let mut left: Vec<_> = published.iter().map(|message| message.job).collect();
        left.retain(|job| *job != second.message.job);
        let starved = Starved::begin().await;
        first.give_back().await.unwrap();
        second.ack().await.unwrap();
        // Sent only when the answer has been read. Which of the two, the broker decides: what is returned goes to whoever
        // has room first.
        let came = timeout(Duration::from_secs(10), other.next()).await.expect("answers are read").unwrap();
        assert!(left.contains(&came.message.job), "{:?}", came.message);
        left.retain(|job| *job != came.message.job);
        came.ack().await.unwrap();
        drop(starved);
        // Counted or not, and perhaps twice: a copy may have waited for room.
        while !left.is_empty() {
            let came = tokio::select! {
                came = next(&mut one) => came,
                came = next(&mut other) => came,
            };
            left.retain(|job| *job != came.message.job);
            came.ack().await.unwrap();
        }
        close(&ends).await;
    })
    .await;
}

/// The restart has to be an orderly one: RabbitMQ 3.10, killed within the second in which a quorum
/// queue was declared, comes back with a queue that never answers. The farm keeps trying, in vain.
#[tokio::test(flavor = "multi_thread")]
async fn restart_of_the_broker_loses_no_job() {
    let restart = service("FLAKEFARM_TEST_AMQP_RESTART");
    let _alone = SERVER.write().await;
    Broker::with(async |broker| {
        let ends = broker.ends(&broker.address).await;
        let published = publish_jobs(&ends, 3).await;
        let mut jobs = ends.worker.slot();
        let settled = next(&mut jobs).await;
        let settled_id = settled.message.job;
        settled.ack().await.unwrap();
        let in_hand = next(&mut jobs).await;
        let status = tokio::process::Command::new("sh").args(["-c", &restart]).status().await.unwrap();
        assert!(status.success(), "{restart}: {status}");
        drop(in_hand);
        let mut left: Vec<_> =
            published.iter().map(|message| message.job).filter(|id| *id != settled_id).collect();
        while !left.is_empty() {
            let delivery = next(&mut jobs).await;
            left.retain(|id| *id != delivery.message.job);
            delivery.ack().await.unwrap();
        }
        publish_jobs(&ends, 1).await;
        next(&mut jobs).await.ack().await.unwrap();
        close(&ends).await;
    })
    .await;
}

async fn close(ends: &Ends) {
    ends.worker.close().await;
    ends.coordinator.close().await;
}

async fn on_rabbitmq(test: impl AsyncFnOnce(&Broker)) {
    let _shared = SERVER.read().await;
    Broker::with(test).await;
}
