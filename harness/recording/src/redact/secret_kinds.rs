//! The kinds of secrets, and what they look like.

/// A kind of secret.
pub(super) struct SecretKind {
    /// Its name, which also stands in placeholders.
    pub(super) name: &'static str,
    /// What it looks like; its one group is the secret itself. ASCII unless told otherwise.
    pub(super) pattern: &'static str,
    /// Whether words of prose can look like it: it then needs a digit or a capital.
    pub(super) wordy: bool,
}

const fn kind(name: &'static str, pattern: &'static str) -> SecretKind {
    SecretKind {
        name,
        pattern,
        wordy: false,
    }
}

const fn wordy(name: &'static str, pattern: &'static str) -> SecretKind {
    SecretKind {
        name,
        pattern,
        wordy: true,
    }
}

/// What an e-mail address is called; it is found by its `@`.
pub(super) const EMAIL: &str = "email";
/// The user's name in the path of a home directory.
pub(super) const HOME: &str = "user";
/// What the API encrypts and only the API can read.
pub(super) const ENCRYPTED: &str = "encrypted-content";
/// What a header carried that is not kept.
pub(super) const CREDENTIAL: &str = "credential";
/// What `--redact` asks for.
pub(super) const CUSTOM: &str = "custom";
/// What stands under a name that tells it.
pub(super) const NAMED: &str = "named-secret";

/// Names of members whose text is a secret, in lower case and without `_` and `-`.
pub(super) const SECRET_NAMES: [&str; 14] = [
    "accesstoken",
    "apikey",
    "authorization",
    "awssecretaccesskey",
    "clientsecret",
    "idtoken",
    "passwd",
    "password",
    "privatekey",
    "refreshtoken",
    "secret",
    "secretaccesskey",
    "secretkey",
    "sessiontoken",
];

/// All kinds that a pattern finds. Of two that start at the same place the first one counts, so the
/// more particular stand first.
pub(super) const KINDS: &[SecretKind] = &[
    kind(
        "private-key",
        r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----(?:(?:-?[\x00-\x2C\x2E-\x7F])*?-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----|(?:\s+[A-Za-z0-9+/=]{16,})+))",
    ),
    kind(
        "jwt",
        r"\b(eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{8,})",
    ),
    kind("anthropic-key", r"\b(sk-ant-[A-Za-z0-9_-]{20,})"),
    wordy("api-key", r"\b(sk-[A-Za-z0-9_-]{20,})"),
    kind(
        "stripe-key",
        r"\b((?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,})",
    ),
    kind("webhook-secret", r"\b(whsec_[A-Za-z0-9+/=]{20,})"),
    kind("github-token", r"\b(gh[pousr]_[A-Za-z0-9]{36,})"),
    kind("github-pat", r"\b(github_pat_[A-Za-z0-9_]{22,})"),
    kind(
        "gitlab-token",
        r"\b(gl(?:pat|dt|rt|cbt|ptt|soat|oas)-[A-Za-z0-9_.-]{20,})",
    ),
    kind(
        "slack-token",
        r"\b(xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{20,})",
    ),
    kind(
        "slack-webhook",
        r"hooks\.slack\.com/services/([A-Z0-9]{6,}/[A-Z0-9]{6,}/[A-Za-z0-9]{16,})",
    ),
    kind("aws-key-id", r"\b((?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16})\b"),
    kind("google-api-key", r"\b(AIza[A-Za-z0-9_-]{35})"),
    kind(
        "google-oauth",
        r"\b(ya29\.[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{20,})",
    ),
    kind("npm-token", r"\b(npm_[A-Za-z0-9]{36})"),
    kind("pypi-token", r"\b(pypi-AgE[A-Za-z0-9_-]{30,})"),
    kind("huggingface-token", r"\b(hf_[A-Za-z0-9]{30,})"),
    kind(
        "sendgrid-key",
        r"\b(SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,})",
    ),
    kind("twilio-key", r"\b((?:SK|AC)[0-9a-f]{32})\b"),
    kind("digitalocean-token", r"\b(do[opr]_v1_[0-9a-f]{64})"),
    kind("shopify-token", r"\b(shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32})"),
    kind("databricks-token", r"\b(dapi[0-9a-f]{32})"),
    kind("telegram-token", r"\b([0-9]{8,10}:AA[A-Za-z0-9_-]{33})"),
    kind("linear-key", r"\b(lin_api_[A-Za-z0-9]{32,})"),
    kind("notion-token", r"\b(ntn_[A-Za-z0-9]{40,})"),
    kind("groq-key", r"\b(gsk_[A-Za-z0-9]{20,})"),
    kind("xai-key", r"\b(xai-[A-Za-z0-9]{20,})"),
    kind("perplexity-key", r"\b(pplx-[A-Za-z0-9]{32,})"),
    kind("replicate-token", r"\b(r8_[A-Za-z0-9]{30,})"),
    kind("docker-token", r"\b(dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,})"),
    kind("vault-token", r"\b(hv[sbr]\.[A-Za-z0-9_-]{20,})"),
    kind("age-key", r"\b(AGE-SECRET-KEY-1[A-Z0-9]{50,})"),
    kind("grafana-token", r"\b(gl(?:sa|c)_[A-Za-z0-9_+/=-]{30,})"),
    kind("newrelic-key", r"\b(NRAK-[A-Z0-9]{27})"),
    kind(
        "planetscale-token",
        r"\b(pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.-]{30,})",
    ),
    kind("azure-key", r"\bAccountKey=([A-Za-z0-9+/]{40,}={0,2})"),
    kind(ENCRYPTED, r"\b(gAAAA[A-Za-z0-9_-]{60,}={0,2})"),
    kind(
        "bearer-token",
        r"\b(?:Bearer|bearer|BEARER) +([A-Za-z0-9._~+/-]{16,}=*)",
    ),
    kind(
        "basic-auth",
        r"\b(?:Basic|basic) +([A-Za-z0-9+/]{16,}={0,2})",
    ),
    kind(
        "url-password",
        r"://(?u:[^\s/:@\x22'<>\\]){0,64}:((?u:[^\s/:@\x22'<>\\]){3,})@",
    ),
    kind(
        "url-secret",
        r"[?&](?:key|api_key|apikey|token|access_token|sig|signature)=((?u:[^&\s\x22'<>\\]){8,})",
    ),
    kind(
        NAMED,
        r"(?:API_KEY|APIKEY|SECRET|TOKEN|PASSWORD|PASSWD|ACCESS_KEY|PRIVATE_KEY)(?:_[A-Z0-9_]{1,40})?[\x22']?\s{0,4}[=:]\s{0,4}[\x22']?((?u:[^\s\x22'<>\\${}(),;&|]){8,})",
    ),
    kind(
        NAMED,
        r"\x22(?:password|passwd|secret|api_key|apikey|apiKey|access_token|accessToken|refresh_token|refreshToken|client_secret|clientSecret|secret_key|secretKey|aws_secret_access_key|SecretAccessKey|SessionToken)\x22\s{0,4}:\s{0,4}\x22((?u:[^\x22<>\\]){8,})\x22",
    ),
    kind(
        NAMED,
        r"\b(?:aws_secret_access_key|aws_session_token)\s{0,4}=\s{0,4}([A-Za-z0-9/+=]{16,})",
    ),
    kind(HOME, r"/home/([A-Za-z0-9][A-Za-z0-9._-]{0,63})"),
    kind(HOME, r"/Users/([A-Za-z0-9][A-Za-z0-9._-]{0,63})"),
    kind(HOME, r"\\Users\\([A-Za-z0-9][A-Za-z0-9._-]{0,63})"),
];

/// Names below `/home` and the like that identify nobody.
pub(super) const GENERIC_USER_NAMES: [&str; 6] = [
    "Shared",
    "Public",
    "Default",
    "user",
    "runner",
    "runneradmin",
];
