//! Changed files into a work tree: all or none, whatever happens in between. Before the first file is touched, a
//! journal names every file with what it was; each is written beside its place and renamed into it; at the end
//! the journal goes. Whoever finds a journal puts everything back first. What was there before stays kept, so
//! that a change can be undone to the byte.

use crate::exit::Complaint;
use flakefarm_shared::Digest;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where all of it is kept, beside the embedded store.
#[derive(Debug, Clone)]
pub(super) struct Kept(PathBuf);

/// What becomes of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// Below the root.
    pub(super) path: String,
    /// What it must hold now; nothing: it must not be there.
    pub(super) before: Option<Vec<u8>>,
    /// What it holds then; nothing: it is gone.
    pub(super) after: Option<Vec<u8>>,
}

/// One file of a journal or of what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WrittenFile {
    /// Below the root.
    pub(super) path: String,
    /// What it was, by its digest; the content lies in the session's directory under that name.
    pub(super) before: Option<Digest>,
    /// What it is.
    pub(super) after: Option<Digest>,
}

/// A change that is under way.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    root: PathBuf,
    session: String,
    files: Vec<WrittenFile>,
}

impl Kept {
    /// In a state directory.
    pub(super) fn of(state: &Path) -> Self {
        Self(state.join("repairs"))
    }

    /// What belongs to one session.
    pub(super) fn session(&self, id: &str) -> PathBuf {
        self.0.join(id)
    }

    /// The directory of all.
    pub(super) fn directory(&self) -> &Path {
        &self.0
    }

    fn journal(&self, root: &Path) -> PathBuf {
        let name = Digest::of(root.as_os_str().as_encoded_bytes());
        self.0.join("under-way").join(format!("{name}.json"))
    }

    /// The right to write into a tree: one process at a time has it, until it drops it.
    fn lock(&self, root: &Path) -> Result<File, Complaint> {
        let path = self.journal(root).with_extension("lock");
        let opened = fs::create_dir_all(path.parent().unwrap_or(&self.0)).and_then(|()| File::create(&path));
        let file = opened.map_err(|error| unwritable(&path, &error))?;
        file.try_lock().map_err(|_| {
            Complaint::usage(format!("another repair is writing into {}", root.display()))
                .hint("run it again when that has ended")
        })?;
        Ok(file)
    }

    fn content(&self, session: &str, digest: &Digest) -> PathBuf {
        self.session(session).join("contents").join(digest.as_str())
    }

    /// What a session keeps under a digest.
    pub(super) fn read(&self, session: &str, digest: &Digest) -> Result<Vec<u8>, Complaint> {
        let path = self.content(session, digest);
        let bytes = fs::read(&path).map_err(|error| unwritable(&path, &error))?;
        if Digest::of(&bytes) != *digest {
            return Err(Complaint::farm(format!("{} is damaged", path.display())));
        }
        Ok(bytes)
    }

    fn keep(&self, session: &str, bytes: &[u8]) -> Result<Digest, Complaint> {
        let digest = Digest::of(bytes);
        let path = self.content(session, &digest);
        replace(&path, bytes).map_err(|error| unwritable(&path, &error))?;
        Ok(digest)
    }

    /// Makes all of the changes in the tree at `root`, or none. Blocking.
    pub(super) fn write(
        &self,
        session: &str,
        root: &Path,
        changes: &[Change],
    ) -> Result<Vec<WrittenFile>, Complaint> {
        let _alone = self.lock(root)?;
        self.put_back(root)?;
        let journal = self.begin(session, root, changes)?;
        for (place, change) in changes.iter().enumerate() {
            if let Err(error) = make(root, change, &temporary(session, place)) {
                self.put_back(root)?;
                return Err(Complaint::usage(format!("failed to write {}: {error}", change.path))
                    .hint("everything is as it was"));
            }
        }
        self.end(root)?;
        Ok(journal)
    }

    /// Looks at every file, keeps what it holds, and writes the journal.
    fn begin(&self, session: &str, root: &Path, changes: &[Change]) -> Result<Vec<WrittenFile>, Complaint> {
        let mut files = Vec::new();
        for change in changes {
            let now = look(root, &change.path)?;
            if now != change.before {
                return Err(Complaint::usage(format!("{} has changed meanwhile", change.path))
                    .hint("nothing was written; run it again"));
            }
            let keep =
                |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| self.keep(session, bytes)).transpose();
            files.push(WrittenFile {
                path: change.path.clone(),
                before: keep(&change.before)?,
                after: keep(&change.after)?,
            });
        }
        let journal = Journal { root: root.to_owned(), session: session.to_owned(), files };
        let path = self.journal(root);
        let text = serde_json::to_vec_pretty(&journal)?;
        replace(&path, &text).map_err(|error| unwritable(&path, &error))?;
        Ok(journal.files)
    }

    fn end(&self, root: &Path) -> Result<(), Complaint> {
        let path = self.journal(root);
        fs::remove_file(&path).map_err(|error| unwritable(&path, &error))
    }

    /// Puts back what a repair that ended half-way has written into the tree at `root`; gives the files. To be
    /// called before anything is read of the tree. Blocking.
    pub(super) fn recover(&self, root: &Path) -> Result<Vec<String>, Complaint> {
        if !self.journal(root).exists() {
            return Ok(Vec::new());
        }
        let _alone = self.lock(root)?;
        self.put_back(root)
    }

    fn put_back(&self, root: &Path) -> Result<Vec<String>, Complaint> {
        let path = self.journal(root);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unwritable(&path, &error)),
        };
        let journal: Journal = serde_json::from_slice(&text)?;
        let mut changed = Vec::new();
        for (place, file) in journal.files.iter().enumerate() {
            let target = root.join(&file.path);
            let beside = target.with_file_name(temporary(&journal.session, place));
            if let Err(error) = fs::remove_file(&beside)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(unwritable(&beside, &error));
            }
            let now = look(root, &file.path)?;
            let digest = now.as_deref().map(Digest::of);
            if digest == file.before {
                continue;
            }
            if digest != file.after {
                return Err(Complaint::usage(format!(
                    "a repair ended half-way, and {} has changed since",
                    file.path
                ))
                .hint(format!(
                    "what it was before is in {}; put it where you want it, then remove {}",
                    self.session(&journal.session).join("contents").display(),
                    path.display()
                )));
            }
            let before =
                file.before.as_ref().map(|digest| self.read(&journal.session, digest)).transpose()?;
            let change = Change { path: file.path.clone(), before: now, after: before };
            make(root, &change, &temporary(&journal.session, place))
                .map_err(|error| unwritable(&target, &error))?;
            changed.push(file.path.clone());
        }
        self.end(root)?;
        Ok(changed)
    }

    /// Takes back what a session has written: only if every file is still as it was left. Blocking.
    pub(super) fn undo(&self, session: &str, root: &Path, written: &[WrittenFile]) -> Result<(), Complaint> {
        let mut changes = Vec::new();
        for file in written {
            let content = |digest: &Option<Digest>| {
                digest.as_ref().map(|digest| self.read(session, digest)).transpose()
            };
            let (before, after) = (content(&file.after)?, content(&file.before)?);
            if look(root, &file.path)? != before {
                return Err(Complaint::usage(format!(
                    "{} has changed since it was repaired: it is not put back",
                    file.path
                ))
                .hint("nothing was changed; `git diff` shows what is there now"));
            }
            changes.push(Change { path: file.path.clone(), before, after });
        }
        self.write(session, root, &changes)?;
        Ok(())
    }
}

/// What a file below `root` holds; nothing if it is not there. A link on the way, or something that is no file,
/// is refused.
fn look(root: &Path, path: &str) -> Result<Option<Vec<u8>>, Complaint> {
    let mut here = root.to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    for (place, part) in parts.iter().enumerate() {
        here.push(part);
        let last = place + 1 == parts.len();
        let found = match fs::symlink_metadata(&here) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound && last => return Ok(None),
            Err(error) => return Err(unwritable(&here, &error)),
        };
        if (last && !found.is_file()) || (!last && !found.is_dir()) {
            return Err(Complaint::usage(format!("{path} leads through something that is no plain file"))
                .hint("nothing was written"));
        }
    }
    fs::read(&here).map(Some).map_err(|error| unwritable(&here, &error))
}

/// One change, by a file beside its place.
fn make(root: &Path, change: &Change, beside: &str) -> io::Result<()> {
    let target = root.join(&change.path);
    let Some(after) = &change.after else { return fs::remove_file(&target) };
    let temporary = target.with_file_name(beside);
    let mut file = File::create_new(&temporary)?;
    file.write_all(after)?;
    if let Ok(found) = fs::metadata(&target) {
        file.set_permissions(found.permissions())?;
        // Only root may give files away; for everybody else they are their own already.
        let _not_root = std::os::unix::fs::fchown(&file, Some(found.uid()), Some(found.gid()));
    }
    file.sync_all()?;
    fs::rename(&temporary, &target)
}

fn temporary(session: &str, place: usize) -> String {
    format!(".flakefarm-{session}-{place}")
}

/// Writes a file of our own, so that it is there whole or not at all.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

fn unwritable(path: &Path, error: &io::Error) -> Complaint {
    Complaint::usage(format!("failed to use {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;

    /// Mode and content of everything below a directory.
    fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(root).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
            if path.is_dir() {
                found.extend(tree(&path));
            } else {
                found.insert(path.clone(), (mode, fs::read(&path).unwrap()));
            }
        }
        found
    }

    struct Ground {
        _directory: tempfile::TempDir,
        root: PathBuf,
        kept: Kept,
    }

    fn ground() -> Ground {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("tree");
        fs::create_dir_all(root.join("tests")).unwrap();
        fs::write(root.join("tests/a.py"), b"one\r\n").unwrap();
        fs::write(root.join("tests/b.py"), b"two \xe9").unwrap();
        fs::set_permissions(root.join("tests/b.py"), fs::Permissions::from_mode(0o750)).unwrap();
        let kept = Kept::of(&directory.path().join("state"));
        Ground { root, kept, _directory: directory }
    }

    fn change(path: &str, before: Option<&[u8]>, after: Option<&[u8]>) -> Change {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        Change { path: path.to_owned(), before: owned(before), after: owned(after) }
    }

    fn changes() -> [Change; 3] {
        [
            change("tests/a.py", Some(b"one\r\n"), Some(b"ONE\n")),
            change("tests/b.py", Some(b"two \xe9"), Some(b"TWO\n")),
            change("tests/new.py", None, Some(b"new\n")),
        ]
    }

    #[test]
    fn what_is_written_can_be_taken_back_to_the_byte() {
        let ground = ground();
        let before = tree(&ground.root);
        let written = ground.kept.write("s", &ground.root, &changes()).unwrap();
        let after = tree(&ground.root);
        assert_eq!(after.len(), 3);
        assert_eq!(after[&ground.root.join("tests/b.py")], (0o100_750, b"TWO\n".to_vec()));
        // What has changed since stays, and so does the rest.
        fs::write(ground.root.join("tests/new.py"), b"mine\n").unwrap();
        let refused = ground.kept.undo("s", &ground.root, &written).unwrap_err();
        assert!(refused.message.contains("tests/new.py has changed since"), "{refused}");
        fs::write(ground.root.join("tests/new.py"), b"new\n").unwrap();
        assert_eq!(tree(&ground.root), after);
        ground.kept.undo("s", &ground.root, &written).unwrap();
        assert_eq!(tree(&ground.root), before);
    }

    #[test]
    fn whoever_is_killed_half_way_leaves_nothing_that_the_next_does_not_put_back() {
        // At every moment: after the journal, after each file, and with one half written beside its place.
        for files in 0..=3 {
            for half in [false, true] {
                let ground = ground();
                let before = tree(&ground.root);
                ground.kept.begin("s", &ground.root, &changes()).unwrap();
                for (place, change) in changes()[..files].iter().enumerate() {
                    make(&ground.root, change, &temporary("s", place)).unwrap();
                }
                if half && files < 3 {
                    fs::write(ground.root.join("tests").join(temporary("s", files)), b"T").unwrap();
                }
                let put_back = ground.kept.recover(&ground.root).unwrap();
                assert_eq!(put_back.len(), files);
                assert_eq!(tree(&ground.root), before, "after {files} files");
                assert_eq!(ground.kept.recover(&ground.root).unwrap(), [""; 0]);
            }
        }
        // What somebody has changed since is theirs.
        let ground = ground();
        ground.kept.begin("s", &ground.root, &changes()).unwrap();
        fs::write(ground.root.join("tests/a.py"), b"mine").unwrap();
        let refused = ground.kept.recover(&ground.root).unwrap_err();
        assert!(refused.message.contains("tests/a.py has changed since"), "{refused}");
        assert_eq!(fs::read(ground.root.join("tests/a.py")).unwrap(), b"mine");
    }

    #[test]
    fn what_fails_or_is_refused_leaves_the_tree_as_it_was() {
        let ground = ground();
        let before = tree(&ground.root);
        #[track_caller]
        fn check(ground: &Ground, last: Change, expect: &str) {
            let [first, second, _] = changes();
            let refused = ground.kept.write("s", &ground.root, &[first, second, last]).unwrap_err();
            assert!(refused.message.contains(expect), "{refused}");
        }
        check(&ground, change("tests/a.py", Some(b"other"), Some(b"x")), "has changed meanwhile");
        check(&ground, change("nowhere/a.py", None, Some(b"x")), "failed to use");
        fs::create_dir(ground.root.join("gone")).unwrap();
        std::os::unix::fs::symlink("/etc", ground.root.join("link")).unwrap();
        std::os::unix::fs::symlink("a.py", ground.root.join("tests/alias.py")).unwrap();
        check(&ground, change("link/passwd", None, Some(b"x")), "no plain file");
        check(&ground, change("tests/alias.py", Some(b"one\r\n"), Some(b"x")), "no plain file");
        check(&ground, change("gone", None, Some(b"x")), "no plain file");
        fs::remove_dir(ground.root.join("gone")).unwrap();
        fs::remove_file(ground.root.join("link")).unwrap();
        fs::remove_file(ground.root.join("tests/alias.py")).unwrap();
        // One that cannot be written after others were.
        fs::write(ground.root.join("tests").join(temporary("s", 2)), b"").unwrap();
        check(&ground, change("tests/new.py", None, Some(b"x")), "failed to write tests/new.py");
        assert_eq!(tree(&ground.root), before);
        // Two at once: the second one waits for nobody.
        let _alone = ground.kept.lock(&ground.root).unwrap();
        check(&ground, change("tests/new.py", None, Some(b"x")), "another repair");
        assert_eq!(tree(&ground.root), before);
    }
}
