// SPDX-License-Identifier: Apache-2.0
//! `polyarch version`, `buildx version`, and what docker asks its plugins.

use clap::Args;
use polyarch_oci::Platform;

use crate::CommandError;
use crate::session::Session;
use crate::template::{Functions, Template, Value};

/// Print the version and this machine's platform
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// `json`, or a Go template over .Client and .Server, for example '{{.Client.Version}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Print the version
#[derive(Debug, Args)]
pub struct BuildxVersionArgs {}

/// Prints the version in the form of `docker version`, with the platform that pulls and builds are for.
pub fn run(args: &VersionArgs, session: &Session) -> Result<(), CommandError> {
    let host = Platform::host();
    let text = match args.format.as_deref() {
        None => render(&host, &kernel()),
        Some("json") => format!("{}\n", describe(&host, &kernel())),
        Some(template) => {
            let value = Value::from(describe(&host, &kernel()));
            Template::parse(template)?.render(&value, Functions::docker())? + "\n"
        }
    };
    session.printer.data(&text)
}

/// Says the same under docker's names; the server of scripts that ask for one is this program.
fn describe(host: &Platform, kernel: &str) -> serde_json::Value {
    let version = env!("CARGO_PKG_VERSION");
    serde_json::json!({
        "Client": {"Version": version, "Os": host.os, "Arch": host.architecture},
        "Server": {"Version": version, "Os": host.os, "Arch": host.architecture, "KernelVersion": kernel},
    })
}

/// Prints one line in the form of `buildx version`, which CI tools read: a name, then the version.
/// Of a builder that a flag names, the versions of its nodes follow.
pub fn run_buildx(
    _args: &BuildxVersionArgs,
    builder: Option<&str>,
    session: &Session,
) -> Result<(), CommandError> {
    let mut text = concat!("polyarch v", env!("CARGO_PKG_VERSION"), "\n").to_owned();
    if builder.is_some() {
        text.push_str(&super::buildx_builder::versions(builder, session)?);
    }
    session.printer.data(&text)
}

fn render(host: &Platform, kernel: &str) -> String {
    format!(
        "Client: Polyarch\n Version:           {}\n OS/Arch:           {host}\n\n\
         Server: none, the command is the builder\n OS/Arch:           {host}\n Kernel Version:    {kernel}\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Answers docker's question to its plugins (docker/cli, cli-plugins/manager).
pub fn plugin_metadata(session: &Session) -> Result<(), CommandError> {
    let answer = serde_json::json!({
        "SchemaVersion": "0.1.0",
        "Vendor": "Polyarch",
        "Version": concat!("v", env!("CARGO_PKG_VERSION")),
        "ShortDescription": "Builds images for many CPU architectures (polyarch)",
    });
    session.printer.data(&format!("{answer}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_have_dockers_fields() {
        let value = Value::from(describe(&"linux/arm64".parse().unwrap(), "6.18.0"));
        let template = Template::parse("{{.Server.Os}}/{{.Server.Arch}} {{.Client.Os}}").unwrap();
        assert_eq!(template.render(&value, Functions::docker()).unwrap(), "linux/arm64 linux");
    }

    #[test]
    fn the_version_tells_the_platform_as_docker_does() {
        let text = render(&"linux/arm64".parse().unwrap(), "6.18.0");
        let text = text.replace(env!("CARGO_PKG_VERSION"), "1.2.3");
        insta::assert_snapshot!(text, @r"
        Client: Polyarch
         Version:           1.2.3
         OS/Arch:           linux/arm64

        Server: none, the command is the builder
         OS/Arch:           linux/arm64
         Kernel Version:    6.18.0
        ");
    }
}
