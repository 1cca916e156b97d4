//! `elasticsearch://user:password@host:9200,host2:9200/path` → where to connect and as whom.

use crate::common::error::{Error, Result};

/// The default port.
const PORT: u16 = 9200;

/// Where the cluster is. The password is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// `http://host:port/path` without a slash at its end, at least one.
    pub bases: Vec<String>,
    pub user: Option<String>,
    pub password: Option<String>,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Address")
            .field("bases", &self.bases)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Whether a setting names Elasticsearch.
pub fn is_elasticsearch(url: &str) -> bool {
    split_scheme(url).is_some()
}

fn split_scheme(url: &str) -> Option<(&'static str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = match scheme {
        "elasticsearch" | "elasticsearch+http" | "opensearch" | "opensearch+http" => "http",
        "elasticsearchs" | "elasticsearch+https" | "opensearchs" | "opensearch+https" => "https",
        _ => return None,
    };
    Some((scheme, rest))
}

impl Address {
    pub fn parse(url: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::invalid(
                "invalid_setting",
                format!(
                    "{what}; write elasticsearch://host:9200, several hosts as elasticsearch://a:9200,b:9200, with TLS elasticsearch+https://…"
                ),
            )
        };
        let (scheme, rest) =
            split_scheme(url).ok_or_else(|| wrong("not an address of Elasticsearch"))?;
        if rest.contains(['?', '#']) {
            return Err(wrong("the address takes no `?` or `#`"));
        }
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, format!("/{path}")),
            None => (rest, String::new()),
        };
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, "")))
        {
            None => (None, None),
            Some((user, password)) => {
                let decoded = |text| {
                    percent_decoded(text).ok_or_else(|| wrong("user or password has a broken `%`"))
                };
                (Some(decoded(user)?), Some(decoded(password)?))
            }
        };
        let mut bases = Vec::new();
        for host in hosts.split(',') {
            let (name, port) =
                host_and_port(host).ok_or_else(|| wrong("a host or port is missing or wrong"))?;
            bases.push(format!(
                "{scheme}://{name}:{port}{}",
                path.trim_end_matches('/')
            ));
        }
        Ok(Self {
            bases,
            user,
            password,
        })
    }
}

fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let text = text.trim();
    // `[::1]:9200`
    let after_bracket = text.rfind(']').map_or(0, |at| at + 1);
    let (name, port) = match text.get(after_bracket..)?.rfind(':') {
        Some(at) => {
            let (name, port) = text.split_at_checked(after_bracket + at)?;
            (name, port.get(1..)?.parse().ok()?)
        }
        None => (text, PORT),
    };
    let is_name = !name.is_empty() && !name.contains([' ', '/', '@']);
    (is_name && port != 0).then_some((name, port))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let (digits, tail) = after.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let parse = |url| {
            let address = Address::parse(url).unwrap();
            (address.bases, address.user, address.password)
        };
        assert_eq!(
            parse("elasticsearch://a"),
            (vec!["http://a:9200".to_owned()], None, None)
        );
        assert_eq!(
            parse("elasticsearch+https://elastic:p%40ss:w@a:9201,b/es/"),
            (
                vec![
                    "https://a:9201/es".to_owned(),
                    "https://b:9200/es".to_owned()
                ],
                Some("elastic".to_owned()),
                Some("p@ss:w".to_owned())
            )
        );
        assert_eq!(parse("elasticsearchs://[::1]:1").0, ["https://[::1]:1"]);
        assert_eq!(parse("opensearch://[::1]").0, ["http://[::1]:9200"]);
        for bad in [
            "http://a",
            "elasticsearch://",
            "elasticsearch://a:x",
            "elasticsearch://a,,b",
            "elasticsearch://a:9200?x=1",
            "elasticsearch://%zz@a",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
        assert!(is_elasticsearch("opensearch+https://x"));
        assert!(!is_elasticsearch("kafka://x"));
    }

    #[test]
    fn the_password_is_not_printed() {
        let address = Address::parse("elasticsearch://u:secret@a").unwrap();
        assert!(!format!("{address:?}").contains("secret"));
    }
}
