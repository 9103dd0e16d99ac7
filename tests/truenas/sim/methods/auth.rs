//! `auth.*`: who is asking.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::Dialect;
use super::super::check::{Field, INT, Shape, TEXT, default, required};
use super::super::failure::{Failure, errno};
use super::super::knobs::Login;
use super::super::server::{self, Server};
use super::super::session::Session;
use super::{Call, Method, Outcome, run};

const LOGIN_OPTIONS: Shape = Shape::Object("AuthCommonOptions", &[default("user_info", Shape::Bool, "true")]);
const LOGIN_OPTIONS_26: Shape = Shape::Object(
    "AuthCommonOptions",
    &[
        default("user_info", Shape::Bool, "true"),
        default("reconnect_token", Shape::Bool, "false"),
    ],
);

const fn mechanism(name: &'static [&'static str]) -> Field {
    required("mechanism", Shape::OneOf(name))
}

const API_KEY: &[Field] = &[
    mechanism(&["API_KEY_PLAIN"]),
    required("username", TEXT),
    required("api_key", TEXT),
    default("login_options", LOGIN_OPTIONS, "{}"),
];
const API_KEY_26: &[Field] = &[
    mechanism(&["API_KEY_PLAIN"]),
    required("username", TEXT),
    required("api_key", TEXT),
    default("login_options", LOGIN_OPTIONS_26, "{}"),
];
const PASSWORD: &[Field] = &[
    mechanism(&["PASSWORD_PLAIN"]),
    required("username", TEXT),
    required("password", TEXT),
    default("login_options", LOGIN_OPTIONS, "{}"),
];
const TOKEN: &[Field] = &[
    mechanism(&["TOKEN_PLAIN"]),
    required("token", TEXT),
    default("login_options", LOGIN_OPTIONS, "{}"),
];
const OTP: &[Field] = &[
    mechanism(&["OTP_TOKEN"]),
    required("otp_token", TEXT),
    default("login_options", LOGIN_OPTIONS, "{}"),
];

const LOGIN_25_04: Shape = Shape::Either(&[
    ("AuthApiKeyPlain", API_KEY),
    ("AuthPasswordPlain", PASSWORD),
    ("AuthTokenPlain", TOKEN),
    ("AuthOTPToken", OTP),
]);
const LOGIN_25_10: Shape = Shape::Tagged(
    "mechanism",
    &[
        ("API_KEY_PLAIN", API_KEY),
        ("PASSWORD_PLAIN", PASSWORD),
        ("TOKEN_PLAIN", TOKEN),
        ("OTP_TOKEN", OTP),
    ],
);
const LOGIN_26: Shape = Shape::Tagged(
    "mechanism",
    &[
        ("API_KEY_PLAIN", API_KEY_26),
        ("PASSWORD_PLAIN", PASSWORD),
        ("TOKEN_PLAIN", TOKEN),
        ("OTP_TOKEN", OTP),
    ],
);

const GENERATE_TOKEN: &[Field] = &[
    default("ttl", Shape::OrNull(&INT), "600"),
    default("attrs", Shape::Map(None, &Shape::Any), "{}"),
    default("match_origin", Shape::Bool, "true"),
    default("single_use", Shape::Bool, "false"),
];

pub(super) fn methods(dialect: Dialect) -> Vec<Method> {
    let login: &[Field] = match dialect {
        Dialect::V25_04 => const { &[required("login_data", LOGIN_25_04)] },
        Dialect::V25_10 => const { &[required("login_data", LOGIN_25_10)] },
        Dialect::V26 => const { &[required("login_data", LOGIN_26)] },
    };
    const ONE_TIME: &[Field] = &[required("login_data", Shape::Object("AuthOTPToken", OTP))];
    vec![
        Method::read("auth.login_ex", login, run!(login_ex)).open(),
        Method::read("auth.login_ex_continue", ONE_TIME, run!(login_ex)).open(),
        Method::read(
            "auth.login_with_api_key",
            const { &[required("api_key", TEXT)] },
            run!(login_with_api_key),
        )
        .open(),
        Method::read("auth.me", &[], run!(me)),
        Method::read("auth.logout", &[], run!(logout)),
        Method::read("auth.generate_token", GENERATE_TOKEN, run!(generate_token)),
    ]
}

/// Refusals come late.
const DELAY: Duration = Duration::from_secs(1);

async fn login_ex(call: Call) -> Outcome {
    let data = &call.params[0];
    if call.server.knobs().login == Login::RateLimited {
        tokio::time::sleep(DELAY).await;
        return Err(Failure::call(errno::EBUSY, "Rate Limit Exceeded"));
    }
    if data["mechanism"] == "OTP_TOKEN" {
        if !call.session.state().otp {
            let text = "OTP_TOKEN mechanism may only be used when prompted";
            return Err(Failure::call(errno::EINVAL, text));
        }
        // No token is the right one: who has only a key cannot know it.
        tokio::time::sleep(DELAY).await;
        return Ok(json!({ "response_type": "AUTH_ERR" }));
    }
    if data["mechanism"] != "API_KEY_PLAIN" {
        tokio::time::sleep(DELAY).await;
        return Ok(json!({ "response_type": "AUTH_ERR" }));
    }
    let known = data["username"] == server::USER && data["api_key"] == call.server.key.as_str();
    let response = log_in(&call.server, &call.session, known)?;
    if response == "AUTH_ERR" {
        tokio::time::sleep(DELAY).await;
    }
    Ok(match response {
        "SUCCESS" => {
            let info = data["login_options"]["user_info"] == true;
            json!({
                "response_type": "SUCCESS",
                "user_info": if info { user() } else { Value::Null },
                "authenticator": "LEVEL_1",
            })
        }
        "OTP_REQUIRED" => json!({ "response_type": "OTP_REQUIRED", "username": server::USER }),
        "REDIRECT" => json!({ "response_type": "REDIRECT", "urls": ["https://other.example.com"] }),
        other => json!({ "response_type": other }),
    })
}

/// Decides about a login with a key, and revokes a key that comes in the clear.
fn log_in(server: &Server, session: &Session, known: bool) -> Result<&'static str, Failure> {
    let login = server.knobs().login;
    if login == Login::Unsupported {
        let text = "API_KEY_PLAIN is not supported at the current authentication level";
        return Err(Failure::call(errno::EOPNOTSUPP, text));
    }
    if !known {
        return Ok("AUTH_ERR");
    }
    if *server.revoked() {
        return Ok("EXPIRED");
    }
    match login {
        Login::Expired => return Ok("EXPIRED"),
        Login::Redirect => return Ok("REDIRECT"),
        Login::Otp => {
            session.state().otp = true;
            return Ok("OTP_REQUIRED");
        }
        _ => {}
    }
    if !session.secure {
        *server.revoked() = true;
        server.violation("an API key was sent in the clear, and is revoked");
        return Ok("EXPIRED");
    }
    let mut state = session.state();
    state.authenticated = true;
    state.calls = 0;
    Ok("SUCCESS")
}

async fn login_with_api_key(call: Call) -> Outcome {
    let known = call.text(0) == call.server.key;
    let success = log_in(&call.server, &call.session, known)? == "SUCCESS";
    if !success {
        tokio::time::sleep(DELAY).await;
    }
    Ok(json!(success))
}

fn user() -> Value {
    json!({
        "pw_name": server::USER,
        "pw_uid": 3000,
        "pw_gid": 3000,
        "pw_gecos": "",
        "pw_dir": "/var/empty",
        "pw_shell": "/usr/sbin/nologin",
        "grouplist": null,
        "sid": null,
        "source": "LOCAL",
        "local": true,
        "attributes": {},
        "two_factor_config": {},
        "privilege": { "roles": { "$set": ["FULL_ADMIN"] }, "web_shell": true, "webui_access": true },
        "account_attributes": ["LOCAL", "API_KEY"],
    })
}

async fn me(_: Call) -> Outcome {
    Ok(user())
}

async fn logout(call: Call) -> Outcome {
    let mut state = call.session.state();
    state.authenticated = false;
    state.subscriptions.clear();
    Ok(json!(true))
}

async fn generate_token(call: Call) -> Outcome {
    Ok(json!(call.server.shells.token(call.params[3] == true)))
}
