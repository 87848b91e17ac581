// SPDX-License-Identifier: Apache-2.0
//! What the pods of a node are to be: the driver options of `docker buildx`, validated once.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::OptionError;

const DEFAULT_IMAGE: &str = "moby/buildkit:buildx-stable-1";
const DEFAULT_ROOTLESS_IMAGE: &str = "moby/buildkit:buildx-stable-1-rootless";
const DEFAULT_QEMU_IMAGE: &str = "tonistiigi/binfmt:latest";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// More would be a slip of the keyboard.
const MAX_REPLICAS: u32 = 1000;

/// The label by which the pods of a node are found.
pub(crate) const LABEL_APP: &str = "app";
/// The annotation that tells the platforms fixed for a node.
pub(crate) const ANNOTATION_PLATFORM: &str = "buildx.docker.com/platform";

/// Which of several pods a build goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadBalance {
    /// Builds of one context go to one pod, whose cache then knows it.
    #[default]
    Sticky,
    /// Any pod.
    Random,
}

/// A taint that the pods put up with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Toleration {
    /// The taint's key; empty means all.
    pub key: String,
    /// `Exists` or `Equal`.
    pub operator: String,
    /// The taint's value.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule`, `NoExecute`; empty means all.
    pub effect: String,
    /// How long a `NoExecute` taint is put up with.
    pub seconds: Option<i64>,
}

/// What the pods of a node are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodOptions {
    /// The name of the Deployment or StatefulSet.
    pub name: String,
    /// The namespace; the kubeconfig's own when absent.
    pub namespace: Option<String>,
    /// The image, of BuildKit or of this program under its names.
    pub image: String,
    /// How many pods, at least 1.
    pub replicas: u32,
    /// Run without privileges.
    pub is_rootless: bool,
    /// Which pod a build goes to.
    pub load_balance: LoadBalance,
    /// How long pods may take to be ready.
    pub timeout: Duration,
    /// The image whose init container registers emulators on the machine, when asked for.
    pub qemu_image: Option<String>,
    /// `resource=quantity` that the scheduler sets aside.
    pub requests: BTreeMap<String, String>,
    /// `resource=quantity` that is never exceeded.
    pub limits: BTreeMap<String, String>,
    /// The size of a volume that keeps the cache; with it the node is a StatefulSet.
    pub volume_size: Option<String>,
    /// Keep the cache in memory, up to this size.
    pub memory_size: Option<String>,
    /// Labels that machines must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods put up with.
    pub tolerations: Vec<Toleration>,
    /// Labels of the pods besides `app`.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods.
    pub annotations: BTreeMap<String, String>,
    /// The service account.
    pub service_account: Option<String>,
    /// The scheduler.
    pub scheduler: Option<String>,
    /// The environment of the daemon.
    pub env: BTreeMap<String, String>,
    /// Flags of the daemon.
    pub flags: Vec<String>,
    /// The platforms fixed for the node, comma-separated; empty when none are.
    pub platforms: String,
    /// Files below `/etc/buildkit`, by their path there.
    pub files: BTreeMap<String, String>,
}

impl PodOptions {
    /// Reads the driver options of a node.
    ///
    /// # Errors
    /// The first option that is unknown or has a value of another kind.
    pub fn parse(name: &str, options: &BTreeMap<String, String>) -> Result<PodOptions, OptionError> {
        let mut pods = PodOptions::new(name);
        for (key, value) in options {
            pods.set(key, value)?;
        }
        if pods.is_rootless && options.get("image").is_none_or(String::is_empty) {
            DEFAULT_ROOTLESS_IMAGE.clone_into(&mut pods.image);
        }
        if options.get("qemu.install").is_none_or(|value| boolean(value) != Some(true)) {
            pods.qemu_image = None;
        }
        Ok(pods)
    }

    fn new(name: &str) -> PodOptions {
        PodOptions {
            name: name.to_owned(),
            namespace: None,
            image: DEFAULT_IMAGE.to_owned(),
            replicas: 1,
            is_rootless: false,
            load_balance: LoadBalance::Sticky,
            timeout: DEFAULT_TIMEOUT,
            qemu_image: Some(DEFAULT_QEMU_IMAGE.to_owned()),
            requests: BTreeMap::new(),
            limits: BTreeMap::new(),
            volume_size: None,
            memory_size: None,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            service_account: None,
            scheduler: None,
            env: BTreeMap::new(),
            flags: Vec::new(),
            platforms: String::new(),
            files: BTreeMap::new(),
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), OptionError> {
        let wrong = |expected| OptionError::Value { name: key.to_owned(), value: value.to_owned(), expected };
        let quantity = || match is_quantity(value) {
            true => Ok(value.to_owned()),
            false => Err(wrong("write a quantity such as 500m, 2 or 4Gi")),
        };
        let pairs = || pairs(value).ok_or_else(|| wrong("write KEY=VALUE[,KEY=VALUE]"));
        let switch = || boolean(value).ok_or_else(|| wrong("write true or false"));
        let text = || (!value.is_empty()).then(|| value.to_owned());
        match key {
            "image" if value.is_empty() => {}
            "image" => value.clone_into(&mut self.image),
            "namespace" => self.namespace = text(),
            "replicas" => {
                let replicas = value.parse().ok().filter(|replicas| (1..=MAX_REPLICAS).contains(replicas));
                self.replicas = replicas.ok_or_else(|| wrong("write a number from 1 to 1000"))?;
            }
            "rootless" => self.is_rootless = switch()?,
            "qemu.install" | "default-load" => drop(switch()?),
            "qemu.image" if value.is_empty() => {}
            "qemu.image" => self.qemu_image = text(),
            "loadbalance" => {
                self.load_balance = match value {
                    "sticky" => LoadBalance::Sticky,
                    "random" => LoadBalance::Random,
                    _ => return Err(wrong("write sticky or random")),
                };
            }
            "timeout" => {
                self.timeout = duration(value).ok_or_else(|| wrong("write a time such as 90s or 5m"))?
            }
            "requests.cpu" | "requests.memory" | "requests.ephemeral-storage" => {
                self.requests.insert(resource(key), quantity()?);
            }
            "limits.cpu" | "limits.memory" | "limits.ephemeral-storage" => {
                self.limits.insert(resource(key), quantity()?);
            }
            "persistent-volume-claim.requests.storage" => self.volume_size = Some(quantity()?),
            "buildkit-root-volume-memory" if value.is_empty() => {}
            "buildkit-root-volume-memory" => self.memory_size = Some(quantity()?),
            "nodeselector" => self.node_selector = pairs()?,
            "labels" => {
                self.labels = pairs()?;
                if self.labels.contains_key(LABEL_APP) {
                    return Err(wrong("the label app names the node itself"));
                }
            }
            "annotations" => {
                self.annotations = pairs()?;
                if self.annotations.contains_key(ANNOTATION_PLATFORM) {
                    return Err(wrong("fix platforms with --platform"));
                }
            }
            "tolerations" => {
                self.tolerations =
                    value.split(';').map(toleration).collect::<Option<_>>().ok_or_else(|| {
                        wrong("write key=KEY,operator=OPERATOR,value=VALUE,effect=EFFECT[;…]")
                    })?;
            }
            "serviceaccount" => self.service_account = text(),
            "schedulername" => self.scheduler = text(),
            _ => match key.strip_prefix("env.").filter(|name| !name.is_empty()) {
                Some(name) => drop(self.env.insert(name.to_owned(), value.to_owned())),
                None => return Err(OptionError::Unknown { name: key.to_owned() }),
            },
        }
        Ok(())
    }
}

/// Returns the name of a node's Deployment: Kubernetes knows no underscores.
pub fn deployment_name(node: &str) -> String {
    node.to_ascii_lowercase().replace(['_', '.'], "-")
}

/// The resource that an option is about: what follows the first dot.
fn resource(key: &str) -> String {
    key.split_once('.').map_or(key, |(_, resource)| resource).to_owned()
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn pairs(text: &str) -> Option<BTreeMap<String, String>> {
    let pair = |pair: &str| match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.contains('=') => {
            Some((key.to_owned(), value.to_owned()))
        }
        _ => None,
    };
    text.trim_matches('"').split(',').map(pair).collect()
}

fn toleration(text: &str) -> Option<Toleration> {
    let mut toleration = Toleration::default();
    for field in text.split(',') {
        let (key, value) = field.split_once('=')?;
        match key {
            "key" => value.clone_into(&mut toleration.key),
            "operator" => value.clone_into(&mut toleration.operator),
            "value" => value.clone_into(&mut toleration.value),
            "effect" => value.clone_into(&mut toleration.effect),
            "tolerationSeconds" => toleration.seconds = Some(value.parse().ok()?),
            _ => return None,
        }
    }
    Some(toleration)
}

/// Tells whether a text is a quantity as the Kubernetes API defines it: a decimal number and a suffix.
fn is_quantity(text: &str) -> bool {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let is_number = number.bytes().any(|byte| byte.is_ascii_digit()) && number.matches('.').count() <= 1;
    let is_exponent = || {
        suffix.strip_prefix(['e', 'E']).is_some_and(|power| !power.is_empty() && power.parse::<i8>().is_ok())
    };
    let suffixes = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    is_number && (suffixes.contains(&suffix) || is_exponent())
}

/// Reads a time in Go's form: numbers with units, the largest first or not.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0)?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let milliseconds = match &rest[..letters] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(milliseconds)?))?;
        rest = &rest[letters..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<PodOptions, String> {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        PodOptions::parse("node", &options).map_err(|error| error.to_string())
    }

    #[test]
    fn without_options_there_is_one_privileged_pod() {
        let pods = parse(&[]).unwrap();
        assert_eq!((pods.replicas, pods.is_rootless, pods.qemu_image.clone()), (1, false, None));
        assert_eq!(pods.image, "moby/buildkit:buildx-stable-1");
        assert_eq!(pods.timeout, Duration::from_secs(120));
    }

    #[test]
    fn options_are_read() {
        let pods = parse(&[
            ("namespace", "ci"),
            ("replicas", "3"),
            ("rootless", "true"),
            ("loadbalance", "random"),
            ("qemu.install", "true"),
            ("timeout", "1m30s"),
            ("requests.cpu", "500m"),
            ("limits.memory", "4Gi"),
            ("nodeselector", "kubernetes.io/arch=arm64,pool=build"),
            ("tolerations", "key=a,operator=Exists,effect=NoSchedule;key=b,value=c,tolerationSeconds=5"),
            ("env.HTTPS_PROXY", "http://proxy:3128"),
        ])
        .unwrap();
        assert_eq!(pods.namespace.as_deref(), Some("ci"));
        assert_eq!(pods.image, "moby/buildkit:buildx-stable-1-rootless");
        assert_eq!(pods.qemu_image.as_deref(), Some("tonistiigi/binfmt:latest"));
        assert_eq!(pods.timeout, Duration::from_secs(90));
        assert_eq!(pods.requests["cpu"], "500m");
        assert_eq!(pods.limits["memory"], "4Gi");
        assert_eq!(pods.node_selector["kubernetes.io/arch"], "arm64");
        assert_eq!(pods.tolerations[0].operator, "Exists");
        assert_eq!(pods.tolerations[1].seconds, Some(5));
        assert_eq!(pods.env["HTTPS_PROXY"], "http://proxy:3128");
        let pods = parse(&[("rootless", "true"), ("image", "mirror.example/buildkit:1")]).unwrap();
        assert_eq!(pods.image, "mirror.example/buildkit:1");
    }

    #[test]
    fn wrong_options_say_what_would_do() {
        let cases = [
            ("replica", "1", "invalid driver option \"replica\" for the driver kubernetes"),
            ("env.", "1", "invalid driver option \"env.\" for the driver kubernetes"),
            ("replicas", "0", "driver option replicas=0: write a number from 1 to 1000"),
            ("rootless", "yes", "driver option rootless=yes: write true or false"),
            ("limits.cpu", "many", "driver option limits.cpu=many: write a quantity such as 500m, 2 or 4Gi"),
            ("timeout", "5", "driver option timeout=5: write a time such as 90s or 5m"),
            ("labels", "app=x", "driver option labels=app=x: the label app names the node itself"),
            ("nodeselector", "x", "driver option nodeselector=x: write KEY=VALUE[,KEY=VALUE]"),
            ("loadbalance", "even", "driver option loadbalance=even: write sticky or random"),
        ];
        for (key, value, message) in cases {
            assert_eq!(parse(&[(key, value)]).unwrap_err(), message);
        }
    }

    #[test]
    fn quantities_are_those_of_the_api() {
        for text in ["1", "0.5", "500m", "4Gi", "1e3", "2E-1", ".5", "12E"] {
            assert!(is_quantity(text), "{text}");
        }
        for text in ["", "m", "1gb", "1 Gi", "-1", "1.2.3", "1e", "1ex"] {
            assert!(!is_quantity(text), "{text}");
        }
    }

    #[test]
    fn names_fit_kubernetes() {
        assert_eq!(deployment_name("loving_Mendeleev0"), "loving-mendeleev0");
    }
}
