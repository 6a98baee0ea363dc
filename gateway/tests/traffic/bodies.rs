//! Request and response bodies of every size and coding.

use std::io::Write as _;

use http::Response;
use http_body_util::Full;
use schemas::record::{Body, PartName};

use crate::provider::{COMPLETION, Provider, pieces, whole};
use crate::rig::{Rig, Setup, read};

fn zstd(bytes: &[u8]) -> Vec<u8> {
    // A raw block in a zstd frame: magic, single segment, size, one last raw block.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x60];
    frame.extend_from_slice(&u16::try_from(bytes.len() - 256).unwrap().to_le_bytes());
    frame.extend_from_slice(&((u32::try_from(bytes.len()).unwrap() << 3) | 1).to_le_bytes()[..3]);
    frame.extend_from_slice(bytes);
    frame
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    // One stored block in a gzip member.
    let length = u16::try_from(bytes.len()).unwrap();
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    member.write_all(&length.to_le_bytes()).unwrap();
    member.write_all(&(!length).to_le_bytes()).unwrap();
    member.write_all(bytes).unwrap();
    member.write_all(&crc32(bytes).to_le_bytes()).unwrap();
    member.write_all(&u32::from(length).to_le_bytes()).unwrap();
    member
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coded_request_bodies_pass_as_they_are_and_are_understood() {
    let provider = Provider::start(|_| async { whole(200, "application/json", COMPLETION) }).await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let plain = format!(
        r#"{{"model":"gpt-4.1-coded","messages":[{{"role":"user","content":"{}"}}]}}"#,
        "x".repeat(300)
    );
    for (coding, coded) in [("gzip", gzip(plain.as_bytes())), ("zstd", zstd(plain.as_bytes()))] {
        let request = rig
            .post("/openai/v1/chat/completions")
            .header("content-encoding", coding)
            .body(Full::from(coded.clone()))
            .unwrap();
        let (status, ..) = read(rig.send(request).await).await;
        assert_eq!(status, 200);
        let seen = provider.seen();
        let seen = seen.last().unwrap();
        assert_eq!(
            (seen.headers["content-encoding"].to_str().unwrap(), &seen.body[..]),
            (coding, &coded[..])
        );
    }
    let evidence = rig.stop().await;
    let mut codings = Vec::new();
    for record in &evidence.records {
        if let Body::Intent(intent) = &record.body {
            assert_eq!(intent.asked.requested_model.as_ref().unwrap().as_str(), "gpt-4.1-coded");
            codings.push(intent.parts[1].content_encoding.as_ref().unwrap().as_str());
        }
    }
    assert_eq!(codings, ["gzip", "zstd"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coded_answer_passes_as_it_is_and_its_usage_is_read() {
    let provider = Provider::start(|_| async {
        let mut response = whole(200, "application/json", gzip(COMPLETION.as_bytes()));
        response.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        response
    })
    .await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let (_, headers, body) = read(rig.chat(r#"{"model":"m","messages":[]}"#).await).await;
    assert_eq!(
        (&headers["content-encoding"], &body[..]),
        (&"gzip".parse::<http::HeaderValue>().unwrap(), &gzip(COMPLETION.as_bytes())[..])
    );
    let evidence = rig.stop().await;
    assert_eq!(evidence.outcomes()[0].usage.output_tokens, Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_a_mebibyte_is_spilled_and_arrives_byte_for_byte() {
    let provider = Provider::start(|_| async { whole(200, "application/json", COMPLETION) }).await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let text: String = (0..300_000).map(|i| format!("{i:07} ")).collect();
    let body = format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}],"model":"gpt-4.1-large"}}"#);
    let request = rig.post("/openai/v1/chat/completions").body(Full::from(body.clone())).unwrap();
    let (status, ..) = read(rig.send(request).await).await;
    assert_eq!(status, 200);
    let seen = &provider.seen()[0];
    assert_eq!(seen.headers["content-length"].to_str().unwrap(), body.len().to_string());
    assert!(seen.body == body.as_bytes(), "{} bytes", seen.body.len());
    let evidence = rig.stop().await;
    let intent = evidence
        .records
        .iter()
        .find_map(|record| if let Body::Intent(intent) = &record.body { Some(intent) } else { None })
        .unwrap();
    assert_eq!(intent.asked.requested_model.as_ref().unwrap().as_str(), "gpt-4.1-large");
    let part = intent.parts.iter().find(|part| part.part == PartName::ClientRequest).unwrap();
    assert_eq!(part.length, body.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spilled_body_that_asks_for_a_stream_is_asked_for_usage_too() {
    let provider = Provider::start(|seen| async move {
        assert!(seen.body.windows(13).any(|window| window == b"include_usage"));
        whole(200, "application/json", COMPLETION)
    })
    .await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let text = "word ".repeat(400_000);
    let body = format!(r#"{{"stream":true,"messages":[{{"role":"user","content":"{text}"}}],"model":"m"}}"#);
    let request = rig.post("/openai/v1/chat/completions").body(Full::from(body)).unwrap();
    assert_eq!(read(rig.send(request).await).await.0, 200);
    drop(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_streams_through_whole() {
    let piece: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let expected: Vec<u8> = piece.iter().copied().cycle().take(piece.len() * 20).collect();
    let sent = piece.clone();
    let provider = Provider::start(move |_| {
        let sent = sent.clone();
        async move {
            let (sender, pieces) = pieces();
            tokio::spawn(async move {
                for _ in 0..20 {
                    sender.send(sent.clone()).await;
                }
            });
            Response::builder().header("content-type", "application/octet-stream").body(pieces).unwrap()
        }
    })
    .await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let (_, _, body) = read(rig.chat("{}").await).await;
    assert!(body == expected, "{} bytes", body.len());
    let evidence = rig.stop().await;
    let outcome = evidence.outcomes()[0];
    assert_eq!(outcome.delivered.unwrap() + outcome.released.unwrap(), expected.len() as u64);
}
