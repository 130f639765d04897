//! Which settings are understood, and what the tokens of each of them open.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};

use super::{AuthConfig, METHODS, TokenKind};
use crate::auth::JwtKeys;

const NOW: u64 = 4_000_000_000;

fn file(name: &str) -> String {
    format!("{}/testdata/jwt/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn keys(spec: &str) -> JwtKeys {
    match AuthConfig::parse(spec, 300, 10).unwrap().token {
        TokenKind::Jwt(keys) => keys,
        TokenKind::Simple { .. } => panic!("{spec} is not simple"),
    }
}

/// The file of a method's key, without its endings.
fn key_of(method: &str) -> &'static str {
    match method {
        "ES256" => "p256",
        "ES384" => "p384",
        "EdDSA" => "ed25519",
        _ => "rsa",
    }
}

fn signing(method: &str) -> JwtKeys {
    keys(&format!("jwt,sign-method={method},priv-key={}", file(&format!("{}.pem", key_of(method)))))
}

fn said(spec: &str) -> String {
    AuthConfig::parse(spec, 300, 10).map(drop).unwrap_err().to_string()
}

#[test]
fn the_defaults_are_etcds() {
    let AuthConfig { token, bcrypt_cost } = AuthConfig::parse("simple", 300, 10).unwrap();
    assert!(matches!(token, TokenKind::Simple { ttl } if ttl == Duration::from_secs(300)));
    assert_eq!(bcrypt_cost, AuthConfig::default().bcrypt_cost);
    let TokenKind::Simple { ttl } = AuthConfig::default().token else { panic!() };
    assert_eq!(ttl, Duration::from_secs(300));
}

#[test]
fn what_is_wrong_is_named() {
    let cost = |cost| AuthConfig::parse("simple", 300, cost).map(drop).unwrap_err().to_string();
    assert_eq!(cost(3), "--bcrypt-cost 3: choose 4 to 31");
    assert_eq!(cost(32), "--bcrypt-cost 32: choose 4 to 31");
    let ttl = AuthConfig::parse("simple", 0, 10).map(drop).unwrap_err().to_string();
    assert!(ttl.starts_with("--auth-token-ttl 0: choose 1 to"), "{ttl}");
    let key = file("p256.pem");
    for (spec, words) in [
        ("", "--auth-token '': the kinds are 'simple' and 'jwt'"),
        ("sample", "--auth-token 'sample': the kinds are"),
        ("simple,ttl=5m", "unknown option 'ttl'"),
        ("jwt", "sign-method '': choose one of RS256, "),
        ("jwt,sign-method=ES512", "sign-method 'ES512': choose one of"),
        ("jwt,sign-method=none", "sign-method 'none': choose one of"),
        ("jwt,sign-method", "'sign-method' is not written as option=value"),
        ("jwt,sign-method=", "'sign-method=' is not written as option=value"),
        ("jwt,ttl=1m,ttl=2m", "the option 'ttl' is given twice"),
        ("jwt,sign-method=ES256", "sign-method ES256 needs pub-key or priv-key"),
        ("jwt,sign-method=HS256", "sign-method HS256 needs priv-key"),
        ("jwt,sign-method=ES256,pub-key=/absent", "pub-key /absent: No such file"),
        ("jwt,sign-method=ES256,priv-key=/absent", "priv-key /absent: No such file"),
        ("jwt,sign-method=ES256,ttl=5", "ttl '5': write a time as"),
        ("jwt,sign-method=ES256,ttl=0s", "ttl '0s': write a time as"),
        ("jwt,sign-method=ES256,ttl=9000h", "ttl '9000h': write a time as"),
        (&format!("jwt,sign-method=ES256,priv-key={key},nope=1"), "unknown option 'nope'"),
        (&format!("jwt,sign-method=RS256,priv-key={key}"), "priv-key: no key of RS256"),
        (&format!("jwt,sign-method=RS256,pub-key={key}"), "pub-key: no key of RS256"),
        (&format!("jwt,sign-method=ES384,priv-key={key}"), "priv-key: no key of ES384"),
    ] {
        let said = said(spec);
        assert!(said.starts_with("--auth-token") && said.contains(words), "{spec}: {said}");
    }
}

#[test]
fn keys_that_do_not_belong_together_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let other = directory.path().join("other.pem");
    std::fs::write(&other, rcgen::KeyPair::generate().unwrap().public_key_pem()).unwrap();
    let key = file("p256.pem");
    let spec = format!("jwt,sign-method=ES256,priv-key={key},pub-key={}", other.display());
    assert_eq!(said(&spec), "--auth-token: pub-key is not that of priv-key");
}

#[test]
fn a_token_of_each_method_names_its_user_to_who_has_the_public_key() {
    for (method, _) in METHODS {
        let signs = signing(method);
        let token = signs.give("u", 7, NOW).expect(method);
        assert_eq!(signs.user(&token), Some(("u".to_owned(), 7)), "{method}");
        if method.starts_with("HS") {
            continue;
        }
        let public = file(&format!("{}.pub.pem", key_of(method)));
        let verifies = keys(&format!("jwt,sign-method={method},pub-key={public}"));
        assert_eq!(verifies.user(&token), Some(("u".to_owned(), 7)), "{method}");
        assert_eq!(verifies.give("u", 7, NOW), None, "{method} without its private key");
    }
}

#[test]
fn what_another_method_or_key_signed_opens_nothing() {
    let all = METHODS.map(|(method, _)| (method, signing(method)));
    for (method, keys) in &all {
        let token = keys.give("u", 7, NOW).expect(method);
        for (other, others) in all.iter().filter(|(other, _)| other != method) {
            assert_eq!(others.user(&token), None, "{method} for {other}");
        }
        // Each letter of it counts, but for the bits that are over at the end.
        for at in (0..token.len() - 1).step_by(7) {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(keys.user(std::str::from_utf8(&forged).unwrap()), None, "{method} at {at}");
        }
    }
}

#[test]
fn a_public_key_is_no_secret_and_no_signature_is_none() {
    let keys = signing("RS256");
    let public = std::fs::read(file("rsa.pub.pem")).unwrap();
    let claims = serde_json::json!({ "username": "root", "revision": 7, "exp": NOW });
    let secret = EncodingKey::from_secret(&public);
    let forged = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &secret).unwrap();
    assert_eq!(keys.user(&forged), None);
    let part = |json: &serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let header = part(&serde_json::json!({ "alg": "none", "typ": "JWT" }));
    assert_eq!(keys.user(&format!("{header}.{}.", part(&claims))), None);
    assert_eq!(keys.user(""), None);
}

#[test]
fn a_token_holds_from_and_until_the_time_that_it_says() {
    let keys = signing("EdDSA");
    let key = EncodingKey::from_ed_pem(&std::fs::read(file("ed25519.pem")).unwrap()).unwrap();
    let user = |claims: serde_json::Value| {
        let header = Header::new(Algorithm::EdDSA);
        keys.user(&jsonwebtoken::encode(&header, &claims, &key).unwrap()).map(|(user, _)| user)
    };
    let with = |more: serde_json::Value| {
        let mut claims = serde_json::json!({ "username": "u", "revision": 7 });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        user(claims)
    };
    let now = jsonwebtoken::get_current_timestamp();
    // As etcd: one that does not say when it ends, and one that is for somebody else too.
    assert!(with(serde_json::json!({})).is_some());
    assert!(with(serde_json::json!({ "aud": "another" })).is_some());
    assert!(with(serde_json::json!({ "exp": now + 60 })).is_some());
    assert!(with(serde_json::json!({ "exp": now - 1 })).is_none());
    assert!(with(serde_json::json!({ "nbf": now + 60 })).is_none());
    assert!(user(serde_json::json!({ "username": "u" })).is_none());
    assert!(user(serde_json::json!({ "revision": 7 })).is_none());
    assert!(user(serde_json::json!({ "username": 7, "revision": 7 })).is_none());
}
