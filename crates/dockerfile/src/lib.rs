// SPDX-License-Identifier: Apache-2.0
//! Dockerfile text becomes stages of instructions.
