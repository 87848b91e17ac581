// SPDX-License-Identifier: Apache-2.0
//! One image of the list, as a row, a branch or JSON.

use jiff::Timestamp;
use polyarch_oci::{Digest, ImageConfig, Reference, media_type};
use serde::Serialize;

use crate::commands::build::table::render_table;
use crate::image_list::{ImageSummary, PlatformSummary};
use crate::past::{ago, parse_time};
use crate::progress::format::size;
use crate::template::Value;
use crate::visible_text::visible_name;

/// What stands for a tag or a digest that there is not.
const NONE: &str = "<none>";

/// One image of the list.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) image: ImageSummary,
    /// The config that its date and labels come from.
    pub(super) config: Option<ImageConfig>,
}

impl Row {
    /// Returns when the image was made; `None` when that is unknown.
    pub(super) fn created(&self) -> Option<Timestamp> {
        self.config.as_ref().and_then(|config| parse_time(config.created.as_deref()?))
    }

    /// Returns the index digest; `None` when the name points at one manifest.
    fn index_digest(&self) -> Option<&Digest> {
        let root = &self.image.descriptor;
        media_type::is_index(&root.media_type).then_some(&root.digest)
    }

    /// Returns the fields of docker's templates, and ours.
    pub(super) fn value(&self, is_full: bool, now: Timestamp) -> Value {
        let image = &self.image;
        let created = self.created();
        Value::structure([
            ("Containers", Value::from("N/A")),
            (
                "CreatedAt",
                created
                    .map_or_else(
                        || "N/A".to_owned(),
                        |time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
                    )
                    .into(),
            ),
            ("CreatedSince", created.map_or_else(|| "N/A".to_owned(), |time| ago(time, now)).into()),
            ("Digest", image.descriptor.digest.to_string().into()),
            ("ID", shown(&image.descriptor.digest, is_full).into()),
            ("IndexDigest", self.index_digest().map_or_else(|| NONE.to_owned(), Digest::to_string).into()),
            ("Name", image.name.familiar().into()),
            ("Platforms", platforms(image).into()),
            ("Repository", repository(&image.name).into()),
            ("SharedSize", "N/A".into()),
            ("Size", size(image.size_bytes).into()),
            // With a digest, a name stands for that image whatever its tag means by now.
            ("Tag", image.name.tag().filter(|_| image.name.digest().is_none()).unwrap_or(NONE).into()),
            ("UniqueSize", "N/A".into()),
            ("VirtualSize", size(image.size_bytes).into()),
        ])
    }
}

fn shown(digest: &Digest, is_full: bool) -> String {
    if is_full { digest.to_string() } else { digest.short().to_owned() }
}

/// Returns the short form of a name without its tag and digest.
fn repository(name: &Reference) -> String {
    let familiar = name.familiar();
    let end = [name.digest().map(|digest| digest.to_string().len()), name.tag().map(str::len)];
    let cut: usize = end.into_iter().flatten().map(|length| length + 1).sum();
    familiar[..familiar.len().saturating_sub(cut)].to_owned()
}

/// Names the platforms that are here, and counts the others.
fn platforms(image: &ImageSummary) -> String {
    let here: Vec<String> = image
        .platforms
        .iter()
        .filter(|platform| platform.is_complete)
        .map(|platform| visible_name(&platform.platform))
        .collect();
    let missing = image.platforms.len() - here.len();
    let names = here.join(", ");
    match (here.is_empty(), missing) {
        (_, 0) => names,
        (true, missing) => format!("({missing} not here)"),
        (false, missing) => format!("{names} (+{missing} not here)"),
    }
}

/// Writes each image with its platforms below it; each digest stands below the title that says whose it is.
pub(super) fn tree(rows: &[Row], is_full: bool) -> String {
    let titles = ["IMAGE", "INDEX DIGEST", "MANIFEST DIGEST", "CONFIG DIGEST", "SIZE"];
    let mut lines = vec![titles.map(str::to_owned).to_vec()];
    for row in rows {
        let image = &row.image;
        let index = row.index_digest().map(|digest| shown(digest, is_full)).unwrap_or_default();
        lines.push(vec![image.name.familiar(), index, String::new(), String::new(), size(image.size_bytes)]);
        for (at, platform) in image.platforms.iter().enumerate() {
            let branch = if at + 1 == image.platforms.len() { "└─" } else { "├─" };
            let PlatformSummary { platform, digest, config, size_bytes, is_complete } = platform;
            lines.push(vec![
                format!("{branch} {}", visible_name(platform)),
                shown(digest, is_full),
                config.as_ref().map(|config| shown(config, is_full)).unwrap_or_default(),
                match size_bytes {
                    Some(bytes) if *is_complete => size(*bytes),
                    _ => "not in the store".to_owned(),
                },
            ]);
            let line = lines.last_mut().expect("it was pushed just now");
            line.insert(1, String::new());
        }
    }
    render_table(&lines)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonImage<'a> {
    name: String,
    repository: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
    digest: &'a Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    index_digest: Option<&'a Digest>,
    media_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated: Option<String>,
    size: u64,
    platforms: Vec<JsonPlatform<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonPlatform<'a> {
    platform: String,
    digest: &'a Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_digest: Option<&'a Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    complete: bool,
}

/// Writes one JSON array.
pub(super) fn json(rows: &[Row]) -> String {
    let images: Vec<JsonImage<'_>> = rows
        .iter()
        .map(|row| JsonImage {
            name: row.image.name.to_string(),
            repository: row.image.name.name(),
            tag: row.image.name.tag(),
            digest: &row.image.descriptor.digest,
            index_digest: row.index_digest(),
            media_type: &row.image.descriptor.media_type,
            created: row.created().map(|time| time.to_string()),
            updated: row
                .image
                .updated
                .and_then(|time| Timestamp::try_from(time).ok())
                .map(|time| time.to_string()),
            size: row.image.size_bytes,
            platforms: row
                .image
                .platforms
                .iter()
                .map(|platform| JsonPlatform {
                    platform: platform.platform.to_string(),
                    digest: &platform.digest,
                    config_digest: platform.config.as_ref(),
                    size: platform.size_bytes,
                    complete: platform.is_complete,
                })
                .collect(),
        })
        .collect();
    let text = serde_json::to_string_pretty(&images).expect("names, digests and numbers are always JSON");
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::{ImagesArgs, TITLES, default_format};
    use super::*;
    use crate::template::Listing;
    use clap::Parser;
    use polyarch_oci::Descriptor;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ImagesArgs,
    }

    fn rows() -> Vec<Row> {
        let platform = |name: &str, is_complete: bool| PlatformSummary {
            platform: name.parse().unwrap(),
            digest: Digest::of(name),
            config: is_complete.then(|| Digest::of(format!("config {name}"))),
            size_bytes: is_complete.then_some(12_345_678),
            is_complete,
        };
        let image = |name: &str, media_type: &str, platforms: Vec<PlatformSummary>| Row {
            image: ImageSummary {
                name: name.parse().unwrap(),
                descriptor: Descriptor::new(media_type, Digest::of("index"), 7),
                updated: Some(std::time::UNIX_EPOCH),
                platforms,
                size_bytes: 12_345_700,
            },
            config: Some(ImageConfig {
                created: Some("2025-12-31T22:00:00Z".to_owned()),
                ..ImageConfig::default()
            }),
        };
        vec![
            image(
                "user/app:v1",
                media_type::OCI_INDEX,
                vec![platform("linux/amd64", true), platform("linux/arm/v7", false)],
            ),
            image(
                &format!("localhost:5000/one@{}", Digest::of("index")),
                media_type::OCI_MANIFEST,
                vec![platform("linux/arm64", true)],
            ),
        ]
    }

    fn list(arguments: &[&str]) -> String {
        let args = Line::try_parse_from(["images"].iter().chain(arguments)).unwrap().args;
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let values: Vec<Value> = rows().iter().map(|row| row.value(args.no_trunc, now)).collect();
        let format = args.format.as_deref().unwrap_or_else(|| default_format(&args));
        Listing::parse(format).unwrap().render(&TITLES, &values).unwrap()
    }

    #[test]
    fn images_are_listed_with_the_platforms_that_the_store_has() {
        insta::assert_snapshot!(list(&[]), @r"
        REPOSITORY           TAG       IMAGE ID       PLATFORMS                   CREATED       SIZE
        user/app             v1        1bc04b5291c2   linux/amd64 (+1 not here)   2 hours ago   12.35MB
        localhost:5000/one   <none>    1bc04b5291c2   linux/arm64                 2 hours ago   12.35MB
        ");
        insta::assert_snapshot!(list(&["--digests"]), @r"
        REPOSITORY           TAG       DIGEST                                                                    IMAGE ID       PLATFORMS                   CREATED       SIZE
        user/app             v1        sha256:1bc04b5291c26a46d918139138b992d2de976d6851d0893b0476b85bfbdfc6e6   1bc04b5291c2   linux/amd64 (+1 not here)   2 hours ago   12.35MB
        localhost:5000/one   <none>    sha256:1bc04b5291c26a46d918139138b992d2de976d6851d0893b0476b85bfbdfc6e6   1bc04b5291c2   linux/arm64                 2 hours ago   12.35MB
        ");
        insta::assert_snapshot!(tree(&rows(), false), @r"
        IMAGE                                                                                        INDEX DIGEST   MANIFEST DIGEST   CONFIG DIGEST   SIZE
        user/app:v1                                                                                  1bc04b5291c2                                     12.35MB
        ├─ linux/amd64                                                                                              baf0239e48ff      70618f82c8f8    12.35MB
        └─ linux/arm/v7                                                                                             35df9beb9b1c                      not in the store
        localhost:5000/one@sha256:1bc04b5291c26a46d918139138b992d2de976d6851d0893b0476b85bfbdfc6e6                                                    12.35MB
        └─ linux/arm64                                                                                              b3e3ab55f887      73187883269f    12.35MB
        ");
    }

    #[test]
    fn dockers_templates_work() {
        assert_eq!(list(&["-q"]), "1bc04b5291c2\n1bc04b5291c2\n");
        assert!(list(&["-q", "--no-trunc"]).starts_with("sha256:1bc04b5291c26a46"));
        assert_eq!(
            list(&["--format", "{{.Repository}}:{{.Tag}}"]),
            "user/app:v1\nlocalhost:5000/one:<none>\n"
        );
        assert!(list(&["--format", r"table {{.Repository}}\t{{.CreatedAt}}"]).starts_with(
            "REPOSITORY           CREATED AT\nuser/app             2025-12-31 22:00:00 +0000 UTC\n"
        ));
    }

    #[test]
    fn json_has_every_digest_with_its_kind() {
        insta::assert_snapshot!(json(&rows()[..1]), @r#"
        [
          {
            "name": "docker.io/user/app:v1",
            "repository": "docker.io/user/app",
            "tag": "v1",
            "digest": "sha256:1bc04b5291c26a46d918139138b992d2de976d6851d0893b0476b85bfbdfc6e6",
            "indexDigest": "sha256:1bc04b5291c26a46d918139138b992d2de976d6851d0893b0476b85bfbdfc6e6",
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "created": "2025-12-31T22:00:00Z",
            "updated": "1970-01-01T00:00:00Z",
            "size": 12345700,
            "platforms": [
              {
                "platform": "linux/amd64",
                "digest": "sha256:baf0239e48ff4c47ebac3ba02b5cf1506b69cd5a0c0d0c825a53ba65976fb942",
                "configDigest": "sha256:70618f82c8f836cfe06a4f9623c2bd762d7846fd5bf9e4e984e8643a33027628",
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
