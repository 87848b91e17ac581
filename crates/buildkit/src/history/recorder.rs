// SPDX-License-Identifier: Apache-2.0
//! A record in the making: from the begin of a build to its end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use polyarch_build::attest::ProvenanceOptions;
use polyarch_build::remote::redacted;
use polyarch_build::request::Context;
use polyarch_build::{BuildError, BuildRequest, BuildResult, ErrorKind};
use polyarch_oci::Descriptor as ImageDescriptor;
use polyarch_solver::progress::Progress;
use prost::Message as _;
use serde_json::Value;

use super::{History, log, trace};
use crate::api::control::{BuildHistoryRecord, BuildResultInfo, Descriptor, Exporter, StatusResponse};
use crate::api::rpc;
use crate::server::{StatusLog, message_of_status, status_of, timestamp};

/// The media type of a whole error. The letter that it lacks, it lacks in BuildKit.
const ERROR: &str = "application/vnd.googeapis.google.rpc.status+proto";
/// The attribute that tells where the context was, in the words of buildx.
pub const LOCAL_CONTEXT: &str = "vcs:localdir:context";
/// The media type of provenance.
const STATEMENT: &str = "application/vnd.in-toto+json";

/// A build that is remembered when it ends.
pub struct Recorder {
    history: History,
    log: Arc<StatusLog>,
    record: BuildHistoryRecord,
}

/// How a build ended.
#[derive(Default)]
pub struct Outcome {
    /// Why it failed.
    pub error: Option<rpc::Status>,
    /// What its exporters said.
    pub response: BTreeMap<String, String>,
    /// How each platform was built: its name, which is empty where there is only one, and the predicate.
    pub provenance: Vec<(String, Value)>,
    /// What was made: an index or a manifest.
    pub root: Option<ImageDescriptor>,
}

impl Outcome {
    /// Returns how a build of our own ended.
    pub fn of(ended: &Result<BuildResult, BuildError>) -> Outcome {
        let result = match ended {
            Ok(result) => result,
            Err(error) => {
                let error = Some(message_of_status(&status_of(error)));
                return Outcome { error, ..Outcome::default() };
            }
        };
        let is_one = result.platforms.len() <= 1;
        let platforms = result.platforms.iter().map(|it| it.platform.to_string());
        let options = ProvenanceOptions::default();
        let provenance = platforms.zip(&result.provenance).map(|(platform, provenance)| {
            let name = if is_one { String::new() } else { platform };
            (name, provenance.predicate(&options))
        });
        let mut response = BTreeMap::new();
        if let Some(root) = &result.root {
            response.insert("containerimage.digest".to_owned(), root.digest.to_string());
        }
        if !result.names.is_empty() {
            let names: Vec<String> = result.names.iter().map(ToString::to_string).collect();
            response.insert("image.name".to_owned(), names.join(","));
        }
        Outcome { error: None, response, provenance: provenance.collect(), root: result.root.clone() }
    }
}

impl Recorder {
    /// Begins a record of a build of our own, under a name that is made up.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn start(history: History, request: &BuildRequest) -> Result<Recorder, BuildError> {
        let name = crate::session::random_id().map_err(|error| {
            BuildError::new(ErrorKind::Storage, format!("a build can't get a name: no random bytes: {error}"))
        })?;
        let mut attributes = request.frontend_attributes();
        if let Context::Directory(path) = &request.context {
            attributes.insert(LOCAL_CONTEXT.to_owned(), path.to_string_lossy().into_owned());
        }
        let platforms: Vec<String> = request.platforms.iter().map(ToString::to_string).collect();
        if !platforms.is_empty() {
            attributes.insert("platform".to_owned(), platforms.join(","));
        }
        Ok(Recorder::of_log(StatusLog::new(), history, &name, "dockerfile.v0", &attributes, Vec::new()))
    }

    /// Begins a record of a build whose progress is kept elsewhere.
    pub(crate) fn of_log(
        log: Arc<StatusLog>,
        history: History,
        name: &str,
        frontend: &str,
        attributes: &BTreeMap<String, String>,
        exporters: Vec<Exporter>,
    ) -> Recorder {
        let record = BuildHistoryRecord {
            r#ref: name.to_owned(),
            frontend: frontend.to_owned(),
            frontend_attrs: attributes.iter().map(|(key, value)| (key.clone(), told(key, value))).collect(),
            exporters,
            created_at: timestamp(Some(SystemTime::now())),
            ..BuildHistoryRecord::default()
        };
        Recorder { history, log, record }
    }

    /// Returns where the build sends its progress.
    pub fn progress(&self) -> Progress {
        self.log.progress()
    }

    /// Returns what is known so far.
    pub(crate) fn record(&self) -> &BuildHistoryRecord {
        &self.record
    }

    /// Keeps the record of a build that has ended.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn finish(self, outcome: Outcome) -> Result<BuildHistoryRecord, BuildError> {
        let Recorder { history, log, mut record } = self;
        let name = record.r#ref.clone();
        record.completed_at = timestamp(Some(SystemTime::now()));
        let messages: Vec<StatusResponse> = log.messages();
        count(&mut record, &messages);
        record.exporter_response = outcome.response;
        if let Some(mut error) = outcome.error {
            record.external_error = Some(history.attach(&name, ERROR, &error.encode_to_vec())?);
            // The whole of it is beside the record.
            error.details.clear();
            record.error = Some(error);
        }
        for (platform, predicate) in outcome.provenance {
            let bytes = polyarch_oci::json::to_indented(&predicate, "  ");
            if bytes.len() > super::MAX_ATTACHMENT_BYTES {
                continue;
            }
            let mut provenance = history.attach(&name, STATEMENT, &bytes)?;
            let kind = "https://slsa.dev/provenance/v1".to_owned();
            provenance.annotations.insert("in-toto.io/predicate-type".to_owned(), kind);
            let result = match platform.as_str() {
                "" => record.result.get_or_insert_default(),
                platform => record.results.entry(platform.to_owned()).or_default(),
            };
            result.attestations.push(provenance);
        }
        if let Some(root) = &outcome.root {
            let result: &mut BuildResultInfo = record.result.get_or_insert_default();
            let root = Descriptor {
                media_type: root.media_type.clone(),
                digest: root.digest.to_string(),
                size: i64::try_from(root.size).unwrap_or(i64::MAX),
                annotations: root.annotations.clone(),
            };
            result.result_deprecated = Some(root.clone());
            result.results.insert(0, root);
        }
        record.trace = Some(history.attach(&name, trace::MEDIA_TYPE, &trace::encode(&record, &messages))?);
        record.logs = Some(history.attach(&name, log::MEDIA_TYPE, &log::encode(messages))?);
        history.put(&record)?;
        Ok(record)
    }
}

/// Returns an attribute as it may be kept: without names and passwords in URLs.
fn told(key: &str, value: &str) -> String {
    let is_url = matches!(key, "context" | "vcs:source") || key.starts_with("context:");
    if is_url { redacted(value) } else { value.to_owned() }
}

/// Counts the steps.
fn count(record: &mut BuildHistoryRecord, messages: &[StatusResponse]) {
    let mut steps: HashMap<&str, (bool, bool)> = HashMap::new();
    let mut warnings = 0_usize;
    for message in messages {
        warnings += message.warnings.len();
        for vertex in &message.vertexes {
            let (is_cached, is_completed) = steps.entry(&vertex.digest).or_default();
            *is_cached |= vertex.cached;
            *is_completed |= vertex.completed.is_some();
        }
    }
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    record.num_total_steps = number(steps.len());
    record.num_cached_steps = number(steps.values().filter(|(is_cached, _)| *is_cached).count());
    record.num_completed_steps = number(steps.values().filter(|(_, is_completed)| *is_completed).count());
    record.num_warnings = number(warnings);
}

#[cfg(test)]
mod tests {
    use polyarch_store::Store;

    use super::*;

    #[test]
    fn an_ended_build_is_remembered_with_what_it_said() {
        let directory = tempfile::tempdir().unwrap();
        let history = History::new(&Store::open(directory.path()).unwrap());
        let attributes = [("context".to_owned(), "https://u:secret@e.example/r.git".to_owned())].into();
        let log = StatusLog::new();
        let recorder =
            Recorder::of_log(log, history.clone(), "one", "dockerfile.v0", &attributes, Vec::new());
        let progress = recorder.progress();
        progress.begin("a", "step a").done();
        progress.begin("b", "step b").failed("broken");
        progress.warn("look");
        let error = rpc::Status {
            code: 2,
            message: "broken".to_owned(),
            details: vec![prost_types::Any { type_url: "t".to_owned(), value: b"v".to_vec() }],
        };
        let provenance = vec![(String::new(), serde_json::json!({ "a": 1 }))];
        let outcome = Outcome { error: Some(error.clone()), provenance, ..Outcome::default() };
        let record = recorder.finish(outcome).unwrap();
        assert_eq!(history.get("one").unwrap().as_ref(), Some(&record));
        assert_eq!((record.num_total_steps, record.num_completed_steps, record.num_warnings), (2, 2, 1));
        assert!(!format!("{record:?}").contains("secret"));
        assert!(record.error.unwrap().details.is_empty());
        let read = |digest: &str| history.attachment("one", digest).unwrap().unwrap();
        let whole = read(&record.external_error.unwrap().digest);
        assert_eq!(rpc::Status::decode(whole.as_slice()).unwrap(), error);
        let said = log::messages_of(&read(&record.logs.unwrap().digest));
        let names: Vec<&str> =
            said.iter().flat_map(|message| &message.vertexes).map(|vertex| vertex.name.as_str()).collect();
        assert_eq!(names, ["step a", "step a", "step b", "step b"]);
        let provenance = &record.result.unwrap().attestations[0];
        assert_eq!(provenance.annotations["in-toto.io/predicate-type"], "https://slsa.dev/provenance/v1");
        assert!(read(&record.trace.unwrap().digest).starts_with(b"{"));
    }
}
