//! What is found, what is left alone, and what becomes of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::*;

fn redactor() -> Redactor {
    Redactor::new(&[]).unwrap()
}

#[test]
fn nothing_but_secrets_is_found() {
    let innocent = [
        "a risk-management-of-something-rather-long and sk-learn-pipelines-with-many-words",
        "git@github.com:owner/name.git",
        "user@host and @decorator and lodash@4.17.21",
        "MAX_TOKENS=4096 and API_KEY=$OPENAI_API_KEY and PASSWORD=${SECRET}",
        "https://example.com:8080/path@2x.png",
        "/home/user/project and /Users/Shared/x",
        "<api-key-1> /home/<user-1>/x Bearer <bearer-token-2>",
        "the Bearer of bad news, Basic instincts",
        r#"{"password":{"type":"string"},"secret":"short"}"#,
        r"C:\nothing\users",
        "call_0123456789abcdef0123456789abcdef msg_0123456789abcdef01",
    ];
    for text in innocent {
        assert_eq!(find_secrets(text).collect::<Vec<_>>(), [], "{text}");
        assert_eq!(redactor().json(text), None, "{text}");
    }
}

#[test]
fn the_same_secret_has_the_same_placeholder_however_it_is_spelled() {
    let mut redactor = redactor();
    let key = "sk-proj-abcdefghij0123456789";
    assert_eq!(redactor.text(key).unwrap(), "<api-key-1>");
    let spelled = r#"{"a":"\u0073k-proj-abcdefghij0123456789","b":"{\"c\":\"\\u0073k\\u002dproj-abcdefghij0123456789\\n\"}"}"#;
    let redacted = redactor.json(spelled).unwrap();
    assert_eq!(
        redacted,
        r#"{"a":"<api-key-1>","b":"{\"c\":\"<api-key-1>\\n\"}"}"#
    );
    assert_eq!(
        redactor.text("sk-proj-abcdefghij01234567890").unwrap(),
        "<api-key-2>"
    );
    assert_eq!(redactor.report().kinds["api-key"], (2, 4));
    assert_eq!(redactor.report().to_string(), "api-key × 2 (in 4 places)");
}

#[test]
fn what_stands_around_a_secret_stays() {
    let cases = [
        (r"\nalice@example.com\t", r"\n<email-1>\t"),
        (
            "/home/alice/src and /Users/alice/x",
            "/home/<user-1>/src and /Users/<user-1>/x",
        ),
        (
            r"C:\Users\bob\x and C:\\Users\\bob\\x",
            r"C:\Users\<user-1>\x and C:\\Users\\<user-1>\\x",
        ),
        (
            "postgres://me:hunter22@db/x",
            "postgres://me:<url-password-1>@db/x",
        ),
        (
            "export OPENAI_API_KEY='abcdefgh1'",
            "export OPENAI_API_KEY='<named-secret-1>'",
        ),
        ("a\u{1F600}é bob@example.org é", "a\u{1F600}é <email-1> é"),
    ];
    for (text, expected) in cases {
        let mut redactor = redactor();
        assert_eq!(redactor.text(text).unwrap(), expected);
        assert_eq!(redactor.text(expected), None, "{expected}");
    }
}

#[test]
fn names_tell_what_values_do_not() {
    let text = r#"{"encrypted_content":"opaque","n":[1.0,1e3],"client_secret":"hunter2hunter2"}"#;
    let expected = r#"{"encrypted_content":"<encrypted-content-1>","n":[1.0,1e3],"client_secret":"<named-secret-1>"}"#;
    let mut redactor = redactor();
    assert_eq!(redactor.json(text).unwrap(), expected);
    assert_eq!(redactor.json(expected), None);
}

#[test]
fn what_a_header_carried_is_found_elsewhere() {
    let mut redactor = redactor();
    let headers = [
        ("Authorization", "Bearer correct-horse-battery"),
        ("Accept", "a/b"),
        ("via", "x"),
    ];
    assert_eq!(
        redactor.headers(headers),
        [("accept".to_owned(), "a/b".to_owned())].into()
    );
    let text = redactor
        .text("it was correct-horse-battery all along")
        .unwrap();
    assert_eq!(text, "it was <credential-1> all along");
    assert_eq!(redactor.report().headers, 1);
}

#[test]
fn a_user_can_ask_for_more() {
    let mut redactor = Redactor::new(&["ACME-[0-9]+".to_owned(), "id: (\\w+)".to_owned()]).unwrap();
    assert_eq!(
        redactor.text("ACME-7 id: zed").unwrap(),
        "<custom-1> id: <custom-2>"
    );
    assert!(Redactor::new(&["(".to_owned()]).is_err());
}

#[test]
fn private_keys_go_whole_even_where_they_are_cut_off() {
    let body = "MIIEowIBAAKCAQEA0123456789abcdefghij+/";
    let whole = format!(
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n{body}\n{body}\n-----END RSA PRIVATE KEY-----"
    );
    let cut = format!("-----BEGIN PRIVATE KEY-----\n{body}\n{body}");
    let mut redactor = redactor();
    let text = format!("a {whole} b {cut} c");
    assert_eq!(
        redactor.text(&text).unwrap(),
        "a <private-key-1> b <private-key-2> c"
    );
    let escaped = serde_json::json!({"output": serde_json::json!({"stdout": whole}).to_string()});
    let redacted = redactor.json(&escaped.to_string()).unwrap();
    assert_eq!(redacted, r#"{"output":"{\"stdout\":\"<private-key-1>\"}"}"#);
}

/// Much that looks like the beginning of a secret costs no more than as much of anything else.
#[test]
fn what_is_hard_to_search_is_searched_all_the_same() {
    let hard = [
        "-----BEGIN PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n",
        "eyJabcdefghij.",
        "a@b.c@",
        "\\\\u0041",
        "PASSWORD=",
        "://a:",
    ];
    for text in hard {
        let text = text.repeat((1 << 20) / text.len());
        let start = std::time::Instant::now();
        let found = find_secrets(&text).count();
        let took = start.elapsed();
        assert!(
            took < std::time::Duration::from_secs(20),
            "{found} in {took:?}: {}",
            &text[..20]
        );
    }
}
