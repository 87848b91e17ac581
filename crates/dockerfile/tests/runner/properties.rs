// SPDX-License-Identifier: Apache-2.0
//! What holds for every input: nothing panics, and what is read fits its source.

use polyarch_dockerfile::value::{chmod::Chmod, duration, owner, port, signal, size};
use polyarch_dockerfile::{
    Ast, Dockerfile, Environment, Expander, IgnoreRules, IgnoreState, Pattern, render_excerpt,
};
use proptest::prelude::*;

/// Text made of the pieces that the language is made of, so that deep paths are reached.
fn dockerfile_like() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "FROM ",
        "RUN ",
        "COPY ",
        "ADD ",
        "ENV ",
        "ARG ",
        "LABEL ",
        "ONBUILD ",
        "HEALTHCHECK ",
        "CMD ",
        "SHELL ",
        "EXPOSE ",
        "VOLUME ",
        "a",
        "AS ",
        "--from=",
        "--mount=type=cache,target=",
        "--",
        "--link ",
        "<<EOF",
        "<<-'E'",
        "EOF\n",
        "\n",
        "\r\n",
        "\\\n",
        "\\",
        "# escape=`\n",
        "# check=x\n",
        "#",
        "\"",
        "'",
        "[",
        "\"]",
        ",",
        "${",
        "}",
        "$x",
        ":-",
        "//",
        "%%",
        "*",
        "=",
        " ",
        "\t",
        "多",
        "\u{feff}",
        "NONE ",
        "1-2/udp",
    ];
    prop::collection::vec(prop::sample::select(PIECES), 0..60).prop_map(|pieces| pieces.concat())
}

fn word_like() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "$", "${", "}", "x", "UNSET", ":-", ":+", "?", "-", "#", "%", "/", "//", "*", "\\", "'", "\"", " ",
        "<<", "多", "\n", "`", "1",
    ];
    prop::collection::vec(prop::sample::select(PIECES), 0..40).prop_map(|pieces| pieces.concat())
}

fn pattern_like() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &["*", "**", "/", "a", "b", "?", "[a-b]", "[^a]", "\\", "[", "!", ".", ".."];
    prop::collection::vec(prop::sample::select(PIECES), 0..12).prop_map(|pieces| pieces.concat())
}

fn path_like() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab.]{1,3}", 1..5).prop_map(|names| names.join("/"))
}

fn check(source: &str) {
    let lines = u32::try_from(source.split('\n').count()).expect("sources of these tests are short");
    if let Ok(ast) = Ast::parse(source) {
        let mut end = 0;
        for node in &ast.nodes {
            assert!(
                node.span.start >= end && node.span.end <= source.len() && node.span.start <= node.span.end
            );
            assert!(node.span.first_line >= 1 && node.span.last_line <= lines);
            end = node.span.end;
        }
        ast.dump();
    }
    match Dockerfile::parse(source) {
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(error.span.first_line >= 1 && error.span.first_line <= error.span.last_line.max(1));
            render_excerpt("Dockerfile", source, error.span.lines());
        }
        Ok(dockerfile) => {
            let environment: Environment = [("x", "a b"), ("a", "*")].into_iter().collect();
            for stage in &dockerfile.stages {
                let mut expander = Expander::new(&environment, dockerfile.escape);
                let _ = stage.from.expand(&mut expander);
                stage.references();
                for instruction in &stage.instructions {
                    let _ = instruction.expand(&mut expander);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parsing_never_panics(source in dockerfile_like()) {
        check(&format!("FROM a\n{source}"));
        check(&source);
    }

    #[test]
    fn parsing_bytes_never_panics(source in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Dockerfile::parse_bytes(&source);
        let _ = IgnoreRules::parse(&source);
    }

    #[test]
    fn expanding_never_panics(word in word_like(), escape in prop_oneof![Just('\\'), Just('`')]) {
        let environment: Environment = [("x", "a*b/c\nd"), ("1", "多")].into_iter().collect();
        let mut expander = Expander::new(&environment, escape);
        let one = expander.word(&word);
        let many = expander.words(&word);
        prop_assert_eq!(one.is_ok(), many.is_ok());
        let _ = expander.text(&word);
        expander.display(&word);
    }

    /// A text without anything special is its own expansion.
    #[test]
    fn plain_text_stays(text in "[a-zA-Z0-9 ./:=,_多-]{0,40}") {
        let environment = Environment::new();
        prop_assert_eq!(Expander::new(&environment, '\\').word(&text), Ok(text.clone()));
    }

    /// Quoting a text and expanding it gives the text again.
    #[test]
    fn quoting_is_undone(text in "\\PC{0,40}") {
        let environment = Environment::new();
        let mut expander = Expander::new(&environment, '\\');
        let quoted: String = text.chars().flat_map(|c| ['\\', c]).collect();
        prop_assert_eq!(expander.word(&quoted), Ok(text.clone()));
        if !text.contains('\'') {
            prop_assert_eq!(expander.word(&format!("'{text}'")), Ok(text.clone()));
        }
    }

    /// Skipping what may be skipped never loses a file that is kept.
    #[test]
    fn pruning_loses_nothing(
        patterns in prop::collection::vec((any::<bool>(), pattern_like()), 0..5),
        path in path_like(),
    ) {
        let patterns: Vec<String> =
            patterns.into_iter().map(|(is_exception, p)| if is_exception { format!("!{p}") } else { p }).collect();
        let Ok(rules) = IgnoreRules::from_patterns(&patterns) else { return Ok(()) };
        let mut state = IgnoreState::default();
        let mut pruned = false;
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            state = rules.check(&state, &path[..at]);
            prop_assert!(!pruned || state.is_ignored(), "{:?} on {}", patterns, path);
            pruned |= rules.can_prune(&state, &path[..at]);
        }
    }

    /// A directory that a pattern can't reach holds no match.
    #[test]
    fn patterns_match_only_where_they_may(pattern in pattern_like(), path in path_like()) {
        let Ok(pattern) = Pattern::new(&pattern) else { return Ok(()) };
        if pattern.matches(&path) {
            for (at, _) in path.match_indices('/') {
                prop_assert!(pattern.may_match_below(&path[..at]));
            }
            prop_assert!(path.starts_with(pattern.literal_directory()));
        }
    }

    #[test]
    fn values_never_panic(text in "\\PC{0,20}", number in "[-+0-9.:a-zA-Z/,=]{0,20}", mode in any::<u32>()) {
        for text in [&text, &number] {
            let _ = duration::parse(text);
            let _ = owner::parse(text);
            let _ = port::parse(text);
            let _ = signal::validate(text);
            let _ = size::parse(text);
            if let Ok(chmod) = Chmod::parse(text) {
                prop_assert!(chmod.apply(mode, false) <= 0o7777);
            }
        }
    }
}
