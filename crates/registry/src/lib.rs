// SPDX-License-Identifier: Apache-2.0
//! The distribution API: the client.
