//! What may happen next, and what comes of it.

use crate::model::{
    Action, Attempts, End, Farm, Fault, Finished, Message, Protocol, Row, Running, Slot, State, Sweep, Worker,
};
use crate::rules::decision;
use flakefarm_coordinator::engine::leases::Decision;
use flakefarm_shared::queue::DELIVERY_LIMIT;

impl Protocol {
    pub(crate) fn start(&self) -> Farm {
        let row = Row { state: State::Pending, begun: 0, publications: 0, made: 0, lost_leases: 0, taken: 0 };
        Farm {
            sweep: Sweep::Running,
            rows: vec![row; self.jobs],
            sending: None,
            broker: Vec::new(),
            dead: Vec::new(),
            ends: Vec::new(),
            workers: vec![self.fresh(); self.workers],
            samples: vec![0; self.jobs],
            starts: vec![vec![0; usize::from(self.attempts)]; self.jobs],
            excuses: 0,
            budget: self.budget,
        }
    }

    /// All attempts of a job.
    pub(crate) fn whole(&self) -> Attempts {
        (1 << self.attempts) - 1
    }

    fn fresh(&self) -> Worker {
        Worker {
            slots: vec![Slot::Free; self.slots],
            draining: false,
            ended: vec![0; self.jobs],
            alone: None,
        }
    }

    pub(crate) fn possible(&self, farm: &Farm, actions: &mut Vec<Action>) {
        for job in 0..self.jobs {
            actions.extend([Action::Begin(job), Action::LoseLease(job), Action::FindLost(job)]);
        }
        actions.extend([Action::Send, Action::MarkQueued, Action::Close, Action::Resume]);
        let mut last = None;
        for message in farm.broker.iter().filter(|message| last.replace(**message) != Some(**message)) {
            for worker in 0..self.workers {
                // One free slot is as good as another.
                let free = farm.workers[worker].slots.iter().position(|slot| *slot == Slot::Free);
                for known in [false, true] {
                    actions.extend(free.map(|slot| Action::Take { worker, slot, message: *message, known }));
                }
            }
        }
        for worker in 0..self.workers {
            actions.extend([
                Action::Beat { worker },
                Action::HearCancel { worker },
                Action::Leave { worker },
            ]);
            for slot in 0..self.slots {
                match farm.workers[worker].slots[slot] {
                    Slot::Free => {}
                    Slot::Asks(_) => actions.extend([
                        Action::Ask { worker, slot, late: false },
                        Action::Ask { worker, slot, late: true },
                        Action::GiveBack { worker, slot },
                    ]),
                    Slot::Runs(..) => actions.extend([
                        Action::Start { worker, slot },
                        Action::EndAttempt { worker, slot },
                        Action::EndJob { worker, slot },
                    ]),
                    Slot::Ended(..) => {
                        actions.extend([Action::Append { worker, slot }, Action::Report { worker, slot }])
                    }
                    Slot::Home(_) => actions.push(Action::Answer { worker, slot }),
                }
            }
        }
        actions.extend(farm.ends.iter().copied().map(Action::Record));
        actions.extend(farm.dead.iter().copied().map(Action::Bury));
        if farm.budget > 0 {
            for fault in self.faults {
                let places = match fault {
                    Fault::Kill | Fault::Cut | Fault::Drain => self.workers,
                    Fault::Again => farm.ends.len(),
                    Fault::Misjudge => self.jobs,
                    Fault::Restart | Fault::Emptied | Fault::Cancel | Fault::Interrupt => 1,
                };
                actions.extend((0..places).map(|place| Action::Strike(*fault, place)));
            }
        }
    }

    /// What comes of it; none where it cannot happen or changes nothing.
    pub(crate) fn after(&self, farm: &Farm, action: Action) -> Option<Farm> {
        let mut next = farm.clone();
        self.act(&mut next, action)?;
        next.broker.sort_unstable();
        next.dead.sort_unstable();
        next.ends.sort_unstable();
        (next != *farm).then_some(next)
    }

    fn act(&self, farm: &mut Farm, action: Action) -> Option<()> {
        match action {
            Action::Begin(job) => {
                let row = &mut farm.rows[job];
                let may = row.state == State::Pending && farm.sweep == Sweep::Running;
                if !may || farm.sending.is_some() {
                    return None;
                }
                row.begun += 1;
                farm.sending = Some((job, false));
            }
            Action::Send => {
                let (job, false) = farm.sending? else { return None };
                let row = &farm.rows[job];
                farm.broker.push(Message { job, publication: row.begun, made: row.made, returns: 0 });
                farm.sending = Some((job, true));
            }
            Action::MarkQueued => {
                let (job, true) = farm.sending? else { return None };
                let row = &mut farm.rows[job];
                if !row.state.is_settled() {
                    row.state = State::Queued(None);
                    row.publications = row.begun;
                    row.taken = 0;
                }
                farm.sending = None;
            }
            Action::Record(end) => {
                farm.record(end)?;
                let place = farm.ends.iter().position(|other| *other == end)?;
                farm.ends.remove(place);
            }
            Action::Bury(message) => {
                let place = farm.dead.iter().position(|other| *other == message)?;
                farm.dead.remove(place);
                let row = &mut farm.rows[message.job];
                if message.publication < row.begun || row.state.is_settled() {
                    return Some(());
                }
                if row.taken.count_ones() >= DELIVERY_LIMIT {
                    row.state = State::Dead;
                } else {
                    row.take_back(message.publication, 0);
                }
            }
            Action::LoseLease(job) => {
                let State::Queued(Some(_)) = farm.rows[job].state else { return None };
                // A worker that lives and has it is heard in time; the broker gives a killer's job to the
                // next one sooner.
                if self.killer.is_some()
                    || farm.in_hand(job, farm.rows[job].publications)
                    || farm.sweep != Sweep::Running
                {
                    return None;
                }
                farm.lose_lease(job);
            }
            Action::FindLost(job) => {
                let publication = farm.rows[job].publications;
                let waits = farm.rows[job].state == State::Queued(None) && farm.sweep == Sweep::Running;
                let received = farm.hands().any(|(_, hand)| hand.message.job == job);
                let held = farm.broker.iter().any(|message| message.job == job);
                if !waits || !farm.broker.is_empty() || received || held || publication == 0 {
                    return None;
                }
                // What ended is read before anything is taken for lost.
                if farm.ends.iter().any(|end| end.job == job) || farm.dead.iter().any(|m| m.job == job) {
                    return None;
                }
                farm.rows[job].state = State::Pending;
            }
            Action::Close => {
                if farm.sweep != Sweep::Cancelled {
                    return None;
                }
                for row in &mut farm.rows {
                    row.cancel();
                }
            }
            Action::Resume => {
                if farm.sweep != Sweep::Interrupted {
                    return None;
                }
                farm.sweep = Sweep::Running;
            }
            Action::Beat { worker } => {
                for hand in farm.workers[worker].in_hand().collect::<Vec<_>>() {
                    farm.rows[hand.message.job].touch(hand.message.publication, worker, 0);
                }
            }
            Action::HearCancel { worker } => {
                if farm.sweep == Sweep::Running {
                    return None;
                }
                for slot in &mut farm.workers[worker].slots {
                    if let Slot::Runs(hand, Running { made, under_way }) = *slot {
                        farm.excuses += u8::from(under_way.is_some());
                        let finished = Finished { made, handed_back: true, record: true, recorded: false };
                        *slot = Slot::Ended(hand, finished);
                    }
                }
            }
            Action::Leave { worker } => {
                let leaver = &farm.workers[worker];
                if !leaver.draining || leaver.slots.iter().any(|slot| *slot != Slot::Free) {
                    return None;
                }
                farm.workers[worker] = self.fresh();
            }
            Action::Take { worker, slot, message, known } => {
                let place = farm.broker.iter().position(|other| *other == message)?;
                farm.broker.remove(place);
                farm.take(worker, slot, message, known)?;
            }
            Action::Strike(fault, place) => {
                farm.budget -= 1;
                self.strike(farm, fault, place)?;
            }
            Action::Ask { worker, slot, .. }
            | Action::Start { worker, slot }
            | Action::EndAttempt { worker, slot }
            | Action::EndJob { worker, slot }
            | Action::Append { worker, slot }
            | Action::Report { worker, slot }
            | Action::Answer { worker, slot }
            | Action::GiveBack { worker, slot } => self.work(farm, worker, slot, action)?,
        }
        Some(())
    }

    fn work(&self, farm: &mut Farm, worker: usize, slot: usize, action: Action) -> Option<()> {
        let draining = farm.workers[worker].draining;
        let next = match (farm.workers[worker].slots[slot], action) {
            (Slot::Asks(hand), Action::Ask { late, .. }) => {
                // Workers' messages are read in their order: ends that were sent before are known.
                if draining || farm.ends.iter().any(|end| end.job == hand.message.job) {
                    return None;
                }
                if farm.knows_ended(worker, hand) {
                    return farm.answer(worker, slot, hand);
                }
                let others = farm.others_in_hand(worker, hand.message.job);
                if late && others {
                    // It is heard before one who asks has waited long enough.
                    return None;
                }
                let job = hand.message.job;
                match decision(&farm.rows[job], farm.sweep, hand.message, worker, late) {
                    Decision::Wait => return None,
                    Decision::Drop => return farm.answer(worker, slot, hand),
                    Decision::TakeBack => {
                        farm.rows[job].take_back(hand.message.publication, 0);
                        return farm.answer(worker, slot, hand);
                    }
                    Decision::Run => {
                        farm.rows[job].touch(hand.message.publication, worker, hand.message.returns);
                        farm.enter(worker, slot, hand)
                    }
                }
            }
            (Slot::Asks(hand), Action::GiveBack { .. }) => {
                if !draining {
                    return None;
                }
                if hand.owed {
                    farm.broker.push(hand.message);
                }
                Slot::Free
            }
            (Slot::Runs(hand, running), Action::Start { .. }) => {
                let missing = (0..self.attempts).find(|attempt| running.made & (1 << attempt) == 0)?;
                if running.under_way.is_some() || draining {
                    return None;
                }
                farm.starts[hand.message.job][usize::from(missing)] += 1;
                if self.killer == Some(hand.message.job) {
                    farm.excuses += 1;
                    farm.kill(worker, self.fresh());
                    return Some(());
                }
                Slot::Runs(hand, Running { under_way: Some(missing), ..running })
            }
            (Slot::Runs(hand, running), Action::EndAttempt { .. }) => {
                let made = running.made | (1 << running.under_way?);
                Slot::Runs(hand, Running { made, under_way: None })
            }
            (Slot::Runs(hand, Running { made, under_way: None }), Action::EndJob { .. }) => {
                let whole = made == self.whole();
                if !whole && !draining {
                    return None;
                }
                Slot::Ended(hand, Finished { made, handed_back: !whole, record: whole, recorded: false })
            }
            (Slot::Ended(hand, finished), Action::Append { .. }) if finished.record => {
                farm.samples[hand.message.job] |= finished.made;
                Slot::Ended(hand, Finished { recorded: true, ..finished })
            }
            (Slot::Ended(hand, finished), Action::Report { .. }) => {
                if finished.record && !finished.recorded {
                    return None;
                }
                let Message { job, publication, .. } = hand.message;
                let Finished { made, handed_back, .. } = finished;
                farm.ends.push(End { job, publication, made, handed_back });
                let ended = &mut farm.workers[worker].ended[job];
                *ended = publication.max(*ended);
                Slot::Home(hand)
            }
            (Slot::Home(hand), Action::Answer { .. }) => return farm.answer(worker, slot, hand),
            _ => return None,
        };
        farm.workers[worker].slots[slot] = next;
        Some(())
    }

    fn strike(&self, farm: &mut Farm, fault: Fault, place: usize) -> Option<()> {
        match fault {
            Fault::Kill => {
                farm.excuses += 1;
                farm.kill(place, self.fresh());
            }
            Fault::Cut => farm.cut(place),
            Fault::Drain => farm.workers[place].draining = true,
            Fault::Restart => {
                farm.sending?;
                farm.excuses += 1;
                farm.sending = None;
            }
            Fault::Again => {
                let end = farm.ends[place];
                farm.record(end)?;
            }
            Fault::Emptied => {
                farm.excuses += 1;
                farm.broker.clear();
                for slot in farm.workers.iter_mut().flat_map(|worker| &mut worker.slots) {
                    slot.forget();
                }
            }
            Fault::Cancel => {
                if farm.sweep != Sweep::Running {
                    return None;
                }
                farm.sweep = Sweep::Cancelled;
                for row in farm.rows.iter_mut().filter(|row| !matches!(row.state, State::Queued(Some(_)))) {
                    row.cancel();
                }
            }
            Fault::Interrupt => {
                if farm.sweep != Sweep::Running {
                    return None;
                }
                farm.sweep = Sweep::Interrupted;
            }
            Fault::Misjudge => {
                let State::Queued(Some(_)) = farm.rows[place].state else { return None };
                farm.excuses += 1;
                farm.lose_lease(place);
            }
        }
        Some(())
    }
}
