// SPDX-License-Identifier: Apache-2.0
//! `polyarch images`: lists the images of the store.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::build::table::render_table;
use crate::CommandError;
use crate::image_list::ImageSummary;
use crate::progress::format::size;
use crate::session::Session;

/// List the images of the store
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// How to print the list
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Show each platform on a line of its own
    #[arg(long)]
    tree: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Columns
    Table,
    /// One JSON array
    Json,
}

/// Runs the command.
pub fn run(args: &ImagesArgs, session: &Session) -> Result<(), CommandError> {
    let settings = session.settings()?;
    let images = session.open(&settings)?.images()?;
    session.printer.data(&match args.format {
        Format::Json => render_json(&images),
        Format::Table => render_list(&images, args.tree),
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonImage<'a> {
    name: String,
    digest: &'a polyarch_oci::Digest,
    media_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated: Option<String>,
    platforms: Vec<JsonPlatform<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonPlatform<'a> {
    platform: String,
    digest: &'a polyarch_oci::Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    complete: bool,
}

fn render_json(images: &[ImageSummary]) -> String {
    let images: Vec<JsonImage<'_>> = images
        .iter()
        .map(|image| JsonImage {
            name: image.name.to_string(),
            digest: &image.descriptor.digest,
            media_type: &image.descriptor.media_type,
            updated: image
                .updated
                .and_then(|time| jiff::Timestamp::try_from(time).ok())
                .map(|time| time.to_string()),
            platforms: image
                .platforms
                .iter()
                .map(|platform| JsonPlatform {
                    platform: platform.platform.to_string(),
                    digest: &platform.digest,
                    size: platform.size_bytes,
                    complete: platform.is_complete,
                })
                .collect(),
        })
        .collect();
    let text = serde_json::to_string_pretty(&images).expect("names, digests and numbers are always JSON");
    text + "\n"
}

fn render_list(images: &[ImageSummary], is_tree: bool) -> String {
    let mut rows =
        vec![vec!["NAME".to_owned(), "DIGEST".to_owned(), "PLATFORMS".to_owned(), "SIZE".to_owned()]];
    for image in images {
        let total = image.platforms.iter().filter_map(|platform| platform.size_bytes).sum();
        let name = image.name.familiar();
        let digest = image.descriptor.digest.short().to_owned();
        let complete = image.platforms.iter().filter(|platform| platform.is_complete);
        let list: Vec<String> = complete.map(|platform| platform.platform.to_string()).collect();
        if !is_tree {
            rows.push(vec![name, digest, list.join(", "), size(total)]);
            continue;
        }
        rows.push(vec![name, digest, format!("{} of {}", list.len(), image.platforms.len()), size(total)]);
        for (at, platform) in image.platforms.iter().enumerate() {
            let branch = if at + 1 == image.platforms.len() { "└─" } else { "├─" };
            let size = match platform.size_bytes {
                Some(bytes) if platform.is_complete => size(bytes),
                _ => "not in the store".to_owned(),
            };
            rows.push(vec![
                format!("{branch} {}", platform.platform),
                platform.digest.short().to_owned(),
                String::new(),
                size,
            ]);
        }
    }
    render_table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image_list::PlatformSummary;
    use polyarch_oci::{Descriptor, Digest};

    fn images() -> Vec<ImageSummary> {
        let platform = |name: &str, is_complete: bool| PlatformSummary {
            platform: name.parse().unwrap(),
            digest: Digest::of(name),
            size_bytes: is_complete.then_some(12_345_678),
            is_complete,
        };
        vec![ImageSummary {
            name: "user/app:v1".parse().unwrap(),
            descriptor: Descriptor::new(polyarch_oci::media_type::OCI_INDEX, Digest::of("index"), 7),
            updated: Some(std::time::UNIX_EPOCH),
            platforms: vec![platform("linux/amd64", true), platform("linux/arm/v7", false)],
        }]
    }

    #[test]
    fn images_are_listed_with_the_platforms_that_the_store_has() {
        insta::assert_snapshot!(render_list(&images(), false), @r#"
        NAME          DIGEST         PLATFORMS     SIZE
        user/app:v1   1bc04b5291c2   linux/amd64   12.35MB
        "#);
        insta::assert_snapshot!(render_list(&images(), true), @r#"
        NAME              DIGEST         PLATFORMS   SIZE
        user/app:v1       1bc04b5291c2   1 of 2      12.35MB
        ├─ linux/amd64    baf0239e48ff               12.35MB
        └─ linux/arm/v7   35df9beb9b1c               not in the store
        "#);
        insta::assert_snapshot!(render_json(&images()), @r#"
        [
          {
            "name": "docker.io/user/app:v1",
            "digest": "sha256:1bc04b5291c26a46d918139138b992d2de976d6851d0893b0476b85bfbdfc6e6",
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "updated": "1970-01-01T00:00:00Z",
            "platforms": [
              {
                "platform": "linux/amd64",
                "digest": "sha256:baf0239e48ff4c47ebac3ba02b5cf1506b69cd5a0c0d0c825a53ba65976fb942",
                "size": 12345678,
                "complete": true
              },
              {
                "platform": "linux/arm/v7",
                "digest": "sha256:35df9beb9b1c4fe630707bc51e4360b94b506b4e6d5372d5d0d52a385350621b",
                "complete": false
              }
            ]
          }
        ]
        "#);
    }
}
