use super::*;

#[test]
fn secrets_of_urls_go_and_the_rest_stays() {
    let check = |text: &str, expected: &str| assert_eq!(target(text), expected);
    // Letters of any length in bytes.
    check("/a?q=\u{e9}t\u{e9}", "/a?q=REDACTED");
    for plain in [
        "/v1/messages?beta=true",
        "/model/us.anthropic.claude-sonnet-4-20250514-v1%3A0/invoke-with-response-stream",
        "/.well-known/oauth-protected-resource/mcp/readonly",
        "/api/event_logging/batch",
        "/guardrail/abc123/version/1?x=&y",
        "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fus.meta.llama3-2-90b-instruct-v1%3A0/converse",
        "/v1beta/models/gemini-2.5-flash-preview-05-20:streamGenerateContent?alt=sse",
        "/openai/deployments/gpt-4o/chat/completions?api-version=2024-02-15-preview",
        "/latest/meta-data/iam/security-credentials/",
        "/2015-03-31/functions/GetFoundationModelAvailability2/invocations",
        "/v1/organizations/0a1b2c3d-0a1b-4c3d-8e9f-0a1b2c3d4e5f/usage?limit=20&order=desc&region=us-east-1",
        "/?Action=Get&Version=2011-06-15",
        "/a?starting_at=2026-01-01T00:00:00&page=2&q=two+words",
        "*",
        "/a?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-SignedHeaders=host&X-Amz-Date=20260101T000000Z",
    ] {
        check(plain, plain);
    }
    check(
        "/b?X-Amz-Signature=abc&X-Amz-Security-Token=x%2F&x-amz-credential=AKIA1/2&n=1#f",
        "/b?X-Amz-Signature=REDACTED&X-Amz-Security-Token=REDACTED&x-amz-credential=REDACTED&n=1",
    );
    check("/cb?code=abc&state=1&%6bey=v", "/cb?code=REDACTED&state=REDACTED&%6bey=REDACTED");
    check("/bot123456789:AAE-xyz/send", "/REDACTED/send");
    check("/x/sk-ant-api03-abcdefgh/y", "/x/REDACTED/y");
    check("/x/%73k-ant-api03-abcdefgh/y", "/x/REDACTED/y");
    check("/services/T0/B0/aB3dEfGhIjKlMnOpQrStUvWx", "/services/T0/B0/REDACTED");
    check("/?q=ghp_abcdefghijklmnop", "/?q=REDACTED");
    check("/?q=0123456789abcdef0123456789abcdef", "/?q=REDACTED");
    check("/?eyJhbGciOiJIUzI1NiJ9.e30.x", "/?REDACTED");
    for secret in [
        "SAMLResponse=PHNhbWw",
        "SAMLRequest=abc",
        "tok=abc",
        "sk=abc",
        "sig=abc",
        "my_code=abc",
        "x=hunter2",
        "x=correct+horse1",
        "redirect_uri=https%3A%2F%2Fx%2F%3Ftoken%3Dabc",
        "next=%2Fa%3Fcode%3D1",
        "data=%7B%22token%22%3A1%7D",
        "x=4111+1111+1111+1111",
        "x=qwertyuiopasdfgh",
        "x=JBSWY3DPEHPK3PXP",
        "beta=sk-ant-api03-abcdefgh",
        "x=a%40b.example",
    ] {
        let (name, _) = secret.split_once('=').unwrap();
        check(&format!("/a?n=1&{secret}"), &format!("/a?n=1&{name}=REDACTED"));
        check(&format!("/a;{secret}/b"), &format!("/a;{name}=REDACTED/b"));
        check(&format!("/a?{secret};n=1"), &format!("/a?{name}=REDACTED;n=1"));
    }
    check("/api/webhooks/123456789012345678/aBcDeF_gH1", "/api/webhooks/REDACTED/REDACTED");
    let id = "0a1b2c3d-0a1b-4c3d-8e9f-0a1b2c3d4e5f";
    check(&format!("/webhookb2/{id}@{id}/x/{id}"), "/webhookb2/REDACTED/REDACTED/REDACTED");
    check("/?Action=GetCallerIdentity&n=1", "/?Action=GetCallerIdentity&n=1");
    check("/invite/hunter16word/x", "/invite/REDACTED/x");
    check("/api/keys/huntertwentythree", "/api/keys/REDACTED");
    check("/keys/list?passcode=1234&mfa=1", "/keys/list?passcode=REDACTED&mfa=REDACTED");
    for stays in [
        "/oauth/token/introspect",
        "/auth/v1/token",
        "/login/oauth/access_token",
        "/api/claude_code/organizations/metrics_enabled",
        "/v1/messages/count_tokens",
        "/auth/realms/master/protocol/openid-connect/token",
        "/v1/keys",
    ] {
        check(stays, stays);
    }
    for (path, shown) in [
        ("/token/swordfish", "/token/REDACTED"),
        ("/session/hello/x", "/session/REDACTED/x"),
        ("/webhooks/myhooksecret", "/webhooks/REDACTED"),
        ("/v1/keys/SWORDFISH", "/v1/keys/REDACTED"),
        ("/verify/482913", "/verify/REDACTED"),
        ("/sess/kqvxmpwztrya", "/sess/REDACTED"),
        ("//us:hunter@localhost/echo", "//REDACTED/echo"),
        ("us:hunter@host/path", "REDACTED/path"),
        ("/h/-AKIAABCDEFGHIJKLMNOP", "/h/REDACTED"),
        ("/h/key.ghp_abcdefghijklmnop", "/h/REDACTED"),
    ] {
        check(path, shown);
    }
    for name in [
        "pincode",
        "authcode",
        "totp",
        "cvv",
        "userCode",
        "userpass",
        "mypwd",
        "pass1",
        "pw2",
        "x_pass_x",
        "passwort",
        "PHPSESSID",
        "sessid",
        "creds",
        "keys",
        "key_id",
        "seed",
        "mnemonic",
        "p%2561ss",
    ] {
        check(&format!("/a?{name}=1234"), &format!("/a?{name}=REDACTED"));
    }
    check("/reset-password/abc123", "/reset-password/REDACTED");
    check("/oauth/token/abc1234", "/oauth/token/REDACTED");
    for token in [
        "JBSWY3DPEHPK3PXPJBSW",
        "0123456789abcdef0123",
        "xYqLmRtBvNcKdFgHjWsP",
        "kq3v9x2m7p4w8z1t6r5y",
        "a.kq3v9x2m7p4w8z1t6r5y",
        "Zm9v-YmFy_MTIzNDU2Nzg5MA",
        "hf_abcdefghijklmnop",
        "v=eyJhbGciOiJIUzI1",
        "AKIAABCDEFGHIJKLMNOP",
    ] {
        check(&format!("/v1/{token}/x"), "/v1/REDACTED/x");
    }
    for token in [
        "pat-na1-0a1b2c3d-0a1b-4c3d-8e9f-0a1b2c3d4e5f",
        "4f2a-90bc-11de-7a3b-c4d5-e6f7-0819-2a3b",
        "tR4xQw9LmZ2p",
        "qkzjvwtrxbnmplkdfghwqzvc",
        "wJalrXUtnFEMI%2FK7MDENG%2FbPxRfiCYEXAMPLEKEY",
        "%2573k-ant-api03-abcdefgh",
        "LJSF7-A3EY4-8TA9M-E79DT-UAUBP",
    ] {
        check(&format!("/v1/{token}/x"), "/v1/REDACTED/x");
        check(&format!("/v1?x={token}"), "/v1?x=REDACTED");
    }
    check("/v1?x=k7f9-2mq4", "/v1?x=REDACTED");
    check("/\u{fc}%\u{fc}%zz%f", "/\u{fc}%\u{fc}%zz%f");
}

#[test]
fn signed_queries_are_known() {
    assert!(has_aws_signature("/a?x=1&X-Amz-Algorithm=AWS4-HMAC-SHA256"));
    assert!(has_aws_signature("/a?X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256"));
    assert!(has_aws_signature("/a?X-Amz-Algorithm=AWS4%2DHMAC-SHA256"));
    assert!(!has_aws_signature("/X-Amz-Algorithm=AWS4-HMAC-SHA256"));
}

#[test]
fn secrets_of_header_values_go_and_the_rest_stays() {
    let token = ["sk-ant", "-api03-abcdefghij"].concat();
    let random = "kQ3v9X2m7P4w8Z1t6R5yAb0C";
    for (value, expected) in [
        (format!("agent/1.0 (token={token})"), "agent/1.0 (token=REDACTED)".to_owned()),
        (format!("agent/1.0 [{token}]"), "agent/1.0 [REDACTED]".into()),
        ("https://user:hunter@example.com/".into(), "REDACTED".into()),
        (format!("a/b,{token}"), "a/b,REDACTED".into()),
        (
            format!("application/json; key=\"{random}\""),
            "application/json; key=\"REDACTED\"".into(),
        ),
        (format!("gl-node/1 key:{random}"), "gl-node/1 key:REDACTED".into()),
        (format!("Bearer:{random}"), "Bearer:REDACTED".into()),
        (format!("a\t{random}"), "a\tREDACTED".into()),
        ("x; password=short".into(), "x; password=REDACTED".into()),
        ("app password: rosebudzz".into(), "app password: REDACTED".into()),
        ("app password : rosebudzz x".into(), "app password : REDACTED x".into()),
        ("app password rosebudzz".into(), "app password REDACTED".into()),
        ("app token: rosebudzz".into(), "app token: REDACTED".into()),
        ("app api_key: rosebudzz".into(), "app api_key: REDACTED".into()),
        ("Bearer rosebudzz".into(), "Bearer REDACTED".into()),
        ("curl/8 Bearer rosebudzz".into(), "curl/8 Bearer REDACTED".into()),
        ("x authorization: basic a+b/c==; y".into(), "x authorization: basic REDACTED; y".into()),
        (
            "app {\"password\":\"rosebudzz\",\"a\":1}".into(),
            "app {\"password\":\"REDACTED\",\"a\":1}".into(),
        ),
        ("app {'password': 'rose budzz'} x".into(), "app {'password': 'REDACTED'} x".into()),
        ("app %7B%22password%22%3A%22rosebudzz%22%7D x".into(), "app REDACTED x".into()),
        ("app password%3Drosebudzz".into(), "app REDACTED".into()),
        ("a tR4xQw9LmZ2p".into(), "a REDACTED".into()),
        ("a LJSF7-A3EY4-8TA9M-E79DT-UAUBP".into(), "a REDACTED".into()),
    ] {
        assert_eq!(words(&value), expected);
    }
    for plain in [
        "prompt-caching-2024-07-31,tools-2024-05-16",
        "Anthropic/JS 0.32.1",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0",
        "aws-sdk-js/3.600.0 ua/2.0 os/linux#6.1.0 lang/js md/nodejs#20.1.0 api/bedrock-runtime#3.600.0 m/E,N",
        "application/json; charset=utf-8",
        "gl-node/20.1.0 gax/4.0.3 grpc/1.10.0",
        "AWSCognitoIdentityProviderService.InitiateAuth",
        "attempt=1; max=3",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/17.4.1 Mobile/15E148 Safari/604.1",
        "Boto3/1.34.0 md/Botocore#1.34.0 os/linux#6.1.0-18-amd64 md/arch#x86_64 cfg/retry-mode#legacy",
        "App/1 CFNetwork/1494.0.7 Darwin/23.4.0 (MacBookPro18,3)",
        "aws-sdk-java/2.x OpenJDK_64-Bit_Server_VM/17.0.9+11-LTS exec-env/AWS_ECS_FARGATE",
        "token-efficient-tools-2025-02-19, interleaved-thinking-2025-05-14",
        "DynamoDB_20120810.GetItem",
        "Wed, 21 Oct 2015 07:28:00 GMT",
        "multipart/mixed; charset=utf-8",
    ] {
        assert_eq!(words(plain), plain);
    }
    for model in [
        "us.anthropic.claude-sonnet-4-20250514-v1:0",
        "claude-3-5-sonnet@20240620",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.meta.llama3-2-90b-instruct-v1:0",
        "bedrock-2023-05-31",
        "meta-llama/Meta-Llama-3.1-405B-Instruct-Turbo",
        "mistralai/Mixtral-8x22B-Instruct-v0.1",
        "THUDM/GLM-4-9B-Chat-1M",
        "ft:gpt-4o-mini-2024-07-18:acme:support:9abcDEF1",
    ] {
        assert_eq!(name(model), model);
    }
    for secret in [&*token, "https://u:hunter@h/", random, &format!("x/{token}")] {
        assert_eq!(name(secret), REDACTED);
    }
    assert_eq!(id(&format!("id/{token}")), REDACTED);
}
