// SPDX-License-Identifier: Apache-2.0
//! Settings: where the store is, and what the configuration file and the credentials say.
//!
//! `docs/configuration.md` describes the file. Flags win over variables, variables over the file, and
//! the user's file over the system's; the two files are not merged.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use polyarch_registry::{ClientOptions, Credentials, HostConfig, HostTable, ProxySettings, RegistryConfig};
use serde::Deserialize;

use crate::{CommandError, Environment};

/// No configuration and no credentials file is larger.
const MAX_FILE_BYTES: u64 = 4 << 20;
const SYSTEM_CONFIG: &str = "/etc/polyarch/config.toml";
const SYSTEM_ROOT: &str = "/var/lib/polyarch";

/// Everything that is set outside the command line's own flags.
#[derive(Clone)]
pub struct Settings {
    /// The directory that holds the store.
    pub root: PathBuf,
    /// Settings per registry.
    pub hosts: HostTable,
    /// Credentials per registry.
    pub credentials: Credentials,
    /// Proxies.
    pub proxy: ProxySettings,
    /// Where to look for emulators before `PATH`.
    pub emulator_directories: Vec<PathBuf>,
    /// How many steps run at a time; 0 lets the builder choose.
    pub max_parallel: usize,
    /// How many threads compress; 0 means one per CPU.
    pub threads: usize,
}

/// The configuration file, as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileConfig {
    #[serde(default)]
    registry: BTreeMap<String, HostConfig>,
    #[serde(default)]
    emulation: EmulationSection,
    #[serde(default)]
    build: BuildSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct EmulationSection {
    #[serde(default)]
    directories: Vec<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct BuildSection {
    #[serde(default)]
    max_parallel: usize,
    #[serde(default)]
    threads: usize,
}

impl Settings {
    /// Reads all settings; `root` is the flag's value.
    ///
    /// # Errors
    /// When a file can't be read or makes no sense; a file that isn't there counts as empty, unless a
    /// variable names it.
    pub fn load(environment: &Environment, root: Option<&Path>) -> Result<Settings, CommandError> {
        let root = match root {
            Some(root) => environment.resolve(root),
            None => default_root(environment)?,
        };
        let (path, config) = read_config(environment)?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        let registry = RegistryConfig { registry: config.registry };
        let hosts = registry.resolve(|file| read_capped(&directory.join(file))).map_err(|error| {
            CommandError::usage(format!("{}: {}", path.display(), polyarch_build::error::chain_of(&error)))
        })?;
        Ok(Settings {
            root,
            hosts,
            credentials: crate::credential_files::read(environment),
            proxy: read_proxy(environment),
            emulator_directories: config
                .emulation
                .directories
                .iter()
                .map(|emulators| directory.join(emulators))
                .collect(),
            max_parallel: config.build.max_parallel,
            threads: config.build.threads,
        })
    }

    /// Reads all settings; where something is wrong, goes without any file and returns what is wrong as well.
    pub fn load_as_far_as_possible(
        environment: &Environment,
        root: Option<&Path>,
    ) -> (Settings, Vec<CommandError>) {
        let error = match Settings::load(environment, root) {
            Ok(settings) => return (settings, Vec::new()),
            Err(error) => error,
        };
        let root = match root {
            Some(root) => environment.resolve(root),
            None => default_root(environment).unwrap_or_else(|_| PathBuf::from(SYSTEM_ROOT)),
        };
        let settings = Settings {
            root,
            hosts: HostTable::default(),
            credentials: crate::credential_files::read(environment),
            proxy: read_proxy(environment),
            emulator_directories: Vec::new(),
            max_parallel: 0,
            threads: 0,
        };
        (settings, vec![error])
    }

    /// Returns the options of the registry client.
    pub fn client_options(&self) -> ClientOptions {
        ClientOptions {
            hosts: self.hosts.clone(),
            credentials: self.credentials.clone(),
            proxy: self.proxy.clone(),
            ..ClientOptions::default()
        }
    }
}

/// Returns the store's directory when no flag names one.
fn default_root(environment: &Environment) -> Result<PathBuf, CommandError> {
    if let Some(root) = environment.path("POLYARCH_ROOT") {
        return Ok(root);
    }
    if environment.user_id == 0 {
        return Ok(PathBuf::from(SYSTEM_ROOT));
    }
    if let Some(data) = environment.path("XDG_DATA_HOME") {
        return Ok(data.join("polyarch"));
    }
    match environment.path("HOME") {
        Some(home) => Ok(home.join(".local/share/polyarch")),
        None => Err(CommandError::usage("can't tell where the store is: HOME is not set")
            .with_hint("give a directory with --root DIR or POLYARCH_ROOT")),
    }
}

/// Finds and parses the configuration file; returns its name even when there is none.
fn read_config(environment: &Environment) -> Result<(PathBuf, FileConfig), CommandError> {
    if let Some(path) = environment.path("POLYARCH_CONFIG") {
        let text = read_text(&path)?;
        return parse_config(&path, &text).map(|config| (path, config));
    }
    let user = environment
        .path("XDG_CONFIG_HOME")
        .or_else(|| Some(environment.path("HOME")?.join(".config")))
        .map(|config| config.join("polyarch/config.toml"));
    let system = PathBuf::from(SYSTEM_CONFIG);
    for path in user.into_iter().chain([system.clone()]) {
        if let Some(text) = read_text_if_there(&path)? {
            return parse_config(&path, &text).map(|config| (path, config));
        }
    }
    Ok((system, FileConfig::default()))
}

fn parse_config(path: &Path, text: &str) -> Result<FileConfig, CommandError> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        CommandError::usage(format!("{}, line {line}: {}", path.display(), error.message()))
            .with_hint("docs/configuration.md lists what the file may contain")
    })
}

/// Reads the proxy variables; lower case wins, as in curl, and `HTTP_PROXY` in capitals counts as well.
fn read_proxy(environment: &Environment) -> ProxySettings {
    let read = |lower: &str, upper: &str| {
        environment.text(lower).or_else(|| environment.text(upper)).map(str::to_owned)
    };
    ProxySettings {
        http: read("http_proxy", "HTTP_PROXY"),
        https: read("https_proxy", "HTTPS_PROXY"),
        no_proxy: read("no_proxy", "NO_PROXY"),
    }
}

/// Reads a text file of at most 4 MiB.
pub(crate) fn read_text(path: &Path) -> Result<String, CommandError> {
    let bytes = read_capped(path).map_err(|error| CommandError::io("can't read", path, &error))?;
    String::from_utf8(bytes).map_err(|_| CommandError::usage(format!("{} is not UTF-8 text", path.display())))
}

/// Reads a text file of at most 4 MiB; `None` when it isn't there.
pub(crate) fn read_text_if_there(path: &Path) -> Result<Option<String>, CommandError> {
    match std::fs::metadata(path) {
        Ok(_) => read_text(path).map(Some),
        // Another user's home directory may be closed to us (sudo): as good as absent.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(CommandError::io("can't read", path, &error)),
    }
}

fn read_capped(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is larger than 4 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)], user_id: u32) -> Environment {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        Environment { variables, user_id, current_directory: "/here".into(), ..Environment::default() }
    }

    #[test]
    fn the_store_is_where_the_nearest_setting_says() {
        let root = |variables: &[(&str, &str)], user_id| {
            default_root(&environment(variables, user_id)).map_err(|error| error.render())
        };
        assert_eq!(root(&[("HOME", "/root")], 0).unwrap(), Path::new(SYSTEM_ROOT));
        assert_eq!(root(&[("POLYARCH_ROOT", "store")], 0).unwrap(), Path::new("/here/store"));
        assert_eq!(root(&[("HOME", "/home/u")], 7).unwrap(), Path::new("/home/u/.local/share/polyarch"));
        assert_eq!(
            root(&[("HOME", "/home/u"), ("XDG_DATA_HOME", "/data")], 7).unwrap(),
            Path::new("/data/polyarch")
        );
        assert!(root(&[], 7).unwrap_err().contains("--root"));
    }

    #[test]
    fn the_file_is_read_with_names_relative_to_it() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join(".config/polyarch");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("ca.pem"), "certificate").unwrap();
        std::fs::write(
            directory.join("config.toml"),
            "[registry.\"r.example\"]\nca = [\"ca.pem\"]\nmirrors = [\"m.example\"]\n\
             [emulation]\ndirectories = [\"qemu\", \"/opt/qemu\"]\n[build]\nmax-parallel = 3\nthreads = 2\n",
        )
        .unwrap();
        let settings =
            Settings::load(&environment(&[("HOME", home.path().to_str().unwrap())], 7), None).unwrap();
        assert_eq!(settings.hosts.get("r.example").unwrap().ca, [b"certificate"]);
        assert_eq!(settings.emulator_directories, [directory.join("qemu"), "/opt/qemu".into()]);
        assert_eq!((settings.max_parallel, settings.threads), (3, 2));
    }

    #[test]
    fn unknown_keys_are_named_with_their_line() {
        let table = [
            ("[build]\nthreads = 1\nmax-paralel = 3\n", "f, line 3: unknown field `max-paralel`"),
            ("\n[emulator]\n", "f, line 2: unknown field `emulator`"),
            ("[registry.\"a.b\"]\nhttp = true\ninsecur = true\n", "f, line 3: unknown field `insecur`"),
            ("[build]\nthreads = \"two\"\n", "f, line 2: invalid type"),
            ("[build\n", "f, line 1: "),
        ];
        for (text, expected) in table {
            let error = parse_config(Path::new("f"), text).unwrap_err();
            assert!(error.error.message.starts_with(expected), "{text}: {}", error.error.message);
        }
    }

    #[test]
    fn a_named_file_must_be_there_and_others_need_not() {
        let missing = |name: &str| {
            Settings::load(&environment(&[("HOME", "/nonexistent"), (name, "/nonexistent/x")], 7), None).err()
        };
        assert!(missing("POLYARCH_CONFIG").is_some());
        assert!(missing("REGISTRY_AUTH_FILE").is_none(), "who needs credentials is told");
        assert!(missing("DOCKER_CONFIG").is_none());
    }
}
