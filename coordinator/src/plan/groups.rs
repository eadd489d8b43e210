//! What attempts on many tests are made on, the suite or each file, and which of its tests each takes: the k-th
//! from now those that want k runs or more.

use super::alone;
use super::batch::Wanted;
use super::costs::{Costs, Known};
use super::needs::joins_others;
use crate::experiment::{JobPhase, Question, ScopeChoice};
use flakefarm_shared::{AttemptSpec, Order, Scope, Selection, TestId};
use std::collections::BTreeMap;

/// Tests are left out of an attempt on the suite if that saves this share of it.
const WORTH_LEAVING_OUT: f64 = 0.003;

/// The suite or a file, and the tests in it that attempts can take.
pub(super) struct Group<'a> {
    /// None for the suite.
    pub(super) file: Option<&'a str>,
    /// Of the next attempt on it.
    pub(super) number: usize,
    places: Vec<usize>,
    /// Seconds of an attempt that are not its tests'.
    start: f64,
    /// Seconds and number of the tests that want k runs or more, by k from 1.
    levels: Vec<(f64, usize)>,
    /// The same of all tests.
    all: (f64, usize),
    /// Whether there are tests that must not run with the others.
    must_leave_out: bool,
}

/// What attempts are made on that give each test the runs in `wants`; those on the suite are numbered from
/// `first_free`.
pub(super) fn of<'a>(
    question: &Question,
    costs: &Costs<'a>,
    first_free: usize,
    wants: &[u32],
) -> Vec<Group<'a>> {
    let ledger = costs.ledger();
    let more = || ledger.keys_of(JobPhase::More).flat_map(|key| ledger.attempts_of(key));
    match question.scope {
        ScopeChoice::Test => Vec::new(),
        ScopeChoice::Suite | ScopeChoice::Auto => {
            let number = more().count() + first_free;
            vec![Group::new(None, (0..ledger.tests().len()).collect(), number, wants, costs)]
        }
        ScopeChoice::File => {
            let mut made: BTreeMap<&str, usize> = BTreeMap::new();
            for attempt in more() {
                if let Some(Selection::Only(tests)) = attempt.spec.map(|spec| &spec.tests) {
                    let file = tests.first().map_or("", |test| ledger.file_of(test));
                    *made.entry(file).or_default() += 1;
                }
            }
            let mut files: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
            for place in (0..ledger.tests().len()).filter(|place| wants[*place] > 0) {
                files.entry(ledger.file_at(place)).or_default().push(place);
            }
            let group = |(file, places)| {
                Group::new(Some(file), places, made.get(file).copied().unwrap_or(0), wants, costs)
            };
            files.into_iter().map(group).collect()
        }
    }
}

impl<'a> Group<'a> {
    fn new(
        file: Option<&'a str>,
        places: Vec<usize>,
        number: usize,
        wants: &[u32],
        costs: &Costs<'a>,
    ) -> Self {
        let most = places.iter().map(|place| wants[*place] as usize).max().unwrap_or(0);
        let mut levels = vec![(0.0, 0); most + 1];
        let mut all = (0.0, 0);
        let mut must_leave_out = false;
        for place in &places {
            let seconds = costs.seconds_at(*place);
            let level: &mut (f64, usize) = &mut levels[wants[*place] as usize];
            *level = (level.0 + seconds, level.1 + 1);
            all = (all.0 + seconds, all.1 + 1);
            must_leave_out |= !joins_others(costs.ledger().tally_of(*place), costs);
        }
        for k in (1..most).rev() {
            levels[k] = (levels[k].0 + levels[k + 1].0, levels[k].1 + levels[k + 1].1);
        }
        let start = costs.overhead(if file.is_some() { Scope::File } else { Scope::Suite });
        Self { file, number, places, start, levels, all, must_leave_out }
    }

    /// Attempts until every test has the runs that it wants.
    pub(super) fn most(&self) -> usize {
        self.levels.len() - 1
    }

    /// What the `k`-th attempt from now takes, in seconds, without tests that are in it for little more.
    pub(super) fn seconds(&self, k: usize) -> f64 {
        self.start + self.levels[k].0
    }

    /// The attempt on the tests that want `k` runs or more, and on the others too where leaving them out saves
    /// next to nothing.
    pub(super) fn attempt(
        &self,
        question: &Question,
        costs: &Costs<'_>,
        wants: &[u32],
        k: usize,
        order: Order,
    ) -> Wanted {
        let (seconds, tests) = self.levels[k];
        let whole = self.start + self.all.0;
        let everything = self.file.is_none()
            && question.tests.is_everything()
            && !self.must_leave_out
            && (tests == self.all.1 || self.all.0 - seconds <= WORTH_LEAVING_OUT * whole);
        let (spec, seconds) = if everything {
            (AttemptSpec::plain(Scope::Suite, Selection::All, order), whole)
        } else {
            let wanting = self.places.iter().filter(|place| wants[**place] as usize >= k);
            let chosen: Vec<TestId> = wanting.map(|place| costs.ledger().tests()[*place].clone()).collect();
            let scope = if self.file.is_some() { Scope::File } else { Scope::Suite };
            let spec = match chosen.as_slice() {
                [test] => alone::spec(test),
                _ => AttemptSpec::plain(scope, Selection::only(chosen), order),
            };
            (spec, self.seconds(k))
        };
        Wanted { spec, seconds: (costs.known() == Known::Measured).then_some(seconds) }
    }
}
