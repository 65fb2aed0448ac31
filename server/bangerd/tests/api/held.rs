//! Files that come when the test lets them.

use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

/// A directory over HTTP, one file of which waits to be let go.
pub(crate) struct Held {
    pub(crate) url: String,
    /// Told when the file is asked for.
    pub(crate) asked: Arc<Notify>,
    /// Lets it go.
    pub(crate) go: Arc<Notify>,
}

impl Held {
    pub(crate) async fn serve(dir: &Path, held: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (dir, asks, goes) = (dir.to_owned(), asked.clone(), go.clone());
        // Ends with the test's runtime.
        TaskTracker::new().spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let mut connection = BufReader::new(connection);
                let mut first = String::new();
                connection.read_line(&mut first).await.unwrap();
                let mut line = String::new();
                while connection.read_line(&mut line).await.unwrap() > 2 {
                    line.clear();
                }
                let path = first.split(' ').nth(1).unwrap();
                if path == held {
                    asks.notify_one();
                    goes.notified().await;
                }
                let bytes = std::fs::read(dir.join(&path[1..])).unwrap();
                let length = bytes.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                connection.write_all(head.as_bytes()).await.unwrap();
                connection.write_all(&bytes).await.unwrap();
            }
        });
        Self { url, asked, go }
    }
}
