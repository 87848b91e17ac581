// SPDX-License-Identifier: Apache-2.0
//! Files become what they define: which notation each is in, and all of them together.

use std::collections::BTreeMap;

use super::config::Config;
use super::definition::Definition;
use super::error::BakeError;
use super::resolve::{self, Resolver};
use super::scope::World;
use super::source::{Fault, Sources};
use super::{ast, hcl_file, json_file, paths};

/// How large all files may be together.
const MAX_BYTES: usize = 2 << 20;

/// The files that are read when none are named, those that are there, in this order.
pub const DEFAULT_FILES: &[&str] = &[
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
];

/// A file.
#[derive(Debug, Clone)]
pub struct File {
    /// Its name as it was given; `-` for standard input.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// What files are evaluated with.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// Variables that are always there.
    pub built_in: BTreeMap<String, String>,
    /// Variables that the command line gives.
    pub variables: BTreeMap<String, String>,
    /// The environment, as far as it may be used.
    pub environment: BTreeMap<String, String>,
    /// The file `.env` of the working directory, for Compose files.
    pub dot_env: Option<String>,
    /// What functions may know.
    pub world: World,
    /// Paths start at the file that they are written in, not at the working directory.
    pub paths_from_file: bool,
}

/// Reads and evaluates files.
///
/// # Errors
/// The first thing that is wrong in them.
pub fn parse(files: &[File], inputs: &Inputs) -> Result<Config, BakeError> {
    if files.iter().map(|file| file.text.len()).sum::<usize>() > MAX_BYTES {
        return Err(BakeError::request("the bake files are larger than 2 MB"));
    }
    let mut sources = Sources::default();
    let mut definition = Definition::default();
    let mut config = Config::default();
    let mut has_hcl = false;
    let variables = compose_variables(inputs);
    let mut compose: Option<(String, serde_json::Value)> = None;
    for file in files {
        if let Some(document) = compose_document(file, &variables)? {
            match &mut compose {
                Some((_, earlier)) => super::compose::merge(earlier, document),
                None => compose = Some((file.name.clone(), document)),
            }
            continue;
        }
        let index = sources.add(&file.name, &file.text);
        let body = body(file, index).map_err(|fault| sources.error(fault))?;
        has_hcl = true;
        definition.add(body).map_err(|fault| sources.error(fault))?;
    }
    if let Some((name, document)) = compose {
        super::compose::add(&document, &variables, &mut config)
            .map_err(|problem| BakeError::File { file: name.clone(), problem })?;
        if inputs.paths_from_file {
            config.base_targets(&paths::directory(&name));
        }
    }
    if has_hcl {
        evaluate(&definition, inputs, &sources, &mut config)?;
    }
    if inputs.paths_from_file {
        config.rebase();
    }
    Ok(config)
}

/// What Compose files may name: the environment, the file `.env`, and what the command line gives.
fn compose_variables(inputs: &Inputs) -> BTreeMap<String, String> {
    let mut all = match &inputs.dot_env {
        Some(text) => super::compose_text::dot_env(text, &inputs.environment),
        None => inputs.environment.clone(),
    };
    all.extend(inputs.variables.clone());
    all
}

/// The document of a Compose file; `None` for a file of another kind. A file whose name doesn't tell is one
/// when it can be read as one.
fn compose_document(
    file: &File,
    variables: &BTreeMap<String, String>,
) -> Result<Option<serde_json::Value>, BakeError> {
    let name = file.name.to_lowercase();
    if name.ends_with(".json") || name.ends_with(".hcl") {
        return Ok(None);
    }
    let document = super::compose::read(&file.text, variables);
    if name.ends_with(".yml") || name.ends_with(".yaml") {
        let document = document.map_err(|problem| BakeError::File { file: file.name.clone(), problem })?;
        return Ok(Some(document));
    }
    Ok(document.ok())
}

fn body(file: &File, index: usize) -> Result<ast::Body, Fault> {
    if file.name.ends_with(".json") {
        return json_file::read(&file.text, index);
    }
    let as_hcl = hcl_file::read(&file.text, index);
    if file.name.ends_with(".hcl") {
        return as_hcl;
    }
    as_hcl.or_else(|fault| json_file::read(&file.text, index).map_err(|_| fault))
}

fn evaluate(
    definition: &Definition,
    inputs: &Inputs,
    sources: &Sources,
    config: &mut Config,
) -> Result<(), BakeError> {
    let lookup = |name: &str| inputs.variables.get(name).or_else(|| inputs.environment.get(name)).cloned();
    let mut resolver = Resolver::new(
        definition,
        resolve::Inputs { built_in: &inputs.built_in, lookup: &lookup, world: inputs.world.clone() },
    );
    config.variables = resolver.variables().map_err(|fault| sources.error(fault))?;
    let blocks = resolver.blocks().map_err(|fault| sources.error(fault))?;
    config.add_blocks(definition, blocks, |file| {
        Some(paths::directory(sources.name(file))).filter(|base| !base.is_empty())
    });
    Ok(())
}
