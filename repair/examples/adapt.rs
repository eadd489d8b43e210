//! Adapts the tests below NEW to the change from OLD to NEW and writes them below OUT:
//! `cargo run -p flakefarm-repair --example adapt -- OLD NEW OUT`.

use flakefarm_repair::changes::Changes;
use flakefarm_repair::{SourceTree, adapt, adapt::AsyncStyle};
use std::path::{Path, PathBuf};

fn read(root: &Path) -> SourceTree {
    let mut files = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|end| end == "py") {
                let below = path.strip_prefix(root).expect("it was found there").display().to_string();
                files.push((below, std::fs::read(&path).expect("a readable file")));
            }
        }
    }
    SourceTree::new(files).expect("not too many files")
}

fn main() {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [old, new, out] = arguments.as_slice() else {
        eprintln!("usage: adapt OLD NEW OUT");
        std::process::exit(2);
    };
    let (old, new) = (read(old), read(new));
    let changes = Changes::between(&old, &new);
    for change in changes.list() {
        println!("{}: {:?}", change.path, change.kind);
    }
    let adapted = adapt(&new, &changes, AsyncStyle::Run);
    for note in &adapted.notes {
        println!("{note:?}");
    }
    for file in adapted.files {
        std::fs::write(out.join(&file.path), file.text).expect("a writable file");
    }
}
