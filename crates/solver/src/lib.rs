// SPDX-License-Identifier: Apache-2.0
//! A graph of cacheable operations, each solved once.
