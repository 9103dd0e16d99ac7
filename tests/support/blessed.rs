//! Expected texts in files: compared, or, with `SBX_BLESS=1`, written.

use std::path::Path;

/// Holds a text against the file that says what it should be; `path` is relative to the package.
pub(crate) fn check(path: &str, actual: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("SBX_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&file, actual).expect("can be written");
        return;
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    snapbox::assert_data_eq!(actual.to_owned(), snapbox::Data::text(expected).raw());
}
