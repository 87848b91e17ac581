// SPDX-License-Identifier: Apache-2.0
//! The page's style, script and icon: in the binary, each under a name that changes with its content.

use std::sync::LazyLock;

use polyarch_oci::Digest;

/// The address below which they are.
pub(super) const PREFIX: &str = "/-/assets/";

/// A file that the page needs.
pub(super) struct Asset {
    /// Its address, with a piece of its digest.
    pub(super) path: String,
    pub(super) media_type: &'static str,
    pub(super) content: &'static str,
}

/// All of them.
pub(super) struct Assets {
    pub(super) style: Asset,
    pub(super) script: Asset,
    pub(super) icon: Asset,
}

pub(super) static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets {
    style: asset("page", "css", "text/css; charset=utf-8", include_str!("page.css")),
    script: asset("page", "js", "text/javascript; charset=utf-8", include_str!("page.js")),
    icon: asset("icon", "svg", "image/svg+xml", include_str!("icon.svg")),
});

impl Assets {
    /// Finds one by its address.
    pub(super) fn find(&self, path: &str) -> Option<&Asset> {
        [&self.style, &self.script, &self.icon].into_iter().find(|asset| asset.path == path)
    }
}

fn asset(name: &str, extension: &str, media_type: &'static str, content: &'static str) -> Asset {
    let digest = Digest::of(content);
    // Twelve of its digits.
    let path = format!("{PREFIX}{name}.{:.12}.{extension}", digest.hex());
    Asset { path, media_type, content }
}
