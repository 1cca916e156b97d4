//! The addresses of a Redis, as `cache.kind` gives them:
//!
//! ```text
//! redis://[user[:password]@]host[:6379][/database]
//! redis+cluster://[user[:password]@]host[:6379],host[:6379]…
//! redis+sentinel://[user[:password]@]host[:26379],host[:26379]…/master[/database]
//! rediss://, rediss+cluster://, rediss+sentinel://: the same with TLS
//! ```
//! User and password may hold `%40` and the like for characters that mean something here.

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// What is on the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisKind {
    Single,
    Cluster,
    Sentinel { master: String },
}

#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    pub kind: RedisKind,
    pub is_tls: bool,
    /// At least one.
    pub addresses: Vec<(String, u16)>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub database: i64,
}

/// Without the password.
impl std::fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisUrl")
            .field("kind", &self.kind)
            .field("is_tls", &self.is_tls)
            .field("addresses", &self.addresses)
            .field("user", &self.user)
            .field("has_password", &self.password.is_some())
            .field("database", &self.database)
            .finish()
    }
}

/// True if `kind` means to be the address of a Redis.
pub fn is_redis(kind: &str) -> bool {
    let scheme = kind.split("://").next().unwrap_or_default();
    kind.contains("://") && (scheme.starts_with("redis") || scheme.starts_with("valkey"))
}

/// The error says what is wrong, never the password.
pub fn parse(text: &str) -> Result<RedisUrl, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or((text, ""));
    let (is_tls, kind) = match scheme {
        "redis" => (false, "single"),
        "rediss" => (true, "single"),
        "redis+cluster" => (false, "cluster"),
        "rediss+cluster" => (true, "cluster"),
        "redis+sentinel" => (false, "sentinel"),
        "rediss+sentinel" => (true, "sentinel"),
        _ => {
            return Err(format!(
                "`{scheme}://` is none of redis://, rediss://, redis+cluster://, rediss+cluster://, redis+sentinel://, rediss+sentinel://"
            ));
        }
    };
    if let Some(sign) = rest.chars().find(|sign| matches!(sign, '?' | '#')) {
        return Err(format!(
            "`{sign}` has no meaning in the address; in a password write it as %{:02X}",
            u32::from(sign)
        ));
    }
    let (login, rest) = match rest.rsplit_once('@') {
        Some((login, rest)) => (login, rest),
        None => ("", rest),
    };
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(plain(password)?)),
        None => (login, None),
    };
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let port = match kind {
        "sentinel" => SENTINEL_PORT,
        _ => PORT,
    };
    let addresses = hosts.split(',').map(|host| address(host, port));
    let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
    let (kind, database) = match kind {
        "cluster" => (RedisKind::Cluster, path),
        "sentinel" => {
            let (master, database) = path.split_once('/').unwrap_or((path, ""));
            if master.is_empty() {
                return Err(
                    "sentinels need the name of their master, such as redis+sentinel://host/mymaster"
                        .to_owned(),
                );
            }
            let master = plain(master)?;
            (RedisKind::Sentinel { master }, database)
        }
        _ if addresses.len() == 1 => (RedisKind::Single, path),
        _ => {
            return Err("several addresses need redis+cluster:// or redis+sentinel://".to_owned());
        }
    };
    Ok(RedisUrl {
        database: database_of(&kind, database)?,
        kind,
        is_tls,
        addresses,
        user: (!user.is_empty()).then(|| plain(user)).transpose()?,
        password,
    })
}

fn database_of(kind: &RedisKind, text: &str) -> Result<i64, String> {
    let text = text.trim_end_matches('/');
    match (text, kind) {
        ("" | "0", _) => Ok(0),
        (_, RedisKind::Cluster) => Err("a cluster has database 0 alone".to_owned()),
        (text, _) => text
            .parse::<u16>()
            .map(i64::from)
            .map_err(|_| format!("`{text}` is not the number of a database")),
    }
}

fn address(text: &str, default_port: u16) -> Result<(String, u16), String> {
    let (host, port) = match text.strip_prefix('[') {
        // An IPv6 address.
        Some(rest) => {
            let (host, port) = rest
                .split_once(']')
                .ok_or_else(|| format!("`{text}` has no closing bracket"))?;
            (host, port.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err("a host is missing, such as redis://127.0.0.1:6379".to_owned());
    }
    let port = match port {
        None => default_port,
        Some(port) => port
            .parse()
            .map_err(|_| format!("`{port}` is not a port"))?,
    };
    Ok((host.to_owned(), port))
}

/// `%xx` as the byte it means.
fn plain(text: &str) -> Result<String, String> {
    const WRONG: &str =
        "a `%` in user, password or name must be followed by two hexadecimal digits of UTF-8";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or(WRONG)?;
        let digits = std::str::from_utf8(digits).map_err(|_| WRONG)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| WRONG)?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| WRONG.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let found = match parse(text) {
            Ok(url) => {
                let hosts: Vec<String> = url
                    .addresses
                    .iter()
                    .map(|(host, port)| format!("{host} {port}"))
                    .collect();
                format!(
                    "{:?} tls={} [{}] {:?} {:?} db={}",
                    url.kind,
                    url.is_tls,
                    hosts.join(", "),
                    url.user,
                    url.password,
                    url.database
                )
            }
            Err(message) => message,
        };
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn every_form_is_read() {
        check(
            "redis://127.0.0.1",
            "Single tls=false [127.0.0.1 6379] None None db=0",
        );
        check(
            "rediss://me:p%40ss@cache.example:7000/3",
            "Single tls=true [cache.example 7000] Some(\"me\") Some(\"p@ss\") db=3",
        );
        check(
            "redis://:only-password@[::1]:6380/",
            "Single tls=false [::1 6380] None Some(\"only-password\") db=0",
        );
        check(
            "redis+cluster://a,b:7001,c",
            "Cluster tls=false [a 6379, b 7001, c 6379] None None db=0",
        );
        check(
            "rediss+sentinel://u:p@s1,s2:5000/my%20master/2",
            "Sentinel { master: \"my master\" } tls=true [s1 26379, s2 5000] Some(\"u\") Some(\"p\") db=2",
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        check(
            "redis://a,b",
            "several addresses need redis+cluster:// or redis+sentinel://",
        );
        check(
            "redis://",
            "a host is missing, such as redis://127.0.0.1:6379",
        );
        check("redis://a:x", "`x` is not a port");
        check("redis://a/x", "`x` is not the number of a database");
        check("redis+cluster://a/1", "a cluster has database 0 alone");
        check(
            "redis+sentinel://a",
            "sentinels need the name of their master, such as redis+sentinel://host/mymaster",
        );
        check(
            "redis://:a#b@c",
            "`#` has no meaning in the address; in a password write it as %23",
        );
        assert!(
            parse("redis://:%zz@c")
                .unwrap_err()
                .contains("two hexadecimal digits")
        );
        assert!(
            parse("redis+x://c")
                .unwrap_err()
                .contains("none of redis://")
        );
        assert!(is_redis("redis+sentinel://x") && is_redis("valkey://x"));
        assert!(!is_redis("redis") && !is_redis("in-process"));
    }

    #[test]
    fn the_password_is_not_printed() {
        let url = parse("redis://u:secret@h").unwrap();
        assert!(!format!("{url:?}").contains("secret"));
    }
}
