//! Repairs as they are recorded: what was asked, what was proposed and came of it, what was proved and written.
//! Each is a directory beside the embedded store, whose record is written anew after every step, so that a repair
//! that ends half-way can go on.

use super::ledger::Ledger;
use super::prove::ByArms;
use super::provider::Attempt;
use super::told::Told;
use super::writing::{Kept, WrittenFile, replace};
use crate::exit::Complaint;
use flakefarm_coordinator::experiment::FailingIn;
use flakefarm_coordinator::repairs::{Course, Purse};
use flakefarm_project::branch::Committed;
use flakefarm_repair::FileAdaptation;
use flakefarm_shared::{Digest, SweepId, UnixMicros, now_micros};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// The version of a record.
const SCHEMA: &str = "flakefarm.repair-session/v1";
/// Sessions that are kept; those that have written something are never thrown away by themselves.
const MOST: usize = 500;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// The tests that were named.
    pub(super) tests: Vec<String>,
    /// The revision that was named.
    pub(super) base: Option<String>,
    /// Who proposes beside the rules.
    pub(super) provider: String,
    /// Where chance comes from.
    pub(super) seed: u64,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Written {
    /// Into the work tree.
    Tree(Vec<WrittenFile>),
    /// On a branch.
    Branch {
        /// Its name.
        name: String,
        /// The commit.
        commit: String,
        /// The one before it.
        parent: String,
        /// Whether the branch was made for it.
        new_branch: bool,
    },
}

impl Written {
    pub(super) fn on_branch(name: &str, done: &Committed) -> Self {
        Written::Branch {
            name: name.to_owned(),
            commit: done.commit.clone(),
            parent: done.parent.clone(),
            new_branch: done.new_branch,
        }
    }
}

/// Tests that are mended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Target {
    /// By their ids; none: those that failed.
    pub(super) tests: Vec<String>,
    /// Where they failed, if that was known.
    pub(super) failing_in: Option<FailingIn>,
    /// Whether two arms were compared.
    pub(super) by_arms: ByArms,
}

/// What is proved, but for a person to look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Shown {
    files: BTreeMap<String, String>,
    confidence: f64,
    target: Target,
}

/// Further runs of what was mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Probation {
    /// The farm's address.
    pub(super) farm: String,
    /// The sweep that makes them.
    pub(super) sweep: SweepId,
    /// The mended tests.
    pub(super) tests: Vec<String>,
}

/// How a repair stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    /// It was begun, and has not ended.
    Open,
    /// Something is proved and not written.
    Proved,
    /// Something is proved and written.
    Written,
    /// What was written was taken back.
    Undone,
    /// Nothing is proved.
    NotProved,
}

impl Standing {
    pub(super) fn words(self) -> &'static str {
        match self {
            Standing::Open => "open",
            Standing::Proved => "proved",
            Standing::Written => "written",
            Standing::Undone => "undone",
            Standing::NotProved => "not proved",
        }
    }
}

/// One repair.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    schema: String,
    pub(super) id: String,
    pub(super) root: PathBuf,
    pub(super) started_at: UnixMicros,
    pub(super) standing: Standing,
    pub(super) request: Request,
    /// The tree that it began with.
    pub(super) tree: Digest,
    pub(super) course: Course,
    pub(super) looking: Purse,
    pub(super) mending: Purse,
    pub(super) ledger: Ledger,
    pub(super) told: Told,
    /// Answers that the provider was asked for.
    #[serde(default)]
    pub(super) rounds: u32,
    /// What came of them, for the next request.
    #[serde(default)]
    pub(super) attempts: Vec<Attempt>,
    /// What is proved of which tests, and where they failed.
    #[serde(default)]
    pub(super) targets: Vec<Target>,
    /// What is proved, as whole files by path.
    pub(super) proved: BTreeMap<String, String>,
    /// What is proved too, and not sure enough to be written by itself.
    #[serde(default)]
    shown: Vec<Shown>,
    /// How sure it is that all of it is what was meant: 0 to 1.
    pub(super) confidence: f64,
    pub(super) written: Option<Written>,
    /// What runs on after it was written.
    #[serde(default)]
    pub(super) probation: Option<Probation>,
}

impl Record {
    /// One that begins.
    pub(super) fn new(
        root: PathBuf,
        tree: Digest,
        request: Request,
        purses: (Purse, Purse),
        told: Told,
    ) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            id: uuid::Uuid::now_v7().to_string(),
            root,
            started_at: now_micros(),
            standing: Standing::Open,
            request,
            tree,
            course: Course::default(),
            looking: purses.0,
            mending: purses.1,
            ledger: Ledger::default(),
            told,
            rounds: 0,
            attempts: Vec::new(),
            targets: Vec::new(),
            proved: BTreeMap::new(),
            shown: Vec::new(),
            confidence: 1.0,
            written: None,
            probation: None,
        }
    }

    /// What is proved, as edits of files.
    pub(super) fn files(&self) -> Vec<FileAdaptation> {
        let file =
            |(path, text): (&String, &String)| FileAdaptation { path: path.clone(), text: text.clone() };
        self.proved.iter().map(file).collect()
    }

    /// Adds what is proved, and how sure it is.
    pub(super) fn proves(&mut self, files: &[FileAdaptation], confidence: f64, target: Target) {
        self.targets.push(target);
        self.proved.extend(files.iter().map(|file| (file.path.clone(), file.text.clone())));
        self.confidence = self.confidence.min(confidence);
    }

    /// Adds what is proved and only to be looked at.
    pub(super) fn shows(&mut self, files: &[FileAdaptation], confidence: f64, target: Target) {
        let files = files.iter().map(|file| (file.path.clone(), file.text.clone())).collect();
        self.shown.push(Shown { files, confidence, target });
    }

    /// Takes the first that was shown, where nothing surer is proved, as proved: if `least` is low enough.
    pub(super) fn take_shown(&mut self, least: f64) {
        if !self.proved.is_empty() {
            return;
        }
        if let Some(place) = self.shown.iter().position(|shown| shown.confidence >= least) {
            let Shown { files, confidence, target } = self.shown.remove(place);
            self.proved = files;
            self.confidence = confidence;
            self.targets = vec![target];
            self.standing = Standing::Proved;
        }
    }

    /// Keeps it as it is now.
    pub(super) fn keep(&self, kept: &Kept) -> Result<(), Complaint> {
        let path = kept.session(&self.id).join("session.json");
        let text = serde_json::to_vec_pretty(self)?;
        replace(&path, &text).map_err(|error| {
            Complaint::farm(format!("failed to record the repair in {}: {error}", path.display()))
        })
    }
}

/// A recorded repair by its id, or by the beginning of one that no other has.
pub(super) fn find(kept: &Kept, id: &str) -> Result<Record, Complaint> {
    let wellformed = !id.is_empty() && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let known: Vec<String> =
        names(kept).into_iter().filter(|name| wellformed && name.starts_with(id)).collect();
    match known.as_slice() {
        [one] => read(kept, one),
        [] => Err(Complaint::usage(format!("no repair `{id}` is recorded here"))
            .hint("flakefarm repair --list shows those that are")),
        several => Err(Complaint::usage(format!("{} repairs begin with `{id}`", several.len()))
            .hint("write more of the id")),
    }
}

fn read(kept: &Kept, name: &str) -> Result<Record, Complaint> {
    let path = kept.session(name).join("session.json");
    let text = fs::read(&path)
        .map_err(|error| Complaint::farm(format!("failed to read {}: {error}", path.display())))?;
    let record: Record = serde_json::from_slice(&text).map_err(|error| {
        Complaint::farm(format!("{} cannot be read: {error}", path.display()))
            .hint("it was written by another version of flakefarm, or is damaged")
    })?;
    if record.schema != SCHEMA {
        return Err(Complaint::farm(format!("{} is of another version: {}", path.display(), record.schema)));
    }
    Ok(record)
}

/// All recorded repairs, the newest first; those that cannot be read are named.
pub(super) fn all(kept: &Kept) -> Vec<Result<Record, Complaint>> {
    names(kept).iter().map(|name| read(kept, name)).collect()
}

/// Directories of sessions, the newest first: their names begin with their time.
fn names(kept: &Kept) -> Vec<String> {
    let Ok(entries) = fs::read_dir(kept.directory()) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.len() == 36 && name.chars().all(|c| c.is_ascii_hexdigit() || c == '-'))
        .collect();
    names.sort_unstable_by(|a, b| b.cmp(a));
    names
}

/// Throws away the oldest sessions beyond what is kept, but those whose changes stand somewhere.
pub(super) fn tidy(kept: &Kept) {
    for name in names(kept).iter().skip(MOST) {
        if let Ok(record) = read(kept, name)
            && record.standing != Standing::Written
        {
            // One that cannot be removed is one too many, and no reason to fail.
            let _ignored = fs::remove_dir_all(kept.session(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kept: &Kept) -> Record {
        let request =
            Request { tests: vec!["t".to_owned()], base: None, provider: "none".to_owned(), seed: 1 };
        let purse = Purse::of(None);
        let record =
            Record::new(PathBuf::from("/p"), Digest::of(b"tree"), request, (purse, purse), Told::new("p"));
        record.keep(kept).unwrap();
        record
    }

    #[test]
    fn a_session_is_found_by_the_beginning_of_its_id() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept::of(directory.path());
        assert!(find(&kept, "0").is_err());
        let mut first = record(&kept);
        let second = record(&kept);
        let target = Target { tests: Vec::new(), failing_in: None, by_arms: ByArms::No };
        first.proves(&[FileAdaptation { path: "a".to_owned(), text: "x".to_owned() }], 0.5, target);
        first.keep(&kept).unwrap();
        let again = find(&kept, &first.id).unwrap();
        assert_eq!((again.files(), again.confidence), (first.files(), 0.5));
        assert!(find(&kept, "../..").is_err());
        assert!(find(&kept, &first.id[..4]).unwrap_err().message.contains("2 repairs"));
        let listed: Vec<String> = all(&kept).into_iter().map(|found| found.unwrap().id).collect();
        assert_eq!(listed, [second.id.clone(), first.id.clone()]);
        fs::write(kept.session(&second.id).join("session.json"), "{").unwrap();
        assert!(find(&kept, &second.id).unwrap_err().message.contains("cannot be read"));
    }

    #[test]
    fn old_sessions_go_but_what_they_wrote_can_be_undone() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept::of(directory.path());
        let mut written = record(&kept);
        written.standing = Standing::Written;
        written.keep(&kept).unwrap();
        let plain = record(&kept);
        let text = fs::read(kept.session(&plain.id).join("session.json")).unwrap();
        for number in 0..MOST {
            let name = format!("ffffffff-0000-7000-8000-{number:012}");
            fs::create_dir_all(kept.session(&name)).unwrap();
            fs::write(kept.session(&name).join("session.json"), &text).unwrap();
        }
        tidy(&kept);
        assert!(find(&kept, &written.id).is_ok());
        assert!(find(&kept, &plain.id).is_err());
        assert_eq!(names(&kept).len(), MOST + 1);
    }
}
