//! Sends batches to a collector: bounded in memory, in tries and in time. A collector that is away costs what
//! it would have been told, and nothing else.

use super::encode;
use super::logs::{self, Line, own_ids};
use flakefarm_shared::backoff::Backoff;
use flakefarm_shared::telemetry::conventions::{SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION};
use flakefarm_shared::telemetry::{self, Span};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Spans or lines of one request.
const BATCH: usize = 512;
/// Tries of one request.
const TRIES: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Between two lines of the log on the same trouble.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What is collected, and where.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where spans go, if anywhere.
    pub(crate) traces: Option<Url>,
    /// Where log lines go, if anywhere.
    pub(crate) logs: Option<Url>,
    /// The share of sweeps that are told of, 0 to 1.
    pub(crate) share: f64,
    headers: HeaderMap,
    timeout: Duration,
    delay: Duration,
    resource: Vec<(String, String)>,
}

impl Settings {
    /// As the variables of OpenTelemetry say; none if they name no collector.
    pub(crate) fn of(lookup: &dyn Fn(&str) -> Option<String>, service: &str) -> Result<Option<Self>, String> {
        if lookup("OTEL_SDK_DISABLED").is_some_and(|word| word.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let traces = endpoint(lookup, "TRACES", "v1/traces")?;
        let logs = endpoint(lookup, "LOGS", "v1/logs")?;
        if traces.is_none() && logs.is_none() {
            return Ok(None);
        }
        if let Some(protocol) = lookup("OTEL_EXPORTER_OTLP_PROTOCOL")
            && protocol != "http/protobuf"
        {
            return Err(format!("OTEL_EXPORTER_OTLP_PROTOCOL is `{protocol}`; http/protobuf is spoken here"));
        }
        let milliseconds = |name: &str, otherwise: u64| match lookup(name) {
            None => Ok(Duration::from_millis(otherwise)),
            Some(text) => text
                .trim()
                .parse()
                .map(Duration::from_millis)
                .map_err(|_| format!("{name} is `{text}`, not a number of milliseconds")),
        };
        let mut resource = vec![
            (SERVICE_NAME.to_owned(), lookup("OTEL_SERVICE_NAME").unwrap_or_else(|| service.to_owned())),
            (SERVICE_VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ];
        for (key, value) in pairs(&lookup("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default())? {
            if !resource.iter().any(|(known, _)| *known == key) {
                resource.push((key, value));
            }
        }
        Ok(Some(Self {
            traces,
            logs,
            share: share(lookup)?,
            headers: headers(&lookup("OTEL_EXPORTER_OTLP_HEADERS").unwrap_or_default())?,
            timeout: milliseconds("OTEL_EXPORTER_OTLP_TIMEOUT", 10_000)?,
            delay: milliseconds("OTEL_BSP_SCHEDULE_DELAY", 5_000)?,
            resource,
        }))
    }
}

fn endpoint(
    lookup: &dyn Fn(&str) -> Option<String>,
    signal: &str,
    path: &str,
) -> Result<Option<Url>, String> {
    if lookup(&format!("OTEL_{signal}_EXPORTER")).is_some_and(|exporter| exporter == "none") {
        return Ok(None);
    }
    let parse = |name: &str, text: &str| {
        let url = Url::parse(text).map_err(|error| format!("{name} is `{text}`: {error}"))?;
        match url.scheme() {
            "http" | "https" => Ok(url),
            _ => Err(format!("{name} is `{text}`, which is neither http:// nor https://")),
        }
    };
    let own = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
    if let Some(text) = lookup(&own) {
        return parse(&own, &text).map(Some);
    }
    let Some(text) = lookup("OTEL_EXPORTER_OTLP_ENDPOINT") else { return Ok(None) };
    let whole = format!("{}/{path}", text.trim_end_matches('/'));
    parse("OTEL_EXPORTER_OTLP_ENDPOINT", &whole).map(Some)
}

fn share(lookup: &dyn Fn(&str) -> Option<String>) -> Result<f64, String> {
    let sampler = lookup("OTEL_TRACES_SAMPLER").unwrap_or_default();
    match sampler.as_str() {
        "" | "always_on" | "parentbased_always_on" => Ok(1.0),
        "always_off" | "parentbased_always_off" => Ok(0.0),
        "traceidratio" | "parentbased_traceidratio" => {
            let text = lookup("OTEL_TRACES_SAMPLER_ARG").unwrap_or_else(|| "1".to_owned());
            let share = text.trim().parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
            share.ok_or_else(|| format!("OTEL_TRACES_SAMPLER_ARG is `{text}`, not a number from 0 to 1"))
        }
        other => Err(format!("OTEL_TRACES_SAMPLER is `{other}`, which is not known here")),
    }
}

/// `key=value,key=value`, values in percent-encoding.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("`{pair}` is no key=value"))?;
        // What decodes forms takes a plus for a space, which this encoding does not.
        let value = value.trim().replace('+', "%2B");
        let decoded = url::form_urlencoded::parse(value.as_bytes()).next();
        Ok((key.trim().to_owned(), decoded.map(|(value, _)| value.into_owned()).unwrap_or_default()))
    };
    pairs.map(pair).collect()
}

fn headers(text: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    // Values may be secrets: they are not repeated.
    for (key, value) in pairs(text).map_err(|_| "OTEL_EXPORTER_OTLP_HEADERS is no list of key=value")? {
        let name: HeaderName = key.parse().map_err(|_| format!("`{key}` is no name of a header"))?;
        let mut value =
            HeaderValue::from_str(&value).map_err(|_| format!("the value of `{key}` is no header's"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Somebody to send to.
pub(super) struct Collector {
    settings: Settings,
    client: Client,
    complained: Option<Instant>,
}

impl Collector {
    pub(super) fn new(settings: Settings) -> Result<Self, reqwest::Error> {
        let client = Client::builder().timeout(settings.timeout).default_headers(settings.headers.clone());
        Ok(Self { client: client.build()?, settings, complained: None })
    }

    /// Sends what comes until `end`, and then what is left.
    pub(super) async fn run(
        mut self,
        mut spans: mpsc::Receiver<Span>,
        mut lines: mpsc::Receiver<Line>,
        end: CancellationToken,
    ) {
        let (mut some_spans, mut some_lines) = (Vec::new(), Vec::new());
        loop {
            let ending = tokio::select! {
                () = tokio::time::sleep(self.settings.delay) => false,
                () = filled(&spans, &lines) => false,
                () = end.cancelled() => true,
            };
            while let Ok(span) = spans.try_recv() {
                some_spans.push(span);
                if some_spans.len() == BATCH {
                    self.send_spans(&mut some_spans, &end).await;
                }
            }
            while let Ok(line) = lines.try_recv() {
                some_lines.push(line);
                if some_lines.len() == BATCH {
                    self.send_lines(&mut some_lines, &end).await;
                }
            }
            self.send_spans(&mut some_spans, &end).await;
            self.send_lines(&mut some_lines, &end).await;
            if ending {
                return;
            }
        }
    }

    async fn send_spans(&mut self, spans: &mut Vec<Span>, end: &CancellationToken) {
        let spans = std::mem::take(spans);
        if let Some(url) = self.settings.traces.clone().filter(|_| !spans.is_empty()) {
            let body = encode::traces(&self.resource(), &spans);
            self.send(url, body, end).await;
        }
    }

    async fn send_lines(&mut self, lines: &mut Vec<Line>, end: &CancellationToken) {
        let lines = std::mem::take(lines);
        if let Some(url) = self.settings.logs.clone().filter(|_| !lines.is_empty()) {
            let body = encode::logs(&self.resource(), &lines);
            self.send(url, body, end).await;
        }
    }

    /// Who says it.
    fn resource(&self) -> Vec<(String, String)> {
        let mut resource = self.settings.resource.clone();
        if let Some((_, id)) = own_ids().first() {
            resource.push((SERVICE_INSTANCE_ID.to_owned(), id.clone()));
        }
        resource
    }

    async fn send(&mut self, url: Url, body: Vec<u8>, end: &CancellationToken) {
        let mut backoff = Backoff::up_to(LONGEST_PAUSE);
        for tried in 1.. {
            let request = self.client.post(url.clone()).header(CONTENT_TYPE, "application/x-protobuf");
            let trouble = match request.body(body.clone()).send().await {
                Ok(answer) if answer.status().is_success() => return,
                Ok(answer) => {
                    let again = matches!(
                        answer.status(),
                        StatusCode::TOO_MANY_REQUESTS
                            | StatusCode::BAD_GATEWAY
                            | StatusCode::SERVICE_UNAVAILABLE
                            | StatusCode::GATEWAY_TIMEOUT
                    );
                    (again, format!("it answered {}", answer.status()))
                }
                Err(error) => (true, flakefarm_shared::chain(&error.without_url())),
            };
            let (again, why) = trouble;
            if !again || tried >= TRIES || end.is_cancelled() {
                self.complain(&url, &why);
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                () = end.cancelled() => {}
            }
        }
    }

    fn complain(&mut self, url: &Url, why: &str) {
        if self.complained.is_none_or(|at| at.elapsed() > SAY_AGAIN) {
            self.complained = Some(Instant::now());
            let (spans, lines) = (telemetry::dropped(), logs::dropped());
            // Addresses may hold a password.
            let host = url.host_str().unwrap_or_default();
            warn!(
                collector.host = host,
                dropped.spans = spans,
                dropped.lines = lines,
                "what was to be collected is lost: {why}"
            );
        }
    }
}

/// Waits until there is enough for a batch.
async fn filled(spans: &mpsc::Receiver<Span>, lines: &mpsc::Receiver<Line>) {
    const LOOK: Duration = Duration::from_millis(200);
    while spans.len() < BATCH && lines.len() < BATCH {
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn of(variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        let variables: HashMap<String, String> =
            variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Settings::of(&|name: &str| variables.get(name).cloned(), "flakefarm")
    }

    #[test]
    fn variables_are_those_of_the_standard() {
        assert!(of(&[]).unwrap().is_none());
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
        assert!(of(&[endpoint, ("OTEL_SDK_DISABLED", "true")]).unwrap().is_none());
        let settings = of(&[
            endpoint,
            ("OTEL_LOGS_EXPORTER", "none"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20a+b, x = y"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=prod"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ]);
        let settings = settings.unwrap().unwrap();
        assert_eq!(settings.traces.unwrap().as_str(), "http://collector:4318/v1/traces");
        assert!(settings.logs.is_none());
        assert_eq!(
            (settings.headers["authorization"].to_str().unwrap(), settings.share),
            ("Bearer a+b", 0.25)
        );
        assert_eq!(settings.headers["x"], "y");
        assert_eq!(settings.resource[0].1, "flakefarm");
        assert_eq!(settings.resource[2].1, "prod");
        for wrong in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
        ] {
            let said = of(&[endpoint, wrong]).unwrap_err();
            assert!(said.contains(wrong.0) && !said.contains("secret"), "{said}");
        }
    }
}
