// SPDX-License-Identifier: Apache-2.0
//! Folders of text: a Dockerfile, and beside it the tree it makes (`ast`) or the error it gives (`error`).
//!
//! With `UPDATE_GOLDEN=1` the expected files are written instead of compared.

use std::fs;
use std::path::Path;

use polyarch_dockerfile::{Ast, Dockerfile, render_excerpt};

#[test]
fn dockerfiles_give_the_tree_or_the_error_beside_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testfiles");
    let mut cases: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 50, "only {} cases", cases.len());
    let mut different = Vec::new();
    for case in cases {
        let source = fs::read_to_string(case.join("Dockerfile")).unwrap();
        let (file, text) = match Dockerfile::parse(&source) {
            Ok(_) => ("ast", Ast::parse(&source).unwrap().dump()),
            Err(error) => {
                ("error", format!("{error}\n{}", render_excerpt("Dockerfile", &source, error.span.lines())))
            }
        };
        let is_negative = case.file_name().unwrap().to_str().unwrap().starts_with("bad-");
        assert_eq!(is_negative, file == "error", "{}: {text}", case.display());
        let expected = case.join(file);
        if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
            fs::write(&expected, &text).unwrap();
        } else if fs::read_to_string(&expected).ok().as_deref() != Some(text.as_str()) {
            different.push(format!("{}:\n{text}", expected.display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
