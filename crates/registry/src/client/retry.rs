// SPDX-License-Identifier: Apache-2.0
//! When to try again: exponential waits with jitter, bounded in number and time.

use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::RETRY_AFTER;
use jiff::Timestamp;

use super::RetryPolicy;
use crate::error::RegistryError;

/// Attempts at connecting at all; a host that is down rarely comes up within seconds.
const MAX_CONNECT_ATTEMPTS: u32 = 3;

/// The attempts at one piece of work.
pub(super) struct Backoff<'a> {
    policy: &'a RetryPolicy,
    failures: u32,
    started: Instant,
}

impl<'a> Backoff<'a> {
    pub(super) fn new(policy: &'a RetryPolicy) -> Backoff<'a> {
        Backoff { policy, failures: 0, started: Instant::now() }
    }

    /// Starts counting anew, because bytes have got through since the last failure.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
        self.started = Instant::now();
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The error itself, when it will not pass or the attempts are used up.
    pub(super) async fn wait(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.failures += 1;
        match self.next_wait(&error, jitter()) {
            Some(wait) => {
                tracing::debug!(%error, ?wait, attempt = self.failures, "trying again");
                tokio::time::sleep(wait).await;
                Ok(())
            }
            None => Err(error),
        }
    }

    /// Decides on the wait after the failure just counted; `jitter` is between 0 and 1.
    fn next_wait(&self, error: &RegistryError, jitter: f64) -> Option<Duration> {
        let max_attempts = match error {
            RegistryError::Connect { .. } => self.policy.max_attempts.min(MAX_CONNECT_ATTEMPTS),
            _ => self.policy.max_attempts,
        };
        if !error.is_transient() || self.failures >= max_attempts {
            return None;
        }
        let doubled = self.policy.first_wait.saturating_mul(1 << (self.failures - 1).min(16));
        let wait = doubled.min(self.policy.max_wait).mul_f64(0.5 + jitter / 2.0);
        // A registry that says when to come back is not asked earlier.
        let wait = error.retry_after().map_or(wait, |asked| asked.max(wait));
        let left = self.policy.max_total.checked_sub(self.started.elapsed())?;
        (wait <= left).then_some(wait)
    }
}

fn jitter() -> f64 {
    // Without randomness the waits are merely regular.
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

/// Reads `Retry-After`: seconds or a date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let seconds = date.as_second().saturating_sub(Timestamp::now().as_second());
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(u32::MAX.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ErrorBody;
    use crate::error::Refusal;

    fn refused(status: u16, retry_after: Option<Duration>) -> RegistryError {
        let refusal = Box::new(Refusal {
            host: "h".into(),
            status,
            request: "r".into(),
            scope: String::new(),
            body: ErrorBody::default(),
            retry_after,
        });
        if status == 429 {
            RegistryError::RateLimited { refusal }
        } else {
            RegistryError::Refused { refusal }
        }
    }

    #[test]
    fn waits_double_up_to_a_limit_and_end() {
        let policy = RetryPolicy {
            max_attempts: 5,
            first_wait: Duration::from_secs(1),
            max_wait: Duration::from_secs(3),
            max_total: Duration::from_secs(100),
        };
        let mut backoff = Backoff::new(&policy);
        let mut waits = Vec::new();
        for _ in 0..5 {
            backoff.failures += 1;
            waits.push(backoff.next_wait(&refused(503, None), 1.0).map(|wait| wait.as_secs()));
        }
        assert_eq!(waits, [Some(1), Some(2), Some(3), Some(3), None]);
        backoff.progressed();
        backoff.failures = 1;
        assert_eq!(backoff.next_wait(&refused(503, None), 0.0), Some(Duration::from_millis(500)));
    }

    #[test]
    fn the_registrys_own_wait_is_kept_unless_it_is_too_long() {
        let policy = RetryPolicy { max_total: Duration::from_secs(100), ..RetryPolicy::default() };
        let mut backoff = Backoff::new(&policy);
        backoff.failures = 1;
        let wait = |seconds| backoff.next_wait(&refused(429, Some(Duration::from_secs(seconds))), 0.5);
        assert_eq!(wait(30), Some(Duration::from_secs(30)));
        assert_eq!(wait(300), None);
        assert_eq!(backoff.next_wait(&refused(404, None), 0.5), None);
        assert_eq!(backoff.next_wait(&refused(501, None), 0.5), None);
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(read("Wed, 21 Oct 2099 07:28:00 GMT").unwrap() > Duration::from_secs(1_000_000));
        assert_eq!(read("soon"), None);
        assert_eq!(read("-5"), None);
    }
}
