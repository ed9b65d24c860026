//! Defines the arguments of `tidegate status` and `tidegate healthcheck`.

use clap::Args;

use super::Options;

/// Which instance is asked.
#[derive(Debug, Clone, Default, Args)]
pub struct InstancePlace {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub options: Options,
    /// Where the instance serves HTTP, such as http://127.0.0.1:9464; no configuration is read then
    /// [default: http.listen of the configuration]
    // A plain string: clap would repeat the value in its own error.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// Arguments of `status`.
#[derive(Debug, Clone, Default, Args)]
pub struct ShowStatus {
    /// Which instance.
    #[command(flatten)]
    pub place: InstancePlace,
    /// Ask every second until Ctrl-C; a terminal is drawn anew each time
    #[arg(long)]
    pub watch: bool,
    /// Print what /status says, as JSON; with --watch, a line a second
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `healthcheck`.
#[derive(Debug, Clone, Default, Args)]
pub struct Healthcheck {
    /// Which instance.
    #[command(flatten)]
    pub place: InstancePlace,
    /// Ask whether it is ready (/readyz), not only whether it lives (/livez)
    #[arg(long)]
    pub ready: bool,
}
