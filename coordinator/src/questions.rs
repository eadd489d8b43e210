//! Which planner answers which question. What is asked is data; every kind of question has the same
//! ledger, jobs, workers and reports.

use crate::experiment::{History, Ledger, Plan, Question, QuestionKind};
use crate::plan::{self, level};
use crate::{diagnose, validate};
use std::time::Duration;

/// What to run next, whatever is asked. The engine calls it whenever something was heard, persists the jobs
/// it returns, notes them in the ledger, publishes them, and stops once nothing is wanted. `history` and
/// `elapsed` are as for [`plan::plan`]; only some kinds of questions depend on them.
pub fn plan(question: &Question, ledger: &Ledger, history: &History, elapsed: Duration) -> Plan {
    let planned = match &question.kind {
        QuestionKind::Detect => return plan::plan(question, ledger, history, elapsed),
        QuestionKind::Diagnose { .. } => diagnose::plan(question, ledger),
        QuestionKind::Bisect(request) => diagnose::bisect::plan(question, request, ledger),
        QuestionKind::Validate(request) => validate::plan(question, request, ledger, elapsed),
    };
    level::assign(question, ledger, planned)
}
