//! Who is connected: counts, for all and for each address, and who must make room. No I/O.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::common::server::activity::Activity;

/// A connection younger or busier than this is not sent away: it is about to send its request.
const WAITED_MS_MIN: u64 = 250;

pub struct Registry {
    inner: Arc<Mutex<Inner>>,
    connections_max: usize,
    connections_per_ip_max: usize,
}

struct Inner {
    next_id: u64,
    /// Those not asked to leave yet.
    seated: HashMap<u64, (IpAddr, Arc<Activity>)>,
    per_ip: HashMap<IpAddr, usize>,
}

pub enum Admission {
    Admitted(Seat),
    Full,
}

/// A connection's place; given up when dropped.
pub struct Seat {
    id: u64,
    activity: Arc<Activity>,
    inner: Arc<Mutex<Inner>>,
}

impl Registry {
    pub fn new(connections_max: usize, connections_per_ip_max: usize) -> Self {
        let inner = Inner {
            next_id: 0,
            seated: HashMap::new(),
            per_ip: HashMap::new(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            connections_max,
            connections_per_ip_max,
        }
    }

    pub fn admit(&self, ip: IpAddr) -> Admission {
        let mut inner = self.inner.lock();
        let of_ip = inner.per_ip.get(&ip).copied().unwrap_or(0);
        if !ip.is_loopback()
            && self.connections_per_ip_max <= of_ip
            && !inner.unseat_longest_waiting(Some(ip))
        {
            return Admission::Full;
        }
        if self.connections_max <= inner.seated.len() && !inner.unseat_longest_waiting(None) {
            return Admission::Full;
        }
        let id = inner.next_id;
        inner.next_id += 1;
        let activity = Arc::new(Activity::new());
        inner.seated.insert(id, (ip, activity.clone()));
        *inner.per_ip.entry(ip).or_insert(0) += 1;
        Admission::Admitted(Seat {
            id,
            activity,
            inner: self.inner.clone(),
        })
    }

    /// Asks all to close at once; returns how many there were.
    pub fn cut_all(&self) -> usize {
        let inner = self.inner.lock();
        inner
            .seated
            .values()
            .for_each(|(_, activity)| activity.cut_now());
        inner.seated.len()
    }
}

impl Inner {
    /// False: everyone has a request in flight, or is about to send one.
    fn unseat_longest_waiting(&mut self, of_ip: Option<IpAddr>) -> bool {
        let candidates = self
            .seated
            .iter()
            .filter(|(_, (ip, _))| of_ip.is_none_or(|of| of == *ip));
        let waiting = candidates.filter_map(|(id, (_, activity))| {
            Some((
                activity
                    .waiting_for_ms()
                    .filter(|ms| WAITED_MS_MIN <= *ms)?,
                *id,
            ))
        });
        let Some((_, id)) = waiting.max_by_key(|(waited, id)| (*waited, u64::MAX - id)) else {
            return false;
        };
        if let Some((_, activity)) = self.seated.get(&id) {
            activity.cut_now();
        }
        self.remove(id);
        true
    }

    fn remove(&mut self, id: u64) {
        let Some((ip, _)) = self.seated.remove(&id) else {
            return;
        };
        if let Some(count) = self.per_ip.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.per_ip.remove(&ip);
            }
        }
    }
}

impl Seat {
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.inner.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(registry: &Registry, ip: [u8; 4]) -> Option<Seat> {
        match registry.admit(IpAddr::from(ip)) {
            Admission::Admitted(seat) => Some(seat),
            Admission::Full => None,
        }
    }

    #[test]
    fn the_longest_waiting_makes_room_and_requests_in_flight_never_do() {
        let registry = Registry::new(2, 2);
        let first = admit(&registry, [127, 0, 0, 1]).unwrap();
        let at_work = first.activity().begin_request();
        let second = admit(&registry, [127, 0, 0, 1]).unwrap();
        assert!(admit(&registry, [127, 0, 0, 1]).is_none());
        let wait = || std::thread::sleep(std::time::Duration::from_millis(WAITED_MS_MIN + 10));
        wait();
        let third = admit(&registry, [127, 0, 0, 1]).unwrap();
        assert!(second.activity().is_cut() && !first.activity().is_cut());
        let _also_at_work = third.activity().begin_request();
        assert!(admit(&registry, [127, 0, 0, 1]).is_none());
        drop(at_work);
        wait();
        assert!(admit(&registry, [127, 0, 0, 1]).is_some());
        assert!(first.activity().is_cut());
    }

    #[test]
    fn one_address_cannot_take_every_seat() {
        let registry = Registry::new(100, 2);
        let busy: Vec<_> = (0..2)
            .map(|_| admit(&registry, [10, 0, 0, 1]).unwrap())
            .collect();
        let _at_work: Vec<_> = busy
            .iter()
            .map(|seat| seat.activity().begin_request())
            .collect();
        assert!(admit(&registry, [10, 0, 0, 1]).is_none());
        assert!(admit(&registry, [10, 0, 0, 2]).is_some());
        drop(busy);
        assert!(admit(&registry, [10, 0, 0, 1]).is_some());
        assert!(registry.inner.lock().per_ip.is_empty());
    }
}
