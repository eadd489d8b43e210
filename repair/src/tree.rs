//! The Python sources of one revision, parsed once. Owns the bounds on what is read; knows which files are
//! tests, and what the module of a file is called.

use ruff_python_ast::ModModule;
use ruff_python_parser::Parsed;
use std::collections::BTreeMap;

/// Largest file that is read, in bytes: larger ones are data or generated.
pub const MAX_FILE_BYTES: usize = 4 << 20;
/// Most files of one tree.
pub const MAX_FILES: usize = 20_000;

/// Why a tree was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// Too many files.
    #[error("more than {MAX_FILES} Python files")]
    TooManyFiles,
}

/// A source tree.
#[derive(Debug, Default)]
pub struct SourceTree {
    files: BTreeMap<String, SourceFile>,
    unreadable: BTreeMap<String, String>,
}

/// One parsed file.
#[derive(Debug)]
pub struct SourceFile {
    /// Below the tree's root, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
    /// What it says.
    pub parsed: Parsed<ModModule>,
}

impl SourceFile {
    /// How its lines end; what is added ends alike.
    pub fn line_end(&self) -> &'static str {
        if self.text.contains("\r\n") { "\r\n" } else { "\n" }
    }
}

impl SourceTree {
    /// Reads `files`: paths below the root with `/`, and bytes. What is not Python is left out; what cannot
    /// be read as Python is named by [`SourceTree::unreadable`].
    pub fn new(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<Self, TreeError> {
        let mut tree = Self::default();
        for (path, bytes) in files {
            if !path.ends_with(".py") {
                continue;
            }
            if tree.files.len() + tree.unreadable.len() >= MAX_FILES {
                return Err(TreeError::TooManyFiles);
            }
            match read(&bytes) {
                Ok((text, parsed)) => {
                    tree.files.insert(path.clone(), SourceFile { path, text, parsed });
                }
                Err(reason) => {
                    tree.unreadable.insert(path, reason);
                }
            }
        }
        Ok(tree)
    }

    /// Every readable file, by path.
    pub fn files(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.values()
    }

    /// Files that hold tests, or what only tests use.
    pub fn test_files(&self) -> impl Iterator<Item = &SourceFile> {
        self.files().filter(|file| is_test_path(&file.path))
    }

    /// Files of the code under test.
    pub fn code_files(&self) -> impl Iterator<Item = &SourceFile> {
        self.files().filter(|file| !is_test_path(&file.path))
    }

    /// One file.
    pub fn file(&self, path: &str) -> Option<&SourceFile> {
        self.files.get(path)
    }

    /// Python files that could not be read, and why.
    pub fn unreadable(&self) -> &BTreeMap<String, String> {
        &self.unreadable
    }

    /// What the module of the file at `path` is called when it is imported: dotted from the outermost
    /// directory that is a package, or from below `src` or `lib`.
    pub fn module_name(&self, path: &str) -> String {
        let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
        let stem = file.strip_suffix(".py").unwrap_or(file);
        let mut parts: Vec<&str> = Vec::new();
        if stem != "__init__" {
            parts.push(stem);
        }
        let mut rest = directory;
        while !rest.is_empty() && self.has_init(rest) {
            let (parent, name) = rest.rsplit_once('/').unwrap_or(("", rest));
            parts.push(name);
            rest = parent;
        }
        // Directories without `__init__.py` are packages as well, unless they only hold sources.
        for name in rest.split('/').rev().filter(|name| !name.is_empty()) {
            if matches!(name, "src" | "lib" | "python") {
                break;
            }
            parts.push(name);
        }
        parts.reverse();
        parts.join(".")
    }

    fn has_init(&self, directory: &str) -> bool {
        let init = format!("{directory}/__init__.py");
        self.files.contains_key(&init) || self.unreadable.contains_key(&init)
    }
}

/// Whether the file at `path` is one that tests are written in: what repairs may change.
pub fn is_test_path(path: &str) -> bool {
    let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = file.strip_suffix(".py").unwrap_or(file);
    stem.starts_with("test_")
        || stem.ends_with("_test")
        || matches!(stem, "conftest" | "tests" | "test")
        || directory.split('/').any(|name| matches!(name, "tests" | "test"))
}

fn read(bytes: &[u8]) -> Result<(String, Parsed<ModModule>), String> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(format!("larger than {} MiB", MAX_FILE_BYTES >> 20));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| match declared(bytes) {
        Some(name) => format!("it is written in {name}, and only UTF-8 is read"),
        None => "not UTF-8".to_owned(),
    })?;
    match ruff_python_parser::parse_module(text) {
        Ok(parsed) => Ok((text.to_owned(), parsed)),
        Err(error) => Err(error.to_string()),
    }
}

/// The encoding that one of the first two lines names (PEP 263).
fn declared(bytes: &[u8]) -> Option<String> {
    bytes.split(|byte| *byte == b'\n').take(2).find_map(|line| {
        let line = String::from_utf8_lossy(line);
        let comment = line.trim_start().strip_prefix('#')?.to_owned();
        let (_, rest) = comment.split_once("coding")?;
        let name: String = rest
            .strip_prefix([':', '='])?
            .trim_start()
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c))
            .collect();
        (!name.is_empty()).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> SourceTree {
        SourceTree::new(files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())))
            .unwrap()
    }

    #[test]
    fn modules_are_called_what_they_are_imported_as() {
        let tree = tree(&[
            ("src/shop/__init__.py", ""),
            ("src/shop/prices/__init__.py", ""),
            ("src/shop/prices/tax.py", ""),
            ("plain.py", ""),
            ("space/part/mod.py", ""),
        ]);
        #[track_caller]
        fn check(tree: &SourceTree, path: &str, expect: &str) {
            assert_eq!(tree.module_name(path), expect);
        }
        check(&tree, "src/shop/__init__.py", "shop");
        check(&tree, "src/shop/prices/tax.py", "shop.prices.tax");
        check(&tree, "plain.py", "plain");
        check(&tree, "space/part/mod.py", "space.part.mod");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let tree = SourceTree::new([
            ("bad.py".to_owned(), b"def (:\n".to_vec()),
            ("latin.py".to_owned(), b"# -*- coding: latin-1 -*-\nx = '\xe9'\n".to_vec()),
            ("large.py".to_owned(), vec![b'#'; MAX_FILE_BYTES + 1]),
            ("notes.txt".to_owned(), b"\xff".to_vec()),
        ])
        .unwrap();
        let named: Vec<&str> = tree.unreadable().keys().map(String::as_str).collect();
        assert_eq!(named, ["bad.py", "large.py", "latin.py"]);
        assert_eq!(tree.unreadable()["latin.py"], "it is written in latin-1, and only UTF-8 is read");
    }

    #[test]
    fn a_tree_of_too_many_files_is_refused() {
        let files = (0..=MAX_FILES).map(|n| (format!("m{n}.py"), Vec::new()));
        assert_eq!(SourceTree::new(files).unwrap_err(), TreeError::TooManyFiles);
    }

    #[test]
    fn tests_are_told_from_the_code_they_test() {
        for path in ["tests/helpers.py", "pkg/test/x.py", "test_a.py", "a/b_test.py", "conftest.py"] {
            assert!(is_test_path(path), "{path}");
        }
        for path in ["pkg/testing.py", "pkg/latest.py", "src/contest.py"] {
            assert!(!is_test_path(path), "{path}");
        }
    }
}
