// SPDX-License-Identifier: Apache-2.0
//! Which node builds which platform: each platform exactly once, natively wherever a node can.
//!
//! A platform that was fixed for a node is built there and nowhere else. Any other goes to a node whose own
//! CPU runs it. Emulation is never fallen back to in silence: with several nodes it must have been
//! asked for; a builder of one node has nothing else to offer, and its user knows.

use polyarch_oci::Platform;

use crate::error::{BuildError, ErrorKind};

/// What a node offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOffer {
    /// Its name.
    pub name: String,
    /// The platforms that were fixed for it.
    pub fixed: Vec<Platform>,
    /// What it said that it can build for, its own platform first; the reason when it said nothing.
    pub platforms: Result<Vec<Platform>, String>,
}

/// A platform and the node that builds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The platform.
    pub platform: Platform,
    /// The node, by its place in the list of offers.
    pub node: usize,
    /// Whether the node only emulates it.
    pub is_emulated: bool,
}

/// Tells whether the CPU of a platform runs programs of another by itself.
pub fn runs_natively(own: &Platform, platform: &Platform) -> bool {
    let is_older_sibling = matches!(
        (own.architecture.as_str(), platform.architecture.as_str()),
        ("amd64", "386") | ("arm64", "arm")
    );
    own.os == platform.os && (own.architecture == platform.architecture || is_older_sibling)
}

/// Places every platform, or says which can't be placed and what to do.
///
/// `excluded` are nodes that have failed during this build. Of several nodes that are equally good the one
/// with the least work gets a platform, the first among equals.
///
/// # Errors
/// When no node fits a platform.
pub fn place(
    platforms: &[Platform],
    offers: &[NodeOffer],
    excluded: &[usize],
    allow_emulation: bool,
) -> Result<Vec<Placement>, BuildError> {
    let mut placements: Vec<Placement> = Vec::new();
    for platform in platforms {
        let wanted = platform.clone().normalized();
        let work = |node: usize| placements.iter().filter(|placement| placement.node == node).count();
        let best = offers
            .iter()
            .enumerate()
            .filter(|(node, _)| !excluded.contains(node))
            .filter_map(|(node, offer)| Some((fitness(&wanted, offer, offers)?, work(node), node)))
            .min();
        let is_emulation_fine = allow_emulation || offers.len() == 1;
        match best {
            Some((fitness, _, node))
                if fitness != Fitness::Emulates || is_emulation_fine || is_fixed(&wanted, &offers[node]) =>
            {
                let own = offers[node].platforms.as_ref().ok().and_then(|platforms| platforms.first());
                let is_emulated = own.is_none_or(|own| !runs_natively(own, &wanted));
                placements.push(Placement { platform: platform.clone(), node, is_emulated });
            }
            Some((_, _, node)) => return Err(only_emulated(platform, &offers[node])),
            None => return Err(no_node(platform, offers, excluded)),
        }
    }
    Ok(placements)
}

/// How well a node fits a platform, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    /// It is the node's own architecture.
    Own,
    /// Its CPU runs it too.
    Sibling,
    /// It emulates it.
    Emulates,
}

/// Returns how well a node fits; `None` when it does not, or another one was fixed for the platform.
fn fitness(wanted: &Platform, offer: &NodeOffer, offers: &[NodeOffer]) -> Option<Fitness> {
    if !is_fixed(wanted, offer) && offers.iter().any(|other| is_fixed(wanted, other)) {
        return None;
    }
    let platforms = offer.platforms.as_ref().ok()?;
    if !platforms.iter().any(|platform| platform.clone().normalized() == *wanted) {
        return None;
    }
    let own = platforms.first()?;
    Some(match own.architecture == wanted.architecture && own.os == wanted.os {
        true => Fitness::Own,
        false if runs_natively(own, wanted) => Fitness::Sibling,
        false => Fitness::Emulates,
    })
}

fn is_fixed(wanted: &Platform, offer: &NodeOffer) -> bool {
    offer.fixed.iter().any(|platform| platform.clone().normalized() == *wanted)
}

fn only_emulated(platform: &Platform, offer: &NodeOffer) -> BuildError {
    let own = offer.platforms.as_ref().ok().and_then(|platforms| platforms.first());
    let own = own.map(ToString::to_string).unwrap_or_default();
    let message = format!("no node runs {platform} by itself; {} ({own}) only emulates it", offer.name);
    BuildError::new(ErrorKind::Platform, message)
        .with_hint(format!(
            "add a node of {platform}: polyarch buildx create --append --name BUILDER ENDPOINT"
        ))
        .with_hint("or say that emulation is fine: --allow-emulation")
}

fn no_node(platform: &Platform, offers: &[NodeOffer], excluded: &[usize]) -> BuildError {
    let told = offers.iter().enumerate().map(|(node, offer)| match &offer.platforms {
        _ if excluded.contains(&node) => format!("{} has failed", offer.name),
        Ok(platforms) => {
            let able: Vec<String> = platforms.iter().map(ToString::to_string).collect();
            format!("{} builds for {}", offer.name, able.join(", "))
        }
        Err(reason) => format!("{} does not answer: {reason}", offer.name),
    });
    let told: Vec<String> = told.collect();
    BuildError::new(ErrorKind::Platform, format!("no node builds for {platform}: {}", told.join("; ")))
        .with_hint(format!(
            "add a node of {platform}: polyarch buildx create --append --name BUILDER ENDPOINT"
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<Platform> {
        if text.is_empty() { Vec::new() } else { Platform::parse_list(text).unwrap() }
    }

    fn offer(name: &str, fixed: &str, platforms: &str) -> NodeOffer {
        NodeOffer { name: name.to_owned(), fixed: list(fixed), platforms: Ok(list(platforms)) }
    }

    const AMD: &str = "linux/amd64,linux/amd64/v2,linux/386,linux/arm64,linux/s390x";
    const ARM: &str = "linux/arm64,linux/arm/v7,linux/amd64";

    fn placed(
        platforms: &str,
        offers: &[NodeOffer],
        excluded: &[usize],
        emulation: bool,
    ) -> Result<String, String> {
        let placements =
            place(&list(platforms), offers, excluded, emulation).map_err(|error| error.message)?;
        let texts = placements.iter().map(|placement| {
            let mark = if placement.is_emulated { " emulated" } else { "" };
            format!("{}={}{mark}", placement.platform, offers[placement.node].name)
        });
        Ok(texts.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn each_platform_goes_to_a_node_of_its_own() {
        let offers = [offer("amd", "", AMD), offer("arm", "", ARM)];
        assert_eq!(
            placed("linux/amd64,linux/arm64", &offers, &[], false).unwrap(),
            "linux/amd64=amd linux/arm64=arm"
        );
        assert_eq!(
            placed("linux/386,linux/arm/v7,linux/amd64/v2", &offers, &[], false).unwrap(),
            "linux/386=amd linux/arm/v7=arm linux/amd64/v2=amd"
        );
        // The order of the nodes does not matter.
        let turned = [offers[1].clone(), offers[0].clone()];
        assert_eq!(placed("linux/amd64", &turned, &[], false).unwrap(), "linux/amd64=amd");
    }

    #[test]
    fn emulation_is_asked_for() {
        let offers = [offer("amd", "", AMD), offer("arm", "", ARM)];
        let error = placed("linux/s390x", &offers, &[], false).unwrap_err();
        assert_eq!(error, "no node runs linux/s390x by itself; amd (linux/amd64) only emulates it");
        assert_eq!(placed("linux/s390x", &offers, &[], true).unwrap(), "linux/s390x=amd emulated");
        // One node is all there is.
        assert_eq!(placed("linux/s390x", &offers[..1], &[], false).unwrap(), "linux/s390x=amd emulated");
        // Fixed means asked for.
        let fixed = [offer("amd", "linux/s390x", AMD), offer("arm", "", ARM)];
        assert_eq!(placed("linux/s390x", &fixed, &[], false).unwrap(), "linux/s390x=amd emulated");
    }

    #[test]
    fn fixed_platforms_are_built_nowhere_else() {
        let offers = [offer("amd", "linux/arm64", AMD), offer("arm", "linux/amd64", ARM)];
        assert_eq!(
            placed("linux/amd64,linux/arm64", &offers, &[], false).unwrap(),
            "linux/amd64=arm emulated linux/arm64=amd emulated"
        );
        let silent =
            NodeOffer { platforms: Err("connection refused".to_owned()), ..offer("arm", "linux/arm64", "") };
        let error = placed("linux/arm64", &[offer("amd", "", AMD), silent], &[], true).unwrap_err();
        assert!(error.contains("arm does not answer: connection refused"), "{error}");
    }

    #[test]
    fn equals_share_the_work_and_stand_in_for_each_other() {
        let offers = [offer("one", "", AMD), offer("two", "", AMD)];
        assert_eq!(
            placed("linux/amd64,linux/386", &offers, &[], false).unwrap(),
            "linux/amd64=one linux/386=two"
        );
        assert_eq!(placed("linux/amd64", &offers, &[0], false).unwrap(), "linux/amd64=two");
        let error = placed("linux/amd64", &offers, &[0, 1], false).unwrap_err();
        assert!(error.contains("one has failed; two has failed"), "{error}");
        assert!(
            placed("linux/riscv64", &offers, &[], true)
                .unwrap_err()
                .contains("no node builds for linux/riscv64")
        );
    }
}
