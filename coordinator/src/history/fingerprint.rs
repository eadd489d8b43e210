//! Whether earlier runs of a test still say something of it: equal fingerprints mean that nothing has
//! changed that the test is known to touch. Pure.
//!
//! What goes in is named here, field by field. Whatever else a project has (limits, secrets that are
//! passed through, certificates, what a later version adds) does not decide what a test does, and must not
//! erase its history.

use flakefarm_shared::{Digest, ImageSource, Listing, ProjectSpec, TestId};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;

/// What all tests of a project have in common.
pub fn common(project: &ProjectSpec, framework_version: &str) -> Digest {
    let mut text = Fields::default();
    text.add("framework", [project.framework.word()]);
    text.add("framework version", [framework_version]);
    match &project.environment.image {
        ImageSource::Reference(reference) => text.add("image", [reference.as_str()]),
        ImageSource::Dockerfile(path) => text.add("dockerfile", [path.as_str()]),
    }
    text.add("setup", project.environment.setup.iter().map(String::as_str));
    text.add("interpreter", [project.environment.python.as_str()]);
    text.add("arguments", project.arguments.iter().map(String::as_str));
    // Values may be secrets, and secrets are rotated.
    text.add("variables", project.variables.keys().map(String::as_str));
    Digest::of(&text.0)
}

/// The fingerprint of every test of a listing whose sources were looked at.
pub fn of_listing(project: &ProjectSpec, listing: &Listing) -> HashMap<TestId, Digest> {
    let common = common(project, &listing.framework_version);
    listing
        .tests
        .iter()
        .zip(&listing.sources)
        .map(|(test, source)| {
            (test.clone(), Digest::of(format!("{common} {}", source.fingerprint).as_bytes()))
        })
        .collect()
}

/// Named lists of texts, none of which can be mistaken for another: each is kept by its digest.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn add<'a>(&mut self, name: &str, values: impl IntoIterator<Item = &'a str>) {
        self.0.extend_from_slice(&Sha256::digest(name));
        for value in values {
            self.0.push(1);
            self.0.extend_from_slice(&Sha256::digest(value));
        }
        self.0.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flakefarm_shared::Limits;
    use flakefarm_shared::project::Framework;
    use flakefarm_shared::project::Network;

    fn project() -> ProjectSpec {
        let mut project = ProjectSpec::of_image("shop", Framework::Pytest, "python:3.12");
        project.environment.setup = vec!["pip install -e .".to_owned()];
        project.environment.inputs = vec!["pyproject.toml".to_owned()];
        project.variables.insert("API_TOKEN".to_owned(), "first".to_owned());
        project
    }

    #[test]
    fn what_a_test_does_not_depend_on_keeps_its_history() {
        let before = common(&project(), "pytest 9");
        let mut after = project();
        after.variables.insert("API_TOKEN".to_owned(), "rotated".to_owned());
        after.environment.setup_variables.insert("PIP_INDEX_URL".to_owned(), "https://u:p@host".to_owned());
        after.environment.extra_ca_certificates = Some("PEM".to_owned());
        after.environment.inputs.clear();
        after.limits =
            Limits { memory_bytes: 1, test_timeout_ms: 1, network: Network::Bridge, ..after.limits };
        after.test_paths.push("tests/unit".to_owned());
        after.name = "renamed".to_owned();
        assert_eq!(common(&after, "pytest 9"), before);
    }

    #[test]
    fn what_a_test_depends_on_starts_its_history_anew() {
        let before = common(&project(), "pytest 9");
        assert_ne!(common(&project(), "pytest 10"), before);
        let changed = |change: fn(&mut ProjectSpec)| {
            let mut after = project();
            change(&mut after);
            assert_ne!(common(&after, "pytest 9"), before, "{after:?}");
        };
        changed(|p| p.environment.image = ImageSource::Reference("python:3.13".to_owned()));
        changed(|p| p.environment.image = ImageSource::Dockerfile("python:3.12".to_owned()));
        changed(|p| p.environment.setup.push("pip install extra".to_owned()));
        changed(|p| p.environment.setup = vec!["pip install".to_owned(), "-e .".to_owned()]);
        changed(|p| p.environment.python = "pypy3".to_owned());
        changed(|p| p.arguments.push("-p no:randomly".to_owned()));
        changed(|p| drop(p.variables.insert("MODE".to_owned(), String::new())));
    }
}
