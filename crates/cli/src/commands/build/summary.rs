// SPDX-License-Identifier: Apache-2.0
//! What is said at the end of a build: the digest, a row per platform, where the result is.

use polyarch_build::request::{Destination, Output};
use polyarch_build::result::Execution;
use polyarch_build::{BuildRequest, BuildResult};
use polyarch_oci::media_type;

use super::table::render_table;
use crate::progress::format::size;
use crate::visible_text::visible_line;

/// Writes the summary.
pub fn render(request: &BuildRequest, result: &BuildResult) -> String {
    let mut text = String::from("\n");
    if let Some(root) = &result.root {
        let kind = if media_type::is_index(&root.media_type) { "index" } else { "image" };
        text.push_str(&format!("{kind} {}\n", root.digest));
    }
    let rows: Vec<Vec<String>> = result
        .platforms
        .iter()
        .map(|platform| {
            let digest = platform.manifest.as_ref().map_or(String::new(), |m| m.digest.to_string());
            let has_image = platform.manifest.is_some();
            vec![
                format!("  {}", platform.platform),
                digest,
                if has_image { size(platform.size_bytes) } else { String::new() },
                execution(&platform.execution),
                format!("{:.1}s", platform.duration.as_secs_f64()),
            ]
        })
        .collect();
    text.push_str(&render_table(&rows));
    text.push_str(&render_table(&places(request, result)));
    text
}

/// Lists names and files with where they are.
fn places(request: &BuildRequest, result: &BuildResult) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for name in &result.names {
        let is_pushed = result.pushed.contains(name);
        let place = if is_pushed { "local store, pushed" } else { "local store" };
        rows.push(vec![format!("  {name}"), place.to_owned()]);
    }
    for name in result.pushed.iter().filter(|name| !result.names.contains(name)) {
        rows.push(vec![format!("  {name}"), "pushed".to_owned()]);
    }
    if result.names.is_empty() && result.pushed.is_empty() && result.root.is_some() {
        rows.push(vec!["  no name".to_owned(), "local store; --tag NAME gives it one".to_owned()]);
    }
    for output in &request.outputs {
        let (destination, what) = match output {
            Output::Oci { destination, tar: true } => (destination, "OCI archive"),
            Output::Oci { destination, tar: false } => (destination, "OCI layout"),
            Output::Docker { destination: Some(destination) } => (destination, "docker archive"),
            Output::Tar { destination, .. } => (destination, "file tree as tar"),
            Output::Local { destination, .. } => {
                rows.push(vec![shown(&destination.to_string_lossy()), "file tree".to_owned()]);
                continue;
            }
            Output::Image { .. } | Output::Docker { destination: None } | Output::CacheOnly => continue,
        };
        let place = match destination {
            Destination::Path(path) => shown(&path.to_string_lossy()),
            Destination::Stdout | Destination::Stream(_) => "  standard output".to_owned(),
        };
        rows.push(vec![place, what.to_owned()]);
    }
    rows
}

fn shown(path: &str) -> String {
    format!("  {}", visible_line(path.as_bytes()))
}

/// Says how the steps of a platform ran.
pub fn execution(execution: &Execution) -> String {
    match execution {
        Execution::None => "cached".to_owned(),
        Execution::Native => "native".to_owned(),
        Execution::Emulated(emulator) => format!("emulated ({emulator})"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::time::Duration;

    use polyarch_build::PlatformResult;
    use polyarch_build::request::{
        Context, DockerfileSource, ImageOptions, NetworkMode, PullPolicy, StepOptions,
    };
    use polyarch_oci::{Descriptor, Digest};

    fn request(outputs: Vec<Output>) -> BuildRequest {
        BuildRequest {
            context: Context::Empty,
            contexts: Vec::new(),
            dockerfile: DockerfileSource::Default,
            platforms: Vec::new(),
            names: Vec::new(),
            keeps_names: true,
            target: None,
            build_args: Vec::new(),
            labels: Vec::new(),
            outputs,
            no_cache: false,
            policies: Default::default(),
            cache: Default::default(),
            pull: PullPolicy::Default,
            source_date_epoch: None,
            network: NetworkMode::Default,
            extra_hosts: Vec::new(),
            shm_size_bytes: None,
            steps: StepOptions::default(),
            image: ImageOptions::default(),
            attestations: Default::default(),
            verify: true,
            max_parallel: 0,
            threads: 0,
        }
    }

    /// A result of three platforms, each executed in another way.
    pub(in super::super) fn result() -> BuildResult {
        let platform = |name: &str, execution, seconds| PlatformResult {
            platform: name.parse().unwrap(),
            manifest: Some(Descriptor::new(media_type::OCI_MANIFEST, Digest::of(name), 500)),
            config: Some(Digest::of("config")),
            size_bytes: 12_345_678,
            execution,
            duration: Duration::from_millis(seconds),
        };
        BuildResult {
            root: Some(Descriptor::new(media_type::OCI_INDEX, Digest::of("index"), 700)),
            platforms: vec![
                platform("linux/amd64", Execution::Native, 3_140),
                platform("linux/arm64", Execution::Emulated("qemu-aarch64 7.2.22".to_owned()), 31_400),
                platform("linux/arm/v7", Execution::None, 0),
            ],
            names: vec!["user/app:v1".parse().unwrap(), "r.example/app:v1".parse().unwrap()],
            pushed: vec!["r.example/app:v1".parse().unwrap()],
            provenance: Vec::new(),
        }
    }

    #[test]
    fn the_summary_has_a_row_per_platform_and_says_where_the_result_is() {
        insta::assert_snapshot!(render(&request(Vec::new()), &result()), @r#"
        index sha256:1bc04b5291c26a46d918139138b992d2de976d6851d0893b0476b85bfbdfc6e6
          linux/amd64    sha256:baf0239e48ff4c47ebac3ba02b5cf1506b69cd5a0c0d0c825a53ba65976fb942   12.35MB   native                           3.1s
          linux/arm64    sha256:b3e3ab55f887c56c0bd8bec3743b0fb54daaa17861e03db5133ef2835eb0da5a   12.35MB   emulated (qemu-aarch64 7.2.22)   31.4s
          linux/arm/v7   sha256:35df9beb9b1c4fe630707bc51e4360b94b506b4e6d5372d5d0d52a385350621b   12.35MB   cached                           0.0s
          docker.io/user/app:v1   local store
          r.example/app:v1        local store, pushed
        "#);
    }

    #[test]
    fn results_without_names_and_without_images_are_told_too() {
        let path = |name: &str| Destination::Path(name.into());
        let outputs = vec![
            Output::Oci { destination: path("/out/a.tar"), tar: true },
            Output::Tar { destination: Destination::Stdout, platform_split: None },
            Output::Local { destination: "/out/\u{1b}[31mtree".into(), platform_split: None },
        ];
        let mut result = BuildResult { names: Vec::new(), pushed: Vec::new(), ..result() };
        result.platforms.truncate(1);
        insta::assert_snapshot!(render(&request(outputs), &result), @r#"
        index sha256:1bc04b5291c26a46d918139138b992d2de976d6851d0893b0476b85bfbdfc6e6
          linux/amd64   sha256:baf0239e48ff4c47ebac3ba02b5cf1506b69cd5a0c0d0c825a53ba65976fb942   12.35MB   native   3.1s
          no name           local store; --tag NAME gives it one
          /out/a.tar        OCI archive
          standard output   file tree as tar
          /out/tree         file tree
        "#);
        result.root = None;
        result.platforms[0].manifest = None;
        let outputs = vec![Output::Local { destination: "/out".into(), platform_split: None }];
        insta::assert_snapshot!(render(&request(outputs), &result), @r#"
        linux/amd64   native   3.1s
        /out   file tree
        "#);
    }
}
