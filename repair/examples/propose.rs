//! Prints what the deterministic strategies propose for two trees, as JSON: what `flakefarm repair` would try, before
//! any experiment. `make repairs` judges proposals by hundreds with it.
//!
//! Usage: `propose OLD NEW [SYMPTOMS]`, two directories and a file of failures, as `tests/repairs/outcomes.py` writes
//! them, whose causes are to be named.

use flakefarm_repair::SourceTree;
use flakefarm_repair::adapt::AsyncStyle;
use flakefarm_repair::cause::{Difference, Symptom, explain};
use flakefarm_repair::difference::from_difference;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;
use std::path::Path;

/// Stack for deeply nested sources.
const STACK_BYTES: usize = 512 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let work = move || {
        let [old, new, rest @ ..] = arguments.as_slice() else {
            return Err("usage: propose OLD NEW [SYMPTOMS]".to_owned());
        };
        answer(Path::new(old), Path::new(new), rest.first().map(Path::new)).map_err(|error| error.to_string())
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work)?;
    let answer = thread.join().map_err(|_| "the analysis failed")??;
    writeln!(std::io::stdout(), "{answer}")?;
    Ok(())
}

fn answer(old: &Path, new: &Path, symptoms: Option<&Path>) -> Result<Value, Box<dyn Error>> {
    let (old_files, new_files) = (read(old)?, read(new)?);
    let style = AsyncStyle::of_configuration(|name| {
        new_files.get(name).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    });
    let python = |files: &BTreeMap<String, Vec<u8>>| SourceTree::new(files.clone());
    let (old, new) = (python(&old_files)?, python(&new_files)?);
    let proposal = from_difference(&old, &new, style);
    let symptoms: Vec<Value> = match symptoms {
        Some(file) => serde_json::from_slice(&std::fs::read(file)?)?,
        None => Vec::new(),
    };
    let difference = Difference { old: &old, new: &new, changes: &proposal.changes };
    let causes: Vec<Value> = symptoms
        .iter()
        .map(|said| {
            let text = |key: &str| said[key].as_str().unwrap_or_default();
            let symptom = Symptom {
                test: text("test"),
                kind: text("kind"),
                phase: text("phase"),
                exception: text("exception"),
                message: text("message"),
                fixture: None,
            };
            explain(&symptom, Some(&difference)).map_or(Value::Null, |cause| {
                json!({ "kind": cause.kind.word(), "subject": cause.subject, "confidence": cause.confidence })
            })
        })
        .collect();
    let files: BTreeMap<&str, &str> =
        proposal.adapted.files.iter().map(|file| (file.path.as_str(), file.text.as_str())).collect();
    Ok(json!({
        "changes": proposal.changes.list().iter().map(|change| format!("{change:?}")).collect::<Vec<_>>(),
        "notes": proposal.adapted.notes.iter().map(|note| format!("{note:?}")).collect::<Vec<_>>(),
        "violations": proposal.violations.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "inverse": proposal.inverse,
        "files": files,
        "causes": causes,
    }))
}

/// The files below a directory that repairs look at.
fn read(root: &Path) -> Result<BTreeMap<String, Vec<u8>>, Box<dyn Error>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let wanted = path
                .extension()
                .is_some_and(|end| ["py", "toml", "ini", "cfg"].iter().any(|known| end == *known));
            if wanted && let Some(name) = path.strip_prefix(root)?.to_str() {
                found.insert(name.to_owned(), std::fs::read(&path)?);
            }
        }
    }
    Ok(found)
}
