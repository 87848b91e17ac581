// SPDX-License-Identifier: Apache-2.0
//! Images after the build: found, composed, copied, compared and proved.
//!
//! Everything here works on a [`polyarch_build::Services`]: its store, its registry client and, where
//! files must be looked at, its layers.
