//! Sending: one message to one channel, by the words that its kind takes. Every call has a deadline; an
//! address that redirects is not followed, since a message is for its receiver alone.

use super::channel::Kind;
use super::message::{Message, escaped};
use flakefarm_shared::UnixMicros;
use hmac::{Hmac, KeyInit, Mac};
use lettre::message::header::ContentType;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use sha2::Sha256;
use std::time::Duration;
use url::Url;
use uuid::Uuid;

/// What one try may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// What is read of an answer.
const LONGEST_ANSWER: usize = 64 << 10;
/// Longest text of a chat message.
const LONGEST_CHAT: usize = 3_000;
/// Longest body of a comment, below what the hosts take.
const LONGEST_COMMENT: usize = 60_000;

/// A message on its way.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The delivery's id, the same at every try.
    pub id: Uuid,
    /// The message.
    pub message: &'a Message,
    /// Where an earlier message of this cause was put: an issue's number.
    pub thread: Option<&'a str>,
    /// When it is sent.
    pub at: UnixMicros,
}

/// The client that everything is sent with.
pub fn client() -> Result<Client, String> {
    Client::builder()
        .timeout(DEADLINE)
        .redirect(Policy::none())
        .user_agent(concat!("flakefarm/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| error.to_string())
}

/// Sends it; gives where it was put, if there is something to come back to.
pub async fn send(client: &Client, kind: &Kind, outgoing: Outgoing<'_>) -> Result<Option<String>, String> {
    let message = outgoing.message;
    match kind {
        Kind::Webhook { url, secret } => {
            let body = webhook_body(outgoing);
            let seconds = outgoing.at.div_euclid(1_000_000);
            let request = client
                .post(url.clone())
                .header("content-type", "application/json")
                .header("flakefarm-delivery", outgoing.id.to_string())
                .header("flakefarm-event", event_word(message))
                .header("flakefarm-signature", signature(secret, seconds, &body))
                .body(body);
            answered(request).await.map(|_| None)
        }
        Kind::Slack { url } => {
            let request = client.post(url.clone()).json(&slack_body(message));
            answered(request).await.map(|_| None)
        }
        Kind::Github { api, repository, issue, token } => {
            let own = issue.map(|issue| issue.to_string());
            let thread = message.thread.clone().or(own).or_else(|| outgoing.thread.map(str::to_owned));
            let (path, body) = match &thread {
                Some(number) => (
                    format!("repos/{repository}/issues/{number}/comments"),
                    json!({ "body": comment(outgoing) }),
                ),
                None => (
                    format!("repos/{repository}/issues"),
                    json!({ "title": message.title, "body": comment(outgoing) }),
                ),
            };
            let request = client
                .post(below(api, &path)?)
                .bearer_auth(token)
                .header("accept", "application/vnd.github+json")
                .json(&body);
            let answer = answered(request).await?;
            Ok(thread.or_else(|| answer["number"].as_u64().map(|number| number.to_string())))
        }
        Kind::Gitlab { api, project, thread, token } => {
            let thread = thread.clone().or_else(|| outgoing.thread.map(|number| format!("issues/{number}")));
            let project = url::form_urlencoded::byte_serialize(project.as_bytes()).collect::<String>();
            let (path, body) = match &thread {
                Some(thread) => {
                    (format!("projects/{project}/{thread}/notes"), json!({ "body": comment(outgoing) }))
                }
                None => (
                    format!("projects/{project}/issues"),
                    json!({ "title": message.title, "description": comment(outgoing) }),
                ),
            };
            let request = client.post(below(api, &path)?).header("private-token", token).json(&body);
            let answer = answered(request).await?;
            let own = thread.as_deref().and_then(|thread| thread.rsplit('/').next()).map(str::to_owned);
            Ok(own.or_else(|| answer["iid"].as_u64().map(|number| number.to_string())))
        }
        Kind::Mail { server, from, to } => mail(server, from, to, outgoing).await.map(|()| None),
    }
}

/// The body of a webhook: `flakefarm.notification/v1`.
pub fn webhook_body(outgoing: Outgoing<'_>) -> String {
    let message = outgoing.message;
    let body = json!({
        "schema": "flakefarm.notification/v1",
        "id": outgoing.id.to_string(),
        "event": message.event,
        "project": message.project,
        "cause": message.cause,
        "title": message.title,
        "text": message.text,
        "tests": message.tests,
        "owners": message.owners,
        "sweep": message.sweep,
    });
    body.to_string()
}

/// `t=SECONDS,v1=HEX`: HMAC-SHA-256 under the secret over the seconds, a dot and the body as it is sent.
pub fn signature(secret: &str, seconds: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key has any length");
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body.as_bytes());
    format!("t={seconds},v1={}", hex::encode(mac.finalize().into_bytes()))
}

fn event_word(message: &Message) -> String {
    let value = serde_json::to_value(message.event).expect("a word serialises");
    value.as_str().unwrap_or_default().to_owned()
}

fn slack_body(message: &Message) -> Value {
    // Slack's own markup has three characters that mean something everywhere.
    let safe = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let text: String = message.text.chars().take(LONGEST_CHAT).collect();
    json!({ "text": format!("*{}*\n{}", safe(&message.title).replace('*', "\u{2217}"), safe(&text)) })
}

fn comment(outgoing: Outgoing<'_>) -> String {
    let message = outgoing.message;
    let text: String = message.text.chars().take(LONGEST_COMMENT).collect();
    // A comment that was sent twice can be told by its last line.
    format!("**{}**\n\n{text}\n<!-- flakefarm delivery {} -->\n", escaped(&message.title), outgoing.id)
}

fn below(api: &Url, path: &str) -> Result<Url, String> {
    let mut base = api.clone();
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    base.join(path).map_err(|error| error.to_string())
}

/// Sends a request that must succeed; what the answer says as JSON, null if it says none.
async fn answered(request: RequestBuilder) -> Result<Value, String> {
    let mut response = request.send().await.map_err(|error| {
        // The address may be a secret.
        flakefarm_shared::chain(&error.without_url())
    })?;
    let status = response.status();
    let mut body = Vec::new();
    while body.len() < LONGEST_ANSWER {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    if status.is_success() {
        return Ok(serde_json::from_slice(&body).unwrap_or_default());
    }
    let said: String = String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(200).collect();
    Err(format!("it answered {status}: {said}"))
}

async fn mail(server: &Url, from: &str, to: &[String], outgoing: Outgoing<'_>) -> Result<(), String> {
    let message = outgoing.message;
    let wrong = |error: &dyn std::error::Error| flakefarm_shared::chain(error);
    let mut mail = lettre::Message::builder()
        .from(from.parse().map_err(|error: lettre::address::AddressError| wrong(&error))?)
        .message_id(Some(format!("<{}@flakefarm>", outgoing.id)))
        .subject(super::message::one_line(&message.title))
        .header(ContentType::TEXT_PLAIN);
    for address in to {
        mail = mail.to(address.parse().map_err(|error: lettre::address::AddressError| wrong(&error))?);
    }
    let mail = mail.body(message.text.clone()).map_err(|error| wrong(&error))?;
    let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(server.as_str())
        .map_err(|error| wrong(&error))?
        .timeout(Some(DEADLINE))
        .build();
    transport.send(mail).await.map(|_| ()).map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_signed_over_time_and_body() {
        // Python: hmac.new(b"0123456789abcdef", b'1700000000.{"a":1}', "sha256").hexdigest()
        let signed = signature("0123456789abcdef", 1_700_000_000, "{\"a\":1}");
        assert_eq!(signed, EXPECTED);
        assert_ne!(signature("0123456789abcdef", 1_700_000_001, "{\"a\":1}"), signed);
        assert_ne!(signature("0123456789abcdeg", 1_700_000_000, "{\"a\":1}"), signed);
    }

    const EXPECTED: &str = "t=1700000000,v1=9eb18f493f8ec135d9eb2dad817c369bb4e9cbfa818657897a7437c1cd8c3a23";
}
