// SPDX-License-Identifier: Apache-2.0
//! What templates of `imagetools inspect` see: buildx's structures, with its JSON and its fields' names.

use polyarch_images::FoundImage;
use polyarch_oci::config::{ContainerConfig, History};
use polyarch_oci::{Descriptor, Document, ImageConfig, ManifestOrIndex, Platform};

use crate::CommandError;
use crate::template::Value;

/// One platform's image, as far as the template asks.
pub struct Inspected {
    /// The platform.
    pub platform: String,
    /// The config.
    pub config: Document<ImageConfig>,
    /// Bills of materials.
    pub sbom: Vec<serde_json::Value>,
    /// Provenance.
    pub provenance: Vec<serde_json::Value>,
}

/// Makes the value that a template is rendered with.
///
/// # Errors
/// When something can't be written as JSON.
pub fn render_value(name: &str, found: &FoundImage, images: &[Inspected]) -> Result<Value, CommandError> {
    let is_several = images.len() > 1;
    let by_platform = |make: &dyn Fn(&Inspected) -> Option<Value>| {
        Value::map(images.iter().filter_map(|image| Some((image.platform.clone(), make(image)?))))
    };
    let only = |make: &dyn Fn(&Inspected) -> Option<Value>, empty: Value| {
        images.first().and_then(make).unwrap_or(empty)
    };
    let configs: Vec<(String, Value)> = images
        .iter()
        .map(|image| Ok((image.platform.clone(), image_value(&image.config.value)?)))
        .collect::<Result<_, serde_json::Error>>()
        .map_err(unwritable)?;
    let image = if is_several {
        Value::map(configs)
    } else {
        configs.into_iter().next().map_or(Value::Null, |(_, config)| config)
    };
    let (sbom, provenance) = if is_several {
        (by_platform(&sbom_value), by_platform(&provenance_value))
    } else {
        let nothing = |name: &str| structure([Field::optional(name, name, Value::Null)]);
        (only(&sbom_value, nothing("SPDX")), only(&provenance_value, nothing("SLSA")))
    };
    let manifest = manifest_value(found).map_err(unwritable)?;
    Ok(structure([
        Field::optional("name", "Name", name.into()),
        Field::optional("manifest", "Manifest", manifest),
        Field::optional("image", "Image", image),
    ])
    .with_absent([("SBOM", sbom), ("Provenance", provenance)]))
}

fn sbom_value(image: &Inspected) -> Option<Value> {
    let (first, rest) = image.sbom.split_first()?;
    let rest = Value::List(rest.iter().cloned().map(Value::from).collect());
    Some(structure([
        Field::optional("SPDX", "SPDX", first.clone().into()),
        Field::optional("AdditionalSPDXs", "AdditionalSPDXs", rest),
    ]))
}

fn provenance_value(image: &Inspected) -> Option<Value> {
    let last = image.provenance.last()?;
    Some(structure([Field::optional("SLSA", "SLSA", last.clone().into())]))
}

fn manifest_value(found: &FoundImage) -> Result<Value, serde_json::Error> {
    let ManifestOrIndex::Index(index) = &found.document else { return descriptor_value(&found.descriptor) };
    let index = &index.value;
    let entries: Vec<Value> = index.manifests.iter().map(descriptor_value).collect::<Result<_, _>>()?;
    Ok(structure([
        Field::always("schemaVersion", "SchemaVersion", u64::from(index.schema_version).into()),
        Field::optional("mediaType", "MediaType", index.media_type.as_str().into()),
        Field::always("digest", "Digest", found.descriptor.digest.to_string().into()),
        Field::always("size", "Size", found.descriptor.size.into()),
        Field::always("manifests", "Manifests", Value::List(entries)),
        Field::optional("annotations", "Annotations", Value::of(&index.annotations)?),
    ]))
}

fn descriptor_value(descriptor: &Descriptor) -> Result<Value, serde_json::Error> {
    let platform = descriptor.platform.as_ref().map(platform_fields);
    Ok(structure([
        Field::always("mediaType", "MediaType", descriptor.media_type.as_str().into()),
        Field::always("digest", "Digest", descriptor.digest.to_string().into()),
        Field::always("size", "Size", descriptor.size.into()),
        Field::optional("urls", "URLs", Value::of(&descriptor.urls)?),
        Field::optional("annotations", "Annotations", Value::of(&descriptor.annotations)?),
        Field::optional("data", "Data", Value::of(&descriptor.data)?),
        Field::optional("platform", "Platform", platform.map_or(Value::Null, structure)),
        Field::optional("artifactType", "ArtifactType", Value::of(&descriptor.artifact_type)?),
    ]))
}

fn platform_fields(platform: &Platform) -> [Field; 5] {
    let features = platform.os_features.iter().map(|feature| feature.as_str().into()).collect();
    [
        Field::always("architecture", "Architecture", platform.architecture.as_str().into()),
        Field::always("os", "OS", platform.os.as_str().into()),
        Field::optional("os.version", "OSVersion", platform.os_version.as_str().into()),
        Field::optional("os.features", "OSFeatures", Value::List(features)),
        Field::optional("variant", "Variant", platform.variant.as_str().into()),
    ]
}

fn image_value(config: &ImageConfig) -> Result<Value, serde_json::Error> {
    let platform = Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        os_version: config.os_version.clone(),
        os_features: config.os_features.clone(),
        variant: config.variant.clone(),
    };
    let diff_ids = Value::of(&config.rootfs.diff_ids)?;
    let rootfs = structure([
        Field::always("type", "Type", config.rootfs.kind.as_str().into()),
        Field::always("diff_ids", "DiffIDs", diff_ids),
    ]);
    let history = Value::List(config.history.iter().map(history_value).collect());
    let mut fields = vec![
        Field::optional("created", "Created", time(config.created.as_deref())),
        Field::optional("author", "Author", config.author.as_str().into()),
    ];
    fields.extend(platform_fields(&platform));
    fields.push(Field::always("config", "Config", container_value(&config.config)?));
    fields.push(Field::always("rootfs", "RootFS", rootfs));
    fields.push(Field::optional("history", "History", history));
    Ok(structure(fields).with_absent([("Platform", structure(platform_fields(&platform)))]))
}

fn container_value(config: &ContainerConfig) -> Result<Value, serde_json::Error> {
    let field = |name: &str, value: Value| Field::optional(name, name, value);
    Ok(structure([
        field("User", config.user.as_str().into()),
        field("ExposedPorts", Value::of(&config.exposed_ports)?),
        field("Env", Value::of(&config.env)?),
        field("Entrypoint", Value::of(&config.entrypoint)?),
        field("Cmd", Value::of(&config.cmd)?),
        field("Volumes", Value::of(&config.volumes)?),
        field("WorkingDir", config.working_dir.as_str().into()),
        field("Labels", Value::of(&config.labels)?),
        field("StopSignal", config.stop_signal.as_str().into()),
        field("ArgsEscaped", config.args_escaped.into()),
    ]))
}

fn history_value(step: &History) -> Value {
    structure([
        Field::optional("created", "Created", time(step.created.as_deref())),
        Field::optional("created_by", "CreatedBy", step.created_by.as_str().into()),
        Field::optional("author", "Author", step.author.as_str().into()),
        Field::optional("comment", "Comment", step.comment.as_str().into()),
        Field::optional("empty_layer", "EmptyLayer", step.empty_layer.into()),
    ])
}

/// Writes a time as Go does: the fraction without zeros at its end.
fn time(text: Option<&str>) -> Value {
    let Some(text) = text else { return Value::Null };
    let Some((whole, rest)) = text.split_once('.') else { return text.into() };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (fraction, zone) = rest.split_at(digits);
    match fraction.trim_end_matches('0') {
        "" => format!("{whole}{zone}").into(),
        fraction => format!("{whole}.{fraction}{zone}").into(),
    }
}

/// A field of a structure: its name in JSON and in Go, and whether JSON leaves it out when empty.
struct Field {
    json: String,
    go: String,
    value: Value,
    is_optional: bool,
}

impl Field {
    fn always(json: &str, go: &str, value: Value) -> Field {
        Field { json: json.to_owned(), go: go.to_owned(), value, is_optional: false }
    }

    fn optional(json: &str, go: &str, value: Value) -> Field {
        Field { is_optional: true, ..Field::always(json, go, value) }
    }
}

fn structure(fields: impl IntoIterator<Item = Field>) -> Value {
    let fields: Vec<Field> = fields.into_iter().collect();
    let shown = fields.iter().filter(|field| !field.is_optional || is_filled(&field.value));
    let value = Value::structure(shown.map(|field| (field.json.clone(), field.value.clone())));
    value.with_absent(fields.into_iter().map(|field| (field.go, field.value)))
}

fn is_filled(value: &Value) -> bool {
    match value {
        Value::Null => false,
        other => other.is_true(),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn unwritable(error: serde_json::Error) -> CommandError {
    CommandError::usage(format!("can't show the image: {error}"))
}
