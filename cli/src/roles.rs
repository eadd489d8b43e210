//! The roles of a farm: coordinator, worker, and the tokens that guard it.

use crate::args::{CoordinatorArgs, TokenAction, TokenArgs, WorkerArgs};
use crate::exit::{Complaint, Exit};
use crate::{embedded, output, signals, stores};
use flakefarm_coordinator::Coordinator;
use flakefarm_coordinator::db::Db;
use flakefarm_coordinator::http::{self, TokenKind, issue_token};
use flakefarm_shared::queue::Role;
use flakefarm_shared::{WorkerId, now_micros};
use flakefarm_worker::Ending;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tracing::{info, warn};

pub(crate) async fn coordinator(args: &CoordinatorArgs) -> Result<Exit, Complaint> {
    let stop = signals::stop_on_signal()?;
    let queue = stores::open_queue(args.stores.queue()?, Role::Coordinator)?;
    let blobs = stores::open_blobs(args.stores.blobs()?)?;
    let db = stores::open_database(args.stores.database()?).await?;
    if let Err(error) = queue.check().await {
        warn!(error = %error, "the broker is not there yet; jobs wait in the database until it is");
    }
    if let Some(file) = &args.admin_token_file {
        admin_token(&db, file).await?;
    }
    let listener = tokio::net::TcpListener::bind(&args.listen)
        .await
        .map_err(|error| Complaint::farm(format!("failed to listen on {}: {error}", args.listen)))?;
    let coordinator = Coordinator::new(db, queue.clone(), blobs, args.lease);
    let served = tokio::spawn(http::serve(listener, coordinator.clone(), stop.clone()));
    coordinator.run(stop).await;
    served.await??;
    queue.close().await;
    Ok(Exit::Clean)
}

/// Issues the first admin token, once.
async fn admin_token(db: &Db, file: &Path) -> Result<(), Complaint> {
    let kind = TokenKind::Admin;
    if file.exists()
        || db.tokens().await?.iter().any(|token| token.kind == kind.word() && token.revoked_at.is_none())
    {
        return Ok(());
    }
    let token = issue_token(db, kind, "first admin", None).await?;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut opened| writeln!(opened, "{token}"))
        .map_err(|error| Complaint::farm(format!("failed to write {}: {error}", file.display())))?;
    info!(file = %file.display(), "issued an admin token");
    Ok(())
}

pub(crate) async fn worker(args: &WorkerArgs) -> Result<Exit, Complaint> {
    let stop = signals::stop_on_signal()?;
    let id = WorkerId(args.id.clone().unwrap_or_else(default_id));
    let queue = stores::open_queue(args.stores.queue()?, Role::Worker)?;
    let samples = stores::open_samples(args.stores.samples()?).await?;
    let blobs = stores::open_blobs(args.stores.blobs()?)?;
    let docker = embedded::connect_docker(id.clone(), &args.runtime).await?;
    if let Err(error) = samples.check().await {
        warn!(error = %error, "the sample store is not there yet");
    }
    let slots = args.slots.unwrap_or_else(embedded::slots_of_this_machine);
    let parts = embedded::worker_parts(id, slots, queue.clone(), samples, blobs, docker);
    // Told to stop, a worker takes no more and finishes its jobs; they are two minutes long at most.
    let ending = Ending { drain: stop, stop: tokio_util::sync::CancellationToken::new() };
    flakefarm_worker::run(parts, ending).await;
    queue.close().await;
    Ok(Exit::Clean)
}

fn default_id() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "worker".to_owned());
    format!("{}-{}", host.trim(), std::process::id())
}

pub(crate) async fn token(args: &TokenArgs) -> Result<Exit, Complaint> {
    let url = stores::needed(args.database.as_ref(), "database", "FLAKEFARM_DATABASE")?;
    let db = stores::open_database(url).await?;
    match &args.action {
        TokenAction::Create { kind, label, expires_in } => {
            let expires_at = expires_in
                .map(|valid| now_micros() + i64::try_from(valid.as_micros()).unwrap_or(i64::MAX / 2));
            let token = issue_token(&db, *kind, label, expires_at).await?;
            output::print(&format!("{token}\n"))?;
        }
        TokenAction::List => {
            let mut text = String::new();
            for token in db.tokens().await? {
                let state = if token.revoked_at.is_some() {
                    "revoked"
                } else if token.expires_at.is_some_and(|at| at <= now_micros()) {
                    "expired"
                } else {
                    "valid"
                };
                text.push_str(&format!("{}  {:6}  {:7}  {}\n", token.id, token.kind, state, token.label));
            }
            output::print(&text)?;
        }
        TokenAction::Revoke { id } => {
            if db.token(id).await?.is_none() {
                return Err(Complaint::usage(format!("token {id} is not known"))
                    .hint("flakefarm token list names them"));
            }
            db.revoke_token(id, now_micros()).await?;
        }
    }
    Ok(Exit::Clean)
}
