//! The panel: the suite under other worlds, once each, before anything is repeated; then a closer
//! look, alone, at what failed there. What is seen in another world is no failure of the plain rate; a
//! pass in a world such as healthy machines have is a clean run of the guarantee over all of them.

use super::chains::{self, Slot};
use super::costs::Costs;
use super::funds::Funds;
use super::{alone, batch, slots};
use crate::experiment::{
    History, JobKey, JobPhase, Ledger, PlannedJob, Question, ScopeChoice, Seen, Series, WorldsSeen,
    asked_for_network,
};
use flakefarm_shared::project::Network;
use flakefarm_shared::world::Role;
use flakefarm_shared::{
    AttemptSpec, ClockStart, HashSeed, Order, ProjectSpec, Risk, Scope, Selection, TestId, Treatment,
    UnixMicros, World, Zone,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// Attempts of a closer look, alone in that world, and in the plain one.
const LOOKS: u32 = 2;
const PLAIN_LOOKS: u32 = 2;
/// A test that took less in plain runs waits for nothing.
const QUICK_SECONDS: f64 = 0.02;
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
/// suite has said what one costs and what passes.
pub(super) fn plan(
    question: &Question,
    selected: &[TestId],
    costs: &Costs<'_>,
    history: &History,
    ledger: &Ledger,
) -> Wanted {
    let mut wanted = Wanted::default();
    if question.panel.is_empty() || question.scope != ScopeChoice::Auto || costs.suite().is_none() {
        return wanted;
    }
    let priced = |spec: AttemptSpec| batch::Wanted { seconds: costs.of(&spec), spec };
    let tests = slots::everything(question, selected);
    let slots: Vec<Slot> = question
        .panel
        .iter()
        .filter(|world| **world != World::NetworkOn)
        .map(|world| {
            let tests = match world.role() {
                Role::Stress => that_may_wait(question, selected, costs, history, ledger, *world, &tests),
                Role::Baseline | Role::Order | Role::Chance | Role::Surroundings => tests.clone(),
            };
            Slot { scope: Scope::Suite, order: Order::Given, tests, world: *world }
        })
        .collect();
    let chains = chains::follow(Series::Panel, &slots, ledger);
    wanted.follow_ups = chains.follow_ups;
    wanted.first_free = chains.first_free;
    wanted.suite = chains.wanted.into_iter().map(priced).collect();

    let looks = Looks::read(ledger);
    wanted.first_look = looks.jobs;
    for (test, world) in differing(question, selected, ledger) {
        let place = ledger.place(test).expect("selected tests are listed");
        wanted.plain_alone.push((place, PLAIN_LOOKS));
        if !looks.planned.contains(&(place, world)) {
            let spec = AttemptSpec { treatment: Treatment::under(world), ..alone::spec(test) };
            wanted.looks.extend(std::iter::repeat_n(priced(spec), LOOKS as usize));
        }
    }
    wanted
}

/// What a suite attempt on a slow machine runs: what took some time in plain runs, or whose source shows
/// that time, other threads, processes or the network matter to it. The rest would only take longer. What
/// was planned once stays as it is.
fn that_may_wait(
    question: &Question,
    selected: &[TestId],
    costs: &Costs<'_>,
    history: &History,
    ledger: &Ledger,
    world: World,
    everything: &Selection,
) -> Selection {
    let planned = ledger.keys_of(JobPhase::Slots(Series::Panel)).flat_map(|key| ledger.attempts_of(key));
    let mut planned = planned.filter_map(|attempt| attempt.spec);
    if let Some(spec) = planned.find(|spec| spec.treatment.world == world) {
        return spec.tests.clone();
    }
    let in_tests: f64 =
        selected.iter().filter_map(|test| ledger.place(test)).map(|place| costs.seconds_at(place)).sum();
    // Where tests take no time, a start more for each of them is what costs.
    if world.slowdown() <= 1 || f64::from(world.slowdown()) * in_tests < costs.overhead(Scope::Suite) {
        return everything.clone();
    }
    let waits = |risk: &Risk| match risk {
        Risk::Sleep | Risk::Concurrency | Risk::Clock | Risk::Network | Risk::Subprocess | Risk::Unknown => {
            true
        }
        Risk::Randomness | Risk::Unordered | Risk::TemporaryFiles | Risk::SharedState => false,
    };
    let may_wait = |test: &&TestId| {
        let quick = ledger.place(test).is_some_and(|place| {
            ledger.tally_of(place).mean_seconds().is_some() && costs.seconds_at(place) < QUICK_SECONDS
        });
        let risky = history.of(test).is_none_or(|known| known.risks.iter().any(waits));
        !quick || risky
    };
    let chosen: Vec<TestId> = selected.iter().filter(may_wait).cloned().collect();
    if chosen.is_empty() || chosen.len() == selected.len() && question.tests.is_everything() {
        everything.clone()
    } else {
        Selection::Only(chosen)
    }
}

/// Closer looks that were planned.
struct Looks {
    planned: BTreeSet<(usize, World)>,
    jobs: usize,
}

impl Looks {
    fn read(ledger: &Ledger) -> Self {
        let mut looks = Looks { planned: BTreeSet::new(), jobs: 0 };
        for attempt in ledger.keys_of(JobPhase::Look).flat_map(|key| ledger.attempts_of(key)) {
            if let Some(AttemptSpec { tests: Selection::Only(tests), treatment, .. }) = attempt.spec {
                let places = tests.iter().filter_map(|test| ledger.place(test));
                looks.planned.extend(places.map(|place| (place, treatment.world)));
            }
        }
        looks.jobs = ledger.keys_of(JobPhase::Look).count();
        looks
    }
}

/// Tests that do in one world what they never do in the plain one, with that world: as many of each
/// world as are looked at, one of each failure before a second of any.
fn differing<'a>(question: &Question, selected: &'a [TestId], ledger: &Ledger) -> Vec<(&'a TestId, World)> {
    let worlds = WorldsSeen::read(ledger);
    let mut of_world: BTreeMap<World, Vec<(usize, &TestId)>> = BTreeMap::new();
    let mut alike: BTreeMap<(World, String), usize> = BTreeMap::new();
    for test in selected {
        let Some(tally) = ledger.place(test).map(|place| ledger.tally_of(place)) else { continue };
        let plain = (tally.passes, tally.failures);
        for observation in ledger.observations(test).iter().filter(|o| o.scope == Scope::Suite) {
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
        .flat_map(|(world, mut tests)| {
            tests.sort_by_key(|(round, _)| *round);
            tests.into_iter().take(LOOKED_AT).map(move |(_, test)| (test, world))
        })
        .collect()
}
