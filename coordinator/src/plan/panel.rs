//! The panel: the suite under other worlds, once each, before anything is repeated; then a closer
//! look, alone, at what failed there. What is seen in another world is no failure of the plain rate; a
//! pass in a world such as healthy machines have is a clean run of the guarantee over all of them.

use super::chains::{self, Slot};
use super::costs::Costs;
use super::funds::Funds;
use super::{alone, batch, slots, slow};
use crate::experiment::{
    Attempt, History, JobKey, JobPhase, Ledger, Observation, PlannedJob, Question, ScopeChoice, Seen, Series,
    Standing, WorldsSeen, asked_for_network,
};
use flakefarm_shared::project::Network;
use flakefarm_shared::world::Role;
use flakefarm_shared::{
    AttemptEnd, AttemptSpec, ClockStart, HashSeed, Order, ProjectSpec, Scope, Selection, TestId, Treatment,
    UnixMicros, World, Zone,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Attempts of a closer look, alone in that world, and in the plain one.
const LOOKS: u32 = 2;
const PLAIN_LOOKS: u32 = 2;
/// Plain runs from which on one look that says the same is enough: two of two against none of so many is no
/// chance, a dozen worlds looked at.
const RUNS_FOR_ONE_LOOK: u32 = 30;
/// Tests that differ in one world from which on they are looked at together in one attempt, and of these those
/// that are looked at alone as well, one of each failure before a second of any.
const TOGETHER: usize = 4;
const ALONE_OF_MANY: usize = 2;
/// How often the suite runs again twice in one process: three runs for the price of one start.
const TWICE_AGAIN: usize = 2;
/// Tests that fail when they run twice up to which that pays: one in so many.
const FEW_FAIL_TWICE: usize = 4;
const DAY_MICROS: UnixMicros = 86_400_000_000;
/// Tests of one world that are looked at.
const LOOKED_AT: usize = 30;

/// The worlds of the quick panel, beside three months and one that depends on the project.
const QUICK: [World; 7] = [
    World::Twice,
    World::TimeZone(Zone::Ahead),
    World::TimeZone(Zone::Behind),
    World::Clock(ClockStart::LeapDay),
    // A machine four times slower. More would fail tests whose limits leave ample room.
    World::CpuContention { hogs: 3 },
    World::Clock(ClockStart::YearEnd),
    World::RandomSeed { seed: 1 },
];

/// How much a sweep varies before it repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Panel {
    /// About a dozen conditions.
    #[default]
    Quick,
    /// Every condition there is.
    Full,
    /// Orders only.
    None,
}

impl Panel {
    /// All panels, in the order help texts list them.
    pub const ALL: [Panel; 3] = [Panel::Quick, Panel::Full, Panel::None];

    /// The stable word used on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Panel::Quick => "quick",
            Panel::Full => "full",
            Panel::None => "none",
        }
    }

    /// Its worlds for `project` in a sweep that is asked for `now`: the quick panel has three months of the year,
    /// others on each of four days. [`World::NetworkOn`] is among them where the plain run has no network: for tests
    /// that were seen to ask for one, not for the suite.
    pub fn worlds(self, project: &ProjectSpec, now: UnixMicros) -> Vec<World> {
        let pinned = project.variables.get("PYTHONHASHSEED").is_some_and(|seed| seed != "random");
        let with_network = project.limits.network == Network::Bridge;
        match self {
            Panel::None => Vec::new(),
            Panel::Quick => {
                let last = if with_network {
                    World::NetworkOff
                } else if pinned {
                    World::HashSeed(HashSeed::Random)
                } else {
                    World::DirectoryOrder { seed: 1 }
                };
                let network = (!with_network).then_some(World::NetworkOn);
                let months = World::months_in_turn(days_since_1970(now));
                QUICK.into_iter().chain(months).chain([last]).chain(network).collect()
            }
            Panel::Full => World::catalogue()
                .iter()
                .copied()
                // What the plain run has already.
                .filter(|world| match world {
                    World::NetworkOff => with_network,
                    World::NetworkOn => !with_network,
                    World::HashSeed(HashSeed::Random) => pinned,
                    _ => true,
                })
                .collect(),
        }
    }
}

/// The same panel on another day: with that day's months, if it is one that takes turns.
pub fn turn(panel: &mut [World], now: UnixMicros) {
    let months = World::months_in_turn(days_since_1970(now));
    let is_month = |world: &&mut World| matches!(world, World::Clock(ClockStart::InMonth { .. }));
    let places: Vec<&mut World> = panel.iter_mut().filter(is_month).collect();
    if places.len() == months.len() {
        places.into_iter().zip(months).for_each(|(place, month)| *place = month);
    }
}

fn days_since_1970(now: UnixMicros) -> u64 {
    u64::try_from(now / DAY_MICROS).unwrap_or(0)
}

impl fmt::Display for Panel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Not a panel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no panel: choose `quick`, `full` or `none`")]
pub struct UnknownPanel(String);

impl FromStr for Panel {
    type Err = UnknownPanel;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Panel::ALL.into_iter().find(|panel| panel.word() == text).ok_or_else(|| UnknownPanel(text.to_owned()))
    }
}

/// What the panel wants.
#[derive(Default)]
pub(super) struct Wanted {
    /// Attempts again that gave too little.
    follow_ups: Vec<PlannedJob>,
    /// The suite in other worlds; the first has this number.
    suite: Vec<batch::Wanted>,
    first_free: usize,
    /// Closer looks; the first job of them has this number.
    looks: Vec<batch::Wanted>,
    first_look: usize,
    /// Runs alone in the plain world that tests need to be compared with, by place in the ledger.
    pub(super) plain_alone: Vec<(usize, u32)>,
}

impl Wanted {
    /// Drops what `funds` do not pay for; whether they paid for all.
    pub(super) fn bought(&mut self, funds: &mut Funds, costs: &Costs<'_>) -> bool {
        let attempts = |wanted: &Self| wanted.follow_ups.len() + wanted.suite.len() + wanted.looks.len();
        let before = attempts(self);
        self.follow_ups.retain(|job| funds.buy_job(job, costs));
        // What is numbered is made in order.
        let paid = self.suite.iter().take_while(|wanted| funds.buy(wanted.seconds)).count();
        self.suite.truncate(paid);
        self.looks.retain(|wanted| funds.buy(wanted.seconds));
        attempts(self) == before
    }

    /// Attempts on the suite in other worlds.
    pub(super) fn in_other_worlds(&self) -> impl Iterator<Item = &AttemptSpec> {
        self.suite.iter().map(|wanted| &wanted.spec)
    }

    /// As jobs, the suite in other worlds first.
    pub(super) fn into_jobs(self, workers: usize) -> Vec<PlannedJob> {
        let mut jobs = self.follow_ups;
        jobs.extend(batch::pack(JobPhase::Slots(Series::Panel), self.first_free, self.suite, workers));
        let looks = batch::pack(JobPhase::Look, 0, self.looks, workers);
        jobs.extend(looks.into_iter().zip(self.first_look..).map(|(job, number)| PlannedJob {
            key: JobKey::new(JobPhase::Look, batch::index(number)),
            ..job
        }));
        jobs
    }
}

/// Reads off the ledger what the panel of `question` wants next. Waits until a plain attempt on the
/// suite has said what one costs and what passes. `wants` is how many more runs each test is to have, by place
/// in the ledger; none where that is a fixed number, to which runs in other worlds do not count.
pub(super) fn plan(
    question: &Question,
    selected: &[TestId],
    costs: &Costs<'_>,
    history: &History,
    ledger: &Ledger,
    wants: Option<&[u32]>,
) -> Wanted {
    let mut wanted = Wanted::default();
    if question.panel.is_empty() || question.scope != ScopeChoice::Auto || costs.suite().is_none() {
        return wanted;
    }
    let priced = |spec: AttemptSpec| batch::Wanted { seconds: costs.of(&spec), spec };
    let tests = slots::everything(question, selected);
    let worlds = WorldsSeen::read(ledger);
    let planned = chains::roots(Series::Panel, ledger);
    let mut slots: Vec<Slot> = question
        .panel
        .iter()
        .filter(|world| **world != World::NetworkOn)
        .map(|world| {
            let tests = match world.role() {
                Role::Stress => {
                    slow::that_may_wait(question, selected, costs, history, ledger, &planned, *world, &tests)
                }
                Role::Baseline | Role::Order | Role::Chance | Role::Surroundings => tests.clone(),
            };
            Slot { scope: Scope::Suite, order: Order::Given, tests, world: *world }
        })
        .collect();
    if wants.is_some() {
        let again = slow::again(question, selected, costs, history, ledger, &planned);
        slots.extend(again.into_iter().flat_map(|slot| std::iter::repeat_n(slot, slow::AGAIN)));
    }
    let twice = Slot { scope: Scope::Suite, order: Order::Given, tests: tests.clone(), world: World::Twice };
    if wants.is_some_and(|wants| twice_pays(selected, wants, costs, ledger, &planned, &worlds)) {
        slots.extend(std::iter::repeat_n(twice, TWICE_AGAIN));
    }
    let chains = chains::follow(Series::Panel, &slots, ledger);
    wanted.follow_ups = chains.follow_ups;
    wanted.first_free = chains.first_free;
    wanted.suite = chains.wanted.into_iter().map(priced).collect();

    let looks = Looks::read(ledger);
    wanted.first_look = looks.jobs;
    let adaptive = wants.is_some() && question.runs_for_guarantee() >= RUNS_FOR_ONE_LOOK;
    let (many, plain_looks) = if adaptive { (TOGETHER, 1) } else { (usize::MAX, PLAIN_LOOKS) };
    for (world, tests) in differing(question, selected, ledger, &worlds) {
        let singly = if tests.len() >= many { ALONE_OF_MANY } else { tests.len() };
        if singly < tests.len() && !tests.iter().any(|test| looks.made(test, world, ledger).is_some()) {
            let tests = Selection::only(tests.iter().map(|test| (*test).clone()).collect());
            let together = AttemptSpec::plain(Scope::Suite, tests, Order::Given);
            wanted.looks.push(priced(AttemptSpec { treatment: Treatment::under(world), ..together }));
        }
        for test in &tests[..singly] {
            let place = ledger.place(test).expect("selected tests are listed");
            wanted.plain_alone.push((place, plain_looks));
            let spec = AttemptSpec { treatment: Treatment::under(world), ..alone::spec(test) };
            let missing = match looks.made(test, world, ledger) {
                None if adaptive && world != World::NetworkOn => 1,
                None => LOOKS,
                // What the first look does not confirm is chance or its neighbours' doing: a second one tells.
                Some(Look { planned: 1, otherwise: 1 }) if adaptive && singly == tests.len() => 1,
                Some(_) => 0,
            };
            wanted.looks.extend(std::iter::repeat_n(priced(spec), missing as usize));
        }
    }
    wanted
}

/// Whether the suite is to run twice in one process again, all passes of which count: where the starts that this saves
/// are worth a run of the suite more than what tests take that need no such runs, and tests bear it. Each of three passes is
/// a run of what happens by chance while a test runs; of what a process draws once, they are one.
fn twice_pays(
    selected: &[TestId],
    wants: &[u32],
    costs: &Costs<'_>,
    ledger: &Ledger,
    planned: &[Attempt<'_>],
    worlds: &WorldsSeen,
) -> bool {
    let twice = |a: &&Attempt<'_>| a.spec.is_some_and(|spec| spec.treatment.world == World::Twice);
    let planned: Vec<_> = planned.iter().filter(twice).collect();
    if planned.len() > 1 {
        return true; // they are numbered already
    }
    let made = planned
        .into_iter()
        .find(|a| matches!(a.standing, Standing::Ended(record) if record.end == AttemptEnd::Completed));
    let Some(made) = made.filter(|_| worlds.is_usable(World::Twice)) else { return false };
    let Some(suite) = costs.suite() else { return false };
    let place = |test: &TestId| ledger.place(test);
    let failed = |test: &&TestId| {
        let seen = ledger.seen_in(test, made.key, made.index);
        matches!(seen, Some(Seen::Fail(_))) && place(test).is_some_and(|at| ledger.tally_of(at).passes > 0)
    };
    let runs = TWICE_AGAIN as u32 * World::Twice.clean_runs();
    let wants_all = |test: &&TestId| place(test).is_some_and(|at| wants[at] >= runs);
    let saved = f64::from(runs - TWICE_AGAIN as u32) * costs.overhead(Scope::Suite);
    let wasted = f64::from(runs) * costs.in_tests(selected.iter().filter(|test| !wants_all(test)));
    saved - wasted >= suite
        && selected.iter().any(|test| wants_all(&test))
        && FEW_FAIL_TWICE * selected.iter().filter(failed).count() <= selected.len()
}

/// Closer looks that were planned.
struct Looks {
    planned: BTreeMap<(usize, World), u32>,
    jobs: usize,
}

/// Looks at one test in one world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    planned: u32,
    /// Those in which it did as in plain runs.
    otherwise: u32,
}

impl Looks {
    fn read(ledger: &Ledger) -> Self {
        let mut looks = Looks { planned: BTreeMap::new(), jobs: 0 };
        for attempt in ledger.keys_of(JobPhase::Look).flat_map(|key| ledger.attempts_of(key)) {
            if let Some(AttemptSpec { tests: Selection::Only(tests), treatment, .. }) = attempt.spec {
                for place in tests.iter().filter_map(|test| ledger.place(test)) {
                    *looks.planned.entry((place, treatment.world)).or_default() += 1;
                }
            }
        }
        looks.jobs = ledger.keys_of(JobPhase::Look).count();
        looks
    }

    fn made(&self, test: &TestId, world: World, ledger: &Ledger) -> Option<Look> {
        let place = ledger.place(test)?;
        let planned = *self.planned.get(&(place, world))?;
        let passes = ledger.tally_of(place).passes > 0;
        let as_plain = |seen: &Seen| match seen {
            Seen::Pass => passes,
            Seen::Fail(_) => !passes,
            Seen::Skip => false,
        };
        let here = ledger.observations_at(place).iter().filter(|o| {
            o.key.phase == JobPhase::Look && o.treatment.other_world() == Some(world) && as_plain(&o.seen)
        });
        Some(Look { planned, otherwise: batch::index(here.count()) })
    }
}

/// Tests that do in one world what they never do in the plain one, by world: as many of each as are looked at,
/// one of each failure before a second of any.
fn differing<'a>(
    question: &Question,
    selected: &'a [TestId],
    ledger: &Ledger,
    worlds: &WorldsSeen,
) -> Vec<(World, Vec<&'a TestId>)> {
    let mut of_world: BTreeMap<World, Vec<(usize, &TestId)>> = BTreeMap::new();
    let mut alike: BTreeMap<(World, String), usize> = BTreeMap::new();
    for test in selected {
        let Some(tally) = ledger.place(test).map(|place| ledger.tally_of(place)) else { continue };
        let plain = (tally.passes, tally.failures);
        let in_suites = |o: &&Observation| o.scope == Scope::Suite && o.key.phase != JobPhase::Look;
        for observation in ledger.observations(test).iter().filter(in_suites) {
            let Some(world) = observation.treatment.other_world() else { continue };
            let signature = match (&observation.seen, plain) {
                (Seen::Fail(seen), (1.., 0)) => seen.failure.signature.clone(),
                (Seen::Pass, (0, 1..)) => String::new(),
                _ => continue,
            };
            if worlds.is_usable(world) {
                let round = alike.entry((world, signature)).or_default();
                of_world.entry(world).or_default().push((*round, test));
                *round += 1;
            }
        }
        if plain.0 == 0
            && question.panel.contains(&World::NetworkOn)
            && asked_for_network(test, ledger).is_some()
        {
            let of_network = of_world.entry(World::NetworkOn).or_default();
            of_network.push((of_network.len(), test));
        }
    }
    of_world
        .into_iter()
        .map(|(world, mut tests)| {
            tests.sort_by_key(|(round, _)| *round);
            (world, tests.into_iter().take(LOOKED_AT).map(|(_, test)| test).collect())
        })
        .collect()
}
