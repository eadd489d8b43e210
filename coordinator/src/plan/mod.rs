//! What to run next to detect flaky tests: a pure function of the question, the ledger, what was known
//! beforehand and the time that has passed. No clock, no I/O, no randomness but what the question's seed
//! gives. Planning twice from the same ledger gives the same jobs under the same names.

mod adaptive;
mod alone;
mod answers;
mod batch;
mod beliefs;
mod chains;
mod confirm;
mod costs;
mod firsts;
mod fixed;
mod funds;
mod groups;
pub(crate) mod level;
mod needs;
mod panel;
mod repeats;
mod rerun;
#[cfg(test)]
mod simulation;
mod slots;
mod slow;
mod suspects;

pub use crate::experiment::{
    Answer, Answers, Budget, Condition, ConditionCount, Confidence, Estimate, Flaked, Guarantee, History,
    Ledger, Observation, PastRun, Plan, PlannedJob, Planning, Question, QuestionError, QuestionKind, Rate,
    Record, Rerun, RerunGate, RunCounts, Runs, SandboxChoice, ScopeChoice, Seen, SeenFailure, SuiteNumbers,
    TestAnswer, TestFilter, TestHistory, UnknownSandbox, WorldsSeen,
};
pub use answers::{affords_one_round, answers};
pub use panel::{Panel, UnknownPanel, turn};

pub(crate) use crate::experiment::file_of;
use std::time::Duration;

/// What to run next to detect flaky tests. `history` is what was known when the sweep was submitted and
/// stays the same for all of it; `elapsed` is the time since then, which matters only to a budget on the
/// clock.
pub fn plan(question: &Question, ledger: &Ledger, history: &History, elapsed: Duration) -> Plan {
    let planned = match question.runs {
        Runs::Fixed(_) => fixed::plan(question, ledger, history),
        Runs::Adaptive => adaptive::plan(question, ledger, history, elapsed),
    };
    level::assign(question, ledger, confirm::confirm(question, ledger, planned))
}
