//! What a visit of a bucket asks of the store, and what that costs at list price.

use std::fmt;

/// The day on which the prices below were last compared with texts of 2026 that quote AWS. The page itself fills its
/// figures in by script and was not read.
pub const PRICES_OF: &str = "2026-11-21";
/// Where they stand: S3 Standard, us-east-1, list price in USD. Other regions and classes differ.
pub const PRICES_FROM: &str = "https://aws.amazon.com/s3/pricing/";
/// LIST, PUT, COPY, POST: 0.005 USD for 1000 requests, in millionths of a USD a request.
const LIST: u64 = 5;
/// GET, HEAD and all others: 0.0004 USD for 1000 requests, in ten-millionths of a USD a request.
const GET_TENTHS: u64 = 4;
/// Out to the internet: 0.09 USD a GB (taken as 10^9 bytes), in millionths of a USD a MB. The price of a month's
/// first 10 TB; that the first 100 GB are free and more is cheaper is not counted. Nothing within the region.
const OUT_A_MB: u64 = 90;

/// What will be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimate {
    /// LIST requests, already made.
    pub lists: u64,
    /// HEAD requests and the like.
    pub heads: u64,
    /// GET requests.
    pub gets: u64,
    /// Bytes that are read.
    pub bytes: u64,
}

impl Estimate {
    /// Millionths of a USD: requests, and bytes where they leave the region.
    pub fn cost(&self) -> (u64, u64) {
        let requests = self.lists * LIST + (self.heads + self.gets) * GET_TENTHS / 10;
        (requests, self.bytes / 1_000_000 * OUT_A_MB)
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (requests, out) = self.cost();
        let usd = |millionths: u64| format!("{}.{:04}", millionths / 1_000_000, millionths % 1_000_000 / 100);
        write!(
            f,
            "estimate: {} LIST (made), {} HEAD, {} GET, {} MB to read; {} USD for requests, {} USD for the bytes where \
             they leave the region (AWS list price of {PRICES_OF}, us-east-1)",
            self.lists,
            self.heads,
            self.gets,
            self.bytes.div_ceil(1_000_000),
            usd(requests),
            usd(out)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_money() {
        let estimate = Estimate { lists: 1000, heads: 500_000, gets: 500_000, bytes: 100_000_000_000 };
        assert_eq!(estimate.cost(), (405_000, 9_000_000));
        let text = estimate.to_string();
        assert!(text.contains("0.4050 USD for requests, 9.0000 USD"), "{text}");
    }
}
