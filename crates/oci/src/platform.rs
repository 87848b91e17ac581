// SPDX-License-Identifier: Apache-2.0
//! Platforms: what an image runs on (image-spec, image-index.md, `platform`; containerd's rules of names).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system, a CPU architecture and, where it has several, the variant.
///
/// Names are Go's. [`Platform::normalized`] gives the canonical form: `arm64` without `v8`, `arm` with
/// `v7` spelled out, `amd64` without `v1`. As text the version and the features of the operating system stand in
/// parentheses: `windows(10.0.20348+win32k)/amd64`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Platform {
    /// The CPU architecture.
    #[serde(default)]
    pub architecture: String,
    /// The operating system.
    #[serde(default)]
    pub os: String,
    /// The version of the operating system (Windows).
    #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Features of the operating system.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// The variant of the architecture.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// Says why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// The text is empty or has more than three parts.
    #[error(
        "platform {text:?} is not of the form os[/architecture[/variant]], for example linux/arm64 or linux/arm/v7"
    )]
    Form {
        /// The rejected text.
        text: String,
    },
    /// A part has characters that no platform has.
    #[error("platform {text:?}: {part:?} may only have letters, digits, `_`, `.` and `-`")]
    Characters {
        /// The rejected text.
        text: String,
        /// The rejected part.
        part: String,
    },
    /// A single word is neither an operating system nor an architecture.
    #[error("platform {text:?}: unknown operating system or architecture{hint}")]
    Unknown {
        /// The rejected text.
        text: String,
        /// The nearest known word, as ` (did you mean …?)`.
        hint: String,
    },
    /// A part is well formed, but no system, architecture or variant of that name is known.
    #[error("platform {text:?}: unknown {what} {part:?}{hint}")]
    UnknownPart {
        /// The rejected text.
        text: String,
        /// Which part it is.
        what: &'static str,
        /// The rejected part.
        part: String,
        /// The nearest known word, as ` (did you mean …?)`.
        hint: String,
    },
}

/// The architectures that are known by name.
pub const ARCHITECTURES: &[&str] = &[
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le",
    "riscv64", "s390x", "wasm",
];

/// Architectures that Go has, or once had, names for, and that no image is made for.
const RARE_ARCHITECTURES: &[&str] =
    &["arm64be", "armbe", "ppc", "riscv", "s390", "sparc", "sparc64", "unknown", "wasm32"];

/// Systems of images without an operating system, and the one that attestations claim.
const RARE_SYSTEMS: &[&str] = &["hurd", "unknown", "wasi", "wasip2", "zos"];

const SYSTEMS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "illumos",
    "ios",
    "js",
    "linux",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "windows",
];

impl Platform {
    /// Makes a platform of its parts and normalizes it.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Platform {
        Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            ..Platform::default()
        }
        .normalized()
    }

    /// Returns the platform of the machine that runs this program.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "loongarch64" => "loong64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "mips64" if cfg!(target_endian = "little") => "mips64le",
            other => other,
        };
        Platform::new("linux", architecture, "")
    }

    /// Returns the canonical form of the same platform.
    pub fn normalized(mut self) -> Platform {
        self.os = normal_os(&self.os);
        let (architecture, variant) = normal_architecture(&self.architecture, &self.variant);
        self.architecture = architecture;
        self.variant = variant;
        self
    }

    /// Returns the name without version and features of the operating system.
    pub fn short_name(&self) -> String {
        let separator = if self.variant.is_empty() { "" } else { "/" };
        format!("{}/{}{separator}{}", self.os, self.architecture, self.variant)
    }

    /// Returns the form used in directory names of split outputs: `linux_arm_v7`.
    pub fn directory_name(&self) -> String {
        self.to_string().replace('/', "_")
    }

    /// Returns `architecture[/variant]`, the part that tells platforms of one system apart.
    pub fn architecture_and_variant(&self) -> String {
        if self.variant.is_empty() {
            self.architecture.clone()
        } else {
            format!("{}/{}", self.architecture, self.variant)
        }
    }

    /// Reads what a user wrote: the same forms as [`FromStr`], of systems, architectures and variants that exist.
    ///
    /// Documents may claim anything and are read without this; a name that a user mistyped would otherwise be
    /// looked for, or built, in vain.
    ///
    /// # Errors
    /// What is unknown, with the nearest name that is known.
    pub fn parse_known(text: &str) -> Result<Platform, PlatformError> {
        let platform: Platform = text.parse()?;
        let check = |what, part: &str, known: &[&str], rare: &[&str]| {
            if known.contains(&part) || rare.contains(&part) {
                return Ok(());
            }
            let hint = did_you_mean(part, known);
            Err(PlatformError::UnknownPart { text: text.to_owned(), what, part: part.to_owned(), hint })
        };
        check("operating system", &platform.os, SYSTEMS, RARE_SYSTEMS)?;
        check("architecture", &platform.architecture, ARCHITECTURES, RARE_ARCHITECTURES)?;
        // Only these two have a closed set; the others name microarchitectures, of which there come ever more.
        match platform.architecture.as_str() {
            "amd64" => check("variant of amd64", &platform.variant, &["v1", "v2", "v3", "v4"], &[""])?,
            "arm" => check("variant of arm", &platform.variant, &["v5", "v6", "v7", "v8"], &[""])?,
            _ => {}
        }
        Ok(platform)
    }

    /// Reads a list separated by commas; repeated platforms are kept once.
    ///
    /// # Errors
    /// The first entry that is not a platform.
    pub fn parse_list(text: &str) -> Result<Vec<Platform>, PlatformError> {
        let mut platforms = Vec::new();
        for part in text.split(',') {
            let platform: Platform = part.trim().parse()?;
            if !platforms.contains(&platform) {
                platforms.push(platform);
            }
        }
        Ok(platforms)
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// Reads `os[(version[+feature…])]/architecture[/variant]`, or one word: an architecture (of Linux) or `linux`,
    /// or `local`.
    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        if text == "local" {
            return Ok(Platform::host());
        }
        let (system, os_version, os_features) = os_options(text)?;
        let mut parts: Vec<&str> = text.split('/').collect();
        parts[0] = system;
        if text.is_empty() || parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
            return Err(PlatformError::Form { text: text.to_owned() });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if let Some(part) = parts.iter().find(|part| !part.chars().all(allowed)) {
            return Err(PlatformError::Characters { text: text.to_owned(), part: (*part).to_owned() });
        }
        let with_options = |platform: Platform| Platform {
            os_version: os_version.clone(),
            os_features: os_features.clone(),
            ..platform
        };
        match parts[..] {
            [word] => {
                let os = normal_os(word);
                if SYSTEMS.contains(&os.as_str()) {
                    return Ok(with_options(Platform { os, ..Platform::host() }));
                }
                let platform = Platform::new("linux", word, "");
                if os_version.is_empty()
                    && os_features.is_empty()
                    && ARCHITECTURES.contains(&platform.architecture.as_str())
                {
                    return Ok(platform);
                }
                let known = ARCHITECTURES.iter().chain(SYSTEMS);
                Err(PlatformError::Unknown { text: text.to_owned(), hint: did_you_mean(word, known) })
            }
            [os, architecture] => Ok(with_options(Platform::new(os, architecture, ""))),
            [os, architecture, variant] => Ok(with_options(Platform::new(os, architecture, variant))),
            _ => Err(PlatformError::Form { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if !self.os_version.is_empty() || !self.os_features.is_empty() {
            let features: std::collections::BTreeSet<&String> = self.os_features.iter().collect();
            write!(f, "({}", encoded(&self.os_version))?;
            for feature in features {
                write!(f, "+{}", encoded(feature))?;
            }
            f.write_str(")")?;
        }
        write!(f, "/{}", self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// Takes version and features off the operating system at the beginning of a text.
fn os_options(text: &str) -> Result<(&str, String, Vec<String>), PlatformError> {
    let system = text.split('/').next().unwrap_or_default();
    let Some((name, options)) = system.split_once('(') else {
        return Ok((system, String::new(), Vec::new()));
    };
    let form = || PlatformError::Form { text: text.to_owned() };
    let options = options.strip_suffix(')').ok_or_else(form)?;
    let mut values = options.split('+').map(|option| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '%');
        if !option.chars().all(allowed) {
            return Err(PlatformError::Characters { text: text.to_owned(), part: option.to_owned() });
        }
        Ok(decoded(option))
    });
    let version = values.next().transpose()?.unwrap_or_default();
    let features = values.collect::<Result<Vec<String>, _>>()?;
    if features.iter().any(String::is_empty) || options.is_empty() {
        return Err(form());
    }
    Ok((name, version, features))
}

/// The characters of versions and features that would be read as something else.
const ENCODED: [(&str, &str); 5] = [("%", "%25"), ("+", "%2B"), ("(", "%28"), (")", "%29"), ("/", "%2F")];

fn encoded(option: &str) -> String {
    ENCODED.iter().fold(option.to_owned(), |text, (plain, code)| text.replace(plain, code))
}

fn decoded(option: &str) -> String {
    ENCODED.iter().rev().fold(option.to_owned(), |text, (plain, code)| text.replace(code, plain))
}

fn normal_os(os: &str) -> String {
    let os = os.to_ascii_lowercase();
    if os == "macos" { "darwin".to_owned() } else { os }
}

/// Gives the canonical names of an architecture and its variant.
fn normal_architecture(architecture: &str, variant: &str) -> (String, String) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.to_ascii_lowercase();
    let (architecture, variant) = match architecture.as_str() {
        "i386" | "i486" | "i586" | "i686" | "x86" => ("386", ""),
        "x86_64" | "x86-64" | "amd64" => ("amd64", if variant == "v1" { "" } else { variant.as_str() }),
        "aarch64" | "arm64" | "arm64v8" => {
            ("arm64", if matches!(variant.as_str(), "8" | "v8" | "v8.0") { "" } else { variant.as_str() })
        }
        "armhf" | "armv7" | "armv7l" | "arm32v7" => ("arm", "v7"),
        "armel" | "armv6" | "armv6l" | "arm32v6" => ("arm", "v6"),
        "armv5" | "arm32v5" => ("arm", "v5"),
        "armv8" => ("arm", "v8"),
        "arm" => (
            "arm",
            match variant.as_str() {
                "" | "7" => "v7",
                "5" => "v5",
                "6" => "v6",
                "8" => "v8",
                other => other,
            },
        ),
        "loongarch64" => ("loong64", variant.as_str()),
        "powerpc64le" | "ppc64el" => ("ppc64le", variant.as_str()),
        "mips64el" => ("mips64le", variant.as_str()),
        "mipsel" => ("mipsle", variant.as_str()),
        other => (other, variant.as_str()),
    };
    (architecture.to_owned(), variant.to_owned())
}

/// Returns ` (did you mean …?)` when a known word is at most two edits away.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a &'a str>) -> String {
    let word = word.to_ascii_lowercase();
    let nearest = known.into_iter().map(|it| (edit_distance(&word, &it.to_ascii_lowercase()), *it)).min();
    match nearest {
        Some((distance, candidate)) if distance <= 2 && 2 * distance <= word.len() => {
            format!(" (did you mean {candidate}?)")
        }
        _ => String::new(),
    }
}

/// Counts the insertions, deletions, replacements and swaps of neighbours between two words; of a long
/// first one, its beginning.
pub fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().collect();
    let mut above: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut next = vec![i + 1; b.len() + 1];
        for j in 0..b.len() {
            let replaced = row[j] + usize::from(a[i] != b[j]);
            next[j + 1] = replaced.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                next[j + 1] = next[j + 1].min(above[j - 1] + 1);
            }
        }
        above = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapped_neighbours_are_one_edit() {
        let table =
            [("", "", 0), ("", "ab", 2), ("mutli", "multi", 1), ("ab", "ba", 1), ("kitten", "sitting", 3)];
        for (a, b, distance) in table {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
        }
    }

    #[test]
    fn names_of_the_field_are_normalized() {
        let table = [
            ("linux/x86_64", "linux/amd64"),
            ("x86-64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("aarch64", "linux/arm64"),
            ("arm64v8", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("armv7", "linux/arm/v7"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/7", "linux/arm/v7"),
            ("armhf", "linux/arm/v7"),
            ("armel", "linux/arm/v6"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("i686", "linux/386"),
            ("loongarch64", "linux/loong64"),
            ("ppc64el", "linux/ppc64le"),
            ("mips64el", "linux/mips64le"),
            ("riscv64", "linux/riscv64"),
            ("s390x", "linux/s390x"),
            ("windows/amd64", "windows/amd64"),
            ("macos/arm64", "darwin/arm64"),
        ];
        for (text, normal) in table {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), normal, "{text}");
        }
    }

    #[test]
    fn systems_may_have_a_version_and_features() {
        let text = "windows(10.0.20348.1006+win32k)/amd64";
        let platform: Platform = text.parse().unwrap();
        assert_eq!((platform.os.as_str(), platform.os_version.as_str()), ("windows", "10.0.20348.1006"));
        assert_eq!(platform.os_features, ["win32k"]);
        assert_eq!(
            (platform.to_string(), platform.short_name()),
            (text.to_owned(), "windows/amd64".to_owned())
        );
        assert_eq!(platform.directory_name(), "windows(10.0.20348.1006+win32k)_amd64");
        for text in ["windows(1.2.3)/bar", "linux(+a+b)/arm/v6", "windows(a%2Fb%25)/amd64"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        let odd: Platform = "windows(a%2Fb%25)/amd64".parse().unwrap();
        assert_eq!(odd.os_version, "a/b%");
        for text in
            ["windows(1/amd64", "windows(1)x/amd64", "windows()/amd64", "windows(1+)/amd64", "windows(a b)/x"]
        {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn malformed_platforms_are_refused_with_a_hint() {
        for text in ["", "/", "linux/", "a/b/c/d", "linux/arm 64", "linux/../x/"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
        let error = "amd46".parse::<Platform>().unwrap_err().to_string();
        assert!(error.contains("did you mean amd64?"), "{error}");
    }

    #[test]
    fn what_users_write_must_exist_and_what_documents_say_need_not() {
        let table = [
            ("linux/amd46", "unknown architecture \"amd46\" (did you mean amd64?)"),
            ("linx/amd64", "unknown operating system \"linx\" (did you mean linux?)"),
            ("linux/arm/v9", "unknown variant of arm \"v9\" (did you mean v5?)"),
            ("linux/amd64/x3", "unknown variant of amd64 \"x3\" (did you mean v3?)"),
            ("linux/sparky", "unknown architecture \"sparky\""),
        ];
        for (text, expected) in table {
            let error = Platform::parse_known(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("platform {text:?}: {expected}")), "{error}");
            assert!(text.parse::<Platform>().is_ok(), "{text}");
        }
        for text in [
            "arm64",
            "local",
            "linux/x86_64",
            "linux/arm/7",
            "linux/amd64/v1",
            "linux/arm64/v9.5",
            "linux/riscv64/rva23u64",
            "windows/amd64",
            "wasi/wasm",
            "darwin",
            "unknown/unknown",
        ] {
            assert_eq!(Platform::parse_known(text), text.parse(), "{text}");
        }
    }

    #[test]
    fn a_list_keeps_order_and_drops_repetition() {
        let list = Platform::parse_list("linux/arm64, linux/amd64,aarch64").unwrap();
        let names: Vec<String> = list.iter().map(Platform::to_string).collect();
        assert_eq!(names, ["linux/arm64", "linux/amd64"]);
    }
}
