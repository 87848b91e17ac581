// SPDX-License-Identifier: Apache-2.0
//! Where files of another platform are normal, and where none may be.

use polyarch_oci::Platform;

use crate::path::ImagePath;

/// Directories in which foreign files are data, not programs to be run.
const DATA: [&str; 14] = [
    "boot",
    "lib/firmware",
    "lib/modules",
    "usr/lib/firmware",
    "usr/lib/modules",
    "usr/lib/debug",
    "usr/lib/grub",
    "usr/lib/syslinux",
    "usr/lib/ipxe",
    "usr/lib/shim",
    "usr/share",
    "var/lib/docker",
    "var/lib/containers",
    "var/lib/containerd",
];

/// Names of directories whose content is not this image's system.
const OTHER_ROOTS: [&str; 6] = ["sysroot", "sysroots", "rootfs", "chroot", "initramfs", "cross"];

/// Names of directories of test data.
const TEST_DATA: [&str; 8] =
    ["test", "tests", "testdata", "test-data", "test_data", "testing", "fixtures", "__tests__"];

/// How names of files and directories spell architectures.
const SPELLINGS: [(&str, &[&str]); 13] = [
    ("amd64", &["amd64", "x86_64", "x86-64", "x64", "64"]),
    ("386", &["386", "i386", "i486", "i586", "i686", "x86", "ia32", "32", "lib32"]),
    ("arm64", &["arm64", "aarch64", "armv8", "arm64v8", "arm64e"]),
    ("arm", &["arm", "armhf", "armel", "armv5", "armv6", "armv7", "armv6l", "armv7l", "armv7a", "arm32"]),
    ("ppc64le", &["ppc64le", "ppc64el", "powerpc64le"]),
    ("ppc64", &["ppc64", "powerpc64"]),
    ("s390x", &["s390x"]),
    ("riscv64", &["riscv64", "rv64", "riscv64gc"]),
    ("mips64le", &["mips64le", "mips64el"]),
    ("mips64", &["mips64"]),
    ("mipsle", &["mipsle", "mipsel"]),
    ("mips", &["mips"]),
    ("loong64", &["loong64", "loongarch64"]),
];

/// The multiarch directory of each architecture (Debian's names).
const TRIPLETS: [(&str, &str); 11] = [
    ("amd64", "x86_64-linux-gnu"),
    ("386", "i386-linux-gnu"),
    ("arm64", "aarch64-linux-gnu"),
    ("ppc64le", "powerpc64le-linux-gnu"),
    ("ppc64", "powerpc64-linux-gnu"),
    ("s390x", "s390x-linux-gnu"),
    ("riscv64", "riscv64-linux-gnu"),
    ("mips64le", "mips64el-linux-gnuabi64"),
    ("mips64", "mips64-linux-gnuabi64"),
    ("mipsle", "mipsel-linux-gnu"),
    ("loong64", "loongarch64-linux-gnu"),
];

/// Says why a file of another platform is normal at a path; `None` where it is not.
///
/// `architecture` is the file's, `None` for one that no platform names.
pub(crate) fn why_foreign(path: &ImagePath, architecture: Option<&str>) -> Option<&'static str> {
    let text = String::from_utf8_lossy(path.as_bytes()).to_lowercase();
    let spellings = SPELLINGS.iter().find(|(name, _)| Some(*name) == architecture).map(|(_, words)| *words);
    let is_named = |words: &[&str]| text.split('/').any(|part| words.iter().any(|word| has_word(part, word)));
    why_other_system(path)
        .or_else(|| spellings.is_some_and(is_named).then_some("its path names its architecture"))
        .or_else(|| architecture.is_none().then_some("it is for no platform's processor"))
}

/// Says why what stands at a path is not a part of the image's own system; `None` where it is.
pub(crate) fn why_other_system(path: &ImagePath) -> Option<&'static str> {
    let text = String::from_utf8_lossy(path.as_bytes()).to_lowercase();
    let is_below = |directory: &str| text.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
    if DATA.iter().any(|directory| is_below(directory)) {
        return Some("it lies among data");
    }
    let mut names = text.rsplit('/');
    if names.next().is_some_and(|name| name.starts_with("qemu-")) {
        return Some("it is an emulator of the host");
    }
    names.find_map(|directory| {
        if OTHER_ROOTS.contains(&directory) {
            return Some("it belongs to another root");
        }
        TEST_DATA.contains(&directory).then_some("it is test data")
    })
}

/// Tells whether a loader of the platform looks for shared objects in the directory by itself (ld.so(8); the
/// multiarch directory of Debian).
pub(crate) fn is_default_library_directory(directory: &ImagePath, platform: &Platform) -> bool {
    let text = String::from_utf8_lossy(directory.as_bytes());
    match &*text {
        "lib" | "usr/lib" | "lib64" | "usr/lib64" | "usr/local/lib" | "usr/local/lib64" => true,
        text => is_own_multiarch(text, platform),
    }
}

/// Tells whether a directory is the multiarch directory of the platform.
pub(crate) fn is_own_multiarch(directory: &str, platform: &Platform) -> bool {
    let name = directory
        .strip_prefix("usr/local/lib/")
        .or_else(|| directory.strip_prefix("usr/lib/"))
        .or_else(|| directory.strip_prefix("lib/"));
    let Some(name) = name else { return false };
    match (platform.architecture.as_str(), platform.variant.as_str()) {
        ("arm", "v5") => name == "arm-linux-gnueabi",
        ("arm", _) => matches!(name, "arm-linux-gnueabihf" | "arm-linux-gnueabi"),
        (architecture, _) => TRIPLETS.iter().any(|(of, triplet)| *of == architecture && *triplet == name),
    }
}

/// Tells whether a word stands in a text with no letter or digit before and after it.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let is_free = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
        let bytes = text.as_bytes();
        is_free(at.checked_sub(1).and_then(|at| bytes.get(at))) && is_free(bytes.get(at + word.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_excuse_what_people_put_there_on_purpose() {
        let table = [
            ("usr/bin/qemu-aarch64-static", Some("amd64"), true),
            ("usr/aarch64-linux-gnu/lib/libc.so.6", Some("arm64"), true),
            ("usr/lib/gcc-cross/arm-linux-gnueabihf/12/libgcc_s.so", Some("arm"), true),
            ("usr/lib32/libc.so.6", Some("386"), true),
            ("lib/firmware/x.elf", Some("amd64"), true),
            ("src/debug/elf/testdata/gcc-386-freebsd-exec", Some("386"), true),
            ("app/node_modules/@esbuild/linux-x64/bin/esbuild", Some("amd64"), true),
            ("app/node_modules/x/prebuilds/linux-arm64/node.node", Some("arm64"), true),
            ("opt/sysroot/bin/sh", Some("riscv64"), true),
            ("usr/local/bin/tool", Some("amd64"), false),
            ("usr/local/bin/tool-linux-amd64", Some("amd64"), true),
            ("usr/local/bin/charm", Some("arm"), false),
            ("usr/lib/python3/dist-packages/x.so", Some("amd64"), false),
            ("app/probe.o", None, true),
        ];
        for (path, architecture, expected) in table {
            assert_eq!(why_foreign(&ImagePath::clean(path), architecture).is_some(), expected, "{path}");
        }
    }

    #[test]
    fn the_loaders_own_directories_are_known() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        for (path, name, expected) in [
            ("usr/lib", "linux/amd64", true),
            ("usr/lib/x86_64-linux-gnu", "linux/amd64", true),
            ("usr/lib/x86_64-linux-gnu", "linux/arm64", false),
            ("lib/arm-linux-gnueabihf", "linux/arm/v7", true),
            ("lib/arm-linux-gnueabihf", "linux/arm/v5", false),
            ("usr/lib/python3", "linux/amd64", false),
        ] {
            let path = ImagePath::clean(path);
            assert_eq!(is_default_library_directory(&path, &platform(name)), expected, "{path} {name}");
        }
    }
}
