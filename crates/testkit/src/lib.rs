// SPDX-License-Identifier: Apache-2.0
//! What tests share: hermetic directories, images made by code, registries, checks for what the machine can do.
