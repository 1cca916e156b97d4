//! Connections to Redis, whatever way it is set up: one server, a cluster, or the master that sentinels name. Each `connect` starts from
//! nothing, so that a failover, a new address or a new certificate is found. Must not know what is kept in Redis.

use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    Pipeline, RedisConnectionInfo, RedisFuture, RedisResult, TlsCertificates, TlsMode, Value,
};

use crate::cache::redis::RedisOptions;

/// How the servers are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisTopology {
    /// The first address that takes a connection.
    Single,
    /// The addresses are some of the cluster's nodes.
    Cluster,
    /// The addresses are sentinels, which know where the master of this name is.
    Sentinel { master: String },
}

/// Requests waiting to be sent on one connection.
const WAITING_MAX: usize = 1_024;

/// Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub enum Link {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    /// Takes as long as it takes: the caller has the limit.
    pub async fn connect(options: &RedisOptions) -> RedisResult<Self> {
        match &options.topology {
            RedisTopology::Single => {
                let mut last = None;
                for address in addresses(options) {
                    let info = address.into_connection_info()?;
                    match connect_single(options, info.set_redis_settings(login(options))).await {
                        Ok(connection) => return Ok(Self::Single(connection)),
                        Err(error) => last = Some(error),
                    }
                }
                Err(last.unwrap_or_else(no_address))
            }
            RedisTopology::Cluster => connect_cluster(options).await.map(Self::Cluster),
            RedisTopology::Sentinel { master } => {
                connect_sentinel(options, master).await.map(Self::Single)
            }
        }
    }

    pub fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(cmd, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

fn no_address() -> redis::RedisError {
    (
        redis::ErrorKind::InvalidClientConfig,
        "no address of a Redis server",
    )
        .into()
}

fn addresses(options: &RedisOptions) -> Vec<ConnectionAddr> {
    let address = |(host, port): &(String, u16)| match options.is_tls {
        false => ConnectionAddr::Tcp(host.clone(), *port),
        true => ConnectionAddr::TcpTls {
            host: host.clone(),
            port: *port,
            insecure: false,
            tls_params: None,
        },
    };
    options.addresses.iter().map(address).collect()
}

fn login(options: &RedisOptions) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default().set_db(options.database);
    if let Some(user) = &options.user {
        login = login.set_username(user);
    }
    if let Some(password) = &options.password {
        login = login.set_password(password);
    }
    login
}

fn certificates(options: &RedisOptions) -> TlsCertificates {
    TlsCertificates {
        client_tls: None,
        root_cert: options.ca_pem.clone(),
    }
}

/// The budget of a call is the caller's; this one only lets go of what nobody waits for any more.
fn config(options: &RedisOptions) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(options.connect_timeout))
        .set_response_timeout(Some(options.budget + Duration::from_secs(1)))
        .set_pipeline_buffer_size(WAITING_MAX)
}

async fn connect_single(
    options: &RedisOptions,
    info: ConnectionInfo,
) -> RedisResult<MultiplexedConnection> {
    let client = match options.is_tls {
        true => Client::build_with_tls(info, certificates(options))?,
        false => Client::open(info)?,
    };
    client
        .get_multiplexed_async_connection_with_config(&config(options))
        .await
}

async fn connect_cluster(options: &RedisOptions) -> RedisResult<ClusterConnection> {
    let nodes = addresses(options).into_iter().map(|address| {
        let info = address.into_connection_info()?;
        Ok(info.set_redis_settings(login(options)))
    });
    let nodes = nodes.collect::<RedisResult<Vec<ConnectionInfo>>>()?;
    let mut builder = ClusterClient::builder(nodes)
        .connection_timeout(options.connect_timeout)
        .response_timeout(options.budget + Duration::from_secs(1))
        // A slot that has moved is asked for at its new place; nothing waits longer than its budget all the same.
        .retries(2)
        .min_retry_wait(1)
        .max_retry_wait(10);
    if options.is_tls {
        builder = builder.tls(TlsMode::Secure).certs(certificates(options));
    }
    builder.build()?.get_async_connection().await
}

async fn connect_sentinel(
    options: &RedisOptions,
    master: &str,
) -> RedisResult<MultiplexedConnection> {
    let mut builder =
        SentinelClientBuilder::new(addresses(options), master, SentinelServerType::Master)?
            .set_client_to_redis_db(options.database);
    if let Some(user) = &options.user {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = &options.password {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(user) = &options.sentinel_user {
        builder = builder.set_client_to_sentinel_username(user);
    }
    if let Some(password) = &options.sentinel_password {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if options.is_tls {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_redis_certificates(certificates(options))
            .set_client_to_sentinel_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_certificates(certificates(options));
    }
    builder
        .build()?
        .get_async_connection_with_config(&config(options))
        .await
}
