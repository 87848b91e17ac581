// SPDX-License-Identifier: Apache-2.0
//! How the arguments of an instruction are cut.
