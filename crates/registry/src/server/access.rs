// SPDX-License-Identifier: Apache-2.0
//! Who may do what: users of a file in the form of Apache's htpasswd (bcrypt), and repositories that everybody may read.
//!
//! bcrypt is slow on purpose, so a pair that was right is remembered for a short time, by a keyed hash that is worth
//! nothing outside of this process.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, StatusCode};
use sha2::{Digest as _, Sha256};

use super::api_error::{ApiError, Code};
use super::identity::FileIdentity;
use super::names::RepositoryName;
use super::sender;
use super::users::Users;

/// The largest file of users, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// How long a right password is not checked again.
const REMEMBER: Duration = Duration::from_secs(300);
/// The most pairs that are remembered.
const MAX_REMEMBERED: usize = 1024;
/// The most passwords that are checked at a time: each takes a core for a while.
const MAX_CHECKS: usize = 2;
/// What a client without (right) credentials is told.
const CHALLENGE: &str = "Basic realm=\"polyarch registry\"";
/// The name of somebody who did not say: docker sends nothing without a name to a registry that asks others for one.
const GUEST: &str = "anonymous";

/// Who may do what.
pub struct Access {
    /// `None`: everybody may do everything.
    users: Option<RwLock<Users>>,
    watch: Option<Watch>,
    /// Only this machine is meant, and nobody has to say who they are.
    is_local: bool,
    /// Repositories that begin so may be read by everybody; an empty one means all.
    anonymous_read: Vec<String>,
    secret: [u8; 32],
    right: Mutex<HashMap<[u8; 32], Instant>>,
    checks: tokio::sync::Semaphore,
}

/// A file of users that is read again when it changes.
struct Watch {
    path: PathBuf,
    /// The file that was read last, also one that could not be used.
    seen: Mutex<Option<FileIdentity>>,
    told: Box<dyn Fn(String) + Send + Sync>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    /// Nobody needs to say.
    Anybody,
    /// Somebody who did not say.
    Anonymous,
    /// The same, in words.
    Guest,
    /// A user.
    User(String),
}

impl Access {
    /// Makes the rules: `None` for no users, who then need none.
    ///
    /// # Errors
    /// When there are no random bytes.
    pub fn new(users: Option<Users>, anonymous_read: Vec<String>) -> std::io::Result<Access> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(std::io::Error::other)?;
        let checks = tokio::sync::Semaphore::new(MAX_CHECKS);
        let users = users.map(RwLock::new);
        let right = Mutex::default();
        Ok(Access { users, watch: None, is_local: false, anonymous_read, secret, right, checks })
    }

    /// Reads the users again from a file when it changes. When it can't be used, those before stay, and `told` is
    /// called with the reason.
    #[must_use]
    pub fn watching(mut self, path: PathBuf, told: impl Fn(String) + Send + Sync + 'static) -> Access {
        self.watch = Some(Watch { path, seen: Mutex::default(), told: Box::new(told) });
        self
    }

    /// Takes only requests that name the server as one names this machine or one of a private network: those of a web
    /// page whose own name has been turned to this address do not.
    #[must_use]
    pub fn local(mut self) -> Access {
        self.is_local = true;
        self
    }

    /// Refuses what a web page sends that somebody has open.
    pub(super) fn check_sender(&self, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
        sender::check(method, headers, self.is_local)
    }

    /// Looks whether the file has changed; costs one `stat`.
    fn refresh(&self) {
        let (Some(watch), Some(users)) = (&self.watch, &self.users) else { return };
        let Ok(found) = fs::metadata(&watch.path) else { return };
        let identity = FileIdentity::of(&found);
        let mut seen = watch.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == Some(identity) {
            return;
        }
        *seen = Some(identity);
        let failed = |reason: String| (watch.told)(format!("{}: {reason}", watch.path.display()));
        if found.len() > MAX_FILE_BYTES {
            return failed("it is too large".to_owned());
        }
        let text = match fs::read_to_string(&watch.path) {
            Ok(text) => text,
            Err(error) => return failed(error.to_string()),
        };
        match Users::parse(&text) {
            Ok(read) => {
                *users.write().unwrap_or_else(PoisonError::into_inner) = read;
                // Whoever was let in before may be gone.
                self.right.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
            Err(error) => failed(error.to_string()),
        }
    }

    /// Tells whether users have to say who they are.
    pub fn asks(&self) -> bool {
        self.users.is_some()
    }

    /// Finds out who asks.
    pub(super) async fn identify(self: &Arc<Self>, headers: &HeaderMap) -> Result<Who, ApiError> {
        let Some(users) = &self.users else { return Ok(Who::Anybody) };
        self.refresh();
        let Some(header) = headers.get(AUTHORIZATION) else { return Ok(Who::Anonymous) };
        let pair = header.to_str().ok().and_then(|text| {
            let (scheme, encoded) = text.split_once(' ')?;
            let decoded =
                STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
            String::from_utf8(decoded).ok()
        });
        let Some((user, password)) = pair.as_deref().and_then(|pair| pair.split_once(':')) else {
            return Err(unauthorized("the credentials are not in the form of Basic authentication"));
        };
        // So podman, skopeo and buildah say that they have no credentials.
        if user.is_empty() && password.is_empty() {
            return Ok(Who::Anonymous);
        }
        if user == GUEST && self.has_anonymous() && !is_user(users, GUEST) {
            return Ok(Who::Guest);
        }
        let key = self.key(user, password);
        if self.is_remembered(&key) {
            return Ok(Who::User(user.to_owned()));
        }
        let permit = self.checks.acquire().await;
        let (hash, other) = {
            let users = users.read().unwrap_or_else(PoisonError::into_inner);
            // A name that is none takes as long as one that is.
            let other = users.hashes.values().next().cloned().unwrap_or_default();
            (users.hashes.get(user).cloned(), other)
        };
        let (password, checked) = (password.to_owned(), hash.clone());
        let check = tokio::task::spawn_blocking(move || {
            let is_right = bcrypt::verify(password, hash.as_deref().unwrap_or(&other)).unwrap_or(false);
            is_right && hash.is_some()
        });
        let is_right = check.await.unwrap_or(false);
        drop(permit);
        if !is_right {
            return Err(unauthorized("the name or the password is wrong"));
        }
        self.remember(key, user, checked.as_deref());
        Ok(Who::User(user.to_owned()))
    }

    /// Lets a request pass, or says what it needs.
    pub(super) fn check(
        &self,
        who: &Who,
        repository: Option<&RepositoryName>,
        is_read: bool,
    ) -> Result<(), ApiError> {
        let is_allowed = match (who, repository) {
            (Who::Anybody | Who::User(_), _) => true,
            (Who::Anonymous | Who::Guest, Some(repository)) => is_read && self.may_everybody_read(repository),
            (Who::Anonymous | Who::Guest, None) => false,
        };
        if is_allowed { Ok(()) } else { Err(unauthorized("this needs a user's name and password")) }
    }

    /// Tells whether a client may read a repository.
    pub(super) fn may_read(&self, who: &Who, repository: &RepositoryName) -> bool {
        !matches!(who, Who::Anonymous | Who::Guest) || self.may_everybody_read(repository)
    }

    /// Tells whether anything may be read by everybody.
    pub(super) fn has_anonymous(&self) -> bool {
        !self.anonymous_read.is_empty()
    }

    /// A prefix ends where a part of the name does: `team` means `team/app`, and not `teams`.
    fn may_everybody_read(&self, repository: &RepositoryName) -> bool {
        self.anonymous_read.iter().any(|prefix| {
            let prefix = prefix.trim_end_matches('/');
            let rest = repository.as_str().strip_prefix(prefix);
            prefix.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    fn key(&self, user: &str, password: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.secret);
        hash.update((user.len() as u64).to_le_bytes());
        hash.update(user);
        hash.update(password);
        hash.finalize().into()
    }

    fn is_remembered(&self, key: &[u8; 32]) -> bool {
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        right.get(key).is_some_and(|since| since.elapsed() < REMEMBER)
    }

    /// Remembers a pair, unless the user has gone or has another password since it was checked.
    fn remember(&self, key: [u8; 32], user: &str, checked: Option<&str>) {
        // The file's next change waits for this lock to forget all, so that the order is one or the other.
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(users) = &self.users else { return };
        let users = users.read().unwrap_or_else(PoisonError::into_inner);
        if users.hashes.get(user).map(String::as_str) != checked {
            return;
        }
        if right.len() >= MAX_REMEMBERED {
            right.retain(|_, since| since.elapsed() < REMEMBER);
        }
        if right.len() < MAX_REMEMBERED {
            right.insert(key, Instant::now());
        }
    }
}

fn is_user(users: &RwLock<Users>, name: &str) -> bool {
    users.read().unwrap_or_else(PoisonError::into_inner).hashes.contains_key(name)
}

fn unauthorized(sentence: &str) -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        Code::Unauthorized,
        format!("{sentence}: log in to this registry"),
    )
    .header(WWW_AUTHENTICATE, CHALLENGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "ann:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

    #[tokio::test]
    async fn passwords_are_checked_and_remembered() {
        let access = Arc::new(Access::new(Some(Users::parse(LINE).unwrap()), Vec::new()).unwrap());
        let who = async |pair: &str| {
            let mut headers = HeaderMap::new();
            let text = format!("Basic {}", STANDARD.encode(pair));
            headers.insert(AUTHORIZATION, text.parse().unwrap());
            access.identify(&headers).await
        };
        for _ in 0..2 {
            assert_eq!(who("ann:secret").await.unwrap(), Who::User("ann".to_owned()));
            assert!(who("ann:wrong").await.is_err());
            assert!(who("bob:secret").await.is_err());
            assert!(who("annsecret").await.is_err());
            assert!(who("anonymous:x").await.is_err(), "there is nothing for everybody");
        }
        assert_eq!(access.right.lock().unwrap().len(), 1);
        assert_eq!(access.identify(&HeaderMap::new()).await.unwrap(), Who::Anonymous);
        assert_eq!(who(":").await.unwrap(), Who::Anonymous);
    }

    #[tokio::test]
    async fn a_changed_file_counts_at_once_and_a_torn_one_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        let write = |text: &str| fs::write(&path, text).unwrap();
        write(LINE);
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = told.clone();
        let access = Access::new(Some(Users::parse(LINE).unwrap()), Vec::new()).unwrap();
        let access = Arc::new(access.watching(path.clone(), move |text| sink.lock().unwrap().push(text)));
        let may = async |user: &str| {
            let mut headers = HeaderMap::new();
            let text = format!("Basic {}", STANDARD.encode(format!("{user}:secret")));
            headers.insert(AUTHORIZATION, text.parse().unwrap());
            access.identify(&headers).await.is_ok()
        };
        assert!(may("ann").await && !may("bob").await);
        write(&LINE.replace("ann", "bobby"));
        assert!(!may("ann").await && may("bobby").await, "also who was remembered is gone");
        write("torn");
        assert!(may("bobby").await && may("bobby").await);
        assert_eq!(told.lock().unwrap().len(), 1);
    }

    #[test]
    fn what_changed_while_a_password_was_checked_is_not_remembered() {
        let access = Access::new(Some(Users::parse(LINE).unwrap()), Vec::new()).unwrap();
        access.remember([1; 32], "ann", Some("the hash of a moment ago"));
        access.remember([2; 32], "gone", Some("x"));
        assert!(!access.is_remembered(&[1; 32]) && !access.is_remembered(&[2; 32]));
    }

    #[test]
    fn a_prefix_ends_with_a_part_of_the_name() {
        let access = Access::new(Some(Users::parse(LINE).unwrap()), vec!["public/".to_owned()]).unwrap();
        let name = |text: &str| RepositoryName::new(text).unwrap();
        assert!(access.check(&Who::Anonymous, Some(&name("public/a")), true).is_ok());
        for (repository, is_read) in [("public/a", false), ("publicity", true), ("a/public", true)] {
            assert!(access.check(&Who::Anonymous, Some(&name(repository)), is_read).is_err(), "{repository}");
        }
        assert!(access.check(&Who::Anonymous, None, true).is_err());
    }
}
