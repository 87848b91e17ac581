// SPDX-License-Identifier: Apache-2.0
//! What is said at the end of a build: the digest, a row per platform, where the result is.

use polyarch_build::request::{Destination, Output};
use polyarch_build::result::Execution;
use polyarch_build::{BuildRequest, BuildResult};
use polyarch_oci::media_type;

use super::table::render_table;
use crate::progress::format::size;
use crate::visible_text::visible_line;

/// Writes the summary.
pub fn render(request: &BuildRequest, result: &BuildResult) -> String {
    let mut text = String::from("\n");
    if let Some(root) = &result.root {
        let kind = if media_type::is_index(&root.media_type) { "index" } else { "image" };
        text.push_str(&format!("{kind} {}\n", root.digest));
    }
    let rows: Vec<Vec<String>> = result
        .platforms
        .iter()
        .map(|platform| {
            let digest = platform.manifest.as_ref().map_or(String::new(), |m| m.digest.to_string());
            let has_image = platform.manifest.is_some();
            vec![
                format!("  {}", platform.platform),
                digest,
                if has_image { size(platform.size_bytes) } else { String::new() },
                execution(&platform.execution),
                format!("{:.1}s", platform.duration.as_secs_f64()),
            ]
        })
        .collect();
    text.push_str(&render_table(&rows));
    text.push_str(&render_table(&places(request, result)));
    text
}

/// Lists names and files with where they are.
fn places(request: &BuildRequest, result: &BuildResult) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for name in &result.names {
        let is_pushed = result.pushed.contains(name);
        let place = if is_pushed { "local store, pushed" } else { "local store" };
        rows.push(vec![format!("  {name}"), place.to_owned()]);
    }
    for name in result.pushed.iter().filter(|name| !result.names.contains(name)) {
        rows.push(vec![format!("  {name}"), "pushed".to_owned()]);
    }
    if result.names.is_empty() && result.pushed.is_empty() && result.root.is_some() {
        rows.push(vec!["  no name".to_owned(), "local store; --tag NAME gives it one".to_owned()]);
    }
    for output in &request.outputs {
        let (destination, what) = match output {
            Output::Oci { destination, tar: true } => (destination, "OCI archive"),
            Output::Oci { destination, tar: false } => (destination, "OCI layout"),
            Output::Docker { destination: Some(destination) } => (destination, "docker archive"),
            Output::Tar { destination, .. } => (destination, "file tree as tar"),
            Output::Local { destination, .. } => {
                rows.push(vec![shown(&destination.to_string_lossy()), "file tree".to_owned()]);
                continue;
            }
            Output::Image { .. } | Output::Docker { destination: None } | Output::CacheOnly => continue,
        };
        let place = match destination {
            Destination::Path(path) => shown(&path.to_string_lossy()),
            Destination::Stdout => "  standard output".to_owned(),
        };
        rows.push(vec![place, what.to_owned()]);
    }
    rows
}

fn shown(path: &str) -> String {
    format!("  {}", visible_line(path.as_bytes()))
}

/// Says how the steps of a platform ran.
pub fn execution(execution: &Execution) -> String {
    match execution {
        Execution::None => "cached".to_owned(),
        Execution::Native => "native".to_owned(),
        Execution::Emulated(emulator) => format!("emulated ({emulator})"),
    }
}
