//! `auditor witness keygen`, `serve`.

use std::sync::Arc;

use anyhow::Context as _;
use schemas::note::Signer as _;
use schemas::tlog::WitnessKey;

use super::out;
use crate::cli::WitnessCommand;
use crate::witness::{self, Config, StateFolder, Witness, key};

/// Runs the command.
///
/// # Errors
/// A key, a state or a configuration that cannot be made or used.
pub fn run(command: &WitnessCommand) -> anyhow::Result<u8> {
    match command {
        WitnessCommand::Keygen { name, out: path, state } => {
            let key = key::make(path, name)?;
            StateFolder::create(state, &key)?;
            out(&format!("{key}\n"))?;
        }
        WitnessCommand::Serve { config } => {
            let config = Config::read(config)?;
            let signer = key::read(&config.key).context("`key`")?;
            let key = WitnessKey::new(config.name.as_str(), signer.public_key()).context("`name`")?;
            let state = StateFolder::open(&config.state, &key).context("`state`")?;
            let witness = Witness::new(&config.name, signer, config.logs, state).context("`state`")?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .context("tokio runtime")?;
            let serving = witness::serve(Arc::new(witness), config.listen);
            runtime.block_on(serving).with_context(|| format!("`listen` is {}", config.listen))?;
        }
    }
    Ok(0)
}
