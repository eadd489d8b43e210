//! Which tests make a test fail by running before it (polluters), make it pass (state-setters), or
//! hide that (cleaners). Starts from an order in which the test does what it does not do alone, and
//! searches the tests before it for the smallest part that is enough; then proves it: with that part
//! it happens, without it, it does not.

use super::compare::{Comparing, Judgement};
use super::search::{Part, Search, search};
use super::sequence::sequence;
use crate::experiment::{Arm, Company, Tally, Trials};
use flakefarm_shared::{Order, TestId, World};

/// How much likelier one explanation of a probe must be before the search goes on with it.
const LIKELY: f64 = 5.0;
/// The same after a search that did not stand up to its proof.
const CERTAIN: f64 = 60.0;
/// Runs of one probe at most.
const PROBE_RUNS: u32 = 12;
/// Runs of the whole beginning of an order: at least, and where they disagree.
const WHOLE_RUNS: u32 = 2;
const WHOLE_RUNS_MIXED: u32 = 16;
/// Runs of the rest without what was found.
const REMOVAL_RUNS: u32 = 2;
/// Runs with what was found, at most.
const PROOF_RUNS: u32 = 16;
/// Groups of tests that do the same, looked for one after the other.
const GROUPS: usize = 4;

/// What a test does in an order and not alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It passes alone: something before it makes it fail.
    Fails,
    /// It fails alone: something before it makes it pass.
    Passes,
}

impl Effect {
    /// How often it was seen.
    pub(super) fn seen(self, tally: Tally) -> u32 {
        match self {
            Effect::Fails => tally.failures,
            Effect::Passes => tally.passes,
        }
    }

    fn opposite(self) -> Self {
        match self {
            Effect::Fails => Effect::Passes,
            Effect::Passes => Effect::Fails,
        }
    }
}

/// What order does to a test.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OrderFinding {
    /// What happens.
    pub(super) effect: Effect,
    /// The order it was found in.
    pub(super) order: Order,
    /// How sure it is.
    pub(super) confidence: f64,
    /// Groups of tests: each group alone is enough. Empty if the search did not come to an end.
    pub(super) groups: Vec<Vec<TestId>>,
    /// The arm that shows the first group at work, and the arm of everything else without any group.
    pub(super) with: Arm,
    /// Everything that ran before, without the groups; none if nothing is left.
    pub(super) without: Option<Arm>,
    /// Tests that undo what the first group does when they run between.
    pub(super) cleaners: Vec<TestId>,
}

/// Where the pursuit of one order stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Pursuit {
    /// These arms are to be run so often.
    Run(Vec<(Arm, u32)>),
    /// It was chance: the order does not do it again.
    Chance,
    /// Found.
    Found(OrderFinding),
}

/// What a pursuit needs to know.
pub(super) struct Scene<'a> {
    pub(super) trials: &'a Trials<'a>,
    /// All tests, as collected.
    pub(super) tests: &'a [TestId],
    /// Probes at once.
    pub(super) width: usize,
    pub(super) comparison: Comparing,
}

impl Scene<'_> {
    /// Pursues `order`, in which the test showed `effect` that it did not show alone.
    pub(super) fn pursue(&self, order: Order, effect: Effect) -> Pursuit {
        let all = sequence(self.tests, order);
        let Some(place) = all.iter().position(|test| test == self.trials.test) else {
            return Pursuit::Chance;
        };
        let before = &all[..place];
        let suite = Arm::suite(order, World::Plain);
        // What ran after the test cannot matter, unless importing it does: then its place tells nothing.
        let (candidates, behind) = match self.whole(before, &[], effect) {
            Whole::Run(arms) => return Pursuit::Run(arms),
            Whole::Enough => (before.to_vec(), Vec::new()),
            Whole::NotEnough => {
                let tally = self.trials.tally(&suite);
                if tally.attempts() < 2 && !tally.is_given_up() {
                    return run(suite, 2);
                }
                if effect.seen(tally) < 2 {
                    return Pursuit::Chance;
                }
                let behind = all[place + 1..].to_vec();
                match self.whole(before, &behind, effect) {
                    Whole::Run(arms) => return Pursuit::Run(arms),
                    Whole::NotEnough => return Pursuit::Chance,
                    Whole::Enough => (before.to_vec(), behind),
                }
            }
        };
        self.groups(order, effect, &candidates, &behind)
    }

    /// `before`, the test, `behind`.
    fn listed(&self, before: &[TestId], behind: &[TestId]) -> Arm {
        let own = std::slice::from_ref(self.trials.test);
        Arm::listed([before, own, behind].concat())
    }

    /// Whether everything together is enough. If it does it now and then only, the test alone must be
    /// seen to do it less often: a test that varies by itself has no polluter.
    fn whole(&self, before: &[TestId], behind: &[TestId], effect: Effect) -> Whole {
        if before.is_empty() && behind.is_empty() {
            return Whole::NotEnough;
        }
        let arm = self.listed(before, behind);
        let (tally, alone) = (self.trials.tally(&arm), self.trials.tally(&Arm::PLAIN));
        let runs = tally.attempts();
        if tally.missing(WHOLE_RUNS) > 0 {
            return Whole::Run(vec![(arm, WHOLE_RUNS)]);
        }
        if effect.seen(tally) == 0 {
            return Whole::NotEnough;
        }
        if effect.seen(tally) == runs {
            return Whole::Enough;
        }
        match self.comparison.judge(alone.counts(), tally.counts()) {
            Judgement::Different { .. } => Whole::Enough,
            Judgement::Open { .. } if runs >= WHOLE_RUNS_MIXED || tally.is_given_up() => Whole::NotEnough,
            Judgement::Open { .. } => Whole::Run(vec![(arm, runs + 2), (Arm::PLAIN, runs + 2)]),
        }
    }

    fn groups(&self, order: Order, effect: Effect, before: &[TestId], behind: &[TestId]) -> Pursuit {
        let whole = self.trials.tally(&self.listed(before, behind));
        let rate = share(effect.seen(whole), whole.attempts());
        let mut groups: Vec<Vec<TestId>> = Vec::new();
        let mut confidence: f64 = 1.0;
        // Everything before and behind as one list, so that one search serves both.
        let mut candidates: Vec<TestId> = [before, behind].concat();
        let without = loop {
            let found = match self.smallest(&candidates, before, effect, rate) {
                Step::Run(arms) => return Pursuit::Run(arms),
                Step::Done(found) => found,
            };
            let with = self.arrange(&found, before);
            match self.proof(&with, effect) {
                Step::Run(arms) => return Pursuit::Run(arms),
                Step::Done(Some(sure)) => confidence = confidence.min(sure),
                Step::Done(None) if groups.is_empty() => return Pursuit::Chance,
                Step::Done(None) => break None,
            }
            candidates.retain(|test| !found.contains(test));
            groups.push(found);
            if candidates.is_empty() {
                break None;
            }
            let rest = self.arrange(&candidates, before);
            let tally = self.trials.tally(&rest);
            if tally.missing(REMOVAL_RUNS) > 0 {
                return run(rest, REMOVAL_RUNS);
            }
            if effect.seen(tally) == 0 || groups.len() == GROUPS {
                break Some(rest);
            }
        };
        let with = self.arrange(&groups[0], before);
        let cleaners = match self.cleaners(&groups[0], effect) {
            Step::Run(arms) => return Pursuit::Run(arms),
            Step::Done(cleaners) => cleaners,
        };
        Pursuit::Found(OrderFinding { effect, order, confidence, groups, with, without, cleaners })
    }

    /// `tests` around the test, each on the side it had.
    fn arrange(&self, tests: &[TestId], before: &[TestId]) -> Arm {
        let (before, behind): (Vec<TestId>, Vec<TestId>) =
            tests.iter().cloned().partition(|test| before.contains(test));
        self.listed(&before, &behind)
    }

    /// The smallest part of `candidates` that shows the effect; the search is done again with more
    /// runs for each step if what it found does not stand up.
    fn smallest(
        &self,
        candidates: &[TestId],
        before: &[TestId],
        effect: Effect,
        rate: f64,
    ) -> Step<Vec<TestId>> {
        let arm = |part: &Part| {
            let tests: Vec<TestId> = part.iter().map(|place| candidates[*place].clone()).collect();
            self.arrange(&tests, before)
        };
        let alone = self.trials.tally(&Arm::PLAIN);
        let noise = share(effect.seen(alone), alone.attempts());
        let found = self.search(candidates.len(), &arm, effect, rate, noise, LIKELY);
        let part = match found {
            Step::Run(arms) => return Step::Run(arms),
            Step::Done(part) => part,
        };
        // A step that went wrong leaves a part that does nothing, or one that is larger than it need be.
        let part = if self.decide(&arm(&part), effect, rate, noise, CERTAIN) == Some(false) {
            match self.search(candidates.len(), &arm, effect, rate, noise, CERTAIN) {
                Step::Run(arms) => return Step::Run(arms),
                Step::Done(part) => part,
            }
        } else if part.len() > 1 {
            let within = |inner: &Part| arm(&inner.iter().map(|place| part[*place]).collect());
            match self.search(part.len(), &within, effect, rate, noise, CERTAIN) {
                Step::Run(arms) => return Step::Run(arms),
                Step::Done(inner) => inner.iter().map(|place| part[*place]).collect(),
            }
        } else {
            part
        };
        Step::Done(part.iter().map(|place| candidates[*place].clone()).collect())
    }

    fn search(
        &self,
        length: usize,
        arm: &impl Fn(&Part) -> Arm,
        effect: Effect,
        rate: f64,
        noise: f64,
        bar: f64,
    ) -> Step<Part> {
        match search(length, self.width, |part| self.decide(&arm(part), effect, rate, noise, bar)) {
            Search::Found(part) => Step::Done(part),
            Search::Try(parts) => {
                let more = |part| {
                    let arm = arm(part);
                    let runs = self.trials.tally(&arm).attempts() + 1;
                    (arm, runs)
                };
                Step::Run(parts.iter().map(more).collect())
            }
        }
    }

    /// Whether an arm shows the effect, at `rate` if it does and at `noise` if not: Wald's test, cut
    /// off after a number of runs.
    fn decide(&self, arm: &Arm, effect: Effect, rate: f64, noise: f64, bar: f64) -> Option<bool> {
        let tally = self.trials.tally(arm);
        let (seen, attempts) = (f64::from(effect.seen(tally)), f64::from(tally.attempts()));
        let evidence = seen * (rate / noise).ln() + (attempts - seen) * ((1.0 - rate) / (1.0 - noise)).ln();
        if evidence >= bar.ln() {
            Some(true)
        } else if evidence <= -bar.ln() || tally.is_given_up() {
            Some(false)
        } else if tally.attempts() >= PROBE_RUNS {
            Some(evidence > 0.0)
        } else {
            None
        }
    }

    /// How sure it is that `with` shows the effect more often than the test alone; nothing if it
    /// does not.
    fn proof(&self, with: &Arm, effect: Effect) -> Step<Option<f64>> {
        let (alone, tally) = (self.trials.tally(&Arm::PLAIN), self.trials.tally(with));
        match self.comparison.judge(alone.counts(), tally.counts()) {
            Judgement::Different { confidence } => Step::Done(Some(confidence)),
            Judgement::Open { .. } if tally.attempts() >= PROOF_RUNS || tally.is_given_up() => {
                Step::Done(None)
            }
            Judgement::Open { .. } if tally.attempts() >= 4 && effect.seen(tally) == 0 => Step::Done(None),
            Judgement::Open { .. } => {
                let runs = (tally.attempts() + 2).max(4);
                Step::Run(vec![(with.clone(), runs), (Arm::PLAIN, runs.max(alone.attempts()))])
            }
        }
    }

    /// Tests that undo what `group` does: from an order in which the test follows the group and does
    /// not show the effect.
    fn cleaners(&self, group: &[TestId], effect: Effect) -> Step<Vec<TestId>> {
        let Some(between) = self.between(group, effect) else { return Step::Done(Vec::new()) };
        let arm = |part: &Part| {
            let chosen: Vec<TestId> = part.iter().map(|place| between[*place].clone()).collect();
            self.listed(&[group, &chosen].concat(), &[])
        };
        let undone = effect.opposite();
        let with = self.trials.tally(&self.listed(group, &[]));
        let noise = share(undone.seen(with), with.attempts());
        let rate = 1.0 - share(0, 4);
        let whole: Part = (0..between.len()).collect();
        match self.decide(&arm(&whole), undone, rate, noise, LIKELY) {
            None => Step::Run(vec![(arm(&whole), self.trials.tally(&arm(&whole)).attempts() + 1)]),
            Some(false) => Step::Done(Vec::new()),
            Some(true) => match self.search(between.len(), &arm, undone, rate, noise, LIKELY) {
                Step::Run(arms) => Step::Run(arms),
                Step::Done(part) => Step::Done(part.iter().map(|place| between[*place].clone()).collect()),
            },
        }
    }

    /// The fewest tests that ran between the group and the test in an order that hid the effect.
    fn between(&self, group: &[TestId], effect: Effect) -> Option<Vec<TestId>> {
        let hidden = self.trials.arms().filter_map(|(arm, tally)| match arm {
            Arm { company: Company::Suite(order), treatment }
                if treatment.is_plain() && effect.seen(tally) == 0 && tally.attempts() > 0 =>
            {
                Some(*order)
            }
            _ => None,
        });
        hidden
            .filter_map(|order| {
                let all = sequence(self.tests, order);
                let own = all.iter().position(|test| test == self.trials.test)?;
                let places: Option<Vec<usize>> =
                    group.iter().map(|test| all.iter().position(|other| other == test)).collect();
                let last = places?.into_iter().max()?;
                (last + 1 < own).then(|| all[last + 1..own].to_vec())
            })
            .min_by_key(Vec::len)
    }
}

enum Whole {
    Run(Vec<(Arm, u32)>),
    Enough,
    NotEnough,
}

enum Step<T> {
    Run(Vec<(Arm, u32)>),
    Done(T),
}

fn run(arm: Arm, runs: u32) -> Pursuit {
    Pursuit::Run(vec![(arm, runs)])
}

/// A rate that few runs leave away from 0 and 1.
fn share(seen: u32, attempts: u32) -> f64 {
    (f64::from(seen) + 0.5) / (f64::from(attempts) + 1.0)
}
