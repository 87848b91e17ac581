// SPDX-License-Identifier: Apache-2.0
//! Bills of materials: what a scanner finds in a result.

use serde_json::Value;

use crate::exporter::Subject;

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
