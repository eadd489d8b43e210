//! How planned attempts are isolated: a pure function of the question's choice, the ledger and the
//! attempt, applied after planning. What to run is decided without it.
//!
//! Where a choice allows attempts that are forked from prepared interpreters, these only screen: what
//! they find is looked at again in containers of their own.

use crate::experiment::{
    JobKey, JobPhase, Ledger, Observation, Plan, Question, SandboxChoice, Seen, derive_seed,
};
use flakefarm_shared::{AttemptSpec, Detail, Order, SandboxLevel, Scope, Selection, TestId};
use std::collections::BTreeSet;

/// One in so many attempts on the suite is looked at in a container, while some test has failed where
/// that might be the prepared interpreter's doing.
const CONFIRMING: u64 = 4;
/// The same before any test has failed, if the choice is left to us: nothing rests on one level alone.
const ASSURING: u64 = 8;
/// One in so many reruns of a job, the first among them.
const ASSURING_RERUNS: u32 = 10;

/// Gives every planned attempt its level.
pub(crate) fn assign(question: &Question, ledger: &Ledger, mut plan: Plan) -> Plan {
    let suspects = if question.sandbox.confirms() { suspects(ledger) } else { BTreeSet::new() };
    for job in &mut plan.jobs {
        for attempt in &mut job.attempts {
            attempt.level = level(question, &suspects, job.key, attempt);
        }
    }
    plan
}

fn level(
    question: &Question,
    suspects: &BTreeSet<&TestId>,
    key: JobKey,
    attempt: &AttemptSpec,
) -> SandboxLevel {
    let one_in = |share: u64| {
        derive_seed(question.seed, &format!("level:{key}:{}", attempt.index)).is_multiple_of(share)
    };
    // What an interpreter is prepared for beforehand is the plain world and the framework's orders.
    let prepared = attempt.treatment.world.is_plain()
        && attempt.order != Order::AsListed
        && attempt.detail == Detail::Outcomes;
    match question.sandbox {
        SandboxChoice::Container => SandboxLevel::Container,
        SandboxChoice::Nested => SandboxLevel::Nested,
        SandboxChoice::ForkedOnly | SandboxChoice::Forked | SandboxChoice::Auto if !prepared => {
            SandboxLevel::Container
        }
        SandboxChoice::ForkedOnly => SandboxLevel::Forked,
        SandboxChoice::Host => SandboxLevel::Host,
        SandboxChoice::Process => SandboxLevel::Process,
        SandboxChoice::Forked | SandboxChoice::Auto => {
            let again = key.phase == JobPhase::Confirm
                || match (&attempt.scope, &attempt.tests) {
                    (Scope::Test | Scope::File, Selection::Only(tests)) => {
                        tests.iter().any(|test| suspects.contains(test))
                    }
                    // A test that depends on its neighbours fails among them or not at all.
                    (Scope::Suite, _) | (_, Selection::All) => !suspects.is_empty() && one_in(CONFIRMING),
                };
            // Reruns are few, and somebody waits: no dice, but some of each job.
            let chosen = match question.rerun {
                Some(_) => attempt.index.is_multiple_of(ASSURING_RERUNS),
                None => one_in(ASSURING),
            };
            let anyway = question.sandbox == SandboxChoice::Auto && chosen;
            if again || anyway { SandboxLevel::Container } else { SandboxLevel::Forked }
        }
    }
}

/// Tests that have failed.
fn suspects(ledger: &Ledger) -> BTreeSet<&TestId> {
    let failed = |observation: &Observation| matches!(observation.seen, Seen::Fail(_));
    let all = ledger.tests().iter().chain(ledger.unlisted_tests());
    all.filter(|test| ledger.observations(test).iter().any(failed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Estimate, PlannedJob, Planning};
    use flakefarm_shared::{Treatment, World};

    fn question(sandbox: SandboxChoice) -> Question {
        Question { sandbox, ..Question::detect(1) }
    }

    fn alone(test: &str) -> AttemptSpec {
        AttemptSpec::plain(Scope::Test, Selection::only(vec![TestId::from(test)]), Order::Given)
    }

    #[test]
    fn what_has_failed_is_looked_at_again_in_a_container() {
        let failed = TestId::from("t.py::failed");
        let suspects = BTreeSet::from([&failed]);
        #[track_caller]
        fn check(sandbox: SandboxChoice, suspects: &BTreeSet<&TestId>, test: &str, expect: SandboxLevel) {
            assert_eq!(
                level(&question(sandbox), suspects, JobKey::new(JobPhase::Alone, 0), &alone(test)),
                expect,
                "{sandbox} {test}"
            );
        }
        check(SandboxChoice::Forked, &suspects, "t.py::failed", SandboxLevel::Container);
        check(SandboxChoice::Forked, &suspects, "t.py::other", SandboxLevel::Forked);
        check(SandboxChoice::ForkedOnly, &suspects, "t.py::failed", SandboxLevel::Forked);
        check(SandboxChoice::Auto, &suspects, "t.py::failed", SandboxLevel::Container);
        check(SandboxChoice::Nested, &suspects, "t.py::failed", SandboxLevel::Nested);
    }

    #[test]
    fn what_a_prepared_interpreter_cannot_give_is_given_by_a_container() {
        let other_world = AttemptSpec { treatment: Treatment::under(World::Twice), ..alone("t.py::other") };
        let watched = AttemptSpec { detail: Detail::State, ..alone("t.py::other") };
        let listed = AttemptSpec { order: Order::AsListed, ..alone("t.py::other") };
        for spec in [other_world, watched, listed] {
            let of =
                |sandbox| level(&question(sandbox), &BTreeSet::new(), JobKey::new(JobPhase::Look, 0), &spec);
            for sandbox in [SandboxChoice::Forked, SandboxChoice::ForkedOnly, SandboxChoice::Auto] {
                assert_eq!(of(sandbox), SandboxLevel::Container, "{sandbox} {spec:?}");
            }
            assert_eq!(of(SandboxChoice::Nested), SandboxLevel::Nested);
            assert_eq!(of(SandboxChoice::Host), SandboxLevel::Host);
        }
    }

    #[test]
    fn some_runs_of_the_suite_look_again_once_a_test_has_failed() {
        let suite: Vec<AttemptSpec> = (0..400)
            .map(|index| AttemptSpec {
                index,
                ..AttemptSpec::plain(Scope::Suite, Selection::All, Order::Given)
            })
            .collect();
        let failed = TestId::from("t.py::failed");
        let in_containers = |sandbox, suspects: &BTreeSet<&TestId>| {
            let question = question(sandbox);
            let levels = suite
                .iter()
                .map(|attempt| level(&question, suspects, JobKey::new(JobPhase::Screen, 0), attempt));
            levels.filter(|level| *level == SandboxLevel::Container).count()
        };
        assert_eq!(in_containers(SandboxChoice::Forked, &BTreeSet::new()), 0);
        let some = in_containers(SandboxChoice::Forked, &BTreeSet::from([&failed]));
        assert!((60..140).contains(&some), "{some} of 400");
        let some = in_containers(SandboxChoice::Auto, &BTreeSet::new());
        assert!((25..80).contains(&some), "{some} of 400");
    }

    #[test]
    fn every_planned_attempt_gets_the_level_that_was_chosen() {
        let job = PlannedJob { key: JobKey::new(JobPhase::Alone, 0), attempts: vec![alone("a"), alone("b")] };
        let plan = Plan {
            jobs: vec![job],
            remaining: Estimate::default(),
            state: Planning::Working,
            limited: false,
        };
        let assigned = assign(&question(SandboxChoice::Nested), &Ledger::new(Vec::new()), plan);
        assert!(assigned.jobs[0].attempts.iter().all(|attempt| attempt.level == SandboxLevel::Nested));
    }
}
