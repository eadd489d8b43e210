//! What to try next on one test, and what explains it: the one place where both are decided, from
//! the same reading of the ledger.
//!
//! Families of conditions are tried one after the other, those that explain most and cost least
//! first; each may be wrong with an equal share of the risk, divided among its arms. A test that
//! varies although nothing is changed is asked first whether fixed seeds or a busy machine decide.

use super::compare::{Comparing, Judgement, rate};
use super::order::{Effect, OrderFinding, Pursuit, Scene};
use crate::experiment::{Arm, CauseCategory, Company, Counts, Ledger, Question, Tally, Trials, derive_seed};
use flakefarm_shared::world::{ClockStart, HashSeed, LocaleChoice, Zone};
use flakefarm_shared::{Order, World};
use std::collections::BTreeSet;
use std::num::NonZeroU32;

/// Families among which the risk is shared.
const FAMILIES: u32 = 4;
/// Runs alone before anything is concluded from them.
const BASELINE: u32 = 4;
/// Runs of an arm against its baseline after which it is let go.
const ARM_RUNS: u32 = 16;
/// The same where a condition may show only now and then.
const NOISY_ARM_RUNS: u32 = 32;
/// Suspicious arms that are followed at once.
const SUSPECTS: usize = 4;
/// Orders that are pursued.
const ORDERS: usize = 3;
/// Runs alone before a test is said not to fail.
const LAST_BASELINE: u32 = 20;
/// Tests from which on they share a look at the suite under each condition.
const CROWD: usize = 5;
/// Shared looks under conditions that may show only now and then.
const CROWD_TIMING: u32 = 2;
/// Attempts for one test after which no further condition is tried, but for the search that order began.
const MOST_ATTEMPTS: usize = 180;
/// Confidence from which on a condition is named where none is as sure as was asked.
const LEANING: f64 = 0.5;
/// Attempts that watch state, for each side of the finding.
const LOOKS: u32 = 3;

/// What explains a test.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Explanation {
    /// What ran before it.
    Order(Box<OrderFinding>),
    /// One condition against another, or against none.
    Condition {
        /// What it speaks for.
        category: CauseCategory,
        /// Where it (mostly) passes.
        passing: Arm,
        /// Where it (mostly) fails.
        failing: Arm,
        /// One minus the risk that this is chance.
        confidence: f64,
    },
}

impl Explanation {
    /// The arms that show the test fail and pass.
    pub(super) fn sides(&self) -> (Arm, Arm) {
        match self {
            Explanation::Order(finding) => match finding.effect {
                Effect::Fails => (finding.with.clone(), Arm::PLAIN),
                Effect::Passes => (Arm::PLAIN, finding.with.clone()),
            },
            Explanation::Condition { passing, failing, .. } => (failing.clone(), passing.clone()),
        }
    }
}

/// How far the diagnosis of one test has come.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Investigation {
    /// Arms to be run until so many attempts of each were heard of; none if that is all.
    pub(super) wanted: Vec<(Arm, u32)>,
    /// Arms to be run once more with state watched.
    pub(super) looks: Vec<Arm>,
    /// What explains the test, if something does.
    pub(super) explanation: Option<Explanation>,
}

impl Investigation {
    fn wants(wanted: Vec<(Arm, u32)>) -> Self {
        Self { wanted, looks: Vec::new(), explanation: None }
    }
}

/// Conditions that are tried together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FamilyName {
    Twice,
    Order,
    Survey,
    Chance,
    Worlds,
    Timing,
    LastLook,
}

/// For tests that vary although nothing is changed.
const OF_VARYING: [FamilyName; 6] = [
    FamilyName::Chance,
    FamilyName::Survey,
    FamilyName::Timing,
    FamilyName::Order,
    FamilyName::Twice,
    FamilyName::Worlds,
];

/// For tests that do not.
const OF_STEADY: [FamilyName; 7] = [
    FamilyName::Order,
    FamilyName::Twice,
    FamilyName::Survey,
    FamilyName::Chance,
    FamilyName::Worlds,
    FamilyName::Timing,
    FamilyName::LastLook,
];

/// Where one family stands.
enum Family {
    Run(Vec<(Arm, u32)>),
    Explains(Explanation),
    Nothing,
}

/// Investigates one test.
pub(super) fn investigate(question: &Question, ledger: &Ledger, trials: &Trials<'_>) -> Investigation {
    let together = match question.targets(ledger.tests()).len() {
        0..CROWD => Together::Few,
        _ => Together::Crowd,
    };
    let case = Case { question, ledger, trials, base: trials.tally(&Arm::PLAIN), together };
    let opening = case.missing(case.opening());
    if !opening.is_empty() {
        return Investigation::wants(opening);
    }
    if case.base.attempts() == 0 {
        return Investigation::wants(Vec::new()); // skipped, or never ran: nothing to compare with
    }
    let families: &[FamilyName] = if case.base.varies() { &OF_VARYING } else { &OF_STEADY };
    let spent = trials.made_for_it() >= MOST_ATTEMPTS;
    for family in families {
        match case.try_family(*family) {
            Family::Nothing => {}
            Family::Run(_) if spent && *family != FamilyName::Order => {}
            Family::Run(arms) => {
                let wanted = case.missing(arms);
                if !wanted.is_empty() || trials.under_way() {
                    return Investigation::wants(wanted);
                }
            }
            Family::Explains(explanation) => return case.look(explanation),
        }
    }
    case.leaning().map_or_else(|| Investigation::wants(Vec::new()), |explanation| case.look(explanation))
}

struct Case<'a> {
    question: &'a Question,
    ledger: &'a Ledger,
    trials: &'a Trials<'a>,
    base: Tally,
    together: Together,
}

/// How many tests are diagnosed together: many share one look at the suite under each condition,
/// few get one each, alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Together {
    Few,
    Crowd,
}

impl Case<'_> {
    fn try_family(&self, family: FamilyName) -> Family {
        match family {
            FamilyName::Twice => self.against_baseline(&[World::Twice], self.comparison(4), ARM_RUNS),
            FamilyName::Order => self.order(),
            FamilyName::Survey => self.survey(),
            FamilyName::Chance => self.chance(),
            FamilyName::Worlds => self.worlds(),
            FamilyName::Timing => self.timing(),
            FamilyName::LastLook => self.last_look(),
        }
    }

    /// Arms of which attempts are missing.
    fn missing(&self, arms: Vec<(Arm, u32)>) -> Vec<(Arm, u32)> {
        arms.into_iter().filter(|(arm, runs)| self.trials.tally(arm).missing(*runs) > 0).collect()
    }

    fn opening(&self) -> Vec<(Arm, u32)> {
        let mut arms = vec![(Arm::PLAIN, BASELINE), (Arm::alone(World::Twice), 1)];
        arms.retain(|(arm, _)| self.question.able.gives(arm.treatment.world));
        arms.extend(self.orders(2).into_iter().map(|order| (Arm::suite(order, World::Plain), 1)));
        arms
    }

    /// The orders of the suite that are looked at: with `shuffles` shuffles.
    fn orders(&self, shuffles: u32) -> Vec<Order> {
        if self.ledger.tests().len() < 2 {
            return Vec::new();
        }
        let shuffled = (0..shuffles)
            .map(|n| Order::Shuffled { seed: derive_seed(self.question.seed, &format!("diagnose:{n}")) });
        let asked = self.question.order;
        let orders = asked.into_iter().chain([Order::Given, Order::Reversed]).chain(shuffled);
        orders.filter(|order| self.question.able.can_order(*order)).collect()
    }

    fn comparison(&self, arms: u32) -> Comparing {
        let arms = NonZeroU32::new(FAMILIES * arms.max(1)).expect("at least one");
        Comparing::new(self.question.confidence, arms)
    }

    /// Orders in which the test did what it does not do alone, fewest tests before it first.
    fn differing_orders(&self) -> Vec<(Order, Effect)> {
        let effect = match (self.base.passes, self.base.failures) {
            (_, 0) => Effect::Fails,
            (0, _) => Effect::Passes,
            (_, _) => return Vec::new(),
        };
        let mut found: Vec<(u32, Order)> = self
            .trials
            .arms()
            .filter_map(|(arm, tally)| match arm {
                Arm { company: Company::Suite(order), treatment }
                    if treatment.is_plain() && effect.seen(tally) > 0 =>
                {
                    let first = self.trials.of_arm(arm).iter().map(|t| t.observation.position).min();
                    Some((first.unwrap_or(u32::MAX), *order))
                }
                _ => None,
            })
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, order)| (order, effect)).collect()
    }

    /// What ran before.
    fn order(&self) -> Family {
        if self.base.varies() {
            return self.order_of_a_varying_test();
        }
        let scene = Scene {
            trials: self.trials,
            tests: self.ledger.tests(),
            width: usize::from(self.question.workers.get()),
            comparison: self.comparison(4),
        };
        for (order, effect) in self.differing_orders().into_iter().take(ORDERS) {
            match scene.pursue(order, effect) {
                Pursuit::Chance => {}
                Pursuit::Run(arms) => return Family::Run(arms),
                Pursuit::Found(finding) => return Family::Explains(Explanation::Order(Box::new(finding))),
            }
        }
        Family::Nothing
    }

    /// Order may change the rate of a test that varies without it; then there is no one to name.
    fn order_of_a_varying_test(&self) -> Family {
        let arms: Vec<Arm> =
            self.orders(2).into_iter().map(|order| Arm::suite(order, World::Plain)).collect();
        let comparison = self.comparison(4);
        self.compare(&arms, comparison, ARM_RUNS, |_| CauseCategory::OrderVictim)
    }

    /// Every condition once.
    fn survey(&self) -> Family {
        if self.together == Together::Few && self.base.varies() {
            return Family::Nothing; // the families that follow have an order of their own
        }
        let mut arms: Vec<(Arm, u32)> = match self.together {
            Together::Few => WORLDS
                .iter()
                .chain(&TIMING)
                .map(|world| (Arm::alone(*world), 1))
                .chain(self.seeds(hash_seed, 3))
                .chain(self.seeds(random_seed, 3))
                .collect(),
            Together::Crowd => WORLDS.iter().map(|world| (in_suite(*world), 1)).collect(),
        };
        arms.retain(|(arm, _)| self.question.able.gives(arm.treatment.world));
        if self.missing(arms.clone()).is_empty() { Family::Nothing } else { Family::Run(arms) }
    }

    /// Those of `worlds` that are worth trying alone: in a crowd, those in which the suite saw
    /// something else than usual, or nothing.
    fn worth_trying(&self, worlds: &[World]) -> Vec<World> {
        let usual = self.trials.tally(&in_suite(World::Plain));
        let odd = |world: &&World| {
            let tally = self.trials.tally(&in_suite(**world));
            tally.attempts() == 0 || (tally.failures > 0) != (usual.failures > 0) || tally.varies()
        };
        match self.together {
            Together::Few => worlds.to_vec(),
            Together::Crowd => worlds.iter().filter(odd).copied().collect(),
        }
    }

    fn seeds(&self, of: Seeded, count: u32) -> Vec<(Arm, u32)> {
        (0..count).map(|seed| (Arm::alone(of(seed)), 1)).collect()
    }

    /// Whether seeds decide: one seed always passes, another always fails.
    fn chance(&self) -> Family {
        let mut wanted = Vec::new();
        let kinds: [(Seeded, CauseCategory); 2] =
            [(random_seed, CauseCategory::Randomness), (hash_seed, CauseCategory::HashOrder)];
        for (of, category) in kinds {
            match self.chance_of(of, category) {
                Family::Nothing => {}
                Family::Run(arms) => wanted.extend(arms),
                explains @ Family::Explains(_) => return explains,
            }
        }
        if wanted.is_empty() { Family::Nothing } else { Family::Run(wanted) }
    }

    fn chance_of(&self, of: Seeded, category: CauseCategory) -> Family {
        let rare = rate(self.base.counts()).min(1.0 - rate(self.base.counts()));
        let count: u32 = if !self.base.varies() {
            3
        } else if rare < 0.2 {
            16
        } else {
            6
        };
        let arms: Vec<Arm> = (0..count).map(|seed| Arm::alone(of(seed))).collect();
        let missing = self.missing(arms.iter().map(|arm| (arm.clone(), 1)).collect());
        if !missing.is_empty() {
            return Family::Run(missing);
        }
        let tallies: Vec<(&Arm, Tally)> = arms.iter().map(|arm| (arm, self.trials.tally(arm))).collect();
        if tallies.iter().filter(|(_, tally)| tally.varies()).count() > 1 {
            return Family::Nothing; // a seed is fixed, and it varies all the same
        }
        // The seeds that were tried most, so that runs gather on one pair.
        let most = |wanted: fn(&Tally) -> bool| {
            tallies.iter().rev().filter(|(_, t)| wanted(t)).max_by_key(|(_, t)| t.attempts()).copied()
        };
        let passing = most(|tally| tally.passes > 0 && tally.failures == 0);
        let failing = most(|tally| tally.failures > 0 && tally.passes == 0);
        let comparison = self.comparison(2);
        match (passing, failing) {
            (Some((passing, passes)), Some((failing, failures))) => {
                match comparison.judge(passes.counts(), failures.counts()) {
                    Judgement::Different { confidence } => Family::Explains(Explanation::Condition {
                        category,
                        passing: passing.clone(),
                        failing: failing.clone(),
                        confidence,
                    }),
                    Judgement::Open { .. } => {
                        let runs = passes.attempts().min(failures.attempts()) + 2;
                        let arms = [(passing.clone(), runs), (failing.clone(), runs)];
                        Family::Run(arms.into_iter().filter(|(_, runs)| *runs <= ARM_RUNS).collect())
                    }
                }
            }
            // Seeded it always does one thing, unseeded always the other: it counts on a seed of its own.
            (None, Some(_)) | (Some(_), None) if !self.base.varies() => {
                let worlds: Vec<World> = (0..1).map(of).collect();
                self.against_baseline(&worlds, comparison, ARM_RUNS)
            }
            (_, _) => Family::Nothing,
        }
    }

    /// Whether a busy machine decides.
    fn timing(&self) -> Family {
        if self.together == Together::Crowd {
            let shared = self.missing(TIMING.iter().map(|world| (in_suite(*world), CROWD_TIMING)).collect());
            if !shared.is_empty() {
                return Family::Run(shared);
            }
        }
        let least = if self.base.varies() { 6 } else { 5 };
        let worlds = self.worth_trying(&TIMING);
        let missing = self.missing(worlds.iter().map(|world| (Arm::alone(*world), least)).collect());
        if !missing.is_empty() {
            let plain = std::iter::once((Arm::PLAIN, least));
            return Family::Run(missing.into_iter().chain(plain).collect());
        }
        self.against_baseline(&worlds, self.comparison(number(&TIMING)), NOISY_ARM_RUNS)
    }

    /// All other conditions.
    fn worlds(&self) -> Family {
        let worlds = self.worth_trying(&WORLDS);
        let missing = self.missing(worlds.iter().map(|world| (Arm::alone(*world), 1)).collect());
        if !missing.is_empty() {
            return Family::Run(missing);
        }
        self.against_baseline(&worlds, self.comparison(number(&WORLDS)), ARM_RUNS)
    }

    /// More orders and more runs alone, before a test is said not to fail.
    fn last_look(&self) -> Family {
        let mut arms = vec![(Arm::PLAIN, LAST_BASELINE)];
        arms.extend(self.orders(10).into_iter().map(|order| (Arm::suite(order, World::Plain), 1)));
        if self.missing(arms.clone()).is_empty() { Family::Nothing } else { Family::Run(arms) }
    }

    fn against_baseline(&self, worlds: &[World], comparison: Comparing, most: u32) -> Family {
        let given = worlds.iter().filter(|world| self.question.able.gives(**world));
        let arms: Vec<Arm> = given.map(|world| Arm::alone(*world)).collect();
        self.compare(&arms, comparison, most, |arm| match arm.company {
            Company::Alone | Company::File(_) | Company::Suite(_) => CauseCategory::of(arm.treatment.world),
            Company::Listed(_) => CauseCategory::OrderVictim,
        })
    }

    /// Each arm against the test alone: the surest that differs, or runs of those that may.
    fn compare(
        &self,
        arms: &[Arm],
        comparison: Comparing,
        most: u32,
        category: impl Fn(&Arm) -> CauseCategory,
    ) -> Family {
        let base = self.base.counts();
        let mut best: Option<(f64, &Arm)> = None;
        let mut open: Vec<(f64, &Arm)> = Vec::new();
        for arm in arms {
            let tally = self.trials.tally(arm);
            match comparison.judge(base, tally.counts()) {
                Judgement::Different { confidence } => {
                    if best.is_none_or(|(known, _)| confidence > known) {
                        best = Some((confidence, arm));
                    }
                }
                Judgement::Open { evidence, .. } => {
                    if is_suspicious(base, tally, evidence) && tally.attempts() < most {
                        open.push((evidence, arm));
                    }
                }
            }
        }
        if let Some((confidence, arm)) = best {
            let counts = self.trials.tally(arm).counts();
            let (passing, failing) = if counts.rate() > base.rate() {
                (Arm::PLAIN, arm.clone())
            } else {
                (arm.clone(), Arm::PLAIN)
            };
            let category = category(arm);
            return Family::Explains(Explanation::Condition { category, passing, failing, confidence });
        }
        if open.is_empty() {
            return Family::Nothing;
        }
        open.sort_by(|a, b| b.0.total_cmp(&a.0));
        // One arm for each cause is enough to settle it.
        let mut causes = BTreeSet::new();
        open.retain(|(_, arm)| causes.insert(category(arm)));
        let mut wanted: Vec<(Arm, u32)> = open
            .into_iter()
            .take(SUSPECTS)
            .map(|(_, arm)| (arm.clone(), self.trials.tally(arm).attempts() + 2))
            .collect();
        let runs = wanted.iter().map(|(_, runs)| *runs).max().unwrap_or_default();
        wanted.push((Arm::PLAIN, runs));
        Family::Run(wanted)
    }

    /// The condition that most speaks for, where none is as sure as was asked: better than nothing if
    /// it is likelier than not, and said with its confidence.
    fn leaning(&self) -> Option<Explanation> {
        let base = self.base.counts();
        let of_family = |world: World| {
            let family = [&TIMING[..], &WORLDS[..]].into_iter().find(|family| family.contains(&world));
            family.map(number)
        };
        let arms = self.trials.arms().filter_map(|(arm, tally)| match arm.company {
            Company::Alone => {
                let world = arm.treatment.world;
                Some((world, tally, of_family(world)?))
            }
            Company::File(_) | Company::Suite(_) | Company::Listed(_) => None,
        });
        let judged = arms.filter_map(|(world, tally, family)| {
            match self.comparison(family).judge(base, tally.counts()) {
                Judgement::Open { confidence, .. } | Judgement::Different { confidence } => {
                    (confidence > LEANING).then_some((confidence, world, tally))
                }
            }
        });
        let (confidence, world, tally) = judged.max_by(|a, b| a.0.total_cmp(&b.0))?;
        let arm = Arm::alone(world);
        let (passing, failing) =
            if tally.counts().rate() > base.rate() { (Arm::PLAIN, arm) } else { (arm, Arm::PLAIN) };
        Some(Explanation::Condition { category: CauseCategory::of(world), passing, failing, confidence })
    }

    /// A last pair of attempts that watch state and output, on each side of the finding.
    fn look(&self, explanation: Explanation) -> Investigation {
        let (failing, passing) = explanation.sides();
        let unseen = |arm: &Arm, failed: bool| {
            let seen = self.trials.of_arm(arm).iter().any(|trial| {
                let fails = matches!(trial.observation.seen, crate::plan::Seen::Fail(_));
                !trial.record.details.is_empty() && fails == failed
            });
            !seen && self.trials.watched(arm) < LOOKS && !self.trials.tally(arm).is_given_up()
        };
        let looks = [(failing, true), (passing, false)];
        let looks = looks.into_iter().filter(|(arm, failed)| unseen(arm, *failed)).map(|(arm, _)| arm);
        Investigation { wanted: Vec::new(), looks: looks.collect(), explanation: Some(explanation) }
    }
}

/// Whether an arm may yet turn out to differ: it does so far, and not less likely than at first.
fn is_suspicious(base: Counts, tally: Tally, evidence: f64) -> bool {
    if tally.attempts() == 0 || tally.is_given_up() {
        return false;
    }
    let apart = (rate(tally.counts()) - rate(base)).abs();
    // At equal rates evidence falls the faster the more runs there are.
    if tally.attempts() < 4 { apart > 0.2 } else { apart > 0.1 && evidence > 0.1 }
}

/// Conditions beside order, chance and a busy machine.
const WORLDS: [World; 33] = [
    World::TimeZone(Zone::Ahead),
    World::TimeZone(Zone::Behind),
    World::TimeZone(Zone::HalfHour),
    World::Clock(ClockStart::Days(400)),
    World::Clock(ClockStart::MonthEnd),
    World::Clock(ClockStart::YearEnd),
    World::Clock(ClockStart::LeapDay),
    World::Clock(ClockStart::DaylightSaving),
    World::Clock(ClockStart::InMonth { month: 3 }),
    World::Clock(ClockStart::InMonth { month: 4 }),
    World::Clock(ClockStart::InMonth { month: 5 }),
    World::Clock(ClockStart::InMonth { month: 6 }),
    World::Clock(ClockStart::InMonth { month: 7 }),
    World::Clock(ClockStart::InMonth { month: 8 }),
    World::Clock(ClockStart::InMonth { month: 9 }),
    World::Clock(ClockStart::InMonth { month: 10 }),
    World::Clock(ClockStart::InMonth { month: 11 }),
    World::Clock(ClockStart::InMonth { month: 12 }),
    World::NetworkOff,
    World::NetworkOn,
    World::NetworkSlow { millis: 300 },
    World::NetworkLossy { percent: 50 },
    World::Locale(LocaleChoice::Ascii),
    World::Locale(LocaleChoice::German),
    World::SlowDisk { millis: 20 },
    World::DirectoryOrder { seed: 1 },
    World::DirectoryOrder { seed: 2 },
    World::Umask,
    World::Home,
    World::Variables,
    World::MemoryPressure { percent: 25 },
    World::WarningsAsErrors,
    World::GarbageCollection,
];

/// What a busy machine does.
const TIMING: [World; 2] = [World::CpuContention { hogs: 8 }, World::CpuQuota { millis: 200 }];

fn in_suite(world: World) -> Arm {
    Arm::suite(Order::Given, world)
}

fn number(worlds: &[World]) -> u32 {
    u32::try_from(worlds.len()).expect("there are few worlds")
}

/// A world by the number of its seed.
type Seeded = fn(u32) -> World;

fn hash_seed(seed: u32) -> World {
    World::HashSeed(HashSeed::Fixed(seed))
}

fn random_seed(seed: u32) -> World {
    World::RandomSeed { seed: seed + 1 }
}
