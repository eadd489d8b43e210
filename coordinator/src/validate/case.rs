//! One test and the patch that is to mend it, as far as the ledger knows: in which company it fails, how
//! often without the patch and with it, and what is still missing. The one place where all that is
//! decided, for planning and for judging alike.

use crate::experiment::{
    Arm, Company, Confidence, Counts, FailingIn, Question, Tally, Trials, ValidateRequest, derive_seed,
};
use crate::score::interval::{RateEstimate, clean_runs_for_fix, rate_interval};
use crate::score::{Comparison, Decision, Direction};
use flakefarm_shared::world::HashSeed;
use flakefarm_shared::{Order, Source, Treatment, World};
use std::num::NonZeroU32;

/// Runs of a test without the patch in each company in which it may fail, where that is not known.
const FIRST_LOOKS: u32 = 4;
/// Further rounds of them for a test that has not failed yet.
const LAST_LOOKS: u32 = 20;
/// Runs of both arms before more are made of one than of the other.
const FIRST_RUNS: u32 = 5;
/// Fewest clean runs of a fix, however often the test failed before.
const FEWEST_CLEAN: u32 = 5;
/// Further runs without the patch that are weighed against the clean runs that they save.
const MORE_RUNS: u32 = 10;
/// Runs without the patch, at most.
const MOST_BEFORE: u32 = 150;
/// Clean runs that are asked of a fix at most.
const MOST_CLEAN: u32 = 600;
/// Runs of each arm, at most, once the patched test has failed: whether it fails more seldom now.
const MOST_AFTER_FAILURE: u32 = 40;
/// Rates, as far as they are known, that are taken for one once the patched test has failed.
const ALIKE: f64 = 0.1;
/// Runs of the patched test under each of the looks beside the arm.
const SIDE_LOOKS: u32 = 1;

/// How it stands with one test.
pub(super) struct Case<'a> {
    pub(super) question: &'a Question,
    pub(super) request: &'a ValidateRequest,
    pub(super) trials: &'a Trials<'a>,
}

/// What is known so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Finding {
    /// Failed before, did not in enough runs with the patch.
    Fixed,
    /// Fails more seldom with the patch.
    Improved,
    /// It fails with the patch, as far as is known as often as before.
    StillFails,
    /// It fails more often with the patch.
    Worse,
    /// It never failed without the patch: nothing can be shown.
    NeverFailed,
    /// It does not run with the patch.
    Gone,
    /// More runs were wanted than may be made.
    TooSeldom,
    /// More runs are wanted.
    Open,
}

impl<'a> Case<'a> {
    fn arm(&self, company: Company, world: World, source: Source) -> Arm {
        Arm { company, treatment: Treatment { world, source } }
    }

    fn patched(&self) -> Source {
        Source::Snapshot(self.request.patched.clone())
    }

    /// Where the test is looked for failing, if that is not known: alone, among all others in some orders,
    /// and twice in one process.
    fn companies(&self) -> Vec<(Company, World)> {
        if let Some(FailingIn { company, world }) = &self.request.failing_in {
            return vec![(company.clone(), *world)];
        }
        let shuffled = Order::Shuffled { seed: derive_seed(self.question.seed, "validate") };
        let orders = self.question.order.into_iter().chain([Order::Given, Order::Reversed, shuffled]);
        let suite = orders.map(|order| (Company::Suite(order), World::Plain));
        [(Company::Alone, World::Plain)]
            .into_iter()
            .chain(suite)
            .chain([(Company::Alone, World::Twice)])
            .filter(|(company, world)| self.can_give(company, *world))
            .collect()
    }

    /// The company and the world in which it was seen to fail without the patch: the first that will do,
    /// which costs least.
    pub(super) fn failing_in(&self) -> Option<(Company, World)> {
        self.companies().into_iter().find(|(company, world)| {
            self.trials.tally(&self.arm(company.clone(), *world, Source::Submitted)).failures > 0
        })
    }

    /// The two arms, once it is known where the test fails.
    pub(super) fn arms(&self) -> Option<(Arm, Arm)> {
        let (company, world) = self.failing_in()?;
        let before = self.arm(company.clone(), world, Source::Submitted);
        Some((before, self.arm(company, world, self.patched())))
    }

    /// What the patched test must bear beside its arm: another order of the suite, and another hash seed.
    pub(super) fn side_looks(&self) -> Vec<Arm> {
        let shuffled = Order::Shuffled { seed: derive_seed(self.question.seed, "validate: another order") };
        let salted = World::HashSeed(HashSeed::Random);
        [(Company::Suite(shuffled), World::Plain), (Company::Alone, salted)]
            .into_iter()
            .filter(|(company, world)| self.can_give(company, *world))
            .map(|(company, world)| self.arm(company, world, self.patched()))
            .collect()
    }

    fn can_give(&self, company: &Company, world: World) -> bool {
        let able = &self.question.able;
        let in_order = match company {
            Company::Suite(order) | Company::File(order) => able.can_order(*order),
            Company::Alone | Company::Listed(_) => true,
        };
        in_order && able.gives(world)
    }

    /// A confidence that leaves `part` of the risk, as there are several places where it may go.
    fn sharing(&self, parts: u32) -> Confidence {
        let risk = self.question.confidence.risk() / f64::from(parts.max(1));
        Confidence::new((1.0 - risk).min(Confidence::MAX)).unwrap_or(self.question.confidence)
    }

    /// The old rate. Half of the risk is the interval's, shared among the companies that were tried, since
    /// the one that is reported was chosen for its failures.
    pub(super) fn old_rate(&self, before: Counts) -> RateEstimate {
        let companies = u32::try_from(self.companies().len()).unwrap_or(u32::MAX);
        rate_interval(before.failures, before.attempts, self.sharing(2 * companies))
    }

    /// Clean runs of the patched test that prove a fix: the other half of the risk is theirs. None while
    /// the old rate is not known well enough, or so low that no number that may be run will do.
    pub(super) fn clean_runs(&self, before: Counts) -> Option<u32> {
        let wanted = clean_runs_for_fix(&self.old_rate(before), self.sharing(2))?;
        (wanted <= MOST_CLEAN).then(|| wanted.max(FEWEST_CLEAN))
    }

    /// Whether the arms fail at different rates.
    pub(super) fn decision(&self, before: Counts, after: Counts) -> Decision {
        let companies = u32::try_from(self.companies().len()).unwrap_or(u32::MAX);
        let arms = NonZeroU32::new(companies).expect("there is one at least");
        Comparison::new(self.question.confidence, arms).judge(before, after)
    }

    /// What is known so far.
    pub(super) fn finding(&self) -> Finding {
        let Some((before, after)) = self.arms() else {
            let looked = self.missing_looks();
            return if looked.is_empty() { Finding::NeverFailed } else { Finding::Open };
        };
        let (before, after) = (self.trials.tally(&before), self.trials.tally(&after));
        if after.is_given_up() {
            return Finding::Gone;
        }
        let side: Vec<Tally> = self.side_looks().iter().map(|arm| self.trials.tally(arm)).collect();
        let failed_beside = self.failed_beside();
        if let Decision::Differs(difference) = self.decision(before.counts(), after.counts()) {
            match difference.direction {
                Some(Direction::MoreFailures) => return Finding::Worse,
                // Clean runs may still prove more than an improvement.
                Some(Direction::FewerFailures) if after.failures > 0 || failed_beside => {
                    return Finding::Improved;
                }
                Some(Direction::FewerFailures) | None => {}
            }
        }
        if after.failures > 0 || failed_beside {
            let enough = |tally: Tally| tally.attempts() >= MOST_AFTER_FAILURE || tally.is_given_up();
            let alike = self.are_alike(before.counts(), after.counts());
            let done = alike || (enough(before) && enough(after));
            return if done { Finding::StillFails } else { Finding::Open };
        }
        let looked = |tally: &Tally| tally.attempts() + tally.skips > 0 || tally.is_given_up();
        match self.clean_runs(before.counts()) {
            Some(wanted) if after.passes >= wanted && side.iter().all(looked) => Finding::Fixed,
            Some(_) => Finding::Open,
            None if before.attempts() >= MOST_BEFORE || before.is_given_up() => Finding::TooSeldom,
            None => Finding::Open,
        }
    }

    /// Whether a patched test that still fails does so about as often as before: then more runs would be
    /// spent on a small difference, if there is one, and a fix it is not.
    fn are_alike(&self, before: Counts, after: Counts) -> bool {
        let enough = before.attempts.min(after.attempts) >= FIRST_RUNS;
        match (before.rate(), after.rate()) {
            (Some(before), Some(after)) => enough && (before - after).abs() < ALIKE,
            (None, _) | (_, None) => false,
        }
    }

    /// Arms without the patch in which it is still looked for failing.
    fn missing_looks(&self) -> Vec<(Arm, u32)> {
        let submitted = |(company, world): (Company, World)| self.arm(company, world, Source::Submitted);
        let missing = |runs: u32| -> Vec<(Arm, u32)> {
            let arms = self.companies().into_iter().map(submitted);
            arms.map(|arm| (arm, runs))
                .filter(|(arm, runs)| self.trials.tally(arm).missing(*runs) > 0)
                .collect()
        };
        let known = self.request.failing_in.is_some();
        let first = missing(FIRST_LOOKS);
        match first.is_empty() {
            true => missing(if known { MOST_BEFORE } else { LAST_LOOKS }),
            false => first,
        }
    }

    /// Arms that want runs, each until so many of its attempts were heard of; none if it is decided.
    pub(super) fn wanted(&self) -> Vec<(Arm, u32)> {
        if self.finding() != Finding::Open {
            return Vec::new();
        }
        let Some((before, after)) = self.arms() else { return self.missing_looks() };
        let (old, new) = (self.trials.tally(&before), self.trials.tally(&after));
        let mut wanted: Vec<(Arm, u32)> = Vec::new();
        if old.attempts() < FIRST_RUNS || new.attempts() < FIRST_RUNS {
            wanted.extend([(before, FIRST_RUNS), (after, FIRST_RUNS)]);
        } else if new.failures > 0 || self.failed_beside() {
            // Alternately, so that what loads the machine affects both alike.
            let next = (old.attempts().min(new.attempts()) + FIRST_RUNS).min(MOST_AFTER_FAILURE);
            wanted.extend([(before, next), (after, next)]);
        } else {
            wanted.extend(self.wanted_of_clean(before, after, old, new));
        }
        wanted.extend(self.side_looks().into_iter().map(|arm| (arm, SIDE_LOOKS)));
        wanted.retain(|(arm, runs)| self.trials.tally(arm).missing(*runs) > 0);
        wanted
    }

    /// While the patched test passes: runs without the patch as long as these save more clean runs than they
    /// cost, and as many with it, so that its first failure is not missed; then all clean runs that are left.
    fn wanted_of_clean(&self, before: Arm, after: Arm, old: Tally, new: Tally) -> Vec<(Arm, u32)> {
        let clean = self.clean_runs(old.counts());
        let mut wanted = Vec::new();
        let next = if self.is_worth_more(old.counts()) {
            let next = (old.attempts() + FIRST_RUNS).min(MOST_BEFORE);
            wanted.push((before, next));
            clean.map_or(next, |clean| clean.min(next))
        } else {
            clean.unwrap_or(0)
        };
        // Failures are none here, so what is missing are passes.
        wanted.push((after, next.max(new.passes)));
        wanted
    }

    /// Whether further runs without the patch, of the rate as seen so far, make the proof cheaper.
    fn is_worth_more(&self, before: Counts) -> bool {
        let Some(rate) = before.rate() else { return true };
        if before.attempts >= MOST_BEFORE {
            return false;
        }
        let more = Counts::new(
            before.failures + (rate * f64::from(MORE_RUNS)).floor() as u32,
            before.attempts + MORE_RUNS,
        );
        match (self.clean_runs(before), self.clean_runs(more)) {
            (Some(now), Some(then)) => now > then + MORE_RUNS,
            (None, _) => true,
            (Some(_), None) => false,
        }
    }

    fn failed_beside(&self) -> bool {
        self.side_looks().iter().any(|arm| self.trials.tally(arm).failures > 0)
    }

    /// Whether the patch makes the test itself better.
    pub(super) fn is_better(&self) -> bool {
        matches!(self.finding(), Finding::Fixed | Finding::Improved)
    }
}
