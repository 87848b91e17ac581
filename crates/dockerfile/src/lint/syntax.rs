// SPDX-License-Identifier: Apache-2.0
//! What the lines show without anything being known about variables and images.

use std::collections::BTreeSet;

use super::{Linter, rule};
use crate::ast::Arguments;
use crate::{Ast, Dockerfile, Node, Span, Stage};

/// Looks at the lines up to the one whose instruction can't be read, if there is one.
pub(crate) fn check_lines(ast: &Ast, unreadable: Option<Span>, linter: &mut Linter) {
    for node in ast.nodes.iter().filter(|node| node.has_empty_continuation) {
        let last = match node.heredocs.first() {
            Some(heredoc) => heredoc.span.first_line.saturating_sub(1),
            None => node.span.last_line,
        };
        let span = Span { first_line: last, last_line: last, ..node.span };
        linter.report(&rule::NO_EMPTY_CONTINUATION, &[], span, "Empty continuation line".to_owned());
    }
    for node in &ast.nodes {
        let is_unreadable = unreadable.is_some_and(|span| span.first_line <= node.span.first_line);
        check_line(node, is_unreadable, linter);
        if is_unreadable {
            return;
        }
    }
}

fn check_line(node: &Node, is_unreadable: bool, linter: &mut Linter) {
    let words: &[String] = match &node.arguments {
        Arguments::Words(words) => words,
        _ => &[],
    };
    let report = |linter: &mut Linter, rule, detail| linter.report(rule, &node.comments, node.span, detail);
    match node.keyword.to_ascii_uppercase().as_str() {
        "MAINTAINER" => {
            let detail = "Maintainer instruction is deprecated in favor of using label".to_owned();
            report(linter, &rule::MAINTAINER_DEPRECATED, detail);
        }
        "FROM" => {
            let [_, keyword, name] = words else { return };
            if *name != name.to_lowercase() {
                let detail = format!("Stage name '{name}' should be lowercase");
                report(linter, &rule::STAGE_NAME_CASING, detail);
            }
            if casing(&node.keyword).is_some_and(|from| casing(keyword) != Some(from)) {
                let detail = format!("'{keyword}' and '{}' keywords' casing do not match", node.keyword);
                report(linter, &rule::FROM_AS_CASING, detail);
            }
            if !is_unreadable {
                check_description("FROM", &[&name.to_lowercase()], node, linter);
            }
        }
        "ARG" if !is_unreadable => {
            let names: Vec<&str> = words.iter().map(|word| word.split('=').next().unwrap_or(word)).collect();
            check_description("ARG", &names, node, linter);
        }
        _ => {}
    }
}

/// The last comment above a definition is its description, when it begins with a name that is defined.
fn check_description(instruction: &str, names: &[&str], node: &Node, linter: &mut Linter) {
    let Some(first) = node.comments.last().and_then(|comment| comment.split(' ').next()) else { return };
    if names.is_empty() || names.contains(&first) {
        return;
    }
    let example = if let [name] = names { name } else { "<arg_key>" };
    let detail = format!("Comment for {instruction} should follow the format: `# {example} <description>`");
    linter.report(&rule::INVALID_DEFINITION_DESCRIPTION, &node.comments, node.span, detail);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Casing {
    Lower,
    Upper,
}

/// Returns the casing of a word that has one throughout.
fn casing(word: &str) -> Option<Casing> {
    if word == word.to_lowercase() {
        Some(Casing::Lower)
    } else if word == word.to_uppercase() {
        Some(Casing::Upper)
    } else {
        None
    }
}

/// Looks at the names of the stages and of the instructions.
pub(crate) fn check_names(dockerfile: &Dockerfile, linter: &mut Linter) {
    let mut names = BTreeSet::new();
    for stage in &dockerfile.stages {
        let Some(name) = &stage.name else { continue };
        if matches!(name.as_str(), "context" | "scratch") {
            let detail = format!("Stage name should not use the same name as reserved stage {name:?}");
            linter.report(&rule::RESERVED_STAGE_NAME, &[], stage.span, detail);
        }
        if !names.insert(name) {
            let detail = format!("Duplicate stage name {name:?}, stage names should be unique");
            linter.report(&rule::DUPLICATE_STAGE_NAME, &[], stage.span, detail);
        }
    }
    let keywords: Vec<(&str, Span)> = dockerfile.stages.iter().flat_map(keywords_of).collect();
    let count = |wanted| keywords.iter().filter(|(word, _)| casing(word) == Some(wanted)).count();
    let (majority, word) = match count(Casing::Lower) > count(Casing::Upper) {
        true => (Casing::Lower, "lowercase"),
        false => (Casing::Upper, "uppercase"),
    };
    for (keyword, span) in keywords {
        if casing(keyword) != Some(majority) {
            let detail =
                format!("Command '{keyword}' should match the case of the command majority ({word})");
            linter.report(&rule::CONSISTENT_INSTRUCTION_CASING, &[], span, detail);
        }
    }
}

fn keywords_of(stage: &Stage) -> Vec<(&str, Span)> {
    let own = std::iter::once((stage.keyword.as_str(), stage.span));
    own.chain(stage.instructions.iter().map(|it| (it.keyword.as_str(), it.span))).collect()
}
