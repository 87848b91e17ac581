// SPDX-License-Identifier: Apache-2.0
//! Registers and removes emulators for the whole machine, and tells each outcome in the words of tonistiigi/binfmt.

use std::collections::BTreeSet;
use std::path::PathBuf;

use polyarch_build::error::chain_of;
use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::Platform;
use polyarch_sandbox::emulation::{
    Architecture, BinfmtDirectory, Emulator, HostBinfmt, HostBinfmtError, Installation, Origin, entry_name,
    is_initial_user_namespace,
};

use crate::CommandError;
use crate::session::Session;

/// What shall be changed, and where.
pub struct Request<'a> {
    /// The emulators to register.
    pub install: Selection,
    /// The entries to remove, as the user named them.
    pub uninstall: &'a [String],
    /// The flags that ask for all this, to be shown to who must ask again.
    pub words: String,
    /// Whether the change shall outlast the next boot.
    pub is_persistent: bool,
    /// The instance.
    pub host: &'a HostBinfmt,
    /// The files for the next boot.
    pub directory: &'a BinfmtDirectory,
}

/// Which architectures shall be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All that need an emulator and have one here.
    All,
    /// These.
    These(Vec<Architecture>),
}

/// Reads the values of `--install`.
///
/// # Errors
/// The first that is no architecture with an emulator.
pub fn architectures(words: &[String]) -> Result<Selection, CommandError> {
    if words.iter().any(|word| word == "all") {
        return Ok(Selection::All);
    }
    let mut selected = Vec::new();
    for word in words.iter().map(|word| word.trim()).filter(|word| !word.is_empty()) {
        let platform = Platform::parse_known(word)
            .map_err(|error| CommandError::usage(format!("--install: {error}")))?;
        let architecture = Architecture::of(&platform).ok_or_else(|| {
            CommandError::usage(format!("--install: there is no emulator for programs of {platform}"))
        })?;
        if !selected.contains(&architecture) {
            selected.push(architecture);
        }
    }
    Ok(Selection::These(selected))
}

/// What went wrong with single emulators, which does not keep the others from being handled.
#[derive(Default)]
struct Failures {
    names: Vec<String>,
    hints: BTreeSet<String>,
}

impl Failures {
    fn add(&mut self, name: &str, hint: Option<String>) {
        self.names.push(name.to_owned());
        self.hints.extend(hint);
    }
}

/// Does what is asked. The outer result tells whether it could be begun; the inner one, whether all was done.
///
/// # Errors
/// Without root's rights or the file system nothing is changed.
pub fn change(
    request: &Request<'_>,
    find: &dyn Fn(Architecture) -> Option<Emulator>,
    session: &Session,
) -> Result<Result<(), CommandError>, CommandError> {
    if request.install == Selection::These(Vec::new()) && request.uninstall.is_empty() {
        return Ok(Ok(()));
    }
    if session.environment.user_id != 0 {
        return Err(BuildError::new(
            ErrorKind::Sandbox,
            "only root may register or remove emulators for the whole machine; nothing was changed",
        )
        .with_hint(format!("sudo polyarch binfmt{}", request.words))
        .with_hint(
            "polyarch's own builds and runs need no registered emulators: they register QEMU for themselves",
        )
        .into());
    }
    let say = |text: &str| session.printer.message(&format!("{}\n", crate::visible_text::visible_text(text)));
    if request.host.ensure_mounted().map_err(|error| refusal(&error))? {
        say(&format!("mounted binfmt_misc at {}", request.host.directory().display()));
    }
    let mut failures = Failures::default();
    for word in request.uninstall {
        uninstall(request, word, &mut failures, &say);
    }
    install(request, find, &mut failures, &say);
    if failures.names.is_empty() {
        return Ok(Ok(()));
    }
    let message = format!("not everything could be done: {}", failures.names.join(", "));
    let mut error = BuildError::new(ErrorKind::Platform, message);
    error.hints.extend(failures.hints);
    Ok(Err(error.into()))
}

fn install(
    request: &Request<'_>,
    find: &dyn Fn(Architecture) -> Option<Emulator>,
    failures: &mut Failures,
    say: &dyn Fn(&str),
) {
    let (architectures, is_all) = match &request.install {
        Selection::All => (super::status::architectures_in_order(), true),
        Selection::These(architectures) => (architectures.clone(), false),
    };
    let mut files = Vec::new();
    let mut absent = Vec::new();
    let (mut is_any_registered, mut is_any_served) = (false, false);
    for architecture in architectures {
        let name = architecture.name();
        let emulator = find(architecture);
        let installed = match (request.host.present(architecture), &emulator) {
            (Ok(Some(present)), _) => Ok(present),
            (Ok(None), Some(emulator)) => request.host.install(architecture, emulator),
            (Ok(None), None) if is_all => {
                absent.push(name);
                continue;
            }
            (Ok(None), None) => {
                say(&format!(
                    "installing: {name} no emulator: {}-static was not found",
                    entry_name(architecture)
                ));
                failures.add(name, Some(how_to_get_qemu(architecture)));
                continue;
            }
            (Err(error), _) => Err(error),
        };
        match installed {
            Ok(Installation::Registered { flags, untried }) => {
                is_any_registered = true;
                say(&format!("installing: {name} OK"));
                if let Some(reason) = untried {
                    say(&format!(
                        "installing: {name} was registered, but could not be tried from here: {reason}"
                    ));
                }
                let path = emulator.map(|emulator| emulator.path).unwrap_or_default();
                files.extend(persist(request, architecture, &path, &flags, failures, say));
            }
            Ok(Installation::Present(handler)) => {
                say(&format!("installing: {name} {} already registered", handler.name));
                is_any_served = true;
                // Registered by hand or by a container, it would be gone after the next boot.
                let names = [handler.name, entry_name(architecture)];
                if names.iter().any(|name| request.directory.origin(name).is_some()) || !request.is_persistent
                {
                    continue;
                }
                match emulator.filter(|emulator| emulator.is_static) {
                    Some(emulator) => {
                        files.extend(persist(request, architecture, &emulator.path, "POCF", failures, say));
                    }
                    None => {
                        say(&format!("{name} is lost at the next boot: no static emulator was found here"))
                    }
                }
            }
            Ok(Installation::Native) if is_all => {}
            Ok(Installation::Native) => say(&format!("installing: {name} runs natively")),
            Err(error) => {
                say(&format!("installing: {name} {}", chain_of(&error)));
                failures.add(name, hint(&error, Some(architecture)));
            }
        }
    }
    if !absent.is_empty() {
        say(&format!("installing: no emulator was found for {}", absent.join(", ")));
        let hint = how_to_get_qemu(Architecture::Arm64);
        if !is_any_registered && !is_any_served {
            failures.add("no emulator was found at all", Some(hint));
        }
    }
    tell_how_long(request, is_any_registered, &files, say);
}

/// Writes the file for the next boot; returns it when it was written.
fn persist(
    request: &Request<'_>,
    architecture: Architecture,
    interpreter: &std::path::Path,
    flags: &str,
    failures: &mut Failures,
    say: &dyn Fn(&str),
) -> Option<PathBuf> {
    if !request.is_persistent {
        return None;
    }
    match request.directory.write(architecture, interpreter, flags) {
        Ok(path) => Some(path),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let file = request.directory.path().join(format!("{}.conf", entry_name(architecture)));
            say(&format!("{} is not polyarch's and stays; the next boot goes by it", file.display()));
            None
        }
        Err(error) => {
            let directory = request.directory.path().display();
            say(&format!(
                "can't write to {directory}: {error}: {} is lost at the next boot",
                architecture.name()
            ));
            failures.add(&format!("{} at the next boot", architecture.name()), None);
            None
        }
    }
}

/// Says for whom the new entries are there, and for how long.
fn tell_how_long(request: &Request<'_>, is_any_registered: bool, files: &[PathBuf], say: &dyn Fn(&str)) {
    if is_any_registered {
        let whom = match is_initial_user_namespace() {
            Ok(false) => "every program of this user namespace (it is not the host's)",
            _ => "every program of this machine, in every container",
        };
        say(&format!("registered host-wide: for {whom}; polyarch itself does not need it"));
    }
    if files.is_empty() {
        if is_any_registered && !request.is_persistent {
            say("it lasts until the next boot");
        }
        return;
    }
    let names: Vec<String> =
        files.iter().filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned())).collect();
    say(&format!("persists across reboots: {}: {}", request.directory.path().display(), names.join(", ")));
    if !BinfmtDirectory::has_reader() {
        say(&format!(
            "WARNING: nothing here reads {} at boot: systemd-binfmt (package systemd) or OpenRC's binfmt service does",
            request.directory.path().display()
        ));
    }
}

/// Removes what a word of the user's names: the entries, and our files for them.
fn uninstall(request: &Request<'_>, word: &str, failures: &mut Failures, say: &dyn Fn(&str)) {
    let known = match request.host.names() {
        Ok(known) => known,
        Err(error) => {
            say(&format!("uninstalling: {word} {}", chain_of(&error)));
            return failures.add(word, hint(&error, None));
        }
    };
    let ours = request.directory.ours();
    let names = match word {
        "all" => ours.clone(),
        _ => named(word, known.iter().chain(&ours), request.host),
    };
    if names.is_empty() {
        if word == "all" {
            return say(
                "uninstalling: polyarch has installed nothing that lasts; name entries, or all of QEMU's: qemu-*",
            );
        }
        say(&format!("uninstalling: {word} not found"));
        return failures.add(word, Some("polyarch binfmt lists the entries as \"emulators\"".to_owned()));
    }
    for name in names {
        let file = request.directory.remove(&name);
        let removed = match (request.host.remove(&name), &file) {
            // The file alone was left, of an entry that is gone already.
            (Err(HostBinfmtError::NotFound), Ok(Some(_))) => Ok(()),
            (removed, _) => removed,
        };
        match removed {
            Ok(()) => say(&format!("uninstalling: {name} OK")),
            Err(error) => {
                say(&format!("uninstalling: {name} {}", chain_of(&error)));
                failures.add(&name, hint(&error, None));
            }
        }
        match file {
            Ok(Some(path)) => say(&format!("removed {}", path.display())),
            Ok(None) => {
                if let Some(Origin::Other(path)) = request.directory.origin(&name) {
                    say(&format!(
                        "{name} comes back at the next boot by {}, which is not polyarch's; to keep it away: ln -s \
                         /dev/null {}/{name}.conf",
                        path.display(),
                        request.directory.path().display()
                    ));
                }
            }
            Err(error) => {
                say(&format!(
                    "can't remove {name}.conf from {}: {error}",
                    request.directory.path().display()
                ));
                failures.add(&name, None);
            }
        }
    }
}

/// Returns the entries that a word means: a name, a pattern, or an architecture or platform.
fn named<'a>(word: &str, known: impl Iterator<Item = &'a String>, host: &HostBinfmt) -> Vec<String> {
    let architecture = Platform::parse_known(word).ok().and_then(|platform| Architecture::of(&platform));
    let serving: Vec<String> = host
        .handlers()
        .into_iter()
        .filter(|handler| Some(handler.architecture) == architecture)
        .map(|handler| handler.name)
        .collect();
    let own_name = architecture.map(entry_name);
    let is_meant = |name: &String| {
        matches_pattern(word, name) || own_name.as_ref() == Some(name) || serving.contains(name)
    };
    let names: BTreeSet<String> = known.filter(|name| is_meant(name)).cloned().collect();
    names.into_iter().collect()
}

/// Compares a name with a shell's pattern of `*` and `?`.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    let mut rows: BTreeSet<usize> = BTreeSet::from([0]);
    let name: Vec<char> = name.chars().collect();
    // The positions in the name that the pattern so far can have reached.
    for symbol in pattern.chars() {
        rows = match symbol {
            '*' => rows.first().map_or(BTreeSet::new(), |first| (*first..=name.len()).collect()),
            _ => rows
                .into_iter()
                .filter(|at| name.get(*at).is_some_and(|c| symbol == '?' || *c == symbol))
                .map(|at| at + 1)
                .collect(),
        };
    }
    rows.contains(&name.len())
}

fn how_to_get_qemu(architecture: Architecture) -> String {
    format!(
        "apt-get install {} (Fedora: dnf install qemu-user-static); without network: copy a static {}-static of \
         another machine to /usr/local/bin",
        architecture.debian_package(),
        entry_name(architecture)
    )
}

/// Returns what mends a failure.
fn hint(error: &HostBinfmtError, architecture: Option<Architecture>) -> Option<String> {
    match error {
        HostBinfmtError::Mount { source, .. } if source.raw_os_error() == Some(19) => {
            Some("load the kernel's module: modprobe binfmt_misc".to_owned())
        }
        HostBinfmtError::Mount { .. } | HostBinfmtError::Access { .. } => Some(
            "the host's root must do it; in a container, one that was started with --privileged".to_owned(),
        ),
        HostBinfmtError::Disabled { directory } => Some(format!("echo 1 > {}/status", directory.display())),
        HostBinfmtError::InTheWay { name, .. } => {
            let again = architecture.map_or(String::new(), |one| format!(" --install {}", one.name()));
            Some(format!("polyarch binfmt --uninstall {name}{again}"))
        }
        HostBinfmtError::Emulator { .. } => Some("apt-get install qemu-user-static".to_owned()),
        HostBinfmtError::NotFound | HostBinfmtError::Handler(_) => None,
    }
}

/// Turns what keeps everything from being done into an error.
fn refusal(error: &HostBinfmtError) -> CommandError {
    let mut refused =
        BuildError::new(ErrorKind::Sandbox, format!("{}; nothing was changed", chain_of(error)));
    refused.hints.extend(hint(error, None));
    refused.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_are_architectures_or_platforms() {
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            architectures(&words).map_err(|error| error.error.message)
        };
        assert_eq!(read(&["arm64", "all"]), Ok(Selection::All));
        assert_eq!(
            read(&["arm64", "linux/arm/v6", "aarch64", "arm"]),
            Ok(Selection::These(vec![Architecture::Arm64, Architecture::Arm]))
        );
        assert!(read(&["amd46"]).unwrap_err().contains("did you mean amd64?"));
        assert!(read(&["windows/amd64"]).unwrap_err().contains("no emulator"));
        assert!(read(&["linux/wasm"]).unwrap_err().contains("no emulator"));
    }

    #[test]
    fn patterns_are_those_of_a_shell() {
        let table = [
            ("qemu-*", "qemu-aarch64", true),
            ("qemu-*", "python3.11", false),
            ("*", "", true),
            ("*64", "qemu-aarch64", true),
            ("q*a*4", "qemu-aarch64", true),
            ("q*a*5", "qemu-aarch64", false),
            ("qemu-ar?", "qemu-arm", true),
            ("qemu-ar?", "qemu-ar", false),
            ("qemu-arm", "qemu-armeb", false),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(matches_pattern(pattern, name), expected, "{pattern} {name}");
        }
    }
}
