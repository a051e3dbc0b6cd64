//! Compiles the odd programs of the tests into a folder, for machines without a compiler.

use std::path::PathBuf;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(about = "Compiles the odd programs of the tests")]
struct Cli {
    /// Where they go
    folder: PathBuf,
}

fn main() -> anyhow::Result<()> {
    tracer_tests::compile_all(&Cli::parse().folder)
}
