//! Replays a history on the coordinator's real store: after each step its rows are those of the model.

use crate::model::{Action, End, Farm, Fault, Slot, State, Sweep};
use crate::rules::worker;
use flakefarm_coordinator::db::{Db, JobState, NewJob, NewSweep, Settlement, SweepState};
use flakefarm_coordinator::engine::leases::{Asked, Decision, PRESUMED_DEAD, decide};
use flakefarm_shared::queue::DELIVERY_LIMIT;
use flakefarm_shared::{Class, Digest, JobId, Payload, SweepId, UnixMicros};
use flakefarm_tests::harness::in_schema;
use std::time::Duration;

/// Between two steps: longer than anything that a rule waits for.
const STEP: UnixMicros = 60_000_000;

pub(crate) async fn on_sqlite(name: &str, history: &[(Farm, Option<Action>)]) {
    let dir = tempfile::tempdir().unwrap();
    replay(name, history, &format!("sqlite:{}", dir.path().join("rows.db").display())).await;
}

pub(crate) async fn on_postgres(name: &str, history: &[(Farm, Option<Action>)]) {
    in_schema(async |url: &str| replay(name, history, url).await).await;
}

struct Replay {
    db: Db,
    sweep: SweepId,
    jobs: Vec<JobId>,
    now: UnixMicros,
}

async fn replay(name: &str, history: &[(Farm, Option<Action>)], url: &str) {
    let db = Db::open(url).await.unwrap();
    let sweep = SweepId::new();
    let now = STEP;
    let new = NewSweep {
        id: sweep,
        project: "model".to_owned(),
        revision: None,
        question: "{}".to_owned(),
        context: Digest::of(b"context"),
        class: Class::Bulk,
        seed: 1,
        source: "/model".to_owned(),
        created_at: now,
    };
    db.create_sweep(&new).await.unwrap();
    let job = |number: usize| {
        let key = format!("job {number}");
        let spec = Payload::Inline(Vec::new());
        NewJob { id: JobId::derive(sweep, &key), key, class: Class::Bulk, spec, attempts: 2 }
    };
    let new: Vec<NewJob> = (0..history[0].0.rows.len()).map(job).collect();
    db.insert_jobs(sweep, &new, now).await.unwrap();
    let mut replay = Replay { db, sweep, jobs: new.iter().map(|job| job.id).collect(), now };
    for pair in history.windows(2) {
        let ((before, Some(action)), (after, _)) = (&pair[0], &pair[1]) else { continue };
        replay.now += STEP;
        replay.step(before, *action).await;
        replay.compare(after, &format!("{name}, after {action:?} of {before:#?}")).await;
    }
    replay.db.close().await;
}

impl Replay {
    async fn step(&self, before: &Farm, action: Action) {
        let (db, now) = (&self.db, self.now);
        match action {
            Action::Begin(job) => {
                let publication = u32::from(before.rows[job].begun) + 1;
                let begun = db.begin_publications(&[(self.jobs[job], publication)], now).await.unwrap();
                assert_eq!(begun, [self.jobs[job]]);
            }
            Action::MarkQueued => {
                let (job, _) = before.sending.unwrap();
                let publication = u32::from(before.rows[job].begun);
                db.mark_queued(&[(self.jobs[job], publication)], now).await.unwrap();
            }
            Action::Ask { worker, slot, late } => self.ask(before, worker, slot, late).await,
            Action::Beat { worker: speaker } => {
                let in_hand: Vec<_> = before.workers[speaker]
                    .in_hand()
                    .map(|hand| (self.jobs[hand.message.job], u32::from(hand.message.publication)))
                    .collect();
                db.touch_jobs(&in_hand, &worker(speaker), 0, now).await.unwrap();
            }
            Action::Record(end) => self.record(before, end).await,
            Action::Strike(Fault::Again, place) => self.record(before, before.ends[place]).await,
            Action::Bury(message) => {
                if message.publication < before.rows[message.job].begun {
                    return;
                }
                if before.rows[message.job].taken.count_ones() >= DELIVERY_LIMIT {
                    self.settle(message.job, Settlement::Dead { reason: "delivery_limit".to_owned() }).await;
                } else {
                    let (job, publication) = (self.jobs[message.job], u32::from(message.publication));
                    db.take_back(job, publication, None, Some("it came back"), now).await.unwrap();
                }
            }
            Action::LoseLease(job) | Action::Strike(Fault::Misjudge, job) => {
                let publication = u32::from(before.rows[job].publications);
                assert!(db.lose_lease(self.jobs[job], publication, now, now).await.unwrap());
            }
            Action::FindLost(job) => {
                let publication = u32::from(before.rows[job].publications);
                assert!(db.take_back(self.jobs[job], publication, None, None, now).await.unwrap());
            }
            Action::Close => {
                db.cancel_jobs(self.sweep, now).await.unwrap();
            }
            Action::Strike(Fault::Cancel, _) => {
                db.finish_sweep(self.sweep, &SweepState::Cancelled, now, None).await.unwrap();
                db.cancel_waiting_jobs(self.sweep, now).await.unwrap();
            }
            Action::Strike(Fault::Interrupt, _) => {
                db.finish_sweep(self.sweep, &SweepState::Interrupted, now, None).await.unwrap();
            }
            Action::Resume => db.resume_sweep(self.sweep).await.unwrap(),
            // The broker's and the workers'.
            Action::Send
            | Action::Take { .. }
            | Action::Start { .. }
            | Action::EndAttempt { .. }
            | Action::EndJob { .. }
            | Action::Append { .. }
            | Action::Report { .. }
            | Action::Answer { .. }
            | Action::GiveBack { .. }
            | Action::HearCancel { .. }
            | Action::Leave { .. }
            | Action::Strike(Fault::Kill | Fault::Cut | Fault::Drain | Fault::Restart | Fault::Emptied, _) => {
            }
        }
    }

    async fn ask(&self, before: &Farm, asker: usize, slot: usize, late: bool) {
        let Slot::Asks(hand) = before.workers[asker].slots[slot] else { unreachable!("only then it asks") };
        let message = hand.message;
        if before.knows_ended(asker, hand) {
            return;
        }
        let (job, publication) = (self.jobs[message.job], u32::from(message.publication));
        let row = self.db.job(job).await.unwrap();
        let held = if late { PRESUMED_DEAD } else { Duration::ZERO };
        let id = worker(asker);
        let returns = u32::from(message.returns);
        let asked = Asked { worker: &id, publication, held, returns, heard_for: held };
        match decide(row.as_ref(), before.sweep == Sweep::Running, asked, self.now) {
            Decision::Run => {
                self.db.touch_jobs(&[(job, publication)], &id, returns, self.now).await.unwrap();
            }
            Decision::TakeBack => {
                self.db.take_back(job, publication, None, None, self.now).await.unwrap();
            }
            Decision::Drop => {}
            Decision::Wait => panic!("the model has it answered"),
        }
    }

    async fn record(&self, before: &Farm, end: End) {
        let report = Payload::Inline(vec![end.made]);
        let made = (end.made > 0).then_some(&report);
        if !end.handed_back {
            self.settle(end.job, Settlement::Done { report }).await;
        } else if before.sweep == Sweep::Cancelled {
            let made = made.cloned().map(|report| Settlement::Done { report });
            self.settle(end.job, made.unwrap_or(Settlement::Cancelled)).await;
        } else {
            let publication = u32::from(end.publication);
            self.db.take_back(self.jobs[end.job], publication, made, None, self.now).await.unwrap();
        }
    }

    async fn settle(&self, job: usize, settlement: Settlement) {
        self.db.settle_jobs(&[(self.jobs[job], settlement)], self.now).await.unwrap();
    }

    async fn compare(&self, farm: &Farm, when: &str) {
        for (model, job) in farm.rows.iter().zip(&self.jobs) {
            let row = self.db.job(*job).await.unwrap().unwrap();
            let state = match &row.state {
                JobState::Pending { .. } => State::Pending,
                JobState::Queued { worker: None, .. } => State::Queued(None),
                JobState::Queued { worker: Some(holder), .. } => {
                    State::Queued((0..farm.workers.len()).find(|number| worker(*number) == *holder))
                }
                JobState::Settled { settlement: Settlement::Done { report }, .. } => {
                    State::Done(made_of(report))
                }
                JobState::Settled { settlement: Settlement::Cancelled, .. } => State::Cancelled,
                JobState::Settled { .. } => State::Dead,
            };
            let real = (state, [row.begun, row.publications, row.lost_leases, row.taken]);
            let counted = [model.begun, model.publications, model.lost_leases, model.taken].map(u32::from);
            assert_eq!(real, (model.state, counted), "{when}");
            if state == State::Pending {
                assert_eq!(row.made.as_ref().map_or(0, made_of), model.made, "{when}");
            }
        }
    }
}

fn made_of(report: &Payload) -> u8 {
    match report {
        Payload::Inline(bytes) => bytes[0],
        Payload::Blob(_) => unreachable!("the model's reports are small"),
    }
}
