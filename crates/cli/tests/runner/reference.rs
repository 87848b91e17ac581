// SPDX-License-Identifier: Apache-2.0
//! The reference page is what the help texts say.

use std::path::Path;

use polyarch_cli::{commands, reference};

#[test]
fn the_reference_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference.md");
    let page = reference::render(commands::definition());
    if std::env::var_os("POLYARCH_UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/reference.md is out of date; run POLYARCH_UPDATE_REFERENCE=1 cargo test -p polyarch-cli reference"
    );
}

#[test]
fn every_command_and_flag_has_a_help_text() {
    let mut command = commands::definition();
    command.build();
    let mut pending = vec![command];
    let mut lacking = Vec::new();
    while let Some(command) = pending.pop() {
        let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
        if command.get_about().is_none() {
            lacking.push(name.clone());
        }
        let arguments = command.get_arguments().filter(|it| !it.is_hide_set() && it.get_help().is_none());
        lacking.extend(arguments.map(|argument| format!("{name}: {}", argument.get_id())));
        pending.extend(command.get_subcommands().cloned());
    }
    assert!(lacking.is_empty(), "without a help text: {lacking:#?}");
}
