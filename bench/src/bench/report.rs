//! The results as data, and as text for people.

use super::control::ControlResult;
use super::growth::Growth;
use super::history::Figure;
use super::stats::{Spread, rounded};
use super::ways::Way;
use super::whole::Whole;
use flakefarm_shared::SandboxLevel;
use serde::Serialize;
use std::fmt::Write as _;

/// Version of the JSON document.
pub(crate) const SCHEMA: &str = "flakefarm.bench/v1";

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub(crate) struct BenchReport {
    pub(crate) schema: &'static str,
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Row>,
    pub(crate) unavailable: Vec<Unavailable>,
    pub(crate) pool: Option<PoolLatency>,
    pub(crate) sweeps: Vec<Whole>,
    pub(crate) control_plane: Vec<ControlResult>,
    pub(crate) growth: Vec<Growth>,
    pub(crate) history: Vec<Figure>,
}

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) engine: String,
    pub(crate) runtime: String,
    /// Whether the engine's images and containers lie in a memory file system of this machine.
    pub(crate) engine_in_memory: bool,
    pub(crate) flakefarm: &'static str,
    pub(crate) build: &'static str,
    pub(crate) attempts_at_once: u16,
    pub(crate) rounds: u32,
    /// Whose CPU time is counted: `machine` or `cgroup`.
    pub(crate) cpu_of: &'static str,
    /// Cores that were busy with something else before the run.
    pub(crate) background_cores: f64,
}

/// One way on one payload.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) payload: String,
    pub(crate) way: Way,
    pub(crate) attempts: u32,
    pub(crate) per_second: Spread,
    /// Against the loop of `docker run` in the same rounds.
    pub(crate) times_docker_run: Option<f64>,
    /// Per attempt, the engine's included.
    pub(crate) cpu_seconds: Spread,
    /// CPU seconds of the loop of `docker run` over these: what a busy machine still tells.
    pub(crate) cpu_times_docker_run: Option<f64>,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    /// Of the machine's memory, beyond what was taken before.
    pub(crate) peak_mib: f64,
    pub(crate) isolated: &'static str,
}

/// A way that cannot be gone here.
#[derive(Debug, Serialize)]
pub(crate) struct Unavailable {
    pub(crate) payload: String,
    pub(crate) way: Way,
    pub(crate) why: String,
}

/// From the request to the first instruction, with containers kept ready.
#[derive(Debug, Serialize)]
pub(crate) struct PoolLatency {
    pub(crate) attempts: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// How tables are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Markdown,
}

/// What the README compares, in its order and words.
const SUMMARY: [(Way, &str); 6] = [
    (Way::DockerRun, "`docker run --rm`, each"),
    (Way::Level(SandboxLevel::Container), "flakefarm, `container` (a fresh container each)"),
    (Way::Level(SandboxLevel::Nested), "flakefarm, `nested` (fresh namespaces in one container)"),
    (Way::Level(SandboxLevel::Forked), "flakefarm, `forked` (the same, after import and collection)"),
    (Way::BareProcess, "a bare process each, no isolation"),
    (Way::InProcess, "repeated in one process, no isolation"),
];

impl BenchReport {
    /// The table of the README; nothing if one test was not measured.
    pub(crate) fn summary(&self) -> Option<String> {
        let row = |way| self.rows.iter().find(|row| row.way == way && row.payload == "one test");
        let cells = |(way, words): &(Way, &str)| {
            let row = row(*way)?;
            let times = row.times_docker_run.map_or_else(|| "-".to_owned(), rounded);
            Some(vec![(*words).to_owned(), rounded(row.per_second.median), times])
        };
        let rows: Vec<Vec<String>> = SUMMARY.iter().filter_map(cells).collect();
        let heads = ["isolation", "one trivial test, attempts/s", "times the loop of `docker run`"];
        (!rows.is_empty())
            .then(|| format!("{}{}", self.machine.text(), table(&heads, &rows, Style::Markdown)))
    }

    /// All tables.
    pub(crate) fn text(&self, style: Style) -> String {
        let mut text = self.machine.text();
        let mut payloads: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !payloads.contains(&row.payload.as_str()) {
                payloads.push(&row.payload);
            }
        }
        for payload in payloads {
            let rows: Vec<Vec<String>> =
                self.rows.iter().filter(|row| row.payload == payload).map(Row::cells).collect();
            let heads = [
                payload,
                "attempts/s",
                "least-most",
                "× docker run",
                "CPU ms",
                "× less CPU",
                "p50 ms",
                "p99 ms",
                "peak MiB",
                "isolated",
            ];
            text.push_str(&table(&heads, &rows, style));
        }
        if let Some(pool) = &self.pool {
            writeln!(
                text,
                "\nA container that was kept ready runs its first instruction after {:.1} ms (p50; p99 {:.1} ms, {} attempts).",
                pool.p50_ms, pool.p99_ms, pool.attempts
            )
            .expect("writing to memory");
        }
        if !self.sweeps.is_empty() {
            let rows: Vec<Vec<String>> = self.sweeps.iter().map(Whole::cells).collect();
            let heads =
                ["whole sweep", "tests", "samples", "seconds", "loop of docker run, seconds", "times faster"];
            text.push_str(&table(&heads, &rows, style));
            text.push_str(
                "The loop was not run to its end: its time is its measured rate on single tests, times the samples.\n",
            );
        }
        if !self.control_plane.is_empty() {
            let rows: Vec<Vec<String>> = self.control_plane.iter().map(ControlResult::cells).collect();
            let heads = [
                "control plane",
                "workers",
                "jobs/s",
                "samples/s",
                "coordinator CPU s per 1,000 attempts",
                "bytes per queued attempt",
            ];
            text.push_str(&table(&heads, &rows, style));
        }
        if !self.history.is_empty() {
            let rows: Vec<Vec<String>> = self.history.iter().map(Figure::cells).collect();
            text.push_str(&table(&["history", "what", "measured", "claimed", "holds"], &rows, style));
        }
        if !self.growth.is_empty() {
            let rows: Vec<Vec<String>> = self.growth.iter().map(Growth::cells).collect();
            text.push_str(&table(&["growth with", "of", "value", "unit"], &rows, style));
        }
        for missing in &self.unavailable {
            writeln!(
                text,
                "not measured: {} on {}: {}",
                missing.way,
                missing.payload,
                first_line(&missing.why)
            )
            .expect("writing to memory");
        }
        text
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

impl Machine {
    fn text(&self) -> String {
        let mut text = format!(
            "flakefarm {} ({}), {} cores, Linux {}, Docker {} with {}{}, {} attempts at once, medians of {} rounds; CPU time of the {}.\n",
            self.flakefarm,
            self.build,
            self.cores,
            self.kernel,
            self.engine,
            self.runtime,
            if self.engine_in_memory { " and its files in memory" } else { "" },
            self.attempts_at_once,
            self.rounds,
            self.cpu_of
        );
        if self.background_cores > 0.2 {
            writeln!(
                text,
                "warning: {:.1} cores were busy with something else: compare within this run only",
                self.background_cores
            )
            .expect("writing to memory");
        }
        text
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let optional = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        vec![
            self.way.to_string(),
            rounded(self.per_second.median),
            format!("{}-{}", rounded(self.per_second.min), rounded(self.per_second.max)),
            optional(self.times_docker_run, 1),
            rounded(self.cpu_seconds.median * 1e3),
            optional(self.cpu_times_docker_run, 1),
            optional(self.p50_ms, 1),
            optional(self.p99_ms, 1),
            format!("{:.0}", self.peak_mib),
            self.isolated.to_owned(),
        ]
    }
}

/// A table with its heads; the first column to the left, the others to the right.
fn table(heads: &[&str], rows: &[Vec<String>], style: Style) -> String {
    let mut text = String::from("\n");
    match style {
        Style::Markdown => {
            writeln!(text, "| {} |", heads.join(" | ")).expect("writing to memory");
            let rules: Vec<&str> = (0..heads.len()).map(|n| if n == 0 { "---" } else { "---:" }).collect();
            writeln!(text, "| {} |", rules.join(" | ")).expect("writing to memory");
            for row in rows {
                writeln!(text, "| {} |", row.join(" | ")).expect("writing to memory");
            }
        }
        Style::Plain => {
            let width = |n: usize| {
                let cells = rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count());
                cells.chain([heads[n].chars().count()]).max().unwrap_or(0)
            };
            let widths: Vec<usize> = (0..heads.len()).map(width).collect();
            let line = |cells: &[String]| {
                let padded = cells.iter().zip(&widths).enumerate().map(|(n, (cell, width))| {
                    if n == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                });
                padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
            };
            let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
            writeln!(text, "{}", line(&heads)).expect("writing to memory");
            for row in rows {
                writeln!(text, "{}", line(row)).expect("writing to memory");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_in_plain_text_and_piped_in_markdown() {
        let rows = [vec!["a".to_owned(), "10".to_owned()], vec!["longer".to_owned(), "1".to_owned()]];
        assert_eq!(
            table(&["way", "rate"], &rows, Style::Plain),
            "\nway     rate\na         10\nlonger     1\n"
        );
        assert_eq!(
            table(&["way", "rate"], &rows, Style::Markdown),
            "\n| way | rate |\n| --- | ---: |\n| a | 10 |\n| longer | 1 |\n"
        );
    }

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(["1.23", "12.3", "1234"], [rounded(1.234), rounded(12.34), rounded(1234.4)].map(|s| s));
    }
}
