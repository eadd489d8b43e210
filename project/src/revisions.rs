//! The revisions of a git repository as snapshots, without touching anybody's work tree or index:
//! files are written to a temporary directory through an index of our own.

use crate::snapshot::{self, Archive, SnapshotError};
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One revision of the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Its commit, in full.
    pub commit: String,
    /// The first line of its message.
    pub subject: String,
    /// The project's tree in it: revisions with equal trees have equal files.
    pub tree: String,
}

/// Why revisions could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RevisionError {
    /// It is in no repository, or git is not installed.
    #[error("`{}` is not in a git repository", .0.display())]
    NoRepository(PathBuf),
    /// No such revision.
    #[error("`{0}` is not a revision of this repository")]
    Unknown(String),
    /// Nothing leads from one to the other.
    #[error("`{good}` is not an ancestor of `{bad}`")]
    NotAncestor {
        /// Where it was not flaky.
        good: String,
        /// Where it is.
        bad: String,
    },
    /// The project did not exist then.
    #[error("revision {0} does not have this directory")]
    NoTree(String),
    /// git failed.
    #[error("git {command} failed: {message}")]
    Git {
        /// What was asked of it.
        command: String,
        /// Its last words.
        message: String,
    },
    /// A temporary directory could not be made.
    #[error("failed to make a temporary directory")]
    Scratch(#[source] std::io::Error),
    /// The files could not be packed.
    #[error("failed to pack revision {commit}")]
    Snapshot {
        /// Which.
        commit: String,
        /// Why.
        #[source]
        source: SnapshotError,
    },
}

impl RevisionError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            RevisionError::NoRepository(_) => Some("name a directory of a git repository"),
            RevisionError::Unknown(_) => Some("git log --oneline lists revisions; a shallow clone has few"),
            RevisionError::NotAncestor { .. } => {
                Some("--good must be older than --bad, on the way that led to it")
            }
            RevisionError::NoTree(_) => Some("choose a revision in which the project exists"),
            RevisionError::Git { .. } | RevisionError::Scratch(_) | RevisionError::Snapshot { .. } => None,
        }
    }
}

/// The revisions from `good` to `bad`, both included, the oldest first, along first parents.
pub fn between(root: &Path, good: &str, bad: &str) -> Result<Vec<Revision>, RevisionError> {
    let prefix = prefix(root)?;
    let (first, last) = (resolve(root, good)?, resolve(root, bad)?);
    if first == last || git(root, &["merge-base", "--is-ancestor", &first, &last]).is_err() {
        return Err(RevisionError::NotAncestor { good: good.to_owned(), bad: bad.to_owned() });
    }
    let range = format!("{first}..{last}");
    let listed = git(root, &["log", "--first-parent", "--reverse", "--format=%H %s", &range])?;
    let subject = git(root, &["log", "-1", "--format=%s", &first])?;
    let mut revisions = Vec::new();
    let own = format!("{first} {}", subject.trim());
    for line in std::iter::once(own.as_str()).chain(listed.lines()) {
        let (commit, subject) = line.split_once(' ').unwrap_or((line, ""));
        let tree = git(root, &["rev-parse", &format!("{commit}:{prefix}")])
            .map_err(|_| RevisionError::NoTree(commit.to_owned()))?;
        let (commit, subject) = (commit.to_owned(), subject.to_owned());
        revisions.push(Revision { commit, subject, tree: tree.trim().to_owned() });
    }
    Ok(revisions)
}

/// The last revisions up to `name`, which is included, at most `most`, the oldest first, along first parents. Those
/// without the project are left out.
pub fn last(root: &Path, name: &str, most: usize) -> Result<Vec<Revision>, RevisionError> {
    let prefix = prefix(root)?;
    let commit = resolve(root, name)?;
    let most = format!("--max-count={most}");
    let listed = git(root, &["log", "--first-parent", &most, "--format=%H %s", &commit])?;
    let revision = |line: &str| {
        let (commit, subject) = line.split_once(' ').unwrap_or((line, ""));
        let tree = git(root, &["rev-parse", &format!("{commit}:{prefix}")]).ok()?;
        let (commit, subject) = (commit.to_owned(), subject.to_owned());
        Some(Revision { commit, subject, tree: tree.trim().to_owned() })
    };
    Ok(listed.lines().rev().filter_map(revision).collect())
}

/// One revision by its name.
pub fn at(root: &Path, name: &str) -> Result<Revision, RevisionError> {
    let prefix = prefix(root)?;
    let commit = resolve(root, name)?;
    let subject = git(root, &["log", "-1", "--format=%s", &commit])?.trim().to_owned();
    let tree = git(root, &["rev-parse", &format!("{commit}:{prefix}")]);
    let tree = tree.map_err(|_| RevisionError::NoTree(commit.clone()))?.trim().to_owned();
    Ok(Revision { commit, subject, tree })
}

/// Where the project lies below the top of its repository; empty, or ends in a slash.
pub fn prefix(root: &Path) -> Result<String, RevisionError> {
    let prefix = git(root, &["rev-parse", "--show-prefix"]);
    Ok(prefix.map_err(|_| RevisionError::NoRepository(root.to_owned()))?.trim_end_matches('\n').to_owned())
}

fn resolve(root: &Path, name: &str) -> Result<String, RevisionError> {
    let name = format!("{name}^{{commit}}");
    git(root, &["rev-parse", "--verify", "--quiet", "--end-of-options", &name])
        .map(|commit| commit.trim().to_owned())
        .map_err(|_| RevisionError::Unknown(name.trim_end_matches("^{commit}").to_owned()))
}

/// What differs in a project from where it left another revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The commit at which they parted.
    pub since: String,
    /// Files that differ or are new, as paths below the project's root; deleted ones are not among them.
    pub files: Vec<PathBuf>,
}

/// What differs in the work tree from where its branch left `base`. Blocking.
pub fn changed_since(root: &Path, base: &str) -> Result<Changed, RevisionError> {
    prefix(root)?;
    let base = resolve(root, base)?;
    // A shallow clone may lack where they parted: then all differences count.
    let since = git(root, &["merge-base", &base, "HEAD"]).map_or(base, |commit| commit.trim().to_owned());
    let differing =
        git(root, &["diff", "--name-only", "--relative", "--no-renames", "--diff-filter=d", "-z", &since])?;
    let new = git(root, &["ls-files", "-z", "--others", "--exclude-standard"])?;
    let mut files: Vec<PathBuf> = differing
        .split('\0')
        .chain(new.split('\0'))
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .collect();
    files.sort();
    files.dedup();
    Ok(Changed { since, files })
}

/// A file of the project as it was at a commit; nothing if it was not there. What is not UTF-8 is replaced.
/// Blocking.
pub fn file_at(root: &Path, commit: &str, path: &str) -> Option<String> {
    git(root, &["show", &format!("{commit}:./{path}")]).ok()
}

/// Packs the project as it was at `revision`. Blocking.
pub fn archive(root: &Path, revision: &Revision) -> Result<Archive, RevisionError> {
    let scratch = tempfile::tempdir().map_err(RevisionError::Scratch)?;
    let index = scratch.path().join("index");
    let files = scratch.path().join("files");
    std::fs::create_dir(&files).map_err(RevisionError::Scratch)?;
    let mut prefix = files.clone().into_os_string();
    prefix.push("/");
    let mut into = std::ffi::OsString::from("--prefix=");
    into.push(prefix);
    // From the top: checkout-index writes what lies below the current directory.
    let top = git(root, &["rev-parse", "--show-toplevel"])?;
    let top = Path::new(top.trim());
    with_index(top, &index, &["read-tree".as_ref(), revision.tree.as_ref()])?;
    with_index(top, &index, &["checkout-index".as_ref(), "--all".as_ref(), "--force".as_ref(), &into])?;
    let mut archive = snapshot::archive_everything(&files)
        .map_err(|source| RevisionError::Snapshot { commit: revision.commit.clone(), source })?;
    archive.revision = Some(revision.commit.clone());
    Ok(archive)
}

pub(crate) fn git(root: &Path, arguments: &[&str]) -> Result<String, RevisionError> {
    git_with(root, arguments, None, b"")
}

/// With another index, and something to read.
pub(crate) fn git_with(
    root: &Path,
    arguments: &[&str],
    index: Option<&Path>,
    input: &[u8],
) -> Result<String, RevisionError> {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    run(root, &arguments, index, input)
}

fn with_index(root: &Path, index: &Path, arguments: &[&OsStr]) -> Result<String, RevisionError> {
    run(root, arguments, Some(index), b"")
}

fn run(
    root: &Path,
    arguments: &[&OsStr],
    index: Option<&Path>,
    input: &[u8],
) -> Result<String, RevisionError> {
    let mut command = Command::new("git");
    command.arg("--no-optional-locks").arg("-C").arg(root).args(arguments).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(index) = index {
        command.env("GIT_INDEX_FILE", index);
    }
    let shown = || arguments.first().map_or_else(String::new, |word| word.to_string_lossy().into_owned());
    // It reads all of its input before it answers, where it reads any.
    let answered = command.spawn().and_then(|mut child| {
        if let Some(mut pipe) = child.stdin.take()
            && let Err(error) = pipe.write_all(input)
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            return Err(error);
        }
        child.wait_with_output()
    });
    let done =
        answered.map_err(|error| RevisionError::Git { command: shown(), message: error.to_string() })?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    Err(RevisionError::Git { command: shown(), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(root: &Path, script: &str) {
        let status = Command::new("sh")
            .arg("-ec")
            .arg(script)
            .current_dir(root)
            .env("GIT_AUTHOR_NAME", "a")
            .env("GIT_AUTHOR_EMAIL", "a@example.org")
            .env("GIT_COMMITTER_NAME", "a")
            .env("GIT_COMMITTER_EMAIL", "a@example.org")
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    }

    #[test]
    fn revisions_are_packed_as_they_were_and_the_work_tree_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        shell(
            root,
            "git init -q . && mkdir sub && echo one > sub/a.py && echo '*.log' > .gitignore
             echo kept > sub/kept.log && git add -f . && git commit -qm first
             echo two > sub/a.py && git commit -qam second
             echo elsewhere > top.txt && git add . && git commit -qm third
             echo dirty > sub/a.py",
        );
        let revisions = between(&root.join("sub"), "HEAD~2", "HEAD").unwrap();
        let subjects: Vec<&str> = revisions.iter().map(|revision| revision.subject.as_str()).collect();
        assert_eq!(subjects, ["first", "second", "third"]);
        assert_eq!(revisions[1].tree, revisions[2].tree, "the third changed nothing here");
        let first = archive(&root.join("sub"), &revisions[0]).unwrap();
        assert_eq!((first.files, first.total_bytes), (2, 9), "what is tracked comes along, though ignored");
        assert_eq!(first.revision.as_deref(), Some(revisions[0].commit.as_str()));
        assert_ne!(first.bytes, archive(&root.join("sub"), &revisions[1]).unwrap().bytes);
        assert_eq!(std::fs::read_to_string(root.join("sub/a.py")).unwrap(), "dirty\n");
        shell(root, "test \"$(git status --porcelain)\" = ' M sub/a.py'");
    }

    #[test]
    fn what_changed_is_told_from_where_the_branches_parted() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        shell(
            root,
            "git init -q -b main . && mkdir sub && echo 1 > sub/a && echo 1 > sub/b && echo 1 > top && echo '*.log' > .gitignore
             git add . && git commit -qm 1 && git checkout -qb work && echo 2 > sub/a && echo 2 > top && git commit -qam 2
             git checkout -q main && echo 3 > sub/b && git commit -qam 3 && git checkout -q work
             echo new > sub/new && echo x > sub/x.log",
        );
        let changed = changed_since(&root.join("sub"), "main").unwrap();
        assert_eq!(changed.files, [Path::new("a"), Path::new("new")]);
        let before = |name| file_at(&root.join("sub"), &changed.since, name);
        assert_eq!((before("a").as_deref(), before("new")), (Some("1\n"), None));
        assert!(matches!(changed_since(root, "none"), Err(RevisionError::Unknown(_))));
        let work = at(&root.join("sub"), "work").unwrap();
        assert_eq!((work.subject.as_str(), work.commit.len()), ("2", 40));
    }

    #[test]
    fn what_is_no_range_is_refused_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |good, bad| between(dir.path(), good, bad).unwrap_err();
        assert!(matches!(refused("a", "b"), RevisionError::NoRepository(_)));
        shell(
            dir.path(),
            "git init -q . && echo 1 > a && git add a && git commit -qm 1 && echo 2 > a && git commit -qam 2",
        );
        assert!(matches!(refused("nothing", "HEAD"), RevisionError::Unknown(_)));
        assert!(matches!(refused("--all", "HEAD"), RevisionError::Unknown(_)));
        let swapped = refused("HEAD", "HEAD~1");
        assert!(swapped.to_string().contains("not an ancestor") && swapped.hint().is_some());
    }
}
