//! `flakefarm history`, `tests`, `trends` and `gc`: what history answers, the same from this machine's files
//! and from a farm, and what is no longer kept of it.

mod collecting;
mod foretelling;
mod linking;
mod of_project;
mod of_test;
pub(crate) mod shown;
mod upkeep;

pub(crate) use collecting::gc;
pub(crate) use foretelling::forecast;

use crate::args::{AnswerFormat, HistoryArgs, TestsArgs, TrendsArgs};
use crate::exit::{Complaint, Exit};
use crate::memory::{Memory, Place};
use crate::output;
use flakefarm_coordinator::db::TestRow;
use flakefarm_coordinator::history::questions::{self, Window};
use flakefarm_coordinator::plan::Confidence;
use flakefarm_shared::{TestId, now_micros};
use serde::Serialize;

pub(crate) async fn history(args: &HistoryArgs) -> Result<Exit, Complaint> {
    let question = &args.question;
    let memory = Memory::of(&question.memory)?;
    let window = Window::last(question.days, now_micros());
    let found = match memory.open().await? {
        Place::Farm(farm) => farm.test_history(&memory.project, &args.test, question.days).await?,
        Place::Here { db, samples } => {
            memory.sum_up(&db, &samples).await?;
            let (test, project) = (TestId(args.test.clone()), &memory.project);
            let samples = Some(samples.as_ref());
            let seen =
                questions::test_history(&db, samples, project, &test, window, Confidence::DEFAULT).await?;
            match seen {
                Some(seen) => seen,
                None => return Err(unseen(&test, project, &db.tests(project).await?)),
            }
        }
    };
    print(question.format, &found, of_test::text, of_test::csv)
}

/// Nobody has seen a test of that name; those are named that it may be short for.
fn unseen(test: &TestId, project: &str, seen: &[TestRow]) -> Complaint {
    const NAMED: usize = 3;
    let like: Vec<String> = seen
        .iter()
        .filter(|row| row.test.as_str().contains(test.as_str()))
        .map(|row| format!("`{}`", row.test))
        .take(NAMED)
        .collect();
    let hint = if like.is_empty() {
        "`flakefarm tests` lists those that somebody saw; --project names another project".to_owned()
    } else {
        format!("is it one of these: {}? `flakefarm tests` lists all", like.join(", "))
    };
    Complaint::usage(format!("nobody has seen a test `{test}` of {project}")).hint(hint)
}

pub(crate) async fn tests(args: &TestsArgs) -> Result<Exit, Complaint> {
    if let Some(action) = &args.action {
        return linking::of_action(action).await;
    }
    let question = &args.question;
    let memory = Memory::of(&question.memory)?;
    let window = Window::last(question.days, now_micros());
    let ranking = match memory.open().await? {
        Place::Farm(farm) => farm.tests(&memory.project, question.days, args.moved, args.limit).await?,
        Place::Here { db, samples } => {
            memory.sum_up(&db, &samples).await?;
            questions::ranking(&db, &memory.project, window, args.moved, args.limit).await?
        }
    };
    print(question.format, &ranking, of_project::ranking, of_project::ranking_csv)
}

pub(crate) async fn trends(args: &TrendsArgs) -> Result<Exit, Complaint> {
    let question = &args.question;
    let memory = Memory::of(&question.memory)?;
    let window = Window::last(question.days, now_micros());
    let trends = match memory.open().await? {
        Place::Farm(farm) => farm.trends(&memory.project, question.days).await?,
        Place::Here { db, samples } => {
            memory.sum_up(&db, &samples).await?;
            questions::trends(&db, &memory.project, window).await?
        }
    };
    print(question.format, &trends, of_project::trends, of_project::trends_csv)
}

/// Prints an answer in the format that was asked for.
fn print<T: Serialize>(
    format: AnswerFormat,
    answer: &T,
    human: fn(&T) -> String,
    csv: fn(&T) -> String,
) -> Result<Exit, Complaint> {
    output::print(&match format {
        AnswerFormat::Human => human(answer),
        AnswerFormat::Csv => csv(answer),
        AnswerFormat::Json => format!("{}\n", serde_json::to_string_pretty(answer)?),
    })?;
    Ok(Exit::Clean)
}
