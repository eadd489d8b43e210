//! Reports to files and standard output, in every format.

use crate::args::{Format, OutputArgs};
use crate::codequality;
use crate::exit::Complaint;
use crate::farm::Farm;
use crate::say::say;
use flakefarm_coordinator::report::{self, Report, Style};
use flakefarm_shared::Digest;
use flakefarm_shared::blobs::Blobs;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;

/// Where the captured outputs lie that a report names.
pub(crate) enum Outputs {
    /// In a blob store.
    Blobs(Blobs),
    /// On a farm.
    Farm(Farm),
}

impl Outputs {
    /// The text of an output; `None` if it is gone, which a report survives.
    pub(crate) async fn text(&self, digest: &str) -> Option<String> {
        let content = match self {
            Outputs::Blobs(blobs) => blobs.get(&digest.parse::<Digest>().ok()?).await.ok()?,
            Outputs::Farm(farm) => farm.blob(digest).await.ok()?,
        };
        Some(String::from_utf8_lossy(&content).into_owned())
    }
}

/// Writes the report as asked.
pub(crate) async fn write(report: &Report, args: &OutputArgs, outputs: &Outputs) -> Result<(), Complaint> {
    let mut texts = BTreeMap::new();
    if args.html.is_some() || is_diagnosis(report) {
        for digest in report.output_digests() {
            if let Some(text) = outputs.text(&digest).await {
                texts.insert(digest, text);
            }
        }
    }
    let text = render(report, args, &texts);
    match &args.output {
        Some(file) => write_file(file, &text)?,
        None => print(&text)?,
    }
    if let Some(file) = &args.html {
        write_file(file, &report::html::render(report, &texts))?;
        say(format!("wrote {}", file.display()));
    }
    Ok(())
}

fn render(report: &Report, args: &OutputArgs, texts: &BTreeMap<String, String>) -> String {
    match args.format {
        Format::Human => {
            let to_terminal = args.output.is_none() && std::io::stdout().is_terminal();
            let colour = to_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            let style = if colour { Style::Ansi } else { Style::Plain };
            let width = if to_terminal { terminal_width() } else { 100 };
            if is_diagnosis(report) {
                report::diagnosis::render(report, texts, style, width)
            } else if report.sweep.question == "validate" {
                report::comparison::render(report, style, width)
            } else if report.sweep.question == "bisect" {
                report::bisection::render(report, style, width)
            } else {
                report::table::render(report, style, width)
            }
        }
        Format::Json => {
            let mut text = serde_json::to_string_pretty(report).expect("a report serialises");
            text.push('\n');
            text
        }
        Format::Junit => report::junit::render(report),
        Format::Markdown => report::markdown::render(report),
        Format::Github => report::github::render(report),
        Format::Gitlab => codequality::of_report(report),
    }
}

/// As the shell says, else 100 columns.
fn terminal_width() -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    asked.unwrap_or(100).clamp(60, 160)
}

fn is_diagnosis(report: &Report) -> bool {
    report.sweep.question == "diagnose"
}

/// Writes to standard output; a reader that went away is no error.
pub(crate) fn print(text: &str) -> Result<(), Complaint> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Complaint::farm(format!("failed to write the report: {error}")))
        }
        _ => Ok(()),
    }
}

pub(crate) fn write_file(file: &Path, text: &str) -> Result<(), Complaint> {
    std::fs::write(file, text)
        .map_err(|error| Complaint::farm(format!("failed to write {}: {error}", file.display())))
}
