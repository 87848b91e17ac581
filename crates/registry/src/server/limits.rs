// SPDX-License-Identifier: Apache-2.0
//! How much a client may have.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The most addresses that are remembered.
const MAX_ADDRESSES: usize = 10_000;

/// Limits of a server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most connections at a time; more wait to be accepted.
    pub max_connections: usize,
    /// The most unfinished uploads.
    pub max_uploads: usize,
    /// The largest blob, in bytes.
    pub max_blob_bytes: u64,
    /// The longest time in which a client may neither send nor take a byte.
    pub stall: Duration,
    /// The most requests per second of one address, in the long run; a short while may have twice as many.
    pub requests_per_second: Option<u32>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: 1024,
            max_uploads: 1000,
            max_blob_bytes: 64 << 30,
            stall: Duration::from_secs(60),
            requests_per_second: None,
        }
    }
}

/// A bucket of requests per address.
#[derive(Debug)]
pub(super) struct RateLimiter {
    per_second: f64,
    buckets: Mutex<HashMap<IpAddr, (f64, Instant)>>,
}

impl RateLimiter {
    pub(super) fn new(per_second: u32) -> RateLimiter {
        RateLimiter { per_second: f64::from(per_second.max(1)), buckets: Mutex::default() }
    }

    /// Takes a request; tells whether there was one left.
    pub(super) fn admit(&self, address: IpAddr, now: Instant) -> bool {
        let full = self.per_second * 2.0;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_ADDRESSES {
            // Those that are full again are as good as unknown.
            buckets.retain(|_, (left, since)| {
                *left + now.saturating_duration_since(*since).as_secs_f64() * self.per_second < full
            });
            if buckets.len() >= MAX_ADDRESSES {
                buckets.clear();
            }
        }
        let (left, since) = buckets.entry(network_of(address)).or_insert((full, now));
        *left = (*left + now.saturating_duration_since(*since).as_secs_f64() * self.per_second).min(full);
        *since = now;
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }
}

/// Returns what counts as one client: whoever has an IPv6 address has the 2^64 beside it.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills() {
        let limiter = RateLimiter::new(5);
        let start = Instant::now();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let admitted = (0..20).filter(|_| limiter.admit(address("10.0.0.1"), start)).count();
        assert_eq!(admitted, 10);
        assert!(limiter.admit(address("10.0.0.2"), start), "others have buckets of their own");
        let later = start + Duration::from_secs(1);
        let admitted = (0..20).filter(|_| limiter.admit(address("10.0.0.1"), later)).count();
        assert_eq!(admitted, 5);
        assert_eq!(network_of(address("2001:db8::1")), network_of(address("2001:db8::2")));
        assert_ne!(network_of(address("2001:db8:0:1::1")), network_of(address("2001:db8::1")));
    }
}
