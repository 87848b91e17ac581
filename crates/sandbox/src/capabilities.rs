// SPDX-License-Identifier: Apache-2.0
//! The capabilities that a container's process keeps.
