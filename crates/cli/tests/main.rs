// SPDX-License-Identifier: Apache-2.0
//! The command line as its users see it.

mod build_request;
mod error_text;
mod every_file;
mod progress;
mod reference;
