//! `flakefarm export` and `flakefarm import`: sweeps from this machine's own state to a file, and from a file to
//! a farm, or to another machine's state. Ids and history are kept.

use crate::args::{ExportArgs, ImportArgs};
use crate::ask::config_complaint;
use crate::exit::{Complaint, Exit};
use crate::farm::Farm;
use crate::memory::open_here;
use crate::{output, stores};
use flakefarm_coordinator::Coordinator;
use flakefarm_coordinator::engine::{self, Imported};
use flakefarm_coordinator::moving::{Archive, Exported, MovingError, Piece, Wanted, export as write};
use flakefarm_project::config::without_project;
use flakefarm_project::settings::size_about;
use flakefarm_shared::now_micros;
use flakefarm_shared::queue::Role;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use tokio::sync::mpsc;

/// `flakefarm export`.
pub(crate) async fn export(args: &ExportArgs) -> Result<Exit, Complaint> {
    let (db, _) = open_here(args.state.as_deref()).await?;
    let blobs = blobs_here(args.state.as_deref())?;
    let since = args.since.map_or(0, |age| {
        now_micros().saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX)).max(0)
    });
    let wanted = Wanted { project: args.project.clone(), since };
    let unwritable =
        |error: std::io::Error| Complaint::farm(format!("failed to write {}: {error}", args.file.display()));
    // Beside the file that it becomes when it is whole.
    let dir = args.file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !dir.is_dir() || args.file.is_dir() {
        let why = if args.file.is_dir() { "it is a directory" } else { "its directory is not there" };
        return Err(Complaint::usage(format!("failed to write {}: {why}", args.file.display())));
    }
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(unwritable)?;
    let exported = Box::pin(write(&db, &blobs, &wanted, BufWriter::new(file.as_file_mut()))).await;
    let exported = exported.map_err(|error| complaint(&error, &args.file))?;
    db.close().await;
    file.persist(&args.file).map_err(|error| unwritable(error.error))?;
    output::print(&said(&exported, &args.file))?;
    Ok(Exit::Clean)
}

fn said(exported: &Exported, file: &Path) -> String {
    let Exported { sweeps, open, blobs, gone, large, bytes } = *exported;
    let mut text = format!(
        "exported {sweeps} sweeps with {blobs} blobs ({}) to {}\n",
        size_about(bytes),
        file.display()
    );
    if open > 0 {
        text.push_str(&format!("{open} sweeps have not ended, and stay here\n"));
    }
    if gone > 0 {
        text.push_str(&format!("{gone} blobs were kept long enough, and are gone\n"));
    }
    if large > 0 {
        text.push_str(&format!("{large} snapshots are too large to travel, and stay here\n"));
    }
    text.push_str(&format!("hint: flakefarm import {} --farm URL\n", file.display()));
    text
}

/// `flakefarm import`.
pub(crate) async fn import(args: &ImportArgs) -> Result<Exit, Complaint> {
    let settings = without_project(&args.place.farm.options()).map_err(|error| config_complaint(&error))?;
    let open = || {
        let unreadable = |why: String| {
            Complaint::usage(format!("failed to read {}: {why}", args.file.display()))
                .hint("`flakefarm export FILE` writes such a file")
        };
        if args.file.is_dir() {
            return Err(unreadable("it is a directory".to_owned()));
        }
        File::open(&args.file).map_err(|error| unreadable(error.to_string()))
    };
    // Before anything goes anywhere: what is no export is nobody's business but its owner's.
    let checked = Archive::of(open()?).check(now_micros());
    checked.map_err(|error| complaint(&error, &args.file))?;
    let imported = match settings.text("farm.url") {
        Some(address) => {
            let farm = Farm::new(&address, settings.text("farm.token"))?;
            farm.check().await?;
            farm.import(open()?).await?
        }
        None => Box::pin(import_here(open()?, args)).await?,
    };
    let Imported { new, known, blobs } = imported;
    output::print(&format!("imported {new} sweeps with {blobs} blobs; {known} were known already\n"))?;
    Ok(Exit::Clean)
}

/// Into this machine's own state.
async fn import_here(file: File, args: &ImportArgs) -> Result<Imported, Complaint> {
    let state = args.place.state.as_deref();
    let failed = |error: MovingError| complaint(&error, &args.file);
    let mut archive = Archive::of(file);
    let (db, samples) = open_here(state).await?;
    let queue = stores::open_queue("embedded:", Role::Coordinator)?;
    let coordinator = Coordinator::embedded(db, queue, blobs_here(state)?, engine::DEFAULT_LEASE);
    let coordinator = coordinator.with_samples(samples);
    let (pieces, mut received) = mpsc::channel::<Piece>(1);
    let reading = tokio::task::spawn_blocking(move || {
        archive.pieces(|piece| {
            let gone = |_| MovingError::Unreadable("nobody takes it any more".to_owned());
            pieces.blocking_send(piece).map_err(gone)
        })
    });
    let mut imported = Imported::default();
    while let Some(piece) = received.recv().await {
        Box::pin(coordinator.import(piece, &mut imported)).await?;
    }
    reading.await?.map_err(failed)?;
    coordinator.db().close().await;
    Ok(imported)
}

fn blobs_here(state: Option<&Path>) -> Result<flakefarm_shared::blobs::Blobs, Complaint> {
    let blobs = stores::state_dir(state)?.join("blobs");
    stores::open_blobs(&format!("file://{}", blobs.display()))
}

fn complaint(error: &MovingError, file: &Path) -> Complaint {
    let complaint = Complaint::wrong(error, None);
    match error {
        MovingError::Io(_) | MovingError::Store(_) => Complaint::of(error),
        MovingError::Unreadable(_) | MovingError::Damaged(_) | MovingError::Nonsense { .. } => complaint
            .hint(format!("flakefarm export {} writes it again, where it comes from", file.display())),
        MovingError::Later(_) => complaint,
    }
}
