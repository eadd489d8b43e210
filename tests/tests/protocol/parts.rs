//! Rows, slots and workers: what one of them does in a step.

use crate::model::{Attempts, End, Farm, Hand, Message, Row, Running, Slot, State, Sweep, Worker};
use flakefarm_shared::queue::DELIVERY_LIMIT;

/// A job that came back so often is run alone (`worker/src/runner.rs`).
const SUSPECT: u8 = 2;
/// Lost leases after which a job is dead (`coordinator/src/engine/leases.rs`).
const LOST_LEASES: u8 = 5;

impl Row {
    pub(crate) fn touch(&mut self, publication: u8, worker: usize, returns: u8) {
        if let (State::Queued(_), true) = (self.state, self.publications == publication) {
            self.taken |= 1 << returns;
            self.state = State::Queued(Some(worker));
        }
    }

    pub(crate) fn take_back(&mut self, publication: u8, made: Attempts) {
        if matches!(self.state, State::Queued(_)) && self.publications == publication {
            self.state = State::Pending;
            self.made = if made == 0 { self.made } else { made };
        }
    }

    pub(crate) fn cancel(&mut self) {
        if !self.state.is_settled() {
            self.state = if self.made > 0 { State::Done(self.made) } else { State::Cancelled };
        }
    }
}

impl Slot {
    pub(crate) fn hand(&self) -> Option<Hand> {
        match self {
            Slot::Free => None,
            Slot::Asks(hand) | Slot::Runs(hand, _) | Slot::Ended(hand, _) | Slot::Home(hand) => Some(*hand),
        }
    }

    /// The broker will not hear of it.
    pub(crate) fn forget(&mut self) -> Option<Message> {
        let (Slot::Asks(hand) | Slot::Runs(hand, _) | Slot::Ended(hand, _) | Slot::Home(hand)) = self else {
            return None;
        };
        std::mem::take(&mut hand.owed).then_some(hand.message)
    }
}

impl Worker {
    /// What it runs or brings home: its signs of life say so.
    pub(crate) fn in_hand(&self) -> impl Iterator<Item = Hand> {
        self.slots.iter().filter(|slot| !matches!(slot, Slot::Asks(_) | Slot::Home(_))).filter_map(Slot::hand)
    }
}

impl Farm {
    pub(crate) fn is_settled(&self) -> bool {
        self.rows.iter().all(|row| row.state.is_settled())
    }

    pub(crate) fn hands(&self) -> impl Iterator<Item = (usize, Hand)> {
        let of = |(index, worker): (usize, &Worker)| {
            worker.slots.iter().filter_map(Slot::hand).map(move |hand| (index, hand)).collect::<Vec<_>>()
        };
        self.workers.iter().enumerate().flat_map(of)
    }

    /// A live worker speaks of this publication, or its end is on its way.
    pub(crate) fn in_hand(&self, job: usize, publication: u8) -> bool {
        let of = |hand: Hand| hand.message.job == job && hand.message.publication == publication;
        self.workers.iter().flat_map(Worker::in_hand).any(of)
            || self.ends.iter().any(|end| end.job == job && end.publication == publication)
    }

    pub(crate) fn others_in_hand(&self, worker: usize, job: usize) -> bool {
        let others = self.workers.iter().enumerate().filter(|(index, _)| *index != worker);
        others.flat_map(|(_, other)| other.in_hand()).any(|hand| hand.message.job == job)
            || self.ends.iter().any(|end| end.job == job)
    }

    pub(crate) fn knows_ended(&self, worker: usize, hand: Hand) -> bool {
        self.workers[worker].ended[hand.message.job] >= hand.message.publication
    }

    /// A message reaches a free slot. A suspect does where nothing else is in hand, and keeps others off.
    pub(crate) fn take(&mut self, worker: usize, slot: usize, message: Message, known: bool) -> Option<()> {
        let here = &mut self.workers[worker];
        let hand = Hand { message, owed: true };
        if here.draining || here.alone.is_some() {
            return None;
        }
        if message.returns >= SUSPECT {
            if here.slots.iter().any(|slot| !matches!(slot, Slot::Free | Slot::Asks(_))) {
                return None;
            }
            for slot in &mut here.slots {
                // Given back, uncounted.
                self.broker.extend(slot.forget());
                *slot = Slot::Free;
            }
            here.alone = Some(slot);
        }
        let only = message.publication == 1 && message.returns == 0;
        let taken = match known {
            true if !only || self.knows_ended(worker, hand) => return None,
            true => self.enter(worker, slot, hand),
            false => Slot::Asks(hand),
        };
        self.workers[worker].slots[slot] = taken;
        Some(())
    }

    /// Takes a job that may run in hand, unless it is there.
    pub(crate) fn enter(&mut self, worker: usize, slot: usize, hand: Hand) -> Slot {
        let here = &self.workers[worker];
        if here.in_hand().any(|other| other.message.job == hand.message.job) {
            self.answer(worker, slot, hand);
            return Slot::Free;
        }
        Slot::Runs(hand, Running { made: hand.message.made, under_way: None })
    }

    pub(crate) fn answer(&mut self, worker: usize, slot: usize, _hand: Hand) -> Option<()> {
        let here = &mut self.workers[worker];
        here.slots[slot] = Slot::Free;
        if here.alone == Some(slot) {
            here.alone = None;
        }
        Some(())
    }

    /// What it owed an answer for comes back, counted.
    pub(crate) fn cut(&mut self, worker: usize) {
        for slot in 0..self.workers[worker].slots.len() {
            let Some(message) = self.workers[worker].slots[slot].forget() else { continue };
            let message = Message { returns: message.returns + 1, ..message };
            let lane =
                if u32::from(message.returns) > DELIVERY_LIMIT { &mut self.dead } else { &mut self.broker };
            lane.push(message);
        }
    }

    pub(crate) fn kill(&mut self, worker: usize, fresh: Worker) {
        self.cut(worker);
        self.workers[worker] = fresh;
    }

    pub(crate) fn record(&mut self, end: End) -> Option<()> {
        let End { job, publication, made, handed_back } = end;
        let row = &mut self.rows[job];
        if !handed_back {
            if !row.state.is_settled() {
                row.state = State::Done(made);
            }
        } else if self.sending.is_some_and(|(sent, _)| sent == job) {
            // Not before it is recorded as queued.
            return None;
        } else if self.sweep == Sweep::Cancelled {
            if !row.state.is_settled() {
                row.state = if made > 0 { State::Done(made) } else { State::Cancelled };
            }
        } else {
            row.take_back(publication, made);
        }
        Some(())
    }

    pub(crate) fn lose_lease(&mut self, job: usize) {
        let row = &mut self.rows[job];
        row.lost_leases += 1;
        row.state = if row.lost_leases >= LOST_LEASES { State::Dead } else { State::Pending };
    }
}
