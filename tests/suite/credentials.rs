//! Tests credentials that change while tidegate runs: nothing is lost, nothing is doubled, and no restart is needed.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use bson::spec::BinarySubtype;
use bson::{Binary, Document, doc};
use nix::sys::signal::Signal;
use parking_lot::Mutex;

use crate::stage::{PATIENCE, Setting, Stage, assert_exact, logged};
use crate::support::{
    Authority, Launch, On, REST, Tidegate, Tls, command_error, eventually, push, try_eventually,
};

type Outcome = anyhow::Result<()>;

const USER: &str = "worker";

/// Where a daemon finds the password of its user.
#[derive(Debug, Clone, Copy)]
enum Place {
    UrlFile,
    PasswordFile,
    Program,
}

/// A stage whose Redis knows one more user, and the file that the daemon has its password from.
struct Guarded {
    stage: Stage,
    file: PathBuf,
    place: Place,
    _folder: tempfile::TempDir,
}

impl Guarded {
    async fn new(setting: Setting, place: Place) -> anyhow::Result<Self> {
        let stage = setting.own_fast_servers().stage().await?;
        let folder = tempfile::tempdir()?;
        let guarded = Guarded { stage, file: folder.path().join("secret"), place, _folder: folder };
        guarded.set("one").await?;
        guarded.mount("one")?;
        Ok(guarded)
    }

    /// Gives the user one password more.
    async fn add(&self, password: &str) -> Outcome {
        let more = format!(">{password}");
        redis::cmd("ACL")
            .arg(&["SETUSER", USER, &more])
            .exec_async(&mut self.stage.producer().await?)
            .await?;
        Ok(())
    }

    /// Gives the user another password.
    async fn set(&self, password: &str) -> Outcome {
        redis::cmd("ACL")
            .arg(&["SETUSER", USER, "on", "resetpass", &format!(">{password}"), "~*", "&*", "+@all"])
            .exec_async(&mut self.stage.producer().await?)
            .await?;
        Ok(())
    }

    /// Tells the daemon of it.
    fn mount(&self, password: &str) -> Outcome {
        let url = self.stage.redis.url().replace("redis://", &format!("redis://{USER}:{password}@"));
        let content = if matches!(self.place, Place::UrlFile) { url } else { format!("{password}\n") };
        Ok(std::fs::write(&self.file, content)?)
    }

    fn launch(&self) -> Launch {
        let (launch, file) = (self.stage.launch.clone(), self.file.display());
        match self.place {
            Place::UrlFile => launch.env("TIDEGATE_REDIS__URL_FILE", file.to_string()),
            Place::PasswordFile => launch
                .env("TIDEGATE_REDIS__USERNAME", USER)
                .env("TIDEGATE_REDIS__PASSWORD_FILE", file.to_string()),
            Place::Program => launch
                .env("TIDEGATE_REDIS__USERNAME", USER)
                // It would print nothing if it saw what tidegate is configured with.
                .env(
                    "TIDEGATE_REDIS__PASSWORD_COMMAND",
                    format!("['sh', '-c', 'env | grep -q ^TIDEGATE_ || cat {file}']"),
                ),
        }
    }

    /// Ends the connections of the user, and of nobody else.
    async fn cut(&self) -> Outcome {
        let mut killer = self.stage.producer().await?;
        redis::cmd("CLIENT").arg(&["KILL", "USER", USER]).exec_async(&mut killer).await?;
        Ok(())
    }

    /// Nobody but the test itself asks as another user.
    async fn only_the_user_asks(&self) -> Outcome {
        let list: String =
            redis::cmd("CLIENT").arg("LIST").query_async(&mut self.stage.producer().await?).await?;
        let others: Vec<_> = list.lines().filter(|line| !line.contains(&format!("user={USER} "))).collect();
        ensure!(others.iter().all(|line| line.contains("cmd=client|list")), "{others:#?}");
        ensure!(others.len() < list.lines().count(), "nobody is logged in: {list}");
        Ok(())
    }

    async fn push(&self, events: std::ops::Range<usize>) -> Outcome {
        let mut producer = self.stage.producer().await?;
        push(&mut producer, &self.stage.queue, events.map(|n| logged("doc", n))).await
    }

    async fn applied(&self, tidegate: &Tidegate, events: usize) -> Outcome {
        self.stage.settled(tidegate).await?;
        assert_exact(self.stage.document("doc").await?.as_ref(), events);
        Ok(())
    }
}

/// Waits until the status says that the credentials are refused; the process goes on, and is not ready.
async fn refused(tidegate: &Tidegate, server: &str) -> Outcome {
    try_eventually(PATIENCE, "the refusal in the status", async || {
        let (_, status) = tidegate.get_json("/status").await?;
        let error = status["dependencies"][server]["error"].as_str().unwrap_or_default();
        ensure!(error.contains("refuses the credentials"), "{}", status["dependencies"]);
        ensure!(tidegate.get("/readyz").await?.0 == 503, "it is ready");
        anyhow::Ok(())
    })
    .await
    .with_context(|| format!("{:#?}", tidegate.log()))
}

fn lines_with(tidegate: &Tidegate, text: &str) -> usize {
    tidegate.log().iter().filter(|line| line.contains(text)).count()
}

/// Wherever the password is from, a new one is found: at once if it is there before the old one is refused, else later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_of_redis_can_change_at_any_time() -> Outcome {
    for place in [Place::UrlFile, Place::PasswordFile, Place::Program] {
        let guarded = Guarded::new(Setting::new(), place).await?;
        let mut tidegate = guarded.launch().start().await?;
        guarded.push(0..100).await?;
        guarded.applied(&tidegate, 100).await?;
        eventually(PATIENCE, "the user alone to be there", async || guarded.only_the_user_asks().await).await;

        // Told in time.
        guarded.add("two").await?;
        guarded.mount("two")?;
        guarded.set("two").await?;
        guarded.push(100..1000).await?;
        guarded.cut().await?;
        guarded.push(1000..2000).await?;
        guarded.applied(&tidegate, 2000).await?;
        assert_eq!(lines_with(&tidegate, "refuses the credentials"), 0, "{place:?} {:#?}", tidegate.log());

        // Told too late.
        guarded.set("three").await?;
        guarded.push(2000..3000).await?;
        guarded.cut().await?;
        guarded.push(3000..4000).await?;
        refused(&tidegate, "redis").await?;
        assert_eq!(lines_with(&tidegate, "refuses the credentials"), 1, "{place:?} {:#?}", tidegate.log());
        guarded.mount("three")?;
        guarded.applied(&tidegate, 4000).await?;
        tidegate.readiness(200, PATIENCE).await?;
        let told = format!("{:?}{}", tidegate.log(), tidegate.get("/config").await?.1);
        assert!(
            !["one", "two", "three"].iter().any(|password| told.contains(&format!("{password}@"))),
            "{told}"
        );
    }
    Ok(())
}

/// An instance that never owned a queue is no start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_stands_by_outlives_a_refusal() -> Outcome {
    let guarded = Guarded::new(Setting::new(), Place::PasswordFile).await?;
    let owner = guarded.stage.start_as(&guarded.launch()).await?;
    let mut other = guarded.launch().start().await?;
    other.logged("standing by", PATIENCE).await?;
    guarded.set("two").await?;
    guarded.cut().await?;
    refused(&other, "redis").await?;
    guarded.mount("two")?;
    other.readiness(200, PATIENCE).await?;
    owner.terminate().await?;
    guarded.push(0..100).await?;
    guarded.applied(&other, 100).await
}

/// What stands in the configuration itself is read on SIGHUP. Another server is not gone to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_in_the_configuration_follows_with_sighup() -> Outcome {
    let mut guarded = Guarded::new(Setting::new(), Place::UrlFile).await?;
    let url = |password: &str| {
        guarded.stage.redis.url().replace("redis://", &format!("redis://{USER}:{password}@"))
    };
    let (one, two) = (url("one"), url("two"));
    let config = format!(
        "native.collections = [\"documents\"]\nlease.ttl = \"1s\"\nqueues = [{{ key = \"{}\" }}]\n",
        guarded.stage.queue
    );
    let at = |url: &str| format!("redis.url = \"{url}\"");
    let database = guarded.stage.database.name().to_owned();
    guarded.stage.launch =
        Launch::config(format!("{}\n{REST}{config}", at(&one))).mongodb(&guarded.stage.mongo, &database);
    let mut tidegate = guarded.stage.start().await?;
    guarded.push(0..100).await?;
    guarded.applied(&tidegate, 100).await?;
    guarded.set("two").await?;
    guarded.cut().await?;
    refused(&tidegate, "redis").await?;
    guarded.push(100..200).await?;
    tidegate.reconfigure(&at(&two))?;
    tidegate.logged("configuration re-read: redis.url", PATIENCE).await?;
    guarded.applied(&tidegate, 200).await?;

    tidegate.reconfigure(&at("redis://127.0.0.1:1/"))?;
    tidegate.logged("needs a restart: redis.url", PATIENCE).await?;
    guarded.cut().await?;
    guarded.push(200..300).await?;
    guarded.applied(&tidegate, 300).await
}

/// Which password is right is not guessed, and one that cannot be read ends the start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_cannot_be_told_ends_the_start_with_one_line() -> Outcome {
    let stage = Setting::new().stage().await?;
    let folder = tempfile::tempdir()?;
    let file = |name: &str, content: &str| -> anyhow::Result<String> {
        let path = folder.path().join(name);
        std::fs::write(&path, content)?;
        Ok(path.display().to_string())
    };
    let (good, empty) = (file("good", "hunter2\n")?, file("empty", "\n")?);
    let wrong = [
        (
            "redis://:hunter2@h",
            "PASSWORD_FILE",
            good.as_str(),
            "redis.password_file: redis.url has a password, too",
        ),
        (
            "redis://:hunter2@h",
            "PASSWORD_COMMAND",
            "['cat', 'hunter2']",
            "redis.password_command: redis.url has",
        ),
        ("redis://h", "PASSWORD_FILE", &empty, "redis.password_file names an empty file"),
        ("redis://h", "PASSWORD_FILE", "hunter2", "redis.password_file cannot be read"),
        ("redis://h", "USERNAME", "me", "redis.username: there is no password"),
        ("redis://you:hunter2@h", "USERNAME", "me", "redis.username: redis.url has a user, too"),
    ];
    for (url, key, value, told) in wrong {
        let launch = stage.launch.clone().env("TIDEGATE_REDIS__URL", url);
        let launch = launch.env(&format!("TIDEGATE_REDIS__{key}"), value);
        for launch in [launch.clone(), launch.arg("check")] {
            let exited = launch.until_exit(PATIENCE).await?;
            assert_eq!(exited.status.code(), Some(64), "{exited:?}");
            assert!(exited.lines.len() == 1 && exited.lines[0].contains(told), "{told}: {exited:?}");
            assert!(!exited.lines[0].contains("hunter2"), "{exited:?}");
        }
    }
    Ok(())
}

/// A program is waited for. What it complains of is told, what it prints and gets told is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_fails_is_waited_for() -> Outcome {
    let guarded = Guarded::new(Setting::new(), Place::Program).await?;
    std::fs::remove_file(&guarded.file)?;
    let mut tidegate = guarded.launch().spawn().await?;
    let told = "redis.password_command: sh has failed (exit status: 1): cat: ";
    tidegate.logged(&format!("redis is down: {told}"), PATIENCE).await?;
    let (_, config) = tidegate.get("/config").await?;
    assert!(config.contains("password_command = [\"sh\", \"***\", \"***\"]"), "{config}");
    guarded.mount("one")?;
    tidegate.readiness(200, PATIENCE).await?;
    guarded.push(0..100).await?;
    guarded.applied(&tidegate, 100).await
}

/// A login as LDAP has it: the password is sent, and looked at by the forge alone.
struct Forged {
    stage: Stage,
    file: PathBuf,
    right: Arc<Mutex<String>>,
    _folder: tempfile::TempDir,
}

impl Forged {
    async fn new() -> anyhow::Result<Self> {
        let stage = Setting::new().forged().stage().await?;
        let folder = tempfile::tempdir()?;
        let right = Arc::new(Mutex::new("one".to_owned()));
        let forged = Forged { stage, file: folder.path().join("uri"), right, _folder: folder };
        let right = Arc::clone(&forged.right);
        let is_wrong = move |command: &Document| {
            let payload = command.get_binary_generic("payload").map(Vec::as_slice).unwrap_or_default();
            !payload.ends_with(format!("\0{}", right.lock()).as_bytes())
        };
        let wrong = command_error(18, "AuthenticationFailed", "Authentication failed.");
        forged.stage.forge().rule(On::command("saslStart").when(is_wrong).answer(wrong));
        let payload = Binary { subtype: BinarySubtype::Generic, bytes: Vec::new() };
        let done = doc! { "ok": 1.0, "conversationId": 1, "done": true, "payload": payload };
        forged.stage.forge().rule(On::command("saslStart").answer(done));
        forged.mount("one")?;
        Ok(forged)
    }

    fn mount(&self, password: &str) -> Outcome {
        let uri = self.stage.forge().uri().replace("mongodb://", &format!("mongodb://app:{password}@"));
        Ok(std::fs::write(&self.file, format!("{uri}&authMechanism=PLAIN\n"))?)
    }

    fn launch(&self) -> Launch {
        self.stage.launch.clone().env("TIDEGATE_MONGODB__URI_FILE", self.file.display().to_string())
    }

    /// Another password is right, and all connections have to log in again.
    fn set(&self, password: &str) {
        password.clone_into(&mut self.right.lock());
        self.stage.forge().cut();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_of_mongodb_can_change_at_any_time() -> Outcome {
    let forged = Forged::new().await?;
    let stage = &forged.stage;
    let mut tidegate = stage.start_as(&forged.launch()).await?;
    stage.push((0..100).map(|n| logged("doc", n))).await?;
    stage.settled(&tidegate).await?;
    // Whatever is told too late is refused, and found when it is there.
    for (round, password) in ["two", "three"].into_iter().enumerate() {
        let first = 100 + round * 1000;
        forged.set(password);
        stage.push((first..first + 1000).map(|n| logged("doc", n))).await?;
        refused(&tidegate, "mongodb").await?;
        forged.mount(password)?;
        stage.settled(&tidegate).await?;
        tidegate.readiness(200, PATIENCE).await?;
        assert_exact(stage.document("doc").await?.as_ref(), first + 1000);
    }
    assert_eq!(lines_with(&tidegate, "took the queue over"), 1, "{:#?}", tidegate.log());
    // One that is told in time is used on SIGHUP.
    forged.mount("four")?;
    let renewed = lines_with(&tidegate, "connections are opened anew");
    tidegate.signal(Signal::SIGHUP)?;
    eventually(PATIENCE, "the new URI to be used", async || {
        ensure!(lines_with(&tidegate, "connections are opened anew") > renewed);
        anyhow::Ok(())
    })
    .await;
    forged.set("four");
    stage.push((2100..3000).map(|n| logged("doc", n))).await?;
    stage.settled(&tidegate).await?;
    assert_exact(stage.document("doc").await?.as_ref(), 3000);
    assert!(lines_with(&tidegate, "refuses the credentials") <= 2, "{:#?}", tidegate.log());
    Ok(())
}

/// At the start nothing is waited for; and another server is not gone to while it runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_start_ends_and_other_servers_need_one() -> Outcome {
    let forged = Forged::new().await?;
    forged.mount("other")?;
    let exited = forged.launch().until_exit(PATIENCE).await?;
    let errors: Vec<_> = exited.lines.iter().filter(|line| line.contains("ERROR")).collect();
    assert_eq!((exited.status.code(), errors.len()), (Some(1), 1), "{exited:?}");
    assert!(errors[0].contains("MongoDB refuses the credentials"), "{exited:?}");

    forged.mount("one")?;
    let mut tidegate = forged.stage.start_as(&forged.launch()).await?;
    std::fs::write(&forged.file, "mongodb://127.0.0.1:1/")?;
    tidegate.signal(Signal::SIGHUP)?;
    tidegate.logged("needs a restart: mongodb.uri", PATIENCE).await?;
    forged.stage.push((0..100).map(|n| logged("doc", n))).await?;
    forged.stage.settled(&tidegate).await?;
    Ok(())
}

/// The driver shows the certificate and names the mechanism; that the server takes it, the forge says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mongodb_takes_a_certificate_for_a_login() -> Outcome {
    let stage = Setting::new().forged().stage().await?;
    let authority = Authority::new()?;
    let tls = Tls::before(stage.forge().address(), &authority.issue("localhost")?, Some(&authority)).await?;
    let login = stage.forge().rule(On::command("authenticate").answer(doc! { "ok": 1.0 }));
    let uri = tls.uri("localhost", &authority.file(), Some(&authority.issue("tidegate")?.both));
    let launch = stage.launch.clone().env("TIDEGATE_MONGODB__URI", uri + "&authMechanism=MONGODB-X509");
    let tidegate = stage.start_as(&launch).await?;
    stage.push((0..100).map(|n| logged("doc", n))).await?;
    stage.settled(&tidegate).await?;
    login.hit(1, PATIENCE).await?;
    Ok(())
}
