// SPDX-License-Identifier: Apache-2.0
//! The text form of `imagetools inspect`, column for column as buildx prints it.

use std::fmt::Write as _;

use polyarch_images::FoundImage;
use polyarch_oci::{Descriptor, ManifestOrIndex, Platform};

use crate::visible_text::visible_text;

/// Renders an image.
pub fn render(name: &str, found: &FoundImage) -> String {
    let mut head = Columns::default();
    head.row("Name:", name);
    head.row("MediaType:", &found.descriptor.media_type);
    head.row("Digest:", &found.descriptor.digest.to_string());
    let mut out = head.flush();
    if let ManifestOrIndex::Index(index) = &found.document {
        head.row("", "");
        head.row("Manifests:", "");
        out.push_str(&head.flush());
        out.push_str(&entries(name, &index.value.manifests));
    }
    visible_text(&out)
}

fn entries(name: &str, entries: &[Descriptor]) -> String {
    let mut out = String::new();
    let mut columns = Columns::default();
    let base = name_without_digest(name);
    for (at, entry) in entries.iter().enumerate() {
        if at > 0 {
            columns.row("", "");
        }
        columns.row("  Name:", &format!("{base}@{}", entry.digest));
        columns.row("  MediaType:", &entry.media_type);
        let Some(platform) = &entry.platform else { continue };
        columns.row("  Platform:", &platform_text(platform));
        if !platform.os_version.is_empty() {
            columns.row("  OSVersion:", &platform.os_version);
        }
        if !platform.os_features.is_empty() {
            columns.row("  OSFeatures:", &platform.os_features.join(", "));
        }
        if !entry.urls.is_empty() {
            columns.row("  URLs:", &entry.urls.join(", "));
        }
        if !entry.annotations.is_empty() {
            columns.row("  Annotations:", "");
            out.push_str(&columns.flush());
            for (key, value) in &entry.annotations {
                columns.row(&format!("    {key}:"), value);
            }
            out.push_str(&columns.flush());
        }
    }
    out.push_str(&columns.flush());
    out
}

/// Returns what an entry's digest is put after: a name keeps its tag, a place in a layout does not.
fn name_without_digest(name: &str) -> &str {
    let name = name.split_once("@sha").map_or(name, |(name, _)| name);
    match name.strip_prefix("oci-layout://").and_then(|path| path.rsplit_once(':')) {
        Some((path, tag)) if !tag.contains('/') => &name[.."oci-layout://".len() + path.len()],
        _ => name,
    }
}

/// Writes a platform as containerd does: one without a system is unknown.
fn platform_text(platform: &Platform) -> String {
    if platform.os.is_empty() { "unknown".to_owned() } else { platform.short_name() }
}

/// Two columns, the first as wide as its widest cell and one more.
#[derive(Default)]
struct Columns(Vec<(String, String)>);

impl Columns {
    fn row(&mut self, left: &str, right: &str) {
        // A cell is one line; what an annotation holds is from outside.
        let one_line = |text: &str| text.replace(['\n', '\r', '\t'], " ");
        self.0.push((one_line(left), one_line(right)));
    }

    fn flush(&mut self) -> String {
        let rows = std::mem::take(&mut self.0);
        let width = rows.iter().map(|(left, _)| left.chars().count()).max().unwrap_or_default() + 1;
        let mut out = String::new();
        for (left, right) in rows {
            // Writing to a String can't fail.
            let _ = writeln!(out, "{left:width$}{right}");
        }
        out
    }
}
