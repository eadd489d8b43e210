//! A set-up step as the commands it runs, where these are plain: words, quotes and what joins them.

use super::pip;
use super::{Install, StepReads};
use crate::environment::tree::Tree;
use std::collections::BTreeSet;

/// Variables that a command may be given without reading more of the tree for it.
const HARMLESS_VARIABLES: [&str; 14] = [
    "DEBIAN_FRONTEND",
    "LANG",
    "LC_ALL",
    "PIP_BREAK_SYSTEM_PACKAGES",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_DISABLE_PIP_VERSION_CHECK",
    "PIP_EXTRA_INDEX_URL",
    "PIP_INDEX_URL",
    "PIP_NO_CACHE_DIR",
    "PIP_PREFER_BINARY",
    "PIP_ROOT_USER_ACTION",
    "PIP_TRUSTED_HOST",
    "UV_INDEX_URL",
    "UV_SYSTEM_PYTHON",
];
/// Package managers of distributions.
const DISTRIBUTIONS: [&str; 7] = ["apt", "apt-get", "apk", "dnf", "yum", "microdnf", "zypper"];
/// Tools that install what a project depends on, and the project in place, unless told otherwise.
const PROJECT_TOOLS: [(&str, &[&str]); 4] = [
    ("poetry", &["install", "sync"]),
    ("pdm", &["install", "sync"]),
    ("pipenv", &["install", "sync"]),
    ("uv", &["sync"]),
];

/// What `step` reads of `tree`.
pub(super) fn reads(step: &str, tree: &Tree) -> StepReads {
    let Some(commands) = commands(step) else { return StepReads::Anything };
    let mut files = BTreeSet::new();
    let mut installs: Option<Install> = None;
    for command in commands {
        match command_reads(&command, tree) {
            StepReads::Files(more) => files.extend(more),
            StepReads::Project(install) => {
                let installs = installs.get_or_insert(Install { only_in_place: true, ..Install::default() });
                installs.files.extend(install.files);
                installs.only_in_place &= install.only_in_place;
                installs.extras.extend(install.extras);
                installs.more |= install.more;
            }
            StepReads::Anything => return StepReads::Anything,
        }
    }
    match installs {
        Some(mut install) => {
            install.files.extend(files);
            StepReads::Project(install)
        }
        None => StepReads::Files(files),
    }
}

fn command_reads(words: &[String], tree: &Tree) -> StepReads {
    let given = words.iter().take_while(|word| harmless_assignment(word)).count();
    let words: Vec<&str> = words[given..].iter().map(String::as_str).collect();
    let nothing = || StepReads::Files(BTreeSet::new());
    match words.as_slice() {
        [] | ["true" | ":"] => nothing(),
        ["set", options] if options.starts_with('-') => nothing(),
        ["echo" | "printf", ..] => nothing(),
        ["rm", rest @ ..] if rest.iter().all(|word| outside(word)) => nothing(),
        [python, "-c", code] if is_python(python) && imports_others(code, tree) => nothing(),
        [python, "-m", "pip", rest @ ..] if is_python(python) => pip::reads(rest, tree),
        ["uv", "pip", rest @ ..] => pip::reads(rest, tree),
        [pip, rest @ ..] if is_versioned(pip, "pip") => pip::reads(rest, tree),
        [manager, rest @ ..]
            if DISTRIBUTIONS.contains(manager) && !rest.iter().any(|word| word.contains('/')) =>
        {
            nothing()
        }
        ["poetry", "config", rest @ ..] if !rest.contains(&"--local") => nothing(),
        [tool, verb, rest @ ..]
            if PROJECT_TOOLS.iter().any(|(name, verbs)| name == tool && verbs.contains(verb))
                && !rest.iter().any(|word| word.contains('/')) =>
        {
            StepReads::Project(Install { more: true, ..Install::default() })
        }
        _ => StepReads::Anything,
    }
}

fn harmless_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| HARMLESS_VARIABLES.contains(&name))
}

fn outside(word: &str) -> bool {
    word.starts_with('-') || (word.starts_with('/') && !word.starts_with("/work") && !word.contains(".."))
}

/// `python3`, `/usr/bin/python3.11`.
fn is_python(word: &str) -> bool {
    let name = match word.rsplit_once('/') {
        Some((directory, name)) if outside(directory) => name,
        Some(_) => return false,
        None => word,
    };
    is_versioned(name, "python")
}

fn is_versioned(word: &str, name: &str) -> bool {
    word.strip_prefix(name).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

/// Whether code imports modules by name and nothing else, none of them the tree's own.
fn imports_others(code: &str, tree: &Tree) -> bool {
    let Some(names) = code.trim().strip_prefix("import ") else { return false };
    names.split(',').map(str::trim).all(|name| {
        let root = name.split('.').next().unwrap_or_default();
        let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
        !root.is_empty() && name.chars().all(is_name) && !tree.has_module(root)
    })
}

/// The commands of a step, each as its words; none where the shell would do more than split them.
fn commands(step: &str) -> Option<Vec<Vec<String>>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut rest = step.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\'' => {
                let text = word.get_or_insert_default();
                loop {
                    match rest.next()? {
                        '\'' => break,
                        c => text.push(c),
                    }
                }
            }
            '"' => {
                let text = word.get_or_insert_default();
                loop {
                    match rest.next()? {
                        '"' => break,
                        '$' | '`' | '\\' => return None,
                        c => text.push(c),
                    }
                }
            }
            '\\' => match rest.next()? {
                '\n' => {}
                c => word.get_or_insert_default().push(c),
            },
            ' ' | '\t' => finish(&mut word, &mut commands),
            '\n' | ';' => next_command(&mut word, &mut commands),
            '&' | '|' if rest.next_if_eq(&c).is_some() => next_command(&mut word, &mut commands),
            '#' if word.is_none() => while rest.next_if(|c| *c != '\n').is_some() {},
            '&' | '|' | '$' | '`' | '<' | '>' | '(' | ')' | '{' | '}' | '~' | '!' => return None,
            c => word.get_or_insert_default().push(c),
        }
    }
    finish(&mut word, &mut commands);
    Some(commands)
}

fn finish(word: &mut Option<String>, commands: &mut [Vec<String>]) {
    if let (Some(word), Some(command)) = (word.take(), commands.last_mut()) {
        command.push(word);
    }
}

fn next_command(word: &mut Option<String>, commands: &mut Vec<Vec<String>>) {
    finish(word, commands);
    commands.push(Vec::new());
}
