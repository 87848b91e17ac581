// SPDX-License-Identifier: Apache-2.0
//! The arguments that every Dockerfile has without declaring values: platforms, and proxies.

use polyarch_oci::Platform;

/// The proxies that are RUN's environment without an ARG line and never part of a cache key.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Tells whether an argument is a proxy, in any casing.
pub fn is_proxy_arg(name: &str) -> bool {
    PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
}

/// Returns the environment that proxies among arguments stand for, in both casings that programs look for.
///
/// Of one that is given several times, the name that comes last in the order of bytes counts, as in BuildKit.
pub fn proxy_env(args: &[(String, String)]) -> Vec<String> {
    let mut env = Vec::new();
    for proxy in PROXIES {
        let given = args.iter().filter(|(name, _)| name.eq_ignore_ascii_case(proxy));
        let Some((_, value)) = given.max_by(|one, other| one.0.cmp(&other.0)) else { continue };
        if !value.is_empty() {
            env.extend([format!("{proxy}={value}"), format!("{}={value}", proxy.to_ascii_lowercase())]);
        }
    }
    env
}

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
    fn proxies_are_known_in_any_casing() {
        let args = [("http_proxy", "a"), ("FOO", "b"), ("No_Proxy", "c"), ("ALL_PROXY", "")];
        let args = args.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let expected = ["HTTP_PROXY=a", "http_proxy=a", "NO_PROXY=c", "no_proxy=c"];
        assert_eq!(proxy_env(&args), expected);
        let twice = [("http_proxy", "small"), ("HTTP_PROXY", "capital")];
        let twice = twice.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(proxy_env(&twice), ["HTTP_PROXY=small", "http_proxy=small"]);
    }

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
