//! `/v1/snapshots` and `/v1/blobs`: bodies stream to and from the blob store, whatever their size.

use super::App;
use super::archive::{self, ArchiveError, ArchiveLimits};
use super::caller::{Caller, Projects};
use super::extract::Path;
use super::refused::{ErrorBody, Refused};
use super::views::Stored;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flakefarm_shared::Digest;
use flakefarm_shared::blobs::{BlobError, Blobs};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

/// Largest snapshot taken, compressed.
const SNAPSHOT_LIMIT: u64 = 512 << 20;
/// Snapshots that are taken at once; further ones wait.
pub(super) const UPLOADS_AT_ONCE: usize = 8;
/// Pieces of a body that wait to be stored.
const WAITING: usize = 8;

/// Store a snapshot.
///
/// The body is a zstd-compressed tar archive of a source tree.
#[utoipa::path(
    post, path = "/v1/snapshots", tag = "sweeps",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(("flakefarm-digest" = Option<String>, Header, description = "SHA-256 of the body, to be checked", pattern = "^[0-9a-f]{64}$")),
    responses((status = 201, body = Stored), (status = "default", body = ErrorBody)),
    security(("token" = ["submit"]))
)]
pub(super) async fn put_snapshot(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let named =
        match headers.get("flakefarm-digest").map(|value| value.to_str().unwrap_or("").parse::<Digest>()) {
            None => None,
            Some(Ok(digest)) => Some(digest),
            Some(Err(error)) => {
                return Err(Refused::new(StatusCode::BAD_REQUEST, format!("flakefarm-digest: {error}")));
            }
        };
    let _place = app.uploads.acquire().await.map_err(|_| unavailable())?;
    let (to_store, storing) = store(app.coordinator.blobs().clone());
    let (to_check, checking) = archive::check(ArchiveLimits::SNAPSHOT);
    let received = receive(body, &to_store, to_check).await;
    let checked = checking.await.map_err(|_| unavailable())?;
    let projects = caller.projects.names();
    let accepted = match (received, checked) {
        (Err(refused), _) => Err(refused),
        (Ok(_), Err(error)) => Err(bad_archive(&error)),
        (Ok(size), Ok(_files)) => room(&app, projects.as_deref().unwrap_or_default(), size).await,
    };
    let size = *accepted.as_ref().unwrap_or(&0);
    if accepted.is_ok() {
        // Only now is it kept: without this word, what was written is dropped.
        to_store.send(Piece::End(named)).await.map_err(|_| unavailable())?;
    }
    drop(to_store);
    let stored = storing.await.map_err(|_| unavailable())?;
    accepted?;
    let digest = stored?;
    if let Projects::Only(names) = &caller.projects {
        let names: Vec<String> = names.iter().cloned().collect();
        app.coordinator.db().charge_blob(&names, &digest, size).await?;
    }
    Ok((StatusCode::CREATED, Json(Stored { digest: digest.to_string() })).into_response())
}

/// Whether each of the projects may store so many bytes more; gives them back.
async fn room(app: &App, projects: &[String], bytes: u64) -> Result<u64, Refused> {
    for project in projects {
        app.coordinator.may_store(project, bytes).await??;
    }
    Ok(bytes)
}

/// Passes the body on, piece by piece; gives its size. A body that is refused is read to its end, within the limit, so
/// that its sender hears why.
async fn receive(
    body: Body,
    to_store: &mpsc::Sender<Piece>,
    to_check: mpsc::Sender<Bytes>,
) -> Result<u64, Refused> {
    let mut to_check = Some(to_check);
    let mut size = 0;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece
            .map_err(|error| Refused::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}")))?;
        size += piece.len() as u64;
        if size > SNAPSHOT_LIMIT {
            return Err(Refused::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("a snapshot has at most {} MiB", SNAPSHOT_LIMIT >> 20),
            )
            .hint("leave large files out with .gitignore"));
        }
        let Some(checker) = &to_check else { continue };
        if checker.send(piece.clone()).await.is_err() {
            to_check = None; // it has seen enough
            continue;
        }
        to_store.send(Piece::Data(piece)).await.map_err(|_| unavailable())?;
    }
    Ok(size)
}

/// What is sent to be stored.
enum Piece {
    Data(Bytes),
    /// All of it was sent; its digest, if its sender said so.
    End(Option<Digest>),
}

/// Begins to store what is sent. If the sender is dropped before the end, nothing is kept.
fn store(blobs: Blobs) -> (mpsc::Sender<Piece>, JoinHandle<Result<Digest, Refused>>) {
    let (sender, mut receiver) = mpsc::channel(WAITING);
    let storing = tokio::spawn(async move {
        let mut upload = blobs.upload().await?;
        loop {
            match receiver.recv().await {
                Some(Piece::Data(piece)) => {
                    if let Err(error) = upload.write(piece).await {
                        drop_upload(upload).await;
                        return Err(Refused::from(error));
                    }
                }
                Some(Piece::End(named)) => {
                    let damaged = named.is_some_and(|named| named != upload.digest());
                    if !damaged {
                        return Ok(upload.finish().await?);
                    }
                    drop_upload(upload).await;
                    return Err(Refused::new(StatusCode::BAD_REQUEST, "the snapshot was damaged on its way"));
                }
                None => {
                    drop_upload(upload).await;
                    return Err(unavailable());
                }
            }
        }
    });
    (sender, storing)
}

async fn drop_upload(upload: flakefarm_shared::blobs::Upload) {
    if let Err(error) = upload.abort().await {
        warn!(error = %error, "what a failed upload left behind could not be removed");
    }
}

fn unavailable() -> Refused {
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, "the snapshot could not be stored").hint("try again")
}

fn bad_archive(error: &ArchiveError) -> Refused {
    let status = match error {
        ArchiveError::Entries(_) | ArchiveError::Bytes(_) | ArchiveError::Links => {
            StatusCode::PAYLOAD_TOO_LARGE
        }
        ArchiveError::Unreadable(_) | ArchiveError::Empty | ArchiveError::Entry { .. } => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
    };
    Refused::new(status, error.to_string())
        .hint("a snapshot is made by flakefarm itself, of a project's tree")
}

/// Read a blob: an output that a report names, or a snapshot.
#[utoipa::path(
    get, path = "/v1/blobs/{digest}", tag = "sweeps",
    params(("digest" = String, Path, description = "SHA-256 in hexadecimal", pattern = "^[0-9a-f]{64}$")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = ErrorBody)
    ),
    security(("token" = ["read"]))
)]
pub(super) async fn get_blob(
    State(app): State<App>,
    caller: Caller,
    Path(digest): Path<String>,
) -> Result<Response, Refused> {
    let digest: Digest =
        digest.parse().map_err(|error| Refused::new(StatusCode::BAD_REQUEST, format!("{error}")))?;
    let missing = || Refused::new(StatusCode::NOT_FOUND, format!("blob {digest} is not in the store"));
    if let Projects::Only(names) = &caller.projects {
        let names: Vec<String> = names.iter().cloned().collect();
        if !app.coordinator.db().may_read_blob(&names, &digest).await? {
            return Err(missing());
        }
    }
    let (size, pieces) = match app.coordinator.blobs().stream(&digest).await {
        Ok(found) => found,
        Err(BlobError::Missing(_)) => return Err(missing()),
        Err(error) => return Err(error.into()),
    };
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}
