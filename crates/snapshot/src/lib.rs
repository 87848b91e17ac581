// SPDX-License-Identifier: Apache-2.0
//! File trees: layer directories, their mounts, and the tar streams they come from and go to.
