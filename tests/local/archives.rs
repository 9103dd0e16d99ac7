//! Images from archives, good ones and hostile ones.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use sbx_apply::backend::{CreateOpts, Error, ErrorKind, Result};
use sbx_apply::model::{Digest, GuestPath, InstanceName};
use tar::{Builder, EntryType, Header};

use crate::support::namespaces;

/// An entry: its path, type, what it holds or leads to.
type Item<'a> = (&'a str, EntryType, &'a str);

const ROOT: [Item<'_>; 3] = [
    ("./etc/", EntryType::Directory, ""),
    ("./etc/os-release", EntryType::Regular, "ID=tiny\n"),
    ("./bin", EntryType::Symlink, "usr/bin"),
];

/// An archive, with names as they are given: a library's own checks would refuse the hostile ones.
fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, kind, content) in items {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(if *kind == EntryType::Directory { 0o755 } else { 0o640 });
        header.set_uid(0);
        header.set_gid(0);
        let bytes = match kind {
            EntryType::Regular => content.as_bytes(),
            EntryType::Symlink | EntryType::Link => {
                header.as_mut_bytes()[157..157 + content.len()].copy_from_slice(content.as_bytes());
                b""
            }
            _ => b"",
        };
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, bytes).expect("appends");
    }
    builder.into_inner().expect("ends")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compresses");
    encoder.finish().expect("compresses")
}

/// Makes a sandbox of an image, reads a file of it, and deletes it.
async fn try_image(image: &Path, read: &str) -> Result<String> {
    let backend = namespaces::backend();
    let label = Digest::of(image.as_os_str().as_encoded_bytes());
    let name = format!("image-{}-{}", std::process::id(), label.short());
    let opts = CreateOpts {
        name: name.clone(),
        image: Some(image.display().to_string()),
        bare: true,
        ..CreateOpts::default()
    };
    backend.create(&opts).await?;
    let name = InstanceName::observed(name);
    let path = GuestPath::new(read).expect("a path");
    let text = backend.read(&name, &path, 1000).await;
    backend.delete(&name).await.expect("deletes");
    text.map(|(bytes, _)| String::from_utf8_lossy(&bytes).into_owned())
}

fn keep(folder: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join(name);
    File::create(&path)
        .and_then(|mut file| file.write_all(bytes))
        .expect("writes");
    path
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(namespaces::folder()).expect("a folder")
}

#[tokio::test]
async fn archives_may_be_compressed() {
    let folder = folder();
    let plain = archive(&ROOT);
    let zstd = ruzstd::encoding::compress_to_vec(&plain[..], ruzstd::encoding::CompressionLevel::Fastest);
    // Two frames, the first of which ends where an entry does.
    let frame = |bytes: &[u8]| ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest);
    let frames = [frame(&plain[..512]), frame(&plain[512..])].concat();
    let mut remark = Header::new_ustar();
    remark.set_entry_type(EntryType::XGlobalHeader);
    remark.set_path("pax_global_header").expect("a path");
    remark.set_size(13);
    remark.set_cksum();
    let mut remarked = remark.as_bytes().to_vec();
    remarked.extend_from_slice(b"13 comment=1\n");
    remarked.resize(1024, 0);
    remarked.extend_from_slice(&plain);
    for (name, bytes) in [
        ("plain", plain.clone()),
        ("gzip", gzip(&plain)),
        ("zstd", zstd),
        ("zstd in frames", frames),
        ("with a remark", remarked),
    ] {
        let image = keep(folder.path(), name, &bytes);
        let text = try_image(&image, "/etc/os-release").await.expect(name);
        assert_eq!(text, "ID=tiny\n", "{name}");
    }
    let image = keep(folder.path(), "xz.tar", &plain);
    if std::process::Command::new("xz")
        .arg(&image)
        .status()
        .is_ok_and(|status| status.success())
    {
        let text = try_image(&folder.path().join("xz.tar.xz"), "/etc/os-release")
            .await
            .expect("xz");
        assert_eq!(text, "ID=tiny\n");
    }
}

#[tokio::test]
async fn an_unpacked_image_goes_when_nothing_has_been_made_of_it_for_a_day() {
    let folder = folder();
    let mut items = ROOT.to_vec();
    let own = format!("{}", std::process::id());
    items.push(("etc/once", EntryType::Regular, &own));
    let bytes = archive(&items);
    let image = keep(folder.path(), "idle", &bytes);
    let place = namespaces::folder().join(format!("state/images/sha256-{}", Digest::of(&bytes)));
    try_image(&image, "/etc/once").await.expect("unpacks");
    assert!(place.exists(), "kept for whoever comes next");
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 3600);
    let age = || {
        File::open(&place)
            .and_then(|place| place.set_modified(long_ago))
            .expect("ages");
    };
    age();
    try_image(&image, "/etc/once").await.expect("is there");
    assert!(place.exists(), "used again");
    age();
    try_image(&keep(folder.path(), "other", &archive(&ROOT)), "/etc/os-release")
        .await
        .expect("unpacks");
    assert!(!place.exists(), "nobody needs it");
}

/// As all distributions have them. A user without ranges has nobody to give it to.
#[tokio::test]
async fn files_of_others_than_root_are_taken() {
    let folder = folder();
    let mut header = Header::new_ustar();
    header.set_path("etc/shadow").expect("a path");
    header.set_uid(1000);
    header.set_gid(42);
    header.set_mode(0o640);
    header.set_size(3);
    header.set_cksum();
    let mut bytes = archive(&ROOT);
    bytes.truncate(bytes.len() - 1024);
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(b"abc");
    bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
    let image = keep(folder.path(), "owners", &bytes);
    assert_eq!(try_image(&image, "/etc/shadow").await.expect("unpacks"), "abc");
}

#[tokio::test]
async fn hostile_archives_are_refused() {
    let folder = folder();
    let victim = folder.path().join("victim");
    for (what, item) in [
        ("leads up", ("etc/../../../victim", EntryType::Regular, "x")),
        ("is absolute", (victim.to_str().expect("text"), EntryType::Regular, "x")),
        ("is a disk", ("etc/disk", EntryType::Block, "")),
        ("is a terminal", ("etc/terminal", EntryType::Char, "")),
        (
            "is a name of something outside",
            ("etc/passwd", EntryType::Link, "../../../../../../etc/passwd"),
        ),
        ("is a name of nothing", ("etc/passwd", EntryType::Link, "etc/none")),
    ] {
        let mut items = ROOT.to_vec();
        items.push(item);
        let image = keep(folder.path(), "hostile", &archive(&items));
        let refused: Result<String> = try_image(&image, "/etc/os-release").await;
        assert!(refused.is_err(), "{what}");
        assert!(!victim.exists(), "{what}");
    }
}

#[tokio::test]
async fn links_in_an_archive_lead_nowhere_else() {
    let folder = folder();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).expect("makes");
    let mut items = ROOT.to_vec();
    items.push(("out", EntryType::Symlink, outside.to_str().expect("text")));
    items.push(("out/file", EntryType::Regular, "x"));
    let image = keep(folder.path(), "links", &archive(&items));
    // A link to what is not there inside: nothing can be put below it.
    assert!(try_image(&image, "/etc/os-release").await.is_err());
    assert_eq!(fs::read_dir(&outside).expect("reads").count(), 0);
}

#[tokio::test]
async fn an_archive_may_say_that_it_is_larger_than_all_disks() {
    let folder = folder();
    let mut bytes = archive(&ROOT);
    let mut header = Header::new_gnu();
    header.set_path("etc/bomb").expect("a path");
    header.set_size(1 << 45);
    header.set_cksum();
    bytes.truncate(bytes.len() - 1024);
    bytes.extend_from_slice(header.as_bytes());
    let image = keep(folder.path(), "bomb", &gzip(&bytes));
    let refused: Error = try_image(&image, "/etc/os-release").await.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
}

#[tokio::test]
async fn a_name_may_be_larger_than_all_memory() {
    let folder = folder();
    let mut header = Header::new_ustar();
    header.set_path("name").expect("a path");
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    // Many members of a megabyte each: two gigabytes in a few.
    let zeros = gzip(&vec![0; 1 << 20]);
    let bytes = [gzip(header.as_bytes()), zeros.repeat(2048)].concat();
    let image = keep(folder.path(), "names", &bytes);
    let begun = std::time::Instant::now();
    assert!(try_image(&image, "/etc/os-release").await.is_err());
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn layers_of_a_layout_lie_over_each_other() {
    let folder = folder();
    let blobs = folder.path().join("layout/blobs/sha256");
    fs::create_dir_all(&blobs).expect("makes");
    let blob = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        keep(&blobs, digest.as_str(), bytes);
        format!("sha256:{digest}")
    };
    let mut lower = ROOT.to_vec();
    lower.push(("etc/old", EntryType::Regular, "old"));
    lower.push(("opt/", EntryType::Directory, ""));
    lower.push(("opt/below", EntryType::Regular, "below"));
    let upper: [Item<'_>; 4] = [
        ("etc/.wh.old", EntryType::Regular, ""),
        ("opt/above", EntryType::Regular, "above"),
        ("opt/.wh..wh..opq", EntryType::Regular, ""),
        ("etc/os-release", EntryType::Regular, "ID=upper\n"),
    ];
    let layers = [blob(&gzip(&archive(&lower))), blob(&archive(&upper))];
    let layers: Vec<_> = layers
        .iter()
        .map(|digest| serde_json::json!({ "digest": digest }))
        .collect();
    let manifest = blob(
        serde_json::json!({ "schemaVersion": 2, "layers": layers })
            .to_string()
            .as_bytes(),
    );
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [{ "digest": manifest }] });
    let layout = folder.path().join("layout");
    keep(&layout, "index.json", index.to_string().as_bytes());
    keep(&layout, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    let packed = folder.path().join("layout.tar");
    let mut builder = Builder::new(File::create(&packed).expect("makes"));
    builder.append_dir_all(".", &layout).expect("packs");
    builder.finish().expect("packs");
    for image in [&layout, &packed] {
        for (path, text) in [
            ("/etc/os-release", Some("ID=upper\n")),
            ("/opt/above", Some("above")),
            ("/opt/below", None),
            ("/etc/old", None),
        ] {
            let read = try_image(image, path).await;
            assert_eq!(read.ok().as_deref(), text, "{path} of {}", image.display());
        }
    }
    // A blob that holds something else.
    let first = layers[0]["digest"]
        .as_str()
        .expect("text")
        .trim_start_matches("sha256:");
    keep(&blobs, first, b"something else");
    assert!(try_image(&layout, "/etc/os-release").await.is_err());
}

#[tokio::test]
async fn an_image_outside_the_specs_root_is_refused() {
    let image = Path::new("/");
    let refused = try_image(image, "/etc/os-release").await.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}
