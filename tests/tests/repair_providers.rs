//! `flakefarm repair` with a provider: a scripted one on the loopback, and a program. What it may cost, what it is
//! told, and that its word counts for nothing.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::harness::{command, project, report, said};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};

const KEY: &str = "key-of-this-test-0123456789";
const TESTS: &str = "import shop\n\ndef test_total():\n    assert shop.total([1, 2]) == 3\n\ndef test_steady():\n    assert shop.RATE == 2\n";

/// Nothing was committed: the rules have no base to compare with.
fn renamed() -> tempfile::TempDir {
    project(&[
        ("flakefarm.toml", "[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n"),
        ("shop.py", "RATE = 2\n\ndef sum_up(items):\n    return sum(items)\n"),
        ("test_shop.py", TESTS),
    ])
}

/// What the provider does at one request.
enum Scripted {
    /// Says this as the model's words.
    Says(String),
    /// Answers with this status and these headers.
    Status(&'static str),
    /// Answers without end.
    Floods,
}

/// A request as it came: its head, and its body.
type Seen = Arc<Mutex<Vec<(String, Value)>>>;

/// Serves the script, one request per connection, and ends with it.
fn serve(script: Vec<Scripted>) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    let seen = Seen::default();
    let (mut script, noted) = (VecDeque::from(script), seen.clone());
    std::thread::spawn(move || {
        while let Some(next) = script.pop_front() {
            let (stream, _) = listener.accept().unwrap();
            answer(stream, &next, &noted);
        }
    });
    (address, seen)
}

fn answer(mut stream: TcpStream, next: &Scripted, seen: &Seen) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    seen.lock().unwrap().push((head, serde_json::from_slice(&body).unwrap()));
    let sent = match next {
        Scripted::Says(words) => {
            let usage = json!({"prompt_tokens": 2_000, "completion_tokens": 100});
            let choice = json!({"message": {"role": "assistant", "content": words}, "finish_reason": "stop"});
            let body = json!({"choices": [choice], "usage": usage}).to_string();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
            write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len())
        }
        Scripted::Status(status) => {
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        }
        Scripted::Floods => {
            let _gone = write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
            let piece = [b'x'; 64 << 10];
            while stream.write_all(&piece).is_ok() {}
            Ok(())
        }
    };
    sent.unwrap();
}

fn repair(root: &Path, state: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let common = ["--format", "json", "--seed", "1", "--sandbox", "nested"];
    let mut command = command(state);
    command.arg("repair").arg(root).args(arguments).args(common);
    command.envs(variables.iter().copied()).output().unwrap()
}

fn edits(path: &str, find: &str, replace: &str) -> String {
    json!({"edits": [{"path": path, "find": find, "replace": replace}], "rationale": "it was renamed"})
        .to_string()
}

/// Name and content of every file of the project.
fn tree(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_model_is_told_why_it_was_refused_until_an_experiment_proves_its_proposal() {
    let (project, state) = (renamed(), tempfile::tempdir().unwrap());
    let (root, before) = (project.path(), tree(project.path()));
    let (address, seen) = serve(vec![
        Scripted::Says(edits("../test_shop.py", "a", "b")),
        Scripted::Says("I would rather not, but here is my password: hunter2.".to_owned()),
        Scripted::Says(edits("shop.py", "sum_up", "total")),
        Scripted::Says(edits("test_shop.py", "assert shop.total([1, 2]) == 3", "assert True")),
        Scripted::Says(edits("test_shop.py", "shop.total([1, 2])", "shop.add([1, 2])")),
        Scripted::Says(format!("```json\n{}\n```", edits("test_shop.py", "shop.total", "shop.sum_up"))),
    ]);
    let ask = ["--provider", "http", "--provider-url", &address, "--model", "m", "--attempts", "6"];
    let key = [("FLAKEFARM_REPAIR_KEY", KEY), ("FLAKEFARM_REPAIR_PRICE_INPUT", "3")];
    let looked = repair(root, state.path(), &ask, &key);
    assert_eq!(looked.status.code(), Some(0), "{}", said(&looked));
    assert_eq!(tree(root), before, "nothing is written unasked");
    let told = report(&looked);
    let outcomes: Vec<&str> =
        told["proposals"].as_array().unwrap().iter().map(|one| one["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["refused", "refused", "refused", "refused", "not_proved", "proved"], "{told:#}");
    let why = |place: usize| told["proposals"][place]["violations"].to_string();
    assert!(why(0).contains("stays within the project") && why(1).contains("neither"), "{told:#}");
    assert!(why(2).contains("none of the tests'") && why(3).contains("assert"), "{told:#}");
    assert!(told["provider"].as_str().unwrap().starts_with("6 requests, 12000 tokens sent"), "{told:#}");

    let seen = seen.lock().unwrap();
    for (round, (head, body)) in seen.iter().enumerate() {
        assert!(head.starts_with("POST /v1/chat/completions "), "{head}");
        assert!(head.to_ascii_lowercase().contains(&format!("authorization: bearer {KEY}")), "{head}");
        assert_eq!(body["temperature"], json!([0.4, 0.5, 0.6, 0.7, 0.8, 0.9][round]));
        assert!(!body.to_string().contains(KEY));
    }
    let content = |round: usize| seen[round].1["messages"][1]["content"].as_str().unwrap().to_owned();
    assert!(content(0).contains("test_shop.py::test_total") && content(0).contains("def test_steady"));
    assert!(content(1).contains("stays within the project"));
    assert!(
        content(5).contains("an assertion cannot fail") && content(5).contains("with the change it failed")
    );
    let marker = content(0).lines().next().unwrap().to_owned();
    assert_eq!(content(0).matches(&marker).count(), 2, "what is data is fenced");

    // What is proved is written without another request, and taken back to the byte.
    let id = told["session"].as_str().unwrap();
    let written = repair(root, state.path(), &["--resume", id, "--apply"], &[]);
    assert_eq!(written.status.code(), Some(0), "{}", said(&written));
    let mended = std::fs::read_to_string(root.join("test_shop.py")).unwrap();
    assert_eq!(mended, TESTS.replace("shop.total", "shop.sum_up"));
    let undone = command(state.path()).args(["repair", "--undo", id]).output().unwrap();
    assert_eq!(undone.status.code(), Some(0), "{}", said(&undone));
    assert_eq!(tree(root), before);
}

#[test]
fn a_provider_that_floods_redirects_or_costs_too_much_is_left_alone() {
    let (project, state) = (renamed(), tempfile::tempdir().unwrap());
    let (root, before) = (project.path(), tree(project.path()));
    let (elsewhere, never) = serve(vec![Scripted::Says(edits("test_shop.py", "total", "sum_up"))]);
    let redirect: &'static str = format!("307 Temporary Redirect\r\nlocation: {elsewhere}").leak();
    let (address, seen) = serve(vec![
        Scripted::Floods,
        Scripted::Status("503 Service Unavailable"),
        Scripted::Status(redirect),
        Scripted::Says("not asked for".to_owned()),
    ]);
    let ask = ["--provider", "http", "--provider-url", &address, "--model", "m", "--attempts", "5"];
    let refused = repair(root, state.path(), &ask, &[("FLAKEFARM_REPAIR_KEY", KEY)]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    let told = report(&refused);
    let why = told["proposals"].to_string();
    assert!(why.contains("larger than 4 MiB") && why.contains("503"), "{told:#}");
    assert!(told["provider"].as_str().unwrap().contains("is not followed"), "{told:#}");
    assert_eq!((seen.lock().unwrap().len(), never.lock().unwrap().len()), (3, 0));

    let ask = ["--provider", "http", "--provider-url", &address, "--model", "m"];
    let limit = [("FLAKEFARM_REPAIR_TOKEN_LIMIT", "500")];
    let refused = repair(root, state.path(), &ask, &limit);
    assert!(
        report(&refused)["provider"].as_str().unwrap().contains("limit of 500 tokens"),
        "{}",
        said(&refused)
    );
    assert_eq!(seen.lock().unwrap().len(), 3, "nothing was sent");
    assert_eq!(tree(root), before);

    let far = ["--provider", "http", "--provider-url", "http://provider.example/v1", "--model", "m"];
    let refused = repair(root, state.path(), &far, &[("FLAKEFARM_REPAIR_KEY", KEY)]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("over https only"), "{}", said(&refused));
}

#[test]
fn a_program_mends_its_copy_and_what_it_changes_of_an_expectation_is_only_shown() {
    let (project, state) = (renamed(), tempfile::tempdir().unwrap());
    let (root, before) = (project.path(), tree(project.path()));
    let ask = |script: &str, arguments: &[&str]| {
        let program = format!("sh -c '{script}'");
        let arguments: Vec<&str> = ["--provider", "command", "--provider-command", &program]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        repair(root, state.path(), &arguments, &[])
    };
    // The expectation of a test that was right before the code broke.
    std::fs::write(root.join("shop.py"), "RATE = 2\n\ndef total(items):\n    return sum(items) + 1\n")
        .unwrap();
    let shown = ask("sed -i \"s/== 3/== 4/\" test_shop.py", &["--apply"]);
    assert_eq!(report(&shown)["proposals"][0]["outcome"], "proved", "{}", said(&shown));
    assert_eq!(report(&shown)["applied"], false, "{}", said(&shown));
    assert!(String::from_utf8_lossy(&shown.stderr).contains("to be looked at"), "{}", said(&shown));
    assert_eq!(std::fs::read_to_string(root.join("test_shop.py")).unwrap(), TESTS);

    std::fs::write(
        root.join("shop.py"),
        &before.iter().find(|(name, _)| name.ends_with("/shop.py")).unwrap().1,
    )
    .unwrap();
    assert_eq!(tree(root), before);
    let written = ask("sed -i s/shop.total/shop.sum_up/ test_shop.py", &["--apply"]);
    assert_eq!(written.status.code(), Some(0), "{}", said(&written));
    let mended = TESTS.replace("shop.total", "shop.sum_up");
    assert_eq!(std::fs::read_to_string(root.join("test_shop.py")).unwrap(), mended);
    let id = report(&written)["session"].as_str().unwrap().to_owned();
    let undone = command(state.path()).args(["repair", "--undo", &id]).output().unwrap();
    assert_eq!(undone.status.code(), Some(0), "{}", said(&undone));
    assert_eq!(tree(root), before);
    let stats =
        command(state.path()).args(["repair", "--stats", "--format", "json"]).arg(root).output().unwrap();
    let row = &report(&stats)["outcomes"][0];
    assert_eq!(
        (&row["strategy"], &row["tried"], &row["proved"]),
        (&json!("provider:command"), &json!(2), &json!(2))
    );
}
