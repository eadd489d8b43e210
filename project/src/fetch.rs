//! A project's tree out of a git remote: one revision, shallow, into a directory of its own that is gone
//! afterwards. Whoever names the remote is not trusted, nor is who answers there: git runs without
//! prompts, hooks, helpers or this machine's configuration, over few protocols, and what comes is bounded
//! in bytes, memory and time. Blocking.

mod asked;
mod credentials;
mod error;
mod git;
mod remote;
mod words;

pub use credentials::{Credentials, CredentialsError};
pub use error::FetchError;
pub use remote::{Remote, RemoteError};

use crate::snapshot::{self, Archive, SIZE_LIMIT, SnapshotError};
use asked::Asked;
use git::{Git, Stopped};

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Submodules and files that a warning names.
const NAMED: usize = 5;
/// Files, links and submodules of a tree.
const MOST_ENTRIES: usize = 500_000;

/// What fetching may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimits {
    /// Bytes that are fetched of one repository.
    pub bytes: u64,
    /// From the first question to the remote until the tree is packed.
    pub time: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { bytes: 2 << 30, time: Duration::from_secs(600) }
    }
}

/// A revision that was fetched.
#[derive(Debug)]
pub struct Fetched {
    /// The project's tree. Its warnings tell of submodules and large files that are kept elsewhere, too.
    pub archive: Archive,
    /// The commit, in full.
    pub commit: String,
    /// The project's configuration file, if it has one.
    pub configuration: Option<Vec<u8>>,
}

/// Asks whether there is such a revision, without fetching it; gives its commit.
pub fn ask(
    remote: &Remote,
    credentials: Option<&Credentials>,
    limits: FetchLimits,
    stop: &AtomicBool,
) -> Result<String, FetchError> {
    let address = remote.checked()?;
    let scratch = tempfile::Builder::new().prefix(PREFIX).tempdir().map_err(FetchError::Scratch)?;
    let asked = Asked::of(remote, credentials, limits)?;
    let git = Git::new(scratch.path(), &address, credentials, limits, stop)?;
    Ok(find(&git, &asked)?.commit)
}

/// Fetches a revision and packs the project's tree in it.
pub fn fetch(
    remote: &Remote,
    credentials: Option<&Credentials>,
    limits: FetchLimits,
    stop: &AtomicBool,
) -> Result<Fetched, FetchError> {
    let address = remote.checked()?;
    let scratch = tempfile::Builder::new().prefix(PREFIX).tempdir().map_err(FetchError::Scratch)?;
    let asked = Asked::of(remote, credentials, limits)?;
    let git = Git::new(scratch.path(), &address, credentials, limits, stop)?;
    let found = find(&git, &asked)?;
    let url = || remote.url.clone();
    git.run(&["init", "--quiet", "--bare", "--template="]).map_err(|stopped| asked.own(stopped))?;
    let refspec = format!("+{}:{TIP}", found.name);
    git.run(&[
        "fetch",
        "--quiet",
        "--depth=1",
        "--no-tags",
        "--no-recurse-submodules",
        "--",
        &address,
        &refspec,
    ])
    .map_err(|stopped| asked.of_remote(stopped))?;
    let commit = git
        .run(&["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{TIP}^{{commit}}")])
        .map_err(|_| FetchError::Unknown { url: url(), revision: remote.revision.clone() })?;
    let commit = String::from_utf8_lossy(&commit).trim().to_owned();
    let directory = remote.directory();
    let tree =
        if directory.is_empty() { format!("{commit}^{{tree}}") } else { format!("{commit}:{directory}") };
    let missing =
        || FetchError::NoDirectory { url: url(), directory: directory.to_owned(), commit: commit.clone() };
    let damaged = |why: String| FetchError::Damaged { url: url(), commit: commit.clone(), why };
    let kind = git.run(&["cat-file", "-t", "--end-of-options", &tree]).map_err(|_| missing())?;
    if kind != b"tree\n" {
        return Err(missing());
    }
    let of_tree = |stopped| match stopped {
        Stopped::Failed(why) => damaged(why),
        other => asked.own(other),
    };
    let listed = git.long(&["ls-tree", "-r", "-l", "-z", "--full-tree", &tree]).map_err(of_tree)?;
    let listing = Listing::read(&listed).map_err(damaged)?;
    if listing.bytes > SIZE_LIMIT {
        let root = Path::new(&remote.url).to_owned();
        let source = SnapshotError::TooLarge { root, limit_bytes: SIZE_LIMIT, largest: listing.largest() };
        return Err(FetchError::Pack { commit, source });
    }
    let files = git.work_tree().map_err(FetchError::Scratch)?;
    git.run(&["read-tree", &tree]).map_err(of_tree)?;
    git.run(&["checkout-index", "--all", "--force", "--quiet"]).map_err(of_tree)?;
    let mut archive = snapshot::archive_everything(&files)
        .map_err(|source| FetchError::Pack { commit: commit.clone(), source })?;
    archive.revision = Some(commit.clone());
    archive.warnings.extend(listing.submodules_said());
    archive.warnings.extend(kept_elsewhere(&files, &listing));
    let configuration = files.join(crate::config::FILE_NAME);
    let configuration = configuration
        .symlink_metadata()
        .is_ok_and(|found| found.is_file())
        .then(|| std::fs::read(&configuration).unwrap_or_default());
    Ok(Fetched { archive, commit, configuration })
}

/// Begins the names of directories that are gone when fetching ends.
const PREFIX: &str = "flakefarm-fetch-";
/// What the revision is called here.
const TIP: &str = "refs/flakefarm/tip";

/// A revision as its remote calls it.
struct Found {
    name: String,
    commit: String,
}

fn find(git: &Git<'_>, asked: &Asked<'_>) -> Result<Found, FetchError> {
    let remote = asked.remote;
    let revision = remote.revision.as_str();
    if remote.is_commit() {
        // Nothing says beforehand whether it is given.
        return Ok(Found { name: revision.to_owned(), commit: revision.to_owned() });
    }
    let wanted = remote.names();
    let mut arguments = vec!["ls-remote", "--quiet", "--", git.address()];
    arguments.extend(wanted.iter().map(String::as_str));
    let answer = git.run(&arguments).map_err(|stopped| asked.of_remote(stopped))?;
    let answer = String::from_utf8_lossy(&answer);
    let named = |name: &String| {
        let commit = answer.lines().find_map(|line| line.strip_suffix(name.as_str())?.strip_suffix('\t'))?;
        Some(Found { name: name.clone(), commit: commit.to_owned() })
    };
    let unknown = || FetchError::Unknown { url: remote.url.clone(), revision: revision.to_owned() };
    wanted.iter().find_map(named).ok_or_else(unknown)
}

/// What a tree holds, before any of it is written.
#[derive(Debug, Default)]
struct Listing {
    bytes: u64,
    /// By size, the largest last, at most [`NAMED`].
    large: Vec<(u64, String)>,
    submodules: Vec<String>,
    attributes: Vec<String>,
    /// Files as small as what stands for a file that is kept elsewhere.
    small: Vec<String>,
}

impl Listing {
    /// Of `git ls-tree -r -l -z`.
    fn read(listed: &[u8]) -> Result<Self, String> {
        let mut listing = Self::default();
        for (place, entry) in listed.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()).enumerate() {
            if place >= MOST_ENTRIES {
                return Err(format!("it has more than {MOST_ENTRIES} files"));
            }
            let entry = String::from_utf8_lossy(entry);
            let Some((head, path)) = entry.split_once('\t') else { continue };
            let words: Vec<&str> = head.split_whitespace().collect();
            let (Some(kind), Some(size)) = (words.get(1), words.get(3)) else { continue };
            if *kind == "commit" {
                listing.submodules.push(path.to_owned());
                continue;
            }
            let size: u64 = size.parse().unwrap_or(0);
            listing.bytes = listing.bytes.saturating_add(size);
            listing.large.push((size, path.to_owned()));
            listing.large.sort();
            if listing.large.len() > NAMED {
                listing.large.remove(0);
            }
            if path == ".gitattributes" || path.ends_with("/.gitattributes") {
                listing.attributes.push(path.to_owned());
            }
            if (100..1024).contains(&size) {
                listing.small.push(path.to_owned());
            }
        }
        Ok(listing)
    }

    fn largest(&self) -> String {
        let shown = self.large.iter().rev().map(|(size, path)| format!("{path} ({} KiB)", size >> 10));
        shown.collect::<Vec<_>>().join(", ")
    }

    fn submodules_said(&self) -> Option<String> {
        let one = if self.submodules.len() == 1 { "the submodule" } else { "the submodules" };
        (!self.submodules.is_empty())
            .then(|| format!("left out {one} {}: submodules are not fetched", named(&self.submodules)))
    }
}

/// Files of which the repository holds only where they are kept (Git LFS).
fn kept_elsewhere(files: &Path, listing: &Listing) -> Option<String> {
    const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
    let read = |path: &String| {
        let full = files.join(path);
        let is_file = full.symlink_metadata().is_ok_and(|found| found.is_file());
        is_file.then(|| std::fs::read(full).ok()).flatten()
    };
    let uses =
        |path: &String| read(path).is_some_and(|text| String::from_utf8_lossy(&text).contains("filter=lfs"));
    if !listing.attributes.iter().any(uses) {
        return None;
    }
    let is_pointer = |path: &&String| read(path).is_some_and(|text| text.starts_with(POINTER));
    let pointers: Vec<String> = listing.small.iter().filter(is_pointer).cloned().collect();
    (!pointers.is_empty()).then(|| {
        format!(
            "the content of {} is not there: Git LFS is not asked, and tests find its pointer",
            named(&pointers)
        )
    })
}

/// The first of some names, and how many more there are.
fn named(names: &[String]) -> String {
    let first: Vec<String> = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests;
