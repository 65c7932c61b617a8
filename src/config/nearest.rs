//! The known word nearest to a mistyped one, for "did you mean".

/// The candidate with the fewest edits from `word`, if it is near enough to be what was meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = plain(word);
    known
        .into_iter()
        .map(|candidate| (distance(&word, &plain(candidate)), candidate))
        .filter(|(edits, candidate)| {
            let longer = candidate.len().max(word.len());
            // "client_secret" for "client_secret_file": a whole part of the name is missing.
            *edits <= 1.max(longer / 3) || plain(candidate).starts_with(&word) && word.len() > 3
        })
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// `maxRetries`, `max-retries` and `max_retries` are the same word to the eye.
fn plain(word: &str) -> String {
    word.chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// Edits (insert, remove, replace, swap of neighbours) between two words. Bounded by the shorter
/// of the words that configuration keys are: longer input is cut.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(LONGEST).collect();
    let b: Vec<char> = b.chars().take(LONGEST).collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// No key is longer; a hostile one costs no more.
const LONGEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_far_word_is_not_suggested() {
        assert_eq!(nearest("colour", ["scopes", "grant", "client_id"]), None);
        assert_eq!(nearest("", ["scopes"]), None);
    }

    #[test]
    fn the_nearest_word_is_suggested() {
        let known = ["grant", "client_id", "client_secret_file", "scopes"];
        for (typed, meant) in [
            ("scope", "scopes"),
            ("client-id", "client_id"),
            ("clientId", "client_id"),
            ("gratn", "grant"),
            ("client_secret", "client_secret_file"),
        ] {
            assert_eq!(nearest(typed, known), Some(meant), "{typed}");
        }
    }
}
