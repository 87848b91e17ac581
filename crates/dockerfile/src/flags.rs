// SPDX-License-Identifier: Apache-2.0
//! The flags of an instruction: which it has, and what they are set to.
