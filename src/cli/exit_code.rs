//! The exit codes, which CI jobs depend on.

use std::process::ExitCode;

use crate::plan::Plan;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// 0: done, or nothing to do.
    Done,
    /// 1: an error; wrong usage and an invalid spec included.
    Error,
    /// 2: the spec has changes that are not applied (`check`, `plan --detailed-exitcode`).
    Pending,
    /// 3: the live system drifted, alone or with pending changes (`check`,
    /// `plan --detailed-exitcode`).
    Drift,
    /// 4: refused: consent is missing or declined, protected, not ours.
    Refused,
    /// 130: interrupted.
    Interrupted,
    /// What a command in a sandbox ended with (`exec`, `console`); 125 when it could not be run at all.
    Inside(u8),
}

impl Code {
    /// What a plan that nothing stands in the way of says: drift and conflicts go before what is pending.
    pub(super) fn of_plan(plan: &Plan) -> Self {
        match (plan.in_sync(), plan.summary().drift) {
            (true, _) => Self::Done,
            (false, 0) => Self::Pending,
            (false, _) => Self::Drift,
        }
    }

    /// What a command in a sandbox has ended with.
    pub(super) fn inside(code: i32) -> Self {
        // What a kernel gives fits; anything else is a failure all the same.
        Self::Inside(u8::try_from(code).unwrap_or(u8::MAX))
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Error => 1,
            Self::Pending => 2,
            Self::Drift => 3,
            Self::Refused => 4,
            Self::Interrupted => 130,
            Self::Inside(code) => code,
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        code.number().into()
    }
}
