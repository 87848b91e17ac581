// SPDX-License-Identifier: Apache-2.0
//! RUN: what becomes of its command, its mounts and its flags.

use polyarch_dockerfile::Instruction;
use polyarch_dockerfile::instruction::{MountSpec, Network, Program, Run, Security};

use super::Lowering;
use super::instruction::{absolute, shell_of};
use super::stage::StageState;
use crate::error::{BuildError, ErrorKind};
use crate::ops::OpKind;
use crate::ops::exec::ExecOp;
use crate::request::NetworkMode;

impl Lowering<'_, '_> {
    pub(super) fn run(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
        run: &Run,
    ) -> Result<(), BuildError> {
        let span = instruction.span;
        if run.security == Security::Insecure {
            return Err(self.not_yet("RUN --security=insecure", span));
        }
        if !run.devices.is_empty() {
            return Err(self.not_yet("RUN --device", span));
        }
        let mut tmpfs = Vec::new();
        for mount in &run.mounts {
            let spec = mount.spec().map_err(|error| {
                BuildError::from_source(ErrorKind::Dockerfile, "RUN --mount", &error)
                    .at(self.frontend.location(span))
            })?;
            match spec {
                MountSpec::Tmpfs { target, size_bytes } => {
                    tmpfs.push((absolute(&state.draft.config.config.working_dir, &target), size_bytes));
                }
                MountSpec::Bind { .. } => return Err(self.not_yet("RUN --mount=type=bind", span)),
                MountSpec::Cache { .. } => return Err(self.not_yet("RUN --mount=type=cache", span)),
                MountSpec::Secret { .. } => return Err(self.not_yet("RUN --mount=type=secret", span)),
                MountSpec::Ssh { .. } => return Err(self.not_yet("RUN --mount=type=ssh", span)),
            }
        }
        let shell = shell_of(state);
        let (args, script) = match run.program() {
            Program::Shell(text) => (shell.iter().cloned().chain([text]).collect(), None),
            Program::Exec(arguments) => (arguments, None),
            Program::Script { file_name, content } => (vec![file_name.clone()], Some((file_name, content))),
        };
        if args.is_empty() {
            let error = BuildError::new(ErrorKind::Dockerfile, "RUN needs a command");
            return Err(error.at(self.frontend.location(span)));
        }
        let shown_command = args.join(" ");
        let count = state.arguments.len();
        let declared: Vec<String> =
            state.arguments.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let arguments = if count == 0 { String::new() } else { format!("|{count} {} ", declared.join(" ")) };
        state.record(format!("RUN {arguments}{shown_command}"), true);
        let request = self.frontend.request;
        let working_dir = state.draft.config.config.working_dir.clone();
        let op = ExecOp {
            services: self.frontend.services.clone(),
            stats: self.frontend.stats.clone(),
            platform: state.draft.platform.clone(),
            args,
            shown_command,
            script,
            env: state.run_env(),
            unkeyed_env: self.frontend.proxy_env(),
            cwd: if working_dir.is_empty() { "/".to_owned() } else { working_dir },
            user: state.draft.config.config.user.clone(),
            network: match run.network {
                Network::Default => request.network,
                Network::None => NetworkMode::None,
                Network::Host => NetworkMode::Host,
            },
            extra_hosts: request.extra_hosts.clone(),
            shm_size_bytes: request.shm_size_bytes,
            tmpfs,
        };
        self.add_step(state, instruction, &instruction.original, OpKind::Exec(Box::new(op)), Vec::new());
        Ok(())
    }
}
