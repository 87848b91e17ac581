// SPDX-License-Identifier: Apache-2.0
//! What an image build is: every other room meets here.
