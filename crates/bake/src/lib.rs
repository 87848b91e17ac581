// SPDX-License-Identifier: Apache-2.0
//! Bake files become resolved targets.
//!
//! HCL, its JSON notation and Compose files are read and evaluated with buildx's rules: variables,
//! functions, matrices, inheritance, links between targets, what the command line sets. Nothing is built
//! here, and nothing is read but what is passed in.

mod access;
mod ast;
mod bounds;
mod call;
mod compose;
mod compose_text;
pub mod config;
mod convert;
pub mod credentials;
mod csv;
mod decode;
mod definition;
mod dependencies;
pub mod entries;
pub mod error;
mod evaluate;
mod functions;
mod hcl_file;
mod json_file;
mod number;
mod operators;
mod overrides;
mod parse;
mod paths;
pub mod policy;
pub mod print;
mod resolve;
mod scope;
mod source;
pub mod target;
mod type_expression;
mod value;
mod variable_text;

pub use config::{Config, Granted, Resolved};
pub use error::{BakeError, Place};
pub use parse::{DEFAULT_FILES, File, Inputs, parse};
pub use resolve::VariableInfo;
pub use scope::World;
pub use target::{Group, Target};
