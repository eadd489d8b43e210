//! Which tests of an adaptive sweep are suspicious, and what is asked of them beside the runs that every test
//! gets: runs alone, shuffles that begin with them, and, of those that only failed, one attempt without the
//! others. A run alone costs nearly as much as one of a small suite, and answers for one test: where an attempt
//! that is made anyway can answer, it does.

use super::alone;
use super::costs::Costs;
use super::firsts;
use super::needs::{Futile, Needs, joins_others, record_of};
use super::repeats;
use crate::experiment::{Answer, History, JobKey, JobPhase, Ledger, Question, ScopeChoice, Seen, TestTally};
use crate::score::Category;
use flakefarm_shared::{Order, Scope, TestId};
use std::collections::{BTreeMap, HashMap};

/// Runs alone of a test that fails and has passed: at once, and at most, as long as it is open whether its
/// neighbours spoil it, prepare something for it, or have no part in it.
const AT_ONCE: u32 = 2;
const AT_MOST: u32 = 8;
/// What a suspicious test may have at least where there are no more than so many and no shuffle begins with it.
const AT_LEAST: u32 = 3;
const FEW: usize = 12;
/// Shuffles that begin with such a test, as long as that is open.
const FIRST_AT_MOST: u32 = 10;
/// One that fails less often than this among others gets one run alone, and more only once an order was
/// seen to decide: before that, more would not tell order from chance.
const OFTEN: f64 = 0.2;
/// Where more tests than this fail, each gets what is meant for all of them at once.
const JUDGED_ONE_BY_ONE: usize = 60;
/// Share of what the sweep is foreseen to cost that a round of runs alone of suspicious tests may cost, and
/// all runs of single tests once nothing else is wanted.
const ROUND_SHARE: f64 = 0.03;
/// A round costs so many seconds at least where no shuffle begins with a suspicious test.
const ROUND_SECONDS: f64 = 30.0;
const SINGLES_SHARE: f64 = 0.08;
/// The same for tests that fail each time: one run of each, one of each failure before a second of any. And
/// how many of them run alone whatever that costs.
const FAILING_SHARE: f64 = 0.02;
const FAILING_LEAST: usize = 2;
/// Attempts on many tests after which a test that only failed is taken for one that does.
const APART_AFTER: u32 = 3;

/// What is asked of suspicious tests.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// Runs alone that tests are to have, by place in the ledger.
    pub(super) alone: Vec<(usize, u32)>,
    /// Tests that shuffles are to begin with, those first of which least is known.
    pub(super) first: Vec<usize>,
    /// Tests that only failed, to run once without all others.
    pub(super) apart: Vec<TestId>,
}

/// How it stands at one turn.
pub(super) struct Situation<'a> {
    pub(super) question: &'a Question,
    pub(super) ledger: &'a Ledger,
    pub(super) history: &'a History,
    pub(super) costs: &'a Costs<'a>,
    pub(super) needs: &'a Needs,
    pub(super) futile: &'a Futile,
    /// Runs that are still to be planned, by place in the ledger.
    pub(super) wants: &'a [u32],
}

impl Suspects {
    pub(super) fn find(situation: &Situation<'_>) -> Self {
        let mut found = Self::default();
        let everyone = 0..situation.ledger.tests().len();
        let suspects: Vec<usize> = everyone.filter(|place| situation.is_suspicious(*place)).collect();
        if suspects.is_empty() {
            return found;
        }
        let (varying, failing): (Vec<usize>, Vec<usize>) =
            suspects.into_iter().partition(|place| situation.tally(*place).passes > 0);
        situation.ask_varying(&varying, &mut found);
        situation.ask_failing(&failing, &mut found);
        found
    }
}

impl Situation<'_> {
    fn tally(&self, place: usize) -> &TestTally {
        self.ledger.tally_of(place)
    }

    fn is_suspicious(&self, place: usize) -> bool {
        let tally = self.tally(place);
        self.question.scope == ScopeChoice::Auto
            && !self.futile.many
            && tally.failures > 0
            && (self.wants[place] == 0 || joins_others(tally, self.costs))
            && !self.futile.alone.given_up(place, self.ledger)
            && matches!(self.needs.answers[place], Answer::Open(_) | Answer::Flaky)
            // Earlier sweeps saw it fail, and looked at it then.
            && record_of(self.history, self.ledger, place).is_none_or(|record| record.failures == 0)
            && !repeats::varies_unchanged(self.ledger, place)
    }

    /// What the sweep is foreseen to cost if every test gets the clean runs that are enough, those made included.
    fn foreseen_seconds(&self) -> f64 {
        let most = self.needs.targets.iter().max().copied().unwrap_or(0);
        f64::from(most) * self.costs.overhead(Scope::Suite) + self.needs.seconds_in_tests(self.costs)
    }

    fn cost_alone(&self, place: usize) -> f64 {
        self.costs.alone(&self.ledger.tests()[place]).unwrap_or(0.0)
    }

    fn ask_varying(&self, varying: &[usize], found: &mut Suspects) {
        let one_round: f64 = varying.iter().map(|place| self.cost_alone(*place)).sum();
        let foreseen = self.foreseen_seconds();
        let chosen = firsts::are_chosen(self.question, self.ledger);
        let least = if chosen || varying.len() > FEW { 1 } else { AT_LEAST };
        let money = ROUND_SHARE * foreseen;
        let money = if chosen { money } else { money.max(ROUND_SECONDS) };
        let affordable = if one_round > 0.0 { (money / one_round) as u32 } else { AT_MOST };
        let each = affordable.clamp(least, AT_MOST);
        let few = varying.len() <= JUDGED_ONE_BY_ONE;
        let at_the_end =
            self.wants.iter().all(|want| *want == 0) && self.ledger.outstanding().next().is_none();
        let spent = self.ledger.attempt_seconds(Scope::Test).0;
        let mut left = SINGLES_SHARE * foreseen - spent;
        let mut kinds: HashMap<Vec<(JobKey, u32)>, usize> = HashMap::new();
        let mut begin: Vec<(u32, usize)> = Vec::new();
        for place in varying.iter().copied() {
            let tally = self.tally(place);
            // Those that fail in the same attempts have one cause, most likely: one of them runs alone.
            let alike = kinds.entry(self.failing_attempts(place)).or_default();
            *alike += 1;
            let often = f64::from(tally.failures) >= OFTEN * f64::from(tally.attempts());
            let likely = often || repeats::failed_alone(self.ledger, place);
            let at_once = match (chosen, likely) {
                // What fails seldom passes alone, whatever the reason.
                (true, _) => u32::from(likely && *alike == 1),
                (false, true) => AT_ONCE.min(each),
                (false, false) => 1,
            };
            let began = if chosen { firsts::made(self.ledger, place) } else { 0 };
            let is_open = few
                && match crate::score::category_of(self.ledger, &self.ledger.tests()[place]) {
                    Some(Category::OrderDependent) => true,
                    Some(_) => false,
                    None => likely && (chosen || at_the_end),
                };
            if chosen && is_open && began < FIRST_AT_MOST {
                begin.push((began, place));
            }
            let may_ask = tally.alone >= at_once && tally.alone_under_way == 0;
            let more = match chosen {
                // Shuffles answer as long as there are any.
                true => at_the_end && tally.alone + began < AT_MOST && left > self.cost_alone(place),
                false => tally.alone < each,
            };
            let runs = if is_open && may_ask && more {
                left -= self.cost_alone(place);
                tally.alone + 1
            } else {
                at_once
            };
            found.alone.push((place, runs));
        }
        begin.sort_unstable();
        found.first.extend(begin.into_iter().map(|(_, place)| place));
    }

    /// Attempts on many tests in which the one at `place` failed.
    fn failing_attempts(&self, place: usize) -> Vec<(JobKey, u32)> {
        let observations = self.ledger.observations_at(place).iter().filter(|o| o.treatment.is_plain());
        let failed = observations.filter(|o| o.scope != Scope::Test && matches!(o.seen, Seen::Fail(_)));
        failed.map(|o| (o.key, o.index)).collect()
    }

    /// Where thousands fail, the environment is to blame; a sample shows whether their neighbours are.
    fn ask_failing(&self, failing: &[usize], found: &mut Suspects) {
        let tests: Vec<TestId> = failing.iter().map(|place| self.ledger.tests()[*place].clone()).collect();
        let mut alike: BTreeMap<&str, usize> = BTreeMap::new();
        let mut rounds: Vec<(usize, usize)> = Vec::new();
        for test in alone::affordable(&tests, self.question.seed, f64::INFINITY, self.costs) {
            let Some(place) = self.ledger.place(test) else { continue };
            let round = alike.entry(self.signature(place)).or_default();
            rounds.push((*round, place));
            *round += 1;
        }
        rounds.sort_by_key(|(round, _)| *round); // stable: the screen's order within a round
        let money = FAILING_SHARE * self.foreseen_seconds();
        let mut spent = 0.0;
        for (number, (_, place)) in rounds.iter().enumerate() {
            spent += self.cost_alone(*place);
            if number >= FAILING_LEAST && spent > money {
                break;
            }
            found.alone.push((*place, 1));
        }
        let begins_not = |(_, place): &(usize, usize)| firsts::made(self.ledger, *place) == 0;
        found.first.extend(rounds.iter().copied().filter(begins_not).map(|(_, place)| place));
        let is_time = self.ledger.attempts_on_many().0 >= APART_AFTER
            && self.ledger.keys_of(JobPhase::Apart).next().is_none();
        let others = self.ledger.tests().len() - tests.len();
        if is_time && tests.len() > 1 && others > 0 && self.question.able.can_order(Order::AsListed) {
            found.apart = tests;
        }
    }

    fn signature(&self, place: usize) -> &str {
        let seen = self.ledger.observations_at(place).iter().rev().map(|o| &o.seen);
        let mut failures = seen.filter_map(|seen| match seen {
            Seen::Fail(seen) => Some(seen.failure.signature.as_str()),
            Seen::Pass | Seen::Skip => None,
        });
        failures.next().unwrap_or("")
    }
}
