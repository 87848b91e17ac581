// SPDX-License-Identifier: Apache-2.0
//! Word expansion as a table: a word, and what becomes of it.

use polyarch_dockerfile::expand::{MAX_DEPTH, MAX_EXPANDED_BYTES};
use polyarch_dockerfile::{Environment, ExpandError, Expander};

fn environment() -> Environment {
    [
        ("HOME", "/root"),
        ("SHELL", "bash"),
        ("EMPTY", ""),
        ("NAME", "name with  blanks"),
        ("PATH_", "/usr/local/lib/libx.so.1"),
        ("DOTS", "a.b.c.d"),
        ("STARS", "a*b?c\\d"),
        ("WIDE", "多架构"),
        ("REGEX", "(a)[b]{c}^$.+|"),
        ("LINES", "one\ntwo"),
        ("PATTERN", "*/"),
        ("x1", "digit"),
    ]
    .into_iter()
    .collect()
}

/// Words that have a result.
const TABLE: &[(&str, &str)] = &[
    ("", ""),
    ("plain", "plain"),
    ("two words", "two words"),
    // Quotes.
    ("a'b'c", "abc"),
    ("a\"b\"c", "abc"),
    ("''", ""),
    ("\"\"", ""),
    ("'\"'", "\""),
    ("\"'\"", "'"),
    ("'a\\b'", "a\\b"),
    ("'a\\'", "a\\"),
    ("\"a\\b\"", "a\\b"),
    ("\"a\\\\b\"", "a\\b"),
    ("\"a\\\"b\"", "a\"b"),
    ("\"a\\$HOME\"", "a$HOME"),
    ("'$HOME'", "$HOME"),
    ("\"$HOME\"", "/root"),
    ("\"it's\"", "it's"),
    // Escapes.
    ("a\\b", "ab"),
    ("a\\\\b", "a\\b"),
    ("a\\ b", "a b"),
    ("a\\'b", "a'b"),
    ("a\\\"b", "a\"b"),
    ("a\\", "a"),
    ("a\\\\", "a\\"),
    ("\\$HOME", "$HOME"),
    ("\\${HOME}", "${HOME}"),
    ("\\\\$HOME", "\\/root"),
    ("`HOME`", "`HOME`"),
    // Plain variables.
    ("$HOME", "/root"),
    ("${HOME}", "/root"),
    ("a${HOME}b", "a/rootb"),
    ("$HOME/x", "/root/x"),
    ("$HOMEx", ""),
    ("$HOME.x", "/root.x"),
    ("$HOME$SHELL", "/rootbash"),
    ("$x1", "digit"),
    ("$UNSET", ""),
    ("a${UNSET}b", "ab"),
    ("$EMPTY", ""),
    ("$NAME", "name with  blanks"),
    ("$WIDE", "多架构"),
    ("$", "$"),
    ("a$", "a$"),
    ("$.", "$."),
    ("$ x", "$ x"),
    ("$(cmd)", "$(cmd)"),
    ("$((1+2))", "$((1+2))"),
    // Positional and special names.
    ("$1", ""),
    ("$12x", "x"),
    ("${1}", ""),
    ("${12:-d}", "d"),
    ("$@x", "x"),
    ("$*", ""),
    ("$#", ""),
    ("$?", ""),
    ("$-", ""),
    ("$$", ""),
    ("$$$", "$"),
    ("$!", ""),
    ("$0", ""),
    ("${@}", ""),
    ("${?:+x}", ""),
    ("${!:-x}", "x"),
    // Defaults.
    ("${HOME:-d}", "/root"),
    ("${HOME-d}", "/root"),
    ("${EMPTY:-d}", "d"),
    ("${EMPTY-d}", ""),
    ("${UNSET:-d}", "d"),
    ("${UNSET-d}", "d"),
    ("${UNSET:-}", ""),
    ("${UNSET:-two words}", "two words"),
    ("${UNSET:-$HOME}", "/root"),
    ("${UNSET:-${ALSO:-${THIRD:-deep}}}", "deep"),
    ("${UNSET:-\"q}\"}", "q}"),
    ("${UNSET:-'q}'}", "q}"),
    ("${UNSET:-a\\}b}", "a}b"),
    ("${UNSET:-\\$HOME}", "$HOME"),
    ("${UNSET:-a:b}", "a:b"),
    ("${UNSET:-{x}", "{x"),
    ("${UNSET:-x}}", "x}"),
    // Alternatives.
    ("${HOME:+y}", "y"),
    ("${HOME+y}", "y"),
    ("${EMPTY:+y}", ""),
    ("${EMPTY+y}", "y"),
    ("${UNSET:+y}", ""),
    ("${UNSET+y}", ""),
    ("${HOME:+$SHELL}", "bash"),
    ("${HOME:+${HOME}:}/bin", "/root:/bin"),
    // Required.
    ("${HOME:?no}", "/root"),
    ("${HOME?no}", "/root"),
    ("${EMPTY?no}", ""),
    // Prefixes.
    ("${PATH_#/usr}", "/local/lib/libx.so.1"),
    ("${PATH_#*/}", "usr/local/lib/libx.so.1"),
    ("${PATH_##*/}", "libx.so.1"),
    ("${PATH_#/nope}", "/usr/local/lib/libx.so.1"),
    ("${PATH_#}", "/usr/local/lib/libx.so.1"),
    ("${PATH_##}", "/usr/local/lib/libx.so.1"),
    ("${PATH_#*}", "/usr/local/lib/libx.so.1"),
    ("${PATH_##*}", ""),
    ("${DOTS#?.}", "b.c.d"),
    ("${DOTS##*.}", "d"),
    ("${DOTS#*.*.}", "c.d"),
    ("${DOTS##*.*.}", "d"),
    ("${DOTS#??????????}", "a.b.c.d"),
    ("${WIDE#?}", "架构"),
    ("${UNSET#x}", ""),
    ("${STARS#a\\*}", "b?c\\d"),
    ("${STARS#a\\*b\\?}", "c\\d"),
    ("${STARS#*\\\\}", "d"),
    ("${REGEX#(a)[b]{c\\}^$.}", "+|"),
    ("${LINES#*o}", "ne\ntwo"),
    ("${LINES##*o}", "ne\ntwo"),
    ("${LINES##*n?}", "\ntwo"),
    ("${PATH_##$PATTERN}", "libx.so.1"),
    // Suffixes.
    ("${PATH_%.1}", "/usr/local/lib/libx.so"),
    ("${PATH_%/*}", "/usr/local/lib"),
    ("${PATH_%%/*}", ""),
    ("${PATH_%%.*}", "/usr/local/lib/libx"),
    ("${PATH_%.*}", "/usr/local/lib/libx.so"),
    ("${PATH_%nope}", "/usr/local/lib/libx.so.1"),
    ("${PATH_%}", "/usr/local/lib/libx.so.1"),
    ("${DOTS%.?}", "a.b.c"),
    ("${DOTS%.*.*}", "a.b"),
    ("${DOTS%%.*.*}", "a"),
    ("${WIDE%?}", "多架"),
    ("${WIDE%%*}", ""),
    ("${UNSET%x}", ""),
    // Replacements.
    ("${DOTS/./-}", "a-b.c.d"),
    ("${DOTS//./-}", "a-b-c-d"),
    ("${DOTS//./}", "abcd"),
    ("${DOTS/.*./-}", "a-d"),
    ("${DOTS//?./-}", "---d"),
    ("${DOTS/nope/-}", "a.b.c.d"),
    ("${DOTS/*/all}", "all"),
    ("${DOTS//*/all}", "all"),
    ("${DOTS/b/$HOME}", "a./root.c.d"),
    ("${PATH_/\\/usr/}", "/local/lib/libx.so.1"),
    ("${PATH_//\\//:}", ":usr:local:lib:libx.so.1"),
    ("${PATH_/lib/a b}", "/usr/local/a b/libx.so.1"),
    ("${DOTS//b/$1x}", "a.x.c.d"),
    ("${EMPTY/x/y}", ""),
    ("${EMPTY//*/y}", "y"),
    ("${UNSET/x/y}", ""),
    ("${DOTS//a*c/}", ".d"),
    ("${LINES/*/x}", "x\ntwo"),
    ("${LINES//*/x}", "x\nx"),
    ("${LINES//?n/x}", "xe\ntwo"),
    ("${DOTS//a*x/y}", "a.b.c.d"),
    ("${HOME///-}", "-/-r-o-o-t-"),
    // Not heredocs here.
    ("a<b", "a<b"),
    ("a<<  b", "a<<  b"),
];

#[test]
fn words_that_expand() {
    let environment = environment();
    assert!(TABLE.len() >= 150, "only {} rows", TABLE.len());
    for (word, expected) in TABLE {
        let found = Expander::new(&environment, '\\').word(word);
        assert_eq!(found.as_deref(), Ok(*expected), "{word}");
    }
}

#[test]
fn words_that_do_not_expand() {
    let environment = environment();
    for (word, expected) in [
        ("'a", "unexpected end of \"'a\" while looking for matching single-quote"),
        ("\"a", "unexpected end of \"\\\"a\" while looking for matching double-quote"),
        ("\"a\\\"", "unexpected end of \"\\\"a\\\\\\\"\" while looking for matching double-quote"),
        ("a\\\\'b", "unexpected end of \"a\\\\\\\\'b\" while looking for matching single-quote"),
        ("${", "missing '}' in \"${\""),
        ("${HOME", "missing '}' in \"${HOME\""),
        ("${HOME:", "missing '}' in \"${HOME:\""),
        ("${HOME:-", "missing '}' in \"${HOME:-\""),
        ("${HOME:-${SHELL}", "missing '}' in \"${HOME:-${SHELL}\""),
        ("${HOME/x", "missing '/' after the pattern of ${} in \"${HOME/x\""),
        ("${HOME/x/y", "missing '}' in \"${HOME/x/y\""),
        ("${}", "bad substitution in \"${}\""),
        ("${{x}}", "bad substitution in \"${{x}}\""),
        ("${:-x}", "bad substitution in \"${:-x}\""),
        ("${.}", "unsupported modifier (.) in substitution in \"${.}\""),
        ("${HOME:=x}", "unsupported modifier (:=) in substitution in \"${HOME:=x}\""),
        ("${HOME=x}", "unsupported modifier (=) in substitution in \"${HOME=x}\""),
        ("${HOME:#x}", "unsupported modifier (:#) in substitution in \"${HOME:#x}\""),
        ("${HOME:%%x}", "unsupported modifier (:%) in substitution in \"${HOME:%%x}\""),
        ("${HOME^^}", "unsupported modifier (^) in substitution in \"${HOME^^}\""),
        ("${HOME:2}", "unsupported modifier (:2) in substitution in \"${HOME:2}\""),
        ("${HOME#\\a}", "invalid pattern (\\a) in substitution in \"${HOME#\\\\a}\""),
        ("${UNSET?}", "UNSET: is not allowed to be unset"),
        ("${UNSET:?}", "UNSET: is not allowed to be unset"),
        ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
        ("${UNSET:?give one}", "UNSET: give one"),
        ("${EMPTY:?$SHELL}", "EMPTY: bash"),
    ] {
        let error = Expander::new(&environment, '\\').word(word).expect_err(word);
        assert_eq!(error.to_string(), expected, "{word}");
    }
}

#[test]
fn words_are_split_at_blanks_that_are_not_quoted() {
    let environment = environment();
    for (text, expected) in [
        ("", vec![]),
        ("  a  b\tc ", vec!["a", "b", "c"]),
        ("'a b' c", vec!["a b", "c"]),
        ("a\"b c\"d e", vec!["ab cd", "e"]),
        ("a\\ b c", vec!["a b", "c"]),
        ("$NAME", vec!["name", "with", "blanks"]),
        ("x$NAME.y", vec!["xname", "with", "blanks.y"]),
        ("\"$NAME\"", vec!["name with  blanks"]),
        ("a ${UNSET} b", vec!["a", "b"]),
        ("a ${UNSET:-x y}z", vec!["a", "x", "yz"]),
        ("'' a", vec!["a"]),
        ("a << EOF", vec!["a", "<< EOF"]),
    ] {
        assert_eq!(Expander::new(&environment, '\\').words(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn the_escape_may_be_a_backtick() {
    let environment = environment();
    let mut expander = Expander::new(&environment, '`');
    assert_eq!(expander.word("c:\\dir`$HOME").unwrap(), "c:\\dir$HOME");
    assert_eq!(expander.word("\"a`\"b\\\"").unwrap(), "a\"b\\");
}

#[test]
fn text_of_heredocs_keeps_quotes() {
    let environment = environment();
    let mut expander = Expander::new(&environment, '`');
    assert_eq!(expander.text("\"$HOME\" 'it\n").unwrap(), "\"/root\" 'it\n");
    assert_eq!(expander.text("\\$HOME \\\\ \\\n").unwrap(), "$HOME \\ \n");
}

#[test]
fn names_are_remembered() {
    let environment = environment();
    let mut expander = Expander::new(&environment, '\\');
    expander.word("$HOME ${ONE:-$SHELL} ${DOTS:+x}").unwrap();
    expander.words("$TWO '$THREE' \\$FOUR").unwrap();
    assert_eq!(expander.used().iter().collect::<Vec<_>>(), ["DOTS", "HOME", "SHELL"]);
    assert_eq!(expander.undefined().iter().collect::<Vec<_>>(), ["ONE", "TWO"]);
}

#[test]
fn display_keeps_what_is_not_set_and_the_quotes() {
    let environment = environment();
    let expander = Expander::new(&environment, '\\');
    for (text, expected) in [
        ("RUN echo \"$HOME\" $UNSET ${UNSET}", "RUN echo \"/root\" $UNSET ${UNSET}"),
        (
            "x ${UNSET:-d} ${UNSET##a} ${UNSET//a/b} ${UNSET/a/b}",
            "x ${UNSET:-d} ${UNSET##a} ${UNSET//a/b} ${UNSET/a/b}",
        ),
        ("it's ${HOME", "it's ${HOME"),
    ] {
        assert_eq!(expander.display(text), expected);
    }
    assert!(expander.used().is_empty());
}

#[test]
fn nesting_and_size_have_limits() {
    let environment: Environment = [("BIG", "x".repeat(MAX_EXPANDED_BYTES / 2 + 1))].into_iter().collect();
    let mut expander = Expander::new(&environment, '\\');
    assert_eq!(expander.word("$BIG$BIG"), Err(ExpandError::TooLarge));
    assert_eq!(expander.word("${BIG//x/yyy}"), Err(ExpandError::TooLarge));
    let nested = |depth: usize| format!("{}{}", "${U:-".repeat(depth), "}".repeat(depth));
    assert_eq!(expander.word(&nested(MAX_DEPTH)), Ok(String::new()));
    assert_eq!(expander.word(&nested(MAX_DEPTH + 1)), Err(ExpandError::TooDeep));
}

/// Would take hours if a match were tried from every place to the end.
#[test]
fn patterns_take_linear_time() {
    let environment: Environment = [("A", "a".repeat(1 << 20))].into_iter().collect();
    let mut expander = Expander::new(&environment, '\\');
    assert_eq!(expander.word("${A//a*b/x}").unwrap().len(), 1 << 20);
    assert_eq!(expander.word("${A//*a*a*a*b/x}").unwrap().len(), 1 << 20);
    assert_eq!(expander.word("${A%%b*a*a}").unwrap().len(), 1 << 20);

    let environment: Environment =
        [("A", "a".repeat(1 << 20)), ("B", "a".repeat(1 << 19))].into_iter().collect();
    let mut expander = Expander::new(&environment, '\\');
    assert_eq!(expander.word("${A//${B}b/x}"), Err(ExpandError::TooLarge));
    assert_eq!(expander.word(&"${U:+$A}".repeat(2000)), Err(ExpandError::TooLarge));
}
