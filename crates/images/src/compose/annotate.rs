// SPDX-License-Identifier: Apache-2.0
//! Annotations of an index that is composed, and of its entries.

use std::collections::BTreeMap;

use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::Descriptor;

use crate::annotation::{Annotation, AnnotationKind};

pub(super) fn check_annotations(annotations: &[Annotation]) -> Result<(), BuildError> {
    for annotation in annotations {
        let problem = match annotation.kind {
            AnnotationKind::Index | AnnotationKind::ManifestDescriptor => continue,
            AnnotationKind::Manifest => {
                "annotations of manifests would change their digests and are not supported"
            }
            AnnotationKind::IndexDescriptor => "an index that is a registry's own has no descriptor",
        };
        let key = &annotation.key;
        return Err(BuildError::new(ErrorKind::Usage, format!("annotation {key:?}: {problem}")).with_hint(
            format!(
                "write index:{key}=… for the index, or manifest-descriptor[PLATFORM]:{key}=… for an entry"
            ),
        ));
    }
    Ok(())
}

pub(super) fn annotate(
    annotations: &[Annotation],
    of_index: &mut BTreeMap<String, String>,
    entries: &mut [Descriptor],
) {
    for annotation in annotations {
        let (key, value) = (annotation.key.clone(), annotation.value.clone());
        if annotation.kind == AnnotationKind::Index {
            of_index.insert(key, value);
            continue;
        }
        for entry in entries.iter_mut() {
            let is_meant = match (&annotation.platform, &entry.platform) {
                (None, _) => true,
                (Some(wanted), Some(own)) => wanted.to_string() == own.to_string(),
                (Some(_), None) => false,
            };
            if is_meant {
                entry.annotations.insert(key.clone(), value.clone());
            }
        }
    }
}
