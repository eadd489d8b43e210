//! What a test does in worlds other than the plain one, and what that makes of it: flaky where only
//! order or chance differ, fragile where the surroundings do.

use super::category::{Category, Count, Finding, chance_of_difference};
use crate::conditions;
use crate::experiment::{CauseCategory, Ledger, Seen, Verdict, WorldsSeen};
use flakefarm_shared::{TestId, World};
use std::collections::BTreeMap;

/// Chance from which on counts are not taken for a difference.
const CHANCE: f64 = 0.05;

/// Counts of one test by world.
#[derive(Debug)]
pub(super) struct Elsewhere {
    plain: Count,
    /// Worlds that say something of tests.
    worlds: BTreeMap<World, Count>,
}

impl Elsewhere {
    pub(super) fn read(ledger: &Ledger, worlds: &WorldsSeen, test: &TestId) -> Self {
        let mut found = Self { plain: Count::default(), worlds: BTreeMap::new() };
        for observation in ledger.observations(test).iter().filter(|o| worlds.speaks(&o.treatment)) {
            if observation.treatment.is_plain() {
                found.plain.add(observation);
            } else if !matches!(observation.seen, Seen::Skip) {
                found.worlds.entry(observation.treatment.world).or_default().add(observation);
            }
        }
        found
    }

    /// All attempts, in every world that counts.
    pub(super) fn everywhere(&self) -> Count {
        self.worlds.values().fold(self.plain, |sum, count| sum.plus(*count))
    }

    /// The verdict for a test that always does the same in the plain world and something else in
    /// another, and why; none for one that does not.
    pub(super) fn verdict(&self) -> Option<(Verdict, String)> {
        let differing = self.differing();
        let (verdict, counted): (_, Vec<_>) = {
            let witnesses = |world: &World| world.role().witnesses_flakiness();
            if differing.iter().any(|(world, _)| witnesses(world)) {
                (Verdict::Flaky, differing.into_iter().filter(|(world, _)| witnesses(world)).collect())
            } else if differing.is_empty() {
                return None;
            } else {
                (Verdict::Fragile, differing)
            }
        };
        let plain = self.plain;
        let elsewhere: Vec<String> =
            counted.iter().map(|(world, count)| format!("{} under {world}", share(plain, *count))).collect();
        let passes = plain.failures == 0;
        let what = if passes { "failed" } else { "passed" };
        let plainly = format!("{} of {} plain runs", plain.attempts, plain.attempts);
        let text = match verdict {
            Verdict::Flaky => format!(
                "witnessed: {what} {}, and {} {plainly}",
                elsewhere.join(", "),
                if passes { "passed" } else { "failed" }
            ),
            _ if passes => format!("failed only {}; passed {plainly}", elsewhere.join(", ")),
            _ => format!("passed only {}; failed {plainly}", elsewhere.join(", ")),
        };
        Some((verdict, text))
    }

    /// Worlds in which the test does what it never does in the plain one.
    fn differing(&self) -> Vec<(World, Count)> {
        let plain = self.plain;
        if plain.attempts == 0 || plain.varies() {
            return Vec::new();
        }
        let differs = |count: &Count| {
            if plain.failures == 0 { count.failures > 0 } else { count.failures < count.attempts }
        };
        self.worlds
            .iter()
            .filter(|(_, count)| differs(count))
            .map(|(world, count)| (*world, *count))
            .collect()
    }

    /// What the counts by world speak for: the world that changes most, beyond what chance explains
    /// after a look at each of them.
    pub(super) fn finding(&self) -> Option<Finding> {
        let looks = self.worlds.len() as f64;
        let (world, count, chance) = self
            .worlds
            .iter()
            .map(|(world, count)| (*world, *count, chance_of_difference(*count, self.plain)))
            .min_by(|a, b| {
                let confirmed = |count: &Count| std::cmp::Reverse(count.attempts);
                a.2.total_cmp(&b.2).then_with(|| confirmed(&a.1).cmp(&confirmed(&b.1)))
            })?;
        // A network is given to tests that asked for one: that is one look, not the best of many.
        let looks = if world == World::NetworkOn { 1.0 } else { looks };
        let chance = (chance * looks).min(1.0);
        if chance >= CHANCE {
            return None;
        }
        let about = conditions::about(world);
        let mut evidence = vec![format!(
            "under {} ({world}) it {}, in plain runs it {}",
            about.name,
            count.text(),
            self.plain.text()
        )];
        let (as_plain, different): (Vec<_>, Vec<_>) =
            self.worlds.iter().filter(|(other, _)| **other != world).partition(|(_, count)| {
                if self.plain.failures == 0 { count.failures == 0 } else { count.failures == count.attempts }
            });
        evidence.extend(different.iter().map(|(world, count)| format!("{world}: {}", count.text())));
        if !as_plain.is_empty() && !self.plain.varies() {
            let worlds: Vec<String> = as_plain.iter().map(|(world, _)| world.to_string()).collect();
            evidence.push(format!("no different under {}", worlds.join(", ")));
        }
        let category = Category::Condition(CauseCategory::of(world));
        Some(Finding { category, confidence: 1.0 - chance, evidence, world: Some(world) })
    }

    /// Worlds in which it ran, for the text of a verdict that covers them.
    pub(super) fn covered(&self) -> Option<String> {
        if self.worlds.is_empty() {
            return None;
        }
        let worlds: Vec<String> = self.worlds.keys().map(World::to_string).collect();
        Some(format!("; also clean under {}", worlds.join(", ")))
    }
}

/// `3 of 3`: failures where the plain runs pass, passes where they fail.
fn share(plain: Count, count: Count) -> String {
    let told = if plain.failures == 0 { count.failures } else { count.attempts - count.failures };
    format!("{told} of {}", count.attempts)
}
