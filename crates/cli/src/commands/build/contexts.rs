// SPDX-License-Identifier: Apache-2.0
//! `--build-context NAME=VALUE`: from texts to named contexts.

use std::path::Path;

use polyarch_build::named_context::{ContextSource, NamedContext};
use polyarch_build::remote::redacted;

use crate::{CommandError, Environment};

/// Reads the values of `--build-context`; of several with one name the last counts.
///
/// # Errors
/// The first that makes no sense, or names a directory that is not there.
pub fn named_contexts(
    values: &[String],
    environment: &Environment,
) -> Result<Vec<NamedContext>, CommandError> {
    let mut contexts: Vec<NamedContext> = Vec::new();
    for text in values.iter().filter(|text| !text.is_empty()) {
        let wrong = |problem: String| {
            let text = redacted(text);
            CommandError::usage(format!("--build-context {text:?}: {problem}"))
                .with_hint("write NAME=VALUE, where VALUE is a directory, docker-image://NAME, oci-layout://PATH or a URL")
        };
        let (name, value) = text.split_once('=').ok_or_else(|| wrong("there is no \"=\"".to_owned()))?;
        let name = NamedContext::canonical_name(name).map_err(|error| wrong(error.to_string()))?;
        let source = match ContextSource::parse(value).map_err(|error| wrong(error.to_string()))? {
            Some(ContextSource::OciLayout { directory, tag, digest }) => {
                let directory = environment.resolve(&directory);
                if !directory.join("oci-layout").is_file() {
                    let path = directory.display();
                    return Err(wrong(format!("{path} is not an OCI layout: it has no file oci-layout")));
                }
                ContextSource::OciLayout { directory, tag, digest }
            }
            Some(source) => source,
            None if value.is_empty() => return Err(wrong("the value is empty".to_owned())),
            None => {
                let directory = environment.resolve(Path::new(value));
                match std::fs::metadata(&directory) {
                    Ok(metadata) if metadata.is_dir() => ContextSource::Directory(directory),
                    Ok(_) => return Err(wrong(format!("{} is not a directory", directory.display()))),
                    Err(error) => return Err(wrong(format!("can't read {}: {error}", directory.display()))),
                }
            }
        };
        contexts.retain(|context| context.name != name);
        contexts.push(NamedContext { name, platform: None, source });
    }
    Ok(contexts)
}
