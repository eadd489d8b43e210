//! Snapshots: a source tree as one content-addressed archive. Equal content gives equal bytes, so
//! times, owners and the order of directory entries are left out.
//!
//! Takes what git would: ignored files stay out, hidden files and files tracked in spite of being
//! ignored come along. It never writes into the tree.

use ignore::WalkBuilder;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

/// Bytes of all files together that a snapshot may hold.
pub const SIZE_LIMIT: u64 = 512 << 20;

/// 2020-01-01: recent enough for every archive format, and the same for every file.
const FIXED_MTIME: u64 = 1_577_836_800;
const OWNER: u64 = 1000;
const LARGEST_SHOWN: usize = 5;

/// A source tree, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// A tar archive, zstd-compressed.
    pub bytes: Vec<u8>,
    /// Files and symbolic links in it.
    pub files: usize,
    /// Their size, unpacked.
    pub total_bytes: u64,
    /// The git revision; ends in `-dirty` if the tree differs from it.
    pub revision: Option<String>,
    /// What was left out, and why.
    pub warnings: Vec<String>,
}

/// A tree could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file could not be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The tree could not be walked.
    #[error("failed to list the files below `{}`", root.display())]
    Walk {
        /// Where.
        root: PathBuf,
        /// Why.
        #[source]
        source: ignore::Error,
    },
    /// It is not a directory.
    #[error("`{}` is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// It is too large.
    #[error("`{}` holds more than {} MiB; its largest files: {largest}", root.display(), limit_bytes >> 20)]
    TooLarge {
        /// Where.
        root: PathBuf,
        /// The limit.
        limit_bytes: u64,
        /// The largest files with their sizes.
        largest: String,
    },
    /// The archive could not be written.
    #[error("failed to pack `{}`", path.display())]
    Pack {
        /// The file that was being added, or the root.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl SnapshotError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            SnapshotError::TooLarge { .. } => Some("name files that tests do not need in .gitignore"),
            SnapshotError::Read { .. }
            | SnapshotError::Walk { .. }
            | SnapshotError::NotADirectory(_)
            | SnapshotError::Pack { .. } => None,
        }
    }
}

enum Entry {
    Directory,
    File { executable: bool, size: u64 },
    Link { target: PathBuf },
}

/// Packs the tree at `root`. Reads files and may run `git`, so call it where blocking is fine.
pub fn archive(root: &Path) -> Result<Archive, SnapshotError> {
    archive_within(root, SIZE_LIMIT)
}

/// The same with every file there is, whatever ignore files say: for trees that hold nothing but
/// what is tracked.
pub(crate) fn archive_everything(root: &Path) -> Result<Archive, SnapshotError> {
    pack(root, walked(WalkBuilder::new(root).standard_filters(false), root)?, SIZE_LIMIT)
}

fn archive_within(root: &Path, limit_bytes: u64) -> Result<Archive, SnapshotError> {
    if !root.is_dir() {
        return Err(SnapshotError::NotADirectory(root.to_owned()));
    }
    pack(root, listed(root)?, limit_bytes)
}

fn pack(root: &Path, paths: BTreeSet<PathBuf>, limit_bytes: u64) -> Result<Archive, SnapshotError> {
    let mut warnings = Vec::new();
    let mut entries = BTreeMap::new();
    for path in paths {
        if let Some(entry) = classify(root, &path, &mut warnings)? {
            for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
                entries.insert(parent.to_owned(), Entry::Directory);
            }
            entries.insert(path, entry);
        }
    }
    let too_large =
        || SnapshotError::TooLarge { root: root.to_owned(), limit_bytes, largest: largest(&entries) };
    if entries.values().map(Entry::size).sum::<u64>() > limit_bytes {
        return Err(too_large());
    }

    let pack_failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SnapshotError::Pack { path, source }
    };
    let encoder = zstd::Encoder::new(Vec::new(), 3).map_err(pack_failed(root))?;
    let mut tar = tar::Builder::new(encoder);
    let (mut files, mut total_bytes) = (0, 0);
    for (path, entry) in &entries {
        let full = root.join(path);
        match entry {
            Entry::Directory => {
                tar.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), path, io::empty())
                    .map_err(pack_failed(path))?;
                continue;
            }
            Entry::File { executable, .. } => {
                let content =
                    std::fs::read(&full).map_err(|source| SnapshotError::Read { path: full, source })?;
                total_bytes += content.len() as u64;
                if total_bytes > limit_bytes {
                    return Err(too_large());
                }
                let mode = if *executable { 0o755 } else { 0o644 };
                let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
                tar.append_data(&mut header, path, content.as_slice()).map_err(pack_failed(path))?;
            }
            Entry::Link { target } => {
                tar.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), path, target)
                    .map_err(pack_failed(path))?;
            }
        }
        files += 1;
    }
    let bytes = tar.into_inner().and_then(zstd::Encoder::finish).map_err(pack_failed(root))?;
    Ok(Archive { bytes, files, total_bytes, revision: revision(root), warnings })
}

impl Entry {
    fn size(&self) -> u64 {
        match self {
            Entry::File { size, .. } => *size,
            Entry::Directory | Entry::Link { .. } => 0,
        }
    }
}

/// The regular files of an archive that this program packed, by path. Blocking.
pub fn files(archive: &Archive) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(zstd::Decoder::new(archive.bytes.as_slice())?).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            found.insert(entry.path()?.into_owned(), content);
        }
    }
    Ok(found)
}

/// Puts an archive's files into a directory. Blocking.
pub fn unpack(archive: &Archive, into: &Path) -> io::Result<()> {
    let mut tar = tar::Archive::new(zstd::Decoder::new(archive.bytes.as_slice())?);
    tar.set_preserve_permissions(true);
    tar.unpack(into)
}

/// Whether what an archive holds is at most so many bytes, unpacked. Blocking.
pub fn is_within(bytes: &[u8], most: u64) -> io::Result<bool> {
    let unpacked = io::copy(&mut zstd::Decoder::new(bytes)?.take(most.saturating_add(1)), &mut io::sink())?;
    Ok(unpacked <= most)
}

/// The links of an archive.
pub fn links(archive: &Archive) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in tar::Archive::new(zstd::Decoder::new(archive.bytes.as_slice())?).entries()? {
        let entry = entry?;
        if !entry.header().entry_type().is_file() && !entry.header().entry_type().is_dir() {
            found.insert(entry.path()?.into_owned());
        }
    }
    Ok(found)
}

/// A header that says nothing about who packed it, where or when.
pub fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(FIXED_MTIME);
    header.set_uid(OWNER);
    header.set_gid(OWNER);
    header
}

/// Everything but directories, relative to `root`.
fn listed(root: &Path) -> Result<BTreeSet<PathBuf>, SnapshotError> {
    // Without a repository, ignore files above the root are none of this project's business.
    let in_repository =
        root.canonicalize().is_ok_and(|full| full.ancestors().any(|dir| dir.join(".git").exists()));
    let mut walk = WalkBuilder::new(root);
    walk.hidden(false)
        .ignore(false)
        .git_ignore(true)
        .git_exclude(true)
        .git_global(false)
        .require_git(false)
        .parents(in_repository);
    let mut paths = walked(&mut walk, root)?;
    let tracked =
        git(root, &["ls-files", "-z", "--cached", "--ignored", "--exclude-standard"]).unwrap_or_default();
    for name in tracked.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let path = PathBuf::from(OsStr::from_bytes(name));
        let is_there = root.join(&path).symlink_metadata().is_ok_and(|found| !found.is_dir());
        if is_there && !path.components().any(|part| is_never_taken(part.as_os_str())) {
            paths.insert(path);
        }
    }
    Ok(paths)
}

fn walked(walk: &mut WalkBuilder, root: &Path) -> Result<BTreeSet<PathBuf>, SnapshotError> {
    let mut paths = BTreeSet::new();
    for entry in walk.filter_entry(|entry| !is_never_taken(entry.file_name())).build() {
        let entry = entry.map_err(|source| SnapshotError::Walk { root: root.to_owned(), source })?;
        let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
        if !is_dir && let Ok(path) = entry.path().strip_prefix(root) {
            paths.insert(path.to_owned());
        }
    }
    Ok(paths)
}

/// Bytecode goes by the times of its sources, which a snapshot does not keep.
fn is_never_taken(name: &OsStr) -> bool {
    name == ".git" || name == "__pycache__"
}

fn classify(root: &Path, path: &Path, warnings: &mut Vec<String>) -> Result<Option<Entry>, SnapshotError> {
    let full = root.join(path);
    let read_failed = |source| SnapshotError::Read { path: full.clone(), source };
    let found = full.symlink_metadata().map_err(read_failed)?;
    let kind = found.file_type();
    if kind.is_symlink() {
        let target = full.read_link().map_err(read_failed)?;
        if stays_inside(path, &target) {
            return Ok(Some(Entry::Link { target }));
        }
        warnings.push(format!(
            "left out `{}`: it links outside the project, to `{}`",
            path.display(),
            target.display()
        ));
    } else if kind.is_file() {
        let executable = found.permissions().mode() & 0o111 != 0;
        return Ok(Some(Entry::File { executable, size: found.len() }));
    } else {
        let what = if kind.is_socket() {
            "a socket"
        } else if kind.is_fifo() {
            "a named pipe"
        } else {
            "a device"
        };
        warnings.push(format!("left out `{}`: it is {what}", path.display()));
    }
    Ok(None)
}

/// Whether a link at `path` (relative to the root) to `target` ends within the root, by its text.
fn stays_inside(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count() - 1;
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

fn largest(entries: &BTreeMap<PathBuf, Entry>) -> String {
    let mut sizes: Vec<(u64, &PathBuf)> = entries.iter().map(|(path, entry)| (entry.size(), path)).collect();
    sizes.sort_by(|a, b| b.cmp(a));
    let shown = sizes.iter().take(LARGEST_SHOWN);
    shown
        .map(|(size, path)| format!("{} ({} KiB)", path.display(), size >> 10))
        .collect::<Vec<_>>()
        .join(", ")
}

fn revision(root: &Path) -> Option<String> {
    let head = git(root, &["rev-parse", "HEAD"])?;
    let head = String::from_utf8(head).ok()?.trim().to_owned();
    let changes = git(root, &["status", "--porcelain", "--", "."])?;
    Some(if changes.is_empty() { head } else { format!("{head}-dirty") })
}

/// What `git` prints, or nothing if it is not installed or refuses.
fn git(root: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    let mut command = Command::new("git");
    command.arg("--no-optional-locks").arg("-C").arg(root).args(arguments);
    let done = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    done.status.success().then_some(done.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn write(root: &Path, path: impl AsRef<Path>, content: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn unpacked(archive: &Archive) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let tar = zstd::decode_all(archive.bytes.as_slice()).unwrap();
        let mut found = BTreeMap::new();
        for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = entry.link_name_bytes().unwrap_or_default().into_owned();
            io::Read::read_to_end(&mut entry, &mut content).unwrap();
            found.insert(entry.path().unwrap().into_owned(), (entry.header().mode().unwrap(), content));
        }
        found
    }

    fn names(archive: &Archive) -> Vec<String> {
        unpacked(archive).into_keys().map(|path| path.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn ignored_files_stay_out_and_hidden_files_come_along_without_a_repository() {
        let dir = tempfile::tempdir().unwrap();
        for path in
            [".gitignore", ".coveragerc", "a.py", "b.log", "sub/c.log", "__pycache__/a.pyc", "sub/keep.py"]
        {
            write(dir.path(), path, if path == ".gitignore" { "*.log\n" } else { "x" });
        }
        write(dir.path(), ".git/HEAD", "ref: x");
        let archive = archive(dir.path()).unwrap();
        assert_eq!(names(&archive), [".coveragerc", ".gitignore", "a.py", "sub", "sub/keep.py"]);
        assert_eq!((archive.files, archive.total_bytes), (4, 9));
    }

    #[test]
    fn equal_content_gives_equal_bytes_whatever_the_times() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(one.path(), "a/x.py", "1");
        write(one.path(), "b.py", "2");
        write(two.path(), "b.py", "2");
        write(two.path(), "a/x.py", "1");
        std::fs::create_dir(two.path().join("empty")).unwrap();
        let file = std::fs::File::options().write(true).open(two.path().join("b.py")).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(archive(one.path()).unwrap(), archive(two.path()).unwrap());
        write(two.path(), "b.py", "3");
        assert_ne!(archive(one.path()).unwrap().bytes, archive(two.path()).unwrap().bytes);
    }

    #[test]
    fn executable_bits_links_and_odd_names_survive() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "run.sh", "x");
        std::fs::set_permissions(dir.path().join("run.sh"), std::fs::Permissions::from_mode(0o700)).unwrap();
        let odd = PathBuf::from(OsStr::from_bytes(b"n\xff.txt"));
        write(dir.path(), &odd, "odd");
        let long = format!("{}/{}.py", "d".repeat(120), "f".repeat(120));
        write(dir.path(), &long, "long");
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        symlink("../run.sh", dir.path().join("sub/link")).unwrap();
        let archive = archive(dir.path()).unwrap();
        let found = unpacked(&archive);
        assert_eq!(found[Path::new("run.sh")], (0o755, b"x".to_vec()));
        assert_eq!(found[&odd], (0o644, b"odd".to_vec()));
        assert_eq!(found[Path::new(&long)].1, b"long");
        assert_eq!(found[Path::new("sub/link")].1, b"../run.sh");
        assert_eq!(archive.warnings, [""; 0]);
    }

    #[test]
    fn what_cannot_travel_is_left_out_with_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a.py", "x");
        symlink("/etc/passwd", dir.path().join("absolute")).unwrap();
        symlink("sub/../../outside", dir.path().join("climbing")).unwrap();
        let _listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let archive = archive(dir.path()).unwrap();
        assert_eq!(names(&archive), ["a.py"]);
        assert_eq!(archive.warnings.len(), 3, "{:?}", archive.warnings);
    }

    #[test]
    fn a_tree_beyond_the_limit_is_refused_by_naming_its_largest_files() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "small.py", "x");
        write(dir.path(), "big.bin", &"x".repeat(5000));
        let error = archive_within(dir.path(), 4096).unwrap_err();
        assert!(error.to_string().contains("big.bin (4 KiB), small.py"), "{error}");
        assert!(error.hint().unwrap().contains(".gitignore"));
    }

    #[test]
    fn git_tells_the_revision_and_files_tracked_in_spite_of_being_ignored() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), ".gitignore", "*.dat\n");
        write(dir.path(), "forced.dat", "x");
        write(dir.path(), "left.dat", "x");
        let done = |arguments: &[&str]| {
            let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
            git(dir.path(), &[&identity, arguments].concat())
        };
        if done(&["init", "-q"]).is_none() {
            // Without git there is no revision to tell.
            assert_eq!(archive(dir.path()).unwrap().revision, None);
            return;
        }
        done(&["add", "-f", ".gitignore", "forced.dat"]).unwrap();
        done(&["commit", "-q", "-m", "one"]).unwrap();
        let clean = archive(dir.path()).unwrap();
        assert_eq!(names(&clean), [".gitignore", "forced.dat"]);
        let revision = clean.revision.unwrap();
        assert_eq!(revision.len(), 40);
        write(dir.path(), "new.py", "x");
        assert_eq!(archive(dir.path()).unwrap().revision, Some(format!("{revision}-dirty")));
    }
}
