// SPDX-License-Identifier: Apache-2.0
//! Source policies: which sources a build may read.

#![expect(missing_docs, reason = "the fields are those of the protocol, under its names")]

use std::collections::BTreeMap;

use prost::{Enumeration, Message};

/// A rule of a policy.
#[derive(Clone, PartialEq, Message)]
pub struct Rule {
    #[prost(enumeration = "PolicyAction", tag = "1")]
    pub action: i32,
    #[prost(message, optional, tag = "2")]
    pub selector: Option<Selector>,
    #[prost(message, optional, tag = "3")]
    pub updates: Option<Update>,
}

/// How a rule changes a source.
#[derive(Clone, PartialEq, Message)]
pub struct Update {
    #[prost(string, tag = "1")]
    pub identifier: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub attrs: BTreeMap<String, String>,
}

/// Which sources a rule is about.
#[derive(Clone, PartialEq, Message)]
pub struct Selector {
    #[prost(string, tag = "1")]
    pub identifier: String,
    #[prost(enumeration = "MatchType", tag = "2")]
    pub match_type: i32,
    #[prost(message, repeated, tag = "3")]
    pub constraints: Vec<AttrConstraint>,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum PolicyAction {
    Allow = 0,
    Deny = 1,
    Convert = 2,
}

/// A condition on an attribute.
#[derive(Clone, PartialEq, Message)]
pub struct AttrConstraint {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
    #[prost(enumeration = "AttrMatch", tag = "3")]
    pub condition: i32,
}

/// How an attribute is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum AttrMatch {
    Equal = 0,
    Notequal = 1,
    Matches = 2,
}

/// A policy.
#[derive(Clone, PartialEq, Message)]
pub struct Policy {
    #[prost(int64, tag = "1")]
    pub version: i64,
    #[prost(message, repeated, tag = "2")]
    pub rules: Vec<Rule>,
}

/// How an identifier is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum MatchType {
    Wildcard = 0,
    Exact = 1,
    Regex = 2,
}
