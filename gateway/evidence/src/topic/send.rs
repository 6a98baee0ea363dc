//! Sends messages, and waits until the brokers have acknowledged each: idempotent, by all in-sync replicas.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};

use super::client::{Connection, Context, Failed};
use crate::store::Trouble;

/// How many messages are on their way at once: their bytes are in memory.
const WINDOW: usize = 16;
/// How long to wait where the library's own queue is full.
const FULL_WAIT: Duration = Duration::from_millis(20);
/// How long the brokers may take to say whether a topic is there.
const LOOK: Duration = Duration::from_secs(2);

/// Sends to the topics of one cluster.
pub(crate) struct Sender {
    connection: Connection,
    who: String,
    /// The producer; one that failed is not used again.
    producer: Mutex<Option<ThreadedProducer<Context>>>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl Sender {
    pub(crate) fn new(connection: Connection, who: &str) -> Self {
        Self { connection, who: who.into(), producer: Mutex::default() }
    }

    /// Sends messages under one key: in this order, to one partition. All are acknowledged on return; after an error
    /// some may be.
    pub(crate) fn send<E: From<Failed>>(
        &self,
        topic: &str,
        key: &str,
        messages: impl Iterator<Item = Result<Vec<u8>, E>>,
    ) -> Result<(), E> {
        self.send_with((topic, None), key, WINDOW, messages.map(|message| message.map(|bytes| (bytes, None))))
    }

    /// As [`Sender::send`]; where a partition is named, to that one.
    pub(crate) fn send_to<E: From<Failed>>(
        &self,
        place: (&str, Option<i32>),
        key: &str,
        messages: impl Iterator<Item = Result<Vec<u8>, E>>,
    ) -> Result<(), E> {
        self.send_with(place, key, WINDOW, messages.map(|message| message.map(|bytes| (bytes, None))))
    }

    /// As [`Sender::send_to`], with headers, and at most `window` messages on their way at once.
    pub(crate) fn send_with<E: From<Failed>>(
        &self,
        place: (&str, Option<i32>),
        key: &str,
        window: usize,
        messages: impl Iterator<Item = Result<(Vec<u8>, Option<OwnedHeaders>), E>>,
    ) -> Result<(), E> {
        let mut held = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        let producer = match &mut *held {
            Some(producer) => producer,
            empty => empty.insert(self.producer()?),
        };
        let flight = Arc::new(Flight::default());
        let patience = self.connection.timeout + Duration::from_secs(5);
        let send = || -> Result<(), E> {
            for message in messages {
                flight.wait_below(window, patience).map_err(|error| told(producer, place.0, error))?;
                let (bytes, headers) = message?;
                self.enqueue(producer, &flight, place, key, &bytes, headers)?;
            }
            flight.wait_below(1, patience).map_err(|error| told(producer, place.0, error))?;
            Ok(())
        };
        let sent = send();
        match &sent {
            Ok(()) => producer.client().context().done(),
            // After a fatal error nothing goes any more, and a topic that was made anew confuses an old session.
            Err(_) => *held = None,
        }
        sent
    }

    fn producer(&self) -> Result<ThreadedProducer<Context>, Failed> {
        let mut config = self.connection.config(&self.who);
        let timeout_ms = self.connection.timeout.as_millis().clamp(1000, 300_000).to_string();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", timeout_ms)
            .set("linger.ms", "5")
            // One chunk a request: what is packed already does not get smaller, and any broker takes it.
            .set("compression.type", "none")
            .set("message.max.bytes", "1000000")
            .set("queue.buffering.max.kbytes", "65536")
            .set("partitioner", "murmur2_random");
        config.create_with_context(self.connection.context()).map_err(|error| {
            let error: KafkaError = error;
            Failed::new(super::client::trouble(&error), error.to_string())
        })
    }

    fn enqueue(
        &self,
        producer: &ThreadedProducer<Context>,
        flight: &Arc<Flight>,
        (topic, partition): (&str, Option<i32>),
        key: &str,
        message: &[u8],
        headers: Option<OwnedHeaders>,
    ) -> Result<(), Failed> {
        let until = Instant::now() + self.connection.timeout;
        loop {
            flight.begun();
            let mut record = BaseRecord::with_opaque_to(topic, Arc::clone(flight)).key(key).payload(message);
            record.partition = partition;
            record.headers.clone_from(&headers);
            let Err((error, _)) = producer.send(record) else { return Ok(()) };
            flight.landed(None);
            let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            if !is_full || Instant::now() >= until {
                return Err(told(producer, topic, error));
            }
            std::thread::sleep(FULL_WAIT);
        }
    }
}

fn told(producer: &ThreadedProducer<Context>, topic: &str, error: KafkaError) -> Failed {
    if let Some((code, reason)) = producer.client().fatal_error() {
        return Failed::new(Trouble::Unavailable, format!("{error}; {code}: {reason}"));
    }
    let failed = producer.client().context().failed(&error);
    // For a topic that is gone the library waits, and says no more than that it took too long.
    if failed.trouble == Trouble::Timeout && is_gone(producer, topic) {
        return Failed::new(Trouble::NoTopic, format!("topic `{topic}` is not there"));
    }
    failed
}

fn is_gone(producer: &ThreadedProducer<Context>, topic: &str) -> bool {
    let Ok(metadata) = producer.client().fetch_metadata(Some(topic), LOOK) else { return false };
    let of = metadata.topics().iter().find(|of| of.name() == topic);
    of.and_then(|of| of.error()).is_some_and(|error| {
        matches!(
            RDKafkaErrorCode::from(error),
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic
        )
    })
}

/// The messages of one call: how many are on their way, and the first that failed.
#[derive(Default)]
pub(crate) struct Flight {
    state: Mutex<(usize, Option<KafkaError>)>,
    changed: Condvar,
}

impl Flight {
    fn begun(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 += 1;
    }

    fn landed(&self, error: Option<KafkaError>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = state.0.saturating_sub(1);
        if state.1.is_none() {
            state.1 = error;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until fewer than `count` are on their way.
    fn wait_below(&self, count: usize, patience: Duration) -> Result<(), KafkaError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) = self
            .changed
            .wait_timeout_while(state, patience, |(on_way, failed)| failed.is_none() && *on_way >= count)
            .unwrap_or_else(PoisonError::into_inner);
        match &*state {
            (_, Some(error)) => Err(error.clone()),
            (on_way, None) if *on_way >= count => {
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut))
            }
            _ => Ok(()),
        }
    }
}

/// What became of each message.
impl ProducerContext for Context {
    type DeliveryOpaque = Arc<Flight>;

    fn delivery(&self, result: &DeliveryResult<'_>, flight: Arc<Flight>) {
        flight.landed(result.as_ref().err().map(|(error, _)| error.clone()));
    }
}
