//! Who answers for a file, as the project's CODEOWNERS says: the patterns are git's, the last line that
//! matches holds, and one without owners takes the file from those before it. What cannot be read names nobody.

use flakefarm_project::paths;
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::{Digest, SweepContext};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::collections::VecDeque;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Where it may lie, in the order in which hosts look for it.
const PLACES: [&str; 4] = [".github/CODEOWNERS", ".gitlab/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS"];
/// Larger files are not read.
const LARGEST: u64 = 3 << 20;

/// Of patterns; of more the last hold, as they would anyway.
const MOST_PATTERNS: usize = 10_000;
/// Characters of a pattern; a longer one names nobody.
const LONGEST_PATTERN: usize = 4_096;
/// Most of a snapshot that is looked through for it, unpacked.
const LOOKED_THROUGH: u64 = 2 << 30;

/// What a project's CODEOWNERS says.
#[derive(Debug, Clone, Default)]
pub struct Owners {
    /// In the order of the file, made ready once: a project has many tests.
    lines: Arc<[Line]>,
}

/// A pattern and its owners, if it has any.
#[derive(Debug)]
struct Line {
    pattern: Gitignore,
    owners: Option<String>,
}

impl Owners {
    /// Of this text.
    pub fn of_text(text: &str) -> Self {
        Self { lines: lines(text).into_iter().filter_map(ready).collect() }
    }

    /// Of the project at `root`. Blocking.
    pub fn in_tree(root: &Path) -> Self {
        let found = PLACES.iter().map(|place| root.join(place)).find(|path| path.is_file());
        let small = found.filter(|path| path.metadata().is_ok_and(|known| known.len() <= LARGEST));
        Self::of_text(&small.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default())
    }

    /// Of a sweep's snapshot, by the digest of its context.
    pub async fn of_sweep(blobs: &Blobs, context: &Digest) -> Self {
        let Ok(context) = blobs.get_json::<SweepContext>(context, "a sweep's context").await else {
            return Self::default();
        };
        let Ok(archive) = blobs.get(&context.snapshot).await else { return Self::default() };
        let read = move || Self::of_text(&in_archive(&archive).unwrap_or_default());
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    /// The owners of a test, whose id begins with its file, with blanks between them.
    pub fn of(&self, test: &str) -> Option<String> {
        let path = normalised(test.split("::").next()?)?;
        let holds = |line: &&Line| line.pattern.matched_path_or_any_parents(&path, false).is_ignore();
        self.lines.iter().rev().find(holds)?.owners.clone()
    }
}

/// The text of the first place of an archive that has it.
fn in_archive(archive: &[u8]) -> Option<String> {
    let unpacked = zstd::Decoder::new(archive).ok()?.take(LOOKED_THROUGH);
    let mut found: Option<(usize, String)> = None;
    for entry in tar::Archive::new(unpacked).entries().ok()? {
        let mut entry = entry.ok()?;
        let path = entry.path().ok()?.to_string_lossy().trim_start_matches("./").to_owned();
        let Some(rank) = PLACES.iter().position(|place| *place == path) else { continue };
        let better = found.as_ref().is_none_or(|(known, _)| rank < *known);
        if better && entry.size() <= LARGEST {
            let mut text = String::new();
            entry.read_to_string(&mut text).ok()?;
            found = Some((rank, text));
        }
        if rank == 0 {
            break;
        }
    }
    found.map(|(_, text)| text)
}

/// A path below the root, as CODEOWNERS spells paths; none if it leaves the root.
fn normalised(path: &str) -> Option<String> {
    paths::normalised(&path.replace('\\', "/")).filter(|path| !path.is_empty())
}

/// Patterns and their owners (empty: none), in the order of the file.
fn lines(text: &str) -> VecDeque<(String, String)> {
    // GitLab's sections name owners for the lines below them that have none.
    let mut of_section = String::new();
    let mut found = VecDeque::new();
    for line in text.lines() {
        let line = line.split(" #").next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with('[') || line.starts_with("^[") {
            let after = line.rsplit_once(']').map_or("", |(_, after)| after);
            of_section = after.trim().to_owned();
            continue;
        }
        let (pattern, owners) = split(line);
        if found.len() == MOST_PATTERNS {
            found.pop_front();
        }
        found.push_back((pattern, if owners.is_empty() { of_section.clone() } else { owners }));
    }
    found
}

/// The pattern, in which a blank may be escaped, and the owners.
fn split(line: &str) -> (String, String) {
    let mut escaped = false;
    for (place, c) in line.char_indices() {
        if c.is_whitespace() && !escaped {
            let owners: Vec<&str> = line[place..].split_whitespace().collect();
            return (line[..place].to_owned(), owners.join(" "));
        }
        escaped = c == '\\' && !escaped;
    }
    (line.to_owned(), String::new())
}

fn ready((pattern, owners): (String, String)) -> Option<Line> {
    if pattern.len() > LONGEST_PATTERN {
        return None;
    }
    let mut builder = GitignoreBuilder::new("");
    builder.add_line(None, &pattern).ok()?;
    Some(Line { pattern: builder.build().ok()?, owners: (!owners.is_empty()).then_some(owners) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_matches_holds() {
        let text = "\
            * @everybody\n\
            # a comment @nobody\n\
            /tests/ @testers @more # why\n\
            /tests/slow/ \n\
            *.js @web\n\
            docs/* docs@example.org\n\
            [ bad pattern @nobody\n\
            /with\\ blank/ @blank\n";
        let owners = Owners::of_text(text);
        let check = |path: &str, expect: Option<&str>| {
            assert_eq!(owners.of(path).as_deref(), expect, "{path}");
        };
        check("shop/a.py", Some("@everybody"));
        check("tests/unit/test_a.py", Some("@testers @more"));
        check("x/tests/test_a.py", Some("@everybody"));
        check("tests/slow/test_a.py", None);
        check("tests/a.js", Some("@web"));
        check("docs/a.md", Some("docs@example.org"));
        check("with blank/a.py", Some("@blank"));
        assert_eq!(Owners::of_text("[Tests] @team\ntests/\n").of("tests/a.py").as_deref(), Some("@team"));
        assert_eq!(Owners::of_text("").of("a"), None);
    }

    #[test]
    fn a_snapshot_is_looked_through_for_the_place_that_counts() {
        let archive = |files: &[(&str, &str)]| {
            let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
            for (path, content) in files {
                let mut header = tar::Header::new_gnu();
                header.set_size(content.len() as u64);
                archive.append_data(&mut header, path, content.as_bytes()).unwrap();
            }
            archive.into_inner().unwrap().finish().unwrap()
        };
        let both = archive(&[("CODEOWNERS", "* @root"), ("a.py", ""), (".gitlab/CODEOWNERS", "* @lab")]);
        assert_eq!(in_archive(&both).as_deref(), Some("* @lab"));
        assert_eq!(in_archive(&archive(&[("x/CODEOWNERS", "* @x")])), None);
        assert_eq!(in_archive(b"no archive"), None);
        assert_eq!(Owners::of_text("* @root").of("tests/a.py::x").as_deref(), Some("@root"));
        assert_eq!(Owners::default().of("tests/a.py::x"), None);
    }

    #[test]
    fn of_very_many_patterns_the_last_hold() {
        let many: String = (0..MOST_PATTERNS).map(|number| format!("/a{number}.py @a{number}\n")).collect();
        let owners = Owners::of_text(&format!("/first.py @first\n{many}"));
        assert_eq!(owners.lines.len(), MOST_PATTERNS);
        assert_eq!(owners.of("a0.py").as_deref(), Some("@a0"));
        assert_eq!(owners.of("first.py"), None);
        let long = format!("{}.py @long", "a".repeat(LONGEST_PATTERN));
        assert_eq!(Owners::of_text(&long).lines.len(), 0);
    }

    #[test]
    fn paths_are_normalised_and_do_not_leave_the_root() {
        assert_eq!(normalised("./tests//a.py").as_deref(), Some("tests/a.py"));
        assert_eq!(normalised("tests\\x\\..\\a.py").as_deref(), Some("tests/a.py"));
        assert_eq!(normalised("../a.py"), None);
    }
}
