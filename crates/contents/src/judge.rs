// SPDX-License-Identifier: Apache-2.0
//! The judgement: are the programs of an image those of the platform that it declares?
//!
//! The rules are those of the table in `docs/verify.md`, which says the same for users.

use polyarch_oci::{ContainerConfig, Platform};
use serde::Serialize;

use crate::elf::{ElfFacts, Program};
use crate::entry::Entry;
use crate::fit::{Fit, architecture_of, fit, is_known};
use crate::image::{ImageContents, Placed};
use crate::path::ImagePath;
use crate::places::{is_default_library_directory, is_own_multiarch, why_foreign, why_other_system};

/// The search path where an image sets none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How many interpreters may stand one behind another (Linux, fs/exec.c).
const MAX_INTERPRETERS: usize = 5;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The image is not what it claims to be.
    Error,
    /// Something that is probably a mistake.
    Warning,
    /// Something to know.
    Note,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it weighs.
    pub severity: Severity,
    /// The rule, one of the words of `docs/verify.md`.
    pub rule: &'static str,
    /// The file that is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<ImagePath>,
    /// The layer that brought the file, counted from the lowest, which is 0; people and JSON see it as 1.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "from_one")]
    pub layer: Option<usize>,
    /// What is wrong, a sentence about the file.
    pub message: String,
}

fn from_one<S: serde::Serializer>(layer: &Option<usize>, serializer: S) -> Result<S::Ok, S::Error> {
    layer.map(|layer| layer + 1).serialize(serializer)
}

/// What a judgement found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Judgement {
    /// What was found: errors first, each kind by path.
    pub findings: Vec<Finding>,
    /// How many ELF files fit.
    pub fitting: usize,
}

/// How much of the image is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All layers: what isn't there is missing.
    Whole,
    /// Some layers: what isn't there may be in another.
    Part,
}

/// Judges the files of an image by the platform that it declares.
///
/// A platform without a table of ELF facts (other systems than Linux, unknown architectures) gets one note.
pub fn judge(
    image: &ImageContents,
    platform: &Platform,
    config: &ContainerConfig,
    scope: Scope,
) -> Judgement {
    let mut judge = Judge {
        image,
        platform,
        scope,
        search_path: search_path(config),
        working_dir: config.working_dir.clone(),
        judged: std::collections::BTreeSet::new(),
        result: Judgement::default(),
    };
    if !is_known(platform) {
        judge.add(
            Severity::Note,
            "unknown-platform",
            None,
            format!("there are no rules for files of {platform}"),
        );
        return judge.result;
    }
    judge.entry_program(config);
    for (path, placed) in image.entries() {
        if let Some(facts) = placed.entry.elf()
            && !judge.judged.contains(path)
        {
            judge.file(path, placed, facts);
        }
    }
    for (path, target, layer) in image.broken_links() {
        if scope == Scope::Whole {
            let finding = Finding {
                severity: Severity::Error,
                rule: "broken-hard-link",
                path: Some(path.clone()),
                layer: Some(*layer),
                message: format!("is a hard link to {target}, which no layer beneath has"),
            };
            judge.result.findings.push(finding);
        }
    }
    judge.result.findings.sort_by_key(|finding| finding.severity);
    judge.result
}

/// Returns the search path of an image.
pub fn search_path(config: &ContainerConfig) -> String {
    let path = config.env.iter().find_map(|entry| entry.strip_prefix("PATH="));
    path.unwrap_or(DEFAULT_PATH).to_owned()
}

struct Judge<'a> {
    image: &'a ImageContents,
    platform: &'a Platform,
    scope: Scope,
    search_path: String,
    working_dir: String,
    /// Files about which all is said.
    judged: std::collections::BTreeSet<ImagePath>,
    result: Judgement,
}

impl Judge<'_> {
    fn add(
        &mut self,
        severity: Severity,
        rule: &'static str,
        at: Option<(&ImagePath, &Placed)>,
        message: String,
    ) {
        self.result.findings.push(Finding {
            severity,
            rule,
            path: at.map(|(path, _)| path.clone()),
            layer: at.map(|(_, placed)| placed.layer),
            message,
        });
    }

    /// Follows ENTRYPOINT, or else CMD, through scripts to the programs that are executed.
    fn entry_program(&mut self, config: &ContainerConfig) {
        let entrypoint = config.entrypoint.as_deref().filter(|words| !words.is_empty());
        let (instruction, words) = match (entrypoint, config.cmd.as_deref()) {
            (Some(words), _) => ("ENTRYPOINT", words),
            (None, Some(words)) if !words.is_empty() => ("CMD", words),
            _ => return,
        };
        let mut name = words[0].clone();
        let mut role = format!("the program of {instruction}");
        for _ in 0..MAX_INTERPRETERS {
            let found = self.image.find_program(&name, &self.search_path, &self.working_dir);
            let Some((path, placed)) = found else {
                if self.scope == Scope::Whole {
                    let message = format!("{role} is {name:?}, which the image does not have");
                    self.add(Severity::Error, "entry-missing", None, message);
                }
                return;
            };
            let Some(facts) = placed.entry.file() else {
                let message = format!("is {role}, and it is a {}", placed.entry.kind.word());
                self.add(Severity::Error, "entry-no-program", Some((&path, placed)), message);
                return;
            };
            if !placed.entry.is_executable() {
                let message = format!("is {role}, and nobody may execute it (mode {:o})", placed.entry.mode);
                self.add(Severity::Error, "entry-not-executable", Some((&path, placed)), message);
            }
            match &facts.program {
                Some(Program::Elf(facts)) if facts.is_program() => {
                    self.entry_elf(&path, placed, facts, &role);
                    return;
                }
                Some(Program::Script { interpreter, argument }) => {
                    let through_env =
                        interpreter.ends_with("/env").then(|| program_of_env(argument)).flatten();
                    role = format!("the interpreter of {path}");
                    // Were env itself missing, the image would have no `#!/usr/bin/env` that works.
                    name = through_env.unwrap_or_else(|| interpreter.clone());
                }
                _ => {
                    // A shell would read it as a script; the kernel does not.
                    let message = format!("is {role}, and it is neither an ELF file nor a script with #!");
                    self.add(Severity::Warning, "entry-no-program", Some((&path, placed)), message);
                    return;
                }
            }
        }
    }

    /// Judges the program that the container starts.
    fn entry_elf(&mut self, path: &ImagePath, placed: &Placed, facts: &ElfFacts, role: &str) {
        self.judged.insert(path.clone());
        let at = Some((path, placed));
        match fit(facts, self.platform) {
            Fit::Fits => self.result.fitting += 1,
            Fit::Companion(name) => {
                let message =
                    format!("is {role} and of {name}, which processors of {} usually run too", self.platform);
                self.add(Severity::Note, "companion", at, message);
            }
            Fit::Foreign(name) | Fit::NoPlatform(name) => {
                let message = format!("is {role} and of {name}, and the image is for {}", self.platform);
                self.add(Severity::Error, "entry-foreign", at, message);
                return;
            }
        }
        if let Some(missing) = self.missing_interpreter(facts) {
            let message = format!("is {role} and needs the program interpreter {missing}");
            self.add(Severity::Error, "interpreter-missing", at, message);
        }
    }

    /// Judges any other ELF file by where it stands.
    fn file(&mut self, path: &ImagePath, placed: &Placed, facts: &ElfFacts) {
        let at = Some((path, placed));
        let found = fit(facts, self.platform);
        let name = match found {
            Fit::Fits => {
                self.result.fitting += 1;
                if placed.entry.is_executable()
                    && let Some(missing) = self.missing_interpreter(facts)
                    && why_other_system(path).is_none()
                {
                    let message = format!("needs the program interpreter {missing}");
                    self.add(Severity::Warning, "interpreter-missing", at, message);
                }
                return;
            }
            Fit::Companion(name) => {
                let directory = path.split().map(|(directory, _)| directory).unwrap_or_default();
                let is_misplaced =
                    is_own_multiarch(&String::from_utf8_lossy(directory.as_bytes()), self.platform);
                let missing = self.missing_interpreter(facts);
                let message = format!("is of {name}, which processors of {} usually run too", self.platform);
                match missing {
                    _ if is_misplaced => {}
                    None => return self.add(Severity::Note, "companion", at, message),
                    // Where nobody looks for programs it may serve for something else.
                    Some(missing) if !self.is_searched(&directory) => {
                        let message = format!("is of {name} and needs the program interpreter {missing}");
                        return self.add(Severity::Warning, "interpreter-missing", at, message);
                    }
                    Some(_) => {}
                }
                name
            }
            Fit::Foreign(name) | Fit::NoPlatform(name) => name,
        };
        if let Some(why) = why_foreign(path, architecture_of(facts)) {
            return self.add(Severity::Note, "foreign-in-place", at, format!("is of {name}; {why}"));
        }
        let (directory, file_name) = path.split().unwrap_or_default();
        let message = format!("is of {name}, and the image is for {}", self.platform);
        let is_library = is_library(file_name);
        if is_library && is_default_library_directory(&directory, self.platform) {
            self.add(Severity::Error, "library-foreign", at, message);
        } else if is_library || placed.entry.is_executable() {
            self.add(Severity::Error, "program-foreign", at, message);
        } else {
            self.add(Severity::Warning, "file-foreign", at, message);
        }
    }

    /// Tells whether a directory is one of the search path.
    fn is_searched(&self, directory: &ImagePath) -> bool {
        self.search_path.split(':').any(|entry| {
            let found = self.image.resolve(entry).map(|(path, _)| path);
            !entry.is_empty() && found.as_ref() == Some(directory)
        })
    }

    /// Returns the interpreter that a program names and the image lacks.
    fn missing_interpreter(&self, facts: &ElfFacts) -> Option<String> {
        let interpreter = facts.interpreter.as_ref()?;
        if self.scope == Scope::Part {
            return None;
        }
        let found = self.image.resolve(&format!(
            "{}/{interpreter}",
            if interpreter.starts_with('/') { "" } else { &self.working_dir }
        ));
        match found.map(|(_, placed)| (&placed.entry, placed.entry.elf())) {
            None => Some(format!("{interpreter}, which the image does not have")),
            Some((_, Some(own)))
                if (own.is_64_bit, own.is_big_endian, own.machine)
                    == (facts.is_64_bit, facts.is_big_endian, facts.machine) =>
            {
                None
            }
            Some((entry, _)) => Some(format!("{interpreter}, which {}", unfit_interpreter(entry))),
        }
    }
}

fn unfit_interpreter(entry: &Entry) -> String {
    match entry.elf() {
        Some(facts) => format!("is of {}", architecture_of(facts).unwrap_or("another machine")),
        None => format!("is no ELF file but a {}", entry.kind.word()),
    }
}

/// Tells whether a name is one of a shared object: `libx.so`, `libx.so.1`.
fn is_library(name: &[u8]) -> bool {
    let name = String::from_utf8_lossy(name);
    name.ends_with(".so") || name.contains(".so.")
}

/// Returns the program that `env` would start.
fn program_of_env(argument: &str) -> Option<String> {
    let words = argument.split([' ', '\t']).filter(|word| !word.is_empty());
    words.into_iter().find(|word| !word.starts_with('-') && !word.contains('=')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LayerContents;
    use crate::elf::tests::dynamic;
    use polyarch_oci::Algorithm;
    use polyarch_oci::media_type::Compression;
    use polyarch_testkit::{TarBuilder, hello_program};

    fn hello(architecture: &str) -> Vec<u8> {
        hello_program(architecture, "x", 0).unwrap()
    }

    fn findings(platform: &str, tar: TarBuilder, entrypoint: &[&str]) -> Vec<String> {
        let layer = tar.finish();
        let (layer, _) =
            LayerContents::read(layer.as_slice(), Compression::Uncompressed, Algorithm::Sha256).unwrap();
        let image = ImageContents::of_layers([&layer]).unwrap();
        let config = ContainerConfig {
            entrypoint: Some(entrypoint.iter().map(|word| (*word).to_owned()).collect()),
            ..ContainerConfig::default()
        };
        let judgement = judge(&image, &platform.parse().unwrap(), &config, Scope::Whole);
        let line = |finding: &Finding| {
            let path = finding.path.as_ref().map_or_else(String::new, ToString::to_string);
            format!("{:?} {} {path} {}", finding.severity, finding.rule, finding.message)
        };
        judgement.findings.iter().map(line).collect()
    }

    #[test]
    fn a_good_image_has_no_findings() {
        let tar = TarBuilder::new()
            .file("bin/app", 0o755, dynamic(183, 3, "/lib/ld-linux-aarch64.so.1", 200))
            .file("usr/lib/ld-2.so", 0o755, hello("arm64"))
            .symlink("lib/ld-linux-aarch64.so.1", "../usr/lib/ld-2.so")
            .file("bin/sh", 0o755, hello("arm64"))
            .file("entry.sh", 0o755, "#!/bin/sh\nexec app\n");
        assert!(findings("linux/arm64", tar.clone(), &["app", "x"]).is_empty());
        assert!(findings("linux/arm64", tar.clone(), &["/entry.sh"]).is_empty());
        assert!(findings("linux/arm64", tar, &[]).is_empty());
    }

    #[test]
    fn the_program_that_is_started_is_judged_strictly() {
        let tar = TarBuilder::new()
            .file("usr/share/tool-amd64", 0o755, hello("amd64"))
            .symlink("tool", "usr/share/tool-amd64")
            .file("bin/run", 0o755, "#!/usr/bin/env -S python3 -u\n")
            .file("bin/python3", 0o755, hello("amd64"))
            .file("bin/dynamic", 0o755, dynamic(183, 2, "/lib/ld.so", 200))
            .file("bin/plain", 0o644, "x");
        let first = |entry: &str| findings("linux/arm64", tar.clone(), &[entry])[0].clone();
        assert_eq!(
            first("/tool"),
            "Error entry-foreign /usr/share/tool-amd64 is the program of ENTRYPOINT and of amd64, and the image is for linux/arm64"
        );
        assert_eq!(
            first("run"),
            "Error entry-foreign /bin/python3 is the interpreter of /bin/run and of amd64, and the image is for linux/arm64"
        );
        assert_eq!(
            first("dynamic"),
            "Error interpreter-missing /bin/dynamic is the program of ENTRYPOINT and needs the program interpreter /lib/ld.so, which the image does not have"
        );
        assert_eq!(
            first("nothing"),
            "Error entry-missing  the program of ENTRYPOINT is \"nothing\", which the image does not have"
        );
        assert!(first("/bin/plain").starts_with("Error entry-not-executable /bin/plain"));
    }

    #[test]
    fn other_files_are_judged_by_their_place() {
        let tar = TarBuilder::new()
            .file("usr/local/bin/tool", 0o755, hello("amd64"))
            .file("usr/lib/libx.so.1", 0o644, hello("amd64"))
            .file("opt/data.bin", 0o644, hello("amd64"))
            .file("usr/x86_64-linux-gnu/bin/ld", 0o755, hello("amd64"))
            .file("usr/bin/qemu-aarch64-static", 0o755, hello("amd64"))
            .file("usr/lib/libarm.so", 0o644, hello("arm"))
            .file("bin/own", 0o755, hello("arm64"));
        assert_eq!(
            findings("linux/arm64", tar, &[]),
            [
                "Error library-foreign /usr/lib/libx.so.1 is of amd64, and the image is for linux/arm64",
                "Error program-foreign /usr/local/bin/tool is of amd64, and the image is for linux/arm64",
                "Warning file-foreign /opt/data.bin is of amd64, and the image is for linux/arm64",
                "Note foreign-in-place /usr/bin/qemu-aarch64-static is of amd64; it is an emulator of the host",
                "Note companion /usr/lib/libarm.so is of arm, which processors of linux/arm64 usually run too",
                "Note foreign-in-place /usr/x86_64-linux-gnu/bin/ld is of amd64; its path names its architecture",
            ]
        );
    }

    #[test]
    fn a_companion_needs_its_own_interpreter() {
        let program_386 = {
            // The same in the 32-bit layout: only what the judgement reads.
            let mut file = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0];
            file.resize(16, 0);
            for value in [2u16, 3] {
                file.extend(value.to_le_bytes());
            }
            for value in [1u32, 0, 52, 0, 0] {
                file.extend(value.to_le_bytes());
            }
            for value in [52u16, 32, 1, 0, 0, 0] {
                file.extend(value.to_le_bytes());
            }
            for value in [3u32, 84, 0, 0, 19, 19, 4, 1] {
                file.extend(value.to_le_bytes());
            }
            file.extend(b"/lib/ld-linux.so.2\0");
            file
        };
        let tar = TarBuilder::new().file("usr/bin/old", 0o755, program_386.clone());
        let found = findings("linux/amd64", tar.clone(), &[]);
        assert_eq!(found, ["Error program-foreign /usr/bin/old is of 386, and the image is for linux/amd64"]);
        let elsewhere = TarBuilder::new().file("usr/lib/x/old", 0o755, program_386.clone());
        let found = findings("linux/amd64", elsewhere, &[]);
        assert!(found[0].starts_with("Warning interpreter-missing /usr/lib/x/old is of 386"), "{found:?}");
        let tar = tar.file("lib/ld-linux.so.2", 0o755, hello("386"));
        let found = findings("linux/amd64", tar, &["/usr/bin/old"]);
        assert!(found.iter().all(|line| line.starts_with("Note companion")), "{found:?}");
    }
}
