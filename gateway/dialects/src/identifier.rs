//! CA-8: text from outside becomes an identifier, or the keyed pseudonym of itself.

use schemas::Identifier;

/// `raw` where it matches `[A-Za-z0-9_.:/@+-]{1,128}`, else `p:` and what `pseudonym` makes of it.
///
/// `pseudonym` gives the hex digits of a keyed hash; the same raw text gives the same identifier under one key.
pub fn identifier(raw: &str, pseudonym: &dyn Fn(&str) -> String) -> Identifier {
    if let Ok(plain) = Identifier::new(raw) {
        return plain;
    }
    let mut digits: String = pseudonym(raw).chars().filter(char::is_ascii_hexdigit).take(64).collect();
    if digits.is_empty() {
        digits.push('0');
    }
    Identifier::new(format!("p:{digits}")).expect("`p:` and 1 to 64 hex digits are an identifier")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_outside_the_pattern_is_replaced() {
        let pseudonym = |raw: &str| format!("{:016x}", raw.len());
        for (raw, wanted) in [
            ("gpt-5.2", "gpt-5.2"),
            ("org/model:free", "org/model:free"),
            ("", "p:0000000000000000"),
            ("two words", "p:0000000000000009"),
            ("é", "p:0000000000000002"),
        ] {
            assert_eq!(identifier(raw, &pseudonym).as_str(), wanted);
        }
        let long = "x".repeat(129);
        assert!(identifier(&long, &pseudonym).as_str().starts_with("p:"));
    }

    #[test]
    fn a_pseudonym_that_is_no_hex_cannot_leak() {
        assert_eq!(identifier("a b", &|_| " zz!".into()).as_str(), "p:0");
    }
}
