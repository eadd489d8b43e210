//! Replays a history on a real queue: after each step as many jobs wait there as in the model, and what a worker takes
//! came back as often.

use crate::model::{Action, Farm, Fault, Message, Slot};
use flakefarm_shared::queue::{DeadDelivery, JobDelivery, Queue, Role};
use flakefarm_shared::{Class, JobId, JobMessage, Payload, SweepId, WIRE_VERSION};
use flakefarm_tests::broker::Broker;
use flakefarm_tests::contract::queue::PATIENCE;
use flakefarm_tests::eventually::eventually;
use flakefarm_tests::relay::Relay;
use std::collections::HashMap;
use tokio::time::timeout;

/// Whether it could be replayed: a queue in memory cannot be emptied by others.
pub(crate) async fn on_embedded(name: &str, history: &[(Farm, Option<Action>)]) -> bool {
    let emptied = Some(Action::Strike(Fault::Emptied, 0));
    if history.iter().any(|(_, action)| *action == emptied) {
        return false;
    }
    replay(name, history, Place::Embedded(Queue::open("embedded:", Role::Coordinator).unwrap())).await;
    true
}

pub(crate) async fn on_rabbitmq(name: &str, history: &[(Farm, Option<Action>)]) {
    Broker::with(async |broker| replay(name, history, Place::Rabbit(broker)).await).await;
}

#[derive(Clone)]
enum Place<'a> {
    Embedded(Queue),
    Rabbit(&'a Broker),
}

impl Place<'_> {
    fn coordinator(&self) -> Queue {
        match self {
            Place::Embedded(queue) => queue.clone(),
            Place::Rabbit(broker) => Queue::open(&broker.address, Role::Coordinator).unwrap(),
        }
    }

    fn worker(&self) -> Connection {
        match self {
            Place::Embedded(queue) => Connection { queue: queue.clone(), relay: None },
            Place::Rabbit(broker) => {
                let (relay, address) = broker.behind_a_relay();
                Connection { queue: Queue::open(&address, Role::Worker).unwrap(), relay: Some(relay) }
            }
        }
    }
}

/// A worker's.
struct Connection {
    queue: Queue,
    /// None: in memory there is nothing to cut.
    relay: Option<Relay>,
}

struct Replay<'a> {
    place: Place<'a>,
    coordinator: Queue,
    workers: Vec<Connection>,
    /// By worker and slot.
    in_hand: HashMap<(usize, usize), JobDelivery>,
    sweep: SweepId,
}

async fn replay(name: &str, history: &[(Farm, Option<Action>)], place: Place<'_>) {
    let coordinator = place.coordinator();
    coordinator.check().await.unwrap();
    let workers = history[0].0.workers.iter().map(|_| place.worker()).collect();
    let mut replay = Replay { place, coordinator, workers, in_hand: HashMap::new(), sweep: SweepId::new() };
    for pair in history.windows(2) {
        let ((before, Some(action)), (after, _)) = (&pair[0], &pair[1]) else { continue };
        replay.step(before, *action, after).await;
        let when = format!("{name}: as many wait after {action:?} of {before:#?}");
        let waiting = after.broker.len() as u64;
        // One that was handed back has lost the broker's own count: it is dead when somebody reads it.
        let unread = after.dead.len() as u64;
        eventually(&when, PATIENCE, async || {
            let depth = replay.coordinator.depth(Class::Bulk).await.map_err(|error| error.to_string())?;
            let right = (waiting..=waiting + unread).contains(&depth.ready);
            if right { Ok(()) } else { Err(format!("{} of {waiting}", depth.ready)) }
        })
        .await;
    }
    for worker in &replay.workers {
        worker.queue.close().await;
    }
    replay.coordinator.close().await;
}

impl Replay<'_> {
    fn message(&self, job: usize, publication: u8) -> JobMessage {
        JobMessage {
            v: WIRE_VERSION,
            job: JobId::derive(self.sweep, &format!("job {job}")),
            sweep: self.sweep,
            class: Class::Bulk,
            publication: u32::from(publication),
            spec: Payload::Inline(Vec::new()),
            made: None,
            again: 0,
        }
    }

    async fn step(&mut self, before: &Farm, action: Action, after: &Farm) {
        match action {
            Action::Send => {
                let (job, _) = before.sending.unwrap();
                let message = self.message(job, before.rows[job].begun);
                self.coordinator.publish_job(&message).await.unwrap();
            }
            Action::Take { worker, slot, message, .. } => {
                for other in (0..before.workers[worker].slots.len()).filter(|other| *other != slot) {
                    self.give_back_if_free(before, worker, other, after).await;
                }
                let delivery = self.take(worker, message, before.broker.len()).await;
                self.in_hand.insert((worker, slot), delivery);
                self.answer_if_free(before, worker, slot, after).await;
            }
            Action::Ask { worker, slot, .. } | Action::Answer { worker, slot } => {
                self.answer_if_free(before, worker, slot, after).await;
            }
            Action::GiveBack { worker, slot } => self.give_back_if_free(before, worker, slot, after).await,
            // The killer's.
            Action::Start { worker, slot } if after.workers[worker].slots[slot] == Slot::Free => {
                self.end(worker).await;
            }
            Action::Leave { worker } | Action::Strike(Fault::Kill, worker) => self.end(worker).await,
            Action::Strike(Fault::Cut, worker) => match &self.workers[worker].relay {
                Some(relay) => {
                    relay.cut();
                    relay.mend();
                }
                None => self.in_hand.retain(|(holder, _), _| *holder != worker),
            },
            Action::Strike(Fault::Emptied, _) => {
                let Place::Rabbit(broker) = &self.place else { unreachable!("such are left out") };
                broker.delete_queue("jobs.bulk").await;
                self.coordinator.check().await.unwrap();
            }
            Action::Bury(message) => {
                let dead = timeout(PATIENCE, self.next_dead()).await.expect("a job is dead");
                assert_eq!(dead.message, Some(self.message(message.job, message.publication)));
                dead.ack().await.unwrap();
            }
            // The coordinator's and the workers'.
            Action::Begin(_)
            | Action::MarkQueued
            | Action::Start { .. }
            | Action::EndAttempt { .. }
            | Action::EndJob { .. }
            | Action::Append { .. }
            | Action::Report { .. }
            | Action::Beat { .. }
            | Action::HearCancel { .. }
            | Action::Record(_)
            | Action::LoseLease(_)
            | Action::FindLost(_)
            | Action::Close
            | Action::Resume
            | Action::Strike(
                Fault::Drain
                | Fault::Restart
                | Fault::Again
                | Fault::Cancel
                | Fault::Interrupt
                | Fault::Misjudge,
                _,
            ) => {}
        }
    }

    /// Takes this message; others of those `waiting` are put behind it.
    async fn take(&self, worker: usize, wanted: Message, waiting: usize) -> JobDelivery {
        for _ in 0..waiting {
            let mut slot = self.workers[worker].queue.slot();
            let delivery = timeout(PATIENCE, slot.next()).await.expect("a job waits").unwrap();
            // Or it would be sent the next one when this one is answered: it could come back with the connection.
            slot.leave().await;
            if delivery.message == self.message(wanted.job, wanted.publication) {
                assert_eq!(delivery.redeliveries, u32::from(wanted.returns), "{wanted:?}");
                return delivery;
            }
            delivery.give_back().await.unwrap();
        }
        panic!("{wanted:?} is not there");
    }

    /// What is dead, once a worker has looked at what waits.
    async fn next_dead(&self) -> DeadDelivery {
        let mut dead = self.coordinator.dead();
        loop {
            let mut slot = self.workers[0].queue.slot();
            tokio::select! {
                delivery = dead.next() => return delivery.unwrap(),
                other = slot.next() => {
                    slot.leave().await;
                    other.unwrap().give_back().await.unwrap();
                }
            }
        }
    }

    async fn answer_if_free(&mut self, before: &Farm, worker: usize, slot: usize, after: &Farm) {
        if let Some((delivery, owed)) = self.parted_with(before, worker, slot, after) {
            let answered = delivery.ack().await;
            assert!(answered.is_ok() || !owed, "{answered:?}");
        }
    }

    async fn give_back_if_free(&mut self, before: &Farm, worker: usize, slot: usize, after: &Farm) {
        if let Some((delivery, owed)) = self.parted_with(before, worker, slot, after) {
            let given = delivery.give_back().await;
            assert!(given.is_ok() || !owed, "{given:?}");
        }
    }

    /// What a slot has in hand and has no more after the step, and whether the broker waits for an answer.
    fn parted_with(
        &mut self,
        before: &Farm,
        worker: usize,
        slot: usize,
        after: &Farm,
    ) -> Option<(JobDelivery, bool)> {
        if after.workers[worker].slots[slot] != Slot::Free {
            return None;
        }
        let owed = before.workers[worker].slots[slot].hand().is_none_or(|hand| hand.owed);
        self.in_hand.remove(&(worker, slot)).map(|delivery| (delivery, owed))
    }

    /// Another worker takes this one's place.
    async fn end(&mut self, worker: usize) {
        let gone = std::mem::replace(&mut self.workers[worker], self.place.worker());
        if gone.relay.is_some() {
            gone.queue.close().await;
        }
        self.in_hand.retain(|(holder, _), _| *holder != worker);
    }
}
