// SPDX-License-Identifier: Apache-2.0
//! `polyarch logout`: credentials forgotten, in docker's file and by the helper that it names.

use clap::Args;
use polyarch_registry::CredentialFile;
use polyarch_registry::credentials::{erase_with_helper, host_of_server, key_of_host};

use crate::CommandError;
use crate::credential_files::{HeldFile, before_dockers, docker_file};
use crate::session::Session;

/// Log out of a registry
///
/// Without SERVER it is Docker Hub, docker.io.
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// Host of the registry, with its port [default: docker.io]
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// Runs the command.
pub fn run(args: &LogoutArgs, session: &Session) -> Result<(), CommandError> {
    let host = host_of_server(args.server.as_deref().unwrap_or_default());
    let settings = session.settings()?;
    let path = docker_file(&session.environment)?;
    let mut is_known = false;
    if path.exists() {
        let mut file = HeldFile::open(&path)?;
        session.printer.data(&format!("Removing login credentials for {}\n", shown(args, &host)))?;
        if let Some(helper) = file.content().helper_of(&host).map(str::to_owned) {
            let engine = session.open_for_documents(&settings)?;
            let directories = session.environment.path_directories();
            let (name, server) = (helper.clone(), key_of_host(&host).to_owned());
            let erased =
                engine.wait_for(async move { erase_with_helper(&directories, &name, &server).await })?;
            match erased {
                Ok(was_there) => is_known |= was_there,
                Err(error) => {
                    return Err(CommandError::usage(format!(
                        "the credential helper {helper:?} could not forget {host}: {}",
                        polyarch_build::error::chain_of(&error)
                    )));
                }
            }
        }
        is_known |= file.content().remove(&host).map_err(|error| CommandError::usage(error.to_string()))?;
        file.save()?;
    } else {
        session.printer.data(&format!("Removing login credentials for {}\n", shown(args, &host)))?;
    }
    let mut has_others = false;
    for source in before_dockers(&session.environment) {
        let content = CredentialFile::parse(&source.origin, &source.text);
        if content.is_ok_and(|content| content.has(&host)) {
            has_others = true;
            session.printer.warning(&format!(
                "{} still has credentials for {host}, which polyarch will use; it is left as it is",
                source.origin
            ));
        }
    }
    if !is_known && !has_others {
        session.printer.message(&format!("nobody was logged in to {host}\n"));
    }
    Ok(())
}

/// Names the server as docker does: the hub by its old address.
fn shown(args: &LogoutArgs, host: &str) -> String {
    if args.server.is_none() { key_of_host(host).to_owned() } else { host.to_owned() }
}
