//! Excerpts without the secrets that a spec should not have.

use std::borrow::Cow;

use crate::model::{Diagnostic, Mark};

/// The problem whose mark is the name of a secret, with the secret after it.
const SECRET: &str = "spec::secret-in-spec";

/// A file's text with every secret that a diagnostic complains of hidden, each character as long as it was.
pub(super) fn without_secrets<'a>(file: &str, text: &'a str, diagnostics: &[Diagnostic]) -> Cow<'a, str> {
    let about = diagnostics.iter().filter(|diagnostic| diagnostic.code == SECRET);
    let marks = about.flat_map(|diagnostic| &diagnostic.marks);
    let mut text = Cow::Borrowed(text);
    for mark in marks.filter(|mark| &*mark.place.file == file) {
        text = Cow::Owned(hide(&text, mark));
    }
    text
}

fn hide(text: &str, mark: &Mark) -> String {
    let Some((before, after)) = text.split_at_checked(mark.place.offset + mark.place.length) else {
        return String::new();
    };
    let value = after.trim_start_matches(['"', '\'', ' ', '\t', ':', '=']);
    let opening = &after[..after.len() - value.len()];
    let line = value.find('\n').unwrap_or(value.len());
    let is_bare = !opening.contains(['"', '\'']);
    let length = match opening.trim_end_matches([' ', '\t']) {
        // A text over several lines ends where the language says so, which is not known here.
        _ if line == 0 || (is_bare && value.starts_with(['|', '>', '#', '&', '!', 'r'])) => value.len(),
        opening if opening.ends_with("\"\"") => value.len(),
        opening if opening.ends_with('"') => value[..line].find('"').unwrap_or(value.len()),
        _ => line,
    };
    let hidden = value[..length]
        .chars()
        .flat_map(|character| match character.is_whitespace() {
            true => std::iter::repeat_n(character, 1),
            false => std::iter::repeat_n('*', character.len_utf8()),
        });
    format!("{before}{opening}{}{}", hidden.collect::<String>(), &value[length..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Place;

    #[test]
    fn what_follows_the_name_is_hidden() {
        for (text, shown) in [
            ("token \"a b\"; host \"c\"", "token \"* *\"; host \"c\""),
            ("\"token\": \"ab\", c", "\"token\": \"**\", c"),
            ("token: ab c }", "token: ** * *"),
            ("token: 'a''b' }\nc", "token: '***** *\nc"),
            ("token=\"é\"", "token=\"**\""),
            ("token: |\n  ab\n", "token: *\n  **\n"),
            ("token \"\"\"\n ab\n \"\"\"\n", "token \"\"\"\n **\n ***\n"),
            ("token r#\"ab\"#\nc", "token *******\n*"),
            ("token \"ab\n", "token \"**\n"),
            ("token \"rab\"\nc", "token \"***\"\nc"),
            ("token", "token"),
        ] {
            let start = usize::from(text.starts_with('"'));
            let place = Place {
                offset: start,
                length: "token".len(),
                ..Place::nowhere()
            };
            let problem = Diagnostic::new(SECRET, "", &place, "");
            let said = without_secrets(&place.file, text, &[problem]);
            assert_eq!((&*said, said.len()), (shown, text.len()), "{text}");
        }
    }
}
