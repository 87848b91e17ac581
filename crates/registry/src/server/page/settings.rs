// SPDX-License-Identifier: Apache-2.0
//! How an image runs, as lines with the words of a Dockerfile.

use super::documents::ConfigDocument;
use super::shown::{arguments, visible};

/// The most variables that are shown.
const MAX_VARIABLES: usize = 100;

/// Returns what the config sets, in an order of importance; labels are left out.
pub(super) fn settings(config: &ConfigDocument) -> Vec<(String, String)> {
    let Some(settings) = &config.config else { return Vec::new() };
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push((name.to_owned(), value));
        }
    };
    let list = |list: &Option<Vec<String>>| {
        list.as_deref().filter(|list| !list.is_empty()).map(arguments).unwrap_or_default()
    };
    line("ENTRYPOINT", list(&settings.entrypoint));
    line("CMD", list(&settings.cmd));
    line("WORKDIR", visible(&settings.working_dir));
    line("USER", visible(&settings.user));
    for map in [("EXPOSE", &settings.exposed_ports), ("VOLUME", &settings.volumes)] {
        let names: Vec<&str> = map.1.iter().flatten().take(100).map(|(name, _)| name.as_str()).collect();
        line(map.0, visible(&names.join(" ")));
    }
    line("STOPSIGNAL", visible(&settings.stop_signal));
    line("SHELL", list(&settings.shell));
    line("HEALTHCHECK", settings.healthcheck.as_ref().map(|health| list(&health.test)).unwrap_or_default());
    for trigger in settings.on_build.iter().flatten().take(20) {
        line("ONBUILD", visible(trigger));
    }
    for variable in settings.env.iter().flatten().take(MAX_VARIABLES) {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        lines.push((format!("ENV {}", visible(name)), visible(value)));
    }
    lines
}
