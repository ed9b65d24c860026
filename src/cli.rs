//! Reads the command line, and does what `tidegate check` is to do.

pub mod dead;
pub mod remote;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{Config, ConfigError, KeyPath, Problem};
use crate::decode;
use crate::sample;
use crate::sink::check_uri;
use crate::source::Redis;

/// Exit code for a bad configuration or command line: `EX_USAGE` of `sysexits.h`.
pub const EXIT_CONFIG: u8 = 64;

/// Exit code of `check --event` if an event would be a dead letter.
pub const EXIT_DEAD: u8 = 1;

/// Exit code of `check --connect` if a promise would be lost, or nothing drained until something is put right.
pub const EXIT_LOSES: u8 = 1;

/// Exit code of a command that could not do what it was to do, or not all of it.
pub const EXIT_FAILED: u8 = 1;

/// Exit code when all is well.
pub const EXIT_OK: u8 = 0;

/// Where the configuration is unless `--config` says otherwise.
const DEFAULT_CONFIG: &str = "config.toml";

/// Drains Redis queues into MongoDB: batched, coalesced per document, exactly once.
///
/// Events appended to the configured queues are gathered into batches bounded in time and size,
/// folded together per document, and written to MongoDB in bulk. They leave Redis only when MongoDB
/// has them. SIGTERM and SIGINT write what is pending and exit; a second signal exits at once.
#[derive(Debug, Clone, Parser)]
#[command(version, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Action>,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub options: Options,
}

const AFTER_HELP: &str = "\
Every key of the configuration can also be set from the environment, with the table and key joined by
two underscores: TIDEGATE_MONGODB__URI sets `uri` in `[mongodb]`. Flags win over the environment, the
environment over the file, the file over the defaults. Lists are given as TOML:
TIDEGATE_QUEUES='[{ key = \"collabQueue\" }]'. Passwords are safest in a file of their own: see
`url_file` and `uri_file` in the shipped config.toml, which explains every key.

Exit codes: 0 after a complete shutdown, 64 for a bad configuration or command line, 130 and 143 after a
second SIGINT or SIGTERM, 1 otherwise; `check --event` ends with 1 if an event would be a dead letter,
`check --connect` if a promise would be lost, `dead replay` if letters were left, `healthcheck` if not healthy, `status` if
the state is a warning or bad. `status` ends with 2 if no instance answers.";

/// What to do instead of running.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// Check the configuration and print what is in effect, with secrets hidden.
    ///
    /// Connects to nothing. The configuration goes to standard output, warnings and errors to
    /// standard error. Exits with 64 if tidegate would refuse to start.
    ///
    /// With --connect, looks at both servers instead: versions, rights, what would lose events, the collections and their
    /// indexes. Exits with 1 after a warning that would cost a promise, and with 64 if tidegate would refuse to start.
    ///
    /// With --event, shows instead what each sample event becomes: the route that matches, the document,
    /// and the command to MongoDB, or the dead letter. Exits with 1 if one would be a dead letter.
    Check(Check),
    /// Print the JSON Schema of the configuration file, for editors.
    ///
    /// Editors that know TOML complete and check the file by it, if its first line says where it is:
    /// `#:schema tidegate.schema.json`.
    Schema,
    /// Print what completes the command line in a shell.
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, for `man -l -`.
    Man,
    /// Have no event of a queue read until it is resumed, whatever instances there are.
    ///
    /// What was read is written first. Events wait in Redis meanwhile, so see that it has room. The pause is kept in Redis:
    /// it outlasts every instance.
    Pause(Pause),
    /// Let a paused queue go on.
    Resume(Resume),
    /// Look after dead letters: count, list, show, export, import, drop and replay them.
    #[command(subcommand)]
    Dead(Box<dead::DeadCommand>),
    /// Show the state of a running instance, in the words of its page.
    ///
    /// Connects to the instance alone, where the configuration says that it listens. Queues that need attention come first.
    /// Exits with 0 if the state is ok or a notice, with 1 if it is a warning or bad, with 2 if no instance answers within
    /// seconds, and with 64 if the configuration does not say where to ask.
    Status(remote::ShowStatus),
    /// Ask a running instance whether it lives, for containers: exits with 0 or 1 within seconds.
    ///
    /// Prints one line. With --ready, asks whether it is ready: both servers answer, and it is not stopping. Connects to
    /// the instance alone, where the configuration says that it listens.
    Healthcheck(remote::Healthcheck),
}

/// Arguments of `check`.
#[derive(Debug, Clone, Args)]
pub struct Check {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub options: Options,
    /// A file of sample events, one a line, or a single one on several lines; - is standard input
    #[arg(long, value_name = "FILE")]
    pub event: Option<PathBuf>,
    /// Reach both servers with these credentials, and say line by line what is found there; changes nothing
    #[arg(long, conflicts_with = "event")]
    pub connect: bool,
}

/// Arguments of `pause`.
#[derive(Debug, Clone, Args)]
pub struct Pause {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub options: Options,
    /// The queue's key
    pub queue: String,
    /// Why: `/status`, the page and the log say so
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Who pauses it [default: the user that runs this]
    #[arg(long)]
    pub by: Option<String>,
}

/// Arguments of `resume`.
#[derive(Debug, Clone, Args)]
pub struct Resume {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub options: Options,
    /// The queue's key
    pub queue: String,
}

/// Options that are understood before and after a command.
#[derive(Debug, Clone, Default, Args)]
pub struct Options {
    /// The configuration file [default: config.toml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one key, over file and environment; repeatable. Other users of this machine can see it:
    /// not for passwords.
    ///
    /// KEY is dotted, as in `--set batch.max_delay=20ms`.
    // A plain string: clap would repeat the value, perhaps a URL, in its own error.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Cli {
    /// Reads the process's arguments. Prints help, version or what is wrong, and then exits.
    #[must_use]
    pub fn parse() -> Cli {
        Cli::try_parse().unwrap_or_else(|error| {
            // If standard error is gone there is nobody to tell.
            let _ = match is_telling(&error) {
                true => writeln!(io::stderr(), "{NOT_SHOWN}"),
                false => error.print(),
            };
            std::process::exit(i32::from(if error.use_stderr() { EXIT_CONFIG } else { EXIT_OK }))
        })
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> &Path {
        let after = self.after_command().and_then(|options| options.config.as_deref());
        after.or(self.options.config.as_deref()).unwrap_or(Path::new(DEFAULT_CONFIG))
    }

    /// Loads the configuration that file, environment and flags make.
    ///
    /// # Errors
    /// Says everything that is wrong, one line each.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let config = Config::load(self.config_file(), &self.overrides()?, decode::check_literal)?;
        // What servers are reached with is parsed as for a connection.
        let unusable = |text: String| {
            let (origin, key) = (None, KeyPath::default());
            ConfigError::Invalid(vec![Problem { origin, key, message: text }])
        };
        Redis::new(&config.redis).map_err(|error| unusable(error.to_string()))?;
        check_uri(&config.mongodb).map_err(unusable)?;
        Ok(config)
    }

    fn overrides(&self) -> Result<Vec<(String, String)>, ConfigError> {
        let after = self.after_command().map_or(&[][..], |options| &options.set);
        self.options.set.iter().chain(after).map(|flag| key_and_value(flag)).collect()
    }

    fn after_command(&self) -> Option<&Options> {
        match &self.command {
            Some(Action::Check(check)) => Some(&check.options),
            Some(Action::Dead(dead)) => Some(dead.options()),
            Some(Action::Pause(pause)) => Some(&pause.options),
            Some(Action::Resume(resume)) => Some(&resume.options),
            Some(Action::Status(asked)) => Some(&asked.place.options),
            Some(Action::Healthcheck(asked)) => Some(&asked.place.options),
            Some(Action::Schema | Action::Completions { .. } | Action::Man) | None => None,
        }
    }
}

const NOT_SHOWN: &str = "\
error: unexpected argument, not shown because it may hold a password; flags are --set KEY=VALUE

For more information, try '--help'.";

/// Whether clap's message repeats a URL: `--set redis.url redis://...` makes it an unknown command.
fn is_telling(error: &clap::Error) -> bool {
    error.use_stderr() && error.to_string().contains("://")
}

/// Splits `KEY=VALUE`. The error does not repeat it: it may be a URL whose key was forgotten.
fn key_and_value(flag: &str) -> Result<(String, String), ConfigError> {
    match flag.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_owned(), value.to_owned())),
        None => Err(ConfigError::Invalid(vec![Problem {
            origin: Some("--set".into()),
            key: KeyPath::default(),
            message: "needs KEY=VALUE, such as batch.max_ops=500".into(),
        }])),
    }
}

/// `tidegate check`: prints the effective configuration, or what is wrong with it. Gives the exit code.
#[must_use]
pub fn check(cli: &Cli) -> u8 {
    let (out, err) = (&mut io::stdout().lock(), &mut io::stderr().lock());
    match (&cli.command, cli.load()) {
        (Some(Action::Check(Check { event: Some(file), .. })), Ok(config)) => {
            explain(&config, file, out, err)
        }
        (_, loaded) => report(loaded, out, err),
    }
}

/// Prints the schema of the configuration.
#[must_use]
pub fn print_schema() -> u8 {
    printed(writeln!(io::stdout(), "{}", Config::schema()))
}

/// Prints what completes the command line in `shell`.
#[must_use]
pub fn print_completions(shell: clap_complete::Shell) -> u8 {
    clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut io::stdout());
    EXIT_OK
}

/// Prints the manual page.
#[must_use]
pub fn print_manual() -> u8 {
    printed(clap_mangen::Man::new(Cli::command()).render(&mut io::stdout()))
}

/// A file that is cut off must not pass for one that is whole.
fn printed(result: io::Result<()>) -> u8 {
    result.map_or(EXIT_FAILED, |()| EXIT_OK)
}

/// Shows what sample events become.
fn explain(config: &Config, file: &Path, out: &mut impl Write, err: &mut impl Write) -> u8 {
    let text = match sample::read(file) {
        Ok(text) => text,
        Err(error) => {
            let _ = writeln!(err, "error: cannot read the events {}: {error}", file.display());
            return EXIT_CONFIG;
        }
    };
    match sample::explain(config, &text, out) {
        Ok(true) => EXIT_OK,
        // Whoever closed the pipe does not know whether all is well.
        Ok(false) | Err(_) => EXIT_DEAD,
    }
}

/// A closed pipe is not the configuration's fault, so failing to print changes nothing.
fn report(loaded: Result<Config, ConfigError>, out: &mut impl Write, err: &mut impl Write) -> u8 {
    match loaded {
        Ok(config) => {
            let _ = out.write_all(config.redacted_toml().as_bytes());
            let of_uri = check_uri(&config.mongodb).ok().flatten();
            for warning in config.warnings().into_iter().chain(of_uri) {
                let _ = writeln!(err, "warning: {warning}");
            }
            EXIT_OK
        }
        Err(error) => {
            for line in error.to_string().lines() {
                let _ = writeln!(err, "error: {line}");
            }
            EXIT_CONFIG
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cli(arguments: &str) -> Cli {
        Cli::try_parse_from(format!("tidegate {arguments}").split_whitespace()).unwrap()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_are_understood_on_both_sides_of_the_command() {
        let cli = cli("--config a.toml --set lanes.count=2 check --set lanes.count=3");
        assert_eq!(cli.config_file(), Path::new("a.toml"));
        let overrides = cli.overrides().unwrap();
        assert_eq!(overrides, [("lanes.count".into(), "2".into()), ("lanes.count".into(), "3".into())]);
    }

    #[test]
    fn without_arguments_it_runs_the_file_here() {
        assert_eq!(cli("").config_file(), Path::new("config.toml"));
        assert!(cli("").command.is_none());
        assert_eq!(cli("check -c b.toml").config_file(), Path::new("b.toml"));
    }

    #[test]
    fn a_flag_without_a_value_is_refused_and_not_repeated() {
        let error = cli("--set redis://:hunter2@host").overrides().unwrap_err().to_string();
        insta::assert_snapshot!(error, @"--set: needs KEY=VALUE, such as batch.max_ops=500");
    }

    #[test]
    fn a_url_in_the_wrong_place_is_not_repeated() {
        let error = |arguments: &str| {
            Cli::try_parse_from(format!("tidegate {arguments}").split_whitespace()).unwrap_err()
        };
        assert!(is_telling(&error("--set redis.url redis://:hunter2@host")));
        assert!(!is_telling(&error("--bogus")));
        assert!(!is_telling(&error("--help")));
    }

    #[test]
    fn check_reports_and_gives_the_exit_code() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(report(Ok(Config::default()), &mut out, &mut err), EXIT_OK);
        assert!(String::from_utf8(out).unwrap().starts_with("queues = []"));

        let problem = |message: &str| Problem {
            origin: Some("config.toml".into()),
            key: KeyPath::from("lanes.count"),
            message: message.into(),
        };
        let error = ConfigError::Invalid(vec![problem("one"), problem("two")]);
        let mut out = Vec::new();
        assert_eq!(report(Err(error), &mut out, &mut err), EXIT_CONFIG);
        assert!(out.is_empty());
        insta::assert_snapshot!(String::from_utf8(err).unwrap(), @"
        error: config.toml: `lanes.count`: one
        error: config.toml: `lanes.count`: two
        ");
    }
}
