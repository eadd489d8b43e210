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
    let address = address(args.at.as_deref(), args.what)?;
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
    if status == StatusCode::NOT_FOUND && args.what == Probed::Drain {
        return Err(Complaint::usage(format!("what answers at {address} is no worker")).hint(
            "--at ADDRESS, the worker's own of --health-listen; a coordinator has nothing to drain: end it",
        ));
    }
    refused(&address, status, &body)?;
    if args.what != Probed::Drain {
        output::print(&if body.ends_with('\n') { body } else { body + "\n" })?;
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
fn address(given: Option<&str>, what: Probed) -> Result<String, Complaint> {
    if let Some(given) = given {
        return named(given);
    }
    let settings = role_settings::settings(None, &[])?;
    let address = match what {
        Probed::Drain => settings.text("worker.health_listen").ok_or_else(|| {
            Complaint::usage("no worker is named")
                .hint("--at ADDRESS, or FLAKEFARM_HEALTH_LISTEN as the worker has it")
        })?,
        Probed::Healthz | Probed::Readyz | Probed::Metrics => {
            let address =
                settings.text("worker.health_listen").or_else(|| settings.text("coordinator.listen"));
            address.unwrap_or_default()
        }
    };
    Ok(match address.parse::<SocketAddr>() {
        Ok(everywhere) if everywhere.ip().is_unspecified() => {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), everywhere.port()).to_string()
        }
        Ok(_) | Err(_) => address,
    })
}

/// `HOST:PORT`, whether it was written as that or as a URL.
fn named(given: &str) -> Result<String, Complaint> {
    let bare = given.strip_prefix("http://").unwrap_or(given);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let is_host = |host: &str| {
        let of_version_6 = host.starts_with('[') && host.ends_with(']');
        !host.is_empty() && (of_version_6 || !host.contains([':', '/', '@', ' ']))
    };
    match bare.rsplit_once(':') {
        Some((host, port)) if is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Ok(bare.to_owned())
        }
        Some(_) | None => Err(Complaint::usage(format!("`{given}` is not the address of a process"))
            .hint("HOST:PORT, such as 127.0.0.1:7879")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (given, address) in [
            ("127.0.0.1:7879", Some("127.0.0.1:7879")),
            ("http://farm:7878/", Some("farm:7878")),
            ("[::1]:7879", Some("[::1]:7879")),
            ("127.0.0.1", None),
            ("::1", None),
            ("farm:0", None),
            ("farm:99999", None),
            ("https://farm:7878", None),
            ("farm:7878/healthz", None),
            ("", None),
        ] {
            assert_eq!(named(given).ok().as_deref(), address, "{given}");
        }
    }
}
