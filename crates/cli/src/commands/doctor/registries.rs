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

#[cfg(test)]
mod tests {
    use polyarch_registry::RegistryConfig;

    use super::*;

    #[test]
    fn every_host_is_asked_once_and_mirrors_are_known_as_such() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".docker")).unwrap();
        std::fs::write(
            home.path().join(".docker/config.json"),
            r#"{"auths": {"https://index.docker.io/v1/": {}, "https://login.example": {}}}"#,
        )
        .unwrap();
        let with_home = |variables: &[(&str, &str)]| Environment {
            variables: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect(),
            current_directory: "/".into(),
            ..Environment::default()
        };
        let hosts_of = |environment: &Environment| -> Vec<(String, Role)> {
            let (mut settings, _) = Settings::load_as_far_as_possible(environment, None);
            let text = "[registry.\"docker.io\"]\nmirrors = [\"m.example:5000\"]\n\
                [registry.\"m.example:5000\"]\nhttp = true\n[registry.\"own.example\"]\ninsecure = true\n";
            let config = RegistryConfig::parse(text).unwrap();
            settings.hosts = config.resolve(|_| Ok(Vec::new())).unwrap();
            hosts(&settings, environment).into_iter().collect()
        };
        let mirror = ("m.example:5000".to_owned(), Role::MirrorOf("docker.io".to_owned()));
        let own = ("own.example".to_owned(), Role::Named);
        assert_eq!(
            hosts_of(&with_home(&[])),
            [("docker.io".to_owned(), Role::Default), mirror.clone(), own.clone()]
        );
        let named = |host: &str| (host.to_owned(), Role::Named);
        assert_eq!(
            hosts_of(&with_home(&[("HOME", home.path().to_str().unwrap())])),
            [named("docker.io"), named("login.example"), mirror, own]
        );
    }
}
