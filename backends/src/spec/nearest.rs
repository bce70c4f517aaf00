//! Which name was meant by a mistyped one.

/// What is more unlike than this was not meant (Jaro and Winkler).
const LIKE_ENOUGH: f64 = 0.75;
/// How like something is that is one slip away: two letters exchanged, or one too many, missing or another. Short names are unlike then
/// by the other measure.
const ONE_SLIP: f64 = 0.9;

/// Gives the candidate that comes nearest to `name`, if any is near enough to be meant.
pub fn nearest<T: AsRef<str>>(name: &str, candidates: impl IntoIterator<Item = T>) -> Option<T> {
    let likeness = |candidate: &str| {
        let like = strsim::jaro_winkler(name, candidate);
        let length = name.chars().count().min(candidate.chars().count());
        // Of two letters, one is too little to go by.
        if length > 2 && strsim::osa_distance(name, candidate) == 1 {
            ONE_SLIP + (1.0 - ONE_SLIP) * like
        } else {
            like
        }
    };
    candidates
        .into_iter()
        .map(|candidate| (likeness(candidate.as_ref()), candidate))
        .filter(|(likeness, _)| *likeness >= LIKE_ENOUGH)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slip_in_a_short_name_is_seen() {
        const NAMES: [&str; 6] = ["key", "user", "region", "root", "endpoint", "access_key_id"];
        for (given, meant) in [
            ("kye", Some("key")),
            ("kex", Some("key")),
            ("usre", Some("user")),
            ("rot", Some("root")),
            ("endpont", Some("endpoint")),
            ("acces_key", Some("access_key_id")),
            ("zzz", None),
            ("xy", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, NAMES), meant, "{given}");
        }
        assert_eq!(
            nearest("kye", ["yke".to_owned(), "key".to_owned()]),
            Some("key".to_owned())
        );
        assert_eq!(nearest("ab", ["ax"]), None);
    }
}
