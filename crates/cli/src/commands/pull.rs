// SPDX-License-Identifier: Apache-2.0
//! `polyarch pull`: fetches an image into the store.

use std::fmt::Write as _;

use clap::Args;
use polyarch_build::{PullRequest, PullResult};
use polyarch_oci::{Digest, Platform, Reference};

use super::build::platforms::parse_platforms;
use crate::CommandError;
use crate::session::Session;
use crate::transfer::{Direction, TransferDisplay};
use crate::visible_text::visible_name;

/// Fetch an image into the store
///
/// The name then means the registry's document, an index or one manifest, byte for byte. Platforms that are
/// there of the same index stay: pulling another one adds it.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Platforms to fetch [default: this machine's, or the only one] [env: DOCKER_DEFAULT_PLATFORM]
    #[arg(long, value_name = "PLATFORM[,PLATFORM]", conflicts_with = "all_platforms")]
    platform: Vec<String>,
    /// Fetch everything that the name stands for: every platform, and attestations
    #[arg(long)]
    all_platforms: bool,
    /// Print only the name
    #[arg(short, long)]
    quiet: bool,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
}

/// Runs the command.
pub fn run(args: &PullArgs, session: &Session) -> Result<(), CommandError> {
    let platforms = match args.all_platforms {
        true => Vec::new(),
        false => parse_platforms(&args.platform, &session.environment)?,
    };
    let reference = parse_name(&args.name)?;
    let request = PullRequest { reference, platforms, all_platforms: args.all_platforms };
    let settings = session.settings()?;
    let engine = session.open_for_documents(&settings)?;
    if !args.quiet {
        session.printer.message(&first_lines(&args.name, &request.reference));
    }
    let (progress, display) = TransferDisplay::start(session, Direction::Pull, args.quiet);
    let result = engine.pull(&request, &progress);
    display.finish();
    let result = result?;
    if let Some(replaced) = &result.replaced {
        session.printer.warning(&replaced.notice(&request.reference, &result.root));
    }
    if args.quiet {
        return session.printer.data(&format!("{}\n", request.reference));
    }
    session.printer.data(&render(&request.reference, &result))
}

/// Says what is pulled, as docker does.
pub fn first_lines(given: &str, reference: &Reference) -> String {
    let version = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or_default().to_owned(),
    };
    let has_tag = given.parse::<Reference>().is_ok_and(|it| it.tag().is_some() || it.digest().is_some());
    let default = if has_tag { "" } else { "Using default tag: latest\n" };
    format!("{default}{version}: Pulling from {}\n", reference.repository())
}

fn render(reference: &Reference, result: &PullResult) -> String {
    let mut text = format!("Digest: {}\n", result.root.digest);
    let platforms = result.platforms.iter().map(|(platform, it)| (platform, &it.digest)).collect::<Vec<_>>();
    let of_it = format!("{}; pulled of it", count(result.known_platforms));
    text.push_str(&kind_lines(&result.root.digest, &of_it, &platforms));
    let state = if result.was_current { "Image is up to date" } else { "Downloaded newer image" };
    let _ = writeln!(text, "Status: {state} for {}\n{reference}", reference.familiar());
    text
}

/// Says whether a digest is that of an index or of one platform's manifest, with the digests of the manifests.
pub fn kind_lines(root: &Digest, of_it: &str, platforms: &[(&Platform, &Digest)]) -> String {
    match platforms {
        [] => String::new(),
        [(platform, manifest)] if *manifest == root => {
            format!("It is the manifest of {}\n", visible_name(*platform))
        }
        platforms => format!("It is an index of {of_it}:\n{}", platform_lines(platforms.iter().copied())),
    }
}

/// Counts platforms in words.
pub fn count(platforms: usize) -> String {
    if platforms == 1 { "1 platform".to_owned() } else { format!("{platforms} platforms") }
}

/// Writes platforms with the digests of their manifests, a line each.
fn platform_lines<'a>(platforms: impl Iterator<Item = (&'a Platform, &'a Digest)>) -> String {
    let rows: Vec<(String, String)> =
        platforms.map(|(platform, digest)| (visible_name(platform), digest.to_string())).collect();
    let width = rows.iter().map(|(platform, _)| platform.len()).max().unwrap_or(0);
    rows.iter().map(|(platform, digest)| format!("  {platform:width$}  {digest}\n")).collect()
}

/// Reads the name of an image; without a tag it is `latest`.
pub fn parse_name(text: &str) -> Result<Reference, CommandError> {
    let name: Reference =
        text.parse().map_err(|error| CommandError::usage(polyarch_build::error::chain_of(&error)))?;
    Ok(name.with_default_tag())
}

#[cfg(test)]
mod tests {
    use super::*;
    use polyarch_oci::Descriptor;

    #[test]
    fn index_and_platform_digests_are_told_apart() {
        let root = Descriptor::new("", Digest::of("root"), 1);
        let platform = |name: &str| (name.parse().unwrap(), Descriptor::new("", Digest::of(name), 1));
        let mut result = PullResult {
            root: root.clone(),
            platforms: vec![platform("linux/amd64"), platform("linux/arm/v7")],
            known_platforms: 3,
            was_current: false,
            replaced: None,
        };
        let name: Reference = "user/app:1".parse().unwrap();
        insta::assert_snapshot!(render(&name, &result), @r"
        Digest: sha256:4813494d137e1631bba301d5acab6e7bb7aa74ce1185d456565ef51d737677b2
        It is an index of 3 platforms; pulled of it:
          linux/amd64   sha256:baf0239e48ff4c47ebac3ba02b5cf1506b69cd5a0c0d0c825a53ba65976fb942
          linux/arm/v7  sha256:35df9beb9b1c4fe630707bc51e4360b94b506b4e6d5372d5d0d52a385350621b
        Status: Downloaded newer image for user/app:1
        docker.io/user/app:1
        ");
        result.platforms = vec![("linux/amd64".parse().unwrap(), root)];
        result.was_current = true;
        insta::assert_snapshot!(render(&name, &result), @r"
        Digest: sha256:4813494d137e1631bba301d5acab6e7bb7aa74ce1185d456565ef51d737677b2
        It is the manifest of linux/amd64
        Status: Image is up to date for user/app:1
        docker.io/user/app:1
        ");
    }

    #[test]
    fn the_first_lines_are_dockers() {
        let lines = |text: &str| first_lines(text, &parse_name(text).unwrap());
        assert_eq!(lines("user/aa:0.2"), "0.2: Pulling from user/aa\n");
        assert_eq!(lines("alpine"), "Using default tag: latest\nlatest: Pulling from library/alpine\n");
    }

    #[test]
    fn platforms_are_shown_without_what_moves_the_cursor() {
        let platform = Platform { os: "linux\u{1b}[2J\nroot".into(), ..Platform::default() };
        let digest = Digest::of("x");
        let lines = platform_lines([(&platform, &digest)].into_iter());
        assert_eq!(lines.lines().count(), 1);
        assert!(!lines.contains('\u{1b}'), "{lines:?}");
    }
}
