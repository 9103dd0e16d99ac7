//! Addresses that nobody on this machine uses: four in a row for each sandbox, of which two can be given to devices.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;

use crate::backend::unique_local;
use crate::model::Hasher;

/// The bits that the two devices' addresses share.
const PREFIX: u8 = 30;
/// What everybody may use at home (RFC 1918), with as many attempts in each.
const PRIVATE: [(Ipv4Addr, u8); 3] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
];
const ATTEMPTS: u32 = 200;

/// A range that meets none of those that are taken: for a device, mostly the same one each time.
pub(super) fn choose(device: &str, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    PRIVATE.iter().find_map(|(first, bits)| {
        (0..ATTEMPTS).find_map(|attempt| {
            let mut hasher = Hasher::new();
            hasher.part(device);
            hasher.part(attempt.to_le_bytes());
            let number = u32::from_str_radix(hasher.finish().short().get(..8)?, 16).ok()?;
            let inner = number & (u32::MAX >> bits) & (u32::MAX << (32 - PREFIX));
            let range = Ipv4Net::new(Ipv4Addr::from(u32::from(*first) | inner), PREFIX).ok()?;
            let meets = |other: &Ipv4Net| other.contains(&range) || range.contains(other);
            (!taken.iter().any(meets)).then_some(range)
        })
    })
}

/// This machine's end for a device by IPv6, and the sandbox's, and the bits that they share.
pub(super) fn ends_ipv6(device: &str) -> (Ipv6Addr, Ipv6Addr, u8) {
    let range = unique_local::range(device);
    let first = u128::from(range.network());
    (Ipv6Addr::from(first + 1), Ipv6Addr::from(first + 2), range.prefix_len())
}

/// This machine's end of a range, and the sandbox's.
pub(super) fn ends(range: Ipv4Net) -> (Ipv4Addr, Ipv4Addr) {
    let first = u32::from(range.network());
    (Ipv4Addr::from(first + 1), Ipv4Addr::from(first + 2))
}

/// This machine's end, given the sandbox's.
pub(super) fn gateway_of(there: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(there).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(nets: &[&str]) -> Vec<Ipv4Net> {
        nets.iter().map(|net| net.parse().expect("a range")).collect()
    }

    #[test]
    fn a_range_is_mostly_the_same_and_meets_nobody_elses() {
        let first = choose("sbx1", &[]).expect("free");
        assert_eq!(choose("sbx1", &[]), Some(first));
        assert_ne!(choose("sbx2", &[]), Some(first));
        assert!(nets(&["10.0.0.0/8"])[0].contains(&first), "{first}");
        let next = choose("sbx1", &[first]).expect("free");
        assert_ne!(next, first);
        assert_ne!(choose("sbx1", &[first.trunc(), nets(&["0.0.0.0/1"])[0]]), Some(first));
    }

    #[test]
    fn a_whole_network_that_is_taken_is_left_alone() {
        let range = choose("sbx1", &nets(&["10.0.0.0/8"])).expect("free");
        assert!(nets(&["172.16.0.0/12"])[0].contains(&range), "{range}");
        let range = choose("sbx1", &nets(&["10.0.0.0/8", "172.16.0.0/12"])).expect("free");
        assert!(nets(&["192.168.0.0/16"])[0].contains(&range), "{range}");
        assert_eq!(
            choose("sbx1", &nets(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"])),
            None
        );
        // A host route within it.
        let one = choose("sbx1", &[]).expect("free");
        let (here, there) = ends(one);
        assert_eq!(u32::from(there), u32::from(here) + 1);
        assert_eq!(gateway_of(there), here);
        assert_ne!(choose("sbx1", &[Ipv4Net::from(there)]), Some(one));
    }
}
