//! What the nest and its owner say to each other: frames over the nest's standard input and output.
//!
//! A nest runs one attempt at a time, each in namespaces of its own, and tells its owner what the
//! attempt wrote and how it ended. This library is the wire; the binary is the nest. A frame is its
//! kind (one byte), the length of its payload (four bytes, big-endian) and the payload.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read};

/// A payload beyond this is a broken stream.
pub const PAYLOAD_LIMIT: usize = 256 << 20;
/// Where the project's tree lies, read-only; attempts see it, writable and fresh, in [`WORK`].
pub const TREE: &str = "/flakefarm/tree";
/// The attempt's working directory.
pub const WORK: &str = "/work";
/// The attempt's home, in its own /tmp.
pub const HOME: &str = "/tmp/home";
/// What the attempt's user is called.
pub const USER_NAME: &str = "flakefarm";
/// Where a zygote finds the descriptor over which it is asked to fork.
pub const ZYGOTE_CONTROL_FD: i32 = 3;

/// What an owner asks of a nest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// The first frame: how attempts find the world.
    SetUp(SetUp),
    /// A piece of the standard input of the next attempt.
    Input(Vec<u8>),
    /// Start an attempt; while another runs, as soon as that has ended.
    Start(Box<Attempt>),
    /// End every process of the attempt that was asked for as the n-th, from 1, if it runs.
    Kill(u32),
}

/// What a nest tells its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell {
    /// The world is set up.
    Ready,
    /// It cannot do what it was asked: nothing was run.
    Failed(String),
    /// The attempt cannot be forked from a prepared interpreter: nothing was run.
    NotForked(String),
    /// The attempt was forked from a prepared interpreter.
    Forked,
    /// A piece of the attempt's standard output.
    Output(Vec<u8>),
    /// A piece of its standard error.
    Errors(Vec<u8>),
    /// The attempt has ended, and every process of it.
    Ended(Ended),
}

/// The world of all attempts of one nest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetUp {
    /// What the nest runs on.
    pub ground: Ground,
    /// Whether attempts share the nest's network; otherwise each has a loopback of its own.
    pub shared_network: bool,
}

/// What a nest runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ground {
    /// A container whose root is the image. Its memory limit is that of the one running attempt.
    Container,
    /// The machine itself.
    Host {
        /// Where the machine's files are to be found by attempts, beside its system directories.
        binds: Vec<Bind>,
    },
}

/// A file or directory of the machine that attempts see, read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Where it is.
    pub source: String,
    /// Where attempts see it.
    pub target: String,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Over the nest's own variables.
    pub variables: BTreeMap<String, String>,
    /// Size of /work and of /tmp, each, in bytes.
    pub scratch_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Memory in bytes. In a container the container's own limit holds; elsewhere this is watched.
    pub memory_bytes: u64,
    /// Fork it from a prepared interpreter instead of starting the program.
    pub fork: Option<Fork>,
}

/// How to prepare the interpreters that attempts are forked from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The program that prepares itself and then forks when asked over [`ZYGOTE_CONTROL_FD`].
    pub argv: Vec<String>,
    /// Its standard input.
    pub input: String,
    /// One interpreter for each: its hash seed. They take turns.
    pub hash_seeds: Vec<u32>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The program's exit code; 128 + n for signal n.
    pub exit_code: i32,
    /// Whether the memory limit ended one of its processes.
    pub out_of_memory: bool,
    /// CPU time in microseconds, its waited-for children included.
    pub cpu_us: u64,
}

/// One step of building an attempt's world: a system call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it is for, in words that complete "failed to".
    pub purpose: String,
    /// Its number.
    pub number: i64,
    /// Its arguments.
    pub arguments: Vec<Argument>,
    /// Whether building fails with it.
    pub needed: bool,
}

/// An argument of a system call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Argument {
    /// A number.
    Number(u64),
    /// The address of these bytes, a string with its NUL or a structure; base64 on the wire.
    Bytes(#[serde(with = "as_base64")] Vec<u8>),
    /// The address of a `sock_fprog` over this packed filter; base64 on the wire.
    Filter(#[serde(with = "as_base64")] Vec<u8>),
    /// The descriptor that the last step which makes one has returned.
    Descriptor,
}

/// What a zygote is told as one line of JSON, before it imports anything of the project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// Number of the system call `setns`.
    pub setns: i64,
    /// Puts down the privilege to fork into a cell, where it can be taken up again.
    pub put_down: Vec<Step>,
    /// Takes it up.
    pub take_up: Vec<Step>,
    /// What an attempt does once it is in its cell.
    pub steps: Vec<Step>,
    /// Variables that are the zygote's own and no attempt's.
    pub unset: Vec<String>,
}

mod as_base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A stream that is not one of frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenFrame(String);

impl std::fmt::Display for BrokenFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BrokenFrame {}

impl Ask {
    /// As a frame.
    pub fn to_frame(&self) -> Vec<u8> {
        match self {
            Ask::SetUp(set_up) => frame(b'S', &json(set_up)),
            Ask::Input(bytes) => frame(b'I', bytes),
            Ask::Start(attempt) => frame(b'A', &json(attempt)),
            Ask::Kill(number) => frame(b'K', &number.to_be_bytes()),
        }
    }

    fn parse(kind: u8, payload: Vec<u8>) -> Result<Self, BrokenFrame> {
        Ok(match kind {
            b'S' => Ask::SetUp(parsed(&payload)?),
            b'I' => Ask::Input(payload),
            b'A' => Ask::Start(parsed(&payload)?),
            b'K' => Ask::Kill(u32::from_be_bytes(
                payload.try_into().map_err(|_| BrokenFrame("it kills what has no number".to_owned()))?,
            )),
            other => return Err(unknown(other)),
        })
    }

    /// Waits for the next one; `None` at the end of the stream.
    pub fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = [0; HEAD];
        let first = stream.read(&mut head)?;
        if first == 0 {
            return Ok(None);
        }
        stream.read_exact(&mut head[first..])?;
        let (kind, length) = parse_head(head).map_err(io::Error::other)?;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload)?;
        Self::parse(kind, payload).map(Some).map_err(io::Error::other)
    }
}

impl Tell {
    /// As a frame.
    pub fn to_frame(&self) -> Vec<u8> {
        match self {
            Tell::Ready => frame(b'R', &[]),
            Tell::Failed(why) => frame(b'F', why.as_bytes()),
            Tell::NotForked(why) => frame(b'N', why.as_bytes()),
            Tell::Forked => frame(b'B', &[]),
            Tell::Output(bytes) => frame(b'O', bytes),
            Tell::Errors(bytes) => frame(b'E', bytes),
            Tell::Ended(ended) => frame(b'X', &json(ended)),
        }
    }

    fn parse(kind: u8, payload: Vec<u8>) -> Result<Self, BrokenFrame> {
        let text = |payload: Vec<u8>| String::from_utf8_lossy(&payload).into_owned();
        Ok(match kind {
            b'R' => Tell::Ready,
            b'F' => Tell::Failed(text(payload)),
            b'N' => Tell::NotForked(text(payload)),
            b'B' => Tell::Forked,
            b'O' => Tell::Output(payload),
            b'E' => Tell::Errors(payload),
            b'X' => Tell::Ended(parsed(&payload)?),
            other => return Err(unknown(other)),
        })
    }
}

/// Puts what a nest tells together from the pieces in which it arrives.
#[derive(Debug, Default)]
pub struct Tellings {
    pending: Vec<u8>,
}

impl Tellings {
    /// Takes what arrived next.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next one, if it is complete.
    pub fn pop(&mut self) -> Result<Option<Tell>, BrokenFrame> {
        let Some(head) = self.pending.first_chunk::<HEAD>() else { return Ok(None) };
        let (kind, length) = parse_head(*head)?;
        if self.pending.len() < HEAD + length {
            return Ok(None);
        }
        let payload = self.pending[HEAD..HEAD + length].to_vec();
        self.pending.drain(..HEAD + length);
        Tell::parse(kind, payload).map(Some)
    }
}

const HEAD: usize = 5;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("payloads are smaller than 4 GiB");
    let mut frame = Vec::with_capacity(HEAD + payload.len());
    frame.push(kind);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn parse_head([kind, length @ ..]: [u8; HEAD]) -> Result<(u8, usize), BrokenFrame> {
    let length = u32::from_be_bytes(length) as usize;
    if length > PAYLOAD_LIMIT {
        return Err(BrokenFrame(format!("a frame of {length} bytes is too long")));
    }
    Ok((kind, length))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data serialises")
}

fn parsed<'de, T: Deserialize<'de>>(payload: &'de [u8]) -> Result<T, BrokenFrame> {
    serde_json::from_slice(payload).map_err(|error| BrokenFrame(format!("a frame cannot be read: {error}")))
}

fn unknown(kind: u8) -> BrokenFrame {
    BrokenFrame(format!("there is no frame of kind {kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_survives_any_cutting() {
        let told = [
            Tell::Ready,
            Tell::Output(b"line\n".to_vec()),
            Tell::Errors(Vec::new()),
            Tell::NotForked("two threads".to_owned()),
            Tell::Ended(Ended { exit_code: 137, out_of_memory: true, cpu_us: 7 }),
        ];
        let stream: Vec<u8> = told.iter().flat_map(Tell::to_frame).collect();
        for size in 1..stream.len() {
            let mut tellings = Tellings::default();
            let mut heard = Vec::new();
            for piece in stream.chunks(size) {
                tellings.push(piece);
                while let Some(tell) = tellings.pop().unwrap() {
                    heard.push(tell);
                }
            }
            assert_eq!(heard, told, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_asked_survives_the_wire() {
        let asked = [
            Ask::SetUp(SetUp { ground: Ground::Container, shared_network: false }),
            Ask::Input(vec![0, 255, b'\n']),
            Ask::Start(Box::new(Attempt {
                argv: vec!["sh".to_owned()],
                variables: BTreeMap::from([("A".to_owned(), "b c".to_owned())]),
                scratch_bytes: 1,
                pids: 2,
                memory_bytes: 3,
                fork: Some(Fork { argv: Vec::new(), input: "{}".to_owned(), hash_seeds: vec![1, 2] }),
            })),
            Ask::Kill(7),
        ];
        let mut stream: &[u8] = &asked.iter().flat_map(Ask::to_frame).collect::<Vec<u8>>();
        let mut heard = Vec::new();
        while let Some(ask) = Ask::read(&mut stream).unwrap() {
            heard.push(ask);
        }
        assert_eq!(heard, asked);
    }

    #[test]
    fn a_stream_of_something_else_is_refused() {
        let mut tellings = Tellings::default();
        tellings.push(b"Traceback (most recent call last)");
        assert!(tellings.pop().is_err());
    }
}
