// SPDX-License-Identifier: Apache-2.0
//! `polyarch login`: credentials tried at a registry, then kept where docker and podman find them too.

use std::path::Path;

use clap::{ArgAction, Args};
use polyarch_build::{BuildError, ErrorKind};
use polyarch_registry::credentials::{host_of_server, key_of_host, store_with_helper};
use polyarch_registry::{
    ClientOptions, Credential, CredentialFile, Credentials, FoundCredential, Login, RegistryError,
};

use super::flag_values::go_bool;
use crate::CommandError;
use crate::config::Settings;
use crate::credential_files::{HeldFile, before_dockers, docker_file};
use crate::engine::Engine;
use crate::session::Session;
use crate::visible_text::visible_line;

mod given;

use given::Given;

const HUB: &str = "docker.io";

/// Log in to a registry
///
/// The credentials are tried first, then kept in docker's config.json or with its credential helper, where
/// docker, podman and polyarch find them. Without SERVER it is Docker Hub, docker.io.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// User name
    #[arg(short, long, value_name = "USER")]
    username: Option<String>,
    /// Password or access token; "-" reads it from standard input
    #[arg(short, long, value_name = "PASSWORD")]
    password: Option<String>,
    /// Read the password or access token from standard input
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, value_name = "BOOL",
          value_parser = go_bool, action = ArgAction::Set)]
    password_stdin: bool,
    /// Print the user who is logged in, and do nothing
    #[arg(long, conflicts_with_all = ["username", "password", "password_stdin"])]
    get_login: bool,
    /// Host of the registry, with its port [default: docker.io]
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// Runs the command.
pub fn run(args: &LoginArgs, session: &Session) -> Result<(), CommandError> {
    let given = Given::new(args, session)?;
    let host = host_of_server(args.server.as_deref().unwrap_or_default());
    let settings = session.settings()?;
    let engine = session.open_for_documents(&settings)?;
    if args.get_login {
        return get_login(&engine, &settings, &host, session);
    }
    let path = docker_file(&session.environment)?;
    // A file that couldn't be written later is told before anybody types a password.
    drop(HeldFile::open(&path)?);
    if args.server.is_none() {
        session.printer.message("Logging in to docker.io; for another registry: polyarch login HOST\n");
    }
    let mut default_user = None;
    if given.user.is_none() && given.password.is_none() {
        match with_stored(&engine, &settings, &host, session)? {
            Stored::Accepted => return session.printer.data("Login Succeeded\n"),
            Stored::Refused { user } => default_user = user,
            Stored::None => {}
        }
    }
    let (user, password) = given.complete(&host, default_user, session)?;
    let credentials = Credentials::of_user(&host, &user, &password, "this login");
    let login =
        check(&engine, &settings, &host, credentials)?.map_err(|error| refused(&host, &user, &error))?;
    if !login.was_asked {
        session.printer.message(&format!("{host} lets in anybody: it did not ask for the password\n"));
    }
    let credential =
        login.identity_token.unwrap_or(Credential::UserPassword { user: user.clone(), password });
    keep(&engine, &path, &host, &user, &credential, session)?;
    warn_of_others(&path, &host, session);
    session.printer.data("Login Succeeded\n")
}

/// What became of credentials that are there already.
enum Stored {
    None,
    Accepted,
    Refused { user: Option<String> },
}

fn with_stored(
    engine: &Engine,
    settings: &Settings,
    host: &str,
    session: &Session,
) -> Result<Stored, CommandError> {
    let Ok(Some(found)) = find(engine, settings, host) else { return Ok(Stored::None) };
    let user = user_of(&found.credential);
    let shown = user
        .as_ref()
        .map_or_else(String::new, |user| format!(" [Username: {}]", visible_line(user.as_bytes())));
    session.printer.message(&format!(
        "Authenticating with existing credentials from {}...{shown}\n\
         For another account, first: polyarch logout {host}\n",
        found.origin
    ));
    match check(engine, settings, host, settings.credentials.clone())? {
        Ok(_) => Ok(Stored::Accepted),
        Err(RegistryError::Unauthorized { .. } | RegistryError::Denied { .. }) => {
            session.printer.message("Stored credentials invalid or expired\n");
            Ok(Stored::Refused { user })
        }
        Err(error) => {
            Err(polyarch_build::fetch::registry_error(format!("can't log in to {host}"), &error).into())
        }
    }
}

fn find(engine: &Engine, settings: &Settings, host: &str) -> Result<Option<FoundCredential>, CommandError> {
    let (credentials, host) = (settings.credentials.clone(), host.to_owned());
    engine
        .wait_for(async move { credentials.find(&host, "").await })?
        .map_err(|error| CommandError::usage(polyarch_build::error::chain_of(&error)))
}

fn user_of(credential: &Credential) -> Option<String> {
    match credential {
        Credential::UserPassword { user, .. } => Some(user.clone()),
        Credential::IdentityToken { .. } | Credential::RegistryToken { .. } => None,
    }
}

fn get_login(
    engine: &Engine,
    settings: &Settings,
    host: &str,
    session: &Session,
) -> Result<(), CommandError> {
    let found = find(engine, settings, host)?.ok_or_else(|| {
        CommandError::usage(format!("nobody is logged in to {host}"))
            .with_hint(format!("polyarch login {host}"))
    })?;
    let user = user_of(&found.credential).unwrap_or_else(|| "<token>".to_owned());
    session.printer.data(&format!("{}\n", visible_line(user.as_bytes())))
}

/// Tries credentials at the registry.
fn check(
    engine: &Engine,
    settings: &Settings,
    host: &str,
    credentials: Credentials,
) -> Result<Result<Login, RegistryError>, CommandError> {
    let options = ClientOptions { credentials, wants_identity_token: true, ..settings.client_options() };
    let host = host.to_owned();
    let checked =
        engine.wait_for(async move { polyarch_registry::Client::new(options).check_login(&host).await });
    Ok(checked?)
}

fn refused(host: &str, user: &str, error: &RegistryError) -> CommandError {
    match error {
        RegistryError::Unauthorized { refusal, .. } | RegistryError::Denied { refusal, .. } => {
            let message =
                format!("{host} does not accept the user name {user:?} with this password: {}", refusal.body);
            let failure = BuildError::new(ErrorKind::Registry, message);
            let hint = "where logging in takes a second factor, the password is an access token";
            failure.with_hint(hint).into()
        }
        error => polyarch_build::fetch::registry_error(format!("can't log in to {host}"), error).into(),
    }
}

/// Keeps a credential: with the helper that the file names for the host, else in the file.
fn keep(
    engine: &Engine,
    path: &Path,
    host: &str,
    user: &str,
    credential: &Credential,
    session: &Session,
) -> Result<(), CommandError> {
    let mut file = HeldFile::open(path)?;
    let helper = file.content().helper_of(host).map(str::to_owned);
    if let Some(helper) = &helper {
        let directories = session.environment.path_directories();
        let (helper_name, host, user) = (helper.clone(), host.to_owned(), user.to_owned());
        let credential = credential.clone();
        engine
            .wait_for(async move {
                store_with_helper(&directories, &helper_name, key_of_host(&host), &user, &credential).await
            })?
            .map_err(|error| {
                let message = format!(
                    "{} names the credential helper {helper:?}, which could not keep the credentials: {}",
                    path.display(),
                    polyarch_build::error::chain_of(&error)
                );
                CommandError::usage(message)
                    .with_hint("install the helper, or take it out of the file (credsStore, credHelpers)")
            })?;
    }
    set(file.content(), host, user, helper.is_none().then_some(credential))?;
    let has_changed = file.save()?;
    if has_changed && helper.is_none() && matches!(credential, Credential::UserPassword { .. }) {
        session.printer.message(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\
             Configure a credential helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/\n\n",
            path.display()
        ));
    }
    Ok(())
}

fn set(
    file: &mut CredentialFile,
    host: &str,
    user: &str,
    credential: Option<&Credential>,
) -> Result<(), CommandError> {
    file.set(host, user, credential).map_err(|error| CommandError::usage(error.to_string()))
}

/// Says when another source is asked first and has the host as well.
fn warn_of_others(path: &Path, host: &str, session: &Session) {
    for source in before_dockers(&session.environment) {
        let content = CredentialFile::parse(&source.origin, &source.text);
        if content.is_ok_and(|content| content.has(host)) {
            session.printer.warning(&format!(
                "{} has credentials for {host} too, and is asked before {}",
                source.origin,
                path.display()
            ));
        }
    }
}
