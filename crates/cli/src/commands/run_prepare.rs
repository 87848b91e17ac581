// SPDX-License-Identifier: Apache-2.0
//! What `polyarch run` does before the program starts: a pull where one is needed, and the entry for
//! `polyarch ps`.

use std::sync::Arc;

use polyarch_build::held::{HeldPlatform, best_of, not_held, platform_names};
use polyarch_build::request::PullPolicy;
use polyarch_build::{BuildError, ErrorKind, PullRequest, RunRequest, Services};
use polyarch_images::running::{Entry, Running, enter};
use polyarch_oci::{Descriptor, Platform};

use super::pull::first_lines;
use crate::CommandError;
use crate::engine::Engine;
use crate::session::Session;
use crate::transfer::{Direction, TransferDisplay};
use crate::visible_text::visible_name;

/// Brings the image here, decides for its platform, and enters the program among those that run.
///
/// # Errors
/// When the image can't be had, or the name is taken.
pub fn prepare(
    engine: &Engine,
    request: &mut RunRequest,
    name: Option<String>,
    is_quiet: bool,
    session: &Session,
) -> Result<Entry, CommandError> {
    let look = || {
        let reference = request.reference.clone();
        engine.perform(|services| async move { services.held_image(&reference) })
    };
    let mut held = look()?;
    let is_here = held.as_ref().is_some_and(|(_, held)| chosen(held, request.platform.as_ref()).is_some());
    if request.pull == PullPolicy::Always || (request.pull == PullPolicy::Default && !is_here) {
        pull(engine, request, held.as_ref(), is_quiet, session)?;
        held = look()?;
    }
    request.pull = PullPolicy::Never;
    let shown = request.reference.familiar();
    let Some((_, held)) = held else {
        let message = format!("the store has no image {shown}, and pulling is switched off");
        return Err(CommandError::usage(message).with_hint(format!("polyarch pull {shown}")));
    };
    let Some(image) = chosen(&held, request.platform.as_ref()) else {
        let wanted = request.platform.clone().unwrap_or_else(Platform::host);
        return Err(not_held(&shown, &wanted, &held).into());
    };
    // A config that tells no platform is taken for one of this machine's.
    let known = Some(&image.platform).filter(|platform| !platform.architecture.is_empty());
    request.platform.get_or_insert_with(|| known.cloned().unwrap_or_else(Platform::host));
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| BuildError::new(ErrorKind::Sandbox, format!("no random numbers: {error}")))?;
    let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let running = Running {
        name: name.unwrap_or_else(|| format!("run-{}", &id[..12])),
        id,
        image: shown,
        digest: image.manifest.digest.clone(),
        platform: image.platform.clone(),
        command: request
            .entrypoint
            .iter()
            .filter(|it| !it.is_empty())
            .chain(&request.command)
            .cloned()
            .collect(),
        created: jiff::Timestamp::now(),
        pid: std::process::id(),
    };
    let entry = engine.perform(|services| async move { enter(services.root(), &running) })?;
    Ok(entry)
}

/// Chooses what runs: the platform that is asked for, else this machine's, else the only one that is here.
fn chosen<'a>(held: &'a [HeldPlatform], platform: Option<&Platform>) -> Option<&'a HeldPlatform> {
    let best = match (platform, held) {
        (Some(platform), _) => best_of(held, platform),
        (None, [only]) => Some(only),
        (None, _) => best_of(held, &Platform::host()),
    };
    best.filter(|best| best.is_complete)
}

/// Pulls the image, as docker does before it runs one, and says so on standard error.
fn pull(
    engine: &Engine,
    request: &RunRequest,
    held: Option<&(Descriptor, Vec<HeldPlatform>)>,
    is_quiet: bool,
    session: &Session,
) -> Result<(), CommandError> {
    let printer = session.printer;
    let shown = request.reference.familiar();
    if !is_quiet {
        let here: Vec<&Platform> = held
            .iter()
            .flat_map(|(_, held)| held.iter().filter(|it| it.is_complete).map(|it| &it.platform))
            .collect();
        match (&request.platform, here.as_slice()) {
            _ if request.pull == PullPolicy::Always => {}
            (_, []) => printer.message(&format!("Unable to find image '{shown}' locally\n")),
            (platform, _) => printer.message(&format!(
                "Unable to find image '{shown}' for {} locally; it is here for {}\n",
                platform.clone().unwrap_or_else(Platform::host),
                visible_name(&platform_names(here))
            )),
        }
        printer.message(&first_lines(&shown, &request.reference));
    }
    let (progress, display) = match is_quiet {
        true => TransferDisplay::start(session, Direction::Pull, true),
        false => TransferDisplay::lines(session, Direction::Pull),
    };
    let platforms = request.platform.iter().cloned().collect();
    let wanted = PullRequest { reference: request.reference.clone(), platforms, all_platforms: false };
    let result = engine.pull(&wanted, &progress);
    display.finish();
    let result = result.map_err(|error| match held {
        None => with_near_names(engine, error, &shown),
        // The name is right.
        Some(_) => error,
    })?;
    if let Some(replaced) = &result.replaced {
        printer.warning(&replaced.notice(&request.reference, &result.root));
    }
    if !is_quiet {
        let state = if result.was_current { "Image is up to date" } else { "Downloaded newer image" };
        printer.message(&format!("Digest: {}\nStatus: {state} for {shown}\n", result.root.digest));
    }
    Ok(())
}

/// Adds the names of the store that may have been meant by one that is not to be had.
fn with_near_names(engine: &Engine, error: BuildError, name: &str) -> BuildError {
    let add = |services: Arc<Services>| async move {
        Ok(polyarch_images::lookup::with_near_names(services.store(), error, name))
    };
    engine.perform(add).unwrap_or_else(|error| error)
}
