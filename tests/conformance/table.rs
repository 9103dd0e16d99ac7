//! Which check holds on which backend, side by side, as `src/docs/conformance.md` shows it. Every run holds its outcomes
//! against that page, so that it stays true. `SBX_BLESS=1` writes them into it, and `SBX_TEST_TABLE=FILE` into a page of
//! that run alone, with what failed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::suite::CHECKS;

/// The page.
const PAGE: &str = "src/docs/conformance.md";
/// The backends beside each other.
const COLUMNS: [&str; 5] = ["local", "incus", "truenas 25.04", "truenas 25.10", "truenas 26"];
/// What stands where nothing was tried.
const UNTRIED: &str = "not tried";

/// Checks side by side write one after the other.
static WRITING: Mutex<()> = Mutex::new(());

/// How a check ended, by its room, its words, and the number of its column.
type Cells = BTreeMap<(String, String, usize), String>;

/// A check's name as people read it.
fn words(name: &str) -> String {
    name.replace('_', " ")
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE)
}

/// The cells of each row of a page that is one of a check.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|line| line.starts_with("| "));
    let rows = lines.map(|line| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    });
    // The head, and the line below it, are none.
    rows.skip(2).filter(|row| row.len() == COLUMNS.len() + 2).collect()
}

fn cells(text: &str) -> Cells {
    let mut cells = Cells::new();
    for row in rows(text) {
        for (column, outcome) in row[2..].iter().enumerate() {
            cells.insert((row[0].clone(), row[1].clone(), column), outcome.clone());
        }
    }
    cells
}

fn table(cells: &Cells) -> String {
    let mut text = format!("| room | check | {} |\n", COLUMNS.join(" | "));
    text.push_str(&format!("| {} |\n", ["---"; COLUMNS.len() + 2].join(" | ")));
    for (room, check) in CHECKS {
        let outcomes = (0..COLUMNS.len()).map(|column| {
            let cell = cells.get(&((*room).to_owned(), words(check), column));
            cell.map_or(UNTRIED, String::as_str)
        });
        let outcomes: Vec<&str> = outcomes.collect();
        text.push_str(&format!("| {room} | {} | {} |\n", words(check), outcomes.join(" | ")));
    }
    text
}

/// Puts an outcome into a page, and leaves what stands around its table.
fn write(file: &Path, at: (String, String, usize), outcome: &str) {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut cells = cells(&text);
    cells.insert(at, outcome.to_owned());
    let before: Vec<&str> = text.lines().take_while(|line| !line.starts_with("| ")).collect();
    let after = text
        .lines()
        .skip(before.len())
        .skip_while(|line| line.starts_with("| "));
    let after: Vec<&str> = after.collect();
    let mut parts = vec![before.join("\n"), table(&cells)];
    parts.extend((!after.is_empty()).then(|| format!("{}\n", after.join("\n"))));
    fs::write(file, parts.join("\n").trim_start()).expect("the table can be written");
}

/// Whether an outcome is the one that the page has. What a machine's own backends lack is their own business; simulated
/// systems are the same everywhere.
fn same(column: &str, page: &str, outcome: &str) -> bool {
    let main = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    match column.starts_with("truenas") {
        true => page == outcome,
        false => main(page) == main(outcome),
    }
}

/// Takes down how a check ended, and says where the page has something else.
pub(super) fn record(column: &str, room: &str, check: &str, outcome: &str) -> Result<(), String> {
    let Some(number) = COLUMNS.iter().position(|one| *one == column) else {
        return Ok(());
    };
    let at = (room.to_owned(), words(check), number);
    let _held = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = std::env::var_os("SBX_TEST_TABLE") {
        write(Path::new(&file), at.clone(), outcome);
    }
    // What others than root can make on their own machine differs from one to the next.
    if outcome == "fail" || (column == "local" && !rustix::process::geteuid().is_root()) {
        return Ok(());
    }
    if std::env::var_os("SBX_BLESS").is_some_and(|value| value == "1") {
        write(&page(), at, outcome);
        return Ok(());
    }
    let text = fs::read_to_string(page()).expect("the page is there");
    match cells(&text).get(&at) {
        Some(cell) if same(column, cell, outcome) => Ok(()),
        cell => Err(format!(
            "{PAGE} says {:?} of `{room}: {}` on {column}, and it was {outcome:?}: SBX_BLESS=1 writes that",
            cell.map_or(UNTRIED, String::as_str),
            words(check),
        )),
    }
}

/// The page has every check, and no other.
#[test]
fn the_page_has_every_check() {
    let text = fs::read_to_string(page()).expect("the page is there");
    let found: Vec<(String, String)> = rows(&text)
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let wanted = CHECKS.iter().map(|(room, check)| ((*room).to_owned(), words(check)));
    assert_eq!(found, wanted.collect::<Vec<_>>());
    let untried = cells(&text).into_values().filter(|outcome| outcome == UNTRIED).count();
    assert_eq!(untried, 0, "every check was tried on every backend");
}
