// SPDX-License-Identifier: Apache-2.0
//! What a client wants of a result (`type=oci,name=…`), read before anything is built.

use std::collections::BTreeMap;

use polyarch_build::request::ImageOptions;
use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::Reference;
use polyarch_oci::media_type::{Compression, Flavour};

use crate::api::control::{Exporter, SolveRequest};
use crate::server::attributes::{go_bool, wrong};

/// The most outputs of a build.
const MAX_OUTPUTS: usize = 64;

/// What the times of an output are clamped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputTime {
    /// What the build fixed.
    OfBuild,
    /// Nothing; config and history still tell what the build fixed.
    None,
    /// This, in seconds since 1970.
    At(i64),
}

/// One output.
#[derive(Debug, Clone)]
pub(super) struct WantedOutput {
    /// What it is.
    pub(super) kind: OutputKind,
    /// The image's names.
    pub(super) names: Vec<Reference>,
    /// The names as the client is told them: those of images as it wrote them.
    pub(super) told_names: String,
    /// How the image is made.
    pub(super) image: ImageOptions,
    /// What times are clamped to.
    pub(super) time: OutputTime,
}

/// The kinds of outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputKind {
    /// An image, pushed or not.
    Image { push: bool, by_digest: bool, is_insecure: bool },
    /// An OCI layout.
    Oci {
        /// In an archive, or else as files of the client's.
        tar: bool,
    },
    /// An archive for `docker load`.
    Docker,
    /// Files in a directory.
    Local { split: Option<bool> },
    /// Files in an archive.
    Tar { split: Option<bool> },
}

/// Reads the outputs of a build.
pub(super) fn outputs_of(request: &SolveRequest) -> Result<Vec<WantedOutput>, BuildError> {
    let deprecated = Exporter {
        r#type: request.exporter_deprecated.clone(),
        attrs: request.exporter_attrs_deprecated.clone(),
    };
    // Clients fill the old fields with the first output as well.
    let exporters = match request.exporters.as_slice() {
        [] if deprecated.r#type.is_empty() => &[],
        [] => std::slice::from_ref(&deprecated),
        exporters => exporters,
    };
    if exporters.len() > MAX_OUTPUTS {
        return Err(wrong(format!("a build has at most {MAX_OUTPUTS} outputs")));
    }
    exporters.iter().map(read).collect()
}

fn read(exporter: &Exporter) -> Result<WantedOutput, BuildError> {
    let attributes = &exporter.attrs;
    let truth = |key: &str| truth(attributes, key);
    let is_on = |key: &str| truth(key).map(|value| value.unwrap_or(false));
    let kind = match exporter.r#type.as_str() {
        "image" | "moby" => OutputKind::Image {
            push: is_on("push")?,
            by_digest: is_on("push-by-digest")?,
            is_insecure: is_on("registry.insecure")?,
        },
        "docker" if truth("tar")? == Some(false) => {
            return Err(wrong("docker with tar=false can't be sent by this builder")
                .with_hint("leave out tar=false and unpack the archive, or use type=oci"));
        }
        "oci" => OutputKind::Oci { tar: truth("tar")? != Some(false) },
        "docker" => OutputKind::Docker,
        "local" => OutputKind::Local { split: truth("platform-split")? },
        "tar" => OutputKind::Tar { split: truth("platform-split")? },
        other => return Err(wrong(format!("exporter {other:?} could not be found"))),
    };
    let written_names = attributes.get("name").cloned().unwrap_or_default();
    let names = written_names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(|name| {
        let name: Reference = name.parse().map_err(|error| {
            BuildError::from_source(
                ErrorKind::Usage,
                format!("failed to parse {name}"),
                &error as &polyarch_oci::ReferenceError,
            )
        })?;
        Ok(name.with_default_tag())
    });
    let names = names.collect::<Result<Vec<_>, BuildError>>()?;
    // Clients take names of archives and layouts for what they put into the index: whole ones.
    let told_names = match kind {
        OutputKind::Oci { .. } | OutputKind::Docker => {
            names.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        }
        OutputKind::Image { .. } | OutputKind::Local { .. } | OutputKind::Tar { .. } => written_names,
    };
    Ok(WantedOutput {
        names,
        told_names,
        image: image_options(attributes)?,
        time: match attributes.get("source-date-epoch").map(String::as_str) {
            None => OutputTime::OfBuild,
            Some("") => OutputTime::None,
            Some(text) => text
                .parse()
                .map(OutputTime::At)
                .map_err(|_| wrong(format!("invalid SOURCE_DATE_EPOCH: {text}")))?,
        },
        kind,
    })
}

fn image_options(attributes: &BTreeMap<String, String>) -> Result<ImageOptions, BuildError> {
    let mut options = ImageOptions::default();
    if truth(attributes, "oci-mediatypes")? == Some(false) {
        options.flavour = Flavour::Docker;
    }
    // BuildKit changes layers only when it is told to.
    options.keeps_layer_times = !truth(attributes, "rewrite-timestamp")?.unwrap_or(false);
    options.force_compression = truth(attributes, "force-compression")?.unwrap_or(false);
    if let Some(word) = attributes.get("compression").filter(|word| !word.is_empty()) {
        options.compression =
            Compression::parse(word).ok_or_else(|| wrong(format!("unsupported compression type {word}")))?;
    }
    if let Some(text) = attributes.get("compression-level").filter(|text| !text.is_empty()) {
        let level = text
            .parse()
            .map_err(|_| wrong(format!("non-integer value {text} specified for compression-level")))?;
        options.compression_level = Some(level);
    }
    if options.compression == Compression::Zstd && options.flavour == Flavour::Docker {
        return Err(wrong(
            "exporter option \"compression=zstd\" conflicts with \"oci-mediatypes=false\"".to_owned(),
        ));
    }
    for (key, value) in attributes {
        let Some(rest) = key.strip_prefix("annotation") else { continue };
        let Some((place, name)) = rest.split_once('.') else { continue };
        let pair = (name.to_owned(), value.clone());
        match place {
            "" | "-manifest" => options.manifest_annotations.push(pair),
            "-index" => options.index_annotations.push(pair),
            _ => {
                return Err(wrong(format!(
                    "{key}: annotations of one platform or of descriptors are not supported"
                ))
                .with_hint("annotate all manifests (annotation.KEY) or the index (annotation-index.KEY)"));
            }
        }
    }
    Ok(options)
}

fn truth(attributes: &BTreeMap<String, String>, key: &str) -> Result<Option<bool>, BuildError> {
    match attributes.get(key) {
        None => Ok(None),
        // `--output type=image,push` is told as an empty value.
        Some(text) if text.is_empty() => Ok(Some(true)),
        Some(text) => match go_bool(text) {
            Some(value) => Ok(Some(value)),
            None => Err(wrong(format!("non-bool value {text:?} specified for {key}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(kind: &str, pairs: &[(&str, &str)]) -> Result<WantedOutput, BuildError> {
        let attrs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        read(&Exporter { r#type: kind.to_owned(), attrs })
    }

    #[test]
    fn outputs_are_read() {
        let pairs = [("name", "a/b,r.example/c:1"), ("push", "true"), ("compression", "zstd")];
        let output = read_one("image", &pairs).unwrap();
        assert_eq!(output.kind, OutputKind::Image { push: true, by_digest: false, is_insecure: false });
        let names: Vec<String> = output.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["docker.io/a/b:latest", "r.example/c:1"]);
        assert_eq!(output.image.compression, Compression::Zstd);
        let output = read_one("oci", &[("oci-mediatypes", "false"), ("annotation.a", "1")]).unwrap();
        assert_eq!((output.kind, output.image.flavour), (OutputKind::Oci { tar: true }, Flavour::Docker));
        assert_eq!(output.image.manifest_annotations.len(), 1);
        for (kind, told) in
            [("oci", "docker.io/org/a:1,r.example/b:latest"), ("image", "org/a:1,r.example/b")]
        {
            assert_eq!(read_one(kind, &[("name", "org/a:1,r.example/b")]).unwrap().told_names, told);
        }
        assert_eq!(read_one("local", &[]).unwrap().kind, OutputKind::Local { split: None });
    }

    #[test]
    fn the_old_fields_count_only_alone() {
        let old = SolveRequest { exporter_deprecated: "oci".into(), ..SolveRequest::default() };
        assert_eq!(outputs_of(&old).unwrap().len(), 1);
        let exporters = vec![Exporter { r#type: "local".into(), attrs: BTreeMap::new() }];
        let both = SolveRequest { exporters, ..old };
        assert_eq!(outputs_of(&both).unwrap()[0].kind, OutputKind::Local { split: None });
        assert!(outputs_of(&SolveRequest::default()).unwrap().is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (kind, key, value) in [
            ("s3", "", ""),
            ("image", "push", "perhaps"),
            ("image", "name", "A B"),
            ("docker", "tar", "false"),
            ("oci", "compression", "lzma"),
            ("oci", "compression-level", "high"),
        ] {
            assert!(read_one(kind, &[(key, value)]).is_err(), "{kind} {key}={value}");
        }
    }
}
