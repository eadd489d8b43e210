//! `POST /v1/imports`: sweeps that ended elsewhere. The body is streamed to a file and read there twice: nothing
//! is recorded before all of it was checked, and whose it is.

use super::App;
use super::caller::Caller;
use super::refused::{ErrorBody, Refused};
use super::results::may;
use crate::control::CONTROL;
use crate::engine::Imported;
use crate::moving::{Archive, Found, LARGEST_ARCHIVE, MovingError, Piece};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use flakefarm_shared::{Digest, now_micros};
use futures::StreamExt;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

/// The header that names the SHA-256 of a body.
pub const DIGEST_HEADER: &str = "flakefarm-digest";

/// Take in sweeps that ended elsewhere.
///
/// The body is what `flakefarm export` writes. The token must be for every project in it. The same body again
/// changes nothing.
#[utoipa::path(
    post, path = "/v1/imports", tag = "sweeps",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(("flakefarm-digest" = String, Header, description = "SHA-256 of the body, in hexadecimal", pattern = "^[0-9a-f]{64}$")),
    responses((status = 201, body = Imported), (status = "default", body = ErrorBody)),
    security(("token" = ["submit"]))
)]
pub(super) async fn import(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Imported>), Refused> {
    let named = headers.get(DIGEST_HEADER).and_then(|value| value.to_str().ok()?.parse::<Digest>().ok());
    let Some(named) = named else {
        return Err(Refused::new(
            StatusCode::BAD_REQUEST,
            "flakefarm-digest: the SHA-256 of the body is needed",
        ));
    };
    let _place = app.uploads.acquire().await.map_err(|_| stopping())?;
    let (file, digest) = receive(body).await?;
    if digest != named {
        return Err(
            Refused::new(StatusCode::BAD_REQUEST, "the export was damaged on its way").hint("send it again")
        );
    }
    let (archive, found) = check(Archive::of(file)).await?;
    for project in &found.projects {
        may(&caller, project)?;
        if project == CONTROL {
            return Err(Refused::new(StatusCode::FORBIDDEN, format!("nobody imports sweeps of `{CONTROL}`")));
        }
        app.coordinator.may_store(project, found.bytes).await??;
    }
    let projects: Vec<String> = found.projects.into_iter().collect();
    let (pieces, mut received) = mpsc::channel::<Piece>(1);
    let reading = tokio::task::spawn_blocking(move || {
        let mut archive = archive;
        archive.pieces(|piece| {
            let gone = |_| MovingError::Unreadable("nobody takes it any more".to_owned());
            pieces.blocking_send(piece).map_err(gone)
        })
    });
    let mut imported = Imported::default();
    while let Some(piece) = received.recv().await {
        if let Piece::Blob(digest, content) = &piece {
            app.coordinator.db().charge_blob(&projects, digest, content.len() as u64).await?;
        }
        Box::pin(app.coordinator.import(piece, &mut imported)).await?;
    }
    reading.await.map_err(|_| stopping())?.map_err(refused)?;
    Ok((StatusCode::CREATED, Json(imported)))
}

async fn check(mut archive: Archive) -> Result<(Archive, Found), Refused> {
    let checking = tokio::task::spawn_blocking(move || {
        let found = archive.check(now_micros())?;
        Ok((archive, found))
    });
    checking.await.map_err(|_| stopping())?.map_err(refused)
}

/// The body in a file, and its digest.
async fn receive(body: Body) -> Result<(File, Digest), Refused> {
    let mut file = tokio::fs::File::from_std(tempfile::tempfile().map_err(unwritable)?);
    let (mut hash, mut size) = (Sha256::new(), 0);
    let mut body = body.into_data_stream();
    while let Some(piece) = body.next().await {
        let piece = piece
            .map_err(|error| Refused::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}")))?;
        size += piece.len() as u64;
        if size > LARGEST_ARCHIVE {
            let limit = LARGEST_ARCHIVE >> 30;
            return Err(Refused::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("an export has at most {limit} GiB"),
            )
            .hint("flakefarm export --project NAME --since AGE writes less"));
        }
        hash.update(&piece);
        file.write_all(&piece).await.map_err(unwritable)?;
    }
    file.flush().await.map_err(unwritable)?;
    let digest = hex::encode(hash.finalize()).parse().expect("a SHA-256 in hexadecimal");
    Ok((file.into_std().await, digest))
}

fn unwritable(error: std::io::Error) -> Refused {
    Refused::new(StatusCode::INSUFFICIENT_STORAGE, format!("the export could not be kept: {error}"))
}

fn stopping() -> Refused {
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, "the coordinator is stopping").hint("try again")
}

fn refused(error: MovingError) -> Refused {
    match error {
        MovingError::Io(error) => unwritable(error),
        MovingError::Unreadable(_)
        | MovingError::Later(_)
        | MovingError::Damaged(_)
        | MovingError::Nonsense { .. } => Refused::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        MovingError::Store(_) => {
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, flakefarm_shared::chain(&error)).hint("try again")
        }
    }
}
