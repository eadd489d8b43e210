//! The client of a farm's coordinator. Lost connections are taken up again; what was submitted
//! goes on without us.

mod operators;

use crate::exit::{Complaint, Exit};
use crate::progress::Progress;
use bytes::Bytes;
use eventsource_stream::Eventsource;
use flakefarm_coordinator::Submission;
use flakefarm_coordinator::engine::Imported;
use flakefarm_coordinator::events::Event;
use flakefarm_coordinator::history::ingest::{Ingested, SentReport};
use flakefarm_coordinator::history::moves::Move;
use flakefarm_coordinator::history::questions::{Forecast, Ranking, TestHistory, Trends};
use flakefarm_coordinator::http::{API_HEADER, API_VERSION, DIGEST_HEADER};
use flakefarm_coordinator::report::Report;
use flakefarm_shared::backoff::Backoff;
use flakefarm_shared::{Digest, Refusal, SweepId};
use futures::StreamExt;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use url::Url;

const TIMEOUT: Duration = Duration::from_secs(60);
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(600);
/// Years of sweeps are sent, and taken in one by one.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(4 * 3_600);
/// How long a coordinator may be away before a client that follows a sweep gives up.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between attempts to reach it again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A worker that was not heard of for so many seconds is gone; it says that it lives every few seconds.
const WORKER_GONE: i64 = 60;

/// A coordinator somewhere.
#[derive(Debug, Clone)]
pub(crate) struct Farm {
    base: Url,
    token: String,
    client: reqwest::Client,
}

/// How following a sweep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Followed {
    /// The sweep has ended.
    ToItsEnd,
    /// We were told to stop.
    Stopped,
}

/// How a sweep stands on the farm.
#[derive(Debug, Deserialize)]
pub(crate) struct SweepStatus {
    pub(crate) state: String,
    pub(crate) failure: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct ErrorBody {
    error: String,
    hint: Option<String>,
}

impl Farm {
    pub(crate) fn new(address: &str, token: Option<String>) -> Result<Self, Complaint> {
        let mut base = Url::parse(address).map_err(|error| {
            Complaint::usage(format!("`{address}` is not the address of a farm: {error}"))
                .hint("such as http://farm:7878")
        })?;
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let token = token.ok_or_else(|| {
            Complaint::usage("a farm needs a token")
                .hint("set FLAKEFARM_TOKEN, or FLAKEFARM_TOKEN_FILE to a file that holds it")
        })?;
        let client = reqwest::Client::builder().connect_timeout(Duration::from_secs(10)).build()?;
        Ok(Self { base, token, client })
    }

    /// Where it is, for people.
    pub(crate) fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Complaint> {
        let url = self.base.join(path)?;
        Ok(self.client.request(method, url).bearer_auth(&self.token).header(API_HEADER, API_VERSION))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Complaint> {
        let response = request.send().await.map_err(|error| {
            Complaint::farm(format!(
                "the farm at {} does not answer: {}",
                self.base,
                flakefarm_shared::chain(&error)
            ))
            .hint("is the address right, and the coordinator up?")
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let exit = match status {
            StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::UPGRADE_REQUIRED
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::NOT_FOUND
            | StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE => Exit::Usage,
            _ => Exit::FarmFailed,
        };
        let body = response.text().await.unwrap_or_default();
        Err(match serde_json::from_str::<ErrorBody>(&body) {
            Ok(body) => Complaint {
                exit,
                message: format!("the farm refused: {}", body.error),
                log: String::new(),
                hint: body.hint,
            },
            Err(_) => Complaint::new(exit, format!("the farm at {} answered {status}", self.base))
                .log(body.chars().take(500).collect::<String>())
                .hint("is this the address of a flakefarm coordinator?"),
        })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Complaint> {
        let request = self.request(Method::GET, path)?.timeout(TIMEOUT);
        Ok(self.send(request).await?.json().await?)
    }

    /// Asks for the version before anything is uploaded.
    pub(crate) async fn check(&self) -> Result<(), Complaint> {
        let response = self.send(self.request(Method::GET, "healthz")?.timeout(TIMEOUT)).await?;
        let theirs =
            response.headers().get(API_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        match theirs {
            Some(theirs) if theirs == API_VERSION => Ok(()),
            Some(theirs) => Err(Complaint::usage(format!(
                "the coordinator speaks version {theirs} of the interface, this client version {API_VERSION}"
            ))
            .hint("use the same flakefarm on both sides")),
            None => Err(Complaint::usage(format!("{} is not a flakefarm coordinator", self.base)).hint(
                "a farm's address is its coordinator's, such as http://farm:7878; a worker is asked with `flakefarm \
                 probe --at ADDRESS`",
            )),
        }
    }

    pub(crate) async fn upload(&self, snapshot: Bytes) -> Result<Digest, Complaint> {
        let digest = Digest::of(&snapshot);
        let request = self
            .request(Method::POST, "v1/snapshots")?
            .header("flakefarm-digest", digest.as_str())
            .timeout(UPLOAD_TIMEOUT)
            .body(snapshot);
        self.send(request).await?;
        Ok(digest)
    }

    /// Sends what was exported.
    pub(crate) async fn import(&self, mut file: std::fs::File) -> Result<Imported, Complaint> {
        let hashing = move || {
            let digest = Digest::of_reader(&mut file)?;
            std::io::Seek::rewind(&mut file)?;
            Ok::<_, std::io::Error>((digest, file))
        };
        let (digest, file) = tokio::task::spawn_blocking(hashing).await??;
        let body = tokio_util::io::ReaderStream::new(tokio::fs::File::from_std(file));
        let request = self
            .request(Method::POST, "v1/imports")?
            .header(DIGEST_HEADER, digest.as_str())
            .timeout(IMPORT_TIMEOUT)
            .body(reqwest::Body::wrap_stream(body));
        Ok(self.send(request).await?.json().await?)
    }

    /// Sends a report of CI's.
    pub(crate) async fn send_results(&self, report: &SentReport) -> Result<Ingested, Complaint> {
        let file = tokio::fs::File::open(&report.path)
            .await
            .map_err(|error| Complaint::usage(format!("failed to read {}: {error}", report.name)))?;
        let attempt = report.ci.attempt.map(|attempt| attempt.to_string());
        let path = with_query(
            "v1/results",
            &[
                ("project", Some(report.project.as_str())),
                ("name", Some(report.name.as_str())),
                ("revision", report.ci.revision.as_deref()),
                ("branch", report.ci.branch.as_deref()),
                ("provider", report.ci.provider.as_deref()),
                ("job", report.ci.job.as_deref()),
                ("job_url", report.ci.url.as_deref()),
                ("attempt", attempt.as_deref()),
                ("variant", report.variant.as_deref()),
            ],
        );
        let request = self
            .request(Method::POST, &path)?
            .timeout(UPLOAD_TIMEOUT)
            .body(reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::new(file)));
        Ok(self.send(request).await?.json().await?)
    }

    /// One test over time.
    pub(crate) async fn test_history(
        &self,
        project: &str,
        test: &str,
        days: u16,
    ) -> Result<TestHistory, Complaint> {
        let mut url = self.base.join("v1/tests/")?;
        url.path_segments_mut()
            .map_err(|()| Complaint::usage(format!("{} is not the address of a farm", self.base)))?
            .pop_if_empty()
            .push(test)
            .push("history");
        let path = url.as_str().strip_prefix(self.base.as_str()).unwrap_or_default();
        let days = days.to_string();
        self.get(&with_query(path, &[("project", Some(project)), ("days", Some(&days))])).await
    }

    /// The tests of a project, ranked.
    pub(crate) async fn tests(
        &self,
        project: &str,
        days: u16,
        moved: Option<Move>,
        limit: usize,
    ) -> Result<Ranking, Complaint> {
        let (days, limit) = (days.to_string(), limit.to_string());
        let query = [
            ("project", Some(project)),
            ("days", Some(days.as_str())),
            ("limit", Some(limit.as_str())),
            ("moved", moved.map(Move::word)),
        ];
        self.get(&with_query("v1/tests", &query)).await
    }

    /// A project over time.
    pub(crate) async fn trends(&self, project: &str, days: u16) -> Result<Trends, Complaint> {
        let days = days.to_string();
        self.get(&with_query("v1/trends", &[("project", Some(project)), ("days", Some(&days))])).await
    }

    /// Which tests are likely to fail next.
    pub(crate) async fn forecast(
        &self,
        project: &str,
        days: u16,
        limit: usize,
    ) -> Result<Forecast, Complaint> {
        let (days, limit) = (days.to_string(), limit.to_string());
        let query =
            [("project", Some(project)), ("days", Some(days.as_str())), ("limit", Some(limit.as_str()))];
        self.get(&with_query("v1/forecast", &query)).await
    }

    pub(crate) async fn submit(&self, submission: &Submission) -> Result<SweepId, Complaint> {
        #[derive(Deserialize)]
        struct Submitted {
            id: SweepId,
        }
        let request = self.request(Method::POST, "v1/sweeps")?.timeout(TIMEOUT).json(submission);
        let submitted: Submitted = self.send(request).await?.json().await?;
        Ok(submitted.id)
    }

    pub(crate) async fn status(&self, sweep: SweepId) -> Result<SweepStatus, Complaint> {
        self.get(&format!("v1/sweeps/{sweep}")).await
    }

    pub(crate) async fn report(&self, sweep: SweepId) -> Result<Report, Complaint> {
        self.get(&format!("v1/sweeps/{sweep}/report")).await
    }

    /// Reports of the project's last sweeps, the newest first.
    pub(crate) async fn earlier_reports(&self, project: &str, most: usize) -> Vec<Report> {
        #[derive(Deserialize)]
        struct Sweeps {
            sweeps: Vec<Row>,
        }
        #[derive(Deserialize)]
        struct Row {
            id: SweepId,
            project: String,
            finished_at: Option<i64>,
        }
        let Ok(known) = self.get::<Sweeps>("v1/sweeps").await else { return Vec::new() };
        let finished = |row: &&Row| row.project == project && row.finished_at.is_some();
        let mut reports = Vec::new();
        for row in known.sweeps.iter().filter(finished).take(most) {
            reports.extend(self.report(row.id).await);
        }
        reports
    }

    pub(crate) async fn cancel(&self, sweep: SweepId) -> Result<Report, Complaint> {
        let request = self.request(Method::DELETE, &format!("v1/sweeps/{sweep}"))?.timeout(TIMEOUT);
        let response = self.send(request).await?;
        if response.status() == StatusCode::ACCEPTED {
            return self.report(sweep).await; // some workers have not said yet what they made
        }
        Ok(response.json().await?)
    }

    pub(crate) async fn blob(&self, digest: &str) -> Result<Bytes, Complaint> {
        let request = self.request(Method::GET, &format!("v1/blobs/{digest}"))?.timeout(TIMEOUT);
        Ok(self.send(request).await?.bytes().await?)
    }

    /// A warning if no worker has been heard of lately, so that nothing will happen. What cannot be
    /// found out is no reason to warn.
    pub(crate) async fn nobody_works(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Workers {
            workers: Vec<Worker>,
        }
        #[derive(Deserialize)]
        struct Worker {
            draining: bool,
            seconds_since_seen: i64,
        }
        let known: Workers = self.get("v1/workers").await.ok()?;
        let there = |worker: &&Worker| !worker.draining && worker.seconds_since_seen < WORKER_GONE;
        (known.workers.iter().filter(there).count() == 0).then(|| {
            "warning: no worker is on the farm: the sweep waits until one comes\nhint: start one there with \
             `flakefarm worker`, with the queue, samples and blobs of the coordinator"
                .to_owned()
        })
    }

    /// Shows events until the sweep has ended or `stop` comes.
    pub(crate) async fn follow(
        &self,
        sweep: SweepId,
        progress: &mut Progress,
        stop: &CancellationToken,
    ) -> Result<Followed, Complaint> {
        let mut away_since = None;
        let mut backoff = Backoff::up_to(LONGEST_PAUSE);
        loop {
            let lost = tokio::select! {
                ended = self.follow_once(sweep, progress, &mut away_since, &mut backoff) => match ended {
                    Ok(true) => return Ok(Followed::ToItsEnd),
                    Ok(false) => Complaint::farm("the connection to the farm was lost"),
                    Err(complaint) if complaint.exit == Exit::Usage => return Err(complaint),
                    Err(complaint) => complaint,
                },
                () = stop.cancelled() => return Ok(Followed::Stopped),
            };
            let since = *away_since.get_or_insert_with(|| {
                progress.note(&format!("{}; waiting for the farm to come back", lost.message));
                std::time::Instant::now()
            });
            if since.elapsed() > PATIENCE {
                return Err(lost);
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                () = stop.cancelled() => return Ok(Followed::Stopped),
            }
        }
    }

    async fn follow_once(
        &self,
        sweep: SweepId,
        progress: &mut Progress,
        away_since: &mut Option<std::time::Instant>,
        backoff: &mut Backoff,
    ) -> Result<bool, Complaint> {
        let response = self.send(self.request(Method::GET, &format!("v1/sweeps/{sweep}/events"))?).await?;
        *away_since = None;
        backoff.connected();
        let mut events = response.bytes_stream().eventsource();
        while let Some(event) = events.next().await {
            let Ok(event) = event else { return Ok(false) };
            // An event of a kind this client does not know is none of its business.
            let Ok(event) = serde_json::from_str::<Event>(&event.data) else { continue };
            progress.show(&event);
            if matches!(event, Event::Finished { .. }) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A path with those of the pairs that have a value.
fn with_query(path: &str, pairs: &[(&str, Option<&str>)]) -> String {
    let mut query = url::form_urlencoded::Serializer::for_suffix(format!("{path}?"), path.len() + 1);
    for (key, value) in pairs {
        if let Some(value) = value {
            query.append_pair(key, value);
        }
    }
    query.finish()
}
