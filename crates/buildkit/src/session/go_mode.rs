// SPDX-License-Identifier: Apache-2.0
//! File modes as Go's `os.FileMode` has them, which is how file transfers write them.

/// A directory.
pub const DIRECTORY: u32 = 1 << 31;
/// A symlink.
pub const SYMLINK: u32 = 1 << 27;
/// A device; a block device unless [`CHARACTER`] is set too.
pub const DEVICE: u32 = 1 << 26;
/// A named pipe.
pub const PIPE: u32 = 1 << 25;
/// A socket.
pub const SOCKET: u32 = 1 << 24;
/// Runs as its owner.
pub const SETUID: u32 = 1 << 23;
/// Runs as its group.
pub const SETGID: u32 = 1 << 22;
/// A character device, beside [`DEVICE`].
pub const CHARACTER: u32 = 1 << 21;
/// The sticky bit.
pub const STICKY: u32 = 1 << 20;
/// Something that Go has no name for.
pub const IRREGULAR: u32 = 1 << 19;
/// All bits that say what a file is; none of them is set for a regular file.
pub const TYPE: u32 = DIRECTORY | SYMLINK | DEVICE | PIPE | SOCKET | CHARACTER | IRREGULAR;

/// Turns a mode of the kernel's (`st_mode`) into Go's.
pub fn of_kernel(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => DIRECTORY,
        0o120_000 => SYMLINK,
        0o100_000 => 0,
        0o060_000 => DEVICE,
        0o020_000 => DEVICE | CHARACTER,
        0o010_000 => PIPE,
        0o140_000 => SOCKET,
        _ => IRREGULAR,
    };
    let special = [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0).fold(0, |all, (_, bit)| all | bit);
    kind | special | mode & 0o777
}

/// Returns the permission bits of the kernel's with setuid, setgid and sticky: octal 0 to 7777.
pub fn permissions(mode: u32) -> u32 {
    let special = [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)];
    special.iter().filter(|(_, bit)| mode & bit != 0).fold(mode & 0o777, |all, (bit, _)| all | bit)
}

/// Tells whether a mode is a regular file's, whose bytes can be asked for.
pub fn is_regular(mode: u32) -> bool {
    mode & TYPE == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_modes_become_those_of_go() {
        assert_eq!(of_kernel(0o100_644), 0o644);
        assert_eq!(of_kernel(0o040_755), 0x8000_01ed);
        assert_eq!(of_kernel(0o120_777), 0x0800_01ff);
        assert_eq!(of_kernel(0o104_755), SETUID | 0o755);
        assert_eq!(of_kernel(0o041_777), DIRECTORY | STICKY | 0o777);
        assert_eq!(of_kernel(0o020_600), DEVICE | CHARACTER | 0o600);
        assert_eq!(of_kernel(0o060_600), DEVICE | 0o600);
    }

    #[test]
    fn permissions_come_back() {
        for mode in [0, 0o644, 0o4755, 0o2755, 0o1777, 0o7777] {
            assert_eq!(permissions(of_kernel(0o100_000 | mode)), mode);
        }
        assert!(is_regular(SETUID | 0o755));
        assert!(!is_regular(SYMLINK | 0o777));
    }
}
