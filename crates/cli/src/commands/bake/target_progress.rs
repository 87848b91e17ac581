// SPDX-License-Identifier: Apache-2.0
//! The steps of several targets in one display.

use std::sync::Arc;

use polyarch_solver::KeyHasher;
use polyarch_solver::progress::{Event, Progress};

/// Passes on the events of a target's build, with the target's name before the names of its steps.
pub fn of_target(target: &str, progress: &Progress) -> Progress {
    let (target, progress) = (target.to_owned(), progress.clone());
    Progress::new(move |mut event| {
        match &mut event {
            Event::Vertex(vertex) => {
                vertex.digest = own(&target, &vertex.digest);
                vertex.inputs = vertex.inputs.iter().map(|input| own(&target, input)).collect();
                vertex.name = name(&target, &vertex.name).into();
            }
            Event::Status(status) => status.vertex = own(&target, &status.vertex),
            Event::Log(log) => log.vertex = own(&target, &log.vertex),
            Event::Warning(warning) => {
                warning.vertex = own(&target, &warning.vertex);
                warning.message = format!("{target}: {}", warning.message);
            }
        }
        progress.send(event);
    })
}

/// The digest of a target's step: two targets may have the same step, which begins and ends in each.
fn own(target: &str, digest: &str) -> Arc<str> {
    if digest.is_empty() {
        return digest.into();
    }
    let key = KeyHasher::new("step of a target").part(target).part(digest).finish();
    format!("sha256:{}", key.hex()).into()
}

/// `[linux/arm64 2/3] RUN make` becomes `[app linux/arm64 2/3] RUN make`.
fn name(target: &str, name: &str) -> String {
    match name.strip_prefix('[') {
        Some(rest) => format!("[{target} {rest}"),
        None => format!("[{target}] {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_named_by_target() {
        assert_eq!(name("app", "[linux/arm64 2/3] RUN make"), "[app linux/arm64 2/3] RUN make");
        assert_eq!(name("app", "exporting"), "[app] exporting");
        assert_ne!(own("a", "sha256:1"), own("b", "sha256:1"));
    }
}
