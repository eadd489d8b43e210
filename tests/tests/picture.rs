//! The picture in ARCHITECTURE.md is what the sources say, and a circle is found.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::harness::{project, repository, said};
use std::process::{Command, Output};

fn picture(script: &std::path::Path, arguments: &[&str]) -> Output {
    Command::new("python3").arg(script).args(arguments).output().unwrap()
}

#[test]
fn the_picture_is_current_and_without_a_circle() {
    let output = picture(&repository().join("deploy/dev/picture"), &["--check"]);
    assert!(output.status.success(), "make picture\n{}", said(&output));
}

#[test]
fn circles_between_files_and_between_modules_are_found() {
    let script = std::fs::read_to_string(repository().join("deploy/dev/picture")).unwrap();
    let between = |files: &[(&str, &str)]| {
        let sources = project(files);
        let copy = sources.path().join("deploy/dev/picture");
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::write(&copy, &script).unwrap();
        let output = picture(&copy, &["--arrows"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), text)
    };
    let (fine, text) = between(&[
        ("shared/src/lib.rs", "mod a;\nmod b;\npub use a::A;\n"),
        ("shared/src/a.rs", "pub struct A;\n#[cfg(test)]\nmod tests { use crate::b::B; }\n"),
        ("shared/src/b.rs", "use crate::A; // mod c; use crate::b;\npub struct B(pub A);\n"),
    ]);
    assert!(fine, "tests and comments make no arrows, and a name passed on is its maker's: {text}");
    let (fine, text) = between(&[
        ("shared/src/lib.rs", "mod a;\nmod b;\n"),
        ("shared/src/a.rs", "pub struct A;\nfn f() { crate::b::g() }\n"),
        ("shared/src/b.rs", "use super::{a::A};\npub fn g() {}\n"),
    ]);
    assert!(!fine && text.contains("files in a circle"), "{text}");
    let (fine, text) = between(&[
        ("shared/src/lib.rs", "mod a;\nmod b;\n"),
        ("shared/src/a/mod.rs", "pub mod one;\npub mod two;\n"),
        ("shared/src/a/one.rs", "pub struct One;\n"),
        ("shared/src/a/two.rs", "use crate::b::B;\n"),
        ("shared/src/b.rs", "use crate::a::one::One;\npub struct B;\n"),
    ]);
    assert!(!fine && text.contains("modules in a circle") && !text.contains("files in a circle"), "{text}");
}
