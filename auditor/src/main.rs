//! The program `auditor`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    schemas::files::hush_decoders();
    let cli = match auditor::cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match auditor::commands::run(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let message = format!("{error:#}");
            let _ =
                writeln!(std::io::stderr(), "COULD-NOT-JUDGE {}", auditor::render::hostile::lines(&message));
            ExitCode::from(2)
        }
    }
}
