//! How long after its acknowledgement a record can be found: single records with a name of their own, asked for at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::common::http::percent_encoded;
use crate::loadgen::client::HttpClient;
use crate::loadgen::fetch::check;
use crate::loadgen::push::{Outcome, Target, push};
use crate::loadgen::report::Latency;

/// Waits between two looks grow from the first to the second; they are the measurement's resolution.
const LOOK_MIN: Duration = Duration::from_millis(2);
const LOOK_MAX: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub struct MarkerTally {
    pub lag: Latency,
    /// Acknowledged and not found within the patience.
    pub n_never: u64,
    pub n_not_acked: u64,
}

/// Sends a marker every `interval` until `stop`, then waits for those under way.
pub async fn run(
    client: HttpClient,
    run: String,
    interval: Duration,
    patience: Duration,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<MarkerTally> {
    let tally = Arc::new(Mutex::new(MarkerTally {
        lag: Latency::new()?,
        n_never: 0,
        n_not_acked: 0,
    }));
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looks = tokio::task::JoinSet::new();
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        number += 1;
        let (client, tally, name) = (client.clone(), tally.clone(), format!("{run}-{number}"));
        looks.spawn(async move { one(&client, &name, patience, &tally).await });
        // Those that have ended need no waiting for.
        while looks.try_join_next().is_some() {}
    }
    while looks.join_next().await.is_some() {}
    let tally = tally.lock().clone();
    Ok(tally)
}

async fn one(client: &HttpClient, name: &str, patience: Duration, tally: &Mutex<MarkerTally>) {
    let body = format!(
        r#"{{"timestamp":"{}","level":"INFO","source":"loadtest-marker","message":"marker","loadtest":{{"marker":"{name}"}}}}"#,
        jiff::Timestamp::now()
    );
    let key = format!("marker-{name}");
    let outcome = push(Target::ndjson(client), &key, Bytes::from(body)).await;
    if !matches!(outcome, Outcome::Acked { accepted: 1, .. }) {
        tally.lock().n_not_acked += 1;
        return;
    }
    let acked = Instant::now();
    let query = percent_encoded(&format!("loadtest.marker:=\"{name}\""));
    let path = format!("/logs?q={query}&limit=1&total=false");
    let mut wait = LOOK_MIN;
    while acked.elapsed() < patience {
        let reply = client.get(&path, &[("cache-control", "no-cache")]).await;
        let is_found = reply
            .ok()
            .and_then(|reply| reply.json().ok())
            .is_some_and(|answer| check::array(&answer, "logs").is_ok_and(|logs| !logs.is_empty()));
        if is_found {
            tally.lock().lag.record(acked.elapsed());
            return;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LOOK_MAX);
    }
    tally.lock().n_never += 1;
}
