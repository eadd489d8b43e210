//! What is known of why a test is flaky: the category, how sure it is, what speaks for it, and the
//! experiment as reports show it.

use super::compare::{Comparing, Judgement};
use super::experiment::{
    ArmRole, Experiment, ExperimentArm, OrderCount, OrderExperiment, Side, StateDifference,
};
use super::investigate::{Explanation, investigate};
use super::order::{Effect, OrderFinding};
use crate::conditions::{self, ByHand};
use crate::experiment::{
    Arm, AttemptFacts, CauseCategory, Company, Counts, FailingIn, Ledger, Question, Seen, Tally, Trial,
    Trials,
};
use crate::score::interval::upper_bound_after_clean_runs;
use flakefarm_shared::{Order, TestDetail, TestId, WorkerId, World};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// Kinds of state that tests change all the time without harm.
const USUAL: [&str; 3] = [RANDOM_STATE, "imported module", "import path"];
/// How the plugin names generators of random numbers that were drawn from, or seeded.
const RANDOM_STATE: &str = "random state";
/// How the plugin names what a test did, beside what it changed.
const ACTIVITY: &str = "activity";
/// Tests that a command names one by one; more go into a file.
const NAMED_TESTS: usize = 12;

/// What is known of why a test is flaky.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnosis {
    /// The category.
    pub category: CauseCategory,
    /// 0 to 1.
    pub confidence: f64,
    /// A sentence each.
    pub evidence: Vec<String>,
    /// What was tried.
    pub experiment: Experiment,
    /// How to see it fail without flakefarm.
    pub reproduction: Option<Reproduction>,
}

/// The least that shows a test fail.
#[derive(Debug, Clone, PartialEq)]
pub struct Reproduction {
    /// These tests, in this order.
    pub tests: Vec<TestId>,
    /// In this world.
    pub world: World,
}

impl Reproduction {
    /// As a command, given the one that runs the project's tests, and the lines of the file it names
    /// if there are too many tests to name them.
    pub fn command(&self, pytest: &str, quote: impl Fn(&str) -> String) -> (String, Vec<String>) {
        let names: Vec<String> = self.tests.iter().map(|test| test.0.clone()).collect();
        let (arguments, file) = if names.len() > NAMED_TESTS {
            ("@order.txt".to_owned(), names)
        } else {
            (names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(" "), Vec::new())
        };
        let plain = format!("{pytest} {arguments}");
        let command = match conditions::about(self.world).by_hand {
            _ if self.world.is_plain() => plain,
            by_hand @ (ByHand::Command { .. } | ByHand::Script(_)) => by_hand
                .command(&plain)
                .unwrap_or_else(|| format!("{plain}   # {}", conditions::about(self.world).name)),
            ByHand::Advice(advice) => format!("{plain}   # {advice}"),
        };
        (command, file)
    }
}

/// What the ledger says of why `test` is flaky.
pub fn judge(question: &Question, ledger: &Ledger, test: &TestId) -> Diagnosis {
    let trials = Trials::read(ledger, test);
    let explanation = investigate(question, ledger, &trials).explanation;
    let sides = explanation.as_ref().map(Explanation::sides);
    let arms = arms(&trials, sides.as_ref());
    let reproduction = sides.as_ref().map(|(failing, _)| reproduction(failing, test));
    let mut experiment = Experiment {
        arms,
        order: None,
        state: Vec::new(),
        activity: Vec::new(),
        failing: sides.as_ref().and_then(|(failing, _)| side(&trials, failing, Showing::Failure)),
        passing: sides.as_ref().and_then(|(_, passing)| side(&trials, passing, Showing::Pass)),
        failing_in: sides.as_ref().map(|(failing, _)| FailingIn {
            company: failing.company.clone(),
            world: failing.treatment.world,
        }),
        by_hand: None,
        order_file: Vec::new(),
    };
    if let Some((failing, _)) = &sides {
        experiment.activity = activity(&trials, failing);
    }
    match explanation {
        Some(Explanation::Order(finding)) => {
            experiment.state = changes(&trials, &finding.with, &finding.groups);
            experiment.order = Some(order_experiment(&trials, &finding));
            let mut evidence = order_evidence(&trials, &finding);
            let category = match finding.effect {
                _ if is_random(&experiment.state) => CauseCategory::Randomness,
                Effect::Fails => CauseCategory::OrderVictim,
                Effect::Passes => CauseCategory::OrderBrittle,
            };
            if category == CauseCategory::Randomness {
                evidence.push(
                    "all that the tests before leave is the state of a random generator: which numbers come next \
                     decides"
                        .to_owned(),
                );
            }
            Diagnosis { category, confidence: finding.confidence, evidence, experiment, reproduction }
        }
        Some(Explanation::Condition { category, passing, failing, confidence }) => {
            if category == CauseCategory::NotIdempotent {
                experiment.state = changes(&trials, &Arm::alone(World::Twice), &[vec![test.clone()]]);
            }
            let mut evidence = vec![format!("{}, {}", said(&trials, &failing), said(&trials, &passing))];
            if confidence < question.confidence.get() {
                evidence.push("likely, and less sure than was asked for".to_owned());
            }
            evidence.extend(experiment.activity.first().map(|_| did(&experiment.activity)));
            Diagnosis { category, confidence, evidence, experiment, reproduction }
        }
        None => unexplained(question, &trials, experiment),
    }
}

fn unexplained(question: &Question, trials: &Trials<'_>, experiment: Experiment) -> Diagnosis {
    let all = trials.sum(|_| true);
    let alone = trials.tally(&Arm::PLAIN);
    let conditions = trials.arms().filter(|(_, tally)| tally.attempts() > 0).count();
    let sure = format!("{:.0} %", question.confidence.get() * 100.0);
    let mut evidence = Vec::new();
    let mut category = CauseCategory::Unknown;
    let mut confidence = 0.0;
    match (all.passes, all.failures) {
        (0, 0) if all.skips > 0 => evidence.push("it was skipped every time".to_owned()),
        (0, 0) => evidence.push("it never ran".to_owned()),
        (_, 0) => {
            let bound = upper_bound_after_clean_runs(alone.attempts(), question.confidence) * 100.0;
            evidence.push(format!(
                "could not be reproduced: it never failed, in {} attempts under {conditions} conditions",
                all.attempts()
            ));
            evidence.push(format!(
                "if it fails alone with nothing changed, then less than {bound:.0} % of the time ({sure})"
            ));
        }
        (0, _) => evidence.push(format!(
            "it failed in all of {} attempts, and none of {conditions} conditions makes it pass: broken, \
             as far as this shows",
            all.attempts()
        )),
        (_, _) => {
            evidence.push(format!(
                "it {} alone with nothing changed, and none of {conditions} conditions explains it",
                failed(alone)
            ));
            if let Some((worker, sure)) = odd_worker(question, trials) {
                category = CauseCategory::Infrastructure;
                confidence = sure;
                evidence.push(format!("it fails on worker {worker} and not elsewhere"));
            }
        }
    }
    let unavailable: Vec<String> =
        trials.arms().filter(|(_, tally)| tally.is_given_up()).map(|(arm, _)| words(arm)).collect();
    if !unavailable.is_empty() {
        evidence.push(format!("gave no outcome, so says nothing: {}", unavailable.join(", ")));
    }
    Diagnosis { category, confidence, evidence, experiment, reproduction: None }
}

/// A worker on which the test fails more often than on the others, nothing changed.
fn odd_worker(question: &Question, trials: &Trials<'_>) -> Option<(WorkerId, f64)> {
    let mut by_worker: BTreeMap<&WorkerId, Counts> = BTreeMap::new();
    for trial in trials.of_arm(&Arm::PLAIN) {
        let counts = by_worker.entry(&trial.observation.worker).or_default();
        match trial.observation.seen {
            Seen::Pass => counts.attempts += 1,
            Seen::Fail(_) => {
                counts.attempts += 1;
                counts.failures += 1;
            }
            Seen::Skip => {}
        }
    }
    let workers = NonZeroU32::new(u32::try_from(by_worker.len()).ok()?)?;
    let comparison = Comparing::new(question.confidence, workers);
    let total = by_worker.values().fold(Counts::default(), |sum, c| Counts {
        attempts: sum.attempts + c.attempts,
        failures: sum.failures + c.failures,
    });
    by_worker.iter().find_map(|(worker, counts)| {
        let rest =
            Counts { attempts: total.attempts - counts.attempts, failures: total.failures - counts.failures };
        match comparison.judge(rest, *counts) {
            Judgement::Different { confidence } if counts.rate() > rest.rate() => {
                Some(((*worker).clone(), confidence))
            }
            Judgement::Different { .. } | Judgement::Open { .. } => None,
        }
    })
}

/// The condition of an arm, in words.
pub(super) fn words(arm: &Arm) -> String {
    let company = match &arm.company {
        Company::Alone => "alone".to_owned(),
        Company::File(_) => "its file".to_owned(),
        Company::Suite(Order::Given) => "suite, given order".to_owned(),
        Company::Suite(Order::Reversed) => "suite, reversed".to_owned(),
        Company::Suite(Order::Shuffled { seed }) => format!("suite, shuffled by {seed}"),
        Company::Suite(Order::AsListed) => "suite, chosen order".to_owned(),
        Company::Listed(tests) => match tests.len() {
            2 => "with 1 other test".to_owned(),
            many => format!("with {} other tests", many - 1),
        },
    };
    if arm.treatment.world.is_plain() {
        company
    } else {
        format!("{company}, {}", conditions::about(arm.treatment.world).name)
    }
}

fn failed(tally: Tally) -> String {
    format!("failed {} of {}", tally.failures, tally.attempts())
}

fn said(trials: &Trials<'_>, arm: &Arm) -> String {
    format!("{} {}", failed(trials.tally(arm)), words(arm))
}

fn arms(trials: &Trials<'_>, sides: Option<&(Arm, Arm)>) -> Vec<ExperimentArm> {
    let role = |arm: &Arm, tally: Tally| {
        if *arm == Arm::PLAIN {
            ArmRole::Baseline
        } else if sides.is_some_and(|(failing, passing)| arm == failing || arm == passing) {
            ArmRole::Explains
        } else if tally.attempts() == 0 {
            ArmRole::Unavailable
        } else {
            ArmRole::Tried
        }
    };
    // Probes of a search are told by what it found.
    let told = trials.arms().filter(|(arm, tally)| match arm.company {
        Company::Listed(_) => role(arm, *tally) == ArmRole::Explains,
        Company::Alone | Company::File(_) | Company::Suite(_) => tally.outstanding == 0,
    });
    let mut arms: Vec<ExperimentArm> = told
        .map(|(arm, tally)| ExperimentArm {
            condition: words(arm),
            changed: match arm.company {
                Company::Alone if !arm.treatment.world.is_plain() => {
                    conditions::about(arm.treatment.world).name
                }
                Company::Alone | Company::File(_) | Company::Suite(_) | Company::Listed(_) => String::new(),
            },
            role: role(arm, tally),
            attempts: u64::from(tally.attempts()),
            failures: u64::from(tally.failures),
        })
        .collect();
    arms.sort_by_key(|arm| match arm.role {
        ArmRole::Baseline => 0,
        ArmRole::Explains => 1,
        ArmRole::Tried => 2,
        ArmRole::Unavailable => 3,
    });
    arms
}

fn reproduction(failing: &Arm, test: &TestId) -> Reproduction {
    let alone = vec![test.clone()];
    let world = failing.treatment.world;
    match &failing.company {
        Company::Alone => Reproduction { tests: alone, world },
        Company::Listed(tests) => {
            let last = tests.iter().position(|other| other == test).unwrap_or_default();
            // What runs after the test is only there to be imported.
            let tests = if last + 1 == tests.len() { tests.clone() } else { tests[..=last].to_vec() };
            Reproduction { tests, world }
        }
        Company::File(_) | Company::Suite(_) => Reproduction { tests: Vec::new(), world },
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Showing {
    Failure,
    Pass,
}

fn side(trials: &Trials<'_>, arm: &Arm, showing: Showing) -> Option<Side> {
    let shows = |trial: &Trial<'_>| match trial.observation.seen {
        Seen::Pass => showing == Showing::Pass,
        Seen::Fail(_) => showing == Showing::Failure,
        Seen::Skip => false,
    };
    let trial = trials.of_arm(arm).into_iter().find(shows)?;
    let (message, own) = match &trial.observation.seen {
        Seen::Fail(seen) => (seen.failure.message.clone(), seen.output.as_ref()),
        Seen::Pass | Seen::Skip => (String::new(), None),
    };
    let output = match trial.detail(trials.test) {
        Some(detail) => detail.output.as_ref(),
        None => own,
    };
    Some(Side { condition: words(arm), message, output: output.map(ToString::to_string) })
}

/// What the tests of the first group changed, told once, as far as it may matter to the test.
fn changes(trials: &Trials<'_>, arm: &Arm, groups: &[Vec<TestId>]) -> Vec<StateDifference> {
    let Some(trial) = trials.of_arm(arm).into_iter().find(|trial| !trial.record.details.is_empty()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for test in groups.first().into_iter().flatten() {
        let Some(detail) = trial.detail(test) else { continue };
        for change in detail.changes.iter().filter(|change| change.kind != ACTIVITY) {
            found.push(StateDifference {
                test: test.0.clone(),
                kind: change.kind.clone(),
                name: change.name.clone(),
                before: change.before.clone(),
                after: change.after.clone(),
            });
        }
    }
    // What changes under every test (a plugin sets it each time, say) tells nothing of these.
    keep(&mut found, |change| !changes_always(trial.record, change));
    keep(&mut found, |change| !USUAL.contains(&change.kind.as_str()));
    keep(&mut found, |change| !is_private(trials.ledger, change, trials.test));
    found
}

/// Keeps what is `telling`, unless nothing is.
fn keep(found: &mut Vec<StateDifference>, telling: impl Fn(&StateDifference) -> bool) {
    if found.iter().any(&telling) {
        found.retain(telling);
    }
}

/// Whether every test of an attempt on several changed the same thing.
fn changes_always(record: &AttemptFacts, change: &StateDifference) -> bool {
    let does = |detail: &TestDetail| {
        detail.changes.iter().any(|other| other.kind == change.kind && other.name == change.name)
    };
    record.details.len() > 1 && record.details.iter().all(does)
}

/// Whether it is a variable of the module of another test's file, which `test` does not see.
fn is_private(ledger: &Ledger, change: &StateDifference, test: &TestId) -> bool {
    let file = |id: &str| ledger.file_of(&TestId::from(id)).to_owned();
    let own = file(&change.test);
    let module = own.rsplit('/').next().and_then(|name| name.strip_suffix(".py")).unwrap_or_default();
    change.kind == "module global"
        && own != file(test.as_str())
        && !module.is_empty()
        && change.name.split('.').rev().skip(1).any(|part| part == module)
}

/// Whether all that is left of the tests before is where the random numbers are.
fn is_random(changes: &[StateDifference]) -> bool {
    !changes.is_empty() && changes.iter().all(|change| change.kind == RANDOM_STATE)
}

fn activity(trials: &Trials<'_>, arm: &Arm) -> Vec<String> {
    let details = trials.of_arm(arm).into_iter().find_map(|trial| trial.detail(trials.test));
    let activities = details.into_iter().flat_map(|detail| &detail.changes).filter(|c| c.kind == ACTIVITY);
    activities.map(|change| format!("{} {}", change.after, change.name)).collect()
}

fn did(activity: &[String]) -> String {
    format!("during it: {}", activity.join(", "))
}

fn count(trials: &Trials<'_>, arm: &Arm) -> OrderCount {
    let tally = trials.tally(arm);
    let others = match &arm.company {
        Company::Listed(tests) => tests.len() as u64 - 1,
        Company::Alone | Company::File(_) | Company::Suite(_) => 0,
    };
    OrderCount { others, attempts: u64::from(tally.attempts()), failures: u64::from(tally.failures) }
}

fn order_experiment(trials: &Trials<'_>, finding: &OrderFinding) -> OrderExperiment {
    let names = |tests: &[TestId]| tests.iter().map(|test| test.0.clone()).collect::<Vec<_>>();
    OrderExperiment {
        effect: match finding.effect {
            Effect::Fails => "fails".to_owned(),
            Effect::Passes => "passes".to_owned(),
        },
        groups: finding.groups.iter().map(|group| names(group)).collect(),
        cleaners: names(&finding.cleaners),
        with: count(trials, &finding.with),
        without: finding.without.as_ref().map(|arm| count(trials, arm)),
        alone: count(trials, &Arm::PLAIN),
    }
}

fn order_evidence(trials: &Trials<'_>, finding: &OrderFinding) -> Vec<String> {
    let mut evidence = Vec::new();
    let (role, verb) = match finding.effect {
        Effect::Fails => ("polluter", "fails after"),
        Effect::Passes => ("state-setter", "passes only after"),
    };
    let named = |group: &Vec<TestId>| group.iter().map(TestId::as_str).collect::<Vec<_>>().join(" and ");
    match finding.groups.as_slice() {
        [] => {}
        [one] => {
            let role = if one.len() > 1 { format!("{role}s together") } else { role.to_owned() };
            evidence.push(format!("{verb} {} ({role})", named(one)));
        }
        // Each is enough by itself: none is necessary.
        several => {
            let names: Vec<String> = several.iter().map(named).collect();
            evidence.push(format!("{verb} any one of: {} ({role}s, each enough)", names.join("; ")));
        }
    }
    let alone = trials.tally(&Arm::PLAIN);
    evidence.push(format!("with it: {}; alone: {}", failed(trials.tally(&finding.with)), failed(alone)));
    if let Some(without) = &finding.without {
        let removed = finding.groups.iter().map(Vec::len).sum::<usize>();
        let removed = if removed == 1 { "it".to_owned() } else { format!("those {removed}") };
        evidence.push(format!(
            "everything else that ran before, without {removed}: {}",
            failed(trials.tally(without))
        ));
    }
    if !finding.cleaners.is_empty() {
        let names: Vec<&str> = finding.cleaners.iter().map(TestId::as_str).collect();
        evidence.push(format!("hidden when {} runs between (cleaner)", names.join(" and ")));
    }
    evidence
}

#[cfg(test)]
mod tests;
