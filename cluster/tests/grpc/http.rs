//! A client of HTTP/1.1, as small as it can be.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Asks and reads the whole answer.
pub(crate) async fn ask(address: &str, method: &str, path: &str, body: &str) -> Answer {
    ask_with(address, method, path, &[], body).await
}

pub(crate) async fn ask_with(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let (code, head, mut lines) = begin(address, method, path, headers, body).await;
    let mut text = Vec::new();
    if head.contains("chunked") {
        while let Some(chunk) = lines.chunk().await {
            text.extend(chunk);
        }
    } else {
        lines.0.read_to_end(&mut text).await.expect("the answer ends");
    }
    Answer { code, head, body: String::from_utf8(text).expect("it is text") }
}

/// An answer that goes on, in chunks.
pub(crate) struct Lines(BufReader<TcpStream>);

impl Lines {
    async fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut size = String::new();
        self.0.read_line(&mut size).await.ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok().filter(|&size| size > 0)?;
        let mut chunk = vec![0; size + 2];
        self.0.read_exact(&mut chunk).await.ok()?;
        chunk.truncate(size);
        Some(chunk)
    }

    /// The next line of a stream; each is a chunk of its own.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let chunk = self.chunk().await?;
        Some(serde_json::from_slice(&chunk).expect("each line is JSON"))
    }

    /// More of the request's body.
    pub(crate) async fn say(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.0.get_mut().write_all(chunk.as_bytes()).await.expect("it listens");
    }
}

/// Asks and reads the head of the answer. A body that is to go on begins with a chunked one.
pub(crate) async fn begin(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String, Lines) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let (framing, body) = if more.contains("chunked") {
        (String::new(), format!("{:x}\r\n{body}\r\n", body.len()))
    } else {
        (format!("content-length: {}\r\n", body.len()), body.to_owned())
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{more}{framing}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("it listens");
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = reader.read_line(&mut head).await.expect("it answers");
        assert!(read > 0, "the answer has no end of its head: {head:?}");
    }
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
    (code, head.to_lowercase(), Lines(reader))
}
