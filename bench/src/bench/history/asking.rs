//! Questions over HTTP, one after the other, as a page or a script asks them.

use super::project::{NAME, Project};
use super::{Claim, Figures, Memory};
use crate::Unmeasured;
use crate::bench::stats::quantile_of;
use crate::bench::stores;
use flakefarm_coordinator::http::{
    self, API_HEADER, API_VERSION, NewToken, Projects, TokenKind, issue_token,
};
use flakefarm_coordinator::{Coordinator, engine};
use flakefarm_shared::queue::Role;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Questions that are not counted: the first ones read files that nobody has read yet.
const WARMING: usize = 3;
/// Questions of a kind that takes long.
const FEW: usize = 5;

pub(super) async fn measure(
    memory: &Memory,
    project: &Project,
    state: &Path,
    figures: &mut Figures,
) -> Result<(), Unmeasured> {
    let queue = stores::open_queue("embedded:", Role::Coordinator)?;
    let blobs = stores::open_blobs(&format!("file://{}", state.join("blobs").display()))?;
    let coordinator = Coordinator::new(memory.db.clone(), queue, blobs, engine::DEFAULT_LEASE)
        .with_samples(memory.samples.clone());
    let token = NewToken {
        kind: TokenKind::Read,
        scopes: None,
        projects: Projects::All,
        label: "bench".to_owned(),
        expires_at: None,
    };
    let token = issue_token(&memory.db, token).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = Client { address: listener.local_addr()?, token };
    let stop = CancellationToken::new();
    let served = tokio::spawn(http::serve(listener, coordinator, stop.clone()));
    let asked = ask(&client, project, figures).await;
    stop.cancel();
    served.await??;
    asked
}

async fn ask(client: &Client, project: &Project, figures: &mut Figures) -> Result<(), Unmeasured> {
    let tests = project.asked();
    let of_test = tests.iter().map(|test| {
        format!(
            "/v1/tests/{}/history?project={NAME}&days=90",
            test.as_str().replace('/', "%2F").replace(':', "%3A")
        )
    });
    let claim = |most: f64| Some(Claim::AtMost(most));
    client.p95("history of one test over 90 days, p95", of_test, claim(30.0), figures).await?;
    let ranking = || format!("/v1/tests?project={NAME}&days=90&limit=100");
    let what = "ranking of the project over 90 days, the first 100 shown, p95";
    client.p95(what, (0..40).map(|_| ranking()), claim(200.0), figures).await?;
    let all = format!("/v1/tests?project={NAME}&days=90&limit=1000");
    client.p95("the same, 1,000 shown", (0..FEW + WARMING).map(|_| all.clone()), None, figures).await?;
    let trends = format!("/v1/trends?project={NAME}&days=90");
    client
        .p95("trends of the project over 90 days", (0..FEW + WARMING).map(|_| trends.clone()), None, figures)
        .await
}

struct Client {
    address: SocketAddr,
    token: String,
}

impl Client {
    async fn p95(
        &self,
        what: &str,
        paths: impl Iterator<Item = String>,
        claim: Option<Claim>,
        figures: &mut Figures,
    ) -> Result<(), Unmeasured> {
        let mut took = Vec::new();
        for (place, path) in paths.enumerate() {
            let begun = Instant::now();
            let answer = self.get(&path).await?;
            let ms = begun.elapsed().as_secs_f64() * 1e3;
            if !answer.starts_with("HTTP/1.1 200") {
                let start: String = answer.chars().take(300).collect();
                return Err(Unmeasured::farm(format!("GET {path} was refused")).log(start));
            }
            if place >= WARMING {
                took.push(ms);
            }
        }
        let p95 = quantile_of(&took, 0.95).unwrap_or(f64::NAN);
        let median = quantile_of(&took, 0.5).unwrap_or(f64::NAN);
        figures.add(format!("{what} (median {median:.1} ms, {} questions)", took.len()), p95, "ms", claim);
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<String, Unmeasured> {
        let mut stream = TcpStream::connect(self.address).await?;
        let (address, token) = (self.address, &self.token);
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n{API_HEADER}: {API_VERSION}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}
