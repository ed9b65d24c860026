//! Tests that what is in the way of MongoDB at the start is waited for, and told once with its cause.

use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;

use crate::stage::{PATIENCE, Setting, assert_exact, logged};
use crate::support::{Authority, Launch, On, Tidegate, Tls, command_error, free_port, try_eventually};

type Outcome = anyhow::Result<()>;

/// Waits until the status and the probe say why a server cannot be asked, and holds the log to one line of it.
pub(crate) async fn told(tidegate: &mut Tidegate, server: &str, cause: &str) -> Outcome {
    tidegate.logged(&format!("{server} is down"), PATIENCE).await?;
    try_eventually(PATIENCE, &format!("{cause:?} in the status"), async || {
        let (_, status) = tidegate.get_json("/status").await?;
        let error = status["dependencies"][server]["error"].as_str().unwrap_or_default();
        anyhow::ensure!(error.contains(cause), "{error:?}");
        anyhow::ensure!(status["summary"]["kind"] == format!("{server}-down"), "{}", status["summary"]);
        anyhow::ensure!(status["summary"]["error"].as_str().is_some_and(|error| error.contains(cause)));
        anyhow::Ok(())
    })
    .await?;
    let (code, body) = tidegate.get("/readyz").await?;
    assert_eq!(code, 503, "{body}");
    let log = tidegate.log();
    let lines: Vec<_> = log.iter().filter(|line| line.contains(&format!("{server} is"))).collect();
    assert!(lines.len() == 1 && lines[0].contains(cause), "{cause:?}: {lines:#?}");
    assert!(!log.iter().any(|line| line.contains("sesame")), "{log:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_reason_why_no_server_can_be_reached_is_told_once() -> Outcome {
    let stage = Setting::new().own_fast_servers().stage().await?;
    let server = stage.mongo.address()?;
    let (authority, other) = (Authority::new()?, Authority::new()?);
    let (trusted, own) = (authority.file(), authority.issue("localhost")?);
    let tls = Tls::before(server, &own, None).await?;
    let elsewhere = Tls::before(server, &authority.issue("db.example")?, None).await?;
    let expired = Tls::before(server, &authority.issue_expired("localhost")?, None).await?;
    let strict = Tls::before(server, &own, Some(&authority)).await?;
    let plain = tls.uri("localhost", &trusted, None);
    let plain = plain.split("&tls").next().context("a URI")?.to_owned();
    let closed = free_port()?;
    let reasons = [
        // secantusd-rs waits for the rest of what it takes for a message.
        (format!("mongodb://{server}/?directConnection=true&tls=true"), "timed out"),
        (
            tls.uri("localhost", &other.file(), None),
            "is of an authority that is not trusted here; tlsCAFile of mongodb.uri names one",
        ),
        (elsewhere.uri("localhost", &trusted, None), "certificate is for another name than mongodb.uri has"),
        (expired.uri("localhost", &trusted, None), "its certificate has expired"),
        (
            strict.uri("localhost", &trusted, None),
            "wants a certificate of tidegate; tlsCertificateKeyFile of mongodb.uri names one",
        ),
        (
            strict.uri("localhost", &trusted, Some(&authority.issue_expired("tidegate")?.both)),
            "tidegate's certificate has expired; tlsCertificateKeyFile of mongodb.uri names it",
        ),
        (
            strict.uri("localhost", &trusted, Some(&other.issue("tidegate")?.both)),
            "does not accept tidegate's certificate; tlsCertificateKeyFile of mongodb.uri names it",
        ),
        (plain, "does it want TLS, and does mongodb.uri ask for it?"),
        (format!("mongodb://{server}/?replicaSet=rs9"), "rs9"),
        (format!("mongodb://{server}/?directConnection=true&replicaSet=rs9"), "rs9"),
        (format!("mongodb://app:sesame@127.0.0.1:{closed}/"), "Connection refused"),
    ];
    let launch = |uri: &str| stage.launch.clone().env("TIDEGATE_MONGODB__URI", uri);
    // All at once: each waits for the end of a search for a server.
    let told = reasons.iter().map(async |(uri, cause)| {
        let mut tidegate = launch(uri).spawn().await?;
        told(&mut tidegate, "mongodb", cause).await.with_context(|| uri.clone())?;
        anyhow::ensure!(tidegate.terminate().await?.status.success());
        anyhow::Ok(())
    });
    join_all(told).await.into_iter().collect::<Result<(), _>>()?;
    // What is right works.
    let shown = authority.issue("tidegate")?.both;
    let tidegate = launch(&strict.uri("localhost", &trusted, Some(&shown))).start().await?;
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
        told(&mut tidegate, "mongodb", &text).await?;
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
    told(&mut tidegate, "mongodb", "DNS").await?;
    let began = std::time::Instant::now();
    let exited = tidegate.terminate().await?;
    assert!(exited.status.success() && began.elapsed() < Duration::from_secs(5), "{exited:?}");

    // A URI that can never be used ends it at once.
    let file = |name: &str| format!("mongodb://localhost/?tls=true&{name}=%2Fdev%2Fnull");
    for (uri, told) in [
        ("mongodb+srv://cluster.tidegate.invalid:27017/", "mongodb.uri cannot be used"),
        ("mongodb://localhost/?tls=perhaps", "mongodb.uri cannot be used"),
        (&file("tlsCAFile"), "tlsCAFile of mongodb.uri: /dev/null holds no certificate"),
        (
            &file("tlsCertificateKeyFile"),
            "tlsCertificateKeyFile of mongodb.uri: /dev/null holds no certificate",
        ),
        ("mongodb://localhost/?tls=true&tlsCAFile=/none", "tlsCAFile of mongodb.uri: cannot read /none"),
    ] {
        let exited = launch(uri).until_exit(PATIENCE).await?;
        // What needs no file is found as a wrong configuration is.
        let code = if told.contains("cannot be used") { 64 } else { 1 };
        assert_eq!(exited.status.code(), Some(code), "{exited:?}");
        assert!(exited.lines.iter().any(|line| line.contains(told)), "{exited:?}");
    }
    Ok(())
}
