//! Changes that must not begin once the lock has run out, down to a block of a file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sbx_apply::backend::incus::Incus;
use sbx_apply::backend::{Backend as _, ErrorKind, Fence, Files as _, Settings};
use tokio::time::sleep;

use crate::conformance::fixture::{Fixture, fails, file, incus, run};
use crate::support::daemon;
use crate::support::proxy::{Asked, Proxy};

/// WRITE (draft-ietf-secsh-filexfer-02, section 3).
const WRITE: u8 = 6;

#[tokio::test]
async fn nothing_is_written_after_the_lock_has_run_out() {
    let Some(daemon) = daemon::find() else { return };
    run(incus().await, async |f: &Fixture| {
        let name = f.stopped("fenced").await;
        let proxy = Proxy::start(&daemon.socket);
        let settings = Settings::from([("socket".to_owned(), proxy.socket().display().to_string())]);
        let backend = Incus::open(&settings).await.expect("opens");
        let clock = Arc::new(AtomicU64::new(100));
        let now = clock.clone();
        let fence = Fence::new(move || now.load(Ordering::Relaxed), 160);
        let changes = [file("/root/large", vec![b'x'; 64 << 20])];
        let upload = fence.around(backend.change_files(&name, &changes));
        let stopped = async {
            let mut written = 0;
            while written < 50 {
                sleep(Duration::from_millis(1)).await;
                written += writes(&proxy);
            }
            // The process was stopped here, and wakes up after its lock has run out.
            clock.store(161, Ordering::Relaxed);
            sleep(Duration::from_millis(500)).await;
            let late = writes(&proxy);
            assert!(late < 100, "what was under way: {late} blocks of 2048");
            sleep(Duration::from_secs(1)).await;
            assert_eq!(writes(&proxy), 0, "nothing more is written");
            fence.close();
        };
        let (uploaded, ()) = tokio::join!(upload, stopped);
        uploaded.expect_err("not done");
        assert_eq!(
            f.found(&name, "/root/large").await,
            None,
            "half a file is not in its place"
        );
        proxy.take();
        fails(fence.around(backend.delete(&name)).await, ErrorKind::Conflict);
        let asked = proxy.take();
        assert!(asked.iter().all(Asked::is_read), "{asked:?}");
    })
    .await;
}

fn writes(proxy: &Proxy) -> usize {
    let is_write = |asked: &Asked| matches!(asked, Asked::Packet { kind: WRITE, .. });
    proxy.take().into_iter().filter(is_write).count()
}
