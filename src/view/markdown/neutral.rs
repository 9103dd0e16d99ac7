//! Texts of others, made to be nothing but text.

use std::fmt::Write as _;

use super::super::clean::short;

/// A value in code, short, for a line or a cell of a table.
pub(super) fn code(text: &str) -> String {
    within(text, 80)
}

/// The same for what has several words.
pub(super) fn sentence(text: &str) -> String {
    within(text, 400)
}

fn within(text: &str, most: usize) -> String {
    let shown = short(text, most);
    // Whatever could end the span, or the cell that it stands in, or is read as HTML: such a text goes as entities.
    if !shown.is_empty() && !shown.contains(['`', '|', '\\', '<', '>', '&', '\t']) {
        return format!("`{shown}`");
    }
    let mut safe = String::from("<code>");
    for character in shown.chars() {
        if character.is_alphanumeric() || " /-,".contains(character) {
            safe.push(character);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(safe, "&#{};", u32::from(character));
        }
    }
    safe.push_str("</code>");
    safe
}

/// Lines in a block of their own, whatever they hold: the fence is longer than any that is among them.
pub(super) fn fenced(language: &str, lines: &[String]) -> String {
    let mut longest = 2;
    for line in lines {
        let mut run = 0;
        for character in line.chars() {
            run = if character == '`' { run + 1 } else { 0 };
            longest = longest.max(run);
        }
    }
    let fence = "`".repeat(longest + 1);
    format!("{fence}{language}\n{}\n{fence}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_in_their_code() {
        for (text, shown) in [
            ("/etc/motd", "`/etc/motd`"),
            ("@team https://example.invalid", "`@team https://example.invalid`"),
            ("a`b", "<code>a&#96;b</code>"),
            ("a|b", "<code>a&#124;b</code>"),
            ("a\\|b", "<code>a&#92;&#124;b</code>"),
            ("</code><img>", "<code>&#60;/code&#62;&#60;img&#62;</code>"),
            ("&lt;", "<code>&#38;lt&#59;</code>"),
            ("\u{1b}[1m\n", "<code>&#92;u&#123;1b&#125;&#91;1m&#92;n</code>"),
            ("", "<code></code>"),
        ] {
            assert_eq!(code(text), shown);
        }
    }

    #[test]
    fn nothing_in_a_block_ends_it() {
        let lines = ["+a", " ```", "-````x"].map(str::to_owned);
        assert_eq!(fenced("diff", &lines), "`````diff\n+a\n ```\n-````x\n`````");
        assert_eq!(fenced("diff", &["+a".to_owned()]), "```diff\n+a\n```");
    }
}
