//! What a spec names on the machine that reads it: files of its own folder, and nothing else.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode};
use sbx_apply::model::{Data, Digest, FileState};
use sbx_apply::spec::{self, Request};

/// More than any of these may take: one that waits for a pipe's other end waits for ever.
const LONG: Duration = Duration::from_secs(60);

/// The codes of what is wrong with a spec of one sandbox that holds this, in a folder made by `prepare`.
fn codes(folder: &Path, holds: &str) -> Vec<&'static str> {
    let path = folder.join("sbx.kdl");
    fs::write(
        &path,
        format!("environment \"e\"\nsandbox \"a\" {{ image \"x\"; {holds}; }}"),
    )
    .expect("writes");
    let (done, waiting) = mpsc::channel();
    let request = Request::file(path);
    std::thread::spawn(move || drop(done.send(spec::load(&request))));
    let loaded = waiting.recv_timeout(LONG).unwrap_or_else(|_| panic!("{holds} hangs"));
    match loaded {
        Ok(_) => Vec::new(),
        Err(rejected) => rejected.diagnostics.iter().map(|diagnostic| diagnostic.code).collect(),
    }
}

#[test]
fn nothing_but_regular_files_below_the_root_is_read() {
    let outer = tempfile::tempdir().expect("a folder");
    let folder = outer.path().join("repo");
    fs::create_dir_all(folder.join("tree")).expect("makes");
    fs::create_dir_all(folder.join("piped")).expect("makes");
    fs::write(outer.path().join("secret"), "secret").expect("writes");
    fs::write(folder.join("good"), "good").expect("writes");
    symlink("../secret", folder.join("link-out")).expect("links");
    symlink("..", folder.join("folder-out")).expect("links");
    symlink("loop", folder.join("loop")).expect("links");
    symlink("good", folder.join("link-in")).expect("links");
    symlink("/dev/zero", folder.join("zero")).expect("links");
    for pipe in ["pipe", "piped/pipe"] {
        rustix::fs::mkfifoat(CWD, folder.join(pipe), Mode::RUSR | Mode::WUSR).expect("makes");
    }
    let _socket = UnixListener::bind(folder.join("socket")).expect("binds");
    let device = rustix::fs::makedev(1, 5);
    let made = rustix::fs::mknodat(
        CWD,
        folder.join("device"),
        FileType::CharacterDevice,
        Mode::RUSR,
        device,
    );
    let mut cases = vec![
        ("file \"/a\" source=\"good\"", None),
        ("file \"/a\" source=\"link-in\"", None),
        ("file \"/a\" source=\"../secret\"", Some("spec::outside-root")),
        ("file \"/a\" source=\"tree/../../secret\"", Some("spec::outside-root")),
        ("file \"/a\" source=\"link-out\"", Some("spec::outside-root")),
        ("file \"/a\" source=\"folder-out/secret\"", Some("spec::outside-root")),
        ("file \"/a\" source=\"zero\"", Some("spec::outside-root")),
        ("file \"/a\" source=\"loop\"", Some("spec::unreadable")),
        ("file \"/a\" source=\"pipe\"", Some("spec::source-not-a-file")),
        ("file \"/a\" source=\"socket\"", Some("spec::source-not-a-file")),
        ("run \"x\" script=\"pipe\"", Some("spec::source-not-a-file")),
        ("run \"x\" script=\"link-out\"", Some("spec::outside-root")),
        ("tree \"/a\" source=\"folder-out\"", Some("spec::outside-root")),
        ("tree \"/a\" source=\"piped\"", Some("spec::special-file")),
        ("tree \"/a\" source=\"piped\" { exclude \"pipe\"; }", None),
    ];
    // Only root can make one.
    if made.is_ok() {
        cases.push(("file \"/a\" source=\"device\"", Some("spec::source-not-a-file")));
    }
    for (holds, expected) in cases {
        assert_eq!(codes(&folder, holds), Vec::from_iter(expected), "{holds}");
    }
}

#[test]
fn a_huge_source_is_refused_and_a_large_one_is_not_held_in_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let sized = |name: &str, size: u64| {
        let file = File::create(folder.path().join(name)).expect("makes");
        file.set_len(size).expect("a file with nothing in it but a size");
    };
    sized("huge", (1 << 30) + 1);
    sized("large", 128 << 20);
    assert_eq!(
        codes(folder.path(), "file \"/a\" source=\"huge\""),
        ["spec::source-too-large"]
    );
    assert_eq!(codes(folder.path(), "file \"/a\" source=\"large\""), [""; 0]);
    // The same in an address space that has no room for it.
    let output = Command::new("/bin/sh")
        .args(["-c", "ulimit -v 330000; exec \"$0\" validate sbx.kdl"])
        .arg(env!("CARGO_BIN_EXE_sbx-apply"))
        .current_dir(folder.path())
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_source_that_grows_while_it_is_read_is_one_of_its_states() {
    let folder = tempfile::tempdir().expect("a folder");
    let growing = folder.path().join("growing");
    fs::write(&growing, "").expect("writes");
    fs::write(
        folder.path().join("sbx.kdl"),
        "environment \"e\"\nsandbox \"a\" { image \"x\"; file \"/a\" source=\"growing\"; }",
    )
    .expect("writes");
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (stop, growing) = (stop.clone(), growing.clone());
        move || {
            use std::io::Write as _;
            let mut file = File::options().append(true).open(growing).expect("opens");
            let mut written = 0_usize;
            while !stop.load(Ordering::Relaxed) && written < 8 << 20 {
                written += file.write(&[b'x'; 4096]).expect("writes");
            }
        }
    });
    for _ in 0..20 {
        let loaded = spec::load(&Request::file(folder.path().join("sbx.kdl"))).expect("loads");
        let sandbox = loaded.desired.sandboxes.values().next().expect("one");
        let FileState::Content(content) = &sandbox.files.values().next().expect("one").state else {
            panic!("a content");
        };
        if let Data::Bytes(bytes) = &content.data {
            assert_eq!(bytes.len() as u64, content.size);
        }
        if content.size < 1 << 20 {
            // A prefix of what it is now, digest and size of the same bytes.
            let now = fs::read(&growing).expect("reads");
            let size = usize::try_from(content.size).expect("fits");
            assert_eq!(Digest::of(&now[..size]), content.digest);
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("no panic");
}
