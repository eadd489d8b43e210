//! Compiles the nest, the static program that isolates attempts inside a container or on a host, so
//! that it can be embedded. A static program for the same target, by the same cargo and from the
//! same lock file; in a directory of its own, so that the two builds do not wait for each other. It
//! needs no crate that the outer build has not fetched.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let workspace =
        variable("CARGO_MANIFEST_DIR").parent().expect("worker/ lies in the workspace").to_owned();
    for path in ["nest/src", "nest/Cargo.toml", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    let embedded = variable("OUT_DIR").join("flakefarm-nest");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        // There are no namespaces anywhere else: an empty program says so.
        std::fs::write(&embedded, []).expect("OUT_DIR can be written to");
        return;
    }
    let target = env::var("TARGET").expect("cargo names the target");
    let directory = variable("OUT_DIR").join("nest");
    build(&workspace, &target, &directory);
    let built = directory.join(&target).join("nest/flakefarm-nest");
    std::fs::copy(&built, &embedded)
        .unwrap_or_else(|error| panic!("failed to copy {}: {error}", built.display()));
}

fn build(workspace: &Path, target: &str, directory: &Path) {
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .current_dir(workspace)
        .args(["build", "--locked", "--package", "flakefarm-nest", "--bin", "flakefarm-nest"])
        .args(["--profile", "nest", "--target", target, "--target-dir"])
        .arg(directory)
        // What the outer build was told of flags and wrappers (a linter, say) is not meant for this one.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static");
    let output = cargo.output().unwrap_or_else(|error| panic!("failed to run cargo for the nest: {error}"));
    assert!(
        output.status.success(),
        "the nest cannot be built; hint: a static libc is needed (libc6-dev has it)\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn variable(name: &str) -> PathBuf {
    env::var_os(name).map_or_else(|| panic!("cargo sets {name}"), PathBuf::from)
}
