//! The commands: one file each. Data goes to standard output, everything else to standard error.

pub mod access;
pub mod assess;
pub mod check_proof;
pub mod check_receipts;
pub mod cost;
pub mod evidence;
pub mod export;
pub mod probe;
pub mod prove;
pub mod query;
pub mod reconcile;
pub mod reperform;
pub mod report;
pub mod sample;
pub mod serve;
pub mod show;
pub mod state;
pub mod subject;
pub mod trust;
pub mod verify;
pub mod witness;

use std::io::Write as _;
#[cfg(not(test))]
pub(crate) use std::io::stderr;

#[cfg(test)]
pub(crate) use tests::stderr::stderr;

use crate::cli::{Cli, Command};

/// Runs a command; gives the exit code.
///
/// # Errors
/// What could not be judged: exit code 2.
pub fn run(cli: &Cli) -> anyhow::Result<u8> {
    match &cli.command {
        Command::Verify(verify) => verify::run(verify),
        Command::Query(query) => query::run(query),
        Command::Cost(cost) => cost::run(cost),
        Command::Export(export) => export::run(export),
        Command::Reconcile(reconcile) => reconcile::run(reconcile),
        Command::Reperform(typed) => reperform::run(typed),
        Command::Sample(typed) => sample::run(typed),
        Command::Assess(typed) => assess::run(typed),
        Command::Report(typed) => report::run(typed),
        Command::CheckReport(typed) => report::check(typed),
        Command::ReportKey(typed) => report::report_key(typed),
        Command::Pack(command) => assess::packs(command),
        Command::Show(show) => show::run(show),
        Command::Serve(typed) => serve::run(typed),
        Command::Prove(prove) => prove::run(prove),
        Command::CheckProof(check) => check_proof::run(check),
        Command::CheckReceipts(check) => check_receipts::run(check),
        Command::Subject(typed) => subject::run(typed),
        Command::CheckSubject(typed) => subject::check(typed),
        Command::Access(command) => access::run(command),
        Command::Probe(probe) => probe::run(probe),
        Command::State(command) => state::run(command),
        Command::Trust(command) => trust::run(command),
        Command::Witness(command) => witness::run(command),
    }
}

/// Writes data to standard output. A reader that went away is no error.
pub(crate) fn out(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod tests;
