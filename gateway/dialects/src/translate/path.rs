//! Segments of a path.

/// `text` as one segment of a path: all but unreserved characters, `:` and `@` percent-encoded.
pub(super) fn segment(text: &str) -> String {
    coded(text, b"-._~:@")
}

/// As [`segment`], with `:` encoded too, as AWS's SDKs do.
pub(super) fn strict_segment(text: &str) -> String {
    coded(text, b"-._~")
}

fn coded(text: &str, plain: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_stays_one_segment() {
        assert_eq!(segment("a:b/../c?d#é%"), "a:b%2F..%2Fc%3Fd%23%C3%A9%25");
        assert_eq!(strict_segment("us.nova-lite-v1:0"), "us.nova-lite-v1%3A0");
    }
}
