//! How calls fail, and what that looks like on the wire and in a job.

use serde_json::{Value, json};

use super::Dialect;

/// Numbers of errors: those of Linux, and those above 200 that are the middleware's own.
pub(super) mod errno {
    pub(crate) const EPERM: i64 = 1;
    pub(crate) const ENOENT: i64 = 2;
    pub(crate) const EACCES: i64 = 13;
    pub(crate) const EFAULT: i64 = 14;
    pub(crate) const EBUSY: i64 = 16;
    pub(crate) const EEXIST: i64 = 17;
    pub(crate) const ENOTDIR: i64 = 20;
    pub(crate) const EISDIR: i64 = 21;
    pub(crate) const EINVAL: i64 = 22;
    pub(crate) const ENOTEMPTY: i64 = 39;
    pub(crate) const EOPNOTSUPP: i64 = 95;
    pub(crate) const ENOTAUTHENTICATED: i64 = 207;
}

fn name(number: i64) -> &'static str {
    match number {
        errno::EPERM => "EPERM",
        errno::ENOENT => "ENOENT",
        errno::EACCES => "EACCES",
        errno::EFAULT => "EFAULT",
        errno::EBUSY => "EBUSY",
        errno::EEXIST => "EEXIST",
        errno::ENOTDIR => "ENOTDIR",
        errno::EISDIR => "EISDIR",
        errno::EINVAL => "EINVAL",
        errno::ENOTEMPTY => "ENOTEMPTY",
        errno::EOPNOTSUPP => "EOPNOTSUPP",
        errno::ENOTAUTHENTICATED => "ENOTAUTHENTICATED",
        _ => "EUNKNOWN",
    }
}

/// What is wrong with one parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Its path; none is what the middleware calls `None`.
    pub(super) at: Option<String>,
    pub(super) message: String,
    pub(super) errno: i64,
}

impl Fault {
    pub(super) fn new(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            at: Some(at.into()),
            message: message.into(),
            errno: errno::EINVAL,
        }
    }

    fn line(&self) -> String {
        let at = self.at.as_deref().unwrap_or("None");
        format!("[{}] {at}: {}", name(self.errno), self.message)
    }

    fn triple(&self) -> Value {
        json!([self.at, self.message, self.errno])
    }
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Failure {
    /// Parameters are wrong (`ValidationErrors`).
    Invalid(Vec<Fault>),
    /// One thing is wrong (`ValidationError`, and `InstanceNotFound`, which is one).
    One(Fault),
    /// The call itself failed (`CallError`).
    Call { errno: i64, message: String },
    /// An exception that nobody foresaw.
    Raised { class: &'static str, message: String },
}

impl Failure {
    pub(super) fn call(errno: i64, message: impl Into<String>) -> Self {
        Self::Call {
            errno,
            message: message.into(),
        }
    }

    /// A failure without a number of its own.
    pub(super) fn fault(message: impl Into<String>) -> Self {
        Self::call(errno::EFAULT, message)
    }

    /// Something is not there.
    pub(super) fn missing(message: impl Into<String>) -> Self {
        Self::One(Fault {
            at: None,
            message: message.into(),
            errno: errno::ENOENT,
        })
    }

    /// One parameter is wrong.
    pub(super) fn invalid(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![Fault::new(at, message)])
    }

    pub(super) fn busy() -> Self {
        Self::call(errno::EBUSY, "This job is already being performed")
    }

    /// What the exception says.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Invalid(faults) => faults.iter().map(|fault| fault.line() + "\n").collect(),
            Self::One(fault) => fault.line(),
            Self::Call { errno, message } => format!("[{}] {message}", name(*errno)),
            Self::Raised { message, .. } => message.clone(),
        }
    }

    fn class(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "ValidationErrors",
            Self::One(fault) if fault.errno == errno::ENOENT && fault.at.is_none() => "InstanceNotFound",
            Self::One(_) => "ValidationError",
            Self::Call { .. } => "CallError",
            Self::Raised { class, .. } => class,
        }
    }

    fn repr(&self) -> String {
        format!("{}({:?})", self.class(), self.text())
    }

    fn faults(&self) -> Option<&[Fault]> {
        match self {
            Self::Invalid(faults) => Some(faults),
            Self::One(fault) => Some(std::slice::from_ref(fault)),
            _ => None,
        }
    }

    /// The member `error` of a response.
    pub(super) fn response(&self, dialect: Dialect) -> Value {
        let faults = self.faults();
        let (code, message) = match faults {
            Some(_) => (-32602, "Invalid params"),
            None => (-32001, "Method call error"),
        };
        let number = match self {
            Self::Call { errno, .. } => *errno,
            _ => errno::EINVAL,
        };
        let mut trace = json!({
            "class": self.class(),
            "frames": [],
            "formatted": format!("Traceback (most recent call last):\n{}: {}", self.class(), self.text()),
            "repr": self.repr(),
        });
        if dialect == Dialect::V26 {
            trace.as_object_mut().expect("is one").shift_remove("frames");
        }
        json!({
            "code": code,
            "message": message,
            "data": {
                "error": number,
                "errname": name(number),
                "reason": self.text(),
                "trace": trace,
                "extra": faults.map(|faults| faults.iter().map(Fault::triple).collect::<Vec<_>>()),
            },
        })
    }

    /// The member `exc_info` of a job.
    pub(super) fn exc_info(&self) -> Value {
        let (class, number, extra) = match self {
            Self::Invalid(faults) => (
                "VALIDATION",
                None,
                Some(faults.iter().map(Fault::triple).collect::<Vec<_>>()),
            ),
            Self::One(fault) => ("VALIDATION", Some(fault.errno), Some(vec![fault.triple()])),
            Self::Call { errno, .. } => ("CallError", Some(*errno), None),
            Self::Raised { class, .. } => (*class, None, None),
        };
        json!({ "repr": self.repr(), "type": class, "errno": number, "extra": extra })
    }

    /// The member `exception` of a job.
    pub(super) fn exception(&self) -> String {
        format!(
            "Traceback (most recent call last):\n{}: {}\n",
            self.class(),
            self.text()
        )
    }
}
