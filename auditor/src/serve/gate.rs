//! Who may ask: by method, host, the page that a request comes from, and session.
//!
//! A browser on this machine opens any site, and any site can make it ask an address of loopback. What such a site wants is to
//! read an answer, by a name of its own that resolves to loopback, or to have something done. So the name that was asked is
//! checked, and a request that another site caused gets nothing but, where somebody followed a link, a page.

use std::net::SocketAddr;

use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Uri, header};

use super::login::Login;

/// Why a request gets no page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// The status.
    pub(super) status: StatusCode,
    /// What to do about it.
    pub(super) why: String,
}

fn refused(status: StatusCode, why: impl Into<String>) -> Result<(), Refused> {
    Err(Refused { status, why: why.into() })
}

/// An address under which others reach the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Whether it is reached over TLS.
    pub secure: bool,
    /// Host, and port where it is not the scheme's own.
    pub authority: String,
}

impl Origin {
    /// Reads `https://audit.example` or `http://audit.example:8931`.
    ///
    /// # Errors
    /// Other text, with the wanted form.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let wanted =
            || anyhow::anyhow!("--origin `{text}`: wanted a scheme and a host, as `https://audit.example`");
        let uri: Uri = text.parse().map_err(|_| wanted())?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wanted()),
        };
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wanted)?;
        if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/") {
            return Err(wanted());
        }
        Ok(Self { secure, authority: plain_host(authority.as_str(), secure) })
    }

    /// As a browser is given it.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.authority)
    }
}

/// Lower case, and without the port that goes without saying.
fn plain_host(host: &str, secure: bool) -> String {
    let host = host.to_ascii_lowercase();
    let port = if secure { ":443" } else { ":80" };
    host.strip_suffix(port).map_or(host.clone(), str::to_owned)
}

/// The checks of every request.
#[derive(Debug)]
pub(super) struct Gate {
    hosts: Vec<String>,
    secure: bool,
    login: Option<Login>,
    /// Whether the page of an exchange opens content.
    content: bool,
}

impl Gate {
    /// For a page that listens here, and is reached by others there.
    pub(super) fn new(listens: SocketAddr, origin: Option<&Origin>, login: Option<Login>) -> Self {
        let (mut hosts, mut secure) = (Vec::new(), false);
        if let Some(origin) = origin {
            hosts.push(origin.authority.clone());
            secure = origin.secure;
        }
        if listens.ip().is_loopback() {
            let names = [listens.to_string(), format!("localhost:{}", listens.port())];
            hosts.extend(names.map(|name| plain_host(&name, false)));
        }
        Self { hosts, secure, login, content: false }
    }

    /// For a page whose exchanges show content, where it does: what is opened is recorded, so that to open one is to do something.
    pub(super) fn with_content(self, content: bool) -> Self {
        Self { content, ..self }
    }

    /// Lets a request in, or says why not.
    ///
    /// # Errors
    /// A method but GET and HEAD, another host's name, another site's request, no session.
    pub(super) fn check(&self, head: &Parts, now: i64) -> Result<(), Refused> {
        if ![Method::GET, Method::HEAD].contains(&head.method) {
            return refused(StatusCode::METHOD_NOT_ALLOWED, "Wanted GET or HEAD: this page reads only.");
        }
        self.host(head)?;
        let path = head.uri.path();
        let opens = self.content && path.starts_with("/exchange/");
        cross_site(&head.headers, opens || ["/verify", "/exchanges.csv"].contains(&path))?;
        match &self.login {
            Some(login) if path != "/login" => {
                let cookies =
                    head.headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
                match login.knows(cookies, now) {
                    true => Ok(()),
                    false => refused(
                        StatusCode::UNAUTHORIZED,
                        "Open the login link that `auditor serve` printed last. Each link lets one browser in, once, for twelve hours.",
                    ),
                }
            }
            _ => Ok(()),
        }
    }

    /// Links and sessions, where they are asked for.
    pub(super) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    fn host(&self, head: &Parts) -> Result<(), Refused> {
        let mut named = head.headers.get_all(header::HOST).iter().map(|value| value.to_str().unwrap_or("?"));
        let (first, second) = (named.next(), named.next());
        let asked = head.uri.authority().map(|authority| authority.as_str());
        let known = |host: &str| {
            let (plain, tls) = (plain_host(host, false), plain_host(host, true));
            self.hosts.iter().any(|known| *known == plain || (self.secure && *known == tls))
        };
        match (first, second) {
            (Some(host), None) if known(host) && asked.is_none_or(known) => Ok(()),
            (None, _) => refused(StatusCode::BAD_REQUEST, "Wanted a `Host` header."),
            _ => refused(
                StatusCode::MISDIRECTED_REQUEST,
                "This page is not known under that name. Open it under the address that `auditor serve` printed, or give `--origin`.",
            ),
        }
    }
}

/// What a browser says of a request; older ones say nothing.
fn said<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map_or(Some(""), |value| value.to_str().ok())
}

/// Whether no other site caused a request, as far as the browser says it.
pub(super) fn is_own(headers: &HeaderMap) -> bool {
    matches!(said(headers, "sec-fetch-site"), Some("" | "none" | "same-origin"))
}

/// What another site causes is let in only where somebody followed a link, and where it does nothing.
fn cross_site(headers: &HeaderMap, does: bool) -> Result<(), Refused> {
    let follows = said(headers, "sec-fetch-mode") == Some("navigate")
        && said(headers, "sec-fetch-dest") == Some("document");
    match is_own(headers) {
        true => Ok(()),
        false if follows && !does => Ok(()),
        false => {
            refused(StatusCode::FORBIDDEN, "Another site asked for this. Open it from this page itself.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn status(gate: &Gate, method: &str, uri: &str, headers: &[(&str, &str)]) -> u16 {
        gate.check(&head(method, uri, headers), 0).map_or_else(|refused| refused.status.as_u16(), |()| 200)
    }

    #[test]
    fn only_the_page_s_own_names_are_answered() {
        let gate = Gate::new("127.0.0.1:8931".parse().unwrap(), None, None);
        for host in ["127.0.0.1:8931", "localhost:8931", "LocalHost:8931"] {
            assert_eq!(status(&gate, "GET", "/", &[("host", host)]), 200, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8931",
            "127.0.0.1",
            "localhost",
            "127.0.0.1:8932",
            "localhost:8931.evil.example",
            "",
            "a@localhost:8931",
        ] {
            assert_eq!(status(&gate, "GET", "/", &[("host", host)]), 421, "{host}");
        }
        assert_eq!(status(&gate, "GET", "/", &[]), 400);
        let twice = [("host", "localhost:8931"), ("host", "evil.example")];
        assert_eq!(status(&gate, "GET", "/", &twice), 421);
        assert_eq!(status(&gate, "GET", "http://evil.example/", &twice[..1]), 421);
        assert_eq!(status(&gate, "GET", "http://localhost:8931/", &twice[..1]), 200);
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "ODD"] {
            assert_eq!(status(&gate, method, "/", &twice[..1]), 405, "{method}");
        }
        assert_eq!(status(&gate, "HEAD", "/", &twice[..1]), 200);
    }

    #[test]
    fn another_site_may_lead_to_a_page_and_nothing_else() {
        let gate = Gate::new("127.0.0.1:8931".parse().unwrap(), None, None);
        let with = |uri: &str, site: &str, mode: &str, dest: &str| {
            let headers = [
                ("host", "localhost:8931"),
                ("sec-fetch-site", site),
                ("sec-fetch-mode", mode),
                ("sec-fetch-dest", dest),
            ];
            status(&gate, "GET", uri, &headers)
        };
        assert_eq!(with("/verify?after=1", "same-origin", "navigate", "document"), 200);
        assert_eq!(with("/", "none", "navigate", "document"), 200);
        for site in ["cross-site", "same-site", "odd"] {
            assert_eq!(with("/exchanges", site, "navigate", "document"), 200);
            assert_eq!(with("/verify?after=1", site, "navigate", "document"), 403);
            assert_eq!(with("/exchanges.csv", site, "navigate", "document"), 403);
            assert_eq!(with("/", site, "no-cors", "image"), 403);
            assert_eq!(with("/", site, "navigate", "iframe"), 403);
        }
    }

    #[test]
    fn another_site_does_not_open_content() {
        for (content, wanted) in [(false, 200), (true, 403)] {
            let gate = Gate::new("127.0.0.1:8931".parse().unwrap(), None, None).with_content(content);
            let from = |site: &str| {
                let headers = [
                    ("host", "localhost:8931"),
                    ("sec-fetch-site", site),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "document"),
                ];
                let uri = "/exchange/01a1fc23-fcba-7aed-b09b-6a27f061fc4c";
                status(&gate, "GET", uri, &headers)
            };
            assert_eq!(from("cross-site"), wanted);
            assert_eq!([from("same-origin"), from("none")], [200; 2]);
        }
    }

    #[test]
    fn others_need_a_session_and_its_origin_is_read_strictly() {
        let origin = Origin::parse("https://Audit.example").unwrap();
        assert_eq!(origin.url(), "https://audit.example");
        assert_eq!(Origin::parse("http://a:80/").unwrap().authority, "a");
        for wrong in ["audit.example", "ftp://a", "https://", "https://a/b", "https://u@a", "https://a?x", ""]
        {
            assert!(Origin::parse(wrong).is_err_and(|error| error.to_string().contains("wanted")), "{wrong}");
        }
        let (login, token) = Login::new(8931, true).unwrap();
        let gate = Gate::new("0.0.0.0:8931".parse().unwrap(), Some(&origin), Some(login));
        let host = ("host", "audit.example:443");
        assert_eq!(status(&gate, "GET", "/", &[host]), 401);
        assert_eq!(status(&gate, "GET", "/", &[("host", "0.0.0.0:8931")]), 421);
        assert_eq!(status(&gate, "GET", "/login?token=x", &[host]), 200);
        let entered = gate.login().unwrap().open(&token, 0).unwrap().unwrap();
        let cookie = entered.cookie.split(';').next().unwrap();
        assert_eq!(status(&gate, "GET", "/", &[host, ("cookie", cookie)]), 200);
    }
}
