// SPDX-License-Identifier: Apache-2.0
//! Room on the disk: what comes from outside may not fill it.

use crate::{Store, StoreError};

/// The most that is kept free, in bytes.
const MAX_RESERVE_BYTES: u64 = 1 << 30;

impl Store {
    /// Makes sure that content of this size leaves a part of the disk free: 5 %, at most 1 GiB.
    ///
    /// # Errors
    /// [`StoreError::NoRoom`] when it does not, and when the disk can't be asked.
    pub fn require_room(&self, bytes: u64) -> Result<(), StoreError> {
        let root = &self.inner.root;
        let found =
            rustix::fs::statvfs(root).map_err(|errno| StoreError::io("look at", root)(errno.into()))?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let reserve = reserve(found.f_blocks.saturating_mul(found.f_frsize));
        // File systems without a size of their own say that they have none.
        match found.f_blocks > 0 && bytes > free.saturating_sub(reserve) {
            true => Err(StoreError::NoRoom { root: root.clone(), bytes, free, reserve }),
            false => Ok(()),
        }
    }
}

fn reserve(total: u64) -> u64 {
    (total / 20).min(MAX_RESERVE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_disk_stays_free() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let error = store.require_room(1 << 50).unwrap_err();
        assert!(matches!(error, StoreError::NoRoom { bytes, .. } if bytes == 1 << 50), "{error}");
        assert_eq!((reserve(20), reserve(1 << 50)), (1, MAX_RESERVE_BYTES));
    }
}
