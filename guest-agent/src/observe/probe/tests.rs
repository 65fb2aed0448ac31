use tokio::net::TcpListener;

use super::*;

fn listener(address: SocketAddr) -> Listener {
    Listener {
        protocol: Protocol::Tcp.into(),
        address: match address.ip() {
            IpAddr::V4(address) => address.octets().to_vec().into(),
            IpAddr::V6(address) => address.octets().to_vec().into(),
        },
        port: address.port().into(),
        ..Listener::default()
    }
}

/// What is told of a server that says this to everybody, and then closes or holds on.
async fn told(says: &'static [u8], closes: bool) -> Option<HttpAnswer> {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut listeners = [listener(server.local_addr().unwrap())];
    let serve = async {
        let (mut stream, _) = server.accept().await.unwrap();
        let mut request = [0; 14];
        stream.read_exact(&mut request).await.unwrap();
        assert_eq!(&request, b"GET / HTTP/1.0");
        // The asker may have read enough before all of it is written.
        let _ = stream.write_all(says).await;
        if !closes {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = ask(&mut listeners) => {}
        () = async { serve.await; std::future::pending().await } => {}
    }
    listeners[0].http.clone()
}

#[tokio::test]
async fn a_page_is_told_by_status_and_title() {
    let page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<HTML><Title lang=\"en\">\n  Fish &amp;\t Chips </TITLE>";
    assert_eq!(
        told(page, true).await,
        Some(HttpAnswer {
            status: 200,
            title: "Fish & Chips".into()
        })
    );
}

#[tokio::test]
async fn a_redirect_is_told_and_not_followed() {
    let elsewhere = b"HTTP/1.0 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n";
    assert_eq!(
        told(elsewhere, true).await,
        Some(HttpAnswer {
            status: 302,
            title: String::new()
        })
    );
}

#[tokio::test]
async fn what_speaks_no_http_has_no_answer() {
    assert_eq!(told(b"SSH-2.0-OpenSSH\r\n", true).await, None);
    assert_eq!(told(b"HTTP/1.1 2x0 OK\r\n\r\n", true).await, None);
    assert_eq!(told(b"HTTP/1.1 \xff\xff\xff", true).await, None);
    assert_eq!(told(b"", true).await, None);
}

#[tokio::test]
async fn a_server_that_holds_on_is_left_with_what_it_said() {
    let page = b"HTTP/1.1 200 OK\r\n\r\n<title>Slow";
    assert_eq!(
        told(page, false).await,
        Some(HttpAnswer {
            status: 200,
            title: String::new()
        })
    );
}

#[tokio::test]
async fn an_endless_answer_is_read_to_the_bound() {
    static ENDLESS: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        let mut page = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        page.resize(1 << 20, b'x');
        page.extend_from_slice(b"<title>beyond</title>");
        page
    });
    assert_eq!(
        told(&ENDLESS, false).await,
        Some(HttpAnswer {
            status: 200,
            title: String::new()
        })
    );
}

#[tokio::test]
async fn a_long_title_is_cut_at_a_character() {
    let page = format!(
        "HTTP/1.1 200 OK\r\n\r\n<title>{}</title>",
        "é".repeat(TITLE_MAX_BYTES)
    );
    let title = answer(page.as_bytes()).unwrap().title;
    assert_eq!(title, "é".repeat(TITLE_MAX_BYTES / 2));
}

#[test]
fn nothing_but_the_loopback_is_asked() {
    let at = |address: &str| loopback(&listener(address.parse().unwrap()));
    assert_eq!(at("0.0.0.0:80"), Some("127.0.0.1:80".parse().unwrap()));
    assert_eq!(at("[::]:80"), Some("[::1]:80".parse().unwrap()));
    assert_eq!(at("127.0.0.53:80"), Some("127.0.0.53:80".parse().unwrap()));
    assert_eq!(at("10.0.2.15:80"), None);
    assert_eq!(at("[2001:db8::1]:80"), None);
    let udp = Listener {
        protocol: Protocol::Udp.into(),
        ..listener("127.0.0.1:80".parse().unwrap())
    };
    assert_eq!(loopback(&udp), None);
    let nonsense = Listener {
        address: vec![1, 2, 3].into(),
        ..listener("127.0.0.1:80".parse().unwrap())
    };
    assert_eq!(loopback(&nonsense), None);
}
