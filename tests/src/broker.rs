//! A part of the real RabbitMQ for one test: exchanges and queues under a prefix of its own, removed at its end.

use crate::contract::queue::Ends;
use crate::harness::service;
use crate::relay::Relay;
use flakefarm_shared::queue::{Queue, Role};
use futures::FutureExt as _;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use std::net::ToSocketAddrs as _;
use std::panic::{AssertUnwindSafe, resume_unwind};

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
