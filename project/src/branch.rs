//! A commit on a branch that nobody has checked out: by an index of our own, so that work tree, index and HEAD
//! stay as they are.

use crate::revisions::{self, RevisionError, git, git_with};
use std::path::Path;

/// One file of the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedFile {
    /// Below the project's root.
    pub path: String,
    /// What the branch must have there; nothing: it must not have it.
    pub before: Option<Vec<u8>>,
    /// What it has then.
    pub after: Vec<u8>,
}

/// A commit that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// It, in full.
    pub commit: String,
    /// The commit before it.
    pub parent: String,
    /// Whether the branch was made for it.
    pub new_branch: bool,
}

/// Why nothing was committed.
#[derive(Debug, thiserror::Error)]
pub enum BranchError {
    /// git failed, or there is no repository.
    #[error(transparent)]
    Git(#[from] RevisionError),
    /// No branch can have that name.
    #[error("`{0}` is no name for a branch")]
    Name(String),
    /// Somebody works on it.
    #[error("`{0}` is checked out: a commit on it would change what its work tree is compared with")]
    CheckedOut(String),
    /// The branch has something else than what the change was made for.
    #[error("{path} is not on `{branch}` as it is in the work tree")]
    Differs {
        /// The file.
        path: String,
        /// The branch, or HEAD if it is new.
        branch: String,
    },
    /// The branch is not where the commit was left.
    #[error("`{0}` has moved since")]
    Moved(String),
}

impl BranchError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            BranchError::Git(error) => error.hint(),
            BranchError::Name(_) => Some("such as repair/rename"),
            BranchError::CheckedOut(_) => {
                Some("name another branch, or write into the work tree with --apply")
            }
            BranchError::Differs { .. } => Some("commit the test as it is first, or use --apply"),
            BranchError::Moved(_) => Some("nothing was changed; git log shows what is there"),
        }
    }
}

/// Commits `files` on the branch called `name`; a new one begins at HEAD. What differs in the work tree beyond
/// them is not in it. Blocking.
pub fn commit(
    root: &Path,
    name: &str,
    files: &[CommittedFile],
    message: &str,
) -> Result<Committed, BranchError> {
    let prefix = revisions::prefix(root)?;
    let reference = format!("refs/heads/{name}");
    if name.starts_with('-') || git(root, &["check-ref-format", &reference]).is_err() {
        return Err(BranchError::Name(name.to_owned()));
    }
    let worktrees = git(root, &["worktree", "list", "--porcelain"])?;
    if worktrees.lines().any(|line| line.strip_prefix("branch ") == Some(reference.as_str())) {
        return Err(BranchError::CheckedOut(name.to_owned()));
    }
    let known = git(root, &["rev-parse", "--verify", "--quiet", "--end-of-options", &reference]).ok();
    let (parent, there) = match &known {
        Some(tip) => (tip.trim().to_owned(), name.to_owned()),
        None => {
            (git(root, &["rev-parse", "--verify", "HEAD^{commit}"])?.trim().to_owned(), "HEAD".to_owned())
        }
    };
    let scratch = tempfile::tempdir().map_err(RevisionError::Scratch)?;
    let index = scratch.path().join("index");
    let with_index = |arguments: &[&str], input: &[u8]| git_with(root, arguments, Some(&index), input);
    with_index(&["read-tree", &parent], b"")?;
    for file in files {
        let full = format!("{prefix}{}", file.path);
        let differs = || BranchError::Differs { path: file.path.clone(), branch: there.clone() };
        let listed = git(root, &["ls-tree", "--full-tree", "-z", &parent, "--", &full])?;
        let entry = listed.trim_end_matches('\0').split_once('\t').map(|(entry, _)| entry);
        let mode = match (entry, &file.before) {
            (None, None) => "100644".to_owned(),
            (Some(entry), Some(before)) => {
                let mut words = entry.split(' ');
                let (mode, _kind, blob) = (words.next(), words.next(), words.next());
                let same = with_index(&["hash-object", "--stdin", "--path", &file.path], before)?;
                match mode {
                    Some(mode) if blob == Some(same.trim()) && mode.starts_with("100") => mode.to_owned(),
                    _ => return Err(differs()),
                }
            }
            _ => return Err(differs()),
        };
        let blob = with_index(&["hash-object", "-w", "--stdin", "--path", &file.path], &file.after)?;
        let entry = format!("{mode},{},{full}", blob.trim());
        // Names in an index begin at the top, those of --path here.
        with_index(&["update-index", "--add", "--cacheinfo", &entry], b"")?;
    }
    let tree = with_index(&["write-tree"], b"")?;
    let mut committing = Vec::new();
    if git(root, &["var", "GIT_COMMITTER_IDENT"]).is_err() || git(root, &["var", "GIT_AUTHOR_IDENT"]).is_err()
    {
        // Nobody has said who commits here.
        committing.extend(["-c", "user.name=flakefarm", "-c", "user.email=flakefarm@localhost"]);
    }
    committing.extend(["commit-tree", tree.trim(), "-p", &parent, "-F", "-"]);
    let commit = with_index(&committing, message.as_bytes())?;
    let commit = commit.trim().to_owned();
    // Nobody may have moved it meanwhile; forty zeros: it must not be there.
    let old = if known.is_some() { parent.clone() } else { "0".repeat(40) };
    git(root, &["update-ref", "-m", "flakefarm repair", &reference, &commit, &old])
        .map_err(|_| BranchError::Moved(name.to_owned()))?;
    Ok(Committed { commit, parent, new_branch: known.is_none() })
}

/// Takes such a commit back, if it is still the last one of its branch. Blocking.
pub fn take_back(root: &Path, name: &str, done: &Committed) -> Result<(), BranchError> {
    let reference = format!("refs/heads/{name}");
    let worktrees = git(root, &["worktree", "list", "--porcelain"])?;
    if worktrees.lines().any(|line| line.strip_prefix("branch ") == Some(reference.as_str())) {
        return Err(BranchError::CheckedOut(name.to_owned()));
    }
    let moved = |_| BranchError::Moved(name.to_owned());
    if done.new_branch {
        git(root, &["update-ref", "-d", &reference, &done.commit]).map_err(moved)?;
    } else {
        git(root, &["update-ref", &reference, &done.parent, &done.commit]).map_err(moved)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn shell(root: &Path, script: &str) -> String {
        let names = ["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"].map(|name| (name, "a"));
        let mails = ["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"].map(|name| (name, "a@example.org"));
        let mut command = Command::new("sh");
        command.arg("-ec").arg(script).current_dir(root).envs(names).envs(mails).stderr(Stdio::inherit());
        let done = command.output().unwrap();
        assert!(done.status.success(), "{script}");
        String::from_utf8(done.stdout).unwrap()
    }

    fn file(path: &str, before: Option<&str>, after: &str) -> CommittedFile {
        let before = before.map(|text| text.as_bytes().to_vec());
        CommittedFile { path: path.to_owned(), before, after: after.as_bytes().to_vec() }
    }

    #[test]
    fn a_commit_is_made_on_a_branch_and_nothing_else_moves() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path();
        shell(
            top,
            "git init -q -b main . && git config user.name a && git config user.email a@example.org
             mkdir sub && echo one > sub/a.py && echo two > sub/b.py && chmod +x sub/b.py
             git add . && git commit -qm first && echo code > sub/code.py",
        );
        let root = top.join("sub");
        let standing = || shell(top, "git rev-parse HEAD; git status --porcelain=v2 --branch; cat sub/*.py");
        let before = standing();
        let files = [file("b.py", Some("two\n"), "TWO\n"), file("c.py", None, "new\n")];
        let done = commit(&root, "repair/x", &files, "Repair\n").unwrap();
        assert!(done.new_branch);
        assert_eq!(standing(), before);
        assert_eq!(shell(top, "git show repair/x:sub/b.py repair/x:sub/c.py"), "TWO\nnew\n");
        assert_eq!(shell(top, "git ls-tree repair/x sub/b.py").split(' ').next(), Some("100755"));
        assert_eq!(shell(top, "git diff --name-only main repair/x"), "sub/b.py\nsub/c.py\n");

        let check = |name: &str, files: &[CommittedFile], expect: &str| {
            let refused = commit(&root, name, files, "x").unwrap_err().to_string();
            assert!(refused.contains(expect), "{refused}");
            assert_eq!(standing(), before);
        };
        check("main", &files, "checked out");
        check("a..b", &files, "no name");
        check("-d", &files, "no name");
        check("repair/y", &[file("code.py", Some("code\n"), "x")], "code.py is not on `HEAD`");
        check("repair/x", &files, "b.py is not on `repair/x`");
        let more = commit(&root, "repair/x", &[file("b.py", Some("TWO\n"), "2\n")], "More\n").unwrap();
        assert!(!more.new_branch);
        assert!(take_back(&root, "repair/x", &done).is_err(), "it is not the last one");
        take_back(&root, "repair/x", &more).unwrap();
        take_back(&root, "repair/x", &done).unwrap();
        assert_eq!(shell(top, "git branch --format '%(refname:short)'"), "main\n");
        assert_eq!(standing(), before);
    }
}
