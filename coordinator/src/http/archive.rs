//! Checks an uploaded snapshot while it streams by: a zstd-compressed tar archive of files, directories
//! and links that stay within the tree. Memory is bounded whatever comes: names, links and the
//! decompressor's window are, and content is only counted.

use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Pieces of the body that wait to be checked.
const WAITING: usize = 8;
/// The decompressor's window, as a power of two: 8 MiB. flakefarm's own archives use 2 MiB.
const WINDOW_LOG: u32 = 23;
/// Longest path or target of a link.
const LONGEST_NAME: u64 = 4096;
/// Most links: they are kept until all are known.
const LINKS: usize = 50_000;
/// Links that one link may lead through.
const HOPS: usize = 40;

/// What an archive may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct ArchiveLimits {
    /// Files, directories and links.
    pub(super) entries: u64,
    /// Bytes of all files, unpacked.
    pub(super) bytes: u64,
}

impl ArchiveLimits {
    pub(super) const SNAPSHOT: ArchiveLimits = ArchiveLimits { entries: 500_000, bytes: 2 << 30 };
}

/// Why an archive is no snapshot.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiveError {
    /// It cannot be unpacked.
    #[error("the snapshot is no zstd-compressed tar archive: {0}")]
    Unreadable(io::Error),
    /// Nothing in it.
    #[error("the snapshot holds no file")]
    Empty,
    /// Too many.
    #[error("the snapshot holds more than {0} files and directories")]
    Entries(u64),
    /// Too large.
    #[error("the snapshot unpacks to more than {} MiB", .0 >> 20)]
    Bytes(u64),
    /// Too many.
    #[error("the snapshot holds more than {LINKS} links")]
    Links,
    /// A name that would be a trap when it is unpacked.
    #[error("the snapshot holds `{name}`, {why}")]
    Entry {
        /// Which.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Begins to check an archive; its pieces are to be sent, and the sender dropped at the end. The sender
/// is closed from the other side as soon as the archive is refused.
pub(super) fn check(limits: ArchiveLimits) -> (mpsc::Sender<Bytes>, JoinHandle<Result<u64, ArchiveError>>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let checking = tokio::task::spawn_blocking(move || {
        let body = Pieces { receiver, piece: Bytes::new() };
        inspect(body, limits)
    });
    (sender, checking)
}

/// The pieces of a body, as a reader.
struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let taken = self.piece.split_to(buffer.len().min(self.piece.len()));
        buffer[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

/// Reads an archive to its end; gives the number of files.
fn inspect(body: impl Read, limits: ArchiveLimits) -> Result<u64, ArchiveError> {
    let mut unpacked = zstd::Decoder::new(body).map_err(ArchiveError::Unreadable)?;
    unpacked.window_log_max(WINDOW_LOG).map_err(ArchiveError::Unreadable)?;
    // Headers and padding are no content, but a stream of them has an end, too.
    let overhead = limits.entries.saturating_mul(2048).saturating_add(1 << 20);
    let mut unpacked = unpacked.take(limits.bytes.saturating_add(overhead));
    let mut found = Found::default();
    {
        let mut archive = tar::Archive::new(&mut unpacked);
        // Raw: the reader's own handling of long names would hold them in memory, however long.
        for entry in archive.entries().map_err(ArchiveError::Unreadable)?.raw(true) {
            let entry = entry.map_err(ArchiveError::Unreadable)?;
            found.note(entry, limits)?;
        }
    }
    // Whatever follows the archive's end is part of the blob all the same.
    io::copy(&mut unpacked, &mut io::sink()).map_err(ArchiveError::Unreadable)?;
    if unpacked.limit() == 0 {
        return Err(ArchiveError::Bytes(limits.bytes));
    }
    if found.files == 0 {
        return Err(ArchiveError::Empty);
    }
    found.check_links()?;
    Ok(found.files)
}

#[derive(Default)]
struct Found {
    entries: u64,
    bytes: u64,
    files: u64,
    links: HashMap<PathBuf, PathBuf>,
    /// Said before an entry whose own header has no room for it.
    long_name: Option<Vec<u8>>,
    long_target: Option<Vec<u8>>,
}

impl Found {
    fn note<R: Read>(
        &mut self,
        mut entry: tar::Entry<'_, R>,
        limits: ArchiveLimits,
    ) -> Result<(), ArchiveError> {
        self.entries += 1;
        if self.entries > limits.entries {
            return Err(ArchiveError::Entries(limits.entries));
        }
        let kind = entry.header().entry_type();
        let shown = |name: &[u8]| String::from_utf8_lossy(name).chars().take(200).collect::<String>();
        match kind {
            tar::EntryType::GNULongName => {
                self.long_name = Some(long(&mut entry)?);
                return Ok(());
            }
            tar::EntryType::GNULongLink => {
                self.long_target = Some(long(&mut entry)?);
                return Ok(());
            }
            tar::EntryType::XHeader => {
                let (name, target) = extensions(&long(&mut entry)?)?;
                self.long_name = name.or_else(|| self.long_name.take());
                self.long_target = target.or_else(|| self.long_target.take());
                return Ok(());
            }
            tar::EntryType::XGlobalHeader => return Ok(()),
            _ => {}
        }
        let name = match self.long_name.take() {
            Some(name) => name,
            None => entry.path_bytes().into_owned(),
        };
        let target = match self.long_target.take() {
            Some(target) => Some(target),
            None => entry.link_name_bytes().map(std::borrow::Cow::into_owned),
        };
        let refuse = |why: &'static str| ArchiveError::Entry { name: shown(&name), why };
        let path = within(&name).map_err(refuse)?;
        match kind {
            tar::EntryType::Directory => {}
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                if path.as_os_str().is_empty() {
                    return Err(refuse("which is no name of a file"));
                }
                self.files += 1;
                self.bytes = self.bytes.saturating_add(entry.size());
                if self.bytes > limits.bytes {
                    return Err(ArchiveError::Bytes(limits.bytes));
                }
            }
            tar::EntryType::Symlink => {
                let target = target.ok_or_else(|| refuse("a link to nowhere"))?;
                self.files += 1;
                if self.links.len() >= LINKS {
                    return Err(ArchiveError::Links);
                }
                self.links.insert(path, bytes_path(&target).map_err(refuse)?);
            }
            tar::EntryType::Link => {
                // To another entry, by its name in the archive.
                let target = target.ok_or_else(|| refuse("a link to nowhere"))?;
                within(&target).map_err(|_| refuse("a link out of the tree"))?;
                self.files += 1;
            }
            _ => return Err(refuse("which is neither a file, a directory nor a link")),
        }
        Ok(())
    }

    /// Links may come before what they lead to, so that they are followed when all are known.
    fn check_links(&self) -> Result<(), ArchiveError> {
        for link in self.links.keys() {
            if let Err(why) = self.follow(link) {
                return Err(ArchiveError::Entry { name: link.display().to_string(), why });
            }
        }
        Ok(())
    }

    /// Walks a path as the kernel would, within what the archive says.
    fn follow(&self, link: &Path) -> Result<(), &'static str> {
        let mut hops = 0;
        let mut at: Vec<std::ffi::OsString> = Vec::new();
        let mut ahead: Vec<std::ffi::OsString> = link.iter().rev().map(std::ffi::OsStr::to_owned).collect();
        let mut seen = HashSet::new();
        while let Some(part) = ahead.pop() {
            if part == "." {
                continue;
            }
            if part == ".." {
                if at.pop().is_none() {
                    return Err("a link out of the tree");
                }
                continue;
            }
            at.push(part);
            let here: PathBuf = at.iter().collect();
            let Some(target) = self.links.get(&here) else { continue };
            hops += 1;
            // A circle leads nowhere, which hurts nobody.
            if hops > HOPS || !seen.insert((here, ahead.len())) {
                return Ok(());
            }
            if target.is_absolute() {
                return Err("a link out of the tree");
            }
            at.pop();
            ahead.extend(target.iter().rev().map(std::ffi::OsStr::to_owned));
        }
        Ok(())
    }
}

/// The content of an entry that extends the next one's header.
fn long<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Vec<u8>, ArchiveError> {
    let mut text = Vec::new();
    entry.take(2 * LONGEST_NAME + 1024).read_to_end(&mut text).map_err(ArchiveError::Unreadable)?;
    if text.len() as u64 > 2 * LONGEST_NAME {
        let name = String::from_utf8_lossy(&text).chars().take(200).collect();
        return Err(ArchiveError::Entry { name, why: "a name that is too long" });
    }
    while text.last() == Some(&0) {
        text.pop();
    }
    Ok(text)
}

/// What an extended header may say: a path, and a target.
type Extensions = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Path and target in the records of an extended header: `LENGTH KEY=VALUE\n`.
fn extensions(records: &[u8]) -> Result<Extensions, ArchiveError> {
    let (mut name, mut target) = (None, None);
    for record in records.split(|byte| *byte == b'\n') {
        let Some(space) = record.iter().position(|byte| *byte == b' ') else { continue };
        let text = &record[space + 1..];
        let Some(equals) = text.iter().position(|byte| *byte == b'=') else { continue };
        let value = text[equals + 1..].to_vec();
        match &text[..equals] {
            b"path" => name = Some(value),
            b"linkpath" => target = Some(value),
            // Readers would disagree on where the next entry begins.
            b"size" | b"GNU.sparse.major" | b"GNU.sparse.name" | b"GNU.sparse.realsize" => {
                let name = String::from_utf8_lossy(text).chars().take(200).collect();
                return Err(ArchiveError::Entry { name, why: "an extension that is not read here" });
            }
            _ => {}
        }
    }
    Ok((name, target))
}

fn bytes_path(name: &[u8]) -> Result<PathBuf, &'static str> {
    use std::os::unix::ffi::OsStrExt;
    if name.len() as u64 > LONGEST_NAME {
        return Err("a name that is too long");
    }
    if name.contains(&0) {
        return Err("a name with a NUL character");
    }
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(name)))
}

/// A name as a path below the root.
fn within(name: &[u8]) -> Result<PathBuf, &'static str> {
    let path = bytes_path(name)?;
    let mut below = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => below.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err("a path out of the tree"),
            Component::RootDir | Component::Prefix(_) => return Err("a path from the root"),
        }
    }
    Ok(below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::EntryType;

    const SMALL: ArchiveLimits = ArchiveLimits { entries: 100, bytes: 1 << 20 };

    /// An archive of entries as they are given, however wrong: kind, name, target, content.
    fn archive(entries: &[(EntryType, &str, &str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (kind, name, target, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            let gnu = header.as_gnu_mut().unwrap();
            gnu.name[..name.len()].copy_from_slice(name.as_bytes());
            gnu.linkname[..target.len()].copy_from_slice(target.as_bytes());
            header.set_cksum();
            tar.append(&header, *content).unwrap();
        }
        zstd::encode_all(tar.into_inner().unwrap().as_slice(), 3).unwrap()
    }

    fn said(packed: &[u8], limits: ArchiveLimits) -> String {
        match inspect(packed, limits) {
            Ok(files) => format!("{files} files"),
            Err(error) => error.to_string(),
        }
    }

    const FILE: EntryType = EntryType::Regular;
    const LINK: EntryType = EntryType::Symlink;

    #[test]
    fn a_tree_of_files_directories_and_links_that_stay_within_is_a_snapshot() {
        let long = "d".repeat(90);
        let entries = [
            (EntryType::Directory, "sub", "", &b""[..]),
            (FILE, "sub/a.py", "", b"x"),
            (LINK, "sub/b.py", "a.py", b""),
            (LINK, "c", "sub/../sub/a.py", b""),
            (LINK, "d", "./sub", b""),
            (LINK, "loop", "loop", b""),
            (EntryType::Link, "hard", "sub/a.py", b""),
            (FILE, &long, "", b""),
        ];
        assert_eq!(said(&archive(&entries), SMALL), "7 files");
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        let name = format!("{}/{}.py", "d".repeat(120), "f".repeat(120));
        tar.append_data(&mut header, &name, &b"x"[..]).unwrap();
        let packed = zstd::encode_all(tar.into_inner().unwrap().as_slice(), 3).unwrap();
        assert_eq!(said(&packed, SMALL), "1 files");
    }

    #[test]
    fn traversal_and_links_out_of_the_tree_are_refused() {
        let refused = [
            vec![(FILE, "../evil", "", &b"x"[..])],
            vec![(FILE, "a/../../evil", "", b"x")],
            vec![(FILE, "/etc/passwd", "", b"x")],
            vec![(FILE, ".", "", b"x")],
            vec![(LINK, "a", "/etc/passwd", b"")],
            vec![(LINK, "a", "..", b"")],
            vec![(LINK, "sub/a", "../../evil", b"")],
            // Each by itself stays within; together they do not.
            vec![(LINK, "p/q/top", "../..", b""), (LINK, "p/q/out", "top/..", b"")],
            vec![(LINK, "p/q/out", "top/..", b""), (LINK, "p/q/top", "../..", b"")],
            vec![(EntryType::Link, "a", "../evil", b"")],
            vec![(EntryType::Link, "a", "/etc/passwd", b"")],
            vec![(EntryType::Char, "a", "", b"")],
            vec![(EntryType::Fifo, "a", "", b"")],
            vec![(EntryType::Block, "a", "", b"")],
            vec![(EntryType::XHeader, "x", "", b"16 path=../evil\n"), (FILE, "a", "", b"x")],
            vec![(EntryType::XHeader, "x", "", b"13 size=1000\n"), (FILE, "a", "", b"x")],
            vec![(EntryType::GNULongName, "././@LongLink", "", b"../evil\0"), (FILE, "a", "", b"x")],
        ];
        for entries in refused {
            let packed = archive(&entries);
            let refused = inspect(packed.as_slice(), SMALL);
            assert!(matches!(refused, Err(ArchiveError::Entry { .. })), "{entries:?}: {refused:?}");
        }
    }

    #[test]
    fn nothing_and_nonsense_are_refused() {
        assert_eq!(said(&archive(&[]), SMALL), "the snapshot holds no file");
        assert_eq!(
            said(&archive(&[(EntryType::Directory, "d", "", b"")]), SMALL),
            "the snapshot holds no file"
        );
        for nonsense in [&b""[..], b"not an archive", &[0x28, 0xb5, 0x2f, 0xfd, 0, 0]] {
            let said = said(nonsense, SMALL);
            assert!(said.contains("no zstd-compressed tar") || said.contains("no file"), "{said}");
        }
        let whole = archive(&[(FILE, "a", "", &[7; 5000])]);
        let cut = said(&whole[..whole.len() - 10], SMALL);
        assert!(cut.contains("no zstd-compressed tar"), "{cut}");
    }

    #[test]
    fn bombs_are_refused_before_they_go_off() {
        let many: Vec<_> = (0..101).map(|_| (FILE, "a", "", &b""[..])).collect();
        assert_eq!(said(&archive(&many), SMALL), "the snapshot holds more than 100 files and directories");
        let large = vec![7; (1 << 20) + 1];
        assert_eq!(
            said(&archive(&[(FILE, "a", "", &large)]), SMALL),
            "the snapshot unpacks to more than 1 MiB"
        );
        // A very long name, and a long nothing after the archive's end.
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 26);
        header.set_cksum();
        let bomb = io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(b'a').take(1 << 26));
        let bomb = zstd::encode_all(bomb, 1).unwrap();
        assert!(said(&bomb, SMALL).contains("a name that is too long"), "{}", said(&bomb, SMALL));
        let honest = zstd::decode_all(archive(&[(FILE, "a", "", b"x")]).as_slice()).unwrap();
        let bomb = zstd::encode_all(io::Cursor::new(honest).chain(io::repeat(0).take(1 << 26)), 1).unwrap();
        assert_eq!(said(&bomb, SMALL), "the snapshot unpacks to more than 1 MiB");
    }
}
