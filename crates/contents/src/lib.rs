// SPDX-License-Identifier: Apache-2.0
//! The files of an image as the streams of its layers tell them, judged without unpacking.
