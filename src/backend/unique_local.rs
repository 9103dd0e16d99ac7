//! IPv6 ranges that are nobody else's.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use crate::model::Digest;

/// A unique local range (RFC 4193) for something of this name, always the same. 64 bits are left for addresses: what those
/// that follow from hardware addresses need.
pub(super) fn range(name: &str) -> Ipv6Net {
    let digest = Digest::of(name.as_bytes());
    let bits = digest
        .as_str()
        .get(..14)
        .and_then(|text| u128::from_str_radix(text, 16).ok());
    let network = ((0xfd << 56) | bits.unwrap_or_default()) << 64;
    Ipv6Net::new_assert(Ipv6Addr::from(network), 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_one_of_its_own() {
        assert_eq!(range("a"), range("a"));
        assert_ne!(range("a"), range("b"));
        let private: Ipv6Net = "fd00::/8".parse().expect("a range");
        assert!(private.contains(&range("a")), "{}", range("a"));
    }
}
