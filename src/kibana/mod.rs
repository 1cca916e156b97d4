//! `logyard kibana-setup`: the data view, saved searches and a dashboard for the indices that Logyard writes, through Kibana's public API. Running
//! it again brings the same objects up to date. Knows nothing of Logyard's own API.

mod client;
pub mod objects;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::kibana::client::{Kibana, Login};
use crate::kibana::objects::{BY_SERVICE_ID, DASHBOARD_ID, DATA_VIEW_ID, ERRORS_ID};

const EXAMPLES: &str = "Examples:
  logyard kibana-setup --kibana http://localhost:5601
  logyard kibana-setup --kibana https://kibana.example:5601 --user elastic --ca ca.crt --space team
  logyard kibana-setup --print > logyard.ndjson    (then: Stack Management > Saved Objects > Import)
The password and the API key are best given as LOGYARD_KIBANA_PASSWORD and LOGYARD_KIBANA_API_KEY.";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct KibanaArgs {
    /// Address of Kibana, with its base path if it has one
    #[arg(long, value_name = "URL", default_value = "http://localhost:5601")]
    kibana: String,
    /// What the names of Logyard's indices begin with
    #[arg(long, value_name = "PREFIX", default_value = "logs-", value_parser = index_prefix)]
    index_prefix: String,
    /// Login, if Kibana wants one
    #[arg(long, value_name = "USER", requires = "password")]
    user: Option<String>,
    /// Its password
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "LOGYARD_KIBANA_PASSWORD",
        hide_env_values = true
    )]
    password: Option<String>,
    /// An API key (the encoded form) in place of user and password
    #[arg(
        long,
        value_name = "KEY",
        env = "LOGYARD_KIBANA_API_KEY",
        hide_env_values = true,
        conflicts_with = "user"
    )]
    api_key: Option<String>,
    /// File (PEM) of the authority that signed Kibana's certificate
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The space to set up, by its identifier [default: the default space]
    #[arg(long, value_name = "SPACE", value_parser = space)]
    space: Option<String>,
    /// How many seconds to wait until Kibana is available
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    wait: u64,
    /// Write the objects as NDJSON to standard output, and ask nobody
    #[arg(long)]
    print: bool,
}

/// Elasticsearch's own rules for names, and no pattern.
fn index_prefix(text: &str) -> Result<String, String> {
    let is_fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.chars().all(is_fine)
    {
        return Ok(text.to_owned());
    }
    Err("small letters, digits, `-`, `_` and `.` alone, such as `logs-`".to_owned())
}

/// Kibana's own rule.
fn space(text: &str) -> Result<String, String> {
    let is_fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    match !text.is_empty() && text.chars().all(is_fine) {
        true => Ok(text.to_owned()),
        false => {
            Err("the identifier of a space has small letters, digits, `-` and `_` alone".to_owned())
        }
    }
}

/// What to tell at the end.
pub async fn setup(args: KibanaArgs) -> anyhow::Result<String> {
    if args.print {
        let mut objects = vec![objects::data_view_object(&args.index_prefix)];
        objects.extend(objects::objects());
        return Ok(objects::ndjson(&objects).trim_end().to_owned());
    }
    let login = match (args.user, args.password, args.api_key) {
        (Some(user), Some(password), _) => Login::Basic { user, password },
        (_, _, Some(key)) => Login::ApiKey(key),
        _ => Login::None,
    };
    let ca_pem = match &args.ca {
        Some(path) => {
            Some(std::fs::read(path).with_context(|| format!("read {}", path.display()))?)
        }
        None => None,
    };
    let kibana = Kibana::new(
        &args.kibana,
        args.space.as_deref(),
        &login,
        ca_pem.as_deref(),
    )?;
    let version = kibana
        .wait_until_available(Duration::from_secs(args.wait))
        .await?;
    kibana.check_space().await?;
    let view = objects::data_view(&args.index_prefix);
    let is_new = kibana.put_data_view(DATA_VIEW_ID, &view).await?;
    let objects = objects::objects();
    let count = kibana.import(&objects::ndjson(&objects)).await?;
    if count != objects.len() as u64 {
        bail!("Kibana took {count} of {} objects", objects.len());
    }
    let space = args.space.map(|space| format!("/s/{space}"));
    Ok(format!(
        "Kibana {} is set up:\n  data view  {} ({DATA_VIEW_ID}, {})\n  searches   {ERRORS_ID}, {BY_SERVICE_ID}\n  dashboard  {}{}/app/dashboards#/view/{DASHBOARD_ID}",
        version.unwrap_or_default(),
        objects::pattern(&args.index_prefix),
        if is_new { "new" } else { "brought up to date" },
        args.kibana.trim_end_matches('/'),
        space.unwrap_or_default(),
    ))
}
