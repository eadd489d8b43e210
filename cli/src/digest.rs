//! `flakefarm digest`: the week of a project on one page.

use crate::args::{DigestArgs, DigestFormat};
use crate::exit::{Complaint, Exit};
use crate::memory::{Memory, Place};
use crate::{output, stores};
use flakefarm_coordinator::digest::{self, html, markdown};
use flakefarm_shared::now_micros;

/// `flakefarm digest`.
pub(crate) async fn digest(args: &DigestArgs) -> Result<Exit, Complaint> {
    let memory = Memory::of(&args.memory)?;
    let days = args.since.as_secs().div_ceil(86_400).clamp(1, 366);
    let days = u16::try_from(days).expect("at most 366");
    let text = match memory.open().await? {
        Place::Farm(farm) => {
            let format = match args.format {
                DigestFormat::Markdown => "markdown",
                DigestFormat::Html => "html",
                DigestFormat::Json => "json",
            };
            farm.digest(&memory.project, days, format).await?
        }
        Place::Here { db, samples } => {
            memory.sum_up(&db, &samples).await?;
            let state = stores::state_dir(args.memory.state.as_deref())?;
            let blobs = stores::open_blobs(&format!("file://{}", state.join("blobs").display()))?;
            let found = digest::collect(&db, Some(&blobs), &memory.project, days, now_micros()).await?;
            match args.format {
                DigestFormat::Markdown => markdown::render(&found),
                DigestFormat::Html => html::render(&found),
                DigestFormat::Json => serde_json::to_string_pretty(&found)? + "\n",
            }
        }
    };
    match &args.output {
        Some(file) => output::write_file(file, &text)?,
        None => output::print(&text)?,
    }
    Ok(Exit::Clean)
}
