//! One connection with one channel, opened, verified and thrown away as a whole. lapin's own recovery
//! is not used: after a channel error its consumers can wait for ever. Whoever holds a link opens a new
//! one, after a pause from [`crate::backoff::Backoff`], when anything at all is wrong with the old.

use super::Role;
use super::topology::{self, Names};
use crate::queue::QueueError;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind};
use std::time::Duration;
use tokio::time::timeout;
use url::{Host, Url};

/// To connect, log in and see to the topology.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// To say goodbye. Missing it only costs the broker a heartbeat.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
const HEARTBEAT_SECONDS: u16 = 20;
const CONNECTION_TIMEOUT_MILLIS: u64 = 10_000;

/// Where the broker is, and what is ours on it.
pub(super) struct Broker {
    uri: AMQPUri,
    pub(super) names: Names,
    role: Role,
}

impl Broker {
    /// Reads `amqp(s)://user:password@host:port/vhost?prefix=…`. Heartbeat and connection timeout may
    /// be set in the query as RabbitMQ's own clients read them.
    pub(super) fn parse(address: &str, role: Role) -> Result<Self, QueueError> {
        // The address may hold a password: it is in no message.
        let wrong = |why: String| QueueError::Topology(format!("the queue address cannot be read: {why}"));
        let url = Url::parse(address).map_err(|error| wrong(error.to_string()))?;
        let mut uri: AMQPUri = address.parse().map_err(wrong)?;
        if let Some(Host::Ipv6(ip)) = url.host() {
            // The parser takes only names for hosts, and what it does not take becomes `localhost`.
            uri.authority.host = ip.to_string();
        }
        if uri.vhost.is_empty() {
            // `amqp://host/`: strictly the virtual host of no name, in truth a slash too many.
            uri.vhost = "/".to_owned();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        uri.query.connection_timeout.get_or_insert(CONNECTION_TIMEOUT_MILLIS);
        let prefix = url.query_pairs().find(|(key, _)| key == "prefix").map(|(_, value)| value.into_owned());
        Ok(Self { uri, names: Names::new(prefix.as_deref())?, role })
    }

    /// For people: where, without the credentials.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.uri.authority.host, self.uri.authority.port)
    }

    /// Connects and declares or verifies the topology, within ten seconds.
    pub(super) async fn open(&self, purpose: &str) -> Result<Link, QueueError> {
        match timeout(OPEN_DEADLINE, self.connect(purpose)).await {
            Ok(opened) => opened.map_err(|error| self.explain(&error)),
            Err(_) => Err(QueueError::Unreachable(format!(
                "{} did not answer within {} s",
                self.place(),
                OPEN_DEADLINE.as_secs()
            ))),
        }
    }

    async fn connect(&self, purpose: &str) -> lapin::Result<Link> {
        let role = match self.role {
            Role::Coordinator => "coordinator",
            Role::Worker => "worker",
        };
        let name = format!("flakefarm {role}: {purpose}");
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let connection = Connection::connect_uri(self.uri.clone(), properties).await?;
        // From here on whoever drops this future closes the connection.
        let opened = Opened(Some(connection));
        let channel = opened.connection().create_channel().await?;
        match self.role {
            Role::Coordinator => topology::declare(&channel, &self.names).await?,
            Role::Worker => topology::verify(&channel, &self.names).await?,
        }
        Ok(Link { opened, channel })
    }

    /// What the error means for the caller, and what to do about it.
    pub(super) fn explain(&self, error: &lapin::Error) -> QueueError {
        let ErrorKind::ProtocolError(refusal) = error.kind() else {
            return QueueError::Unreachable(format!("{}: {error}", self.place()));
        };
        let text = refusal.get_message();
        match refusal.get_id() {
            404 => QueueError::Topology(format!("{text} (a coordinator declares it when it starts)")),
            406 => QueueError::Topology(format!(
                "{text} (it was declared otherwise: drain it, delete it and restart the coordinator)"
            )),
            403 | 530 => QueueError::Topology(text.to_string()),
            _ => QueueError::Unreachable(format!("{}: {text}", self.place())),
        }
    }
}

/// An open connection and its channel. However it is dropped, the connection ends: one that is merely
/// forgotten stays open, subscribed, and takes messages that nobody will ever answer.
pub(super) struct Link {
    opened: Opened,
    pub(super) channel: Channel,
}

impl Link {
    pub(super) fn connection(&self) -> &Connection {
        self.opened.connection()
    }

    /// Closes, so that the broker gives everything unanswered back at once.
    pub(super) async fn close(mut self) {
        if let Some(connection) = self.opened.0.take() {
            say_goodbye(connection).await;
        }
    }
}

/// Closes its connection when it is dropped.
struct Opened(Option<Connection>);

impl Opened {
    fn connection(&self) -> &Connection {
        self.0.as_ref().expect("taken only by those who consume it")
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // A drop cannot wait; the task is bounded by its deadline. Without a runtime the process ends.
        if let (Some(connection), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(say_goodbye(connection));
        }
    }
}

async fn say_goodbye(connection: Connection) {
    // An error here means that it was closed or lost already.
    timeout(CLOSE_DEADLINE, connection.close(200, "goodbye".into())).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_carries_vhost_prefix_and_timeouts() {
        let broker = Broker::parse("amqp://u:p@[::1]:5673/farm%2fa?prefix=t1&heartbeat=7", Role::Worker)
            .expect("valid");
        assert_eq!(broker.uri.vhost, "farm/a");
        assert_eq!(broker.place(), "::1:5673");
        assert_eq!(broker.uri.query.heartbeat, Some(7));
        assert_eq!(broker.uri.query.connection_timeout, Some(CONNECTION_TIMEOUT_MILLIS));
        assert_eq!(broker.names.dead_queue().as_str(), "t1.ff.dead");
        for (address, vhost) in
            [("amqp://h", "/"), ("amqp://h/", "/"), ("amqp://h/%2f", "/"), ("amqp://h/x", "x")]
        {
            assert_eq!(Broker::parse(address, Role::Worker).expect("valid").uri.vhost, vhost, "{address}");
        }
    }

    #[test]
    fn wrong_address_does_not_show_the_password() {
        let error = Broker::parse("amqp://u:secret@h:notaport/", Role::Worker).err().expect("wrong");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
