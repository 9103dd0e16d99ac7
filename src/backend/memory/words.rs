//! Reading the little of the shell's language that the simulation knows (POSIX.1-2017, XCU 2).

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// Where a command's output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Stdout,
    Stderr,
    File { path: String, append: bool },
}

/// A simple command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) words: Vec<String>,
    pub(super) target: Target,
}

/// What the simulation does not know, in a few characters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown(pub(super) String);

/// Commands joined by `&&`.
pub(super) type Chain = Vec<Command>;

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    And,
    End,
    Write,
    Append,
    ToStderr,
}

/// Reads a script: one chain a line. `$NAME` and `${NAME}` stand for values of `env`.
pub(super) fn parse(text: &str, env: &BTreeMap<String, String>) -> Result<Vec<Chain>, Unknown> {
    let mut script = Vec::new();
    let mut chain = Chain::new();
    let mut words = Vec::new();
    let mut target = Target::Stdout;
    let mut joined = false;
    let mut tokens = tokens(text, env)?.into_iter();
    while let Some(token) = tokens.next() {
        match token {
            Token::Word(word) => words.push(word),
            Token::ToStderr => target = Target::Stderr,
            Token::Write | Token::Append => match tokens.next() {
                Some(Token::Word(path)) => {
                    let append = token == Token::Append;
                    target = Target::File { path, append };
                }
                _ => return Err(Unknown(">".to_owned())),
            },
            Token::And | Token::End => {
                if words.is_empty() {
                    // A line may be empty, and `&&` may stand at a line's end.
                    if target != Target::Stdout || token == Token::And {
                        return Err(Unknown("&&".to_owned()));
                    }
                } else {
                    chain.push(Command {
                        words: std::mem::take(&mut words),
                        target: std::mem::replace(&mut target, Target::Stdout),
                    });
                    joined = token == Token::And;
                }
                if !joined && !chain.is_empty() {
                    script.push(std::mem::take(&mut chain));
                }
            }
        }
    }
    match chain.is_empty() {
        true => Ok(script),
        false => Err(Unknown("&&".to_owned())),
    }
}

fn tokens(text: &str, env: &BTreeMap<String, String>) -> Result<Vec<Token>, Unknown> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => tokens.extend(word.take().map(Token::Word)),
            '\n' => {
                tokens.extend(word.take().map(Token::Word));
                tokens.push(Token::End);
            }
            '#' if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err(Unknown("'".to_owned())),
                    }
                }
            }
            '"' => double_quoted(&mut chars, word.get_or_insert_default(), env)?,
            '\\' => word.get_or_insert_default().extend(chars.next()),
            '$' => word.get_or_insert_default().push_str(&variable(&mut chars, env)?),
            '&' if chars.next_if_eq(&'&').is_some() => {
                tokens.extend(word.take().map(Token::Word));
                tokens.push(Token::And);
            }
            '>' => {
                if word
                    .as_deref()
                    .is_some_and(|word| word.bytes().all(|b| b.is_ascii_digit()))
                {
                    return Err(Unknown("a numbered stream".to_owned()));
                }
                tokens.extend(word.take().map(Token::Word));
                tokens.push(redirection(&mut chars)?);
            }
            '|' | '&' | ';' | '<' | '(' | ')' | '`' | '*' | '?' => return Err(Unknown(c.to_string())),
            c => word.get_or_insert_default().push(c),
        }
    }
    tokens.extend(word.map(Token::Word));
    tokens.push(Token::End);
    Ok(tokens)
}

fn redirection(chars: &mut Peekable<Chars<'_>>) -> Result<Token, Unknown> {
    if chars.next_if_eq(&'>').is_some() {
        return Ok(Token::Append);
    }
    if chars.next_if_eq(&'&').is_none() {
        return Ok(Token::Write);
    }
    match chars.next() {
        Some('2') => Ok(Token::ToStderr),
        _ => Err(Unknown(">&".to_owned())),
    }
}

fn double_quoted(
    chars: &mut Peekable<Chars<'_>>,
    word: &mut String,
    env: &BTreeMap<String, String>,
) -> Result<(), Unknown> {
    loop {
        match chars.next() {
            Some('"') => return Ok(()),
            Some('$') => word.push_str(&variable(chars, env)?),
            Some('`') => return Err(Unknown("`".to_owned())),
            Some('\\') => match chars.next_if(|c| "$`\"\\".contains(*c)) {
                Some(c) => word.push(c),
                None => word.push('\\'),
            },
            Some(c) => word.push(c),
            None => return Err(Unknown("\"".to_owned())),
        }
    }
}

/// The value of the variable that is named next.
fn variable(chars: &mut Peekable<Chars<'_>>, env: &BTreeMap<String, String>) -> Result<String, Unknown> {
    let braces = chars.next_if_eq(&'{').is_some();
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    if name.is_empty() || (braces && chars.next_if_eq(&'}').is_none()) {
        return Err(Unknown("$".to_owned()));
    }
    Ok(env.get(&name).cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Vec<Vec<Vec<String>>>, Unknown> {
        let env = BTreeMap::from([("A".to_owned(), "a b".to_owned())]);
        let script = parse(text, &env)?;
        Ok(script
            .into_iter()
            .map(|chain| chain.into_iter().map(|command| command.words).collect())
            .collect())
    }

    #[test]
    fn words_quotes_and_variables() {
        let one = |words: &[&str]| {
            Ok(vec![vec![
                words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>(),
            ]])
        };
        assert_eq!(words("echo a  b # c"), one(&["echo", "a", "b"]));
        assert_eq!(
            words(r#"echo 'a "$A' "x $A" ${A}y \$A"#),
            one(&["echo", "a \"$A", "x a b", "a by", "$A"])
        );
        assert_eq!(words("echo ''"), one(&["echo", ""]));
    }

    #[test]
    fn lines_and_chains() {
        let script = words("true && false\n\n# nothing\nexit 3\n").expect("is known");
        assert_eq!(script, [vec![vec!["true"], vec!["false"]], vec![vec!["exit", "3"]]]);
    }

    #[test]
    fn outputs() {
        let script = parse("echo a > /x\necho b >>/y\necho c >&2", &BTreeMap::new()).expect("is known");
        let targets: Vec<_> = script.into_iter().flatten().map(|command| command.target).collect();
        let file = |path: &str, append| Target::File {
            path: path.to_owned(),
            append,
        };
        assert_eq!(targets, [file("/x", false), file("/y", true), Target::Stderr]);
    }

    #[test]
    fn the_rest_is_not_known() {
        for text in [
            "a | b",
            "a; b",
            "a &",
            "echo $(b)",
            "echo `b`",
            "a < b",
            "a 2> b",
            "echo '",
            "&& a",
            "a &&",
            "ls *",
        ] {
            assert!(words(text).is_err(), "{text}");
        }
    }
}
