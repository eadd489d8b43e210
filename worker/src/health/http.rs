//! As much of HTTP as a health check speaks: one request a connection, its head bounded in size and time, its
//! body not looked at. Whoever sends anything else, slowly or at length, keeps one of few places for a few
//! seconds.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Connections at once; those that come later are closed.
const CONNECTIONS: usize = 32;
/// Bytes of a request's head.
const HEAD: usize = 8 << 10;
/// For the head to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// For the answer to be made and taken.
const ANSWERED: Duration = Duration::from_secs(15);
/// Of what follows the head, read so that the answer is not lost with it.
const LEFTOVER: u64 = 64 << 10;
/// Between two tries to accept, where the system has run out of something.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Post,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: Method,
    /// Without a query.
    pub(super) path: String,
    pub(super) from: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self { status, content_type: "application/json", body: format!("{body}\n") }
    }

    pub(super) fn refused(status: u16, why: &str) -> Self {
        Self::json(status, &serde_json::json!({ "error": why }))
    }

    fn bytes(&self, with_body: bool) -> Vec<u8> {
        let reason = match self.status {
            200 => "OK",
            202 => "Accepted",
            400 => "Bad Request",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            431 => "Request Header Fields Too Large",
            _ => "Service Unavailable",
        };
        let allow = if self.status == 405 { "allow: GET, HEAD, POST\r\n" } else { "" };
        let Self { status, content_type, body } = self;
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n{allow}connection: close\r\n\r\n"
        );
        if with_body { [head.as_bytes(), body.as_bytes()].concat() } else { head.into_bytes() }
    }
}

/// Answers until `end`.
pub(super) async fn serve<F>(
    listener: TcpListener,
    answer: impl Fn(Request) -> F + Send + Sync + 'static,
    end: CancellationToken,
) where
    F: Future<Output = Answer> + Send + 'static,
{
    let answer = Arc::new(answer);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // What has ended is forgotten.
            Some(_) = connections.join_next() => continue,
            () = end.cancelled() => return,
        };
        let Ok((stream, from)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let answer = answer.clone();
        connections.spawn(async move {
            let _place = place;
            converse(stream, from.ip().to_canonical(), &*answer).await;
        });
    }
}

async fn converse<F: Future<Output = Answer>>(
    mut stream: TcpStream,
    from: IpAddr,
    answer: &impl Fn(Request) -> F,
) {
    let asked = match timeout(PATIENCE, head(&mut stream)).await {
        Ok(Some(head)) => parse(&head, from),
        // It has gone away.
        Ok(None) => return,
        Err(_) => Err(Answer::refused(408, "no request came in time")),
    };
    let answering = async {
        let (answer, with_body) = match asked {
            Ok(request) => {
                let with_body = request.method != Method::Head;
                (answer(request).await, with_body)
            }
            Err(refused) => (refused, true),
        };
        stream.write_all(&answer.bytes(with_body)).await?;
        stream.shutdown().await?;
        // To close with something unread would take the answer back.
        tokio::io::copy(&mut stream.take(LEFTOVER), &mut tokio::io::sink()).await
    };
    // Whoever does not take the answer goes without it.
    drop(timeout(ANSWERED, answering).await);
}

/// The head of a request, or as much of it as is looked at; none if the other side went away before.
async fn head(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let read = stream.read(&mut piece).await.ok()?;
        if read == 0 {
            return None;
        }
        head.extend_from_slice(&piece[..read]);
        if is_whole(&head) || head.len() > HEAD {
            return Some(head);
        }
    }
}

fn is_whole(head: &[u8]) -> bool {
    head.windows(4).any(|end| end == b"\r\n\r\n") || head.windows(2).any(|end| end == b"\n\n")
}

fn parse(head: &[u8], from: IpAddr) -> Result<Request, Answer> {
    if !is_whole(head) {
        return Err(Answer::refused(431, "the head of a request has at most 8 KiB"));
    }
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| Answer::refused(400, "this is no HTTP"))?;
    let words: Vec<&str> = line.trim_end_matches('\r').split(' ').collect();
    let [method, target, version] = words.as_slice() else {
        return Err(Answer::refused(400, "this is no HTTP"));
    };
    if !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return Err(Answer::refused(400, "this is no HTTP/1"));
    }
    let method = match *method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        _ => return Err(Answer::refused(405, "GET, HEAD and POST are known here")),
    };
    let path = target.split(['?', '#']).next().unwrap_or_default().to_owned();
    Ok(Request { method, path, from })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn what_is_no_request_is_refused() {
        let parse =
            |text: &[u8]| parse(text, IpAddr::V4(Ipv4Addr::LOCALHOST)).map_err(|answer| answer.status);
        let request = parse(b"POST /drain?now=1 HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        assert_eq!((request.method, request.path.as_str()), (Method::Post, "/drain"));
        for (status, text) in [
            (400, b"GET / FTP\r\n\r\n".as_slice()),
            (400, b"\xff\xfe\r\n\r\n"),
            (400, b"GET http://elsewhere/ HTTP/1.1\r\n\r\n"),
            (400, b"GET  / HTTP/1.1\r\n\r\n"),
            (405, b"DELETE / HTTP/1.1\r\n\r\n"),
            (431, &[b'a'; HEAD + 1]),
        ] {
            assert_eq!(parse(text), Err(status), "{}", String::from_utf8_lossy(text));
        }
    }

    #[tokio::test]
    async fn hostile_callers_take_places_for_a_while_and_nobody_else_down() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let end = CancellationToken::new();
        let hello = |request: Request| async move {
            Answer { status: 200, content_type: "text/plain", body: request.path }
        };
        let serving = tokio::spawn(serve(listener, hello, end.clone()));
        // All places are taken by those who say nothing, and more come than there are places.
        let mut silent = Vec::new();
        for _ in 0..2 * CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let ask = async |request: &[u8]| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // It may have been closed already, or be closed in the middle.
            let _closed = stream.write_all(request).await;
            let mut answer = Vec::new();
            let _reset = stream.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        // They are told that it took them too long, and make room.
        let answered = timeout(Duration::from_secs(120), async {
            loop {
                let answer = ask(b"GET /a HTTP/1.1\r\n\r\n").await;
                if answer.starts_with("HTTP/1.1 200") {
                    return answer;
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        assert!(answered.await.unwrap().ends_with("\r\n\r\n/a"));
        let mut late = String::new();
        silent[0].read_to_string(&mut late).await.unwrap();
        assert!(late.starts_with("HTTP/1.1 408"), "{late}");
        drop(silent);
        let long = ask(&[b"GET / HTTP/1.1\r\nx: ".as_slice(), &[b'a'; 2 * HEAD]].concat()).await;
        assert!(long.is_empty() || long.starts_with("HTTP/1.1 431"), "{long}");
        let head = ask(b"HEAD /a HTTP/1.0\n\n").await;
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
        end.cancel();
        serving.await.unwrap();
    }
}
