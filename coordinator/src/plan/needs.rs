//! What each test still needs, and which tests are answered. Follows from the question, what was
//! seen, what was known before, and what is believed; the same for the planner, which makes the runs
//! that are missing, and for the report, which says why there are no more.

use super::alone::Alone;
use super::beliefs::Beliefs;
use super::costs::Costs;
use crate::experiment::{
    Answer, Guarantee, History, Ledger, Question, Record, Seen, Standing, TestTally, WorldsSeen, derive_seed,
};
use flakefarm_shared::{Scope, Selection, World};
use std::collections::BTreeMap;

/// Runs of a test that was seen to fail, for its rate: as many as the others get, within these bounds.
const LEAST_RUNS_FOR_RATE: u32 = 10;
const RUNS_FOR_RATE: u32 = 20;
/// Under the suite's guarantee, a test is called broken when it is flaky with this part of the share that
/// may be missed: a flaky test that is called broken is missed too.
const BROKEN_RISK: f64 = 0.2;
/// A flake is confirmed when both outcomes were seen so often.
const CONFIRMED: u32 = 2;
/// Skips after which a test is taken for skipped.
const SKIPS: u32 = 3;
/// A test that is skipped more often than it runs is given up after so many times the runs it needs.
const HEARD_AT_MOST: u32 = 2;
/// Attempts that said nothing of a test, after which it is tried alone only.
const UNHEARD: u32 = 3;
/// A test that was not run for so long is run at least once, whatever its record.
const LOOK_AGAIN_DAYS: f64 = 7.0;
/// Of the other tests with a full record, one in so many is run once, another one each time.
const LOOK_AT_ONE_IN: u64 = 10;
/// Attempts on many tests that gave nothing, beyond those that did, after which no more are made.
const IN_VAIN: u32 = 6;
/// The suite's guarantee is planned for this part of the share that may be missed: beliefs are guesses,
/// and what is promised is what is found.
const SAFETY: f64 = 0.4;
/// Attempts that only add what the guarantee does not need are made as long as they find a flaky test for
/// so much more than its price: seldom flakes, the most of all, are found by no other.
const LAST_ATTEMPTS: f64 = 0.4;
/// One run in so many may be missing to what the suite's guarantee wants.
const NEARLY: u32 = 8;
/// Steps of bisection over the logarithm of a price.
const PRICE_STEPS: usize = 30;

/// What is needed of all tests, by place in the ledger.
pub(super) struct Needs {
    /// How it stands, counting what was seen only.
    pub(super) answers: Vec<Answer>,
    /// Runs to be planned: what is missing once everything under way has passed.
    pub(super) runs: Vec<u32>,
    /// Clean runs that are (or, if it never fails, will be) enough, old ones included.
    pub(super) targets: Vec<u32>,
}

impl Needs {
    /// Seconds in tests if every test gets the clean runs that are enough, those made included.
    pub(super) fn seconds_in_tests(&self, costs: &Costs<'_>) -> f64 {
        let targets = self.targets.iter().enumerate();
        targets.map(|(place, runs)| f64::from(*runs) * costs.seconds_at(place)).sum()
    }

    pub(super) fn find(
        question: &Question,
        ledger: &Ledger,
        history: &History,
        beliefs: &Beliefs,
        costs: &Costs<'_>,
        futile: &Futile,
    ) -> Self {
        let count = ledger.tests().len();
        let look = derive_seed(question.seed, "look");
        let runs_for_guarantee = question.runs_for_guarantee();
        let elsewhere = Elsewhere::under_way(ledger);
        let worlds = (0..count)
            .any(|place| ledger.tally_of(place).failures_elsewhere > 0)
            .then(|| WorldsSeen::read(ledger));
        let targets = match question.guarantee {
            Guarantee::PerTest => vec![question.runs_for_guarantee(); count],
            Guarantee::PerSuite => suite_targets(question, ledger, history, beliefs, costs, &elsewhere),
        };
        // A failing test gets as many runs as the others, and enough for its rate.
        let most = targets.iter().copied().max().unwrap_or(0);
        let runs_of_others = most.max(LEAST_RUNS_FOR_RATE).min(runs_for_guarantee);
        let runs_for_rate = most.clamp(LEAST_RUNS_FOR_RATE, RUNS_FOR_RATE).min(runs_for_guarantee);
        let mut needs = Self { answers: Vec::with_capacity(count), runs: Vec::with_capacity(count), targets };
        for place in 0..count {
            let record = record_of(history, ledger, place);
            let of = Of {
                question,
                costs,
                beliefs,
                futile,
                ledger,
                look,
                runs_for_rate,
                runs_of_others,
                place,
                target: needs.targets[place],
                record,
                told_elsewhere: worlds.as_ref().map_or(0, |worlds| told_elsewhere(place, ledger, worlds)),
            };
            let tally = ledger.tally_of(place);
            let answer = of.answer(tally);
            needs.runs.push(match answer {
                Answer::Open(_) => {
                    match of.answer(&hoped_for(tally, ledger.under_way(place), elsewhere.of(place))) {
                        Answer::Open(runs) => runs,
                        Answer::Healthy
                        | Answer::Flaky
                        | Answer::Broken
                        | Answer::Skipped
                        | Answer::GivenUp => 0,
                    }
                }
                Answer::Healthy | Answer::Flaky | Answer::Broken | Answer::Skipped | Answer::GivenUp => 0,
            });
            needs.answers.push(answer);
        }
        needs
    }
}

/// What a test did before, if that speaks of what it is now.
pub(super) fn record_of<'a>(history: &'a History, ledger: &Ledger, place: usize) -> Option<&'a Record> {
    if history.is_empty() { None } else { history.of(&ledger.tests()[place])?.record.as_ref() }
}

/// Which attempts are not worth making any more.
pub(super) struct Futile {
    /// On many tests: they come to nothing.
    pub(super) many: bool,
    /// On one.
    pub(super) alone: Alone,
}

impl Futile {
    pub(super) fn read(ledger: &Ledger) -> Self {
        let (useful, in_vain) = ledger.attempts_on_many();
        Self { many: in_vain > IN_VAIN + useful, alone: Alone::read(ledger) }
    }
}

/// Whether a test is run with others. One that often ends attempts, or that is never heard of, is run alone. Where it was
/// heard of among others, runs alone that came to nothing are the farm's failures, and no reason to keep it from them.
pub(super) fn joins_others(tally: &TestTally, costs: &Costs<'_>) -> bool {
    let among_others = tally.heard().saturating_sub(tally.alone);
    let seldom_ends_them = tally.interruptions == 0
        || tally.interruptions.saturating_mul(costs.runs_for_an_interruption()) <= among_others;
    seldom_ends_them
        && tally.unheard < UNHEARD
        && (among_others > 0 || tally.alone_in_vain < UNHEARD + tally.alone)
}

/// The counts as they will be if what is under way does as before.
fn hoped_for(tally: &TestTally, under_way: u32, elsewhere: u32) -> TestTally {
    let mut hoped = *tally;
    if tally.heard() > 0 && tally.skips == tally.heard() {
        hoped.skips += under_way;
    } else if tally.failures > 0 && tally.passes == 0 {
        hoped.failures += under_way;
        hoped.failures_elsewhere += elsewhere;
    } else {
        hoped.passes += under_way;
        hoped.passes_elsewhere += elsewhere;
    }
    hoped
}

/// Runs in other worlds that are under way and will count.
struct Elsewhere {
    of_all: u32,
    of_some: BTreeMap<usize, u32>,
}

impl Elsewhere {
    fn under_way(ledger: &Ledger) -> Self {
        let mut found = Self { of_all: 0, of_some: BTreeMap::new() };
        let outstanding = ledger.each_attempt().filter(|attempt| attempt.standing == Standing::Outstanding);
        for spec in outstanding.filter_map(|attempt| attempt.spec) {
            let Some(runs) = spec.treatment.other_world().map(World::clean_runs).filter(|runs| *runs > 0)
            else {
                continue;
            };
            match &spec.tests {
                Selection::All => found.of_all += runs,
                Selection::Only(tests) => {
                    for place in tests.iter().filter_map(|test| ledger.place(test)) {
                        *found.of_some.entry(place).or_default() += runs;
                    }
                }
            }
        }
        found
    }

    fn of(&self, place: usize) -> u32 {
        self.of_all + self.of_some.get(&place).copied().unwrap_or(0)
    }
}

/// One test, and what its answer depends on beside its counts.
struct Of<'a> {
    question: &'a Question,
    costs: &'a Costs<'a>,
    beliefs: &'a Beliefs,
    futile: &'a Futile,
    ledger: &'a Ledger,
    /// The seed of this sweep's look at known tests.
    look: u64,
    /// Runs of a test that fails, for its rate.
    runs_for_rate: u32,
    /// Most runs of a test that passes.
    runs_of_others: u32,
    place: usize,
    target: u32,
    record: Option<&'a Record>,
    /// Clean runs that its failures in other worlds would have been. If it passes in plain ones only, it is not called
    /// healthy, and no run is made for these.
    told_elsewhere: u32,
}

impl Of<'_> {
    fn answer(&self, tally: &TestTally) -> Answer {
        let open = |wanted: u32, have: u32| {
            if have >= wanted {
                None
            } else if self.gave_up(tally) {
                Some(Answer::GivenUp)
            } else {
                Some(Answer::Open(wanted - have))
            }
        };
        match (tally.passes, tally.failures, tally.skips) {
            (0, 0, 1..) => open(SKIPS, tally.skips).unwrap_or(Answer::Skipped),
            (passes @ 1.., failures @ 1.., _) => {
                let confirmed = passes.min(failures) >= CONFIRMED.min(self.runs_for_rate / 2);
                let wanted = match self.record {
                    // As it flaked before, so it does now: that confirms it, and its rate is known.
                    Some(record) if record.failures > 0 && record.failures < record.attempts => 0,
                    Some(_) | None if confirmed => self.runs_for_rate,
                    Some(_) | None => self.question.runs_for_guarantee(),
                };
                // Its rate is that of plain runs; whether it will be seen again is asked of all.
                let made = if confirmed { tally.attempts() } else { tally.attempts() + tally.elsewhere() };
                open(wanted, made).unwrap_or(Answer::Flaky)
            }
            (0, failures @ 1.., _) => {
                // The draws that others have had are enough here: the first of several runs in one process is the last.
                let elsewhere = tally.passes_elsewhere + tally.failures_elsewhere.max(self.told_elsewhere);
                open(self.failures_for_broken(), failures + elsewhere).unwrap_or(Answer::Broken)
            }
            (passes, 0, skips) => {
                let passes = passes + tally.elsewhere() + self.told_elsewhere;
                let old = self.record.map_or(0.0, |record| record.clean_runs);
                // A missing half is not worth an attempt: old runs are weighed, not counted.
                let missing = (f64::from(self.target) - old - 0.5).ceil().max(0.0) as u32;
                let wanted = if missing == 0 { u32::from(self.needs_a_look()) } else { missing };
                if passes < wanted && skips > 0 && passes + skips >= HEARD_AT_MOST * wanted.max(SKIPS) {
                    return Answer::GivenUp;
                }
                if passes >= self.enough(wanted) {
                    return Answer::Healthy;
                }
                open(wanted, passes).unwrap_or(Answer::Healthy)
            }
        }
    }

    /// Clean runs that will do where so many are wanted. The suite's guarantee moves a little with every
    /// test that fails: a test that has nearly all its runs is not run again by itself for that.
    fn enough(&self, wanted: u32) -> u32 {
        match self.question.guarantee {
            Guarantee::PerTest => wanted,
            Guarantee::PerSuite => wanted - wanted / NEARLY,
        }
    }

    /// Whether more attempts would be in vain: with others, and alone.
    fn gave_up(&self, tally: &TestTally) -> bool {
        let with_others = joins_others(tally, self.costs) && !self.futile.many;
        !with_others && self.futile.alone.given_up(self.place, self.ledger)
    }

    /// Whether a test with a full record is run once all the same.
    fn needs_a_look(&self) -> bool {
        match self.record {
            None => true,
            Some(record) => {
                record.age_days >= LOOK_AGAIN_DAYS
                    || spread_out(self.look, self.place).is_multiple_of(LOOK_AT_ONE_IN)
            }
        }
    }

    /// Failures without a pass after which a test is broken.
    fn failures_for_broken(&self) -> u32 {
        let classical = self.question.runs_for_guarantee();
        let enough = match self.question.guarantee {
            Guarantee::PerTest => classical,
            Guarantee::PerSuite => {
                let rates = &self.beliefs.of(self.place).rates;
                let risk = |n: &u32| rates.risk_of_broken(self.question.max_flake_rate, f64::from(*n));
                let enough = BROKEN_RISK * self.question.confidence.risk();
                let found = (1..classical).find(|n| risk(n) <= enough);
                found.unwrap_or(classical).min(self.runs_of_others)
            }
        };
        // If it always failed before, one more time says that it still does.
        match self.record {
            Some(record) if record.failures == record.attempts && record.attempts >= enough => 1,
            Some(_) | None => enough,
        }
    }
}

/// Clean runs that failures of the test at `place` in other worlds would have been, where these accuse it.
fn told_elsewhere(place: usize, ledger: &Ledger, worlds: &WorldsSeen) -> u32 {
    if ledger.tally_of(place).failures_elsewhere == 0 {
        return 0;
    }
    let failed = ledger.observations_at(place).iter().filter(|o| matches!(o.seen, Seen::Fail(_)));
    let accused = failed.filter_map(|o| o.treatment.other_world()).filter(|world| worlds.is_usable(*world));
    accused.map(World::clean_runs).sum()
}

/// A number by seed and place, cheap enough for every test at every turn (the finaliser of SplitMix64).
fn spread_out(seed: u64, place: usize) -> u64 {
    let mut bits = seed ^ (place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Clean runs each test is to have for the suite's guarantee: where they take most off the expected
/// number of missed flaky tests for the container time they cost, until that number is the wanted
/// share of the flaky tests that are expected. The optimum of a convex problem, by bisection over the
/// price of a missed test. It is about the tests that earlier sweeps left open: the others had their
/// share when they were new.
fn suite_targets(
    question: &Question,
    ledger: &Ledger,
    history: &History,
    beliefs: &Beliefs,
    costs: &Costs<'_>,
    elsewhere: &Elsewhere,
) -> Vec<u32> {
    let most = question.most_runs();
    let count = ledger.tests().len();
    let mut open: Vec<(usize, usize, f64)> = Vec::with_capacity(count);
    let (mut expected, mut missed) = (0.0, 0.0);
    let mut targets: Vec<u32> = vec![0; count];
    let wanted_share = SAFETY * question.confidence.risk();
    for (place, target) in targets.iter_mut().enumerate() {
        let tally = ledger.tally_of(place);
        if tally.failures > 0 || tally.skips > 0 && tally.passes == 0 {
            continue;
        }
        let old = record_of(history, ledger, place).map_or(0.0, |record| record.clean_runs);
        let seen = tally.passes + ledger.under_way(place) + tally.elsewhere() + elsewhere.of(place);
        let clean = old + f64::from(seen);
        let belief = beliefs.of(place);
        let have = (clean as usize).min(most as usize);
        if belief.missed_after(old) <= wanted_share * belief.missed[0] {
            *target = u32::try_from(have).expect("at most as many as can be wanted");
            continue;
        }
        expected += belief.missed[0];
        missed += belief.missed_after(clean);
        open.push((place, have, costs.seconds_at(place)));
    }
    let start = costs.overhead(Scope::Suite);
    let share_of_start = start / open.len().max(1) as f64;
    open.iter_mut().for_each(|(_, _, seconds)| *seconds += share_of_start);
    let wanted = wanted_share * expected;
    let at = |price: f64, have: usize, place: usize, seconds: f64| -> usize {
        let gain = &beliefs.of(place).gain;
        let worth_it = gain.partition_point(|gain| *gain >= price * seconds);
        worth_it.clamp(have, (most as usize).max(have))
    };
    let price = if missed <= wanted {
        f64::INFINITY
    } else {
        let (mut low, mut high) = (-40.0_f64, 20.0_f64);
        for _ in 0..PRICE_STEPS {
            let middle = 0.5 * (low + high);
            let left: f64 = open
                .iter()
                .map(|(place, have, seconds)| {
                    beliefs.of(*place).missed[at(middle.exp(), *have, *place, *seconds)]
                })
                .sum();
            if left <= wanted { low = middle } else { high = middle }
        }
        low.exp()
    };
    // What tests gain together from one more attempt, by runs they have by then, and what it costs: the
    // tests that are left at the end must still pay for the whole start of a container.
    let mut together = vec![(0.0, start); most as usize + 1];
    for (place, have, seconds) in &open {
        let target = at(price, *have, *place, *seconds);
        targets[*place] = u32::try_from(target).expect("at most as many as can be wanted");
        let gain = &beliefs.of(*place).gain;
        for runs in *have..target {
            together[runs].0 += gain[runs];
            together[runs].1 += seconds - share_of_start;
        }
    }
    let guaranteed = question.runs_for_guarantee();
    let worth_it = |runs: &u32| {
        let (gain, seconds) = together[*runs as usize];
        gain >= LAST_ATTEMPTS * price * seconds
    };
    // Where most tests are known, nights to come add runs of everything for nothing.
    let most = if 2 * open.len() < count { guaranteed } else { most };
    let cap = (guaranteed..most).find(|runs| !worth_it(runs)).unwrap_or(most);
    for (place, have, _) in open {
        let have = u32::try_from(have).expect("at most as many as can be wanted");
        targets[place] = targets[place].min(cap.max(have));
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_alone_that_came_to_nothing_keep_no_test_from_others_among_which_it_is_heard_of() {
        let ledger = Ledger::new(Vec::new());
        let costs = Costs::learn(&ledger, &History::default());
        let joins = |change: fn(&mut TestTally)| {
            let mut tally = TestTally::default();
            tally.alone_in_vain = 4;
            change(&mut tally);
            joins_others(&tally, &costs)
        };
        assert!(!joins(|_| ()));
        assert!(joins(|tally| tally.passes = 1));
        assert!(!joins(|tally| (tally.passes, tally.alone) = (1, 1)));
        assert!(!joins(|tally| (tally.passes, tally.unheard) = (1, UNHEARD)));
    }

    #[test]
    fn who_seldom_ends_attempts_goes_on_among_others() {
        let ledger = Ledger::new(Vec::new());
        let costs = Costs::learn(&ledger, &History::default());
        let joins = |passes, interruptions| {
            let mut tally = TestTally::default();
            (tally.passes, tally.interruptions) = (passes, interruptions);
            joins_others(&tally, &costs)
        };
        let runs = costs.runs_for_an_interruption();
        assert!(joins(0, 0) && joins(runs, 1) && joins(3 * runs, 3));
        assert!(!joins(0, 1) && !joins(runs - 1, 1) && !joins(3 * runs - 1, 3));
    }
}
