//! Tests that the fault proxy does what it says, in front of a server that echoes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use crate::support::{Flow, Proxy};

type Outcome = anyhow::Result<()>;

/// Long enough for a machine that is busy, for what has to come.
const SOON: Duration = Duration::from_secs(20);
/// For what must not come. On a busy machine this could only let a test pass that should fail.
const NEVER: Duration = Duration::from_millis(200);

#[tokio::test]
async fn bytes_pass_and_so_does_the_end() -> Outcome {
    let proxy = Proxy::start(echo("").await?).await?;
    let mut client = Client::connect(&proxy).await?;
    client.says("hello").await?;
    client.hears("hello").await?;
    client.0.shutdown().await?;
    client.ends().await
}

#[tokio::test]
async fn a_cut_ends_what_is_there_and_nothing_else() -> Outcome {
    let proxy = Proxy::start(echo("").await?).await?;
    let mut client = Client::connect(&proxy).await?;
    client.says("a").await?;
    client.hears("a").await?;
    proxy.cut();
    client.ends().await?;
    Client::connect(&proxy).await?.is_echoed("b").await
}

#[tokio::test]
async fn refusing_ends_what_is_new_and_nothing_else() -> Outcome {
    let proxy = Proxy::start(echo("").await?).await?;
    let mut old = Client::connect(&proxy).await?;
    old.is_echoed("a").await?;
    proxy.refuse();
    Client::connect(&proxy).await?.ends().await?;
    old.is_echoed("b").await?;
    proxy.heal();
    Client::connect(&proxy).await?.is_echoed("c").await
}

#[tokio::test]
async fn swallowed_bytes_never_come_and_their_connection_ends() -> Outcome {
    let proxy = Proxy::start(echo("").await?).await?;
    for swallow in [Proxy::requests, Proxy::replies] {
        let mut idle = Client::connect(&proxy).await?;
        idle.is_echoed("i").await?;
        let mut client = Client::connect(&proxy).await?;
        client.is_echoed("a").await?;
        swallow(&proxy, Flow::Swallow);
        client.says("b").await?;
        client.hears_nothing().await?;
        proxy.heal();
        client.ends().await?;
        idle.is_echoed("j").await?;
    }
    Ok(())
}

#[tokio::test]
async fn held_bytes_come_later_even_from_a_client_that_gave_up() -> Outcome {
    let (server, mut received) = recorder().await?;
    let proxy = Proxy::start(server).await?;
    let mut client = Client::connect(&proxy).await?;
    proxy.requests(Flow::Hold);
    client.says("late").await?;
    drop(client);
    assert!(timeout(NEVER, received.recv()).await.is_err(), "it came at once");
    proxy.heal();
    let bytes = timeout(SOON, received.recv()).await?;
    assert_eq!(bytes.as_deref(), Some(&b"late"[..]));

    let proxy = Proxy::start(echo("").await?).await?;
    let mut client = Client::connect(&proxy).await?;
    proxy.replies(Flow::Hold);
    client.says("x").await?;
    client.hears_nothing().await?;
    proxy.heal();
    client.hears("x").await
}

#[tokio::test]
async fn delayed_bytes_take_their_time_in_each_direction() -> Outcome {
    const DELAY: Duration = Duration::from_millis(150);
    let proxy = Proxy::start(echo("").await?).await?;
    let mut client = Client::connect(&proxy).await?;
    proxy.requests(Flow::Delay(DELAY));
    proxy.replies(Flow::Delay(DELAY));
    let began = Instant::now();
    client.is_echoed("a").await?;
    assert!(began.elapsed() >= DELAY * 2, "{:?}", began.elapsed());
    // What waits does not wait any longer once that is over.
    proxy.requests(Flow::Delay(Duration::from_secs(3600)));
    client.says("b").await?;
    client.hears_nothing().await?;
    proxy.heal();
    client.hears("b").await
}

#[tokio::test]
async fn a_trickle_lets_through_so_much_a_second() -> Outcome {
    let proxy = Proxy::start(echo("").await?).await?;
    let mut client = Client::connect(&proxy).await?;
    proxy.replies(Flow::Trickle(1024));
    let text = "0123456789".repeat(50);
    let began = Instant::now();
    client.is_echoed(&text).await?;
    // 500 bytes at 51 every 50 ms: ten drops.
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
    proxy.replies(Flow::Trickle(20));
    client.says(&text).await?;
    client.hears("0").await?;
    proxy.heal();
    client.hears(&text[1..]).await
}

#[tokio::test]
async fn a_new_target_is_for_new_connections() -> Outcome {
    let proxy = Proxy::start(echo("1").await?).await?;
    let mut old = Client::connect(&proxy).await?;
    old.hears("1").await?;
    proxy.retarget(echo("2").await?);
    Client::connect(&proxy).await?.hears("2").await?;
    old.is_echoed("a").await
}

#[tokio::test]
async fn its_connections_end_with_it_and_with_their_server() -> Outcome {
    let proxy = Proxy::start(echo("").await?).await?;
    let mut client = Client::connect(&proxy).await?;
    client.is_echoed("a").await?;
    drop(proxy);
    client.ends().await?;

    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?;
    let proxy = Proxy::start(nobody).await?;
    Client::connect(&proxy).await?.ends().await
}

struct Client(TcpStream);

impl Client {
    async fn connect(proxy: &Proxy) -> io::Result<Self> {
        Ok(Self(TcpStream::connect(proxy.address()).await?))
    }

    async fn says(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(text.as_bytes()).await
    }

    async fn hears(&mut self, text: &str) -> Outcome {
        let mut heard = vec![0; text.len()];
        timeout(SOON, self.0.read_exact(&mut heard)).await??;
        assert_eq!(String::from_utf8(heard)?, text);
        Ok(())
    }

    async fn is_echoed(&mut self, text: &str) -> Outcome {
        self.says(text).await?;
        self.hears(text).await
    }

    async fn hears_nothing(&mut self) -> Outcome {
        let heard = timeout(NEVER, self.0.read_u8()).await;
        assert!(heard.is_err(), "heard {heard:?}");
        Ok(())
    }

    /// Orderly or not.
    async fn ends(&mut self) -> Outcome {
        let heard = timeout(SOON, self.0.read_u8()).await?;
        assert!(heard.is_err(), "heard {heard:?}");
        Ok(())
    }
}

/// A server that greets, and then echoes.
async fn echo(greeting: &'static str) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(greeting.as_bytes()).await?;
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    Ok(address)
}

/// A server that only listens; answers what each connection received when that ends.
async fn recorder() -> io::Result<(SocketAddr, tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (sent, received) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes).await;
            let _ = sent.send(bytes);
        }
    });
    Ok((address, received))
}
