//! A real server for the tests, and indices that nobody else has.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::store::elasticsearch::address::Address;
use crate::store::elasticsearch::client::{Client, ClientOptions, Method};
use crate::store::elasticsearch::mapping::template_name;
use crate::store::elasticsearch::{ElasticsearchOptions, ElasticsearchStore, QueueIdentity};

/// The server that `scripts/dev-stack` started, and the prefixes used in it.
pub struct Server {
    prefixes: Mutex<Vec<ElasticsearchOptions>>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "`scripts/dev-stack env` says where the servers are"
)]
fn client_options() -> ClientOptions {
    let url = std::env::var("LOGYARD_DEV_SEARCH").expect(
        "LOGYARD_DEV_SEARCH is not set; run: scripts/dev-stack up --only search && export $(scripts/dev-stack env)",
    );
    let url = match url.strip_prefix("https://") {
        Some(rest) => format!("elasticsearch+https://{rest}"),
        None => url.replacen("http://", "elasticsearch://", 1),
    };
    let mut options = ClientOptions::new(Address::parse(&url).unwrap());
    options.ca_file = std::env::var_os("LOGYARD_DEV_SEARCH_CA").map(Into::into);
    options
}

impl Server {
    pub fn new() -> Self {
        Self {
            prefixes: Mutex::default(),
        }
    }

    /// Options with prefixes that were never used.
    pub fn options(&self) -> ElasticsearchOptions {
        let name = format!("t{:012x}", rand::random::<u64>() >> 16);
        let mut options =
            ElasticsearchOptions::new(client_options(), QueueIdentity(format!("test-{name}")));
        options.index_prefix = format!("{name}-logs-");
        options.state_prefix = format!("{name}-own-");
        options.replicas = 0;
        options.poll_interval = Duration::from_millis(100);
        self.prefixes.lock().unwrap().push(options.clone());
        options
    }

    pub async fn store(&self) -> Arc<ElasticsearchStore> {
        Arc::new(ElasticsearchStore::connect(self.options()).await.unwrap())
    }

    /// Drops all that the test has made.
    pub async fn clean(&self) {
        let all = std::mem::take(&mut *self.prefixes.lock().unwrap());
        let client = Client::new(client_options()).unwrap();
        for options in all {
            for prefix in [&options.index_prefix, &options.state_prefix] {
                let path = format!("/{prefix}*?expand_wildcards=all");
                let answer = client.admin(Method::GET, &path, None).await.unwrap();
                let found = answer.json().unwrap();
                for index in found
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, _)| name)
                {
                    client
                        .admin(Method::DELETE, &format!("/{index}"), None)
                        .await
                        .unwrap();
                }
            }
            let path = format!("/_index_template/{}", template_name(&options));
            client.admin(Method::DELETE, &path, None).await.unwrap();
        }
    }
}
