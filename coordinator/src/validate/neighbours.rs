//! Tests beside those that are to be mended: none that passes without the patch may fail with it.

use crate::experiment::{
    Arm, Attempt, Company, Counts, JobKey, Ledger, Observation, Question, ScopeChoice, Seen, Standing,
    TestFilter, ValidateRequest,
};
use crate::score::{Comparison, Decision, Direction};
use flakefarm_shared::{AttemptEnd, Order, Scope, Source, TestId, Treatment, World};
use std::collections::BTreeSet;
use std::num::NonZeroU32;

/// Runs of all neighbours with the patch and without it, once one of them is suspected.
const LOOKS: u32 = 8;
/// Suspects that are told apart.
const MOST_SUSPECTS: usize = 100;
/// Attempts with the patch in which nothing ran, after which nothing will.
const IN_VAIN: u32 = 3;

/// How the neighbours stand.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Neighbours<'a> {
    /// Tests that passed without the patch and fail with it, with what both arms showed.
    pub(super) red: Vec<(&'a TestId, Counts, Counts)>,
    /// Tests that did so and were not told from chance.
    pub(super) suspects: Vec<(&'a TestId, Counts, Counts)>,
    /// Tests that passed without the patch and are not there with it.
    pub(super) gone: Vec<&'a TestId>,
    /// Whether nothing runs with the patch although something does without it.
    pub(super) nothing_runs: bool,
    /// Tests that passed on both sides.
    pub(super) passed: usize,
    /// Runs that are wanted of each side.
    pub(super) wanted: u32,
}

/// What neighbours run in; none where they are not asked.
pub(super) fn company(question: &Question) -> Option<Company> {
    match question.scope {
        ScopeChoice::Test => None,
        ScopeChoice::File | ScopeChoice::Suite | ScopeChoice::Auto => {
            Some(Company::Suite(question.order.unwrap_or(Order::Given)))
        }
    }
}

/// Both arms of the neighbours.
pub(super) fn arms(question: &Question, request: &ValidateRequest) -> Option<[Arm; 2]> {
    let company = company(question)?;
    let arm = |source| Arm { company: company.clone(), treatment: Treatment { world: World::Plain, source } };
    Some([arm(Source::Submitted), arm(Source::Snapshot(request.patched.clone()))])
}

/// Attempts of an arm of the suite that are missing for `runs` of them to have run.
pub(super) fn missing(ledger: &Ledger, arm: &Arm, runs: u32) -> u32 {
    let side = Side::read(ledger, arm);
    if side.in_vain >= IN_VAIN + side.ran { 0 } else { runs.saturating_sub(side.ran) }
}

/// Reads off the ledger how they stand; `targets` are none of them.
pub(super) fn read<'a>(
    question: &Question,
    request: &ValidateRequest,
    ledger: &'a Ledger,
    targets: &[TestId],
) -> Neighbours<'a> {
    let mut found = Neighbours {
        red: Vec::new(),
        suspects: Vec::new(),
        gone: Vec::new(),
        nothing_runs: false,
        passed: 0,
        wanted: 0,
    };
    let Some([before, after]) = arms(question, request) else { return found };
    let sides = [Side::read(ledger, &before), Side::read(ledger, &after)];
    found.wanted = 1;
    if sides[0].ran > 0 && sides[1].ran == 0 && sides[1].in_vain >= IN_VAIN {
        found.nothing_runs = true;
        found.wanted = 0;
        return found;
    }
    let targets: BTreeSet<&TestId> = targets.iter().collect();
    let mut suspects = Vec::new();
    for test in ledger.tests().iter().filter(|test| !targets.contains(test)) {
        let [old, new] = [sides[0].counts(ledger, test), sides[1].counts(ledger, test)];
        match (old, new) {
            (old, new) if old.attempts == 0 || old.failures > 0 && new.failures == 0 => {}
            (_, new) if new.attempts == 0 && sides[1].ran > 0 && !sides[1].skips(ledger, test) => {
                found.gone.push(test);
            }
            (old, new) if old.failures == 0 && new.failures > 0 => suspects.push((test, old, new)),
            // What fails now and then without the patch is told apart like a suspect, once it is one.
            (_, new) if new.failures > 0 => {
                let more = f64::from(new.failures) / f64::from(new.attempts)
                    > f64::from(old.failures) / f64::from(old.attempts);
                if more {
                    suspects.push((test, old, new))
                }
            }
            (_, _) => found.passed += 1,
        }
    }
    suspects.truncate(MOST_SUSPECTS);
    let Some(arms) = u32::try_from(suspects.len()).ok().and_then(NonZeroU32::new) else { return found };
    let comparison = Comparison::new(question.confidence, arms);
    for (test, old, new) in suspects {
        let red = match comparison.judge(old, new) {
            Decision::Differs(difference) => difference.direction == Some(Direction::MoreFailures),
            Decision::Same(_) | Decision::Open(_) => false,
        };
        if red { found.red.push((test, old, new)) } else { found.suspects.push((test, old, new)) }
    }
    if found.red.is_empty() && !found.suspects.is_empty() {
        found.wanted = LOOKS;
    }
    found
}

/// One arm, as far as all tests are concerned.
struct Side {
    attempts: BTreeSet<(JobKey, u32)>,
    ran: u32,
    in_vain: u32,
}

impl Side {
    fn read(ledger: &Ledger, arm: &Arm) -> Self {
        let mut side = Self { attempts: BTreeSet::new(), ran: 0, in_vain: 0 };
        for attempt in ledger.each_attempt().filter(|attempt| is_of(attempt, arm)) {
            match attempt.standing {
                Standing::Outstanding => {}
                Standing::Lost => side.in_vain += 1,
                Standing::Ended(record) => match record.end {
                    AttemptEnd::Completed | AttemptEnd::Interrupted { .. } => {
                        side.ran += 1;
                        side.attempts.insert((attempt.key, attempt.index));
                    }
                    AttemptEnd::NothingRan { .. } | AttemptEnd::Infrastructure(_) => side.in_vain += 1,
                },
            }
        }
        side
    }

    fn seen<'l>(&self, ledger: &'l Ledger, test: &TestId) -> impl Iterator<Item = &'l Seen> {
        let own = |o: &&'l Observation| self.attempts.contains(&(o.key, o.index));
        ledger.observations(test).iter().filter(own).map(|o| &o.seen).collect::<Vec<_>>().into_iter()
    }

    fn counts(&self, ledger: &Ledger, test: &TestId) -> Counts {
        self.seen(ledger, test).fold(Counts::default(), |sum, seen| match seen {
            Seen::Pass => Counts::new(sum.failures, sum.attempts + 1),
            Seen::Fail(_) => Counts::new(sum.failures + 1, sum.attempts + 1),
            Seen::Skip => sum,
        })
    }

    fn skips(&self, ledger: &Ledger, test: &TestId) -> bool {
        self.seen(ledger, test).any(|seen| matches!(seen, Seen::Skip))
    }
}

fn is_of(attempt: &Attempt<'_>, arm: &Arm) -> bool {
    attempt.spec.is_some_and(|spec| {
        spec.scope == Scope::Suite
            && Company::Suite(spec.order) == arm.company
            && spec.treatment == arm.treatment
    })
}

/// The tests that are to be mended: those that were named; where none is, those that were seen to fail as
/// submitted.
pub(super) fn targets(question: &Question, tests: &TestFilter, ledger: &Ledger) -> Vec<TestId> {
    let targets = question.targets(ledger.tests());
    if !tests.is_everything() {
        return targets;
    }
    let failed = |test: &TestId| {
        let mut submitted = ledger.observations(test).iter().filter(|o| o.treatment.other_source().is_none());
        submitted.any(|o| matches!(o.seen, Seen::Fail(_)))
    };
    targets.into_iter().filter(failed).collect()
}

/// Runs of the suite as submitted that show which tests fail, where none was named.
pub(super) fn first_looks(question: &Question, seed: u64) -> Vec<(Arm, u32)> {
    let shuffled = Order::Shuffled { seed };
    let orders: Vec<Order> = match question.order {
        Some(order) => vec![order],
        None => vec![Order::Given, Order::Reversed, shuffled],
    };
    let orders = orders.into_iter().filter(|order| question.able.can_order(*order));
    orders.map(|order| (Arm::suite(order, World::Plain), 2)).collect()
}
