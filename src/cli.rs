//! The command line: subcommands, flags, exit codes. 0: done and well; 1: done or tried, and something is wrong; 2: not understood.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use toml::Value;

use crate::common::error::Error;
use crate::config::{self, Checked, Layered, Override};
use crate::kibana::{self, KibanaArgs};
use crate::loadgen::args::OutputFormat;
use crate::loadgen::{self, FetchArgs, GenerateArgs, HealthArgs, LoadtestArgs};
use crate::maintain;
use crate::migrate::MigrateArgs;
use crate::serve;

const EXIT_USAGE: u8 = 2;

/// The whole log stack in one binary: ingest, durable queue, search store, cache and UI.
#[derive(Parser, Debug)]
#[command(
    name = "logyard",
    version,
    max_term_width = 110,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Take in logs, keep them, answer questions, show the page
    Serve(ServeArgs),
    /// Make realistic logs and send them, or write them out
    Generate(GenerateArgs),
    /// Ask a server many questions, check the answers, show how long they took
    Fetch(FetchArgs),
    /// Send logs at a steady rate and check every promise
    Loadtest(LoadtestArgs),
    /// Ask a server whether it is ready, for health checks of containers
    Health(HealthArgs),
    /// Drop what the retention rules no longer keep, while no server runs (a running one does it by itself)
    Clean(CleanArgs),
    /// Check every stored byte, while no server runs
    Verify(VerifyArgs),
    /// Copy everything from a stopped server's folder, or from a running server, into another server
    Migrate(MigrateArgs),
    /// Put a data view, saved searches and a dashboard for Logyard's indices into Kibana
    KibanaSetup(KibanaArgs),
    /// Show or check the settings
    Config(ConfigArgs),
}

/// Settings that every command about a server's data takes.
#[derive(Args, Debug, Clone, Default)]
struct SettingsArgs {
    /// File of settings (TOML); `logyard config print` writes one with every setting explained
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the queue and the store [default: logyard-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
}

const SERVE_EXAMPLES: &str = "Examples:
  logyard serve
  logyard serve --data-dir /var/lib/logyard --listen 127.0.0.1:9000
  logyard serve --in-memory
  logyard serve --queue kafka://127.0.0.1:9092/logs
Then:
  curl -d 'hello from curl' http://127.0.0.1:8001/logs
  curl 'http://127.0.0.1:8001/logs?q=hello'";

#[derive(Args, Debug, Clone, Default)]
#[command(after_help = SERVE_EXAMPLES)]
struct ServeArgs {
    #[command(flatten)]
    common: SettingsArgs,
    /// Address and port; port 0 takes a free one and prints it [default: 127.0.0.1:8001]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// embedded, memory or kafka://host:9092,host2:9092/topic [default: embedded]
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// embedded, memory, or elasticsearch://host:9200 [default: embedded]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// in-process, off, or redis://[user:password@]host[:port][/database] [default: in-process]
    #[arg(long, value_name = "CACHE")]
    cache: Option<String>,
    /// all, or some of api,indexer,cleaner,ui [default: all]
    #[arg(long, value_name = "ROLES", value_delimiter = ',')]
    roles: Vec<String>,
    /// Touch no disk; all is gone when the process ends
    #[arg(long)]
    in_memory: bool,
    /// Listen on an address that other machines reach, though there are no users and keys yet
    #[arg(long)]
    insecure_no_auth: bool,
}

const CLEAN_EXAMPLES: &str = "Examples:
  logyard clean --dry-run --age-max-days 30
  logyard clean --config logyard.toml
A running server owns its data folder and cleans by itself every `retention.interval_ms`.";

#[derive(Args, Debug)]
#[command(after_help = CLEAN_EXAMPLES)]
struct CleanArgs {
    #[command(flatten)]
    common: SettingsArgs,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Drop records older than this many days [default: `retention.age_max_days`]
    #[arg(long, value_name = "DAYS")]
    age_max_days: Option<u32>,
    /// Drop the oldest records until the store is smaller [default: `retention.size_bytes_max`]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(i64).range(1..))]
    size_bytes_max: Option<i64>,
    /// How to report
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

const VERIFY_EXAMPLES: &str = "Examples:
  logyard verify
  logyard verify --data-dir /var/lib/logyard --output json
Exit code 1 if anything is damaged. A running server owns its data folder: stop it first, or copy the folder.";

#[derive(Args, Debug)]
#[command(after_help = VERIFY_EXAMPLES)]
struct VerifyArgs {
    #[command(flatten)]
    common: SettingsArgs,
    /// How to report
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

const CONFIG_EXAMPLES: &str = "Examples:
  logyard config print > logyard.toml
  logyard config check --config logyard.toml";

#[derive(Args, Debug)]
#[command(after_help = CONFIG_EXAMPLES)]
struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// Print every setting in force, with its explanation and where it was set
    #[command(after_help = CONFIG_EXAMPLES)]
    Print(SettingsArgs),
    /// Check the settings and say what is wrong
    #[command(after_help = CONFIG_EXAMPLES)]
    Check(SettingsArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => match checked(&args.common, &args.overrides()) {
            Ok(checked) => finish(serve::serve(checked).map(|()| true)),
            Err(e) => usage(&e),
        },
        Command::Generate(args) => tool(loadgen::generate(args)),
        Command::Fetch(args) => tool(loadgen::fetch(args)),
        Command::Loadtest(args) => tool(loadgen::loadtest(args)),
        Command::Health(args) => tool(loadgen::health(args)),
        Command::Clean(args) => clean(&args),
        Command::Verify(args) => verify(&args),
        Command::Migrate(args) => migrate(args),
        Command::KibanaSetup(args) => tool(async {
            out(&kibana::setup(args).await?);
            Ok(true)
        }),
        Command::Config(ConfigArgs {
            command: ConfigCommand::Print(args),
        }) => {
            let printed =
                layered(&args, &[]).and_then(|layered| config::reference::print(&layered));
            match printed {
                Ok(text) => {
                    out(text.trim_end());
                    ExitCode::SUCCESS
                }
                Err(e) => usage(&e),
            }
        }
        Command::Config(ConfigArgs {
            command: ConfigCommand::Check(args),
        }) => match checked(&args, &[]) {
            Ok(_) => {
                out("the settings are fine");
                ExitCode::SUCCESS
            }
            Err(e) => usage(&e),
        },
    }
}

impl SettingsArgs {
    fn overrides(&self) -> Vec<Override> {
        text_override("data_dir", "--data-dir", self.data_dir.as_ref())
            .into_iter()
            .collect()
    }
}

impl ServeArgs {
    fn overrides(&self) -> Vec<Override> {
        let texts = [
            text_override("http.listen", "--listen", self.listen.as_ref()),
            text_override("queue.kind", "--queue", self.queue.as_ref()),
            text_override("store.kind", "--store", self.store.as_ref()),
            text_override("cache.kind", "--cache", self.cache.as_ref()),
        ];
        let flags = [
            ("in_memory", "--in-memory", self.in_memory),
            (
                "http.insecure_no_auth",
                "--insecure-no-auth",
                self.insecure_no_auth,
            ),
        ];
        let mut overrides: Vec<Override> = texts.into_iter().flatten().collect();
        for (path, flag, is_given) in flags {
            if is_given {
                overrides.push(Override {
                    path,
                    flag,
                    value: Value::Boolean(true),
                });
            }
        }
        if !self.roles.is_empty() {
            let roles = self.roles.iter().map(|role| Value::String(role.clone()));
            let value = Value::Array(roles.collect());
            overrides.push(Override {
                path: "roles",
                flag: "--roles",
                value,
            });
        }
        overrides
    }
}

fn text_override(
    path: &'static str,
    flag: &'static str,
    text: Option<&String>,
) -> Option<Override> {
    let value = Value::String(text?.clone());
    Some(Override { path, flag, value })
}

fn layered(args: &SettingsArgs, overrides: &[Override]) -> Result<Layered, Error> {
    let overrides = [args.overrides().as_slice(), overrides].concat();
    config::load(args.config.as_deref(), config::environment(), &overrides)
}

fn checked(args: &SettingsArgs, overrides: &[Override]) -> Result<Checked, Error> {
    config::check(&layered(args, overrides)?)
}

fn clean(args: &CleanArgs) -> ExitCode {
    let numbers = [
        (
            "retention.age_max_days",
            "--age-max-days",
            args.age_max_days.map(i64::from),
        ),
        (
            "retention.size_bytes_max",
            "--size-bytes-max",
            args.size_bytes_max,
        ),
    ];
    let overrides = numbers.into_iter().filter_map(|(path, flag, number)| {
        let value = Value::Integer(number?);
        Some(Override { path, flag, value })
    });
    let checked = match checked(&args.common, &overrides.collect::<Vec<_>>()) {
        Ok(checked) => checked,
        Err(e) => return usage(&e),
    };
    tool(async {
        let report = maintain::clean(&checked, args.dry_run).await?;
        out(&match args.output {
            OutputFormat::Text => maintain::clean_text(&report, args.dry_run),
            OutputFormat::Json => maintain::clean_json(&report, args.dry_run),
        });
        Ok(true)
    })
}

fn migrate(args: MigrateArgs) -> ExitCode {
    let checked = args.folder().map(|folder| {
        let common = SettingsArgs {
            config: None,
            data_dir: Some(folder.display().to_string()),
        };
        // Whatever this machine is set up for by now, the folder is one of the embedded parts.
        let kinds = ["queue.kind", "store.kind"].map(|path| Override {
            path,
            flag: "--from",
            value: Value::String("embedded".to_owned()),
        });
        checked(&common, &kinds)
    });
    let checked = match checked.transpose() {
        Ok(checked) => checked,
        Err(e) => return usage(&e),
    };
    tool(async {
        out(&maintain::migrate(checked.as_ref(), args).await?);
        Ok(true)
    })
}

fn verify(args: &VerifyArgs) -> ExitCode {
    let checked = match checked(&args.common, &[]) {
        Ok(checked) => checked,
        Err(e) => return usage(&e),
    };
    tool(async {
        let report = maintain::verify(&checked).await?;
        out(&match args.output {
            OutputFormat::Text => maintain::verify_text(&report),
            OutputFormat::Json => maintain::verify_json(&report),
        });
        Ok(report.faults.is_empty())
    })
}

/// Runs a tool to its end; Ctrl-C ends it as any process.
fn tool(run: impl Future<Output = anyhow::Result<bool>>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread()
        .thread_name("tool")
        .enable_all()
        .build()
    {
        Ok(runtime) => finish(runtime.block_on(run)),
        Err(e) => finish(Err(e.into())),
    }
}

fn finish(result: anyhow::Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            complain(&format!("{e:#}"));
            ExitCode::FAILURE
        }
    }
}

fn usage(error: &Error) -> ExitCode {
    complain(&error.message);
    ExitCode::from(EXIT_USAGE)
}

#[expect(
    clippy::print_stdout,
    reason = "what a command answers goes to standard output"
)]
fn out(text: &str) {
    println!("{text}");
}

#[expect(
    clippy::print_stderr,
    reason = "the one place where a command says why it failed"
)]
fn complain(message: &str) {
    eprintln!("error: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_subcommand_has_an_example_in_its_help() {
        fn check(command: &clap::Command) {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let example = format!("logyard {}", command.get_name());
            let is_group = command.get_name() == "print" || command.get_name() == "check";
            assert!(
                is_group || help.contains(&example),
                "{} has no example",
                command.get_name()
            );
            command.get_subcommands().for_each(check);
        }
        let command = Cli::command();
        command.get_subcommands().for_each(check);
        command.clone().debug_assert();
    }

    #[test]
    fn flags_become_settings() {
        let cli = Cli::parse_from([
            "logyard",
            "serve",
            "--in-memory",
            "--roles",
            "api,indexer",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            "/x",
        ]);
        let Command::Serve(args) = cli.command else {
            panic!()
        };
        let overrides = [args.common.overrides(), args.overrides()].concat();
        let settings = config::load(None, [], &overrides).unwrap().settings;
        assert!(settings.in_memory);
        assert_eq!(settings.roles, ["api", "indexer"]);
        assert_eq!(settings.http.listen, "127.0.0.1:0");
        assert_eq!(settings.data_dir, "/x");
    }
}
