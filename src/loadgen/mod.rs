//! The tools around the server: `generate` makes logs, `fetch` asks for them, `loadtest` does both and checks the promises.
//!
//! They speak only HTTP, so they work against any address; nothing in here may reach into the server's own parts.
//! Each tool is one argument struct (for `cli` to flatten into a subcommand) and one async function that answers whether
//! everything was as it should be: `Ok(false)` means the tool ran, said what is wrong, and the process exits with 1.

pub mod args;
pub mod client;
pub mod push;
pub mod report;
pub mod rng;
pub mod shape;

pub mod fetch;
pub mod generate;
pub mod health;
pub mod loadtest;

pub use fetch::{FetchArgs, fetch};
pub use generate::{GenerateArgs, generate};
pub use health::{HealthArgs, health};
pub use loadtest::{LoadtestArgs, loadtest};

/// Where a server listens when nothing else is said.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8001";
