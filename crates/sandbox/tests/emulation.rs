// SPDX-License-Identifier: Apache-2.0
//! Emulation against real emulators and the real kernel.
//!
//! Tests whose names begin with `qemu_` need Debian's qemu-user-static, those with `kernel_` a kernel with
//! private binfmt_misc (6.7) and the right to make user namespaces. Where that is missing they say so and pass.

#![expect(clippy::print_stderr, reason = "a skipped test says why")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use polyarch_oci::Platform;
use polyarch_sandbox::emulation::{
    Architecture, Emulation, EmulationConfig, Emulator, Handler, PROBE_STATUS, PrivateBinfmt, Support,
    probe_executable,
};

/// Every platform that a probe exists for, variants included.
const PLATFORMS: [&str; 19] = [
    "linux/amd64",
    "linux/amd64/v2",
    "linux/amd64/v3",
    "linux/386",
    "linux/arm64",
    "linux/arm/v5",
    "linux/arm/v6",
    "linux/arm/v7",
    "linux/arm/v8",
    "linux/ppc64le",
    "linux/ppc64",
    "linux/s390x",
    "linux/riscv64",
    "linux/mips64le",
    "linux/mips64",
    "linux/mipsle",
    "linux/mips",
    "linux/loong64",
    "linux/arm64/v9",
];

fn platform(text: &str) -> Platform {
    text.parse().expect("the tests name valid platforms")
}

fn write_executable(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("the tests' directories are writable");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("the file is ours");
}

/// Returns Debian's static emulator of the platform, or says why the test is skipped.
fn static_emulator(platform: &Platform) -> Option<PathBuf> {
    let name = Architecture::of(platform)?.qemu_name();
    let path = Path::new("/usr/bin").join(format!("qemu-{name}-static"));
    if path.exists() {
        return Some(path);
    }
    eprintln!(
        "skipped for {platform}: {} is not installed (apt-get install qemu-user-static)",
        path.display()
    );
    None
}

#[test]
fn qemu_runs_the_probe_of_every_platform() {
    let directory = tempfile::tempdir().unwrap();
    for text in PLATFORMS {
        let platform = platform(text);
        let Some(emulator) = static_emulator(&platform) else { continue };
        let file = directory.path().join(platform.directory_name());
        write_executable(&file, &probe_executable(&platform).unwrap());
        let status = Command::new(&emulator).arg(&file).status().unwrap();
        assert_eq!(status.code(), Some(PROBE_STATUS), "{text} under {}: {status}", emulator.display());
        let status = Command::new(&emulator).arg(&file).arg("one more argument").status().unwrap();
        assert_eq!(status.code(), Some(PROBE_STATUS + 1), "{text}: the probe counts its arguments");
    }
}

/// Says in the environment how deep in user namespaces a re-executed test is.
const DEPTH: &str = "POLYARCH_TEST_NAMESPACE_DEPTH";

fn depth() -> usize {
    std::env::var(DEPTH).map_or(0, |depth| depth.len())
}

/// Runs this test again as root of a new user and mount namespace, one level deeper.
///
/// Returns whether it could; a failure of the inner run fails the test.
fn deeper(test: &str, environment: &[(&str, &Path)]) -> bool {
    let unshare = ["--user", "--map-root-user", "--mount", "--"];
    if !Command::new("unshare").args(unshare).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: user namespaces can't be made here");
        return false;
    }
    let output = Command::new("unshare")
        .args(unshare)
        .arg(std::env::current_exe().expect("the running test has a file"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(DEPTH, "x".repeat(depth() + 1))
        .envs(environment.iter().copied())
        .output()
        .expect("unshare ran a moment ago");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "in the namespace:\n{text}\n{errors}");
    eprint!("{errors}");
    true
}

/// Tells whether private instances exist here; to be asked in a user namespace.
fn has_private_binfmt() -> bool {
    match PrivateBinfmt::create(&[]) {
        Ok(_) => true,
        Err(error) => {
            eprintln!("skipped: {error}");
            false
        }
    }
}

fn config(path_dirs: &[&Path], host_binfmt: &Path) -> EmulationConfig {
    EmulationConfig {
        directories: Vec::new(),
        path_dirs: path_dirs.iter().map(|directory| directory.to_path_buf()).collect(),
        host_binfmt: host_binfmt.to_owned(),
        state: PathBuf::from("/nonexistent"),
        is_private_allowed: true,
    }
}

/// Executes the probe of a platform as a file, the way a build step would.
fn run_probe(platform: &Platform) -> Result<Option<i32>, std::io::Error> {
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    let file = directory.path().join("probe");
    write_executable(&file, &probe_executable(platform).expect("the tests ask for known platforms"));
    // Other threads of this test binary don't run in the namespace, so nobody holds the file open.
    Command::new(&file).status().map(|status| status.code())
}

#[test]
fn kernel_every_platform_runs_in_a_user_namespace_of_ours() {
    if depth() == 0 {
        deeper("kernel_every_platform_runs_in_a_user_namespace_of_ours", &[]);
        return;
    }
    if !Path::new("/usr/bin/qemu-aarch64-static").exists() {
        eprintln!("skipped: qemu-user-static is not installed");
        return;
    }
    if !has_private_binfmt() {
        return;
    }
    let platforms: Vec<Platform> = PLATFORMS.iter().map(|text| platform(text)).collect();
    let mut emulation = Emulation::prepare(config(&[Path::new("/usr/bin")], Path::new("/nonexistent")));
    let begin = Instant::now();
    let supports = emulation.support(&platforms);
    eprintln!("{} platforms decided in {:?}", platforms.len(), begin.elapsed());
    for (platform, support) in platforms.iter().zip(&supports) {
        match support {
            Support::Native => {
                assert!(matches!(platform.architecture.as_str(), "amd64" | "386" | "arm64" | "arm"))
            }
            Support::Private { emulator } => {
                assert!(emulator.is_static);
                assert!(emulator.version().is_some_and(|version| version.contains('.')), "{emulator:?}");
            }
            other => panic!("{platform}: {other:?}"),
        }
        assert_eq!(run_probe(platform).unwrap(), Some(PROBE_STATUS), "{platform}");
    }
    assert_eq!(emulation.support(&platforms), supports, "answers are kept");
    // A second build in the same namespace; its end leaves the first one's handlers in force.
    let mut second = Emulation::prepare(config(&[Path::new("/usr/bin")], Path::new("/nonexistent")));
    assert_eq!(second.support(&platforms[..10]), supports[..10]);
    assert_eq!(second.support(&platforms), supports, "asking for more later");
    drop(second);
    assert_eq!(run_probe(&platform("linux/s390x")).unwrap(), Some(PROBE_STATUS));
    assert!(emulation.dev_bind().is_none());
    // The handlers live exactly as long as the value.
    drop(emulation);
    assert!(run_probe(&platform("linux/s390x")).is_err() || cfg!(target_arch = "s390x"));
}

#[test]
fn kernel_a_missing_emulator_is_named_with_its_package() {
    if depth() == 0 {
        deeper("kernel_a_missing_emulator_is_named_with_its_package", &[]);
        return;
    }
    let empty = tempfile::tempdir().unwrap();
    let mut emulation = Emulation::prepare(config(&[empty.path()], Path::new("/nonexistent")));
    let foreign = if cfg!(target_arch = "s390x") { "linux/riscv64" } else { "linux/s390x" };
    let Support::None { reason, fix } = &emulation.support(&[platform(foreign)])[0] else {
        panic!("{foreign} has no emulator");
    };
    let name = Architecture::of(&platform(foreign)).unwrap().qemu_name();
    assert_eq!(
        *reason,
        format!(
            "no emulator was found: neither qemu-{name}-static nor qemu-{name} is in {}",
            empty.path().display()
        )
    );
    assert_eq!(fix, "apt-get install qemu-user-static");
    let answers = emulation.support(&[platform("windows/amd64"), Platform::host(), platform("linux/arm/v4")]);
    assert!(matches!(&answers[0], Support::None { reason, .. } if reason.contains("windows")), "{answers:?}");
    assert_eq!(answers[1], Support::Native);
    assert!(matches!(&answers[2], Support::None { reason, .. } if reason.contains("v4")), "{answers:?}");
}

#[test]
fn kernel_without_a_namespace_the_host_is_left_alone() {
    let mut emulation = Emulation::prepare(EmulationConfig {
        is_private_allowed: false,
        ..config(&[Path::new("/usr/bin")], Path::new("/nonexistent"))
    });
    let foreign = if cfg!(target_arch = "s390x") { "linux/riscv64" } else { "linux/s390x" };
    match &emulation.support(&[platform(foreign)])[0] {
        Support::None { reason, fix } => {
            assert!(reason.contains("user namespace") || reason.contains("no emulator"), "{reason}");
            assert!(fix.contains("apt-get install qemu-user-static"), "{fix}");
        }
        // The machine has a handler of its own.
        Support::HostHandler { .. } => {}
        other => panic!("{other:?}"),
    }
}

/// The outer namespace plays the host: it registers an emulator; the inner one finds it.
#[test]
fn kernel_the_hosts_handlers_serve_where_qemu_is_not_found() {
    const TEST: &str = "kernel_the_hosts_handlers_serve_where_qemu_is_not_found";
    const HOST: &str = "POLYARCH_TEST_HOST_BINFMT";
    const FOREIGN: &str = if cfg!(target_arch = "s390x") { "linux/riscv64" } else { "linux/s390x" };
    let Some(qemu) = static_emulator(&platform(FOREIGN)) else { return };
    match depth() {
        0 => {
            deeper(TEST, &[]);
        }
        1 => {
            if !has_private_binfmt() {
                return;
            }
            let directory = tempfile::tempdir().unwrap();
            let copy = directory.path().join("copy of qemu");
            std::fs::copy(&qemu, &copy).unwrap();
            // What the host's directory would show; the real one of this namespace is mounted nowhere.
            let listing = directory.path().join("binfmt_misc");
            std::fs::create_dir(&listing).unwrap();
            let handler = Handler::new(Architecture::of(&platform(FOREIGN)).unwrap(), copy.clone());
            let entry = format!(
                "enabled\ninterpreter {}\nflags: POCF\noffset 0\nmagic {}\nmask {}\n",
                copy.display(),
                hex::encode(&handler.magic),
                hex::encode(&handler.mask)
            );
            std::fs::write(listing.join("status"), "enabled\n").unwrap();
            std::fs::write(listing.join("qemu-of-the-host"), entry).unwrap();
            let _host = PrivateBinfmt::create(&[handler]).unwrap();
            // Once with the interpreter's file in reach, once with only the kernel holding it.
            assert!(deeper(TEST, &[(HOST, &listing)]));
            std::fs::remove_file(&copy).unwrap();
            assert!(deeper(TEST, &[(HOST, &listing)]));
        }
        _ => {
            let listing = PathBuf::from(std::env::var_os(HOST).unwrap());
            let copy = listing.parent().unwrap().join("copy of qemu");
            let mut emulation = Emulation::prepare(config(&[], &listing));
            let support = emulation.support(&[platform(FOREIGN)]).remove(0);
            assert_eq!(run_probe(&platform(FOREIGN)).unwrap(), Some(PROBE_STATUS));
            if copy.exists() {
                assert_eq!(support, Support::Private { emulator: Emulator { path: copy, is_static: true } });
            } else {
                let name = "qemu-of-the-host".to_owned();
                assert_eq!(support, Support::HostHandler { name, interpreter: copy });
                // Together with a platform that must be private it would be out of sight, so ours are taken.
                let other = if cfg!(target_arch = "aarch64") { "linux/amd64" } else { "linux/arm64" };
                let both = [platform(FOREIGN), platform(other)];
                let mut emulation = Emulation::prepare(config(&[Path::new("/usr/bin")], &listing));
                let answers = emulation.support(&both);
                assert!(
                    answers.iter().all(|answer| matches!(answer, Support::Private { .. })),
                    "{answers:?}"
                );
            }
        }
    }
}

/// An emulator that takes the original first argument for one of the program's own is registered without it.
#[test]
#[cfg(target_arch = "x86_64")]
fn kernel_an_old_emulator_is_registered_without_the_first_argument() {
    if depth() == 0 {
        deeper("kernel_an_old_emulator_is_registered_without_the_first_argument", &[]);
        return;
    }
    if !has_private_binfmt() {
        return;
    }
    // The probe itself, ending with 40 plus the count: `emulator program` is 42, `emulator program first` 43.
    let mut emulator = probe_executable(&Platform::host()).unwrap();
    let add = emulator.windows(3).position(|bytes| bytes == [0x83, 0xc7, 41]).unwrap();
    emulator[add + 2] = 40;
    let directory = tempfile::tempdir().unwrap();
    write_executable(&directory.path().join("qemu-s390x"), &emulator);
    let mut emulation = Emulation::prepare(config(&[directory.path()], Path::new("/nonexistent")));
    let support = emulation.support(&[platform("linux/s390x")]).remove(0);
    assert!(matches!(support, Support::Private { .. }), "{support:?}");
    assert_eq!(run_probe(&platform("linux/s390x")).unwrap(), Some(PROBE_STATUS));
}

/// Compiles a C program or library for this machine; says why not, where there is no compiler.
fn compile(directory: &Path, output: &str, source: &str, arguments: &[&str]) -> bool {
    let file = directory.join(format!("{output}.c"));
    std::fs::write(&file, source).expect("the tests' directories are writable");
    let compiler = Command::new("cc")
        .current_dir(directory)
        .arg(&file)
        .args(["-o", output, "-L.", "-Wl,--enable-new-dtags"])
        .args(arguments)
        .status();
    match compiler {
        Ok(status) => {
            assert!(status.success(), "{output}");
            true
        }
        Err(error) => {
            eprintln!("skipped: no C compiler: {error}");
            false
        }
    }
}

/// An emulator with libraries runs where neither they nor its loader are: in an empty root.
#[test]
fn kernel_a_dynamically_linked_emulator_works_in_an_empty_root() {
    const FOREIGN: &str = if cfg!(target_arch = "s390x") { "linux/riscv64" } else { "linux/s390x" };
    if depth() == 0 {
        deeper("kernel_a_dynamically_linked_emulator_works_in_an_empty_root", &[]);
        return;
    }
    if !has_private_binfmt() {
        return;
    }
    // The "emulator" needs a library that needs another one; both are found by search paths on this machine.
    let emulators = tempfile::tempdir().unwrap();
    let rpath = format!("-Wl,-rpath,{}", emulators.path().display());
    let name = format!("qemu-{}", Architecture::of(&platform(FOREIGN)).unwrap().qemu_name());
    let is_compiled =
        compile(emulators.path(), "libinner.so", "int inner(void) { return 42; }", &["-shared", "-fPIC"])
            && compile(
                emulators.path(),
                "libouter.so",
                "int inner(void); int outer(void) { return inner(); }",
                &["-shared", "-fPIC", "-linner", &rpath],
            )
            && compile(
                emulators.path(),
                &name,
                "int outer(void); int main(void) { return outer(); }",
                &["-louter", "-lm", &rpath],
            );
    if !is_compiled {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let configuration = EmulationConfig {
        state: state.path().join("emulators"),
        ..config(&[emulators.path()], Path::new("/nonexistent"))
    };
    let mut emulation = Emulation::prepare(configuration.clone());
    let support = emulation.support(&[platform(FOREIGN)]).remove(0);
    let path = emulators.path().join(&name);
    assert_eq!(support, Support::Private { emulator: Emulator { path, is_static: false } });
    let (bundle, target) = emulation.dev_bind().unwrap();
    assert_eq!(target, "/dev/.q");
    let mut files: Vec<String> = std::fs::read_dir(bundle)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert!(files.contains(&"ld".to_owned()) && files.contains(&"libinner.so".to_owned()), "{files:?}");

    // Another build finds the same directory and makes nothing.
    let mut again = Emulation::prepare(configuration);
    assert_eq!(again.support(&[platform(FOREIGN)]), [support]);
    assert_eq!(again.dev_bind().unwrap().0, bundle);
    assert_eq!(std::fs::read_dir(state.path().join("emulators")).unwrap().count(), 1, "no temporary is left");

    // With the originals gone, in a root that has nothing but the probe and the directory.
    drop(emulators);
    let root = tempfile::tempdir().unwrap();
    write_executable(&root.path().join("probe"), &probe_executable(&platform(FOREIGN)).unwrap());
    std::fs::create_dir_all(root.path().join("dev/.q")).unwrap();
    let script = "mount --bind \"$1\" \"$2/dev/.q\" && exec chroot \"$2\" /probe";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .args([bundle, root.path()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(PROBE_STATUS), "{}", String::from_utf8_lossy(&output.stderr));
    // Without the directory the loader is missing, which proves that nothing else provided it.
    let status =
        Command::new("chroot").arg(root.path()).arg("/probe").stderr(std::process::Stdio::null()).status();
    assert_eq!(status.unwrap().code(), Some(127));
}
