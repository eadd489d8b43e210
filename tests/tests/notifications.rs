//! Notifications of a farm to servers on loopback: a webhook that fails and then takes what it is sent, a
//! chat, two code hosts and a mail server.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::eventually::wait_for;
use flakefarm_tests::farm::Farm;
use flakefarm_tests::harness::{command, project, said};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Output;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// What a server was sent: the first line, headers and body of a request, or a mail.
#[derive(Debug)]
struct Received {
    first: String,
    headers: String,
    body: String,
}

/// A web server that answers with these statuses, the last of them from then on; ends with the test.
fn web(statuses: &'static [&'static str]) -> (String, Receiver<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (told, received) = channel();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let status = statuses[number.min(statuses.len() - 1)];
            if let Ok(stream) = stream {
                answer(stream, status, &told);
            }
        }
    });
    (address, received)
}

fn answer(mut stream: TcpStream, status: &str, told: &Sender<Received>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut first, mut headers, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        headers.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let said = "{\"number\": 42, \"iid\": 7}";
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{said}",
        said.len()
    )
    .ok()?;
    let body = String::from_utf8_lossy(&body).into_owned();
    told.send(Received { first: first.trim().to_owned(), headers, body }).ok()
}

/// A mail server that takes one mail after the other.
fn mail() -> (String, Receiver<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("smtp://{}", listener.local_addr().unwrap());
    let (told, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ended = take_mail(stream, &told);
        }
    });
    (address, received)
}

fn take_mail(mut stream: TcpStream, told: &Sender<Received>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    stream.write_all(b"220 loopback\r\n").ok()?;
    let mut envelope = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return Some(());
        }
        let word = line.get(..4).unwrap_or_default().to_uppercase();
        match word.as_str() {
            "DATA" => {
                stream.write_all(b"354 go on\r\n").ok()?;
                let mut body = String::new();
                while !body.ends_with("\r\n.\r\n") {
                    reader.read_line(&mut body).ok()?;
                }
                stream.write_all(b"250 taken\r\n").ok()?;
                told.send(Received { first: "mail".to_owned(), headers: envelope.clone(), body }).ok()?;
            }
            "QUIT" => {
                stream.write_all(b"221 bye\r\n").ok()?;
                return Some(());
            }
            _ => {
                envelope.push_str(&line);
                stream.write_all(b"250 loopback\r\n").ok()?;
            }
        }
    }
}

struct Told {
    farm: Farm,
}

impl Told {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut asked = command(self.farm.dir.path());
        asked.args(arguments).args([
            "--project",
            "shop",
            "--farm",
            &self.farm.url,
            "--token",
            &self.farm.token,
        ]);
        asked.output().unwrap()
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path: PathBuf = self.farm.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn deliveries(&self) -> Vec<Value> {
        let text = self.succeeds(&["notify", "deliveries", "--format", "json"]);
        serde_json::from_str::<Value>(&text).unwrap()["deliveries"].as_array().unwrap().clone()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn messages_reach_every_kind_of_channel_once_signed_and_as_text() {
    let told = Told { farm: Farm::start() };
    let secret = "a secret of many characters";
    let (hook, hooked) = web(&["200 OK"]);
    let (chat, chatted) = web(&["200 OK"]);
    let (hosts, hosted) = web(&["201 Created"]);
    let (server, mailed) = mail();
    let secret_file = told.file("secret", secret);
    let slack_file = told.file("slack", &format!("{chat}/services/T0/secret"));
    let smtp_file = told.file("smtp", &server);
    let with_secret = ["--secret-file", &secret_file];
    let add = |name: &str, to: &[&str]| {
        told.succeeds(&[&["notify", "add", name][..], to].concat());
    };
    add("hook", &[&["--webhook", &hook][..], &with_secret].concat());
    add("chat", &["--slack-file", &slack_file]);
    add("github", &[&["--github", "a/b#5", "--api", &hosts][..], &with_secret].concat());
    add("gitlab", &[&["--gitlab", "g/p", "--api", &hosts][..], &with_secret].concat());
    add("mail", &["--mail", "team@example.org", "--smtp-file", &smtp_file, "--from", "farm@example.org"]);
    let listed = told.succeeds(&["notify", "list"]);
    assert!(listed.contains("github a/b#5") && !listed.contains("secret"), "{listed}");

    for name in ["hook", "chat", "github", "gitlab", "mail"] {
        told.succeeds(&["notify", "try", name]);
    }
    let hooked = hooked.recv_timeout(30 * SECOND).unwrap();
    let body: Value = serde_json::from_str(&hooked.body).unwrap();
    assert_eq!(
        (&body["schema"], &body["event"]),
        (&"flakefarm.notification/v1".into(), &"channel_tried".into())
    );
    let header = |name: &str| {
        let mut lines = hooked.headers.lines();
        lines.find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap_or_default().to_owned()
    };
    assert_eq!(header("flakefarm-delivery"), body["id"].as_str().unwrap());
    let signed = header("flakefarm-signature");
    let seconds: i64 = signed.split([',', '=']).nth(1).unwrap().parse().unwrap();
    assert_eq!(signed, flakefarm_coordinator::notify::send::signature(secret, seconds, &hooked.body));
    let chatted = chatted.recv_timeout(30 * SECOND).unwrap();
    assert!(chatted.first.starts_with("POST /services/T0/secret"), "{chatted:?}");
    let hosted = [hosted.recv_timeout(30 * SECOND).unwrap(), hosted.recv_timeout(30 * SECOND).unwrap()];
    let firsts: Vec<&str> = hosted.iter().map(|received| received.first.as_str()).collect();
    assert!(firsts.contains(&"POST /repos/a/b/issues/5/comments HTTP/1.1"), "{firsts:?}");
    assert!(firsts.contains(&"POST /projects/g%2Fp/issues HTTP/1.1"), "{firsts:?}");
    let mailed = mailed.recv_timeout(30 * SECOND).unwrap();
    assert!(mailed.headers.contains("RCPT TO:<team@example.org>"), "{mailed:?}");
    assert!(mailed.body.contains("Subject: shop: this channel works"), "{mailed:?}");
    wait_for("all of it arrived", 30 * SECOND, || {
        let all = told.deliveries();
        let arrived = all.iter().filter(|delivery| delivery["state"] == "delivered").count();
        if (arrived, all.len()) == (5, 5) { Ok(()) } else { Err(format!("{all:?}")) }
    });
}

#[test]
fn what_cannot_be_delivered_waits_visibly_and_is_tried_again() {
    let told = Told { farm: Farm::start() };
    let (hook, hooked) = web(&["503 Service Unavailable", "200 OK"]);
    let secret_file = told.file("secret", "a secret of many characters");
    told.succeeds(&["notify", "add", "hook", "--webhook", &hook, "--secret-file", &secret_file]);
    told.succeeds(&["notify", "try", "hook"]);
    let first = hooked.recv_timeout(30 * SECOND).unwrap();
    let waiting = wait_for("it waits", 30 * SECOND, || {
        let all = told.deliveries();
        match all.first().filter(|delivery| delivery["tries"] == 1) {
            Some(delivery) => Ok(delivery.clone()),
            None => Err(format!("{all:?}")),
        }
    });
    assert_eq!(waiting["state"], "waiting");
    assert!(waiting["last_error"].as_str().unwrap().contains("503"), "{waiting}");
    // The second try comes half a minute later, with the same id.
    let second = hooked.recv_timeout(60 * SECOND).unwrap();
    assert_eq!(first.body, second.body);
    // Quarantine's changes are told; a replaced channel keeps what it was told.
    for wrong in [
        &["notify", "add", "a", "--webhook", "ftp://x", "--secret-file", &secret_file][..],
        &["notify", "add", "a", "--webhook", &hook, "--secret-file", &secret_file, "--zone", "Mars/Base"][..],
        &["notify", "add", "a", "--webhook", &hook, "--secret-file", &secret_file, "--digest", "often"][..],
    ] {
        let output = told.run(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", said(&output));
    }
}

/// A test of 50 % passes or fails 40 times in a row twice in 2^40: less often than once in 10^9.
#[test]
fn owners_hear_of_their_own_tests_once_and_answer_for_them_in_quarantine() {
    let mut told = Told { farm: Farm::start() };
    told.farm.start_worker("one");
    let (ours, heard) = web(&["200 OK"]);
    let (theirs, unheard) = web(&["200 OK"]);
    let secret_file = told.file("secret", "a secret of many characters");
    for (name, address, owner) in [("ours", &ours, "@org/a"), ("theirs", &theirs, "@org/b")] {
        let to = ["notify", "add", name, "--webhook", address, "--secret-file", &secret_file];
        told.succeeds(&[&to[..], &["--owner", owner]].concat());
    }
    told.succeeds(&["quarantine", "rule", "--enter", "on", "--at-least", "5%"]);
    let project = project(&[
        (
            "flakefarm.toml",
            "[project]\nname = \"shop\"\n[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n",
        ),
        (".github/CODEOWNERS", "* @org/b\n/a/ @org/a\n"),
        ("a/test_a.py", "import random\ndef test_flaky(): assert random.random() < 0.5\n"),
        ("b/test_b.py", "def test_b(): pass\n"),
    ]);
    let sweep = |told: &Told| {
        let arguments = ["--runs", "40", "--scope", "test", "--sandbox", "forked-only", "--panel", "none"];
        let output = told.farm.sweep(project.path(), &arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    };
    sweep(&told);
    let mut messages = [heard.recv_timeout(60 * SECOND).unwrap(), heard.recv_timeout(60 * SECOND).unwrap()]
        .map(|received| serde_json::from_str::<Value>(&received.body).unwrap());
    messages.sort_by_key(|message| message["event"].to_string());
    let [quarantined, flaked] = messages;
    assert_eq!(quarantined["event"], "quarantine_changed");
    assert_eq!(flaked["event"], "tests_flaked");
    for message in [&quarantined, &flaked] {
        assert_eq!(message["tests"], serde_json::json!(["a/test_a.py::test_flaky"]));
        assert_eq!(message["owners"], serde_json::json!(["@org/a"]));
        assert!(message["text"].as_str().unwrap().contains("(@org/a)"), "{message}");
    }
    let listed = told.succeeds(&["quarantine", "list", "--format", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["entries"][0]["owner"], "@org/a", "{listed}");
    let digest = told.succeeds(&["digest", "--format", "json"]);
    let digest: Value = serde_json::from_str(&digest).unwrap();
    assert_eq!(digest["quarantine"]["entered"], 1, "{digest}");
    // Nothing changed: nobody is told. A message that can be told apart comes after what would have been one.
    sweep(&told);
    told.succeeds(&["notify", "try", "ours"]);
    let next = serde_json::from_str::<Value>(&heard.recv_timeout(60 * SECOND).unwrap().body).unwrap();
    assert_eq!(next["event"], "channel_tried");
    told.succeeds(&["notify", "try", "theirs"]);
    let first = serde_json::from_str::<Value>(&unheard.recv_timeout(60 * SECOND).unwrap().body).unwrap();
    assert_eq!(first["event"], "channel_tried");
}
