//! The interface as a stranger meets it: every route of the document, right and wrong bodies, tokens of
//! every kind.

use super::*;
use crate::db::{Db, NewJob, NewSweep, Settlement, SweepState};
use crate::engine::DEFAULT_LEASE;
use axum::body::Body;
use axum::http::Method;
use axum::response::Response;
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::queue::{Queue, Role};
use flakefarm_shared::{Class, Digest, JobId, Payload, SweepId, now_micros};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tower::ServiceExt;

struct Server {
    directory: tempfile::TempDir,
    db: Db,
    blobs: Blobs,
    router: Router,
}

impl Server {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let db = Db::open(&format!("sqlite:{}", directory.path().join("farm.db").display())).await.unwrap();
        let blobs = Blobs::open(&format!("file://{}", directory.path().join("blobs").display())).unwrap();
        let queue = Queue::open("embedded:", Role::Coordinator).unwrap();
        let coordinator = Coordinator::new(db.clone(), queue, blobs.clone(), DEFAULT_LEASE);
        let router = router(coordinator, CancellationToken::new());
        Self { directory, db, blobs, router }
    }

    async fn token(&self, kind: TokenKind, projects: &[&str]) -> String {
        let names: BTreeSet<String> = projects.iter().map(|name| (*name).to_owned()).collect();
        let projects = if names.is_empty() { Projects::All } else { Projects::Only(names) };
        let token = NewToken { kind, scopes: None, projects, label: String::new(), expires_at: None };
        issue_token(&self.db, token).await.unwrap()
    }

    async fn send(&self, method: &str, path: &str, token: &str, body: impl Into<Body>) -> Response {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(body.into())
            .unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn get(&self, path: &str, token: &str) -> (u16, Value) {
        answer(self.send("GET", path, token, Body::empty()).await).await
    }

    /// A sweep of a project with a dead job and a blob of its own.
    async fn sweep(&self, project: &str) -> (SweepId, JobId, Digest) {
        let id = SweepId::new();
        let question = serde_json::to_string(&crate::plan::Question::detect(1)).unwrap();
        let blob = self.blobs.put(format!("a secret of {project}")).await.unwrap();
        let sweep = NewSweep {
            id,
            project: project.to_owned(),
            revision: None,
            question,
            context: blob.clone(),
            class: Class::Bulk,
            seed: 1,
            source: String::new(),
            created_at: now_micros(),
        };
        self.db.create_sweep(&sweep).await.unwrap();
        let job = JobId::derive(id, "list");
        let new = NewJob {
            id: job,
            key: "list".to_owned(),
            class: Class::Bulk,
            spec: Payload::Inline(vec![1]),
            attempts: 0,
        };
        self.db.insert_jobs(id, &[new], now_micros()).await.unwrap();
        let dead = Settlement::Dead { reason: format!("the reason of {project}") };
        self.db.settle_job(job, &dead, now_micros()).await.unwrap();
        self.db.grant_blobs(&[project.to_owned()], std::slice::from_ref(&blob)).await.unwrap();
        (id, job, blob)
    }
}

async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (
        status,
        serde_json::from_slice(&body).unwrap_or(Value::String(String::from_utf8_lossy(&body).into_owned())),
    )
}

/// A sweep of a project and a snapshot, as a client asks for it.
fn submission(project: &str, snapshot: &Digest) -> String {
    let project = json!({
        "name": project, "framework": "pytest",
        "environment": {
            "image": { "reference": "x" }, "setup": [], "inputs": [], "extra_ca_certificates": null,
            "setup_variables": {}, "python": "python3",
        },
        "test_paths": [], "arguments": [], "variables": {},
        "limits": {
            "test_timeout_ms": 1, "attempt_timeout_ms": 1, "memory_bytes": 1, "cpu_millis": 1, "pids": 1,
            "scratch_bytes": 1, "network": "none",
        },
    });
    let context = json!({ "v": flakefarm_shared::WIRE_VERSION, "project": project, "snapshot": snapshot, "revision": null });
    let question = crate::plan::Question::detect(1);
    json!({ "context": context, "question": question, "class": "bulk", "source": "" }).to_string()
}

/// Every route of the document: path, method.
fn operations() -> Vec<(String, String)> {
    let document = serde_json::to_value(document()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let methods = |(path, item): (&String, &Value)| -> Vec<(String, String)> {
        item.as_object().unwrap().keys().map(|method| (path.clone(), method.to_uppercase())).collect()
    };
    paths.iter().flat_map(methods).collect()
}

/// Whether a project is named behind the question mark.
fn takes_project(path: &str, method: &str) -> bool {
    let document = serde_json::to_value(document()).unwrap();
    let parameters = &document["paths"][path][method.to_lowercase()]["parameters"];
    let project = |parameter: &Value| parameter["name"] == "project" && parameter["in"] == "query";
    parameters.as_array().is_some_and(|parameters| parameters.iter().any(project))
}

#[test]
fn every_route_declares_a_rule_and_is_described() {
    let document = document();
    let rules = Rules::of(&document);
    let text = serde_json::to_value(&document).unwrap();
    assert_eq!(text["openapi"], "3.1.0");
    assert_eq!(text["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    let operations = operations();
    assert!(operations.len() >= 15, "{operations:?}");
    let mut named = BTreeSet::new();
    for (path, method) in &operations {
        let method: Method = method.parse().unwrap();
        assert!(rules.get(path, &method).is_some(), "{method} {path} has no rule");
        let operation = &text["paths"][path][method.as_str().to_lowercase()];
        assert!(operation["summary"].is_string(), "{method} {path} is not described");
        let answers = operation["responses"].as_object().unwrap();
        assert!(!answers.is_empty(), "{method} {path}");
        for (status, answer) in answers {
            assert!(
                answer["description"].as_str().is_some_and(|words| !words.is_empty()),
                "{method} {path} {status}"
            );
        }
        assert!(named.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}");
    }
    // What is referred to is there.
    let all = text.to_string();
    for reference in all.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(text["components"]["schemas"][name].is_object(), "{name} is not described");
    }
}

#[tokio::test]
async fn the_document_matches_the_routes() {
    let server = Server::start().await;
    let admin = server.token(TokenKind::Admin, &[]).await;
    let (status, served) = server.get("/openapi.json", "").await;
    assert_eq!((status, &served), (200, &serde_json::to_value(document()).unwrap()));
    for (path, method) in operations() {
        let id = SweepId::new().to_string();
        let concrete = path.replace("{id}", &id).replace("{digest}", Digest::of(b"none").as_str());
        let (status, body) = answer(server.send(&method, &concrete, &admin, "{}").await).await;
        let routed = status != 405 && body["error"] != format!("{concrete} is not known here");
        assert!(routed, "{method} {path} is described and not served: {status} {body}");
        let (status, _) = answer(server.send("PATCH", &concrete, &admin, "{}").await).await;
        assert_eq!(status, 405, "{path}");
    }
}

#[tokio::test]
async fn a_route_without_a_rule_is_refused_whoever_calls() {
    async fn forgotten() -> &'static str {
        "secret"
    }
    let server = Server::start().await;
    let (routes, document) = routes().split_for_parts();
    let open = routes.route("/v1/forgotten", axum::routing::get(forgotten));
    // A second method beside a described one, too.
    let open = open.route("/v1/workers", axum::routing::post(forgotten));
    let queue = Queue::open("embedded:", Role::Coordinator).unwrap();
    let coordinator = Coordinator::new(server.db.clone(), queue, server.blobs.clone(), DEFAULT_LEASE);
    let router = guarded(open, &document, coordinator, CancellationToken::new());
    let server = Server { router, ..server };
    let admin = server.token(TokenKind::Admin, &[]).await;
    let (status, body) = server.get("/v1/forgotten", &admin).await;
    assert_eq!((status, &body["code"]), (403, &json!("forbidden")), "{body}");
    let (status, body) = answer(server.send("POST", "/v1/workers", &admin, "").await).await;
    assert_eq!(status, 405, "{body}");
}

#[tokio::test]
async fn whatever_goes_wrong_has_one_shape() {
    let server = Server::start().await;
    let admin = server.token(TokenKind::Admin, &[]).await;
    let (sweep, job, _) = server.sweep("p").await;
    server.db.finish_sweep(sweep, &SweepState::Answered, now_micros(), None).await.unwrap();
    let large = "x".repeat(BODY_LIMIT + 1);
    for (method, path, body, status, code) in [
        ("GET", "/v2/nothing".to_owned(), "", 404, "not_found"),
        ("GET", "/".to_owned(), "", 404, "not_found"),
        ("DELETE", "/v1/workers".to_owned(), "", 405, "method_not_allowed"),
        ("POST", "/v1/sweeps".to_owned(), "{not json", 400, "bad_request"),
        ("POST", "/v1/sweeps".to_owned(), "{}", 422, "unprocessable"),
        ("POST", "/v1/sweeps".to_owned(), large.as_str(), 413, "too_large"),
        ("GET", "/v1/sweeps?limit=0".to_owned(), "", 400, "bad_request"),
        ("GET", "/v1/sweeps?limit=many".to_owned(), "", 400, "bad_request"),
        ("GET", "/v1/sweeps?sort=age".to_owned(), "", 400, "bad_request"),
        ("GET", "/v1/sweeps?state=sleeping".to_owned(), "", 400, "bad_request"),
        ("GET", "/v1/sweeps/nonsense".to_owned(), "", 404, "not_found"),
        ("GET", format!("/v1/sweeps/{}", SweepId::new()), "", 404, "not_found"),
        ("GET", "/v1/blobs/..%2F..%2Fetc%2Fpasswd".to_owned(), "", 400, "bad_request"),
        ("GET", format!("/v1/blobs/{}", Digest::of(b"none")), "", 404, "not_found"),
        ("POST", format!("/v1/dead/{job}/requeue"), "", 409, "conflict"),
        ("POST", "/v1/dead/nonsense/discard".to_owned(), "", 400, "bad_request"),
        ("POST", "/v1/snapshots".to_owned(), "", 422, "unprocessable"),
        ("POST", "/v1/snapshots".to_owned(), "no archive", 422, "unprocessable"),
    ] {
        let response = server.send(method, &path, &admin, body.to_owned()).await;
        assert_eq!(response.headers()[API_HEADER], API_VERSION);
        let (found, body) = answer(response).await;
        assert_eq!((found, body["code"].as_str()), (status, Some(code)), "{method} {path}: {body}");
        assert!(body["error"].as_str().is_some_and(|error| !error.is_empty()), "{body}");
        assert!(body.as_object().unwrap().contains_key("hint"), "{body}");
    }
    let request = Request::builder()
        .method("POST")
        .uri("/v1/sweeps")
        .header("authorization", format!("Bearer {admin}"));
    let response = server.router.clone().oneshot(request.body(Body::from("{}")).unwrap()).await.unwrap();
    let (status, body) = answer(response).await;
    assert_eq!((status, &body["code"]), (415, &json!("unsupported_media_type")));
    assert!(
        std::fs::read_dir(server.directory.path().join("blobs/uploads"))
            .map_or(true, |mut left| left.next().is_none())
    );
}

#[tokio::test]
async fn tokens_do_what_they_are_for_and_nothing_else() {
    let server = Server::start().await;
    let (_, job, _) = server.sweep("p").await;
    let (read, submit) =
        (server.token(TokenKind::Read, &[]).await, server.token(TokenKind::Submit, &[]).await);
    let expired = NewToken {
        kind: TokenKind::Admin,
        scopes: None,
        projects: Projects::All,
        label: String::new(),
        expires_at: Some(now_micros() - 1),
    };
    let expired = issue_token(&server.db, expired).await.unwrap();
    let revoked = server.token(TokenKind::Admin, &[]).await;
    server.db.revoke_token(revoked.split('_').nth(2).unwrap(), now_micros()).await.unwrap();
    let worker = NewToken {
        kind: TokenKind::Read,
        scopes: Some(BTreeSet::from([Scope::Worker])),
        projects: Projects::All,
        label: String::new(),
        expires_at: None,
    };
    let worker = issue_token(&server.db, worker).await.unwrap();
    let forged = read.replace("ff_read_", "ff_admin_");
    for (token, status) in
        [(&read, 200), (&submit, 200), (&expired, 401), (&revoked, 401), (&worker, 403), (&forged, 401)]
    {
        let (found, body) = server.get("/v1/sweeps", token).await;
        assert_eq!(found, status, "{token}: {body}");
    }
    for token in ["", "ff_read", "ff_read_x_y", "Bearer", "\u{fffd}"] {
        let (found, _) = server.get("/v1/sweeps", token).await;
        assert_eq!(found, 401, "{token}");
    }
    for (token, status) in [(&read, 403), (&submit, 422)] {
        let (found, body) = answer(server.send("POST", "/v1/sweeps", token, "{}").await).await;
        assert_eq!(found, status, "{body}");
    }
    for (token, status) in [(&read, 403), (&submit, 403)] {
        let (found, _) =
            answer(server.send("POST", &format!("/v1/dead/{job}/discard"), token, "").await).await;
        assert_eq!(found, status);
    }
    let used = server.db.tokens().await.unwrap();
    assert!(used.iter().any(|row| row.last_used.is_some()));
    assert!(used.iter().all(|row| !read.contains(&row.hash)), "the secret is not stored");
}

/// Over every route of the document: whoever has no token, one that is over, or one for everything else, is
/// refused before the route looks at what is asked.
#[tokio::test]
async fn every_route_refuses_tokens_that_are_over_and_those_without_its_scope() {
    let server = Server::start().await;
    let with = async |scopes: &[Scope], expires_at| {
        let scopes = Some(scopes.iter().copied().collect());
        let kind = TokenKind::Admin;
        let token = NewToken { kind, scopes, projects: Projects::All, label: String::new(), expires_at };
        issue_token(&server.db, token).await.unwrap()
    };
    let expired = with(&Scope::ALL, Some(now_micros() - 1)).await;
    let revoked = with(&Scope::ALL, None).await;
    server.db.revoke_token(revoked.split('_').nth(2).unwrap(), now_micros()).await.unwrap();
    let document = serde_json::to_value(document()).unwrap();
    let mut guarded = 0;
    for (path, method) in operations() {
        let security = &document["paths"][&path][method.to_lowercase()]["security"];
        let concrete = path.replace("{id}", &SweepId::new().to_string());
        let concrete = concrete.replace("{project}", "p").replace("{digest}", Digest::of(b"none").as_str());
        let Some(needed) = security[0]["token"][0].as_str() else {
            // Open to everybody, or with another way to say who calls.
            assert!(
                ["/healthz", "/readyz", "/metrics", "/openapi.json"].contains(&path.as_str())
                    || path.starts_with("/v1/hooks/"),
                "{path}"
            );
            continue;
        };
        let needed: Scope = needed.parse().unwrap();
        let others: Vec<Scope> = Scope::ALL.into_iter().filter(|scope| *scope != needed).collect();
        let without = with(&others, None).await;
        for (token, status, code) in [
            ("", 401, "unauthorised"),
            (&expired, 401, "unauthorised"),
            (&revoked, 401, "unauthorised"),
            (&without, 403, "forbidden"),
        ] {
            let (found, body) = answer(server.send(&method, &concrete, token, "{}").await).await;
            assert_eq!(
                (found, body["code"].as_str()),
                (status, Some(code)),
                "{method} {path} {token}: {body}"
            );
        }
        let request = Request::builder().method(method.as_str()).uri(&concrete).body(Body::empty()).unwrap();
        assert_eq!(server.router.clone().oneshot(request).await.unwrap().status(), 401, "{method} {path}");
        guarded += 1;
    }
    assert!(guarded >= 30, "{guarded} routes");
}

/// What a project may have is refused with words, a hint and the code that says which.
#[tokio::test]
async fn quotas_are_kept_for_each_project_and_said() {
    let server = Server::start().await;
    let queue = Queue::open("embedded:", Role::Coordinator).unwrap();
    let quotas = crate::engine::Quotas { queued_attempts: 10, running_jobs: 1, stored_bytes: 4_000 };
    let coordinator = Coordinator::new(server.db.clone(), queue, server.blobs.clone(), DEFAULT_LEASE);
    let router = router(coordinator.with_quotas(quotas), CancellationToken::new());
    let server = Server { router, ..server };
    let (busy, idle) =
        (server.token(TokenKind::Submit, &["busy"]).await, server.token(TokenKind::Submit, &["idle"]).await);
    let (sweep, _, _) = server.sweep("busy").await;
    let jobs: Vec<NewJob> = (0..3)
        .map(|n| NewJob {
            id: JobId::derive(sweep, &format!("{n}")),
            key: format!("{n}"),
            class: Class::Bulk,
            spec: Payload::Inline(vec![1]),
            attempts: 4,
        })
        .collect();
    server.db.insert_jobs(sweep, &jobs, now_micros()).await.unwrap();
    let archive = |bytes: usize| {
        // Nothing that can be made smaller.
        let mut noise = 1_u64;
        let content: Vec<u8> = (0..bytes)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise as u8
            })
            .collect();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "a.py", content.as_slice()).unwrap();
        zstd::encode_all(tar.into_inner().unwrap().as_slice(), 3).unwrap()
    };
    let upload = async |token: &str, bytes| {
        answer(server.send("POST", "/v1/snapshots", token, archive(bytes)).await).await
    };
    let (status, body) = upload(&idle, 2_000).await;
    assert_eq!(status, 201, "{body}");
    let digest: Digest = body["digest"].as_str().unwrap().parse().unwrap();
    let (status, body) = upload(&idle, 3_000).await;
    assert_eq!((status, &body["code"]), (507, &json!("quota_exceeded")), "{body}");
    assert!(
        body["hint"].as_str().unwrap().contains("--quota-bytes")
            && body["error"].as_str().unwrap().contains("`idle`")
    );
    // Another project has its own.
    let (status, body) = upload(&busy, 3_000).await;
    assert_eq!(status, 201, "{body}");
    let theirs: Digest = body["digest"].as_str().unwrap().parse().unwrap();
    let response = server.send("POST", "/v1/sweeps", &busy, submission("busy", &theirs)).await;
    assert_eq!(response.headers()["retry-after"], "60");
    let (status, body) = answer(response).await;
    assert_eq!((status, &body["code"]), (429, &json!("too_many_requests")), "{body}");
    assert!(body["error"].as_str().unwrap().contains("12 attempts queued, of 10"), "{body}");
    let (status, body) =
        answer(server.send("POST", "/v1/sweeps", &idle, submission("idle", &digest)).await).await;
    assert_eq!(status, 201, "{body}");
    let (status, body) =
        answer(server.send("POST", "/v1/sweeps", &idle, submission("flakefarm-control", &digest)).await)
            .await;
    assert_eq!(status, 403, "{body}");
    // Jobs beyond the quota wait.
    let publishable =
        server.db.publishable_within(Class::Bulk, now_micros(), 10, quotas.running_jobs).await.unwrap();
    assert_eq!(publishable.iter().filter(|job| job.sweep == sweep).count(), 1);
    server.db.finish_sweep(sweep, &SweepState::Cancelled, now_micros(), None).await.unwrap();
    let (status, body) =
        answer(server.send("POST", "/v1/sweeps", &busy, submission("busy", &theirs)).await).await;
    assert_eq!(status, 201, "{body}");
}

/// Tested over every route of the document, so that one that is added later is tested, too.
#[tokio::test]
async fn one_project_never_sees_anothers() {
    let server = Server::start().await;
    let (ours, _, our_blob) = server.sweep("ours").await;
    let (theirs, their_job, their_blob) = server.sweep("theirs").await;
    let event = |sweep, project: &str| crate::db::NewEvent {
        key: format!("{sweep}"),
        at: 1,
        project: Some(project.to_owned()),
        sweep: Some(sweep),
        event: crate::events::Event::Submitted { sweep },
    };
    server.db.record_events(&[event(ours, "ours"), event(theirs, "theirs")]).await.unwrap();
    let (theirs, their_job) = (theirs.to_string(), their_job.to_string());
    let token = server.token(TokenKind::Admin, &["ours"]).await;
    for (path, method) in operations() {
        if path.starts_with("/v1/hooks/") {
            // Its callers have no token: a signature says who they are.
            let (status, _) = answer(server.send(&method, "/v1/hooks/theirs", &token, "{}").await).await;
            assert_eq!(status, 401);
            continue;
        }
        if path.contains("{") {
            // Named outright, it is not there, in the very words that a sweep that never was is not.
            let asked = if takes_project(&path, &method) { "?project=theirs" } else { "" };
            let named = |id: &str| path.replace("{id}", id).replace("{digest}", their_blob.as_str()) + asked;
            let id = if path.contains("/dead/") { &their_job } else { &theirs };
            let (status, body) = answer(server.send(&method, &named(id), &token, "").await).await;
            // A project that is named is refused by its name, which the caller knows.
            assert_eq!(status, if asked.is_empty() { 404 } else { 403 }, "{method} {path}: {body}");
            let never = SweepId::new().to_string();
            let (_, unknown) = answer(server.send(&method, &named(&never), &token, "").await).await;
            if !path.contains("{digest}") {
                assert_eq!(body.to_string().replace(id.as_str(), &never), unknown.to_string());
            }
        } else if takes_project(&path, &method) {
            let (status, body) =
                answer(server.send(&method, &format!("{path}?project=theirs"), &token, "").await).await;
            let nothing = body["sweeps"] == json!([]);
            assert!(status == 403 || nothing, "{method} {path}: {body}");
        }
        if !path.contains("{") && method == "GET" {
            let (_, body) = server.get(&path, &token).await;
            let body = body.to_string();
            for secret in [theirs.as_str(), &their_job, their_blob.as_str(), "theirs"] {
                assert!(!body.contains(secret), "{method} {path} tells {secret}: {body}");
            }
        }
    }
    // Nor where a project is named in the body; the farm itself is nobody's.
    let entry = json!({ "test": "a.py::a", "reason": "it races", "expires": "2999-01-01" });
    let channel = json!({ "name": "c", "kind": { "kind": "slack", "url": "http://127.0.0.1:9/" } });
    for project in ["theirs", "*"] {
        for (method, path, body) in [
            ("POST", "/v1/quarantine", json!({ "project": project, "entry": entry })),
            ("POST", "/v1/quarantine/remove", json!({ "project": project, "test": "a", "why": "b" })),
            ("PUT", "/v1/quarantine/rule", json!({ "project": project, "rule": { "enters": true } })),
            ("POST", "/v1/channels", json!({ "project": project, "channel": channel })),
            ("POST", "/v1/channels/remove", json!({ "project": project, "name": "c" })),
            ("POST", "/v1/channels/try", json!({ "project": project, "name": "c" })),
            ("PUT", "/v1/hooks", json!({ "project": project, "secret": "0123456789abcdef" })),
        ] {
            let (status, body) = answer(server.send(method, path, &token, body.to_string()).await).await;
            assert_eq!(status, 403, "{method} {path}: {body}");
        }
    }
    let (_, body) = server.get("/v1/sweeps", &token).await;
    assert_eq!(body["sweeps"][0]["id"], ours.to_string());
    let (_, body) = server.get("/v1/sweeps?project=theirs", &token).await;
    assert_eq!(body["sweeps"], json!([]));
    let (_, body) = server.get("/v1/events", &token).await;
    assert_eq!(body["events"].as_array().unwrap().len(), 1, "{body}");
    let (status, _) = server.get(&format!("/v1/blobs/{our_blob}"), &token).await;
    assert_eq!(status, 200);
    // Neither by submitting what is another's, nor in another's name.
    let post = async |body: String| answer(server.send("POST", "/v1/sweeps", &token, body).await).await;
    let (status, body) = post(submission("theirs", &our_blob)).await;
    assert_eq!(status, 403, "{body}");
    let (status, body) = post(submission("ours", &their_blob)).await;
    assert_eq!(status, 409, "{body}");
    let (status, body) = post(submission("ours", &our_blob)).await;
    assert_eq!(status, 201, "{body}");
}

#[tokio::test]
async fn sweeps_come_in_pages() {
    let server = Server::start().await;
    let token = server.token(TokenKind::Read, &[]).await;
    let mut all = Vec::new();
    for n in 0..5 {
        let (id, _, _) = server.sweep(if n % 2 == 0 { "even" } else { "odd" }).await;
        all.insert(0, id.to_string());
    }
    let mut found = Vec::new();
    let mut path = "/v1/sweeps?limit=2".to_owned();
    loop {
        let (status, page) = server.get(&path, &token).await;
        assert_eq!(status, 200, "{page}");
        let ids =
            page["sweeps"].as_array().unwrap().iter().map(|sweep| sweep["id"].as_str().unwrap().to_owned());
        found.extend(ids);
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/sweeps?limit=2&before={next}");
    }
    assert_eq!(found, all);
    let (_, page) = server.get("/v1/sweeps?project=odd&state=running", &token).await;
    assert_eq!(page["sweeps"].as_array().unwrap().len(), 2);
    let (_, page) = server.get("/v1/dead?limit=3", &token).await;
    assert_eq!(page["dead"].as_array().unwrap().len(), 3);
    let (_, rest) =
        server.get(&format!("/v1/dead?limit=3&before={}", page["next"].as_str().unwrap()), &token).await;
    assert_eq!((rest["dead"].as_array().unwrap().len(), &rest["next"]), (2, &Value::Null));
}

#[tokio::test]
async fn a_stream_ends_when_its_sweep_has_whoever_ended_it_and_goes_on_where_it_broke_off() {
    let server = Server::start().await;
    let token = server.token(TokenKind::Read, &[]).await;
    let (sweep, _, _) = server.sweep("p").await;
    let path = format!("/v1/sweeps/{sweep}/events");
    let response = server.send("GET", &path, &token, Body::empty()).await;
    // Nobody of this process does this: another coordinator would.
    server.db.finish_sweep(sweep, &SweepState::Cancelled, now_micros(), None).await.unwrap();
    let all = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let all = String::from_utf8_lossy(&all).into_owned();
    assert!(all.contains("\"event\":\"finished\"") && all.contains("cancelled"), "{all}");
    let id = all.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    let request = Request::builder().uri(&path).header("authorization", format!("Bearer {token}"));
    let request = request.header("last-event-id", id).body(Body::empty()).unwrap();
    let again = server.router.clone().oneshot(request).await.unwrap();
    let again = axum::body::to_bytes(again.into_body(), 1 << 20).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&again).matches("finished").count(), 1);
    // What is no id of an event is not taken for the beginning.
    let request = Request::builder().uri(&path).header("authorization", format!("Bearer {token}"));
    let request = request.header("last-event-id", "nothing").body(Body::empty()).unwrap();
    let (status, body) = answer(server.router.clone().oneshot(request).await.unwrap()).await;
    assert_eq!((status, &body["code"]), (400, &json!("bad_request")), "{body}");
}
