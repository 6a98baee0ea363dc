//! The provider on loopback as a process of its own, for benchmarks and for trying things by hand.

use std::net::SocketAddr;

use clap::Parser;

/// An LLM provider on loopback that speaks the OpenAI and Anthropic APIs.
#[derive(Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:9100")]
    listen: SocketAddr,
    /// Do not remember requests (long runs).
    #[arg(long)]
    forget: bool,
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let provider = tests::provider::Provider::start_on(arguments.listen, tests::corpus::own_lines()).await;
    if arguments.forget {
        provider.forget();
    }
    eprintln!("provider listens on {}", provider.url());
    // Until a signal ends the process.
    std::future::pending::<()>().await;
}
