//! Asks a running instance over HTTP, for a person or a container: `tidegate status` and `tidegate healthcheck`.

mod answer;
mod endpoint;
mod health;
mod report;
mod status;

use self::endpoint::Endpoint;
pub use self::health::healthcheck;
pub use self::status::status;
use crate::cli::Cli;
use crate::cli::remote::InstancePlace;

/// Exit code of `status` if the state is a warning or bad.
const EXIT_UNWELL: u8 = 1;

/// Exit code of `status` if no instance answers.
const EXIT_UNREACHED: u8 = 2;

/// Where the instance that is meant serves HTTP.
fn endpoint(cli: &Cli, place: &InstancePlace) -> Result<Endpoint, String> {
    match &place.url {
        // A person at another machine has no configuration.
        Some(url) => Endpoint::of_url(url),
        None => Endpoint::listening(cli.load().map_err(|error| error.to_string())?.http.listen),
    }
}
