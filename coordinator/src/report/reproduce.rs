//! The commands that repeat what a sweep found, quoted so that a shell reads them back as they were.

use super::values::{order_word, scope_word};
use super::words;
use crate::experiment::{Ledger, Observation, Question, SandboxChoice, Seen};
use flakefarm_shared::{Order, Scope, Selection, TestId, Treatment, Typed, World};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What was asked, as far as commands have to say it again.
pub(super) struct Repeated<'a> {
    pub(super) question: &'a Question,
    pub(super) typed: &'a Typed,
    pub(super) under: World,
    pub(super) ledger: &'a Ledger,
}

impl Repeated<'_> {
    /// Where the project lies, from where the command was typed.
    pub(super) fn path(&self) -> &str {
        if self.typed.path.is_empty() { "." } else { &self.typed.path }
    }

    /// `why`, with the condition and the order that everything was asked to run in.
    pub(super) fn where_asked(&self, why: String) -> String {
        let under = (!self.under.is_plain()).then(|| format!("under {}", self.under));
        let order = self.question.order.map(|order| format!("in order {}", order_word(order)));
        let asked: Vec<String> = under.into_iter().chain(order).collect();
        if asked.is_empty() || why.is_empty() { why } else { format!("{}: {why}", asked.join(", ")) }
    }

    /// The diagnosis of a test.
    pub(super) fn diagnosis(&self, test: &str) -> String {
        let (name, path) = (words::shell_quote(test), path_argument(self.path()));
        format!("flakefarm diagnose {name} {path} --seed {}{}", self.question.seed, self.arguments())
    }

    /// A sweep of some tests; `world` is that of its attempts, as they said it.
    fn sweep(&self, scope: Scope, test: &TestId, order: Option<Order>, world: World, rest: &str) -> String {
        let path = path_argument(self.path());
        let tests = tests_arguments(self.question, scope, test, self.ledger.file_of(test));
        let order = order.filter(|_| scope != Scope::Test);
        let order = order.map(|order| format!(" --order {}", order_word(order))).unwrap_or_default();
        let under = under_argument(if world.is_plain() { self.under } else { world });
        let sandbox = match self.question.sandbox {
            SandboxChoice::Container => String::new(),
            other => format!(" --sandbox {other}"),
        };
        let (scope, arguments) = (scope_word(scope), self.arguments());
        format!("flakefarm sweep {path}{tests} --scope {scope}{order}{under}{sandbox} {rest}{arguments}")
    }

    /// Arguments to the framework, as they were typed.
    fn arguments(&self) -> String {
        if self.typed.arguments.is_empty() {
            return String::new();
        }
        let words = self.typed.arguments.iter().map(|word| words::shell_quote(word));
        format!(" -- {}", words.collect::<Vec<_>>().join(" "))
    }

    /// The sweep again, for this test: alone if it also fails alone or only ever ran alone, among the
    /// whole suite if that is where it fails.
    pub(super) fn finding(&self, observations: &[Observation], test: &TestId, attempts: u32) -> String {
        let failing = |seen: &&Observation| matches!(seen.seen, Seen::Fail(_));
        let submitted = |seen: &&Observation| seen.treatment.other_source().is_none();
        let failures_by_world = observations.iter().filter(failing).filter(submitted).fold(
            BTreeMap::new(),
            |mut counts, seen| {
                *counts.entry(seen.treatment.world).or_insert(0_u32) += 1;
                counts
            },
        );
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
        let attempts =
            if world.is_plain() { attempts } else { u32::try_from(observations.len()).unwrap_or(1) };
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
        let rest = format!("--runs {runs} --seed {}", self.question.seed);
        self.sweep(scope, test, self.question.order, world, &rest)
    }

    /// The failing attempt with the fewest tests before this one, among those that had all their neighbours.
    pub(super) fn failure(&self, ledger: &Ledger, test: &TestId) -> Option<String> {
        self.failure_of(ledger, test, test)
    }

    /// The same of something that `by` repeats.
    pub(super) fn failure_of(&self, ledger: &Ledger, id: &TestId, by: &TestId) -> Option<String> {
        ledger
            .observations(id)
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
            .map(|seen| {
                // One attempt as it was: same scope, same order, same neighbours.
                self.sweep(seen.scope, by, Some(seen.order), seen.treatment.world, "--runs 1")
            })
    }
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

fn under_argument(world: World) -> String {
    if world.is_plain() { String::new() } else { format!(" --under {world}") }
}

/// What has to be selected so that an attempt of `scope` has the neighbours it had: the test, its
/// file, or whatever the sweep was about.
fn tests_arguments(question: &Question, scope: Scope, test: &TestId, file: &str) -> String {
    match scope {
        Scope::Test => tests_argument(test.as_str()),
        Scope::File => tests_argument(file),
        Scope::Suite => {
            let given = question.tests_as_given.as_ref().unwrap_or(&question.tests);
            given.0.iter().map(|pattern| tests_argument(pattern)).collect()
        }
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
