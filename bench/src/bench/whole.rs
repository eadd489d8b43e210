//! A whole sweep, by this very program, against the loop that asks the same: `docker run` for each test
//! and run, with as many samples of each test.

use super::payload::SUITE_TESTS;
use super::stats::rounded;
use crate::Unmeasured;
use serde::Serialize;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;
use tokio::process::Command;

/// One sweep and the loop it stands for.
#[derive(Debug, Serialize)]
pub(crate) struct Whole {
    /// Its `--sandbox`, or `default`.
    pub(crate) sandbox: String,
    pub(crate) tests: usize,
    pub(crate) samples: u64,
    pub(crate) seconds: f64,
    /// Extrapolated from the loop's rate on single tests.
    pub(crate) loop_seconds: f64,
    pub(crate) times_faster: f64,
}

impl Whole {
    pub(crate) fn cells(&self) -> Vec<String> {
        vec![
            format!("--sandbox {}", self.sandbox),
            self.tests.to_string(),
            self.samples.to_string(),
            rounded(self.seconds),
            rounded(self.loop_seconds),
            rounded(self.times_faster),
        ]
    }
}

/// Sweeps the project at `root` to the 5 % guarantee; the loop reaches `loop_per_second` single tests.
pub(crate) async fn sweep(
    root: &Path,
    state: &Path,
    sandbox: &str,
    loop_per_second: f64,
) -> Result<Whole, Unmeasured> {
    let begun = Instant::now();
    let said = Command::new(std::env::current_exe()?)
        .args(["sweep", "--seed", "1", "--max-flake-rate", "5%", "--format", "json", "--sandbox", sandbox])
        .arg("--state")
        .arg(state)
        .arg(root)
        .env_remove("FLAKEFARM_FARM")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output()
        .await?;
    let seconds = begun.elapsed().as_secs_f64();
    let report: serde_json::Value = serde_json::from_slice(&said.stdout).map_err(|_| {
        Unmeasured::farm(format!("the sweep at level {sandbox} gave no report: {}", said.status))
            .log(String::from_utf8_lossy(&said.stderr))
    })?;
    let samples = report["sweep"]["samples"].as_u64().unwrap_or(0);
    let tests = report["tests"].as_array().map_or(0, Vec::len);
    if tests != SUITE_TESTS {
        return Err(Unmeasured::farm(format!("the sweep saw {tests} tests of {SUITE_TESTS}")));
    }
    let loop_seconds = samples as f64 / loop_per_second;
    Ok(Whole {
        sandbox: sandbox.to_owned(),
        tests,
        samples,
        seconds,
        loop_seconds,
        times_faster: loop_seconds / seconds,
    })
}
