//! Who says yes to what.
//!
//! In a terminal, `--yes` answers the ordinary question, and `--allow-data-loss` the one about data. Elsewhere
//! nobody is asked: whoever runs the command wants what it ordinarily does, but losing data needs the flag.

use std::io::ErrorKind;

use dialoguer::{Confirm, Input};

use super::error::Error;
use super::interrupt::Interrupts;
use super::settings::Settings;
use super::terminal::AsItIs;
use crate::plan::Plan;
use crate::view::clean;
use crate::view::human::{counted, losses};

/// What was said on the command line.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct ConsentArgs {
    /// Answer the ordinary question with yes
    #[arg(long)]
    pub(super) yes: bool,

    /// Consent to steps that lose what is on a disk
    #[arg(long)]
    pub(super) allow_data_loss: bool,
}

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// An apply.
    Apply,
    /// A destroy.
    Destroy,
}

/// Which question is still open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Ordinary,
    DataLoss,
}

impl ConsentArgs {
    /// What has to be asked.
    fn open_question(self, loses: bool, interactive: bool) -> Option<Question> {
        if loses && !self.allow_data_loss {
            return Some(Question::DataLoss);
        }
        (!self.yes && interactive).then_some(Question::Ordinary)
    }
}

/// Comes back when there is a yes to all that the plan does: `true` when somebody was asked, which takes time.
pub(super) async fn consent(
    settings: &Settings,
    interrupts: &Interrupts,
    plan: &Plan,
    args: ConsentArgs,
    purpose: Purpose,
    interactive: bool,
) -> Result<bool, Error> {
    let lost = plan.data_loss().count();
    let Some(question) = args.open_question(lost > 0, interactive) else {
        return Ok(false);
    };
    let count = counted(lost, "change loses", "changes lose");
    if !interactive {
        // Only this question is open where nobody can be asked.
        return Err(Error::Consent {
            message: format!("{count} what is on a disk, and nobody consented to that"),
            details: Some(losses(plan)),
            hint: Some("read the plan, then pass --allow-data-loss".to_owned()),
        });
    }
    if question == Question::DataLoss {
        // The plan of a destroy is nothing but the list of them.
        let list = match purpose {
            Purpose::Apply => format!(":\n{}", losses(plan)),
            Purpose::Destroy => ".".to_owned(),
        };
        settings
            .output
            .message(&format!("\n{count} what is on a disk, for ever{list}"));
    }
    let prompt = match purpose {
        Purpose::Apply => "Apply this plan?",
        Purpose::Destroy => "Destroy all of this?",
    };
    answered(settings, interrupts, question, prompt).await.map(|()| true)
}

/// What is lost by something that is no plan.
#[derive(Debug)]
pub(super) struct Loss {
    /// Who loses what.
    pub(super) what: String,
    /// What nobody consented to: `restoring it`.
    pub(super) consented: &'static str,
}

/// Comes back when there is a yes to something that is no plan. `prompt` is the ordinary question.
pub(super) async fn consent_to(
    settings: &Settings,
    interrupts: &Interrupts,
    args: ConsentArgs,
    loss: Option<&Loss>,
    prompt: &str,
    interactive: bool,
) -> Result<(), Error> {
    let Some(question) = args.open_question(loss.is_some(), interactive) else {
        return Ok(());
    };
    if let (Question::DataLoss, Some(loss)) = (question, loss) {
        if !interactive {
            return Err(Error::Consent {
                message: format!("{}; nobody consented to {}", loss.what, loss.consented),
                details: None,
                hint: Some("pass --allow-data-loss if that is what you want".to_owned()),
            });
        }
        settings.output.message(&format!("{}.", clean(&loss.what)));
    }
    answered(settings, interrupts, question, prompt).await
}

/// Comes back when there is a yes to something that nobody does by accident, so that it is asked, or `--yes` said, wherever
/// the command runs. `what` says what it does.
pub(super) async fn consent_aloud(
    settings: &Settings,
    interrupts: &Interrupts,
    yes: bool,
    what: &str,
    interactive: bool,
) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    if !interactive {
        return Err(Error::Consent {
            message: format!("{what}; nobody consented to that"),
            details: None,
            hint: Some("pass --yes if that is what you want".to_owned()),
        });
    }
    settings.output.message(&format!("{}.", clean(what)));
    answered(settings, interrupts, Question::Ordinary, "Go on?").await
}

/// Asks, and comes back when the answer is yes.
async fn answered(settings: &Settings, interrupts: &Interrupts, question: Question, prompt: &str) -> Result<(), Error> {
    let prompt = match question {
        Question::DataLoss => "Type yes to go on".to_owned(),
        Question::Ordinary => prompt.to_owned(),
    };
    let terminal = AsItIs::now();
    let answer = interrupts
        .guard(tokio::task::spawn_blocking(move || ask(question, &prompt)))
        .await;
    if !matches!(answer, Ok(Ok(Ok(_)))) {
        terminal.put_back();
    }
    // The question's line has no end yet.
    let answer = answer.inspect_err(|_| settings.output.message(""));
    match answer? {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(Error::Consent {
            message: "declined; nothing was changed".to_owned(),
            details: None,
            hint: None,
        }),
        Ok(Err(dialoguer::Error::IO(error))) if error.kind() == ErrorKind::Interrupted => Err(Error::Interrupted),
        Ok(Err(dialoguer::Error::IO(error))) => Err(Error::io("cannot ask", error)),
        Err(error) => Err(Error::io("cannot ask", std::io::Error::other(error))),
    }
}

/// Asks on the terminal, on standard error.
fn ask(question: Question, prompt: &str) -> Result<bool, dialoguer::Error> {
    match question {
        Question::Ordinary => Confirm::new().with_prompt(prompt).default(false).interact(),
        Question::DataLoss => {
            let typed: String = Input::new().with_prompt(prompt).allow_empty(true).interact_text()?;
            Ok(typed.trim() == "yes")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_answers_its_own_question() {
        use Question::{DataLoss, Ordinary};
        for (yes, allow, loses, interactive, open) in [
            (false, false, false, true, Some(Ordinary)),
            (false, false, false, false, None),
            (true, false, false, true, None),
            (true, false, true, true, Some(DataLoss)),
            (true, false, true, false, Some(DataLoss)),
            (false, true, true, false, None),
            (false, true, true, true, Some(Ordinary)),
            (true, true, true, true, None),
        ] {
            let args = ConsentArgs {
                yes,
                allow_data_loss: allow,
            };
            assert_eq!(
                args.open_question(loses, interactive),
                open,
                "{args:?} {loses} {interactive}"
            );
        }
    }
}
