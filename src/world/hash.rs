//! SHA-256 sums of texts and numbers, as lower-case hexadecimal text.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// The SHA-256 sum of everything that `fill` feeds, as 64 lower-case hexadecimal digits.
pub(crate) fn hash(fill: impl FnOnce(&mut Sha256)) -> String {
    let mut sum = Sha256::new();
    fill(&mut sum);
    sum.finalize().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

/// Feeds each text after its length in bytes, so that no two different lists of texts feed the same bytes.
pub(crate) fn feed<'a>(sum: &mut Sha256, texts: impl IntoIterator<Item = &'a str>) {
    for text in texts {
        sum.update((text.len() as u64).to_le_bytes());
        sum.update(text);
    }
}
