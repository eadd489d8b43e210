//! What a provider says, taken as what it is: something that a stranger wrote. It becomes whole new files, or it
//! is refused with a reason that the provider is told at its next try. Where it may change something is for the
//! gates to say; here it is seen to that it is text, in bounds, and within the tree.

use crate::exit::Complaint;
use crate::trees;
use flakefarm_project::paths::normalised;
use flakefarm_project::snapshot::Archive;
use flakefarm_repair::FileAdaptation;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Files of one proposal.
const MOST_FILES: usize = 50;
/// Bytes of one file of a proposal.
const FILE_BYTES: usize = 1 << 20;
/// Bytes of a path.
const PATH_BYTES: usize = 300;
/// Characters that are kept of its reasons.
const REASON: usize = 300;

/// One way to change a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Edit {
    path: String,
    /// What stands there once; with `replace`.
    #[serde(default)]
    find: Option<String>,
    #[serde(default)]
    replace: Option<String>,
    /// The whole file instead.
    #[serde(default)]
    content: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Edits {
    edits: Vec<Edit>,
    #[serde(default)]
    rationale: Option<String>,
    #[serde(default)]
    confidence: Option<f64>,
}

/// What is proposed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Proposal {
    /// The changed files, whole.
    pub(crate) files: Vec<FileAdaptation>,
    /// Why, in the provider's words: one line.
    pub(crate) rationale: String,
    /// How sure it says it is: 0 to 1.
    pub(crate) confidence: Option<f64>,
}

/// The tree that a proposal is for.
pub(crate) struct Tree {
    pub(crate) archive: Archive,
    pub(crate) files: BTreeMap<PathBuf, Vec<u8>>,
    links: BTreeSet<PathBuf>,
}

impl Tree {
    pub(crate) fn of(archive: &Archive) -> Result<Self, Complaint> {
        Ok(Self { files: trees::files(archive)?, links: trees::links(archive)?, archive: archive.clone() })
    }
}

/// What a text proposes: JSON edits, a unified diff, or either within a fenced block. The outer result is a
/// failure of ours, the inner one why it is refused.
pub(crate) async fn read(tree: &Tree, text: &str) -> Result<Result<Proposal, String>, Complaint> {
    if let Some(said) = json(text) {
        return Ok(said.and_then(|said| resolve(tree, said)));
    }
    let Some(diff) = diff(text) else {
        return Ok(Err("the answer holds neither JSON edits nor a unified diff".to_owned()));
    };
    if let Some(line) = diff.lines().find(|line| is_no_text(line)) {
        return Ok(Err(format!("a proposal changes the text of files only: `{}`", short(line, 80))));
    }
    if let Some(refused) = diff.lines().filter_map(named).find_map(|path| {
        let refused = path_of(tree, path).err()?;
        Some(format!("`{}`: {refused}", short(path, 80)))
    }) {
        return Ok(Err(refused));
    }
    let (base, bytes) = (tree.archive.clone(), diff.into_bytes());
    let patched = tokio::task::spawn_blocking(move || {
        flakefarm_project::patch::apply(&base, Path::new(""), &bytes, "the proposal")
    });
    let patched = match patched.await? {
        Ok(patched) => patched,
        Err(error) => return Ok(Err(flakefarm_shared::chain(&error))),
    };
    Ok(changed(tree, &Tree::of(&patched.archive)?, "a diff"))
}

/// What another state of the tree proposes.
pub(crate) fn changed(tree: &Tree, other: &Tree, rationale: &str) -> Result<Proposal, String> {
    if tree.links != other.links {
        return Err("a proposal makes, changes or removes no links".to_owned());
    }
    if let Some(gone) = tree.files.keys().find(|path| !other.files.contains_key(*path)) {
        return Err(format!("a proposal removes no file: {}", gone.display()));
    }
    let mut files = BTreeMap::new();
    for (path, bytes) in other.files.iter().filter(|(path, bytes)| tree.files.get(*path) != Some(*bytes)) {
        let path = path.to_str().ok_or_else(|| format!("{} is no readable name", path.display()))?;
        let text = std::str::from_utf8(bytes).map_err(|_| format!("{path} is no text any more"))?;
        files.insert(path.to_owned(), text.to_owned());
    }
    finish(tree, files, rationale, None)
}

/// JSON edits in a text, or what is wrong with them; nothing if it is no JSON.
fn json(text: &str) -> Option<Result<Edits, String>> {
    let candidates = [Some(text.trim()), fenced(text, "json"), fenced(text, "")];
    candidates.into_iter().flatten().map(str::trim).filter(|text| text.starts_with('{')).find_map(|text| {
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        Some(serde_json::from_value(value).map_err(|error| {
            format!("the JSON is none of the expected form ({{\"edits\": [{{\"path\", \"find\", \"replace\"}}]}}): {error}")
        }))
    })
}

/// A unified diff in a text.
fn diff(text: &str) -> Option<String> {
    let candidates = [fenced(text, "diff"), fenced(text, "patch"), fenced(text, ""), Some(text)];
    let is_diff = |text: &&str| {
        text.lines().any(|line| line.starts_with("--- ")) && text.lines().any(|line| line.starts_with("+++ "))
    };
    let is_git = |text: &&str| text.lines().any(|line| line.starts_with("diff --git "));
    let found = candidates.into_iter().flatten().find(|text| is_diff(text) || is_git(text))?;
    // What is said before the first file is no part of it.
    let begins = |line: &str| line.starts_with("diff --git ") || line.starts_with("--- ");
    let lines: Vec<&str> = found.split_inclusive('\n').skip_while(|line| !begins(line)).collect();
    let mut diff = lines.concat();
    if !diff.ends_with('\n') {
        diff.push('\n');
    }
    Some(diff)
}

/// The first block fenced as `language`.
fn fenced<'a>(text: &'a str, language: &str) -> Option<&'a str> {
    let mut from = 0;
    loop {
        let open = from + text.get(from..)?.find("```")?;
        let line_end = open + text[open..].find('\n')?;
        let close = line_end + 1 + text[line_end + 1..].find("```")?;
        if text[open + 3..line_end].trim() == language {
            return Some(&text[line_end + 1..close]);
        }
        from = close + 3;
    }
}

/// Lines of a diff that change more than text.
fn is_no_text(line: &str) -> bool {
    [
        "old mode ",
        "new mode ",
        "GIT binary patch",
        "Binary files ",
        "rename from ",
        "copy from ",
        "deleted file mode ",
    ]
    .iter()
    .any(|start| line.starts_with(start))
        || (line.starts_with("new file mode ") && line.trim_end() != "new file mode 100644")
}

/// The file that a line of a diff names.
fn named(line: &str) -> Option<&str> {
    let name = line.strip_prefix("--- ").or_else(|| line.strip_prefix("+++ "))?;
    let name = name.split('\t').next().unwrap_or(name).trim_end();
    let path = name.strip_prefix("a/").or_else(|| name.strip_prefix("b/")).unwrap_or(name);
    (path != "/dev/null").then_some(path)
}

fn resolve(tree: &Tree, said: Edits) -> Result<Proposal, String> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for edit in said.edits {
        let path = path_of(tree, &edit.path).map_err(|why| format!("`{}`: {why}", short(&edit.path, 80)))?;
        let now = match files.get(&path) {
            Some(text) => Some(text.clone()),
            None => match tree.files.get(Path::new(&path)) {
                Some(bytes) => Some(
                    String::from_utf8(bytes.clone())
                        .map_err(|_| format!("`{path}` is no UTF-8: it is left alone"))?,
                ),
                None => None,
            },
        };
        let new = match (edit.content, edit.find, edit.replace, now) {
            (Some(content), None, None, _) => content,
            (None, Some(find), Some(replace), Some(now)) => {
                let places = if find.is_empty() { 0 } else { now.matches(&find).count() };
                if places != 1 {
                    return Err(format!(
                        "`{path}`: what is to be replaced must stand there once, and stands there {places} times"
                    ));
                }
                now.replacen(&find, &replace, 1)
            }
            (None, Some(_), Some(_), None) => {
                return Err(format!("`{path}` is not there: give its `content`"));
            }
            _ => return Err(format!("`{path}`: give `find` and `replace`, or `content`")),
        };
        files.insert(path, new);
        if files.len() > MOST_FILES {
            return Err(format!("a proposal changes at most {MOST_FILES} files"));
        }
    }
    let confidence = said.confidence.filter(|sure| (0.0..=1.0).contains(sure));
    finish(tree, files, said.rationale.as_deref().unwrap_or("edits"), confidence)
}

fn finish(
    tree: &Tree,
    mut files: BTreeMap<String, String>,
    rationale: &str,
    confidence: Option<f64>,
) -> Result<Proposal, String> {
    files.retain(|path, text| tree.files.get(Path::new(path)).map(Vec::as_slice) != Some(text.as_bytes()));
    if files.is_empty() {
        return Err("the proposal changes nothing".to_owned());
    }
    if files.len() > MOST_FILES {
        return Err(format!("a proposal changes at most {MOST_FILES} files"));
    }
    for (path, text) in &files {
        path_of(tree, path).map_err(|why| format!("`{path}`: {why}"))?;
        if text.len() > FILE_BYTES {
            return Err(format!("`{path}` is larger than {} MiB", FILE_BYTES >> 20));
        }
        if text.contains('\0') {
            return Err(format!("`{path}` is no text: it holds NUL"));
        }
    }
    let files = files.into_iter().map(|(path, text)| FileAdaptation { path, text }).collect();
    Ok(Proposal { files, rationale: short(rationale, REASON), confidence })
}

/// A path within the tree, which leads through no link.
fn path_of(tree: &Tree, path: &str) -> Result<String, String> {
    let refused = |why: &str| Err(why.to_owned());
    if path.is_empty() || path.len() > PATH_BYTES {
        return Err(format!("a path has 1 to {PATH_BYTES} bytes"));
    }
    if path.chars().any(|c| c.is_control() || c == '\\' || c == '"') {
        return refused("a path is plain text with / between its parts");
    }
    if path.starts_with('/') {
        return refused("a path begins at the project's root, not at that of the machine");
    }
    if path.split('/').any(|part| part == "..") {
        return refused("a path stays within the project");
    }
    if normalised(path).as_deref() != Some(path) {
        return refused("a path has no empty part and no `.`");
    }
    if path.split('/').any(|part| part.eq_ignore_ascii_case(".git")) {
        return refused("the repository's own files are left alone");
    }
    if Path::new(path).ancestors().any(|part| tree.links.contains(part)) {
        return refused("it is a link, or lies behind one");
    }
    if tree.files.keys().any(|known| Path::new(path).starts_with(known) && known != Path::new(path)) {
        return refused("it lies below a file");
    }
    Ok(path.to_owned())
}

/// One line of at most so many characters.
pub(crate) fn short(text: &str, most: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most + 1).collect();
    if line.chars().count() > most { line.chars().take(most - 1).chain(['…']).collect() } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flakefarm_project::snapshot;

    const TEXT: &str = "import shop\n\ndef test_a():\n    assert shop.old() == 1\n";

    fn tree() -> Tree {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tests")).unwrap();
        std::fs::write(dir.path().join("tests/test_a.py"), TEXT).unwrap();
        std::fs::write(dir.path().join("tests/latin.py"), b"x = '\xe9'\n").unwrap();
        std::os::unix::fs::symlink("test_a.py", dir.path().join("tests/alias.py")).unwrap();
        std::os::unix::fs::symlink("tests", dir.path().join("behind")).unwrap();
        Tree::of(&snapshot::archive(dir.path()).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn edits_and_diffs_are_read_in_every_form_that_models_give_them() {
        let tree = tree();
        let edits = r#"{"edits":[{"path":"tests/test_a.py","find":"old","replace":"new"}],"rationale":"re\nnamed","confidence":0.8}"#;
        let diff = "--- a/tests/test_a.py\n+++ b/tests/test_a.py\n@@ -1,4 +1,4 @@\n import shop\n \n def test_a():\n-    assert shop.old() == 1\n+    assert shop.new() == 1";
        for text in [
            edits.to_owned(),
            format!("Here it is:\n```json\n{edits}\n```\nDone."),
            format!("```\n{edits}\n```"),
            diff.to_owned(),
            format!("I think so.\n\n{diff}\n"),
            format!("First:\n```python\nx = 1\n```\nThen:\n```diff\n{diff}\n```\n"),
            format!("diff --git a/tests/test_a.py b/tests/test_a.py\nindex 1..2 100644\n{diff}\n"),
        ] {
            let proposal = read(&tree, &text).await.unwrap().unwrap();
            assert_eq!(proposal.files.len(), 1, "{text}");
            assert_eq!(proposal.files[0].text, TEXT.replace("old", "new"), "{text}");
        }
        let proposal = read(&tree, edits).await.unwrap().unwrap();
        assert_eq!((proposal.rationale.as_str(), proposal.confidence), ("re named", Some(0.8)));
    }

    #[tokio::test]
    async fn what_leaves_the_tree_or_is_no_text_is_refused_with_a_reason() {
        let tree = tree();
        let check = async |text: &str, expect: &str| {
            let refused = read(&tree, text).await.unwrap().unwrap_err();
            assert!(refused.contains(expect), "{text}\n{refused}");
        };
        let edit =
            |path: &str| serde_json::json!({"edits": [{"path": path, "content": "x = 1\n"}]}).to_string();
        check(&edit("../test_b.py"), "stays within").await;
        check(&edit("tests/../../x.py"), "stays within").await;
        check(&edit("/etc/passwd"), "not at that of the machine").await;
        check(&edit("tests//x.py"), "no empty part").await;
        check(&edit("tests\\x.py"), "plain text").await;
        check(&edit("tests/x\n.py"), "plain text").await;
        check(&edit(".git/hooks/pre-commit"), "repository's own").await;
        check(&edit("sub/.GIT/config"), "repository's own").await;
        check(&edit("tests/alias.py"), "link").await;
        check(&edit("behind/test_a.py"), "link").await;
        check(&edit("tests/test_a.py/x.py"), "below a file").await;
        check(&edit(&"x".repeat(301)), "1 to 300 bytes").await;
        check(&edit(""), "1 to 300 bytes").await;
        let many: Vec<_> = (0..=MOST_FILES)
            .map(|n| serde_json::json!({"path": format!("t{n}.py"), "content": "x"}))
            .collect();
        check(&serde_json::json!({ "edits": many }).to_string(), "at most 50 files").await;
        let large = serde_json::json!({"edits": [{"path": "a.py", "content": "x".repeat(FILE_BYTES + 1)}]});
        check(&large.to_string(), "larger than").await;
        check(r#"{"edits":[{"path":"a.py","content":"\u0000"}]}"#, "NUL").await;
        check(r#"{"edits":[{"path":"tests/latin.py","find":"x","replace":"y"}]}"#, "no UTF-8").await;
        check(r#"{"edits":[{"path":"tests/test_a.py","find":"shop","replace":"y"}]}"#, "2 times").await;
        check(r#"{"edits":[{"path":"tests/test_a.py","find":"","replace":"y"}]}"#, "0 times").await;
        check(r#"{"edits":[{"path":"tests/b.py","find":"a","replace":"y"}]}"#, "not there").await;
        check(r#"{"edits":[{"path":"tests/test_a.py"}]}"#, "give `find`").await;
        check(r#"{"edits":[{"path":"tests/test_a.py","find":"old","replace":"old"}]}"#, "changes nothing")
            .await;
        check(r#"{"edits":[]}"#, "changes nothing").await;
        check(r#"{"edits": 7}"#, "expected form").await;
        check("I am sorry.", "neither").await;
        check("", "neither").await;
        check("\u{0}\u{1}\u{fffd}", "neither").await;
        let diff = |head: &str, path: &str| {
            format!("{head}--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-import shop\n+import store\n")
        };
        check(&diff("", "../test_a.py"), "stays within").await;
        check(&diff("", "tests/test_a.py").replace("a/tests", "/tests"), "not at that of the machine").await;
        check(&diff("", "tests/alias.py"), "link").await;
        check(&diff("", "tests/test_b.py"), "does not apply").await;
        check(&diff("diff --git a/x b/x\nold mode 100644\nnew mode 120000\n", "x"), "text of files").await;
        check(&diff("diff --git a/x b/x\nnew file mode 120000\n", "x"), "text of files").await;
        check("diff --git a/x b/x\nGIT binary patch\nliteral 1\n", "text of files").await;
        check("diff --git a/x b/x\nrename from x\nrename to y\n", "text of files").await;
        check("diff --git a/x b/x\ndeleted file mode 100644\n--- a/x\n+++ /dev/null\n", "text of files")
            .await;
    }
}
