// SPDX-License-Identifier: Apache-2.0
//! How builders keep a node of theirs: `kubernetes:///BUILDER?deployment=NODE&kubeconfig=FILE`.

use std::fmt;
use std::str::FromStr;

use url::Url;
use url::form_urlencoded::Serializer;

use crate::error::OptionError;

/// What begins an address.
const SCHEME: &str = "kubernetes";

/// A node's address, in the form that `docker buildx` keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress {
    /// The builder.
    pub builder: String,
    /// The node within it.
    pub deployment: String,
    /// The file or files, separated by colons, that tell where the cluster is; empty means the user's own.
    pub kubeconfig: String,
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = Serializer::new(String::new())
            .append_pair("deployment", &self.deployment)
            .append_pair("kubeconfig", &self.kubeconfig)
            .finish();
        write!(f, "{SCHEME}:///{}?{query}", self.builder)
    }
}

impl FromStr for NodeAddress {
    type Err = OptionError;

    /// Reads an address. Parts that are not known are left alone.
    ///
    /// # Errors
    /// When it is no address of this kind.
    fn from_str(text: &str) -> Result<NodeAddress, OptionError> {
        let wrong = || OptionError::Address { address: text.to_owned() };
        let url = Url::parse(text).map_err(|_| wrong())?;
        if url.scheme() != SCHEME {
            return Err(wrong());
        }
        let part = |name: &str| {
            let found = url.query_pairs().find(|(key, _)| key == name);
            found.map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        let builder = url.path().trim_start_matches('/').to_owned();
        Ok(NodeAddress { builder, deployment: part("deployment"), kubeconfig: part("kubeconfig") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_buildx() {
        let address = NodeAddress {
            builder: "far".to_owned(),
            deployment: "far0".to_owned(),
            kubeconfig: "/home/me/my config".to_owned(),
        };
        let text = "kubernetes:///far?deployment=far0&kubeconfig=%2Fhome%2Fme%2Fmy+config";
        assert_eq!(address.to_string(), text);
        assert_eq!(text.parse::<NodeAddress>().unwrap(), address);
        let own: NodeAddress = "kubernetes:///far?deployment=&kubeconfig=".parse().unwrap();
        assert_eq!((own.builder.as_str(), own.kubeconfig.as_str()), ("far", ""));
        for text in ["far", "tcp://far:1", "kubernetes"] {
            assert!(text.parse::<NodeAddress>().is_err(), "{text}");
        }
    }
}
