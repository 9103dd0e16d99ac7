//! "Did you mean …?"

/// The candidate that a misspelt word was most likely meant to be; none where nothing is close.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Long texts are no misspelt names, and comparing them takes time.
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= 64)
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1) && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `unknown WHAT "word"`, with the nearest candidate where there is one.
pub(super) fn unknown<'a>(what: &str, word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(word, candidates) {
        Some(candidate) => format!("unknown {what} \"{word}\", did you mean \"{candidate}\"?"),
        None => format!("unknown {what} \"{word}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_close_is_suggested() {
        let known = ["memory", "image", "cpu", "env"];
        for (word, nearest_word) in [
            ("memmory", Some("memory")),
            ("Image", Some("image")),
            ("x", None),
            ("enb", Some("env")),
        ] {
            assert_eq!(nearest(word, known), nearest_word, "{word}");
        }
    }
}
