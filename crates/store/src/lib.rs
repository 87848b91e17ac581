// SPDX-License-Identifier: Apache-2.0
//! Bytes by digest, and the names that point at them.
