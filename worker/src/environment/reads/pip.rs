//! What `pip install` reads of a tree, by its arguments and by the requirement files that they name.

use super::{Install, StepReads};
use crate::environment::tree::Tree;
use flakefarm_project::paths;
use std::collections::BTreeSet;

/// Options that take no value and read nothing.
const FLAGS: [&str; 25] = [
    "--no-index",
    "-U",
    "--upgrade",
    "-I",
    "--ignore-installed",
    "-q",
    "-qq",
    "--quiet",
    "-v",
    "--verbose",
    "--no-cache-dir",
    "--no-deps",
    "--no-build-isolation",
    "--no-input",
    "--no-warn-script-location",
    "--no-compile",
    "--pre",
    "--prefer-binary",
    "--break-system-packages",
    "--disable-pip-version-check",
    "--force-reinstall",
    "--require-hashes",
    "--use-pep517",
    "--user",
    "--system",
];
/// Options whose value is no path of the tree.
const VALUES: [&str; 14] = [
    "-i",
    "--index-url",
    "--extra-index-url",
    "--trusted-host",
    "--timeout",
    "--default-timeout",
    "--retries",
    "--progress-bar",
    "--upgrade-strategy",
    "--no-binary",
    "--only-binary",
    "--proxy",
    "--root-user-action",
    "--cache-dir",
];
const ARCHIVES: [&str; 8] = [".whl", ".zip", ".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz", ".egg"];
/// Requirement files may include others, this deep.
const DEPTH: usize = 8;
/// pip's variables that name files or packages.
const TELLING: [&str; 9] = [
    "PIP_REQUIREMENT",
    "PIP_EDITABLE",
    "PIP_CONSTRAINT",
    "PIP_BUILD_CONSTRAINT",
    "PIP_CONFIG_FILE",
    "PIP_FIND_LINKS",
    "PIP_TARGET",
    "PYTHONPATH",
    "UV_CONSTRAINT",
];

/// Whether a variable of set-up makes any step read the tree.
pub(super) fn variable_reads_tree(name: &str, value: &str) -> bool {
    let elsewhere = |part: &str| {
        part.is_empty() || part.contains("://") || (part.starts_with('/') && !part.starts_with("/work"))
    };
    TELLING.contains(&name) && !value.contains("file:") && !value.split_whitespace().all(elsewhere)
        || TELLING.contains(&name) && value.contains("file:")
}

/// What pip's arguments read, from the subcommand on.
pub(super) fn reads(words: &[&str], tree: &Tree) -> StepReads {
    match words {
        ["install", rest @ ..] => {
            let mut found = Found::default();
            match arguments(rest, tree, &mut found) {
                Some(()) => found.reads(),
                None => StepReads::Anything,
            }
        }
        ["--version"] | ["uninstall" | "list" | "freeze" | "check" | "cache" | "show", ..]
            if !words.iter().any(|word| word.starts_with("-r") || word.contains('/')) =>
        {
            StepReads::Files(BTreeSet::new())
        }
        _ => StepReads::Anything,
    }
}

#[derive(Default)]
struct Found {
    files: BTreeSet<String>,
    projects: usize,
    in_place: usize,
    elsewhere: bool,
    extras: BTreeSet<String>,
    more: bool,
}

impl Found {
    fn reads(self) -> StepReads {
        if self.projects == 0 {
            return StepReads::Files(self.files);
        }
        StepReads::Project(Install {
            files: self.files,
            only_in_place: self.in_place == self.projects && !self.elsewhere,
            extras: self.extras,
            more: self.more,
        })
    }

    /// A project of the tree, at `path` with extras.
    fn project(&mut self, path: &str, in_place: bool) {
        let (path, extras) = path.split_once('[').unwrap_or((path, ""));
        self.projects += 1;
        self.in_place += usize::from(in_place);
        self.elsewhere |= !matches!(path, "." | "./" | "/work" | "/work/");
        let extras = extras.split(']').next().unwrap_or_default().split(',');
        self.extras.extend(extras.map(|extra| extra.trim().to_owned()).filter(|extra| !extra.is_empty()));
    }
}

/// None where something is not understood.
fn arguments(words: &[&str], tree: &Tree, found: &mut Found) -> Option<()> {
    let mut rest = words.iter().copied();
    while let Some(word) = rest.next() {
        if FLAGS.contains(&word) {
            continue;
        }
        if !word.starts_with('-') {
            requirement(word, found)?;
            continue;
        }
        let (option, value) = match word.split_once('=') {
            Some((option, value)) if word.starts_with("--") => (option, value),
            _ if !word.starts_with("--") && word.len() > 2 => word.split_at_checked(2)?,
            _ => (word, rest.next()?),
        };
        match option {
            "-r" | "--requirement" => file(value, tree, found, true, 0)?,
            "-c" | "--constraint" => file(value, tree, found, false, 0)?,
            "-e" | "--editable" => editable(value, found)?,
            "--group" if !value.contains(':') => {
                found.more = true;
                found.files.insert("pyproject.toml".to_owned());
            }
            option if VALUES.contains(&option) => {}
            _ => return None,
        }
    }
    Some(())
}

fn editable(target: &str, found: &mut Found) -> Option<()> {
    if target.contains("file:") {
        return None;
    }
    match target.contains("://") {
        true => found.more = true,
        false => found.project(target, true),
    }
    Some(())
}

/// One requirement: from an index, of a repository, or a path.
fn requirement(text: &str, found: &mut Found) -> Option<()> {
    if text.contains("file:") {
        return None;
    }
    let name = text.split([';', ' ']).next().unwrap_or(text);
    let bare = name.split('[').next().unwrap_or(name);
    if name.contains("://") {
        found.more = true;
    } else if bare.starts_with('.') || bare.contains('/') || ARCHIVES.iter().any(|end| bare.ends_with(end)) {
        found.project(name, false);
    } else {
        found.more = true;
    }
    Some(())
}

/// A file of requirements or constraints in the tree, and those it includes.
fn file(path: &str, tree: &Tree, found: &mut Found, more: bool, depth: usize) -> Option<()> {
    let path = normal(path)?;
    let text = std::str::from_utf8(tree.file(&path)?).ok()?;
    if depth > DEPTH {
        return None;
    }
    found.more |= more;
    if !found.files.insert(path.clone()) {
        return Some(());
    }
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let beside =
        |name: &str| if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
    for line in text.trim_start_matches('\u{feff}').replace("\\\n", " ").replace("\\\r\n", " ").lines() {
        let line = match line.find(" #") {
            Some(comment) => line[..comment].trim(),
            None => line.trim(),
        };
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((option, value)) = option_of(line) else {
            requirement(line, found)?;
            continue;
        };
        match option {
            "-r" | "--requirement" => file(&beside(value), tree, found, true, depth + 1)?,
            "-c" | "--constraint" => file(&beside(value), tree, found, false, depth + 1)?,
            "-e" | "--editable" => editable(value.split(" ;").next().unwrap_or(value), found)?,
            "-f" | "--find-links" if value.contains("://") && !value.contains("file:") => {}
            "--no-index" | "--pre" | "--prefer-binary" | "--require-hashes" => {}
            option if VALUES.contains(&option) => {}
            _ => return None,
        }
    }
    Some(())
}

/// `-r other.txt`, `--requirement=other.txt`, `-rother.txt`; none for a line that is no option.
fn option_of(line: &str) -> Option<(&str, &str)> {
    if !line.starts_with('-') {
        return None;
    }
    let (option, value) = match line.split_once([' ', '\t', '=']) {
        Some((option, value)) => (option, value.trim()),
        None => (line, ""),
    };
    if !option.starts_with("--") && option.len() > 2 {
        return line.split_at_checked(2).map(|(option, value)| (option, value.trim()));
    }
    Some((option, value))
}

/// A relative path without `.` and `..`; none where it leaves the tree.
fn normal(path: &str) -> Option<String> {
    let path = path.strip_prefix("/work/").unwrap_or(path);
    if path.starts_with('/') || path.contains("://") {
        return None;
    }
    paths::normalised(path)
}
