//! Texts that are no specs at all, made to break a parser: each ends in a diagnostic, none in a crash.

use proptest::prelude::*;
use sbx_apply::spec::{self, FILE_LIMIT, Format, Request};

/// The codes of what is wrong.
#[expect(
    clippy::print_stdout,
    reason = "times are for whoever asks by --nocapture; a bound would fail slow machines"
)]
fn codes(bytes: &[u8], format: Format) -> Vec<&'static str> {
    let started = std::time::Instant::now();
    let request = Request::text("stress", bytes, Some(format));
    let codes = match spec::load(&request) {
        Ok(_) => Vec::new(),
        Err(rejected) => {
            let style = sbx_apply::view::diagnostics::Style::default();
            let _ = sbx_apply::view::diagnostics::render(&rejected.diagnostics, &rejected.sources, style);
            rejected.diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
        }
    };
    println!(
        "{:>8.1} ms  {} bytes, {format:?}, {:?}",
        started.elapsed().as_secs_f64() * 1e3,
        bytes.len(),
        codes.first()
    );
    codes
}

const BOTH: [Format; 2] = [Format::Kdl, Format::Yaml];

/// Bytes from a fixed generator (xorshift), so that a failure can be repeated.
fn garbage(length: usize, map: impl Fn(u8) -> u8) -> Vec<u8> {
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            map((state >> 24) as u8)
        })
        .collect()
}

#[test]
fn ten_megabytes_of_anything() {
    for format in BOTH {
        assert_eq!(
            codes(&garbage(10_000_000, |byte| byte), format),
            ["spec::file-too-large"]
        );
        assert_eq!(codes(&vec![b'{'; 10_000_000], format), ["spec::file-too-large"]);
    }
}

#[test]
fn as_much_garbage_as_a_file_may_have() {
    let printable = |byte: u8| if byte % 97 == 96 { b'\n' } else { 32 + byte % 95 };
    let letters = |byte: u8| b"ab\"{}=#/*-: \n[]&"[usize::from(byte % 16)];
    for format in BOTH {
        assert!(!codes(&garbage(FILE_LIMIT, printable), format).is_empty());
        assert!(!codes(&garbage(FILE_LIMIT, letters), format).is_empty());
        assert!(!codes(&vec![b'a'; FILE_LIMIT], format).is_empty());
        assert!(!codes("a ".repeat(FILE_LIMIT / 2).as_bytes(), format).is_empty());
        assert!(!codes("a\n".repeat(FILE_LIMIT / 2).as_bytes(), format).is_empty());
        assert!(!codes("\"".repeat(FILE_LIMIT).as_bytes(), format).is_empty());
        assert!(!codes("a b=1 b=2;".repeat(FILE_LIMIT / 10).as_bytes(), format).is_empty());
        assert!(!codes("- ".repeat(FILE_LIMIT / 2).as_bytes(), format).is_empty());
        assert!(!codes("a: b\n".repeat(FILE_LIMIT / 5).as_bytes(), format).is_empty());
        let comment = format!("// {}", "x".repeat(FILE_LIMIT - 3));
        assert!(!codes(comment.as_bytes(), format).is_empty());
    }
}

#[test]
fn nesting_bombs() {
    for (text, format) in [
        ("a {", Format::Kdl),
        ("a{", Format::Kdl),
        ("/*", Format::Kdl),
        ("(", Format::Kdl),
        ("[", Format::Yaml),
        ("{a: ", Format::Yaml),
        ("- ", Format::Yaml),
    ] {
        assert!(
            !codes(text.repeat(80_000 / text.len()).as_bytes(), format).is_empty(),
            "{text}"
        );
    }
    assert_eq!(
        codes("a {".repeat(80_000).as_bytes(), Format::Kdl),
        ["spec::nesting-too-deep"]
    );
    let indented: String = (0..400).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(!codes(indented.as_bytes(), Format::Yaml).is_empty());
}

#[test]
fn alias_bombs() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let alias = vec![format!("*a{}", level - 1); 9].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{alias}]\n"));
    }
    assert_eq!(codes(text.as_bytes(), Format::Yaml), ["spec::too-many-aliases"]);
    let nested = format!("{}{}", "&a [".repeat(60), "x, ".repeat(100_000));
    assert!(!codes(nested.as_bytes(), Format::Yaml).is_empty());
    assert!(!codes(b"a: &a [*a]", Format::Yaml).is_empty());
}

#[test]
fn variable_and_count_bombs() {
    let uses = "${x}".repeat(50_000);
    let text = format!(
        "environment \"e\"\nvariable \"x\" default=\"{}\"\nsandbox \"a\" {{ image \"{uses}\"; }}",
        "y".repeat(500_000)
    );
    assert_eq!(codes(text.as_bytes(), Format::Kdl), ["spec::value-too-long"]);
    let text = format!(
        "environment \"e\"\ntemplate \"t\" {{ file \"/a\" content=\"{}\"; }}\nsandbox \"a\" count=1000 {{ use \"t\"; image \"i\"; }}",
        "y".repeat(900_000)
    );
    assert_eq!(codes(text.as_bytes(), Format::Kdl), ["spec::too-large"]);
}

#[test]
fn odd_characters() {
    let spec = "environment \"e\"\nsandbox \"a\" {\n  image \"i\"\n}\n";
    assert!(codes(spec.as_bytes(), Format::Kdl).is_empty());
    assert!(codes(spec.replace('\n', "\r\n").as_bytes(), Format::Kdl).is_empty());
    assert!(codes(format!("\u{feff}{spec}").as_bytes(), Format::Kdl).is_empty());
    let yaml = "environment: e\nsandboxes:\n  a:\n    image: i\n";
    assert!(codes(yaml.as_bytes(), Format::Yaml).is_empty());
    assert!(codes(yaml.replace('\n', "\r\n").as_bytes(), Format::Yaml).is_empty());
    assert!(codes(format!("\u{feff}{yaml}").as_bytes(), Format::Yaml).is_empty());
    for (text, format) in [(spec, Format::Kdl), (yaml, Format::Yaml)] {
        assert_eq!(
            codes(format!("{text}\0").as_bytes(), format),
            ["spec::invalid-character"]
        );
        assert_eq!(
            codes(format!("{text}\u{feff}").as_bytes(), format),
            ["spec::invalid-character"]
        );
        assert_eq!(
            codes(&[text.as_bytes(), b"\xC3"].concat(), format),
            ["spec::invalid-utf8"]
        );
        assert_eq!(codes(b"", format), ["spec::missing-environment"]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        for format in BOTH {
            let _ = spec::check_text("any", text.as_bytes(), format);
        }
    }

    #[test]
    fn no_mixture_of_the_languages_own_words_panics(
        words in proptest::collection::vec(
            prop::sample::select(vec![
                "sandbox", "sandboxes:", "\"a\"", "{", "}", "file", "files:", "=", "\"", "#true", "true", "- ", "[", "]",
                "\n", "\n  ", "\n    ", "env", "A=1", "count=", "1", ":", "use", "egress", "&a ", "*a", "/-", "//", "/*", "*/",
                "r#\"", "\"#", "\\", "${x}", "clone-from", "environment", ";", "<<", "|", ">", "\"\"\"", "é", "\t", ",",
            ]),
            0..60,
        ),
    ) {
        let text: String = words.concat();
        for format in BOTH {
            let _ = spec::load(&Request::text("any", text.as_bytes(), Some(format)));
        }
    }
}
