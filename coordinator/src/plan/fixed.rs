//! The planner for a fixed number of runs per test.
//!
//! With [`ScopeChoice::Auto`] the suite runs in several orders (slots), a seeded choice of tests
//! runs alone beside it (the screen), what fails is looked at alone and with its file alone, and
//! failing shuffles are repeated at the end, which tells order from chance. The other scopes run
//! only what they name. Runs that a slot lost for good are made up for alone.
//!
//! Wanted attempts are found by comparing what the question asks with what the ledger holds, never
//! by counting calls: planning is a level-triggered step like every other loop here.

use super::alone::{self, Alone};
use super::batch;
use super::batch::Wanted;
use super::chains::{self, Settled, Slot};
use super::costs::{Costs, SETTLED};
use super::panel;
use super::repeats;
use super::rerun;
use super::slots::{self, by_file};
use crate::experiment::{
    Estimate, History, JobKey, JobPhase, Ledger, Plan, PlannedJob, Planning, Question, ScopeChoice, Seen,
};
use flakefarm_shared::{AttemptSpec, Order, Scope, Selection, TestId};
use std::collections::{BTreeMap, BTreeSet};

/// Most tests the screen takes.
const SCREEN_TESTS: usize = 400;
/// Container seconds the screen may cost even where the suite costs less.
const SCREEN_SECONDS: f64 = 60.0;
/// Runs alone of a test that fails and has passed.
const SUSPICIOUS_RUNS: u32 = 20;
/// Runs alone of a test that has only failed, and of any where there are too many suspicious ones.
const SUSPICIOUS_RUNS_LEAST: u32 = 3;
/// Container seconds that suspicious tests may cost even where the suite costs less.
const SUSPICIOUS_SECONDS: f64 = 600.0;
/// Runs of the file of a suspicious test, and how many files.
const FILE_RUNS: usize = 3;
const FILES: usize = 50;
/// How often a failing shuffle is repeated, and how many shuffles.
const REPEATS: u32 = 2;
const REPEATED_SHUFFLES: u32 = 3;

/// What to run next, for a fixed number of runs per test.
pub(super) fn plan(question: &Question, ledger: &Ledger, history: &History) -> Plan {
    let costs = Costs::learn(ledger, history);
    let alone = Alone::read(ledger);
    let runs = question.runs_per_test();
    let workers = usize::from(question.workers.get());
    let selected = question.select(ledger.tests());

    if rerun::is_decided(question, &selected, &alone, ledger) {
        return rerun::nothing_more(ledger);
    }
    let (series, mut slots) = slots::first_phase(question, &History::default(), ledger, &selected);
    slots.extend(rerun::in_order(question, &selected, ledger));
    let chains = chains::follow(series, &slots, ledger);
    let mut targets = chains.short(&slots, ledger);
    let mut with_file = Vec::new();
    let mut screen = Vec::new();
    match question.scope {
        ScopeChoice::Suite | ScopeChoice::File => {}
        ScopeChoice::Test => {
            for test in &selected {
                if let Some(place) = ledger.place(test) {
                    targets[place] = rerun::runs_of(question, test, ledger);
                }
            }
        }
        ScopeChoice::Auto => {
            let suspects = Suspects::find(&selected, ledger);
            raise(&mut targets, &suspects.targets(runs, &costs, ledger));
            raise(&mut targets, &alone.screened.iter().map(|place| (*place, 1)).collect::<Vec<_>>());
            if question.able.can_run(Scope::File) {
                with_file = with_file_attempts(&suspects, &selected, runs, ledger);
            }
            if alone.screened.is_empty() {
                screen = screen_choice(question, &selected, &costs, ledger);
            }
        }
    }
    let panel = panel::plan(question, &selected, &costs, history, ledger, None);
    raise(&mut targets, &panel.plain_alone);
    let alone_wanted = alone.wanted(&targets, ledger, batch::AT_A_TURN);
    let alone_later = alone_wanted.later(&costs);

    let foreseen = rerun::foreseen_seconds(question);
    let price = |spec: &AttemptSpec| {
        let known = costs.of(spec).or(foreseen.filter(|_| spec.scope == Scope::Test));
        // What was never measured travels alone.
        known.filter(|_| !rerun::travels_alone(question, spec, ledger))
    };
    let mut jobs = chains.follow_ups.clone();
    let named = |phase, wanted: Vec<AttemptSpec>, later: f64| {
        batch::numbered(phase, batch::pack_some(phase, 0, priced(wanted, price), later, workers), ledger)
    };
    jobs.extend(panel.into_jobs(workers));
    jobs.extend(named(JobPhase::WithFile, with_file, 0.0));
    jobs.extend(named(JobPhase::Screen, screen, 0.0));
    let pressing = jobs.len();
    let slots_later = later_slots(&chains, &costs);
    let patient = interleave(
        batch::pack_some(
            JobPhase::Slots(series),
            chains.first_free,
            priced(chains.wanted.clone(), price),
            slots_later.container_seconds,
            workers,
        ),
        named(JobPhase::Alone, alone_wanted.next, alone_later.container_seconds),
    );
    jobs.extend(patient);

    let nothing_else = jobs.is_empty() && ledger.outstanding().next().is_none();
    if nothing_else && chains.settled == Settled::All && question.scope == ScopeChoice::Auto {
        jobs.extend(repeated_shuffles(question, &slots, ledger));
    }

    let mut remaining = costs.remaining(&jobs);
    remaining += slots_later;
    remaining += alone_later;
    let outstanding = ledger.outstanding().count();
    let state = if jobs.is_empty() && outstanding == 0 { Planning::Complete } else { Planning::Working };
    let mut jobs = hold_back(jobs, pressing, outstanding, workers, costs.are_settled(), price);
    batch::longest_first(&mut jobs, &costs);
    Plan { jobs, remaining, state, limited: false }
}

/// Tests that failed somewhere.
struct Suspects<'a> {
    /// And passed somewhere.
    varying: Vec<&'a TestId>,
    failing: Vec<&'a TestId>,
}

impl<'a> Suspects<'a> {
    fn find(selected: &'a [TestId], ledger: &Ledger) -> Self {
        let mut suspects = Suspects { varying: Vec::new(), failing: Vec::new() };
        for test in selected {
            if !ledger.plain(test).any(|o| matches!(o.seen, Seen::Fail(_))) {
                continue;
            }
            if ledger.plain(test).any(|o| matches!(o.seen, Seen::Pass)) {
                suspects.varying.push(test);
            } else {
                suspects.failing.push(test);
            }
        }
        suspects
    }

    /// Runs alone, by place. Where many tests vary (a service is down in half of the runs, say) each
    /// gets fewer, so that the look at them does not cost many times what the suite did.
    fn targets(&self, runs: u32, costs: &Costs<'_>, ledger: &Ledger) -> Vec<(usize, u32)> {
        let budget = (2.0 * f64::from(runs) * costs.suite().unwrap_or(0.0)).max(SUSPICIOUS_SECONDS);
        let one_round: f64 = self.varying.iter().filter_map(|test| costs.alone(test)).sum();
        let affordable = if one_round > 0.0 { budget / one_round } else { 0.0 };
        let most = runs.min(SUSPICIOUS_RUNS);
        let least = runs.min(SUSPICIOUS_RUNS_LEAST);
        let each = if affordable >= f64::from(most) { most } else { (affordable as u32).max(least) };
        let place = |test: &&TestId| ledger.place(test).expect("selected tests are listed");
        let varying = self.varying.iter().map(|test| (place(test), each));
        let failing = self.failing.iter().map(|test| (place(test), least));
        varying.chain(failing).collect()
    }
}

fn raise(targets: &mut [u32], wanted: &[(usize, u32)]) {
    for (place, runs) in wanted {
        targets[*place] = targets[*place].max(*runs);
    }
}

/// Attempts on the files of tests that failed in the suite and passed somewhere.
fn with_file_attempts(
    suspects: &Suspects<'_>,
    selected: &[TestId],
    runs: u32,
    ledger: &Ledger,
) -> Vec<AttemptSpec> {
    let files = by_file(ledger, selected);
    if files.len() < 2 {
        return Vec::new(); // the file is the suite
    }
    let in_suite = |test: &&&TestId| {
        let failed_there =
            |o: &super::Observation| o.scope == Scope::Suite && matches!(o.seen, Seen::Fail(_));
        ledger.plain(test).any(failed_there)
    };
    let asked: BTreeSet<&str> =
        suspects.varying.iter().filter(in_suite).map(|test| ledger.file_of(test)).collect();
    let mut planned: BTreeMap<&str, usize> = BTreeMap::new();
    for attempt in ledger.keys_of(JobPhase::WithFile).flat_map(|key| ledger.attempts_of(key)) {
        if let Some(AttemptSpec { tests: Selection::Only(tests), .. }) = attempt.spec {
            *planned.entry(tests.first().map_or("", |test| ledger.file_of(test))).or_default() += 1;
        }
    }
    let free = FILES.saturating_sub(planned.len());
    let fresh = asked.iter().filter(|file| !planned.contains_key(*file)).take(free);
    let chosen: BTreeSet<&str> = fresh.copied().collect();
    files
        .into_iter()
        .filter(|(file, _)| chosen.contains(file.as_str()))
        .flat_map(|(_, tests)| {
            let spec = AttemptSpec::plain(Scope::File, Selection::only(tests), Order::Given);
            std::iter::repeat_n(spec, FILE_RUNS.min(runs as usize))
        })
        .collect()
}

/// Tests to run alone once although nothing speaks against them: it finds those that only pass
/// because of their neighbours. Chosen once, as soon as the suite's cost is known; costs about as
/// much as the slots do.
fn screen_choice(
    question: &Question,
    selected: &[TestId],
    costs: &Costs<'_>,
    ledger: &Ledger,
) -> Vec<AttemptSpec> {
    let Some(suite) = costs.suite() else { return Vec::new() };
    if selected.len() < 2 || ledger.keys_of(JobPhase::Screen).next().is_some() {
        return Vec::new();
    }
    let budget = (f64::from(question.runs_per_test()) * suite).max(SCREEN_SECONDS);
    let screened = alone::affordable(selected, question.seed, budget, costs);
    screened.take(SCREEN_TESTS).map(alone::spec).collect()
}

/// Failing shuffles again, twice: a test that fails again fails for the order, one that passes
/// fails by chance. The shuffles that say most of tests not yet seen to do both under one treatment.
fn repeated_shuffles(question: &Question, slots: &[Slot], ledger: &Ledger) -> Vec<PlannedJob> {
    let most = (question.runs_per_test() / 10).clamp(1, REPEATED_SHUFFLES) as usize;
    if question.runs_per_test() < 5 || ledger.keys_of(JobPhase::Repeat).next().is_some() {
        return Vec::new();
    }
    let mut open = repeats::failing_shuffles(ledger);
    let mut jobs = Vec::new();
    for _ in 0..most {
        let Some(order) = repeats::take_most_telling(&mut open) else { break };
        let Some(number) = slots.iter().position(|slot| slot.order == order) else { continue };
        let slot = &slots[number];
        let spec = slot.spec();
        jobs.extend((0..REPEATS).map(|repeat| PlannedJob {
            key: JobKey::of_arm(JobPhase::Repeat, batch::index(number), repeat),
            attempts: vec![spec.clone()],
        }));
    }
    jobs
}

/// What is foreseen of slots that are not looked at in this turn: that they cost what those before them do.
fn later_slots(chains: &chains::Chains, costs: &Costs<'_>) -> Estimate {
    let known: f64 = chains.wanted.iter().filter_map(|spec| costs.of(spec)).sum();
    let each = known / chains.wanted.len().max(1) as f64;
    Estimate { attempts: chains.later as u64, container_seconds: each * chains.later as f64 }
}

fn priced(specs: Vec<AttemptSpec>, price: impl Fn(&AttemptSpec) -> Option<f64>) -> Vec<Wanted> {
    specs.into_iter().map(|spec| Wanted { seconds: price(&spec), spec }).collect()
}

fn interleave(one: Vec<PlannedJob>, other: Vec<PlannedJob>) -> Vec<PlannedJob> {
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut both = Vec::new();
    loop {
        let pair = (one.next(), other.next());
        if pair == (None, None) {
            return both;
        }
        both.extend(pair.0);
        both.extend(pair.1);
    }
}

/// Keeps jobs back that are planned better once more is known: what was never measured beyond two
/// jobs per worker, anything patient beyond what keeps a large farm busy, and many attempts
/// beyond four jobs per worker before costs are settled.
fn hold_back(
    jobs: Vec<PlannedJob>,
    pressing: usize,
    outstanding: usize,
    workers: usize,
    settled: bool,
    price: impl Fn(&AttemptSpec) -> Option<f64>,
) -> Vec<PlannedJob> {
    let mut under_way = outstanding;
    let mut attempts = 0;
    let mut now = Vec::new();
    for (place, job) in jobs.into_iter().enumerate() {
        let known = job.attempts.iter().all(|spec| price(spec).is_some());
        let room = if !known {
            2 * workers
        } else if place < pressing {
            usize::MAX
        } else if settled || attempts < SETTLED {
            batch::most_under_way(workers)
        } else {
            4 * workers
        };
        if under_way < room {
            under_way += 1;
            attempts += job.attempts.len();
            now.push(job);
        } else if place >= pressing {
            break; // slots are filled in order
        }
    }
    now
}
