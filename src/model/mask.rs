//! What stands in the place of secrets in texts that are shown.

use std::sync::Arc;

/// What stands where a secret was.
const MASKED: &[u8] = b"***";

/// The texts that nothing shown may hold, the longest first.
#[derive(Clone, Default)]
pub struct Mask(Arc<[Vec<u8>]>);

impl Mask {
    /// A mask over each of these texts.
    #[must_use]
    pub fn new(mut texts: Vec<Vec<u8>>) -> Self {
        texts.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        texts.dedup();
        Self(texts.into())
    }

    /// Whether there is nothing to hide.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same bytes without the secrets.
    #[must_use]
    pub fn over(&self, bytes: &[u8]) -> Vec<u8> {
        self.over_first(bytes, bytes.len()).0
    }

    /// The same text without the secrets.
    #[must_use]
    pub fn over_text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.over(text.as_bytes())).into_owned()
    }

    /// The same of the first bytes, at least so many as asked for: a secret that begins among them is masked whole.
    /// Gives how many there were, too.
    #[must_use]
    pub fn over_first(&self, bytes: &[u8], least: usize) -> (Vec<u8>, usize) {
        let mut masked = Vec::with_capacity(least);
        let mut rest = bytes;
        while bytes.len() - rest.len() < least {
            let Some((first, after)) = rest.split_first() else {
                break;
            };
            // The longest come first.
            match self.0.iter().find(|secret| rest.starts_with(secret)) {
                Some(secret) => {
                    masked.extend_from_slice(MASKED);
                    rest = &rest[secret.len()..];
                }
                None => {
                    masked.push(*first);
                    rest = after;
                }
            }
        }
        (masked, bytes.len() - rest.len())
    }

    /// How many bytes the longest has.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.0.first().map_or(0, Vec::len)
    }
}

/// Not the texts.
impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_is_masked_first_and_nothing_prints_one() {
        let texts = ["hunter2", "hunter22", "hunter2"].map(|text| text.as_bytes().to_vec());
        let mask = Mask::new(texts.to_vec());
        assert_eq!(mask.over_text("a hunter22 b hunter2c hunter"), "a *** b ***c hunter");
        assert_eq!(mask.longest(), 8);
        assert_eq!(format!("{mask:?}"), "Mask(2)");
    }
}
