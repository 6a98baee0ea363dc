//! A provider that fails on purpose.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::{Body, full, pause};

/// A way to fail. Written `name` or `name:number` in the header `x-replay: script:...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Never answers.
    Silent,
    /// A stream that stops after `n` events and stays open.
    Stall(u64),
    /// A stream that is cut after `n` events.
    Cut(u64),
    /// A stream of `n` events, 10 ms apart, with its proper end.
    Slow(u64),
    /// A stream of `n` events as fast as they go, with its proper end.
    Fast(u64),
    /// A plain answer of `n` bytes.
    Large(u64),
    /// An answer with status `n` in OpenAI's error shape.
    Status(u64),
    /// A stream whose terminal event comes and whose end never does.
    NoEnd(u64),
}

impl Script {
    /// Parses `name[:number]`.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, number) = text.split_once(':').unwrap_or((text, "3"));
        let n = number.parse().ok()?;
        Some(match name {
            "silent" => Self::Silent,
            "stall" => Self::Stall(n),
            "cut" => Self::Cut(n),
            "slow" => Self::Slow(n),
            "fast" => Self::Fast(n),
            "large" => Self::Large(n),
            "status" => Self::Status(n),
            "noend" => Self::NoEnd(n),
            _ => return None,
        })
    }

    pub(super) async fn answer(self, _request: &Bytes) -> Response<Body> {
        match self {
            Self::Silent => {
                pause(Duration::from_secs(3600)).await;
                Response::new(full(""))
            }
            Self::Large(n) => {
                let body = vec![b'x'; usize::try_from(n).unwrap_or(0)];
                let mut response = Response::new(full(body));
                response
                    .headers_mut()
                    .insert("content-type", http::HeaderValue::from_static("application/octet-stream"));
                response
            }
            Self::Status(n) => {
                let mut response = Response::new(full(format!(
                    r#"{{"error":{{"message":"scripted","type":"scripted_error","param":null,"code":"scripted_{n}"}}}}"#
                )));
                *response.status_mut() =
                    http::StatusCode::from_u16(u16::try_from(n).unwrap_or(500)).unwrap_or_default();
                let headers = response.headers_mut();
                headers.insert("content-type", http::HeaderValue::from_static("application/json"));
                headers.insert("x-request-id", http::HeaderValue::from_static("req_scripted"));
                if n == 429 {
                    headers.insert("retry-after", http::HeaderValue::from_static("1"));
                }
                response
            }
            Self::Stall(n) | Self::Cut(n) | Self::Slow(n) | Self::Fast(n) | Self::NoEnd(n) => {
                let mut response = Response::new(self.stream(n));
                response
                    .headers_mut()
                    .insert("content-type", http::HeaderValue::from_static("text/event-stream"));
                response
            }
        }
    }

    fn stream(self, events: u64) -> Body {
        let steps = stream::unfold(0u64, move |n| async move {
            if n < events {
                if self == Self::Slow(events) {
                    pause(Duration::from_millis(10)).await;
                } else {
                    tokio::task::yield_now().await;
                }
                return Some((Ok(Frame::data(event(n))), n + 1));
            }
            match self {
                Self::Stall(_) => {
                    pause(Duration::from_secs(3600)).await;
                    None
                }
                Self::Cut(_) => {
                    // What was sent shall leave this process before the connection is cut.
                    pause(Duration::from_millis(20)).await;
                    (n == events).then(|| (Err(std::io::Error::other("cut on purpose")), n + 1))
                }
                Self::NoEnd(_) if n > events => {
                    pause(Duration::from_secs(3600)).await;
                    None
                }
                _ => (n == events).then(|| (Ok(Frame::data(end(events))), n + 1)),
            }
        });
        BodyExt::boxed(StreamBody::new(steps))
    }
}

fn event(n: u64) -> Bytes {
    Bytes::from(format!(
        "data: {{\"id\":\"chatcmpl-scripted\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"scripted-1\",\
         \"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"word{n} \"}},\"finish_reason\":null}}]}}\n\n"
    ))
}

fn end(n: u64) -> Bytes {
    Bytes::from(format!(
        "data: {{\"id\":\"chatcmpl-scripted\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"scripted-1\",\
         \"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n\
         data: {{\"id\":\"chatcmpl-scripted\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"scripted-1\",\
         \"choices\":[],\"usage\":{{\"prompt_tokens\":7,\"completion_tokens\":{n},\"total_tokens\":{}}}}}\n\n\
         data: [DONE]\n\n",
        n + 7
    ))
}
