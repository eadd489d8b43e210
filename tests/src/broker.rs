//! A part of the real RabbitMQ for one test: exchanges and queues under a prefix of its own, removed at its end.

use crate::contract::queue::{Ends, PATIENCE};
use crate::eventually::eventually;
use crate::harness::service;
use crate::relay::Relay;
use flakefarm_shared::queue::{Queue, Role};
use futures::FutureExt as _;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use std::net::ToSocketAddrs as _;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

/// A prefix on the broker at `FLAKEFARM_TEST_AMQP_URL`.
#[derive(Debug)]
pub struct Broker {
    server: String,
    prefix: String,
    /// Of its own part of the broker, for [`Queue::open`].
    pub address: String,
}

impl Broker {
    /// Runs a test with a broker of its own, and removes what it declared, also when the test panics.
    ///
    /// # Panics
    /// As the test does, and where the broker cannot be reached.
    pub async fn with(test: impl AsyncFnOnce(&Broker)) {
        let server = service("FLAKEFARM_TEST_AMQP_URL");
        let prefix = format!("test-{}", uuid::Uuid::now_v7());
        let address = format!("{server}?prefix={prefix}");
        let broker = Self { server, prefix, address };
        let outcome = AssertUnwindSafe(test(&broker)).catch_unwind().await;
        broker.remove().await;
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
    }

    /// Both ends of a queue there, at this address or a relay's.
    ///
    /// # Panics
    /// Where the broker cannot be reached.
    pub async fn ends(&self, address: &str) -> Ends {
        let coordinator = Queue::open(address, Role::Coordinator).expect("the address is one");
        coordinator.check().await.expect("the broker answers");
        let worker = Queue::open(address, Role::Worker).expect("the address is one");
        worker.check().await.expect("the broker answers");
        Ends { coordinator, worker }
    }

    /// The same part of the broker, behind a switch.
    ///
    /// # Panics
    /// Where no port can be had.
    pub fn behind_a_relay(&self) -> (Relay, String) {
        let mut uri: AMQPUri = self.server.parse().expect("the server's address is one");
        let server = (uri.authority.host.as_str(), uri.authority.port);
        let server =
            server.to_socket_addrs().expect("the server has an address").next().expect("one at least");
        let (relay, here) = Relay::tcp(server);
        uri.authority.host = here.ip().to_string();
        uri.authority.port = here.port();
        (relay, format!("{uri}?prefix={}", self.prefix))
    }

    /// The broker's name of an exchange or a queue (`jobs.bulk`).
    pub fn name(&self, rest: &str) -> String {
        format!("{}.ff.{rest}", self.prefix)
    }

    /// A channel of its own.
    ///
    /// # Panics
    /// Where the broker cannot be reached.
    pub async fn channel(&self) -> Channel {
        let connection = Connection::connect(&self.server, ConnectionProperties::default()).await;
        connection.expect("the broker answers").create_channel().await.expect("a channel can be had")
    }

    /// Deletes a queue with what it holds (`jobs.bulk`).
    ///
    /// # Panics
    /// Where the broker cannot be reached.
    pub async fn delete_queue(&self, queue: &str) {
        let deleted =
            self.channel().await.queue_delete(self.name(queue).into(), QueueDeleteOptions::default()).await;
        deleted.expect("the queue can be deleted");
    }

    async fn remove(&self) {
        for queue in ["jobs.interactive", "jobs.bulk", "results", "dead"] {
            self.delete_queue(queue).await;
        }
        let channel = self.channel().await;
        for exchange in ["jobs", "dlx", "results", "control"] {
            let deleted =
                channel.exchange_delete(self.name(exchange).into(), ExchangeDeleteOptions::default()).await;
            deleted.expect("the exchange can be deleted");
        }
    }
}

/// A broker that is short of memory, and reads nothing from connections that publish, until this is dropped.
#[derive(Debug)]
pub struct Starved(String);

impl Starved {
    /// Takes memory from the broker, and waits until it reads nothing any more.
    ///
    /// # Panics
    /// When it cannot be told, or takes what is published all the same.
    pub async fn begin() -> Self {
        let starved = Self(service("FLAKEFARM_TEST_AMQP_MEMORY"));
        starved.limit("1MiB");
        let server = service("FLAKEFARM_TEST_AMQP_URL");
        let connection = Connection::connect(&server, ConnectionProperties::default()).await;
        let connection = connection.expect("a broker");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(Default::default()).await.expect("a channel with confirms");
        // Its monitor looks every second.
        eventually("the broker takes nothing", PATIENCE, async || {
            let publishing = channel.basic_publish(
                "".into(),
                "nobody".into(),
                Default::default(),
                b"?",
                Default::default(),
            );
            let confirmed = async { publishing.await.expect("a channel").await };
            match tokio::time::timeout(Duration::from_millis(500), confirmed).await {
                Err(_) => Ok(()),
                Ok(confirmed) => Err(format!("{confirmed:?}")),
            }
        })
        .await;
        starved
    }

    fn limit(&self, limit: &str) {
        let command = format!("{} {limit}", self.0);
        let status = std::process::Command::new("sh").args(["-c", &command]).status();
        assert!(status.as_ref().is_ok_and(std::process::ExitStatus::success), "{command}: {status:?}");
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        // What it begins with: deploy/dev/lib/rabbitmq.sh.
        self.limit("512MiB");
    }
}
