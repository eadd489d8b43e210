//! `flakefarm doctor`: what is wrong with this machine or farm, and what to type about it.

use crate::args::DoctorArgs;
use crate::exit::{Complaint, Exit};
use crate::role_settings::{self, of_role};
use crate::{embedded, output, stores};
use flakefarm_coordinator::history::retention::HistoryRetention;
use flakefarm_shared::WorkerId;
use flakefarm_shared::queue::Role;

pub(crate) async fn doctor(args: &DoctorArgs) -> Result<Exit, Complaint> {
    let Some(settings) = of_role(&args.role, &args.stores.options())? else { return Ok(Exit::Clean) };
    let mut well = true;
    let mut say = |what: &str, result: Result<String, Complaint>| -> Result<(), Complaint> {
        let line = match result {
            Ok(fact) => format!("ok    {what}: {fact}\n"),
            Err(complaint) => {
                well = false;
                let hint = complaint.hint.map(|hint| format!("\n      hint: {hint}")).unwrap_or_default();
                format!("FAIL  {what}: {}{hint}\n", complaint.message)
            }
        };
        output::print(&line)
    };
    say("container engine", engine().await)?;
    if let Some(url) = settings.text("stores.database") {
        say("database", stores::open_database(&url).await.map(|_| "answers, schema is current".to_owned()))?;
    }
    if settings.text("stores.queue").is_some() {
        say("queue", queue(role_settings::queue(&settings)).await)?;
    }
    if let Some(address) = settings.text("stores.samples") {
        say("samples", samples(&address).await)?;
    }
    if let Some(address) = settings.text("stores.blobs") {
        say("blobs", blobs(&address).await)?;
    }
    Ok(if well { Exit::Clean } else { Exit::FarmFailed })
}

async fn engine() -> Result<String, Complaint> {
    let engine = embedded::connect_engine(WorkerId(format!("doctor-{}", std::process::id()))).await?;
    let facts = engine.check().await?;
    engine.close().await;
    // Whether one of them starts anything on this machine is known when it has.
    let (default, runtimes) = (facts.default_runtime, facts.runtimes.join(", "));
    Ok(format!(
        "version {}, API {}, runtimes {runtimes} (default {default})",
        facts.version, facts.api_version
    ))
}

async fn queue(address: Result<String, Complaint>) -> Result<String, Complaint> {
    let queue = stores::open_queue(&address?, Role::Worker)?;
    let checked = queue.check().await;
    queue.close().await;
    checked?;
    Ok("answers, topology is there".to_owned())
}

async fn samples(address: &str) -> Result<String, Complaint> {
    stores::open_samples(address, &HistoryRetention::default()).await?.check().await?;
    Ok("answers".to_owned())
}

async fn blobs(address: &str) -> Result<String, Complaint> {
    let blobs = stores::open_blobs(address)?;
    let digest = blobs.put(b"flakefarm doctor".as_slice()).await?;
    blobs.get(&digest).await?;
    Ok("can be written and read".to_owned())
}
