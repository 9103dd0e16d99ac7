//! What a plan must not do.

use crate::model::{Diagnostic, Place};

/// Why a plan cannot be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The spec asks for what cannot be: exit code 1.
    Invalid,
    /// It would touch what is not ours, or is protected: exit code 4.
    Refused,
}

/// Something that stands in a plan's way. Nothing at all is done while there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Of which kind.
    pub kind: RefusalKind,
    /// What and where.
    pub diagnostic: Diagnostic,
}

impl Refusal {
    pub(crate) fn invalid(code: &'static str, message: String, place: &Place, mark: &str, help: String) -> Self {
        Self {
            kind: RefusalKind::Invalid,
            diagnostic: Diagnostic::new(code, message, place, mark).with_help(help),
        }
    }

    pub(crate) fn refused(code: &'static str, message: String, place: &Place, mark: &str, help: String) -> Self {
        Self {
            kind: RefusalKind::Refused,
            diagnostic: Diagnostic::new(code, message, place, mark).with_help(help),
        }
    }
}
