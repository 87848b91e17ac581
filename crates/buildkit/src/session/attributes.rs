// SPDX-License-Identifier: Apache-2.0
//! The extended attributes of files that go into a context: those that mean the same on another machine.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The longest list of names, in bytes (Linux, `XATTR_LIST_MAX`).
const MAX_NAMES_BYTES: usize = 64 << 10;
/// The longest value, in bytes (Linux, `XATTR_SIZE_MAX`).
const MAX_VALUE_BYTES: usize = 64 << 10;
/// The most bytes of all values of one file.
const MAX_BYTES: usize = 1 << 20;

/// Reads the attributes of a file, of a symlink its own: capabilities and what users set. Labels of security modules and
/// lists of access rights are this machine's, and stay here.
///
/// # Errors
/// When they can't be read, or are more than a message can hold.
pub(super) fn read(path: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut attributes = BTreeMap::new();
    let mut names = vec![0; MAX_NAMES_BYTES];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        // Most file systems that have none say so.
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut total = 0;
    for name in names[..length].split(|byte| *byte == 0) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if name != "security.capability" && !name.starts_with("user.") {
            continue;
        }
        let mut value = vec![0; MAX_VALUE_BYTES];
        match rustix::fs::lgetxattr(path, name, &mut value[..]) {
            Ok(length) => value.truncate(length),
            // It went away meanwhile.
            Err(rustix::io::Errno::NODATA) => continue,
            Err(error) => return Err(error.into()),
        }
        total += value.len();
        if total > MAX_BYTES {
            return Err(io::Error::other("its extended attributes are larger than 1 MiB"));
        }
        attributes.insert(name.to_owned(), value);
    }
    Ok(attributes)
}
