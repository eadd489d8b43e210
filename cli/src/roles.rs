//! The roles of a farm: coordinator, worker, and the tokens that guard it.

use crate::args::values::parsed;
use crate::args::{CoordinatorArgs, TokenAction, TokenArgs, WorkerArgs};
use crate::exit::{Complaint, Exit};
use crate::repair::OnFarm;
use crate::role_settings::{self, needed, of_role};
use crate::telemetry::set_own_ids;
use crate::{embedded, operators, output, signals, stores};
use flakefarm_coordinator::db::Db;
use flakefarm_coordinator::http::{self, NewToken, Projects, TokenKind, issue_token};
use flakefarm_coordinator::{Coordinator, engine};
use flakefarm_shared::metrics::watch_runtime;
use flakefarm_shared::queue::Role;
use flakefarm_shared::{WorkerId, now_micros};
use flakefarm_worker::ceilings::Ceilings;
use flakefarm_worker::{Ending, Spool, WorkerParts};
use std::io::Write;
use std::num::NonZeroU16;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// For running attempts to end, unless told otherwise.
const GRACE: Duration = Duration::from_secs(60);

pub(crate) async fn coordinator(args: &CoordinatorArgs) -> Result<Exit, Complaint> {
    let Some(settings) = of_role(&args.role, &args.options())? else { return Ok(Exit::Clean) };
    let stop = signals::stop_on_signal()?;
    let repairs = settings.whole::<usize>("coordinator.repairs").filter(|at_once| *at_once > 0);
    let repairer = repairs.map(|_| OnFarm::open()).transpose()?;
    let queue = stores::open_queue(&role_settings::queue(&settings)?, Role::Coordinator)?;
    let blobs = stores::open_blobs(&needed(&settings, "stores.blobs")?)?;
    let db = stores::open_database(&needed(&settings, "stores.database")?).await?;
    if let Err(error) = queue.check().await {
        warn!(error = %error, "the broker is not there yet; jobs wait in the database until it is");
    }
    if let Some(file) = settings.text("coordinator.admin_token_file") {
        admin_token(&db, Path::new(&file)).await?;
    }
    let listen = settings.text("coordinator.listen").unwrap_or_default();
    let listener = bind(&listen).await?;
    let lease = settings.duration("coordinator.lease").unwrap_or(engine::DEFAULT_LEASE);
    let keep = role_settings::retention(&settings)?;
    let mut coordinator = Coordinator::new(db, queue.clone(), blobs, lease)
        .with_retention(keep)
        .with_limits(role_settings::limits(&settings))
        .with_quotas(role_settings::quotas(&settings))
        .with_fetching(role_settings::fetching(&settings));
    if let Some((repairer, at_once)) = repairer.zip(repairs) {
        coordinator = coordinator.with_repairer(Arc::new(repairer), at_once);
    }
    match settings.text("stores.samples") {
        Some(address) => coordinator = coordinator.with_samples(stores::open_samples(&address, &keep).await?),
        None => {
            warn!("no sample store is named (--samples): history does not grow, and CI's reports are refused")
        }
    }
    set_own_ids(vec![("coordinator.id", coordinator.holder().to_owned())]);
    let watching = tokio::spawn(watch_runtime(stop.clone()));
    let served = tokio::spawn(http::serve(listener, coordinator.clone(), stop.clone()));
    coordinator.run(stop).await;
    served.await??;
    watching.await?;
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
    let token = NewToken {
        kind,
        scopes: None,
        projects: Projects::All,
        label: "first admin".to_owned(),
        expires_at: None,
    };
    let token = issue_token(db, token).await?;
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
    let Some(settings) = of_role(&args.role, &args.options())? else { return Ok(Exit::Clean) };
    let ceilings = ceilings(settings.text("worker.ceilings").as_deref())?;
    let told = signals::watch()?;
    let id = WorkerId(settings.text("worker.id").unwrap_or_else(default_id));
    set_own_ids(vec![("worker.id", id.0.clone())]);
    let queue = stores::open_queue(&role_settings::queue(&settings)?, Role::Worker)?;
    let samples =
        stores::open_samples(&needed(&settings, "stores.samples")?, &role_settings::retention(&settings)?)
            .await?;
    let blobs = stores::open_blobs(&needed(&settings, "stores.blobs")?)?;
    let runtime = settings.parsed("worker.runtime", parsed).map_err(|error| Complaint::of_setting(&error))?;
    let docker =
        embedded::connect_docker(id.clone(), &runtime.unwrap_or_default(), ceilings.network_name()).await?;
    if let Err(error) = samples.check().await {
        warn!(error = %error, "the sample store is not there yet");
    }
    let slots = settings.whole("worker.slots").and_then(NonZeroU16::new);
    let slots = slots.unwrap_or_else(embedded::slots_of_this_machine);
    let dir = match settings.text("worker.spool") {
        Some(dir) => dir.into(),
        None => stores::state_dir_here()?.join("spool"),
    };
    let spool = Spool::open(&dir, &id).map_err(|error| {
        Complaint::farm(format!("failed to open the spool {}: {error}", dir.display()))
            .hint("name a directory with --spool; each worker needs an --id of its own")
    })?;
    let health = match settings.text("worker.health_listen") {
        Some(address) => Some(bind(&address).await?),
        None => None,
    };
    let parts = WorkerParts {
        spool: Some(spool),
        health,
        ..embedded::worker_parts(id, slots, queue.clone(), samples, blobs, docker, ceilings)
    };
    let ending = Ending { drain: told.stop.clone(), stop: told.hurry.child_token() };
    let graced = tokio::spawn({
        let (drain, stop) = (ending.drain.clone(), ending.stop.clone());
        let grace = settings.duration("worker.grace").unwrap_or(GRACE);
        async move {
            drain.cancelled().await;
            tokio::time::sleep(grace).await;
            stop.cancel();
        }
    });
    let over = CancellationToken::new();
    let watching = tokio::spawn(watch_runtime(over.clone()));
    flakefarm_worker::run(parts, ending).await;
    over.cancel();
    watching.await?;
    graced.abort();
    queue.close().await;
    Ok(if told.hurry.is_cancelled() { Exit::Interrupted } else { Exit::Clean })
}

async fn bind(address: &str) -> Result<TcpListener, Complaint> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| Complaint::farm(format!("failed to listen on {address}: {error}")))
}

/// What submissions may have on this worker, out of the operator's file.
fn ceilings(file: Option<&str>) -> Result<Ceilings, Complaint> {
    const HINT: &str = "`ceilings` under [worker] in --config FILE (FLAKEFARM_CEILINGS) names a TOML file: see docs/sandboxes.md";
    let Some(file) = file else { return Ok(Ceilings::default()) };
    let text = std::fs::read_to_string(file)
        .map_err(|error| Complaint::usage(format!("failed to read {file}: {error}")).hint(HINT))?;
    Ceilings::parse(&text).map_err(|error| Complaint::usage(format!("{file}: {error}")).hint(HINT))
}

fn default_id() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "worker".to_owned());
    format!("{}-{}", host.trim(), std::process::id())
}

pub(crate) async fn token(args: &TokenArgs) -> Result<Exit, Complaint> {
    let settings = role_settings::settings(args.config.as_deref(), &args.options())?;
    let db = stores::open_database(&needed(&settings, "stores.database")?).await?;
    match &args.action {
        TokenAction::Create { kind, scope, project, label, expires_in } => {
            let expires_at = expires_in
                .map(|valid| now_micros() + i64::try_from(valid.as_micros()).unwrap_or(i64::MAX / 2));
            let scopes = (!scope.is_empty()).then(|| scope.iter().copied().collect());
            let projects = match project.as_slice() {
                [] => Projects::All,
                names => Projects::Only(names.iter().cloned().collect()),
            };
            let token = NewToken { kind: *kind, scopes, projects, label: label.clone(), expires_at };
            let token = issue_token(&db, token).await?;
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
                let scopes = token.scopes.map_or(token.kind, |scopes| scopes.join("+"));
                let projects = token.projects.map_or("all projects".to_owned(), |names| names.join(", "));
                let used = token.last_used.map_or("never used".to_owned(), |at| {
                    format!("used {} ago", operators::duration((now_micros() - at) / 1_000_000))
                });
                let (id, label) = (token.id, token.label);
                text.push_str(&format!("{id}  {scopes:6}  {state:7}  {projects}  {used}  {label}\n"));
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
