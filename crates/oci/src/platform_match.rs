// SPDX-License-Identifier: Apache-2.0
//! Which image of an index serves a platform, best first (containerd's `platforms.Only`).

use crate::{Descriptor, ImageIndex, Platform};

/// Matches platforms against one that is wanted, with fallbacks in order.
///
/// `linux/arm64` accepts arm64, then arm/v8, v7, v6, v5; `linux/arm/v7` accepts v7, v6, v5;
/// `linux/amd64/v3` accepts v3, v2, amd64, 386.
#[derive(Debug, Clone)]
pub struct PlatformMatcher {
    ordered: Vec<Platform>,
}

impl PlatformMatcher {
    /// Makes a matcher that accepts what the machine of `wanted` can run.
    pub fn only(wanted: &Platform) -> PlatformMatcher {
        let wanted = wanted.clone().normalized();
        let mut matcher = PlatformMatcher::strict(&wanted);
        let other = |architecture: &str, variant: &str| Platform {
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            ..wanted.clone()
        };
        match wanted.architecture.as_str() {
            "amd64" => matcher.ordered.push(other("386", "")),
            "arm64" => {
                for variant in ["v8", "v7", "v6", "v5"] {
                    matcher.ordered.push(other("arm", variant));
                }
            }
            _ => {}
        }
        matcher
    }

    /// Makes a matcher that never leaves the architecture: only older variants of it are accepted.
    pub fn strict(wanted: &Platform) -> PlatformMatcher {
        let wanted = wanted.clone().normalized();
        let mut ordered = vec![wanted.clone()];
        let mut push = |variant: String| ordered.push(Platform { variant, ..wanted.clone() });
        let number =
            wanted.variant.strip_prefix('v').and_then(|text| text.split('.').next()?.parse::<u32>().ok());
        match (wanted.architecture.as_str(), number) {
            ("amd64", Some(level)) if level <= 9 => {
                (2..level).rev().for_each(|lower| push(format!("v{lower}")));
                push(String::new());
            }
            ("arm", Some(level)) if level <= 9 => {
                (5..level).rev().for_each(|lower| push(format!("v{lower}")))
            }
            ("arm64", Some(_)) => push(String::new()),
            _ => {}
        }
        PlatformMatcher { ordered }
    }

    /// Returns how good a platform is, 0 being best; `None` when it does not serve.
    pub fn rank(&self, candidate: &Platform) -> Option<usize> {
        let candidate = candidate.clone().normalized();
        self.ordered.iter().position(|accepted| {
            accepted.os == candidate.os
                && accepted.architecture == candidate.architecture
                && accepted.variant == candidate.variant
                && (accepted.os_version.is_empty() || candidate.os_version.starts_with(&accepted.os_version))
        })
    }

    /// Returns the best image of an index, the first of equals.
    pub fn select<'a>(&self, index: &'a ImageIndex) -> Option<&'a Descriptor> {
        index
            .images()
            .filter_map(|entry| Some((self.rank(entry.platform.as_ref()?)?, entry)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digest, media_type};

    fn index(platforms: &[&str]) -> ImageIndex {
        let entry = |text: &&str| {
            Descriptor::new(media_type::OCI_MANIFEST, Digest::of(text), 1)
                .with_platform(text.parse().unwrap())
        };
        ImageIndex::new(media_type::Flavour::Oci, platforms.iter().map(entry).collect())
    }

    fn selected(wanted: &str, platforms: &[&str]) -> Option<String> {
        let matcher = PlatformMatcher::only(&wanted.parse().unwrap());
        let index = index(platforms);
        matcher.select(&index).and_then(|entry| entry.platform.as_ref()).map(Platform::to_string)
    }

    #[test]
    fn the_best_variant_wins() {
        assert_eq!(
            selected(
                "linux/arm/v7",
                &["arm/v5", "arm/v6"].map(|p| if p == "arm/v5" { "linux/arm/v5" } else { "linux/arm/v6" })
            )
            .unwrap(),
            "linux/arm/v6"
        );
        assert_eq!(selected("linux/arm64", &["linux/arm/v7", "linux/arm64"]).unwrap(), "linux/arm64");
        assert_eq!(selected("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2"]).unwrap(), "linux/amd64/v2");
        assert_eq!(selected("linux/amd64", &["linux/amd64/v2"]), None);
        assert_eq!(selected("linux/arm/v6", &["linux/arm/v7"]), None);
        assert_eq!(selected("linux/arm64", &["linux/arm/v7"]).unwrap(), "linux/arm/v7");
    }

    #[test]
    fn strict_stays_within_the_architecture() {
        let matcher = PlatformMatcher::strict(&"linux/arm64".parse().unwrap());
        assert_eq!(matcher.rank(&"linux/arm/v7".parse().unwrap()), None);
        assert_eq!(matcher.rank(&"linux/arm64/v8".parse().unwrap()), Some(0));
    }
}
