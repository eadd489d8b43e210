//! The commands that repeat what a sweep found, quoted so that a shell reads them back as they were.

use super::values::{order_word, scope_word};
use super::words;
use crate::experiment::{Ledger, Observation, Question, Seen};
use flakefarm_shared::{Scope, Selection, TestId, Treatment, World};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The sweep again, for this test: alone if it also fails alone or only ever ran alone, among the
/// whole suite if that is where it fails.
pub(super) fn reproduce(
    path: &str,
    question: &Question,
    observations: &[Observation],
    test: &TestId,
    attempts: u32,
) -> String {
    let failing = |seen: &&Observation| matches!(seen.seen, Seen::Fail(_));
    let submitted = |seen: &&Observation| seen.treatment.other_source().is_none();
    let failures_by_world =
        observations.iter().filter(failing).filter(submitted).fold(BTreeMap::new(), |mut counts, seen| {
            *counts.entry(seen.treatment.world).or_insert(0_u32) += 1;
            counts
        });
    // The plain world if it ever fails there, otherwise the one it fails in most.
    let world = match failures_by_world.get(&World::Plain) {
        Some(_) => World::Plain,
        None => failures_by_world
            .iter()
            .max_by_key(|(_, count)| **count)
            .map_or(World::Plain, |(world, _)| *world),
    };
    let treatment = Treatment::under(world);
    let observations: Vec<&Observation> =
        observations.iter().filter(|seen| seen.treatment == treatment).collect();
    let attempts = if world.is_plain() { attempts } else { u32::try_from(observations.len()).unwrap_or(1) };
    let failed_in = |wanted: Scope| {
        observations.iter().any(|seen| seen.scope == wanted && matches!(seen.seen, Seen::Fail(_)))
    };
    let ran_in = |wanted: Scope| observations.iter().any(|seen| seen.scope == wanted);
    let scope = match (failed_in(Scope::Test), failed_in(Scope::File), failed_in(Scope::Suite)) {
        (true, _, _) => Scope::Test,
        (false, true, _) => Scope::File,
        (false, false, true) => Scope::Suite,
        (false, false, false) if ran_in(Scope::Test) || !ran_in(Scope::Suite) => Scope::Test,
        (false, false, false) => Scope::Suite,
    };
    let runs = attempts.max(1);
    let tests = tests_arguments(question, scope, test);
    let (path, scope, seed) = (path_argument(path), scope_word(scope), question.seed);
    let under = under_argument(world);
    format!("flakefarm sweep {path}{tests} --scope {scope}{under} --runs {runs} --seed {seed}")
}

/// The failing attempt with the fewest tests before this one, among those that had all their neighbours.
pub(super) fn reproduce_failure(
    path: &str,
    question: &Question,
    ledger: &Ledger,
    test: &TestId,
) -> Option<String> {
    ledger
        .observations(test)
        .iter()
        .filter(|seen| matches!(seen.seen, Seen::Fail(_)) && seen.treatment.other_source().is_none())
        .min_by_key(|seen| {
            (
                !seen.treatment.is_plain(),
                Reverse(neighbours(ledger, seen)),
                seen.position,
                seen.started_at,
                seen.index,
            )
        })
        .map(|seen| one_attempt(path, question, seen, test))
}

/// How many tests the attempt of an observation was to run: an attempt that only finished what a
/// crashed one had left is a poor witness of order.
fn neighbours(ledger: &Ledger, seen: &Observation) -> usize {
    match ledger.spec_of(seen).map(|spec| &spec.tests) {
        Some(Selection::All) => usize::MAX,
        Some(Selection::Only(tests)) => tests.len(),
        None => 0,
    }
}

/// One attempt as it was: same scope, same order, same neighbours.
fn one_attempt(path: &str, question: &Question, seen: &Observation, test: &TestId) -> String {
    let order = order_word(seen.order);
    let tests = tests_arguments(question, seen.scope, test);
    let (path, scope) = (path_argument(path), scope_word(seen.scope));
    let under = under_argument(seen.treatment.world);
    format!("flakefarm sweep {path}{tests} --scope {scope} --order {order}{under} --runs 1")
}

fn under_argument(world: World) -> String {
    if world.is_plain() { String::new() } else { format!(" --under {world}") }
}

/// What has to be selected so that an attempt of `scope` has the neighbours it had: the test, its
/// file, or whatever the sweep was about.
fn tests_arguments(question: &Question, scope: Scope, test: &TestId) -> String {
    match scope {
        Scope::Test => tests_argument(test.as_str()),
        Scope::File => tests_argument(test.0.split_once("::").map_or(test.as_str(), |(file, _)| file)),
        Scope::Suite => question.tests.0.iter().map(|pattern| tests_argument(pattern)).collect(),
    }
}

fn path_argument(path: &str) -> String {
    if path.starts_with('-') { words::shell_quote(&format!("./{path}")) } else { words::shell_quote(path) }
}

fn tests_argument(pattern: &str) -> String {
    // A value that begins with a dash would be taken for an option.
    let separator = if pattern.starts_with('-') { '=' } else { ' ' };
    format!(" --tests{separator}{}", words::shell_quote(pattern))
}
