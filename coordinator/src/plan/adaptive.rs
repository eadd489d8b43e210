//! The planner for as many runs per test as its answer takes.
//!
//! A sweep opens with a few orders of the suite. From then on every turn asks what each test still
//! needs ([`super::needs`]) and plans attempts on the suite that leave out the tests that need
//! nothing more, as far as that is cheaper: the k-th attempt from now takes the tests that need k
//! runs or more, so that one container's start is shared by as many as possible. What looks suspicious
//! runs alone beside it. Nothing waits for a phase to end: a few jobs per worker are always under
//! way, and what comes in changes what is planned next.

use super::alone::{self, Missing};
use super::batch::{self, Wanted};
use super::beliefs::Beliefs;
use super::chains;
use super::costs::{Costs, Known};
use super::firsts;
use super::funds::Funds;
use super::groups::{self, Group};
use super::needs::{Futile, Needs, joins_others, record_of};
use super::panel;
use super::repeats;
use super::slots;
use super::suspects::{self, Suspects};
use crate::experiment::{
    Estimate, Guarantee, History, JobKey, JobPhase, Ledger, Plan, PlannedJob, Planning, Question,
    ScopeChoice, Series, Standing, TestTally,
};
use flakefarm_shared::{AttemptSpec, Order, Scope, Selection, TestId};
use std::collections::VecDeque;
use std::time::Duration;

/// Jobs under way per worker beyond which nothing is planned that can wait.
const JOBS_PER_WORKER: usize = 3;
/// Share of the container time in tests that the screen may cost, tests that run alone once although nothing
/// speaks against them, but for a floor in seconds: no more than a share of the fixed number of runs, of which
/// a small suite's are mostly starts.
const SCREEN_SHARE: f64 = 0.003;
const SCREEN_SECONDS: f64 = 5.0;
const SCREEN_SHARE_OF_ALL: f64 = 0.02;
const SCREEN_TESTS: usize = 400;
/// Share of the attempts on many tests that are left which is planned at once where shuffles begin with what is
/// suspected by then, and seconds per worker up to which all of them are.
const FIRST_PORTION: f64 = 0.6;
const LAST_PORTION_SECONDS: f64 = 8.0;
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
    let mut panel = panel::plan(question, &turn.selected, &costs, history, ledger, Some(&wants));
    let suspects = turn.suspects(&wants);
    let pressing = turn.alone_wanted(&mut wants, &suspects, &panel.plain_alone, outstanding);
    let later = pressing.later(&costs);
    let pressing = turn.priced(pressing.next);
    let mut pressing = batch::pack_some(JobPhase::Alone, 0, pressing, later.container_seconds, workers);
    jobs.retain(|job| funds.buy_job(job, &costs));
    let whole_panel = panel.bought(&mut funds, &costs);
    for spec in panel.in_other_worlds() {
        (0..spec.treatment.world.clean_runs()).for_each(|_| take_off(&mut wants, &spec.tests, ledger));
    }
    jobs.extend(panel.into_jobs(workers));
    pressing.retain(|job| funds.buy_job(job, &costs));
    // What they cost is not spent on others before their turn comes.
    funds.put_aside(later);
    jobs.extend(batch::numbered(JobPhase::Alone, pressing, ledger));

    let mut now = turn.opening_wanted(&mut wants);
    let opening = now.len();
    let screen = turn.screen(&mut wants);
    let Repeats { now: mut again, kept } = turn.repeated_shuffles(&mut wants, outstanding);
    let planned = again.len();
    again.retain(|job| funds.buy_job(job, &costs));
    let all_repeats = again.len() == planned;
    jobs.extend(again);
    jobs.extend(turn.apart(&mut wants, &suspects).filter(|job| funds.buy_job(job, &costs)));
    let affordable = funds.affordable(&wants, &turn.beliefs, &costs);
    let limited = affordable != wants || !whole_panel || !all_repeats;
    let varies = opening > 0 || turn.still_varies(&jobs);
    let busy = Busy { jobs: outstanding + jobs.len(), varies, kept };
    let many = turn.attempts_on_many(&affordable, opening, workers, busy, &suspects);
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

    let mut remaining = costs.remaining(&jobs);
    remaining += foreseen;
    remaining += later;
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

/// What is under way or planned before attempts on many tests are.
#[derive(Clone, Copy)]
struct Busy {
    /// Jobs.
    jobs: usize,
    /// Whether first orders and other worlds are among them.
    varies: bool,
    /// Attempts on many tests that are kept for what is to be repeated.
    kept: usize,
}

/// A shuffle in which tests failed, again.
#[derive(Default)]
struct Repeats {
    now: Vec<PlannedJob>,
    /// Attempts on many tests that are kept for it until more of them have shown which shuffle.
    kept: usize,
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

    fn suspects(&self, wants: &[u32]) -> Suspects {
        let Self { question, ledger, history, costs, needs, futile, .. } = self;
        Suspects::find(&suspects::Situation { question, ledger, history, costs, needs, futile, wants })
    }

    /// Runs alone that cannot wait: of tests that are not run with others, of suspicious ones, and of
    /// those to `compare` with what they did in other worlds.
    fn alone_wanted(
        &self,
        wants: &mut [u32],
        suspects: &Suspects,
        compare: &[(usize, u32)],
        outstanding: usize,
    ) -> Missing {
        let mut targets = vec![0_u32; wants.len()];
        let everything_alone = self.question.scope == ScopeChoice::Test || self.futile.many;
        for (place, want) in wants.iter_mut().enumerate() {
            let tally = self.tally(place);
            if *want > 0 && (everything_alone || !joins_others(tally, self.costs)) {
                targets[place] = tally.alone + tally.alone_under_way + *want;
                *want = 0;
            }
        }
        let most = self.question.runs_for_guarantee();
        for (place, runs) in &suspects.alone {
            self.raise(&mut targets, *place, (*runs).min(most), wants);
        }
        for (place, runs) in compare {
            self.raise(&mut targets, *place, *runs, wants);
        }
        let workers = usize::from(self.question.workers.get());
        let room = if outstanding < batch::most_under_way(workers) { batch::AT_A_TURN } else { 0 };
        self.futile.alone.wanted(&targets, self.ledger, room)
    }

    /// What only failed, without all others: what passes there is spoilt by one of these.
    fn apart(&self, wants: &mut [u32], suspects: &Suspects) -> Option<PlannedJob> {
        if suspects.apart.is_empty() {
            return None;
        }
        let tests = Selection::only(suspects.apart.clone());
        take_off(wants, &tests, self.ledger);
        let attempts = vec![AttemptSpec::plain(Scope::Suite, tests, Order::AsListed)];
        Some(PlannedJob { key: JobKey::new(JobPhase::Apart, 0), attempts })
    }

    /// Has the test at `place` run alone `runs` times at least; runs that are new count towards its want.
    fn raise(&self, targets: &mut [u32], place: usize, runs: u32, wants: &mut [u32]) {
        let tally = self.tally(place);
        let before = targets[place].max(tally.alone + tally.alone_under_way);
        targets[place] = targets[place].max(runs);
        wants[place] = wants[place].saturating_sub(runs.saturating_sub(before));
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
    /// because of their neighbours. Chosen once, as soon as the suite's cost is known; none where shuffles are
    /// chosen to begin with such tests.
    fn screen(&self, wants: &mut [u32]) -> Vec<Wanted> {
        if self.question.scope != ScopeChoice::Auto
            || self.costs.suite().is_none()
            || self.ledger.tests().len() < 2
            || firsts::are_chosen(self.question, self.ledger)
            || self.ledger.keys_of(JobPhase::Screen).next().is_some()
        {
            return Vec::new();
        }
        let all = f64::from(self.question.runs_for_guarantee()) * self.costs.suite().unwrap_or(0.0);
        let floor = SCREEN_SECONDS.min(SCREEN_SHARE_OF_ALL * all);
        let money = (SCREEN_SHARE * self.needs.seconds_in_tests(self.costs)).max(floor);
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
    fn attempts_on_many(
        &self,
        wants: &[u32],
        opening: usize,
        workers: usize,
        busy: Busy,
        suspects: &Suspects,
    ) -> Many {
        let mut many = Many { now: Vec::new(), foreseen: Estimate::default() };
        let mut groups = groups::of(self.question, self.costs, self.chains.first_free, wants);
        let most = groups.iter().map(Group::most).max().unwrap_or(0);
        let (mut total, mut attempts) = (0.0, 0_usize);
        for group in &groups {
            total += (1..=group.most()).map(|k| group.seconds(k)).sum::<f64>();
            attempts += group.most();
        }
        let room = self.room(total, attempts, opening, workers, busy);
        let mut room = room.min(attempts.saturating_sub(busy.kept));
        let mut begin = match room {
            0 => VecDeque::new(),
            _ => firsts::wanted(self.question, self.history, self.costs, &suspects.first, wants),
        };
        for k in 1..=most {
            for group in groups.iter_mut().filter(|group| group.most() >= k) {
                if room == 0 {
                    many.foreseen.attempts += 1;
                    many.foreseen.container_seconds += group.seconds(k);
                    continue;
                }
                room -= 1;
                let number = group.number + if group.file.is_some() { 0 } else { opening };
                let order = self.order(number, group.file);
                group.number += 1;
                let mut attempt = group.attempt(self.question, self.costs, wants, k, order);
                if group.file.is_none() {
                    firsts::begin(self.question, self.ledger, &mut attempt.spec, number, &mut begin);
                }
                many.now.push(attempt);
            }
        }
        many
    }

    /// Whether attempts of the first orders or of the panel are under way, or among `jobs`.
    fn still_varies(&self, jobs: &[PlannedJob]) -> bool {
        let varies = |key: JobKey| matches!(key.phase, JobPhase::Slots(_) | JobPhase::Retry(_));
        jobs.iter().any(|job| varies(job.key)) || self.ledger.outstanding().any(varies)
    }

    fn order(&self, number: usize, file: Option<&str>) -> Order {
        match file {
            None => slots::order_of(self.question, number),
            Some(file) => slots::order_in_file(self.question, file, number),
        }
    }

    /// How many of `most` attempts that take `total` seconds to plan now.
    fn room(&self, total: f64, most: usize, opening: usize, workers: usize, busy: Busy) -> usize {
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
                let each = (total / most.max(1) as f64).max(1e-6);
                let attempts = |jobs: usize, seconds: f64| {
                    let per_job = (seconds / each).max(1.0).floor();
                    (jobs as f64 * per_job).min(most as f64) as usize
                };
                if !firsts::are_chosen(self.question, self.ledger) {
                    let jobs = (JOBS_PER_WORKER * workers).saturating_sub(busy.jobs);
                    return attempts(jobs, batch::job_seconds(total, workers));
                }
                // What is learnt meanwhile decides what shuffles begin with.
                if busy.varies {
                    return attempts(workers.saturating_sub(busy.jobs), batch::LEAST_JOB_SECONDS);
                }
                let portion = if total > LAST_PORTION_SECONDS * workers as f64 { FIRST_PORTION } else { 1.0 };
                let jobs = (workers + workers.div_ceil(2)).saturating_sub(busy.jobs);
                attempts(jobs, batch::job_seconds(portion * total, workers))
                    .min((portion * most as f64).ceil() as usize)
            }
        }
    }

    fn pack_opening(&self, wanted: Vec<Wanted>, workers: usize) -> Vec<PlannedJob> {
        batch::pack(JobPhase::Slots(self.series), self.chains.first_free, wanted, workers)
    }

    /// The failing shuffle that says most of tests not yet seen to do both under one treatment, again: what fails again
    /// fails for the order, what passes fails by chance. Once, as soon as enough attempts have shown which it is.
    fn repeated_shuffles(&self, wants: &mut [u32], outstanding: usize) -> Repeats {
        let Some(order) = self.shuffle_to_repeat(wants) else { return Repeats::default() };
        let at_the_end = outstanding == 0 && wants.iter().all(|want| *want <= REPEATS);
        if !at_the_end && self.ledger.attempts_on_many().0 < REPEATS_AFTER {
            return Repeats { now: Vec::new(), kept: REPEATS as usize };
        }
        let tests = slots::everything(self.question, &self.question.select(self.ledger.tests()));
        let spec = AttemptSpec::plain(Scope::Suite, tests, order);
        let job =
            |repeat| PlannedJob { key: JobKey::new(JobPhase::Repeat, repeat), attempts: vec![spec.clone()] };
        (0..REPEATS).for_each(|_| take_off(wants, &spec.tests, self.ledger));
        Repeats { now: (0..REPEATS).map(job).collect(), kept: 0 }
    }

    /// The shuffle to be repeated, if none was and the runs that this adds to those that are wanted cost little.
    fn shuffle_to_repeat(&self, wants: &[u32]) -> Option<Order> {
        if self.question.scope != ScopeChoice::Auto
            || self.costs.suite().is_none()
            || self.ledger.keys_of(JobPhase::Repeat).next().is_some()
        {
            return None;
        }
        let beside = |(place, want): (usize, &u32)| {
            f64::from(REPEATS.saturating_sub(*want)) * self.costs.seconds_at(place)
        };
        let beside: f64 = wants.iter().enumerate().map(beside).sum();
        if beside > REPEATS_SHARE * self.ledger.container_seconds() {
            return None;
        }
        repeats::take_most_telling(&mut repeats::failing_shuffles(self.ledger))
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
