// SPDX-License-Identifier: Apache-2.0
//! Saying more about an image of a list, or about the list.

use std::collections::BTreeMap;
use std::sync::Arc;

use polyarch_build::error::chain_of;
use polyarch_build::fetch::Shown;
use polyarch_build::image_source::storage_error;
use polyarch_build::{BuildError, ErrorKind, Services};
use polyarch_oci::{ManifestOrIndex, Platform, Reference, media_type};
use polyarch_store::{ListEntry, WorkingList};

use super::create::{Failure, declared};
use super::{contradiction_error, contradictions, find_entry, find_list, no_such_list, words_of};

/// What to say.
#[derive(Debug, Clone, Default)]
pub struct Annotate {
    /// The image, as it was added; needed unless only the list is annotated.
    pub source: Option<String>,
    /// Its operating system.
    pub os: Option<String>,
    /// Its architecture, by any of its names.
    pub architecture: Option<String>,
    /// The variant of the architecture.
    pub variant: Option<String>,
    /// The version of the operating system.
    pub os_version: Option<String>,
    /// Features of the operating system, added to those known.
    pub os_features: Vec<String>,
    /// Annotations of the entry.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of the index.
    pub index_annotations: BTreeMap<String, String>,
    /// Believe what contradicts the image, and names that nobody knows.
    pub force: bool,
}

impl Annotate {
    fn is_about_platform(&self) -> bool {
        self.os.is_some()
            || self.architecture.is_some()
            || self.variant.is_some()
            || self.os_version.is_some()
            || !self.os_features.is_empty()
    }

    /// Returns a platform with what is said put in.
    ///
    /// # Errors
    /// A name that nobody knows, with the nearest that is known.
    fn applied(&self, mut platform: Platform) -> Result<Platform, BuildError> {
        if let Some(os) = &self.os {
            platform.os = Platform::new(os, "", "").os;
        }
        if let Some(architecture) = &self.architecture {
            // Names such as armhf stand for a variant too; `arm` alone says none.
            let normal = Platform::new("linux", architecture, "");
            if normal.architecture != architecture.to_ascii_lowercase() && !normal.variant.is_empty() {
                platform.variant = normal.variant;
            }
            platform.architecture = normal.architecture;
        }
        if let Some(variant) = &self.variant {
            platform.variant = variant.clone();
        }
        if let Some(version) = &self.os_version {
            platform.os_version = version.clone();
        }
        for feature in &self.os_features {
            if !platform.os_features.contains(feature) {
                platform.os_features.push(feature.clone());
            }
        }
        let said = [&self.os, &self.architecture, &self.variant].iter().any(|part| part.is_some());
        if said && !self.force {
            let part = |text: &str, default: &str| {
                if text.is_empty() { default.to_owned() } else { text.to_owned() }
            };
            let mut text =
                format!("{}/{}", part(&platform.os, "linux"), part(&platform.architecture, "amd64"));
            if !platform.variant.is_empty() {
                text.push_str(&format!("/{}", platform.variant));
            }
            Platform::parse_known(&text).map_err(|error| {
                BuildError::new(ErrorKind::Usage, chain_of(&error))
                    .with_hint("a name that is right all the same: --force")
            })?;
        }
        Ok(platform)
    }
}

/// Annotates an image of a list, or the list.
///
/// # Errors
/// When there is no such list or no such image in it, and when what is said contradicts the image.
pub async fn annotate(
    services: &Arc<Services>,
    name: &Reference,
    request: &Annotate,
    shown: &Shown,
) -> Result<(), BuildError> {
    let store = services.store();
    let list = find_list(store, name)?;
    let own = match &request.source {
        Some(source) if request.is_about_platform() && !request.force => {
            own_platform(services, &list.entries[find_entry(&list, name, source)?], shown).await?
        }
        _ => None,
    };
    let change = |list: &mut Option<WorkingList>| -> Result<(), Failure> {
        let list = list.as_mut().ok_or_else(|| Failure(no_such_list(store, name)))?;
        list.annotations.extend(request.index_annotations.clone());
        if let Some(source) = &request.source {
            let at = find_entry(list, name, source)?;
            change_entry(&mut list.entries[at], request, own.as_ref())?;
        }
        Ok(())
    };
    store.change_list(name, change).map_err(|Failure(error)| error)
}

fn change_entry(entry: &mut ListEntry, request: &Annotate, own: Option<&Platform>) -> Result<(), BuildError> {
    if request.is_about_platform() {
        let before = entry.descriptor.platform.clone().unwrap_or_default();
        let after = request.applied(before.clone())?;
        if let Some(own) = own {
            let known = contradictions(&before, own);
            let mut fields = contradictions(&after, own);
            // What was forced once need not be forced again to say something else.
            fields.retain(|field| !known.contains(field));
            if !fields.is_empty() {
                return Err(contradiction_error(&words_of(entry), &after, own, &fields));
            }
        }
        entry.descriptor.platform = Some(after);
    }
    entry.descriptor.annotations.extend(request.annotations.clone());
    Ok(())
}

/// Reads the platform that an entry's own config declares; `None` for what has none.
async fn own_platform(
    services: &Arc<Services>,
    entry: &ListEntry,
    shown: &Shown,
) -> Result<Option<Platform>, BuildError> {
    let store = services.store();
    let ManifestOrIndex::Manifest(manifest) =
        store.image(&entry.descriptor).map_err(|error| storage_error(&error))?
    else {
        return Ok(None);
    };
    let config = &manifest.value.config;
    if !matches!(config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
        return Ok(None);
    }
    services.ensure_blob(config, entry.from.as_ref(), shown).await?;
    let config = store.config(&manifest.value).map_err(|error| storage_error(&error))?;
    Ok(Some(declared(&config.value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(os: &str, architecture: &str, variant: &str) -> Result<String, BuildError> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let request = Annotate {
            os: some(os),
            architecture: some(architecture),
            variant: some(variant),
            ..Annotate::default()
        };
        request.applied(Platform::default()).map(|platform| platform.to_string())
    }

    #[test]
    fn names_of_the_field_are_taken_and_typos_are_not() {
        let table = [
            (("linux", "x86_64", ""), "linux/amd64"),
            (("linux", "aarch64", "v8"), "linux/arm64/v8"),
            (("linux", "arm", ""), "linux/arm"),
            (("linux", "armhf", ""), "linux/arm/v7"),
            (("linux", "armhf", "v6"), "linux/arm/v6"),
            (("linux", "loongarch64", ""), "linux/loong64"),
            (("freebsd", "riscv64", ""), "freebsd/riscv64"),
        ];
        for ((os, architecture, variant), expected) in table {
            assert_eq!(applied(os, architecture, variant).unwrap(), expected);
        }
        let error = applied("linux", "amd65", "").unwrap_err();
        assert!(error.message.contains("did you mean amd64?"), "{error}");
        assert!(applied("linus", "", "").unwrap_err().message.contains("did you mean linux?"));
        assert!(applied("linux", "arm", "v9").is_err());
    }
}
