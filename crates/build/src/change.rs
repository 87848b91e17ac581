// SPDX-License-Identifier: Apache-2.0
//! Changes of an image's config in the words of a Dockerfile, outside of a build.

use polyarch_dockerfile::{Dockerfile, Environment, Expander, InstructionKind};
use polyarch_oci::ImageConfig;
use polyarch_oci::config::Empty;

use crate::error::{BuildError, ErrorKind, chain_of};
use crate::frontend::{DEFAULT_SHELL, absolute, set_env};

/// The instructions that change nothing but the config.
const KNOWN: &str =
    "CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME or WORKDIR";

/// Applies instructions to a config, in order; each text is one instruction.
///
/// Variables mean what the config's environment says at that point.
///
/// # Errors
/// When a text is no instruction, or one that needs a build; the config is then half changed and of no use.
pub fn change_config(config: &mut ImageConfig, changes: &[String]) -> Result<(), BuildError> {
    for change in changes {
        apply(config, change).map_err(|problem| {
            BuildError::new(ErrorKind::Usage, format!("{change:?} is no change of an image: {problem}"))
        })?;
    }
    Ok(())
}

fn apply(image: &mut ImageConfig, change: &str) -> Result<(), String> {
    let file = Dockerfile::parse(&format!("FROM scratch\n{change}\n")).map_err(|error| chain_of(&error))?;
    let [stage] = file.stages.as_slice() else { return Err(format!("write {KNOWN}")) };
    let [instruction] = stage.instructions.as_slice() else {
        return Err("write one instruction".to_owned());
    };
    let config = &mut image.config;
    let scope: Environment = config.env.iter().filter_map(|entry| entry.split_once('=')).collect();
    let expanded =
        instruction.expand(&mut Expander::new(&scope, file.escape)).map_err(|error| chain_of(&error))?;
    let shell = match config.shell.is_empty() {
        true => DEFAULT_SHELL.map(str::to_owned).to_vec(),
        false => config.shell.clone(),
    };
    match expanded.kind {
        InstructionKind::Cmd(command) => config.cmd = Some(command.arguments(&shell)),
        InstructionKind::Entrypoint(command) => config.entrypoint = Some(command.arguments(&shell)),
        InstructionKind::Env(env) => {
            for pair in &env.pairs {
                set_env(&mut config.env, &pair.name, &pair.value);
            }
        }
        InstructionKind::Expose(expose) => {
            let ports = expose.exposed_ports().map_err(|error| chain_of(&error))?;
            config.exposed_ports.extend(ports.into_iter().map(|port| (port, Empty {})));
        }
        InstructionKind::Healthcheck(healthcheck) => config.healthcheck = Some(healthcheck.config()),
        InstructionKind::Label(label) => {
            config.labels.extend(label.pairs.into_iter().map(|pair| (pair.name, pair.value)));
        }
        InstructionKind::Onbuild(onbuild) => config.on_build.push(onbuild.trigger),
        InstructionKind::Shell(shell) => config.shell = shell,
        InstructionKind::Stopsignal(signal) => {
            polyarch_dockerfile::value::signal::validate(&signal).map_err(|error| chain_of(&error))?;
            config.stop_signal = signal;
        }
        InstructionKind::User(user) => config.user = user,
        InstructionKind::Volume(volume) => {
            config.volumes.extend(volume.paths.into_iter().map(|path| (path, Empty {})));
        }
        InstructionKind::Workdir(path) => config.working_dir = absolute(&config.working_dir, &path),
        InstructionKind::Add(_)
        | InstructionKind::Arg(_)
        | InstructionKind::Copy(_)
        | InstructionKind::Maintainer(_)
        | InstructionKind::Run(_) => {
            return Err(format!("{} needs a build; write {KNOWN}", expanded.keyword));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<ImageConfig, BuildError> {
        let mut config = ImageConfig::default();
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        change_config(&mut config, &changes).map(|()| config)
    }

    #[test]
    fn instructions_change_the_config_as_in_a_build() {
        let config = changed(&[
            "ENV A=1 B=two",
            "env A=$B-3",
            "WORKDIR /srv",
            "WORKDIR app",
            "CMD echo hello",
            "ENTRYPOINT [\"/bin/x\", \"-y\"]",
            "EXPOSE 80 53/udp",
            "LABEL k=v",
            "USER 1000:1000",
            "VOLUME /data",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN make",
            "HEALTHCHECK NONE",
        ])
        .unwrap()
        .config;
        assert_eq!(config.env, ["A=two-3", "B=two"]);
        assert_eq!(config.working_dir, "/srv/app");
        assert_eq!(config.cmd.unwrap(), ["/bin/sh", "-c", "echo hello"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/x", "-y"]);
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!((config.labels["k"].as_str(), config.user.as_str()), ("v", "1000:1000"));
        assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/data"]);
        assert_eq!((config.stop_signal.as_str(), config.on_build), ("SIGINT", vec!["RUN make".to_owned()]));
        assert_eq!(config.healthcheck.unwrap().test, ["NONE"]);
    }

    #[test]
    fn what_needs_a_build_and_what_is_no_instruction_is_refused() {
        for (change, text) in [
            ("RUN make", "RUN needs a build"),
            ("COPY a b", "COPY needs a build"),
            ("FROM alpine", "write CMD"),
            ("CMDD x", "CMDD"),
            ("", "write one instruction"),
            ("USER a\nUSER b", "write one instruction"),
            ("EXPOSE nothing", "nothing"),
        ] {
            let error = changed(&[change]).unwrap_err();
            assert!(error.message.contains(text), "{change}: {}", error.message);
            assert_eq!(error.kind, ErrorKind::Usage);
        }
    }
}
