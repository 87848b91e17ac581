// SPDX-License-Identifier: Apache-2.0
//! Asks every registry and mirror of the settings, all at the same time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use polyarch_build::error::chain_of;
use polyarch_oci::reference::DEFAULT_HOST;
use polyarch_registry::{Client, CredentialUse, RegistryError};

use super::files::hosts_with_credentials;
use super::{Check, Outcome};
use crate::Environment;
use crate::config::Settings;

/// Why a host is asked; decides how bad it is when it does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    /// The settings have a section for it, or there is a login.
    Named,
    /// It holds copies of another host's images.
    MirrorOf(String),
    /// Images without a host come from it.
    Default,
}

/// Asks the hosts, and says how each answered.
pub(super) fn check(settings: &Settings, environment: &Environment, limit: Duration) -> Vec<Check> {
    let mut options = settings.client_options();
    options.retry.max_attempts = 1;
    options.connect_timeout = limit;
    options.answer_timeout = limit;
    let hosts = hosts(settings, environment);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return vec![Check::new("registries", Outcome::Problem, format!("can't be asked: {error}"))];
        }
    };
    runtime.block_on(async {
        let mut tasks = Vec::new();
        let client = Client::new(options);
        for (host, role) in hosts {
            let client = client.clone();
            tasks.push(tokio::spawn(async move {
                let start = Instant::now();
                // Twice the limit: a challenge leads to a token server, which has as long.
                let answer = tokio::time::timeout(limit * 2, client.check_login(&host)).await;
                let answer = answer.map(|answer| answer.map(|login| login.was_asked));
                judge(&host, &role, answer.ok(), start.elapsed())
            }));
        }
        let mut checks = Vec::new();
        for task in tasks {
            match task.await {
                Ok(check) => checks.push(check),
                Err(error) => checks.push(Check::new("registries", Outcome::Problem, error.to_string())),
            }
        }
        checks
    })
}

/// Returns the hosts to ask, each once.
fn hosts(settings: &Settings, environment: &Environment) -> BTreeMap<String, Role> {
    let mut hosts = BTreeMap::from([(DEFAULT_HOST.to_owned(), Role::Default)]);
    for (host, section) in settings.hosts.iter() {
        for mirror in &section.mirrors {
            hosts.entry(mirror.host.clone()).or_insert_with(|| Role::MirrorOf(host.to_owned()));
        }
    }
    for (host, section) in settings.hosts.iter() {
        // A section may only say how to talk to a mirror, or name the mirrors of the default.
        let is_plain = section.mirrors.is_empty() || host != DEFAULT_HOST;
        if is_plain && !matches!(hosts.get(host), Some(Role::MirrorOf(_))) {
            hosts.insert(host.to_owned(), Role::Named);
        }
    }
    for host in hosts_with_credentials(environment) {
        hosts.insert(host, Role::Named);
    }
    hosts
}

/// Turns an answer (`None` when there was none in time) into a line.
fn judge(host: &str, role: &Role, answer: Option<Result<bool, RegistryError>>, time: Duration) -> Check {
    let name = match role {
        Role::MirrorOf(origin) => format!("registry {host}, mirror of {origin}"),
        _ => format!("registry {host}"),
    };
    let milliseconds = time.as_millis();
    let login = format!("polyarch login {host}");
    match answer {
        Some(Ok(true)) => Check::ok(name, format!("answers in {milliseconds} ms, and lets you in")),
        Some(Ok(false)) => Check::ok(name, format!("answers in {milliseconds} ms, asks for no login")),
        Some(Err(RegistryError::Unauthorized { credentials, .. })) => {
            let (status, what) = match &*credentials {
                CredentialUse::None => (Outcome::Warning, "wants a login, and there is none".to_owned()),
                CredentialUse::Sent { origin } => {
                    (Outcome::Problem, format!("refuses the login of {origin}"))
                }
                CredentialUse::Unavailable { reason } => {
                    (Outcome::Problem, format!("wants a login, which can't be had: {reason}"))
                }
            };
            Check::new(name, status, format!("answers in {milliseconds} ms, but {what}")).with_fix(login)
        }
        other => {
            let reason = match other {
                Some(Err(error)) => chain_of(&error),
                _ => format!("no answer within {milliseconds} ms"),
            };
            let (status, fix) = match role {
                Role::Named => (Outcome::Problem, "check its name, the network and the settings of proxies"),
                Role::MirrorOf(_) => {
                    (Outcome::Warning, "images come from the registry itself until it answers")
                }
                Role::Default => (Outcome::Warning, "name a mirror in the settings, or work with --offline"),
            };
            Check::new(name, status, reason).with_fix(fix)
        }
    }
}
