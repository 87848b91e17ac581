// SPDX-License-Identifier: Apache-2.0
//! Bills of materials on their way out: those of a scanner, or else our own.

use std::sync::Arc;

use jiff::Timestamp;

use super::PlatformTree;
use crate::attest::Attestations;
use crate::error::{BuildError, ErrorKind};
use crate::fetch::{Shown, blocking};
use crate::request::BuildRequest;
use crate::sbom::{SPDX, Scanned};
use crate::services::Services;
use crate::spdx::Bill;

/// The name of the bill's file, as scanners call it.
const FILE_NAME: &str = "sbom.spdx.json";

/// Returns the bills of a platform that are wanted.
pub(super) async fn bills(
    services: &Arc<Services>,
    request: &BuildRequest,
    wanted: &Attestations,
    tree: &PlatformTree,
    shown: &Shown,
) -> Result<Vec<Scanned>, BuildError> {
    let Some(options) = &wanted.sbom else { return Ok(Vec::new()) };
    if let Some(scanned) = &tree.scanned {
        return Ok(scanned.as_ref().clone());
    }
    if let Some(generator) = &options.generator {
        let message = format!("{generator} can't scan what no Dockerfile has made");
        return Err(BuildError::new(ErrorKind::Usage, message)
            .with_hint("leave out generator=IMAGE: then the package databases of the result are read"));
    }
    let layers = services.directories(&tree.tree, shown).await?;
    let name = request.names.first().map_or_else(|| "image".to_owned(), |name| name.familiar());
    let created = match request.source_date_epoch {
        Some(epoch) => Timestamp::from_second(epoch).unwrap_or_default(),
        None => Timestamp::now(),
    };
    // SPDX has whole seconds.
    let created = created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let platform = tree.draft.platform.clone();
    let working = services.clone();
    let bill = blocking(move || {
        let failed = |error| working.snapshot_error("can't read the packages of the result", &error);
        Bill::read(&working.snapshots.view(&layers).map_err(failed)?).map_err(failed)
    });
    let bill = bill.await?;
    for path in &bill.unread {
        shown.progress.warn(format!(
            "the bill of materials of {platform} lacks the packages of {path}, which only a scanner reads: \
             --sbom=generator=IMAGE"
        ));
    }
    Ok(vec![Scanned {
        predicate_type: SPDX.to_owned(),
        predicate: bill.document(&name, &created),
        subjects: Vec::new(),
        file_name: FILE_NAME.to_owned(),
    }])
}
