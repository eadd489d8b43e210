//! What several tests share and no test is to blame for: the tear-down of a fixture, which frameworks call an error
//! of whichever test comes last, and a file that can be collected in some attempts only. Each is seen to fail where
//! it was said to, and to pass where tests that use it ran without a word of it.

use super::{AttemptFacts, Condition, Ledger, Observation, Seen, SeenFailure};
use crate::experiment::job_key::JobKey;
use flakefarm_shared::signature::signature;
use flakefarm_shared::{Failure, FailureKind, Phase, Remark, TestId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What several tests share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The tear-down of a fixture.
    Fixture {
        /// `class`, `module`, `package`, `session`.
        scope: String,
        /// The tests that its failures were put down to.
        last: BTreeSet<TestId>,
    },
    /// The collection of a file.
    File {
        /// The file.
        path: String,
    },
}

/// One such thing, with what it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// What it is called beside the tests: no test has this id.
    pub id: TestId,
    /// What it is.
    pub subject: Subject,
    observations: Vec<Observation>,
}

type Failures = BTreeMap<(JobKey, u32), Observation>;

impl Ledger {
    /// What is shared and has failed, sorted by id.
    pub fn shared(&self) -> Vec<Shared> {
        let mut found: BTreeMap<TestId, (Subject, Failures)> = BTreeMap::new();
        for attempt in self.each_ended() {
            for (id, subject, failure) in failures_of(attempt) {
                let (known, failures) = found.entry(id).or_insert_with(|| (subject.clone(), Failures::new()));
                if let (Subject::Fixture { last, .. }, Subject::Fixture { last: more, .. }) = (known, subject)
                {
                    last.extend(more);
                }
                let seen = Seen::Fail(Box::new(SeenFailure { failure, output: None }));
                let at = (attempt.key, attempt.index);
                failures.entry(at).or_insert_with(|| observation(attempt, seen));
            }
        }
        let shared = found.into_iter().map(|(id, (subject, failures))| {
            let observations = self.with_passes(&subject, failures);
            Shared { id, subject, observations }
        });
        // A file that never was collected is said to be missing.
        let speaks = |shared: &Shared| match shared.subject {
            Subject::Fixture { .. } => true,
            Subject::File { .. } => shared.observations.iter().any(|o| matches!(o.seen, Seen::Pass)),
        };
        shared.filter(speaks).collect()
    }

    /// A ledger in which each of `shared` is one test more, not listed.
    pub fn with_shared(&self, shared: &[Shared]) -> Self {
        let mut ledger = self.clone();
        for each in shared {
            ledger.unlisted.insert(each.id.clone(), each.observations.clone());
        }
        ledger
    }

    /// The failures, and a pass in each other attempt that ran a test which uses it.
    fn with_passes(&self, subject: &Subject, mut failures: Failures) -> Vec<Observation> {
        let users: Vec<&TestId> = match subject {
            Subject::Fixture { last, .. } => last.iter().collect(),
            Subject::File { path } => {
                let all = self.tests.iter().chain(self.unlisted.keys());
                all.filter(|test| self.file_of(test) == path).collect()
            }
        };
        for seen in users.into_iter().flat_map(|test| self.observations(test)) {
            if !matches!(seen.seen, Seen::Skip) {
                let pass = || Observation { seen: Seen::Pass, aside: None, ..seen.clone() };
                failures.entry((seen.key, seen.index)).or_insert_with(pass);
            }
        }
        failures.into_values().collect()
    }

    /// Attempts that ended, by job and place.
    pub(super) fn each_ended(&self) -> impl Iterator<Item = &Arc<AttemptFacts>> {
        self.jobs.values().flat_map(|entry| &entry.records)
    }
}

fn failures_of(record: &AttemptFacts) -> impl Iterator<Item = (TestId, Subject, Failure)> {
    let torn_down = record.remarks.iter().filter_map(|remark| match remark {
        Remark::TearDown { fixture, scope, home, last, failure } => {
            let id = TestId(format!("{home}::{fixture} (tear-down)"));
            let last = BTreeSet::from([last.clone()]);
            Some((id, Subject::Fixture { scope: scope.clone(), last }, failure.clone()))
        }
        Remark::Tampering { .. }
        | Remark::AbnormalEnd { .. }
        | Remark::Reordered
        | Remark::SharedIds { .. }
        | Remark::Unknown => None,
    });
    let collected = record.collection_errors.iter().map(|error| {
        let (kind, phase) = (FailureKind::Framework, Phase::Setup);
        let last = error.message.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let message = last.trim_start_matches("E ").trim().to_owned();
        let failure = Failure {
            signature: signature(&kind, phase, &[], &[], &message),
            kind,
            phase,
            exceptions: Vec::new(),
            message,
            frames: Vec::new(),
            circumstances: Vec::new(),
        };
        let id = TestId(format!("{} (collection)", error.path));
        (id, Subject::File { path: error.path.clone() }, failure)
    });
    torn_down.chain(collected)
}

fn observation(attempt: &Arc<AttemptFacts>, seen: Seen) -> Observation {
    Observation { attempt: Arc::clone(attempt), seen, wall_us: 0, cpu_us: 0, position: 0, aside: None }
}

/// Runs and failures of one of them, with nothing changed around the tests.
impl Shared {
    /// Plain attempts in which it failed, and all of them.
    pub fn failed(&self) -> (usize, usize) {
        let plain = || self.observations.iter().filter(|o| o.condition().is_plain());
        (plain().filter(|o| matches!(o.seen, Seen::Fail(_))).count(), plain().count())
    }
}

impl Condition {
    fn is_plain(self) -> bool {
        Condition::PLAIN.contains(&self)
    }
}
