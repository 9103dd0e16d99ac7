//! Whom the backend believes, and what it tells of whom it does not.

use sbx_apply::backend::{ErrorKind, Registry, Settings};

use super::shared;
use super::sim::{Dialect, Knobs, Login, Peer, Sim};
use super::whole::Program;

/// The settings for the TLS port, and some more.
fn settings(sim: &Sim, more: &[(&str, &str)]) -> Settings {
    let mut settings = shared::settings(sim);
    settings.remove("plain");
    settings.insert("port".to_owned(), sim.tls_port().to_string());
    settings.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    settings
}

#[tokio::test]
async fn a_certificate_is_the_pinned_one_or_any_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let (sim, other) = (
        Sim::start(Dialect::V25_10, Knobs::default()).await,
        Sim::start(Dialect::V25_10, Knobs::default()).await,
    );
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("writes");
        path.display().to_string()
    };
    let (pin, wrong) = (
        file("pin.pem", sim.certificate()),
        file("wrong.pem", other.certificate()),
    );
    let open = async |more: &[(&str, &str)]| Registry::standard().open("truenas", &settings(&sim, more)).await;
    for more in [[("server-certificate", pin.as_str())], [("insecure", "true")]] {
        let backend = open(&more).await.expect("opens");
        assert!(backend.describe().await.expect("answers").contains("25.10"));
        backend.close().await.expect("closes");
    }
    sim.forget();
    for more in [&[][..], &[("server-certificate", wrong.as_str())]] {
        let error = open(more).await.expect_err("is not believed");
        assert_eq!(error.kind(), ErrorKind::Unauthorised, "{error}");
        assert!(error.to_string().contains("not trusted"), "{error}");
    }
    assert_eq!(sim.requests(), [], "nothing was sent");
}

#[tokio::test]
async fn a_key_from_elsewhere_is_sent_under_tls_and_lives() {
    let knobs = Knobs {
        peer: Peer::Remote,
        ..Knobs::default()
    };
    for dialect in Dialect::ALL {
        let sim = Sim::start(dialect, knobs.clone()).await;
        for _ in 0..2 {
            let backend = Registry::standard()
                .open("truenas", &settings(&sim, &[("insecure", "true")]))
                .await;
            backend.expect("opens").close().await.expect("closes");
        }
        assert_eq!(sim.violations(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_logging_in_answers_is_told() {
    for (login, words) in [
        (Login::Expired, "expired"),
        (Login::Otp, "one-time password"),
        (Login::Unsupported, "takes no API keys"),
        (Login::Redirect, "another one"),
    ] {
        let knobs = Knobs {
            login,
            ..Knobs::default()
        };
        let sim = Sim::start(Dialect::V26, knobs).await;
        let error = Registry::standard().open("truenas", &shared::settings(&sim)).await;
        let error = error.expect_err("is refused");
        assert_eq!(error.kind(), ErrorKind::Unauthorised, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!format!("{error:?}").contains(sim.key()));
    }
}

#[tokio::test]
async fn doctor_says_what_is_there_and_what_is_missing() {
    let sim = Sim::start(Dialect::V25_04, Knobs::default()).await;
    let mut wrong = shared::settings(&sim);
    wrong.insert("network".to_owned(), "nowhere0".to_owned());
    let found = Registry::standard().examine("truenas", &wrong).await.expect("examines");
    let said: Vec<String> = found
        .findings
        .iter()
        .map(|finding| format!("{} {:?} {}", finding.what, finding.health, finding.said))
        .collect();
    assert!(
        said.iter().any(|line| line.starts_with("system Good TrueNAS 25.04")),
        "{said:?}"
    );
    assert!(
        said.iter()
            .any(|line| line.starts_with("network Broken") && line.contains("nowhere0")),
        "{said:?}"
    );
}

const SPEC: &str = "environment \"NAME\"\nbackend \"truenas\"\nsandbox \"one\" { image \"debian/bookworm\"; }\n";

/// However much is said, the key is not; the harness looks at all of it.
#[tokio::test]
async fn the_program_tells_how_logging_in_ended_and_never_the_key() {
    for (login, words) in [
        (Login::Normal, "one"),
        (Login::Expired, "expired"),
        (Login::Otp, "one-time password"),
        (Login::Unsupported, "takes no API keys"),
        (Login::RateLimited, "Rate Limit Exceeded"),
        (Login::Redirect, "another one"),
    ] {
        let knobs = Knobs {
            login,
            ..Knobs::default()
        };
        let sim = Sim::start(Dialect::V25_10, knobs).await;
        let program = Program::new(&sim, SPEC);
        for words_before in [&["plan", "-vvv"][..], &["doctor", "-vvv"]] {
            let (code, said) = program.run(words_before).await;
            if login != Login::Normal {
                assert_eq!(code, 1, "{login:?}: {said}");
                assert!(said.contains(words), "{login:?}: {said}");
            }
            assert!(said.contains("auth.login_ex"), "calls are told: {said}");
        }
    }
}
