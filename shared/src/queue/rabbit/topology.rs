//! Exchanges and queues on the broker. Arguments are frozen: RabbitMQ refuses any difference when a
//! queue is declared again (406), so whatever an operator may want to tune (consumer timeout, length)
//! belongs in a policy and not here.
//!
//! The coordinator declares. Workers verify passively, so that their account needs no right to
//! configure but for its own control queue.

use crate::message::Class;
use crate::queue::{DELIVERY_LIMIT, QueueError};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use uuid::Uuid;

/// Routing key of `ff.dlx`.
const DEAD_KEY: &str = "dead";
/// Routing key of `ff.results`.
pub(super) const RESULTS_KEY: &str = "results";
/// Stands for no limit. RabbitMQ 4 makes 20 of silence, and 3.10 buries a message after one delivery
/// where it reads the documented `-1`.
const UNLIMITED_DELIVERIES: i64 = 1_000_000_000;
/// Controls kept for a worker that does not read them; older ones are dropped, they are hints.
const CONTROL_BACKLOG: i64 = 1_000;

/// How the names of control queues begin, after the farm's own part.
const CONTROL_QUEUE: &str = "control.";

/// What everything is called. A prefix keeps two farms on one broker apart.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    /// Every name starts with `prefix` and a dot, if there is one.
    pub(super) fn new(prefix: Option<&str>) -> Result<Self, QueueError> {
        let Some(prefix) = prefix else { return Ok(Self { prefix: String::new() }) };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if prefix.is_empty() || prefix.len() > 64 || !prefix.chars().all(plain) {
            return Err(QueueError::Topology(format!(
                "`{prefix}` is no queue prefix: expected 1 to 64 letters, digits, `-`, `_` or `.`"
            )));
        }
        Ok(Self { prefix: format!("{prefix}.") })
    }

    fn name(&self, rest: &str) -> ShortString {
        format!("{}ff.{rest}", self.prefix).into()
    }

    pub(super) fn jobs_exchange(&self) -> ShortString {
        self.name("jobs")
    }

    pub(super) fn jobs_queue(&self, class: Class) -> ShortString {
        self.name(&format!("jobs.{}", class.word()))
    }

    pub(super) fn results_exchange(&self) -> ShortString {
        self.name("results")
    }

    pub(super) fn results_queue(&self) -> ShortString {
        self.name("results")
    }

    pub(super) fn control_exchange(&self) -> ShortString {
        self.name("control")
    }

    pub(super) fn dead_queue(&self) -> ShortString {
        self.name("dead")
    }

    fn dead_exchange(&self) -> ShortString {
        self.name("dlx")
    }

    fn control_queue(&self) -> ShortString {
        self.name(&format!("{CONTROL_QUEUE}{}", Uuid::now_v7().simple()))
    }

    fn exchanges(&self) -> [(ShortString, ExchangeKind); 4] {
        [
            (self.jobs_exchange(), ExchangeKind::Direct),
            (self.dead_exchange(), ExchangeKind::Direct),
            (self.results_exchange(), ExchangeKind::Direct),
            (self.control_exchange(), ExchangeKind::Fanout),
        ]
    }

    fn queues(&self) -> Vec<DeclaredQueue> {
        let mut queues = vec![
            DeclaredQueue {
                name: self.dead_queue(),
                exchange: self.dead_exchange(),
                key: DEAD_KEY,
                arguments: quorum(UNLIMITED_DELIVERIES),
            },
            DeclaredQueue {
                name: self.results_queue(),
                exchange: self.results_exchange(),
                key: RESULTS_KEY,
                // A message that cannot be stored now is no poison: only what cannot be read is parked.
                arguments: self.with_dead_letters(quorum(UNLIMITED_DELIVERIES)),
            },
        ];
        queues.extend(Class::ALL.map(|class| DeclaredQueue {
            name: self.jobs_queue(class),
            exchange: self.jobs_exchange(),
            key: class.word(),
            arguments: self.with_dead_letters(quorum(i64::from(DELIVERY_LIMIT))),
        }));
        queues
    }

    fn with_dead_letters(&self, mut arguments: FieldTable) -> FieldTable {
        arguments.insert("x-dead-letter-exchange".into(), text(self.dead_exchange().as_str()));
        arguments.insert("x-dead-letter-routing-key".into(), text(DEAD_KEY));
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
        arguments
    }
}

struct DeclaredQueue {
    name: ShortString,
    exchange: ShortString,
    key: &'static str,
    arguments: FieldTable,
}

fn quorum(delivery_limit: i64) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    // A full queue says so to the publisher; dead-lettering at least once demands this, too.
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(delivery_limit));
    arguments
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// Declares everything; harmless when it is there already. For coordinators.
pub(super) async fn declare(channel: &Channel, names: &Names) -> lapin::Result<()> {
    for (exchange, kind) in names.exchanges() {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        channel.exchange_declare(exchange, kind, options, FieldTable::default()).await?;
    }
    for queue in names.queues() {
        channel.queue_declare(queue.name.clone(), QueueDeclareOptions::durable(), queue.arguments).await?;
        let options = QueueBindOptions::default();
        channel
            .queue_bind(queue.name, queue.exchange, queue.key.into(), options, FieldTable::default())
            .await?;
    }
    Ok(())
}

/// Fails when something is missing. For workers.
pub(super) async fn verify(channel: &Channel, names: &Names) -> lapin::Result<()> {
    for (exchange, kind) in names.exchanges() {
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        channel.exchange_declare(exchange, kind, options, FieldTable::default()).await?;
    }
    for queue in names.queues() {
        let options = QueueDeclareOptions::durable().passive();
        channel.queue_declare(queue.name, options, FieldTable::default()).await?;
    }
    Ok(())
}

/// Whether the name can only be that of some subscriber's own queue.
pub(super) fn is_control_queue(name: &str) -> bool {
    let rest = name.rsplit_once("ff.").and_then(|(_, rest)| rest.strip_prefix(CONTROL_QUEUE));
    rest.is_some_and(|id| Uuid::try_parse(id).is_ok())
}

/// A queue of one subscriber's own, gone with its connection; answers its name.
pub(super) async fn declare_control_queue(channel: &Channel, names: &Names) -> lapin::Result<ShortString> {
    let name = names.control_queue();
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(CONTROL_BACKLOG));
    channel.queue_declare(name.clone(), QueueDeclareOptions::exclusive().auto_delete(), arguments).await?;
    let (exchange, options) = (names.control_exchange(), QueueBindOptions::default());
    channel.queue_bind(name.clone(), exchange, "".into(), options, FieldTable::default()).await?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_subscribers_own_queue_is_answered() {
        for prefix in [None, Some("blue"), Some("a.ff.b")] {
            let names = Names::new(prefix).expect("valid");
            assert!(is_control_queue(names.control_queue().as_str()), "{prefix:?}");
            for other in [names.results_queue(), names.dead_queue(), names.jobs_queue(Class::Bulk)] {
                assert!(!is_control_queue(other.as_str()), "{other}");
            }
        }
        for name in ["", "ff.control.", "ff.control.bulk", "ff.control", "amq.rabbitmq.reply-to"] {
            assert!(!is_control_queue(name), "{name}");
        }
    }

    #[test]
    fn prefix_precedes_every_name() {
        let names = Names::new(Some("blue")).expect("valid");
        assert_eq!(names.jobs_queue(Class::Bulk).as_str(), "blue.ff.jobs.bulk");
        assert_eq!(Names::new(None).expect("valid").dead_queue().as_str(), "ff.dead");
        for prefix in ["", "a b", "a/b", &"a".repeat(65)] {
            assert!(Names::new(Some(prefix)).is_err(), "{prefix}");
        }
    }
}
