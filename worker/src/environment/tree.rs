//! The unpacked snapshot, as environments see it: what to upload, what to delete after set-up, and
//! which files set-up depends on. Pure; archives come and go as bytes.

use flakefarm_project::snapshot::header;
use flakefarm_shared::Digest;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;

/// A source tree as an uncompressed tar archive, and what is in it.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) tar: Vec<u8>,
    /// Files and links, each name ended by NUL.
    pub(super) files: Vec<u8>,
    /// Directories, the deepest first, each name ended by NUL.
    pub(super) directories: Vec<u8>,
    /// Where the archive has the content of each regular file whose name is text.
    contents: BTreeMap<String, Range<usize>>,
}

impl Tree {
    /// Unpacks a snapshot of at most `limit` bytes.
    pub(super) fn unpack(snapshot: &[u8], limit: u64) -> io::Result<Self> {
        let mut tar = Vec::new();
        zstd::Decoder::new(snapshot)?.take(limit + 1).read_to_end(&mut tar)?;
        if tar.len() as u64 > limit {
            return Err(io::Error::other(format!("it unpacks to more than {} MiB", limit >> 20)));
        }
        let (mut files, mut directories) = (Vec::new(), Vec::new());
        let mut contents = BTreeMap::new();
        for entry in tar::Archive::new(tar.as_slice()).entries()? {
            let entry = entry?;
            let path = entry.path()?.as_os_str().as_bytes().to_vec();
            let kind = entry.header().entry_type();
            if kind.is_dir() {
                directories.push(path);
                continue;
            }
            if let (true, Ok(name)) = (kind.is_file(), std::str::from_utf8(&path)) {
                let content = content_of(entry.raw_file_position(), entry.size(), tar.len());
                contents.insert(name.to_owned(), content.ok_or_else(|| io::Error::other("it is cut off"))?);
            }
            files.push(path);
        }
        // A parent sorts before what is in it.
        directories.sort_by(|a, b| b.cmp(a));
        Ok(Self { files: nul_ended(&files), directories: nul_ended(&directories), contents, tar })
    }

    /// The content of the regular file at a path like `requirements/dev.txt`.
    pub(super) fn file(&self, path: &str) -> Option<&[u8]> {
        self.contents.get(path).map(|place| &self.tar[place.clone()])
    }

    /// Whether an interpreter that runs at the root would import `name` from the tree.
    pub(super) fn has_module(&self, name: &str) -> bool {
        let (module, package) = (format!("{name}.py"), format!("{name}/"));
        self.contents.keys().any(|path| *path == module || path.starts_with(&package))
    }

    /// An archive of these files alone, as far as they are there.
    pub(super) fn only<'a>(&self, paths: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
        tar_of(paths.into_iter().filter_map(|path| Some((path, self.file(path)?))))
    }

    /// The digest of names and contents of the files that `globs` name.
    pub(super) fn inputs(&self, globs: &GlobSet) -> io::Result<Digest> {
        let mut described = Vec::new();
        for entry in tar::Archive::new(self.tar.as_slice()).entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            if entry.header().entry_type().is_dir() || !globs.is_match(&path) {
                continue;
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            let link = entry.link_name_bytes().unwrap_or_default();
            for part in [path.as_os_str().as_bytes(), &link, Digest::of(&content).as_str().as_bytes()] {
                described.extend((part.len() as u64).to_be_bytes());
                described.extend(part);
            }
        }
        Ok(Digest::of(&described))
    }
}

fn content_of(start: u64, length: u64, limit: usize) -> Option<Range<usize>> {
    let start = usize::try_from(start).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    (end <= limit).then_some(start..end)
}

fn nul_ended(names: &[Vec<u8>]) -> Vec<u8> {
    names.iter().flat_map(|name| name.iter().copied().chain([0])).collect()
}

/// Globs as a set; `*` does not cross a `/`, `**` does. The error names the glob.
pub(super) fn globs(patterns: &[String]) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(GlobBuilder::new(pattern.trim_start_matches("./")).literal_separator(true).build()?);
    }
    set.build()
}

/// A tar archive of some files in memory, owned by root, readable by everyone.
pub(super) fn tar_of<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = header(tar::EntryType::Regular, 0o644, content.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        builder.append_data(&mut header, path, content).expect("writing to memory, relative names");
    }
    builder.into_inner().expect("writing to memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use flakefarm_project::snapshot;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        Tree::unpack(&snapshot::archive(dir.path()).unwrap().bytes, 1 << 20).unwrap()
    }

    #[test]
    fn deeper_directories_come_first() {
        let tree = tree(&[("a/b/c.py", ""), ("a/d.py", ""), ("e.py", "")]);
        assert_eq!(tree.directories, b"a/b\0a\0");
        assert_eq!(tree.files, b"a/b/c.py\0a/d.py\0e.py\0");
    }

    #[test]
    fn files_are_read_where_they_lie() {
        let long = format!("{}/{}.txt", "d".repeat(120), "f".repeat(120));
        let tree = tree(&[("a/b.py", "one"), ("c.py", ""), (&long, "far")]);
        assert_eq!(tree.file("a/b.py"), Some(b"one".as_slice()));
        assert_eq!(tree.file("c.py"), Some(b"".as_slice()));
        assert_eq!(tree.file(&long), Some(b"far".as_slice()));
        assert_eq!((tree.file("a"), tree.file("none")), (None, None));
        assert!(tree.has_module("a") && tree.has_module("c") && !tree.has_module("b"));
    }

    #[test]
    fn inputs_depend_on_matching_files_only() {
        let globs = globs(&["requirements*.txt".to_owned(), "**/setup.py".to_owned()]).unwrap();
        let inputs = |files: &[(&str, &str)]| tree(files).inputs(&globs).unwrap();
        let base = inputs(&[("requirements.txt", "a"), ("x.py", "1")]);
        assert_eq!(base, inputs(&[("requirements.txt", "a"), ("x.py", "2")]));
        assert_ne!(base, inputs(&[("requirements.txt", "b"), ("x.py", "1")]));
        assert_ne!(base, inputs(&[("requirements.txt", "a"), ("sub/setup.py", "")]));
        assert_eq!(base, inputs(&[("requirements.txt", "a"), ("sub/requirements.txt", "z")]));
    }

    #[test]
    fn a_snapshot_that_unpacks_beyond_the_limit_is_refused() {
        let packed = zstd::encode_all([0_u8; 4096].as_slice(), 3).unwrap();
        assert!(Tree::unpack(&packed, 1024).is_err());
    }
}
