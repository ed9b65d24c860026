//! Asks a running instance over HTTP, for a person or a container: `tidegate status` and `tidegate healthcheck`.

mod endpoint;
mod health;

use self::endpoint::Endpoint;
pub use self::health::healthcheck;
use crate::cli::Cli;
use crate::cli::remote::Place;

/// Where the instance that is meant serves HTTP.
fn endpoint(cli: &Cli, place: &Place) -> Result<Endpoint, String> {
    match &place.url {
        // A person at another machine has no configuration.
        Some(url) => Endpoint::of_url(url),
        None => Endpoint::listening(cli.load().map_err(|error| error.to_string())?.http.listen),
    }
}
