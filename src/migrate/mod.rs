//! `logyard migrate`: copies everything that one Logyard holds into another, over the HTTP API of the latter, exactly as it is kept.
//!
//! Records go in the order of their times, portion by portion; a progress file remembers where it was, so that an interrupted copy goes on without
//! loss or double. Each portion carries an idempotency key. A portion whose answer never came is sent again under its key while the target surely
//! remembers the key; later, the target's own count says whether it arrived.

mod progress;
mod source;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use crate::loadgen::args::OutputFormat;
use crate::loadgen::client::HttpClient;
use crate::loadgen::push::{self, Outcome, Target};
use crate::loadgen::report::{Progress as Bar, warn_line};
use crate::migrate::progress::{InFlight, Phase, Progress};
use crate::migrate::source::{Source, Totals, count};
use crate::store::Store;
use crate::wire::native::batch;

pub use source::Portion;

const EXAMPLES: &str = "Examples:
  logyard migrate --from /var/lib/logyard --to http://127.0.0.1:8001
  logyard migrate --from http://old:8001 --to http://new:8001
Point your shippers at the new one first: what comes in at the old one meanwhile may be missed, which the counts at the end tell.
Interrupted, it goes on where it was when it is run again with the same --from and --to in the same folder (or with the same --progress).";

/// How long a portion may be refused for want of room before the copy stops.
const PATIENCE: Duration = Duration::from_secs(300);
/// The target must show the last records within this time.
const VISIBLE_WITHIN: Duration = Duration::from_secs(120);
/// A key is remembered for 15 minutes by default; this leaves room for clocks.
const KEY_SAFE_MS: u64 = 10 * 60_000;

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct MigrateArgs {
    /// A data folder that no server is using, or the address of a running server
    #[arg(long, value_name = "DIR|URL")]
    pub from: String,
    /// Address of the server that takes everything
    #[arg(long, value_name = "URL")]
    to: String,
    /// Where to remember how far it is [default: a file in the current folder, named after --from and --to]
    #[arg(long, value_name = "FILE")]
    progress: Option<PathBuf>,
    /// How long one request may take
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = crate::loadgen::args::duration)]
    timeout: Duration,
    /// How to report at the end
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

impl MigrateArgs {
    /// The folder to open, if it is none of a running server.
    pub fn folder(&self) -> Option<PathBuf> {
        (!self.from.contains("://")).then(|| PathBuf::from(&self.from))
    }
}

/// What to tell at the end. `store`: the opened one, where `--from` is a folder.
pub async fn migrate(args: MigrateArgs, store: Option<&dyn Store>) -> anyhow::Result<String> {
    let source = match store {
        Some(store) => Source::Folder(store),
        None => Source::Server(Box::new(HttpClient::new(&args.from, args.timeout)?)),
    };
    let target = HttpClient::new(&args.to, args.timeout)?;
    let path = args
        .progress
        .clone()
        .unwrap_or_else(|| progress::default_path(&args.from, &args.to));
    let totals = source.totals().await.context("count the source")?;
    let progress = match Progress::load(&path, &args.from, &args.to)? {
        Some(progress) => progress,
        None => {
            let before = count(&target).await.context("count the target")?;
            let progress = Progress::new(&args.from, &args.to, before);
            progress.save(&path)?;
            progress
        }
    };
    if progress.phase == Phase::Done {
        bail!(
            "{} says that this copy is complete; delete it to copy everything again",
            path.display()
        );
    }
    let bar = Bar::new(Some(totals.records + totals.letters), "entries");
    bar.advance(progress.records + progress.letters, 0);
    let mut copy = Copy {
        source,
        target,
        progress,
        path,
        bar,
    };
    let copied = copy.run().await;
    copy.bar.finish();
    copied?;
    copy.compare().await?;
    Ok(copy.summary(args.output))
}

struct Copy<'a> {
    source: Source<'a>,
    target: HttpClient,
    progress: Progress,
    path: PathBuf,
    bar: Bar,
}

impl Copy<'_> {
    async fn run(&mut self) -> anyhow::Result<()> {
        if self.progress.phase == Phase::Records {
            loop {
                let cursor = self.progress.cursor.clone();
                let portion = self
                    .source
                    .records(cursor.as_deref(), self.progress.arrival_ns)
                    .await
                    .context("read the source")?;
                if !self.send(portion).await? {
                    break;
                }
            }
            if self.progress.phase == Phase::Records {
                self.enter(Phase::Letters)?;
            }
        }
        let letters = self
            .source
            .letters()
            .await
            .context("read the dead letters")?;
        let begin = match &self.progress.cursor {
            None => 0,
            Some(cursor) => {
                let done = letters.iter().position(|portion| portion.last == *cursor);
                1 + done.context(
                    "the dead letters copied before are not in the source any more; delete those in the target and the progress file, and start again",
                )?
            }
        };
        for portion in letters.into_iter().skip(begin) {
            self.send(portion).await?;
        }
        Ok(())
    }

    fn enter(&mut self, phase: Phase) -> anyhow::Result<()> {
        self.progress.phase = phase;
        self.progress.cursor = None;
        self.progress.save(&self.path)
    }

    /// False after the last portion of the records.
    async fn send(&mut self, portion: Portion) -> anyhow::Result<bool> {
        if portion.count == 0 {
            return Ok(false);
        }
        let (key, is_stored) = self.key_of(&portion).await?;
        if !is_stored {
            self.post(&portion, &key).await?;
        }
        let progress = &mut self.progress;
        match progress.phase {
            Phase::Records => progress.records += portion.count,
            Phase::Letters | Phase::Done => progress.letters += portion.count,
        }
        progress.cursor = Some(portion.last.clone());
        if !portion.has_more {
            (progress.phase, progress.cursor) = (Phase::Letters, None);
        }
        progress.in_flight = None;
        progress.save(&self.path)?;
        self.bar.advance(portion.count, portion.body.len() as u64);
        Ok(portion.has_more)
    }

    /// The portion's key, written down before it is sent; and whether the portion is known to be stored already.
    async fn key_of(&mut self, portion: &Portion) -> anyhow::Result<(String, bool)> {
        let hash = portion.hash();
        if let Some(before) = self.progress.in_flight.clone() {
            ensure!(
                before.hash == hash,
                "the source has changed since this copy was interrupted: a portion that was on its way is not the same any more; \
                 stop writing to the source, delete {} and what was copied, and start again",
                self.path.display()
            );
            if progress::now_ms().saturating_sub(before.sent_ms) < KEY_SAFE_MS {
                return Ok((before.key, false));
            }
            let is_stored = self.has_arrived(portion).await?;
            if is_stored {
                return Ok((before.key, true));
            }
        }
        let key = format!("migrate-{}-{hash}", self.progress.id);
        self.progress.in_flight = Some(InFlight {
            key: key.clone(),
            hash,
            sent_ms: progress::now_ms(),
        });
        self.progress.save(&self.path)?;
        Ok((key, false))
    }

    /// By the target's own count: true if the portion is in it, false if it is not.
    async fn has_arrived(&self, portion: &Portion) -> anyhow::Result<bool> {
        let before = self.progress.expected();
        let after = match self.progress.phase {
            Phase::Records => before.records + portion.count,
            Phase::Letters | Phase::Done => before.letters + portion.count,
        };
        let now = self.count_target().await?;
        let (now, before) = match self.progress.phase {
            Phase::Records => (now.records, before.records),
            Phase::Letters | Phase::Done => (now.letters, before.letters),
        };
        match now {
            now if now == after => Ok(true),
            now if now == before => Ok(false),
            now => bail!(
                "whether the last portion arrived before the interruption cannot be told: the target has {now} entries, and {before} or {after} were \
                 expected; something else writes to it. Run this again within 10 minutes of an interruption, or start again with an empty target"
            ),
        }
    }

    /// A target that is made of several servers may be partial for a moment, such as when an index is new.
    async fn count_target(&self) -> anyhow::Result<Totals> {
        let deadline = tokio::time::Instant::now() + VISIBLE_WITHIN;
        loop {
            match count(&self.target).await {
                Ok(totals) => return Ok(totals),
                Err(error) if deadline < tokio::time::Instant::now() => {
                    return Err(error.context("count the target"));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    }

    async fn post(&self, portion: &Portion, key: &str) -> anyhow::Result<()> {
        let target = Target {
            client: &self.target,
            path: "/logs",
            media_type: batch::MEDIA_TYPE,
        };
        let (outcome, _) = push::push_with_retry(target, key, portion.body.clone(), PATIENCE).await;
        match outcome {
            Outcome::Acked {
                accepted,
                dead_lettered,
                ..
            } => {
                ensure!(
                    accepted + dead_lettered == portion.count,
                    "the target says it stored {accepted} records and {dead_lettered} dead letters of a portion of {}",
                    portion.count
                );
                Ok(())
            }
            Outcome::Refused { status, reason } => bail!(
                "the target refused a portion ({status}): {reason}; mend it and run this again, it goes on where it was"
            ),
            Outcome::Unknown { reason } => bail!(
                "the target did not answer: {reason}; run this again when it does, it goes on where it was"
            ),
        }
    }

    /// What was copied is what the source has, and what the target shows.
    async fn compare(&mut self) -> anyhow::Result<()> {
        let totals = self.source.totals().await.context("count the source")?;
        let copied = (self.progress.records, self.progress.letters);
        ensure!(
            (totals.records, totals.letters) == copied,
            "the source has {} records and {} dead letters, and {} and {} were copied: something was written to it meanwhile (or deleted from it)",
            totals.records,
            totals.letters,
            copied.0,
            copied.1
        );
        let expected = self.progress.expected();
        let deadline = tokio::time::Instant::now() + VISIBLE_WITHIN;
        loop {
            let now = self.count_target().await?;
            if (now.records, now.letters) == (expected.records, expected.letters) {
                break;
            }
            let is_more = expected.records <= now.records && expected.letters <= now.letters;
            if is_more {
                warn_line(&format!(
                    "the target has {} records and {} dead letters, {} and {} of them from here: something else writes to it too",
                    now.records, now.letters, copied.0, copied.1
                ));
                break;
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "the target took everything, but shows {} records and {} dead letters where {} and {} are expected",
                now.records,
                now.letters,
                expected.records,
                expected.letters
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.enter(Phase::Done)
    }

    fn summary(&self, output: OutputFormat) -> String {
        let (records, letters) = (self.progress.records, self.progress.letters);
        match output {
            OutputFormat::Json => json!({
                "records": records,
                "dead_letters": letters,
                "progress_file": self.path.display().to_string(),
            })
            .to_string(),
            OutputFormat::Text => format!(
                "copied {records} records and {letters} dead letters; both sides have the same counts\n{} may be deleted",
                self.path.display()
            ),
        }
    }
}
