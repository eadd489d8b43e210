//! `flakefarm probe`: asks a process how it is, or has a worker drain, for images and pods that hold nothing
//! but this binary.

use crate::args::{ProbeArgs, Probed};
use crate::exit::{Complaint, Exit};
use crate::{output, role_settings};
use reqwest::{Client, Method, StatusCode};
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// For an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two looks at a worker that drains.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
struct Draining {
    jobs: u64,
}

pub(crate) async fn probe(args: &ProbeArgs) -> Result<Exit, Complaint> {
    let address = address(args.at.as_deref())?;
    // Not by way of anybody: it is this machine.
    let client = Client::builder().no_proxy().timeout(ANSWER).build()?;
    let ask = async |method: Method, path: &str| {
        let answer = client.request(method, format!("http://{address}/{path}")).send().await?;
        Ok::<_, reqwest::Error>((answer.status(), answer.text().await?))
    };
    let silent = |error: reqwest::Error| {
        Complaint::farm(format!("nothing answers at {address}: {}", flakefarm_shared::chain(&error)))
            .hint("--at names the address; a worker answers only with --health-listen ADDRESS")
    };
    let path = match args.what {
        Probed::Healthz => "healthz",
        Probed::Readyz => "readyz",
        Probed::Metrics => "metrics",
        Probed::Drain => "drain",
    };
    let method = if args.what == Probed::Drain { Method::POST } else { Method::GET };
    let (status, body) = ask(method, path).await.map_err(silent)?;
    refused(&address, status, &body)?;
    if args.what != Probed::Drain {
        output::print(&body)?;
        return Ok(Exit::Clean);
    }
    let begun = Instant::now();
    loop {
        // One that is gone has drained.
        let Ok((status, body)) = ask(Method::GET, path).await else { return Ok(Exit::Clean) };
        refused(&address, status, &body)?;
        let Draining { jobs } = serde_json::from_str(&body)?;
        if jobs == 0 {
            return Ok(Exit::Clean);
        }
        if begun.elapsed() > args.wait {
            return Err(Complaint::farm(format!("the worker at {address} still has {jobs} jobs"))
                .hint("what it has not finished when it ends goes to others"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn refused(address: &str, status: StatusCode, body: &str) -> Result<(), Complaint> {
    if status.is_success() {
        return Ok(());
    }
    Err(Complaint::farm(format!("{address} answered {status}")).log(body))
}

/// Where to ask: on this machine, if the process listens everywhere.
fn address(given: Option<&str>) -> Result<String, Complaint> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let settings = role_settings::settings(None, &[])?;
    let address = settings.text("worker.health_listen").or_else(|| settings.text("coordinator.listen"));
    let address = address.unwrap_or_default();
    Ok(match address.parse::<SocketAddr>() {
        Ok(everywhere) if everywhere.ip().is_unspecified() => {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), everywhere.port()).to_string()
        }
        Ok(_) | Err(_) => address,
    })
}
