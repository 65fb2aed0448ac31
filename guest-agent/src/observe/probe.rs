//! What listeners say by HTTP: one `GET /` each over the guest's own loopback, bounded in time and bytes.
//! Redirects are told, not followed; nothing but the loopback is ever connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use banger_proto::guest::v1::listener::Protocol;
use banger_proto::guest::v1::{HttpAnswer, Listener};
use futures::stream::{self, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// How long one listener may take, from connecting to the title.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long all of them may take.
const ALL_WITHIN: Duration = Duration::from_secs(4);
/// Listeners that are asked at once.
const ASKED_AT_ONCE: usize = 16;
/// How much of an answer is read.
const ANSWER_MAX_BYTES: u64 = 64 << 10;
/// Longest title that is told.
const TITLE_MAX_BYTES: usize = 256;

/// Asks each TCP listener that the loopback reaches.
pub(super) async fn ask(listeners: &mut [Listener]) {
    let all_until = Instant::now() + ALL_WITHIN;
    stream::iter(listeners)
        .filter_map(async |listener| loopback(listener).map(|address| (listener, address)))
        .for_each_concurrent(ASKED_AT_ONCE, async |(listener, address)| {
            let until = all_until.min(Instant::now() + ANSWER_WITHIN);
            listener.http = answer(&read(address, until).await);
        })
        .await;
}

/// Where a listener is reached over the loopback, if it is.
fn loopback(listener: &Listener) -> Option<SocketAddr> {
    if listener.protocol() != Protocol::Tcp {
        return None;
    }
    let address = match *listener.address {
        [a, b, c, d] => IpAddr::from([a, b, c, d]),
        ref octets => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?),
    };
    let reached = match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other if other.to_canonical().is_loopback() => other,
        _ => return None,
    };
    Some(SocketAddr::new(reached, u16::try_from(listener.port).ok()?))
}

/// What is said within the time, up to the end of the title: a page that never ends has one too.
async fn read(address: SocketAddr, until: Instant) -> Vec<u8> {
    let mut said = Vec::new();
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        // HTTP/1.0 and no encodings: the page comes as it is, and the connection ends with it.
        let request = format!(
            "GET / HTTP/1.0\r\nHost: localhost:{}\r\nUser-Agent: banger-agent/{}\r\nAccept: text/html, */*\r\nConnection: close\r\n\r\n",
            address.port(),
            env!("CARGO_PKG_VERSION")
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = stream.take(ANSWER_MAX_BYTES);
        while answer.read_buf(&mut said).await? > 0 {
            if find(&said, b"</title").is_some() {
                break;
            }
        }
        std::io::Result::Ok(())
    };
    // Whatever ended it, what was said until then counts.
    let _ = timeout_at(until, talk).await;
    said
}

/// The answer in `said`, if it is one of HTTP.
fn answer(said: &[u8]) -> Option<HttpAnswer> {
    let line = said.strip_prefix(b"HTTP/1.")?;
    let [b'0' | b'1', b' ', code @ ..] = line else {
        return None;
    };
    let code = std::str::from_utf8(code.get(..3)?).ok()?;
    let status = code.parse().ok().filter(|status| *status >= 100)?;
    let body = find(said, b"\r\n\r\n").map_or(&[][..], |end| &said[end..]);
    Some(HttpAnswer {
        status,
        title: title(body),
    })
}

/// The text of the first `<title>`, on one line.
fn title(page: &[u8]) -> String {
    let found = find(page, b"<title").and_then(|start| {
        let rest = &page[start..];
        let open = rest.iter().position(|&byte| byte == b'>')?;
        let end = find(rest, b"</title")?;
        rest.get(open + 1..end)
    });
    let text = String::from_utf8_lossy(found.unwrap_or_default());
    let text: Vec<&str> = text.split_whitespace().collect();
    let text = unescaped(&text.join(" "));
    text[..text.floor_char_boundary(TITLE_MAX_BYTES)].to_owned()
}

/// With the characters that HTML cannot have as they are.
fn unescaped(text: &str) -> String {
    // The ampersand last: `&amp;lt;` is `&lt;`.
    [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (escaped, character)| {
        text.replace(escaped, character)
    })
}

/// Where `word` is in `text`, whatever the case of its letters.
fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len())
        .position(|window| window.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests;
