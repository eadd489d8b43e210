//! A source tree with a patch, as a snapshot: applied strictly, as `git apply` does, to a copy. The work
//! tree is never written to. A patch that does not apply, changes nothing or reaches outside the
//! project is refused, with its line.

use crate::snapshot::{self, Archive, SnapshotError};
use flakefarm_shared::Digest;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Bytes of a patch that are read.
pub const PATCH_LIMIT: u64 = 16 << 20;

/// A tree with the patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patched {
    /// It, packed.
    pub archive: Archive,
    /// What differs from the tree without the patch: paths below the project's root, sorted.
    pub changed: Vec<PathBuf>,
}

/// A patch was refused.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// It is not a patch, or damaged.
    #[error("{patch}:{line}: {message}")]
    Damaged {
        /// Its name, for people.
        patch: String,
        /// Where in it, from 1.
        line: usize,
        /// What git said.
        message: String,
    },
    /// The tree is not what it was made for.
    #[error("{patch}:{line}: does not apply to {file}: {message}")]
    DoesNotApply {
        /// Its name, for people.
        patch: String,
        /// The part that does not apply, from 1.
        line: usize,
        /// The file it is for, with the line there if it is known.
        file: String,
        /// What git said.
        message: String,
    },
    /// It changes something that is not the project's.
    #[error("{patch}:{line}: {path} is outside the project")]
    Outside {
        /// Its name, for people.
        patch: String,
        /// Where in it, from 1.
        line: usize,
        /// What it would change.
        path: String,
    },
    /// The tree is the same with it.
    #[error("{0} changes nothing")]
    ChangesNothing(String),
    /// It is too large.
    #[error("{0} is larger than {limit} MiB", limit = PATCH_LIMIT >> 20)]
    TooLarge(String),
    /// git cannot be run.
    #[error("failed to run git apply")]
    NoGit(#[source] io::Error),
    /// The copy could not be made.
    #[error("failed to make a copy of the tree")]
    Scratch(#[source] io::Error),
    /// The patched tree could not be packed.
    #[error("failed to pack the tree with {patch}")]
    Snapshot {
        /// Its name, for people.
        patch: String,
        /// Why.
        #[source]
        source: SnapshotError,
    },
}

impl PatchError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            PatchError::Damaged { .. } => Some("a patch is what `git diff` prints"),
            PatchError::DoesNotApply { .. } => Some(
                "the patch must be made against this tree as it is now, from its root or the repository's",
            ),
            PatchError::Outside { .. } => Some("a patch may change files of the project only"),
            PatchError::ChangesNothing(_) => Some("is it applied already?"),
            PatchError::NoGit(_) => Some("install git"),
            PatchError::TooLarge(_) | PatchError::Scratch(_) | PatchError::Snapshot { .. } => None,
        }
    }
}

/// Applies `patch` to a copy of `base`, the project's tree, which lies at `prefix` below the top of its
/// repository (empty if it is the top, or if there is none). `name` is the patch's, for people. Blocking.
pub fn apply(base: &Archive, prefix: &Path, patch: &[u8], name: &str) -> Result<Patched, PatchError> {
    if patch.len() as u64 > PATCH_LIMIT {
        return Err(PatchError::TooLarge(name.to_owned()));
    }
    let scratch = tempfile::tempdir().map_err(PatchError::Scratch)?;
    let (top, project) = (scratch.path().join("top"), scratch.path().join("top").join(prefix));
    std::fs::create_dir_all(&project).map_err(PatchError::Scratch)?;
    snapshot::unpack(base, &project).map_err(PatchError::Scratch)?;
    let text = Text { bytes: patch, name };
    // Names in a patch begin at the project's root, or at its repository's.
    let from_project = text.apply(&project)?;
    let refused = match from_project {
        None => None,
        Some(refused) if prefix.as_os_str().is_empty() => Some(refused),
        Some(refused) => text.apply(&top)?.map(|at_top| if text.names(prefix) { at_top } else { refused }),
    };
    if let Some(refused) = refused {
        return Err(text.explain(&refused));
    }
    if let Some(path) = strangers(&top, prefix).map_err(PatchError::Scratch)? {
        return Err(text.outside(&path.display().to_string()));
    }
    let packed = snapshot::archive_everything(&project);
    let mut archive = packed.map_err(|source| PatchError::Snapshot { patch: name.to_owned(), source })?;
    let (before, after) = (contents(base), contents(&archive));
    let (before, after) = (before.map_err(PatchError::Scratch)?, after.map_err(PatchError::Scratch)?);
    let all = before.keys().chain(after.keys());
    let mut changed: Vec<PathBuf> =
        all.filter(|path| before.get(*path) != after.get(*path)).cloned().collect();
    changed.sort();
    changed.dedup();
    if changed.is_empty() && archive.warnings.is_empty() {
        return Err(PatchError::ChangesNothing(name.to_owned()));
    }
    // What cannot be packed is a link that leads outside.
    if let Some(left_out) = archive.warnings.first() {
        let path = left_out.split('`').nth(1).unwrap_or(left_out);
        return Err(text.outside(path));
    }
    archive.revision = base.revision.clone();
    Ok(Patched { archive, changed })
}

/// Mode and content of every file, link target of every link.
fn contents(archive: &Archive) -> io::Result<BTreeMap<PathBuf, (u32, Digest)>> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(zstd::Decoder::new(archive.bytes.as_slice())?).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_dir() {
            continue;
        }
        let mut content = entry.link_name_bytes().unwrap_or_default().into_owned();
        entry.read_to_end(&mut content)?;
        found.insert(entry.path()?.into_owned(), (entry.header().mode()?, Digest::of(&content)));
    }
    Ok(found)
}

/// Something below `top` that is not below `prefix` there.
fn strangers(top: &Path, prefix: &Path) -> io::Result<Option<PathBuf>> {
    let mut here = top.to_owned();
    for part in prefix.components() {
        for entry in std::fs::read_dir(&here)? {
            let entry = entry?;
            if entry.file_name() != part.as_os_str() {
                let mut path = entry.path();
                // The file itself, not the directory that was made for it.
                while path.is_dir() && !path.is_symlink() {
                    let Some(inner) = std::fs::read_dir(&path)?.next() else { break };
                    path = inner?.path();
                }
                return Ok(Some(path.strip_prefix(top).unwrap_or(&path).to_owned()));
            }
        }
        here.push(part);
    }
    Ok(None)
}

/// A patch and what people call it.
struct Text<'a> {
    bytes: &'a [u8],
    name: &'a str,
}

impl Text<'_> {
    /// Applies it at `place`, all of it or nothing. `None` if that went well, else what git said.
    fn apply(&self, place: &Path) -> Result<Option<String>, PatchError> {
        let strip = if self.is_prefixed() { "-p1" } else { "-p0" };
        let mut command = Command::new("git");
        command
            .args(["apply", "--whitespace=nowarn", strip, "-"])
            .current_dir(place)
            // A copy outside every repository, and nobody's settings.
            .env("GIT_CEILING_DIRECTORIES", place.parent().unwrap_or(place))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .env_remove("GIT_INDEX_FILE")
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(PatchError::NoGit)?;
        let mut stdin = child.stdin.take().expect("it is piped");
        // git reads all of it before it says anything.
        let written = stdin.write_all(self.bytes);
        drop(stdin);
        let done = child.wait_with_output().map_err(PatchError::NoGit)?;
        if done.status.success() {
            return written.map(|()| None).map_err(PatchError::NoGit);
        }
        Ok(Some(String::from_utf8_lossy(&done.stderr).into_owned()))
    }

    fn lines(&self) -> impl Iterator<Item = (usize, String)> + '_ {
        let lines = self.bytes.split(|byte| *byte == b'\n').enumerate();
        lines.map(|(number, line)| (number + 1, String::from_utf8_lossy(line).trim_end().to_owned()))
    }

    /// Whether names begin with `a/` and `b/`, as git writes them unless told otherwise.
    fn is_prefixed(&self) -> bool {
        let named = |line: &str| {
            let name = line.strip_prefix("+++ ").or_else(|| line.strip_prefix("--- "))?;
            (!name.starts_with("/dev/null")).then(|| name.trim_start_matches('"').to_owned())
        };
        let mut names = self.lines().filter_map(|(_, line)| named(&line)).peekable();
        // Renames and modes alone have no such lines.
        names.peek().is_none()
            || names.all(|name| {
                let mut parts = name.splitn(2, '/');
                parts.next().is_some_and(|first| first.len() == 1) && parts.next().is_some()
            })
    }

    /// Whether it names something below `prefix` from the repository's top.
    fn names(&self, prefix: &Path) -> bool {
        let below = format!("/{}/", prefix.display());
        self.lines().any(|(_, line)| is_name(&line) && line.contains(&below))
    }

    /// The line that names `path`, or the first.
    fn line_of(&self, path: &str) -> usize {
        self.lines().find(|(_, line)| is_name(line) && line.contains(path)).map_or(1, |(number, _)| number)
    }

    /// The header of the hunk of `path` that begins at `line` of it.
    fn hunk_of(&self, path: &str, line: &str) -> usize {
        let from = self.line_of(path);
        let header = [format!("@@ -{line},"), format!("@@ -{line} ")];
        let found = self.lines().find(|(number, text)| {
            *number > from && header.iter().any(|header| text.starts_with(header.as_str()))
        });
        found.map_or(from, |(number, _)| number)
    }

    fn outside(&self, path: &str) -> PatchError {
        PatchError::Outside { patch: self.name.to_owned(), line: self.line_of(path), path: path.to_owned() }
    }

    /// What git said, with the line of the patch.
    fn explain(&self, said: &str) -> PatchError {
        let patch = self.name.to_owned();
        let errors: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
        let first = errors.first().copied().unwrap_or(said.trim());
        if let Some(path) = first.strip_prefix("invalid path ") {
            return self.outside(path.trim_matches('\''));
        }
        if let Some((path, _)) = first.split_once(" is beyond a symbolic link") {
            return self.outside(path.trim_start_matches("affected file ").trim_matches('\''));
        }
        if let Some((file, line)) =
            first.strip_prefix("patch failed: ").and_then(|rest| rest.rsplit_once(':'))
        {
            let message = "what it expects there is not there".to_owned();
            let (line, file) = (self.hunk_of(file, line), format!("{file}:{line}"));
            return PatchError::DoesNotApply { patch, line, file, message };
        }
        let damaged = [
            "corrupt patch",
            "No valid patches",
            "git diff header lacks",
            "patch fragment without header",
            "unrecognized input",
            "corrupt binary patch",
        ];
        if damaged.iter().any(|words| first.contains(words)) {
            let digits: String = first.chars().rev().take_while(char::is_ascii_digit).collect();
            let line = digits.chars().rev().collect::<String>().parse::<usize>().unwrap_or(1);
            // A patch that ends too soon is damaged at its end.
            let last = self.bytes.iter().filter(|byte| **byte == b'\n').count().max(1);
            let line = line.min(last);
            let words = if first.contains("No valid patches") {
                "holds no patch"
            } else {
                "the patch is damaged here"
            };
            return PatchError::Damaged { patch, line, message: words.to_owned() };
        }
        match first.split_once(": ") {
            Some((file, message)) => {
                let line = self.line_of(file);
                PatchError::DoesNotApply { patch, line, file: file.to_owned(), message: message.to_owned() }
            }
            None => PatchError::Damaged { patch, line: 1, message: first.to_owned() },
        }
    }
}

fn is_name(line: &str) -> bool {
    ["+++ ", "--- ", "diff --git ", "rename ", "copy "].iter().any(|start| line.starts_with(start))
}

#[cfg(test)]
mod tests;
