//! `flakefarm repair`: proposes changes of tests and proves them by experiment. What the difference between
//! two trees, or a diagnosis, says of a test becomes proposals (crate `repair`), and where that is not enough, a
//! provider may propose; gates refuse those that ask less of a test; each that is left is one arm of a question.
//! Nothing is written unless it is proved and asked for, and all of it is recorded.

mod asked;
mod beside;
mod candidates;
mod consult;
mod course;
mod experience;
mod hunks;
mod ledger;
mod managing;
mod on_farm;
mod oracles;
mod probation;
mod prove;
mod provider;
mod sessions;
mod still;
mod told;
mod writing;

use crate::args::values::parsed;
use crate::args::{Format, RepairArgs};
use crate::ask::{Session, tests_and_path};
use crate::check::failed;
use crate::exit::{Complaint, Exit};
use crate::sweep::{Wishes, question};
use crate::{output, signals, stores, trees};
use course::{Bases, Course, Ended};
use experience::Experience;
use flakefarm_coordinator::experiment::Budget;
use flakefarm_coordinator::plan::{QuestionKind, TestFilter};
use flakefarm_coordinator::repairs::{Purse, Rules};
use flakefarm_project::branch::{self, CommittedFile};
use flakefarm_project::snapshot::Archive;
use flakefarm_repair::FileAdaptation;
use flakefarm_shared::Digest;
use provider::Provider;
use sessions::{Record, Request, Standing, Written};
use std::num::NonZeroU32;
use std::path::Path;
use told::Told;
use writing::{Change, Kept};

pub(crate) use on_farm::OnFarm;

pub(crate) async fn repair(args: &RepairArgs) -> Result<Exit, Complaint> {
    let state = stores::state_dir(args.ask.execution.state.as_deref())?;
    let kept = Kept::of(&state);
    if args.manage.list {
        return managing::list(&kept, args).await;
    }
    if let Some(id) = &args.manage.undo {
        return managing::undo(&kept, id).await;
    }
    if let Some(about) = args.manage.on_farm() {
        return asked::about(args, &about).await;
    }
    let (tests, mut path) = tests_and_path(&args.tests);
    let resumed = args.manage.resume.as_deref().map(|id| sessions::find(&kept, id)).transpose()?;
    if let Some(record) = &resumed {
        if !tests.is_empty() || args.base.is_some() || !args.junit.is_empty() {
            return Err(Complaint::usage("a repair goes on with the tests and the base that it began with")
                .hint("leave them out, or begin a new one without --resume"));
        }
        path.clone_from(&record.root);
    }
    let mut session = Session::open(&args.ask, &path, &args.options(), signals::stop_on_signal()?)?;
    session.asks_for_repair();
    if session.printed_settings()? {
        return Ok(Exit::Clean);
    }
    let experience = Experience::of(&session.loaded.spec.name, &session.loaded.settings, &state)?;
    if args.manage.stats {
        return managing::stats(&experience, args.ask.output.format).await;
    }
    if !matches!(args.ask.output.format, Format::Human | Format::Json) {
        return Err(Complaint::usage("repair writes for people or as JSON").hint("--format human or json"));
    }
    if args.ask.farm.detach || args.schedule.is_some() {
        return asked::ask(args, session, tests).await;
    }
    recover(&session, &kept).await?;
    let here = session.archive().await?;
    let provider = Provider::of(&session.loaded.settings)?;
    let rules = rules(&session)?;
    let record = match resumed {
        Some(record) if record.tree != Digest::of(&here.bytes) => {
            return Err(Complaint::usage(format!(
                "the tree is no longer as it was for repair {}",
                record.id
            ))
            .hint("begin a new one without --resume"));
        }
        Some(record) if record.written.is_some() && record.standing == Standing::Written => {
            return Err(Complaint::usage(format!("what repair {} proved is written already", record.id)));
        }
        Some(mut record) => {
            (record.told.applied, record.told.branch) = (false, None);
            record.take_shown(if args.is_interactive() { 0.0 } else { rules.threshold });
            record
        }
        None => begin(args, &session, tests, &here).await?,
    };
    record.keep(&kept)?;
    let mut course = Course {
        session,
        state,
        kept,
        rules,
        provider,
        experience,
        record,
        here,
        bases: Bases::Repository,
        stack_all: args.is_interactive(),
    };
    let is_proved = matches!(course.record.standing, Standing::Proved | Standing::Undone);
    let ended = if is_proved && !course.record.proved.is_empty() {
        Ended::ToTheEnd
    } else {
        Box::pin(course.run()).await?
    };
    if let Ended::Stopped(exit) = ended {
        let id = &course.record.id;
        course.session.progress.note(&format!("hint: flakefarm repair --resume {id} goes on from here"));
        return Ok(exit);
    }
    if args.apply || args.branch.is_some() || args.is_interactive() {
        Box::pin(write(args, &mut course)).await?;
    }
    finish(args, &course)
}

/// What a repair that ended half-way left in the tree is put back before anything is read.
async fn recover(session: &Session<'_>, kept: &Kept) -> Result<(), Complaint> {
    let (kept, root) = (kept.clone(), session.root.clone());
    let put_back = tokio::task::spawn_blocking(move || {
        sessions::tidy(&kept);
        kept.recover(&root)
    });
    for path in put_back.await?? {
        session.progress.note(&format!("a repair had ended half-way: {path} is as it was before it"));
    }
    Ok(())
}

fn rules(session: &Session<'_>) -> Result<Rules, Complaint> {
    let settings = &session.loaded.settings;
    let usual = Rules::default();
    Ok(Rules {
        attempts: settings.whole("repair.attempts").and_then(NonZeroU32::new).unwrap_or(usual.attempts),
        threshold: settings.number("repair.threshold").unwrap_or(usual.threshold),
    })
}

/// A new repair.
async fn begin(
    args: &RepairArgs,
    session: &Session<'_>,
    mut tests: Vec<String>,
    here: &Archive,
) -> Result<Record, Complaint> {
    if !args.junit.is_empty() {
        tests.extend(failed::of_reports(&args.junit, session, "repair").await?);
    }
    let settings = &session.loaded.settings;
    let purse = |key: &str| -> Result<Purse, Complaint> {
        let budget: Option<Budget> =
            settings.parsed(key, parsed).map_err(|error| Complaint::of_setting(&error))?;
        Ok(Purse::of(budget))
    };
    let purses = (purse("repair.look_budget")?, purse("repair.mend_budget")?);
    let wishes =
        Wishes { kind: QuestionKind::Detect, tests: TestFilter::default(), order: None, repeats: true };
    let request = Request {
        tests,
        base: args.base.clone(),
        provider: settings.text("repair.provider").unwrap_or_default(),
        seed: question(wishes, session)?.seed,
    };
    let told = Told::new(&session.loaded.spec.name);
    let mut record = Record::new(session.root.clone(), Digest::of(&here.bytes), request, purses, told);
    record.told.session = Some(record.id.clone());
    Ok(record)
}

/// Writes what is proved, where it was asked for.
async fn write(args: &RepairArgs, course: &mut Course<'_>) -> Result<(), Complaint> {
    let mut files = course.record.files();
    if files.is_empty() {
        return Ok(());
    }
    if args.is_interactive() {
        files = match Box::pin(chosen(course, files)).await? {
            Some(files) => files,
            None => return Ok(()),
        };
    } else if course.record.confidence < course.rules.threshold {
        course.session.progress.note(&format!(
            "not written: it is proved, but the confidence that it is what was meant is {:.2}, below {:.2} \
             (--threshold); look at the diff, and apply it by hand or with --interactive",
            course.record.confidence, course.rules.threshold
        ));
        return Ok(());
    }
    let known = trees::files(&course.here)?;
    let before = |path: &str| known.get(Path::new(path)).cloned();
    let (kept, root, id) = (course.kept.clone(), course.session.root.clone(), course.record.id.clone());
    let written = match &args.branch {
        Some(name) => {
            let committed: Vec<CommittedFile> = files
                .iter()
                .map(|file| CommittedFile {
                    path: file.path.clone(),
                    before: before(&file.path),
                    after: file.text.clone().into_bytes(),
                })
                .collect();
            let message = message(course);
            let branch = name.clone();
            let done =
                tokio::task::spawn_blocking(move || branch::commit(&root, &branch, &committed, &message));
            let done = done.await?.map_err(|error| Complaint::wrong(&error, error.hint()))?;
            course.record.told.branch = Some((name.clone(), done.commit.clone()));
            Written::on_branch(name, &done)
        }
        None => {
            let changes: Vec<Change> = files
                .iter()
                .map(|file| Change {
                    path: file.path.clone(),
                    before: before(&file.path),
                    after: Some(file.text.clone().into_bytes()),
                })
                .collect();
            let written = tokio::task::spawn_blocking(move || kept.write(&id, &root, &changes)).await??;
            course.record.told.applied = true;
            Written::Tree(written)
        }
    };
    course.record.written = Some(written);
    course.record.standing = Standing::Written;
    course.record.keep(&course.kept)?;
    begin_probation(course, &files).await
}

/// On a farm, what was written runs on in the background.
async fn begin_probation(course: &mut Course<'_>, files: &[FileAdaptation]) -> Result<(), Complaint> {
    let diff = trees::diff(&trees::files(&course.here)?, files).into_bytes();
    let tree = trees::patched(&course.session.root, &course.here, diff, "what was written").await?.archive;
    match probation::begin(&course.session, &course.record, &tree).await {
        Ok(Some(probation)) => {
            course.session.progress.note(&format!(
                "on probation: sweep {} runs the mended tests on, flakefarm repair --list says how it stands",
                probation.sweep
            ));
            course.record.probation = Some(probation);
            course.record.keep(&course.kept)
        }
        Ok(None) => Ok(()),
        // It is written all the same.
        Err(complaint) => {
            course.session.progress.note(&format!("warning: there is no probation: {complaint}"));
            Ok(())
        }
    }
}

/// The files with the hunks that a person wants, proved anew if those are not all; nothing if there are none.
async fn chosen(
    course: &mut Course<'_>,
    files: Vec<FileAdaptation>,
) -> Result<Option<Vec<FileAdaptation>>, Complaint> {
    let known = trees::files(&course.here)?;
    let proposed = files.clone();
    let chosen =
        tokio::task::spawn_blocking(move || hunks::choose(&known, &proposed, &mut std::io::stdin().lock()));
    let chosen = chosen.await?;
    if chosen.is_empty() {
        course.session.progress.note("no change was chosen: nothing is written");
        return Ok(None);
    }
    if chosen == files {
        return Ok(Some(files));
    }
    course.session.progress.note("what was chosen is not all that was proved: it is proved anew");
    Ok(Box::pin(course.prove_part(&chosen)).await?.then_some(chosen))
}

fn message(course: &Course<'_>) -> String {
    let explanations = course.record.told.proved_explanations();
    let subject = match explanations.as_slice() {
        [one] => format!("Repair tests: {one}"),
        several => format!("Repair tests: {} changes", several.len()),
    };
    let subject = provider::short(&subject, 72);
    let list: String = explanations.iter().map(|line| format!("- {line}\n")).collect();
    format!("{subject}\n\n{list}\nProved by flakefarm (repair {}).\n", course.record.id)
}

fn finish(args: &RepairArgs, course: &Course<'_>) -> Result<Exit, Complaint> {
    let told = &course.record.told;
    let text = match args.ask.output.format {
        Format::Json => told.json()?,
        _ => told.human(),
    };
    match &args.ask.output.output {
        Some(file) => output::write_file(file, &text)?,
        None => output::print(&text)?,
    }
    Ok(if told.is_proved() {
        Exit::Clean
    } else if told.is_undecided() {
        Exit::Inconclusive
    } else if told.nothing_fails() {
        Exit::Clean
    } else {
        Exit::GateFailed
    })
}
