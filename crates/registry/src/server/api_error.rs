// SPDX-License-Identifier: Apache-2.0
//! Refusals: the specification's codes, each with a sentence (distribution-spec, "Error Codes").

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use polyarch_oci::Digest;

use super::body::Body;
use super::storage::StorageError;
use super::upload::UploadError;
use crate::api::one_line;

/// The specification's codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
}

impl Code {
    fn as_str(self) -> &'static str {
        match self {
            Code::BlobUnknown => "BLOB_UNKNOWN",
            Code::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Code::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Code::DigestInvalid => "DIGEST_INVALID",
            Code::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Code::ManifestInvalid => "MANIFEST_INVALID",
            Code::ManifestUnknown => "MANIFEST_UNKNOWN",
            Code::NameInvalid => "NAME_INVALID",
            Code::NameUnknown => "NAME_UNKNOWN",
            Code::SizeInvalid => "SIZE_INVALID",
            Code::Unauthorized => "UNAUTHORIZED",
            Code::Denied => "DENIED",
            Code::Unsupported => "UNSUPPORTED",
            Code::TooManyRequests => "TOOMANYREQUESTS",
        }
    }
}

/// A refusal.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: Code,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What the log says besides: nothing of the inside is for clients.
    pub(super) cause: Option<String>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: Code, message: impl Into<String>) -> ApiError {
        ApiError { status, code, message: message.into(), headers: Vec::new(), cause: None }
    }

    /// Adds a header, when the value is fit for one.
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> ApiError {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    pub(super) fn digest_invalid(text: &str) -> ApiError {
        let shown = one_line(text, 150);
        ApiError::new(
            StatusCode::BAD_REQUEST,
            Code::DigestInvalid,
            format!(
                "{shown:?} is not a digest that this registry knows: write sha256: and 64, or sha512: and 128, \
                 lower-case hexadecimal digits"
            ),
        )
    }

    pub(super) fn blob_unknown(digest: &Digest, repository: &impl std::fmt::Display) -> ApiError {
        ApiError::new(
            StatusCode::NOT_FOUND,
            Code::BlobUnknown,
            format!("the repository {repository} has no blob {digest}"),
        )
    }

    pub(super) fn name_unknown(repository: &impl std::fmt::Display) -> ApiError {
        ApiError::new(
            StatusCode::NOT_FOUND,
            Code::NameUnknown,
            format!("there is no repository {repository}; the first push makes it"),
        )
    }

    pub(super) fn method(allowed: &str) -> ApiError {
        ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            Code::Unsupported,
            format!("this address takes only {allowed}"),
        )
        .header(http::header::ALLOW, allowed)
    }

    /// Something is wrong here, and not with the request.
    pub(super) fn internal(cause: impl std::fmt::Display) -> ApiError {
        let mut error = ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            Code::Unsupported,
            "the registry failed; its log says why",
        );
        error.cause = Some(cause.to_string());
        error
    }

    /// Gives the status and the headers, for an answer that says the rest in its own words.
    pub(super) fn into_head(self) -> (StatusCode, Vec<(HeaderName, HeaderValue)>) {
        (self.status, self.headers)
    }

    /// Makes the answer.
    pub(super) fn into_response(self) -> Response<Body> {
        let entry = serde_json::json!({ "code": self.code.as_str(), "message": self.message });
        let text = serde_json::json!({ "errors": [entry] }).to_string();
        let mut response = Response::new(Body::full(Bytes::from(text)));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> ApiError {
        if error.is_full() {
            let mut full = ApiError::new(
                StatusCode::INSUFFICIENT_STORAGE,
                Code::Denied,
                "the registry's disk is full: nothing was changed; try again when its owner has made room",
            );
            full.cause = Some(chain_of(&error));
            return full;
        }
        if matches!(error, StorageError::IndexFull { .. }) {
            let message = format!("{error}; delete some, or push to another repository");
            return ApiError::new(StatusCode::INSUFFICIENT_STORAGE, Code::Denied, message);
        }
        ApiError::internal(chain_of(&error))
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> ApiError {
        let text = error.to_string();
        match error {
            UploadError::Unknown => ApiError::new(
                StatusCode::NOT_FOUND,
                Code::BlobUploadUnknown,
                format!("{text}; begin a new one"),
            ),
            UploadError::Busy => ApiError::new(StatusCode::CONFLICT, Code::BlobUploadInvalid, text),
            UploadError::TooMany => ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                Code::TooManyRequests,
                format!("{text}; try again when some have ended"),
            )
            .header(http::header::RETRY_AFTER, "30"),
            UploadError::OutOfOrder { .. } => ApiError::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                Code::BlobUploadInvalid,
                format!("{text}; ask with GET where to go on"),
            ),
            UploadError::Mismatch { .. } => ApiError::new(StatusCode::BAD_REQUEST, Code::DigestInvalid, text),
            UploadError::Storage(error) => error.into(),
            UploadError::Body(_) => ApiError::new(StatusCode::BAD_REQUEST, Code::BlobUploadInvalid, text),
            UploadError::TooLarge { .. } => {
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, text)
            }
            UploadError::Length { .. } => ApiError::new(StatusCode::BAD_REQUEST, Code::SizeInvalid, text),
        }
    }
}

/// Puts an error and its causes on one line.
pub(super) fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}
