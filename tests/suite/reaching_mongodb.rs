//! Tests that what is in the way of MongoDB at the start is waited for, and told once with its cause.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::stage::{PATIENCE, Setting, assert_exact, logged};
use crate::support::{Launch, On, Tidegate, command_error, free_port, try_eventually};

type Outcome = anyhow::Result<()>;

/// Waits until the status and the probe say why MongoDB cannot be asked, and holds the log to one line of it.
async fn told(tidegate: &mut Tidegate, cause: &str) -> Outcome {
    tidegate.logged("mongodb is down", PATIENCE).await?;
    try_eventually(PATIENCE, &format!("{cause:?} in the status"), async || {
        let (_, status) = tidegate.get_json("/status").await?;
        let error = status["dependencies"]["mongodb"]["error"].as_str().unwrap_or_default();
        anyhow::ensure!(error.contains(cause), "{error:?}");
        anyhow::ensure!(status["summary"]["kind"] == "mongodb-down", "{}", status["summary"]);
        anyhow::ensure!(status["summary"]["error"].as_str().is_some_and(|error| error.contains(cause)));
        anyhow::Ok(())
    })
    .await?;
    let (code, body) = tidegate.get("/readyz").await?;
    assert_eq!(code, 503, "{body}");
    let log = tidegate.log();
    let lines: Vec<_> = log.iter().filter(|line| line.contains("mongodb is")).collect();
    assert!(lines.len() == 1 && lines[0].contains(cause), "{cause:?}: {lines:#?}");
    assert!(!log.iter().any(|line| line.contains("sesame")), "{log:#?}");
    Ok(())
}

/// MongoDB behind TLS: what is decrypted goes on to the real server.
struct Tls {
    port: u16,
    certificate: std::path::PathBuf,
    _folder: TempDir,
    accepting: AbortHandle,
}

impl Tls {
    async fn before(server: SocketAddr, name: &str) -> anyhow::Result<Self> {
        let certified = rcgen::generate_simple_self_signed([name.to_owned()])?;
        let folder = tempfile::tempdir()?;
        let certificate = folder.path().join("ca.pem");
        std::fs::write(&certificate, certified.cert.pem())?;
        let key =
            PrivateKeyDer::try_from(certified.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut client = acceptor.accept(client).await?;
                    let mut server = TcpStream::connect(server).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Ok(Tls { port, certificate, _folder: folder, accepting: accepting.abort_handle() })
    }

    /// A URI with what an encrypted connection needs.
    fn uri(&self, host: &str, trusted: &Tls) -> String {
        let port = self.port;
        let file = trusted.certificate.display().to_string().replace('/', "%2F");
        format!("mongodb://{host}:{port}/?directConnection=true&tls=true&tlsCAFile={file}")
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_reason_why_no_server_can_be_reached_is_told_once() -> Outcome {
    let stage = Setting::new().own_fast_servers().stage().await?;
    let server = stage.mongo.address()?;
    let (tls, other) = (Tls::before(server, "localhost").await?, Tls::before(server, "localhost").await?);
    let elsewhere = Tls::before(server, "db.example").await?;
    let closed = free_port()?;
    let reasons = [
        // secantusd-rs waits for the rest of what it takes for a message.
        (format!("mongodb://{server}/?directConnection=true&tls=true"), "timed out"),
        (tls.uri("localhost", &other), "is of an authority that is not trusted here"),
        (elsewhere.uri("localhost", &elsewhere), "certificate is for another name"),
        (format!("mongodb://{server}/?replicaSet=rs9"), "rs9"),
        (format!("mongodb://{server}/?directConnection=true&replicaSet=rs9"), "rs9"),
        (format!("mongodb://app:sesame@127.0.0.1:{closed}/"), "Connection refused"),
    ];
    let launch = |uri: &str| stage.launch.clone().env("TIDEGATE_MONGODB__URI", uri);
    // All at once: each waits for the end of a search for a server.
    let told = reasons.iter().map(async |(uri, cause)| {
        let mut tidegate = launch(uri).spawn().await?;
        told(&mut tidegate, cause).await.with_context(|| uri.clone())?;
        anyhow::ensure!(tidegate.terminate().await?.status.success());
        anyhow::Ok(())
    });
    join_all(told).await.into_iter().collect::<Result<(), _>>()?;
    // What is right works.
    let tidegate = launch(&tls.uri("localhost", &tls)).start().await?;
    stage.push((0..3).map(|n| logged("d", n))).await?;
    stage.settled(&tidegate).await?;
    assert_exact(stage.document("d").await?.as_ref(), 3);
    Ok(())
}

/// No answer to the first questions ends the process, whatever its code, but for what says that they can never be answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_first_answers_say_is_told_and_waited_for() -> Outcome {
    let stage = Setting::new().forged().stage().await?;
    // Of https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml; 8000 is Atlas', 2 and 9 are among those
    // that elsewhere speak of an event.
    let answers = [
        ("hello", 2, "BadValue"),
        ("hello", 8000, "AtlasError"),
        ("update", 13, "Unauthorized"),
        ("update", 371, "UserWritesBlocked"),
        ("update", 8000, "AtlasError"),
    ];
    for (command, code, name) in answers {
        let text = format!("forged {code}");
        let ours = On::command(command)
            .when(|command| command.get_str("$db").is_ok_and(|database| database != "admin"));
        let rule = stage.forge().rule(ours.answer(command_error(code, name, &text)));
        let mut tidegate = stage.launch.spawn().await?;
        rule.hit(3, PATIENCE).await?;
        told(&mut tidegate, &text).await?;
        rule.remove();
        tidegate.readiness(200, PATIENCE).await?;
        // The line is read a little later than the answer.
        tidegate.logged("mongodb is back after", PATIENCE).await?;
        assert_eq!(tidegate.log().iter().filter(|line| line.contains("mongodb is")).count(), 2);
        tidegate.terminate().await?;
    }
    Ok(())
}

/// The name cannot exist (RFC 6761); whether a resolver says so or there is none to ask, there is no server to go by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_cannot_be_looked_up_are_waited_for() -> Outcome {
    let stage = Setting::new().stage().await?;
    let launch = |uri: &str| -> Launch {
        stage.launch.clone().env("TIDEGATE_MONGODB__URI", uri).env("TIDEGATE_MONGODB__TIMEOUT", "2s")
    };
    let mut tidegate = launch("mongodb+srv://app:sesame@cluster.tidegate.invalid/").spawn().await?;
    told(&mut tidegate, "DNS").await?;
    let began = std::time::Instant::now();
    let exited = tidegate.terminate().await?;
    assert!(exited.status.success() && began.elapsed() < Duration::from_secs(5), "{exited:?}");

    // A URI that can never be used ends it at once.
    for uri in ["mongodb+srv://cluster.tidegate.invalid:27017/", "mongodb://localhost/?tls=perhaps"] {
        let exited = launch(uri).until_exit(PATIENCE).await?;
        assert_eq!(exited.status.code(), Some(1), "{exited:?}");
        assert!(exited.lines.iter().any(|line| line.contains("mongodb.uri cannot be used")), "{exited:?}");
    }
    Ok(())
}
