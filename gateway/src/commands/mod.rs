//! One file a command.

mod archive;
mod check;
mod closing;
mod hold;
mod keygen;
mod keys;
mod quickstart;
mod registrar;
mod reship;
mod root;
mod shown;

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use policies::document::Problem;

use crate::cli::{Command, LogLines};
use crate::config::{self, Loaded, Out, Referred};
use crate::output;
use crate::serve::Start;

/// Runs one command.
///
/// # Errors
/// What went wrong, for people.
pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve(args) => crate::serve::run(|| {
            let loaded = loaded(&args.file.config)?;
            let closing = closing::keys(&args.closing, &loaded.config.deployment)?;
            let (accept_loss, take_over) = (args.accept_loss, args.take_over);
            Ok((loaded, Start { accept_loss, take_over, closing, ..Start::default() }))
        }),
        Command::Check(args) => check::run(&args),
        Command::Keygen(args) => keygen::run(&args),
        Command::Registrar(args) => registrar::run(&args),
        Command::Archive(args) => archive::run(&args),
        Command::Root(command) => root::run(&command),
        Command::Enroll(args) => root::enroll(&args),
        Command::RotateKey(args) => root::rotate(&args),
        Command::RevokeKey(args) => root::revoke(&args),
        Command::Keys(command) => keys::run(command),
        Command::Quickstart(args) => quickstart::run(&args),
        Command::Salvage(args) => {
            let loaded = loaded(&args.file.config)?;
            let closing = closing::keys(&args.closing, &loaded.config.deployment)?;
            let start = Start { accept_loss: args.accept_loss, closing, ..Start::default() };
            crate::serve::salvage(loaded, args.journal.as_deref(), start)
        }
        Command::Hold(command) => hold::run(&command),
        Command::Reship(args) => reship::run(&args),
        Command::Erase(args) => crate::serve::erase(loaded(&args.file.config)?, &args),
    }
}

/// Loads a configuration; warnings go to stderr.
fn loaded(path: &Path) -> Result<Loaded> {
    let loaded = config::load(path).map_err(|problems| told(path, &problems))?;
    for warning in &loaded.warnings {
        output::note(format_args!("warning: {warning}"));
    }
    Ok(loaded)
}

/// What a configuration refers to must be there; `warns` says that what should be known goes to stderr.
fn require(path: &Path, referred: Referred<'_>, warns: bool) -> Result<()> {
    let (problems, warnings) = referred.finish();
    for warning in warnings.iter().filter(|_| warns) {
        output::note(format_args!("warning: {warning}"));
    }
    if problems.is_empty() { Ok(()) } else { Err(told(path, &problems)) }
}

/// Where batches go, for people.
fn shown_store(out: &Out) -> String {
    match out {
        Out::Directory(folder) => format!("directory {}", folder.display()),
        Out::S3(s3) => s3.at.to_string(),
        Out::Kafka(kafka) => format!("topic {}", kafka.topic),
    }
}

/// Logs to stderr.
fn start_logging(filter: &str, lines: LogLines) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .with_context(|| format!("`--log {filter}`: wanted a tracing filter such as `info`"))?;
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second command in one process (tests) logs where the first does.
    let _ = match lines {
        LogLines::Json => builder.json().flatten_event(true).try_init(),
        LogLines::Text => builder.with_ansi(ansi).try_init(),
    };
    Ok(())
}

/// All problems as one error.
fn told(path: &Path, problems: &[Problem]) -> anyhow::Error {
    let lines: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    let count = match problems.len() {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    };
    anyhow!("{count} with `{}`:{lines}", path.display())
}

/// Now, in microseconds UTC.
fn now_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}
