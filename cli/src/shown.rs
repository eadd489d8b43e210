//! `flakefarm report`: a report that is there already, of a sweep or in a file, in any format.

use crate::args::ReportArgs;
use crate::exit::{Complaint, Exit};
use crate::output::{self, Outputs};
use crate::{operators, stores};
use flakefarm_coordinator::report::Report;
use flakefarm_shared::SweepId;
use std::path::Path;

/// `flakefarm report ID|FILE`.
pub(crate) async fn show(args: &ReportArgs) -> Result<Exit, Complaint> {
    let file = Path::new(&args.what);
    match args.what.parse::<SweepId>() {
        Ok(sweep) if !file.exists() => operators::report(sweep, &args.place, &args.output).await,
        Ok(_) | Err(_) => rerender(file, args).await,
    }
}

async fn rerender(file: &Path, args: &ReportArgs) -> Result<Exit, Complaint> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Complaint::usage(format!("failed to read {}: {error}", file.display()))
            .hint("a report is named by its file, or by its sweep's id: flakefarm sweeps lists them")
    })?;
    let report: Report = serde_json::from_str(&text).map_err(|error| {
        Complaint::usage(format!("{} is not a flakefarm report: {error}", file.display()))
            .hint("write one with flakefarm sweep --format json --output FILE")
    })?;
    let state = stores::state_dir(args.place.state.as_deref())?;
    let blobs = stores::open_blobs(&format!("file://{}", state.join("blobs").display()))?;
    output::write(&report, &args.output, &Outputs::Blobs(blobs)).await?;
    Ok(Exit::Clean)
}
