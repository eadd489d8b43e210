//! Failed cases of frameworks that flakefarm does not run: their files are in the tree all the same, and say
//! whose they are. Reports of Surefire, Gradle, gotestsum, nextest, jest-junit, vitest and PHPUnit are known by
//! how they spell names.

use flakefarm_coordinator::history::ingest::case::Case;
use std::path::Path;

/// Endings of files, and what is written in them.
const LANGUAGES: [(&str, &[&str]); 8] = [
    ("JavaScript", &["js", "jsx", "mjs", "cjs", "ts", "tsx", "mts", "cts"]),
    ("the JVM", &["java", "kt", "kts", "groovy", "scala"]),
    ("Go", &["go"]),
    ("Rust", &["rs"]),
    (".NET", &["cs", "fs", "vb"]),
    ("PHP", &["php"]),
    ("Ruby", &["rb"]),
    ("C++", &["cc", "cpp", "cxx"]),
];
/// Files of the tree that are looked at.
const MOST_FILES: usize = 100_000;

/// A case of another framework.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Foreign {
    /// The file that says so, relative to the project's root.
    pub(super) file: String,
    /// What is written in it.
    pub(super) language: &'static str,
}

impl Foreign {
    /// Why the case cannot be run.
    pub(super) fn reason(&self) -> String {
        format!("{} is of {}: flakefarm runs tests of pytest and unittest", self.file, self.language)
    }
}

/// The files of a project in other languages.
#[derive(Debug)]
pub(super) struct ForeignFiles {
    files: Vec<(String, &'static str)>,
}

impl ForeignFiles {
    /// Looks through the tree. Blocking.
    pub(super) fn of(root: &Path) -> Self {
        let mut walk = ignore::WalkBuilder::new(root);
        walk.require_git(false).sort_by_file_name(std::ffi::OsStr::cmp);
        let entries = walk.build().flatten().take(MOST_FILES);
        let files = entries.filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()));
        let known = files.filter_map(|entry| {
            let path = entry.path().strip_prefix(root).ok()?.to_str()?.to_owned();
            let language = language_of(&path)?;
            Some((path, language))
        });
        Self { files: known.collect() }
    }

    /// The file of another language that `case` is of.
    pub(super) fn find(&self, case: &Case) -> Option<Foreign> {
        // A path, in the words of whoever wrote the report: jest-junit, vitest, mocha, PHPUnit.
        let paths = [&case.file, &case.class, &case.suite];
        let by_path = paths.into_iter().find_map(|path| self.at(path));
        by_path.or_else(|| self.class(&case.class)).or_else(|| self.package(&case.class))
    }

    fn at(&self, path: &str) -> Option<Foreign> {
        language_of(path)?;
        let path = path.replace('\\', "/");
        self.first(|file| file == path || path.ends_with(&format!("/{file}")))
    }

    /// `com.example.ThingTest`, and what is within it: `…$Inner`.
    fn class(&self, class: &str) -> Option<Foreign> {
        let outer = class.split('$').next().unwrap_or_default();
        let (_, name) = outer.rsplit_once('.')?;
        let path = outer.replace('.', "/");
        let starts_large = name.chars().next().is_some_and(char::is_uppercase);
        let of_class = |file: &str| {
            let (stem, _) = file.rsplit_once('.').unwrap_or((file, ""));
            stem == path || stem.ends_with(&format!("/{path}"))
        };
        self.first(|file| starts_large && language_of(file) == Some("the JVM") && of_class(file))
    }

    /// `example.com/shop/cart` is a package of Go, the directory `cart` with tests in it.
    fn package(&self, package: &str) -> Option<Foreign> {
        if !package.contains('/') {
            return None;
        }
        self.first(|file| {
            let is_test = file.ends_with("_test.go");
            let directory = file.rsplit_once('/').map_or("", |(directory, _)| directory);
            is_test
                && (directory.is_empty()
                    || package == directory
                    || package.ends_with(&format!("/{directory}")))
        })
    }

    fn first(&self, is_it: impl Fn(&str) -> bool) -> Option<Foreign> {
        // The longest: a package's own directory rather than the module's.
        let found = self.files.iter().filter(|(file, _)| is_it(file)).max_by_key(|(file, _)| file.len())?;
        Some(Foreign { file: found.0.clone(), language: found.1 })
    }
}

fn language_of(path: &str) -> Option<&'static str> {
    let (_, ending) = path.rsplit_once('.')?;
    LANGUAGES.iter().find(|(_, endings)| endings.contains(&ending)).map(|(language, _)| *language)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_other_languages_are_found_by_the_names_of_their_reports() {
        let dir = tempfile::tempdir().unwrap();
        for path in [
            "web/src/cart.test.ts",
            "api/src/test/java/com/example/CartTest.java",
            "api/src/test/kotlin/com/example/PriceTest.kt",
            "main_test.go",
            "cart/cart_test.go",
            "tests/CartTest.php",
            "tests/test_cart.py",
            "node_modules/.hidden/a.test.js",
        ] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let files = ForeignFiles::of(dir.path());
        let check = |case: Case, expect: Option<(&str, &str)>| {
            let found = files.find(&case);
            let found = found.as_ref().map(|found| (found.file.as_str(), found.language));
            assert_eq!(found, expect, "{case:?}");
        };
        let named =
            |class: &str, name: &str| Case { class: class.into(), name: name.into(), ..Case::default() };
        // jest-junit with addFileAttribute, vitest, a suite that is named by its file.
        let script = Some(("web/src/cart.test.ts", "JavaScript"));
        check(Case { file: "web/src/cart.test.ts".into(), ..named("cart adds", "cart adds") }, script);
        check(named("web/src/cart.test.ts", "cart > adds"), script);
        check(Case { suite: "/build/web/src/cart.test.ts".into(), ..named("cart", "adds") }, script);
        check(named("cart adds", "cart adds"), None);
        // Surefire and Gradle.
        let java = Some(("api/src/test/java/com/example/CartTest.java", "the JVM"));
        check(named("com.example.CartTest", "testTotal"), java);
        check(named("com.example.CartTest$Empty", "hasNoTotal"), java);
        let kotlin = Some(("api/src/test/kotlin/com/example/PriceTest.kt", "the JVM"));
        check(named("com.example.PriceTest", "a price is rounded()"), kotlin);
        check(named("com.example.Other", "works"), None);
        check(named("org.example.CartTest", "testTotal"), None);
        // gotestsum.
        check(named("example.com/shop/cart", "TestTotal/empty"), Some(("cart/cart_test.go", "Go")));
        check(named("example.com/shop", "TestMain"), Some(("main_test.go", "Go")));
        // PHPUnit, in a container.
        check(
            Case { file: "/app/tests/CartTest.php".into(), ..named("CartTest", "t") },
            Some(("tests/CartTest.php", "PHP")),
        );
        check(named("tests.test_cart", "test_total"), None);
        check(named("", ""), None);
    }
}
