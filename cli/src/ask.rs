//! A question about a project, from settings to what ended, in this process or on a farm. What one
//! command asks beyond another stands in that command's file.

use crate::args::AskArgs;
use crate::embedded::{self, Embedded, Task};
use crate::exit::{Complaint, Exit};
use crate::farm::{Farm, Followed};
use crate::output::{self, Outputs};
use crate::progress::Progress;
use crate::{left, stores};
use flakefarm_coordinator::db::{SweepRow, SweepState};
use flakefarm_coordinator::engine::{SubmitError, source_of, sweep_of};
use flakefarm_coordinator::events::Event;
use flakefarm_coordinator::plan::{Question, SandboxChoice};
use flakefarm_coordinator::report::Report;
use flakefarm_coordinator::{Coordinator, Submission, garbage};
use flakefarm_project::config::{GivenOption, LoadedProject, ProjectSource};
use flakefarm_project::settings::Layer;
use flakefarm_project::snapshot;
use flakefarm_shared::{
    Class, Digest, Refusal, SweepContext, SweepId, Typed, WIRE_VERSION, World, now_micros,
};
use flakefarm_worker::sandbox::RuntimeChoice;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A project that something is to be asked about.
pub(crate) struct Session<'a> {
    pub(crate) args: &'a AskArgs,
    /// The project, as it was typed.
    path: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) loaded: LoadedProject,
    pub(crate) progress: Progress,
    stop: CancellationToken,
    /// In a coordinator: where questions are asked, and how.
    within: Option<(Within, Question)>,
    /// How the source of its sweeps begins.
    asks_as: &'static str,
}

/// Where a question is answered.
pub(crate) enum Place {
    /// In this process.
    Here(Box<Embedded>),
    /// On a farm.
    Farm(Farm),
    /// On the farm whose coordinator this process is.
    Within(Box<Within>),
}

/// How asking went.
pub(crate) enum Asked {
    /// To its end.
    Ended(Box<Ended>),
    /// It goes on without us.
    Detached,
}

/// A sweep that has ended, wherever it ran.
pub(crate) struct Ended {
    pub(crate) state: String,
    pub(crate) failure: Option<Refusal>,
    pub(crate) report: Report,
    pub(crate) outputs: Outputs,
    /// What goes on with it, if it was interrupted.
    pub(crate) go_on: Option<String>,
}

impl<'a> Session<'a> {
    /// Loads the project at `path` with its settings; `options` are the command's own.
    pub(crate) fn open(
        args: &'a AskArgs,
        path: &Path,
        options: &[GivenOption],
        stop: CancellationToken,
    ) -> Result<Self, Complaint> {
        let root = project_root(path)?;
        let progress = Progress::new();
        let mut loaded = LoadedProject::load(&root, args.project.config.as_deref(), options)
            .map_err(|error| config_complaint(&error))?;
        for warning in &loaded.warnings {
            progress.note(&format!("warning: {warning}"));
        }
        loaded.spec.arguments.extend(args.project.framework_arguments.iter().cloned());
        Ok(Self { args, path: path.to_owned(), root, loaded, progress, stop, within: None, asks_as: "" })
    }

    /// Of a project that a farm's coordinator has as a snapshot; `question` says how its questions are asked.
    pub(crate) fn within(
        args: &'a AskArgs,
        root: &Path,
        loaded: LoadedProject,
        progress: Progress,
        stop: CancellationToken,
        within: (Within, Question),
    ) -> Self {
        let path = PathBuf::from(".");
        Self { args, path, root: root.to_owned(), loaded, progress, stop, within: Some(within), asks_as: "" }
    }

    /// The same, to ask something at the same time.
    pub(crate) fn beside(&self) -> Session<'a> {
        Session {
            args: self.args,
            path: self.path.clone(),
            root: self.root.clone(),
            loaded: self.loaded.clone(),
            progress: self.progress.beside(),
            stop: self.stop.child_token(),
            within: self.within.clone(),
            asks_as: self.asks_as,
        }
    }

    /// What it asks is asked of trees that nobody has.
    pub(crate) fn asks_for_repair(&mut self) {
        self.asks_as = flakefarm_coordinator::repairs::OF_REPAIR;
    }

    /// How questions are asked, if settings do not say it.
    pub(crate) fn like(&self) -> Option<&Question> {
        self.within.as_ref().map(|(_, question)| question)
    }

    /// Ends what is asked from now on after `limit`, as an interruption would.
    pub(crate) fn end_after(&mut self, limit: Duration) {
        let stop = self.stop.child_token();
        let timed = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(limit) => timed.cancel(),
                () = timed.cancelled() => {}
            }
        });
        self.stop = stop;
    }

    /// Whether the user has ended it.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// What is cancelled when the user ends it.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// As [`Session::carry_out`], interrupted after `limit`; what is asked afterwards is not.
    pub(crate) async fn carry_out_within(
        &mut self,
        place: Place,
        submission: &Submission,
        limit: Duration,
    ) -> Result<Asked, Complaint> {
        let whole = self.stop.clone();
        self.end_after(limit);
        let asked = Box::pin(self.carry_out(place, submission)).await;
        self.stop.cancel();
        self.stop = whole;
        asked
    }

    /// Prints the settings, if that is all that is wanted.
    pub(crate) fn printed_settings(&self) -> Result<bool, Complaint> {
        if self.args.project.print_config {
            output::print(&flakefarm_project::settings::print(&self.loaded.settings))?;
        }
        Ok(self.args.project.print_config)
    }

    /// Attempts at once.
    pub(crate) fn slots(&self) -> NonZeroU16 {
        let chosen = self.loaded.settings.whole("sweep.workers").and_then(NonZeroU16::new);
        chosen.unwrap_or_else(embedded::slots_of_this_machine)
    }

    /// Opens where the question will be answered, and sees whether it is there.
    pub(crate) async fn place(&self, sandbox: SandboxChoice) -> Result<Place, Complaint> {
        if let Some((within, _)) = &self.within {
            return Ok(Place::Within(Box::new(within.clone())));
        }
        let settings = &self.loaded.settings;
        if let Some(address) = settings.text("farm.url") {
            let farm = Farm::new(&address, settings.text("farm.token"))?;
            farm.check().await?;
            return Ok(Place::Farm(farm));
        }
        if self.args.farm.detach {
            return Err(Complaint::usage("--detach leaves a sweep to a farm, and none is named")
                .hint("pass --farm URL, or set FLAKEFARM_FARM"));
        }
        if sandbox == SandboxChoice::Process {
            self.progress.note(
                "warning: --sandbox process isolates nothing: tests run as you, on this machine, with all \
                 that you may read and write",
            );
        }
        let state = stores::state_dir(self.args.execution.state.as_deref())?;
        let runtime = runtime(&self.loaded)?;
        Ok(Place::Here(Box::new(Embedded::open(&state, self.slots(), sandbox, &runtime).await?)))
    }

    /// Packs the project's tree as it is.
    pub(crate) async fn archive(&self) -> Result<snapshot::Archive, Complaint> {
        let path = self.root.clone();
        let archive = tokio::task::spawn_blocking(move || snapshot::archive(&path)).await?;
        let archive = archive.map_err(|error| Complaint::wrong(&error, error.hint()))?;
        for warning in &archive.warnings {
            self.progress.note(&format!("warning: {warning}"));
        }
        Ok(archive)
    }

    /// Puts question and project together.
    pub(crate) fn submission(
        &self,
        question: Question,
        snapshot: Digest,
        revision: Option<String>,
        under: World,
    ) -> Submission {
        Submission {
            context: SweepContext {
                v: WIRE_VERSION,
                project: self.loaded.spec.clone(),
                snapshot,
                revision,
                under,
                typed: Typed {
                    path: self.path.display().to_string(),
                    arguments: self.args.project.framework_arguments.clone(),
                },
            },
            question,
            class: if self.args.farm.interactive { Class::Interactive } else { Class::Bulk },
            source: format!("{}{}", self.asks_as, self.root.display()),
        }
    }

    /// Submits and, unless it is to be left alone, waits for the end.
    pub(crate) async fn carry_out(
        &mut self,
        place: Place,
        submission: &Submission,
    ) -> Result<Asked, Complaint> {
        let farm = match place {
            Place::Here(embedded) => {
                let ended = Box::pin(self.run_here(*embedded, Task::Submit(submission))).await?;
                return Ok(Asked::Ended(Box::new(ended)));
            }
            Place::Within(within) => {
                let ended = Box::pin(within.carry_out(submission, &self.stop)).await?;
                return Ok(Asked::Ended(Box::new(ended)));
            }
            Place::Farm(farm) => farm,
        };
        let id = farm.submit(submission).await?;
        self.progress.note(&format!("sweep {id} on {}", farm.address()));
        left::remember(self.args.execution.state.as_deref(), farm.address(), &self.root, id);
        if let Some(warning) = farm.nobody_works().await {
            self.progress.note(&warning);
        }
        if self.args.farm.detach {
            output::print(&format!("{id}\n"))?;
            self.progress.note(&format!("hint: flakefarm attach {id} --farm {} follows it", farm.address()));
            return Ok(Asked::Detached);
        }
        let ended = follow(farm, id, &mut self.progress, &self.stop, Leaving::Cancels).await?;
        Ok(Asked::Ended(Box::new(ended)))
    }

    /// Asks a question of `tree` in the plain world; of the given class, or of the one that was asked for.
    pub(crate) async fn ask_about(
        &mut self,
        tree: &snapshot::Archive,
        question: Question,
        class: Option<Class>,
    ) -> Result<Asked, Complaint> {
        let place = self.place(question.sandbox).await?;
        let snapshot = place.put(tree.bytes.clone()).await?;
        let mut submission = self.submission(question, snapshot, tree.revision.clone(), World::Plain);
        submission.class = class.unwrap_or(submission.class);
        self.carry_out(place, &submission).await
    }

    /// Somebody waits: the cheapest isolation that confirms what it finds, unless one was chosen.
    pub(crate) fn hurry(&self, question: &mut Question) {
        if self.within.is_none() && self.loaded.settings.layer("sweep.sandbox") == Some(Layer::Default) {
            question.sandbox = SandboxChoice::Auto;
        }
    }

    /// Does one task in this process.
    pub(crate) async fn run_here(&mut self, embedded: Embedded, task: Task<'_>) -> Result<Ended, Complaint> {
        let outputs = Outputs::Blobs(embedded.blobs.clone());
        let (row, report) = Box::pin(embedded.run(task, &mut self.progress, self.stop.clone())).await?;
        Ok(ended_here(&row, report, outputs))
    }
}

impl Place {
    /// Reports of the project's last sweeps, the newest first, at most `most`. What cannot be read is
    /// left out.
    pub(crate) async fn earlier_reports(&self, project: &str, most: usize) -> Vec<Report> {
        match self {
            Place::Here(embedded) => embedded.earlier_reports(project, most).await,
            Place::Farm(farm) => farm.earlier_reports(project, most).await,
            Place::Within(_) => Vec::new(),
        }
    }

    /// Keeps a snapshot where workers find it.
    pub(crate) async fn put(&self, content: Vec<u8>) -> Result<Digest, Complaint> {
        match self {
            Place::Here(embedded) => Ok(embedded.blobs.put(content).await?),
            Place::Farm(farm) => farm.upload(content.into()).await,
            Place::Within(within) => within.put(content).await,
        }
    }
}

/// How often a sweep of the coordinator's own farm is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A farm's coordinator that asks for a repair of its own: each question is a sweep under an id that follows from the
/// repair and the question, so that a repair that is begun again finds its answers.
#[derive(Debug, Clone)]
pub(crate) struct Within {
    pub(crate) coordinator: Coordinator,
    pub(crate) repair: uuid::Uuid,
    /// The end of the repair here: what it has asked runs on, and is found by whoever goes on with it.
    pub(crate) leaves: CancellationToken,
}

impl Within {
    pub(crate) async fn put(&self, content: Vec<u8>) -> Result<Digest, Complaint> {
        // From here on nobody collects it, until a sweep refers to it.
        let until = now_micros() + garbage::LEASE_MICROS;
        self.coordinator.db().lease_blob(&Digest::of(&content), until).await?;
        Ok(self.coordinator.blobs().put(content).await?)
    }

    /// Submits and waits for the end; `stop` ends it, unless the repair goes on elsewhere.
    async fn carry_out(&self, submission: &Submission, stop: &CancellationToken) -> Result<Ended, Complaint> {
        let asked = serde_json::to_string(&(&submission.question, &submission.context.snapshot))?;
        let id = sweep_of(self.repair, &asked);
        let submission = Submission { source: source_of(self.repair), ..submission.clone() };
        let mut events = self.coordinator.subscribe();
        match self.coordinator.submit_as(id, &submission).await {
            Ok(()) => {}
            Err(SubmitError::Engine(error)) => return Err(error.into()),
            Err(SubmitError::Quota(exceeded)) => return Err(Complaint::farm(exceeded.to_string())),
            Err(error) => return Err(Complaint::usage(flakefarm_shared::chain(&error))),
        }
        let outputs = || Outputs::Blobs(self.coordinator.blobs().clone());
        loop {
            let row = self.coordinator.db().sweep(id).await?;
            let row = row.ok_or_else(|| Complaint::farm(format!("sweep {id} has disappeared")))?;
            let is_over = match row.state {
                SweepState::Running => false,
                SweepState::Cancelled => row.report.is_some(),
                SweepState::Answered | SweepState::Interrupted | SweepState::Failed(_) => true,
            };
            if is_over {
                return Ok(ended(&row, self.coordinator.report(id).await?, outputs()));
            }
            if stop.is_cancelled() {
                if self.leaves.is_cancelled() {
                    let report = self.coordinator.report(id).await?;
                    return Ok(Ended { state: "interrupted".to_owned(), ..ended(&row, report, outputs()) });
                }
                if matches!(row.state, SweepState::Running) {
                    self.coordinator.cancel(&row).await?;
                }
            }
            let heard = async {
                while let Ok(event) = events.recv().await {
                    if event.concerns(id) && matches!(event, Event::Finished { .. }) {
                        return;
                    }
                }
                std::future::pending().await
            };
            let told = async {
                if stop.is_cancelled() { self.leaves.cancelled().await } else { stop.cancelled().await }
            };
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = heard => {}
                () = told => {}
            }
        }
    }
}

/// What an interruption does to a sweep on a farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It is this command's own: it ends.
    Cancels,
    /// It was there before: it goes on.
    LeavesIt,
}

/// Follows a sweep on a farm to its end.
pub(crate) async fn follow(
    farm: Farm,
    id: SweepId,
    progress: &mut Progress,
    stop: &CancellationToken,
    leaving: Leaving,
) -> Result<Ended, Complaint> {
    let followed = farm.follow(id, progress, stop).await?;
    progress.clear();
    let go_on = format!("flakefarm attach {id} --farm {} goes on following it", farm.address());
    let (state, failure, report, go_on) = match (followed, leaving) {
        (Followed::ToItsEnd, _) => {
            let status = farm.status(id).await?;
            (status.state, status.failure, farm.report(id).await?, None)
        }
        (Followed::Stopped, Leaving::Cancels) => {
            progress.note("stopping the sweep on the farm");
            ("interrupted".to_owned(), None, farm.cancel(id).await?, None)
        }
        (Followed::Stopped, Leaving::LeavesIt) => {
            ("interrupted".to_owned(), None, farm.report(id).await?, Some(go_on))
        }
    };
    Ok(Ended { state, failure, report, outputs: Outputs::Farm(farm), go_on })
}

fn ended_here(row: &SweepRow, report: Report, outputs: Outputs) -> Ended {
    let go_on = format!("flakefarm sweep {} --resume goes on from here", shell_words::quote(&row.source));
    Ended { go_on: Some(go_on), ..ended(row, report, outputs) }
}

fn ended(row: &SweepRow, report: Report, outputs: Outputs) -> Ended {
    Ended {
        state: row.state.word().to_owned(),
        failure: row.state.refusal().cloned(),
        report,
        outputs,
        go_on: None,
    }
}

/// The runtime that attempts are to run on.
pub(crate) fn runtime(loaded: &LoadedProject) -> Result<RuntimeChoice, Complaint> {
    let runtime = loaded.settings.parsed("sweep.runtime", crate::args::values::parsed);
    Ok(runtime.map_err(|error| Complaint::of_setting(&error))?.unwrap_or_default())
}

/// The directory of the project.
pub(crate) fn project_root(path: &Path) -> Result<PathBuf, Complaint> {
    let root = path.canonicalize().map_err(|error| {
        Complaint::usage(format!("failed to open project {}: {error}", path.display()))
            .hint("name the directory of the project")
    })?;
    if root.is_dir() {
        Ok(root)
    } else {
        Err(Complaint::usage(format!("{} is not a directory", path.display()))
            .hint("name the directory of the project; sweep chooses tests with --tests"))
    }
}

/// Tests, then the project if the last word is a directory.
pub(crate) fn tests_and_path(words: &[String]) -> (Vec<String>, PathBuf) {
    match words.split_last() {
        Some((last, before)) if Path::new(last).is_dir() => (before.to_vec(), PathBuf::from(last)),
        Some(_) | None => (words.to_vec(), PathBuf::from(".")),
    }
}

/// What is wrong with a project's configuration.
pub(crate) fn config_complaint(error: &flakefarm_project::config::ConfigError) -> Complaint {
    Complaint::wrong(error, error.hint().as_deref())
}

/// How the project was found.
pub(crate) fn describe(loaded: &LoadedProject) -> String {
    match &loaded.source {
        ProjectSource::Configured { path } => format!("configured by {}", path.display()),
        ProjectSource::Detected { why } => format!("detected by {why}"),
    }
}

/// What a sweep that could not run says of why.
pub(crate) fn refused(refusal: &Refusal) -> Complaint {
    let mut complaint = Complaint::new(Exit::NothingRan, refusal.message.clone()).log(refusal.log.clone());
    complaint.hint = refusal.hint.clone();
    complaint
}

/// Writes the report of what was asked, and says how that went.
pub(crate) async fn finish(ended: &Ended, output: &crate::args::OutputArgs) -> Result<Exit, Complaint> {
    if let Some(refusal) = &ended.failure {
        return Err(refused(refusal));
    }
    output::write(&ended.report, output, &ended.outputs).await?;
    if ended.state == "interrupted" || ended.state == "cancelled" {
        if let Some(go_on) = &ended.go_on {
            crate::say::say(format!("hint: {go_on}"));
        }
        return Ok(Exit::Interrupted);
    }
    if nothing_ran(&ended.report) {
        return Err(Complaint::new(Exit::NothingRan, "no test ran")
            .log(ended.report.sweep.notes.join("\n"))
            .hint("flakefarm doctor says what is wrong with this machine"));
    }
    Ok(Exit::Clean)
}

/// Whether there is nothing to tell. A sweep whose tests were all answered by earlier ones has run
/// nothing, and tells.
fn nothing_ran(report: &Report) -> bool {
    let answered_before = || report.tests.iter().any(|test| test.older_evidence.is_some());
    report.sweep.samples == 0 && (report.sweep.attempts > 0 || !answered_before())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_the_last_word_if_it_is_a_directory() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let check = |given: &[&str], tests: &[&str], path: &str| {
            assert_eq!(tests_and_path(&words(given)), (words(tests), PathBuf::from(path)), "{given:?}");
        };
        check(&["a.py::b", "c", "src"], &["a.py::b", "c"], "src");
        check(&["a.py::b", "not-there"], &["a.py::b", "not-there"], ".");
        check(&["src"], &[], "src");
        check(&[], &[], ".");
    }
}
