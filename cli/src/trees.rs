//! Trees that questions are asked about: of a revision, with a patch, as sources, and as a difference.

use crate::exit::{Complaint, Exit};
use flakefarm_project::patch::{self, Patched};
use flakefarm_project::revisions::{self, RevisionError};
use flakefarm_project::snapshot::{self, Archive};
use flakefarm_repair::{FileAdaptation, SourceTree};
use similar::TextDiff;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Stack of the thread that analyses sources: deeply nested ones are walked, and taken apart, by recursion.
const STACK_BYTES: usize = 512 << 20;

/// The tree that the tests were right for.
pub(crate) struct Base {
    pub(crate) name: String,
    pub(crate) archive: Archive,
}

/// The tree at `base`; without one the last commit, if the work tree differs from it, else the commit before
/// it. Nothing outside of a repository, or where there is no commit before.
pub(crate) async fn base(root: &Path, base: Option<&str>, here: &Archive) -> Result<Option<Base>, Complaint> {
    if let Some(name) = base {
        let archive = at(root, name).await?.map_err(|error| Complaint::wrong(&error, error.hint()))?;
        return Ok(Some(Base { name: name.to_owned(), archive }));
    }
    let Ok(head) = at(root, "HEAD").await? else { return Ok(None) };
    if head.bytes != here.bytes {
        return Ok(Some(Base { name: "HEAD".to_owned(), archive: head }));
    }
    Ok(at(root, "HEAD~1").await?.ok().map(|archive| Base { name: "HEAD~1".to_owned(), archive }))
}

/// The tree at a revision, by any of its names.
pub(crate) async fn at(root: &Path, name: &str) -> Result<Result<Archive, RevisionError>, Complaint> {
    let (root, name) = (root.to_owned(), name.to_owned());
    Ok(tokio::task::spawn_blocking(move || {
        let revision = revisions::at(&root, &name)?;
        revisions::archive(&root, &revision)
    })
    .await?)
}

/// `base` with a patch as `git diff` writes it, whose paths begin at the top of the repository of `root`; `name` is
/// what people call the patch.
pub(crate) async fn patched(
    root: &Path,
    base: &Archive,
    diff: Vec<u8>,
    name: &str,
) -> Result<Patched, Complaint> {
    let (base, name) = (base.clone(), name.to_owned());
    let prefix = revisions::prefix(root).unwrap_or_default();
    let patched = tokio::task::spawn_blocking(move || {
        patch::apply(&base, Path::new(prefix.trim_end_matches('/')), &diff, &name)
    });
    patched.await?.map_err(|error| Complaint::wrong(&error, error.hint()))
}

/// Analyses sources on a thread with a stack for it.
pub(crate) async fn analyse<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Complaint> + Send + 'static,
) -> Result<T, Complaint> {
    let on_thread = move || {
        let thread =
            std::thread::Builder::new().name("repair".to_owned()).stack_size(STACK_BYTES).spawn(work);
        let joined = thread.map_err(|error| Complaint::of(&error))?.join();
        joined.unwrap_or_else(|_| Err(Complaint::new(Exit::FarmFailed, "the analysis of the sources failed")))
    };
    tokio::task::spawn_blocking(on_thread).await?
}

/// The files of an archive.
pub(crate) fn files(archive: &Archive) -> Result<BTreeMap<PathBuf, Vec<u8>>, Complaint> {
    snapshot::files(archive).map_err(|error| Complaint::of(&error))
}

/// The links of an archive.
pub(crate) fn links(archive: &Archive) -> Result<BTreeSet<PathBuf>, Complaint> {
    snapshot::links(archive).map_err(|error| Complaint::of(&error))
}

/// The Python sources among `files`.
pub(crate) fn sources(files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<SourceTree, Complaint> {
    let python = files
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|end| end == "py"))
        .filter_map(|(path, bytes)| Some((path.to_str()?.to_owned(), bytes.clone())));
    SourceTree::new(python).map_err(|error| Complaint::usage(error.to_string()))
}

/// The change as `git diff` writes it.
pub(crate) fn diff(before: &BTreeMap<PathBuf, Vec<u8>>, after: &[FileAdaptation]) -> String {
    let mut text = String::new();
    for file in after {
        let old =
            before.get(Path::new(&file.path)).map(|bytes| String::from_utf8_lossy(bytes)).unwrap_or_default();
        let known = before.contains_key(Path::new(&file.path));
        let from = if known { format!("a/{}", file.path) } else { "/dev/null".to_owned() };
        let to = format!("b/{}", file.path);
        let lines = TextDiff::from_lines(old.as_ref(), &file.text);
        text.push_str(&lines.unified_diff().context_radius(3).header(&from, &to).to_string());
    }
    text
}
