//! `logyard health`: whether a server takes and answers requests, by its exit code; for images that have no shell to ask with.

use std::time::Duration;

use anyhow::ensure;

use crate::loadgen::args;
use crate::loadgen::client::HttpClient;

const EXAMPLES: &str = "Examples:
  logyard health
  logyard health --url http://127.0.0.1:9000 --timeout 1s
Exit code 0 when `/readyz` says so, 1 when not.";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct HealthArgs {
    /// Address of the server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8001")]
    url: String,
    /// How long it may take to answer
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = args::duration)]
    timeout: Duration,
}

/// An error says why it is not.
pub async fn health(args: HealthArgs) -> anyhow::Result<bool> {
    let client = HttpClient::new(&args.url, args.timeout)?;
    let reply = client.get("/readyz", &[]).await?;
    ensure!(
        reply.status.is_success(),
        "{}: {}",
        reply.status,
        reply.excerpt()
    );
    Ok(true)
}
