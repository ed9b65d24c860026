//! Tests encrypted connections to Redis: who is trusted, who is shown what, and what is told where they do not agree.

use std::path::Path;

use anyhow::{Context, ensure};
use futures_util::future::join_all;

use crate::reaching_mongodb::told;
use crate::stage::{PATIENCE, Setting, Stage, assert_exact, logged};
use crate::support::{Authority, Issued, Launch, Process, Redis, Tidegate, command, free_port};

type Outcome = anyhow::Result<()>;

/// Has a Redis show a certificate on a port for encrypted connections, which is answered. `clients` issues those that it wants
/// of clients, if any.
async fn encrypt(redis: &Redis, shown: &Issued, clients: Option<&Authority>) -> anyhow::Result<u16> {
    let port = free_port()?;
    let text = |path: &Path| path.display().to_string();
    let authority = clients.map_or_else(|| text(&shown.certificate), |authority| text(&authority.file()));
    redis::cmd("CONFIG")
        .arg("SET")
        .arg(&["tls-cert-file", &text(&shown.certificate), "tls-key-file", &text(&shown.key)])
        .arg(&["tls-ca-cert-file", &authority])
        .arg(&["tls-auth-clients", if clients.is_some() { "yes" } else { "no" }])
        .arg(&["tls-port", &port.to_string()])
        .exec_async(&mut redis.connect().await?)
        .await?;
    Ok(port)
}

/// What `redis.tls` names.
fn naming(launch: Launch, ca: &Path, shown: Option<&Issued>) -> Launch {
    let launch = launch.env("TIDEGATE_REDIS__TLS__CA_FILE", ca.to_string_lossy());
    match shown {
        None => launch,
        Some(Issued { certificate, key, .. }) => launch
            .env("TIDEGATE_REDIS__TLS__CERT_FILE", certificate.to_string_lossy())
            .env("TIDEGATE_REDIS__TLS__KEY_FILE", key.to_string_lossy()),
    }
}

fn at(launch: Launch, port: u16) -> Launch {
    launch.env("TIDEGATE_REDIS__URL", format!("rediss://localhost:{port}"))
}

async fn applies(stage: &Stage, tidegate: &Tidegate, events: std::ops::Range<usize>) -> Outcome {
    let all = events.end;
    stage.push(events.map(|n| logged("doc", n))).await?;
    stage.settled(tidegate).await?;
    assert_exact(stage.document("doc").await?.as_ref(), all);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_reason_why_no_encrypted_connection_is_made_is_told_once() -> Outcome {
    let stage = Setting::new().stage().await?;
    let (authority, other) = (Authority::new()?, Authority::new()?);
    let (own, ca) = (authority.issue("localhost")?, authority.file());
    let elsewhere = authority.issue("cache.example")?;
    let outdated = authority.issue_expired("localhost")?;
    let clients = [authority.issue_expired("tidegate")?, other.issue("tidegate")?];
    let none = None::<&Issued>;
    let reasons = [
        (
            &own,
            false,
            other.file(),
            none,
            "an authority that is not trusted here; redis.tls.ca_file names one",
        ),
        (&elsewhere, false, ca.clone(), none, "its certificate is for another name than redis.url has"),
        (&outdated, false, ca.clone(), none, "its certificate has expired"),
        (&own, true, ca.clone(), none, "wants a certificate of tidegate; redis.tls.cert_file names one"),
        (
            &own,
            true,
            ca.clone(),
            Some(&clients[0]),
            "tidegate's certificate has expired; redis.tls.cert_file names it",
        ),
        (
            &own,
            true,
            ca.clone(),
            Some(&clients[1]),
            "does not accept tidegate's certificate; redis.tls.cert_file",
        ),
    ];
    let told_of = reasons.iter().map(async |(shown, asks, ca, client, cause)| {
        let redis = Redis::start().await?;
        let port = encrypt(&redis, shown, asks.then_some(&authority)).await?;
        let mut tidegate = naming(at(stage.launch.clone(), port), ca, *client).spawn().await?;
        told(&mut tidegate, "redis", cause).await.with_context(|| (*cause).to_owned())?;
        ensure!(tidegate.terminate().await?.status.success());
        anyhow::Ok(())
    });
    join_all(told_of).await.into_iter().collect::<Result<(), _>>()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_url_that_is_wrong_about_encryption_is_told_of() -> Outcome {
    let stage = Setting::new().own_fast_servers().stage().await?;
    let port = encrypt(&stage.redis, &Authority::new()?.issue("localhost")?, None).await?;
    let plain = stage.redis.address()?.port();
    let wrong = [
        (
            format!("rediss://localhost:{plain}"),
            "no TLS is spoken there; is it right that redis.url begins with rediss://?",
        ),
        (
            format!("redis://localhost:{port}"),
            "TLS is spoken there; a redis.url that begins with rediss:// asks for it",
        ),
    ];
    for (url, cause) in wrong {
        let mut tidegate = stage.launch.clone().env("TIDEGATE_REDIS__URL", url).spawn().await?;
        told(&mut tidegate, "redis", cause).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_shown_to_a_redis_that_wants_them() -> Outcome {
    for setting in [Setting::new(), Setting::new().stream("")] {
        let stage = setting.own_fast_servers().stage().await?;
        let authority = Authority::new()?;
        let port = encrypt(&stage.redis, &authority.issue("localhost")?, Some(&authority)).await?;
        let launch =
            naming(at(stage.launch.clone(), port), &authority.file(), Some(&authority.issue("tidegate")?));
        let tidegate = launch.start().await?;
        applies(&stage, &tidegate, 0..3000).await?;
    }
    Ok(())
}

/// A renewed certificate, and one of another authority, are used by the next connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_followed_without_a_restart() -> Outcome {
    let stage = Setting::new().own_fast_servers().stage().await?;
    let (first, second) = (Authority::new()?, Authority::new()?);
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name);
    let own = Issued { certificate: file("cert"), key: file("key"), both: file("both") };
    let mount = |authority: &Authority| -> Outcome {
        let issued = authority.issue("tidegate")?;
        std::fs::copy(authority.file(), file("ca"))?;
        std::fs::copy(issued.certificate, &own.certificate)?;
        std::fs::copy(issued.key, &own.key)?;
        Ok(())
    };
    let kill = async || -> Outcome {
        let mut killer = stage.producer().await?;
        redis::cmd("CLIENT")
            .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
            .exec_async(&mut killer)
            .await?;
        Ok(())
    };
    mount(&first)?;
    let port = encrypt(&stage.redis, &first.issue("localhost")?, Some(&first)).await?;
    let mut tidegate = naming(at(stage.launch.clone(), port), &file("ca"), Some(&own)).start().await?;
    applies(&stage, &tidegate, 0..100).await?;

    // What is half written is not used.
    std::fs::write(file("ca"), "-----BEGIN")?;
    kill().await?;
    tidegate.logged("what was there before goes on being used", PATIENCE).await?;
    applies(&stage, &tidegate, 100..200).await?;

    mount(&second)?;
    let shown = second.issue("localhost")?;
    let text = |path: &Path| path.display().to_string();
    redis::cmd("CONFIG")
        .arg(&["SET", "tls-cert-file", &text(&shown.certificate), "tls-key-file", &text(&shown.key)])
        .arg(&["tls-ca-cert-file", &text(&second.file())])
        .exec_async(&mut stage.producer().await?)
        .await?;
    kill().await?;
    applies(&stage, &tidegate, 200..300).await?;
    let log = tidegate.log();
    assert_eq!(log.iter().filter(|line| line.contains("goes on being used")).count(), 1, "{log:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_of_no_use_end_the_start_with_one_line() -> Outcome {
    let stage = Setting::new().stage().await?;
    let authority = Authority::new()?;
    let (own, other) = (authority.issue("tidegate")?, authority.issue("tidegate")?);
    let (missing, ca) = (authority.file().with_extension("none"), authority.file());
    let issued = |certificate: &Path, key: &Path| {
        Some(Issued { certificate: certificate.into(), key: key.into(), both: certificate.into() })
    };
    let wrong = [
        (&missing, None, "redis.tls.ca_file: cannot read"),
        (&own.key, None, "redis.tls.ca_file: "),
        (&ca, issued(&own.key, &own.key), "redis.tls.cert_file: "),
        (&ca, issued(&own.certificate, &own.certificate), "redis.tls.key_file: "),
        (&ca, issued(&own.certificate, &other.key), "does not go with redis.tls.cert_file"),
    ];
    for (ca, shown, cause) in wrong {
        let launch = naming(at(stage.launch.clone(), 1), ca, shown.as_ref());
        for launch in [launch.clone(), launch.arg("check")] {
            let exited = launch.until_exit(PATIENCE).await?;
            assert_eq!(exited.status.code(), Some(64), "{exited:?}");
            assert!(exited.lines.len() == 1 && exited.lines[0].contains(cause), "{cause}: {exited:?}");
        }
    }
    Ok(())
}

/// A sentinel is reached with the same files, and so is the primary that it names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_is_reached_with_the_same_files() -> Outcome {
    let stage = Setting::new().own_fast_servers().stage().await?;
    let authority = Authority::new()?;
    let own = authority.issue("localhost")?;
    let watched = encrypt(&stage.redis, &own, Some(&authority)).await?;
    let (folder, port) = (tempfile::tempdir()?, free_port()?);
    let (certificate, key, ca) = (own.certificate.display(), own.key.display(), authority.file());
    let config = format!(
        "port 0\ntls-port {port}\nbind 127.0.0.1\ntls-replication yes\ntls-cert-file {certificate}\ntls-key-file {key}\n\
         tls-ca-cert-file {}\nsentinel monitor collab 127.0.0.1 {watched} 1\n",
        ca.display()
    );
    let file = folder.path().join("sentinel.conf");
    std::fs::write(&file, config)?;
    let mut command = command("redis-server");
    command.arg(&file).arg("--sentinel");
    let _sentinel = Process::spawn("sentinel", command)?;
    let launch = at(stage.launch.clone(), 1)
        .env("TIDEGATE_REDIS__SENTINELS", format!("[\"rediss://127.0.0.1:{port}\"]"))
        .env("TIDEGATE_REDIS__SENTINEL_PRIMARY", "collab");
    let tidegate = naming(launch, &authority.file(), Some(&authority.issue("tidegate")?)).start().await?;
    applies(&stage, &tidegate, 0..100).await
}
