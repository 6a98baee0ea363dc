//! Login links and sessions: a link works once, and lets one browser in.
//!
//! There is always one unused link, and it stands on standard error only: whoever can read that may hand it on. The link's token
//! is in browsers' histories and in the logs of proxies, and worth nothing once it was used. What a browser keeps is another
//! secret, in a cookie that no script reads and no other site's request carries. Both are known here by their hashes alone.

use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::Sha256Hex;

/// Sessions at a time; the oldest goes.
const SESSIONS: usize = 16;
/// How long a session lasts, microseconds.
const LIFE: i64 = 12 * 3600 * crate::time::SECOND;

/// Links and sessions.
pub(super) struct Login {
    /// The cookie's name.
    cookie: String,
    /// Its attributes.
    attributes: &'static str,
    state: Mutex<State>,
}

struct State {
    /// The hash of the unused link's token.
    unused: Sha256Hex,
    /// The hashes of the sessions' secrets, and until when they count.
    sessions: Vec<(Sha256Hex, i64)>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("cookie", &self.cookie).finish_non_exhaustive()
    }
}

/// A secret of 256 random bits, as text.
fn secret() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).ok().context("the system gave no random bytes")?;
    Ok(hex::encode(bytes))
}

/// Who was let in, and with what.
pub(super) struct LetIn {
    /// The header that gives the browser its session.
    pub(super) cookie: String,
    /// The next link's token.
    pub(super) next: String,
}

impl Login {
    /// Links and sessions of a page; gives the first token too. `secure`: the browser reaches it over TLS. Cookies do not tell
    /// ports apart: the name does.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub(super) fn new(port: u16, secure: bool) -> anyhow::Result<(Self, String)> {
        let token = secret()?;
        let (cookie, attributes) = match secure {
            true => ("__Host-affidavit-auditor".to_owned(), "; Path=/; HttpOnly; SameSite=Strict; Secure"),
            false => (format!("affidavit-auditor-{port}"), "; Path=/; HttpOnly; SameSite=Strict"),
        };
        let state = State { unused: Sha256Hex::of(token.as_bytes()), sessions: Vec::new() };
        Ok((Self { cookie, attributes, state: Mutex::new(state) }, token))
    }

    /// Lets a browser in that has the unused link's token; the link is used then.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub(super) fn open(&self, token: &str, now: i64) -> anyhow::Result<Option<LetIn>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if Sha256Hex::of(token.as_bytes()) != state.unused {
            return Ok(None);
        }
        let (session, next) = (secret()?, secret()?);
        state.unused = Sha256Hex::of(next.as_bytes());
        state.sessions.retain(|(_, until)| *until > now);
        if state.sessions.len() >= SESSIONS {
            state.sessions.remove(0);
        }
        state.sessions.push((Sha256Hex::of(session.as_bytes()), now.saturating_add(LIFE)));
        Ok(Some(LetIn { cookie: format!("{}={session}{}", self.cookie, self.attributes), next }))
    }

    /// Whether one of these `Cookie` headers holds a session.
    pub(super) fn knows<'a>(&self, cookies: impl Iterator<Item = &'a str>, now: i64) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        cookies
            .flat_map(|header| header.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(name, _)| *name == self.cookie)
            .any(|(_, value)| {
                let hash = Sha256Hex::of(value.as_bytes());
                state.sessions.iter().any(|(known, until)| *known == hash && *until > now)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_works_once_and_the_next_one_lets_another_browser_in() {
        let (login, first) = Login::new(8931, false).unwrap();
        assert!(login.open("", 0).unwrap().is_none() && login.open("x", 0).unwrap().is_none());
        let one = login.open(&first, 0).unwrap().unwrap();
        assert!(login.open(&first, 0).unwrap().is_none());
        let two = login.open(&one.next, 0).unwrap().unwrap();
        for entered in [&one, &two] {
            let (pair, attributes) = entered.cookie.split_once("; ").unwrap();
            assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Strict");
            assert!(login.knows([pair].into_iter(), LIFE - 1));
            assert!(login.knows([format!("a=b; {pair}").as_str()].into_iter(), 0));
            assert!(!login.knows([pair].into_iter(), LIFE), "it lasts for ever");
        }
        assert!(!login.knows(["affidavit-auditor-8931=", "x", ""].into_iter(), 0));
        assert!(!login.knows([format!("affidavit-auditor-8931={first}").as_str()].into_iter(), 0));
    }

    #[test]
    fn over_tls_the_cookie_is_bound_to_the_host_and_sessions_are_bounded() {
        let (login, mut token) = Login::new(443, true).unwrap();
        let mut cookies = Vec::new();
        for _ in 0..=SESSIONS {
            let entered = login.open(&token, 0).unwrap().unwrap();
            assert!(
                entered.cookie.starts_with("__Host-affidavit-auditor=")
                    && entered.cookie.ends_with("; Secure")
            );
            cookies.push(entered.cookie.split(';').next().unwrap().to_owned());
            token = entered.next;
        }
        assert!(!login.knows([cookies[0].as_str()].into_iter(), 0), "the oldest of too many");
        assert!(login.knows([cookies[1].as_str()].into_iter(), 0));
    }
}
