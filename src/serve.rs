//! The wiring: builds every part from the settings, in the order of the data's path, runs, and stops in reverse. The only place that
//! picks implementations.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::common::data_dir::DataDir;
use crate::common::metrics::Metrics;
use crate::common::server::edge::{self, Edge};
use crate::common::server::{self, ServerOptions};
use crate::common::telemetry;
use crate::config::{Checked, LogFormat, Role};
use crate::ui;

/// Runs the server until a signal; `Ok` after a clean stop.
pub fn serve(checked: Checked) -> anyhow::Result<()> {
    let is_json = match checked.log_format {
        LogFormat::Human => false,
        LogFormat::Json => true,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    telemetry::start(&checked.settings.log.filter, is_json)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Ok(threads @ 1..) = usize::try_from(checked.settings.threads) {
        runtime.worker_threads(threads);
    }
    let runtime = runtime
        .thread_name("http")
        .enable_all()
        .build()
        .context("start the threads")?;
    runtime.block_on(run(checked))
}

async fn run(checked: Checked) -> anyhow::Result<()> {
    let _data_dir = checked
        .data_dir
        .as_deref()
        .map(DataDir::create)
        .transpose()?;
    let metrics = Arc::new(Metrics::new());
    let leaving = CancellationToken::new();
    let listener = TcpListener::bind(checked.listen)
        .await
        .with_context(|| format!("listen on {}", checked.listen))?;
    let address = listener.local_addr().context("ask for the own address")?;

    let edge = Edge {
        allowed_hosts: address
            .ip()
            .is_loopback()
            .then(|| checked.settings.http.allowed_hosts.clone()),
        compression_min_bytes: checked.settings.http.compression_min_bytes,
        known_paths: vec!["/ui"],
        metrics: metrics.clone(),
    };
    let mut routes = Router::new();
    if checked.has_role(Role::Ui) {
        routes = routes.merge(ui::routes());
    }
    let router = edge::wrap(routes, edge);
    spawn_signal_watch(leaving.clone())?;
    announce(address);
    server::run(
        listener,
        router,
        server_options(&checked),
        metrics,
        leaving.cancelled_owned(),
    )
    .await;
    tracing::info!("stopped");
    Ok(())
}

/// The first signal asks for the stop, the second ends the process at once: what was acknowledged is durable all the same.
fn spawn_signal_watch(leaving: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping");
        leaving.cancel();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("second signal: ending at once");
        std::process::exit(130);
    });
    Ok(())
}

fn server_options(checked: &Checked) -> ServerOptions {
    let http = &checked.settings.http;
    let ms = Duration::from_millis;
    ServerOptions {
        connections_max: count(http.connections_max),
        connections_per_ip_max: count(http.connections_per_ip_max),
        head_timeout: ms(http.head_timeout_ms),
        keep_alive_idle: ms(http.keep_alive_idle_ms),
        connection_age_max: ms(http.connection_age_max_ms),
        write_stall: ms(http.write_stall_ms),
        body_bytes_per_s_min: http.body_bytes_per_s_min,
        body_grace: ms(http.body_grace_ms),
        headers_max: count(http.headers_max),
        head_bytes_max: count(http.head_bytes_max),
        http2_header_bytes_max: u32::try_from(http.http2_header_bytes_max).unwrap_or(u32::MAX),
        http2_streams_max: u32::try_from(http.http2_streams_max).unwrap_or(u32::MAX),
        drain: ms(http.drain_ms),
    }
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Tells people and scripts where the server is. The first line is for scripts, too: it stays as it is.
fn announce(address: SocketAddr) {
    let mut out = std::io::stdout().lock();
    // A closed standard output is no reason not to serve.
    let _ = writeln!(
        out,
        "Logyard {} listens on http://{address}\n\n  page    http://{address}/ui\n  write   curl -d 'hello from curl' http://{address}/logs\n  \
         search  curl 'http://{address}/logs?q=hello'\n",
        env!("CARGO_PKG_VERSION")
    );
    let _ = out.flush();
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "ready");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{check, load};

    #[test]
    fn the_settings_defaults_are_the_parts_defaults() {
        let checked = check(&load(None, [], &[]).unwrap()).unwrap();
        assert_eq!(
            format!("{:?}", server_options(&checked)),
            format!("{:?}", ServerOptions::default())
        );
    }
}
