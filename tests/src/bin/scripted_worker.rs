//! A farm's worker whose attempts are scripted: real queue, samples, blobs, spool and signals, and no
//! container. Faults and load are tried on it. Stores come from the environment, as `flakefarm worker`
//! reads them; each attempt that starts is a line in the file `--starts`.

use anyhow::Context as _;
use flakefarm_shared::WorkerId;
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::queue::{Queue, Role};
use flakefarm_shared::samples::{RedisSamples, Retention};
use flakefarm_worker::ceilings::Ceilings;
use flakefarm_worker::environment::{Environments, PreparedImage};
use flakefarm_worker::sandbox::{Sandbox, ScriptedSandbox};
use flakefarm_worker::{Ending, Spool, WorkerParts};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _already_chosen = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ([id, slots, tests, pace_ms, dir], failing) = (match arguments.as_slice() {
        [rest @ .., failing] if rest.len() == 5 => (rest, failing.parse::<u32>()?),
        rest => (rest, 0),
    }) else {
        anyhow::bail!("usage: scripted_worker ID SLOTS TESTS PACE_MS DIR [FAILING_PERCENT]");
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let (id, dir) = (WorkerId(id.clone()), Path::new(dir));
    let store = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let sandbox = ScriptedSandbox::new(tests.parse::<NonZeroU32>()?)
        .paced(Duration::from_millis(pace_ms.parse()?), &dir.join("starts"))
        .failing(failing);
    let queue = Queue::open(&store("FLAKEFARM_QUEUE")?, Role::Worker)?;
    let samples = RedisSamples::open(&store("FLAKEFARM_SAMPLES")?, Retention::default(), None)?;
    let parts = WorkerParts {
        spool: Some(Spool::open(&dir.join("spool"), &id)?),
        id,
        slots: slots.parse::<NonZeroU16>()?,
        queue: queue.clone(),
        samples: Arc::new(samples),
        blobs: Blobs::open(&store("FLAKEFARM_BLOBS")?)?,
        environments: Environments::Given(PreparedImage { image_id: "scripted".to_owned() }),
        sandbox: Sandbox::Scripted(sandbox),
        ceilings: Ceilings::default(),
        health: None,
    };
    let ending = Ending::default();
    let mut told = signal(SignalKind::terminate())?;
    let Ending { drain, stop } = ending.clone();
    let listening = tokio::spawn(async move {
        told.recv().await;
        drain.cancel();
        told.recv().await;
        stop.cancel();
    });
    flakefarm_worker::run(parts, ending).await;
    listening.abort();
    queue.close().await;
    Ok(())
}
