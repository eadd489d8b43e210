//! A change hunk by hunk: which parts of it a person wants, and the files that come of that.

use crate::say::say;
use flakefarm_repair::FileAdaptation;
use similar::{DiffOp, DiffTag, TextDiff};
use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};

/// Lines around a change.
const CONTEXT: usize = 3;

/// One part of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hunk {
    path: String,
    /// As a unified diff.
    text: String,
    /// What of the file's lines changes, by the first old and new line.
    places: Vec<(usize, usize)>,
}

/// What was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    All,
    Quit,
}

/// Asks about each hunk, and gives the files with those that are wanted; what nobody answers is not wanted.
pub(super) fn choose(
    before: &BTreeMap<PathBuf, Vec<u8>>,
    files: &[FileAdaptation],
    answers: &mut impl BufRead,
) -> Vec<FileAdaptation> {
    let old = |path: &str| {
        before
            .get(Path::new(path))
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .unwrap_or_default()
    };
    let hunks: Vec<Hunk> = files.iter().flat_map(|file| hunks(file, &old(&file.path))).collect();
    let mut wanted: BTreeMap<&str, Vec<(usize, usize)>> = BTreeMap::new();
    let mut rest = None;
    for (place, hunk) in hunks.iter().enumerate() {
        let answer = match rest {
            Some(answer) => answer,
            None => {
                say(format!("{}: change {} of {}", hunk.path, place + 1, hunks.len()));
                say(hunk.text.trim_end());
                ask(answers)
            }
        };
        match answer {
            Answer::All => rest = Some(Answer::Yes),
            Answer::Quit => rest = Some(Answer::No),
            Answer::Yes | Answer::No => {}
        }
        if matches!(answer, Answer::Yes | Answer::All) {
            wanted.entry(&hunk.path).or_default().extend(&hunk.places);
        }
    }
    files
        .iter()
        .filter_map(|file| {
            let places = wanted.get(file.path.as_str())?;
            Some(FileAdaptation { path: file.path.clone(), text: with(&old(&file.path), &file.text, places) })
        })
        .collect()
}

/// An answer that makes sense; the end of the answers is the end of the questions.
fn ask(answers: &mut impl BufRead) -> Answer {
    loop {
        say("write this change? y yes, n no, a this and all that follow, q none that follow");
        let mut line = String::new();
        match answers.read_line(&mut line) {
            Ok(0) | Err(_) => return Answer::Quit,
            Ok(_) => {}
        }
        match line.trim() {
            "y" | "yes" => return Answer::Yes,
            "n" | "no" => return Answer::No,
            "a" | "all" => return Answer::All,
            "q" | "quit" | "d" => return Answer::Quit,
            _ => {}
        }
    }
}

fn hunks(file: &FileAdaptation, old: &str) -> Vec<Hunk> {
    let diff = TextDiff::from_lines(old, &file.text);
    let mut unified = diff.unified_diff();
    let unified = unified.context_radius(CONTEXT);
    unified
        .iter_hunks()
        .map(|hunk| Hunk {
            path: file.path.clone(),
            text: hunk.to_string(),
            places: hunk.ops().iter().filter(|op| op.tag() != DiffTag::Equal).map(place).collect(),
        })
        .collect()
}

fn place(op: &DiffOp) -> (usize, usize) {
    (op.old_range().start, op.new_range().start)
}

/// The old text with those of the changes to `new` that are wanted.
fn with(old: &str, new: &str, wanted: &[(usize, usize)]) -> String {
    let diff = TextDiff::from_lines(old, new);
    let mut text = String::new();
    for op in diff.ops() {
        if op.tag() != DiffTag::Equal && wanted.contains(&place(op)) {
            text.extend(diff.new_slices()[op.new_range()].iter().copied());
        } else {
            text.extend(diff.old_slices()[op.old_range()].iter().copied());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    #[test]
    fn each_change_is_asked_about_and_what_is_not_wanted_stays_as_it_was() {
        let lines = |changed: &[usize]| {
            (0..40)
                .map(|n| if changed.contains(&n) { format!("new {n}\r\n") } else { format!("line {n}\r\n") })
                .collect::<String>()
        };
        let before = BTreeMap::from([
            (PathBuf::from("a.py"), lines(&[]).into_bytes()),
            (PathBuf::from("b.py"), b"one".to_vec()),
        ]);
        let file = |path: &str, text: String| FileAdaptation { path: path.to_owned(), text };
        let files = [
            file("a.py", lines(&[3, 20, 39])),
            file("b.py", "two".to_owned()),
            file("c.py", "new\n".to_owned()),
        ];
        let check = |answers: &str, expect: &[(&str, String)]| {
            let chosen = choose(&before, &files, &mut BufReader::new(answers.as_bytes()));
            let chosen: Vec<(&str, String)> =
                chosen.iter().map(|file| (file.path.as_str(), file.text.clone())).collect();
            assert_eq!(chosen, expect, "{answers}");
        };
        check("", &[]);
        check("n\nn\nn\nn\nn\n", &[]);
        check("q\n", &[]);
        check("y\nhuh\nn\ny\n", &[("a.py", lines(&[3, 39]))]);
        check("n\ny\nq\n", &[("a.py", lines(&[20]))]);
        let all = [("a.py", lines(&[3, 20, 39])), ("b.py", "two".to_owned()), ("c.py", "new\n".to_owned())];
        check("a\n", &all);
        check("n\nn\nn\nyes\nall\n", &all[1..]);
    }
}
