//! The protocol between a job's row and its acknowledgement, checked exhaustively for small sizes: whatever
//! goes wrong, in whatever order, every job is settled, what is done is whole and recorded, an attempt is
//! made again only after a fault that may repeat it, and a job that ends its workers dies alone. Some of
//! the histories that were found are replayed on the real databases and queues.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod model;
mod parts;
mod replay_queue;
mod replay_rows;
mod rules;
mod steps;

use model::{Action, Farm, Fault, Protocol, State, Sweep};
use stateright::{Checker, Model, Property};

impl Model for Protocol {
    type State = Farm;
    type Action = Action;

    fn init_states(&self) -> Vec<Farm> {
        vec![self.start()]
    }

    fn actions(&self, farm: &Farm, actions: &mut Vec<Action>) {
        self.possible(farm, actions);
    }

    fn next_state(&self, farm: &Farm, action: Action) -> Option<Farm> {
        self.after(farm, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::eventually("every job is settled", |_: &Self, farm: &Farm| farm.is_settled()),
            Property::always("what is done is whole and recorded", |of: &Self, farm: &Farm| {
                let whole = of.whole();
                farm.rows.iter().zip(&farm.samples).all(|(row, samples)| match row.state {
                    State::Done(made) => {
                        farm.sweep == Sweep::Cancelled || (made == whole && samples & whole == whole)
                    }
                    State::Pending | State::Queued(_) | State::Cancelled | State::Dead => true,
                })
            }),
            Property::always("copies are bounded", |_: &Self, farm: &Farm| {
                farm.starts.iter().flatten().all(|starts| *starts <= 1 + farm.excuses)
            }),
            Property::always("the innocent live", |of: &Self, farm: &Farm| {
                (0..of.jobs).all(|job| of.killer == Some(job) || farm.rows[job].state != State::Dead)
            }),
            Property::sometimes("what was handed back is finished elsewhere", |of: &Self, farm: &Farm| {
                farm.rows.iter().any(|row| row.made > 0 && row.state == State::Done(of.whole()))
            }),
            Property::sometimes("a job outlives its worker", |_: &Self, farm: &Farm| {
                farm.excuses > 0 && farm.budget == 0 && farm.is_settled() && farm.sweep == Sweep::Running
            }),
            Property::sometimes("a job is published a third time", |_: &Self, farm: &Farm| {
                farm.rows.iter().any(|row| row.begun == 3) && farm.is_settled()
            }),
            Property::sometimes("a killer dies", |of: &Self, farm: &Farm| {
                of.killer.is_some_and(|killer| farm.rows[killer].state == State::Dead)
            }),
        ]
    }
}

const ANYTHING: &[Fault] = &[
    Fault::Kill,
    Fault::Cut,
    Fault::Drain,
    Fault::Restart,
    Fault::Again,
    Fault::Emptied,
    Fault::Cancel,
    Fault::Interrupt,
    Fault::Misjudge,
];

/// Two workers of one slot, one job of two attempts.
const SMALL: Protocol =
    Protocol { workers: 2, slots: 1, jobs: 1, attempts: 2, killer: None, faults: ANYTHING, budget: 1 };

/// States, and what was done in each.
type History = Vec<(Farm, Option<Action>)>;

/// Looks at every state; gives the histories that show what is to be possible.
#[track_caller]
fn check(protocol: Protocol, states: usize) -> Vec<(&'static str, History)> {
    let checker = protocol.clone().checker().threads(2).spawn_bfs().join();
    let (mut shown, mut broken) = (Vec::new(), String::new());
    for (name, path) in checker.discoveries() {
        let possible = matches!(
            checker.model().properties().into_iter().find(|property| property.name == name),
            Some(Property { expectation: stateright::Expectation::Sometimes, .. })
        );
        if possible {
            shown.push((name, path.into_vec()));
        } else {
            broken.push_str(&format!("{name}: {:#?}\n", path.into_actions()));
        }
    }
    assert_eq!(broken, "", "{protocol:?}");
    let seen = checker.unique_state_count();
    assert!(seen >= states, "only {seen} states: the model has lost something");
    shown
}

#[test]
fn whatever_goes_wrong_once_or_twice_nothing_is_lost_and_copies_are_bounded() {
    check(SMALL, 1_000);
    check(Protocol { attempts: 1, budget: 2, ..SMALL }, 10_000);
    let two_jobs =
        check(Protocol { jobs: 2, attempts: 1, faults: &[Fault::Cut, Fault::Drain], ..SMALL }, 10_000);
    assert!(two_jobs.iter().all(|(name, _)| *name != "a killer dies"));
}

#[test]
fn a_killer_dies_and_takes_no_innocent_job_with_it() {
    for (workers, slots) in [(1, 2), (2, 1)] {
        let killer =
            Protocol { workers, slots, jobs: 2, attempts: 1, killer: Some(0), faults: &[], budget: 0 };
        let shown = check(killer, 50);
        assert!(shown.iter().any(|(name, _)| *name == "a killer dies"), "{workers} {slots}");
    }
}

/// Those of each fault by itself, and of a job that ends its workers.
fn histories() -> Vec<(String, History)> {
    let alone = |fault| Protocol { faults: std::slice::from_ref(fault), budget: 2, ..SMALL };
    let killer =
        Protocol { slots: 2, workers: 1, jobs: 2, attempts: 1, killer: Some(0), faults: &[], budget: 0 };
    let mut histories = Vec::new();
    for protocol in ANYTHING.iter().map(alone).chain([killer]) {
        let what = format!("{:?}, killer {:?}", protocol.faults, protocol.killer);
        let shown = check(protocol, 50).into_iter();
        histories.extend(shown.map(|(name, history)| (format!("{name} ({what})"), history)));
    }
    assert!(histories.len() >= 7, "only {} histories", histories.len());
    histories
}

#[tokio::test]
async fn the_real_databases_do_what_the_model_does() {
    for (name, history) in histories() {
        replay_rows::on_sqlite(&name, &history).await;
        replay_rows::on_postgres(&name, &history).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_queues_do_what_the_model_does() {
    let mut in_memory = 0;
    for (name, history) in histories() {
        in_memory += usize::from(replay_queue::on_embedded(&name, &history).await);
        replay_queue::on_rabbitmq(&name, &history).await;
    }
    assert!(in_memory >= 6, "only {in_memory} histories");
}
