//! Which tests of the panel run on a slow machine, and which of them once more.

use super::chains::Slot;
use super::costs::Costs;
use crate::experiment::{Attempt, History, Ledger, Question};
use flakefarm_shared::{AttemptSpec, Order, Risk, Scope, Selection, TestId, World};

/// How often tests whose source shows that they wait for something run again on a slow machine: most that fail there do so
/// by chance, a third of the time or half of it, and one run misses these.
pub(super) const AGAIN: usize = 2;
/// Share of the fixed number of runs of the suite that the tests of one such run may take.
const AGAIN_SHARE: f64 = 0.01;
/// A test that took less in plain runs waits for nothing, nor does one that computes for such a share of them.
const QUICK_SECONDS: f64 = 0.02;
const COMPUTING: f64 = 0.8;
/// Where nothing waits, these many of the slowest run on a slow machine.
const SLOWEST: usize = 10;

/// What a suite attempt on a slow machine runs: what took some time in plain runs, or whose source shows
/// that time, other threads, processes or the network matter to it. The rest would only take longer. What
/// was `planned` of the panel stays as it is.
pub(super) fn that_may_wait(
    question: &Question,
    selected: &[TestId],
    costs: &Costs<'_>,
    history: &History,
    ledger: &Ledger,
    planned: &[Attempt<'_>],
    world: World,
    everything: &Selection,
) -> Selection {
    if let Some(spec) = in_world(world, planned).next() {
        return spec.tests.clone();
    }
    // Where tests take no time, a start more for each of them is what costs.
    if world.slowdown() <= 1
        || f64::from(world.slowdown()) * costs.in_tests(selected) < costs.overhead(Scope::Suite)
    {
        return everything.clone();
    }
    let may = |risk: &Risk| waits(risk) || matches!(risk, Risk::Clock | Risk::Unknown);
    let may_wait = |test: &&TestId| {
        let quick = ledger.place(test).is_some_and(|place| {
            ledger.tally_of(place).mean_seconds().is_some()
                && (costs.seconds_at(place) < QUICK_SECONDS
                    || share_on_a_processor(place, ledger) >= COMPUTING)
        });
        // A test of which there is nothing to say is not in the history; where that is empty, no source was read.
        let risky = history.of(test).map_or(history.is_empty(), |known| known.risks.iter().any(may));
        !quick || risky
    };
    let mut chosen: Vec<TestId> = selected.iter().filter(may_wait).cloned().collect();
    if chosen.is_empty() {
        chosen = selected.to_vec();
        chosen.sort_by(|one, other| costs.seconds_of(other).total_cmp(&costs.seconds_of(one)));
        chosen.truncate(SLOWEST);
    }
    if chosen.len() == selected.len() && question.tests.is_everything() {
        everything.clone()
    } else {
        Selection::only(chosen)
    }
}

/// What runs on a slow machine once more than the panel has it: tests that wait for something, and may happen to pass
/// there; the cheapest first, as many as are cheap together. It is chosen when the panel is, and stays as it is, since what
/// comes after it is numbered.
pub(super) fn again(
    question: &Question,
    selected: &[TestId],
    costs: &Costs<'_>,
    history: &History,
    ledger: &Ledger,
    planned: &[Attempt<'_>],
) -> Option<Slot> {
    let slow = |world: &&World| matches!(world, World::CpuContention { .. });
    let world = *question.panel.iter().find(slow)?;
    let slot = |tests| Slot { scope: Scope::Suite, order: Order::Given, tests, world };
    if !planned.is_empty() {
        return in_world(world, planned).nth(1).map(|spec| slot(spec.tests.clone()));
    }
    let mut left = AGAIN_SHARE * f64::from(question.runs_for_guarantee()) * costs.suite()?;
    let price = |test: &TestId| {
        let place = ledger.place(test)?;
        let longer = f64::from(world.slowdown()) - 1.0;
        Some(costs.seconds_at(place) * (1.0 + longer * share_on_a_processor(place, ledger)))
    };
    let known_to_wait = |test: &TestId| history.of(test).is_some_and(|known| known.risks.iter().any(waits));
    let mut tests: Vec<(f64, &TestId)> = selected
        .iter()
        .filter(|test| known_to_wait(test))
        .filter_map(|test| Some((price(test)?, test)))
        .collect();
    tests.sort_by(|one, other| one.0.total_cmp(&other.0));
    let cheap = tests.into_iter().take_while(|(seconds, _)| {
        left -= seconds;
        left >= 0.0
    });
    let tests: Vec<TestId> = cheap.map(|(_, test)| test.clone()).collect();
    (!tests.is_empty()).then(|| slot(Selection::only(tests)))
}

/// What attempts in `world` among these were to do.
fn in_world<'a>(world: World, planned: &'a [Attempt<'a>]) -> impl Iterator<Item = &'a AttemptSpec> {
    planned.iter().filter_map(|attempt| attempt.spec).filter(move |spec| spec.treatment.world == world)
}

/// Whether a test with this risk waits for something that a slow machine may bring too late.
fn waits(risk: &Risk) -> bool {
    match risk {
        Risk::Sleep | Risk::Concurrency | Risk::Network | Risk::Subprocess => true,
        Risk::Clock
        | Risk::Randomness
        | Risk::Unordered
        | Risk::TemporaryFiles
        | Risk::SharedState
        | Risk::Unknown => false,
    }
}

/// How much of its plain runs a test spends on a processor, at most 1: that takes longer on a slow machine, and sees no
/// other order of what happens.
fn share_on_a_processor(place: usize, ledger: &Ledger) -> f64 {
    let plain = ledger.observations_at(place).iter().filter(|o| o.treatment.is_plain());
    let (cpu, wall) = plain.fold((0, 0), |(cpu, wall), o| (cpu + o.cpu_us, wall + o.wall_us));
    if wall == 0 { 0.0 } else { (cpu as f64 / wall as f64).min(1.0) }
}
