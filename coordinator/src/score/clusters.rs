//! Tests that fail together in the same attempts: one cause rather than many.
//!
//! Two tests belong together if their failures are alike over the attempts that ran both: Jaccard
//! similarity of the attempts in which each failed at [`SIMILARITY`] or more. Nothing is joined on
//! too little evidence: they must have failed together in at least [`TOGETHER`] attempts, and chance
//! must not explain it (Fisher's exact test on who failed where, [`CHANCE`]). A cluster is a set of
//! tests of which every two belong together.

use super::category::{Count, chance_of_difference};
use crate::experiment::{JobKey, Ledger, Seen, WorldsSeen};
use flakefarm_shared::{Scope, TestId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Least Jaccard similarity of two tests' failures.
pub const SIMILARITY: f64 = 0.8;
/// Fewest attempts in which two tests failed together.
pub const TOGETHER: u32 = 2;
/// Chance from which on failing together is not taken for more.
pub const CHANCE: f64 = 0.02;
/// Tests that are compared with one another.
const MOST_TESTS: usize = 2_000;

/// Tests that fail together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The tests, in listing order.
    pub tests: Vec<TestId>,
    /// Attempts that ran all of them and in which all of them failed.
    pub together: u32,
    /// Attempts that ran all of them.
    pub attempts: u32,
}

/// Where one test failed, over attempts that run more than one test.
struct Vector<'a> {
    test: &'a TestId,
    /// Whether it failed, by attempt.
    failed: BTreeMap<(JobKey, u32), bool>,
}

/// Clusters of two and more among `unwell`, the largest first.
pub fn clusters(ledger: &Ledger, worlds: &WorldsSeen, unwell: &[&TestId]) -> Vec<Cluster> {
    let vectors: Vec<Vector<'_>> = unwell
        .iter()
        .take(MOST_TESTS)
        .map(|test| vector(ledger, worlds, test))
        .filter(|vector| vector.failed.values().any(|failed| *failed))
        .collect();
    let mut groups: Vec<Vec<&Vector<'_>>> = Vec::new();
    for vector in &vectors {
        let belongs = |group: &&mut Vec<&Vector<'_>>| group.iter().all(|other| alike(vector, other));
        match groups.iter_mut().find(belongs) {
            Some(group) => group.push(vector),
            None => groups.push(vec![vector]),
        }
    }
    let mut clusters: Vec<Cluster> =
        groups.iter().filter(|group| group.len() > 1).map(|group| cluster(group)).collect();
    // A stable sort: those of one size stay in listing order.
    clusters.sort_by_key(|cluster| std::cmp::Reverse(cluster.tests.len()));
    clusters
}

fn vector<'a>(ledger: &'a Ledger, worlds: &WorldsSeen, test: &'a TestId) -> Vector<'a> {
    let among_others = ledger
        .observations(test)
        .iter()
        .filter(|o| matches!(o.scope, Scope::Suite | Scope::File) && worlds.speaks(&o.treatment));
    let failed = among_others
        .filter_map(|o| match o.seen {
            Seen::Pass => Some(((o.key, o.index), false)),
            Seen::Fail(_) => Some(((o.key, o.index), true)),
            Seen::Skip => None,
        })
        .collect();
    Vector { test, failed }
}

fn alike(one: &Vector<'_>, other: &Vector<'_>) -> bool {
    let (mut both, mut only_one, mut only_other, mut neither) = (0_u32, 0_u32, 0_u32, 0_u32);
    for (attempt, failed) in &one.failed {
        match (failed, other.failed.get(attempt)) {
            (_, None) => {}
            (true, Some(true)) => both += 1,
            (true, Some(false)) => only_one += 1,
            (false, Some(true)) => only_other += 1,
            (false, Some(false)) => neither += 1,
        }
    }
    if both < TOGETHER {
        return false;
    }
    let similarity = f64::from(both) / f64::from(both + only_one + only_other);
    // How often the other fails where the one does, against where it does not.
    let where_failing = Count { attempts: both + only_one, failures: both };
    let where_passing = Count { attempts: only_other + neither, failures: only_other };
    similarity >= SIMILARITY && chance_of_difference(where_failing, where_passing) < CHANCE
}

fn cluster(group: &[&Vector<'_>]) -> Cluster {
    let (first, others) = group.split_first().expect("a group has members");
    let (mut together, mut attempts) = (0, 0);
    for (attempt, failed) in &first.failed {
        let seen: Option<Vec<bool>> = others.iter().map(|other| other.failed.get(attempt).copied()).collect();
        if let Some(seen) = seen {
            attempts += 1;
            together += u32::from(*failed && seen.iter().all(|failed| *failed));
        }
    }
    Cluster { tests: group.iter().map(|vector| vector.test.clone()).collect(), together, attempts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::JobPhase;
    use flakefarm_shared::{
        AttemptRecord, AttemptSpec, Failure, FailureKind, JobId, JobReport, Order, Outcome, Phase, Sample,
        Selection, WIRE_VERSION, WorkerId,
    };

    /// A letter per suite attempt and test: `p`asses, `f`ails, `-` is not seen.
    fn ledger(tests: &[(&str, &str)]) -> Ledger {
        let mut ledger = Ledger::new(tests.iter().map(|(name, _)| TestId::from(*name)).collect());
        let attempts = tests[0].1.len();
        let spec =
            |index| AttemptSpec { index, ..AttemptSpec::plain(Scope::Suite, Selection::All, Order::Given) };
        let indexes: Vec<u32> = (0..u32::try_from(attempts).unwrap()).collect();
        let key = JobKey::new(JobPhase::More, 0);
        ledger.note_planned(key, &indexes.iter().map(|index| spec(*index)).collect::<Vec<_>>());
        let records = indexes.iter().map(|index| AttemptRecord {
            wall_us: 1_000,
            samples: tests
                .iter()
                .filter_map(|(name, letters)| {
                    let outcome = match letters.as_bytes()[*index as usize] {
                        b'p' => Outcome::Pass,
                        b'f' => Outcome::Fail(Failure {
                            kind: FailureKind::Assertion,
                            phase: Phase::Call,
                            exceptions: Vec::new(),
                            message: String::new(),
                            frames: Vec::new(),
                            circumstances: Vec::new(),
                            signature: "s".into(),
                        }),
                        _ => return None,
                    };
                    Some(Sample {
                        test: TestId::from(*name),
                        outcome,
                        wall_us: 1,
                        cpu_us: 1,
                        phases: None,
                        position: 0,
                        output: None,
                        warnings: Vec::new(),
                        expected_failure: None,
                    })
                })
                .collect(),
            ..AttemptRecord::completed(&spec(*index), WorkerId("w".into()))
        });
        let report = JobReport {
            v: WIRE_VERSION,
            job: JobId(uuid::Uuid::nil()),
            listing: None,
            attempts: records.collect(),
        };
        ledger.note_report(key, &report);
        ledger
    }

    #[track_caller]
    fn check(tests: &[(&str, &str)], expect: &[(&[&str], u32, u32)]) {
        let ledger = ledger(tests);
        let unwell: Vec<&TestId> = ledger.tests().iter().collect();
        let found = clusters(&ledger, &WorldsSeen::read(&ledger), &unwell);
        let found: Vec<(Vec<&str>, u32, u32)> = found
            .iter()
            .map(|cluster| {
                let tests = cluster.tests.iter().map(|test| test.as_str()).collect();
                (tests, cluster.together, cluster.attempts)
            })
            .collect();
        let expect: Vec<_> = expect.iter().map(|(tests, k, n)| (tests.to_vec(), *k, *n)).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn tests_that_fail_in_the_same_attempts_are_one_cause() {
        check(
            &[
                ("a", "fppfppfppppp"),
                ("b", "fppfppfppppp"),
                ("c", "ppfppfpppppp"),
                ("d", "ppfppfpppppp"),
                ("e", "fppfppfppppp"),
            ],
            &[(&["a", "b", "e"], 3, 12), (&["c", "d"], 2, 12)],
        );
        // One attempt that did not run one of them says nothing of the two together.
        check(
            &[("a", "fpfppfpppppppp"), ("b", "fpfpp-pppppppp"), ("c", "pppppppppfpppp")],
            &[(&["a", "b"], 2, 13)],
        );
    }

    #[test]
    fn too_little_evidence_joins_nothing() {
        // Once together; always; as often apart as together; together as chance has it.
        check(&[("a", "fppppppppp"), ("b", "fppppppppp")], &[]);
        check(&[("a", "ffffffffff"), ("b", "ffffffffff")], &[]);
        check(&[("a", "fffppppppp"), ("b", "ppfffppppp")], &[]);
        check(&[("a", "ffpp"), ("b", "ffpp")], &[]);
    }

    #[test]
    fn every_two_tests_of_a_cluster_belong_together() {
        // `b` is like `a` and like `c`, but `a` is not like `c`.
        check(
            &[("a", "fffffppppppppp"), ("b", "ffffffpppppppp"), ("c", "pffffffppppppp")],
            &[(&["a", "b"], 5, 14)],
        );
    }
}
