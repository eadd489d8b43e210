//! `flakefarm validate`: does a change fix a test? Two trees, without it and with it, asked like every
//! other question. The work tree is never written to.

use crate::args::ValidateArgs;
use crate::ask::{self, Asked, Place, Session, describe, tests_and_path};
use crate::exit::{Complaint, Exit};
use crate::signals;
use crate::sweep::{Wishes, question};
use crate::trees;
use clap::Parser as _;
use flakefarm_coordinator::experiment::{Company, FailingIn, ValidateRequest};
use flakefarm_coordinator::plan::{QuestionKind, ScopeChoice, TestFilter};
use flakefarm_coordinator::report::Report;
use flakefarm_project::patch::PATCH_LIMIT;
use flakefarm_project::snapshot::Archive;
use flakefarm_shared::{Order, World};
use std::io::Read as _;
use std::path::Path;

/// Earlier sweeps that are looked at for where a test fails.
const EARLIER: usize = 10;

pub(crate) async fn validate(args: &ValidateArgs) -> Result<Exit, Complaint> {
    let (tests, path) = tests_and_path(&args.tests);
    let mut session = Session::open(&args.ask, &path, &args.options(), signals::stop_on_signal()?)?;
    if session.printed_settings()? {
        return Ok(Exit::Clean);
    }
    let trees = trees(args, &session).await?;
    let request = ValidateRequest {
        tests: TestFilter(tests.clone()),
        patched: flakefarm_shared::Digest::of(&trees.with.bytes),
        patch: trees.name.clone(),
        failing_in: failing_in_options(args)?,
    };
    let kind = |request: &ValidateRequest| QuestionKind::Validate(Box::new(request.clone()));
    let wishes = Wishes { kind: kind(&request), tests: TestFilter::default(), order: None, repeats: true };
    let mut question = question(wishes, &session)?;
    let place = session.place(question.sandbox).await?;
    let snapshot = place.put(trees.without.bytes.clone()).await?;
    let patched = place.put(trees.with.bytes.clone()).await?;
    let mut request = ValidateRequest { patched, ..request };
    if request.failing_in.is_none() && !tests.is_empty() {
        request.failing_in = failing_in_history(&place, &session.loaded.spec.name, &tests).await;
    }
    question.kind = kind(&request);
    let (name, how) = (&session.loaded.spec.name, describe(&session.loaded));
    let condition = request.failing_in.as_ref().map_or_else(
        || "where it fails is measured first".to_owned(),
        |known| format!("failing {}", words(known)),
    );
    let asked = if tests.is_empty() { "the tests that fail".to_owned() } else { tests.join(", ") };
    session.progress.note(&format!(
        "{name}: {how}; does {} ({}) fix {asked}? {condition}, seed {}",
        trees.name, trees.what, question.seed
    ));
    let revision = trees.without.revision.clone();
    let submission = session.submission(question, snapshot, revision, World::Plain);
    match session.carry_out(place, &submission).await? {
        Asked::Detached => Ok(Exit::Clean),
        Asked::Ended(ended) => {
            let exit = ask::finish(&ended, &args.ask.output).await?;
            Ok(if exit == Exit::Clean { verdict(&ended.report) } else { exit })
        }
    }
}

/// 0 proved, 1 not, 3 undecided within the budget.
fn verdict(report: &Report) -> Exit {
    let answers: Vec<&str> = report
        .tests
        .iter()
        .filter_map(|test| test.comparison.as_ref())
        .map(|comparison| comparison.answer.as_str())
        .collect();
    let any = |wanted: &[&str]| answers.iter().any(|answer| wanted.contains(answer));
    if answers.is_empty() || any(&["made_worse", "not_shown", "improved"]) {
        Exit::GateFailed
    } else if any(&["undecided"]) {
        Exit::Inconclusive
    } else {
        Exit::Clean
    }
}

/// The two trees.
struct Trees {
    without: Archive,
    with: Archive,
    /// What the change is called.
    name: String,
    /// What it consists of, for people.
    what: String,
}

async fn trees(args: &ValidateArgs, session: &Session<'_>) -> Result<Trees, Complaint> {
    let root = session.root.clone();
    let here = session.archive().await?;
    let trees = match (&args.patch, &args.revision) {
        (Some(file), _) => {
            let (bytes, name) = read_patch(file)?;
            let patched = trees::patched(&root, &here, bytes, &name).await?;
            let what = match patched.changed.as_slice() {
                [one] => one.display().to_string(),
                several => format!("{} files", several.len()),
            };
            Trees { without: here, with: patched.archive, name, what }
        }
        (None, Some(revision)) => {
            let with = at(&root, revision).await?;
            let what = with.revision.clone().unwrap_or_default().chars().take(10).collect();
            Trees { without: here, with, name: revision.clone(), what }
        }
        (None, None) => {
            let without = at(&root, "HEAD").await?;
            let what = "uncommitted changes".to_owned();
            Trees { without, with: here, name: "the work tree".to_owned(), what }
        }
    };
    if trees.without.bytes == trees.with.bytes {
        let message = format!("{} changes nothing", trees.name);
        let hint = "change something, or name a change: --patch FILE (or -), or --revision REV";
        return Err(Complaint::usage(message).hint(hint));
    }
    Ok(trees)
}

async fn at(root: &Path, name: &str) -> Result<Archive, Complaint> {
    trees::at(root, name).await?.map_err(|error| Complaint::wrong(&error, error.hint()))
}

/// The patch and what people call it.
fn read_patch(file: &Path) -> Result<(Vec<u8>, String), Complaint> {
    let mut bytes = Vec::new();
    let (read, name) = if file == Path::new("-") {
        (std::io::stdin().lock().take(PATCH_LIMIT + 1).read_to_end(&mut bytes), "standard input".to_owned())
    } else {
        let opened = std::fs::File::open(file);
        (
            opened.and_then(|file| file.take(PATCH_LIMIT + 1).read_to_end(&mut bytes)),
            file.display().to_string(),
        )
    };
    read.map_err(|error| {
        Complaint::usage(format!("failed to read {name}: {error}"))
            .hint("--patch takes a file as `git diff` writes it, or - for standard input")
    })?;
    Ok((bytes, name))
}

/// Where the tests fail, as far as options say.
fn failing_in_options(args: &ValidateArgs) -> Result<Option<FailingIn>, Complaint> {
    if args.scope.is_none() && args.order.is_none() && args.under.is_none() {
        return Ok(None);
    }
    let order = args.order.unwrap_or(Order::Given);
    // An order is one of the suite.
    let scope =
        args.scope.unwrap_or(if args.order.is_some() { ScopeChoice::Suite } else { ScopeChoice::Test });
    let company = company(scope, order).ok_or_else(|| {
        Complaint::usage("a test fails alone, in its file or in the suite")
            .hint("--scope test, file or suite")
    })?;
    Ok(Some(FailingIn { company, world: args.under.unwrap_or(World::Plain) }))
}

fn company(scope: ScopeChoice, order: Order) -> Option<Company> {
    match scope {
        ScopeChoice::Test => Some(Company::Alone),
        ScopeChoice::File => Some(Company::File(order)),
        ScopeChoice::Suite => Some(Company::Suite(order)),
        ScopeChoice::Auto => None,
    }
}

/// Where all of the tests failed in an earlier sweep or diagnosis, if that is the same for all.
async fn failing_in_history(place: &Place, project: &str, tests: &[String]) -> Option<FailingIn> {
    for report in place.earlier_reports(project, EARLIER).await {
        let failing = report.tests.iter().filter(|test| test.failures > 0 && tests.contains(&test.id));
        let known: Vec<FailingIn> =
            failing.filter_map(|test| of_command(test.reproduce_failure.as_deref()?)).collect();
        if known.len() == tests.len() && known.iter().all(|one| *one == known[0]) {
            return known.into_iter().next();
        }
    }
    None
}

/// What the command that repeats a failure says about where.
#[derive(clap::Parser)]
#[command(no_binary_name = true)]
struct Repeated {
    _sweep: Vec<String>,
    #[arg(long)]
    tests: Vec<String>,
    #[arg(long, value_parser = crate::args::values::scope)]
    scope: ScopeChoice,
    #[arg(long, value_parser = crate::args::values::order, default_value = "given")]
    order: Order,
    #[arg(long, default_value = "plain")]
    under: World,
    #[arg(long)]
    runs: Option<u32>,
    #[arg(long)]
    seed: Option<u64>,
}

fn of_command(command: &str) -> Option<FailingIn> {
    let repeated = Repeated::try_parse_from(shell_words::split(command).ok()?).ok()?;
    let Repeated { scope, order, under, .. } = repeated;
    Some(FailingIn { company: company(scope, order)?, world: under })
}

fn words(known: &FailingIn) -> String {
    let order = |order: &Order| match order {
        Order::Given => "in the given order".to_owned(),
        Order::Reversed => "in reversed order".to_owned(),
        Order::AsListed => "in a chosen order".to_owned(),
        Order::Shuffled { seed } => format!("in order shuffled:{seed}"),
    };
    let company = match &known.company {
        Company::Alone => "alone".to_owned(),
        Company::File(own) => format!("in its file {}", order(own)),
        Company::Suite(own) => format!("in the suite {}", order(own)),
        Company::Listed(tests) => format!("after {} chosen tests", tests.len().saturating_sub(1)),
    };
    if known.world.is_plain() { company } else { format!("{company} under {}", known.world) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_repeats_a_failure_says_where_it_fails() {
        let check = |command: &str, expect: Option<(Company, World)>| {
            let expect = expect.map(|(company, world)| FailingIn { company, world });
            assert_eq!(of_command(command), expect, "{command}");
        };
        let suite = Company::Suite(Order::Shuffled { seed: 7 });
        check("flakefarm sweep '/a b' --scope suite --order shuffled:7 --under timezone --runs 1", None);
        check(
            "flakefarm sweep '/a b' --scope suite --order shuffled:7 --runs 1",
            Some((suite, World::Plain)),
        );
        check(
            "flakefarm sweep /p --tests 'tests/a.py::t[a b]' --scope test --order given --runs 1",
            Some((Company::Alone, World::Plain)),
        );
        check("flakefarm diagnose x", None);
    }
}
