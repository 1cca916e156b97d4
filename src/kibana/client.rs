//! The calls of Kibana's public API that the set-up needs. Knows what an answer means for a person; not what is being set up.

use std::error::Error as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};

/// One call.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two questions whether Kibana is ready.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Older ones do not read the objects.
const VERSION_MIN: (u32, u32) = (8, 9);

/// How to get in.
#[derive(Clone, Debug)]
pub enum Login {
    None,
    Basic { user: String, password: String },
    ApiKey(String),
}

pub struct Kibana {
    client: reqwest::Client,
    /// Without a slash at its end.
    base: String,
    space: Option<String>,
}

/// An answer, whatever its status.
struct Answer {
    status: StatusCode,
    body: Value,
}

impl Answer {
    /// What Kibana says about it.
    fn message(&self) -> String {
        match (self.body.get("message"), &self.body) {
            (Some(Value::String(message)), _) => message.clone(),
            (_, Value::String(text)) => text.clone(),
            (_, Value::Null) => "no explanation".to_owned(),
            (_, other) => other.to_string(),
        }
    }
}

impl Kibana {
    /// `ca_pem`: the authority that signed Kibana's certificate; without it those that the system trusts.
    pub fn new(
        url: &str,
        space: Option<&str>,
        login: &Login,
        ca_pem: Option<&[u8]>,
    ) -> anyhow::Result<Self> {
        let parsed = Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .with_context(|| {
                format!("`{url}` is not the address of a Kibana, such as http://localhost:5601")
            })?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            bail!("give user and password by --user and --password, not in the address");
        }
        // Whoever was first has installed the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = HeaderMap::new();
        headers.insert("kbn-xsrf", HeaderValue::from_static("logyard"));
        if let Some(mut value) = authorization(login)? {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .timeout(CALL_TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        if let Some(pem) = ca_pem {
            let certificates = reqwest::Certificate::from_pem_bundle(pem)
                .context("--ca holds no PEM certificates")?;
            builder = builder.tls_certs_only(certificates);
        }
        Ok(Self {
            client: builder.build().context("set up the client")?,
            base: parsed.as_str().trim_end_matches('/').to_owned(),
            space: space.map(str::to_owned),
        })
    }

    /// Asks within the space.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> anyhow::Result<Answer> {
        match &self.space {
            Some(space) => self.call(method, &format!("/s/{space}{path}"), body).await,
            None => self.call(method, path, body).await,
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> anyhow::Result<Answer> {
        let url = Url::parse(&format!("{}{path}", self.base))?;
        let mut request = self.client.request(method, url);
        if let Some((media_type, bytes)) = body {
            request = request.header(CONTENT_TYPE, media_type).body(bytes);
        }
        let response = request.send().await.map_err(|e| reason(&e, &self.base))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|e| reason(&e, &self.base))?;
        let body = match serde_json::from_slice(&bytes) {
            Ok(body) => body,
            // A proxy, or a Kibana that starts, answers with text.
            Err(_) if bytes.is_empty() => Value::Null,
            Err(_) => Value::String(String::from_utf8_lossy(&bytes).chars().take(300).collect()),
        };
        let answer = Answer { status, body };
        match status {
            StatusCode::UNAUTHORIZED => bail!(
                "Kibana does not let us in (401): {}; give --user and --password, or --api-key",
                answer.message()
            ),
            StatusCode::FORBIDDEN => bail!(
                "the login may not do this (403): {}; it needs the rights to manage data views and saved objects",
                answer.message()
            ),
            _ if status.is_redirection() => bail!(
                "{}{path} leads elsewhere ({status}); give the address that Kibana itself has, with its base path",
                self.base
            ),
            _ => Ok(answer),
        }
    }

    /// Waits until Kibana says it is available; its version, if it tells us.
    pub async fn wait_until_available(&self, patience: Duration) -> anyhow::Result<Option<String>> {
        let deadline = Instant::now() + patience;
        loop {
            let problem = match self.status().await {
                Ok(Ok(version)) => return Ok(version),
                Ok(Err(problem)) => problem,
                // What waiting does not mend.
                Err(error) => return Err(error),
            };
            if deadline <= Instant::now() {
                bail!(
                    "Kibana at {} is not available after {} s: {problem}",
                    self.base,
                    patience.as_secs()
                );
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Inner error: ask again.
    async fn status(&self) -> anyhow::Result<Result<Option<String>, String>> {
        let answer = match self.call(Method::GET, "/api/status", None).await {
            Ok(answer) => answer,
            Err(error) if error.downcast_ref::<NoAnswer>().is_some() => {
                return Ok(Err(error.to_string()));
            }
            Err(error) => return Err(error),
        };
        if answer.status == StatusCode::NOT_FOUND {
            bail!(
                "{}/api/status is not there (404): this is no Kibana, or its base path is missing in --kibana",
                self.base
            );
        }
        let level = answer.body.pointer("/status/overall/level");
        if level.and_then(Value::as_str) != Some("available") {
            let level = level.and_then(Value::as_str);
            return Ok(Err(level.map_or_else(|| answer.message(), str::to_owned)));
        }
        let version = answer.body.pointer("/version/number");
        let version = version.and_then(Value::as_str).map(str::to_owned);
        if let Some(version) = &version {
            refuse_old(version)?;
        }
        Ok(Ok(version))
    }

    /// A space that is not there would silently be written to.
    pub async fn check_space(&self) -> anyhow::Result<()> {
        let Some(space) = &self.space else {
            return Ok(());
        };
        let answer = self
            .call(Method::GET, &format!("/api/spaces/space/{space}"), None)
            .await?;
        match answer.status {
            StatusCode::OK => Ok(()),
            StatusCode::NOT_FOUND => bail!(
                "Kibana has no space `{space}` (404); create it under Stack Management > Spaces, or leave --space out"
            ),
            status => bail!(
                "asking for the space `{space}`: {status}: {}",
                answer.message()
            ),
        }
    }

    /// Creates the data view, or brings it up to date; what a person added to it stays. True if it is new.
    pub async fn put_data_view(&self, id: &str, view: &Value) -> anyhow::Result<bool> {
        const PATH: &str = "/api/data_views/data_view";
        let known = self.ask(Method::GET, &format!("{PATH}/{id}"), None).await?;
        let (path, body) = match known.status {
            StatusCode::OK => (
                format!("{PATH}/{id}"),
                json!({"refresh_fields": true, "data_view": view}),
            ),
            StatusCode::NOT_FOUND => {
                let mut view = view.clone();
                if let Value::Object(members) = &mut view {
                    members.insert("id".to_owned(), json!(id));
                }
                // A view for indices that are yet to come is allowed.
                let body = json!({"override": false, "data_view": view});
                (PATH.to_owned(), body)
            }
            status => bail!(
                "asking for the data view {id}: {status}: {}",
                known.message()
            ),
        };
        let bytes = serde_json::to_vec(&body)?;
        let answer = self
            .ask(Method::POST, &path, Some(("application/json", bytes)))
            .await?;
        if !answer.status.is_success() {
            bail!(
                "creating the data view: {}: {}",
                answer.status,
                answer.message()
            );
        }
        Ok(known.status == StatusCode::NOT_FOUND)
    }

    /// Imports objects, in place of those with the same ids. How many.
    pub async fn import(&self, ndjson: &str) -> anyhow::Result<u64> {
        let (media_type, body) = multipart(ndjson);
        let answer = self
            .ask(
                Method::POST,
                "/api/saved_objects/_import?overwrite=true",
                Some((&media_type, body)),
            )
            .await?;
        if !answer.status.is_success() {
            bail!(
                "importing the saved objects: {}: {}",
                answer.status,
                answer.message()
            );
        }
        if answer.body.get("success") != Some(&Value::Bool(true)) {
            let errors = answer.body.get("errors").and_then(Value::as_array);
            let errors: Vec<String> = errors
                .into_iter()
                .flatten()
                .map(|error| {
                    let text = |name: &str| error.pointer(name).and_then(Value::as_str);
                    format!(
                        "{} {}: {}",
                        text("/type").unwrap_or("?"),
                        text("/id").unwrap_or("?"),
                        error.get("error").unwrap_or(&Value::Null)
                    )
                })
                .collect();
            bail!("Kibana did not take every object: {}", errors.join("; "));
        }
        answer
            .body
            .get("successCount")
            .and_then(Value::as_u64)
            .context("the answer to the import says no `successCount`")
    }
}

/// Nobody answered: Kibana may be starting.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoAnswer(String);

fn reason(error: &reqwest::Error, base: &str) -> anyhow::Error {
    let mut text = format!("no answer from {base}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    // Waiting mends neither a certificate nor a wrong protocol.
    if text.contains("certificate") || text.contains("TLS") {
        return anyhow!("{text}; --ca names the authority that signed Kibana's certificate");
    }
    NoAnswer(text).into()
}

fn refuse_old(version: &str) -> anyhow::Result<()> {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else {
        return Ok(());
    };
    if (major, minor) < VERSION_MIN {
        bail!(
            "this is Kibana {version}; the objects need {}.{} or newer",
            VERSION_MIN.0,
            VERSION_MIN.1
        );
    }
    Ok(())
}

fn authorization(login: &Login) -> anyhow::Result<Option<HeaderValue>> {
    let text = match login {
        Login::None => return Ok(None),
        Login::Basic { user, password } => {
            let pair =
                base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            format!("Basic {pair}")
        }
        Login::ApiKey(key) => format!("ApiKey {key}"),
    };
    let value = HeaderValue::from_str(&text)
        .context("the API key has characters that no header can carry")?;
    Ok(Some(value))
}

/// A form with one file. Kibana goes by the end of its name.
fn multipart(ndjson: &str) -> (String, Vec<u8>) {
    let boundary = format!("logyard-{:032x}", rand::random::<u128>());
    let body = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"logyard.ndjson\"\r\nContent-Type: application/ndjson\r\n\r\n{ndjson}\r\n--{boundary}--\r\n"
    );
    (
        format!("multipart/form-data; boundary={boundary}"),
        body.into_bytes(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_refused() {
        assert!(refuse_old("8.8.2").is_err());
        assert!(refuse_old("7.17.0").is_err());
        for version in ["8.9.0", "8.19.9", "9.2.4", "10.0.0-SNAPSHOT"] {
            refuse_old(version).unwrap();
        }
    }
}
