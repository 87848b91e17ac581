// SPDX-License-Identifier: Apache-2.0
//! The arguments that every Dockerfile has without declaring values: platforms, and proxies.

use polyarch_oci::Platform;

/// Names that are RUN's environment without an ARG line and never part of a cache key.
pub const PROXY_ARGS: &[&str] = &[
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Returns the platform arguments of the global scope.
///
/// Inside a stage they are only visible after a bare `ARG NAME`.
pub fn platform_args(build: &Platform, target: &Platform, target_stage: &str) -> Vec<(String, String)> {
    let of = |prefix: &str, platform: &Platform| {
        [
            (format!("{prefix}PLATFORM"), platform.to_string()),
            (format!("{prefix}OS"), platform.os.clone()),
            (format!("{prefix}OSVERSION"), platform.os_version.clone()),
            (format!("{prefix}ARCH"), platform.architecture.clone()),
            (format!("{prefix}VARIANT"), platform.variant.clone()),
        ]
    };
    let mut args: Vec<(String, String)> =
        of("BUILD", build).into_iter().chain(of("TARGET", target)).collect();
    args.push(("TARGETSTAGE".to_owned(), target_stage.to_owned()));
    args
}

/// Tells whether an argument's value depends on the target platform.
pub fn is_target_arg(name: &str) -> bool {
    matches!(name, "TARGETPLATFORM" | "TARGETOS" | "TARGETOSVERSION" | "TARGETARCH" | "TARGETVARIANT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_an_argument_of_its_own() {
        let args = platform_args(
            &Platform::new("linux", "amd64", ""),
            &Platform::new("linux", "arm", "v7"),
            "default",
        );
        let get = |name: &str| args.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        assert_eq!(get("BUILDPLATFORM"), Some("linux/amd64"));
        assert_eq!(get("BUILDVARIANT"), Some(""));
        assert_eq!(get("TARGETPLATFORM"), Some("linux/arm/v7"));
        assert_eq!((get("TARGETARCH"), get("TARGETVARIANT")), (Some("arm"), Some("v7")));
        assert_eq!(get("TARGETSTAGE"), Some("default"));
    }
}
