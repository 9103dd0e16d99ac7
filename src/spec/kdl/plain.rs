//! KDL 1 as nearly every spec writes it, read in one pass.
//!
//! The grammar of the `knuffel` package decides what KDL 1 is; it keeps books of what could have stood at every
//! character, and so takes more than a microsecond for each. What is read here is the part of the language in
//! which nothing is to be decided: words, strings, numbers, braces, line comments, all of them well-formed. At
//! the first sign of anything else this gives up, and the grammar reads the whole text, as it reads every text
//! with an error in it. A test holds the two against each other.

use crate::spec::source::Source;
use crate::spec::syntax::{Name, Node, Scalar, Value};

use super::scan;

/// Reads a text; none where it is not plain.
pub(super) fn read(source: &Source) -> Option<Vec<Node>> {
    let text = &*source.text;
    // These end lines too. Nobody writes them.
    if text.contains(['\r', '\x0C', '\u{85}', '\u{2028}', '\u{2029}']) {
        return None;
    }
    let mut reader = Reader {
        source,
        text,
        bytes: text.as_bytes(),
        index: 0,
    };
    reader.nodes(false)
}

struct Reader<'a> {
    source: &'a Source,
    text: &'a str,
    bytes: &'a [u8],
    index: usize,
}

impl<'a> Reader<'a> {
    fn next(&self) -> Option<u8> {
        self.bytes.get(self.index).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.next(), Some(b' ' | b'\t')) {
            self.index += 1;
        }
    }

    /// Whether a comment stood here; its line's end goes with it.
    fn comment(&mut self) -> bool {
        let rest = &self.text[self.index..];
        if !rest.starts_with("//") {
            return false;
        }
        self.index += rest.find('\n').map_or(rest.len(), |length| length + 1);
        true
    }

    /// Nodes up to the text's end, or to the brace that closes their block.
    fn nodes(&mut self, inside: bool) -> Option<Vec<Node>> {
        let mut nodes = Vec::new();
        loop {
            match self.next() {
                None => return (!inside).then_some(nodes),
                Some(b' ' | b'\t' | b'\n') => self.index += 1,
                Some(b'/') if self.comment() => {}
                Some(b'}') if inside => {
                    self.index += 1;
                    return Some(nodes);
                }
                Some(_) => nodes.push(self.node()?),
            }
        }
    }

    fn node(&mut self) -> Option<Node> {
        let name = self.name()?;
        let mut args = Vec::new();
        let mut props = Vec::new();
        let mut children = Vec::new();
        loop {
            // What ends here, ends at a blank or with the node.
            let apart = matches!(self.next(), Some(b' ' | b'\t'));
            self.blanks();
            match self.next() {
                None => break,
                Some(b'\n' | b';') => {
                    self.index += 1;
                    break;
                }
                Some(b'/') if self.comment() => break,
                _ if !apart => return None,
                Some(b'{') => {
                    self.index += 1;
                    children = self.nodes(true)?;
                    self.blanks();
                    match self.next() {
                        None => {}
                        Some(b'\n' | b';') => self.index += 1,
                        _ if self.comment() => {}
                        _ => return None,
                    }
                    break;
                }
                Some(_) => self.item(&mut args, &mut props)?,
            }
        }
        if props.len() > 1 && self.doubled(&name, &props) {
            return None;
        }
        let at = scan::node_place(self.source, &name, &args);
        Some(Node {
            name,
            args,
            props,
            children,
            at,
            flawed: false,
        })
    }

    /// Whether a property is there twice, by its name or by how that is written.
    fn doubled(&self, node: &Name, props: &[(Name, Value)]) -> bool {
        let mut names: Vec<&str> = props.iter().map(|(name, _)| name.text.as_str()).collect();
        names.sort_unstable();
        names.windows(2).any(|two| two[0] == two[1])
            || !scan::doubled_properties(self.text, node.at.offset + node.at.length).is_empty()
    }

    fn item(&mut self, args: &mut Vec<Value>, props: &mut Vec<(Name, Value)>) -> Option<()> {
        let start = self.index;
        match self.next()? {
            b'"' => {
                let text = self.string()?;
                if self.next() == Some(b'=') {
                    let name = self.named(text, start);
                    self.index += 1;
                    props.push((name, self.value()?));
                } else {
                    args.push(self.valued(Scalar::String, text, start));
                }
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let word = self.word();
                if self.next() == Some(b'=') {
                    // The grammar takes these for the keyword with something behind it.
                    if ["true", "false", "null"]
                        .iter()
                        .any(|keyword| word.starts_with(keyword))
                    {
                        return None;
                    }
                    let name = self.named(word.to_owned(), start);
                    self.index += 1;
                    props.push((name, self.value()?));
                } else {
                    self.index = start;
                    args.push(self.value()?);
                }
            }
            _ => args.push(self.value()?),
        }
        Some(())
    }

    fn name(&mut self) -> Option<Name> {
        let start = self.index;
        let text = match self.next()? {
            b'"' => self.string()?,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let word = self.word();
                if matches!(word, "true" | "false" | "null") {
                    return None;
                }
                word.to_owned()
            }
            _ => return None,
        };
        Some(self.named(text, start))
    }

    fn value(&mut self) -> Option<Value> {
        let start = self.index;
        let (scalar, text) = match self.next()? {
            b'"' => (Scalar::String, self.string()?),
            b'-' | b'0'..=b'9' => (Scalar::Number, self.number()?.to_owned()),
            b'r' if matches!(self.bytes.get(self.index + 1), Some(b'"' | b'#')) => (Scalar::String, self.raw()?),
            _ => match self.word() {
                word @ ("true" | "false") => (Scalar::Boolean, word.to_owned()),
                word @ "null" => (Scalar::Null, word.to_owned()),
                _ => return None,
            },
        };
        Some(self.valued(scalar, text, start))
    }

    fn named(&self, text: String, start: usize) -> Name {
        Name {
            text,
            at: self.source.place(start, self.index - start),
        }
    }

    fn valued(&self, scalar: Scalar, text: String, start: usize) -> Value {
        Value {
            scalar,
            text,
            at: self.source.place(start, self.index - start),
        }
    }

    fn skip(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.next().is_some_and(&wanted) {
            self.index += 1;
        }
    }

    fn word(&mut self) -> &'a str {
        let start = self.index;
        self.skip(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        &self.text[start..self.index]
    }

    /// A whole number or a decimal one. What else may follow a digit is no blank, and ends the reading.
    fn number(&mut self) -> Option<&'a str> {
        let start = self.index;
        self.skip(|byte| byte == b'-');
        for part in 0..2 {
            let digits = self.index;
            self.skip(|byte| byte.is_ascii_digit());
            if self.index == digits {
                return None;
            }
            if part == 0 {
                if self.next() != Some(b'.') {
                    break;
                }
                self.index += 1;
            }
        }
        let number = &self.text[start..self.index];
        (!number.starts_with("--")).then_some(number)
    }

    /// `r"…"`, `r#"…"#` and so on.
    fn raw(&mut self) -> Option<String> {
        self.index += 1;
        let start = self.index;
        self.skip(|byte| byte == b'#');
        let close = format!("\"{}", &self.text[start..self.index]);
        let text = self.text[self.index..].strip_prefix('"')?;
        let length = text.find(&close)?;
        self.index += 1 + length + close.len();
        Some(text[..length].to_owned())
    }

    fn string(&mut self) -> Option<String> {
        self.index += 1;
        let mut text = String::new();
        loop {
            let start = self.index;
            self.skip(|byte| byte != b'"' && byte != b'\\');
            text.push_str(&self.text[start..self.index]);
            let sign = self.next()?;
            self.index += 1;
            if sign == b'"' {
                return Some(text);
            }
            text.push(match self.next()? {
                sign @ (b'"' | b'\\' | b'/') => char::from(sign),
                b'b' => '\u{8}',
                b'f' => '\u{C}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                _ => return None,
            });
            self.index += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::one;
    use super::*;

    /// Says whether the text is plain; when it is, the grammar has to read the same out of it.
    fn plain(text: &str) -> bool {
        let source = Source::new("f", text);
        let Some(nodes) = read(&source) else { return false };
        assert_eq!(one::by_grammar(&source), Ok((nodes, Vec::new())), "{text}");
        true
    }

    #[test]
    fn what_is_plain_reads_as_the_grammar_reads_it() {
        for text in [
            "",
            " \n\t// ä only\n",
            "a",
            "a;b\n \tc // d",
            "a { b; c \"x\" { d 1\n } // e\n}\n",
            "a \"\" \"ä\\n\\\"\\/\\\\\" -1 0644 1.10 true false null",
            "a k=1 \"x y\"=\"1\n2\" r-b.c=true { }; \"b c\" null",
            "a r\"\\\" r#\"a\"b\"# k=r##\"\"# \"##\nr",
        ] {
            assert!(plain(text), "{text}");
        }
        for text in [
            "a {",
            "a }",
            "a { b }",
            "a { b; } c",
            "a;;b",
            "a{}",
            "a k=1 k=2",
            "a k=1 \"k\"=2",
            "a b",
            "a --1",
            "a 1e3",
            "a 0x1",
            "a +1",
            "a (t)1",
            "(t)a",
            "/- a",
            "a /* b */",
            "a \\\n 1",
            "a trueish=1",
            "a k=b",
            "a k= 1",
            "true",
            "1",
            "a \"\\u{41}\"",
            "a\r\n",
            "// \u{2028}a",
            "a \"",
            "a 1.",
            "a .1",
            "a \"b\"\"c\"",
            "r\"a\"",
        ] {
            assert!(!plain(text), "{text}");
        }
    }

    #[test]
    fn a_character_more_or_less_changes_nothing() {
        let text = "a \"x\" k=-1 r=r#\"y\"# {\n b true; // c\n}\nd 1.0;";
        let signs = "a1\"#=-.;{}\n /\\(re_t\u{e4}\u{a0}+";
        for index in (0..=text.len()).filter(|index| text.is_char_boundary(*index)) {
            let (before, after) = text.split_at(index);
            let rest = after.get(1..).unwrap_or_default();
            plain(&format!("{before}{rest}"));
            for sign in signs.chars() {
                plain(&format!("{before}{sign}{after}"));
                plain(&format!("{before}{sign}{rest}"));
            }
        }
    }

    #[test]
    fn specs_are_plain() {
        for folder in [
            "examples",
            "tests/errors",
            "tests/scenarios/fifty",
            "tests/scenarios/tree",
        ] {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.extension().is_some_and(|extension| extension == "kdl")
                    && let Ok(text) = std::fs::read_to_string(&path)
                    && scan::too_much(&text, 64).is_none()
                {
                    let is_plain = plain(&text);
                    assert!(
                        is_plain || !path.to_string_lossy().contains("examples"),
                        "{}",
                        path.display()
                    );
                }
            }
        }
    }
}
