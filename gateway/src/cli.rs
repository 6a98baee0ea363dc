//! What was typed on the command line; no work here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use schemas::Identifier;

use crate::{commands, output};

/// The egress gateway for LLM traffic, whose record of that traffic an outsider can check.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve traffic until told to stop (SIGTERM drains, SIGHUP reloads).
    Serve(Serve),
    /// Check a configuration and everything that it refers to; tells all problems at once.
    Check(Check),
    /// Make the key that signs seals, and print the trust file for auditors; or the key of an archiver.
    Keygen(Keygen),
    /// Keep the registry, the log of logs, until told to stop.
    Registrar(Registrar),
    /// Put batches from a topic into the store and answer with receipts, until told to stop.
    Archive(Archive),
    /// Make the deployment's root key, which signs key entries and can stay offline.
    #[command(subcommand)]
    Root(Root),
    /// Sign with the root key: a gateway has a further key.
    Enroll(Enroll),
    /// Sign with the root key: a gateway's key takes the place of another.
    RotateKey(RotateKey),
    /// Sign with the root key: a gateway's key counts no longer.
    RevokeKey(RevokeKey),
    /// Make, list and take back the keys with which callers authenticate.
    #[command(subcommand)]
    Keys(Keys),
    /// Write a ready folder for OpenAI and Anthropic.
    Quickstart(Quickstart),
    /// Close the logs that a dead host's journal left, on this machine.
    Salvage(Salvage),
    /// Destroy the content keys of exchanges: their content is gone, the evidence stays whole.
    Erase(Erase),
    /// Keep content from being erased, for a case, until the hold is released.
    #[command(subcommand)]
    Hold(Hold),
    /// Put archived batches again that are kept here (`evidence.spool_keep`), where the store has lost them.
    Reship(Reship),
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The configuration.
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "gateway.yaml")]
    pub config: PathBuf,
}

/// `serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// The configuration.
    #[command(flatten)]
    pub file: ConfigFile,
    /// Start although acknowledged records of an earlier run are damaged; the loss goes into the log.
    #[arg(long)]
    pub accept_loss: bool,
    /// Take the place of the gateway that serves with this admin socket, without a pause: it lets its connections end
    /// and closes its log. Where none serves, start as usual.
    #[arg(long)]
    pub take_over: bool,
    /// With which key logs of other keys are closed, where such were left here.
    #[command(flatten)]
    pub closing: Closing,
}

/// A closing key, and the proof that it is one.
#[derive(Debug, Clone, Default, Args)]
pub struct Closing {
    /// The file of a key that may seal and close a log after its own key, where that is not here.
    #[arg(long, value_name = "FILE", requires_all = ["enrolled_by", "root_key"])]
    pub closing_key: Option<PathBuf>,
    /// The root-signed key entry that names it as a closer of the log's key; may be given several times.
    #[arg(long, value_name = "ENTRY", requires = "closing_key")]
    pub enrolled_by: Vec<PathBuf>,
    /// The deployment's root key, public: base64, or a file with it.
    #[arg(long, value_name = "KEY", requires = "closing_key")]
    pub root_key: Option<String>,
}

/// `check`
#[derive(Debug, Args)]
pub struct Check {
    /// The configuration.
    #[command(flatten)]
    pub file: ConfigFile,
    /// Print the configuration of record (canonical JSON, secrets as fingerprints).
    #[arg(long, conflicts_with = "schema")]
    pub canonical: bool,
    /// Print the JSON Schema of `gateway.yaml` instead of checking.
    #[arg(long)]
    pub schema: bool,
}

/// `keygen`
#[derive(Debug, Args)]
pub struct Keygen {
    /// First part of the logs' names.
    #[arg(long)]
    pub deployment: String,
    /// Second part of the logs' names; `registry` for the key of a registry.
    #[arg(long, required_unless_present = "archiver")]
    pub gateway: Option<String>,
    /// Instead: the name of an archiver, for the key that signs its receipts.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["gateway", "pseudonym_key", "commit_secret", "heartbeat"])]
    pub archiver: Option<String>,
    /// The key's file; must not exist.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Make a key of pseudonyms too; must not exist.
    #[arg(long, value_name = "FILE")]
    pub pseudonym_key: Option<PathBuf>,
    /// Make a key that signs promises to callers too (`evidence.promise_key`); must not exist.
    #[arg(long, value_name = "FILE", conflicts_with = "archiver")]
    pub promise_key: Option<PathBuf>,
    /// Make the secret of `evidence.commit.kafka` too, the same for all gateways of the deployment; must not exist.
    #[arg(long, value_name = "FILE")]
    pub commit_secret: Option<PathBuf>,
    /// The heartbeat bound that the configuration will have.
    #[arg(long, default_value = "5m")]
    pub heartbeat: String,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLines {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `registrar`
#[derive(Debug, Args)]
pub struct Registrar {
    /// The configuration.
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "registrar.yaml")]
    pub config: PathBuf,
    /// Only check the configuration, and the files and variables that it refers to; tells all problems at once.
    #[arg(long)]
    pub check: bool,
    /// What is logged: a filter as `info` or `evidence=debug,info`.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// How: `text`, or `json` with one object a line.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogLines::Text)]
    pub log_format: LogLines,
}

/// `archive`
#[derive(Debug, Args)]
pub struct Archive {
    /// The configuration.
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "archive.yaml")]
    pub config: PathBuf,
    /// Only check the configuration, and the files and variables that it refers to; tells all problems at once.
    #[arg(long)]
    pub check: bool,
    /// What is logged: a filter as `info` or `evidence=debug,info`.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// How: `text`, or `json` with one object a line.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogLines::Text)]
    pub log_format: LogLines,
}

/// `root`
#[derive(Debug, Subcommand)]
pub enum Root {
    /// Make a root key; its public part goes to stdout.
    Keygen(RootKeygen),
}

/// `root keygen`
#[derive(Debug, Args)]
pub struct RootKeygen {
    /// The deployment.
    #[arg(long)]
    pub deployment: String,
    /// The root key's file; must not exist.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Who signs, and where the entry goes.
#[derive(Debug, Args)]
pub struct SignedBy {
    /// The root key's file.
    #[arg(long, value_name = "FILE")]
    pub root: PathBuf,
    /// The deployment.
    #[arg(long)]
    pub deployment: String,
    /// The signed entry; must not exist. It goes into the registrar's folder of key entries.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// `enroll`
#[derive(Debug, Args)]
pub struct Enroll {
    /// Who signs, and where the entry goes.
    #[command(flatten)]
    pub signed: SignedBy,
    /// The gateway.
    #[arg(long)]
    pub gateway: String,
    /// Its public key: base64, or a file with it.
    #[arg(long, value_name = "KEY")]
    pub key: String,
    /// The longest silence that its logs may show; default: what each `boot` says.
    #[arg(long, value_name = "DURATION")]
    pub heartbeat: Option<String>,
    /// A key that may seal and close a log of this key after it; may be given several times.
    #[arg(long, value_name = "KEY")]
    pub closer: Vec<String>,
}

/// `rotate-key`
#[derive(Debug, Args)]
pub struct RotateKey {
    /// Who signs, and where the entry goes.
    #[command(flatten)]
    pub signed: SignedBy,
    /// The gateway.
    #[arg(long)]
    pub gateway: String,
    /// The new public key: base64, or a file with it.
    #[arg(long, value_name = "KEY")]
    pub key: String,
    /// The key whose place it takes.
    #[arg(long, value_name = "KEY")]
    pub replaces: String,
    /// The longest silence that its logs may show; default: what each `boot` says.
    #[arg(long, value_name = "DURATION")]
    pub heartbeat: Option<String>,
    /// A key that may seal and close a log of the new key after it; may be given several times.
    #[arg(long, value_name = "KEY")]
    pub closer: Vec<String>,
}

/// `revoke-key`
#[derive(Debug, Args)]
pub struct RevokeKey {
    /// Who signs, and where the entry goes.
    #[command(flatten)]
    pub signed: SignedBy,
    /// The gateway.
    #[arg(long)]
    pub gateway: String,
    /// The public key: base64, or a file with it.
    #[arg(long, value_name = "KEY")]
    pub key: String,
    /// Up to where it counts: a log and its tree size; default: the last heads that were registered before.
    #[arg(long, value_name = "ORIGIN:SIZE")]
    pub until: Option<String>,
}

/// `keys`
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a key; it is printed once and stored as a hash.
    Issue(Box<Issue>),
    /// List the keys.
    List(List),
    /// Take a key back.
    Revoke(Revoke),
}

/// Where the keys are.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct KeysFile {
    /// The keys file.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The configuration that names it.
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `keys issue`
#[derive(Debug, Args)]
pub struct Issue {
    /// Where the keys are.
    #[command(flatten)]
    pub place: KeysFile,
    /// Who calls with it.
    #[arg(long, value_parser = identifier)]
    pub consumer: Identifier,
    /// The consumer's team.
    #[arg(long, value_parser = identifier)]
    pub team: Option<Identifier>,
    /// The team's organisation.
    #[arg(long, value_parser = identifier)]
    pub organisation: Option<Identifier>,
    /// Who pays.
    #[arg(long, value_parser = identifier)]
    pub cost_centre: Option<Identifier>,
    /// The AI system, as in your register.
    #[arg(long, value_parser = identifier)]
    pub system: Option<Identifier>,
    /// The purpose that data is processed for.
    #[arg(long, value_parser = identifier)]
    pub purpose: Option<Identifier>,
    /// The class of the data that is sent.
    #[arg(long, value_parser = identifier)]
    pub data_class: Option<Identifier>,
    /// A group that the consumer is in; may be given several times.
    #[arg(long, value_name = "GROUP", value_parser = identifier)]
    pub group: Vec<Identifier>,
    /// A pattern of models that it may be used for, as `gpt-4o*` or `!*audio*`; may be given several times.
    #[arg(long, value_name = "PATTERN")]
    pub allow_model: Vec<String>,
    /// A pattern of providers that it may be used for; may be given several times.
    #[arg(long, value_name = "PATTERN")]
    pub allow_provider: Vec<String>,
    /// A pattern of routes that it may be used for; may be given several times.
    #[arg(long, value_name = "PATTERN")]
    pub allow_route: Vec<String>,
    /// When it ends: a time as `2027-01-01T00:00:00Z`, or a duration from now as `90d`.
    #[arg(long, value_name = "WHEN")]
    pub expires: Option<String>,
    /// The id `[A-Za-z0-9.-]{1,64}`; default: a random one.
    #[arg(long)]
    pub id: Option<String>,
}

/// `keys list`
#[derive(Debug, Args)]
pub struct List {
    /// Where the keys are.
    #[command(flatten)]
    pub place: KeysFile,
    /// Form of the list.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `keys revoke`
#[derive(Debug, Args)]
pub struct Revoke {
    /// Where the keys are.
    #[command(flatten)]
    pub place: KeysFile,
    /// The key's id: what stands between `afk_` and the next `_`.
    pub id: String,
}

/// `quickstart`
#[derive(Debug, Args)]
pub struct Quickstart {
    /// The folder; must not exist or be empty.
    pub folder: PathBuf,
    /// First part of the logs' names.
    #[arg(long, default_value = "acme")]
    pub deployment: String,
    /// Second part of the logs' names.
    #[arg(long, default_value = "gw1")]
    pub gateway: String,
    /// Where callers connect.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Health and metrics.
    #[arg(long, default_value = "127.0.0.1:9090")]
    pub admin: SocketAddr,
    /// Another address for a provider: `openai=http://127.0.0.1:9999`.
    #[arg(long, value_name = "NAME=URL")]
    pub provider_url: Vec<String>,
}

/// `salvage`
#[derive(Debug, Args)]
pub struct Salvage {
    /// The dead host's journal.
    #[arg(required_unless_present = "from_kafka", conflicts_with = "from_kafka")]
    pub journal: Option<PathBuf>,
    /// Close the logs of the deployment that are silent in the commit topic (`evidence.commit.kafka`), where no disk is
    /// left; also one that another gateway has fenced and does not close.
    #[arg(long)]
    pub from_kafka: bool,
    /// The configuration of that gateway: its seal key, store, spool and key table as they are here.
    #[command(flatten)]
    pub file: ConfigFile,
    /// Close although acknowledged records are damaged; the loss goes into the log.
    #[arg(long)]
    pub accept_loss: bool,
    /// With which key, where the gateway's own is not here.
    #[command(flatten)]
    pub closing: Closing,
}

/// `erase`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(false))]
pub struct Erase {
    /// The configuration.
    #[command(flatten)]
    pub file: ConfigFile,
    /// An exchange's id; may be given several times.
    #[arg(long, value_name = "ID", group = "what")]
    pub exchange: Vec<String>,
    /// An end user as callers name it: everything under its keys.
    #[arg(long, group = "what")]
    pub subject: Option<String>,
    /// Destroy a key although it holds other exchanges too.
    #[arg(long)]
    pub whole_key: bool,
    /// Why, for the record: an identifier.
    #[arg(long, value_parser = identifier, default_value = "request")]
    pub reason: Identifier,
}

/// `hold`
#[derive(Debug, Subcommand)]
pub enum Hold {
    /// Begin a hold, or let one cover more.
    Add(Box<HoldAdd>),
    /// End a hold: all that was begun for the case.
    Release(HoldRelease),
    /// Print what is held at present.
    List(HoldList),
}

/// `hold add`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("held").required(true).multiple(true))]
pub struct HoldAdd {
    /// The configuration.
    #[command(flatten)]
    pub file: ConfigFile,
    /// The case: an identifier, and the hold's name.
    #[arg(long, value_name = "CASE-ID", value_parser = identifier)]
    pub case: Identifier,
    /// Why, for the record: an identifier.
    #[arg(long, value_name = "CODE", value_parser = identifier)]
    pub reason: Identifier,
    /// Only this exchange; may be given several times.
    #[arg(long, value_name = "ID", group = "held")]
    pub exchange: Vec<String>,
    /// Only what an end user asked, as callers name it, where `evidence.pseudonym_key` is configured; or its pseudonym `p:...`, as
    /// records name it. May be given several times.
    #[arg(long, group = "held")]
    pub subject: Vec<String>,
    /// Only what a consumer asked.
    #[arg(long, value_parser = identifier, group = "held")]
    pub consumer: Option<Identifier>,
    /// Only what began then or later: a time as `2026-11-20T10:00:00Z`.
    #[arg(long, value_name = "TIME", group = "held")]
    pub from: Option<String>,
    /// Only what began before.
    #[arg(long, value_name = "TIME", group = "held")]
    pub to: Option<String>,
    /// Everything of the deployment, also what is to come.
    #[arg(long, group = "held", conflicts_with_all = ["exchange", "subject", "consumer", "from", "to"])]
    pub all: bool,
}

/// `hold release`
#[derive(Debug, Args)]
pub struct HoldRelease {
    /// The configuration.
    #[command(flatten)]
    pub file: ConfigFile,
    /// The case.
    #[arg(long, value_name = "CASE-ID", value_parser = identifier)]
    pub case: Identifier,
    /// Why, for the record: an identifier.
    #[arg(long, value_name = "CODE", value_parser = identifier)]
    pub reason: Identifier,
}

/// `hold list`
#[derive(Debug, Args)]
pub struct HoldList {
    /// The configuration.
    #[command(flatten)]
    pub file: ConfigFile,
    /// Form of the list.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// `reship`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
pub struct Reship {
    /// The configuration.
    #[command(flatten)]
    pub file: ConfigFile,
    /// Those of which the store lacks an object; through Kafka `evidence.out.kafka.archive` must say where that is seen.
    #[arg(long, group = "which")]
    pub missing: bool,
    /// Those that were archived since then: a time as `2026-11-20T10:00:00Z`, or a duration before now as `6h`.
    #[arg(long, value_name = "WHEN", group = "which")]
    pub since: Option<String>,
    /// This one, as `acme/gw1/20261120t101500z-3f9a1c20:7`; may be given several times.
    #[arg(long, value_name = "LOG:NUMBER", group = "which")]
    pub batch: Vec<String>,
    /// All that are kept.
    #[arg(long, group = "which", conflicts_with_all = ["missing", "since", "batch"])]
    pub all: bool,
    /// How long the store has to confirm what was put.
    #[arg(long, value_name = "DURATION", default_value = "2m")]
    pub within: String,
}

fn identifier(text: &str) -> Result<Identifier, String> {
    Identifier::new(text).map_err(|error| error.to_string())
}

/// Runs the program: 0 done, 1 not done (the message says why), 2 wrong arguments.
pub fn run() -> ExitCode {
    match commands::run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format_args!("gateway: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
