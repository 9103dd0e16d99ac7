//! Names of images on 26, whose registry calls them `OS:RELEASE:ARCHITECTURE:VARIANT`, each in several versions.

use serde::Deserialize;

/// An image of the registry.
#[derive(Debug, Deserialize)]
pub(super) struct Product {
    pub(super) name: String,
    #[serde(default)]
    pub(super) versions: Vec<Version>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Version {
    pub(super) version: String,
}

/// Releases that people call by their numbers.
const RELEASES: [(&str, &str, &str); 6] = [
    ("debian", "11", "bullseye"),
    ("debian", "12", "bookworm"),
    ("debian", "13", "trixie"),
    ("ubuntu", "22.04", "jammy"),
    ("ubuntu", "24.04", "noble"),
    ("ubuntu", "26.04", "resolute"),
];

/// The product and version that a spec means: the registry's own name, or `OS/RELEASE[/VARIANT]`; the newest version, or
/// that after an `@`.
pub(super) fn find<'a>(products: &'a [Product], image: &str) -> Option<(&'a str, &'a str)> {
    let (name, wanted) = match image.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (image, None),
    };
    let product = products
        .iter()
        .find(|product| product.name == name)
        .or_else(|| products.iter().find(|product| is_called(&product.name, name)))?;
    let mut versions: Vec<&str> = product
        .versions
        .iter()
        .map(|version| version.version.as_str())
        .collect();
    // They begin with their day.
    versions.sort_unstable();
    let version = match wanted {
        Some(wanted) => versions.into_iter().find(|version| *version == wanted)?,
        None => versions.pop()?,
    };
    Some((&product.name, version))
}

/// Whether `OS/RELEASE[/VARIANT]` means a product. The registry has those of its system's architecture; where it has more
/// than one, the first counts.
fn is_called(product: &str, name: &str) -> bool {
    let mut asked = name.split('/');
    let (Some(os), Some(release), variant, None) = (asked.next(), asked.next(), asked.next(), asked.next()) else {
        return false;
    };
    let by_number = RELEASES.iter().find(|(of, number, _)| *of == os && *number == release);
    let release = by_number.map_or(release, |(_, _, name)| name);
    let parts: Vec<&str> = product.split(':').collect();
    match parts[..] {
        [of, called, _, kind] => of == os && called == release && kind == variant.unwrap_or("default"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_by_either_name() {
        let product = |name: &str, versions: &[&str]| Product {
            name: name.to_owned(),
            versions: versions
                .iter()
                .map(|version| Version {
                    version: (*version).to_owned(),
                })
                .collect(),
        };
        let products = [
            product(
                "debian:bookworm:amd64:default",
                &["20260101_05:24", "20260301_05:24", "20260201_05:24"],
            ),
            product("debian:bookworm:amd64:cloud", &["1"]),
            product("busybox", &["1"]),
        ];
        let find = |image: &str| find(&products, image);
        let newest = Some(("debian:bookworm:amd64:default", "20260301_05:24"));
        assert_eq!(find("debian/12"), newest);
        assert_eq!(find("debian/bookworm/default"), newest);
        assert_eq!(find("debian:bookworm:amd64:default"), newest);
        assert_eq!(
            find("debian/12@20260201_05:24").map(|(_, version)| version),
            Some("20260201_05:24")
        );
        assert_eq!(find("debian/12/cloud"), Some(("debian:bookworm:amd64:cloud", "1")));
        assert_eq!(find("busybox"), Some(("busybox", "1")));
        for missing in ["debian/99", "debian", "debian/12@1", "a/b/c/d"] {
            assert_eq!(find(missing), None, "{missing}");
        }
    }
}
