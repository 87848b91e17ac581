// SPDX-License-Identifier: Apache-2.0
//! The reference page: the help of every command, as one Markdown text.

use clap::Command;

/// Writes the reference of a command and its subcommands.
pub fn render(mut command: Command) -> String {
    command.build();
    let mut page = String::from(
        "# Command reference\n\n\
         This page is generated from the help texts; a test keeps it current. To write it anew:\n\
         `POLYARCH_UPDATE_REFERENCE=1 cargo test -p polyarch-cli reference`.\n",
    );
    section(&mut page, &mut command, "");
    page
}

fn section(page: &mut String, command: &mut Command, parent: &str) {
    let name = format!("{parent}{}", command.get_name());
    // The width must not depend on the terminal of whoever generates the page.
    *command = std::mem::take(command).term_width(100);
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    page.push_str(&format!("\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end()));
    let parent = format!("{name} ");
    for subcommand in command.get_subcommands_mut().filter(|command| !command.is_hide_set()) {
        section(page, subcommand, &parent);
    }
}
