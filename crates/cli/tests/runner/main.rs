// SPDX-License-Identifier: Apache-2.0
//! The command line as its users see it.

#[cfg(test)]
mod bake;
#[cfg(test)]
mod binfmt;
#[cfg(test)]
mod build_attestations;
#[cfg(test)]
mod build_cache;
#[cfg(test)]
mod build_contexts;
#[cfg(test)]
mod build_copy;
#[cfg(test)]
mod build_error_texts;
#[cfg(test)]
mod build_failures;
#[cfg(test)]
mod build_git;
#[cfg(test)]
mod build_history;
#[cfg(test)]
mod build_mounts;
#[cfg(test)]
mod build_node_caches;
#[cfg(test)]
mod build_nodes;
#[cfg(test)]
mod build_platforms;
#[cfg(test)]
mod build_remote;
#[cfg(test)]
mod build_remote_cache;
#[cfg(test)]
mod build_request;
#[cfg(test)]
mod build_sbom;
#[cfg(test)]
mod build_secrets;
#[cfg(test)]
mod build_source_date_epoch;
#[cfg(test)]
mod build_stages;
#[cfg(test)]
mod build_steps;
#[cfg(test)]
mod build_verify;
#[cfg(test)]
mod builders;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod diff;
#[cfg(test)]
mod disk_space;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod error_text;
#[cfg(test)]
mod every_file;
#[cfg(test)]
mod everyday;
#[cfg(test)]
mod everyday_archives;
#[cfg(test)]
mod everyday_files;
#[cfg(test)]
mod everyday_run;
#[cfg(test)]
mod hostile_images;
#[cfg(test)]
mod imagetools;
#[cfg(test)]
mod imagetools_copy;
#[cfg(test)]
mod imagetools_limits;
#[cfg(test)]
mod imagetools_sources;
#[cfg(test)]
mod inspection;
#[cfg(all(test, feature = "kubernetes"))]
mod kubernetes;
#[cfg(test)]
mod login;
#[cfg(test)]
mod manifest;
#[cfg(test)]
mod manifest_sources;
#[cfg(test)]
mod node_add;
#[cfg(test)]
mod node_certs;
#[cfg(test)]
mod node_serve;
#[cfg(test)]
mod progress;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod registry_bucket;
#[cfg(test)]
mod sha512;
#[cfg(test)]
mod static_registry;
#[cfg(test)]
mod verify;
#[cfg(test)]
mod web_server;
