//! Reads a run's records back, three ways that must agree: the full stream, the counts by producer, and pages by cursor.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use http_body_util::BodyExt as _;
use serde_json::Value as Json;

use crate::common::http::percent_encoded;
use crate::loadgen::client::HttpClient;
use crate::loadgen::fetch::check;
use crate::loadgen::loadtest::ledger::Stored;
use crate::loadgen::loadtest::lines::Lines;

/// Differences told in full.
const TOLD_MAX: usize = 5;
/// The longest line accepted in a stream.
const LINE_BYTES_MAX: usize = 16 << 20;
const PAGE_RECORDS: usize = 1_000;
const COUNT_INTERVAL: Duration = Duration::from_millis(100);

fn run_query(run: &str) -> String {
    percent_encoded(&format!("loadtest.run:=\"{run}\""))
}

async fn ask(client: &HttpClient, path: &str) -> anyhow::Result<Json> {
    let reply = client.get(path, &[("cache-control", "no-cache")]).await?;
    ensure!(
        reply.status.as_u16() == 200,
        "{path}: status {}: {}",
        reply.status.as_u16(),
        reply.excerpt()
    );
    reply.json()
}

/// Waits until at least `n_expected` records of the run can be found, and then until the number stands still for a
/// second, or until `patience` ends. Answers the number and how long that took.
pub async fn settle(
    client: &HttpClient,
    run: &str,
    n_expected: u64,
    patience: Duration,
) -> anyhow::Result<(u64, Duration)> {
    let path = format!("/logs?q={}&limit=0", run_query(run));
    let started = Instant::now();
    let (mut last, mut last_changed) = (None, Instant::now());
    loop {
        let answer = ask(client, &path).await;
        let count = answer
            .as_ref()
            .ok()
            .and_then(|answer| check::number(answer.get("total")?, "value"));
        if count != last || count.is_none() {
            (last, last_changed) = (count, Instant::now());
        }
        let is_enough = count.is_some_and(|count| n_expected <= count);
        if is_enough && Duration::from_secs(1) <= last_changed.elapsed() {
            return Ok((count.unwrap_or(0), last_changed - started));
        }
        if patience < started.elapsed() {
            return match (count, answer) {
                (Some(count), _) => Ok((count, started.elapsed())),
                (None, Err(error)) => Err(error).context("count what is stored"),
                (None, Ok(_)) => bail!("{path} answers no total"),
            };
        }
        tokio::time::sleep(COUNT_INTERVAL).await;
    }
}

/// Every record of the run, compared with what was sent.
pub async fn stream(client: &HttpClient, lines: &mut Lines) -> anyhow::Result<Stored> {
    let path = format!(
        "/logs?q={}&format=ndjson&limit=all&order=asc",
        run_query(&lines.run)
    );
    let response = client
        .stream(
            &path,
            &[
                ("cache-control", "no-cache"),
                ("accept", "application/x-ndjson"),
            ],
        )
        .await?;
    ensure!(
        response.status().as_u16() == 200,
        "{path}: status {}",
        response.status().as_u16()
    );
    let mut stored = Stored::new(lines.plan);
    let mut body = response.into_body();
    let mut rest: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.context("read the stream of stored records")?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        rest.extend_from_slice(data);
        let mut at = 0;
        while let Some(length) = rest.get(at..).and_then(|tail| memchr::memchr(b'\n', tail)) {
            let line = rest.get(at..at + length).unwrap_or_default();
            note_line(line, lines, &mut stored)?;
            at += length + 1;
        }
        rest.drain(..at);
        ensure!(
            rest.len() < LINE_BYTES_MAX,
            "a line of the stream is over {LINE_BYTES_MAX} bytes"
        );
    }
    note_line(&rest, lines, &mut stored)?;
    Ok(stored)
}

fn note_line(line: &[u8], lines: &mut Lines, stored: &mut Stored) -> anyhow::Result<()> {
    if line.is_empty() {
        return Ok(());
    }
    let record: Json = serde_json::from_slice(line).context("a line of the stream is not JSON")?;
    let index = lines.index_of(&record);
    stored.note(index);
    if let Some(index) = index
        && let Some(difference) = lines.difference(index, &record)?
    {
        stored.n_altered += 1;
        if stored.differences.len() < TOLD_MAX {
            stored.differences.push(difference);
        }
    }
    Ok(())
}

/// Where counts by producer and pages by cursor differ from the stream.
pub async fn cross_check(
    client: &HttpClient,
    lines: &Lines,
    stored: &Stored,
) -> anyhow::Result<Vec<String>> {
    let mut told = Vec::new();
    let n_producers = lines.plan.n_producers;
    let mut by_producer = vec![0_u64; n_producers as usize];
    for (index, copies) in stored.copies.iter().enumerate() {
        let (producer, _) = lines.plan.name_of(index as u64);
        if let Some(count) = by_producer.get_mut(producer as usize) {
            *count += u64::from(*copies);
        }
    }

    let path = format!(
        "/logs/stats?q={}&by=loadtest.producer&agg=count&sort=-count&limit={}",
        run_query(&lines.run),
        n_producers + 10
    );
    let answer = ask(client, &path).await?;
    let mut counted = vec![0_u64; n_producers as usize];
    for group in check::array(&answer, "groups").map_err(anyhow::Error::msg)? {
        let producer = group
            .get("by")
            .and_then(|by| check::at(by, "loadtest.producer"))
            .and_then(|value| check::plain(value).parse::<usize>().ok());
        let count = check::number(group, "count").unwrap_or(0);
        match producer.and_then(|producer| counted.get_mut(producer)) {
            Some(slot) => *slot += count,
            None => told.push(format!(
                "{path}: a group of a producer that never was: {group}"
            )),
        }
    }
    if counted != by_producer {
        told.push(format!(
            "counts by producer are {counted:?}, the stream holds {by_producer:?}"
        ));
    }

    let paged = pages(client, lines).await?;
    let of_first = by_producer.first().copied().unwrap_or(0);
    if paged.n_records() != of_first {
        told.push(format!(
            "pages of producer 0 hold {} records, the stream {of_first}",
            paged.n_records()
        ));
    }
    let n_twice = paged.copies.iter().filter(|copies| 1 < **copies).count();
    let n_twice_streamed = stored.copies.iter().filter(|copies| 1 < **copies).count();
    if n_twice_streamed < n_twice {
        told.push(format!("pages of producer 0 repeat {n_twice} records"));
    }
    Ok(told)
}

/// All records of producer 0, page by page.
async fn pages(client: &HttpClient, lines: &Lines) -> anyhow::Result<Stored> {
    let query = percent_encoded(&format!(
        "loadtest.run:=\"{}\" AND loadtest.producer:0",
        lines.run
    ));
    let base = format!("/logs?q={query}&limit={PAGE_RECORDS}&total=false&fields=loadtest");
    let mut paged = Stored::new(lines.plan);
    let mut path = base.clone();
    loop {
        let answer = ask(client, &path).await?;
        let logs = check::array(&answer, "logs").map_err(anyhow::Error::msg)?;
        for record in logs {
            paged.note(lines.index_of(record));
        }
        match check::text(&answer, "next_cursor") {
            Some(cursor) if !logs.is_empty() => {
                path = format!("{base}&cursor={}", percent_encoded(cursor));
            }
            _ => return Ok(paged),
        }
    }
}
