//! How costs grow: with the size of the image, with containers that lie about, with attempts and with
//! tests. Slow, and it needs disk space, so only when asked for.

use super::control::{self, Addresses, Size};
use super::stats::rounded;
use super::ways::{Stage, Way};
use crate::Unmeasured;
use flakefarm_shared::SandboxLevel;
use serde::Serialize;
use std::num::NonZeroU32;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;
use tokio::process::Command;

/// Attempts that are timed at each point.
const ATTEMPTS: u32 = 20;
/// Names what is made here, so that it is found and removed.
const MARK: &str = "flakefarm-bench";

/// One point of one curve.
#[derive(Debug, Serialize)]
pub(crate) struct Growth {
    pub(crate) with: &'static str,
    pub(crate) of: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

impl Growth {
    pub(crate) fn cells(&self) -> Vec<String> {
        vec![self.with.to_owned(), self.of.clone(), rounded(self.value), self.unit.to_owned()]
    }
}

/// Milliseconds of a container, one after the other.
pub(crate) async fn container_ms(stage: &Stage<'_>) -> Result<f64, Unmeasured> {
    let begun = Instant::now();
    for _ in 0..ATTEMPTS {
        stage.run(Way::Level(SandboxLevel::Container)).await.map_err(Unmeasured::farm)?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3 / f64::from(ATTEMPTS))
}

/// The image that a project's image is made from, with a file of so many MiB on top.
pub(crate) async fn larger_image(base: &str, mib: u32) -> Result<String, Unmeasured> {
    let directory = tempfile::tempdir()?;
    let text = format!("FROM {base}\nRUN head -c {mib}M /dev/urandom > /usr/share/{MARK}\n");
    std::fs::write(directory.path().join("Dockerfile"), text)?;
    let tag = format!("{MARK}:{mib}");
    docker(&["build", "--quiet", "--tag", &tag, &directory.path().display().to_string()]).await?;
    Ok(tag)
}

/// Removes an image of [`larger_image`].
pub(crate) async fn forget_image(tag: &str) -> Result<(), Unmeasured> {
    docker(&["rmi", "--force", tag]).await.map(drop)
}

/// Containers that were created and never started, and go with [`Idle::remove`].
pub(crate) struct Idle(Vec<String>);

impl Idle {
    pub(crate) async fn create(&mut self, image: &str, count: usize) -> Result<(), Unmeasured> {
        while self.0.len() < count {
            let id = docker(&["create", "--label", MARK, "--network", "none", image, "true"]).await?;
            self.0.push(id.trim().to_owned());
        }
        Ok(())
    }

    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    pub(crate) async fn remove(self) -> Result<(), Unmeasured> {
        for ids in self.0.chunks(50) {
            let mut words = vec!["rm", "--force"];
            words.extend(ids.iter().map(String::as_str));
            docker(&words).await?;
        }
        Ok(())
    }
}

async fn docker(words: &[&str]) -> Result<String, Unmeasured> {
    let said = Command::new("docker").args(words).stdin(Stdio::null()).output().await?;
    if said.status.success() {
        Ok(String::from_utf8_lossy(&said.stdout).into_owned())
    } else {
        let log = String::from_utf8_lossy(&said.stderr).into_owned();
        Err(Unmeasured::farm(format!("docker {} failed: {}", words[0], said.status)).log(log))
    }
}

/// Scripted sweeps with more attempts, and with more tests.
pub(crate) async fn scripted(addresses: &Addresses, most_tests: u32) -> Result<Vec<Growth>, Unmeasured> {
    let count = |n: u32| NonZeroU32::new(n).expect("not zero");
    let mut points = Vec::new();
    for attempts in [100, 1_000, 10_000] {
        let size = Size { jobs: attempts, suite_attempts: count(1), tests: count(100), queued: 0 };
        points.push(Growth {
            with: "attempts",
            of: attempts.to_string(),
            value: control::jobs_per_second(addresses, 1, size).await?,
            unit: "jobs/s",
        });
    }
    for tests in [100, 1_000, 10_000, 100_000].into_iter().filter(|tests| *tests <= most_tests) {
        let size = Size { jobs: 0, suite_attempts: count(10), tests: count(tests), queued: 0 };
        points.push(Growth {
            with: "tests",
            of: tests.to_string(),
            value: control::samples_per_second(addresses, 1, size).await?,
            unit: "samples/s",
        });
    }
    Ok(points)
}

/// The reference that detection or configuration would start from at `root`.
pub(crate) fn base_image(root: &Path) -> Result<String, Unmeasured> {
    let loaded = flakefarm_project::config::LoadedProject::load(root, None, &[])?;
    match loaded.spec.environment.image {
        flakefarm_shared::ImageSource::Reference(reference) => Ok(reference),
        flakefarm_shared::ImageSource::Dockerfile(path) => {
            Err(Unmeasured::usage(format!("growth with image size needs an image, not {path}")))
        }
    }
}
