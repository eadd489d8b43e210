//! An HTTP server behind one that stumbles: of the requests that come, in turn, some are answered with what servers say
//! when they are overloaded, some with nothing, and of some only half of the answer arrives. Each connection carries one
//! request.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is done to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// 503, as an object store says it.
    SlowDown,
    /// 500.
    InternalError,
    /// No answer, and nothing done.
    HungUp,
    /// Half of what was asked for.
    CutShort,
}

const FAULTS: [Fault; 4] = [Fault::SlowDown, Fault::InternalError, Fault::HungUp, Fault::CutShort];

/// What is done to requests, in turn; never more in a row than a client bears. Of answers that have a body every second
/// one is cut short besides.
const TURNS: [Option<Fault>; 7] =
    [None, Some(Fault::SlowDown), Some(Fault::InternalError), None, Some(Fault::HungUp), None, None];

/// Runs until the test's process ends.
#[derive(Debug)]
pub struct Stumbling {
    address: SocketAddr,
    done: Arc<[AtomicUsize; FAULTS.len()]>,
}

impl Stumbling {
    /// Before the server at `host:port`.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let done: Arc<[AtomicUsize; FAULTS.len()]> = Arc::default();
        let (counted, server) = (done.clone(), server.to_owned());
        let bodies = Arc::new(AtomicUsize::new(0));
        std::thread::spawn(move || {
            for (turn, client) in listener.incoming().flatten().enumerate() {
                let (counted, server, bodies) = (counted.clone(), server.clone(), bodies.clone());
                std::thread::spawn(move || {
                    // A client that went away has had its answer.
                    let fault = TURNS[turn % TURNS.len()];
                    let _gone = serve(&client, &server, fault, &counted, &bodies);
                    let _gone = client.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, done }
    }

    /// Where to send requests.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How often each was done.
    pub fn faults(&self) -> Vec<(String, usize)> {
        let count = |fault: Fault| self.done[fault as usize].load(Ordering::SeqCst);
        FAULTS.map(|fault| (format!("{fault:?}"), count(fault))).into()
    }
}

fn serve(
    client: &TcpStream,
    server: &str,
    fault: Option<Fault>,
    done: &[AtomicUsize; FAULTS.len()],
    bodies: &AtomicUsize,
) -> io::Result<()> {
    let mut reader = BufReader::new(client);
    let (mut head, mut length) = (String::new(), 0);
    reader.read_line(&mut head)?;
    // A listing that is cut short fails: whoever collects makes another one.
    let reads = head.starts_with("GET ") && !head.contains("list-type");
    head.push_str("connection: close\r\n");
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            // A client that opened more connections than it used.
            return Ok(());
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        if !lower.starts_with("connection:") {
            head.push_str(&line);
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut client = client;
    let did = |fault: Fault| done[fault as usize].fetch_add(1, Ordering::SeqCst);
    match fault {
        Some(Fault::SlowDown) => client.write_all(&error("503 Slow Down", "SlowDown"))?,
        Some(Fault::InternalError) => client.write_all(&error("500 Internal Error", "InternalError"))?,
        Some(Fault::HungUp) => {}
        Some(Fault::CutShort) | None => {
            let mut server = TcpStream::connect(server)?;
            server.write_all(head.as_bytes())?;
            server.write_all(&body)?;
            let mut answer = Vec::new();
            server.read_to_end(&mut answer)?;
            let head = answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |at| at + 4);
            let body = answer.len() - head;
            let cut = reads
                && answer.starts_with(b"HTTP/1.1 2")
                && body > 1
                && bodies.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
            let end = if cut { head + body / 2 } else { answer.len() };
            client.write_all(&answer[..end])?;
            if cut {
                did(Fault::CutShort);
            }
            return Ok(());
        }
    }
    fault.map(did);
    Ok(())
}

fn error(status: &str, code: &str) -> Vec<u8> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Busy.</Message></Error>");
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/xml\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}
