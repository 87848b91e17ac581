// SPDX-License-Identifier: Apache-2.0
//! Counters, in the text form of Prometheus (text exposition format 0.0.4).

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "other"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Upper ends of the classes of durations, in milliseconds.
const BUCKETS: [u64; 9] = [1, 5, 10, 50, 100, 500, 1000, 10_000, 60_000];

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    requests: [[AtomicU64; CLASSES.len()]; METHODS.len()],
    durations: [AtomicU64; BUCKETS.len() + 1],
    duration_micros: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) connections: AtomicI64,
    pub(super) connections_total: AtomicU64,
    pub(super) refused_rate: AtomicU64,
    pub(super) collected_bytes: AtomicU64,
}

impl Metrics {
    /// Counts a request that was answered.
    pub(super) fn count(&self, method: &str, status: u16, duration: Duration, sent: u64) {
        let method = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1);
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        add(&self.requests[method][class], 1);
        let milliseconds = duration.as_secs_f64() * 1000.0;
        let bucket = BUCKETS.iter().position(|end| milliseconds <= *end as f64).unwrap_or(BUCKETS.len());
        add(&self.durations[bucket], 1);
        add(&self.duration_micros, u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        add(&self.sent_bytes, sent);
    }

    /// Writes everything.
    pub(super) fn render(&self) -> String {
        let mut text = String::from("# TYPE polyarch_registry_requests_total counter\n");
        for (method, classes) in METHODS.iter().zip(&self.requests) {
            for (class, count) in CLASSES.iter().zip(classes) {
                let count = read(count);
                if count > 0 {
                    line(
                        &mut text,
                        "requests_total",
                        &format!("{{method=\"{method}\",status=\"{class}\"}}"),
                        count,
                    );
                }
            }
        }
        text.push_str("# TYPE polyarch_registry_request_duration_seconds histogram\n");
        let mut sum = 0;
        for (number, count) in self.durations.iter().enumerate() {
            sum += read(count);
            let end = BUCKETS.get(number).map_or("+Inf".to_owned(), |end| (*end as f64 / 1000.0).to_string());
            line(&mut text, "request_duration_seconds_bucket", &format!("{{le=\"{end}\"}}"), sum);
        }
        let seconds = read(&self.duration_micros) as f64 / 1e6;
        // Writing to a String can't fail, here and below.
        let _ = writeln!(text, "polyarch_registry_request_duration_seconds_sum {seconds}");
        line(&mut text, "request_duration_seconds_count", "", sum);
        for (name, value) in [
            ("sent_bytes_total", read(&self.sent_bytes)),
            ("connections_total", read(&self.connections_total)),
            ("rate_limited_total", read(&self.refused_rate)),
            ("collected_bytes_total", read(&self.collected_bytes)),
        ] {
            let _ = writeln!(text, "# TYPE polyarch_registry_{name} counter");
            line(&mut text, name, "", value);
        }
        let open = self.connections.load(Ordering::Relaxed);
        let _ = writeln!(
            text,
            "# TYPE polyarch_registry_connections gauge\npolyarch_registry_connections {open}"
        );
        text
    }
}

fn line(text: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(text, "polyarch_registry_{name}{labels} {value}");
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_method_status_and_duration() {
        let metrics = Metrics::default();
        metrics.count("GET", 200, Duration::from_millis(3), 10);
        metrics.count("BREW", 404, Duration::from_secs(100), 5);
        let text = metrics.render();
        for part in [
            "polyarch_registry_requests_total{method=\"GET\",status=\"2xx\"} 1\n",
            "polyarch_registry_requests_total{method=\"other\",status=\"4xx\"} 1\n",
            "_bucket{le=\"0.001\"} 0\n",
            "_bucket{le=\"0.005\"} 1\n",
            "_bucket{le=\"60\"} 1\n",
            "_bucket{le=\"+Inf\"} 2\n",
            "_sum 100.003\n",
            "polyarch_registry_sent_bytes_total 15\n",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
