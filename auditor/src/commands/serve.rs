//! `auditor serve`: a page over proven rows, for people who would rather look than type.

use anyhow::{Context as _, bail};

use super::assess::Questions;
use crate::cli::{Asking, Serve};
use crate::serve::{Access, Origin, Server, Settings};

/// Runs the command.
///
/// # Errors
/// Evidence, a pack or a register that cannot be used, an address that cannot be listened on.
pub fn run(typed: &Serve) -> anyhow::Result<u8> {
    let origin = typed.origin.as_deref().map(Origin::parse).transpose()?;
    if !typed.listen.ip().is_loopback() && origin.is_none() {
        bail!(
            "--listen `{}` is not loopback: wanted `--origin URL`, the address under which others reach the page; they need a login link then",
            typed.listen
        );
    }
    if typed.content {
        typed.why.required("serve --content")?;
    } else if typed.why.reason.is_some() {
        bail!("--reason is for content that is shown: wanted `--content` too, or no reason");
    }
    let packs = if typed.pack.is_empty() { vec!["all".to_owned()] } else { typed.pack.clone() };
    let asking = Asking {
        register: typed.register.clone(),
        set: typed.set.clone(),
        control: Vec::new(),
        exceptions: None,
        memory: typed.memory,
    };
    let settings = Settings {
        evidence: typed.evidence.clone(),
        origin,
        login: typed.login,
        questions: Questions::read(&packs, &asking)?,
        access: Access { why: typed.content.then(|| typed.why.clone()) },
        memory: typed.memory,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .context("tokio runtime")?;
    let served = Server::run(settings, typed.listen, runtime.handle());
    // Whoever is answered now has waited for nothing that counts.
    runtime.shutdown_background();
    served.with_context(|| format!("--listen is {}", typed.listen))?;
    Ok(0)
}
