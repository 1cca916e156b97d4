//! The one error of Logyard's boundaries: what the caller should do (`kind`), a stable code, and a sentence for people.

use std::fmt;

/// What the caller should do about an error. `common::http` maps each kind to one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request is wrong and will stay wrong: mend it.
    Invalid,
    /// The request is larger than a limit, which the message names.
    TooLarge,
    /// The media type or content encoding is not understood.
    UnsupportedMedia,
    /// The request contradicts an earlier one (an idempotency key with another body).
    Conflict,
    /// The server refuses this caller: a foreign page, a foreign host name.
    Forbidden,
    /// The named thing does not exist.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// The client, or everyone, asks too much: wait, then send the same again.
    Busy,
    /// A part of the server cannot work now (queue full, disk full, stopping): wait, then send the same again.
    Unavailable,
    /// The work took longer than its limit.
    Timeout,
    /// The caller went away.
    Cancelled,
    /// Stored bytes are not what was written. A person must look.
    Corrupt,
    /// A fault of ours.
    Internal,
}

/// An error with its kind, code and message; `Display` is the message.
pub struct Error {
    pub kind: ErrorKind,
    /// Stable, machine-readable: `invalid_query`, `queue_full`, …
    pub code: &'static str,
    /// What, where, how to mend it. Lowercase, no full stop at its end.
    pub message: String,
    /// The request parameter at fault.
    pub parameter: Option<String>,
    /// Byte offset of the fault inside the parameter or body.
    pub position: Option<usize>,
    /// For `Busy` and `Unavailable`: seconds to wait before the next try.
    pub retry_after_s: Option<u64>,
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        let retry_after_s = match kind {
            ErrorKind::Busy | ErrorKind::Unavailable => Some(1),
            ErrorKind::Invalid
            | ErrorKind::TooLarge
            | ErrorKind::UnsupportedMedia
            | ErrorKind::Conflict
            | ErrorKind::Forbidden
            | ErrorKind::NotFound
            | ErrorKind::MethodNotAllowed
            | ErrorKind::Timeout
            | ErrorKind::Cancelled
            | ErrorKind::Corrupt
            | ErrorKind::Internal => None,
        };
        Self {
            kind,
            code,
            message: message.into(),
            parameter: None,
            position: None,
            retry_after_s,
            source: None,
        }
    }

    pub fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, code, message)
    }

    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, code, message)
    }

    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, "corrupt_data", message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, "internal_error", message)
    }

    #[must_use]
    pub fn with_parameter(mut self, parameter: impl Into<String>) -> Self {
        self.parameter = Some(parameter.into());
        self
    }

    #[must_use]
    pub fn with_position(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }

    #[must_use]
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}: {}", self.kind, self.code, self.message)?;
        match &self.source {
            Some(source) => write!(f, " (because: {source})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.source {
            Some(source) => Some(source.as_ref()),
            None => None,
        }
    }
}
