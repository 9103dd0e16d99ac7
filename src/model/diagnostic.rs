//! What is wrong with a spec, in a form that the view can draw over its text.

use super::Place;

/// One problem, with every place that it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// A stable code such as `spec::unknown-property`, for documentation and for machines.
    pub code: &'static str,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// Where, the chief place first.
    pub marks: Vec<Mark>,
    /// What to do about it.
    pub help: Option<String>,
}

/// A place and what there is to say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The stretch of text.
    pub place: Place,
    /// A few words to stand under it.
    pub text: String,
}

impl Diagnostic {
    /// A problem at one place.
    #[must_use]
    pub fn new(code: &'static str, message: impl Into<String>, place: &Place, text: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            marks: vec![Mark {
                place: place.clone(),
                text: text.into(),
            }],
            help: None,
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same with a further place.
    #[must_use]
    pub fn with_mark(mut self, place: &Place, text: impl Into<String>) -> Self {
        self.marks.push(Mark {
            place: place.clone(),
            text: text.into(),
        });
        self
    }
}
