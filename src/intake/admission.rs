//! The memory that requests may hold together. A request reserves what it holds and waits its turn, for a while; then it is refused, and the
//! client tries again. Knows nothing of what the bytes are.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::common::error::{Error, Result};

/// The unit of permits: a semaphore counts in 32 bits.
const UNIT_BYTES: usize = 1024;

pub(super) struct Memory {
    units: Arc<Semaphore>,
    units_max: usize,
    wait: Duration,
}

/// Bytes held by one request; given back when dropped.
pub(super) struct Reservation {
    permit: OwnedSemaphorePermit,
    units: Arc<Semaphore>,
    units_max: usize,
    wait: Duration,
}

impl Memory {
    pub fn new(bytes_max: usize, wait: Duration) -> Self {
        let units_max = (bytes_max / UNIT_BYTES).clamp(1, u32::MAX as usize);
        Self {
            units: Arc::new(Semaphore::new(units_max)),
            units_max,
            wait,
        }
    }

    /// Holds `bytes`, or everything there is if that is less, so that the largest request allowed can pass alone.
    pub async fn reserve(&self, bytes: usize) -> Result<Reservation> {
        let units = units_of(bytes, self.units_max);
        let permit = acquire(&self.units, units, self.wait).await?;
        Ok(Reservation {
            permit,
            units: self.units.clone(),
            units_max: self.units_max,
            wait: self.wait,
        })
    }
}

impl Reservation {
    /// Holds `bytes` altogether from now on; waits for them.
    pub async fn grow_to(&mut self, bytes: usize) -> Result<()> {
        let more = self.missing(bytes);
        if 0 < more {
            self.permit
                .merge(acquire(&self.units, more, self.wait).await?);
        }
        Ok(())
    }

    /// The same without waiting, for threads that must not.
    pub fn try_grow_to(&mut self, bytes: usize) -> Result<()> {
        let more = self.missing(bytes);
        if 0 < more {
            let permit = self
                .units
                .clone()
                .try_acquire_many_owned(more)
                .map_err(|_| overloaded())?;
            self.permit.merge(permit);
        }
        Ok(())
    }

    fn missing(&self, bytes: usize) -> u32 {
        units_of(bytes, self.units_max).saturating_sub(u32_of(self.permit.num_permits()))
    }
}

async fn acquire(
    units: &Arc<Semaphore>,
    count: u32,
    wait: Duration,
) -> Result<OwnedSemaphorePermit> {
    let acquired = timeout(wait, units.clone().acquire_many_owned(count)).await;
    acquired
        .ok()
        .and_then(std::result::Result::ok)
        .ok_or_else(overloaded)
}

fn units_of(bytes: usize, units_max: usize) -> u32 {
    u32_of(bytes.div_ceil(UNIT_BYTES).clamp(1, units_max))
}

fn u32_of(units: usize) -> u32 {
    u32::try_from(units).unwrap_or(u32::MAX)
}

pub(super) fn overloaded() -> Error {
    Error::unavailable(
        "overloaded",
        "the server works on as many bytes of logs as it may hold (`intake.in_flight_bytes_max`); nothing was stored, send the same again",
    )
    .with_retry_after(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_waits_and_then_is_refused_and_what_is_dropped_is_free_again() {
        let memory = Memory::new(10 * UNIT_BYTES, Duration::from_millis(5));
        let mut first = memory.reserve(6 * UNIT_BYTES).await.unwrap();
        let error = memory.reserve(5 * UNIT_BYTES).await.err().unwrap();
        assert_eq!((error.code, error.retry_after_s), ("overloaded", Some(2)));
        first.grow_to(10 * UNIT_BYTES).await.unwrap();
        assert!(memory.reserve(1).await.is_err());
        // More than there is counts as everything.
        first.grow_to(usize::MAX).await.unwrap();
        drop(first);
        let mut all = memory.reserve(usize::MAX).await.unwrap();
        assert!(all.try_grow_to(usize::MAX).is_ok());
        drop(all);
        let mut small = memory.reserve(1).await.unwrap();
        let _rest = memory.reserve(9 * UNIT_BYTES).await.unwrap();
        assert!(small.try_grow_to(2 * UNIT_BYTES).is_err());
    }
}
