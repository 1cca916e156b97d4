//! Settings: defaults < file < environment (`LOGYARD__SECTION__KEY`) < flags, merged and checked once at the start. The only
//! place that reads the environment. Must not know who uses a setting.

pub mod check;
pub mod kafka;
pub mod load;
pub mod redis_url;
pub mod reference;
pub mod settings;

pub use check::{
    CacheKind, Checked, DurabilityKind, LogFormat, QueueKind, Role, StoreKind, check, days_to_age,
};
pub use kafka::KafkaAddress;
pub use load::{Layered, Origin, Override, load};
pub use redis_url::{RedisKind, RedisUrl};
pub use settings::Settings;

/// Every variable of the process that is text.
pub fn environment() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}
