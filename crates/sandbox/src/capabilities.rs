// SPDX-License-Identifier: Apache-2.0
//! The capabilities that a container's process keeps.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// Docker's default set; `/proc/self/status` shows it as `00000000a80425fb`.
pub(crate) const DEFAULT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// Drops from the bounding set what is not in `keep`, so that no setuid program and no file brings it back.
pub(crate) fn limit_bounding_set(keep: CapabilitySet) -> Result<(), Errno> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(capability) {
            continue;
        }
        match capability_is_in_bounding_set(capability) {
            Ok(true) => remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            // The kernel answers EINVAL for the first number that it does not know.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Leaves this process `keep`, inheritable and ambient sets empty.
///
/// To be called after the change of user: for another user than root the kernel has emptied the sets by then, and
/// they stay empty.
pub(crate) fn keep_only(keep: CapabilitySet, uid: u32) -> Result<(), Errno> {
    clear_ambient_capability_set()?;
    let held = if uid == 0 { keep } else { CapabilitySet::empty() };
    let available = rustix::thread::capabilities(None)?.permitted;
    let held = held.intersection(available);
    set_capabilities(
        None,
        CapabilitySets { effective: held, permitted: held, inheritable: CapabilitySet::empty() },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_dockers() {
        assert_eq!(DEFAULT.bits(), 0x0000_0000_a804_25fb);
    }
}
