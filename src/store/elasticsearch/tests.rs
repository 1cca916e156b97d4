//! The store against real servers, each test with indices of its own; and against a fake that fails in every way a server can.

mod claims;
mod documents;
mod fake;
mod faults;
mod mixed;
pub(super) mod server;
mod upkeep;

use std::sync::Arc;

use crate::store::contract;
use crate::store::elasticsearch::tests::server::Server;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn the_contract_holds() {
    let server = Server::new();
    contract::check(async || server.store().await as Arc<dyn crate::store::Store>).await;
    server.clean().await;
}
