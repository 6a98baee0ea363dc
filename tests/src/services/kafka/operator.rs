//! What an operator of a cluster does to it, and anybody who may write: topics, offsets, rights and messages.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::Kafka;
use crate::process::free_port;

const PATIENCE: Duration = Duration::from_secs(20);

impl Kafka {
    /// What a client is configured with that comes by the plain way.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        let all: Vec<String> = self.addresses().iter().map(SocketAddr::to_string).collect();
        config.set("bootstrap.servers", all.join(","));
        config
    }

    /// Its operator.
    pub fn operator(&self) -> Operator<'_> {
        Operator(self)
    }

    /// Somebody who may write to it.
    ///
    /// # Panics
    /// Where the library makes no producer.
    pub fn writer(&self) -> Writer {
        Writer::with(self.client())
    }
}

/// Sends messages of his own.
pub struct Writer(BaseProducer<Refusals>);

/// What the brokers did not take.
#[derive(Default)]
struct Refusals(Mutex<Vec<KafkaError>>);

impl ClientContext for Refusals {}

impl ProducerContext for Refusals {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let refused = result.as_ref().err().map(|(error, _)| error.clone());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(refused);
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

impl Writer {
    /// With what a client is configured with.
    ///
    /// # Panics
    /// Where the library makes no producer.
    pub fn with(mut config: ClientConfig) -> Self {
        config.set("partitioner", "murmur2_random");
        Self(config.create_with_context(Refusals::default()).expect("a producer"))
    }

    /// Sends a message; it is acknowledged on return.
    ///
    /// # Panics
    /// Where it is not.
    pub fn send(&self, topic: &str, key: &str, message: &[u8]) {
        self.try_send(topic, key, message).expect("the broker takes it");
    }

    /// Sends a message to a partition; it is acknowledged on return.
    ///
    /// # Panics
    /// Where it is not.
    pub fn send_to(&self, topic: &str, partition: i32, key: &str, message: &[u8]) {
        let record = BaseRecord::to(topic).partition(partition).key(key).payload(message);
        self.sent(record).expect("the broker takes it");
    }

    /// Sends a message; it is acknowledged on return.
    ///
    /// # Errors
    /// The broker does not take it.
    pub fn try_send(&self, topic: &str, key: &str, message: &[u8]) -> Result<(), KafkaError> {
        self.sent(BaseRecord::to(topic).key(key).payload(message))
    }

    fn sent(&self, record: BaseRecord<'_, str, [u8]>) -> Result<(), KafkaError> {
        self.0.send(record).map_err(|(error, _)| error)?;
        self.0.flush(PATIENCE)?;
        let refused = self.0.context().0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        refused.map_or(Ok(()), Err)
    }
}

/// The right to do some things with something.
#[derive(Debug, Clone, Copy)]
pub enum Allow<'a> {
    /// With a topic: `Read`, `Write`, `Create`, `Describe`, `DescribeConfigs`.
    Topic(&'a str, &'a [&'a str]),
    /// `Read` of a group.
    Group(&'a str),
}

/// Does what Kafka's own tools do.
#[derive(Debug, Clone, Copy)]
pub struct Operator<'a>(&'a Kafka);

impl Operator<'_> {
    /// What the brokers' own interface does, on a thread of its own.
    fn does<T: Send>(
        self,
        work: impl FnOnce(&AdminClient<DefaultClientContext>, &tokio::runtime::Runtime) -> T + Send,
    ) -> T {
        let config = self.0.client();
        let work = || {
            let admin = config.create().expect("an admin client");
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            work(&admin, &runtime)
        };
        std::thread::scope(|scope| scope.spawn(work).join()).expect("the brokers do it")
    }

    /// Makes topics of four partitions, on every broker.
    ///
    /// # Panics
    /// Where they are not made.
    pub fn make(self, topics: &[&str], settings: &[(&str, &str)]) {
        let copies = i32::try_from(self.0.addresses().len()).unwrap_or(1);
        self.make_with(topics, copies, settings);
    }

    /// Makes topics of four partitions with so many copies.
    ///
    /// # Panics
    /// Where they are not made.
    pub fn make_with(self, topics: &[&str], copies: i32, settings: &[(&str, &str)]) {
        self.make_of(topics, (4, copies), settings);
    }

    /// Makes topics of so many partitions with so many copies.
    ///
    /// # Panics
    /// Where they are not made.
    pub fn make_of(self, topics: &[&str], (partitions, copies): (i32, i32), settings: &[(&str, &str)]) {
        self.does(|admin, runtime| {
            let new: Vec<NewTopic<'_>> = topics
                .iter()
                .map(|name| {
                    let new = NewTopic::new(name, partitions, TopicReplication::Fixed(copies));
                    settings.iter().fold(new, |new, (key, value)| new.set(key, value))
                })
                .collect();
            let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
            let made = runtime.block_on(admin.create_topics(&new, &options)).expect("topics are made");
            assert!(made.iter().all(Result::is_ok), "{made:?}");
        });
    }

    /// Deletes topics.
    ///
    /// # Panics
    /// Where they are not deleted.
    pub fn delete(self, topics: &[&str]) {
        self.does(|admin, runtime| {
            let options = AdminOptions::new();
            let gone = runtime.block_on(admin.delete_topics(topics, &options)).expect("topics are deleted");
            assert!(gone.iter().all(Result::is_ok), "{gone:?}");
        });
        std::thread::sleep(Duration::from_secs(2));
    }

    /// Deletes topics and makes others of the same names.
    pub fn make_anew(self, topics: &[&str]) {
        self.delete(topics);
        self.make(topics, &[]);
    }

    /// The settings of a topic.
    ///
    /// # Panics
    /// Where the brokers do not tell.
    pub fn settings(self, topic: &str) -> BTreeMap<String, String> {
        self.does(|admin, runtime| {
            let asked = [ResourceSpecifier::Topic(topic)];
            let told = runtime.block_on(admin.describe_configs(&asked, &AdminOptions::new()));
            let told = told.expect("settings").remove(0).expect("settings of the topic");
            told.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
        })
    }

    /// Deletes everything that a topic holds.
    ///
    /// # Panics
    /// Where it is not deleted.
    pub fn truncate(self, topic: &str) {
        self.does(|admin, runtime| {
            let mut ends = TopicPartitionList::new();
            for partition in 0..4 {
                ends.add_partition_offset(topic, partition, Offset::End).expect("an offset");
            }
            let done = runtime.block_on(admin.delete_records(&ends, &AdminOptions::new()));
            done.expect("records are deleted");
        });
    }

    /// Forgets how far a group has read: it begins anew.
    ///
    /// # Panics
    /// Where a member of the group lives.
    pub fn forget(self, group: &str) {
        self.does(|admin, runtime| {
            let done = runtime.block_on(admin.delete_groups(&[group], &AdminOptions::new()));
            assert!(done.expect("groups are deleted").iter().all(Result::is_ok));
        });
    }

    /// Sends a message that its sender packed with zstd, by a tool of Kafka's own: the library here is built without.
    ///
    /// # Panics
    /// Where the tool fails.
    pub fn send_packed(self, topic: &str, key: &str, message: &str) {
        let path = self.0.folder().join("packed");
        std::fs::write(&path, format!("{key}:{message}\n")).expect("a file");
        let mut command = super::java("org.apache.kafka.tools.ConsoleProducer", &[]);
        command.args(["--bootstrap-server", &self.0.address.to_string(), "--topic", topic]);
        command.args(["--compression-codec", "zstd", "--property", "parse.key=true"]);
        command.args(["--property", "key.separator=:"]);
        let output = command.stdin(std::fs::File::open(path).expect("a file")).output().expect("java");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Says that a group without members has read all that a topic holds.
    ///
    /// # Panics
    /// Where the brokers do not take it.
    pub fn skip(self, group: &str, topic: &str) {
        let mut config = self.0.client();
        let reader: BaseConsumer = config.set("group.id", group).create().expect("a reader");
        let mut ends = TopicPartitionList::new();
        for partition in 0..4 {
            let (_, end) = reader.fetch_watermarks(topic, partition, PATIENCE).expect("the end");
            ends.add_partition_offset(topic, partition, Offset::Offset(end)).expect("an offset");
        }
        reader.commit(&ends, CommitMode::Sync).expect("the offsets");
    }

    /// Gives a user rights, by the protocol itself: the library has no call for it.
    ///
    /// # Panics
    /// Where the broker does not take it.
    pub fn allow(self, user: &str, rights: &[Allow<'_>]) {
        let (mut count, mut list) = (0_i32, Vec::new());
        let text = |out: &mut Vec<u8>, text: &str| {
            out.extend(i16::try_from(text.len()).expect("a short text").to_be_bytes());
            out.extend(text.as_bytes());
        };
        for right in rights {
            let (kind, name, operations): (u8, &str, &[&str]) = match right {
                Allow::Topic(name, operations) => (2, name, operations),
                Allow::Group(name) => (3, name, &["Read"]),
            };
            for operation in operations {
                let operation = match *operation {
                    "Read" => 3,
                    "Write" => 4,
                    "Create" => 5,
                    "Describe" => 8,
                    "DescribeConfigs" => 10,
                    other => std::panic::panic_any(format!("`{other}` is no right of these tests")),
                };
                count += 1;
                list.push(kind);
                text(&mut list, name);
                list.push(3); // this very name
                text(&mut list, &format!("User:{user}"));
                text(&mut list, "*");
                list.extend([operation, 3]); // allow
            }
        }
        // CreateAcls, version 1.
        let mut request = [30_i16.to_be_bytes(), 1_i16.to_be_bytes()].concat();
        request.extend(7_i32.to_be_bytes());
        text(&mut request, "tests");
        request.extend(count.to_be_bytes());
        request.extend(list);
        let mut stream = TcpStream::connect(self.0.listens()).expect("the broker");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
            .write_all(&u32::try_from(request.len()).expect("a short request").to_be_bytes())
            .expect("sent");
        stream.write_all(&request).expect("sent");
        let mut length = [0; 4];
        stream.read_exact(&mut length).expect("an answer");
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer).expect("an answer");
        // Correlation, throttle time, how many, and of each an error and its text: none.
        let mut wanted = 7_i32.to_be_bytes().to_vec();
        wanted.extend([0; 4]);
        wanted.extend(count.to_be_bytes());
        wanted.extend([0; 4].repeat(usize::try_from(count).unwrap_or(0)));
        assert_eq!(answer, wanted, "the broker refuses rights for {user}: {rights:?}");
    }
}

/// A message as it came.
#[derive(Debug, Clone)]
pub struct Took {
    /// Its partition.
    pub partition: i32,
    /// Where it stands there.
    pub offset: i64,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
}

/// Everything that a topic holds now, one partition after the other.
///
/// # Panics
/// Where it cannot be read.
pub fn messages(kafka: &Kafka, topic: &str) -> Vec<Took> {
    let mut config = kafka.client();
    config.set("group.id", format!("look-{}", free_port().port()));
    config.set("enable.partition.eof", "true").set("isolation.level", "read_uncommitted");
    let reader: BaseConsumer = config.create().expect("a reader");
    let metadata = reader.fetch_metadata(Some(topic), PATIENCE).expect("the topic");
    let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, partition.id(), Offset::Beginning).expect("an offset");
    }
    let mut rest = list.count();
    assert!(rest > 0, "`{topic}` is not there");
    reader.assign(&list).expect("partitions");
    let (mut found, begun) = (Vec::new(), Instant::now());
    while rest > 0 {
        assert!(begun.elapsed() < PATIENCE * 2, "`{topic}` does not end");
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
                let value = message.payload().unwrap_or_default().to_vec();
                let (partition, offset) = (message.partition(), message.offset());
                found.push(Took { partition, offset, key, value });
            }
            Some(Err(KafkaError::PartitionEOF(_))) => rest -= 1,
            Some(Err(_)) | None => {}
        }
    }
    found.sort_by_key(|took| (took.partition, took.offset));
    found
}
