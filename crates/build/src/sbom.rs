// SPDX-License-Identifier: Apache-2.0
//! Bills of materials: what a scanner has found in a result, read and checked.

use std::sync::Arc;

use polyarch_snapshot::Kind;
use polyarch_solver::progress::Progress;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{BuildError, ErrorKind};
use crate::evaluated::Evaluated;
use crate::exporter::Subject;
use crate::fetch::{Shown, blocking};
use crate::services::Services;
use crate::tree::Tree;

/// Where a scanner leaves its statements.
pub(crate) const OUTPUT: &str = "/run/out";

/// The predicate that scanners write (spdx.dev).
pub(crate) const SPDX: &str = "https://spdx.dev/Document";

/// The largest statement, in bytes, as in BuildKit.
const MAX_STATEMENT_BYTES: u64 = 40 << 20;

/// How many statements a scanner may leave.
const MAX_STATEMENTS: usize = 1000;

/// What a scanner says.
#[derive(Debug, Clone)]
pub(crate) struct Scanned {
    pub(crate) predicate_type: String,
    pub(crate) predicate: Value,
    /// What it is about, where the scanner says so.
    pub(crate) subjects: Vec<Subject>,
    /// The name of the scanner's file.
    pub(crate) file_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(default)]
    predicate_type: String,
    #[serde(default)]
    subject: Option<Vec<Subject>>,
    #[serde(default)]
    predicate: Value,
}

impl Services {
    /// Returns a platform's result with the bill of materials that a client's frontend had made of it: statements
    /// in a directory of another result.
    ///
    /// # Errors
    /// When there are no such results, or what is in the directory is no bill of materials.
    pub async fn with_bill(
        self: &Arc<Self>,
        (evaluated, platform): (&Evaluated, usize),
        (bill, of_bill): (&Evaluated, usize),
        directory: &str,
        progress: &Progress,
    ) -> Result<Evaluated, BuildError> {
        let missing = || BuildError::new(ErrorKind::Usage, "there is no tree of that number");
        let shown = Shown { progress: progress.clone(), vertex: "".into() };
        let tree = &bill.trees.get(of_bill).ok_or_else(missing)?.tree;
        let scanned = self.read_scan(tree, directory, &shown).await?;
        let mut scans = evaluated.alone(platform).ok_or_else(missing)?;
        for tree in &mut scans.trees {
            let mut known = tree.scanned.as_ref().map(|known| known.as_ref().clone()).unwrap_or_default();
            known.extend_from_slice(&scanned);
            tree.scanned = Some(Arc::new(known));
        }
        Ok(scans)
    }

    /// Reads what a scanner left in a directory of its tree, the document of the result first.
    pub(crate) async fn read_scan(
        self: &Arc<Self>,
        tree: &Tree,
        directory: &str,
        shown: &Shown,
    ) -> Result<Vec<Scanned>, BuildError> {
        let layers = self.directories(tree, shown).await?;
        let (services, directory) = (self.clone(), directory.trim_end_matches('/').to_owned());
        blocking(move || {
            let failed = |error| services.snapshot_error("can't read what the scanner wrote", &error);
            let view = services.snapshots.view(&layers).map_err(failed)?;
            let mut scanned = Vec::new();
            let entries = view.read_dir(format!("{directory}/")).map_err(failed)?;
            if entries.len() > MAX_STATEMENTS {
                return Err(refused(&format!("it wrote more than {MAX_STATEMENTS} files")));
            }
            for (name, kind) in entries {
                let name = name.to_string_lossy().into_owned();
                if kind != Kind::File {
                    return Err(refused(&format!("{name} is not a regular file")));
                }
                let bytes = view.read(format!("{directory}/{name}"), MAX_STATEMENT_BYTES).map_err(failed)?;
                scanned.push(read_statement(name, &bytes)?);
            }
            // The sort is stable: the others stay in the order of their names.
            scanned.sort_by_key(|it| it.file_name.split('.').next() != Some("sbom"));
            Ok(scanned)
        })
        .await
    }
}

fn read_statement(file_name: String, bytes: &[u8]) -> Result<Scanned, BuildError> {
    let statement: Statement = serde_json::from_slice(bytes)
        .map_err(|error| refused(&format!("cannot decode in-toto statement {file_name}: {error}")))?;
    let kind = &statement.predicate_type;
    if kind != SPDX {
        return Err(refused(&format!(
            "bundle entry {kind} does not match required predicate type {SPDX} ({file_name})"
        )));
    }
    Ok(Scanned {
        predicate_type: statement.predicate_type,
        predicate: statement.predicate,
        subjects: statement.subject.unwrap_or_default(),
        file_name,
    })
}

fn refused(problem: &str) -> BuildError {
    BuildError::new(ErrorKind::Step, format!("what the scanner wrote is no bill of materials: {problem}"))
        .with_hint(
            "a scanner writes in-toto statements of SPDX documents; name another: --sbom=generator=IMAGE",
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_of_spdx_documents() {
        let read = |text: &str| read_statement("spdx.json".to_owned(), text.as_bytes());
        let scanned = read(
            r#"{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://spdx.dev/Document",
                "subject":[{"name":"a","digest":{"sha256":"00"}}],"predicate":{"name":"core"}}"#,
        )
        .unwrap();
        assert_eq!(scanned.predicate["name"], "core");
        assert_eq!(scanned.subjects[0].name, "a");
        let table = [
            ("", "cannot decode in-toto statement spdx.json"),
            (
                r#"{"predicateType":"https://slsa.dev/provenance/v1"}"#,
                "does not match required predicate type",
            ),
            (r"{} {}", "cannot decode"),
        ];
        for (text, expected) in table {
            let error = read(text).unwrap_err();
            assert!(error.message.contains(expected), "{}", error.message);
        }
    }
}
