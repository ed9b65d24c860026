//! Runs the daemon's process: configuration, logs, runtime, signals.

use std::io::BufWriter;
use std::process::ExitCode;

use tidegate::cli::{Action, Cli, EXIT_CONFIG, EXIT_FAILED, EXIT_OK, check};
use tidegate::cli::{print_completions, print_manual, print_schema};
use tidegate::config::Config;
use tidegate::log::Filter;
use tidegate::{app, dead, log, pausing, preflight, reload, remote};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Large windows come and go; glibc's allocator keeps their memory in pieces, and so resident.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.command {
        Some(Action::Check(asked)) if asked.connect => return connected(&cli).into(),
        Some(Action::Check(_)) => return check(&cli).into(),
        Some(Action::Schema) => return print_schema().into(),
        Some(Action::Completions { shell }) => return print_completions(*shell).into(),
        Some(Action::Man) => return print_manual().into(),
        Some(action @ (Action::Dead(_) | Action::Pause(_) | Action::Resume(_))) => {
            return done_with_servers(&cli, action).into();
        }
        Some(Action::Status(asked)) => {
            return asking(remote::status(&cli, asked, &mut std::io::stdout())).into();
        }
        Some(Action::Healthcheck(asked)) => {
            return asking(remote::healthcheck(&cli, asked, &mut std::io::stdout())).into();
        }
        None => {}
    }
    let config = match cli.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return EXIT_CONFIG.into();
        }
    };
    let filter = match log::init(&config.log) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("{error:#}");
            return EXIT_CONFIG.into();
        }
    };
    match run(cli, config, filter) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `tidegate check --connect`. Gives the exit code.
#[tokio::main(flavor = "current_thread")]
async fn connected(cli: &Cli) -> u8 {
    let _ = rustls::crypto::ring::default_provider().install_default();
    match cli.load() {
        Ok(config) => preflight::preflight(&config, &mut std::io::stdout()).await,
        Err(_) => check(cli),
    }
}

/// What a person asks for that is done with the servers, not with a running instance. Gives the exit code.
#[tokio::main(flavor = "current_thread")]
async fn done_with_servers(cli: &Cli, action: &Action) -> u8 {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = match cli.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return EXIT_CONFIG;
        }
    };
    let mut out = BufWriter::new(std::io::stdout());
    let done = match action {
        Action::Dead(asked) => dead::look_after(&config, asked, &mut out).await,
        Action::Pause(asked) => pausing::pause(&config, asked, &mut out).await,
        Action::Resume(asked) => pausing::resume(&config, asked, &mut out).await,
        _ => Ok(true),
    };
    match done {
        Ok(true) => EXIT_OK,
        Ok(false) => EXIT_FAILED,
        Err(error) => {
            eprintln!("error: {error:#}");
            EXIT_FAILED
        }
    }
}

/// Has an instance asked. Gives the exit code, and waits for no name that is still being looked up.
fn asking(asked: impl Future<Output = u8>) -> u8 {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(asked);
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            eprintln!("error: {error}");
            EXIT_FAILED
        }
    }
}

#[tokio::main]
async fn run(cli: Cli, config: Config, filter: Filter) -> anyhow::Result<()> {
    // The drivers bring no provider of their own, and rustls panics when there is a choice.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let stop = CancellationToken::new();
    let signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(watch(signals, stop.clone()));
    let reload = reload::ReloadSource {
        asked: signal(SignalKind::hangup())?,
        load: Box::new(move || cli.load()),
        filter,
    };
    app::run(config, reload, stop).await
}

/// The first signal asks for an orderly end, the second makes one at once.
async fn watch((mut terminate, mut interrupt): (Signal, Signal), stop: CancellationToken) {
    for signalled in 0.. {
        let (name, code) = tokio::select! {
            _ = terminate.recv() => ("SIGTERM", 143),
            _ = interrupt.recv() => ("SIGINT", 130),
        };
        if signalled > 0 {
            tracing::warn!("{name} again: ending at once; what is unsettled stays in Redis");
            std::process::exit(code);
        }
        tracing::info!("{name}: reading has stopped; flushing what is pending");
        stop.cancel();
    }
}
