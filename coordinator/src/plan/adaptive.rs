//! The planner for as many runs per test as its answer takes.
//!
//! A sweep opens with a few orders of the suite. From then on every turn asks what each test still
//! needs ([`super::needs`]) and plans attempts on the suite that leave out the tests that need
//! nothing more, as far as that is cheaper: the k-th attempt from now takes the tests that need k
//! runs or more, so that one container's start is shared by as many as possible. What looks suspicious
//! runs alone beside it. Nothing waits for a phase to end: a few jobs per worker are always under
//! way, and what comes in changes what is planned next.

use super::alone;
use super::batch::{self, Wanted};
use super::beliefs::Beliefs;
use super::chains;
use super::costs::{Costs, Known};
use super::funds::Funds;
use super::needs::{Futile, Needs, joins_others, record_of};
use super::panel;
use super::repeats;
use super::slots;
use crate::experiment::{
    Answer, Estimate, Guarantee, History, JobKey, JobPhase, Ledger, Plan, PlannedJob, Planning, Question,
    ScopeChoice, Series, Standing, TestTally,
};
use crate::score::Category;
use flakefarm_shared::{AttemptSpec, Order, Scope, Selection, TestId};
use std::collections::BTreeMap;
use std::time::Duration;

/// Jobs under way per worker beyond which nothing is planned that can wait.
const JOBS_PER_WORKER: usize = 3;
/// Runs alone of a test that fails and has passed: at once, and at most, as long as it is open whether its
/// neighbours spoil it, prepare something for it, or have no part in it. And of one that has only failed.
const ALONE_AT_ONCE: u32 = 2;
const ALONE_VARYING: u32 = 8;
/// What a suspicious test may have at least where there are no more than so many.
const ALONE_LEAST: u32 = 3;
const FEW_SUSPECTS: usize = 12;
/// One that fails less often than this among others gets one run alone, and more only once an order was
/// seen to decide: before that, more would not tell order from chance.
const OFTEN: f64 = 0.2;
/// Where more tests than this fail, each gets what is meant for all of them at once.
const JUDGED_ONE_BY_ONE: usize = 60;
const ALONE_FAILING: u32 = 2;
/// Share of the container time so far that runs alone of suspicious tests may cost, but for a floor
/// in seconds.
const ALONE_SHARE: f64 = 0.012;
const ALONE_SECONDS: f64 = 30.0;
/// The same for tests that fail each time: one run of each.
const FAILING_SHARE: f64 = 0.05;
const FAILING_SECONDS: f64 = 120.0;
/// The same for the screen: tests that run alone once although nothing speaks against them. The floor is no
/// more than a share of the fixed number of runs, of which a small suite's are mostly starts.
const SCREEN_SHARE: f64 = 0.003;
const SCREEN_SECONDS: f64 = 5.0;
const SCREEN_SHARE_OF_ALL: f64 = 0.02;
const SCREEN_TESTS: usize = 400;
/// Tests are left out of an attempt on the suite if that saves this share of it.
const WORTH_LEAVING_OUT: f64 = 0.003;
/// How often a failing shuffle is repeated, if what that costs beside the runs that are wanted anyway is
/// no more than this share of the sweep; and after how many attempts on many tests, if not at the end.
const REPEATS: u32 = 2;
const REPEATS_SHARE: f64 = 0.05;
const REPEATS_AFTER: u32 = 12;

/// What to run next.
pub(super) fn plan(question: &Question, ledger: &Ledger, history: &History, elapsed: Duration) -> Plan {
    let costs = Costs::learn(ledger, history);
    let workers = usize::from(question.workers.get());
    let outstanding = ledger.outstanding().count();
    let mut funds = Funds::left(question, ledger, &costs, elapsed);
    let turn = Turn::look(question, ledger, history, &costs);

    let mut jobs = Vec::new();
    let mut wants = turn.needs.runs.clone();
    for job in &turn.chains.follow_ups {
        for spec in job.attempts.iter().filter(|spec| spec.treatment.is_plain()) {
            take_off(&mut wants, &spec.tests, ledger);
        }
    }
    jobs.extend(turn.chains.follow_ups.iter().cloned());
    let mut panel = panel::plan(question, &turn.selected, &costs, history, ledger);
    let pressing = turn.alone_wanted(&mut wants, &panel.plain_alone);
    let mut pressing = batch::pack(JobPhase::Alone, 0, pressing, workers);
    jobs.retain(|job| funds.buy_job(job, &costs));
    let whole_panel = panel.bought(&mut funds, &costs);
    jobs.extend(panel.into_jobs(workers));
    pressing.retain(|job| funds.buy_job(job, &costs));
    jobs.extend(batch::numbered(JobPhase::Alone, pressing, ledger));

    let mut now = turn.opening_wanted(&mut wants);
    let opening = now.len();
    let screen = turn.screen(&mut wants);
    let repeats = turn.repeated_shuffles(&mut wants, outstanding);
    jobs.extend(repeats.into_iter().filter(|job| funds.buy_job(job, &costs)));
    let affordable = funds.affordable(&wants, &turn.beliefs, &costs);
    let limited = affordable != wants || !whole_panel;
    let many = turn.attempts_on_many(&affordable, opening, workers, outstanding + jobs.len());
    let foreseen = many.foreseen;
    now.extend(many.now);
    let bought = now.iter().take_while(|wanted| funds.buy(wanted.seconds)).count();
    let limited = limited || bought < now.len();
    now.truncate(bought);

    let opening = opening.min(now.len());
    let more = now.split_off(opening);
    jobs.extend(turn.pack_opening(now, workers));
    let mut screen = batch::pack(JobPhase::Screen, 0, screen, workers);
    screen.retain(|job| funds.buy_job(job, &costs));
    jobs.extend(batch::numbered(JobPhase::Screen, screen, ledger));
    jobs.extend(batch::numbered(JobPhase::More, batch::pack(JobPhase::More, 0, more, workers), ledger));

    let mut remaining = under_way(ledger, &costs);
    for spec in jobs.iter().flat_map(|job| &job.attempts) {
        remaining.attempts += 1;
        remaining.container_seconds += costs.of(spec).unwrap_or(0.0);
    }
    remaining.attempts += foreseen.attempts;
    remaining.container_seconds += foreseen.container_seconds;
    let state = match (jobs.is_empty(), outstanding) {
        (true, 0) => Planning::Complete,
        (true, _) if funds.is_overdue() => Planning::Overdue,
        (true, _) | (false, _) => Planning::Working,
    };
    if foreseen.attempts == 0 {
        batch::longest_first(&mut jobs, &costs);
    }
    Plan { jobs, remaining, state, limited }
}

/// How it stands at one turn.
struct Turn<'a> {
    question: &'a Question,
    ledger: &'a Ledger,
    history: &'a History,
    costs: &'a Costs<'a>,
    beliefs: Beliefs,
    needs: Needs,
    futile: Futile,
    series: Series,
    chains: chains::Chains,
    selected: Vec<TestId>,
}

/// Attempts on many tests.
struct Many {
    /// To be planned now.
    now: Vec<Wanted>,
    /// Those after them.
    foreseen: Estimate,
}

impl<'a> Turn<'a> {
    fn look(question: &'a Question, ledger: &'a Ledger, history: &'a History, costs: &'a Costs<'a>) -> Self {
        let beliefs = Beliefs::form(question, ledger, history, costs);
        let futile = Futile::read(ledger);
        let mut needs = Needs::find(question, ledger, history, &beliefs, costs, &futile);
        if !question.tests.is_everything() {
            for (place, test) in ledger.tests().iter().enumerate() {
                if !question.tests.selects(test) {
                    needs.runs[place] = 0;
                }
            }
        }
        let selected = question.select(ledger.tests());
        let (series, slots) = slots::first_phase(question, history, ledger, &selected);
        let chains = chains::follow(series, &slots, ledger);
        Self { question, ledger, history, costs, beliefs, needs, futile, series, chains, selected }
    }

    fn tally(&self, place: usize) -> &TestTally {
        self.ledger.tally_of(place)
    }

    /// Runs alone that cannot wait: of tests that are not run with others, of suspicious ones, and of
    /// those to `compare` with what they did in other worlds.
    fn alone_wanted(&self, wants: &mut [u32], compare: &[(usize, u32)]) -> Vec<Wanted> {
        let mut targets = vec![0_u32; wants.len()];
        let everything_alone = self.question.scope == ScopeChoice::Test || self.futile.many;
        let mut suspects: Vec<usize> = Vec::new();
        for (place, want) in wants.iter_mut().enumerate() {
            let tally = self.tally(place);
            if *want > 0 && (everything_alone || !joins_others(tally)) {
                targets[place] = tally.alone + tally.alone_under_way + *want;
                *want = 0;
            } else if self.question.scope == ScopeChoice::Auto
                && tally.failures > 0
                && !self.futile.alone.given_up(place, self.ledger)
                && matches!(self.needs.answers[place], Answer::Open(_) | Answer::Flaky)
                && !self.failed_before(place)
                && !repeats::varies_unchanged(self.ledger, place)
            {
                suspects.push(place);
            }
        }
        let each = self.runs_alone(&suspects);
        let few = suspects.len() <= JUDGED_ONE_BY_ONE;
        let at_the_end = wants.iter().all(|want| *want == 0) && self.ledger.outstanding().next().is_none();
        let (varying, failing): (Vec<usize>, Vec<usize>) =
            suspects.into_iter().partition(|place| self.tally(*place).passes > 0);
        for place in varying.into_iter().chain(self.sample_of_failing(failing)) {
            let tally = self.tally(place);
            let runs = match tally.passes {
                0 => ALONE_FAILING.min(each),
                1.. => self.runs_alone_of_varying(place, each, at_the_end, few),
            };
            self.raise(&mut targets, place, runs.min(self.question.runs_for_guarantee()), wants);
        }
        for (place, runs) in compare {
            self.raise(&mut targets, *place, *runs, wants);
        }
        self.priced(self.futile.alone.wanted(&targets, self.ledger))
    }

    /// How often a test that passed and failed is to run alone, at most `each` times: a few at once; then one
    /// by one, where an order decides and it is open which way, or nothing has decided in the end.
    fn runs_alone_of_varying(&self, place: usize, each: u32, at_the_end: bool, few: bool) -> u32 {
        let tally = self.tally(place);
        let often = f64::from(tally.failures) >= OFTEN * f64::from(tally.attempts());
        let likely = often || repeats::failed_alone(self.ledger, place);
        let first = if likely { ALONE_AT_ONCE.min(each) } else { 1 };
        if !few || tally.alone < first || tally.alone >= each || tally.alone_under_way > 0 {
            return first;
        }
        let is_open = match crate::score::category_of(self.ledger, &self.ledger.tests()[place]) {
            Some(Category::OrderDependent) => true,
            Some(_) => false,
            None => likely && at_the_end,
        };
        if is_open { tally.alone + 1 } else { first }
    }

    /// Has the test at `place` run alone `runs` times at least; runs that are new count towards its want.
    fn raise(&self, targets: &mut [u32], place: usize, runs: u32, wants: &mut [u32]) {
        let tally = self.tally(place);
        let before = targets[place].max(tally.alone + tally.alone_under_way);
        targets[place] = targets[place].max(runs);
        wants[place] = wants[place].saturating_sub(runs.saturating_sub(before));
    }

    /// Whether earlier sweeps saw it fail, and looked at it then.
    fn failed_before(&self, place: usize) -> bool {
        record_of(self.history, self.ledger, place).is_some_and(|record| record.failures > 0)
    }

    /// Runs alone that each suspicious test gets: fewer where there are many of them (a service is down
    /// in half of the attempts, say).
    fn runs_alone(&self, suspects: &[usize]) -> u32 {
        let tests = self.ledger.tests();
        let one_round: f64 = suspects.iter().filter_map(|place| self.costs.alone(&tests[*place])).sum();
        let money = (ALONE_SHARE * self.foreseen_seconds()).max(ALONE_SECONDS);
        let affordable = if one_round > 0.0 { (money / one_round) as u32 } else { ALONE_VARYING };
        let least = if suspects.len() <= FEW_SUSPECTS { ALONE_LEAST } else { 1 };
        affordable.clamp(least, ALONE_VARYING)
    }

    /// Those of the tests that always fail that are tried alone: all, unless that costs too much. Where
    /// thousands fail, the environment is to blame; a sample shows whether their neighbours are.
    fn sample_of_failing(&self, failing: Vec<usize>) -> Vec<usize> {
        let money = (FAILING_SHARE * self.foreseen_seconds()).max(FAILING_SECONDS);
        let tests: Vec<TestId> = failing.iter().map(|place| self.ledger.tests()[*place].clone()).collect();
        let sample = alone::affordable(&tests, self.question.seed, money, self.costs);
        sample.filter_map(|test| self.ledger.place(test)).collect()
    }

    /// Seconds in tests if every test gets the clean runs that are enough, those made included.
    fn foreseen_seconds(&self) -> f64 {
        let targets = self.needs.targets.iter().enumerate();
        targets.map(|(place, runs)| f64::from(*runs) * self.costs.seconds_at(place)).sum()
    }

    /// The attempts of the first phase that were not planned yet.
    fn opening_wanted(&self, wants: &mut [u32]) -> Vec<Wanted> {
        let wanted = self.chains.wanted.clone();
        for spec in wanted.iter().filter(|spec| spec.treatment.is_plain()) {
            take_off(wants, &spec.tests, self.ledger);
        }
        self.priced(wanted)
    }

    /// Tests to run alone once although nothing speaks against them, which finds those that only pass
    /// because of their neighbours. Chosen once, as soon as the suite's cost is known.
    fn screen(&self, wants: &mut [u32]) -> Vec<Wanted> {
        if self.question.scope != ScopeChoice::Auto
            || self.costs.suite().is_none()
            || self.ledger.tests().len() < 2
            || self.ledger.keys_of(JobPhase::Screen).next().is_some()
        {
            return Vec::new();
        }
        let all = f64::from(self.question.runs_for_guarantee()) * self.costs.suite().unwrap_or(0.0);
        let floor = SCREEN_SECONDS.min(SCREEN_SHARE_OF_ALL * all);
        let money = (SCREEN_SHARE * self.foreseen_seconds()).max(floor);
        let unknown = |test: &&TestId| {
            self.ledger.place(test).is_some_and(|place| {
                wants[place] > 0 && record_of(self.history, self.ledger, place).is_none()
            })
        };
        let candidates: Vec<TestId> = self.ledger.tests().iter().filter(unknown).cloned().collect();
        if 2 * candidates.len() < self.ledger.tests().len() && !self.history.is_empty() {
            return Vec::new(); // they run without most of the others anyway
        }
        let mut chosen = Vec::new();
        for test in alone::affordable(&candidates, self.question.seed, money, self.costs).take(SCREEN_TESTS) {
            if let Some(place) = self.ledger.place(test) {
                wants[place] = wants[place].saturating_sub(1);
            }
            chosen.push(alone::spec(test));
        }
        self.priced(chosen)
    }

    fn priced(&self, specs: Vec<AttemptSpec>) -> Vec<Wanted> {
        specs.into_iter().map(|spec| Wanted { seconds: self.costs.of(&spec), spec }).collect()
    }

    /// Attempts on many tests at once that give each test the runs it wants, those that take most tests
    /// first; as many of them now as keep the workers busy.
    fn attempts_on_many(&self, wants: &[u32], opening: usize, workers: usize, busy: usize) -> Many {
        let mut many = Many { now: Vec::new(), foreseen: Estimate::default() };
        let mut groups = self.groups(wants);
        let most = groups.iter().map(Group::most).max().unwrap_or(0);
        let (mut total, mut attempts) = (0.0, 0_usize);
        for group in &groups {
            total += group.levels[1..].iter().map(|(seconds, _)| group.start + seconds).sum::<f64>();
            attempts += group.most();
        }
        let mut room = self.room(total, attempts, opening, workers, busy);
        for k in 1..=most {
            for group in groups.iter_mut().filter(|group| group.most() >= k) {
                if room == 0 {
                    many.foreseen.attempts += 1;
                    many.foreseen.container_seconds += group.start + group.levels[k].0;
                    continue;
                }
                room -= 1;
                let number = group.number + if group.file.is_some() { 0 } else { opening };
                let order = self.order(number, group.file);
                group.number += 1;
                many.now.push(self.attempt_on(group, wants, k, order));
            }
        }
        many
    }

    /// What attempts are made on: the suite, or each file.
    fn groups(&self, wants: &[u32]) -> Vec<Group<'_>> {
        let tests = self.ledger.tests();
        let more = || self.ledger.keys_of(JobPhase::More).flat_map(|key| self.ledger.attempts_of(key));
        match self.question.scope {
            ScopeChoice::Test => Vec::new(),
            ScopeChoice::Suite | ScopeChoice::Auto => {
                let number = more().count() + self.chains.first_free;
                vec![Group::new(None, (0..tests.len()).collect(), number, wants, self)]
            }
            ScopeChoice::File => {
                let mut made: BTreeMap<&str, usize> = BTreeMap::new();
                for attempt in more() {
                    if let Some(Selection::Only(tests)) = attempt.spec.map(|spec| &spec.tests) {
                        let file = tests.first().map_or("", |test| self.ledger.file_of(test));
                        *made.entry(file).or_default() += 1;
                    }
                }
                let mut files: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
                for (place, test) in tests.iter().enumerate().filter(|(place, _)| wants[*place] > 0) {
                    files.entry(self.ledger.file_of(test)).or_default().push(place);
                }
                let group = |(file, places)| {
                    Group::new(Some(file), places, made.get(file).copied().unwrap_or(0), wants, self)
                };
                files.into_iter().map(group).collect()
            }
        }
    }

    /// An attempt on the tests of a group that want `k` runs or more, and on the others too where
    /// leaving them out saves next to nothing.
    fn attempt_on(&self, group: &Group<'_>, wants: &[u32], k: usize, order: Order) -> Wanted {
        let (seconds, tests) = group.levels[k];
        let whole = group.start + group.all.0;
        let everything = group.file.is_none()
            && self.question.tests.is_everything()
            && !group.must_leave_out
            && (tests == group.all.1 || group.all.0 - seconds <= WORTH_LEAVING_OUT * whole);
        let (spec, seconds) = if everything {
            (AttemptSpec::plain(Scope::Suite, Selection::All, order), whole)
        } else {
            let wanting = group.places.iter().filter(|place| wants[**place] as usize >= k);
            let chosen: Vec<TestId> = wanting.map(|place| self.ledger.tests()[*place].clone()).collect();
            let spec = match chosen.as_slice() {
                [test] => alone::spec(test),
                _ => AttemptSpec::plain(group.scope(), Selection::Only(chosen), order),
            };
            (spec, group.start + seconds)
        };
        Wanted { spec, seconds: (self.costs.known() == Known::Measured).then_some(seconds) }
    }

    fn order(&self, number: usize, file: Option<&str>) -> Order {
        match file {
            None => slots::order_of(self.question, number),
            Some(file) => slots::order_in_file(self.question, file, number),
        }
    }

    /// How many of `most` attempts that take `total` seconds to plan now.
    fn room(&self, total: f64, most: usize, opening: usize, workers: usize, busy: usize) -> usize {
        match self.costs.known() {
            Known::Nothing | Known::Before => {
                // Durations decide how many runs each test gets, unless all get the same number.
                let room = match self.question.guarantee {
                    // What is queued here would go before the panel.
                    Guarantee::PerTest if !self.question.panel.is_empty() => workers,
                    Guarantee::PerTest => 2 * workers,
                    Guarantee::PerSuite => workers.min(most / 2).max(1),
                };
                let under_way = self.ledger.each_attempt().filter(|a| a.standing == Standing::Outstanding);
                room.saturating_sub(under_way.count() + opening).min(most)
            }
            Known::Measured => {
                let jobs = (JOBS_PER_WORKER * workers).saturating_sub(busy);
                let each = (total / most.max(1) as f64).max(1e-6);
                let per_job = (batch::job_seconds(total, workers) / each).max(1.0).floor();
                (jobs as f64 * per_job).min(most as f64) as usize
            }
        }
    }

    fn pack_opening(&self, wanted: Vec<Wanted>, workers: usize) -> Vec<PlannedJob> {
        batch::pack(JobPhase::Slots(self.series), self.chains.first_free, wanted, workers)
    }

    /// The failing shuffle of the opening that says most of tests not yet seen to do both under one
    /// treatment, again: what fails again fails for the order, what passes fails by chance.
    fn repeated_shuffles(&self, wants: &mut [u32], outstanding: usize) -> Vec<PlannedJob> {
        let at_the_end = outstanding == 0 && wants.iter().all(|want| *want == 0);
        let under_way = at_the_end || self.ledger.attempts_on_many().0 >= REPEATS_AFTER;
        if self.question.scope != ScopeChoice::Auto
            || !under_way
            || self.costs.suite().is_none()
            || self.ledger.keys_of(JobPhase::Repeat).next().is_some()
        {
            return Vec::new();
        }
        let beside = |(place, want): (usize, &u32)| {
            f64::from(REPEATS.saturating_sub(*want)) * self.costs.seconds_at(place)
        };
        let beside: f64 = wants.iter().enumerate().map(beside).sum();
        if beside > REPEATS_SHARE * self.ledger.container_seconds() {
            return Vec::new();
        }
        let Some(order) = repeats::take_most_telling(&mut repeats::failing_shuffles(self.ledger)) else {
            return Vec::new();
        };
        let tests = slots::everything(self.question, &self.question.select(self.ledger.tests()));
        let spec = AttemptSpec::plain(Scope::Suite, tests, order);
        let job =
            |repeat| PlannedJob { key: JobKey::new(JobPhase::Repeat, repeat), attempts: vec![spec.clone()] };
        (0..REPEATS).for_each(|_| take_off(wants, &spec.tests, self.ledger));
        (0..REPEATS).map(job).collect()
    }
}

/// The suite or a file, and the tests in it that attempts can take.
struct Group<'a> {
    file: Option<&'a str>,
    places: Vec<usize>,
    /// Of the next attempt on it.
    number: usize,
    /// Seconds of an attempt that are not its tests'.
    start: f64,
    /// Seconds and number of the tests that want k runs or more, by k from 1.
    levels: Vec<(f64, usize)>,
    /// The same of all tests.
    all: (f64, usize),
    /// Whether there are tests that must not run with the others.
    must_leave_out: bool,
}

impl<'a> Group<'a> {
    fn new(file: Option<&'a str>, places: Vec<usize>, number: usize, wants: &[u32], turn: &Turn<'_>) -> Self {
        let most = places.iter().map(|place| wants[*place] as usize).max().unwrap_or(0);
        let mut levels = vec![(0.0, 0); most + 1];
        let mut all = (0.0, 0);
        let mut must_leave_out = false;
        for place in &places {
            let seconds = turn.costs.seconds_at(*place);
            let level: &mut (f64, usize) = &mut levels[wants[*place] as usize];
            *level = (level.0 + seconds, level.1 + 1);
            all = (all.0 + seconds, all.1 + 1);
            must_leave_out |= !joins_others(turn.tally(*place));
        }
        for k in (1..most).rev() {
            levels[k] = (levels[k].0 + levels[k + 1].0, levels[k].1 + levels[k + 1].1);
        }
        let scope = if file.is_some() { Scope::File } else { Scope::Suite };
        let start = turn.costs.overhead(scope);
        Self { file, places, number, start, levels, all, must_leave_out }
    }

    fn most(&self) -> usize {
        self.levels.len() - 1
    }

    fn scope(&self) -> Scope {
        if self.file.is_some() { Scope::File } else { Scope::Suite }
    }
}

/// The tests of an attempt that is to be made want one run less.
fn take_off(wants: &mut [u32], tests: &Selection, ledger: &Ledger) {
    match tests {
        Selection::All => wants.iter_mut().for_each(|want| *want = want.saturating_sub(1)),
        Selection::Only(tests) => {
            for place in tests.iter().filter_map(|test| ledger.place(test)) {
                wants[place] = wants[place].saturating_sub(1);
            }
        }
    }
}

fn under_way(ledger: &Ledger, costs: &Costs<'_>) -> Estimate {
    let mut estimate = Estimate::default();
    let under_way = ledger.each_attempt().filter(|attempt| attempt.standing == Standing::Outstanding);
    for spec in under_way.filter_map(|attempt| attempt.spec) {
        estimate.attempts += 1;
        estimate.container_seconds += costs.of(spec).unwrap_or(0.0);
    }
    estimate
}
