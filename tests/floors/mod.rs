//! The floors of the house, held to: imports go only downward, one floor reads the environment, two print.

use std::path::{Path, PathBuf};

/// The floors and how high they lie; those of the same height do not see each other.
const FLOORS: [(&str, u8); 8] = [
    ("model", 0),
    ("spec", 1),
    ("plan", 1),
    ("backend", 2),
    ("apply", 3),
    ("probe", 3),
    ("view", 4),
    ("cli", 5),
];

fn height(floor: &str) -> Option<u8> {
    FLOORS
        .iter()
        .find(|(name, _)| *name == floor)
        .map(|(_, height)| *height)
}

/// Every source file: its path below `src`, and its code without comments and without its own tests.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && path.file_name().is_some_and(|name| name != "tests.rs")
                // Programs of their own.
                && ![root.join("probe/inside.rs"), root.join("probe/build.rs")].contains(&path)
            {
                let text = std::fs::read_to_string(&path).expect("text");
                let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
                let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                let relative = path.strip_prefix(&root).expect("below src").to_owned();
                sources.push((relative, code.collect::<Vec<_>>().join("\n")));
            }
        }
    }
    assert!(sources.len() > 50, "the sources are where they were");
    sources
}

fn floor_of(path: &Path) -> Option<String> {
    let first = path.components().next()?.as_os_str().to_str()?;
    height(first).map(|_| first.to_owned())
}

/// The first names of all paths that start at the crate: `a` and `b` of `crate::a::x` and `crate::{b::y}`.
fn imports(code: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.push(name(rest));
            continue;
        };
        let (mut depth, mut start) = (0_usize, 0);
        for (index, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    names.push(name(&group[start..index]));
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    names.push(name(&group[start..index]));
                    start = index + 1;
                }
                _ => {}
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn imports_go_only_downward() {
    let mut wrong = Vec::new();
    for (path, code) in sources() {
        let Some(floor) = floor_of(&path) else { continue };
        for import in imports(&code) {
            let allowed = import == floor || height(&import) < height(&floor);
            if height(&import).is_some() && !allowed {
                wrong.push(format!("{}: {floor} uses {import}", path.display()));
            }
        }
        // A chain of `super` that is as long as the file lies deep leads out of its floor.
        let module = path.file_name().is_some_and(|name| name == "mod.rs");
        let depth = path.components().count() - usize::from(module);
        if code.contains(&"super::".repeat(depth)) && depth > 0 {
            wrong.push(format!("{}: super leads out of {floor}", path.display()));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn only_the_command_line_reads_the_environment() {
    let readers = ["std::env", "env::var", "env::args", "home_dir", "env::temp_dir"];
    assert_eq!(offenders(&["cli"], &readers), Vec::<String>::new());
}

#[test]
fn only_view_and_the_command_line_print() {
    let printers = [
        "println!",
        "print!(",
        "eprint!(",
        "io::stdout",
        "io::stderr",
        "ProgressBar",
    ];
    assert_eq!(offenders(&["cli", "view"], &printers), Vec::<String>::new());
}

/// The commands that change something.
const CHANGING: [&str; 12] = [
    "adopt.rs",
    "apply.rs",
    "change.rs",
    "console.rs",
    "create.rs",
    "delete.rs",
    "destroy.rs",
    "exec.rs",
    "gc.rs",
    "learn.rs",
    "restore.rs",
    "write.rs",
];

#[test]
fn commands_that_only_read_are_handed_readers() {
    let writers = ["Sandboxes", "session::open(", "registry.open("];
    let mut seen = 0;
    for (path, code) in sources() {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !path.starts_with("cli/commands") || CHANGING.contains(&name) {
            continue;
        }
        seen += 1;
        for writer in writers {
            assert!(!code.contains(writer), "{}: {writer}", path.display());
        }
    }
    assert!(seen >= 7, "only {seen} commands were read");
    // Nor does what they plan with open more than a reader.
    let session = sources().into_iter().find(|(path, _)| path.ends_with("cli/session.rs"));
    let (_, code) = session.expect("is there");
    let (_, planning) = code.split_once("fn make_plan").expect("is there");
    assert!(
        !planning.contains("Sandboxes") && !planning.contains(" open("),
        "{planning}"
    );
}

/// The files of other floors than `allowed` whose code has one of `words`.
fn offenders(allowed: &[&str], words: &[&str]) -> Vec<String> {
    let mut offenders = Vec::new();
    for (path, code) in sources() {
        let Some(floor) = floor_of(&path).filter(|floor| !allowed.contains(&floor.as_str())) else {
            continue;
        };
        let found = words.iter().filter(|word| code.contains(**word));
        offenders.extend(found.map(|word| format!("{}: {floor} has {word}", path.display())));
    }
    offenders
}

#[test]
fn groups_of_imports_are_seen() {
    assert_eq!(
        imports("use crate::{a::{x, y}, b};\nuse crate::c::d;\npub(in crate::e) fn f()"),
        ["a", "b", "c", "e"]
    );
}
