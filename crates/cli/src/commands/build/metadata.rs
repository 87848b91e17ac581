// SPDX-License-Identifier: Apache-2.0
//! The files that tell other programs what was built: `--metadata-file` and `--iidfile`.

use std::io::Write as _;
use std::path::Path;

use polyarch_build::{BuildResult, PlatformResult};
use polyarch_oci::{Descriptor, Digest};
use serde::Serialize;

use super::summary::execution;
use crate::CommandError;

/// The keys of buildx in their order, then our own.
#[derive(Serialize)]
struct Metadata<'a> {
    #[serde(rename = "containerimage.config.digest", skip_serializing_if = "Option::is_none")]
    config: Option<&'a Digest>,
    #[serde(rename = "containerimage.descriptor", skip_serializing_if = "Option::is_none")]
    descriptor: Option<&'a Descriptor>,
    #[serde(rename = "containerimage.digest", skip_serializing_if = "Option::is_none")]
    digest: Option<&'a Digest>,
    #[serde(rename = "image.name", skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "polyarch.platforms")]
    platforms: Vec<Platform<'a>>,
}

#[derive(Serialize)]
struct Platform<'a> {
    platform: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a Digest>,
    size: u64,
    execution: String,
}

/// Writes the content of `--metadata-file`.
pub fn render(result: &BuildResult) -> String {
    let names: Vec<String> = result.names.iter().map(ToString::to_string).collect();
    let metadata = Metadata {
        config: only_platform(result).and_then(|platform| platform.config.as_ref()),
        descriptor: result.root.as_ref(),
        digest: result.root.as_ref().map(|root| &root.digest),
        name: names.join(","),
        platforms: result
            .platforms
            .iter()
            .map(|platform| Platform {
                platform: platform.platform.to_string(),
                digest: platform.manifest.as_ref().map(|manifest| &manifest.digest),
                size: platform.size_bytes,
                execution: execution(&platform.execution),
            })
            .collect(),
    };
    let text = serde_json::to_string_pretty(&metadata).expect("strings, digests and numbers are always JSON");
    text + "\n"
}

/// Returns the content of `--iidfile`: the config's digest of one platform, the index's of several.
pub fn image_id(result: &BuildResult) -> Option<String> {
    let config = only_platform(result).and_then(|platform| platform.config.as_ref());
    config.or(result.root.as_ref().map(|root| &root.digest)).map(ToString::to_string)
}

fn only_platform(result: &BuildResult) -> Option<&PlatformResult> {
    match &result.platforms[..] {
        [only] => Some(only),
        _ => None,
    }
}

/// Writes a file at once and entirely; what is no regular file, such as a pipe, is written into.
pub fn write_file(path: &Path, content: &[u8]) -> Result<(), CommandError> {
    let failed = |error: &std::io::Error| CommandError::io("can't write", path, error);
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return std::fs::write(path, content).map_err(|error| failed(&error));
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".polyarch-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)
        .map_err(|error| failed(&error))?;
    file.write_all(content).map_err(|error| failed(&error))?;
    file.persist(path).map(drop).map_err(|error| failed(&error.error))
}
