//! Patches, good and bad, on a small tree.

use super::*;

fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("shop")).unwrap();
    std::fs::write(dir.path().join("shop/stock.py"), "one\ntwo\nthree\nfour\nfive\n").unwrap();
    std::fs::write(dir.path().join("run.sh"), "#!/bin/sh\n").unwrap();
    dir
}

fn patched(prefix: &str, patch: &str) -> Result<Patched, PatchError> {
    let dir = tree();
    let base = snapshot::archive(dir.path()).unwrap();
    let outcome = apply(&base, Path::new(prefix), patch.as_bytes(), "fix.patch");
    let after = std::fs::read_to_string(dir.path().join("shop/stock.py")).unwrap();
    assert_eq!(after, "one\ntwo\nthree\nfour\nfive\n", "the work tree stays as it is");
    outcome
}

const CHANGE: &str = "--- a/shop/stock.py\n+++ b/shop/stock.py\n@@ -1,3 +1,3 @@\n one\n-two\n+zwei\n three\n";

#[test]
fn a_patch_is_applied_to_a_copy_from_the_project_or_from_its_repository() {
    let plain = patched("", CHANGE).unwrap();
    assert_eq!(plain.changed, [Path::new("shop/stock.py")]);
    let below = CHANGE.replace("shop/", "services/cart/shop/");
    let from_top = patched("services/cart", &below).unwrap();
    let from_project = patched("services/cart", CHANGE).unwrap();
    let unprefixed = patched("", &CHANGE.replace("a/", "").replace("b/", "")).unwrap();
    for other in [from_top, from_project, unprefixed] {
        assert_eq!(other.archive.bytes, plain.archive.bytes);
    }
    let new = "--- /dev/null\n+++ b/tests/test_new.py\n@@ -0,0 +1 @@\n+def test(): pass\n";
    assert_eq!(patched("", new).unwrap().changed, [Path::new("tests/test_new.py")]);
    let mode = "diff --git a/run.sh b/run.sh\nold mode 100644\nnew mode 100755\n";
    assert_eq!(patched("", mode).unwrap().changed, [Path::new("run.sh")]);
    let renamed = "diff --git a/run.sh b/go.sh\nsimilarity index 100%\nrename from run.sh\nrename to go.sh\n";
    assert_eq!(patched("", renamed).unwrap().changed, [Path::new("go.sh"), Path::new("run.sh")]);
}

#[test]
fn what_is_refused_is_named_with_file_and_line() {
    let two = format!("{CHANGE}@@ -4,2 +4,2 @@\n four\n-six\n+sechs\n");
    for (patch, expect) in [
        (two.as_str(), "fix.patch:8: does not apply to shop/stock.py:4: what it expects there is not there"),
        (
            "--- a/shop/none.py\n+++ b/shop/none.py\n@@ -1 +1 @@\n-a\n+b\n",
            "fix.patch:1: does not apply to shop/none.py: No such file or directory",
        ),
        (
            "\n--- a/../evil.py\n+++ b/../evil.py\n@@ -0,0 +1 @@\n+x\n",
            "fix.patch:2: ../evil.py is outside the project",
        ),
        (
            "--- /dev/null\n+++ b//etc/evil\n@@ -0,0 +1 @@\n+x\n",
            "fix.patch:2: /etc/evil is outside the project",
        ),
        (
            "diff --git a/.git/hooks/x b/.git/hooks/x\nnew file mode 100755\n--- /dev/null\n+++ b/.git/hooks/x\n@@ -0,0 +1 @@\n+x\n",
            "fix.patch:1: .git/hooks/x is outside the project",
        ),
        (
            "diff --git a/way b/way\nnew file mode 120000\n--- /dev/null\n+++ b/way\n@@ -0,0 +1 @@\n+/etc/passwd\n\\ No newline at end of file\n",
            "fix.patch:1: way is outside the project",
        ),
        (
            "diff --git a/way b/way\nnew file mode 120000\n--- /dev/null\n+++ b/way\n@@ -0,0 +1 @@\n+..\n\\ No newline at end of file\ndiff --git a/way/x b/way/x\nnew file mode 100644\n--- /dev/null\n+++ b/way/x\n@@ -0,0 +1 @@\n+x\n",
            "fix.patch:8: way/x is outside the project",
        ),
        ("", "fix.patch:1: holds no patch"),
        ("hello\n", "fix.patch:1: holds no patch"),
        (
            "--- a/shop/stock.py\n+++ b/shop/stock.py\n@@ -1,3 +1,3 @@\n one\n",
            "fix.patch:4: the patch is damaged here",
        ),
        (
            "--- a/shop/stock.py\n+++ b/shop/stock.py\n@@ -1,3 +1,3 @@\n one\n-two\n+two\n three\n",
            "fix.patch changes nothing",
        ),
    ] {
        let error = patched("", patch).expect_err(patch);
        assert_eq!(error.to_string(), expect, "{patch}");
        assert!(error.hint().is_some(), "{error}");
    }
    let elsewhere = "--- /dev/null\n+++ b/other/new.py\n@@ -0,0 +1 @@\n+x\n--- a/services/cart/run.sh\n+++ b/services/cart/run.sh\n@@ -1 +1 @@\n-#!/bin/sh\n+#!/bin/dash\n";
    let error = patched("services/cart", elsewhere).expect_err("a file of another project");
    assert_eq!(error.to_string(), "fix.patch:2: other/new.py is outside the project");
}

#[test]
fn a_patch_beyond_the_limit_is_not_read() {
    let dir = tree();
    let base = snapshot::archive(dir.path()).unwrap();
    let huge = vec![b'x'; PATCH_LIMIT as usize + 1];
    assert!(matches!(apply(&base, Path::new(""), &huge, "x"), Err(PatchError::TooLarge(_))));
}
